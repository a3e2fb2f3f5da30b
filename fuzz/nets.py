"""Random nets through the oracle.

    python fuzz/nets.py --seed 74       one net: its text, its table
    python fuzz/nets.py --count 200     seeds 0 … 199
    python fuzz/nets.py --minutes 10    as many as fit, from --seed on
    python fuzz/nets.py --count 50 --winograd    convolutions by Winograd's algorithm, all that can
                                        be, not only where it is quicker
    python fuzz/nets.py --count 50 --matrices    in bf16, convolutions by small matrices, all that
                                        can be; written out where the processor has none
    python fuzz/nets.py --count 50 --inference      the logits alone, by the program for inference
    python fuzz/nets.py --count 50 --one-by-one     and by the program for single images
    python fuzz/nets.py --count 50 --small-caches    as if caches were tiny: what may be made piece
                                        by piece is, in the smallest pieces

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
from random import Random
from typing import TypeAlias

from random_nets import Block, Items, random_net, shape_of, text_of

from lanewise.bridge.oracle import compare
from lanewise.bridge.verdict import Comparison
from lanewise.errors import LanewiseError
from lanewise.native import algorithms, chains, matrix_ways
from lanewise.native.latency import winograd
from lanewise.native.rules import batch_norm, pointwise, units
from lanewise.net.parse import parse

__all__ = ["Block", "Case", "main", "random_case", "shrink", "text_of"]

BATCHES = (1, 2, 3, 5, 15, 16, 17, 33, 70)


@dataclass(frozen=True)
class Case:
    """One comparison: the net's lines and blocks, and how it is run."""

    seed: int
    lines: Items
    batch: int
    pixels: bool
    target: str = "host"
    precision: str = "fp32"
    exact: bool = False
    training: bool = True
    one_by_one: bool = False  # in inference

    @property
    def text(self) -> str:
        """The net on one line."""
        return text_of(self.lines)

    @property
    def command(self) -> str:
        """What repeats it in a shell."""
        return self._verify if self.training else self._fuzz

    @property
    def _fuzz(self) -> str:
        """`lanewise verify` trains; the net may have been made smaller since this one was drawn."""
        way = "--one-by-one" if self.one_by_one else "--inference"
        words = [f"python fuzz/nets.py --seed {self.seed} {way}"]
        words += [f"--precision {self.precision}"] if self.precision != "fp32" else []
        words += ["--exact"] if self.exact else []
        return " ".join([*words, f'   # "{self.text}" --batch {self.batch}'])

    @property
    def _verify(self) -> str:
        words = [f'lanewise verify "{self.text}" --batch {self.batch} --seed {self.seed}']
        words += ["--pixels"] if self.pixels else []
        words += [f"--target {self.target}"] if self.target != "host" else []
        words += [f"--precision {self.precision}"] if self.precision != "fp32" else []
        words += ["--exact"] if self.exact else []
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
        precision=case.precision,
        exact=case.exact,
        training=case.training,
        one_by_one=case.one_by_one,
        cache=False,
    )


# ---- the case -----------------------------------------------------------------------------------


def random_case(seed: int) -> Case:
    """The net, batch and kind of images that this seed stands for."""
    random = Random(seed)
    items = random_net(random)
    batches = [batch for batch in BATCHES if _enough(items, batch)]
    return Case(seed, items, random.choice(batches), random.random() < 0.2)


def _enough(items: Items, batch: int) -> bool:
    """Whether batch normalisation has several images in every group.

    Of one it has no variance; of two that are features it makes ±1 whatever they were, so that
    what is left of a gradient is rounding.
    """
    if "bn" not in text_of(items):
        return True
    return batch >= 5 and not ("ghost" in text_of(items) and 1 <= batch % 16 < 5)


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
    first, *rest = case.lines
    for lines in _fewer(tuple(rest)):
        try:
            if len(shape_of((first, *lines))) == 1:
                yield replace(case, lines=(first, *lines))
        except LanewiseError:
            continue
    for batch in sorted({1, 2, case.batch // 2} - {0, case.batch}):
        if batch < case.batch and _enough(case.lines, batch):
            yield replace(case, batch=batch)
    if case.pixels:
        yield replace(case, pixels=False)


def _fewer(items: Items) -> Iterator[Items]:
    """Without one item; with a branch in place of its block; with less in a branch."""
    for position, item in enumerate(items):
        before, after = items[:position], items[position + 1 :]
        yield before + after
        if isinstance(item, str):
            continue
        for number, branch in enumerate(item.branches):
            yield before + branch + after
            for less in _fewer(branch):
                branches = (*item.branches[:number], less, *item.branches[number + 1 :])
                yield (*before, replace(item, branches=branches), *after)


def seeds(arguments: Namespace) -> Iterator[int]:
    """The seeds to run, in order, until the count or the minutes are used up."""
    end = time.monotonic() + 60 * arguments.minutes if arguments.minutes else None
    count = arguments.count or (1 if end is None else sys.maxsize)
    for seed in range(arguments.seed, arguments.seed + count):
        if end is not None and time.monotonic() > end:
            return
        yield seed


def _parser() -> ArgumentParser:
    parser = ArgumentParser(description="Random nets through the oracle.")
    parser.add_argument("--seed", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--count", type=int, default=0, help="how many seeds (1)")
    parser.add_argument("--minutes", type=float, default=0.0, help="stop after this time")
    parser.add_argument("--target", default="host", help="host, avx512 or avx2")
    parser.add_argument("--precision", default="fp32", help="fp32 or bf16")
    parser.add_argument("--exact", action="store_true", help="no Winograd")
    parser.add_argument("--winograd", action="store_true", help="wherever it can be")
    parser.add_argument("--matrices", action="store_true", help="of bf16, wherever they can be")
    parser.add_argument("--inference", action="store_true", help="the logits alone")
    parser.add_argument("--one-by-one", action="store_true", help="as single images")
    parser.add_argument("--small-caches", action="store_true", help="the smallest pieces")
    return parser


def main(arguments: list[str] | None = None, judge: Judge = ask_oracle) -> int:
    """Runs the command line; 1 if a net failed."""
    chosen = _parser().parse_args(arguments)
    if chosen.small_caches:
        chains.CHAIN_BYTES, pointwise.LARGE, batch_norm.AWAY, units.LARGE = 1, 0, 0, 0
        units.FORWARD_BYTES, units.BACKWARD_BYTES = 8 << 10, 32 << 10
    if chosen.winograd:
        algorithms.WORTH = winograd.WORTH = 0.0
        winograd.LEAST_CHANNELS = 1
    if chosen.matrices:
        matrix_ways.multiplies_matrices = lambda target: True
        matrix_ways.WORTH, matrix_ways.FEWEST_MAPS, matrix_ways.FEWEST_SOURCES = 0.0, 1, 1
        chosen.precision = "bf16"
    one = not (chosen.count or chosen.minutes)
    failed = []
    for seed in seeds(chosen):
        if not _run(_case(seed, chosen), judge, verbose=one):
            failed.append(seed)
    if not one:
        print(f"\nfailed seeds: {', '.join(map(str, failed)) or 'none'}")
    return 1 if failed else 0


def _case(seed: int, chosen: Namespace) -> Case:
    """What the seed stands for, run as the command line says."""
    return replace(
        random_case(seed),
        target=chosen.target,
        precision=chosen.precision,
        exact=chosen.exact,
        training=not (chosen.inference or chosen.one_by_one),
        one_by_one=chosen.one_by_one,
    )


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
