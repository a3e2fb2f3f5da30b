"""Every family of the zoo at a size that is built, compiled and trained in a moment."""

from __future__ import annotations

# File of the zoo → settings of its parameters. Every branch of the family still occurs, and every
# stage that repeats a unit has one that keeps its size where that is another one.
SMALL: dict[str, str] = {
    "alexnet": "size=63 classes=5 width=0.0625",
    "alexnet-2012": "size=67 classes=5 width=0.0625 groups=2",
    "bn3": "size=16 classes=5 width=0.25",
    "caffe-lenet": "",
    "convnext": "size=32 classes=5 base=4 n1=1 n2=1 n3=2 n4=1",
    "densenet": "size=32 classes=5 growth=4 n1=2 n2=1 n3=2 n4=1",
    "efficientnet": "size=32 classes=5 width=0.25 depth=0.25",
    "efficientnet-v2": "size=32 classes=5 width=0.125 n1=2 n2=1 n3=1 n4=2 n5=1 n6=1",
    "googlenet": "size=32 classes=5 width=0.125",
    "inception-v3": "size=75 classes=5 width=0.125",
    "lenet5": "",
    "lenet5-32": "",
    "lenet5-1998": "",
    "mnasnet": "size=32 classes=5 width=0.125 n=2",
    "mobilenet-v1": "size=32 classes=5 width=0.125 n=1",
    "mobilenet-v2": "size=32 classes=5 width=0.25 n=2",
    "mobilenet-v2-small": "size=16 classes=5 width=0.25",
    "mobilenet-v3": "size=32 classes=5 width=0.25",
    "nin": "size=43 classes=5 width=0.0625",
    "nin-cifar": "size=16 classes=5 width=0.125",
    "regnet": "size=32 classes=5 stem=8 w1=8 w2=8 w3=16 w4=24 n2=1 n3=2 n4=1 group=4 squeeze=1",
    "resnet": "size=32 classes=5 width=0.0625 n1=1 n2=2 n3=1 n4=1",
    "resnet-cifar": "size=16 classes=5 width=0.25 n=2",
    "shufflenet-v2": "size=32 classes=5 channels=8 stem=4 last=16 n1=2 n2=2 n3=1",
    "squeezenet": "size=32 classes=5 width=0.25",
    "tiny-vgg": "",
    "vgg": "size=32 classes=5 width=0.0625 n1=1 n2=1 n3=2 n4=1 n5=1",
    "zfnet": "size=53 classes=5 width=0.0625",
}

# Further forms of a family, where parameters choose between layers: name → specification.
SMALL_FORMS: dict[str, str] = {
    **{name: f"{name} {settings}".strip() for name, settings in SMALL.items()},
    "googlenet-2014": "googlenet size=32 classes=5 width=0.125 paper=1",
    "mobilenet-v3-small": "mobilenet-v3 size=32 classes=5 width=0.25 small=1",
    "resnet-basic": "resnet size=32 classes=5 width=0.0625 n1=1 n2=2 n3=1 n4=1 bottleneck=0",
    "resnet-v1": "resnet size=32 classes=5 width=0.0625 n1=1 n2=1 n3=1 n4=1 v1=1",
    "resnext": "resnet size=32 classes=5 width=0.0625 n1=1 n2=1 n3=1 n4=1 widen=2 groups=4",
    "squeezenet-early": "squeezenet size=32 classes=5 width=0.25 early=1",
    "vgg-bn": "vgg size=32 classes=5 width=0.0625 n1=1 n2=1 n3=1 n4=1 n5=1 norm=1",
}
