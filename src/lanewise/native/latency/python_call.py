"""The call from Python for small networks: machine code that CPython takes for one of its builtins.

`call_image(image)` (METH_O) looks at the array's own fields, makes the result with NumPy's C
interface, and runs on the calling thread. It holds the interpreter's lock meanwhile, which is
cheaper than giving it away for a few microseconds. What it does not know it leaves alone: it
returns None, and the caller takes the long way.

Where an array's fields stand has been the same since NumPy 1.0; `array_symbols` looks at an array
whether they stand there still, and whoever finds they do not calls no builtin.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from lanewise.native.driver import WORD, Function
from lanewise.native.linked import Code
from lanewise.size.shapes import Shape

#: where the fields of an object and of an array stand (64-bit)
TYPE, DATA, RANK, SIZES, DTYPE, FLAGS = 8, 16, 24, 32, 56, 64
#: flags: rows one behind the other, and numbers where the processor wants them
USABLE_FLAGS = 0x0001 | 0x0100
#: the number of PyArray_Empty in NumPy's table of C functions; it never changes
EMPTY = 184
METH_O = 0x0008
#: symbols that are given to the code when it is loaded: the context's address, objects, functions
CONTEXT, ARRAY, FLOATS, BYTES, NONE, MAKE = (
    f"lanewise_{name}" for name in ("context", "array", "floats", "bytes", "none", "empty")
)
PYTHON = ("Py_IncRef", "Py_DecRef")


def call_image(image: Shape, output: Shape) -> str:
    """PyObject *call_image(self, image): the result, or None where the long way must be taken: the
    argument is not what this way takes, a pixel is not finite, or another thread is on the long
    way. NULL where memory is short. `image`: C × H × W; `output`: of one image."""
    f = Function("define ptr @call_image(ptr %self, ptr %image) noinline nounwind")
    _look(f, image)
    _work(f, 1 + len(output))
    _leave(f)
    sizes = ", ".join(f"i64 {size}" for size in (1, *output))
    table = f"@result_sizes = internal constant [{1 + len(output)} x i64] [{sizes}]"
    return "\n".join([*_DECLARATIONS, table, f.text().replace("%context,", f"@{CONTEXT},")])


def _look(f: Function, image: Shape) -> None:
    """Go on to `make` where the argument is what this way takes, and nobody is on the long one."""
    f.block(f"""  %busy.p = getelementptr i64, ptr @{CONTEXT}, i64 {WORD["busy"]}
  %busy = load i64, ptr %busy.p, align 8
  %idle = icmp eq i64 %busy, 0
  br i1 %idle, label %look, label %refuse
look:""")
    _same(f, "type", TYPE, "ptr", f"@{ARRAY}", "flags")
    f.label("flags")
    flags = _field(f, FLAGS, "i32")
    kept = f.emit(f"and i32 {flags}, {USABLE_FLAGS}")
    f.do(f"%usable = icmp eq i32 {kept}, {USABLE_FLAGS}")
    f.do("br i1 %usable, label %kind, label %refuse")
    f.label("kind")
    dtype = _field(f, DTYPE, "ptr")
    f.do(f"%is.bytes = icmp eq ptr {dtype}, @{BYTES}")
    f.do(f"%is.floats = icmp eq ptr {dtype}, @{FLOATS}")
    f.do("%known = or i1 %is.bytes, %is.floats")
    f.do("br i1 %known, label %rank, label %refuse")
    f.label("rank")
    _shape(f, image)


def _work(f: Function, axes: int) -> None:
    """Make the result, and fill it."""
    f.block(f"""make:
  call void @Py_IncRef(ptr @{FLOATS})
  %result = call ptr @{MAKE}(i32 {axes}, ptr @result_sizes, ptr @{FLOATS}, i32 0)
  %made = icmp ne ptr %result, null
  br i1 %made, label %work, label %short
work:
  %kind.word = zext i1 %is.bytes to i64""")
    stored = {
        "images": f"ptr {_field(f, DATA, 'ptr')}",
        "logits": f"ptr {_field(f, DATA, 'ptr', '%result')}",
        "images_are_bytes": "i64 %kind.word",
        "threads": "i64 1",
    }
    for field, value in stored.items():
        f.do(f"store {value}, ptr {f.word(WORD[field])}, align 8")
    f.do("%mode = call i64 @flush_denormals()")
    f.do(f"call void @run_forward(ptr %context, ptr {f.pointer('arena')}, i64 0)")
    f.do("call void @restore_mode(i64 %mode)")


def _leave(f: Function) -> None:
    """With the result, or without one."""
    f.do(f"%fault = load <16 x float>, ptr {f.pointer('faults')}, align 64")
    f.block(f"""  %odd = fcmp uno <16 x float> %fault, zeroinitializer
  %odd.bits = bitcast <16 x i1> %odd to i16
  %finite = icmp eq i16 %odd.bits, 0
  br i1 %finite, label %done, label %drop
