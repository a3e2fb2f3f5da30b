"""Where branches meet: the shape of a join, or why its inputs do not fit and what makes them fit.

`add` and `multiply` take equal shapes, or C×1×1 beside C×H×W. `concat` takes maps of one size, or
features.
"""

from __future__ import annotations

from collections.abc import Sequence

from lanewise.errors import SizeError
from lanewise.net.layers import Add, Concat, Join, Pair
from lanewise.net.values import PAIR
from lanewise.size.windows import Shape, show_shape


class Mismatch(SizeError):
    """Two inputs of a join that do not meet: `told` names them, with what makes them meet."""

    def __init__(self, layer: Join, in_shapes: Sequence[Shape], pair: Pair) -> None:
        self.layer = layer
        self.in_shapes = tuple(in_shapes)
        self.pair = pair
        names = [f"input {i + 1}" for i in range(len(in_shapes))]
        super().__init__(self.told(names, names))

    def told(self, names: Sequence[str], places: Sequence[str], *, shortcut: bool = False) -> str:
        """The message with the inputs' names, and once with where each stands.

        `shortcut`: the second may be what a residual reads, with no branch of its own yet.
        """
        first, second = self.pair
        shapes = f"{places[first]} is {show_shape(self.in_shapes[first])}, "
        shapes += f"{places[second]} is {show_shape(self.in_shapes[second])}"
        need = "maps of one size" if isinstance(self.layer, Concat) else "equal shapes"
        changed, layers = self.remedy()
        residual = ""
        if shortcut and isinstance(self.layer, Add) and changed == 1 and len(names) == 2:
            residual = f" (in a residual: `{{ … }} {{ {layers} }}`)"
        return (
            f"{shapes}, and {self.layer.word} needs {need}; "
            f"pass {names[changed]} through `{layers}` first{residual}"
        )

    def remedy(self) -> tuple[int, str]:
        """Which input may pass through which layers, so that it meets the other of the pair."""
        first, second = self.pair
        one, other = self.in_shapes[first], self.in_shapes[second]
        a_pixel = _is_pixel(one) or _is_pixel(other)
        if a_pixel and len(one) == len(other) and not isinstance(self.layer, Concat):
            pixel, maps = (second, one) if _is_pixel(other) else (first, other)
            return pixel, f"conv {maps[0]} k1"
        if _goes_first(one, other):
            return first, fitting_layers(self.layer, one, other)
        return second, fitting_layers(self.layer, other, one)


def elementwise_shape(layer: Join, *in_shapes: Shape) -> Shape:
    """The common shape; C×1×1 inputs count for every pixel. Mismatch where there is none."""
    full = next((shape for shape in in_shapes if not _is_pixel(shape)), in_shapes[0])
    place = in_shapes.index(full)
    for other, shape in enumerate(in_shapes):
        if shape != full and not (_is_pixel(shape) and len(full) == 3 and shape[0] == full[0]):
            raise Mismatch(layer, in_shapes, (min(place, other), max(place, other)))
    return full


def concat_shape(layer: Concat, *in_shapes: Shape) -> Shape:
    """All channels over the common map size. Mismatch where the sizes differ."""
    size = in_shapes[0][1:]
    for other, shape in enumerate(in_shapes):
        if shape[1:] != size:
            raise Mismatch(layer, in_shapes, (0, other))
    return (sum(shape[0] for shape in in_shapes), *size)


def fitting_layers(layer: Join, shape: Shape, target: Shape) -> str:
    """Layers that turn an input of the join into one that meets `target`, as notation."""
    if len(target) == 1:
        return _to_features(layer, shape, target)
    if isinstance(layer, Concat):
        return _smaller_maps(shape, target)
    stride = _stride(shape, target)
    if stride:
        return f"conv {target[0]} k1" + (f" stride {PAIR.show(stride)}" if stride != (1, 1) else "")
    resized = f"adaptiveavg {show_shape(target[1:])}"
    return resized if shape[0] == target[0] else f"{resized}; conv {target[0]} k1"


def _is_pixel(shape: Shape) -> bool:
    return shape[1:] == (1, 1)


def _goes_first(one: Shape, other: Shape) -> bool:
    """Whether the first of the two is to be changed: maps before features, the larger before the
    smaller, else the second."""
    if len(one) != len(other):
        return len(one) > len(other)
    return len(one) == 3 and one[1] * one[2] > other[1] * other[2]


def _to_features(layer: Join, shape: Shape, target: Shape) -> str:
    if isinstance(layer, Concat):
        return "flatten"
    if len(shape) == 1:
        return f"linear {target[0]}"
    flat = shape[0] * shape[1] * shape[2]
    return "flatten" if flat == target[0] else f"flatten; linear {target[0]}"


def _smaller_maps(shape: Shape, target: Shape) -> str:
    """Pooling that gives the map size of `target`."""
    window = (shape[1] // target[1], shape[2] // target[2])
    if all(w and n // w == m for w, n, m in zip(window, shape[1:], target[1:], strict=True)):
        return f"maxpool {PAIR.show(window)}"
    return f"adaptiveavg {show_shape(target[1:])}"


def _stride(shape: Shape, target: Shape) -> Pair | None:
    """The stride with which a 1×1 convolution turns one map size into the other, if one does."""
    found: list[int] = []
    for n, out in zip(shape[1:], target[1:], strict=True):
        stride = -(-n // out)
        if (n - 1) // stride + 1 != out:
            return None
        found.append(stride)
    return found[0], found[1]
