"""One image at a time, with channels in the lanes: the same values as PyTorch and as the way for
many images, for every kind of layer; and the short way from Python."""

from __future__ import annotations

import sys
import threading
import time

import numpy as np
import pytest

import lanewise as lw
from families import SMALL
from lanewise.errors import DataError, EngineError
from lanewise.native import compile_net
from lanewise.native.latency.program import ImageProgram
from lanewise.net.load import load
from lanewise.net.parse import parse
from small_nets import NETS

LENET = "input 1x12x12; conv 6 k5 pad2; relu; maxpool 2; conv 18 k3; relu; flatten; linear 5"


def image_program(text: str, **options: object) -> ImageProgram:
    program = compile_net(parse(text), batch=1, **options)  # type: ignore[arg-type]
    assert isinstance(program, ImageProgram)
    program.initialise(3)
    return program


@pytest.mark.parametrize("name", NETS)
def test_every_kind_agrees_with_pytorch(name: str) -> None:
    pytest.importorskip("torch", reason="the oracle needs PyTorch (extra `torch`)")
    from lanewise.bridge.oracle import check

    check(parse(NETS[name]), batch=2, training=False, one_by_one=True)


@pytest.mark.parametrize("family", SMALL)
def test_every_family_agrees_with_pytorch(family: str) -> None:
    pytest.importorskip("torch", reason="the oracle needs PyTorch (extra `torch`)")
    from lanewise.bridge.oracle import check

    check(load(SMALL[family]), batch=1, training=False, one_by_one=True)


@pytest.mark.parametrize(
    "net",
    [
        "input 1x8x9; concat { conv 4 k1 } { conv 4 k3 pad1 } { conv 3 k3 pad1; maxpool 2 stride1; "
        "conv 3 k2 pad1 }; flatten",
        "input 4x6x5; split 2 of 2; groupnorm 1; flatten; linear 3",
    ],
)
@pytest.mark.parametrize("pixels", [False, True])
def test_several_layers_lay_out_the_image(net: str, pixels: bool) -> None:
    """Each in its own way; and what is copied may come from a part of the image."""
    pytest.importorskip("torch", reason="PyTorch is the oracle")
    from lanewise.bridge.oracle import check

    check(parse(net), batch=2, training=False, one_by_one=True, pixels=pixels)


@pytest.mark.parametrize("target", ["avx2", "host"])
def test_both_ways_agree(target: str) -> None:
    """Also for bytes, which are normalised on the way in."""
    graph, random = load("lenet5"), np.random.default_rng(0)
    pixels = random.integers(0, 256, (3, 1, 28, 28), np.uint8)
    with (
        compile_net(graph, target=target) as many,
        compile_net(graph, target=target, batch=1) as one,
    ):
        for program in (many, one):
            program.initialise(1)
            program.set_normalisation((0.3,), (0.2,))
        for images in (pixels, random.standard_normal((3, 1, 28, 28), dtype=np.float32)):
            found = one.forward(images)
            np.testing.assert_allclose(found, many.forward(images), rtol=1e-4, atol=1e-5)
            for image, row in zip(images, found, strict=True):
                assert np.array_equal(one.forward(image[None])[0], row)  # short and long way
                assert np.array_equal(one.forward(image)[0], row)  # N × H × W


def test_the_number_of_threads_changes_no_bit() -> None:
    text = "input 3x32x32; conv 64 k3 pad1; relu; conv 64 k3 pad1; relu; conv 96 k3 pad1; maxpool 2"
    graph = parse(f"{text}; conv 100 k3 pad1; globalavg; flatten; linear 7")
    image = np.random.default_rng(0).standard_normal((1, 3, 32, 32), dtype=np.float32)
    found = []
    for threads in (1, 2, 3):
        with compile_net(graph, batch=1, threads=threads) as program:
            assert program.threads == threads
            program.initialise(0)
            found.append(program.forward(image).tobytes())
    assert found[0] == found[1] == found[2]


def test_small_nets_start_no_threads() -> None:
    before = threading.active_count()
    with image_program(LENET, threads=2) as program:
        program.forward(np.zeros((1, 1, 12, 12), np.float32))
        program.forward(np.zeros((3, 1, 12, 12), np.float32))
        assert program.threads == 1
        assert threading.active_count() == before


def test_pixels_that_are_not_finite_are_named() -> None:
    image = np.zeros((1, 1, 12, 12), np.float32)
    for wrong in (np.nan, np.inf, -np.inf):
        image[0, 0, 11, 11] = wrong
        with image_program(LENET) as program, pytest.raises(DataError, match="must be finite"):
            program.forward(image)


