"""Convolutions of many sizes on one core: does the speed fall off somewhere?

    python bench/sweep.py                      the whole grid (some minutes)
    python bench/sweep.py --quick              a part of it (under a minute)
    python bench/sweep.py --only "k3 16→"      only layers whose label holds these words
    python bench/sweep.py --json sweep.json    the same for programs
    python bench/sweep.py --keep DIR --seconds 60    a part; the same command goes on where it ended
    python bench/sweep.py --keep DIR --docs    the block for docs/performance.md, when all are there

A point is one layer as the engine runs it on 16 images: the calls of its forward direction, of the
gradient of its input and of its weights, taken from the plan of a net of that layer alone. In each
round every point of a layer is timed next to a loop of multiply–adds that never leaves the
registers; told is its share of that peak, the median of the rounds, on one core, in processor time
(other work on the machine counts less). Arrays are as warm as the call before left them.

A point under half of the peak is listed with what its kernels need besides multiply–adds
(`needs.py`), each as the share of the peak that it alone would allow: `loads` of vectors and
numbers among the multiply–adds, `turns` of loops, `stores`, `chains` of multiply–adds that wait
for one another, lines from the `second` cache, from the `third` and from `memory` in rows, and
those that come `alone` (counted by running the kernel beside a model of the caches), `lanes`: sums
of lanes and transpositions. `all` is what they take together, each at the speed that was measured
in the same run: the median of measurements beside every layer. A point is explained where that is
at least three quarters of the time it took. For depthwise convolutions the table shows the share of
what the strictest need allows (lines from everywhere being one) instead of the peak's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import inf
from pathlib import Path
from textwrap import fill

from kept import Kept
from lanewise.native.peak import PeakMeter
from lanewise.native.target import Target, find_target
from lanewise.size.table import aligned as table_of
from measure import circumstances, load
from one_core import NEEDS, Machine, MachineMeter
from one_layer import DIRECTIONS, Layer, Measured, points

PIXELS = (4, 8, 16, 32, 64)
MOST_PRODUCTS = 2.6e9  # of a slice of 16 images; more would take too long
ENOUGH, EXPLAINED = 0.5, 0.75
SQUARE = [(1, 16), (3, 16), (16, 16), (32, 32), (64, 64), (128, 128), (256, 256)]
OTHERS = [(1, 1), (16, 64), (64, 16), (64, 256), (256, 64)]
CHANNELS = (16, 64, 256)
#: what the table calls the directions
TITLES = dict(zip(DIRECTIONS, ("y", "dx", "dw"), strict=True))
#: the layers that docs/performance.md shows
PAGE = (
    *(f"k1 {pair}" for pair in ("3→16", "16→16", "64→64", "256→256", "64→256")),
    *(f"k3 {pair}" for pair in ("1→16", "3→16", "16→16", "32→32", "64→64", "128→128")),
    *(f"k3 {pair}" for pair in ("256→256", "256→64")),
    *("k5 1→16", "k5 16→16", "k5 64→64", "k7 3→16", "k7 64→64", "k1 /2 64→64"),
    *(f"k3 /2 {pair}" for pair in ("16→16", "64→64", "256→256")),
    *("k5 /2 32→32", "k3 depthwise 64", "k3 /2 depthwise 64", "k5 depthwise 64"),
    "k7 depthwise 64",
)


def layers(quick: bool) -> Iterator[Layer]:
    """The grid."""
    for kernel in (1, 3, 5, 7):
        pairs = SQUARE + OTHERS if kernel < 5 else SQUARE
        for channels, kernels in pairs[::2] if quick else pairs:
            yield Layer(channels, kernels, kernel)
    for kernel in (1, 3) if quick else (1, 3, 5, 7):
        pairs = SQUARE if kernel < 5 else SQUARE[1:6:2]
        for channels, kernels in pairs[1::3] if quick else pairs:
            yield Layer(channels, kernels, kernel, 2)
    for kernel in (3, 5, 7):
        for stride in (1, 2):
            for channels in CHANNELS[1:2] if quick else CHANNELS:
                yield Layer(channels, 0, kernel, stride)


# ---- all of them ----


def measured(
    layer: Layer, target: Target, meter: PeakMeter, machines: MachineMeter, options: Namespace
) -> list[Measured]:
    """The points of a layer, each round next to the peak, and the machine beside them."""
    sizes = [n for n in PIXELS if layer.products(n) <= MOST_PRODUCTS]
    ready = [points(layer, size, target) for size in sizes]
    products = [[point.products for point in some] for some in ready]
    for _ in range(options.rounds):
        for some, each in zip(ready, products, strict=True):
            peak = meter.measure()
            for point, operations in zip(some, each, strict=True):
                point.measure(peak, options.turn, operations)
    for _ in range(2):
        machines.measure(meter.measure())
    rooms = machines.machine().rooms
    return [point.measured(ENOUGH, rooms) for some in ready for point in some]


def sweep(
    wanted: Sequence[Layer],
    target: Target,
    machines: MachineMeter,
    kept: Kept,
    options: Namespace,
) -> Iterator[list[Measured]]:
    """The points of one layer after the other, until the time is over."""
    meter, end = PeakMeter(target, 1), time.monotonic() + options.seconds
    for layer in wanted:
        known = kept.read(layer)
        if known:
            machines.rounds += known[1]
            yield known[0]
        elif time.monotonic() < end:
            before = len(machines.rounds)
            found = measured(layer, target, meter, machines, options)
            kept.write(layer, found, machines.rounds[before:])
            yield found


# ---- tables -------------------------------------------------------------------------------------


def shown(points: Sequence[Measured], machine: Machine) -> list[str]:
    """The cells of a layer's line: three directions, each at every size."""
    cells = {(point.direction, point.size): point for point in points}

    def cell(direction: str, size: int) -> str:
        point = cells.get((direction, size))
        if point is None:
            return "·"
        share = point.share
        if not point.layer.kernels:
            share /= point.bound(machine)
        return f"{100 * share:.0f}"

    return [cell(direction, size) for direction in DIRECTIONS for size in PIXELS]


