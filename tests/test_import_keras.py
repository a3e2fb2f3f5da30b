"""Keras' models as networks: sizes and parameters are those that Keras itself gives."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")
keras: Any = pytest.importorskip("keras", reason="reads Keras' models, where it is installed")

from lanewise.bridge.importing import keras_code  # noqa: E402
from lanewise.bridge.importing.keras_model import import_model  # noqa: E402
from lanewise.bridge.networks import graph_of, own_graph  # noqa: E402
from lanewise.cli.main import main  # noqa: E402
from lanewise.errors import NetError  # noqa: E402
from lanewise.net.graph import Graph  # noqa: E402
from lanewise.net.layers import Foreign, Input  # noqa: E402
from lanewise.net.parse import parse  # noqa: E402
from lanewise.size.conventions import convention  # noqa: E402
from lanewise.size.reading import read  # noqa: E402
from lanewise.size.report import SizeReport, size  # noqa: E402

L = keras.layers

MODELS = """
import keras
from keras import layers as L

model = keras.Sequential([keras.Input((12, 10, 3)), L.Conv2D(4, 3, activation="relu"),
                          L.Flatten(), L.Dense(5)])
unbuilt = keras.Sequential([L.Conv2D(4, 3), L.GlobalMaxPooling2D(), L.Dense(2)])
number = 7

def made():
    return model

def wide(width):
    return keras.Sequential([L.Dense(width)])

def broken():
    return keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(4, 9)])
"""


def chain(*layers: Any, shape: tuple[int, ...] = (13, 10, 3)) -> Any:
    return keras.Sequential([keras.Input(shape), *layers])


def graph(model: Any, image: Input | None = None) -> Graph:
    return import_model(model, "net", "net", "net", image).graph


def report(model: Any) -> SizeReport:
    """The sizes of a model; totals and result agree with Keras'."""
    found = size(graph(model))
    counted = sum(prod(one.shape) for one in model.trainable_weights)
    assert found.totals.params == counted
    assert found.totals.params + found.totals.buffers == model.count_params()
    output = tuple(model.outputs[0].shape)[1:]
    turned = (output[2], *output[:2]) if len(output) == 3 else output
    assert found.rows[-1].output == turned
    return found


def kinds(found: SizeReport) -> list[str]:
    return [row.kind for row in found.rows[1:]]


# What Keras has → what it is here; the size is compared with Keras' own.
ALONE: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "conv same": (lambda: L.Conv2D(4, 4, 2, "same"), ["conv"]),
    "conv valid": (lambda: L.Conv2D(4, (3, 2), 3, use_bias=False), ["conv"]),
    "dilated": (lambda: L.Conv2D(4, 3, dilation_rate=2, padding="same"), ["conv"]),
    "grouped": (lambda: L.Conv2D(6, 3, groups=3), ["depthwise"]),
    "depthwise": (
        lambda: L.DepthwiseConv2D(3, 2, "same", depth_multiplier=2),
        ["depthwise"],
    ),
    "separable": (
        lambda: L.SeparableConv2D(8, 3, depth_multiplier=2, activation="relu"),
        ["depthwise", "conv", "relu"],
    ),
    "transposed same": (lambda: L.Conv2DTranspose(4, 3, 2, "same"), ["convtranspose"]),
    "transposed valid": (lambda: L.Conv2DTranspose(4, 2, 3), ["convtranspose"]),
    "max valid": (lambda: L.MaxPooling2D(3, 2), ["maxpool"]),
    "max same": (lambda: L.MaxPooling2D(3, 2, "same"), ["maxpool"]),
    "average same": (lambda: L.AveragePooling2D(2, padding="same"), ["avgpool"]),
    "global": (lambda: L.GlobalAveragePooling2D(), ["globalavg", "flatten"]),
    "global kept": (lambda: L.GlobalMaxPooling2D(keepdims=True), ["globalmax"]),
    "pixels": (lambda: L.Dense(7), ["conv"]),
    "norm": (lambda: L.BatchNormalization(), ["bn"]),
    "plain norm": (lambda: L.BatchNormalization(center=False, scale=False), ["bn"]),
    "layer norm": (lambda: L.LayerNormalization(), ["layernorm"]),
    "group norm": (lambda: L.GroupNormalization(-1), ["groupnorm"]),
    "prelu": (lambda: L.PReLU(shared_axes=[1, 2]), ["prelu"]),
    "upsampled": (lambda: L.UpSampling2D((2, 3)), ["upsample"]),
    "swish": (lambda: L.Activation("swish"), ["silu"]),
    "relu6": (lambda: L.ReLU(6), ["relu6"]),
    "noise": (lambda: L.SpatialDropout2D(0.1), ["spatialdropout"]),
    "depth": (lambda: L.Dropout(0.1, noise_shape=(None, 1, 1, 1)), ["stochasticdepth"]),
    "rows": (lambda: L.Dropout(0.1, noise_shape=(None, 13, 1, 1)), ["foreign"]),
    "half a norm": (lambda: L.BatchNormalization(scale=False), ["foreign"]),
    "scaled": (lambda: L.Rescaling(1 / 255), ["foreign"]),
    "normalised": (lambda: L.Normalization(), ["foreign"]),
    "zeros": (lambda: L.ZeroPadding2D(((1, 0), (2, 3))), ["foreign"]),
    "another shape": (lambda: L.Reshape((13, 30)), ["foreign"]),
    "permuted": (lambda: L.Permute((2, 1, 3)), ["foreign"]),
}


