"""bf16: what is rounded, where, and that nothing else changes."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lanewise.errors import EngineError
from lanewise.native import Program, compile_net
from lanewise.native.compile import write_modules
from lanewise.native.directions import plan_directions
from lanewise.native.machine_code import assembly
from lanewise.native.nest import Buffer, Kernel, op
from lanewise.native.optimizers import SGD
from lanewise.native.precisions import nearest_bf16
from lanewise.native.target import Target, find_target
from lanewise.native.writer import Writer
from lanewise.net.load import load
from lanewise.net.parse import parse
from lanewise.training.model import load as load_model
from lanewise.training.model import train
from lanewise.training.recipe import Recipe, RecipeError
from native_kernel import aligned, execute, placed
from small_nets import NETS

SMALL = parse(
    "input 3x9x11; conv 5 k3; relu; maxpool 2; conv 7 k2; flatten; linear 6; relu; linear 4"
)

# ---- numbers ------------------------------------------------------------------------------------

#: bits of a float32 → bits of the nearest bf16
ROUNDED = {
    0x3F800000: 0x3F80,  # 1
    0x3F808000: 0x3F80,  # the middle: to the even
    0x3F818000: 0x3F82,
    0x3F808001: 0x3F81,
    0x3F807FFF: 0x3F80,
    0xBF808001: 0xBF81,
    0x00000000: 0x0000,
    0x80000000: 0x8000,
    0x7F7FFFFF: 0x7F80,  # the largest number becomes infinity
    0xFF800000: 0xFF80,
    0x7F800001: 0x7FC0,  # no number stays none, and quiet
    0xFFFFFFFF: 0xFFFF,
    0x7FC12345: 0x7FC1,
}


def through_bf16(rows: int) -> Kernel:
    """short = source as bf16; back = short as fp32."""
    source = Buffer("source", (rows, 16))
    short = Buffer("short", (rows, 16), "bf16", "update")
    back = Buffer("back", (rows, 16), access="write")
    writer = Writer("through", [source, short, back])
    with writer.loop("i", rows) as i:
        writer.store(short, i, 0, value=op("tobf16", writer.load(source, i, 0)))
        writer.store(back, i, 0, value=op("tofloat", writer.load(short, i, 0)))
    return writer.finish()


def test_numbers_are_rounded_to_the_nearest_and_the_even() -> None:
    source = placed(np.resize(np.array(list(ROUNDED), np.uint32).view("f4"), (1, 16)))
    short, back = aligned((1, 16), np.uint16), aligned((1, 16))
    execute(through_bf16(1), source, short, back)
    wanted = np.resize(np.array(list(ROUNDED.values()), np.uint16), (1, 16))
    assert short.tolist() == wanted.tolist()
    assert (back.view(np.uint32) == wanted.astype(np.uint32) << 16).all()


def test_all_ways_round_alike() -> None:
    """The kernel's, NumPy's for weights of single images, and PyTorch's."""
    torch = pytest.importorskip("torch", reason="the judge is PyTorch (extra `torch`)")
    bits = np.random.default_rng(1).integers(0, 1 << 32, (400, 16), np.uint32)
    bits[np.isnan(bits.view("f4"))] = 0x3F808000
    source = placed(bits.view("f4"))
    short, back = aligned((400, 16), np.uint16), aligned((400, 16))
    execute(through_bf16(400), source, short, back)
    assert (back.view(np.uint32) == nearest_bf16(source).view(np.uint32)).all()
    wanted = torch.from_numpy(source).bfloat16().float().numpy()
    assert (back.view(np.uint32) == wanted.view(np.uint32)).all()


def test_no_number_stays_none_in_numpy() -> None:
    assert np.isnan(nearest_bf16(np.array([np.nan], "f4")))[0]


