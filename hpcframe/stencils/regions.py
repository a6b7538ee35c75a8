"""Which points a sweep computes while messages are under way, and which after; by which thread: pure, no MPI."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from hpcframe.grid.decomposition import Axes

LEAST_OF_THREAD = 2**16  # points that take much longer than to wake a thread
LEAST_OF_PIECE = 2**18  # points between two looks at the messages that are under way
PIECES = 8

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


def shares(boxes: Sequence[Box], threads: int, with_messages: bool) -> list[list[Box]]:
    """What each thread computes of some boxes, piece after piece. Fewer threads for few points, at least one.

    Args:
        with_messages: messages are under way, which someone must look after between pieces.
    """
    points = sum(_points_of(box) for box in boxes)
    threads = max(1, min(threads, points // LEAST_OF_THREAD))
    pieces = max(1, min(PIECES, points // threads // LEAST_OF_PIECE)) if with_messages else 1
    held: list[list[Box]] = [[] for _ in range(threads)]
    for box in boxes:
        cuts = _cut(box, threads * pieces)
        for number, cut in enumerate(cuts):
            held[number * threads // len(cuts)].append(cut)
    return held


def _points_of(box: Box) -> int:
    return math.prod(end - begin for begin, end in box)


def _cut(box: Box, count: int) -> list[Box]:
    """At most so many boxes of about equal size, along the longest axis; of equal ones the first: rows stay whole."""
    axis = max(range(len(box)), key=lambda axis: (box[axis][1] - box[axis][0], -axis))
    begin, end = box[axis]
    count = max(1, min(count, end - begin))
    at = [begin + (end - begin) * part // count for part in range(count + 1)]
    return [(*box[:axis], (one, two), *box[axis + 1 :]) for one, two in pairwise(at)]