@pytest.mark.parametrize("name", ALONE)
def test_one_layer(name: str) -> None:
    make, words = ALONE[name]
    assert kinds(report(chain(make()))) == words


def test_an_average_does_not_count_keras_padding() -> None:
    layer = graph(chain(L.AveragePooling2D(2, padding="same"))).output.layer
    assert layer.pad == ((0, 1), (0, 0)) and layer.unpadded  # type: ignore[attr-defined]


def test_zeros_around_become_the_pad_of_the_next_window() -> None:
    model = chain(
        L.ZeroPadding2D(((0, 1), (2, 3))),
        L.Conv2D(4, 3, strides=2),
        L.ReLU(),
        L.ZeroPadding2D(1),
        L.MaxPooling2D(3, 2),
        L.ZeroPadding2D(1),
        L.AveragePooling2D(2),
    )
    assert kinds(report(model)) == ["conv", "relu", "maxpool", "avgpool"]
    found = graph(model)
    assert found.nodes[1].layer.pad == ((0, 1), (2, 3))  # type: ignore[attr-defined]
    # It has been read by Keras' rules: ones laid around are not taken for its `same` again.
    assert read(found, convention("keras")) == found


def test_zeros_before_a_maximum_of_negative_values_are_not_its_pad() -> None:
    words = kinds(report(chain(L.Conv2D(4, 3), L.ZeroPadding2D(1), L.MaxPooling2D(3, 2))))
    assert words == ["conv", "foreign"]


def test_a_classifier_is_the_network_that_a_text_says() -> None:
    model = chain(
        L.Conv2D(8, 3, padding="same", activation="relu"),
        L.MaxPooling2D(),
        L.Dropout(0.25),
        L.Flatten(),
        L.Dense(9, activation="tanh"),
        L.Dense(4),
    )
    text = "input 3x13x10; conv 8 k3 pad1; relu; maxpool 2; dropout 0.25; flatten; linear 9; tanh"
    own = [node.layer for node in parse(f"{text}; linear 4").nodes]
    assert [node.layer for node in graph(model).nodes] == own
    assert report(model).totals.macs == size(parse(f"{text}; linear 4")).totals.macs


def functional() -> Any:
    image = keras.Input((16, 12, 3))
    first = L.Conv2D(8, 3, padding="same", name="stem")(image)
    shared = L.Conv2D(8, 3, padding="same", name="twice")
    x = L.Add()([first, shared(shared(first))]) + first
    x = L.Concatenate()([x, first])
    gate = L.GlobalAveragePooling2D()(x)
    gate = L.Dense(16, "sigmoid")(L.Dense(4, "silu")(gate))
    x = L.Multiply()([x, L.Reshape((1, 1, 16))(gate)])
    return keras.Model(image, L.Dense(5)(L.GlobalMaxPooling2D()(x)))


