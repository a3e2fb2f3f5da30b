"""`lanewise bench [NET]`: this machine's peak, and what share of it each layer reaches."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from lanewise.cli.arguments import PRECISION, count, precision
from lanewise.cli.networks import NET, own_network
from lanewise.cli.terminal import print_json
from lanewise.cli.times import BATCH, FEW, batch_for
from lanewise.net.load import name_of
from lanewise.size.table import aligned

if TYPE_CHECKING:
    from lanewise.native.profile import LayerWork, Profile, Work

EXAMPLES = """\
Trains for some seconds on random images, or with --inference predicts them.
The peak is what a loop of independent multiply–adds reaches on the same
threads; GFLOP/s count the multiply–adds of convolutions and linear, twice:
those of the direct sum, so that a convolution by Winograd's algorithm may reach
more than the peak. Other work on the machine makes the shares smaller, and the
last lines then say so.

examples:
  lanewise bench
  lanewise bench vgg11 --batch 16
  lanewise bench resnet18 --inference
  lanewise bench resnet18 --inference --batch 16
  lanewise bench resnet20 --exact
  lanewise bench mobilenet-v2-small --precision bf16
  lanewise bench "input 3x32x32; conv 16 k3; flatten; linear 10" --threads 1
"""
MICROSECONDS_BELOW = 0.1  # milliseconds of a step
BUSY = 0.05  # share of the processors' time taken by others from which on numbers mean little


def add(parser: ArgumentParser) -> None:
    """The arguments of `lanewise bench`."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "net",
        metavar="NET",
        nargs="?",
        default="lenet5",
        help=f"{NET} (lenet5)",
    )
    parser.add_argument(
        "--batch",
        metavar="N",
        type=count,
        help=f"images a step ({BATCH}; {FEW} a thread for large networks) or a call (1)",
    )
    parser.add_argument("--inference", action="store_true", help="predict, do not train")
    parser.add_argument("--threads", metavar="N", type=count, help="threads (all)")
    parser.add_argument("--exact", action="store_true", help="no Winograd: slower, rounds less")
    parser.add_argument("--precision", type=precision, default="fp32", help=PRECISION)
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument("--quiet", action="store_true", help="the step alone, in one line")


def run(args: Namespace) -> int:
    """Prints the measurement."""
    graph = own_network(args.net)
    from lanewise.native.compile import thread_count
    from lanewise.native.profile import profile_net

    threads = thread_count(args.threads)
    batch = args.batch or (1 if args.inference else batch_for(graph, threads))
    profile = profile_net(
        graph, batch, threads, args.exact, args.precision, training=not args.inference
    )
    if args.json:
        print_json(as_json(profile, name_of(graph.origin)))
    elif args.quiet:
        print(_step(profile))
    else:
        print("\n".join(_report(profile, name_of(graph.origin))))
    return 0


def as_json(profile: Profile, name: str) -> dict[str, object]:
    """The document of `--json`."""
    return {
        "name": name,
        "target": profile.target,
        "cpu": profile.cpu,
        "threads": profile.threads,
        "mode": "training" if profile.training else "inference",
        "one_by_one": profile.one_by_one,
        "batch": profile.batch,
        "processor_given": round(profile.peak.given, 3),
        "peak_gflops": round(profile.peak.best, 1),
        "layers": [
            {
                "name": layer.name,
                "kinds": list(layer.kinds),
                "forward": _direction(profile, layer.forward),
                "backward": _direction(profile, layer.backward),
            }
            for layer in profile.layers
        ],
        "others_ms": {what: round(ms, 6) for what, ms in profile.others.items()},
        "step_ms": round(profile.step_ms, 6),
        "step_range_ms": [round(ms, 6) for ms in profile.range_ms],
        "step_gflops": round(profile.step.gflops, 1),
        "step_share": round(profile.share(profile.step), 6),
        "images_per_second": round(profile.images_per_second, 1),
    }


def _direction(profile: Profile, work: Work) -> dict[str, object]:
    return {
        "algorithm": work.algorithm,
        "ms": round(work.ms, 6),
        "gflops": round(work.gflops, 1),
        "share": round(profile.share(work), 6),
    }


def _report(profile: Profile, name: str) -> list[str]:
    threads = "1 thread" if profile.threads == 1 else f"{profile.threads} threads"
    what = "one training step" if profile.training else "inference"
    return [
        f"{name}: {what}, batch {profile.batch}",
        f"{threads}, {profile.target} ({profile.cpu}), peak {profile.peak.best:.0f} GFLOP/s",
        *([] if profile.training else [_way(profile)]),
        "",
        *_table(profile),
        "",
        _step(profile),
        *_hints(profile),
        *_warnings(profile),
    ]


def _way(profile: Profile) -> str:
    """How a batch is predicted."""
    return "one image at a time" if profile.one_by_one else "sixteen images side by side"


def _hints(profile: Profile) -> list[str]:
    """One image is what people predict, and hardly what they train on."""
    if profile.training and profile.batch == 1:
        return ["That was training. Add --inference to see where a prediction's time goes."]
    return []


def _warnings(profile: Profile) -> list[str]:
    taken = 1 - profile.peak.given
    if taken < BUSY:
        return []
    return [
        f"Other work on this machine took {100 * taken:.0f} % of the processors meanwhile:",
        "the shares are too low. Measure again when it is quiet.",
    ]


def _table(profile: Profile) -> list[str]:
    heads = [_unit(profile), "share", "by"]
    directions = 2 if profile.training else 1
    rows = [["layer", *heads * directions]]
    rows += [_row(profile, layer) for layer in profile.layers]
    # what belongs to no layer stands on the right
    before = ["", "", ""] * (directions - 1)
    rows += [[what, *before, _time(profile, ms), "", ""] for what, ms in profile.others.items()]
    lines = aligned(rows, [False, *[True, True, False] * directions])
    return [_over(lines[0]), *lines] if profile.training else lines


def _over(titles: str) -> str:
    """The line above the titles: which direction the columns belong to."""
    first, second = titles.index("share"), titles.rindex("share")
    return f"{'forward':>{first + 5}}{'backward':>{second - first}}"


def _row(profile: Profile, layer: LayerWork) -> list[str]:
    """The name says what the first of the joined layers is, unless the user gave it another."""
    first, *joined = layer.kinds
    words = joined if layer.name.rstrip("0123456789") == first else layer.kinds
    plus = "+ " * (len(words) < len(layer.kinds))
    cells = [f"{layer.name} {plus}{' + '.join(words)}" if words else layer.name]
    works = [layer.forward, layer.backward] if profile.training else [layer.forward]
    return [*cells, *(cell for work in works for cell in _cells(profile, work))]


def _cells(profile: Profile, work: Work) -> list[str]:
    share = f"{100 * profile.share(work):.0f} %" if work.gflops else ""
    return [_time(profile, work.ms), share, work.algorithm]


def _unit(profile: Profile) -> str:
    return "µs" if profile.step_ms < MICROSECONDS_BELOW else "ms"


def _time(profile: Profile, ms: float) -> str:
    if not ms:
        return ""
    return f"{1e3 * ms:.2f}" if _unit(profile) == "µs" else f"{ms:.3f}"


def _step(profile: Profile) -> str:
    step, small = profile.step, _unit(profile) == "µs"
    took = f"{1e3 * profile.step_ms:.1f} µs" if small else f"{profile.step_ms:.2f} ms"
    return (
        f"{'step' if profile.training else 'call'} {took},"
        f" {profile.images_per_second:,.0f} images/s,"
        f" {step.gflops:.0f} GFLOP/s: {100 * profile.share(step):.0f} % of the peak"
    )
