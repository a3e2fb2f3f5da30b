"""The layer kinds: frozen dataclasses that hold what the notation says, and nothing computed.

A rule about a layer (its shape, cost, kernels, PyTorch twin …) never lives here: it stands in a
table of the room that needs it, keyed by these classes. `KINDS` lists them all, so that a test can
walk kind × table.

A kind without fields of its own inherits its dataclass methods (equality compares the class too)
instead of generating them again, which would cost more than all the rest of importing this room.

In a network with `?` some fields hold an `Unknown` (`lanewise.net.unknown`) where a number is due.

All pairs are (height, width). `Pad` is per side: ((top, bottom), (left, right)), or a rule's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lanewise.net.layer import NO_PAD as NO_PAD
from lanewise.net.layer import Layer as Layer
from lanewise.net.layer import Pad as Pad
from lanewise.net.layer import Pair as Pair
from lanewise.net.layer import Sides as Sides
from lanewise.net.pools import AdaptiveAvg as AdaptiveAvg
from lanewise.net.pools import AdaptiveMax as AdaptiveMax
from lanewise.net.pools import AdaptivePool as AdaptivePool
from lanewise.net.pools import AvgPool as AvgPool
from lanewise.net.pools import GlobalAvg as GlobalAvg
from lanewise.net.pools import GlobalMax as GlobalMax
from lanewise.net.pools import GlobalSum as GlobalSum
from lanewise.net.pools import L2Pool as L2Pool
from lanewise.net.pools import MaxPool as MaxPool
from lanewise.net.pools import Pool as Pool
from lanewise.net.pools import Subsample as Subsample
from lanewise.net.pools import SumPool as SumPool


@dataclass(frozen=True)
class Input(Layer):
    """The image: channels × height × width."""

    word: ClassVar[str] = "input"
    channels: int
    height: int
    width: int


@dataclass(frozen=True)
class Conv(Layer):
    """`kernels` feature detectors slide over the input; groups split channels and kernels."""

    word: ClassVar[str] = "conv"
    kernels: int
    kernel: Pair
    stride: Pair = (1, 1)
    pad: Pad = NO_PAD
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: bool = True


@dataclass(frozen=True)
class DepthwiseConv(Layer):
    """Each input channel has `multiplier` kernels of its own and sees no other channel."""

    word: ClassVar[str] = "depthwise"
    kernel: Pair
    multiplier: int = 1
    stride: Pair = (1, 1)
    pad: Pad = NO_PAD
    dilation: Pair = (1, 1)
    bias: bool = True


@dataclass(frozen=True)
class PartialConv(Layer):
    """A convolution whose kernel i reads only the input maps table[i], numbered from 0.

    One kernel for each entry of the table; every connection has weights of its own, as between the
    second and the third layer of LeNet-5 (1998).
    """

    word: ClassVar[str] = "partialconv"
    table: tuple[tuple[int, ...], ...]
    kernel: Pair
    stride: Pair = (1, 1)
    pad: Pad = NO_PAD
    dilation: Pair = (1, 1)
    bias: bool = True


@dataclass(frozen=True)
class TransposedConv(Layer):
    """The gradient of a convolution used as a layer: maps grow by the stride.

    `pad` is cut off the output, `output_pad` lengthens it at the end (PyTorch's output_padding).
    """

    word: ClassVar[str] = "convtranspose"
    kernels: int
    kernel: Pair
    stride: Pair = (1, 1)
    pad: Sides = NO_PAD
    output_pad: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: bool = True


class Flatten(Layer):
    """Feature maps → one row of features, in the order C, H, W."""

    word: ClassVar[str] = "flatten"


@dataclass(frozen=True)
class Linear(Layer):
    """Full connection: every output sees every input feature."""

    word: ClassVar[str] = "linear"
    features: int
    bias: bool = True


class ReLU(Layer):
    """max(x, 0)."""

    word: ClassVar[str] = "relu"


@dataclass(frozen=True)
class LeakyReLU(Layer):
    """x where positive, slope · x elsewhere."""

    word: ClassVar[str] = "leakyrelu"
    slope: float = 0.01


class Tanh(Layer):
    """Hyperbolic tangent."""

    word: ClassVar[str] = "tanh"


class Sigmoid(Layer):
    """1 / (1 + exp(−x))."""

    word: ClassVar[str] = "sigmoid"


class ReLU6(Layer):
    """min(max(x, 0), 6)."""

    word: ClassVar[str] = "relu6"


@dataclass(frozen=True)
class ELU(Layer):
    """x where positive, alpha · (exp(x) − 1) elsewhere."""

    word: ClassVar[str] = "elu"
    alpha: float = 1.0


class SiLU(Layer):
    """x · sigmoid(x), also called swish."""

    word: ClassVar[str] = "silu"


class GELU(Layer):
    """x · Φ(x), Φ being the normal distribution's function (with erf, not the tanh formula)."""

    word: ClassVar[str] = "gelu"


class HardSigmoid(Layer):
    """min(max(x + 3, 0), 6) / 6."""

    word: ClassVar[str] = "hardsigmoid"


class HardSwish(Layer):
    """x · min(max(x + 3, 0), 6) / 6."""

    word: ClassVar[str] = "hardswish"


@dataclass(frozen=True)
class PReLU(Layer):
    """x where positive, a trained slope · x elsewhere: one slope for all, or one a channel."""

    word: ClassVar[str] = "prelu"
    per_channel: bool = False


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Each channel to mean 0 and variance 1 over the batch, then × weight + bias.

    In training the statistics are exactly those of the batch; running averages with `momentum`
    (PyTorch's: the share of the new value) serve inference. `ghost`: statistics of each so many
    images instead (0: the whole batch), which is another function. `affine`: with weight and bias.
    """

    word: ClassVar[str] = "bn"
    eps: float = 1e-5
    momentum: float = 0.1
    ghost: int = 0
    affine: bool = True


@dataclass(frozen=True)
class LayerNorm(Layer):
    """The channels of each pixel (or all features) to mean 0 and variance 1, × weight + bias."""

    word: ClassVar[str] = "layernorm"
    eps: float = 1e-5


@dataclass(frozen=True)
class GroupNorm(Layer):
    """Each group of channels of an image to mean 0 and variance 1, then × weight + bias."""

    word: ClassVar[str] = "groupnorm"
    groups: int
    eps: float = 1e-5


@dataclass(frozen=True)
class LocalResponseNorm(Layer):
    """x / (constant + alpha/size · Σ x²)^beta, the sum over `size` neighbouring channels."""

    word: ClassVar[str] = "lrn"
    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    constant: float = 1.0


@dataclass(frozen=True)
class ChannelScale(Layer):
    """Each channel × a trained factor that begins at `initial` (ConvNeXt's layer scale)."""

    word: ClassVar[str] = "scale"
    initial: float = 1.0


@dataclass(frozen=True)
class ChannelShuffle(Layer):
    """Channels as a groups × (C/groups) table, read column by column."""

    word: ClassVar[str] = "shuffle"
    groups: int


@dataclass(frozen=True)
class ChannelSplit(Layer):
    """One of `of` equal parts of the channels; `part` counts from 1."""

    word: ClassVar[str] = "split"
    part: int
    of: int


@dataclass(frozen=True)
class ChannelPad(Layer):
    """Channels of zeros before and after those of the input."""

    word: ClassVar[str] = "padchannels"
    before: int
    after: int


@dataclass(frozen=True)
class Upsample(Layer):
    """Maps grow `scale` times: each pixel repeated, or bilinear between pixel centres (PyTorch's
    align_corners=False)."""

    word: ClassVar[str] = "upsample"
    scale: Pair
    bilinear: bool = False


@dataclass(frozen=True)
class RadialBasis(Layer):
    """−Σ (x − code)², each output against a fixed code of ±1 (the last layer of LeNet-5, 1998)."""

    word: ClassVar[str] = "rbf"
    features: int


@dataclass(frozen=True)
class Noise(Layer):
    """Common field of what happens in training only (never used itself)."""

    rate: float = 0.5


class Dropout(Noise):
    """In training each value becomes 0 with probability `rate`, the others are scaled up."""

    word: ClassVar[str] = "dropout"


class SpatialDropout(Noise):
    """Dropout of whole feature maps."""

    word: ClassVar[str] = "spatialdropout"


class StochasticDepth(Noise):
    """Dropout of the whole value of an image: put it at the end of a residual branch."""

    word: ClassVar[str] = "stochasticdepth"


class Join(Layer):
    """What reads several layers (never used itself)."""


class Add(Join):
    """The sum, value by value. A C×1×1 input is added to every pixel of its channel."""

    word: ClassVar[str] = "add"


class Multiply(Join):
    """The product, value by value. A C×1×1 input multiplies every pixel of its channel."""

    word: ClassVar[str] = "multiply"


class Concat(Join):
    """All channels (or features) behind each other, in the order of the inputs."""

    word: ClassVar[str] = "concat"


@dataclass(frozen=True)
class Foreign(Layer):
    """A step of an imported network that the notation has no word for, as it was found there.

    It can be sized and nothing else: no text, no code. `output` is its shape, `parameters` and
    `buffers` are (name, shape) pairs, `macs` those of one image; `reason` says why it is no layer.
    `once`: its value is there once, for however many images.
    """

    word: ClassVar[str] = "foreign"
    operator: str
    output: tuple[int, ...]
    reason: str = ""
    parameters: tuple[tuple[str, tuple[int, ...]], ...] = ()
    buffers: tuple[tuple[str, tuple[int, ...]], ...] = ()
    macs: int = 0
    once: bool = False


# Value by value, with nothing to learn.
ACTIVATIONS: tuple[type[Layer], ...] = (
    ReLU,
    LeakyReLU,
    ReLU6,
    ELU,
    SiLU,
    GELU,
    Tanh,
    Sigmoid,
    HardSigmoid,
    HardSwish,
)
WINDOW_POOLS: tuple[type[Layer], ...] = (MaxPool, AvgPool, SumPool, L2Pool, Subsample)
ADAPTIVE_POOLS: tuple[type[Layer], ...] = (AdaptiveMax, AdaptiveAvg)
GLOBAL_POOLS: tuple[type[Layer], ...] = (GlobalMax, GlobalAvg, GlobalSum)
CONVOLUTIONS: tuple[type[Layer], ...] = (Conv, DepthwiseConv, PartialConv, TransposedConv)
NORMS: tuple[type[Layer], ...] = (BatchNorm, LayerNorm, GroupNorm, LocalResponseNorm)
NOISES: tuple[type[Layer], ...] = (Dropout, SpatialDropout, StochasticDepth)
JOINS: tuple[type[Layer], ...] = (Add, Multiply, Concat)

KINDS: tuple[type[Layer], ...] = (
    Input,
    *CONVOLUTIONS,
    *WINDOW_POOLS,
    *ADAPTIVE_POOLS,
    *GLOBAL_POOLS,
    Flatten,
    Linear,
    RadialBasis,
    *ACTIVATIONS,
    PReLU,
    *NORMS,
    ChannelScale,
    ChannelShuffle,
    ChannelSplit,
    ChannelPad,
    Upsample,
    *NOISES,
    *JOINS,
)
