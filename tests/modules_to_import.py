"""PyTorch modules as people write them, for the tests of import, conversion and the doctor."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Functional(nn.Module):
    """Activations, pools and views in `forward`, as in most tutorials."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 12)
        self.fc2 = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(torch.relu(self.conv2(x)), (2, 2))
        x = x.view(x.size(0), -1)
        x = F.dropout(F.relu(self.fc1(x)), training=self.training)
        return self.fc2(x)


class SqueezeExcite(nn.Module):
    """Full connections between maps of one pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // 4),
            nn.ReLU(),
            nn.Linear(channels // 4, channels),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, _, _ = x.shape
        return x * self.fc(x.mean((2, 3))).view(batch, channels, 1, 1).expand_as(x)


class Unit(nn.Module):
    """A residual unit with a projection where it must."""

    def __init__(self, channels: int, kernels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, kernels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(kernels)
        self.conv2 = nn.Conv2d(kernels, kernels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(kernels)
        self.se = SqueezeExcite(kernels)
        self.down: nn.Module | None = None
        if stride > 1:
            self.down = nn.Sequential(nn.Conv2d(channels, kernels, 1, stride), nn.BatchNorm2d(8))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu_(self.bn1(self.conv1(x)))
        y = self.se(self.bn2(self.conv2(y)))
        y += x if self.down is None else self.down(x)
        return F.relu(y, inplace=True)


class Residual(nn.Module):
    """Modules in lists, and shapes looked at in `forward`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU6())
        self.units = nn.ModuleList([Unit(4, 4, 1), Unit(4, 8, 2)])
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for unit in self.units:
            x = unit(x)
        if x.shape[-1] > 1:
            x = F.adaptive_avg_pool2d(x, 1)
        return self.head(x.squeeze(-1).squeeze(-1))


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Channels of the groups in turns."""
    n, c, h, w = x.size()
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)


class Modern(nn.Module):
    """Channels last between two permutations, parameters used directly, cuts, shuffles."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(4, 4, 1)
        self.depth = nn.Conv2d(4, 8, 3, padding=1, groups=4)
        self.norm = nn.LayerNorm(8, eps=1e-6)
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)
        self.gamma = nn.Parameter(torch.linspace(0.5, 2, 8))
        self.wide = nn.Conv2d(16, 6, (1, 3), stride=2, dilation=2)

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=1)
        x = shuffled(self.mix(torch.cat([b, F.silu(a)], dim=1)), 2)
        x = self.depth(F.pad(x, (0, 1, 2, 1)))
        y = self.norm(x.permute(0, 2, 3, 1))
        y = self.gamma * self.down(F.gelu(self.up(y)))
        x = x + y.permute(0, 3, 1, 2)
        x = torch.cat((x[:, :4], x[:, 4:8], torch.tanh(x)), 1)
        return F.hardswish(self.wide(x)).amax(dim=(-2, -1))


class Pools(nn.Module):
    """Windows of all sorts."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
        self.two = nn.AvgPool2d(2, ceil_mode=True)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear")
        self.back = nn.ConvTranspose2d(4, 3, 3, 2, 1, output_padding=1, groups=1)
        self.norm = nn.GroupNorm(1, 3)
        self.slope = nn.PReLU(3)
        self.lrn = nn.LocalResponseNorm(3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(self.two(self.one(x)), scale_factor=2)
        x = F.leaky_relu(F.elu(x), 0.2)[:, :, ::2, ::2]
        x = self.lrn(self.slope(self.norm(self.back(self.up(x)))))
        x = F.adaptive_max_pool2d(x, (2, 3))
        return torch.flatten(F.max_pool2d(F.pad(x, (0, 1), value=float("-inf")), 2), 1)


class Shared(nn.Module):
    """One convolution used three times; one layer that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.again = nn.Conv2d(8, 8, 3, padding=1)
        self.idle = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for _ in range(3):
            x = F.relu(self.again(x))
        return x


class Sequence(nn.Module):
    """Steps that Lanewise has no layers for."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect")
        self.lstm = nn.LSTM(8, 16, batch_first=True)
        self.out = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        rows, _ = self.lstm(self.conv(x).flatten(2).transpose(1, 2))
        return F.log_softmax(self.out(rows[:, -1]), dim=1)


class SequenceFirst(nn.Module):
    """The axis of the images lies behind that of the sequence for a while."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(2).permute(2, 0, 1)
        return F.softplus(rows).transpose(0, 1)


class Joined(nn.Module):
    """The images are joined with the places: one full connection for all rows."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 7)

    def forward(self, x: Tensor) -> Tensor:
        images, channels, height, width = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(images * height * width, channels)
        return F.softplus(self.fc(rows)).view(images, height * width * 7)


class Encoder(nn.Module):
    """A transformer's layer over the pixels, with the images first or behind the sequence."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(2).transpose(1, 2)
        if self.batch_first:
            return self.layer(rows)
        return self.layer(rows.transpose(0, 1)).transpose(0, 1)


def images_first() -> nn.Module:
    return Encoder(True)


def sequence_first() -> nn.Module:
    return Encoder(False)


class Windows(nn.Module):
    """Attention inside windows of 2x2 pixels, which stand beside the images as Swin has them."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.bias = nn.Parameter(torch.zeros(2, 4, 4))

    def forward(self, x: Tensor) -> Tensor:
        images, channels, height, width = x.shape
        x = self.norm(x.permute(0, 2, 3, 1))
        x = x.view(images, height // 2, 2, width // 2, 2, channels)
        windows = x.permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, channels)
        qkv = self.qkv(windows).view(-1, 4, 3, 2, channels // 2).permute(2, 0, 3, 1, 4)
        scores = qkv[0] @ qkv[1].transpose(-2, -1) + self.bias
        mixed = (scores.softmax(-1) @ qkv[2]).transpose(1, 2).reshape(-1, 4, channels)
        x = mixed.view(images, height // 2, width // 2, 2, 2, channels)
        x = x.permute(0, 1, 3, 2, 4, 5).reshape(images, height, width, channels)
        return x.permute(0, 3, 1, 2)


class Centred(nn.Module):
    """The mean of all images, which is one however many they are, taken off each."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0, keepdim=True)


class EachToEach(nn.Module):
    """Every image against every image."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(1)
        return (rows @ rows.t()).softmax(1) @ rows


class CountsImages(nn.Module):
    """Another way for an odd number of images."""

    def forward(self, x: Tensor) -> Tensor:
        rows = F.softplus(x.reshape(-1, x.shape[-1]))
        return (F.softplus(rows) if x.shape[0] % 2 else rows).view(x.shape)


class Several(nn.Module):
    """Two results."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.conv(x), x


def small() -> nn.Module:
    """A factory."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding="same"),
        nn.BatchNorm2d(4),
        nn.Hardtanh(0, 6),
        nn.Flatten(),
        nn.Linear(4 * 6 * 5, 7),
    )


instance = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten())
