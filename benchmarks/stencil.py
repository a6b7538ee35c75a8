"""Star Laplacians of 7, 13 and 25 points on a cube, one thread: hpcframe against Devito, numba and NumPy.

All are checked against an independent solution first. Then they are timed in turn, round after round, so that a
machine which slows down for a while slows down all of them; hpcframe is compared with Devito within each round.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.update(NUMBA_NUM_THREADS="1", OMP_NUM_THREADS="1")  # before anything loads numba

import machine
import numpy as np
import numpy.typing as npt
from contenders import CONTENDERS, Contender, K
from measuring import ratio, summary
from remote import Absent, Failed
from stars import WEIGHTS
from triad import Triad

ORDERS = {7: 2, 13: 4, 25: 8}  # by points of the star
CHECKED_STEPS = 2
TOLERANCE = 1e-9  # for values between 0 and 1; Devito has the weights to nine digits
SECONDS = 0.3  # of work for a contender in a round, about


def main() -> None:
    """Measure, print, write."""
    options = arguments()
    before = machine.describe()
    triad = Triad()
    skipped: dict[str, str] = {}
    stars = [measure(options, points, triad, skipped) for points in options.points]
    report = {
        "benchmark": "stencil",
        "size": options.size,
        "dtype": "float64",
        "threads": 1,
        "k": K,
        "machine": before,
        "load_average_after": os.getloadavg(),
        "skipped": skipped,
        "stars": stars,
    }
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    if options.markdown:
        print(markdown(report))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256, help="points on a side of the cube (256)")
    parser.add_argument("--rounds", type=int, default=7, help="how often each contender is timed (7)")
    parser.add_argument("--points", type=int, nargs="+", default=list(ORDERS), choices=ORDERS, help="which stars (all)")
    parser.add_argument("--only", nargs="+", default=list(CONTENDERS), choices=CONTENDERS, help="contenders (all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements and the machine to FILE")
    parser.add_argument("--markdown", action="store_true", help="print the table for the documentation")
    options = parser.parse_args()
    if options.size < 32 or options.rounds < 1:
        parser.error("--size must be at least 32 and --rounds at least 1")
    return options


# -- measuring --------------------------------------------------------------------------------------------------


def measure(options: argparse.Namespace, points: int, triad: Triad, skipped: dict[str, str]) -> dict[str, Any]:
    """All contenders on one star: built, checked, timed, closed."""
    order = ORDERS[points]
    contenders = build(options, order, skipped)
    try:
        differences = check(contenders, options.size, order)
        measured = race(contenders, options, triad)
    finally:
        for contender in contenders.values():
            contender.close()
    bandwidth = measured.pop("triad")
    found = {
        name: {**summary(rates), "largest_difference": differences[name], **contenders[name].details}
        for name, rates in measured.items()
    }
    for name, rates in found.items():
        tell(f"{points:2} points  {name:14} GLUP/s: best {rates['best']:.3f}, median {rates['median']:.3f}")
    report = {"points": points, "order": order, "GLUP/s": found, "triad_GB/s": summary(bandwidth)}
    if {"hpcframe", "Devito"} <= set(measured):
        report["hpcframe/Devito"] = ratio(measured["hpcframe"], measured["Devito"])
    return report


def build(options: argparse.Namespace, order: int, skipped: dict[str, str]) -> dict[str, Contender]:
    """The contenders that are asked for and installed."""
    contenders = {}
    for name in options.only:
        try:
            contenders[name] = CONTENDERS[name](options.size, order)
        except Absent as absent:
            if name not in skipped:
                tell(f"{name} is skipped: {absent}")
            skipped[name] = str(absent)
    return contenders


def check(contenders: dict[str, Contender], size: int, order: int) -> dict[str, float]:
    """Largest difference of each contender from the exact discrete solution; ends the program if one is wrong.

    The margin of zeros is so wide that what lies beyond the domain is not felt: all boundary conditions agree.
    """
    margin = CHECKED_STEPS * (len(WEIGHTS[order]) - 1)
    cube = np.zeros((size,) * 3)
    cube[(slice(margin, -margin),) * 3] = np.random.default_rng(1).random((size - 2 * margin,) * 3)
    expected = solution(cube, order)
    differences = {}
    for name, contender in contenders.items():
        contender.load(cube)
        contender.run(CHECKED_STEPS)
        differences[name] = float(np.abs(contender.result() - expected).max())
        if not differences[name] < TOLERANCE:
            raise SystemExit(f"{name}, order {order}: off by {differences[name]:g} after {CHECKED_STEPS} steps")
    return differences


def solution(cube: npt.NDArray, order: int) -> npt.NDArray:
    """The steps by Fourier transform: each mode is multiplied by 1 + K * (symbol of the difference operator)."""
    centre, *others = WEIGHTS[order]
    nx, ny, nz = cube.shape
    frequencies = np.ix_(np.fft.fftfreq(nx), np.fft.fftfreq(ny), np.fft.rfftfreq(nz))
    cosines = (2 * weight * np.cos(2 * np.pi * d * f) for f in frequencies for d, weight in enumerate(others, 1))
    symbol = sum(cosines, start=3 * centre)
    return np.fft.irfftn(np.fft.rfftn(cube) * (1 + K * symbol) ** CHECKED_STEPS, s=cube.shape, axes=(0, 1, 2))


def race(contenders: dict[str, Contender], options: argparse.Namespace, triad: Triad) -> dict[str, list[float]]:
    """GLUP/s of each contender in each round, and GB/s of the triad."""
    steps = {name: 2 * max(1, round(SECONDS / contender.run(2))) for name, contender in contenders.items()}
    measured: dict[str, list[float]] = {name: [] for name in (*contenders, "triad")}
    for _ in range(options.rounds):
        measured["triad"].append(triad.run())
        for name, contender in contenders.items():
            measured[name].append(options.size**3 * steps[name] / contender.run(steps[name]) / 1e9)
    return measured


# -- reporting --------------------------------------------------------------------------------------------------


def tell(line: str) -> None:
    """Progress, apart from the table."""
    print(line, file=sys.stderr, flush=True)


def markdown(report: dict[str, Any]) -> str:
    """The table for the documentation."""
    stars = report["stars"]
    names = [name for name in CONTENDERS if any(name in star["GLUP/s"] for star in stars)]
    rows = [
        ["GLUP/s, best (median)", *(f"{star['points']} points" for star in stars)],
        ["---"] * (1 + len(stars)),
        *([name, *(cell(star["GLUP/s"].get(name)) for star in stars)] for name in names),
    ]
    if any("hpcframe/Devito" in star for star in stars):
        rows.append(["hpcframe / Devito", *(ratio_cell(star.get("hpcframe/Devito")) for star in stars)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n\n" + caption(report)


def cell(rates: dict[str, Any] | None) -> str:
    return f"{rates['best']:.2f} ({rates['median']:.2f})" if rates else "-"


def ratio_cell(rates: dict[str, Any] | None) -> str:
    return f"{rates['median']:.2f} ({rates['least']:.2f} to {rates['most']:.2f})" if rates else "-"


def caption(report: dict[str, Any]) -> str:
    """What the table was measured on, in sentences."""
    about = report["machine"]
    stars = report["stars"]
    bandwidth = max(star["triad_GB/s"]["best"] for star in stars)
    lines = [
        f"{report['size']}^3 points, float64, one thread, {len(stars[0]['triad_GB/s']['rounds'])} interleaved rounds.",
        f"{about['cpu']} ({', '.join(about['flags'])}), {about['date'][:10]}.",
        f"STREAM triad: {bandwidth:.0f} GB/s on one thread.",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in about["versions"].items()) + ".",
    ]
    devito = next((star["GLUP/s"]["Devito"] for star in stars if "Devito" in star["GLUP/s"]), None)
    if devito:
        flags = " ".join(devito["flags"])
        lines.append(f"Devito {devito['version']}: {devito['compiler']}, its own flags ({flags}) and block sizes.")
    if any("hpcframe/Devito" in star for star in stars):
        lines.append("The last row is the median (and range) of the ratios within each round.")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        main()
    except Failed as failed:
        sys.exit(str(failed))
