"""`lanewise nets`: the published networks that come with Lanewise."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from lanewise.cli.terminal import print_json
from lanewise.net.load import load, zoo_names
from lanewise.size.report import SizeReport, size
from lanewise.size.shapes import show_shape
from lanewise.size.table import aligned

EXAMPLES = """\
examples:
  lanewise nets
  lanewise nets --json
  lanewise size alexnet           one of them, layer by layer
"""


def add(parser: ArgumentParser) -> None:
    """The arguments of `lanewise nets`."""
    parser.epilog = EXAMPLES
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument("--quiet", action="store_true", help="the names alone")


def run(args: Namespace) -> int:
    """Prints the list."""
    if args.quiet and not args.json:
        print("\n".join(zoo_names()))
        return 0
    reports = [size(load(name)) for name in zoo_names()]
    if args.json:
        print_json([_entry(report) for report in reports])
    else:
        print("\n".join(_table(reports)))
    return 0


def _entry(report: SizeReport) -> dict[str, object]:
    totals = report.totals
    return {
        "name": report.name,
        "input": list(report.input),
        "params": totals.params,
        "macs": totals.macs,
    }


def _table(reports: list[SizeReport]) -> list[str]:
    rows = [("net", "input", "params", "MACs")]
    for report in reports:
        totals = report.totals
        rows.append(
            (report.name, show_shape(report.input), f"{totals.params:,}", f"{totals.macs:,}")
        )
    return aligned(rows, (False, False, True, True))
