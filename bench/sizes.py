"""How long it takes to size a whole network, beside torchinfo, whose numbers it is compared with.

    python bench/sizes.py
    python bench/sizes.py --net densenet201 --runs 11 --json

Claim: a network of 150 layers is sized in under 50 ms after start-up, from its text to every shape,
formula, parameter, multiply–add, receptive field and byte.

Every run is a fresh process, and the contenders take turns. Imports are over and torchinfo's module
is built when the clock starts; "first" is the first network of the process, "again" the same once
more, with what both keep. torchinfo runs the network forward once, on the CPU or on PyTorch's
device `meta`, which computes nothing. Parameters must be the same before anything is told.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import asdict, dataclass

from measure import Circumstances, circumstances, installed, load, milliseconds, run_process

AIM = 0.05

OURS = """
import json, time
from lanewise.net.load import load
from lanewise.size.report import size
def once():
    begin = time.perf_counter()
    totals = size(load("{net}")).totals
    return time.perf_counter() - begin, totals
first, totals = once()
again, _ = once()
print(json.dumps(dict(first=first, again=again, params=totals.params, macs=totals.macs)))
"""
THEIRS = """
import json, time
import torch, torchinfo
from lanewise.bridge.torch_module import to_torch
from lanewise.net.load import load
graph = load("{net}")
image = graph.nodes[0].layer
module = to_torch(graph).eval().to("{device}")
shape = (1, image.channels, image.height, image.width)
def once():
    begin = time.perf_counter()
    told = torchinfo.summary(module, input_size=shape, device="{device}", verbose=0)
    return time.perf_counter() - begin, told
first, told = once()
again, _ = once()
counted = dict(params=told.total_params, macs=told.total_mult_adds)
print(json.dumps(dict(first=first, again=again, **counted)))
"""


@dataclass(frozen=True)
class Result:
    """Seconds of every run of one contender, and what it counted."""

    name: str
    setting: str
    first: tuple[float, ...]
    again: tuple[float, ...]
    params: int
    macs: int


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--net", default="resnet152", help="a network of the zoo (resnet152)")
    parser.add_argument("--runs", type=int, default=7, help="processes of each contender (7)")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    args = parser.parse_args()
    before = load()
    results = measure(args.net, args.runs)
    where = circumstances(before, ("torch", "torchinfo"))
    if args.json:
        document = {
            "net": args.net,
            "layers": layers_of(args.net),
            "aim": AIM,
            "contenders": [
                {**asdict(one), "median": statistics.median(one.first)} for one in results
            ],
            "circumstances": asdict(where),
        }
        print(json.dumps(document, indent=2))
    else:
        print("\n".join(report(args.net, results, where)))
    return 0


def measure(net: str, runs: int) -> list[Result]:
    """All contenders in turns; SystemExit where they do not count the same parameters."""
    programs = {("Lanewise", "no PyTorch"): OURS.format(net=net)}
    if installed("torchinfo") and installed("torch"):
        for device in ("meta", "cpu"):
            programs["torchinfo", f"device {device}"] = THEIRS.format(net=net, device=device)
    found: dict[tuple[str, str], list[dict[str, float]]] = {key: [] for key in programs}
    for _ in range(runs):
        for key, program in programs.items():
            found[key].append(json.loads(run_process([sys.executable, "-c", program]).output))
    results = [_result(*key, runs) for key, runs in found.items()]
    for one in results:
        if one.params != results[0].params:
            raise SystemExit(
                f"{one.name} counts {one.params:,} parameters and {results[0].name} "
                f"{results[0].params:,}: what differs is not timed"
            )
    return results


def _result(name: str, setting: str, runs: list[dict[str, float]]) -> Result:
    first, again = (tuple(round(run[key], 5) for run in runs) for key in ("first", "again"))
    return Result(name, setting, first, again, int(runs[0]["params"]), int(runs[0]["macs"]))


def layers_of(net: str) -> int:
    """Layers with weights, as networks are counted, normalisation not included."""
    from lanewise.net.layers import CONVOLUTIONS, Linear
    from lanewise.net.load import load as read

    return sum(isinstance(node.layer, (*CONVOLUTIONS, Linear)) for node in read(net).nodes)


def report(net: str, results: list[Result], where: Circumstances) -> list[str]:
    """One line a contender: medians and ranges in milliseconds, and the ratio to ours."""
    from lanewise.size.table import aligned

    ours = statistics.median(results[0].first)
    rows = [("", "setting", "first ms", "range", "again ms", "ratio", "params", "MACs")]
    for one in results:
        first = statistics.median(one.first)
        span = f"{milliseconds(min(one.first))} – {milliseconds(max(one.first))}"
        ratio = f"{first / ours:.1f} ×" if one is not results[0] else ""
        again = milliseconds(statistics.median(one.again))
        counted = (f"{one.params:,}", f"{one.macs:,}")
        rows.append((one.name, one.setting, milliseconds(first), span, again, ratio, *counted))
    runs = len(results[0].first)
    title = f"Sizing {net}, {layers_of(net)} layers with weights, {runs} fresh processes each"
    lines = [title, "", *aligned(rows, (False, False, *[True] * 6)), ""]
    if len(results) == 1:
        lines.append("torchinfo or torch is missing: pip install torchinfo")
    lines.append(f"aimed at: first under {1e3 * AIM:g} ms")
    return [*lines, *where.lines()]


if __name__ == "__main__":
    sys.exit(main())
