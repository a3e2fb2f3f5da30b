"""Kernels and driver → modules of LLVM IR, checked on the way and shown where LANEWISE_DEBUG asks.

The kernels are dealt out to modules of like size, so that cores can compile them side by side, the
first while the last are still being lowered. The driver, which only calls them, is a module of its
own that LLVM need not take pains with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from lanewise import flags
from lanewise.native import debug, driver
from lanewise.native.driver_jobs import UpdateKernels, clear_partials, job_functions
from lanewise.native.driver_loops import loops
from lanewise.native.driver_together import together
from lanewise.native.kernels.optimizer import adamw, reduce_groups, sgd
from lanewise.native.lower import LoweredKernel, lower
from lanewise.native.machine_code import Module
from lanewise.native.nest import SHARE, Kernel, Loop, Statement
from lanewise.native.optimizers import SGD, STATES, AdamW, Optimizer
from lanewise.native.plan import FLOAT, Choice, Layout, Plan
from lanewise.native.precisions import multiplies_matrices, multiplies_pairs
from lanewise.native.target import Target

MODULES = 8  # of kernels: enough for cores to share, few enough to load in half a millisecond each
#: optimizer → the kernel that updates a range of parameters
UPDATES: dict[type, Callable[[str], Kernel]] = {SGD: sgd, AdamW: adamw}


@dataclass
class Emission:
    """Collects functions and kernels of both directions and of the jobs; `modules` ends it.

    `profile`: where in a worker's arena clock ticks are added, if they are wanted. `told`: the
    direction whose kernels are noted then.
    """

    target: Target
    layout: Layout
    profile: int | None
    told: str = "train"
    ticks: dict[str, list[str]] = field(default_factory=dict)
    called: dict[str, list[str]] = field(default_factory=dict)  # purpose in `told` → kernels
    functions: list[str] = field(default_factory=list)
    kernels: list[Kernel] = field(default_factory=list)
    choices: dict[str, Choice] = field(default_factory=dict)
    job_names: list[str] = field(default_factory=list)
    phases: dict[str, list[bool]] = field(default_factory=dict)

    @property
    def words(self) -> int:
        """How many ticks are counted."""
        return sum(map(len, self.ticks.values())) if self.profile is not None else 0

    @property
    def _partial_bytes(self) -> int:
        return self.layout.summed_floats * FLOAT

    def _addresses(self, plan: Plan) -> driver.Addresses:
        ticks_at = None if self.profile is None else self.profile + 8 * self.words
        return driver.Addresses(plan, self._partial_bytes, ticks_at)

    def direction(self, name: str, plan: Plan) -> None:
        """One direction: its segments and chunks, its kernels, its choices."""
        addresses = self._addresses(plan)
        self.functions += driver.phase_functions(plan, name, addresses, name == "train")
        if name == "forward":
            self.functions += together(plan, addresses)
        self.phases[name] = [phase.wide for phase in plan.phases]
        self.kernels += plan.kernels
        self.choices.update({choice.name: choice for choice in plan.choices})
        self.ticks[name] = [call.purpose for call in plan.calls] if self.profile else []
        if name == self.told:
            self.called = kernels_by_purpose(plan)

    def jobs(self, plan: Plan, optimizer: Optimizer) -> None:
        """What finishes a training step."""
        floats = self.layout.summed_floats
        reduce = reduce_groups("reduce_groups", floats) if floats else None
        kind = type(optimizer)
        updates = UpdateKernels(UPDATES[kind]("update_parameters"), reduce, len(STATES[kind]))
        addresses = driver.Addresses(plan, self._partial_bytes)
        functions, self.job_names = job_functions(plan, updates, floats, addresses)
        self.functions += functions
        if floats:
            self.functions.append(clear_partials(self._partial_bytes))
        self.kernels += [updates.update, *([reduce] if reduce else [])]

    def modules(self, widths: tuple[int, ...]) -> Iterator[Module]:
        """Everything as textual modules; the kernels are lowered as theirs are asked for."""
        ticks_at = None if self.profile is None else self.profile + 8 * self.words
        fixed = loops(self.target, self.phases, len(self.job_names), widths, ticks_at)
        choices = [text for one in self.choices.values() for text in driver.choice_functions(one)]
        if self.profile is not None:
            self.ticks["jobs"] = self.job_names
        kernels = tuple({kernel.name: kernel for kernel in self.kernels}.values())
        debug.kernels(kernels)
        modules = deal(kernels, [*self.functions, *choices, fixed], self.target)
        return (debug.module(module, self.target) for module in modules)


def kernels_by_purpose(plan: Plan) -> dict[str, list[str]]:
    """The names, without their numbers, of the kernels that serve each purpose: calls, then
    jobs."""
    calls = [(call.purpose, call.kernels[1]) for call in plan.calls]
    jobs = [(f"{job.parameter.name.rpartition('.')[0]} gradient", job.kernel) for job in plan.jobs]
    called: dict[str, list[str]] = {}
    for purpose, kernel in [*calls, *jobs]:
        one = kernel.one if isinstance(kernel, Choice) else kernel
        names = called.setdefault(purpose, [])
        name = one.name.rstrip("0123456789").rstrip("_")
        if name not in names:
            names.append(name)
    return called


def deal(kernels: Sequence[Kernel], driver: Sequence[str], target: Target) -> Iterator[Module]:
    """Textual modules: the driver, and the kernels dealt out to others."""
    yield Module(_module([], driver, kernels), quick=True)
    bins: list[list[Kernel]] = [[] for _ in range(min(MODULES, len(kernels)))]
    sizes = [0] * len(bins)
    length = {kernel.name: _statements(kernel.body) for kernel in kernels}
    for kernel in sorted(kernels, key=lambda kernel: -length[kernel.name]):
        smallest = sizes.index(min(sizes))
        bins[smallest].append(kernel)
        sizes[smallest] += length[kernel.name]
    for some in bins:
        yield Module(_module([_lowered(kernel, target) for kernel in some], [], []))


def _statements(body: Iterable[Statement]) -> int:
    """How many there are: what LLVM will spend on a kernel grows with them."""
    return sum(_statements(one.body) if isinstance(one, Loop) else 1 for one in body)


def _lowered(kernel: Kernel, target: Target) -> LoweredKernel:
    if flags.value("LANEWISE_CHECK"):
        from lanewise.native.nest_check import check

        check(kernel)
    one = lower(kernel, multiplies_pairs(target), multiplies_matrices(target))
    debug.kernel(kernel, one)
    return one


def _module(
    kernels: Sequence[LoweredKernel], driver: Sequence[str], outside: Sequence[Kernel]
) -> str:
    declarations = sorted({line for one in kernels for line in one.declarations})
    tables = [table for one in kernels for table in one.tables]
    return "\n".join(
        [
            *tables,
            *declarations,
            *(_declaration(kernel) for kernel in outside),
            *(one.function for one in kernels),
            *driver,
        ]
    )


def _declaration(kernel: Kernel) -> str:
    kinds = ["ptr"] * len(kernel.buffers) + ["i64"] * len(kernel.symbols)
    alone = f"declare void @{kernel.name}({', '.join(kinds)})"
    if not kernel.shares:
        return alone
    return f"{alone}\ndeclare void @{kernel.name}{SHARE}({', '.join([*kinds, 'i64', 'i64'])})"
