"""What training keeps and holds at once: by hand, by what PyTorch saves, as published."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lanewise.net.load import load
from lanewise.net.parse import parse
from lanewise.size.report import SizeReport, size
from lanewise.size.shapes import infer_shapes

KEPT = [
    "input 1x8x8; conv 4 k3; relu; avgpool 2; flatten; linear 5; relu; linear 3",
    "input 2x9x9; conv 4 k3 pad1; bn; relu; residual { conv 4 k3 pad1; bn; relu; conv 4 k1; bn };"
    "relu; globalavg; flatten; linear 3",
    "input 2x9x9; conv 4 k3; silu; conv 4 k1; sigmoid; concat { conv 3 k1; tanh } { }; conv 2 k1",
    "input 2x6x6; conv 4 k3; relu; multiply { } { globalavg; conv 4 k1; sigmoid }; conv 2 k2",
]


@pytest.mark.parametrize("text", KEPT)
def test_what_is_kept_is_what_pytorch_saves(text: str) -> None:
    torch = pytest.importorskip("torch")
    from lanewise.bridge.torch_module import to_torch

    graph = parse(text)
    module = to_torch(graph).train()
    saved: dict[int, int] = {}
    parameters = {one.untyped_storage().data_ptr() for one in module.parameters()}

    def keep(value: Any) -> Any:
        storage = value.untyped_storage()
        if value.dim() > 1 and storage.data_ptr() not in parameters:
            saved[storage.data_ptr()] = storage.nbytes()
        return value

    alive = []
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        alive.append(module(torch.rand(16, *infer_shapes(graph)["input"])))
    memory = size(graph, batch=16).memory
    assert memory
    output = 4 * alive[0].numel()
    assert memory.kept == sum(saved.values()) + output


def report_of(text: str, batch: int = 1) -> SizeReport:
    return size(parse(text), batch)


def test_memory_of_training_by_hand() -> None:
    report = report_of("input 1x4x4; conv 2 k1; relu; maxpool 2; flatten; linear 3", batch=10)
    memory = report.memory
    assert memory
    # Image 64, relu's values in conv's place 128, maxpool's 32 and its 8 arguments, logits 12.
    assert memory.kept == 10 * (64 + 128 + 32 + 8 + 12)
    # Largest at maxpool's gradient: image, 128, arguments, and the gradients 32 and 128. (Its
    # values went with linear, the logits and their gradient too.)
    assert memory.alive == 10 * (64 + 128 + 8 + 32 + 128)
    params = 4 + 8 * 3 + 3
    assert (memory.parameters, memory.gradients, memory.momentum) == (4 * params,) * 3
    assert memory.training == memory.alive + 12 * params
    assert memory.inference == report.totals.peak_bytes


def test_vgg16_keeps_the_values_that_are_published() -> None:
    """15,237,608 with ReLU in place; besides one byte for each maximum and each dropped value,
    and dropout's own values, for ReLU's are still needed."""
    memory = size(load("vgg16")).memory
    assert memory
    maxima = sum(
        row.output[0] * row.output[1] ** 2
        for row in size(load("vgg16")).rows
        if row.kind == "maxpool"
    )
    assert memory.kept == 4 * 15_237_608 + maxima + 2 * 4096 * (1 + 4)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.sampled_from(["conv 2 k1", "relu", "bn", "silu", "tanh", "dropout 0.5", "avgpool 1"]),
        min_size=1,
        max_size=7,
    )
)
def test_memory_grows_with_the_batch_and_holds_what_is_kept(words: list[str]) -> None:
    text = f"input 2x3x3; conv 2 k1; {'; '.join(words)}"
    one, two = report_of(text).memory, report_of(text, 2).memory
    assert one
    assert two
    assert (two.alive, two.kept) == (2 * one.alive, 2 * one.kept)
    assert one.alive >= one.kept >= 0