# ---- plans --------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", ["bn3", "mobilenet-v2-small"])
def test_maps_take_half_the_memory(net: str) -> None:
    # `exact`: in fp32 some maps are otherwise not kept at all (`test_inverted.py`).
    plans = [
        plan_directions(load(net), find_target(), True, precision=precision, exact=True)["train"]
        for precision in ("fp32", "bf16")
    ]
    assert plans[1].kept.size < 0.56 * plans[0].kept.size


def test_fp32_is_what_it_was() -> None:
    """Plan and kernels know nothing of bf16 unless it is asked for."""
    for plan in plan_directions(SMALL, find_target(), True).values():
        assert not [b for kernel in plan.kernels for b in kernel.buffers if b.dtype == "bf16"]
        assert not [call for call in plan.calls if call.purpose == "round weights"]


EVEN = parse("input 4x12x12; conv 8 k5; relu; maxpool 2; conv 6 k2; flatten; linear 4")


def text_for(target: Target) -> str:
    modules, _ = write_modules(EVEN, target, True, SGD(), precision="bf16")
    return "\n".join(assembly(module.text, target, module.quick) for module in modules)


@pytest.mark.parametrize("cpu", ["sapphirerapids", "znver4"])
def test_processors_with_the_instructions_use_them(cpu: str) -> None:
    try:
        machine = find_target("avx512")
    except EngineError as error:
        pytest.skip(str(error))
    words = [word for word in machine.features.split(",") if not word.endswith("avx512bf16")]
    have = replace(machine, cpu=cpu, features=",".join([*words, "+avx512bf16"]))
    have_not = replace(machine, features=",".join([*words, "-avx512bf16"]))
    text = text_for(have)
    assert "vcvtneps2bf16" in text
    assert "vdpbf16ps" in text
    assert not re.search("vcvtneps2bf16|vdpbf16ps", text_for(have_not))


# ---- against PyTorch ----------------------------------------------------------------------------


