"""Which points a sweep computes while messages are under way, and which after: pure, no MPI."""

from __future__ import annotations

from collections.abc import Sequence

from hpcframe.grid.decomposition import Axes

Box = tuple[tuple[int, int], ...]  # begin and end along each axis, counted from the first point of the block


def split(points: Axes, margins: Sequence[tuple[int, int]]) -> tuple[list[Box], list[Box]]:
    """The interior, which reads nothing that a neighbour sends, and the borders around it.

    Args:
        points: points of the block along each axis.
        margins: for each axis the layers at the lower and the upper side that read a neighbour's cells.

    Returns:
        Boxes that together hold every point once. Without margins the interior is the whole block; where margins
        leave nothing between them, the whole block is one border.
    """
    whole = tuple((0, count) for count in points)
    if not any(lower or upper for lower, upper in margins):
        return [whole], []
    if any(lower + upper >= count for (lower, upper), count in zip(margins, points, strict=True)):
        return [], [whole]
    borders: list[Box] = []
    box = list(whole)
    for axis, (lower, upper) in enumerate(margins):
        begin, end = box[axis]
        for side in ((begin, begin + lower), (end - upper, end)):
            if side[0] < side[1]:
                borders.append((*box[:axis], side, *box[axis + 1 :]))
        box[axis] = (begin + lower, end - upper)
    return [tuple(box)], borders
