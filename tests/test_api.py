"""The public face in Python that needs no engine: `Net`, and what `compile` hands on."""

from __future__ import annotations

from pathlib import Path

import pytest

import lanewise as lw
from lanewise import native


def test_the_interface_s_first_lines() -> None:
    net = lw.Net("lenet5")
    assert net.name == "lenet5"
    assert net.size().totals.params == 61_706
    assert lw.Net(net.text).text == net.text
    assert repr(net) == "<Net lenet5: 13 layers>"


def test_errors_are_value_errors_with_a_place(tmp_path: Path) -> None:
    path = tmp_path / "wrong.net"
    path.write_text("input 1x8x8\nconv 6 k9\n", encoding="utf-8")
    with pytest.raises(lw.SizeError, match=r"wrong\.net:2 conv1: input 1x8x8, kernel 9"):
        lw.Net(path).size()
    with pytest.raises(ValueError, match="unknown layer `con`"):
        lw.Net("input 1x8x8; con 6 k9")
    for error in (lw.NetError, lw.SizeError, lw.DataError, lw.RunError, lw.EngineError):
        assert issubclass(error, lw.LanewiseError)


def test_compile_hands_the_graph_and_the_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_net(graph: object, **options: object) -> tuple[object, dict[str, object]]:
        return graph, options

    monkeypatch.setattr(native, "compile_net", compile_net, raising=False)
    net = lw.Net("lenet5")
    wanted = (net.graph, {"training": True, "threads": 2})
    for spec in ("lenet5", net, net.graph, net.text):
        assert lw.compile(spec, batch=128, training=True, threads=2) == wanted
    with pytest.raises(lw.EngineError, match="batch is 0"):
        lw.compile(net, batch=0)
