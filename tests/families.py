"""Every family of the zoo, built so small that a test can check and train it."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lanewise import flags

#: family → settings that make it small; images are 32 pixels wide unless the net needs more
SMALL: dict[str, str] = {
    "alexnet": "alexnet width=0.125 size=64 classes=10",
    "alexnet-2012": "alexnet-2012 width=0.125 size=67 groups=2 classes=10",
    "bn3": "bn3 width=0.5",
    "caffe-lenet": "caffe-lenet",
    "convnext": "convnext base=8 n1=1 n2=2 n3=1 n4=1 size=32 classes=10",
    "densenet": "densenet growth=4 n1=2 n2=3 n3=2 n4=2 size=32 classes=10",
    "efficientnet": "efficientnet width=0.25 depth=0.3 size=32 classes=10",
    "efficientnet-v2": "efficientnet-v2 width=0.125 n1=2 n2=1 n3=1 n4=2 n5=1 n6=1 size=32"
    " classes=10",
    "googlenet": "googlenet width=0.125 size=32 classes=10",
    "googlenet-paper": "googlenet width=0.125 size=32 classes=10 paper=1",
    "lenet5": "lenet5",
    "lenet5-1998": "lenet5-1998",
    "lenet5-32": "lenet5-32",
    "mobilenet-v1": "mobilenet-v1 width=0.25 n=1 size=32 classes=10",
    "mobilenet-v2": "mobilenet-v2 width=0.25 n=1 size=32 classes=10",
    "mobilenet-v2-small": "mobilenet-v2-small width=0.5",
    "mobilenet-v3-large": "mobilenet-v3 width=0.25 size=32 classes=10",
    "mobilenet-v3-small": "mobilenet-v3 width=0.25 small=1 size=32 classes=10",
    "nin": "nin width=0.125 size=64 classes=10",
    "nin-cifar": "nin-cifar width=0.125",
    "regnet-x": "regnet n2=1 n3=2 n4=1 w1=8 w2=16 w3=16 w4=24 stem=8 group=8 size=32 classes=10",
    "regnet-y": "regnet n2=1 n3=2 n4=1 w1=8 w2=16 w3=16 w4=24 stem=8 group=8 squeeze=1 size=32"
    " classes=10",
    "resnet-basic": "resnet width=0.125 n1=1 n2=2 n3=1 n4=1 bottleneck=0 size=32 classes=10",
    "resnet-bottleneck": "resnet width=0.125 n1=2 n2=1 n3=1 n4=1 size=32 classes=10",
    "resnet-v1": "resnet width=0.125 n1=1 n2=1 n3=1 n4=1 v1=1 size=32 classes=10",
    "resnext": "resnet width=0.125 n1=1 n2=1 n3=1 n4=1 widen=2 groups=4 size=32 classes=10",
    "resnet-cifar": "resnet-cifar n=1 width=0.5",
    "shufflenet-v2": "shufflenet-v2 channels=16 stem=8 last=32 n1=2 n2=2 n3=1 size=32 classes=10",
    "squeezenet": "squeezenet width=0.125 size=32 classes=10",
    "tiny-vgg": "tiny-vgg",
    "vgg": "vgg width=0.0625 n3=2 n4=1 n5=1 size=32 classes=10",
    "vgg-norm": "vgg width=0.0625 n3=2 n4=1 n5=1 norm=1 size=32 classes=10",
    "zfnet": "zfnet width=0.125 size=67 classes=10",
}

IMAGES_OF_A_CLASS = 16


def data_folder() -> Path:
    """Where the real images are (`LANEWISE_DATA`, else beside the repository)."""
    given = flags.value("LANEWISE_DATA")
    return Path(given) if given else Path(__file__).parents[2] / "shared" / "data"


def cifar_sample() -> tuple[np.ndarray, np.ndarray]:
    """(uint8 N×3×32×32, labels N): the first few JPEG photos of each class of CIFAR-10."""
    archive = data_folder() / "cifar10-jpeg.tar.xz"
    if not archive.exists():
        pytest.skip(
            f"needs the CIFAR-10 photos in {archive.name}; LANEWISE_DATA names their folder"
        )
    found: Counter[str] = Counter()
    images, classes = [], []
    with tarfile.open(archive, "r|xz") as members:
        for member in members:
            split, _, rest = member.name.partition("/")
            name = rest.partition("/")[0]
            if split != "test" or not member.isfile() or found[name] >= IMAGES_OF_A_CLASS:
                continue
            found[name] += 1
            content = members.extractfile(member)
            assert content is not None
            images.append(np.asarray(Image.open(io.BytesIO(content.read())).convert("RGB")))
            classes.append(name)
    names = sorted(found)
    labels = np.array([names.index(name) for name in classes], np.int64)
    return np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2)), labels


def fitted(images: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The images with a net's channels and size: gray, repeated and cut from the top left."""
    channels, height, width = shape
    if channels == 1:
        images = images.mean(axis=1, keepdims=True).astype(np.uint8)
    times = -(-max(height, width) // images.shape[2])
    large = images.repeat(times, axis=2).repeat(times, axis=3)
    return np.ascontiguousarray(large[:, :, :height, :width])
