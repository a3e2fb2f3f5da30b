"""Random nets of every kind of layer, in chains and in blocks of branches.

A net is a tuple of items: a line of notation, or a block (`residual { … } { … }`) whose branches
are such tuples themselves. A layer is kept only where the net so far is legal with it, so the
generators below need not know every rule of sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from random import Random
from typing import TypeAlias

from lanewise.errors import LanewiseError
from lanewise.net.graph import Node
from lanewise.net.layers import Conv, DepthwiseConv, PartialConv
from lanewise.net.parse import parse
from lanewise.size.shapes import Shape, infer_shapes
from lanewise.size.windows import resolve_window

MOST_VALUES = 5000  # of one layer and image: small nets find the same errors, sooner
ATTEMPTS = 20


@dataclass(frozen=True)
class Block:
    """`word { branch } { branch }`."""

    word: str
    branches: tuple[Items, ...]

    def __str__(self) -> str:
        return " ".join([self.word, *(f"{{ {text_of(items)} }}" for items in self.branches)])


Item: TypeAlias = "str | Block"
Items: TypeAlias = "tuple[Item, ...]"
Maker: TypeAlias = "Callable[[Random, Shape], Sequence[Item]]"
Makers: TypeAlias = "dict[Maker, int]"


def text_of(items: Sequence[Item]) -> str:
    """The items on one line."""
    return "; ".join(map(str, items))


def shape_of(items: Sequence[Item]) -> Shape:
    """The output shape; SizeError or NetError if these items are no net."""
    graph = parse(text_of(items))
    return infer_shapes(graph)[graph.output.name]


def random_net(random: Random) -> Items:
    """Maps, then features: a few layers and blocks, one of every so many of each kind."""
    items: list[Item] = [_input(random)]
    for _ in range(random.randint(1, 5)):
        items += _fitting(random, items, SPATIAL)
    if random.random() < 0.3:
        items.append(random.choice(["globalmax", "globalavg", "globalsum"]))
    items.append("flatten")
    for _ in range(random.choice([0, 0, 1, 2])):
        features = random.randint(1, random.choice([20, 150]))
        items.append(f"linear {features}")
        items += _fitting(random, items, FLAT)
    centres = f"rbf {random.randint(2, 8)}"
    if random.random() < 0.1 and _small([*items, centres]):
        items.append(centres)
    elif shape_of(items)[0] == 1 or random.random() < 0.7:
        items.append(f"linear {random.randint(2, 12)}{_maybe(random, 0.2, ' nobias')}")
    return tuple(items)


def _fitting(
    random: Random, items: Sequence[Item], makers: Makers, attempts: int = ATTEMPTS
) -> list[Item]:
    """One random layer or block that fits after these items, or nothing."""
    shape = shape_of(items)
    for _ in range(attempts):
        (maker,) = random.choices(list(makers), list(makers.values()))
        more = maker(random, shape)
        if _small([*items, *more]):
            return list(more)
    return []


def _small(items: Sequence[Item]) -> bool:
    """Whether it is a net that can be judged, and no value of it is large."""
    try:
        graph = parse(text_of(items))
        shapes = infer_shapes(graph)
    except LanewiseError:
        return False
    small = max(map(prod, shapes.values())) <= MOST_VALUES
    return small and all(_meets_values(node, shapes) for node in graph.nodes)


def _meets_values(node: Node, shapes: Mapping[str, Shape]) -> bool:
    """Whether some window of a convolution meets more than padding. Else its maps are constant,
    and what a normalisation makes of their rounding errors is beyond judgement."""
    if not isinstance(node.layer, (Conv, DepthwiseConv, PartialConv)):
        return True
    axes = resolve_window(node.layer, shapes[node.inputs[0]]).axes
    return all(any(0 <= at < axis.n for taps in axis.reads for at in taps) for axis in axes)


def _input(random: Random) -> str:
    sizes = [1, 2, *(random.randint(3, 14) for _ in range(3)), random.randint(15, 40)]
    height, width = random.choice(sizes), random.choice(sizes)
    return f"input {random.choice([1, 1, 2, 3, 4, 5, 6, 8])}x{height}x{width}"


# ---- layers of maps -----------------------------------------------------------------------------


def _conv(random: Random, shape: Shape) -> Items:
    groups = random.choice(_divisors(shape[0])) if random.random() < 0.4 else 1
    most = random.choice([10, 10, 10, 40])
    words = [f"conv {groups * random.randint(1, max(1, most // groups))}", *_window(random, 5, 4)]
    words.append(_maybe(random, 0.25, f"dilation {_pair(random, 3)}"))
    words.append(f"groups {groups}" if groups > 1 else "")
    return _line(random, words)


def _depthwise(random: Random, shape: Shape) -> Items:
    words = ["depthwise", *_window(random, 5, 3)]
    words.append(_maybe(random, 0.3, f"multiplier {random.randint(2, 3)}"))
    words.append(_maybe(random, 0.25, f"dilation {_pair(random, 3)}"))
    return _line(random, words)


def _partial(random: Random, shape: Shape) -> Items:
    def row() -> str:
        maps = random.sample(range(shape[0]), random.randint(1, shape[0]))
        return ",".join(map(str, sorted(maps)))

    table = "/".join(row() for _ in range(random.randint(1, 6)))
    return _line(random, [f"partialconv {table}", *_window(random, 4, 2)])


def _transposed(random: Random, shape: Shape) -> Items:
    groups = random.choice(_divisors(shape[0])) if random.random() < 0.3 else 1
    stride = random.randint(1, 3)
    words = [f"convtranspose {groups * random.randint(1, 5)} k {_pair(random, 4)} stride {stride}"]
    words.append(_maybe(random, 0.4, f"pad {random.randint(0, 2)}:{random.randint(0, 2)}x1"))
    words.append(f"outputpad {random.randint(1, stride - 1)}" if stride > 1 else "")
    words.append(f"groups {groups}" if groups > 1 else "")
    return _line(random, words)


def _line(random: Random, words: list[str]) -> Items:
    return (" ".join(filter(None, [*words, _maybe(random, 0.2, "nobias")])),)


def _window(random: Random, kernel: int, stride: int) -> list[str]:
    return [
        f"k {_pair(random, kernel)}",
        _maybe(random, 0.4, f"stride {_pair(random, stride)}"),
        _maybe(random, 0.7, f"pad {_pad(random, 3)}"),
    ]


def _pool(random: Random, shape: Shape) -> Items:
    kind = random.choice(["maxpool", "maxpool", "avgpool", "sumpool", "l2pool", "subsample"])
    words = [f"{kind} {_pair(random, 4)}"]
    words.append(_maybe(random, 0.5, f"stride {_pair(random, 4)}"))
    words.append(_maybe(random, 0.5, f"pad {_pad(random, 2)}"))
    words.append(_maybe(random, 0.4, "ceil"))
    return (" ".join(filter(None, words)),)


def _adaptive(random: Random, shape: Shape) -> Items:
    return (f"{random.choice(['adaptiveavg', 'adaptivemax'])} {_pair(random, 5)}",)


def _upsample(random: Random, shape: Shape) -> Items:
    return (f"upsample {_pair(random, 3)}{_maybe(random, 0.5, ' bilinear')}",)


def _channels(random: Random, shape: Shape) -> Items:
    groups = random.choice(_divisors(shape[0]))
    return (
        random.choice(
            [
                f"shuffle {groups}",
                f"split {random.randint(1, groups)} of {groups}",
                f"padchannels {random.randint(0, 3)}:{random.randint(0, 3)}",
            ]
        ),
    )


def _map_norm(random: Random, shape: Shape) -> Items:
    """A norm of one value would be nothing but rounding."""
    choices = [f"lrn {random.randint(1, 6)} alpha {random.choice([0.001, 0.5])} beta 0.75 k 2"]
    if shape[0] > 1:
        choices.append("layernorm eps 0.01")
    if prod(shape) > 1:
        groups = random.choice([g for g in _divisors(shape[0]) if prod(shape) > g])
        choices.append(f"groupnorm {groups} eps 0.01")
    return (random.choice(choices),)


# ---- value by value -----------------------------------------------------------------------------


def _activation(random: Random, shape: Shape) -> Items:
    common = ["relu"] * 4 + [f"leakyrelu {random.choice([0.01, 0.2])}", "tanh", "sigmoid"]
    rare = ["relu6", f"elu {random.choice([0.5, 1.0])}", "silu", "gelu", "hardsigmoid"]
    trained = ["hardswish", f"prelu{_maybe(random, 0.5, ' channels')}", "scale 0.5"]
    return (random.choice([*common, *rare, *trained]),)


def _noise(random: Random, shape: Shape) -> Items:
    kind = random.choice(["dropout", "dropout", "spatialdropout", "stochasticdepth"])
    return (f"{kind} {random.choice([0.1, 0.5, 0.8])}",)


def _batch_norm(random: Random, shape: Shape) -> Items:
    words = ["bn", random.choice(["", "", "eps 0.01"]), random.choice(["", "momentum 0.3"])]
    words += [_maybe(random, 0.2, "noaffine"), _maybe(random, 0.15, "ghost 16")]
    norm = " ".join(filter(None, words))
    return (norm, "relu") if random.random() < 0.5 else (norm,)


def _pointwise(random: Random, shape: Shape) -> Items:
    """1 × 1 convolutions and what stands around them in an inverted residual."""

    def normed(maps: int) -> Items:
        last = random.choice([("relu",), ("relu6",), ("relu6",), ("silu",), ()])
        return (f"conv {maps} k1 nobias", *(("bn",) if random.random() < 0.9 else ()), *last)

    wide = shape[0] * random.randint(1, 5)
    middle: Items = ("depthwise k3 pad1 nobias", "bn", "relu6") if random.random() < 0.6 else ()
    return (*normed(wide), *middle, *normed(random.choice([shape[0], random.randint(1, 9)])))


def _flat_norm(random: Random, shape: Shape) -> Items:
    return ("layernorm eps 0.01",) if shape[0] > 2 else ("relu",)


# ---- blocks -------------------------------------------------------------------------------------


def _residual(random: Random, shape: Shape) -> Items:
    """A branch of any shape, and what makes the other one fit to it."""
    body, out = _branch(random, shape, LAYERS if len(shape) == 3 else FEATURES)
    if out == shape:
        return (Block("residual", (body,)),)
    if len(shape) == 1:
        return (Block("residual", ((*body, f"linear {shape[0]}"),)),)
    if out[1:] == shape[1:] and random.random() < 0.5:
        return (Block("residual", ((*body, f"conv {shape[0]} k1"),)),)
    return (Block("residual", (body, _projection(random, shape, out))),)


def _projection(random: Random, shape: Shape, out: Shape) -> Items:
    pooled = f"{random.choice(['adaptiveavg', 'adaptivemax'])} {out[1]}x{out[2]}"
    resized = (pooled,) if out[1:] != shape[1:] else ()
    if shape[0] < out[0] and random.random() < 0.3:
        return (*resized, f"padchannels 0:{out[0] - shape[0]}")
    last = (f"conv {out[0]} k1",) if shape[0] != out[0] or not resized else ()
    return (*resized, *last, *(_batch_norm(random, out) if random.random() < 0.3 else ()))


def _join(random: Random, shape: Shape) -> Items:
    """Branches that keep the map's size; one may be empty, for all but concat as many channels."""
    word = random.choice(["concat", "concat", "add", "multiply"])
    makers = KEEPING if len(shape) == 3 else FEATURES
    branches: list[Items] = [()] if random.random() < 0.4 else []
    for _ in range(random.randint(1 if branches else 2, 3)):
        body, out = _branch(random, shape, makers)
        if word != "concat" and out != shape:
            body = (*body, f"conv {shape[0]} k1" if len(shape) == 3 else f"linear {shape[0]}")
        branches.append(body)
    random.shuffle(branches)
    return (Block(word, tuple(branches)),)


