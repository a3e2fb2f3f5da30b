"""Values of a kernel → LLVM IR: an expression becomes the name of an SSA value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from lanewise.native.lower_places import Places, Text
from lanewise.native.lower_words import (
    INTRINSICS,
    SCALARS,
    constant,
    instruction,
    intrinsic,
    mask,
    splat_constant,
    type_of,
    vector,
)
from lanewise.native.nest import (
    LANES,
    Constant,
    FromIndex,
    LaneNumbers,
    Load,
    Op,
    Read,
    Register,
    Value,
)


class Values:
    """Writes what computes a value. `registers` are the present names of the kernel's own; `bf16`:
    the processor has instructions for such numbers."""

    def __init__(self, text: Text, places: Places, bf16: bool = False) -> None:
        self.text, self.places, self.bf16 = text, places, bf16
        self.registers: dict[Register, str] = {}
        self.declarations: set[str] = set()

    def name(self, value: Value, memo: dict[int, str] | None = None) -> str:
        """SSA name of a value; a node shared inside one statement is evaluated once."""
        if isinstance(value, Read):
            return self.registers[value.register]
        memo = {} if memo is None else memo
        found = memo.get(id(value))
        if found is None:
            if isinstance(value, Op):
                names = [
                    self.registers[one.register] if isinstance(one, Read) else self.name(one, memo)
                    for one in value.arguments
                ]
                found = self._operation(value, names)
            else:
                found = self._leaf(value)
            memo[id(value)] = found
        return found

    def _leaf(self, value: Constant | LaneNumbers | Load | FromIndex) -> str:
        if isinstance(value, Load):
            address, align = self.places.place(value.buffer, value.index, value.lanes)
            kind = type_of(value.dtype, value.lanes)
            return self.text.emit(f"load {kind}, ptr {address}, align {align}")
        if isinstance(value, Constant):
            return constant(value.value, value.dtype, value.lanes)
        if isinstance(value, LaneNumbers):
            return vector(f"i32 {lane}" for lane in range(value.lanes))
        number = self.text.emit(f"trunc i64 {self.places.integer(value.index)} to i32")
        return self._splat(number, "i32", value.lanes)

    # -- operations

    def _operation(self, value: Op, names: Sequence[str]) -> str:
        several = _SEVERAL.get(value.name)
        if several:
            return several(self, value, names)
        source = value.arguments[0]
        if source.dtype == "bf16":
            return self._widened(names[0], value.lanes)
        if value.name in INTRINSICS:
            declaration, call = intrinsic(value.name, len(names), source.lanes)
            self.declarations.add(declaration)
            return self.text.emit(call.format(*names))
        kinds = (source.dtype, source.lanes), (value.dtype, value.lanes)
        return self.text.emit(instruction(value.name, *kinds).format(*names))

    def splatted(self, value: Op, names: Sequence[str]) -> str:
        """One number, or a few over and over, in all lanes."""
        few = value.arguments[0].lanes
        if few > 1:
            return self._repeated(names[0], value.dtype, few, value.lanes)
        return self._splat(names[0], value.dtype, value.lanes)

    def _splat(self, scalar: str, dtype: str, lanes: int) -> str:
        if lanes == 1:
            return scalar
        kind = type_of(dtype, lanes)
        one = self.text.emit(f"insertelement {kind} poison, {SCALARS[dtype]} {scalar}, i32 0")
        return self.text.emit(
            f"shufflevector {kind} {one}, {kind} poison, <{lanes} x i32> zeroinitializer"
        )

    def _repeated(self, few: str, dtype: str, lanes: int, result: int) -> str:
        kind, which = type_of(dtype, lanes), mask(tuple(i % lanes for i in range(result)))
        return self.text.emit(f"shufflevector {kind} {few}, {kind} poison, {which}")

    def extreme(self, value: Op, names: Sequence[str]) -> str:
        """The larger (smaller) of two numbers: the first, if it compares so with the second."""
        order = _EXTREMES[value.name]
        kind, bits = type_of("f32", value.lanes), type_of("i1", value.lanes)
        first = self.text.emit(f"fcmp {order} {kind} {names[0]}, {names[1]}")
        return self.text.emit(f"select {bits} {first}, {kind} {names[0]}, {kind} {names[1]}")

    def _widened(self, name: str, lanes: int) -> str:
        """A bf16 is the upper half of a float."""
        bits = type_of("i32", lanes)
        wide = self.text.emit(f"zext {type_of('bf16', lanes)} {name} to {bits}")
        upper = self.text.emit(f"shl {bits} {wide}, {splat_constant('16', 'i32', lanes)}")
        return self.text.emit(f"bitcast {bits} {upper} to {type_of('f32', lanes)}")

    def paired(self, value: Op, names: Sequence[str]) -> str:
        """Two bf16 as the halves of an integer."""
        lanes = value.lanes
        half, bits = type_of("bf16", lanes), type_of("i32", lanes)
        low, high = (self.text.emit(f"zext {half} {name} to {bits}") for name in names)
        high = self.text.emit(f"shl {bits} {high}, {splat_constant('16', 'i32', lanes)}")
        return self.text.emit(f"or {bits} {low}, {high}")

    def dot(self, value: Op, names: Sequence[str]) -> str:
        """By an instruction, or the same two multiply–adds one after the other."""
        lanes = value.lanes
        kind, bits = type_of("f32", lanes), type_of("i32", lanes)
        if self.bf16 and lanes == LANES:
            wide = f"<{2 * lanes} x bfloat>"
            self.declarations.add(f"declare {kind} {DOT}({kind}, {wide}, {wide})")
            a, b = (self.text.emit(f"bitcast {bits} {name} to {wide}") for name in names[:2])
            return self.text.emit(f"call {kind} {DOT}({kind} {names[2]}, {wide} {a}, {wide} {b})")
        declaration, call = intrinsic("fma", 3, lanes)
        self.declarations.add(declaration)
        total = names[2]
        for word, number in (("and", -65536), ("shl", 16)):  # the upper halves, then the lower
            which = splat_constant(str(number), "i32", lanes)
            halves = [self.text.emit(f"{word} {bits} {name}, {which}") for name in names[:2]]
            a, b = (self.text.emit(f"bitcast {bits} {half} to {kind}") for half in halves)
            total = self.text.emit(call.format(a, b, total))
        return total

    def narrowed(self, value: Op, names: Sequence[str]) -> str:
        """The nearest bf16, of two the even one: by an instruction, or in whole numbers."""
        name, lanes = names[0], value.lanes
        kind, half = type_of("f32", lanes), type_of("bf16", lanes)
        if self.bf16 and lanes == LANES:
            short = self.text.emit(f"fptrunc {kind} {name} to <{lanes} x bfloat>")
            return self.text.emit(f"bitcast <{lanes} x bfloat> {short} to {half}")
        bits = type_of("i32", lanes)

        def both(instruction: str, left: str, right: int) -> str:
            number = splat_constant(str(right), "i32", lanes)
            return self.text.emit(f"{instruction} {bits} {left}, {number}")

        whole = self.text.emit(f"bitcast {kind} {name} to {bits}")
        upper = both("lshr", whole, 16)
        odd = both("and", upper, 1)
        raised = self.text.emit(f"add {bits} {both('add', whole, 0x7FFF)}, {odd}")
        nearest = both("lshr", raised, 16)
        strange = self.text.emit(f"fcmp uno {kind} {name}, {name}")
        quiet = both("or", upper, 0x40)
        condition = type_of("i1", lanes)
        found = self.text.emit(f"select {condition} {strange}, {bits} {quiet}, {bits} {nearest}")
        return self.text.emit(f"trunc {bits} {found} to {half}")

    def rounded(self, value: Op, names: Sequence[str]) -> str:
        """The nearest whole number, of two the even one."""
        declaration, call = intrinsic(value.name, 1, value.lanes)
        self.declarations.add(declaration)
        whole, kind = self.text.emit(call.format(*names)), type_of("f32", value.lanes)
        return self.text.emit(f"fptosi {kind} {whole} to {type_of('i32', value.lanes)}")

    def lane_sum(self, value: Op, names: Sequence[str]) -> str:
        """Halves added to halves: the same tree on every CPU."""
        name, lanes = names[0], value.arguments[0].lanes
        while lanes > 2:
            kind, half = type_of("f32", lanes), lanes // 2
            parts = [
                self.text.emit(f"shufflevector {kind} {name}, {kind} poison, {mask(which)}")
                for which in (tuple(range(half)), tuple(range(half, lanes)))
            ]
            name = self.text.emit(f"fadd {type_of('f32', half)} {parts[0]}, {parts[1]}")
            lanes = half
        ends = [self.text.emit(f"extractelement <2 x float> {name}, i32 {i}") for i in (0, 1)]
        return self.text.emit(f"fadd float {ends[0]}, {ends[1]}")

    def transposed(self, rows: Sequence[str], dtype: str, lanes: int) -> list[str]:
        """log2(L) rounds; round s swaps the blocks of s groups of lanes between rows s apart."""
        found, size = list(rows), len(rows)
        kind, group = type_of(dtype, lanes), lanes // size
        step = size // 2
        while step:
            for i in (i for i in range(size) if not i & step):
                pair = f"{kind} {found[i]}, {kind} {found[i + step]}"
                for row, shift in ((i, 0), (i + step, step)):
                    which = _crossing(lanes, step * group, shift * group)
                    found[row] = self.text.emit(f"shufflevector {pair}, {mask(which)}")
            step //= 2
        return found


#: sixteen sums of two products each
DOT = "@llvm.x86.avx512bf16.dpbf16ps.512"

_EXTREMES: Mapping[str, str] = {"max": "ogt", "min": "olt"}

#: operations that take several instructions
_SEVERAL: Mapping[str, Callable[[Values, Op, Sequence[str]], str]] = {
    "splat": Values.splatted,
    "lanesum": Values.lane_sum,
    "pair": Values.paired,
    "dot": Values.dot,
    "tobf16": Values.narrowed,
    "round": Values.rounded,
    **dict.fromkeys(_EXTREMES, Values.extreme),
}


def _crossing(size: int, step: int, shift: int) -> tuple[int, ...]:
    """Lanes of two rows, every other block of `step` lanes from each."""
    return tuple(
        lane + shift if not lane & step else size + lane - step + shift for lane in range(size)
    )
