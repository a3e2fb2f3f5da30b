"""`lanewise size NET`: every size of a network, as text, Markdown or JSON."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from lanewise.cli.arguments import count, image, number
from lanewise.cli.networks import NET, network
from lanewise.cli.terminal import print_json, width
from lanewise.errors import SizeError
from lanewise.net.graph import Graph
from lanewise.size.report import size
from lanewise.size.table import as_markdown, as_text

EXAMPLES = """\
examples:
  lanewise size lenet5
  lanewise size vgg16 --input 3x64x64 --batch 32
  lanewise size my.net --markdown
  lanewise size "input 1x28x28; conv 6 k5 pad2; relu; maxpool 2" --json
  lanewise size "mobilenet-v1 width=0.5"
  lanewise size resnet18 --against resnet34
  lanewise size "input 3x224x224; conv 64 k7 stride ? pad ?; want 64x112x112"
  lanewise size --from 224 --to 7 --layers 5
  lanewise size "input 3x224x224; conv 64 k7 stride2 pad3" --convention keras
  lanewise size resnet18 --against-convention keras
  lanewise size vgg16 --details --batch 32
  lanewise size lenet5 --time
  lanewise size lenet5 --measure --batch 64
  lanewise size models.py:Net --input 3x224x224

An ONNX file (net.onnx) or a Keras model (model.keras) is sized likewise.
models.py is imported, which runs it, as Python would; nothing is trained, and
weights take no memory.
"""


def add(parser: ArgumentParser) -> None:
    """The arguments of `lanewise size`."""
    parser.epilog = EXAMPLES
    parser.add_argument("net", metavar="NET", nargs="?", help=NET)
    parser.add_argument(
        "--input", metavar="CxHxW", type=image, help="another image than the network's own"
    )
    parser.add_argument(
        "--batch", metavar="N", type=count, help="images at once, for memory (1) and time"
    )
    parser.add_argument(
        "--against", metavar="NET", help="another network: what it has and costs differently"
    )
    parser.add_argument(
        "--convention",
        metavar="NAME",
        default="torch",
        help="whose rounding and padding rules the text is read by (torch)",
    )
    parser.add_argument(
        "--against-convention",
        metavar="NAME",
        help="another's rules: where the same text gives other sizes or pixels",
    )
    parser.add_argument(
        "--details",
        action="store_true",
        help="what is not read, what sees padding, which images fit, memory of training",
    )
    parser.add_argument(
        "--time", action="store_true", help="each layer's time in training here, predicted"
    )
    parser.add_argument("--measure", action="store_true", help="the times predicted and measured")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON document")
    form.add_argument("--markdown", action="store_true", help="a Markdown table")
    parser.add_argument("--all", action="store_true", help="of a network with `?`, every solution")
    parser.add_argument(
        "--svg", metavar="FILE", help="also a picture: how the windows move, or which numbers fit"
    )
    parser.add_argument("--layer", metavar="NAME", help="the layer in the picture (all)")
    _add_chain(parser)
    parser.add_argument("--quiet", action="store_true", help="the table without the notes below")


def _add_chain(parser: ArgumentParser) -> None:
    chain = parser.add_argument_group("without a network")
    for name, metavar, told in (
        ("from", "N", "the size that goes in"),
        ("to", "N", "the size that shall come out: lists every kernel, stride and pad"),
        ("layers", "N", "in so many layers alike (1)"),
        ("kernel", "K", "each layer's kernel, where it is given"),
        ("stride", "S", "each layer's stride"),
        ("dilation", "D", "each layer's dilation (1)"),
    ):
        chain.add_argument(f"--{name}", metavar=metavar, type=count, help=told)
    chain.add_argument("--pad", metavar="P", type=number, help="each layer's zeros at each side")


def run(args: Namespace) -> int:
    """Prints the report."""
    if args.net is None or getattr(args, "from") is not None:
        from lanewise.cli import chain

        return chain.run(args)
    _refuse_strays(args)
    graph = network(args.net, args.input, forgiving=True)
    if graph.unknowns:
        from lanewise.cli import solve

        return solve.run(graph, args)
    if args.all:
        raise SizeError("--all: lists solutions, and this network has no `?`; leave it out")
    if args.against_convention is not None:
        return _compare_readings(graph, args)
    if args.time or args.measure:
        return _show_times(_read(graph, args), args)
    if args.details:
        return _show_details(graph, args)
    graph = _read(graph, args)
    if args.svg is not None:
        from lanewise.cli import pictures

        pictures.draw_network(args.svg, graph, args.layer)
    if args.against is not None:
        return _compare(graph, args)
    report = size(graph, args.batch or 1)
    if args.json:
        print_json(report.as_json())
    elif args.markdown:
        print(as_markdown(report, notes=not args.quiet), end="")
    else:
        print(as_text(report, width(), notes=not args.quiet), end="")
    return 0


def _refuse_strays(args: Namespace) -> None:
    """SizeError for options that would do nothing."""
    for name in ("to", "layers", "kernel", "stride", "dilation", "pad"):
        if getattr(args, name) is not None:
            raise SizeError(f"--{name}: goes with --from and no network; leave one of them out")
    if args.layer is not None and args.svg is None:
        raise SizeError(f"--layer {args.layer}: is the layer of a picture; add --svg FILE")
    for option, given in (
        ("--against-convention", args.against_convention),
        ("--details", args.details),
        ("--time", args.time),
        ("--measure", args.measure),
    ):
        if given and args.svg is not None:
            raise SizeError(f"--svg: not together with {option}; leave one out")


def _read(graph: Graph, args: Namespace) -> Graph:
    """The network as --convention reads it; for the usual one nothing more is imported."""
    if args.convention == "torch":
        return graph
    from lanewise.size.conventions import convention
    from lanewise.size.reading import read

    return read(graph, convention(args.convention))


def _stands_alone(option: str, args: Namespace) -> None:
    """SizeError where another form of the report is asked for besides."""
    forms = {
        "--details": args.details,
        "--time": args.time,
        "--measure": args.measure,
        "--against-convention": args.against_convention,
        "--against": args.against,
        "--markdown": args.markdown,
    }
    times = {"--time", "--measure"}
    together = times if option in times else {option}
    for other, given in forms.items():
        if given and other not in together:
            raise SizeError(f"{option}: not together with {other}; leave one out")


def _compare(graph: Graph, args: Namespace) -> int:
    """Prints the network beside the one it is compared with."""
    from lanewise.size import against

    if args.markdown:
        raise SizeError("--against: is shown as text or --json; leave out --markdown")
    other = _read(network(args.against, args.input), args)
    comparison = against.compare(graph, other, args.batch or 1)
    if args.json:
        print_json(comparison.as_json())
    else:
        print(against.as_text(comparison, width()), end="")
    return 0


def _show_times(graph: Graph, args: Namespace) -> int:
    """Prints what each layer takes on this machine."""
    _stands_alone("--measure" if args.measure else "--time", args)
    from lanewise.cli.times import show_times
    from lanewise.net.check import require_own

    return show_times(require_own(graph), args)


def _show_details(graph: Graph, args: Namespace) -> int:
    """Prints what the table does not say."""
    from lanewise.size import details
    from lanewise.size.conventions import convention

    _stands_alone("--details", args)
    told = details.details(graph, convention(args.convention), args.batch or 1)
    if args.json:
        print_json(told.as_json())
    else:
        print(details.as_text(told, width(), notes=not args.quiet), end="")
    return 0


def _compare_readings(graph: Graph, args: Namespace) -> int:
    """Prints how two conventions read the network."""
    from lanewise.size import against_convention
    from lanewise.size.conventions import convention

    _stands_alone("--against-convention", args)
    rules = convention(args.convention), convention(args.against_convention)
    readings = against_convention.compare(graph, *rules, args.batch or 1)
    if args.json:
        print_json(readings.as_json())
    else:
        print(against_convention.as_text(readings, width()), end="")
    return 0
