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
Trains for some seconds on random images. The peak is what a loop of
independent multiply–adds reaches on the same threads; GFLOP/s count the
multiply–adds of convolutions and linear, twice: those of the direct sum, so that
a convolution by Winograd's algorithm may reach more than the peak. Other work on
the machine makes the shares smaller, and the last lines then say so.

examples:
  lanewise bench
  lanewise bench vgg11 --batch 16
  lanewise bench resnet20 --exact
  lanewise bench mobilenet-v2-small --precision bf16
  lanewise bench "input 3x32x32; conv 16 k3; flatten; linear 10" --threads 1
"""
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
        help=f"images a step ({BATCH}; {FEW} a thread for large networks)",
    )
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
    batch = args.batch or batch_for(graph, threads)
    profile = profile_net(graph, batch, threads, exact=args.exact, precision=args.precision)
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
    return [
        f"{name}: one training step, batch {profile.batch}",
        f"{threads}, {profile.target} ({profile.cpu}), peak {profile.peak.best:.0f} GFLOP/s",
        "",
        *_table(profile),
        "",
        _step(profile),
        *_warnings(profile),
    ]


def _warnings(profile: Profile) -> list[str]:
    taken = 1 - profile.peak.given
    if taken < BUSY:
        return []
    return [
        f"Other work on this machine took {100 * taken:.0f} % of the processors meanwhile:",
        "the shares are too low. Measure again when it is quiet.",
    ]


def _table(profile: Profile) -> list[str]:
    heads = ["ms", "share", "by"]
    rows = [["layer", *heads, *heads]]
    rows += [_row(profile, layer) for layer in profile.layers]
    rows += [[what, "", "", "", _ms(ms), "", ""] for what, ms in profile.others.items()]
    lines = aligned(rows, [False, True, True, False, True, True, False])
    return [_over(lines[0]), *lines]


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
    return [*cells, *_cells(profile, layer.forward), *_cells(profile, layer.backward)]


def _cells(profile: Profile, work: Work) -> list[str]:
    share = f"{100 * profile.share(work):.0f} %" if work.gflops else ""
    return [_ms(work.ms), share, work.algorithm]


def _ms(ms: float) -> str:
    return f"{ms:.3f}" if ms else ""


def _step(profile: Profile) -> str:
    step = profile.step
    return (
        f"step {profile.step_ms:.2f} ms, {profile.images_per_second:,.0f} images/s,"
        f" {step.gflops:.0f} GFLOP/s: {100 * profile.share(step):.0f} % of the peak"
    )
