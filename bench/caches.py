"""A model of the first and the second cache, in LLVM IR, that runs beside a kernel.

Every load and store tells its address; a line of 64 bytes that is used moves to the front of its
set, and the one that was used longest ago leaves.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

#: a load or a store of floats; tables of integers stay unseen
_ACCESS = re.compile(r"^  (?:%\S+ = load|store) (?:<\d+ x float>|float)[^\n]*ptr (%[^,\s]+),", re.M)


def _told(access: re.Match[str]) -> str:
    """The access, after it has told its address and whether it writes."""
    writes = int(access.group().startswith("  store"))
    return f"  call void @touch(ptr {access.group(1)}, i64 {writes})\n{access.group()}"


#: @caches: sets − 1 and ways of both caches, then the counts of `Lines`. `look` moves a line to the
#: front of its set.
_MOST_SETS, _MOST_WAYS = 4096, 32
MODEL = f"""
@caches = global [16 x i64] zeroinitializer
@near = global [{_MOST_SETS * _MOST_WAYS} x i64] zeroinitializer
@far = global [{_MOST_SETS * _MOST_WAYS} x i64] zeroinitializer

define internal i1 @look(i64 %line, ptr %tags, i64 %mask, i64 %ways, i1 %moves) nounwind {{
entry:
  %set = and i64 %line, %mask
  %start = mul i64 %set, %ways
  %row = getelementptr i64, ptr %tags, i64 %start
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %next, %again ]
  %carried = phi i64 [ %line, %entry ], [ %tag, %again ]
  %at = getelementptr i64, ptr %row, i64 %i
  %tag = load i64, ptr %at
  br i1 %moves, label %move, label %compare
move:
  store i64 %carried, ptr %at
  br label %compare
compare:
  %hit = icmp eq i64 %tag, %line
  br i1 %hit, label %done, label %again
again:
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %ways
  br i1 %more, label %head, label %done
done:
  ret i1 %hit
}}

define internal void @add(i64 %counter) alwaysinline {{
  %at = getelementptr i64, ptr @caches, i64 %counter
  %before = load i64, ptr %at
  %after = add i64 %before, 1
  store i64 %after, ptr %at
  ret void
}}

define internal void @touch(ptr %pointer, i64 %writes) nounwind {{
entry:
  %address = ptrtoint ptr %pointer to i64
  %line = lshr i64 %address, 6
  %mask = load i64, ptr @caches
  %ways.at = getelementptr i64, ptr @caches, i64 1
  %ways = load i64, ptr %ways.at
  %here = call i1 @look(i64 %line, ptr @near, i64 %mask, i64 %ways, i1 1)
  br i1 %here, label %done, label %second
second:
  %mask2.at = getelementptr i64, ptr @caches, i64 2
  %mask2 = load i64, ptr %mask2.at
  %ways2.at = getelementptr i64, ptr @caches, i64 3
  %ways2 = load i64, ptr %ways2.at
  %counter = add i64 %writes, 4
  call void @add(i64 %counter)
  %there = call i1 @look(i64 %line, ptr @far, i64 %mask2, i64 %ways2, i1 1)
  br i1 %there, label %done, label %beyond
beyond:
  %left = sub i64 %line, 1
  %neighbour = call i1 @look(i64 %left, ptr @far, i64 %mask2, i64 %ways2, i1 0)
  %read = select i1 %neighbour, i64 6, i64 7
  %written = icmp eq i64 %writes, 1
  %kind = select i1 %written, i64 8, i64 %read
  call void @add(i64 %kind)
  br label %done
done:
  ret void
}}
"""


def cache_shapes() -> tuple[int, int, int, int]:
    """Sets and ways of the first and the second cache, as the system tells, or usual ones."""
    found = {}
    for folder in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        told = {
            name: (folder / name).read_text(encoding="utf-8").strip()
            for name in ("level", "type", "number_of_sets", "ways_of_associativity")
        }
        if told["type"] != "Instruction":
            sets, ways = int(told["number_of_sets"]), int(told["ways_of_associativity"])
            found[told["level"]] = sets, ways
    shapes = found.get("1", (64, 8)), found.get("2", (1024, 16))
    return *shapes[0], *shapes[1]


def watched_functions(functions: Sequence[str]) -> list[str]:
    """The model, and LLVM functions whose loads and stores it sees."""
    return [MODEL, *(_ACCESS.sub(_told, one) for one in functions)]


class Lines(NamedTuple):
    """Lines that one round of calls reads and writes from the second cache or beyond, and of these
    those from beyond: read in a row, read alone, written."""

    read: int = 0
    written: int = 0
    row: int = 0
    alone: int = 0
    written_beyond: int = 0
