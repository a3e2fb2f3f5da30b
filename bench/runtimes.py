"""ONNX Runtime and OpenVINO on the network as an ONNX model, each in its best settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from lanewise.net.graph import Graph
from lanewise.size.report import size
from measure import Contender, installed
from rivals import EXACT, Rival, Skipped, Task

SMALL = 20_000_000  # multiply–adds, up to which runtimes are shown with one thread too


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
