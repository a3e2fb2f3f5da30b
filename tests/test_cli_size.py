"""`lanewise`, `lanewise size` and `lanewise nets` as a user meets them: output and exit codes."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import lanewise
from lanewise.cli import main as cli
from lanewise.net.load import load, zoo_names
from lanewise.size.report import size

OWN_VERBS = ("nets", "size")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one message of a command line that is at fault."""
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("lanewise: ")
    assert err.count("\n") == 1
    return err.removeprefix("lanewise: ").rstrip("\n")


def process(
    *arguments: str, stdout: int = subprocess.PIPE, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lanewise", *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "PYTHONUTF8": "1", **environment},
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("help",)])
def test_help_lists_every_verb(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, err) == (0, "")
    for verb, (_, summary) in cli.VERBS.items():
        assert re.search(rf"^  {verb} +{re.escape(summary)}$", out, re.MULTILINE)
    assert max(map(len, out.splitlines())) <= 80


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"lanewise {lanewise.__version__}\n", "")


@pytest.mark.parametrize("verb", OWN_VERBS)
def test_a_verb_s_help_has_examples_that_work(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    verb: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.net").write_text("input 1x8x8\nconv 2 k3\n", encoding="utf-8")
    Path("models.py").write_text("from torch import nn\n\nNet = nn.ReLU\n", encoding="utf-8")
    code, out, _ = run(capsys, verb, "--help")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    examples = re.findall(rf"^  lanewise ({verb}\b.*?)(?:   .*)?$", out, re.MULTILINE)
    assert examples
    for example in examples:
        assert run(capsys, *shlex.split(example))[0] == 0


def test_size_as_text(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    code, out, err = run(capsys, "size", "lenet5")
    assert (code, err) == (0, "")
    assert "⌊(28 + 4 − 5)/1⌋ + 1 = 28" in out
    assert max(map(len, out.splitlines())) <= 60
    quiet = run(capsys, "size", "lenet5", "--quiet")[1]
    assert out.startswith(quiet.rstrip("\n"))
    assert "FLOPs" in out
    assert "FLOPs" not in quiet


def test_size_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "size", "lenet5", "--json", "--batch", "4")
    assert (code, err) == (0, "")
    assert json.loads(out) == size(load("lenet5"), batch=4).as_json()


def test_size_as_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "size", "lenet5", "--markdown")
    assert code == 0
    assert "| conv1 | 6x28x28 | ⌊(28 + 4 − 5)/1⌋ + 1 = 28 | 156 | 117,600 | 5/1 | 18,816 |" in out


def test_size_for_another_input(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "size", "vgg16", "--input", "3x64X64", "--json")
    document = json.loads(out)
    assert document["input"] == [3, 64, 64]
    assert document["layers"][0]["output"] == [64, 64, 64]
    told = refused(capsys, "size", "lenet5", "--input", "1x8x8")
    assert told == (
        "lenet5:10 conv2: input 6x4x4, kernel 5 stride 1 pad 0 has no output position; "
        "use pad >= 1 or kernel <= 4"
    )


