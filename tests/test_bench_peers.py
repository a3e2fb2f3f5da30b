"""Contenders in processes of their own: turns by a pipe, refusals, models written for them."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from lanewise.net.parse import parse
from lanewise.size.cost import learned_shapes

BENCH = Path(__file__).resolve().parent.parent / "bench"
sys.path.insert(0, str(BENCH))

import contest  # noqa: E402
import measure  # noqa: E402
import served  # noqa: E402
from peers import with_ncnn  # noqa: E402
from peers.work import (  # noqa: E402
    ARRAYS,
    Kind,
    Unsupported,
    Work,
    read,
    store_arrays,
    store_work,
)

NET = "input 2x6x6; conv 4 k3 nobias; bn; relu; residual { conv 4 k3 pad1 }; flatten; linear 3"


def work(kind: Kind, text: str = NET, folder: Path = Path(), images: int = 3) -> Work:
    graph, random = parse(text), np.random.default_rng(0)
    weights = {
        name: random.uniform(0.5, 1.5, shape).astype(np.float32)
        for name, shape in learned_shapes(graph).items()
    }
    pixels = random.normal(size=(images, 2, 6, 6)).astype(np.float32)
    batches = [(pixels, np.arange(images, dtype=np.int32) % 3)]
    return Work(kind, graph, weights, batches, 1, 0.1, 0.001, 0.9, folder)


# ---- processes ----------------------------------------------------------------------------------


def test_work_travels_whole(tmp_path: Path) -> None:
    given = work("training", folder=tmp_path)
    store_arrays(given, tmp_path / ARRAYS)
    store_work(given, NET)
    found = read(tmp_path)
    assert found.graph == given.graph and found.kind == "training" and found.momentum == 0.9
    assert {name: value.tobytes() for name, value in found.weights.items()} == {
        name: value.tobytes() for name, value in given.weights.items()
    }
    assert np.array_equal(found.images, given.images)
    assert found.batches[0][1].tolist() == [0, 1, 2]


def python(folder: Path, body: str) -> str:
    """Stands where a Python is asked for: answers as `serve.py` does, with this in between."""
    script = folder / "other.py"
    script.write_text(
        "import json, sys, time\nfrom pathlib import Path\nimport numpy as np\n"
        "folder = Path(sys.argv[2])\n" + textwrap.dedent(body),
        encoding="utf-8",
    )
    starter = folder / "python"
    starter.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n', encoding="utf-8")
    starter.chmod(0o755)
    return str(starter)


PEER = served.Peer("Other", "fp32", "with_other", "training")
ANSWERS = """
    np.savez(folder / "outcome.npz", loss=np.array(2.5))
    print(json.dumps({"ready": True, "versions": {"other": "1.0"}}), flush=True)
    for line in sys.stdin:
        print(json.dumps({"seconds": 0.25 * int(line)}), flush=True)
