"""A model of three caches, in LLVM IR, that runs beside a kernel.

Every load and store tells its address; a line of 64 bytes that is used moves to the front of its
set, and the one that was used longest ago leaves; in the third any of its set does. A line comes in
a row if the one before it, or the one before that, is in the second cache and its page is one of
those that were used last: processors follow so many, and bring what comes next; the one that was
skipped is brought too, and counted. Of a line that
comes alone the multiply–adds that take it are counted: they wait in places that those behind them
need. A line that is fetched ahead comes like one in a row.

The first cache places lines by their address, the others by that of the memory behind it, which
pages of 4 KB have anywhere: here by their number, mixed as if by chance, so that some sets get more
pages than others. How many ways of the second cache are left to us is measured (`one_core.py`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

#: a load or a store of floats; tables of integers stay unseen
_ACCESS = re.compile(
    r"^  (?:(?P<name>%\S+) = load|store) (?P<kind><\d+ x float>|float)[^\n]*ptr (?P<at>%[^,\s]+),"
    r"[^\n]*$",
    re.M,
)
_FETCH = re.compile(r"^  call void @llvm.prefetch.p0\(ptr (%[^,\s]+),[^\n]*$", re.M)
_OPERAND = re.compile(r"%[\w.]+")
#: multiply–adds that may wait for a line without holding up those behind them
FREE = 8


def _waiting(function: str) -> Counter[str]:
    """How many multiply–adds take each value, itself or spread over all lanes."""
    found: Counter[str] = Counter()
    spread: dict[str, str] = {}
    for line in function.splitlines():
        names = _OPERAND.findall(line)
        if "@llvm.fma" in line:
            found.update(spread.get(name, name) for name in names[1:])
        elif "insertelement" in line or "shufflevector" in line:
            for name in names[1:]:
                spread[names[0]] = spread.get(name, name)
    return found


def _told(access: re.Match[str], waiting: Counter[str]) -> str:
    """The access, after it has told its address, what it is, and how many multiply–adds wait."""
    text, name = access.group(), access.group("name")
    kind = 2 if "!nontemporal" in text else 0 if name else 1
    together = 1 if access.group("kind") != "float" else LINE_FLOATS  # all of a line, one by one
    waits = max(FREE, waiting[name] * together) if name else FREE
    return f"  call void @touch(ptr {access.group('at')}, i64 {kind}, i64 {waits})\n{text}"


#: @caches: sets − 1 and ways of three caches, then from place 8 the counts of `Lines`. `look` moves
#: a line to the front of its set, `chance` puts it in the place of any.
_MOST_SETS, _MOST_WAYS, LINE_FLOATS = 65536, 32, 16
#: pages of 4 KB in which a processor follows how lines are read
_STREAMS = 32
_LOOK = """
define internal i64 @placed(i64 %line) nounwind {
entry:
  %page = lshr i64 %line, 6
  %times = mul i64 %page, -7046029254386353131
  %fold = lshr i64 %times, 30
  %folded = xor i64 %times, %fold
  %again = mul i64 %folded, -4658895280553007687
  %fold2 = lshr i64 %again, 27
  %folded2 = xor i64 %again, %fold2
  %third = mul i64 %folded2, -7723592293110705685
  %high = lshr i64 %third, 31
  %mixed = xor i64 %third, %high
  %begin = shl i64 %mixed, 6
  %rest = and i64 %line, 63
  %found = or i64 %begin, %rest
  ret i64 %found
}
define internal i1 @look(i64 %line, ptr %tags, i64 %mask, i64 %ways, i1 %moves) nounwind {
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
}

define internal i1 @chance(i64 %line, ptr %tags, i64 %mask, i64 %ways) nounwind {
entry:
  %set = and i64 %line, %mask
  %start = mul i64 %set, %ways
  %row = getelementptr i64, ptr %tags, i64 %start
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %next, %again ]
  %at = getelementptr i64, ptr %row, i64 %i
  %tag = load i64, ptr %at
  %hit = icmp eq i64 %tag, %line
  br i1 %hit, label %done, label %again
again:
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %ways
  br i1 %more, label %head, label %leave
leave:
  %state = load i64, ptr @state
  %times = mul i64 %state, 6364136223846793005
  %state.next = add i64 %times, 1442695040888963407
  store i64 %state.next, ptr @state
  %drawn = lshr i64 %state.next, 33
  %way = urem i64 %drawn, %ways
  %victim = getelementptr i64, ptr %row, i64 %way
  store i64 %line, ptr %victim
  ret i1 0
done:
  ret i1 1
}

define internal void @add(i64 %counter, i64 %amount) alwaysinline {
  %at = getelementptr i64, ptr @caches, i64 %counter
  %before = load i64, ptr %at
  %after = add i64 %before, %amount
  store i64 %after, ptr %at
  ret void
}

