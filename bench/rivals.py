"""The others: PyTorch in each of its settings, ONNX Runtime and OpenVINO, on the same network.

Every rival gets the network's own weights and finished float32 batches that lie ready in memory in
the layout it likes best, so that only its arithmetic and its bookkeeping are timed. OpenMP's
threads (PyTorch's) keep their default of spinning for some milliseconds between operations, which
is PyTorch's fastest setting where the machine is its own; the pauses between turns outlast it.
A setting that this machine cannot run is left out with the reason.

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle
from typing import Any

import numpy as np

from lanewise.bridge.torch_module import copy_weights, to_torch
from lanewise.native.target import find_target
from lanewise.net.graph import Graph
from lanewise.net.layers import Add
from lanewise.size.report import size
from lanewise.size.shapes import infer_shapes
from measure import Contender, installed

# Compiled before anything is timed; its helper processes would still be there afterwards.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

MOMENTUM = 0.9
FIRST_RATE = 0.1  # of the step that is compared: large beside the rounding of the weights
Arrays = Mapping[str, np.ndarray]
# Gradients may differ by much more than values: a ReLU whose input is 1e-7 here and −1e-7 there has
# a gradient or has none. Beside float64, PyTorch's channels last is up to 1e-2 off in the small
# MobileNetV2, NCHW and ours up to 2e-3, bf16 0.4.
EXACT = {"loss": 1e-4, "statistics": 1e-4, "logits": 1e-4, "weights": 3e-2}
ROUGH = {"loss": 5e-2, "statistics": 5e-2, "logits": 1e-1, "weights": 6e-1}


SMALL = 20_000_000  # multiply–adds, up to which runtimes are shown with one thread too


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


# ---- PyTorch, training --------------------------------------------------------------------------


def torch_training(task: Task, rate: float, skipped: Skipped) -> Iterator[Rival]:
    """A training step (SGD, momentum 0.9, Nesterov, fused update) in every setting."""
    for setting in task.settings:
        try:
            yield _torch_training(task, setting, rate)
        except Exception as error:
            skipped.append(f"PyTorch {setting}: {_first_line(error)}")


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


def small(graph: Graph, images: int) -> bool:
    """Whether one thread may be faster than several."""
    return images * size(graph).totals.macs <= SMALL


def _thread_counts(task: Task) -> list[tuple[int, str]]:
    """Everybody's threads; for little work one thread too, each with what is told of it."""
    single = task.threads > 1 and small(task.graph, len(task.batches[0][0]))
    return [(task.threads, "fp32"), *[(1, "fp32, 1 thread")] * single]


def onnx_runtime(task: Task, skipped: Skipped) -> Iterator[Rival]:
    """ONNX Runtime with all its rewrites, in one call."""
    if not _there("onnxruntime", "onnx", skipped=skipped, name="ONNX Runtime"):
        return
    model = task.model
    for threads, setting in _thread_counts(task):
        yield _onnx_runtime(model, task.batches[0][0], threads, setting)


def _onnx_runtime(model: bytes, images: np.ndarray, threads: int, setting: str) -> Rival:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: images}

    def run(times: int) -> None:
        for _ in range(times):
            session.run(None, feed)

    return Rival(
        Contender("ONNX Runtime", setting, run),
        lambda: {"logits": session.run(None, feed)[0]},
        EXACT,
    )


def openvino(task: Task, skipped: Skipped) -> Iterator[Rival]:
    """OpenVINO: the batch on all threads, and a part of the batch on each thread."""
    if not _there("openvino", "onnx", skipped=skipped, name="OpenVINO"):
        return
    import openvino as ov

    core, images = ov.Core(), task.batches[0][0]
    model = core.read_model(task.model)
    for threads, setting in _thread_counts(task):
        yield _openvino(core, model, images, threads, setting)
    if len(images) % task.threads == 0 and task.threads > 1:
        yield _openvino_streams(core, model, images, task.threads)


def _openvino_settings(threads: int, hint: str) -> dict[str, object]:
    """fp32 everywhere; the hint says what is to be short, or large."""
    return {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": hint,
    }


def _openvino(core: Any, model: Any, images: np.ndarray, threads: int, setting: str) -> Rival:
    """The latency hint: one stream on all threads."""
    compiled = core.compile_model(model, "CPU", _openvino_settings(threads, "LATENCY"))
    request = compiled.create_infer_request()

    def run(times: int) -> None:
        for _ in range(times):
            request.infer([images], share_inputs=True, share_outputs=True)

    def logits() -> dict[str, np.ndarray]:
        return {"logits": next(iter(request.infer([images]).values()))}

    return Rival(Contender("OpenVINO", f"{setting}, latency", run), logits, EXACT)


def _openvino_streams(core: Any, model: Any, images: np.ndarray, threads: int) -> Rival:
    """The throughput hint, with a stream for each thread and a part of the batch for each."""
    import openvino as ov

    parts = np.split(images, threads)
    model.reshape([len(parts[0]), *images.shape[1:]])
    settings = {**_openvino_settings(threads, "THROUGHPUT"), "NUM_STREAMS": threads}
    compiled = core.compile_model(model, "CPU", settings)
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

    return Rival(Contender("OpenVINO", "fp32, throughput", run), logits, EXACT)


def _there(*packages: str, skipped: Skipped, name: str) -> bool:
    absent = [package for package in packages if not installed(package)]
    if absent:
        skipped.append(f"{name}: {absent[0]} is not installed; run: pip install 'lanewise[bench]'")
    return not absent


def _first_line(error: Exception) -> str:
    return (
        f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120] if str(error) else ''}"
    )
