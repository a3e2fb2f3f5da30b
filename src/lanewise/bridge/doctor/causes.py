"""What may be wrong with a failed call: a table by the function's name.

A rule takes the case and gives a `Cause`, or None where it knows nothing. Shapes in a case begin
with the number of images.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from math import gcd, prod
from typing import Any

from lanewise.bridge.doctor.case import Case, Cause, size, times
from lanewise.bridge.doctor.edits import Edit, argument
from lanewise.bridge.importing.per_image import IMAGES
from lanewise.bridge.importing.record import Call, tensors
from lanewise.bridge.importing.windows import pair, sides
from lanewise.errors import SizeError
from lanewise.net import layers as kinds
from lanewise.size.windows import resolve_window

Remedy = tuple[Edit, ...]


# Full connection ----------------------------------------------------------------------------------


def linear(case: Case) -> Cause | None:
    """Not flat, or flat with another number of features than the weights have."""
    shape, weight = case.shape(), case.shape(1, "weight")
    if not shape or len(weight) != 2 or shape[-1] == weight[1]:
        return None
    if len(shape) == 4:
        return _not_flat(case, shape, weight[1])
    features = shape[-1]
    remedies = [*_skipping(case), *_made_with(case, 0, "in_features", features)]
    return Cause(f"{_features(case)}, but linear expects {weight[1]}", tuple(remedies))


def _features(case: Case) -> str:
    """`flatten: 16 × 5 × 5 = 400`, by what gave the features."""
    value = case.given(0, "input")
    made = case.producer(value)
    read = next(tensors(made.args), None) if made else None
    if (
        read is not None
        and made is not None
        and read.dim() == 4
        and made.shapes[0][:1] == (IMAGES,)
    ):
        return f"{made.name}: {times(*read.shape[1:])} = {prod(read.shape[1:])}"
    return f"its input has {value.shape[-1]} features"


def _not_flat(case: Case, shape: tuple[int, ...], wanted: int) -> Cause:
    flat = prod(shape[1:])
    told = (
        f"its input is {size(shape[1:])}, not flat: flattened it has {times(*shape[1:])} = {flat}"
    )
    told += ", as linear expects" if flat == wanted else f", but linear expects {wanted}"
    changes = () if flat == wanted else next(iter(_made_with(case, 0, "in_features", flat)), ())
    remedies: list[Remedy] = []
    call = case.node_call
    if call is not None and len(call.args) == 1 and case.call.path == _called_path(call):
        inner = case.source.shown(call.args[0])
        flattened = f"{inner}.flatten(1)" if _is_simple(call.args[0]) else f"({inner}).flatten(1)"
        remedies.append((case.source.replaced(call.args[0], flattened), *changes))
    elif case.made is not None:
        start = case.source.span(case.made)[0]
        inserted = Edit(start, start, f"{_prefix(case)}Flatten(), ")
        remedies.append((inserted, *changes))
    return Cause(told, tuple(remedies))


def _called_path(call: ast.Call) -> str:
    """`self.fc1(x)` → `fc1`; "" for what is no module of `self`."""
    name = ast.unparse(call.func)
    return name.removeprefix("self.") if name.startswith("self.") else ""


def _is_simple(node: ast.expr) -> bool:
    return isinstance(node, (ast.Name, ast.Call, ast.Attribute, ast.Subscript))


def _prefix(case: Case) -> str:
    """How the file writes PyTorch's modules: `nn.`, `torch.nn.` or nothing."""
    made = case.made
    name = ast.unparse(made.func) if made is not None else "nn."
    return name[: name.rfind(".") + 1]


def _made_with(case: Case, place: int, name: str, value: Any) -> Iterator[Remedy]:
    """The module made with another number; a functional call has none to change."""
    if case.made is not None:
        yield (case.source.with_argument(case.made, place, name, str(value)),)


def _skipping(case: Case) -> Iterator[Remedy]:
    """Windows before it whose stride is larger than they are: a stride that skips rows."""
    for call in case.before(("conv2d", "max_pool2d", "avg_pool2d")):
        made = case.made_by(call)
        kernel, stride, place = _window_of(call)
        if made is not None and max(stride) > max(kernel):
            new = str(kernel[0]) if kernel[0] == kernel[1] else str(kernel)
            yield (case.source.with_argument(made, place, "stride", new),)