define internal i64 @shape(i64 %number) alwaysinline {
  %at = getelementptr i64, ptr @caches, i64 %number
  %value = load i64, ptr %at
  ret i64 %value
}
"""
#: counter of a line: 8 + 4 · level + (0 read in a row, 1 read alone, 2 written in a row, 3 alone);
#: 20: past the caches; 21, 22: multiply–adds that wait for lines from the third, from memory
MODEL = f"""
@caches = global [32 x i64] zeroinitializer
@near = global [{4096 * _MOST_WAYS} x i64] zeroinitializer
@far = global [{4096 * _MOST_WAYS} x i64] zeroinitializer
@third = global [{_MOST_SETS * 16} x i64] zeroinitializer
@state = global i64 1
@streams = global [{_STREAMS} x i64] zeroinitializer
{_LOOK}
define internal void @ahead(ptr %pointer) nounwind {{
entry:
  %address = ptrtoint ptr %pointer to i64
  %line = lshr i64 %address, 6
  %place = call i64 @placed(i64 %line)
  %mask2 = call i64 @shape(i64 2)
  %ways2 = call i64 @shape(i64 3)
  %in.second = call i1 @look(i64 %place, ptr @far, i64 %mask2, i64 %ways2, i1 1)
  br i1 %in.second, label %done, label %beyond
beyond:
  %high = lshr i64 %place, 13
  %mixed = xor i64 %place, %high
  %mask3 = call i64 @shape(i64 4)
  %ways3 = call i64 @shape(i64 5)
  %in.third = call i1 @chance(i64 %mixed, ptr @third, i64 %mask3, i64 %ways3)
  %counter = select i1 %in.third, i64 12, i64 16
  call void @add(i64 %counter, i64 1)
  br label %done
done:
  ret void
}}

define internal void @touch(ptr %pointer, i64 %writes, i64 %waits) nounwind {{
entry:
  %address = ptrtoint ptr %pointer to i64
  %line = lshr i64 %address, 6
  %past = icmp eq i64 %writes, 2
  br i1 %past, label %away, label %here
away:
  call void @add(i64 20, i64 1)
  br label %done
here:
  %mask = call i64 @shape(i64 0)
  %ways = call i64 @shape(i64 1)
  %hit = call i1 @look(i64 %line, ptr @near, i64 %mask, i64 %ways, i1 1)
  br i1 %hit, label %done, label %miss
miss:
  %page = lshr i64 %line, 6
  %followed = call i1 @look(i64 %page, ptr @streams, i64 0, i64 {_STREAMS}, i1 1)
  %mask2 = call i64 @shape(i64 2)
  %ways2 = call i64 @shape(i64 3)
  %place = call i64 @placed(i64 %line)
  %inside = and i64 %line, 63
  %not.first = icmp ne i64 %inside, 0
  %second.or.later = icmp ugt i64 %inside, 1
  %left = sub i64 %place, 1
  %left.but.one = sub i64 %place, 2
  %neighbour = call i1 @look(i64 %left, ptr @far, i64 %mask2, i64 %ways2, i1 0)
  %near.one = and i1 %neighbour, %not.first
  %skipped = call i1 @look(i64 %left.but.one, ptr @far, i64 %mask2, i64 %ways2, i1 0)
  %other = and i1 %skipped, %second.or.later
  %close = or i1 %near.one, %other
  %row = and i1 %followed, %close
  %apart = xor i1 %row, 1
  %alone = zext i1 %apart to i64
  %twice = shl i64 %writes, 1
  %kind = add i64 %twice, %alone
  %in.second = call i1 @look(i64 %place, ptr @far, i64 %mask2, i64 %ways2, i1 1)
  %second = add i64 %kind, 8
  br i1 %in.second, label %count.second, label %beyond
count.second:
  call void @add(i64 %second, i64 1)
  br label %done
beyond:
  %mask3 = call i64 @shape(i64 4)
  %ways3 = call i64 @shape(i64 5)
  %high = lshr i64 %place, 13
  %mixed = xor i64 %place, %high
  %in.third = call i1 @chance(i64 %mixed, ptr @third, i64 %mask3, i64 %ways3)
  %level = select i1 %in.third, i64 12, i64 16
  %counted = add i64 %kind, %level
  %not.near = xor i1 %near.one, 1
  %with.gap = and i1 %row, %not.near
  %skipped.too = zext i1 %with.gap to i64
  %brought = add i64 %skipped.too, 1
  call void @add(i64 %counted, i64 %brought)
  %is.alone.read = icmp eq i64 %kind, 1
  br i1 %is.alone.read, label %wait, label %done
wait:
  %counter = select i1 %in.third, i64 21, i64 22
  call void @add(i64 %counter, i64 %waits)
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


def third_shape(size: int) -> tuple[int, int]:
    """Sets (a power of two) and ways (8 to 15) of a third cache with so many bytes for us."""
    lines = min(size, 32 << 20) // 64
    sets = 1 << (lines // 8).bit_length() - 1
    return sets, lines // sets


def watched_functions(functions: Sequence[str]) -> list[str]:
    """The model, and LLVM functions whose loads and stores it sees."""

    def watched(function: str) -> str:
        waiting = _waiting(function)
        told = _ACCESS.sub(lambda access: _told(access, waiting), function)
        return _FETCH.sub(r"  call void @ahead(ptr \1)", told)

    return [MODEL, *map(watched, functions)]


class Lines(NamedTuple):
    """Lines that one round of calls reads or writes, in a row or alone, from the second cache, the
    third and memory; that it writes past the caches; and how many multiply–adds wait for lines that
    come alone from the third and from memory, at least `FREE` for each."""

    second: tuple[int, int, int, int] = (0, 0, 0, 0)
    third: tuple[int, int, int, int] = (0, 0, 0, 0)
    memory: tuple[int, int, int, int] = (0, 0, 0, 0)
    away: int = 0
    waiting: tuple[int, int] = (0, 0)

    @classmethod
    def of(cls, counts: Sequence[int]) -> Lines:
        """From the counters of the model."""
        second, third, memory = (tuple(counts[i : i + 4]) for i in (0, 4, 8))
        return cls(second, third, memory, counts[12], (counts[13], counts[14]))  # type: ignore[arg-type]
