"""Threads that share one slice of 16 images: the same bits as one thread, and nothing stale."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lanewise.bridge.torch_module import copy_weights, to_torch
from lanewise.native import Program, compile_net
from lanewise.native.directions import plan_directions
from lanewise.native.driver_together import shares
from lanewise.native.nest import Buffer, Kernel
from lanewise.native.nest_check import NestError, check
from lanewise.native.side_by_side import one_by_one
from lanewise.native.target import find_target
from lanewise.native.writer import Writer
from lanewise.net.load import load
from lanewise.net.parse import parse

#: odd maps, strides, Winograd, pools, sums, depthwise and grouped layers, full connections
NET = """
input 3x31x27
conv 20 k7 stride2 pad3
bn
relu
maxpool 3 stride2 pad1
residual {
    conv 20 k3 pad1
    bn
    relu
    conv 20 k3 pad1
    bn
}
relu
conv 36 k3 stride2 pad1
conv 36 k3 pad1 groups4
relu6
depthwise k3 pad1
bn
conv 40 k1
hardswish
flatten
linear 50
relu
linear 7
"""


def program(threads: int, training: bool = False) -> Program:
    one = compile_net(parse(NET), threads=threads, training=training)
    one.initialise(3)
    return one


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, 3, 31, 27)).astype(np.float32)


@pytest.mark.parametrize("count", [5, 48, 70])
def test_same_bits_for_any_number_of_threads(count: int) -> None:
    images = pictures(count)
    found = set()
    for threads in (1, 2, 3, 7):
        with program(threads) as one:
            found.add(one.forward(images).tobytes())
    assert len(found) == 1


def test_shared_slices_agree_with_torch() -> None:
    images = pictures(16)
    with program(2) as one:
        assert one.facts.shares and one._shared(1) == 1
        model = to_torch(one.graph)
        copy_weights(one, model)
        with torch.no_grad():
            theirs = model.eval()(torch.from_numpy(images)).numpy()
        np.testing.assert_allclose(one.forward(images), theirs, rtol=1e-4, atol=1e-5)


def test_only_an_uneven_last_round_is_shared() -> None:
    with program(2) as two, program(5) as five:
        assert [two._shared(n) for n in (1, 2, 3, 4, 9)] == [1, 0, 1, 0, 1]
        assert [five._shared(n) for n in (1, 4, 5, 9, 12)] == [1, 4, 0, 4, 2]


def test_what_is_worked_out_of_parameters_follows_them() -> None:
    """Transformed weights and folded normalisations are kept from call to call."""
    images = pictures(16)
    with program(2) as one:
        first = one.forward(images)
        one.set_learned({name: array * 1.5 for name, array in one.learned.items()})
        second = one.forward(images)
        assert not np.array_equal(first, second)
        one.initialise(3)
        assert np.array_equal(one.forward(images), first)
        with pytest.raises(ValueError, match="read-only"):
            one.parameters["conv1.weight"][...] = 0


def test_training_changes_what_forward_sees() -> None:
    images, labels = pictures(16), np.arange(16) % 7
    with program(2, training=True) as one, program(1) as other:
        for _ in range(2):
            one.step(images, labels, lr=0.01)
            other.set_learned(one.learned)
            assert np.array_equal(one.forward(images), other.forward(images))
        one.parameters["conv2.weight"][...] *= 2
        other.set_learned(one.learned)
        assert np.array_equal(one.forward(images), other.forward(images))


def test_small_calls_are_not_worth_meeting_for() -> None:
    target = find_target("host")
    for graph, worth in ((load("lenet5"), False), (parse(NET), True)):
        assert shares(plan_directions(graph, target, training=False)["forward"]) is worth


def _doubled(shared: bool, own: bool) -> Kernel:
    source, target = Buffer("source", (8, 16)), Buffer("target", (8, 16), access="write")
    spare = Buffer("spare", (16,), access="update", own=own)
    writer = Writer("doubled", [source, spare, target])
    writer.store(spare, 0, value=writer.load(source, 0, 0))
    with writer.loop("i", 8, shared=shared) as i:
        writer.store(target, i, 0, value=writer.load(source, i, 0))
    return writer.finish()


def test_what_all_threads_write_is_refused() -> None:
    assert not _doubled(shared=False, own=False).shares
    check(_doubled(shared=False, own=False))
    check(_doubled(shared=True, own=True))
    with pytest.raises(NestError, match="spare is written by every thread"):
        check(_doubled(shared=True, own=False))


@pytest.mark.parametrize(
    ("net", "batch", "single"),
    [
        ("lenet5", None, False),
        ("lenet5", 7, True),
        ("lenet5", 8, False),
        ("lenet5", 17, False),
        ("resnet18", 11, True),
        ("resnet18", 12, False),
        ("resnet18", 17, True),
        ("resnet18", 32, False),
        ("resnet50", 16, True),
        ("resnet50", None, False),
        ("mobilenet-v2-small", 16, False),
    ],
)
def test_who_is_taken_one_by_one(net: str, batch: int | None, single: bool) -> None:
    """Few images; and where 1 × 1 convolutions would wait for the maps of sixteen."""
    assert one_by_one(load(net), batch) is single
