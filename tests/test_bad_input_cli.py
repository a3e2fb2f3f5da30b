"""Bad input at the command line: one message with place and remedy, code 2, nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lanewise.cli.main import main
from refusals import NET, SHORT, Refused


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert main(["train", *SHORT, "--run", str(folder)]) == 0
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A run of one's own, to damage."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


# Networks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("net", "words"),
    [
        ("input 1x8x8; convv 8 k3", "did you mean `conv`"),
        ("input 1x8x8; conv 8 k3 padd2", "padd2"),
        ("input 1x8x8; conv 8 k9; flatten; linear 10", "use pad >= 1 or kernel <= 8"),
        ("input 1x8x8; conv 6 k3 groups4; flatten; linear 10", "groups"),
        ("input 1x8x8; linear 10", "flatten"),
        ("input 1x8x8; conv 8 k3", "add `flatten` and `linear K`"),
        ("input 1x8x8; flatten", "nothing to train"),
        ("input 1x8x8; flatten; linear 9; relu", "add `linear 10`"),
        ("input 2x8x8; flatten; linear 10", "use 1 (gray) or 3 (RGB)"),
        ("input 1x8x8;", ""),
        ("block a { relu; a }; input 1x8x8; a", "recursion: block a contains block a"),
        ("input 1x8x8; a; block a { relu }", "block a is used before it is defined"),
        ("block a n { conv n k1 }; input 1x8x8; a", "block a needs n; call it as `a n`"),
        ("block a n { conv n k1 }; input 1x8x8; a 1 2", "block a takes 1 value(s), not 2"),
        ("input 1x8x8; conv 4/3 k3", "`4/3` is 1.3333333333333333; use a whole number"),
        ("input 1x8x8; residual { relu", "never closed; add a `}`"),
        ("input 1x8x8; relu; add relu1 relu3", "reads `relu3`, which is no layer before it"),
        ("input 1x8x8; residual { conv 2 k3 pad1 }", "conv1 (line 1) is 2x8x8, input (line 1) is"),
        ("input 1x8x8; concat { conv 2 k3 } { }", "and concat needs maps of one size"),
        ("input 1x8x8; conv 6 k3; conv 6 k3 groups4", "4 groups do not divide the 6 channels of"),
        ("input 1x8x8; conv 6 k3; conv 4 k3 groups3", "3 groups do not divide the 4 kernels"),
        ("input 1x8x8; conv 6 k3; groupnorm 4", "use groupnorm 1, 2, 3 or 6"),
        ("input 1x8x8; conv 6 k3; shuffle 4", "use shuffle 1, 2, 3 or 6"),
        ("input 1x8x8; conv 6 k3; split 1 of 4", "use 1, 2, 3 or 6 parts"),
        ("block a { relu; b }; block b { a }; input 1x8x8; b", "which contains block"),
        ("block a n { conv n k1 }; input 1x8x8; a 1 m=2", "block a has no parameter m; call it"),
        (
            "block a { conv 4 k3 pad1; residual { conv 8 k3 pad1 } }\ninput 1x8x8\na",
            "net:1 add1 (block a, called in line 3): conv2 (line 1, called in line 3) is 8x8x8",
        ),
        ("input 1x8x8; relu; tanh from input", "nobody reads relu1"),
        ("resnet20 m=3", "no parameter m; its parameters are"),
        ("lenet55", "lenet5"),
        ("nowhere.net", "no such file"),
    ],
)
def test_a_net_that_cannot_be(refused: Refused, tmp_path: Path, net: str, words: str) -> None:
    assert words in refused("train", "--net", net, "--run", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_batch_too_small_for_its_statistics(refused: Refused, tmp_path: Path) -> None:
    """1,437 of the digits are trained on; bn sees one value of each image and channel."""
    net = "input 1x8x8; conv 8 k3; relu; globalavg; bn; flatten; linear 10"
    message = refused("train", "--net", net, "--batch", "4", "--run", tmp_path / "run")
    assert message.startswith("lanewise: net:1 bn1: bn over 8x1x1 gets one value a channel, ")
    assert "(1,437 images in batches of 4); it needs two" in message
    assert message.endswith("so use --batch 3, or one image more or less\n")
    assert "--batch 3\n" in refused(
        "train", "--net", net, "--batch", "1", "--run", tmp_path / "run"
    )
    assert not (tmp_path / "run").exists()


# Options -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--epochs", "0"], "a whole number from 1"),
        (["--epochs", "ten"], "a whole number from 1"),
        (["--batch", "-3"], "--batch"),
        (["--lr", "0"], "a number above 0"),
        (["--lr", "nan"], "a number above 0"),
        (["--seed", "-1"], "--seed"),
        (["--seed", str(2**63)], "a whole number, 0 to"),
        (["--threads", "0"], "a whole number from 1"),
        (["--optimizer", "adam"], "sgd or adamw"),
        (["--schedule", "linear"], "constant or cosine or one-cycle"),
        (["--smoothing", "1"], "smoothing"),
        (["--fit", "squash"], "crop or pad or stretch"),
        (["--epoch", "3"], "did you mean `--epochs`"),
        (["digits", "more"], "more"),
        (["--run", "a", "--resume", "b"], "not allowed with"),
        (["--run", ""], "the name is empty"),
        (["--resume", ""], "the name is empty"),
        (["--net", ""], "the network is empty"),
        ([""], "no such file or folder"),
        (["--lr", "1e9"], "at most 1000"),
        (["--batch", "1000001"], "1 to 1000000"),
    ],
)
def test_an_option_that_cannot_be(refused: Refused, arguments: list[str], words: str) -> None:
    assert words in refused("train", *arguments)


def test_a_seed_beyond_the_engine_is_refused_by_name(refused: Refused) -> None:
    assert "seed is" in refused("train", "--seed", str(2**70))


# Run folders -------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["test", "predict", "resume"])
def test_no_run(refused: Refused, tmp_path: Path, verb: str) -> None:
    (tmp_path / "empty").mkdir()
    for folder, words in ((tmp_path / "nowhere", "no such folder"), (tmp_path / "empty", "no run")):
        assert words in refused(*verb_on(verb, folder))


def verb_on(verb: str, folder: Path) -> list[str | Path]:
    if verb == "resume":
        return ["train", "--resume", folder]
    return [verb, folder] if verb == "test" else [verb, folder, "image.png"]


@pytest.mark.parametrize("damage", ["missing", "halved", "garbage"])
@pytest.mark.parametrize(
    ("verb", "name"),
    [
        ("test", "run.json"),
        ("test", "net.net"),
        ("test", "weights.safetensors"),
        ("predict", "run.json"),
        ("predict", "net.net"),
        ("predict", "weights.safetensors"),
        ("resume", "run.json"),
        ("resume", "net.net"),
        ("resume", "state.safetensors"),
        ("resume", "weights.safetensors"),
    ],
)
def test_a_missing_or_damaged_file(
    refused: Refused, run: Path, verb: str, name: str, damage: str
) -> None:
    path = run / name
    if damage == "missing":
        path.unlink()
    elif damage == "halved":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.write_bytes(b"\xff\x00\xfe" * 20)
    before = {file.name: file.read_bytes() for file in run.iterdir() if file.name != "run.json"}
    assert name in refused(*verb_on(verb, run), "--quiet")
    after = {file.name: file.read_bytes() for file in run.iterdir() if file.name != "run.json"}
    assert after == before, "nothing lost"


def test_a_run_is_never_overwritten(refused: Refused, run: Path) -> None:
    before = {file.name: file.read_bytes() for file in run.iterdir()}
    assert "--resume" in refused("train", *SHORT, "--run", run)
    assert {file.name: file.read_bytes() for file in run.iterdir()} == before


def test_a_resumed_run_keeps_its_settings(refused: Refused, run: Path) -> None:
    assert "--epochs beside --resume" in refused("train", "--resume", run, "--epochs", "9")
    assert "--net beside --resume" in refused("train", "--resume", run, "--net", NET)


# The machine -------------------------------------------------------------------------------------


def test_a_place_that_cannot_be_written(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = refused("train", *SHORT, "--run", tmp_path / "file" / "run")
    assert "cannot be written" in message and "choose another folder" in message


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write anywhere"
)
def test_no_permission(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    message = refused("train", *SHORT, "--run", tmp_path / "locked" / "run")
    assert "choose a folder that you may write" in message


FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from lanewise.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no file size limits")
def test_a_full_disk(tmp_path: Path) -> None:
    """A limit on the size of files stands for it: small ones are written, the state is not."""
    folder = tmp_path / "run"
    command = ["train", *SHORT, "--epochs", "3", "--run", str(folder)]
    done = subprocess.run(
        [sys.executable, "-c", FULL, "9000", *command], capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert "state.safetensors: cannot be written" in last and "free some space" in last
    assert "--resume" not in last and not folder.exists(), "there is nothing to go on with"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no file size limits")
def test_a_disk_that_fills_up_later_loses_nothing(tmp_path: Path, trained: Path) -> None:
    """The saved state is untouched, and going on from it ends as if nothing had happened."""
    folder = tmp_path / "run"
    command = ["train", "--net", NET, "--quiet", "--epochs", "400", "--run", str(folder)]
    process = subprocess.Popen([sys.executable, "-m", "lanewise", *command])
    while not (folder / "run.json").exists():
        assert process.poll() is None
    process.kill()
    process.wait()
    before = (folder / "state.safetensors").read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", FULL, "9000", "train", "--resume", str(folder), "--quiet"],
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 2 and f"lanewise train --resume {folder}" in done.stderr
    assert (folder / "state.safetensors").read_bytes() == before


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "lanewise", "train", *SHORT, "--run", str(tmp_path / "run")],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "LANEWISE_CACHE": str(tmp_path / "file" / "cache")},
    )
    assert done.returncode == 0 and "test" in done.stdout
    assert "LANEWISE_CACHE" in done.stderr and "Traceback" not in done.stderr


def test_closed_streams(tmp_path: Path) -> None:
    """Some services start programs without standard output and error."""
    command = f"{sys.executable} -m lanewise train digits --net '{NET}' --epochs 1 --run"
    for number, closed in enumerate((">&-", "2>&-", ">&- 2>&-")):
        folder = tmp_path / str(number)
        done = subprocess.run(["sh", "-c", f"{command} {folder} {closed}"], capture_output=True)
        assert done.returncode == 0 and b"bug" not in done.stderr, done.stderr
        assert json.loads((folder / "run.json").read_text())["status"] == "complete"


def test_json_keeps_every_letter_where_the_terminal_knows_few(
    trained: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lanewise", "predict", str(trained), "--json", "Zoë 猫.png"],
        capture_output=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"},
    )
    assert done.returncode == 2 and json.loads(done.stdout)[0]["path"] == "Zoë 猫.png"


def test_an_unknown_flag(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANEWISE_THREAD", "2")
    assert "did you mean LANEWISE_THREADS" in refused("train", *SHORT)
