"""Which CPU the code is for: its name, its features, its vector registers.

Three families are known, each with its own tiles: `avx512`, `avx2` and `neon`. The host's own
family is found from the feature bits that LLVM reads from the CPU; a family can also be asked for
by name (`LANEWISE_TARGET=avx2`, or `target="avx2"`), which is how AVX2 code is tested on a larger
machine and how NEON code is compiled where no ARM core is at hand. Asking to *run* a family that
the CPU lacks is an `EngineError` that names the missing feature, never an illegal instruction.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache

from lanewise import flags
from lanewise.errors import EngineError
from lanewise.native import known

#: images side by side in a vector, on every machine: LLVM splits what is wider than its registers
LANES = 16


@dataclass(frozen=True)
class Target:
    """A machine to compile for, in the words LLVM and the tile choosers need.

    `vector_registers` registers hold `register_lanes` float32 each. `fma_per_cycle` is how many
    multiply–adds of one register a core starts each cycle (for peaks and tile sizes).
    `native` tells whether the code can run in this process.
    """

    name: str
    triple: str
    cpu: str
    features: str
    vector_registers: int
    register_lanes: int
    fma_per_cycle: int
    native: bool

    def has(self, feature: str) -> bool:
        """Whether the CPU feature (LLVM's word, e.g. "avx512bf16") is in the feature string."""
        return f"+{feature}" in self.features.split(",")


@dataclass(frozen=True)
class Family:
    """What is common to every CPU of one vector instruction set."""

    architecture: str
    required: tuple[str, ...]
    vector_registers: int
    register_lanes: int
    generic_triple: str
    generic_cpu: str
    generic_features: str


# Required features are what the generated code may use, not only what names the family: LLVM
# also reaches for the bit-manipulation instructions that every such CPU is expected to have.
_AVX2 = ("avx2", "fma", "f16c", "bmi", "bmi2", "lzcnt", "movbe")
_X86_TRIPLE = "x86_64-unknown-linux-gnu"
FAMILIES = {
    "avx512": Family(
        architecture="x86_64",
        required=("avx512f", "avx512bw", "avx512vl", "avx512dq", *_AVX2),
        vector_registers=32,
        register_lanes=16,
        generic_triple=_X86_TRIPLE,
        generic_cpu="skylake-avx512",
        generic_features="+avx512f,+avx512bw,+avx512vl,+avx512dq",
    ),
    "avx2": Family(
        architecture="x86_64",
        required=_AVX2,
        vector_registers=16,
        register_lanes=8,
        generic_triple=_X86_TRIPLE,
        generic_cpu="haswell",
        generic_features="+avx2,+fma,+f16c,+bmi2",
    ),
    "neon": Family(
        architecture="aarch64",
        required=("neon",),
        vector_registers=32,
        register_lanes=4,
        generic_triple="aarch64-unknown-linux-gnu",
        generic_cpu="neoverse-n1",
        generic_features="+neon",
    ),
}
BEST_FIRST = ("avx512", "avx2", "neon")

# Multiply–adds of a full register per cycle, where it is not 2 (prefixes of LLVM's CPU names).
# Sources: Agner Fog's instruction tables, Arm's and AMD's software optimisation guides.
_FMA_PER_CYCLE = {
    "avx512": {"znver4": 1, "cannonlake": 1, "icelake-client": 1, "tigerlake": 1, "rocketlake": 1},
    "avx2": {"znver1": 1},
    "neon": {"apple": 4, "neoverse-v": 4, "cortex-x": 4},
}


@dataclass(frozen=True)
class Host:
    """The CPU of this process as LLVM sees it."""

    triple: str
    cpu: str
    features: Mapping[str, bool]

    @property
    def architecture(self) -> str:
        """LLVM's word for the instruction set."""
        return architecture(self.triple)


def architecture(triple: str) -> str:
    """The instruction set a triple begins with; of several spellings, one."""
    word = triple.split("-", 1)[0]
    return {"arm64": "aarch64", "amd64": "x86_64"}.get(word, word)


@lru_cache(maxsize=1)
def read_host() -> Host:
    """What LLVM says of this CPU. Takes under a millisecond once llvmlite is loaded; where it is
    not, what it said before is enough."""
    told = None if "llvmlite.binding" in sys.modules else known.recall("host")
    if told:
        return Host(**told)
    found = _ask_llvm()
    if known.recall("host") is None:
        known.remember("host", asdict(found))
    return found


def _ask_llvm() -> Host:
    import llvmlite.binding as llvm

    triple = llvm.get_process_triple()
    if architecture(triple) == "aarch64":
        features = {"neon": True, **_read_features()}  # part of every 64-bit ARM
    else:
        features = _read_features()
    return Host(triple, llvm.get_host_cpu_name(), features)


def _read_features() -> dict[str, bool]:
    import llvmlite.binding as llvm

    try:
        return dict(llvm.get_host_cpu_features())
    except RuntimeError:  # LLVM knows no way to ask on this platform
        return {}


def find_target(name: str = "host") -> Target:
    """The machine to compile for.

    `"host"` is the best family this CPU has; the flag LANEWISE_TARGET replaces it. A family's
    name asks for that one: "avx2" on an AVX-512 machine gives code for a plain AVX2 machine, and
    "neon" on x86 gives a target that can be compiled for but not run (`native` is False).

    Raises `EngineError` for an unknown name, a CPU that lacks a needed feature (named), or a CPU
    of no known family.
    """
    name = _asked(name)
    host = read_host()
    if name == "host":
        return _best(host)
    if name not in FAMILIES:
        known = ", ".join(BEST_FIRST)
        raise EngineError(f"target {name!r} is not known: use host, or one of {known}.")
    family = FAMILIES[name]
    if family.architecture != host.architecture:
        return _foreign(name, host)
    lacking = missing(family, host)
    if lacking:
        raise EngineError(
            f"target {name!r} needs the CPU feature {lacking[0]}, which this CPU ({host.cpu}) "
            'does not have: use target "host" (LANEWISE_TARGET=host).'
        )
    return _generic(name, host) if name == "avx2" else _exact(name, host)


def _asked(name: str) -> str:
    """The flag stands in for the default only; a family asked for by name is kept."""
    return flags.value("LANEWISE_TARGET") if name == "host" else name


def missing(family: Family, host: Host) -> tuple[str, ...]:
    """The features the family needs and the host lacks, in the order of importance."""
    return tuple(word for word in family.required if not host.features.get(word, False))


def _best(host: Host) -> Target:
    for name in BEST_FIRST:
        family = FAMILIES[name]
        if family.architecture != host.architecture or missing(family, host):
            continue
        # A CPU with part of AVX-512 must not get the 512-bit code of its own feature list.
        partial = name == "avx2" and any(host.features[f] for f in host.features if "avx512" in f)
        return _generic(name, host) if partial else _exact(name, host)
    raise EngineError(
        f"this CPU ({host.cpu}, {host.architecture}) has none of AVX-512, AVX2 with FMA, or NEON, "
        "one of which the engine needs: use a machine that has one."
    )


def _exact(name: str, host: Host) -> Target:
    """The host itself: its own scheduling model and every feature it has.

    LLVM reads the list in order, and a feature brings along what it is built on. The absent ones
    stand last, so that none of them comes in that way.
    """
    present = sorted(word for word, on in host.features.items() if on)
    absent = sorted(word for word, on in host.features.items() if not on)
    features = ",".join([f"+{word}" for word in present] + [f"-{word}" for word in absent])
    return _target(name, host.triple, host.cpu, features, native=True)


def _generic(name: str, host: Host) -> Target:
    """The plainest machine of a family, on the host's operating system."""
    family = FAMILIES[name]
    return _target(name, host.triple, family.generic_cpu, family.generic_features, native=True)


def _foreign(name: str, host: Host) -> Target:
    """A family of another architecture: it compiles here and runs elsewhere."""
    family = FAMILIES[name]
    return _target(
        name, family.generic_triple, family.generic_cpu, family.generic_features, native=False
    )


def _target(name: str, triple: str, cpu: str, features: str, native: bool) -> Target:
    family = FAMILIES[name]
    known = _FMA_PER_CYCLE[name].items()
    rate = next((rate for prefix, rate in known if cpu.startswith(prefix)), 2)
    return Target(
        name=name,
        triple=triple,
        cpu=cpu,
        features=features,
        vector_registers=family.vector_registers,
        register_lanes=family.register_lanes,
        fma_per_cycle=rate,
        native=native,
    )
