"""`lanewise size NET --time`: how long each layer takes on this machine, predicted and measured."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from lanewise.cli.terminal import print_json, width
from lanewise.net.graph import Graph
from lanewise.net.load import name_of
from lanewise.size.report import size
from lanewise.size.table import aligned

if TYPE_CHECKING:
    from lanewise.native.forecast import Forecast, Machine
    from lanewise.native.profile import Profile

# Images of a step; for nets of more multiply–adds than MANY_MACS, FEW for each thread.
BATCH, FEW, MANY_MACS = 128, 16, 200_000_000


def batch_for(graph: Graph, threads: int) -> int:
    """How many images a step takes where nobody says."""
    return BATCH if size(graph).totals.macs < MANY_MACS else FEW * threads


def show_times(graph: Graph, args: Namespace) -> int:
    """Prints a training step's forecast, beside what is measured if that is asked for."""
    from lanewise.native.forecast import forecast, this_machine
    from lanewise.native.profile import profile_net

    machine = this_machine()
    batch = args.batch or batch_for(graph, machine.threads)
    layers = forecast(graph, batch, machine)
    measured = profile_net(graph, batch, machine.threads) if args.measure else None
    name = graph.title or name_of(graph.origin)
    if args.json:
        print_json(as_json(name, batch, machine, layers, measured))
    else:
        print("\n".join(_report(name, batch, machine, layers, measured)))
    return 0


def as_json(
    name: str,
    batch: int,
    machine: Machine,
    layers: tuple[Forecast, ...],
    measured: Profile | None,
) -> dict[str, Any]:
    """The document of `--time --json`; `measured_ms` is null where nothing was measured."""
    forward, backward = _measured(layers, measured)
    return {
        "name": name,
        "batch": batch,
        "cpu": machine.cpu,
        "threads": machine.threads,
        "peak_gflops": machine.gflops,
        "memory_gigabytes_per_second": machine.memory_rate,
        "cache_gigabytes_per_second": machine.cache_rate,
        "layers": [
            {
                "name": layer.name,
                "kinds": list(layer.kinds),
                "bound": layer.bound,
                "forward": {"predicted_ms": round(layer.forward_ms, 6), "measured_ms": there},
                "backward": {"predicted_ms": round(layer.backward_ms, 6), "measured_ms": back},
            }
            for layer, there, back in zip(layers, forward, backward, strict=True)
        ],
        "step": {
            "predicted_ms": round(_predicted(layers), 6),
            "measured_ms": round(measured.step_ms, 6) if measured else None,
        },
    }


def _measured(
    layers: tuple[Forecast, ...], measured: Profile | None
) -> tuple[list[float | None], list[float | None]]:
    """(forward, backward) milliseconds of each layer."""
    if measured is None:
        return [None] * len(layers), [None] * len(layers)
    return (
        [round(layer.forward.ms, 6) for layer in measured.layers],
        [round(layer.backward.ms, 6) for layer in measured.layers],
    )


def _predicted(layers: tuple[Forecast, ...]) -> float:
    return sum(layer.forward_ms + layer.backward_ms for layer in layers)


def _report(
    name: str,
    batch: int,
    machine: Machine,
    layers: tuple[Forecast, ...],
    measured: Profile | None,
) -> list[str]:
    threads = "1 thread" if machine.threads == 1 else f"{machine.threads} threads"
    return [
        f"{name}: one training step, batch {batch}",
        f"{threads} of {machine.cpu}: {machine.gflops:.0f} GFLOP/s, GB/s: "
        f"memory {machine.memory_rate:.0f}, cache {machine.cache_rate:.0f}",
        "",
        *_table(layers, measured, width()),
        "",
        *_summary(batch, layers, measured),
    ]


def _table(layers: tuple[Forecast, ...], measured: Profile | None, columns: int) -> list[str]:
    """With as much as fits: what layers wait for leaves first, then what they are."""
    rows, count = _rows(layers, measured)
    for kept in ((0, 1, 2), (0, 1), (0,)):
        chosen = [[*(row[i] for i in kept), *row[3:]] for row in rows]
        lines = aligned(chosen, [False] * len(kept) + [True] * count)
        if max(map(len, lines)) <= columns:
            break
    return lines


def _rows(layers: tuple[Forecast, ...], measured: Profile | None) -> tuple[list[list[str]], int]:
    """The cells, and how many of each row are times."""
    forward, backward = _measured(layers, measured)
    titles = ["forward ms", "backward ms"]
    if measured:
        titles = ["forward ms", "measured", "backward ms", "measured"]
    rows = [["layer", "", "waits for", *titles]]
    for layer, there, back in zip(layers, forward, backward, strict=True):
        times = [layer.forward_ms, layer.backward_ms]
        if measured:
            times = [layer.forward_ms, there or 0.0, layer.backward_ms, back or 0.0]
        joined = " + ".join(layer.kinds)
        cells = [layer.name, "" if joined == layer.name else joined, layer.bound]
        rows.append([*cells, *map(_ms, times)])
    return rows, len(titles)


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.3f}" if milliseconds else ""


def _summary(batch: int, layers: tuple[Forecast, ...], measured: Profile | None) -> list[str]:
    predicted = _predicted(layers)
    line = f"step {predicted:.2f} ms, {1e3 * batch / predicted:,.0f} images/s predicted"
    if measured is None:
        return [line, "Add --measure to compile the network and see what it takes."]
    told = f"step {measured.step_ms:.2f} ms, {measured.images_per_second:,.0f} images/s measured"
    return [line, told]
