"""A graph as a `torch.nn.Module`: one submodule a layer, under the layer's own name.

`RULES` is a table keyed by the layer's class; each rule appends one layer to a torch.fx graph. The
result is an ordinary GraphModule: `print(module.code)` shows every step, `state_dict()` has the
parameters and buffers under Lanewise's names (`conv1.weight`, `bn1.running_mean`).

Nothing here uses the engine's own arithmetic: windows come from `lanewise.size`, values from torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lanewise.bridge import require_torch
from lanewise.bridge.draft import Draft, Mask, Watch
from lanewise.bridge.rules import RULES
from lanewise.errors import LanewiseError
from lanewise.net.graph import Graph
from lanewise.size.shapes import infer_shapes

if TYPE_CHECKING:
    from torch import fx

# torch counts the batches that a BatchNorm has seen; nothing reads it while momentum is a number.
NO_TWIN = ".num_batches_tracked"


def to_torch(
    graph: Graph, *, dropout_mask: Mask | None = None, watch: Watch | None = None
) -> fx.GraphModule:
    """The same net as a torch module, N×C×H×W → N×(output shape), with torch's own initial weights.

    dropout_mask(name) gives the factors of that noise layer (0, or 1/(1 − rate)), in a shape that
    fits its value; without it noise is torch's, off in eval(). watch(name, value) sees every
    layer's value and returns the one to go on with.
    """
    require_torch()
    from torch import fx, nn

    shapes = infer_shapes(graph)
    draft = Draft(nn.Module(), fx.Graph(), dropout_mask)
    values: dict[str, fx.Node] = {}
    for node in graph.nodes:
        reads = [(values[name], shapes[name]) for name in node.inputs]
        value = RULES[type(node.layer)](draft, node, *reads)
        values[node.name] = draft.ask(watch, node.name, value) if watch else value
    draft.tape.output(values[graph.output.name])
    return fx.GraphModule(draft.root, draft.tape, "LanewiseNet")


def copy_weights(source: Any, target: Any) -> None:
    """Copy every parameter and buffer by name, in either direction, into the target's own memory.

    Both may be an engine program (anything with `.parameters` and perhaps `.buffers`), a torch
    module, or a dict of arrays. Names and shapes must agree exactly; else LanewiseError, before
    anything is written. torch's `num_batches_tracked` is left out.
    """
    given, wanted = _arrays(source), _arrays(target)
    _require_same(given, wanted)
    if hasattr(target, "set_learned"):  # a program may have to lay weights out anew
        target.set_learned({name: np.asarray(given[name]) for name in wanted})
        return
    for name, array in wanted.items():
        array[...] = given[name]


def _arrays(holder: Any) -> dict[str, Any]:
    """Name → numpy array; those of a torch module share its memory."""
    if isinstance(holder, dict):
        found = holder
    elif hasattr(holder, "state_dict"):
        found = {name: value.detach().numpy() for name, value in holder.state_dict().items()}
    else:
        found = {**holder.parameters, **getattr(holder, "buffers", {})}
    return {name: array for name, array in found.items() if not name.endswith(NO_TWIN)}


def _require_same(given: dict[str, Any], wanted: dict[str, Any]) -> None:
    missing, unknown = wanted.keys() - given.keys(), given.keys() - wanted.keys()
    if missing or unknown:
        raise LanewiseError(
            f"weights do not fit: missing {_listed(missing)}; not in the target {_listed(unknown)}"
        )
    for name, array in wanted.items():
        if given[name].shape != array.shape:
            raise LanewiseError(
                f"weights do not fit: {name} is {given[name].shape}, the target has {array.shape}"
            )


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) if names else "nothing"
