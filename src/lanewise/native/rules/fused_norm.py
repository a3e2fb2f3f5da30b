"""When a convolution takes on the work of the normalisations beside it.

Forward, it tells the statistics of its result. By Winograd's algorithm it also normalises what it
reads where it is the first reader (`Planner.unwritten`). Backward, that works out the
normalisation's gradient while it reads it (`Planner.unpulled`), and adds up what the normalisation
before it needs.
"""

from __future__ import annotations

from collections.abc import Callable

from lanewise.native.fuse import Operation
from lanewise.native.kernels import batch_norm
from lanewise.native.kernels.fused_norm import (
    AsItStands,
    Moments,
    Normalise,
    Pull,
    Reads,
    SumGradients,
    Tells,
)
from lanewise.native.plan import Place, Slot
from lanewise.native.planner import Planner
from lanewise.native.rules import winograd
from lanewise.native.rules.norm_places import (
    VECTOR,
    lane_weight,
    layer_of,
    moments_of,
    partials_of,
    rectifier_of,
    told_by,
)
from lanewise.native.rules.winograd import Fused
from lanewise.net.layers import BatchNorm, Conv
from lanewise.size.windows import resolve_window

#: bytes of a slice's value from which it is written past the caches
AWAY = 256 << 10


def joins(plan: Planner) -> bool:
    """Whether anything is joined: in training, and not where maps are rounded to bf16 between."""
    return plan.training and plan.precision == "fp32"


def goes_away(operation: Operation) -> bool:
    """Whether a slice's value, to be read in another phase, is written past the caches: it would
    have left them by then, and a line that is written whole need not be read first."""
    return operation.elements * VECTOR >= AWAY


def reads_unwritten(plan: Planner, norm: Operation) -> bool:
    """Whether the first reader of a normalised value normalises it for itself; noted."""
    made = made_by_reader(plan, norm)
    if made:
        plan.unwritten[norm.name] = norm
    return made


def made_by_reader(plan: Planner, norm: Operation) -> bool:
    """The same, not noted."""
    reader = next(iter(plan.readers.get(norm.name, [])), None)
    if (
        not joins(plan)
        or reader is None
        or not isinstance(reader.layer, Conv)
        or reader.inputs != (norm.name,)
    ):
        return False
    return len(norm.shape) == 3 and winograd.chosen(plan, reader, forward=True) is not None


def as_it_stands(place: Place) -> Fused[Reads]:
    return Fused(AsItStands(), [place])


def forward_source(plan: Planner, operation: Operation) -> Fused[Reads]:
    """What a convolution reads."""
    norm = plan.unwritten.pop(operation.inputs[0], None)
    if norm is None:
        return as_it_stands(plan.value(operation.inputs[0]))
    return _normalised(plan, norm, keep=not made_again(plan, norm))


def gradient_source(plan: Planner, operation: Operation) -> Fused[Reads] | None:
    """The same, for the gradient of the weights; None: the value as it stands."""
    source = plan.by_name[operation.inputs[0]]
    if isinstance(source.layer, BatchNorm) and made_again(plan, source) and joins(plan):
        return _normalised(plan, source, keep=False)
    return None


def made_again(plan: Planner, norm: Operation) -> bool:
    """Whether a normalised value is made again for its only reader's gradient, from the value
    before it, which the gradient of the normalisation needs anyway."""
    return plan.uses[norm.name] == 1 and len(norm.inputs) == 1 and len(norm.shape) == 3


def _normalised(plan: Planner, norm: Operation, keep: bool) -> Fused[Reads]:
    thin = [plan.thin.get(name, (name, None)) for name in norm.inputs[1:]]
    others = [plan.value(name) for name, _ in thin]
    kept = [plan.value(norm.name)] * keep
    places = [plan.value(norm.inputs[0]), moments_of(plan, norm), *others, *kept]
    away = keep and goes_away(norm)
    way = next((way for _, way in thin), None)
    return Fused(Normalise(rectifier_of(norm), bool(others), keep, away, way), places)


def statistics(plan: Planner, operation: Operation) -> Fused[Tells | None]:
    """What a convolution tells of its result: the statistics of the normalisation that alone reads
    it; noted."""
    readers = plan.readers.get(operation.name, [])
    if plan.uses[operation.name] != 1 or not joins(plan):
        return Fused(None)
    norm = readers[0]
    if not isinstance(norm.layer, BatchNorm) or norm.inputs[0] != operation.name:
        return Fused(None)
    if norm.shape != operation.shape:
        return Fused(None)
    plan.told.add(norm.name)
    return Fused(Moments(), [told_by(plan, norm, "statistics", batch_norm.TOLD)])


def pulls_later(plan: Planner, norm: Operation, pull: Slot) -> bool:
    """Whether the convolution before a normalisation works out its own gradient while it reads;
    noted. Nothing may come between, which could add to the gradient that is read. It pays where the
    result's sums are told in the same pass: where a normalisation is what the convolution reads."""
    operation = plan.by_name[norm.inputs[0]]
    place = plan.operations.index(norm)
    alone = plan.uses[operation.name] == 1 and plan.operations[place - 1] is operation
    if not joins(plan) or not alone or not isinstance(operation.layer, Conv) or operation.relu:
        return False
    source = operation.inputs[0]
    if norm.shape != operation.shape or not plan.wants_gradient(source):
        return False
    if not isinstance(plan.by_name[source].layer, BatchNorm):
        return False
    if source in norm.inputs or not winograd.chosen(plan, operation, forward=False):
        return False
    plan.unpulled[operation.name] = norm, pull
    plan.has_gradient(operation.name)
    return True


def error_source(plan: Planner, operation: Operation, keep: bool = True) -> Fused[Reads]:
    """What the gradient of a convolution's input is worked out from; `keep`: others read it."""
    if operation.name not in plan.unpulled:
        return as_it_stands(plan.gradient(operation.name))
    norm, pull = plan.unpulled.pop(operation.name)
    places = [
        plan.value(operation.name),
        plan.gradient(norm.name),
        moments_of(plan, norm),
        pull,
        lane_weight(),
        *[plan.gradient(operation.name)] * keep,
    ]
    return Fused(Pull(norm.rectifier, keep, keep and goes_away(norm)), places)


def gradient_sums(
    plan: Planner, operation: Operation, by_pixels: Callable[[Operation], bool] | None = None
) -> Fused[Tells | None]:
    """What a convolution tells of its input's gradient, which is complete with it: the sums of the
    normalisation that made the input; noted. `by_pixels`: whether that is made together with the
    convolution before it, some pixels at a time (`rules/expanded.py`)."""
    norm = plan.by_name[operation.inputs[0]]
    if (
        not joins(plan)
        or not isinstance(norm.layer, BatchNorm)
        or plan.readers[norm.name][0] is not operation
    ):
        return Fused(None)
    before = plan.by_name[norm.inputs[0]]
    if len(norm.shape) != 3 or (by_pixels or _is_1x1)(before):
        return Fused(None)
    plan.told_gradients.add(norm.name)
    affine = layer_of(norm).affine
    places: list[Place] = [
        plan.value(norm.inputs[0]),
        moments_of(plan, norm),
        told_by(plan, norm, "gradient sums", 2),
        *partials_of(plan, norm),
    ]
    return Fused(SumGradients(norm.rectifier, affine), places)


def _is_1x1(operation: Operation) -> bool:
    """Whether it may be such a convolution."""
    layer = operation.layer
    if not isinstance(layer, Conv):
        return False
    return resolve_window(layer, operation.input_shapes[0]).kernel == (1, 1)