def test_what_is_no_image_is_refused_or_brought_into_form() -> None:
    with image_program(LENET) as program:
        image = np.random.default_rng(0).random((1, 1, 12, 12))
        wanted = program.forward(image.astype(np.float32))
        assert np.array_equal(program.forward(image), wanted)  # float64
        assert np.array_equal(program.forward(np.asfortranarray(image)), wanted)
        assert program.forward(image[:0]).shape == (0, 5)
        with pytest.raises(DataError, match="images are 1x1x12x13"):
            program.forward(np.zeros((1, 1, 12, 13), np.float32))
        with pytest.raises(DataError, match="images are int64"):
            program.forward(np.zeros((1, 1, 12, 12), np.int64))
        with pytest.raises(EngineError, match="compiled for inference"):
            program.step(image, np.zeros(1, np.int64))
    for images in (1, 2):
        with pytest.raises(EngineError, match="was closed"):
            program.forward(np.zeros((images, 1, 12, 12), np.float32))


def test_the_short_way_takes_what_it_knows_and_nothing_else() -> None:
    """It looks at the array's fields itself; what is not plain goes the long way round."""
    image = np.random.default_rng(0).random((1, 1, 12, 12)).astype(np.float32)
    faulty = np.where(image == image.max(), np.float32(np.nan), image)
    with image_program(LENET) as program:
        short = program._quick
        assert short is not None
        for taken in (image, image[0], (image * 255).astype(np.uint8), image[:].view()):
            found, wanted = short(taken), program._long_way(taken)
            assert found is not None and found.flags.owndata
            assert found.shape == (1, 5) and np.array_equal(found, wanted)
        wider = np.zeros((1, 1, 12, 13), np.float32)
        for refused in (
            image[..., ::-1], image.astype(np.float64), image.astype(">f4"), image[0, 0], wider,
            wider[..., :12], image.tolist(), None, np.ma.masked_array(image), faulty,
        ):  # fmt: skip
            assert short(refused) is None
        counts = [sys.getrefcount(np.dtype(np.float32))]
        kept = [short(image) for _ in range(100)]
        counts.append(sys.getrefcount(np.dtype(np.float32)))
        kept.clear()
        counts.append(sys.getrefcount(np.dtype(np.float32)))
    assert [count - counts[0] for count in counts] == [0, 100, 0]


def test_weights_change_as_a_whole() -> None:
    image = np.random.default_rng(0).random((1, 1, 12, 12)).astype(np.float32)
    with image_program(LENET) as program:
        first = program.forward(image)
        with pytest.raises(ValueError, match="read-only"):
            program.parameters["conv1.weight"][...] = 0
        halves = {name: array / 2 for name, array in program.learned.items()}
        program.set_learned(halves)
        assert not np.array_equal(program.forward(image), first)
        program.initialise(3)
        assert np.array_equal(program.forward(image), first)
        with pytest.raises(EngineError, match="do not match the net"):
            program.set_learned({})


def test_threads_of_python_share_a_program() -> None:
    """The short way and the long way at once: nobody sees half of another's image."""
    random = np.random.default_rng(0)
    images = random.random((8, 1, 12, 12)).astype(np.float32)
    with image_program(LENET) as program:
        wanted = program.forward(images)
        wrong: list[int] = []

        def work(number: int) -> None:
            for turn in range(200):
                if number % 2:
                    found = program.forward(images[number : number + 1])
                    right = np.array_equal(found[0], wanted[number])
                else:
                    right = np.array_equal(program.forward(images), wanted)
                if not right:
                    wrong.append(turn)

        workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert not wrong


def test_it_comes_from_the_cache() -> None:
    image_program(LENET).close()
    with image_program(LENET) as program:
        assert program.from_cache


def test_compile_takes_the_way_of_the_batch() -> None:
    for batch, single in ((1, True), (7, True), (8, False), (None, False)):
        with lw.compile(LENET, batch=batch) as program:
            assert isinstance(program, ImageProgram) == single
    with lw.compile(LENET, batch=1, training=True) as program:
        assert not isinstance(program, ImageProgram)


def test_a_model_takes_the_way_of_the_batch() -> None:
    net = "input 1x8x8; conv 8 k3 pad1; relu; maxpool 2; flatten; linear 10"
    model = lw.train(net, "digits", epochs=1, batch=64, quiet=True)
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), np.uint8)
    try:
        many = model.predict_proba(images)
        few = np.concatenate([model.predict_proba(images[i : i + 2]) for i in range(0, 20, 2)])
        np.testing.assert_allclose(few, many, rtol=1e-4, atol=1e-5)
        assert {type(p) is ImageProgram for p in model._programs.values()} == {True, False}
    finally:
        model.close()


