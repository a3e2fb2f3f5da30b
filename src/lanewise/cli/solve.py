"""`lanewise size` of a network with `?`: what can stand for it, the most usual first."""

from __future__ import annotations

from argparse import Namespace

from lanewise.cli.terminal import print_json, width
from lanewise.errors import SizeError
from lanewise.net.graph import Graph
from lanewise.net.load import load
from lanewise.size.found import as_json, as_text, found_text
from lanewise.size.nearest import why_none
from lanewise.size.report import size
from lanewise.size.solve import Solutions, Unbounded, solve
from lanewise.size.table import as_text as sizes_as_text

# Listed where --all is not said.
LISTED = 20


def run(graph: Graph, args: Namespace) -> int:
    """Prints the solutions; of a single one the sizes, too."""
    _refuse(args)
    if all(one.forgotten for found in graph.unknowns.values() for one in found):
        return _forgotten(graph, args)
    found = solve(graph, None if args.all else LISTED)
    if not found.count:
        raise why_none(graph)
    _draw(found, args)
    single = size(found.first[0].graph, args.batch or 1) if found.count == 1 else None
    if args.json:
        print_json({**as_json(found), "size": single.as_json() if single else None})
        return 0
    print(as_text(found, width(), notes=not args.quiet), end="")
    if single:
        print("\n" + sizes_as_text(single, width(), notes=not args.quiet), end="")
    return 0


def _refuse(args: Namespace) -> None:
    for option, given in (
        ("--against", args.against),
        ("--against-convention", args.against_convention),
        ("--convention", args.convention != "torch"),
        ("--markdown", args.markdown),
        ("--details", args.details),
        ("--time", args.time),
        ("--measure", args.measure),
    ):
        if given:
            raise SizeError(f"{option}: not with a `?`; solve it first, without {option}")


def _forgotten(graph: Graph, args: Namespace) -> int:
    """Fills in what the text forgets, where only one number fits."""
    try:
        found = solve(graph, 4)
    except Unbounded:
        load(args.net)  # says what is missing
        raise
    if found.count != 1:
        raise SizeError(_missing(args.net) + _which(found))
    solution = found.first[0]
    _draw(found, args)
    report = size(solution.graph, args.batch or 1)
    inferred = found_text(graph, solution)
    if args.json:
        numbers = as_json(found)["solutions"][0]["numbers"]
        print_json({**report.as_json(), "inferred": numbers})
        return 0
    print(sizes_as_text(report, width(), notes=not args.quiet), end="")
    if not args.quiet:
        names = ", ".join(graph.unknowns)
        print(f"Filled in, for nothing else fits: {inferred} ({names}).")
    return 0


def _draw(found: Solutions, args: Namespace) -> None:
    """The picture of the first solution, where one is asked for."""
    if args.svg is not None:
        from lanewise.cli import pictures

        pictures.draw_network(args.svg, found.first[0].graph, args.layer)


def _missing(net: str) -> str:
    """What the text does not say, as it is said where nothing is filled in."""
    try:
        load(net)
    except ValueError as error:
        return str(error)
    return net


def _which(found: Solutions) -> str:
    if not found.count:
        return ""
    told = " or ".join(found_text(found.open, one) for one in found.first[:3])
    more = f" and {found.count - 3:,} more" if found.count > 3 else ""
    return f"; {told}{more} would fit"
