"""What of a tensor belongs to one image: told from two runs of the same module, on different
numbers of images.

A tensor may keep its images on any axis, joined with another (`x.view(B * S, E)`) or not at all.
One run cannot tell an axis of two images from one of two heads; beside a run on three it shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lanewise.bridge.importing.record import Call, Recording
from lanewise.size.shapes import Shape

# Two images, so that what mixes images is seen; and for what that does not tell, three.
IMAGES = 2
MORE_IMAGES = 3


@dataclass(frozen=True)
class Part:
    """A result's shape for one image. `once`: it is there once, for however many images; `known`:
    a second run told so, else the axis of the images is guessed."""

    shape: Shape
    once: bool = False
    known: bool = True


def part(shape: Shape, again: Shape | None = None) -> Part:
    """The part of one image in a tensor of `shape` for `IMAGES`, of `again` for `MORE_IMAGES`.

    The axis that grows does so by an image's share of it, which is exact where other values stand
    on that axis too; a share of 1 is the axis of the images itself and is left out.
    """
    if again is None or len(again) != len(shape):
        return _guessed(shape)
    grown = [axis for axis, (few, more) in enumerate(zip(shape, again, strict=True)) if few != more]
    if not grown:
        return Part(shape, once=True)
    axis = grown[0]
    share = again[axis] - shape[axis]
    if len(grown) > 1 or share < 0:
        return _guessed(shape)
    return Part((*shape[:axis], *((share,) if share > 1 else ()), *shape[axis + 1 :]))


def _guessed(shape: Shape) -> Part:
    """Without the axis of the images, if it is there: first, or behind that of a sequence."""
    if shape[:1] != (IMAGES,) and shape[1:2] == (IMAGES,):
        return Part(shape[:1] + shape[2:], known=False)
    return Part(shape[1:] if shape[:1] == (IMAGES,) else shape, known=False)


def parts(call: Call, again: Call | None) -> list[Part]:
    """The part of one image in each result of a call."""
    others = again.shapes if again else (None,) * len(call.shapes)
    return [part(shape, other) for shape, other in zip(call.shapes, others, strict=True)]


def keeps_images(call: Call, again: Call | None) -> bool:
    """Whether the first axis of every result is that of the images."""
    grown = again is None or all(shape[:1] == (MORE_IMAGES,) for shape in again.shapes)
    return grown and all(shape[:1] == (IMAGES,) for shape in call.shapes)


def macs(call: Call, again: Call | None) -> int:
    """The MACs of one image; those of a step that the images do not change, once."""
    if again is None or again.macs < call.macs:
        return call.macs // IMAGES
    if again.macs == call.macs:
        return call.macs
    grown = again.macs - call.macs
    # More than in proportion: images that look at each other.
    return grown if grown * IMAGES <= call.macs else call.macs // IMAGES


def paired(notes: Recording, again: Recording) -> dict[int, Call] | None:
    """The `id` of each call → the same call on more images; None where the runs go different
    ways."""
    if again.error is not None or [*map(_way, notes.calls)] != [*map(_way, again.calls)]:
        return None
    return {id(call): other for call, other in zip(notes.calls, again.calls, strict=True)}


def _way(call: Call) -> tuple[str, str, list[int]]:
    return call.name, call.path, [len(shape) for shape in call.shapes]


def other_way(again: Recording) -> str:
    """The remark where the second run cannot be laid beside the first."""
    took = "fails" if again.error is not None else "takes another way"
    return (
        f"It {took} on {MORE_IMAGES} images, so sizes per image are told from {IMAGES} alone: what "
        f"joins the images with another axis is counted for all {IMAGES}."
    )


def mixed(calls: list[Call]) -> Iterator[str]:
    """The remark on steps that do not grow in proportion to the images."""
    if calls:
        places = dict.fromkeys(
            f"{call.name} (line {call.place.line})" if call.place else call.name for call in calls
        )
        yield (
            f"Not in proportion to the number of images, and sized as for {IMAGES}: "
            f"{', '.join([*places][:3])}" + (" …" if len(places) > 3 else ".")
        )
