"""MNN on the CPU, its model converted from ours by way of ONNX.

The converter is called without `MNN.tools`, whose import installs a package of its own accord and
tells a server about the conversion.
"""

from __future__ import annotations

import numpy as np

from peers.work import Ready, Work

PACKAGES = ("MNN",)


def inference(work: Work) -> Ready:
    """Logits of a batch; "high" is fp32 throughout."""
    import _tools
    import MNN

    converted = str(work.folder / "model.mnn")
    model = str(work.folder / "model.onnx")
    options = {"-f": "ONNX", "--modelFile": model, "--MNNModel": converted, "--bizCode": "bench"}
    _tools.mnnconvert(["mnnconvert", *(word for pair in options.items() for word in pair)])
    net = MNN.Interpreter(converted)
    threads = int(work.options.get("threads", work.threads))
    session = net.createSession({"numThread": threads, "backend": "CPU", "precision": "high"})
    given, told = net.getSessionInput(session), net.getSessionOutput(session)
    logits = np.zeros(told.getShape(), np.float32)
    pixels = np.ascontiguousarray(work.images)
    images, result = _tensor(pixels), _tensor(logits)
    held = pixels, logits  # tensors point into them

    def run(times: int) -> None:
        assert held
        for _ in range(times):
            given.copyFrom(images)
            net.runSession(session)
            told.copyToHostTensor(result)

    run(1)
    return Ready({"logits": np.array(result.getNumpyData()).reshape(logits.shape)}, run)


def _tensor(array: np.ndarray) -> object:
    import MNN

    kind, order = MNN.Halide_Type_Float, MNN.Tensor_DimensionType_Caffe
    return MNN.Tensor(array.shape, kind, array, order)
