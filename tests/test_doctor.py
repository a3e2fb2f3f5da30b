"""Typical mistakes: the answer names layer and line, shows the arithmetic, and its edit helps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from lanewise.bridge.doctor.edits import Source, changed_lines
from lanewise.bridge.doctor.healing import Diagnosis
from lanewise.bridge.networks import graph_of
from lanewise.cli.main import main
from lanewise.errors import NetError
from lanewise.net.layers import Input
from lanewise.size.report import size

HEAD = """\
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
"""


def written(init: str, forward: str) -> str:
    """A module's file."""
    made = "".join(f"        {line.strip()}\n" for line in init.strip().splitlines())
    run = "".join(f"        {line.strip()}\n" for line in forward.strip().splitlines())
    return f"{HEAD}{made}\n    def forward(self, x):\n{run}"


@dataclass(frozen=True)
class Mistake:
    """A file, its image, what the message must tell, the lines that its edit must change."""

    text: str
    image: tuple[int, int, int]
    told: tuple[str, ...]
    lines: tuple[str, ...]


LENET = """
self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
self.conv2 = nn.Conv2d(6, 16, 5)
self.fc1 = nn.Linear({features}, 10)
"""
RUN = """
x = F.max_pool2d(F.relu(self.conv1(x)), 2)
x = F.max_pool2d(F.relu(self.conv2(x)), 2)
{flat}
return self.fc1(x)
"""
RESIDUAL = """
self.stem = nn.Conv2d(3, 8, 3, padding=1)
self.conv1 = nn.Conv2d(8, 16, 3, stride=2, padding=1)
self.conv2 = nn.Conv2d(16, 16, 3, padding=1)
"""