#: direct convolutions of even numbers of maps, in groups, and 1 × 1 with and without a stride
PAIRS = {
    "groups": "input 4x6x5; conv 8 k3 groups2 pad1; relu; conv 6 k3 groups2; flatten",
    "points": "input 8x7x6; conv 12 k1; relu; conv 16 k1 stride2; relu; conv 9 k1; flatten",
    "odd and even": "input 3x9x8; conv 6 k3; maxpool 2; conv 5 k3; relu; conv 4 k1; flatten",
    "residual": "input 8x6x6; residual { conv 8 k1; relu; conv 8 k3 pad1 }; flatten; linear 3",
}


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_against_torch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor that multiplies pairs; here they are written out."""
    pytest.importorskip("torch", reason="the oracle needs PyTorch (extra `torch`)")
    from lanewise.bridge.oracle import Trial, judge

    monkeypatch.setattr("lanewise.native.ways.multiplies_pairs", lambda target: True)
    monkeypatch.setattr("lanewise.native.point_ways.multiplies_pairs", lambda target: True)
    with closing(compiled(PAIRS[name], cache=False)) as program:
        rows = judge(program, program.graph, Trial(17, seed=17))
    assert [(row.name, row.error, row.tolerance) for row in rows if not row.ok] == []


#: small nets from every family of layers
KINDS = (
    "conv: groups",
    "conv: uneven pads",
    "conv: many channels",
    "depthwise, then pointwise",
    "partialconv",
    "convtranspose, between convolutions",
    "maxpool: overlap",
    "l2pool: overlap",
    "linear",
    "rbf",
    "relu6, 0",
    "gelu, 0",
    "prelu channels, 0",
    "scale, 0",
    "relu under a padded pool",
    "relu between dropouts",
    "layernorm, then relu",
    "groupnorm",
    "lrn",
    "padchannels",
    "upsample bilinear",
    "residual with projection",
    "nested concat",
    "bn, add, relu",
    "bn ghost",
)


def compiled(text: str, **options: object) -> Program:
    return compile_net(parse(text), training=True, input_gradient=True, precision="bf16", **options)


@pytest.mark.parametrize("name", KINDS)
def test_layer_against_torch(name: str) -> None:
    pytest.importorskip("torch", reason="the oracle needs PyTorch (extra `torch`)")
    from lanewise.bridge.oracle import Trial, judge

    with closing(compiled(NETS[name])) as program:
        rows = judge(program, program.graph, Trial(17, seed=17))
    assert [(row.name, row.error, row.tolerance) for row in rows if not row.ok] == []


#: their sums of whole numbers are exact in float32, whatever the order
WHOLE = {
    "convolutions": "input 2x9x8; conv 6 k3 pad1; relu; conv 5 k3 stride2; flatten; linear 4",
    "pools": "input 3x9x9; conv 4 k2; relu; maxpool 2; sumpool 2 stride1; flatten; linear 5",
    "joins": "input 4x6x6; conv 4 k1; residual { conv 4 k3 pad1; relu }; conv 3 k2; flatten",
    "depthwise": "input 5x7x7; depthwise k3; conv 6 k1; relu; depthwise k2; flatten; linear 3",
    "one layer alone": "input 3x5x5; conv 4 k5; flatten",
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers_are_rounded_where_torch_rounds_them(name: str) -> None:
    """Every sum is exact, so that engine and PyTorch must agree on every rounding."""
    pytest.importorskip("torch", reason="the oracle needs PyTorch (extra `torch`)")
    from lanewise.bridge.reference import Question, exact_values

    random = np.random.default_rng(5)
    with closing(compiled(WHOLE[name], exact=True)) as program:
        for parameter in program.parameters.values():
            parameter[...] = random.integers(-300, 301, parameter.shape) / 64
        images = random.integers(-40, 41, (17, *program.input_shape)).astype("f4") / 8
        labels = random.integers(int(np.prod(program.output_shape)), size=17)
        weights = {key: array.copy() for key, array in program.parameters.items()}
        asked = Question(program.graph, weights, images, labels, precision="bf16")
        expected = exact_values(asked)
        logits = program.forward(images)
        scale = np.abs(expected["logits"]).max()
        np.testing.assert_allclose(logits / scale, expected["logits"] / scale, atol=3e-7)
        plain = exact_values(replace(asked, precision="fp32"))["logits"]
        assert np.abs(logits - plain).max() > 1e-4 * scale  # another function without rounding


def test_winograd_adds_nothing_to_the_error_of_bf16() -> None:
    """Its transforms are fp32 and its sums are rounded once, so maps are as far from those of fp32
    as the direct algorithm's are."""
    net = parse("input 32x16x16; conv 32 k3 pad1; relu; conv 32 k3 pad1; relu; conv 4 k16; flatten")
    images = np.random.default_rng(7).standard_normal((16, 32, 16, 16), np.float32)

    def logits(precision: str, exact: bool) -> np.ndarray:
        with closing(compile_net(net, precision=precision, exact=exact)) as program:
            program.initialise(seed=2)
            return program.forward(images)

    full = logits("fp32", exact=True)
    direct, fast = (np.abs(logits("bf16", exact) - full).max() for exact in (True, False))
    assert 0 < fast < 1.3 * direct < 0.02 * np.abs(full).max()


def test_weights_that_learn_stay_fp32() -> None:
    with closing(compiled("input 2x6x6; conv 4 k3; relu; flatten; linear 3")) as program:
        program.initialise(seed=1)
        random = np.random.default_rng(3)
        images = random.standard_normal((20, 2, 6, 6), np.float32)
        before = program.parameters["conv1.weight"].copy()
        program.step(images, random.integers(3, size=20), lr=1e-5)
        after = program.parameters["conv1.weight"]
        assert (before != after).any() and np.abs(before - after).max() < 1e-4
        assert (after != nearest_bf16(after)).any()


