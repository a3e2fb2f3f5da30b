"""`lanewise size --from 224 --to 7`: the layers that lead from one size to another."""

from __future__ import annotations

from argparse import Namespace

from lanewise.cli import pictures
from lanewise.cli.solve import LISTED
from lanewise.cli.terminal import print_json, width
from lanewise.errors import SizeError
from lanewise.size.chain import Chain, as_json, as_text, solve_chain


def run(args: Namespace) -> int:
    """Prints every solution."""
    asked = _asked(args)
    links = solve_chain(asked)
    if args.svg is not None:
        pictures.draw_chain(args.svg, asked)
    most = None if args.all else LISTED
    if args.json:
        print_json(as_json(asked, links, most))
    else:
        print(as_text(asked, links, most, width(), notes=not args.quiet), end="")
    return 0


def _asked(args: Namespace) -> Chain:
    n, out = getattr(args, "from"), args.to
    if args.net is not None:
        raise SizeError(f"--from {n}: is for no network, but {args.net} is given; leave one out")
    if n is None or out is None:
        missing = (
            "--from and --to" if n is None and out is None else "--to" if out is None else "--from"
        )
        raise SizeError(
            f"no network, and {missing} missing; give a network, or both, like "
            "`lanewise size --from 224 --to 7`"
        )
    _refuse(args)
    return Chain(n, out, args.layers or 1, args.kernel, args.stride, args.pad, args.dilation or 1)


def _refuse(args: Namespace) -> None:
    """SizeError for options that would do nothing, or something else than they say."""
    for option, given in (
        ("--markdown", args.markdown),
        ("--layer", args.layer),
        ("--input", args.input),
        ("--batch", args.batch),
        ("--against", args.against),
        ("--against-convention", args.against_convention),
        ("--convention", args.convention != "torch"),
        ("--details", args.details),
        ("--time", args.time),
        ("--measure", args.measure),
    ):
        if given:
            raise SizeError(f"{option}: is for the sizes of a network; leave it out")
