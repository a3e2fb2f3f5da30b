"""`lanewise nets`: the published networks that come with Lanewise, by year and paper."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import wrap

from lanewise.cli.terminal import print_json, width
from lanewise.net.family import Published, zoo
from lanewise.net.load import load, zoo_names
from lanewise.size.cost import cost
from lanewise.size.shapes import infer_shapes
from lanewise.size.table import aligned
from lanewise.size.windows import Shape, show_shape

EXAMPLES = """\
examples:
  lanewise nets
  lanewise nets --json
  lanewise size alexnet                          one of them, layer by layer
  lanewise size "mobilenet-v1 width=0.5"         with another of its parameters
"""

_INDENT = " " * 6
_RIGHT = (False, False, True, True)
_CLOSING = (
    "Most are families. Settings of their parameters may follow a name, as in `lanewise size "
    '"resnet20 n=9"`; a wrong one is answered with those there are.'
)


@dataclass(frozen=True)
class Entry:
    """A network of the zoo and its totals, MACs for one image."""

    published: Published
    input: Shape
    params: int
    macs: int

    def as_json(self) -> dict[str, object]:
        """Its part of the JSON document."""
        return {
            "name": self.published.name,
            "input": list(self.input),
            "params": self.params,
            "macs": self.macs,
            "year": self.published.year,
            "paper": self.published.paper,
            "family": self.published.family,
        }

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """Its line of the table."""
        name = _INDENT + self.published.name
        return name, show_shape(self.input), f"{self.params:,}", f"{self.macs:,}"


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
    entries = [_entry(published) for published in zoo()]
    if args.json:
        print_json([entry.as_json() for entry in sorted(entries, key=_name)])
    else:
        print("\n".join(_table(entries, width())))
    return 0


def _entry(published: Published) -> Entry:
    graph = load(published.name)
    shapes = infer_shapes(graph)
    costs = [cost(node.layer, *(shapes[name] for name in node.inputs)) for node in graph.nodes]
    return Entry(
        published,
        shapes[graph.nodes[0].name],
        sum(spent.params for spent in costs),
        sum(spent.macs for spent in costs),
    )


def _name(entry: Entry) -> str:
    return entry.published.name


def _table(entries: list[Entry], columns: int) -> Iterator[str]:
    """Year by year, each paper above its networks; families keep the order of their files."""
    papers: dict[tuple[int, str], list[Entry]] = {}
    for entry in entries:
        papers.setdefault((entry.published.year, entry.published.paper), []).append(entry)
    rows = [("year" + _INDENT[4:] + "network", "input", "params", "MACs")]
    order = sorted(papers, key=lambda key: (key[0], _name(papers[key][0])))
    rows += [entry.cells for key in order for entry in papers[key]]
    title, *lines = aligned(rows, _RIGHT)
    yield title
    for year, paper in order:
        yield ""
        heading = f"{year or '':<{len(_INDENT)}}{paper}"
        yield from wrap(heading, columns, subsequent_indent=_INDENT)
        for _ in papers[year, paper]:
            yield lines.pop(0)
    yield ""
    yield from wrap(_CLOSING, columns)
