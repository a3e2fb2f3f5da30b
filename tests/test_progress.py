"""What a person sees: lines, the bar, and the header."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest

from lanewise.training.checkpoint import Checkpoint, EpochRecord
from lanewise.training.progress import (
    Bar,
    Extent,
    Lines,
    Silent,
    choose,
    duration,
    epoch_line,
    laid_out,
)

EXTENT = Extent(epochs=10, images=1000, batch=64)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def record(number: int, val_accuracy: float | None = 0.9876) -> EpochRecord:
    return EpochRecord(number, 0.05124, 0.98406, 0.05, val_accuracy, 0.1, 2.0, 61_020.4)


def text_of(stream: io.StringIO) -> str:
    """What was written, without the terminal's codes."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())


def watch(watcher: Silent) -> None:
    """Two epochs of a training, the second one half way."""
    watcher.tell("net: lenet5")
    watcher.started(Checkpoint(), EXTENT)
    first = Checkpoint().after_steps(np.ones(16), np.full(16, 60), 2.0)
    watcher.stepped(first)
    done = first.after_epoch(record(1))
    watcher.epoch_done(done)
    watcher.stepped(done.after_steps(np.full(8, 0.25), np.full(8, 63), 1.0))
    watcher.stopped()


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0.4, 59.4, 59.6, 200, 3600, 7384)] == [
        "0 s",
        "59 s",
        "1:00",
        "3:20",
        "1:00:00",
        "2:03:04",
    ]


def test_an_epoch_in_a_line() -> None:
    line = "epoch  3/10  loss 0.0512  train  98.41 %  val  98.76 %  61,020 img/s"
    assert epoch_line(record(3), 10) == line
    assert "val" not in epoch_line(record(3, None), 10)


def test_a_header_has_a_column_of_names_and_keeps_to_the_width() -> None:
    text = laid_out("recipe: " + "word " * 40, 60)
    lines = text.splitlines()
    assert lines[0].startswith("recipe      word") and len(lines) > 2
    assert all(line.startswith(" " * 12) for line in lines[1:])
    assert max(map(len, lines)) <= 60
    assert laid_out("  cat/1.png: damaged", 60) == " " * 12 + "cat/1.png: damaged"


def test_lines_are_the_header_and_one_for_each_epoch() -> None:
    stream = io.StringIO()
    watch(Lines(stream))
    assert stream.getvalue().splitlines() == [
        "net         lenet5",
        epoch_line(record(1), 10) + "  18 s left",
    ]


def test_the_bar_shows_epoch_loss_accuracy_speed_and_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    watch(Bar(stream))
    text = text_of(stream)
    assert epoch_line(record(1), 10) in text
    assert "epoch 2/10" in text
    # 1512 images in 3 s: 504 a second, and 8488 are left.
    assert "loss 0.2500  acc  98.4 %  504 img/s  17 s left" in text
    assert stream.getvalue().endswith("\x1b[?25h") or "\x1b[?25h" in stream.getvalue()


def test_reading_has_a_bar_that_goes_away_even_after_an_error() -> None:
    stream = Terminal()
    with pytest.raises(ValueError), choose(False, stream) as watcher:
        watcher.reading(10, 200)
        raise ValueError
    assert "10 of 200" in text_of(stream)
    assert stream.getvalue().rindex("\x1b[?25h") > stream.getvalue().rindex("10 of 200")


def test_the_watcher_for_each_place() -> None:
    assert type(choose(True)) is Silent
    assert type(choose(False, io.StringIO())) is Lines
    assert type(choose(False, Terminal())) is Bar


def test_silence_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    watch(Silent())
    Silent().reading(1, 2)
    assert capsys.readouterr() == ("", "")
