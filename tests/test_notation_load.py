"""Where a network comes from: text, files, the zoo, its variants, and settings behind a name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lanewise.api import Net
from lanewise.errors import NetError
from lanewise.net.family import published
from lanewise.net.load import load, read_text
from lanewise.net.parse import parse
from lanewise.net.show import show


def test_load_from_file_zoo_and_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.net"
    path.write_text("input 1x8x8\n# größer\nrelu\n", encoding="utf-8")
    assert read_text(path) == ("input 1x8x8\n# größer\nrelu\n", str(path))
    assert load(path) == load(str(path)) == load("input 1x8x8; relu")
    assert load("input 1x8x8").origin == "net"
    assert load("lenet5").origin == "lenet5"
    assert Net(path).name == "mine"
    monkeypatch.chdir(tmp_path)
    os.rename(path, "lenet5")
    assert load("lenet5") != load("./lenet5")


FAMILY = """# Somebody: Something (2020)
parameters n=1 width=2   # n: layers
variant mine-small
variant mine-large n=3 width=4
block layer out { conv out k1 }
input 1x8x8
n x { layer 2*width }
"""


def test_names_may_be_followed_by_settings(tmp_path: Path) -> None:
    path = tmp_path / "mine.net"
    path.write_text(FAMILY)
    assert show(load(str(path))) == "input 1x8x8\nconv 4 k1\n"
    assert show(load(f"{path} N=2 width=1/2")) == "input 1x8x8\nconv 1 k1\nconv 1 k1\n"
    text, origin = read_text(f"{path} n=2")
    assert origin == f"{path} n=2"
    assert Net(f"{path} width=1/2").name == "mine width=1/2"
    assert "parameters n=2 width=2   # n: layers\n" in text
    assert "variant" not in text
    assert parse(text) == load(f"{path} n=2")
    with pytest.raises(NetError, match=r"mine\.net: no parameter m; its parameters are n, width"):
        load(f"{path} m=2")
    with pytest.raises(NetError, match=r"mine\.net n=x:2: n `x`: no parameter x; there are none"):
        load(f"{path} n=x")


def test_a_message_names_the_line_of_the_file_with_settings_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.net"
    path.write_text("parameters n=2\nvariant a n=1\nvariant b n=3\n\ninput 1x8x8\nconv n k1\n")
    with pytest.raises(NetError, match=r"mine\.net n=1/2:6 conv1: number of kernels"):
        load(f"{path} n=1/2")
    with pytest.raises(NetError, match=r"mine\.net: n is given twice; keep one"):
        load(f"{path} n=1 N=2")


def test_networks_of_the_zoo_by_their_variants_and_settings() -> None:
    assert load("resnet20 n=9") == load("resnet56") == load("ResNet-CIFAR n=9")
    assert load("resnet56").origin == "resnet56"
    assert load("resnet20 n=9").origin == "resnet20 n=9"
    assert load("MobileNet_V2") == load("mobilenet-v2")
    assert load("squeezenet1.1").origin == "squeezenet1-1"
    assert Net("resnet20 n=2").name == "resnet20 n=2"
    text, origin = read_text("resnet56")
    assert parse(text) == load("resnet56")
    assert origin == "resnet56"
    assert Net(text) == Net("resnet56")
    with pytest.raises(NetError, match="resnet20: no parameter m; its parameters are size,"):
        load("resnet20 m=3")
    with pytest.raises(NetError, match="lenet5: no parameter n; it has none to set"):
        load("lenet5 n=3")


def test_year_and_paper_are_read_from_the_comment() -> None:
    assert published("resnet20") == (
        2015,
        "He, Zhang, Ren, Sun: Deep residual learning for image recognition",
    )
    assert published("vgg16")[0] == 2014
    assert published("no-such-net") == (0, "")


def test_what_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    (tmp_path / "binary.net").write_bytes(b"\x89PNG\xff\xfe")
    (tmp_path / "huge.net").write_bytes(b"#" * (2 << 20))
    told = {
        "": "the network is empty; give a zoo name, a .net file or notation",
        "lenet6": "lenet6: neither a network of the zoo nor a file; did you mean `lenet5`? "
        "`lanewise nets` lists the zoo",
        "no/such.net": "no/such.net: no such file",
        str(tmp_path): f"{tmp_path}: Is a directory",
        str(tmp_path / "binary.net"): f"{tmp_path}/binary.net: not text (byte 0 is not UTF-8)",
        str(tmp_path / "huge.net"): f"{tmp_path}/huge.net: more than 1 MiB, so not a network's",
    }
    for spec, message in told.items():
        with pytest.raises(NetError) as caught:
            load(spec)
        assert str(caught.value).startswith(message)
    with pytest.raises(NetError, match="No such file"):
        load(tmp_path / "none.net")


def test_notation_is_known_by_its_first_word() -> None:
    """A net that forgets its input is told so, not that there is no such file."""
    with pytest.raises(NetError, match="input"):
        load("conv 6 k5")
    with pytest.raises(NetError, match="neither a network of the zoo nor a file"):
        load("conv")