def heading() -> list[str]:
    """Forward (y), input gradient (dx), weight gradient (dw), each at every size."""
    blank = [""] * (len(PIXELS) - 1)
    titles = [text for title in TITLES.values() for text in (title, *blank)]
    return [line("", titles), line("pixels", [str(size) for _ in DIRECTIONS for size in PIXELS])]


def line(label: str, cells: Sequence[str]) -> str:
    """One line of the table: it is printed as soon as it is known."""
    groups = [cells[i : i + len(PIXELS)] for i in range(0, len(cells), len(PIXELS))]
    cells_of = " ".join("".join(f"{cell:>4}" for cell in group) for group in groups)
    return f"{label:<18}{cells_of}".rstrip()


def explained(points: Sequence[Measured], machine: Machine) -> list[str]:
    """The points under half of the peak, the slowest first: what is reached, what all needs allow,
    and the needs that take at least a tenth of that time, with what each alone would allow."""
    rows: list[tuple[str, ...]] = [("layer", "px", "", "%", "all", "of which")]
    for point in sorted(points, key=lambda one: one.share):
        if point.share >= ENOUGH:
            continue
        limits = point.limits(machine)
        needs = ", ".join(f"{name} {100 * limits[name]:.0f}" for name in weighty(limits))
        if point.share < EXPLAINED * limits["all"]:
            needs += "; not explained"
        percent = f"{100 * point.share:.0f}", f"{100 * limits['all']:.0f}"
        rows.append((point.layer.label, str(point.size), point.direction, *percent, needs))
    return table_of(rows, (False, True, False, True, True, False))


def weighty(limits: Mapping[str, float]) -> list[str]:
    """The needs that take at least a tenth of the time of all, the longest first."""
    times = {name: 1 / limits[name] for name in NEEDS[:-1] if name in limits}
    work = times.get("loads", 1.0)
    chains = times.get("chains", 0.0) - work - times.get("turns", 0.0)
    times |= {"loads": work - 1.0, "chains": chains}  # beside the products
    most = sorted(times, key=lambda name: -times[name])
    return [name for name in most if times[name] >= 0.1 / limits["all"] and name in limits]


def told(points: Sequence[Measured], machine: Machine) -> str:
    """How many reach half, the medians, how many are slow and why, and how well that is known."""
    plain = [point for point in points if point.layer.kernels]
    slow = [point for point in plain if point.share < ENOUGH]
    ratios = [point.share / point.limits(machine)["all"] for point in slow]
    near = sum(EXPLAINED <= ratio <= 1 / EXPLAINED for ratio in ratios)
    over = sum(ratio > 1 / EXPLAINED for ratio in ratios)
    causes = Counter(next(iter(weighty(one.limits(machine))), "loads") for one in slow)
    ones = sum(point.layer.kernel == 1 for point in slow)
    why = ", ".join(f"{name} {count}" for name, count in causes.most_common())
    return "\n".join(
        [
            f"{len(plain)} points that are not depthwise, {len(plain) - len(slow)} at "
            f"{100 * ENOUGH:.0f} % or more, {len(slow)} under ({ones} of them 1 × 1).",
            *medians(plain),
            f"What the slow ones need tells the time of {near} within a factor of "
            f"{1 / EXPLAINED:.2f}; {over} were faster",
            f"than that, {len(slow) - near - over} slower and not explained.",
            f"What takes most beside multiply–adds: {why or 'nothing'}.",
            *depthwise(points, machine),
        ]
    )


def depthwise(points: Sequence[Measured], machine: Machine) -> list[str]:
    """How near depthwise layers come to what they need most."""
    shares = [one.share / one.bound(machine) for one in points if not one.layer.kernels]
    if not shares:
        return []
    enough = sum(share >= ENOUGH for share in shares)
    return [
        f"{len(shares)} depthwise points, {enough} at {100 * ENOUGH:.0f} % or more of what the "
        f"strictest need allows, the median at {100 * statistics.median(shares):.0f} %."
    ]


def is_large(point: Measured) -> bool:
    """Whether its kernels are larger than 1 × 1 and channels at least 16."""
    return point.layer.kernel > 1 and min(point.layer.channels, point.layer.kernels) >= 16