def _gate(random: Random, shape: Shape) -> Items:
    """Squeeze and excite, or add."""
    pool = random.choice(["globalavg", "globalmax"])
    last = random.choice(["sigmoid", "hardsigmoid", "tanh"])
    gate = (pool, f"conv {random.randint(1, 4)} k1", "relu", f"conv {shape[0]} k1", last)
    branches: list[Items] = [(), gate]
    random.shuffle(branches)
    return (Block(random.choice(["multiply", "multiply", "add"]), tuple(branches)),)


def _shuffle_unit(random: Random, shape: Shape) -> Items:
    if shape[0] % 2:
        return _join(random, shape)
    body, out = _branch(random, (shape[0] // 2, *shape[1:]), KEEPING)
    unit = Block("concat", (("split 1 of 2",), ("split 2 of 2", *body)))
    return (unit, "shuffle 2") if (shape[0] // 2 + out[0]) % 2 == 0 else (unit,)


def _shared(random: Random, shape: Shape) -> Items:
    """A value that several layers read by its name."""
    name = f"v{random.randrange(10**6)}"
    relu = random.choice(["relu", "relu", "tanh", f"conv {shape[0]} k1"])
    others = [_kept(random, shape) for _ in range(random.randint(1, 2))]
    readers = [f"{name}{i}: {line} from {name}" for i, line in enumerate(others)]
    names = [name, *(f"{name}{i}" for i in range(len(others)))]
    join = f"{random.choice(['add', 'concat', 'multiply'])} {' '.join(names)}"
    return (f"{name}: {relu}", *readers, join)


def _kept(random: Random, shape: Shape) -> str:
    """A layer that keeps the shape."""
    pool = random.choice(["maxpool", "avgpool"])
    return random.choice(
        [f"conv {shape[0]} k3 pad1", "depthwise k3 pad1", f"{pool} 3 stride1 pad1", "relu", "bn"]
    )


def _branch(random: Random, shape: Shape, makers: Makers) -> tuple[Items, Shape]:
    """A few layers after a value of this shape, and the shape of the last."""
    start = "input " + "x".join(map(str, shape)) if len(shape) == 3 else f"input {shape[0]}x1x1"
    items: list[Item] = [start] if len(shape) == 3 else [start, "flatten"]
    first = len(items)
    for _ in range(random.randint(1, 3)):
        items += _fitting(random, items, makers)
    if len(shape) == 3 and random.random() < 0.1:
        # One attempt: blocks within blocks would else never end.
        inner = {_join: 1} if makers is KEEPING else BLOCKS
        items += _fitting(random, items, inner, attempts=1)
    if len(items) == first:
        items.append("tanh")
    return tuple(items[first:]), shape_of(items)


def _keeping_conv(random: Random, shape: Shape) -> Items:
    kernel = random.choice([1, 3, 3, 5])
    words = random.choice([f"conv {random.randint(1, 9)}", "depthwise"])
    return _line(random, [f"{words} k{kernel} pad{kernel // 2}"])


def _keeping_pool(random: Random, shape: Shape) -> Items:
    return (f"{random.choice(['maxpool', 'avgpool'])} 3 stride1 pad1",)


LAYERS: Makers = {
    _conv: 12,
    _depthwise: 3,
    _partial: 2,
    _transposed: 2,
    _pool: 8,
    _adaptive: 2,
    _upsample: 2,
    _channels: 3,
    _map_norm: 3,
    _batch_norm: 5,
    _pointwise: 3,
    _activation: 8,
    _noise: 2,
}
KEEPING: Makers = {_keeping_conv: 6, _keeping_pool: 1, _batch_norm: 2, _activation: 4, _noise: 1}
BLOCKS: Makers = {_residual: 3, _join: 3, _gate: 2, _shuffle_unit: 1, _shared: 2}
SPATIAL: Makers = LAYERS | BLOCKS
FEATURES: Makers = {_activation: 6, _noise: 2, _batch_norm: 2, _flat_norm: 1}
FLAT: Makers = FEATURES | {_residual: 1, _join: 1}


# ---- words --------------------------------------------------------------------------------------


def _divisors(number: int) -> list[int]:
    return [g for g in range(1, number + 1) if number % g == 0]


def _pair(random: Random, largest: int) -> str:
    height = random.randint(1, largest)
    width = height if random.random() < 0.5 else random.randint(1, largest)
    return f"{height}x{width}"


def _pad(random: Random, largest: int) -> str:
    def side() -> int:
        return random.randint(0, largest)

    return random.choice(
        [
            str(side()),
            f"{side()}x{side()}",
            f"{side()}:{side()}x{side()}:{side()}",
            "same",
            "valid",
        ]
    )


def _maybe(random: Random, chance: float, text: str) -> str:
    return text if random.random() < chance else ""
