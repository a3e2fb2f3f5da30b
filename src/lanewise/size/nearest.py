"""Why no numbers can stand for the `?`, and what comes nearest.

The wants are taken one after the other, in the order of their layers: the first with which there is
no solution is the one to speak of. Where one number stands for two (`pad ?` for both ends), it is
also tried whether two would do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from lanewise.errors import SizeError
from lanewise.net.graph import Graph, Want
from lanewise.net.unknown import Unknown
from lanewise.net.values import WANTED
from lanewise.size.choices import window_unknowns
from lanewise.size.found import found_text, looked_for
from lanewise.size.shapes import infer_shapes
from lanewise.size.solve import Search, Solution, bounds_of
from lanewise.size.windows import show_shape

# So many of the nearest sizes are told, and so many steps away is near.
_TOLD = 3
_NEAR = 32
# Steps of one search here: there are many.
_STEPS = 4_000


def why_none(graph: Graph) -> SizeError:
    """The error for a network with `?` and without a solution."""
    want = next((one for one in _one_more(graph) if not _possible(one)), None)
    if want is None:
        return SizeError(f"{graph.origin}: no solution; change a want or the layers before it")
    if not want.wants:
        node = graph.node(next(iter(graph.unknowns)))
        return SizeError(
            f"{graph.place(node)}: no number can stand for its `?` so that every layer behind it "
            "has an output; write smaller strides and kernels, or give a larger input"
        )
    return SizeError(_told(graph, want))


def _one_more(graph: Graph) -> Iterator[Graph]:
    """The network with none of its wants, with the first, the first two …"""
    for number in range(len(graph.wants) + 1):
        yield replace(graph, wants=graph.wants[:number])


def _told(whole: Graph, graph: Graph) -> str:
    *before, want = graph.wants
    shown = WANTED.show(want.shape)
    place = graph.place(want)
    contradicts = ""
    if before and _first(replace(graph, wants=(want,))):
        others = " and ".join(f"want {WANTED.show(one.shape)} of {one.name}" for one in before)
        contradicts = f" together with {others}"
    apart = _apart(whole)
    if apart:
        return f"{place}: no solution for want {shown}{contradicts}; {apart}"
    near = list(_nearest(_until(graph, want), want))
    if len(near) == 1 and not _upstream(graph, want):
        return (
            f"{place}: want {shown}, but whatever stands for `?` the output is {near[0][0]}; "
            "change one of the two"
        )
    if not near:
        return (
            f"{place}: no solution for want {shown}{contradicts}, nor for a size near it; "
            "change it or the layers before it"
        )
    told = ", ".join(f"{text} with {numbers}" if numbers else text for text, numbers in near)
    bounds = "; ".join(looked_for(whole, bounds_of(whole)))
    looked = f" (looked for: {bounds})" if bounds else ""
    return f"{place}: no solution for want {shown}{contradicts}; nearest: {told}{looked}"


def _upstream(graph: Graph, want: Want) -> bool:
    """Whether a layer with `?` stands before what is wanted."""
    names = {node.name for node in _until(graph, want).nodes}
    return any(name in names for name in graph.unknowns)


def _until(graph: Graph, want: Want) -> Graph:
    """The part of the network that the wanted output hangs on."""
    needed = {want.name}
    kept = []
    for node in reversed(graph.nodes):
        if node.name in needed:
            needed |= set(node.inputs)
            kept.append(node)
    names = {node.name for node in kept}
    wants = tuple(one for one in graph.wants if one.name in names and one is not want)
    return replace(graph, nodes=tuple(reversed(kept)), wants=wants)


def _nearest(graph: Graph, want: Want) -> Iterator[tuple[str, str]]:
    """(shape, the numbers that give it) of the outputs nearest to what is wanted."""
    told: set[str] = set()
    for shape in _around(want.shape):
        wanted = replace(graph, wants=(*graph.wants, replace(want, shape=shape)))
        solution = _first(wanted)
        if solution is None:
            continue
        shown = _output(solution, want.name)
        if shown not in told:
            told.add(shown)
            yield shown, found_text(wanted, solution)
        if len(told) == _TOLD:
            return


def _around(shape: tuple[int | None, ...]) -> Iterator[tuple[int | None, ...]]:
    """Other shapes, the nearest first: both sides alike, then each alone, at last any."""
    if len(shape) == 1:
        for step in range(1, _NEAR):
            yield from ((one,) for one in _beside(shape[0], step))
        yield (None,)
        yield None, None, None
        return
    channels, height, width = shape
    for step in range(1, _NEAR):
        for more in (step, -step):
            yield channels, _moved(height, more), _moved(width, more)
        if step <= 4:
            for more in (step, -step):
                yield channels, _moved(height, more), width
                yield channels, height, _moved(width, more)
    yield None, height, width
    yield channels, None, None
    yield None, None, None
    yield (None,)


def _beside(number: int | None, step: int) -> Iterator[int | None]:
    for more in (step, -step):
        yield _moved(number, more)


def _moved(number: int | None, more: int) -> int | None:
    return None if number is None else max(1, number + more)


def _possible(graph: Graph) -> bool:
    """Whether there is a solution, or too many possibilities to tell."""
    try:
        return Search(graph, bounds_of(graph), strict=False).count > 0
    except SizeError:
        return True


def _first(graph: Graph) -> Solution | None:
    """The most usual solution, one of them where they are infinitely many; None also where too many
    possibilities hide it."""
    try:
        search = Search(graph, bounds_of(graph), strict=False, steps=_STEPS)
    except SizeError:
        return None
    for pick in islice(search.best(), 1):
        return search.solution(pick)
    return None


def _output(solution: Solution, name: str) -> str:
    return show_shape(infer_shapes(replace(solution.graph, wants=()))[name])


def _apart(graph: Graph) -> str:
    """What is told where two numbers do that one cannot be: `pad ?:?`, `k ?x?`, or ""."""
    for how, ends in (("?:?", True), ("?x?", False)):
        layers = {name: _untied(graph.node(name).layer, ends) for name in graph.unknowns}
        changed = {name for name, layer in layers.items() if layer != graph.node(name).layer}
        if not changed:
            continue
        nodes = tuple(
            replace(node, layer=layers.get(node.name, node.layer)) for node in graph.nodes
        )
        untied = replace(graph, nodes=nodes)
        solution = _first(untied)
        if solution is not None:
            what = "pad ?:?` (the two ends apart)" if ends else f"{how}` (height and width apart)"
            return f"with `{what} there is one: {found_text(untied, solution)}"
    return ""


def _untied(layer: Any, ends: bool) -> Any:
    """The layer with a `?` of its own for each end, or for each axis."""
    fields = {one.field_name for one in window_unknowns(layer)}
    changes: dict[str, Any] = {}
    for name in fields:
        value = getattr(layer, name)
        if name == "pad" and ends:
            changes[name] = tuple(
                (Unknown("pad", 0), Unknown("pad", 1)) if _tied(axis) else axis for axis in value
            )
        elif not ends and name != "pad" and _tied(value):
            changes[name] = (Unknown(name, 0), Unknown(name, 1))
        elif not ends and name == "pad" and value[0] == value[1] and _tied(value[0]):
            changes[name] = ((Unknown("pad", 0),) * 2, (Unknown("pad", 2),) * 2)
    return replace(layer, **changes)


def _tied(pair: Any) -> bool:
    return isinstance(pair[0], Unknown) and pair[0] == pair[1]
