"""Which network: the one for the data's size and colour, and its end brought to the classes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from lanewise.errors import LanewiseError, NetError
from lanewise.net.family import parameters_of, set_parameters
from lanewise.net.graph import Graph
from lanewise.net.layers import (
    CONVOLUTIONS,
    BatchNorm,
    GroupNorm,
    Input,
    LayerNorm,
    Linear,
    RadialBasis,
)
from lanewise.net.load import name_of
from lanewise.net.parse import parse
from lanewise.net.show import show
from lanewise.size.cost import parameter_shapes
from lanewise.size.shapes import infer_shapes, show_shape

_NORMS = (BatchNorm, GroupNorm, LayerNorm)
_LARGEST = 64  # pixels; larger images are resized to this where the user names no net

_TINY = """\
input {shape}
conv 16 k3 pad1
relu
conv 32 k3 pad1
relu
maxpool 2
conv 64 k3 pad1
relu
maxpool 2
flatten
linear {classes}
"""

_LENET = """\
input {shape}
conv 6 k5 pad2
relu
maxpool 2
conv 16 k5
relu
maxpool 2
flatten
linear 120
relu
linear 84
relu
linear {classes}
"""

_STAGE = """\
conv {kernels} k3 pad1
relu
conv {kernels} k3 pad1
relu
maxpool 2
"""

_VGG_END = """\
flatten
linear 128
relu
dropout 0.5
linear {classes}
"""


@dataclass(frozen=True)
class Choice:
    """A network ready for the data: the text for the run folder, its graph, what to say aloud.

    chosen: not named by the user, so its number of outputs needs no explanation.
    """

    text: str
    graph: Graph
    notes: tuple[str, ...] = ()
    chosen: bool = False

    @property
    def name(self) -> str:
        """What the network is called: zoo name, file name, or the name of a default."""
        return name_of(self.graph.origin)

    @property
    def layers(self) -> int:
        """How many layers have weights."""
        return sum(isinstance(node.layer, (*CONVOLUTIONS, Linear)) for node in self.graph.nodes)

    @property
    def pairs(self) -> bool:
        """Whether a batch must hold two images, since some normalisation gets one value of each."""
        shapes = infer_shapes(self.graph)
        return any(
            isinstance(node.layer, BatchNorm) and prod(shapes[node.name][1:]) == 1
            for node in self.graph.nodes
        )

    @property
    def normed(self) -> bool:
        """Whether layers bring their values to mean 0 and variance 1."""
        return any(isinstance(node.layer, _NORMS) for node in self.graph.nodes)

    @property
    def radial(self) -> bool:
        """Whether the outputs are squared distances from codes."""
        return isinstance(self.graph.output.layer, RadialBasis)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) that the network reads."""
        layer = self.graph.nodes[0].layer
        assert isinstance(layer, Input)
        return layer.channels, layer.height, layer.width


def default_net(native: tuple[int, int, int], classes: int = 10) -> Choice:
    """The network for images of (C, H, W): small ones at their own size, others at 64 pixels.

    up to 12 pixels    tiny-conv    three convolutions
    up to 32, gray     lenet5       LeNet-5's layers at the images' size
    else               small-vgg    pairs of 3×3 convolutions, 32 · 64 · 128 maps
    """
    channels, height, width = native
    small = max(height, width) <= 12 and min(height, width) >= 4
    if small:
        name, text = "tiny-conv", _TINY
    elif channels == 1 and max(height, width) <= 32 and min(height, width) >= 12:
        name, text = "lenet5", _LENET
    else:
        name = "small-vgg"
        height, width = (_usable(height), _usable(width))
        text = _vgg(min(height, width))
    shape = show_shape((channels, height, width))
    text = text.format(shape=shape, classes=classes)
    note = f"no net was named: {name} for images of {show_shape(native)}"
    if (height, width) != native[1:]:
        note += f", resized to {height}x{width}"
    return Choice(text, parse(text, name), (note,), chosen=True)


def _usable(side: int) -> int:
    """A side that three stages of halving can work on and that trains in reasonable time."""
    return min(_LARGEST, max(8, side))


def _vgg(side: int) -> str:
    """Stages of two convolutions until the maps are about 4 pixels wide."""
    stages = 2 if side < 32 else 3 if side < 64 else 4
    kernels = (32, 64, 128, 128)[:stages]
    body = "".join(_STAGE.format(kernels=number) for number in kernels)
    return "input {shape}\n" + body + _VGG_END