"""


def test_a_guest_measures_its_own_turns_and_stands_still_between(tmp_path: Path) -> None:
    counting = """
    import threading
    def count():
        for number in range(10**9):
            (folder / "count").write_text(str(number))
            time.sleep(0.001)
    threading.Thread(target=count, daemon=True).start()
    time.sleep(0.1)
    """
    other = python(tmp_path, counting + ANSWERS)
    with served.guests(work("training"), [PEER], other) as found:
        ((contender, _, outcome),) = found.contenders()
        assert (contender.name, found.versions, found.skipped) == ("Other", {"other": "1.0"}, [])
        assert outcome["loss"] == 2.5
        assert measure._seconds(contender, 4) == 1.0  # what it says, not how long we waited
        folder = found.ready[0][0].folder
        state = Path(f"/proc/{found.ready[0][0]._process.pid}/stat")
        if state.exists():
            time.sleep(0.05)
            assert state.read_text().rpartition(")")[2].split()[0] == "T"  # stopped
        before = (folder / "count").read_text()
        time.sleep(0.05)
        assert (folder / "count").read_text() == before
        process = found.ready[0][0]._process
    assert process.poll() is not None


REFUSES = "print(json.dumps({'ready': False, 'reason': 'no rule for lrn'}))"


@pytest.mark.parametrize(
    ("body", "patience", "told"),
    [
        (REFUSES, 60, "no rule for lrn"),
        ("sys.exit('out of luck')", 60, "its process ended: out of luck"),
        ("time.sleep(60)", 0.1, "not ready in time"),
    ],
)
def test_who_cannot_take_part_is_named_with_the_reason(
    tmp_path: Path, body: str, patience: float, told: str
) -> None:
    other = python(tmp_path, body)
    with served.guests(work("training"), [PEER], other, patience=patience) as found:
        assert found.ready == []
        assert found.skipped == [f"Other fp32: {told}"]


def test_a_contest_that_is_ended_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:  # noqa: SIM117
        with served.guests(work("training"), [PEER], python(tmp_path, ANSWERS)) as found:
            one = found.ready[0][0]
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
    assert ended.value.code == 143
    assert one._process.poll() is not None and not one.folder.exists()


def test_only_those_of_the_kind_are_started(tmp_path: Path) -> None:
    with served.guests(work("inference"), [PEER], python(tmp_path, "")) as found:
        assert found.ready == [] and found.skipped == []


PACKAGES = {
    "with_keras": ("keras", "tensorflow", "jax"),
    "with_tinygrad": ("tinygrad",),
    "with_ncnn": ("ncnn",),
    "with_mnn": ("MNN",),
}


def absent(peer: served.Peer) -> list[str]:
    return [name for name in PACKAGES[peer.module] if not find_spec(name)]


def test_a_missing_package_is_told_with_its_remedy() -> None:
    missing = [one for one in served.PEERS if not one.model and absent(one)]
    if not missing:
        pytest.skip("all peers are installed here, so none can be missing")
    with served.guests(work(missing[0].kind), missing[:1]) as found:
        assert found.ready == []
        (told,) = found.skipped
    assert any(f"No module named '{name}'" in told for name in absent(missing[0]))
    assert told.endswith("run: pip install 'lanewise[peers]'")


def test_who_computes_something_else_is_refused_and_named(tmp_path: Path) -> None:
    net = parse("input 1x6x6; conv 2 k3; flatten; linear 3")
    wrong = """
    with np.load(folder / "arrays.npz") as given:
        left = {name[8:]: given[name] for name in given if name.startswith("weights/")}
    np.savez(folder / "outcome.npz", loss=np.array(1.0), **left)
    print(json.dumps({"ready": True, "versions": {}}), flush=True)
    """
    terms = contest.Terms(
        batch=16, images=16, rounds=1, turn=0.001, settings=(), peers=[PEER],
        python=python(tmp_path, wrong),
    )  # fmt: skip
    with contest.contest(net, terms) as everybody:
        training = everybody.training()
    assert [one.contender.name for one in training.timings] == ["Lanewise"]
    (told,) = everybody.skipped
    assert told.startswith("Other fp32 computes something else: its loss differ")


def test_whose_repetition_is_too_long_is_told_but_takes_no_turns() -> None:
    peer = served.Peer("Other", "fp32", "with_other", "inference")
    logits = {"logits": np.array([1.0, 2.0])}
    slow = type("Slow", (), {"peer": peer, "run": lambda self, times: 2.5 * times})()
    for longest, expected in [(2.0, 0), (3.0, 1)]:
        stub = contest.Contest.__new__(contest.Contest)
        stub.terms = contest.Terms(longest=longest)
        stub.agreement, stub.skipped = {}, []
        admitted = stub._admitted(logits, served.Guests([(slow, logits)], [], {}))
        assert len(admitted) == expected
        assert stub.skipped == ["Other fp32: too slow for turns, one took 2.5 s"] * (1 - expected)


def test_a_quick_look_names_the_slow_it_leaves_out() -> None:
    net = parse("input 1x6x6; conv 2 k3; flatten; linear 3")
    peers = [one for one in served.PEERS if one.slow]
    terms = contest.Terms(
        batch=16, images=16, rounds=1, turn=0.001, settings=(), peers=peers, slow_up_to=1000
    )
    with contest.contest(net, terms) as everybody:
        everybody.training()
    assert everybody.skipped == [f"{one}: not tried, it is slow" for one in peers] != []


def test_ours_in_bf16_takes_part_where_it_is_asked_for() -> None:
    net = parse("input 1x6x6; conv 2 k3; relu; flatten; linear 3")
    terms = contest.Terms(batch=16, images=16, rounds=1, turn=0.001, settings=(), bfloat16=True)
    with contest.contest(net, terms) as everybody:
        training = everybody.training()
    told = [(one.contender.name, one.contender.setting) for one in training.timings]
    assert told == [("Lanewise", "fp32"), ("Lanewise", "bf16")]
    assert 0 < everybody.agreement["Lanewise bf16: weights"] < 0.6


def test_a_quick_look_does_not_wait_for_depthwise_gradients() -> None:
    net = parse("input 2x6x6; depthwise k3; flatten; linear 3")
    xla = [one for one in served.PEERS if one.slow_at_depthwise]
    assert {one.name for one in xla} == {"Keras, TensorFlow", "Keras, JAX"}
    for terms, expected in [(contest.Terms(slow_up_to=1e9), True), (contest.Terms(), False)]:
        stub = contest.Contest.__new__(contest.Contest)
        stub.graph, stub.terms = net, terms
        assert [stub._slow(one) for one in xla] == [expected] * 2
        stub.graph = parse("input 2x6x6; conv 2 k3; flatten; linear 3")
        assert not any(stub._slow(one) for one in xla)


def test_fewer_threads_are_tried_where_there_is_little_to_do() -> None:
    single = next(one for one in served.PEERS if one.options.get("threads") == 1)
    usual = next(one for one in served.PEERS if one.kind == "inference")
    for images, threads, expected in [(1, 2, True), (10**6, 2, False), (1, 1, False)]:
        terms = contest.Terms(images=images, threads=threads)
        stub = type("Stub", (), {"terms": terms, "graph": parse(NET)})()
        assert contest.Contest._worth_while(stub, single) is expected
        assert contest.Contest._worth_while(stub, usual)


# ---- models -------------------------------------------------------------------------------------


def test_ncnn_gets_folded_norms_joined_activations_and_splits() -> None:
    given = work("inference")
    model = with_ncnn.Model(given)
    kinds = [line.type for line in model.lines]
    assert kinds == [
        "Input", "Convolution", "Split", "Convolution", "BinaryOp", "Flatten", "InnerProduct"
    ]  # fmt: skip
    magic, counts, *lines = model.text().splitlines()
    blobs = sum(int(line.split()[3]) for line in lines)
    assert magic == "7767517" and counts == f"{len(lines)} {blobs}"
    assert " 9=1" in lines[1] and " 9=1" not in lines[3]
    w = given.weights
    factor = w["bn1.weight"] / np.sqrt(w["bn1.running_var"] + 1e-5)
    (tag, weight), (_, bias) = model.lines[1].arrays
    assert tag == b"\0\0\0\0"
    assert np.allclose(weight, w["conv1.weight"] * factor[:, None, None, None])
    assert np.allclose(bias, w["bn1.bias"] - w["bn1.running_mean"] * factor)
    floats = sum(array.size for line in model.lines for _, array in line.arrays)
    assert len(model.bytes()) == 4 * floats + 4 * 3


def test_what_a_model_has_no_rule_for_is_told() -> None:
    with pytest.raises(Unsupported, match="ncnn has no rule for `elu`"):
        with_ncnn.Model(work("inference", "input 2x6x6; conv 2 k3; elu; flatten; linear 3"))
    with pytest.raises(Unsupported, match="folded into a convolution"):
        with_ncnn.Model(work("inference", "input 2x6x6; bn; flatten; linear 3"))


def test_every_peer_that_is_installed_agrees() -> None:
    """tinygrad's compilation takes too long for a test."""
    here = [
        one
        for one in served.PEERS
        if one.kind == "training" and one.name != "tinygrad" and not absent(one)
    ]
    if not here:
        pytest.skip("none of the peers is installed: pip install 'lanewise[peers]'")
    net = parse("input 1x8x8; conv 4 k3 pad1; bn; relu; maxpool 2; flatten; linear 3")
    terms = contest.Terms(batch=32, rounds=1, turn=0.001, settings=(), peers=here)
    with contest.contest(net, terms) as everybody:
        training = everybody.training()
    assert [one.contender.name for one in training.timings[1:]] == [one.name for one in here]
