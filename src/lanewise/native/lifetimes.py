"""Who needs which bytes from when to when: calls → a worker's arena, and what is kept of a slice.

A moment is a call's number. Within a run of narrow calls a slice's values live from the first to
the last call that names them. A value that lives across a wide call is there for several slices at
once (`crossing`); one that lives across a barrier is kept for every slice of the batch, and its
life is counted in phases. Without training, what is worked out of parameters alone stays: it has a
place of its own, the same for all workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from lanewise.native.memory import Arena, Interval, plan_arena

if TYPE_CHECKING:
    from lanewise.native.plan import Call, Job, Slot


@dataclass
class _Life:
    """A slot, the calls that name it first and last, and whether any of them is a worker's own."""

    slot: Slot
    first: int
    last: int
    outside: bool


def lifetimes(
    calls: Sequence[Call], jobs: Sequence[Job], width: int, training: bool
) -> tuple[Arena, Arena, frozenset[str], Arena]:
    """(a worker's arena, what is kept of each slice, names of which `width` stand end to end, what
    stays)."""
    from lanewise.native.plan import PROLOGUE

    runs = _runs(calls)
    end = len(calls) - 1
    phases = calls[-1].phase + 1 if calls else 0
    needed_by_jobs = {slot.name for job in jobs for slot in job.places} | _told_by_slices(calls)
    lives = _lives(calls)
    # The prologue of training writes all of its slots, whoever reads them.
    always = [name for name in PROLOGUE if name in lives or "label" in lives]
    own = [Interval(name, PROLOGUE[name] * width, 0, end) for name in always]
    kept, crossing, stays = [], set(always), []
    for name, life in lives.items():
        first, last = life.first, life.last
        if name in PROLOGUE:
            continue
        if life.slot.worker and not training:
            stays.append(Interval(name, life.slot.size, 0, end))
        elif life.slot.worker:
            own.append(Interval(name, life.slot.size, runs[first][2], runs[last][3]))
        elif life.slot.kept or life.outside or calls[first].phase != calls[last].phase:
            until = phases if name in needed_by_jobs else calls[last].phase
            kept.append(Interval(name, life.slot.size, calls[first].phase, until))
        elif runs[first][:2] != runs[last][:2] or calls[first].wide:
            # Other slices run the same segments in between: each keeps its own, end to end.
            own.append(Interval(name, life.slot.size * width, runs[first][0], runs[last][1]))
            crossing.add(name)
        else:
            own.append(Interval(name, life.slot.size, first, last))
    return plan_arena(own), plan_arena(kept), frozenset(crossing), plan_arena(stays)


def _told_by_slices(calls: Sequence[Call]) -> set[str]:
    """What the jobs read without being told: every slice's loss and number of correct images."""
    return {"loss", "correct"}


def _lives(calls: Sequence[Call]) -> dict[str, _Life]:
    from lanewise.native.plan import Slot

    lives: dict[str, _Life] = {}
    for first, last, call in _moments(calls):
        for place in call.places:
            if isinstance(place, Slot):
                life = lives.setdefault(place.name, _Life(place, first, last, False))
                life.last = last
                life.outside |= call.who != "slice"
    return lives


def _moments(calls: Sequence[Call]) -> Iterator[tuple[int, int, Call]]:
    """When each call is made; those of a chain are made again and again until its last."""
    numbered = list(enumerate(calls))
    for (chain, _), group in groupby(numbered, key=lambda pair: (pair[1].chain, pair[1].phase)):
        together = list(group)
        for number, call in together:
            if chain >= 0:
                yield together[0][0], together[-1][0], call
            else:
                yield number, number, call


def _runs(calls: Sequence[Call]) -> list[tuple[int, int, int, int]]:
    """For each call: first and last call of its run, and first and last of its phase."""
    runs: list[list[int]] = []
    phases: dict[int, list[int]] = {}
    for number, call in enumerate(calls):
        phases.setdefault(call.phase, []).append(number)
        before = calls[number - 1] if number else None
        if before and before.phase == call.phase and not before.wide and not call.wide:
            runs[-1].append(number)
        else:
            runs.append([number])
    return [
        (run[0], run[-1], phases[calls[number].phase][0], phases[calls[number].phase][-1])
        for run in runs
        for number in run
    ]