def medians(plain: Sequence[Measured]) -> list[str]:
    """Of each direction, and of kernels larger than 1 × 1 with many channels."""

    def median(some: Sequence[Measured]) -> str:
        shares = [point.share for point in some]
        return f"{100 * statistics.median(shares):.0f} %" if shares else "·"

    ways = [[one for one in plain if one.direction == name] for name in DIRECTIONS]
    large = [one for one in plain if is_large(one)]
    under = sum(one.share < ENOUGH for one in large)
    forward, back, weight = map(median, ways)
    told = [f"Medians: {forward} forward, {back} input gradients, {weight} weight gradients."]
    if large:
        told[0] = f"{told[0][:-1]}; {median(large)} for the {len(large)}"
        told.append(
            f"with kernels larger than 1 × 1 and at least 16 channels, of which {under} are slow."
        )
    return told


def large_and_slow(points: Sequence[Measured]) -> str:
    """The points under half with kernels larger than 1 × 1 and at least 16 channels, by layers."""
    found: dict[str, list[str]] = {}
    for one in points:
        if is_large(one) and one.share < ENOUGH:
            title = TITLES[one.direction]
            found.setdefault(one.layer.label, []).append(f"{title} {one.size}")
    told = "; ".join(f"{label} {', '.join(some)}" for label, some in found.items())
    return fill(
        f"Slow, of kernels larger than 1 × 1 and at least 16 channels: {told or 'none'}.", 96
    )


def block(points: Sequence[Measured], machine: Machine, at: str) -> str:
    """What docs/performance.md shows: a part of the table, the counts, the exceptions."""
    layers = {point.layer.label: point.layer for point in points}
    rows = [
        line(label, shown([one for one in points if one.layer == layers[label]], machine))
        for label in PAGE
        if label in layers
    ]
    told_of = f"{at}; {machine}", "", *heading(), *rows, "", told(points, machine)
    return "\n".join([*told_of, large_and_slow(points), unexplained(points, machine)])


def unexplained(points: Sequence[Measured], machine: Machine) -> str:
    """The slow points that took longer than their needs tell."""
    found = [
        f"{one.layer.label} {TITLES[one.direction]} {one.size}"
        for one in points
        if one.layer.kernels and one.share < min(ENOUGH, EXPLAINED * one.limits(machine)["all"])
    ]
    return fill(f"Not explained: {'; '.join(found) or 'none'}.", 96)


def as_json(points: Sequence[Measured], machine: Machine) -> list[dict[str, object]]:
    """The same for programs."""
    return [
        {
            "layer": point.layer.label,
            "pixels": point.size,
            "direction": point.direction,
            "share": round(point.share, 3),
            "microseconds": round(1e6 * statistics.median(point.seconds), 2),
            "limits": {name: round(share, 3) for name, share in point.limits(machine).items()},
            "kernels": point.kernels,
        }
        for point in points
    ]


def one_core(core: int | None) -> str:
    """Stay on one core, where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        return "one thread"
    chosen = max(os.sched_getaffinity(0)) if core is None else core
    os.sched_setaffinity(0, {chosen})
    return f"core {chosen}"


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a part of the grid")
    parser.add_argument("--only", default="", help="part of a layer's label")
    parser.add_argument("--target", default="host", choices=["host", "avx512", "avx2", "neon"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--turn", type=float, default=0.008, help="seconds of a turn")
    parser.add_argument("--core", type=int, help="which core to stay on")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="what is known of each layer")
    parser.add_argument("--seconds", type=float, default=inf, help="begin no layer after so many")
    parser.add_argument("--docs", action="store_true", help="print the block for the docs alone")
    options = parser.parse_args()
    before, where, target = load(), one_core(options.core), find_target(options.target)
    wanted = [one for one in layers(options.quick) if options.only in one.label]
    machines, at = MachineMeter(target), circumstances(before).commit

    def say(text: str) -> None:
        if not options.docs:
            print(text, flush=True)

    say(f"{where}, {target.name}")
    say("Percent of the peak; depthwise: of what the strictest need allows.\n")
    say("\n".join(heading()))
    done: list[Measured] = []
    count = 0
    for some in sweep(wanted, target, machines, Kept(options.keep, at), options):
        say(line(some[0].layer.label, shown(some, machines.machine())))
        done += some
        count += 1
    if count < len(wanted):
        print(f"\n{count} of {len(wanted)} layers are there: the same command goes on.")
        return
    machine = machines.machine()
    if options.docs:
        print(block(done, machine, at))
    else:
        print(summary(done, machine), "\n")
        print("\n".join(circumstances(before).lines()))
    if options.json:
        figures = {"peak": machine.peak, "at": at, "points": as_json(done, machine)}
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def summary(points: Sequence[Measured], machine: Machine) -> str:
    """The machine, the counts, and the slow points with their reasons."""
    slow = [point for point in points if point.share < ENOUGH]
    parts = f"\n{machine}", told(points, machine), large_and_slow(points)
    return "\n\n".join([*parts, "\n".join(explained(slow, machine)) if slow else ""])


if __name__ == "__main__":
    main()
