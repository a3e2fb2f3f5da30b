"""Random nets through the oracle.

    python fuzz/nets.py --seed 74       one net: its text, its table
    python fuzz/nets.py --count 200     seeds 0 … 199
    python fuzz/nets.py --minutes 10    as many as fit, from --seed on

A seed decides everything: layers, sizes, batch, weights, images. A net that disagrees or crashes is
made smaller, layer by layer, as long as it still fails, and printed with the command that repeats
it. A seed is printed before it runs, so that even a crash of the process names it. Exit code 1 if
any net failed.
"""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import prod
from random import Random
from typing import TypeAlias

from lanewise.bridge.oracle import compare
from lanewise.bridge.verdict import Comparison
from lanewise.errors import LanewiseError
from lanewise.net.parse import parse
from lanewise.size.shapes import Shape, infer_shapes

BATCHES = (1, 2, 3, 5, 15, 16, 17, 33, 70)
MOST_VALUES = 5000  # of one layer and image: small nets find the same errors, sooner
ATTEMPTS = 20


@dataclass(frozen=True)
class Case:
    """One comparison: the net's lines, and how it is run."""

    seed: int
    lines: tuple[str, ...]
    batch: int
    pixels: bool
    target: str = "host"

    @property
    def text(self) -> str:
        """The net on one line."""
        return "; ".join(self.lines)

    @property
    def command(self) -> str:
        """What repeats it in a shell."""
        words = [f'lanewise verify "{self.text}" --batch {self.batch} --seed {self.seed}']
        words += ["--pixels"] if self.pixels else []
        words += [f"--target {self.target}"] if self.target != "host" else []
        return " ".join(words)


Judge: TypeAlias = Callable[[Case], Comparison]


def ask_oracle(case: Case) -> Comparison:
    """The engine's verdict on a case."""
    graph = parse(case.text, origin=f"seed {case.seed}")
    return compare(
        graph,
        batch=case.batch,
        seed=case.seed,
        pixels=case.pixels,
        target=case.target,
        cache=False,
    )


# ---- the generator ------------------------------------------------------------------------------


def random_case(seed: int) -> Case:
    """The net, batch and kind of images that this seed stands for."""
    random = Random(seed)
    lines = [_input(random)]
    for _ in range(random.randint(1, 6)):
        lines += _fitting(random, lines, SPATIAL)
    if random.random() < 0.3:
        lines.append(random.choice(["globalmax", "globalavg", "globalsum"]))
    lines.append("flatten")
    for _ in range(random.choice([0, 0, 1, 2])):
        features = random.randint(1, random.choice([20, 150]))
        lines += [f"linear {features}", *_fitting(random, lines, POINTWISE)]
    if shape_of(lines)[0] == 1 or random.random() < 0.7:
        lines.append(f"linear {random.randint(2, 12)}{_maybe(random, 0.2, ' nobias')}")
    return Case(seed, tuple(lines), random.choice(BATCHES), random.random() < 0.2)


def shape_of(lines: list[str]) -> Shape:
    """The output shape; SizeError or NetError if these lines are no net."""
    graph = parse("; ".join(lines))
    return infer_shapes(graph)[graph.output.name]


def _fitting(random: Random, lines: list[str], makers: dict[Maker, int]) -> list[str]:
    """One random layer that fits after these lines, or none."""
    shape = shape_of(lines)
    for _ in range(ATTEMPTS):
        (maker,) = random.choices(list(makers), list(makers.values()))
        line = maker(random, shape)
        try:
            if prod(shape_of([*lines, line])) <= MOST_VALUES:
                return [line]
        except LanewiseError:
            continue
    return []


Maker: TypeAlias = Callable[[Random, Shape], str]


def _input(random: Random) -> str:
    sizes = [1, 2, *(random.randint(3, 14) for _ in range(3)), random.randint(15, 40)]
    height, width = random.choice(sizes), random.choice(sizes)
    return f"input {random.choice([1, 1, 2, 3, 4, 5, 8])}x{height}x{width}"


def _conv(random: Random, shape: Shape) -> str:
    groups = random.choice([g for g in range(1, shape[0] + 1) if shape[0] % g == 0])
    groups = groups if random.random() < 0.4 else 1
    most = random.choice([10, 10, 10, 40])
    words = [f"conv {groups * random.randint(1, max(1, most // groups))} k {_pair(random, 5)}"]
    words.append(_maybe(random, 0.4, f"stride {_pair(random, 4)}"))
    words.append(_maybe(random, 0.7, f"pad {_pad(random, 3)}"))
    words.append(_maybe(random, 0.25, f"dilation {_pair(random, 3)}"))
    words.append(f"groups {groups}" if groups > 1 else "")
    words.append(_maybe(random, 0.2, "nobias"))
    return " ".join(filter(None, words))