def _window_of(call: Call) -> tuple[kinds.Pair, kinds.Pair, int]:
    """(kernel, stride, the place of `stride` among what makes the module)."""
    if call.name == "conv2d":
        weight = call.args[1] if len(call.args) > 1 else call.kwargs["weight"]
        stride = call.args[3] if len(call.args) > 3 else call.kwargs.get("stride", 1)
        return pair(weight.shape[2:]), pair(stride), 3
    kernel = call.args[1] if len(call.args) > 1 else call.kwargs["kernel_size"]
    stride = call.args[2] if len(call.args) > 2 else call.kwargs.get("stride")
    functional = call.module is None or not type(call.module).__module__.startswith("torch.nn")
    return pair(kernel), pair(kernel if stride is None else stride), 2 if functional else 1


# Convolution and pooling --------------------------------------------------------------------------


def conv2d(case: Case) -> Cause | None:
    """Another number of channels, or a kernel larger than the maps."""
    shape, weight = case.shape(), case.shape(1, "weight")
    groups = case.given(6, "groups", 1)
    if len(shape) != 4 or len(weight) != 4:
        return _no_images(case, shape)
    if weight[1] * groups != shape[1]:
        return _channels(case, shape, weight[1] * groups)
    window = case.given(4, "padding", 0)
    if isinstance(window, str):
        return None
    stride, dilation = case.given(3, "stride", 1), case.given(5, "dilation", 1)
    layer = kinds.Conv(weight[0], pair(weight[2:]), pair(stride), sides(window), pair(dilation))
    return _no_position(case, layer, shape, 4)


def _channels(case: Case, shape: tuple[int, ...], wanted: int) -> Cause:
    first = case.given(0, "input") is case.notes.image
    many = "s" if shape[1] > 1 else ""
    told = f"its input is {size(shape[1:])}, {shape[1]} channel{many}, but conv expects {wanted}"
    if first and shape[3] == wanted:
        turned = (shape[3], shape[1], shape[2])
        told += f": the channels come last; PyTorch has them first, {size(turned)}"
        return Cause(told, tuple(_turned(case)), f"or give the images so: --input {size(turned)}")
    hint = ""
    if first and {shape[1], wanted} == {1, 3}:
        told += ": " + ("the images are gray" if shape[1] == 1 else "the images have colours")
        hint = f"or give other images: --input {size((wanted, *shape[2:]))}"
    return Cause(told, tuple(_made_with(case, 0, "in_channels", shape[1])), hint)


def _turned(case: Case) -> Iterator[Remedy]:
    """The channels to the front where the images come in."""
    call = case.node_call
    if call is not None and len(call.args) == 1 and isinstance(call.args[0], ast.Name):
        name = case.source.shown(call.args[0])
        yield (case.source.replaced(call.args[0], f"{name}.permute(0, 3, 1, 2)"),)
    elif case.made is not None:
        return


def _no_images(case: Case, shape: tuple[int, ...]) -> Cause | None:
    if len(shape) != 3:
        return None
    told = f"its input is {size(shape)}, without the axis of the images: N x C x H x W is expected"
    return Cause(told)


def pool(case: Case) -> Cause | None:
    """A window larger than the maps, after too many of them."""
    shape, kernel = case.shape(), case.given(1, "kernel_size")
    if len(shape) != 4 or kernel is None:
        return None
    stride = case.given(2, "stride") or kernel
    padding, ceil = case.given(3, "padding", 0), bool(case.given(5, "ceil_mode", False))
    kind = kinds.MaxPool if case.call.name == "max_pool2d" else kinds.AvgPool
    layer = kind(pair(kernel), pair(stride), sides(padding), ceil and kind is kinds.MaxPool)
    return _no_position(case, layer, shape, 2)


def _no_position(
    case: Case, layer: kinds.Conv | kinds.Pool, shape: tuple[int, ...], pad_place: int
) -> Cause | None:
    try:
        resolve_window(layer, shape[1:])
        return None
    except SizeError as error:
        told = str(error).partition("; use ")[0]
    return Cause(told, tuple(_smaller_windows(case, layer, shape, pad_place)))