def test_branches_and_shared_layers() -> None:
    found = report(functional())
    words = ["conv", "conv", "conv", "add", "add", "concat", "globalavg", "conv", "silu", "conv"]
    assert kinds(found) == [*words, "sigmoid", "multiply", "globalmax", "flatten", "linear"]
    twice = [row for row in found.rows if row.kind == "conv"][1:3]
    assert [row.params for row in twice] == [584, 0] and twice[0].name == "twice"
    assert twice[0].macs == twice[1].macs > 0


class Residual(L.Layer):  # type: ignore[misc]
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = L.Conv2D(width, 3, padding="same")
        self.norm = L.BatchNormalization()

    def call(self, x: Any) -> Any:
        return keras.ops.relu(x + self.norm(self.conv(x)))


class Subclassed(keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.body = chain(Residual(3), L.Conv2D(4, 3), shape=(8, 8, 3))
        self.flat, self.head = L.Flatten(), L.Dense(2)

    def call(self, x: Any) -> Any:
        return self.head(self.flat(self.body(x)))


def test_a_model_of_models_and_layers_of_the_user_s_own() -> None:
    model = Subclassed()
    found = size(graph(model, Input(3, 8, 8)))
    assert kinds(found) == ["conv", "bn", "add", "relu", "conv", "flatten", "linear"]
    assert found.totals.params + found.totals.buffers == model.count_params()


def test_frozen_weights_are_parameters_still() -> None:
    model = chain(L.Conv2D(4, 3), L.BatchNormalization())
    model.trainable = False
    totals = size(graph(model)).totals
    assert (totals.params, totals.buffers) == (3 * 9 * 4 + 4 + 8, 8)


def test_layers_without_a_twin_keep_their_weights_and_say_why() -> None:
    model = chain(L.Reshape((13, 30)), L.LSTM(5), L.Dense(2, activation="softmax"))
    found = report(model)
    assert kinds(found) == ["foreign", "foreign", "linear", "foreign"]
    assert found.rows[2].params == 4 * (30 * 5 + 5 * 5 + 5)
    told = " ".join(import_model(model, "net", "net", "net", None).remarks)
    assert f"multiply–adds: those of {found.rows[2].name} are not" in told


def test_channels_first() -> None:
    first = {"data_format": "channels_first"}
    model = keras.Sequential(
        [
            keras.Input((3, 12, 10)),
            L.Conv2D(4, 3, **first),
            L.BatchNormalization(axis=1),
            L.MaxPooling2D(**first),
            L.Flatten(**first),
        ]
    )
    found = size(graph(model))
    assert found.rows[1].output == (4, 10, 8) and found.rows[-1].output == (80,)
    assert kinds(found) == ["conv", "bn", "maxpool", "flatten"]


def test_open_axes_need_an_image() -> None:
    model = chain(L.Conv2D(4, 3, strides=2), L.GlobalAveragePooling2D(), shape=(None, None, 3))
    with pytest.raises(NetError, match="add --input 3x224x224"):
        graph(model)
    assert size(graph(model, Input(3, 9, 11))).rows[1].output == (4, 4, 5)
    with pytest.raises(NetError, match=r"images of 3x\?x\?, not 1x9x9"):
        graph(model, Input(1, 9, 9))


# From files ---------------------------------------------------------------------------------------


@pytest.fixture
def models(tmp_path: Path) -> str:
    path = tmp_path / "nets.py"
    path.write_text(MODELS)
    return str(path)


@pytest.mark.parametrize("spec", [":model", ":made", ""])
def test_a_file(models: str, spec: str) -> None:
    # Two of the file's models are candidates.
    if not spec:
        with pytest.raises(NetError, match="one of model, unbuilt"):
            graph_of(models)
        return
    own = "input 3x12x10; conv 4 k3; relu; flatten; linear 5"
    assert [n.layer for n in own_graph(models + spec).nodes] == [n.layer for n in parse(own).nodes]


def test_a_model_that_is_not_built(models: str) -> None:
    with pytest.raises(NetError, match=r"nets.py:unbuilt: .* add --input 3x224x224"):
        graph_of(f"{models}:unbuilt")
    assert size(graph_of(f"{models}:unbuilt", Input(2, 8, 8))).totals.params == 2 * 9 * 4 + 4 + 10
    assert size(graph_of(f"{models}:unbuilt input=2x8x8")).rows[-1].output == (2,)


WRONG = {
    ":number": "is an int; name a keras.Model",
    ":wide": "needs width; give the file a function without arguments",
    ":broken": r"nets.py:17: making broken raises ValueError",
    ":modle": "did you mean `model`",
}


@pytest.mark.parametrize("spec", WRONG)
def test_what_is_no_model(models: str, spec: str) -> None:
    with pytest.raises(NetError, match=WRONG[spec]):
        graph_of(models + spec)


def test_a_model_in_a_file_of_pytorch_s(tmp_path: Path) -> None:
    path = tmp_path / "both.py"
    path.write_text(
        "import torch\nimport keras\nnet = keras.Sequential([keras.Input((8, 8, 3))])\n"
    )
    with pytest.raises(NetError, match="a file that has `import keras` and no torch"):
        graph_of(f"{path}:net", Input(3, 8, 8))


def test_an_image_of_another_size(models: str) -> None:
    with pytest.raises(NetError, match="is made for images of 3x12x10, not 3x9x9"):
        graph_of(f"{models}:model", Input(3, 9, 9))


def test_an_archive(tmp_path: Path) -> None:
    path = str(tmp_path / "saved.keras")
    model = functional()
    model.save(path)
    found = size(graph_of(path))
    assert found.totals.params == model.count_params()
    assert [row.kind for row in found.rows] == [row.kind for row in report(model).rows]


def test_files_that_are_no_archives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "text.keras"
    path.write_text("no archive")
    assert main(["size", str(path)]) == 2
    assert "is no Keras archive; save the model again" in capsys.readouterr().err
    assert main(["size", str(tmp_path / "none.keras")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_an_archive_with_code_is_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "code.keras")
    chain(L.Lambda(lambda x: x * 2)).save(path)
    assert main(["size", path]) == 2
    told = capsys.readouterr().err
    assert "Keras cannot load it" in told and len(told.strip().splitlines()) == 1


def test_without_keras(
    models: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(keras_code, "find_spec", lambda name: None)
    assert main(["size", f"{models}:model"]) == 2
    told = capsys.readouterr().err
    assert "pip install keras" in told and "KERAS_BACKEND=torch" in told


def test_the_backend_is_found_and_keras_comes_only_where_it_is_needed(models: str) -> None:
    """Without KERAS_BACKEND, in a process of its own."""
    program = (
        "import sys; from lanewise.cli.main import main; main(['size', 'lenet5', '--json']);"
        "assert 'keras' not in sys.modules; print(); assert main(sys.argv[1:]) == 0"
    )
    settings = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    settings["KERAS_HOME"] = str(Path(models).parent)
    command = [sys.executable, "-c", program, "size", f"{models}:model", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, env=settings)
    assert done.returncode == 0, done.stderr
    assert "nets.py:model: input 3x12x10" in done.stdout


def test_a_published_network_of_keras() -> None:
    """ResNet-50 as Keras has it: the zeros around maps, the bias in each convolution."""
    model = keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3))
    found = report(model)
    own = size(graph_of("resnet50-v1", Input(3, 64, 64)))
    assert found.totals.macs == own.totals.macs
    for kind in ("conv", "maxpool", "add", "linear"):
        assert outputs(found, kind) == outputs(own, kind)


def outputs(found: SizeReport, kind: str) -> list[tuple[int, ...]]:
    """The sizes of the layers of this kind; the order of branches is anybody's."""
    return sorted(row.output for row in found.rows if row.kind == kind)


def test_foreign_layers_are_only_sized() -> None:
    found = graph(chain(L.Flatten(), L.Dense(3, activation="softmax")))
    assert isinstance(found.output.layer, Foreign) and found.output.layer.operator == "softmax"