def test_kinds_without_an_own_kernel_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LANEWISE_DEBUG", "1")
        image_program("input 4x6x6; conv 6 k3; groupnorm 2; flatten; linear 3").close()
    assert "groupnorm1 forward (sixteen copies)" in capsys.readouterr().err


WINOGRAD = {
    "pads": (
        "input 3x20x24; conv 33 k3 pad1; relu; conv 50 k3 pad 1:0x0:1; relu; conv 40 k3; globalavg"
    ),
    "strips": (
        "input 1x140x26; conv 66 k3 pad2; bn; relu; conv 80 k3 pad1; bn; relu; globalavg;"
        "flatten; linear 5"
    ),
    "strips as tasks": (
        "input 2x27x30; conv 40 k3; relu; residual { conv 40 k3 pad1; bn }; relu;"
        "conv 33 k3 pad 1:0x0:1; globalavg"
    ),
    "groups of sources": "input 2x13x14; conv 256 k3 pad1; relu; conv 160 k3 pad1; globalavg",
    "5 × 5, strips as tasks": (
        "input 3x25x22; conv 20 k1; relu; conv 33 k5 pad2; bn; relu; conv 40 k5 pad 1:0x2:1;"
        "relu; conv 18 k5; globalavg"
    ),
    "5 × 5, strips": "input 2x33x17; conv 70 k5 pad1; relu; conv 90 k5 pad2; relu; globalavg",
    "5 × 5, sum": (
        "input 2x14x14; conv 16 k3; relu; residual { conv 16 k5 pad2; bn }; relu; flatten"
    ),
    "few channels": "input 2x20x18; conv 17 k3 pad1; relu; conv 16 k3; relu; conv 31 k3; globalavg",
    "sum": (
        "input 2x14x14; conv 32 k3 pad1; relu; residual { conv 32 k3 pad1; bn }; relu; maxpool 2;"
        "flatten"
    ),
}


@pytest.mark.parametrize("name", WINOGRAD)
@pytest.mark.parametrize("exact", [False, True])
def test_winograd_agrees_with_pytorch(name: str, exact: bool) -> None:
    """Tiles that stick out, several strips and blocks of channels; and without it."""
    pytest.importorskip("torch", reason="the oracle needs PyTorch (extra `torch`)")
    from lanewise.bridge.oracle import check
    from lanewise.native.latency.compile import plan_image
    from lanewise.native.target import find_target

    graph = parse(WINOGRAD[name])
    check(graph, batch=2, training=False, one_by_one=True, exact=exact)
    plan, _ = plan_image(graph, find_target("host"), exact)
    assert any("winograd" in kernel.name for kernel in plan.kernels) != exact


def test_bf16_rounds_the_weights_alone() -> None:
    """Rounded maps would be wrong by a thousand times the tolerance."""
    pytest.importorskip("torch", reason="the oracle needs PyTorch (extra `torch`)")
    from lanewise.bridge.oracle import check

    text = "input 3x9x11; conv 5 k3 pad1; bn; relu; conv 20 k1; globalavg; flatten; linear 4"
    table = check(parse(text), batch=3, training=False, one_by_one=True, precision="bf16")
    assert all(row.tolerance < 1e-4 for row in table.rows)


def test_denormals_are_flushed_and_the_caller_s_mode_is_restored() -> None:
    """Numbers below 1.2e-38 cost up to a hundred times as much where they are not flushed."""
    text = "input 1x24x24; conv 32 k3; relu; conv 32 k3; relu; flatten; linear 10"
    images = np.random.default_rng(0).standard_normal((1, 1, 24, 24), dtype=np.float32)
    with compile_net(parse(text), batch=1) as program:
        program.initialise(0)
        usual = dict(program.learned)
        # Products of these weights and small pixels are denormal, and so are half of the weights.
        tiny = {
            name: np.float32(0 if name.endswith("bias") else 1e-37) * array
            for name, array in usual.items()
        }

        def quickest(image: np.ndarray) -> float:
            times = []
            for _ in range(30):
                begin = time.perf_counter()
                program.forward(image)
                times.append(time.perf_counter() - begin)
            return min(times)

        program.forward(images)
        plain = quickest(images)
        seconds = [quickest(images * np.float32(1e-42))]
        program.set_learned(tiny)
        seconds += [quickest(images), quickest(images * np.float32(1e-3))]
        assert not program.forward(images * np.float32(1e-3)).any()
        assert max(seconds) < 2 * plain
    assert np.float32(1e-42) * np.float32(1) > 0  # here they are not flushed