def _smaller_windows(
    case: Case, layer: kinds.Conv | kinds.Pool, shape: tuple[int, ...], pad_place: int
) -> Iterator[Remedy]:
    """A pool is left out; a kernel gets the pad that keeps the size, or the size of the maps."""
    source, made = case.source, case.made or case.node_call
    if made is None:
        return
    if isinstance(layer, kinds.Pool):
        if case.made is not None:
            yield (source.replaced(made, f"{_prefix(case)}Identity()"),)
        elif made.args:
            yield (source.replaced(made, source.shown(made.args[0])),)
        return
    pads = tuple((k - 1) * d // 2 for k, d in zip(layer.kernel, layer.dilation, strict=True))
    yield (source.with_argument(made, pad_place, "padding", _both(pads)),)
    kernel = tuple(min(k, n) for k, n in zip(layer.kernel, shape[2:], strict=True))
    if case.made is not None:
        yield (source.with_argument(made, 2, "kernel_size", _both(kernel)),)


def _both(numbers: tuple[int, ...]) -> str:
    return str(numbers[0]) if len(set(numbers)) == 1 else str(numbers)


def batch_norm(case: Case) -> Cause | None:
    """Statistics of another number of channels."""
    shape, mean = case.shape(), case.shape(1, "running_mean")
    if len(shape) < 2 or not mean or mean[0] == shape[1]:
        return None
    told = f"its input is {size(shape[1:])}, {shape[1]} channels, but bn expects {mean[0]}"
    return Cause(told, tuple(_made_with(case, 0, "num_features", shape[1])))


# Joins --------------------------------------------------------------------------------------------


def add(case: Case) -> Cause | None:
    """A residual whose branch has another stride or other channels than its shortcut."""
    one, other = case.shape(0, "input"), case.shape(1, "other")
    if len(one) != 4 or len(other) != 4:
        return None
    told = f"{size(one[1:])} and {size(other[1:])} must be alike"
    large, small = (0, 1) if prod(one[2:]) > prod(other[2:]) else (1, 0)
    if one[2:] == other[2:]:
        # The shortcut is what was there first: what fewer calls have led to.
        large, small = _older(case), 1 - _older(case)
    return Cause(told, tuple(_projections(case, (one, other), large, small)))


def _older(case: Case) -> int:
    made = [case.producer(case.given(place, name)) for place, name in ((0, "input"), (1, "other"))]
    places = [case.notes.calls.index(call) if call is not None else -1 for call in made]
    return 0 if places[0] < places[1] else 1


def _projections(
    case: Case, shapes: tuple[tuple[int, ...], tuple[int, ...]], large: int, small: int
) -> Iterator[Remedy]:
    """A 1×1 convolution on the shortcut, made where the branch's last layer is made."""
    operand = _operand(case.node, large)
    made = _made_for(case, case.given(small, ("input", "other")[small]))
    if operand is None or made is None:
        return
    channels, wanted = shapes[large], shapes[small]
    strides = tuple(-(-n // out) for n, out in zip(channels[2:], wanted[2:], strict=True))
    name = ast.unparse(made.func)
    prefix = name[: name.rfind(".") + 1]
    stride = "" if set(strides) == {1} else f", stride={_both(strides)}"
    text = f"self.shortcut = {prefix}Conv2d({channels[1]}, {wanted[1]}, 1{stride})"
    used = f"self.shortcut({case.source.shown(operand)})"
    yield case.source.line_after(made, text), case.source.replaced(operand, used)


def _operand(node: ast.AST | None, place: int) -> ast.expr | None:
    """The first or second operand of a sum, however it is written."""
    if isinstance(node, ast.BinOp):
        return (node.left, node.right)[place]
    if isinstance(node, ast.AugAssign):
        return node.value if place else None
    if isinstance(node, ast.Call) and len(node.args) == 2:
        return node.args[place]
    return None


def _made_for(case: Case, tensor: Any) -> ast.Call | None:
    """The source that made the last module on the way to a tensor."""
    seen = case.producer(tensor)
    while seen is not None:
        place = case.built.made_at.get(id(seen.module))
        if place is not None and place.file == case.built.file and seen.path:
            found = case.source.call_at(place)
            if found is not None and "." in ast.unparse(found.func):
                return found
        read = next(tensors(seen.args), None)
        before = case.producer(read) if read is not None else None
        seen = before if before is not seen else None
    return None


def cat(case: Case) -> Cause | None:
    """Values that agree in another axis than the one they are put together along."""
    parts = [tuple(one.shape) for one in tensors(case.given(0, "tensors"))]
    axis = case.given(1, "dim", 0)
    shown = " and ".join(size(shape) for shape in parts)
    told = f"{shown} along axis {axis}"
    told += ", that of the images; channels are axis 1" if axis == 0 else "; channels are axis 1"
    call = case.node_call
    if call is None or axis == 1:
        return Cause(told)
    return Cause(told, ((case.source.with_argument(call, 1, "dim", "1"),),))


# Shapes that are written as numbers ---------------------------------------------------------------


def view(case: Case) -> Cause | None:
    """A view whose numbers are not those of its input, or that joins images."""
    shape = case.shape()
    call = case.node_call
    if len(shape) < 2:
        return None
    flat = prod(shape[1:])
    told = f"{times(*shape[1:])} = {flat} values an image"
    if case.notes.failed is case.call:
        wanted = [n for n in case.call.args[1:] if isinstance(n, int)]
        told += f", but {case.call.name} asks for {size(wanted)}"
    else:
        told = f"joins the {shape[0]} images of a batch: {told}"
    if call is None or not isinstance(call.func, ast.Attribute):
        return Cause(told)
    name = case.source.shown(call.func.value)
    return Cause(told, ((case.source.replaced(call, f"{name}.flatten(1)"),),))


def flatten(case: Case) -> Cause | None:
    """A flatten from the first axis on, which is that of the images."""
    shape, call = case.shape(), case.node_call
    told = f"joins the {shape[0]} images of a batch: {times(*shape)} = {prod(shape)}"
    if call is None:
        return Cause(told)
    method = ast.unparse(call.func) not in ("torch.flatten", "nn.Flatten")
    place = 0 if method else 1
    return Cause(told, ((case.source.with_argument(call, place, "start_dim", "1"),),))


def getitem(case: Case) -> Cause | None:
    """An index that takes one image out of the batch."""
    if not isinstance(case.node, ast.Subscript):
        return None
    told = f"{case.source.shown(case.node)} takes one image, and the axis of the images is gone"
    return Cause(told, ((case.source.replaced(case.node, case.source.shown(case.node.value)),),))


def squeeze(case: Case) -> Cause | None:
    """A squeeze that may take the axis of the images away."""
    call = case.node_call
    if call is None:
        return None
    return Cause(f"{case.source.shown(call)} takes the axis of the images away")


# torch's name of a function → what may be wrong with a call of it.
CAUSES: dict[str, Callable[[Case], Cause | None]] = {
    "linear": linear,
    "conv2d": conv2d,
    "max_pool2d": pool,
    "avg_pool2d": pool,
    "batch_norm": batch_norm,
    "add": add,
    "cat": cat,
    "view": view,
    "reshape": view,
    "flatten": flatten,
    "__getitem__": getitem,
    "squeeze": squeeze,
}


# What is refused when a module is made ------------------------------------------------------------


def making(error: Exception, made: ast.Call, source: Any) -> Cause | None:
    """Of a convolution that PyTorch refuses to make: its padding or its groups."""
    numbers = [_number(argument(made, *known)) for known in _CONV]
    channels, kernels, kernel, stride, groups = numbers
    told = str(error)
    if "padding='same'" in told and kernel:
        told = f"padding='same' needs stride 1, and the stride is {stride or 'larger'}"
        told += f"; {kernel // 2} on each side gives ⌈n/stride⌉ for kernel {kernel}"
        return Cause(told, ((source.with_argument(made, 4, "padding", str(kernel // 2)),),))
    if "divisible by groups" in told and channels and kernels and groups:
        common = gcd(channels, kernels)
        fitting = max(d for d in range(1, common + 1) if common % d == 0 and d <= groups)
        told = f"{groups} groups do not divide {channels} channels and {kernels} kernels"
        told += f"; the divisors of both divide {common}"
        return Cause(told, ((source.with_argument(made, 6, "groups", str(fitting)),),))
    return None


_CONV = ((0, "in_channels"), (1, "out_channels"), (2, "kernel_size"), (3, "stride"), (6, "groups"))


def _number(node: ast.expr | None) -> int | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, int) else None
