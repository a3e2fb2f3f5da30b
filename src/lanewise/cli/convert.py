"""`lanewise convert NET OUT`: a network in another form."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lanewise.bridge import require_torch
from lanewise.cli.arguments import image, number
from lanewise.cli.networks import NET
from lanewise.cli.terminal import print_json
from lanewise.errors import LanewiseError
from lanewise.size.report import size

if TYPE_CHECKING:
    from lanewise.ship.convert import Weighted

EXAMPLES = """\
The suffix of OUT is the form: .net (the notation), .py (a plain PyTorch module)
or .onnx. What is written is run beside the network, on random images, before it
is written. A RUN's folder, an ONNX file and a module bring weights: into .onnx
they go along, beside .py they stand in a .safetensors; .net has none.
models.py is imported, which runs it, as Python would.

examples:
  lanewise convert lenet5 lenet5.py
  lanewise convert lenet5 lenet5.onnx
  lanewise convert lenet5.onnx again.net
  lanewise convert models.py:Net net.net --input 3x32x32
"""


def add(parser: ArgumentParser) -> None:
    """The arguments of `lanewise convert`."""
    parser.epilog = EXAMPLES
    parser.add_argument("net", metavar="NET", help=f"{NET}, or the folder of a run")
    parser.add_argument("out", metavar="OUT", help="the file to write: .net, .py or .onnx")
    parser.add_argument(
        "--input", metavar="CxHxW", type=image, help="another image than the network's own"
    )
    parser.add_argument(
        "--seed", metavar="N", type=number, default=0, help="of weights that NET does not bring (0)"
    )
    parser.add_argument("--force", action="store_true", help="OUT may be there already")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument("--quiet", action="store_true", help="print nothing")


def run(args: Namespace) -> int:
    """Writes the file and says how it was checked."""
    require_torch()
    from lanewise.ship.convert import convert, suffix_of

    out = Path(args.out)
    suffix = suffix_of(out)
    beside = out.with_suffix(".safetensors")
    _require_free(args, out)
    network, properties = _opened(args)
    found = convert(network, suffix, args.seed, properties)
    if found.weights is not None:
        _require_free(args, beside)
    written = _write(out, found.content, beside, found.weights)
    report = size(network.graph)
    document = {
        "name": report.name,
        "file": str(out),
        "weights": network.brought or ("drawn" if suffix == ".onnx" else None),
        "weights_file": str(beside) if found.weights is not None else None,
        "layers": len(report.rows) - 1,
        "params": report.totals.params,
        "error": found.agreement.error,
        "images": found.agreement.images,
    }
    if args.json:
        print_json(document)
    elif not args.quiet:
        for title, told in _told(args, document, found.agreement, suffix):
            print(f"{title:<9}{told}")
        print(f"{'written':<9}{', '.join(written)}")
    return 0


def _told(args: Namespace, document: dict[str, Any], agreement: Any, suffix: str) -> Any:
    layers, params = document["layers"], document["params"]
    yield "net", f"{document['name']}, {layers} layers, {params:,} parameters"
    brought = document["weights"]
    if suffix == ".net":
        yield "weights", f"{brought}, which a text cannot hold" if brought else "none in a text"
    elif brought == "drawn":
        yield "weights", f"drawn from seed {args.seed}: this network brings none"
    elif brought:
        yield "weights", brought
    yield "checked", str(agreement)


def _opened(args: Namespace) -> tuple[Weighted, dict[str, str]]:
    """The network, and what a run knows beside it."""
    from lanewise.ship.convert import Weighted, open_weighted

    if not os.path.isdir(args.net):
        return open_weighted(args.net, args.input), {}
    if args.input is not None:
        raise LanewiseError("--input beside a run: its weights are for its own image; leave it out")
    import json

    from lanewise.training.model import load

    model = load(args.net)
    known = {
        "lanewise.classes": json.dumps(list(model.class_names), ensure_ascii=False),
        "lanewise.preprocessing": json.dumps(model.record.get("preprocessing"), ensure_ascii=False),
    }
    return Weighted(model.net.graph, dict(model.weights), f"those of the run {args.net}"), known


def _require_free(args: Namespace, path: Path) -> None:
    if path.exists() and not args.force:
        raise LanewiseError(f"{path}: is there already; choose another name, or add --force")


def _write(out: Path, content: bytes, beside: Path, weights: Any) -> list[str]:
    from lanewise.training.files import write_atomically

    written = [str(out)]
    if weights is not None:
        from safetensors.numpy import save

        write_atomically(beside, save(weights))
        written.append(str(beside))
    write_atomically(out, content)
    return written
