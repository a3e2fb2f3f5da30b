"""The others in this process: who they are, what they are given, what they must agree in.

`torch_rivals.py` has PyTorch in each of its settings, `runtimes.py` ONNX Runtime and OpenVINO.
Every rival gets the network's own weights and finished float32 batches that lie ready in memory in
the layout it likes best, so that only its arithmetic and its bookkeeping are timed. A setting that
this machine cannot run is left out with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lanewise.native.target import find_target
from lanewise.net.graph import Graph
from measure import Contender

MOMENTUM = 0.9
FIRST_RATE = 0.1  # of the step that is compared: large beside the rounding of the weights
Arrays = Mapping[str, np.ndarray]
# Gradients may differ by much more than values: a ReLU whose input is 1e-7 here and −1e-7 there has
# a gradient or has none. Beside float64, PyTorch's channels last is up to 1e-2 off in the small
# MobileNetV2, NCHW and ours up to 2e-3, bf16 0.4.
EXACT = {"loss": 1e-4, "statistics": 1e-4, "logits": 1e-4, "weights": 3e-2}
ROUGH = {"loss": 5e-2, "statistics": 5e-2, "logits": 1e-1, "weights": 6e-1}


@dataclass(frozen=True)
class Rival:
    """A contender, what it computes (to be compared before it is timed), and how exactly."""

    contender: Contender
    check: Callable[[], Arrays]
    tolerances: Mapping[str, float]  # what is compared → its largest relative difference


@dataclass(frozen=True)
class Setting:
    """One way to run PyTorch; its "channels last" is shown as NHWC."""

    channels_last: bool
    bfloat16: bool
    compiled: bool

    def __str__(self) -> str:
        layout = "NHWC" if self.channels_last else "NCHW"
        number = "bf16" if self.bfloat16 else "fp32"
        return f"{layout} {number}" + (", compiled" if self.compiled else "")

    @property
    def tolerances(self) -> Mapping[str, float]:
        """Of each thing that is compared."""
        return ROUGH if self.bfloat16 else EXACT


SETTINGS = tuple(
    Setting(channels_last, bfloat16, compiled)
    for compiled in (False, True)
    for channels_last, bfloat16 in ((False, False), (True, False), (True, True))
)


@dataclass(frozen=True)
class Task:
    """What all contenders do: images N×C×H×W float32 and labels, in batches; the first weights."""

    graph: Graph
    weights: Arrays
    batches: Sequence[tuple[np.ndarray, np.ndarray]]
    threads: int
    settings: Sequence[Setting] = SETTINGS  # of PyTorch
    compile_seconds: float = 0.0  # the most that torch.compile may take for a setting; 0: any time

    @cached_property
    def model(self) -> bytes:
        """The network with its weights as an ONNX model of the first batch, made once."""
        from torch_rivals import onnx_bytes

        return onnx_bytes(self)


Skipped = list[str]


def step_outcome(loss: float, before: Arrays, weights: Arrays, statistics: Arrays) -> Arrays:
    """What contenders must agree in after a step: its loss, and the changes it made."""
    changes = {
        "weights": [(weights[name] - before[name]).ravel() for name in sorted(weights)],
        "statistics": [(statistics[name] - before[name]).ravel() for name in sorted(statistics)],
    }
    parts = {kind: np.concatenate(each) for kind, each in changes.items() if each}
    return {"loss": np.array(loss), **parts}


def eager() -> tuple[Setting, ...]:
    """The settings without torch.compile."""
    return tuple(one for one in SETTINGS if not one.compiled)


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16; PyTorch emulates it elsewhere, slowly."""
    return find_target().has("avx512bf16") or find_target().has("bf16")


def first_line(error: BaseException) -> str:
    """What is told of an error: its kind and the first line of its message."""
    return (
        f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120] if str(error) else ''}"
    )
