"""What a compiled program promises beyond its arithmetic: any batch, any caller, no surprises."""

from __future__ import annotations

import gc
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from lanewise.errors import DataError, EngineError, NetError
from lanewise.flags import MOST_THREADS
from lanewise.native.compile import collector_paused, compile_net, thread_count
from lanewise.native.driver import CONTEXT_WORDS, PARKED, SEEN, WORD, WORDS_PER_LINE
from lanewise.native.memory import Interval, plan_arena
from lanewise.native.optimizers import SGD, AdamW
from lanewise.native.program import Program
from lanewise.net.graph import Graph, Node
from lanewise.net.layers import Dropout, Layer, LeakyReLU
from lanewise.net.parse import parse

NET = "input 1x10x9; conv 4 k3 pad1; relu; maxpool 2; flatten; linear 8; relu; linear 3"


@pytest.fixture
def program() -> Program:
    program = compile_net(parse(NET), training=True, threads=2)
    program.initialise(7)
    yield program
    program.close()


def batch(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, 1, 10, 9), dtype=np.uint8)
    return images, random.integers(0, 3, count).astype(np.int32)


def test_logits_do_not_depend_on_the_batch(program: Program) -> None:
    images, _ = batch(70)
    together = program.forward(images)
    alone = np.concatenate([program.forward(images[i : i + 1]) for i in range(70)])
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize(("count", "together"), [(1, 1), (33, 1), (64, 2), (500, 2)])
def test_few_images_are_shared_by_the_threads(
    program: Program, count: int, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never all slices to one thread because full connections could take them at once."""
    monkeypatch.setattr(program, "facts", replace(program.facts, width=2))
    program.forward(batch(count)[0])
    assert program._context[WORD["together"]] == together


def test_no_images(program: Program) -> None:
    assert program.forward(np.zeros((0, 1, 10, 9), np.uint8)).shape == (0, 3)


def test_bytes_are_normalised_and_floats_are_not(program: Program) -> None:
    images, _ = batch(5)
    program.set_normalisation(0.25, 0.5)
    floats = ((images / 255 - 0.25) / 0.5).astype(np.float32)
    np.testing.assert_allclose(program.forward(images), program.forward(floats), atol=1e-5)


def test_batches_may_grow_and_shrink(program: Program) -> None:
    for count in (3, 200, 16, 1, 129):
        loss, correct = program.step(*batch(count), lr=0.01)
        assert np.isfinite(loss) and 0 <= correct <= count


def test_steps_together_equal_steps_apart(program: Program) -> None:
    images, labels = batch(90)
    order = np.random.default_rng(1).permutation(90)
    rates = np.linspace(0.1, 0.01, 3).astype(np.float32)
    at_once = program.run_steps(images, labels, order, 40, rates)
    weights = {name: value.copy() for name, value in program.parameters.items()}
    program.initialise(7)
    for i in range(3):
        part = order[40 * i : 40 * i + 40]
        one = program.run_steps(images, labels, part, 40, rates[i : i + 1])
        assert one.losses[0] == at_once.losses[i]
    for name, value in weights.items():
        np.testing.assert_array_equal(value, program.parameters[name], err_msg=name)


def test_gradients_only_changes_no_parameter(program: Program) -> None:
    before = {name: value.copy() for name, value in program.parameters.items()}
    program.gradients_only(*batch(20))
    for name, value in before.items():
        np.testing.assert_array_equal(value, program.parameters[name])
    assert any(np.abs(value).max() > 0 for value in program.gradients.values())


def test_training_learns() -> None:
    images, labels = batch(64)
    with compile_net(parse(NET), training=True, optimizer=AdamW(weight_decay=0.0)) as program:
        program.initialise(0)
        losses = [program.step(images, labels, lr=0.01)[0] for _ in range(120)]
        assert losses[-1] < 0.3 < losses[0]


def test_callers_in_several_threads_wait_for_each_other(program: Program) -> None:
    images, _ = batch(50)
    expected = program.forward(images)
    wrong = []

    def call() -> None:
        for _ in range(20):
            if not np.array_equal(program.forward(images), expected):
                wrong.append(1)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_workers_leave_when_nobody_needs_them() -> None:
    before = threading.active_count()
    program = compile_net(parse(NET), threads=3)
    program.forward(batch(40)[0])
    assert threading.active_count() == before + 2
    del program
    gc.collect()
    assert threading.active_count() == before


def test_a_closed_program_says_so() -> None:
    program = compile_net(parse(NET), threads=1)
    program.close()
    with pytest.raises(EngineError, match="closed"):
        program.forward(batch(2)[0])


def test_denormals_cost_nothing_and_the_callers_mode_returns(program: Program) -> None:
    images = np.random.default_rng(0).normal(size=(512, 1, 10, 9)).astype(np.float32)

    def seconds() -> float:
        best = 1e9
        for _ in range(30):
            start = time.perf_counter()
            program.forward(images)
            best = min(best, time.perf_counter() - start)
        return best

    normal = seconds()
    for value in program.parameters.values():
        value *= np.float32(1e-38)
    assert seconds() < 3 * normal  # without flushing it is tens of times
    tiny = np.float32(1e-40)
    assert tiny * np.float32(0.5) != 0  # this thread still computes with denormals


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x[:, :, :5], y), "images are 4x1x5x9, but the net takes Nx1x10x9"),
        (lambda x, y: (x.astype(np.int64), y), "give uint8 pixels or float32"),
        (lambda x, y: (x, y + 2), "labels reach from"),
        (lambda x, y: (x, y[:2]), "give 4 whole numbers"),
        (lambda x, y: (np.full(x.shape, np.nan, np.float32), y), "nan at"),
    ],
)
def test_unusable_batches(program: Program, change, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match=message):
        program.step(*change(*batch(4)))


def test_a_net_without_parameters_cannot_be_trained() -> None:
    with pytest.raises(EngineError, match="nothing to train"):
        compile_net(parse("input 1x4x4; maxpool 2; flatten"), training=True)


@pytest.mark.parametrize("layer", [LeakyReLU(-0.5), Dropout(1.5)])
def test_a_graph_made_in_code_is_checked(layer: Layer) -> None:
    """The gradient of a leakyrelu reads the sign of its output: a negative slope would be wrong."""
    first = parse("input 1x4x4")
    with pytest.raises(NetError, match="use"):
        compile_net(Graph((*first.nodes, Node("odd", layer, (first.output.name,)))))


def test_an_inference_program_does_not_train() -> None:
    with (
        compile_net(parse(NET)) as program,
        pytest.raises(EngineError, match="compile with training=True"),
    ):
        program.step(*batch(4))


@pytest.mark.parametrize("threads", [0, MOST_THREADS + 1])
def test_threads_that_the_engine_has_no_place_for(threads: int) -> None:
    with pytest.raises(EngineError, match=f"threads is {threads}; use 1 to {MOST_THREADS}"):
        thread_count(threads)


def test_every_thread_that_is_allowed_has_its_words() -> None:
    assert SEEN + MOST_THREADS * WORDS_PER_LINE <= CONTEXT_WORDS
    assert PARKED + MOST_THREADS * WORDS_PER_LINE <= SEEN


def test_arena_never_overlaps() -> None:
    random = np.random.default_rng(5)
    for _ in range(50):
        intervals = []
        for i in range(20):
            first = int(random.integers(0, 30))
            size = int(random.integers(1, 5000))
            intervals.append(Interval(str(i), size, first, first + int(random.integers(0, 9))))
        arena = plan_arena(intervals)
        for a in intervals:
            assert arena.offsets[a.name] % 64 == 0
            assert arena.offsets[a.name] + a.size <= arena.size
            for b in intervals:
                if a is not b and a.meets(b):
                    low, high = sorted((a, b), key=lambda i: arena.offsets[i.name])
                    assert arena.offsets[low.name] + low.size <= arena.offsets[high.name]


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ([-1, 0], "names image -1, but there are 4"),
        ([0, 4], "names image 4, but there are 4"),
        ([0.7, 1.2], "give whole numbers"),
        ([True, False, True, False], "give whole numbers"),
        ([], "no images to train on"),
    ],
)
def test_unusable_orders(program: Program, order: list[object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        program.run_steps(*batch(4), np.array(order), 4, np.array([0.1]))


@pytest.mark.filterwarnings("error")
def test_large_floats_are_no_warning(program: Program) -> None:
    images, labels = batch(4)
    program.gradients_only(np.full(images.shape, 3e38, np.float32), labels)
    with pytest.raises(DataError, match="inf at"):
        program.gradients_only(np.full(images.shape, 1e300), labels)


def test_a_batch_far_larger_than_the_data() -> None:
    with compile_net(parse(NET), training=True, input_gradient=True) as program:
        program.initialise(0)
        images, labels = batch(5)
        steps = program.run_steps(images, labels, np.arange(5), 1 << 40, np.array([0.1]))
        assert np.isfinite(steps.losses).all()
        assert program.input_gradient.shape == images.shape


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"lr": float("nan")}, "a learning rate is nan"),
        ({"lr": -1.0}, "a learning rate is -1.0"),
        ({"smoothing": 7.0}, "label smoothing is 7.0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_unusable_numbers(program: Program, numbers: dict[str, float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        program.step(*batch(4), **numbers)  # type: ignore[arg-type]


def test_rates_must_fit_the_batches(program: Program) -> None:
    images, labels = batch(10)
    for rates in (np.float32(0.1), np.zeros(2), np.zeros((3, 1))):
        with pytest.raises(DataError, match="10 images in batches of 4 need 3 learning rates"):
            program.run_steps(images, labels, np.arange(10), 4, rates)
    with pytest.raises(DataError, match="batch is 0"):
        program.run_steps(images, labels, np.arange(10), 0, np.zeros(1))


@pytest.mark.parametrize(
    "make",
    [
        lambda: SGD(momentum=1.0),
        lambda: SGD(momentum=0.0),
        lambda: SGD(weight_decay=-1e-4),
        lambda: AdamW(betas=(0.9, 1.0)),
        lambda: AdamW(eps=0.0),
    ],
)
def test_unusable_optimizers(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(EngineError, match="it must be"):
        make()


def test_normalisation_is_checked(program: Program) -> None:
    for mean, std in (((0.1, 0.2), 1.0), (0.1, 0.0), (float("nan"), 1.0)):
        with pytest.raises(DataError):
            program.set_normalisation(mean, std)


def test_both_halves_of_a_seed_decide_what_is_dropped() -> None:
    graph = parse("input 1x4x4; flatten; dropout 0.5; linear 3")
    images = np.ones((8, 1, 4, 4), np.float32)
    labels = np.zeros(8, np.int32)
    with compile_net(graph, training=True, threads=1) as program:
        program.initialise(0)
        seeds = (5, 2**32 + 5, 2**33 + 5, 5)
        losses = [program.gradients_only(images, labels, seed=seed)[0] for seed in seeds]
    assert losses[0] == losses[3]
    assert len(set(losses)) == 3


@pytest.mark.parametrize(("count", "threads", "most"), [(64, 2, 2), (32, 2, 1), (128, 2, 4)])
def test_few_slices_are_shared_by_the_threads(count: int, threads: int, most: int) -> None:
    """No thread is given so many groups at once that another has none."""
    with compile_net(parse(NET), training=True, threads=threads) as program:
        program.step(*batch(count), lr=0.0)
        assert program._context[WORD["together"]] == most


def test_the_garbage_collector_goes_on_after_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    """However compiling ends; and whoever paused it before finds it paused."""
    enabled: list[bool] = []

    def refuse(*_: object) -> None:
        enabled.append(gc.isenabled())
        raise EngineError("refused")

    monkeypatch.setattr("lanewise.native.compile.write_modules", refuse)
    assert gc.isenabled()
    with pytest.raises(EngineError, match="refused"):
        compile_net(parse("input 1x3x3; flatten; linear 2"), cache=False)
    assert enabled == [False] and gc.isenabled()
    with collector_paused():
        with pytest.raises(EngineError, match="refused"):
            compile_net(parse("input 1x3x3; flatten; linear 2"), cache=False)
        assert not gc.isenabled()
    assert gc.isenabled()
