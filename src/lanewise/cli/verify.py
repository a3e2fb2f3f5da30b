"""`lanewise verify NET`: the compiled net against PyTorch, tensor by tensor."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from time import perf_counter

from lanewise.bridge import require_torch
from lanewise.cli.arguments import PRECISION, count, number, precision
from lanewise.cli.networks import NET, own_network
from lanewise.cli.terminal import print_json
from lanewise.net.graph import Graph
from lanewise.size.report import size

EXAMPLES = """\
A row a tensor: the largest difference between the engine (float32) and PyTorch
(float64), and how far honest float32 may be off, both relative to the tensor's
size. Weights and images are random. Exit code 1 where a tensor differs.
Convolutions that Winograd's algorithm makes quicker round more, and are allowed
to; --exact computes every one of them directly. With --precision bf16 PyTorch
rounds maps and weights where the engine does, and the tolerance is what one
value in a hundred does that is rounded to the other neighbour.

examples:
  lanewise verify lenet5
  lanewise verify lenet5 --batch 128 --target avx2
  lanewise verify resnet20 --exact
  lanewise verify bn3 --precision bf16
  lanewise verify "input 3x9x9; conv 4 k3; relu; flatten; linear 5" --json
"""
# One full vector of images and one that is not; for nets that take PyTorch seconds an image, less.
BATCH, FEW, MANY_MACS = 17, 2, 200_000_000


def add(parser: ArgumentParser) -> None:
    """The arguments of `lanewise verify`."""
    parser.epilog = EXAMPLES
    parser.add_argument("net", metavar="NET", help=NET)
    parser.add_argument(
        "--batch", metavar="N", type=count, help=f"images ({BATCH}; {FEW} for large networks)"
    )
    parser.add_argument("--seed", metavar="N", type=number, default=0, help="what is drawn (0)")
    parser.add_argument("--threads", metavar="N", type=count, help="threads (all)")
    parser.add_argument(
        "--target", default="host", choices=("host", "avx512", "avx2"), help="CPU to compile for"
    )
    parser.add_argument("--exact", action="store_true", help="no Winograd: slower, rounds less")
    parser.add_argument("--precision", type=precision, default="fp32", help=PRECISION)
    parser.add_argument("--pixels", action="store_true", help="uint8 images, normalised within")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument("--quiet", action="store_true", help="one line if a tensor differs")


def run(args: Namespace) -> int:
    """Prints the comparison; 1 if a tensor differs."""
    graph = own_network(args.net)
    require_torch()
    from lanewise.bridge.oracle import compare

    start = perf_counter()
    comparison = compare(
        graph,
        batch=args.batch or _batch_for(graph),
        seed=args.seed,
        pixels=args.pixels,
        target=args.target,
        threads=args.threads,
        exact=args.exact,
        precision=args.precision,
    )
    if args.json:
        print_json(comparison.as_json())
        return 0 if comparison.ok else 1
    if not args.quiet:
        print(comparison.as_text(), end="\n\n")
        print(f"{comparison.summary()}, {perf_counter() - start:.1f} s")
    elif not comparison.ok:
        print(f"lanewise: {comparison.summary()}", file=sys.stderr)
    return 0 if comparison.ok else 1


def _batch_for(graph: Graph) -> int:
    return BATCH if size(graph).totals.macs < MANY_MACS else FEW