def test_the_same_bits_for_any_number_of_threads() -> None:
    random = np.random.default_rng(4)
    images = random.integers(0, 256, (70, 3, 12, 12), np.uint8)
    labels = random.integers(4, size=70)
    text = "input 3x12x12; conv 8 k3 pad1 nobias; bn; relu; maxpool 2; conv 8 k3; flatten; linear 4"

    def trained(threads: int) -> bytes:
        with closing(compiled(text, threads=threads)) as program:
            program.initialise(seed=0)
            for _ in range(3):
                program.step(images, labels, lr=0.05)
            return b"".join(array.tobytes() for array in program.learned.values())

    assert trained(1) == trained(2) == trained(3)


def test_threads_that_share_a_slice_wait_for_rounded_weights() -> None:
    """The transformed weights of one thread are made of those that another has rounded."""
    net = parse("input 32x16x16; conv 64 k3 pad1; relu; conv 32 k3 pad1; flatten; linear 4")
    images = np.random.default_rng(8).standard_normal((16, 32, 16, 16), np.float32)

    def logits(threads: int) -> bytes:
        with closing(compile_net(net, precision="bf16", threads=threads)) as program:
            program.initialise(seed=2)
            return program.forward(images).tobytes()

    assert logits(1) == logits(2) == logits(3)


def test_single_images_have_rounded_weights_and_fp32_maps() -> None:
    random = np.random.default_rng(6)
    images = random.standard_normal((3, 3, 9, 11), np.float32)
    with (
        closing(compile_net(SMALL, batch=1, precision="bf16")) as short,
        closing(compile_net(SMALL, batch=1)) as full,
        closing(compile_net(SMALL, precision="bf16")) as many,
    ):
        for program in (short, full, many):
            program.initialise(seed=3)
        halved = {k: nearest_bf16(a) if a.ndim > 1 else a for k, a in full.parameters.items()}
        full.set_learned({**{k: a.copy() for k, a in full.learned.items()}, **halved})
        logits = short.forward(images)
        assert (logits == full.forward(images)).all()
        np.testing.assert_allclose(logits, many.forward(images), atol=2e-2 * np.abs(logits).max())


# ---- words --------------------------------------------------------------------------------------


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(EngineError, match="precision is 'fp16'; use fp32 or bf16"):
        compile_net(SMALL, precision="fp16")


def test_programs_of_both_precisions_are_kept_apart() -> None:
    net = parse("input 1x5x5; conv 3 k3; flatten; linear 2")
    for precision in ("bf16", "fp32"):
        with closing(compile_net(net, precision=precision)) as program:
            assert program.facts.precision == precision
    with closing(compile_net(net, precision="bf16")) as again:
        assert again.from_cache and again.facts.precision == "bf16"


def test_a_run_remembers_its_precision(tmp_path: Path) -> None:
    """It predicts accordingly, and what it saves are the fp32 weights."""
    random = np.random.default_rng(0)
    data = random.integers(0, 256, (60, 6, 6), np.uint8), np.arange(60) % 3
    net = "input 1x6x6; conv 3 k3; relu; flatten; linear 3"
    model = train(net, data, epochs=1, quiet=True, precision="bf16", run=tmp_path / "run")
    again = load_model(tmp_path / "run")
    assert again.record["recipe"]["precision"] == "bf16"
    assert (again.weights["conv1.weight"] != nearest_bf16(again.weights["conv1.weight"])).any()
    images = random.integers(0, 256, (20, 1, 6, 6), np.uint8)
    assert (again.forward(images) == model.forward(images)).all()
    assert [program.facts.precision for program in again._programs.values()] == ["bf16"]
    with pytest.raises(RecipeError, match="resume: precision cannot be given beside it"):
        train(resume=tmp_path / "run", precision="fp32", quiet=True)


def test_a_recipe_that_says_nothing_is_fp32() -> None:
    told = Recipe(precision="bf16").to_json()
    assert Recipe.from_json(told).precision == "bf16"
    del told["precision"]
    assert Recipe.from_json(told).precision == "fp32"
    with pytest.raises(RecipeError, match="precision is 'int8'; use fp32 or bf16"):
        Recipe(precision="int8")
