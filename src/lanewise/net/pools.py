"""The layer kinds that make one value of a window, of a part of the map, or of all of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lanewise.net.layer import NO_PAD, Layer, Pad, Pair


@dataclass(frozen=True)
class Pool(Layer):
    """Common fields of the windows that turn many values into one (never used itself)."""

    kernel: Pair
    stride: Pair
    pad: Pad = NO_PAD
    ceil: bool = False


class MaxPool(Pool):
    """The largest value of each window; padding never wins."""

    word: ClassVar[str] = "maxpool"


@dataclass(frozen=True)
class AvgPool(Pool):
    """The mean of each window; padding counts as zeros (PyTorch's count_include_pad=True), or not
    at all where `unpadded`."""

    word: ClassVar[str] = "avgpool"
    unpadded: bool = False


class SumPool(Pool):
    """The sum of each window."""

    word: ClassVar[str] = "sumpool"


class L2Pool(Pool):
    """The root of the sum of squares of each window; padding adds nothing."""

    word: ClassVar[str] = "l2pool"


class Subsample(Pool):
    """Sum of each window × a coefficient + a bias, both trained, one pair a map (LeNet-5, 1998)."""

    word: ClassVar[str] = "subsample"


@dataclass(frozen=True)
class AdaptivePool(Layer):
    """Common field of pools that cut any map into `size` windows (never used itself).

    Along an axis of n values window i covers floor(i·n/size) … ceil((i + 1)·n/size) − 1.
    """

    size: Pair


class AdaptiveMax(AdaptivePool):
    """The largest value of each of size × size windows."""

    word: ClassVar[str] = "adaptivemax"


class AdaptiveAvg(AdaptivePool):
    """The mean of each of size × size windows."""

    word: ClassVar[str] = "adaptiveavg"


class GlobalMax(Layer):
    """The largest value of each feature map: C×H×W → C×1×1."""

    word: ClassVar[str] = "globalmax"


class GlobalAvg(Layer):
    """The mean of each feature map: C×H×W → C×1×1."""

    word: ClassVar[str] = "globalavg"


class GlobalSum(Layer):
    """The sum of each feature map: C×H×W → C×1×1."""

    word: ClassVar[str] = "globalsum"
