"""A graph as PyTorch source: one plain `nn.Module`, a line a layer, with sizes beside them.

What is written is what `to_torch` builds: the rules of `bridge.rules` append to a `Draft`, whose
modules become lines of `__init__` and whose calls become lines of `forward`. Layers that torch does
not have are written out in front of the class, as they stand in `torch_layers`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from textwrap import indent
from typing import TYPE_CHECKING, Any

from lanewise.bridge import require_torch
from lanewise.bridge.constructors import constructed, literal, needed_classes
from lanewise.bridge.draft import Draft
from lanewise.bridge.rules import RULES
from lanewise.bridge.rules.pools import window_mean
from lanewise.net.check import require_own
from lanewise.net.graph import Graph
from lanewise.net.load import name_of
from lanewise.size.report import size
from lanewise.size.shapes import Shape, infer_shapes, show_shape

if TYPE_CHECKING:
    from torch import fx

# Names that a file may need → where from. `from` lines are joined by module.
_IMPORTS = {
    "Sequence": "from collections.abc import Sequence",
    "prod": "from math import prod",
    "Any": "from typing import Any",
    "torch": "import torch",
    "Tensor": "from torch import Tensor",
    "nn": "from torch import nn",
    "F": "from torch.nn import functional as F",
    "_BatchNorm": "from torch.nn.modules.batchnorm import _BatchNorm",
}
_STANDARD = ("collections", "math", "typing")
_WIDE = 100
# What a value must not be called: `x` is the one that the next line reads.
_TAKEN = ("x", "self", *_IMPORTS)


def class_name(graph: Graph) -> str:
    """`resnet18` → `Resnet18`, `my-net` → `MyNet`."""
    stem = re.sub(r"\.(net|onnx)$|^.*\.py:", "", graph.title or name_of(graph.origin))
    words = re.findall(r"[A-Za-z0-9]+", stem.partition(" ")[0])
    name = "".join(word[0].upper() + word[1:] for word in words)
    return name if name and name[0].isalpha() else f"Net{name}"


def to_source(graph: Graph) -> str:
    """The file's text; NetError where a layer has a name that Python or torch need themselves."""
    require_torch()
    from torch import fx, nn

    require_own(graph)
    draft = Draft(nn.Module(), fx.Graph())
    shapes = infer_shapes(graph)
    values: dict[str, fx.Node] = {}
    made: dict[fx.Node, str] = {}
    for node in graph.nodes:
        reads = [(values[name], shapes[name]) for name in node.inputs]
        values[node.name] = RULES[type(node.layer)](draft, node, *reads)
        made |= {call: "" for call in draft.tape.nodes if call not in made}
        made[values[node.name]] = node.name
    draft.tape.output(values[graph.output.name])
    return _file(graph, draft, shapes, made)


def _file(graph: Graph, draft: Draft, shapes: dict[str, Shape], made: dict[fx.Node, str]) -> str:
    name = class_name(graph)
    helpers = [inspect.getsource(one) for one in needed_classes(draft.root)]
    if any(call.target is window_mean for call in draft.tape.nodes):
        text = inspect.getsource(window_mean).replace("    import torch\n\n", "")
        helpers.insert(0, text.replace("torch.Tensor", "Tensor"))
    body = "\n\n".join(
        [*(helper.rstrip() + "\n" for helper in helpers), _class(graph, name, draft, shapes, made)]
    )
    return f"{_head(graph, name)}\n{_imports(body)}\n\n{body}"


def _head(graph: Graph, name: str) -> str:
    report = size(graph)
    totals = report.totals
    return (
        f'"""{name}: images of {show_shape(report.input)}, {totals.params:,} parameters, '
        f'{totals.macs:,} multiply–adds an image."""\n\n'
        "from __future__ import annotations\n"
    )


def _imports(body: str) -> str:
    lines = [line for name, line in _IMPORTS.items() if re.search(rf"\b{name}\b", body)]
    standard = [line for line in lines if line.split()[1].partition(".")[0] in _STANDARD]
    others = [line for line in lines if line not in standard]
    both = {"from torch import Tensor", "from torch import nn"}
    if both <= set(others):
        place = others.index("from torch import Tensor")
        others = [line for line in others if line not in both]
        others.insert(place, "from torch import Tensor, nn")
    return "\n".join([*standard, *([""] if standard else []), *others]) + "\n"


def _class(
    graph: Graph, name: str, draft: Draft, shapes: dict[str, Shape], made: dict[fx.Node, str]
) -> str:
    parts = [f"self.{part} = {constructed(module)}" for part, module in draft.root.named_children()]
    lines = [
        f"class {name}(nn.Module):",
        "    def __init__(self) -> None:",
        "        super().__init__()",
        *(indent(part, " " * 8) for part in parts),
        "",
        "    def forward(self, x: Tensor) -> Tensor:",
        *(f"        {line}" for line in _forward(graph, draft, shapes, made)),
    ]
    return "\n".join(lines) + "\n"


def _forward(
    graph: Graph, draft: Draft, shapes: dict[str, Shape], made: dict[fx.Node, str]
) -> Iterator[str]:
    """A line a call. A value that only the next line reads is called x."""
    calls = list(draft.tape.nodes)
    names = {call: _variable(call, following, made) for call, following in _pairs(calls)}
    lines = []
    for call in calls:
        if call.op == "placeholder":
            if names[call] != "x":
                lines.append((f"{names[call]} = x", ""))
        elif call.op == "output":
            lines.append((f"return {names[call.args[0]]}", ""))
        else:
            lines.append((f"{names[call]} = {_expression(call, names)}", made[call]))
    width = max(len(text) for text, _ in lines)
    for text, layer in lines:
        comment = f"  # {show_shape(shapes[layer])}" if layer else ""
        yield f"{text:<{width}}{comment}" if comment and width < _WIDE - 24 else text + comment


def _pairs(calls: list[fx.Node]) -> Iterator[tuple[fx.Node, fx.Node | None]]:
    following: list[fx.Node | None] = [*calls[1:], None]
    yield from zip(calls, following, strict=True)


def _variable(call: fx.Node, following: fx.Node | None, made: dict[fx.Node, str]) -> str:
    if set(call.users) <= {following}:
        return "x"
    name = "image" if call.op == "placeholder" else made[call] or call.name
    return f"{name}_" if name in _TAKEN else name


def _expression(call: fx.Node, names: dict[fx.Node, str]) -> str:
    if call.op == "call_module":
        (value,) = call.all_input_nodes
        return f"self.{call.target}({names[value]})"
    return _FUNCTIONS[getattr(call.target, "__name__", "")](call, names)


def _infix(mark: str) -> Any:
    return lambda call, names: f" {mark} ".join(names[value] for value in call.args)


def _cat(call: Any, names: dict[Any, str]) -> str:
    return f"torch.cat([{', '.join(names[value] for value in call.args[0])}], dim=1)"


def _narrow(call: Any, names: dict[Any, str]) -> str:
    value, _, first, count = call.args
    return f"{names[value]}[:, {first}:{first + count}]"


def _sum(call: Any, names: dict[Any, str]) -> str:
    return f"{names[call.args[0]]}.sum((2, 3), keepdim=True)"


def _mean(call: Any, names: dict[Any, str]) -> str:
    value, heights, widths = call.args
    return f"window_mean({names[value]}, {literal(tuple(heights))}, {literal(tuple(widths))})"


_FUNCTIONS = {
    "add": _infix("+"),
    "mul": _infix("*"),
    "cat": _cat,
    "narrow": _narrow,
    "sum": _sum,
    "window_mean": _mean,
}
