"""The tester tested: kernels are broken on purpose, one at a time, and the oracle must object.

The damage is done to the loop nests themselves, before they are checked and lowered, so all that
stands between a wrong sign in a kernel and a user is what is tested here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from lanewise.errors import EngineError
from lanewise.native import compile_net, emit
from lanewise.native.kernels import dropout, pool, taps
from lanewise.native.nest import Assign, Kernel, Loop, Op, Statement, Store, Transpose, Value, op
from lanewise.native.optimizers import SGD, AdamW, Optimizer
from lanewise.native.rules import convolution, noise
from lanewise.net.graph import Graph
from lanewise.net.parse import parse

pytest.importorskip("torch", reason="the oracle needs PyTorch (extra `torch`)")

from lanewise.bridge.oracle import Trial, draw, judge
from lanewise.bridge.updates import judge_updates

NET = parse(
    "input 2x11x10; conv 5 k3 pad1; relu; maxpool 3 stride2; conv 7 k 3x2 stride2 pad 1:0x0:1;"
    "leakyrelu 0.2; avgpool 2 stride1 pad1; tanh; dropout 0.3; flatten; linear 18; sigmoid;"
    "linear 5"
)
# What stands in for what. The first place where a kernel does one of these is changed.
WRONG: dict[str, Callable[..., Value]] = {
    "fma": lambda a, b, c: op("fma", op("neg", a), b, c),
    "add": lambda a, b: op("sub", a, b),
    "max": lambda a, b: op("min", a, b),
    "mul": lambda a, b: op("neg", op("mul", a, b)),
    "select": lambda c, a, b: op("select", c, b, a),
}
# Kernels whose results others read, and those that end in the gradient of a parameter.
STEMS = {
    "gather_u8": "fma",
    "conv_forward": "fma",
    "max_pool": "max",
    "sum_pool": "add",
    "tanh_forward": "fma",
    "linear_forward": "fma",
    "softmax_cross_entropy": "mul",
    "linear_input_gradient": "fma",
    "dropout_gradient": "select",
    "tanh_gradient": "fma",
    "sum_pool_gradient": "add",
    "conv_input_gradient": "fma",
    "max_pool_gradient": "select",
    "reduce_groups": "add",
}
LEAVES = {
    "linear_weight_gradient": "fma",
    "linear_bias_gradient": "add",
    "conv_weight_gradient": "fma",
    "lane_weight_gradient": "fma",
    "conv_bias_gradient": "add",
}


def disagreements(program: Any, optimizer: Optimizer | None = None) -> list[str]:
    """The tensors to which the oracle objects, with every road through the engine taken:
    one slice of images and two at once, floats and pixels."""
    rows = []
    for trial in (Trial(40), Trial(3, pixels=True, label_smoothing=0.1)):
        rows += judge(program, program.graph, trial)
    if optimizer:
        program.initialise(0)
        rows += judge_updates(program, optimizer, *draw(program.graph, Trial(19), 0))
    return [row.name for row in rows if not row.ok]


@contextmanager
def compiled(optimizer: Optimizer | None = None, net: Graph = NET) -> Iterator[Any]:
    """Never from the cache, and never into it."""
    options = {"training": True, "input_gradient": True, "cache": False}
    with compile_net(net, optimizer=optimizer, **options) as program:
        yield program


# ---- one operation of one kernel ----------------------------------------------------------------


def damage(kernel: Kernel, wrong: str) -> tuple[Kernel, bool]:
    """The kernel with its first operation of this name replaced, and whether there was one."""
    done = False

    def value(old: Value) -> Value:
        nonlocal done
        if not isinstance(old, Op):
            return old
        if old.name == wrong and old.dtype == "f32" and not done:
            done = True
            return WRONG[wrong](*old.arguments)
        return replace(old, arguments=tuple(map(value, old.arguments)))

    def statement(old: Statement) -> Statement:
        if isinstance(old, Loop):
            return replace(old, body=tuple(map(statement, old.body)))
        if isinstance(old, Transpose):
            return replace(old, values=tuple(map(value, old.values)))
        assert isinstance(old, Assign | Store)
        return replace(old, value=value(old.value))

    return replace(kernel, body=tuple(map(statement, kernel.body))), done


@contextmanager
def on_the_way(change: Callable[[Kernel], Kernel]) -> Iterator[None]:
    """Every kernel that is compiled meanwhile goes through `change`, before it is checked."""
    deal = emit.deal
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            emit,
            "deal",
            lambda kernels, *others: deal(tuple(map(change, kernels)), *others),
        )
        yield


def all_kernels(net: Graph = NET) -> dict[str, Kernel]:
    """Every kernel of the net, by name."""
    found: dict[str, Kernel] = {}

    def keep(kernel: Kernel) -> Kernel:
        found[kernel.name] = kernel
        return kernel

    with on_the_way(keep), compiled(net=net):
        return found


def stem(kernel: Kernel) -> str:
    """`conv_forward_2` → `conv_forward`."""
    return kernel.name.rstrip("0123456789").rstrip("_")


@pytest.fixture(scope="module")
def kernels() -> dict[str, Kernel]:
    return all_kernels()


def test_the_undamaged_net_agrees(kernels: dict[str, Kernel]) -> None:
    assert {*STEMS, *LEAVES} <= {stem(kernel) for kernel in kernels.values()}
    with compiled() as program:
        assert disagreements(program) == []


@pytest.mark.parametrize("broken", STEMS)
def test_a_broken_kernel(broken: str, kernels: dict[str, Kernel]) -> None:
    """The last kernel of each sort; what it computes reaches some tensor."""
    victim = [kernel for kernel in kernels.values() if stem(kernel) == broken][-1]
    damaged, done = damage(victim, STEMS[broken])
    assert done

    def change(kernel: Kernel) -> Kernel:
        return damaged if kernel.name == victim.name else kernel

    with on_the_way(change), compiled() as program:
        assert disagreements(program) != []


def test_broken_gradients_of_parameters_are_named() -> None:
    """Nothing else reads them, so the oracle objects to these tensors and no other."""

    def change(kernel: Kernel) -> Kernel:
        if stem(kernel) not in LEAVES:
            return kernel
        damaged, done = damage(kernel, LEAVES[stem(kernel)])
        assert done
        return damaged

    with on_the_way(change), compiled() as program:
        wrong = set(disagreements(program))
        assert wrong == {f"{name}.grad" for name in program.parameters}


@pytest.mark.parametrize("optimizer", [SGD(weight_decay=0.1), AdamW()], ids=["sgd", "adamw"])
@pytest.mark.parametrize("wrong", ["fma", "mul"])
def test_a_broken_update(optimizer: Optimizer, wrong: str) -> None:
    def change(kernel: Kernel) -> Kernel:
        return damage(kernel, wrong)[0] if kernel.name == "update_parameters" else kernel

    with on_the_way(change), compiled(optimizer) as program:
        assert all("grad" not in name for name in disagreements(program))
        assert "conv1.weight.step" in disagreements(program, optimizer)


# ---- one mistake in the rules -------------------------------------------------------------------


def one_off(real: Callable[..., taps.Taps]) -> Callable[..., taps.Taps]:
    """Taps as if there were one more row and column of padding at the begin."""

    def shifted(
        size: int, out: int, kernel: int, stride: int, pad: int, dilation: int
    ) -> taps.Taps:
        return real(size, out, kernel, stride, pad + 1, dilation)

    return shifted


def divides_by_the_whole_window(
    window: Any, unpadded: bool = False
) -> tuple[tuple[float, ...], ...]:
    """The average's divisor without the padding rule."""
    area = window.kernel[0] * window.kernel[1]
    return ((1 / (area + 1),) * window.out[1],) * window.out[0]


MISTAKES = {
    "forward taps one off": (convolution, "forward_taps", one_off(taps.forward_taps)),
    "gradient taps one off": (convolution, "gradient_taps", one_off(taps.gradient_taps)),
    "a wrong divisor": (pool, "average_scale", divides_by_the_whole_window),
    "dropout scaled wrongly": (dropout, "kept_scale", lambda rate: 1.0),
    "the mask of another layer": (noise, "dropout_salt", lambda node: 7),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_rule(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        with monkeypatch.context() as patch:
            patch.setattr(*MISTAKES[mistake])
            program = stack.enter_context(compiled())
        assert disagreements(program) != []


def test_a_closed_program_says_so() -> None:
    with compiled() as program:
        pass
    with pytest.raises(EngineError, match="was closed"):
        judge(program, NET, Trial(3))
