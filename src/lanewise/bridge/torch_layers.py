"""Layers that torch does not have, as ordinary torch modules.

The only file that imports torch at its top, because classes need it; it is itself imported inside
functions only. Each class says in torch's words what the layer of the same name computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm


class GhostBatchNorm(_BatchNorm):
    """Batch normalisation whose statistics are those of each `ghost` images in a row.

    One training step moves the running statistics once, towards the mean over its groups.
    """

    def __init__(self, channels: int, ghost: int, **options: Any) -> None:
        super().__init__(channels, **options)
        self.ghost = ghost

    def _check_input_dim(self, input: Tensor) -> None:
        """Maps and features alike."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        groups = input.split(self.ghost)
        self._note(groups)
        parts = (
            F.batch_norm(part, None, None, self.weight, self.bias, True, eps=self.eps)
            for part in groups
        )
        return torch.cat(list(parts))

    @torch.no_grad()
    def _note(self, groups: Sequence[Tensor]) -> None:
        others = [0, *range(2, groups[0].dim())]
        mean = torch.stack([part.mean(others) for part in groups]).mean(0)
        variance = torch.stack([part.var(others) for part in groups]).mean(0)
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked += 1


class ChannelLayerNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel, N×C×H×W."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ChannelScale(nn.Module):
    """Each channel × a trained factor."""

    def __init__(self, channels: int, initial: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), initial))

    def forward(self, input: Tensor) -> Tensor:
        return input * _along_channels(self.weight, input)


def _along_channels(vector: Tensor, like: Tensor) -> Tensor:
    return vector.reshape(-1, *[1] * (like.dim() - 2))


class SumPool2d(nn.AvgPool2d):
    """The sum of each window: torch's average with the divisor 1."""

    def __init__(self, kernel: Any, stride: Any, padding: Any = 0, ceil_mode: bool = False) -> None:
        super().__init__(kernel, stride, padding, ceil_mode, divisor_override=1)


class L2Pool2d(SumPool2d):
    """The root of the sum of squares of each window; at 0 its gradient is taken as 0."""

    def forward(self, input: Tensor) -> Tensor:
        total = super().forward(input.square())
        positive = total > 0
        return torch.where(positive, torch.where(positive, total, 1.0).sqrt(), 0.0)


class Subsample2d(SumPool2d):
    """The sum of each window × a coefficient + a bias, one pair a channel; begins as the mean."""

    def __init__(self, channels: int, kernel: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(kernel, *arguments, **options)
        self.weight = nn.Parameter(torch.full((channels,), 1 / prod(kernel)))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, input: Tensor) -> Tensor:
        total = super().forward(input)
        return total * _along_channels(self.weight, total) + _along_channels(self.bias, total)


class PartialConv2d(nn.Module):
    """A convolution of which only the connections of a table exist: weight is (connections, R, S).

    Kernel i reads the channels table[i]; elsewhere its weights are 0.
    """

    def __init__(
        self,
        channels: int,
        table: Sequence[Sequence[int]],
        kernel: tuple[int, int],
        bias: bool,
        **window: Any,
    ) -> None:
        super().__init__()
        self.window, self.dense_shape = window, (len(table), channels, *kernel)
        self.connections = [(i, channel) for i, row in enumerate(table) for channel in row]
        bound = (len(self.connections) / len(table) * prod(kernel)) ** -0.5
        weight = torch.empty(len(self.connections), *kernel).uniform_(-bound, bound)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.empty(len(table)).uniform_(-bound, bound)) if bias else None

    def dense(self) -> Tensor:
        """The weight of the full convolution, K×C×R×S."""
        kernels, channels = torch.tensor(self.connections, device=self.weight.device).T
        zeros = self.weight.new_zeros(self.dense_shape)
        return zeros.index_put((kernels, channels), self.weight, accumulate=True)

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.dense(), self.bias, **self.window)


class RadialBasis(nn.Module):
    """−Σ (x − code)² for each of some fixed codes, features × inputs."""

    codes: Tensor

    def __init__(self, codes: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.register_buffer("codes", torch.tensor(codes, dtype=torch.float32), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        return -(input[:, None] - self.codes).square().sum(-1)


class StochasticDepth(nn.Module):
    """In training an image's whole value becomes 0 with probability `rate`, or is scaled up."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return input
        kept = torch.rand(len(input), *[1] * (input.dim() - 1), device=input.device) >= self.rate
        return input * kept / (1 - self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"
