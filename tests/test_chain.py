"""`lanewise size --from N --to N`: every chain of layers alike, counted by brute force."""

from __future__ import annotations

import json

import pytest

from lanewise.cli.main import main
from lanewise.errors import SizeError
from lanewise.net.parse import parse
from lanewise.size.axis import Axis
from lanewise.size.chain import Chain, solve_chain
from lanewise.size.shapes import infer_shapes


def brute(asked: Chain) -> set[tuple[int, int, int]]:
    found = set()
    most = max(asked.n, 11)
    for kernel in range(1, most + 1):
        reach = asked.dilation * (kernel - 1) + 1
        for stride in range(1, asked.n + 1):
            for pad in range(min(reach, most)):
                size = asked.n
                for _ in range(asked.layers):
                    size = Axis(size, kernel, stride, pad, pad, asked.dilation).out
                    if size < 1:
                        break
                if size == asked.out and reach <= most:
                    found.add((kernel, stride, pad))
    return found


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize(("n", "out"), [(12, 5), (9, 1), (5, 5), (3, 7), (1, 1)])
def test_every_chain_there_is(n: int, out: int, layers: int, dilation: int) -> None:
    asked = Chain(n, out, layers, dilation=dilation)
    wanted = brute(asked)
    if not wanted:
        with pytest.raises(SizeError):
            solve_chain(asked)
        return
    links = solve_chain(asked)
    assert len(links) == len({(one.kernel, one.stride, one.pad) for one in links})
    assert {(one.kernel, one.stride, one.pad) for one in links} == wanted


@pytest.mark.parametrize(
    "given", [{"kernel": 3}, {"stride": 2}, {"pad": 1}, {"kernel": 4, "pad": 1}]
)
def test_what_is_given_stays(given: dict[str, int]) -> None:
    links = solve_chain(Chain(16, 4, 2, **given))
    everything = brute(Chain(16, 4, 2))
    wanted = {
        numbers
        for numbers in everything
        if all(
            dict(zip(("kernel", "stride", "pad"), numbers, strict=True))[k] == v
            for k, v in given.items()
        )
    }
    assert {(one.kernel, one.stride, one.pad) for one in links} == wanted


@pytest.mark.parametrize(
    ("asked", "first"),
    [
        (Chain(224, 7, 5), "k3 stride2 pad1"),
        (Chain(224, 14), "k16 stride16 pad0"),
        (Chain(28, 24), "k5 stride1 pad0"),
        (Chain(32, 32, 9), "k3 stride1 pad1"),
    ],
)
def test_the_usual_one_stands_first_and_holds_in_the_notation(asked: Chain, first: str) -> None:
    link = solve_chain(asked)[0]
    assert link.written == first
    net = parse(f"input 1x{asked.n}x{asked.n}; {asked.layers} x {{ conv 1 {first} }}")
    heights = tuple(shape[1] for shape in infer_shapes(net).values())
    assert heights == link.sizes
    assert heights[-1] == asked.out


def test_as_text_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["size", "--from", "224", "--to", "7", "--layers", "5", "--kernel", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "224 → 7, 5 layers alike"
    assert lines[3].startswith("1  k3 stride2 pad1  224 → 112 → 56 → 28 → 14 → 7  stride 2 halves")
    command = lines[-1].strip()
    assert command.startswith('lanewise size "input 1x224x224; 5 x { conv 1 k3 stride ? pad ? };')
    assert all(len(line) <= 80 for line in lines[:-1])
    assert main(["size", command.split('"')[1], "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["solutions"][0]["numbers"]["conv5"] == {
        "stride": [2, 2],
        "pad": [[1, 1], [1, 1]],
    }
    assert main(["size", "--from", "9", "--to", "4", "--json", "--all"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["count"] == len(document["solutions"]) == len(brute(Chain(9, 4)))
    assert document["solutions"][0]["sizes"] == [9, 4]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--from", "7"], "no network, and --to missing; give a network, or both"),
        (["--to", "7"], "--from missing"),
        ([], "--from and --to missing"),
        (["lenet5", "--from", "7", "--to", "3"], "is for no network, but lenet5 is given"),
        (["--from", "7", "--to", "3", "--markdown"], "--markdown: is for the sizes of a network"),
        (["--from", "7", "--to", "3", "--convention", "d2l"], "--convention: is for the sizes"),
        (["--from", "7", "--to", "3", "--details"], "--details: is for the sizes of a network"),
        (["--from", "7", "--to", "3", "--batch", "2"], "--batch: is for the sizes of a network"),
        (["--from", "0", "--to", "3"], "use a whole number from 1"),
        (["--from", "9", "--to", "3", "--layers", "101"], "--layers 101: use at most 100"),
        (["--from", "5000", "--to", "3"], "--from 5000: use at most 4096"),
        (["--from", "2000", "--to", "3"], "say --kernel"),
        (
            ["--from", "224", "--to", "7", "--kernel", "3", "--layers", "3"],
            "from 224 to 7 in 3 layers alike of kernel 3: no solution; "
            "nearest: 8 with k3 stride3 pad0, ",
        ),
        (["--from", "3", "--to", "900", "--kernel", "3"], "nor is there a size near it"),
    ],
)
def test_bad_input(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["size", *arguments]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert told in error
    assert error.count("\n") == 1
