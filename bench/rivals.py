"""The others: PyTorch in each of its settings, ONNX Runtime and OpenVINO, on the same network.

Every rival gets the network's own weights and finished float32 batches that lie ready in memory in
the layout it likes best, so that only its arithmetic and its bookkeeping are timed. OpenMP's
threads (PyTorch's) keep their default of spinning for some milliseconds between operations, which
is PyTorch's fastest setting where the machine is its own; the pauses between turns outlast it.
A setting that this machine cannot run is left out with the reason.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np

from lanewise.bridge.torch_module import copy_weights, to_torch
from lanewise.net.graph import Graph
from measure import Contender, installed

# Compiled before anything is timed; its helper processes would still be there afterwards.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

MOMENTUM = 0.9
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Rival:
    """A contender, what it computes (to be compared before it is timed), and how exactly."""

    contender: Contender
    check: Callable[[], dict[str, np.ndarray]]
    tolerance: float


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
    def tolerance(self) -> float:
        """Of the largest value."""
        return 5e-2 if self.bfloat16 else 1e-4


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
    compile: bool = True


Skipped = list[str]


def prepare_torch(threads: int) -> None:
    """Threads as ours; denormals flushed, as ours are."""
    import torch

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)


def settings(task: Task) -> Iterator[Setting]:
    """Those that were asked for."""
    return (one for one in SETTINGS if task.compile or not one.compiled)


# ---- PyTorch, training --------------------------------------------------------------------------


def torch_training(task: Task, rate: float, skipped: Skipped) -> Iterator[Rival]:
    """A training step (SGD, momentum 0.9, Nesterov, fused update) in every setting."""
    for setting in settings(task):
        try:
            yield _torch_training(task, setting, rate)
        except Exception as error:
            skipped.append(f"PyTorch {setting}: {_first_line(error)}")


def _torch_training(task: Task, setting: Setting, rate: float) -> Rival:
    import torch

    module = _module(task, setting)
    optimizer = torch.optim.SGD(
        module.parameters(), lr=rate, momentum=MOMENTUM, nesterov=True, fused=True
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

    loss = step().item()  # compiles, where it is compiled
    after = {name: value.detach().numpy().copy() for name, value in module.named_parameters()}
    values = {"loss": np.array(loss), **after}
    return Rival(Contender("PyTorch", str(setting), run), lambda: values, setting.tolerance)


def _module(task: Task, setting: Setting) -> Any:
    import torch

    module: Any = to_torch(task.graph)
    copy_weights(task.weights, module)
    return module.to(memory_format=torch.channels_last) if setting.channels_last else module


def _images(images: np.ndarray, setting: Setting) -> Any:
    import torch

    tensor = torch.from_numpy(images.copy())
    if setting.channels_last:
        return tensor.contiguous(memory_format=torch.channels_last)
    return tensor


# ---- inference ----------------------------------------------------------------------------------


def torch_inference(task: Task, skipped: Skipped) -> Iterator[Rival]:
    """Logits of a batch in every setting."""
    for setting in settings(task):
        try:
            yield _torch_inference(task, setting)
        except Exception as error:
            skipped.append(f"PyTorch {setting}: {_first_line(error)}")


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

    values = {"logits": logits().float().numpy().copy()}
    return Rival(Contender("PyTorch", str(setting), run), lambda: values, setting.tolerance)


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


def onnx_runtime(task: Task, skipped: Skipped) -> Iterator[Rival]:
    """ONNX Runtime with all its rewrites, in one call."""
    if not _there("onnxruntime", "onnx", skipped=skipped, name="ONNX Runtime"):
        return
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task.threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        onnx_bytes(task), options, providers=["CPUExecutionProvider"]
    )
    feed = {session.get_inputs()[0].name: task.batches[0][0]}

    def run(times: int) -> None:
        for _ in range(times):
            session.run(None, feed)

    yield Rival(
        Contender("ONNX Runtime", "fp32", run), lambda: {"logits": session.run(None, feed)[0]}, 1e-4
    )


def openvino(task: Task, skipped: Skipped) -> Iterator[Rival]:
    """OpenVINO: the batch on all threads, and a part of the batch on each thread."""
    if not _there("openvino", "onnx", skipped=skipped, name="OpenVINO"):
        return
    import openvino as ov

    core, images = ov.Core(), task.batches[0][0]
    common = {"INFERENCE_NUM_THREADS": task.threads, "INFERENCE_PRECISION_HINT": "f32"}
    model = core.read_model(onnx_bytes(task))
    whole = core.compile_model(model, "CPU", {**common, "PERFORMANCE_HINT": "LATENCY"})
    request = whole.create_infer_request()

    def run(times: int) -> None:
        for _ in range(times):
            request.infer([images], share_inputs=True, share_outputs=True)

    def logits() -> dict[str, np.ndarray]:
        return {"logits": next(iter(request.infer([images]).values()))}

    yield Rival(Contender("OpenVINO", "fp32, one stream", run), logits, 1e-4)
    if len(images) % task.threads == 0 and task.threads > 1:
        yield _openvino_streams(core, model, images, task.threads, common)


def _openvino_streams(
    core: Any, model: Any, images: np.ndarray, threads: int, common: Any
) -> Rival:
    import openvino as ov

    parts = np.split(images, threads)
    model.reshape([len(parts[0]), *images.shape[1:]])
    compiled = core.compile_model(model, "CPU", {**common, "NUM_STREAMS": threads})
    queue = ov.AsyncInferQueue(compiled, threads)
    found: dict[int, Any] = {}
    queue.set_callback(lambda request, number: found.update({number: request.results}))

    def run(times: int) -> None:
        for _ in range(times):
            for number, part in enumerate(parts):
                queue.start_async([part], number, share_inputs=True)
            queue.wait_all()

    def logits() -> dict[str, np.ndarray]:
        run(1)
        each = [next(iter(found[number].values())) for number in range(threads)]
        return {"logits": np.concatenate(each)}

    return Rival(Contender("OpenVINO", f"fp32, {threads} streams", run), logits, 1e-4)


def _there(*packages: str, skipped: Skipped, name: str) -> bool:
    absent = [package for package in packages if not installed(package)]
    if absent:
        skipped.append(f"{name}: {absent[0]} is not installed; run: pip install 'lanewise[bench]'")
    return not absent


def _first_line(error: Exception) -> str:
    return (
        f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120] if str(error) else ''}"
    )