REFUSED = [
    (("siz", "lenet5"), "unknown verb siz; did you mean `size`? see `lanewise --help`"),
    (("size",), "no network, and --from and --to missing; give a network, or both"),
    (
        ("size", "lenet5", "--jsn"),
        "unknown argument --jsn; did you mean `--json`? see `lanewise",
    ),
    (("size", "lenet5", "x"), "unknown argument x; see `lanewise size --help`"),
    (("size", "lenet5", "--json", "--markdown"), "argument --markdown: not allowed with argument"),
    (("size", "lenet5", "--batch", "0"), "argument --batch: `0`; use a whole number from 1"),
    (("size", "lenet5", "--batch", "-1"), "argument --batch: `-1`; use a whole number from 1"),
    (("size", "lenet5", "--batch"), "argument --batch: expected one argument"),
    (("size", "lenet5", "--input", "8x8"), "argument --input: `8x8`; use channels x height x wid"),
    (("size", "lenet5", "--input", "0x8x8"), "lenet5:4 input: channels is 0; use 1 or more"),
    (("size", "lenet5", "--convention", "kreas"), "convention kreas: not known; use one of"),
    (("size", "lenet"), "lenet: neither a network of the zoo nor a file; did you mean `lenet5`?"),
    (("size", "no.net"), "no.net: no such file"),
    (("size", ""), "the network is empty"),
    (("size", "input 1x8x8; conv 6 k9"), "net:1 conv1: input 1x8x8, kernel 9 stride 1 pad 0 has"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_a_fault_of_the_user_is_one_message_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert refused(capsys, *arguments).startswith(message)


def test_nets(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "nets")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert (
        sorted(
            line.split()[0]
            for line in lines
            if line.startswith("      ") and "," in line and line.split()[1][0].isdigit()
        )
        == zoo_names()
    )
    assert all(len(line) <= 80 for line in lines)
    years = [int(line[:4]) for line in lines if line[:4].isdecimal()]
    assert years == sorted(years)
    paper = "2015  He, Zhang, Ren, Sun: Deep residual learning for image recognition"
    assert lines[lines.index(paper) + 1].split() == [
        *("resnet18", "3x224x224", "11,689,512", "1,814,073,344"),
    ]
    assert run(capsys, "nets", "--quiet")[1].split() == zoo_names()


def test_nets_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    entries = {entry["name"]: entry for entry in json.loads(run(capsys, "nets", "--json")[1])}
    assert list(entries) == zoo_names()
    assert entries["lenet5"] == {
        "name": "lenet5",
        "input": [1, 28, 28],
        "params": 61_706,
        "macs": 416_520,
        "year": 1998,
        "paper": "LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document "
        "recognition",
        "family": "lenet5",
    }
    assert entries["resnext50-32x4d"]["family"] == "resnet"
    assert entries["resnext50-32x4d"]["paper"].startswith("Xie et al.: Aggregated residual")
    assert all(entry["year"] >= 1998 and ": " in entry["paper"] for entry in entries.values())
    for name in ("resnet56", "mobilenet-v2"):
        totals = size(load(name)).totals
        assert (entries[name]["params"], entries[name]["macs"]) == (totals.params, totals.macs)


def broken(error: BaseException) -> SimpleNamespace:
    def fail(_: object) -> int:
        raise error

    return SimpleNamespace(add=lambda parser: None, run=fail)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ZeroDivisionError("by zero"), 1, "a bug in Lanewise: ZeroDivisionError: by zero"),
        (MemoryError(), 2, "not enough memory (no more is free); use a smaller network"),
        (
            RuntimeError("[alloc] DefaultCPUAllocator: can't allocate memory: 8 bytes"),
            2,
            "not enough memory (can't allocate memory: 8 bytes); use a smaller network",
        ),
        (KeyboardInterrupt(), 130, "interrupted"),
        (PermissionError(13, "Permission denied", "/x"), 2, "/x: Permission denied"),
        (OSError(28, "No space left on device"), 2, "No space left on device"),
        (lanewise.SizeError("no"), 2, "no"),
    ],
)
def test_what_goes_wrong_inside_a_verb(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    message: str,
) -> None:
    monkeypatch.delenv("LANEWISE_DEBUG", raising=False)
    monkeypatch.setattr(cli, "import_module", lambda path: broken(error))
    got, out, err = run(capsys, "size")
    assert (got, out) == (code, "")
    assert err.startswith(f"lanewise: {message}")
    assert "Traceback" not in err


def test_a_bug_shows_its_place_on_request(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "import_module", lambda path: broken(ZeroDivisionError("by zero")))
    assert "LANEWISE_DEBUG=1" in run(capsys, "size")[2]
    monkeypatch.setenv("LANEWISE_DEBUG", "1")
    code, _, err = run(capsys, "size")
    assert code == 1
    assert "Traceback" in err
    assert "in fail" in err


def test_flags_that_do_not_exist_are_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANEWISE_DEBUGG", "1")
    assert "LANEWISE_DEBUG?" in refused(capsys, "nets")


def test_as_a_process() -> None:
    done = process("size", "lenet5")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("lenet5: input 1x28x28\n")
    done = process("size", "lenet6")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


def test_a_reader_that_leaves_early_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = process("size", "vgg19", stdout=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the device that is always full")
def test_a_full_disk_is_told() -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = process("size", "vgg19", stdout=full.fileno())
    assert (done.returncode, done.stderr) == (2, "lanewise: No space left on device\n")


def test_a_terminal_without_unicode_still_gets_the_table() -> None:
    done = process("size", "lenet5", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "61,706" in done.stdout