def _pool(random: Random, shape: Shape) -> str:
    kind = random.choice(["maxpool", "maxpool", "avgpool", "sumpool"])
    words = [f"{kind} {_pair(random, 4)}"]
    words.append(_maybe(random, 0.5, f"stride {_pair(random, 4)}"))
    words.append(_maybe(random, 0.5, f"pad {_pad(random, 2)}"))
    words.append(_maybe(random, 0.4, "ceil"))
    return " ".join(filter(None, words))


def _activation(random: Random, shape: Shape) -> str:
    slope = random.choice([0.01, 0.2])
    return random.choice(["relu", "relu", f"leakyrelu {slope}", "tanh", "sigmoid"])


def _dropout(random: Random, shape: Shape) -> str:
    return f"dropout {random.choice([0.1, 0.5, 0.8])}"


SPATIAL: dict[Maker, int] = {_conv: 7, _pool: 4, _activation: 3, _dropout: 1}
POINTWISE: dict[Maker, int] = {_activation: 4, _dropout: 1}


def _pair(random: Random, largest: int) -> str:
    height = random.randint(1, largest)
    width = height if random.random() < 0.5 else random.randint(1, largest)
    return f"{height}x{width}"


def _pad(random: Random, largest: int) -> str:
    def side() -> int:
        return random.randint(0, largest)

    return random.choice(
        [
            str(side()),
            f"{side()}x{side()}",
            f"{side()}:{side()}x{side()}:{side()}",
            "same",
            "valid",
        ]
    )


def _maybe(random: Random, chance: float, text: str) -> str:
    return text if random.random() < chance else ""


# ---- running and shrinking ----------------------------------------------------------------------


def failure(case: Case, judge: Judge) -> str:
    """Why the case fails: the table or the exception; empty if it does not."""
    try:
        comparison = judge(case)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "" if comparison.ok else comparison.as_text()


def shrink(case: Case, judge: Judge) -> Case:
    """The same failure with as few layers and images as removing one at a time reaches."""
    for smaller in _smaller(case):
        if failure(smaller, judge):
            return shrink(smaller, judge)
    return case


def _smaller(case: Case) -> Iterator[Case]:
    for position in range(1, len(case.lines)):
        lines = [*case.lines[:position], *case.lines[position + 1 :]]
        try:
            if len(shape_of(lines)) == 1:
                yield replace(case, lines=tuple(lines))
        except LanewiseError:
            continue
    for batch in sorted({1, case.batch // 2} - {0, case.batch}):
        yield replace(case, batch=batch)
    if case.pixels:
        yield replace(case, pixels=False)


def seeds(arguments: Namespace) -> Iterator[int]:
    """The seeds to run, in order, until the count or the minutes are used up."""
    end = time.monotonic() + 60 * arguments.minutes if arguments.minutes else None
    count = arguments.count or (1 if end is None else sys.maxsize)
    for seed in range(arguments.seed, arguments.seed + count):
        if end is not None and time.monotonic() > end:
            return
        yield seed


def main(arguments: list[str] | None = None, judge: Judge = ask_oracle) -> int:
    """Runs the command line; 1 if a net failed."""
    parser = ArgumentParser(description="Random nets through the oracle.")
    parser.add_argument("--seed", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--count", type=int, default=0, help="how many seeds (1)")
    parser.add_argument("--minutes", type=float, default=0.0, help="stop after this time")
    parser.add_argument("--target", default="host", help="host, avx512 or avx2")
    chosen = parser.parse_args(arguments)
    one = not (chosen.count or chosen.minutes)
    failed = []
    for seed in seeds(chosen):
        case = replace(random_case(seed), target=chosen.target)
        if not _run(case, judge, verbose=one):
            failed.append(seed)
    if not one:
        print(f"\nfailed seeds: {', '.join(map(str, failed)) or 'none'}")
    return 1 if failed else 0


def _run(case: Case, judge: Judge, verbose: bool) -> bool:
    print(f"\n{case.command}" if verbose else f"seed {case.seed}: {case.text}", flush=True)
    reason = failure(case, judge)
    if not reason:
        print(judge(case).as_text() if verbose else "  ok", flush=True)
        return True
    small = shrink(case, judge)
    print(f"FAILS\n{reason}\n\nsmallest:\n{small.command}\n{failure(small, judge)}", flush=True)
    return False


if __name__ == "__main__":
    sys.exit(main())