MISTAKES = {
    "wrong in_features": Mistake(
        written(LENET.format(features=256), RUN.format(flat="x = torch.flatten(x, 1)")),
        (1, 28, 28),
        ("net.py:17 fc1: flatten: 16 × 5 × 5 = 400, but linear expects 256", "edit net.py:11"),
        ("- self.fc1 = nn.Linear(256, 10)", "+ self.fc1 = nn.Linear(400, 10)"),
    ),
    "wrong in_features of a view": Mistake(
        written(LENET.format(features=256), RUN.format(flat="x = x.view(x.size(0), -1)")),
        (1, 28, 28),
        ("net.py:17 fc1: view: 16 × 5 × 5 = 400, but linear expects 256",),
        ("- self.fc1 = nn.Linear(256, 10)", "+ self.fc1 = nn.Linear(400, 10)"),
    ),
    "wrong number in a view": Mistake(
        written(LENET.format(features=256), RUN.format(flat="x = x.view(-1, 256)")),
        (1, 28, 28),
        ("net.py:16 view: 16 × 5 × 5 = 400 values an image, but view asks for -1x256",),
        (
            "- self.fc1 = nn.Linear(256, 10)",
            "+ self.fc1 = nn.Linear(400, 10)",
            "- x = x.view(-1, 256)",
            "+ x = x.flatten(1)",
        ),
    ),
    "forgotten flatten": Mistake(
        written(LENET.format(features=400), RUN.format(flat="")),
        (1, 28, 28),
        ("fc1: its input is 16x5x5, not flat: flattened it has 16 × 5 × 5 = 400, as linear",),
        ("- return self.fc1(x)", "+ return self.fc1(x.flatten(1))"),
    ),
    "forgotten flatten in a sequence": Mistake(
        "from torch import nn\n\nNet = nn.Sequential(\n    nn.Conv2d(3, 8, 3),\n    nn.ReLU(),\n"
        "    nn.Linear(200, 10),\n)\n",
        (3, 8, 8),
        ("net.py:6 2: its input is 8x6x6, not flat", "8 × 6 × 6 = 288, but linear expects 200"),
        ("- nn.Linear(200, 10),", "+ nn.Flatten(), nn.Linear(288, 10),"),
    ),
    "channels last": Mistake(
        written("self.conv = nn.Conv2d(3, 8, 3)", "return self.conv(x)"),
        (32, 24, 3),
        (
            "conv: its input is 32x24x3, 32 channels, but conv expects 3: the channels come last",
            "or give the images so: --input 3x32x24",
        ),
        ("- return self.conv(x)", "+ return self.conv(x.permute(0, 3, 1, 2))"),
    ),
    "missing axis of the images": Mistake(
        written(LENET.format(features=400), RUN.format(flat="x = torch.flatten(x)")),
        (1, 28, 28),
        ("flatten: joins the 2 images of a batch: 2 × 16 × 5 × 5 = 800",),
        ("- x = torch.flatten(x)", "+ x = torch.flatten(x, start_dim=1)"),
    ),
    "one image taken out": Mistake(
        written("self.conv = nn.Conv2d(3, 8, 3)", "x = x[0]\nreturn self.conv(x).mean((-1, -2))"),
        (3, 9, 9),
        ("__getitem__: x[0] takes one image, and the axis of the images is gone",),
        ("- x = x[0]", "+ x = x"),
    ),
    "kernel larger than the map": Mistake(
        written(
            "self.a = nn.Conv2d(3, 8, 3, stride=4)\nself.b = nn.Conv2d(8, 16, 7)",
            "return self.b(self.a(x))",
        ),
        (3, 16, 16),
        ("net.py:13 b: input 8x4x4, kernel 7 stride 1 pad 0 has no output position",),
        ("- self.b = nn.Conv2d(8, 16, 7)", "+ self.b = nn.Conv2d(8, 16, 7, padding=3)"),
    ),
    "a stride that skips": Mistake(
        written(
            "self.conv = nn.Conv2d(3, 8, 3, padding=1)\nself.pool = nn.MaxPool2d(2, stride=3)\n"
            "self.fc = nn.Linear(8 * 8 * 8, 10)",
            "x = self.pool(F.relu(self.conv(x)))\nreturn self.fc(x.flatten(1))",
        ),
        (3, 16, 16),
        ("fc: flatten: 8 × 5 × 5 = 200, but linear expects 512",),
        ("- self.pool = nn.MaxPool2d(2, stride=3)", "+ self.pool = nn.MaxPool2d(2, stride=2)"),
    ),
    "gray instead of colours": Mistake(
        written("self.conv = nn.Conv2d(3, 8, 3)", "return self.conv(x)"),
        (1, 28, 28),
        (
            "conv: its input is 1x28x28, 1 channel, but conv expects 3: the images are gray",
            "or give other images: --input 3x28x28",
        ),
        ("- self.conv = nn.Conv2d(3, 8, 3)", "+ self.conv = nn.Conv2d(1, 8, 3)"),
    ),
    "padding same with a stride": Mistake(
        written("self.conv = nn.Conv2d(3, 8, 5, stride=2, padding='same')", "return self.conv(x)"),
        (3, 16, 16),
        ("net.py:9 conv: padding='same' needs stride 1, and the stride is 2; 2 on each side",),
        (
            "- self.conv = nn.Conv2d(3, 8, 5, stride=2, padding='same')",
            "+ self.conv = nn.Conv2d(3, 8, 5, stride=2, padding=2)",
        ),
    ),
    "groups that do not divide": Mistake(
        written("self.conv = nn.Conv2d(12, 18, 3, groups=4)", "return self.conv(x)"),
        (12, 8, 8),
        ("net.py:9 conv: 4 groups do not divide 12 channels and 18 kernels",),
        (
            "- self.conv = nn.Conv2d(12, 18, 3, groups=4)",
            "+ self.conv = nn.Conv2d(12, 18, 3, groups=3)",
        ),
    ),
    "residual with another stride": Mistake(
        written(
            RESIDUAL,
            "x = self.stem(x)\ny = self.conv2(F.relu(self.conv1(x)))\nreturn F.relu(y + x)",
        ),
        (3, 16, 16),
        ("add: 16x8x8 and 8x16x16 must be alike",),
        (
            "+ self.shortcut = nn.Conv2d(8, 16, 1, stride=2)",
            "- return F.relu(y + x)",
            "+ return F.relu(y + self.shortcut(x))",
        ),
    ),
    "too many poolings": Mistake(
        written(
            "self.conv = nn.Conv2d(3, 8, 3, padding=1)\nself.pool = nn.MaxPool2d(2)",
            "x = self.pool(self.pool(self.conv(x)))\nreturn F.max_pool2d(x, 2)",
        ),
        (3, 4, 4),
        ("max_pool2d: input 8x1x1, window 2 stride 2 pad 0 has no output position",),
        ("- return F.max_pool2d(x, 2)", "+ return x"),
    ),
    "concat along the wrong axis": Mistake(
        written(
            "self.a = nn.Conv2d(3, 4, 1)\nself.b = nn.Conv2d(3, 6, 1)",
            "return torch.cat([self.a(x), self.b(x)])",
        ),
        (3, 8, 8),
        ("cat: 2x4x8x8 and 2x6x8x8 along axis 0, that of the images",),
        (
            "- return torch.cat([self.a(x), self.b(x)])",
            "+ return torch.cat([self.a(x), self.b(x)], dim=1)",
        ),
    ),
    "concat that nobody refuses": Mistake(
        written(
            "self.a = nn.Conv2d(3, 4, 1)\nself.b = nn.Conv2d(3, 4, 1)",
            "x = torch.cat((self.a(x), self.b(x)), 0)\nreturn x.mean((2, 3))",
        ),
        (3, 8, 8),
        ("cat: 2x4x8x8 and 2x4x8x8 along axis 0, that of the images",),
        (
            "- x = torch.cat((self.a(x), self.b(x)), 0)",
            "+ x = torch.cat((self.a(x), self.b(x)), 1)",
        ),
    ),
    "normalisation of other channels": Mistake(
        written(
            "self.conv = nn.Conv2d(3, 16, 3)\nself.bn = nn.BatchNorm2d(32)",
            "return self.bn(self.conv(x))",
        ),
        (3, 8, 8),
        ("bn: its input is 16x6x6, 16 channels, but bn expects 32",),
        ("- self.bn = nn.BatchNorm2d(32)", "+ self.bn = nn.BatchNorm2d(16)"),
    ),
    "channels that do not follow": Mistake(
        written(
            "self.a = nn.Conv2d(3, 16, 3)\nself.b = nn.Conv2d(in_channels=8, out_channels=4, "
            "kernel_size=3)",
            "return self.b(F.relu(self.a(x)))",
        ),
        (3, 8, 8),
        ("b: its input is 16x6x6, 16 channels, but conv expects 8",),
        (
            "- self.b = nn.Conv2d(in_channels=8, out_channels=4, kernel_size=3)",
            "+ self.b = nn.Conv2d(in_channels=16, out_channels=4, kernel_size=3)",
        ),
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_typical_mistake(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mistake = MISTAKES[name]
    monkeypatch.chdir(tmp_path)
    path = Path("net.py")
    path.write_text(mistake.text, encoding="utf-8")
    with pytest.raises(NetError) as caught:
        graph_of("net.py:Net", Input(*mistake.image))
    message = str(caught.value)
    assert isinstance(caught.value, Diagnosis), message
    for words in mistake.told:
        assert words in message, message
    fixed = caught.value.fixed
    assert fixed is not None, message
    assert path.read_text(encoding="utf-8") == mistake.text, "the file is not touched"
    assert tuple(changed_lines(mistake.text, fixed)) == mistake.lines, message
    assert all(f"\n  {line}" in message for line in mistake.lines)
    path.write_text(fixed, encoding="utf-8")
    assert size(graph_of("net.py:Net", Input(*mistake.image))).rows
    path.write_text(mistake.text, encoding="utf-8")
    image = "x".join(map(str, mistake.image))
    capsys.readouterr()
    assert main(["size", "net.py:Net", "--input", image, "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err == f"lanewise: {message}\n"


def test_what_no_edit_helps_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(
        written(
            "self.a = nn.Conv2d(3, 4, 3)", "return self.a(x) + F.conv2d(x, torch.ones(4, 3, 2, 2))"
        )
    )
    with pytest.raises(NetError, match="add: 4x6x6 and 4x7x7 must be alike"):
        graph_of("net.py:Net", Input(3, 8, 8))
    Path("net.py").write_text(
        "from torch import nn\n\n\n"
        "class Net(nn.Module):\n    def forward(self, x, y):\n        pass\n"
    )
    with pytest.raises(NetError, match=r"missing 1 required .*networks here read one image"):
        graph_of("net.py:Net", Input(3, 8, 8))
    Path("net.py").write_text(written("pass", "return torch.matmul(x, torch.ones(3, 3))"))
    with pytest.raises(NetError, match=r"net.py:12: RuntimeError: .*check that it runs on images"):
        graph_of("net.py:Net", Input(3, 8, 8))


def test_edits_are_exact_to_the_byte() -> None:
    text = "größe = 'é'; net = Conv2d(3, 8,\n    kernel_size=3)  # ü\n"
    source = Source(text)
    call = next(n for n in __import__("ast").walk(source.tree) if type(n).__name__ == "Call")
    edited = source.edited([source.with_argument(call, 2, "kernel_size", "5")])
    assert edited == text.replace("=3", "=5")
    edited = source.edited([source.with_argument(call, 3, "stride", "2")])
    assert edited == text.replace("kernel_size=3)", "kernel_size=3, stride=2)")