def check_trainable(choice: Choice) -> None:
    """NetError or SizeError unless the network ends in one row of features and has parameters."""
    graph = choice.graph
    out = infer_shapes(graph)[graph.output.name]
    if len(out) != 1:
        raise NetError(
            f"{graph.place(graph.output)}: the net ends in feature maps ({show_shape(out)}), and "
            "training needs one value per class; add `flatten` and `linear K` at its end, "
            "K the number of classes"
        )
    if not parameter_shapes(graph):
        raise NetError(
            f"{graph.origin}: no layer of the net has parameters, so there is nothing to train; "
            "add `linear K` at its end, K the number of classes"
        )


def fit_classes(choice: Choice, classes: int) -> Choice:
    """The network with one output per class, and a note that says so where it had another number.

    A text with a parameter `classes` that decides it gets that value and stays as it is written.
    Otherwise a last `linear` or `rbf` of another width gets the right one. NetError where the last
    layer is another one, or no network of so many classes can exist.
    """
    width = _outputs(choice.graph)
    if width == classes:
        return choice
    return _with_parameter(choice, width, classes) or _with_last_layer(choice, width, classes)


def note_enlarging(choice: Choice, native: tuple[int, int, int]) -> Choice:
    """With a note where images of (C, H, W) would be enlarged to twice their size or more, and the
    network's parameter `size` could leave them as they are."""
    own = max(native[1:])
    height, width = choice.input_shape[1:]
    named = choice.graph.origin != "net"
    if not (named and max(height, width) >= 2 * own and _exists_at(choice, own)):
        return choice
    words = (word for word in choice.graph.origin.split(" ") if not word.startswith("size="))
    note = (
        f"images of {native[1]}x{native[2]} are enlarged to {height}x{width}; "
        f'`--net "{" ".join(words)} size={own}"` reads them at their own size, with less work'
    )
    return replace(choice, notes=(*choice.notes, note))


def _exists_at(choice: Choice, size: int) -> bool:
    """Whether the network has a parameter `size` and can be as small as that."""
    if "size" not in parameters_of(choice.text):
        return False
    try:
        infer_shapes(parse(set_parameters(choice.text, {"size": str(size)}, choice.name)))
    except LanewiseError:
        return False
    return True


def _with_parameter(choice: Choice, width: int, classes: int) -> Choice | None:
    """The network with its parameter `classes` set; None if it has none, or that one decides
    something else."""
    if "classes" not in parameters_of(choice.text):
        return None
    text = set_parameters(choice.text, {"classes": str(classes)}, choice.name)
    graph = parse(text, _renamed(choice.graph.origin, classes))
    if _outputs(graph) != classes:
        return None
    note = (
        f"{choice.name} has {width} outputs and the data has {classes} classes: "
        f"its parameter classes is now {classes}"
    )
    return replace(choice, text=text, graph=graph, notes=(*choice.notes, note))


def _with_last_layer(choice: Choice, width: int, classes: int) -> Choice:
    """The network with another last layer, written flat."""
    graph = choice.graph
    last = graph.output
    if not isinstance(last.layer, (Linear, RadialBasis)):
        raise NetError(
            f"{graph.place(last)}: the net gives {width} values for {classes} classes; "
            f"add `linear {classes}` at its end"
        )
    changed = replace(last, layer=replace(last.layer, features=classes))
    graph = replace(graph, nodes=(*graph.nodes[:-1], changed))
    word = "linear" if isinstance(last.layer, Linear) else "rbf"
    note = (
        f"{choice.name} ends in {word} {width} and the data has {classes} classes: "
        f"{last.name} is now {word} {classes}"
    )
    notes = choice.notes if choice.chosen else (*choice.notes, note)
    return replace(choice, text=show(graph), graph=graph, notes=notes)


def _outputs(graph: Graph) -> int:
    """How many values the network gives for an image."""
    return prod(infer_shapes(graph)[graph.output.name])


def _renamed(origin: str, classes: int) -> str:
    """`resnet20 classes=5` called after what it is now; other names stay."""
    words = (f"classes={classes}" if _sets_classes(word) else word for word in origin.split(" "))
    return " ".join(words)


def _sets_classes(word: str) -> bool:
    return word.lower().startswith("classes=")
