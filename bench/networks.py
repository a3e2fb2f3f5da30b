"""Training steps of whole networks beside those of PyTorch, Keras and tinygrad, in one run.

    python bench/networks.py                          all of them, six to eight minutes
    python bench/networks.py --net resnet20           one of them, or any other network
    python bench/networks.py --quick                  few rounds, without torch.compile: a look

Claims, fp32 and the direct algorithm, beside PyTorch's best fp32 setting: three convolutions with
batch normalisation at least 2.5 times as fast, ResNet-20 1.6 times, the small MobileNetV2 5 times,
Tiny VGG 2.8 times. Its bf16 settings are shown too.

Everybody begins with the same weights; the loss, the changes of the weights and those of the
running statistics must agree after the first step (`contest.py`). torch.compile may take
`--compile-seconds` for each setting, else that one is left out and named; through torch.compile
bf16 is tried only on processors that multiply bf16. Whoever needs more than `--most` seconds in all
rounds takes part in fewer of them (emulated bf16 does), and the rounds are told.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from agreement import agreed
from contest import Terms, Training, contest, ours, ratios
from lanewise.bridge import require_torch
from lanewise.errors import LanewiseError
from lanewise.net.load import load as load_net
from measure import Circumstances, circumstances, cores, kept_for_us, labelled, load, timing_table
from rivals import SETTINGS, Setting, Skipped, eager, has_bfloat16
from served import PATIENCE, add_peer_options, peers_of
from torch_rivals import prepare_torch

USUAL_BATCH = 128
QUICK_ROUNDS = 3


@dataclass(frozen=True)
class Claim:
    """How many times as fast as PyTorch's best fp32 setting, at this batch."""

    batch: int
    ratio: float


CLAIMS = {
    "bn3": Claim(128, 2.5),
    "resnet20": Claim(128, 1.6),
    "mobilenet-v2-small": Claim(128, 5.0),
    "tiny-vgg": Claim(64, 2.8),
}


@dataclass(frozen=True)
class Result:
    """One network."""

    net: str
    claim: float | None
    training: Training
    agreement: dict[str, float]  # "contender: what" → relative difference
    skipped: Skipped
    versions: dict[str, str]  # of those in processes of their own


def main() -> int:
    """Measure and print, network by network."""
    args, before = _arguments(), load()
    try:
        require_torch()
        prepare_torch(args.threads)
        names = args.net or list(CLAIMS)
        for name in names:
            load_net(name)  # a wrong name is told before the others have taken minutes
        results = []
        for name in names:
            results.append(measure(name, _terms(name, args)))
            if not args.json:
                print("\n".join([*report(results[-1], args.threads), ""]), flush=True)
    except LanewiseError as error:
        print(f"networks.py: {error}", file=sys.stderr)
        return 2
    elsewhere = {name: number for one in results for name, number in one.versions.items()}
    where = circumstances(before, ["torch"], elsewhere)
    if args.json:
        print(json.dumps(as_json(results, args.threads, where), indent=2))
    else:
        print("\n".join(where.lines()))
    return 0


def _arguments() -> argparse.Namespace:
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--net", action="append", help="zoo name, .net file or text; repeatable")
    parser.add_argument("--batch", type=int, help="images of a step (that of the claim, or 128)")
    parser.add_argument("--threads", type=int, default=cores(), help="of everybody (all)")
    parser.add_argument("--rounds", type=int, default=11, help="turns of everybody (11)")
    parser.add_argument("--turn", type=float, default=0.3, help="seconds of a turn (0.3)")
    parser.add_argument("--most", type=float, default=15.0, help="seconds of everybody (15)")
    parser.add_argument(
        "--compile-seconds", type=float, default=100.0, help="torch.compile's limit (100)"
    )
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile")
    parser.add_argument("--exact", action="store_true", help="ours without Winograd's algorithm")
    parser.add_argument("--quick", action="store_true", help="3 rounds, without torch.compile")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    add_peer_options(parser)
    return parser.parse_args()


def _terms(name: str, args: argparse.Namespace) -> Terms:
    batch = args.batch or (CLAIMS[name].batch if name in CLAIMS else USUAL_BATCH)
    return Terms(
        batch=batch,
        images=batch,
        threads=args.threads,
        rounds=QUICK_ROUNDS if args.quick else args.rounds,
        turn=args.turn,
        settings=eager() if args.quick or args.no_compile else native_settings(),
        compile_seconds=args.compile_seconds,
        most_seconds=args.most,
        peers=peers_of(args),
        python=args.peers,
        patience=args.patience or PATIENCE,
        exact=args.exact,
    )


def native_settings() -> Sequence[Setting]:
    """All, but bf16 through torch.compile only where the processor has it."""
    native = has_bfloat16()
    return [one for one in SETTINGS if native or not (one.compiled and one.bfloat16)]


def measure(name: str, terms: Terms) -> Result:
    """Compile, compare, take turns."""
    claim = CLAIMS.get(name)
    promised = claim.ratio if claim and claim.batch == terms.batch else None
    with contest(load_net(name), terms) as everybody:
        training = everybody.training()
        left_out = [f"PyTorch {one}: not tried" for one in SETTINGS if one not in terms.settings]
        skipped = [*everybody.skipped, *left_out]
        found = everybody.agreement, skipped, everybody.versions
        return Result(name, promised, training, *found)


def report(result: Result, threads: int) -> list[str]:
    """A table and the verdicts."""
    training = result.training
    timings = training.timings
    rounds = [len(one.seconds) for one in timings]
    fewer = "" if min(rounds) == max(rounds) else f" (the slowest: {min(rounds)})"
    foot = [
        ("agreed", agreed(result.agreement)),
        *(("skipped", line) for line in result.skipped),
        (
            "given",
            f"{100 * kept_for_us(timings):.0f} % of the processors' time in the turns told,"
            f" {100 * training.peak.given:.0f} % in all",
        ),
    ]
    return [
        f"{result.net}: one training step, batch {training.batch}, {threads} threads;"
        f" medians of {max(rounds)} rounds{fewer}",
        "",
        *timing_table(timings, training.batch),
        "",
        training.line(),
        *_verdicts(result),
        *(line for label, text in foot for line in labelled(label, text)),
    ]


def _verdicts(result: Result) -> list[str]:
    """How many times as fast as the others' best; beside fp32 what was aimed at."""
    aim = f"; at least {result.claim} is claimed" if result.claim else ""
    found = ratios(result.training.timings)
    return [
        f"{ratio:.2f} × as fast as {what}{aim if 'fp32 (' in what else ''}"
        for what, ratio in found.items()
    ]


def as_json(results: Sequence[Result], threads: int, where: Circumstances) -> dict[str, object]:
    """The document of `--json`."""
    return {
        "threads": threads,
        "networks": [
            {
                "net": result.net,
                "claim": result.claim,
                "training": result.training.as_json(),
                "step_ms": round(1e3 * ours(result.training.timings).median, 4),
                "peak_gflops": asdict(result.training.peak),
                "agreement": result.agreement,
                "skipped": result.skipped,
            }
            for result in results
        ],
        "circumstances": asdict(where),
    }


if __name__ == "__main__":
    sys.exit(main())
