"""Whether a network and what became of it compute the same, on random images.

The notation's side is `to_torch` of the graph. Weights that a network does not bring are drawn from
a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from lanewise.bridge.torch_module import copy_weights, to_torch
from lanewise.errors import LanewiseError, NetError, a_kind
from lanewise.net.graph import Graph
from lanewise.size.cost import learned_shapes
from lanewise.size.shapes import infer_shapes

if TYPE_CHECKING:
    import numpy as np
    from onnx import ModelProto
    from torch import nn

    from lanewise.bridge.importing.builder import Weights

Arrays: TypeAlias = "dict[str, np.ndarray]"
# float32 sums in another order, relative to the largest value of the result.
TOLERANCE = 2e-4
IMAGES = 3


@dataclass(frozen=True)
class Agreement:
    """The largest difference of the results, relative to the largest value, over some images."""

    error: float
    images: int = IMAGES

    @property
    def ok(self) -> bool:
        """Whether it is rounding (NaN is not)."""
        return self.error <= TOLERANCE

    def __str__(self) -> str:
        return f"largest difference {self.error:.1e} over {self.images} random images"


def drawn_weights(graph: Graph, seed: int = 0) -> Arrays:
    """torch's own initial weights, and running statistics that are not those of a fresh layer."""
    import numpy as np
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = to_torch(graph)
    arrays = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    random = np.random.Generator(np.random.Philox(seed))
    for name, array in arrays.items():
        if name.endswith("running_mean"):
            array[...] = random.standard_normal(array.shape) / 4
        elif name.endswith("running_var"):
            array[...] = random.uniform(0.5, 2.0, array.shape)
    return {name: array for name, array in arrays.items() if name in learned_shapes(graph)}


def module_weights(graph: Graph, sources: Weights, module: nn.Module) -> Arrays:
    """The module's own parameters under our names; one number for each place in the same order."""
    held = dict(module.named_parameters()) | dict(module.named_buffers())
    arrays = {name: value.detach().cpu().numpy() for name, value in held.items()}
    return gathered(graph, sources, arrays)


def gathered(graph: Graph, sources: Weights, held: Mapping[str, Any]) -> Arrays:
    """Arrays of the imported network, by its names, under ours."""
    found = {name: held[source.name] for name, source in sources.items()}
    turned = {name: found[name].T for name, source in sources.items() if source.turned}
    return in_shape(graph, found | turned)


def in_shape(graph: Graph, arrays: Mapping[str, Any]) -> Arrays:
    """The arrays in the shapes of the graph's layers: a full connection of single pixels is a
    convolution here."""
    import numpy as np

    shapes = learned_shapes(graph)
    return {
        name: np.array(arrays[name], np.float32).reshape(shape)
        for name, shape in shapes.items()
        if name in arrays
    }


def module_of(graph: Graph, weights: Arrays) -> nn.Module:
    """The graph as a torch module with these weights, for inference."""
    model = to_torch(graph).eval()
    copy_weights(weights, model)
    return model


def images_of(graph: Graph, seed: int = 0) -> np.ndarray:
    """Random images of the graph's size, N×C×H×W."""
    import numpy as np

    shape = infer_shapes(graph)[graph.nodes[0].name]
    random = np.random.Generator(np.random.Philox(seed))
    return random.standard_normal((IMAGES, *shape), dtype=np.float32)


def agreement(
    graph: Graph, weights: Arrays, other: Callable[[np.ndarray], np.ndarray]
) -> Agreement:
    """The graph's results with these weights beside those of another form of the network."""
    import numpy as np
    import torch

    images = images_of(graph)
    with torch.no_grad():
        wanted = module_of(graph, weights)(torch.from_numpy(images)).numpy()
    found = np.asarray(other(images))
    if found.shape != wanted.shape:
        raise LanewiseError(
            f"the results differ in shape: {found.shape}, and {wanted.shape} by Lanewise"
        )
    size = float(np.abs(wanted).max(initial=0.0)) or 1.0
    return Agreement(float(np.abs(found - wanted).max(initial=0.0)) / size)


def called(module: nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    """A torch module as a function of arrays. Called, NetError where it gives several results."""
    import torch

    def run(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            found = module.eval()(torch.from_numpy(images))
        if not isinstance(found, torch.Tensor):
            raise NetError(
                f"{type(module).__name__}: gives {a_kind(found)}, and a network here "
                "gives one tensor; make a module that returns that tensor alone"
            )
        return found.numpy()

    return run


def load_arrays(module: Any, weights: Arrays) -> None:
    """Our weights under the same names; all there are must fit."""
    import torch

    missing, unexpected = module.load_state_dict(
        {name: torch.from_numpy(array) for name, array in weights.items()}, strict=False
    )
    left = [name for name in missing if not name.endswith("num_batches_tracked")]
    if left or unexpected:
        raise LanewiseError(f"weights do not fit the source: {left or unexpected}")


def onnx_called(model: ModelProto) -> Callable[[np.ndarray], np.ndarray]:
    """An ONNX model as a function of arrays: by ONNX Runtime, or ONNX's own slow evaluator."""
    from importlib.util import find_spec

    import numpy as np

    weights = {tensor.name for tensor in model.graph.initializer}
    image = next(value for value in model.graph.input if value.name not in weights)
    fixed = image.type.tensor_type.shape.dim[0].dim_value
    if find_spec("onnxruntime"):
        import onnxruntime

        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        return _in_batches(lambda x: np.asarray(session.run(None, {image.name: x})[0]), fixed)
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(model)
    return _in_batches(
        lambda x: np.asarray(next(iter(evaluator.run(None, {image.name: x})))), fixed
    )


def _in_batches(
    run: Callable[[np.ndarray], np.ndarray], fixed: int
) -> Callable[[np.ndarray], np.ndarray]:
    """`run` on any number of images, where it takes `fixed` at once (0: any number)."""
    import numpy as np

    def batched(images: np.ndarray) -> np.ndarray:
        full = np.resize(images, (-(-len(images) // fixed) * fixed, *images.shape[1:]))
        found = [run(full[first : first + fixed]) for first in range(0, len(full), fixed)]
        return np.concatenate(found)[: len(images)]

    return batched if fixed else run