done:
  ret ptr %result
drop:
  call void @Py_DecRef(ptr %result)
  br label %refuse
short:
  ret ptr null
refuse:
  call void @Py_IncRef(ptr @{NONE})
  ret ptr @{NONE}""")


def _field(f: Function, at: int, kind: str, of: str = "%image") -> str:
    address = f.emit(f"getelementptr i8, ptr {of}, i64 {at}")
    return f.emit(f"load {kind}, ptr {address}, align {4 if kind == 'i32' else 8}")


def _same(f: Function, name: str, at: int, kind: str, wanted: str, then: str) -> None:
    """Go on where a field of the image is what is wanted."""
    found = _field(f, at, kind)
    f.do(f"%{name}.same = icmp eq {kind} {found}, {wanted}")
    f.do(f"br i1 %{name}.same, label %{then}, label %refuse")


def _shape(f: Function, image: Shape) -> None:
    """Go on to `make` where the image is 1 × C × H × W, or 1 × H × W where C is 1."""
    channels, *size = image
    rank, sizes = _field(f, RANK, "i32"), _field(f, SIZES, "ptr")
    short = "short.sizes" if channels == 1 else "refuse"
    f.do(f"switch i32 {rank}, label %refuse [ i32 4, label %sizes i32 3, label %{short} ]")
    for label, wanted in (("sizes", (1, *image)), ("short.sizes", (1, *size))):
        if label == short or label == "sizes":
            f.label(label)
            _sizes(f, sizes, wanted)


def _sizes(f: Function, sizes: str, wanted: Shape) -> None:
    right = "1"
    for number, size in enumerate(wanted):
        place = f.emit(f"getelementptr i64, ptr {sizes}, i64 {number}")
        same = f.emit(f"icmp eq i64 {f.emit(f'load i64, ptr {place}, align 8')}, {size}")
        right = f.emit(f"and i1 {right}, {same}")
    f.do(f"br i1 {right}, label %make, label %refuse")


_DECLARATIONS = (
    *(f"@{name} = external global i8" for name in (CONTEXT, ARRAY, FLOATS, BYTES, NONE)),
    f"declare ptr @{MAKE}(i32, ptr, ptr, i32)",
    *(f"declare void @{name}(ptr)" for name in PYTHON),
)


# ---- what the code is given, and its way into Python ---------------------------------------------


def symbols(context: np.ndarray) -> dict[str, int]:
    """Name → address, of all that the code refers to."""
    objects = {ARRAY: np.ndarray, FLOATS: _FLOATS, BYTES: _BYTES, NONE: None}
    functions = {
        name: ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0
        for name in PYTHON
    }
    found = {name: id(one) for name, one in objects.items()}
    return found | functions | {CONTEXT: context.ctypes.data, MAKE: _numpy_function(EMPTY)}


_FLOATS, _BYTES = np.dtype(np.float32), np.dtype(np.uint8)


def _numpy_function(number: int) -> int:
    """The address of one of NumPy's C functions."""
    core = sys.modules.get("numpy._core._multiarray_umath") or sys.modules.get(
        "numpy.core._multiarray_umath"
    )
    take = ctypes.pythonapi.PyCapsule_GetPointer
    take.restype, take.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = take(core._ARRAY_API, None) if core else None
    return ctypes.c_void_p.from_address(table + 8 * number).value or 0 if table else 0


def fields_are_known() -> bool:
    """Whether arrays look as the code takes them to, and one thread at a time runs in the
    interpreter."""
    if not getattr(sys, "_is_gil_enabled", lambda: True)() or not _numpy_function(EMPTY):
        return False
    probe = np.zeros((2, 3, 5), np.float32)

    def field(at: int, kind: Any = ctypes.c_void_p) -> Any:
        return kind.from_address(id(probe) + at).value

    fixed = (field(TYPE), field(DATA), field(RANK, ctypes.c_int), field(FLAGS, ctypes.c_int))
    if fixed != (id(np.ndarray), probe.ctypes.data, 3, probe.flags.num):
        return False
    sizes = (ctypes.c_int64 * 3).from_address(field(SIZES))
    return tuple(sizes) == probe.shape and field(DTYPE) == id(_FLOATS)


class _Method(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


def builtin(library: Code) -> Callable[[Any], np.ndarray | None]:
    """`call_image` as a function of Python's. It must not outlive the library."""
    method = _Method(b"call_image", library.address("call_image"), METH_O, None)
    make = ctypes.pythonapi.PyCFunction_NewEx
    make.restype = ctypes.py_object
    make.argtypes = [ctypes.POINTER(_Method), ctypes.py_object, ctypes.py_object]
    # The builtin refers to the method's definition, and holds what it is made with as __self__.
    found: Callable[[Any], np.ndarray | None] = make(ctypes.byref(method), (method, library), None)
    return found
