"""What shall be reached: the parts that are measured, the figures, and how a row is judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Document = Mapping[str, Any]

VGG_LIKE = (
    "input 3x32x32; 2 x { conv 64 k3 pad1; relu }; maxpool 2;"
    " 2 x { conv 128 k3 pad1; relu }; maxpool 2;"
    " 2 x { conv 256 k3 pad1; relu }; maxpool 2; flatten; linear 10"
)


@dataclass(frozen=True)
class Part:
    """Something that is measured with everybody in turns; `images` of a step or an inference."""

    key: str
    kind: Literal["training", "inference", "threads", "mnist"]
    net: str
    images: int
    name: str  # of the network, for people
    bfloat16: bool = False  # ours in bf16 too

    @property
    def title(self) -> str:
        """A line of a table."""
        images = "1 image" if self.images == 1 else f"{self.images} images"
        return {
            "training": f"{self.name}, step of {self.images}",
            "inference": f"{self.name}, {images}",
            "threads": f"{self.name}, all threads",
            "mnist": "MNIST to 99 %",
        }[self.kind]


TRAINED = (
    ("lenet5", "lenet5", 128, "LeNet-5"),
    ("bn3", "bn3", 128, "3-conv BN net"),
    ("resnet20", "resnet20", 128, "ResNet-20"),
    ("vgg-like", VGG_LIKE, 64, "VGG-like"),
    ("mobilenet", "mobilenet-v2-small", 128, "small MobileNet"),
)
INFERRED = (
    ("lenet5-1", "lenet5", 1, "LeNet-5"),
    ("lenet5-256", "lenet5", 256, "LeNet-5"),
    ("vgg16-1", "vgg16", 1, "VGG-16"),
    ("resnet18-1", "resnet18", 1, "ResNet-18"),
    ("resnet18-16", "resnet18", 16, "ResNet-18"),
    ("resnet50-1", "resnet50", 1, "ResNet-50"),
)
PARTS = (
    *(
        Part(key, "training", net, images, name, bfloat16=key in ("vgg-like", "resnet20"))
        for key, net, images, name in TRAINED
    ),
    *(Part(key, "inference", net, images, name) for key, net, images, name in INFERRED),
    *(
        Part(f"threads-{key}", "threads", net, images, name)
        for key, net, images, name in TRAINED
    ),
    Part("mnist", "mnist", "lenet5", 0, "LeNet-5"),
)  # fmt: skip

Number = Literal["fp32", "bf16", "any"]


@dataclass(frozen=True)
class Target:
    """A row: how many times as fast as the best of these; or so many ms, or seconds, at most."""

    part: str
    names: tuple[str, ...]  # whose best setting is meant
    at_least: float
    aim: float
    number: Number = "fp32"  # of theirs
    ours: str = "fp32"
    aim_ms: float = 0.0  # at most, in place of `aim`


TORCH, RUNTIMES = ("PyTorch",), ("ONNX Runtime", "OpenVINO")
TARGETS = (
    Target("lenet5", TORCH, 5, 6.5, "any"),
    Target("bn3", TORCH, 3, 4, "any"),
    Target("resnet20", TORCH, 3, 4),
    Target("resnet20", TORCH, 1.7, 2.2, "bf16"),
    Target("vgg-like", TORCH, 2.2, 3),
    Target("vgg-like", TORCH, 1.1, 1.5, "bf16"),
    Target("mobilenet", TORCH, 5, 8, "any"),
    Target("vgg-like", TORCH, 1.4, 2, "bf16", "bf16"),
    Target("lenet5-1", RUNTIMES, 4, 0, aim_ms=0.010),
    Target("lenet5-256", RUNTIMES, 2.2, 2.6),
    Target("vgg16-1", RUNTIMES, 1.5, 2),
    Target("vgg16-1", ("ncnn", "MNN"), 1, 1.2),
    Target("resnet18-1", RUNTIMES, 1.4, 1.8),
    Target("resnet18-16", RUNTIMES, 1.6, 2.2),
    Target("resnet50-1", RUNTIMES, 1.1, 1.35),
    *(Target(f"threads-{key}", ("Lanewise",), 1.85, 1.95) for key, *_ in TRAINED),
    Target("mnist", (), 4, 2),
)


def judge(target: Target, parts: Sequence[Document]) -> Iterator[dict[str, Any]]:
    """The row of a target; none where its part was not measured."""
    part = next((one for one in parts if one["key"] == target.part), None)
    if part is not None:
        yield _mnist(target, part) if target.part == "mnist" else _compared(target, part)


def _compared(target: Target, part: Document) -> dict[str, Any]:
    contenders = part["contenders"]
    us = next((one for one in contenders if _is_ours(one, target.ours)), None)
    others = [one for one in contenders if one is not us]
    if part.get("failed"):
        return {"what": part["title"], "beside": _beside(target), **_wanted(target),
                "verdict": f"not measured: {part['failed']}"}  # fmt: skip
    named = [one for one in others if _is_meant(one, target)]
    row = {"what": part["title"], "beside": _beside(target), **_wanted(target)}
    if us is None or not named:
        missing = f"Lanewise has no {target.ours} here" if us is None else "nobody to compare with"
        return {**row, "verdict": f"not measured: {missing}"}
    best = min(named, key=_time)
    ratio = _time(best) / _time(us)
    strangers = [one for one in others if one["name"] != "Lanewise"]
    first = min(strangers, key=_time, default=None)
    return {
        **row,
        "ours_ms": _time(us),
        "best": _told(best),
        "best_ms": _time(best),
        "ratio": round(ratio, 3),
        "verdict": _verdict(target, ratio, _time(us)),
        "best_of_all": _told(first) if first else "",
        "ratio_to_best_of_all": round(_time(first) / _time(us), 3) if first else None,
    }


def _wanted(target: Target) -> dict[str, Any]:
    aim = f"≤ {1e3 * target.aim_ms:.0f} µs" if target.aim_ms else f"{target.aim:g} ×"
    return {"at_least": f"{target.at_least:g} ×", "aim": aim}


def _verdict(target: Target, ratio: float, ms: float) -> str:
    reached = ratio >= target.at_least
    aimed = ms <= target.aim_ms if target.aim_ms else ratio >= target.aim
    return "aim" if reached and aimed else "yes" if reached else "no"


def _is_ours(one: Document, setting: str) -> bool:
    return bool(one["name"] == "Lanewise" and one["setting"].split(",")[0] == setting)


def _is_meant(one: Document, target: Target) -> bool:
    bf16 = "bf16" in one["setting"]
    return one["name"] in target.names and (
        target.number == "any" or bf16 == (target.number == "bf16")
    )


def _beside(target: Target) -> str:
    names = {"Lanewise": "one thread"}
    numbers = {"fp32": "", "bf16": " bf16", "any": " (any number)"}
    return " and ".join(names.get(name, name) for name in target.names) + numbers[target.number]


def _told(one: Document) -> str:
    return f"{one['name']} {one['setting']}"


def _time(one: Document) -> float:
    return float(one["median_ms"])


def _mnist(target: Target, part: Document) -> dict[str, Any]:
    """Seconds at most, and nobody to be beside."""
    warm = part["summary"]["warm"]
    seconds, accurate = warm["seconds"], warm["lowest_accuracy"] >= 0.99
    reached = "aim" if seconds <= target.aim else "yes" if seconds <= target.at_least else "no"
    return {
        "what": part["title"],
        "beside": "warm caches",
        "at_least": f"{target.at_least:g} s",
        "aim": f"{target.aim:g} s",
        "ours_ms": 1e3 * seconds,
        "best": f"{100 * warm['lowest_accuracy']:.2f} % at least",
        "verdict": reached if accurate else "no: not 99 %",
    }
