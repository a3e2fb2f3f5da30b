"""PyTorch in each of its settings: eager and compiled, channels first and last, fp32 and bf16.

OpenMP's threads keep their default of spinning for some milliseconds between operations, which is
PyTorch's fastest setting where the machine is its own; the pauses between turns outlast it.

PyTorch's module is the GraphModule that `to_torch` makes, with the activations and sums in place
that a person would write in place. For ResNet-20 it was as fast as a module written by hand (slices
and `pad` for the shortcuts, everything in place): 202 and 206 ms a step in NCHW, 135 and 158 ms in
channels last, without the sums and activations in place 207 and 149 ms (batch 32, one thread, the
best of 11 in turns, medians within 2 %).
"""

from __future__ import annotations

import io
import operator
import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import numpy as np

from lanewise.bridge.torch_module import copy_weights, to_torch
from lanewise.net.graph import Graph
from lanewise.net.layers import Add
from lanewise.size.shapes import infer_shapes
from measure import Contender
from rivals import (
    FIRST_RATE,
    MOMENTUM,
    SETTINGS,
    Arrays,
    Rival,
    Setting,
    Skipped,
    Task,
    first_line,
    step_outcome,
)

# Compiled before anything is timed; its helper processes would still be there afterwards.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")


def prepare_torch(threads: int) -> None:
    """Threads as ours; denormals flushed, as ours are."""
    import torch

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """TimeoutError when the seconds are over; 0 is no limit. In the main thread, not on Windows."""
    if not seconds or not hasattr(signal, "setitimer"):
        yield
        return
    told = TimeoutError(f"compiling took more than {seconds:.0f} s")
    over: list[int] = []

    def ring(number: int, _: object) -> None:
        over.append(number)
        raise told

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except Exception:
        if over:  # torch.compile has wrapped it in an error of its own
            raise told from None
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# ---- training ------------------------------------------------------------------------------------


def torch_training(task: Task, rate: float, skipped: Skipped) -> Iterator[Rival]:
    """A training step (SGD, momentum 0.9, Nesterov, fused update) in every setting."""
    for setting in task.settings:
        try:
            yield _torch_training(task, setting, rate)
        except Exception as error:
            skipped.append(f"PyTorch {setting}: {first_line(error)}")


def _torch_training(task: Task, setting: Setting, rate: float) -> Rival:
    import torch

    module = _module(task, setting)
    optimizer = torch.optim.SGD(
        module.parameters(), lr=FIRST_RATE, momentum=MOMENTUM, nesterov=True, fused=True
    )
    criterion = torch.nn.CrossEntropyLoss()

    def loss_of(images: Any, labels: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=setting.bfloat16):
            return criterion(module(images), labels)

    forward = torch.compile(loss_of, dynamic=False) if setting.compiled else loss_of
    batches = cycle([(_images(x, setting), torch.from_numpy(y).long()) for x, y in task.batches])

    def step() -> Any:
        optimizer.zero_grad()
        loss = forward(*next(batches))
        loss.backward()
        optimizer.step()
        return loss

    def run(times: int) -> None:
        for _ in range(times):
            step()

    with limited(task.compile_seconds if setting.compiled else 0):
        loss = step().item()  # compiles, where it is compiled
    values = step_outcome(loss, task.weights, *_learned(module))
    optimizer.param_groups[0]["lr"] = rate
    return Rival(Contender("PyTorch", str(setting), run), lambda: values, setting.tolerances)


def _learned(module: Any) -> tuple[Arrays, Arrays]:
    """Weights and running statistics, copied; not torch's count of batches."""
    named = (module.named_parameters(), module.named_buffers())
    weights, statistics = (
        {name: value.detach().numpy().copy() for name, value in each if value.dim()}
        for each in named
    )
    return weights, statistics


def _module(task: Task, setting: Setting) -> Any:
    import torch

    module: Any = _in_place(to_torch(task.graph), _even_sums(task.graph))
    copy_weights(task.weights, module)
    return module.to(memory_format=torch.channels_last) if setting.channels_last else module


def _even_sums(graph: Graph) -> bool:
    """Whether all that is added has one shape: else a sum may be larger than its first value."""
    shapes = infer_shapes(graph)
    sums = [node.inputs for node in graph.nodes if isinstance(node.layer, Add)]
    return all(len({shapes[name] for name in names}) == 1 for names in sums)


def _in_place(module: Any, sums: bool) -> Any:
    """Activations, and sums, overwrite what nobody else reads, nor the backward pass."""
    from torch import nn

    layers = dict(module.named_modules())
    unread = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)  # their gradients do not need their results
    for node in module.graph.nodes:
        first = next((x for x in node.args if hasattr(x, "users")), None)
        if first is None or len(first.users) > 1:
            continue
        free = first.target in (operator.add, operator.iadd) or isinstance(
            layers.get(str(first.target)), unread
        )
        if free and isinstance(layers.get(str(node.target)), (nn.ReLU, nn.ReLU6)):
            layers[node.target].inplace = True
        elif free and sums and node.target is operator.add:
            node.target = operator.iadd
    module.recompile()
    return module


def _images(images: np.ndarray, setting: Setting) -> Any:
    import torch

    tensor = torch.from_numpy(images.copy())
    if setting.channels_last:
        return tensor.contiguous(memory_format=torch.channels_last)
    return tensor


# ---- inference ----------------------------------------------------------------------------------


def torch_inference(task: Task, skipped: Skipped) -> Iterator[Rival]:
    """Logits of a batch in every setting."""
    for setting in task.settings:
        try:
            yield _torch_inference(task, setting)
        except Exception as error:
            skipped.append(f"PyTorch {setting}: {first_line(error)}")


def _torch_inference(task: Task, setting: Setting) -> Rival:
    import torch

    module = _module(task, setting).eval()
    forward = torch.compile(module, dynamic=False) if setting.compiled else module
    batch = _images(task.batches[0][0], setting)

    def logits() -> Any:
        with (
            torch.inference_mode(),
            torch.autocast("cpu", torch.bfloat16, enabled=setting.bfloat16),
        ):
            return forward(batch)

    def run(times: int) -> None:
        for _ in range(times):
            logits()

    with limited(task.compile_seconds if setting.compiled else 0):
        values = {"logits": logits().float().numpy().copy()}
    return Rival(Contender("PyTorch", str(setting), run), lambda: values, setting.tolerances)


def onnx_bytes(task: Task) -> bytes:
    """The network with its weights as an ONNX model of a fixed batch."""
    import torch

    module = _module(task, SETTINGS[0]).eval()
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = (torch.from_numpy(task.batches[0][0]),)
        torch.onnx.export(module, example, out, dynamo=False)  # type: ignore[arg-type]
    return out.getvalue()
