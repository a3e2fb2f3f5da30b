"""What a person sees while a net is trained: a bar on a terminal, else one line per epoch.

Both write to standard error, as standard output belongs to results. rich is imported for a terminal
only; the bar is redrawn after each native call, without a thread of its own.
"""

from __future__ import annotations

import os
import sys
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TextIO

from lanewise.training.checkpoint import Checkpoint, EpochRecord

if TYPE_CHECKING:
    from rich.progress import Progress


_COLUMN = 12  # where the text of a header line begins
_USUAL_WIDTH = 80


@dataclass(frozen=True)
class Extent:
    """How much there is to do: epochs of so many images in batches."""

    epochs: int
    images: int
    batch: int

    @property
    def steps(self) -> int:
        """Steps of one epoch."""
        return -(-self.images // self.batch)

    def seen(self, checkpoint: Checkpoint) -> int:
        """Images trained on so far, over all epochs."""
        return checkpoint.epoch * self.images + self.seen_in_epoch(checkpoint)

    def seen_in_epoch(self, checkpoint: Checkpoint) -> int:
        """Images trained on in the epoch under way."""
        return min(checkpoint.step * self.batch, self.images)


class Silent:
    """Nothing to see. `with` it, so that no bar stays behind whatever happens."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped()

    def tell(self, fact: str) -> None:
        """A line of the header: `name: what there is to know`."""

    def say(self, line: str) -> None:
        """A line as it is."""

    def reading(self, done: int, total: int) -> None:
        """So many of the image files are decoded."""

    def started(self, checkpoint: Checkpoint, extent: Extent) -> None:
        """Training begins, or goes on, at `checkpoint`."""

    def stepped(self, checkpoint: Checkpoint) -> None:
        """A native call is done."""

    def epoch_done(self, checkpoint: Checkpoint) -> None:
        """An epoch is done and validated: `checkpoint.history[-1]`."""

    def stopped(self) -> None:
        """Training is over, whatever the reason."""


class Lines(Silent):
    """Plain lines: the header, then one for every epoch."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._extent = Extent(0, 0, 1)
        self._first = 0

    def tell(self, fact: str) -> None:
        self.say(laid_out(fact, _width(self._stream)))

    def say(self, line: str) -> None:
        print(line, file=self._stream, flush=True)

    def started(self, checkpoint: Checkpoint, extent: Extent) -> None:
        self._extent, self._first = extent, checkpoint.epoch

    def epoch_done(self, checkpoint: Checkpoint) -> None:
        recent = [record.seconds for record in checkpoint.history[self._first :]]
        left = sum(recent) / len(recent) * (self._extent.epochs - checkpoint.epoch)
        line = epoch_line(checkpoint.history[-1], self._extent.epochs)
        self.say(f"{line}  {duration(left)} left" if left else line)


class Bar(Lines):
    """The line of each finished epoch, and below them a bar for the training as a whole."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self._progress: Progress | None = None
        self._start = (0, 0.0)

    def say(self, line: str) -> None:
        if self._progress is None:
            super().say(line)
        else:
            self._progress.console.print(line, highlight=False, markup=False)

    def reading(self, done: int, total: int) -> None:
        self._draw("reading images", done, total, f"{done:,} of {total:,}")
        if done >= total:
            self.stopped()

    def started(self, checkpoint: Checkpoint, extent: Extent) -> None:
        super().started(checkpoint, extent)
        self._start = (extent.seen(checkpoint), checkpoint.seconds)
        self._show(checkpoint, "")

    def stepped(self, checkpoint: Checkpoint) -> None:
        seen = self._extent.seen_in_epoch(checkpoint)
        loss = checkpoint.losses[-max(1, self._extent.steps // 10) :].mean()
        right = 100 * checkpoint.corrects.sum() / max(1, seen)
        speed, left = self._speed(checkpoint)
        self._show(
            checkpoint,
            f"loss {loss:.4f}  acc {right:5.1f} %  {speed:,.0f} img/s  {duration(left)} left",
        )

    def epoch_done(self, checkpoint: Checkpoint) -> None:
        self.say(epoch_line(checkpoint.history[-1], self._extent.epochs))

    def stopped(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _speed(self, checkpoint: Checkpoint) -> tuple[float, float]:
        """(images per second of this process, seconds that are left at that speed)."""
        first, before = self._start
        seconds = checkpoint.seconds - before
        seconds += sum(record.seconds for record in checkpoint.history[self._first :])
        speed = (self._extent.seen(checkpoint) - first) / max(seconds, 1e-9)
        left = self._extent.epochs * self._extent.images - self._extent.seen(checkpoint)
        return speed, left / max(speed, 1e-9)

    def _show(self, checkpoint: Checkpoint, text: str) -> None:
        epoch = min(checkpoint.epoch + 1, self._extent.epochs)
        total = self._extent.epochs * self._extent.images
        title = f"epoch {epoch}/{self._extent.epochs}"
        self._draw(title, self._extent.seen(checkpoint), total, text)

    def _draw(self, title: str, done: int, total: int, text: str) -> None:
        if self._progress is None:
            self._progress = _new_bar(self._stream)
            self._progress.add_task(title, total=total, text=text)
            self._progress.start()
        task = self._progress.task_ids[0]
        self._progress.update(
            task, description=title, completed=done, total=total, text=text, refresh=True
        )


def choose(quiet: bool, stream: TextIO | None = None) -> Silent:
    """The watcher for where standard error goes."""
    stream = stream or sys.stderr
    if quiet:
        return Silent()
    return Bar(stream) if stream.isatty() else Lines(stream)


def laid_out(fact: str, width: int) -> str:
    """`name: text` with the name in a column of its own, the text beside it in lines of `width`."""
    name, colon, text = fact.partition(": ")
    if fact.startswith(" ") or not colon or len(name) >= _COLUMN - 1:
        name, text = "", fact.strip()
    return textwrap.fill(
        text,
        max(width, 2 * _COLUMN),
        initial_indent=name.ljust(_COLUMN),
        subsequent_indent=" " * _COLUMN,
        break_long_words=False,
        break_on_hyphens=False,
    )


def epoch_line(record: EpochRecord, epochs: int) -> str:
    """`epoch  3/10  loss 0.0512  train 98.41 %  val 98.90 %  61,020 img/s`."""
    width = len(str(epochs))
    val = "" if record.val_accuracy is None else f"  val {100 * record.val_accuracy:6.2f} %"
    return (
        f"epoch {record.epoch:>{width}}/{epochs}  loss {record.loss:.4f}  "
        f"train {100 * record.train_accuracy:6.2f} %{val}  {record.images_per_second:,.0f} img/s"
    )


def duration(seconds: float) -> str:
    """`7 s`, `3:20`, `1:05:00`."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    if minutes >= 60:
        return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
    return f"{minutes}:{rest:02}" if minutes else f"{rest} s"


def _width(stream: TextIO) -> int:
    """Columns of the terminal that `stream` writes to, or 80."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(stream.fileno()).columns or _USUAL_WIDTH
    except (OSError, ValueError):
        return _USUAL_WIDTH


def _new_bar(stream: TextIO) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[text]}", markup=False),
        console=Console(file=stream),
        auto_refresh=False,
        transient=True,
        expand=True,
    )
