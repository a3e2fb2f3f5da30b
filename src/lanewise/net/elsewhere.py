"""What other programs and books call our words; used only to suggest ours."""

from __future__ import annotations

from collections.abc import Iterable

ELSEWHERE: dict[str, str] = {
    "activation": "relu",
    "adaptiveavgpool": "adaptiveavg",
    "adaptivemaxpool": "adaptivemax",
    "averagepool": "avgpool",
    "batchnorm": "bn",
    "batchnormalization": "bn",
    "bias": "nobias",
    "cat": "concat",
    "channelshuffle": "shuffle",
    "concatenate": "concat",
    "conv2d": "conv",
    "conv2dtranspose": "convtranspose",
    "convolution": "conv",
    "deconv": "convtranspose",
    "dense": "linear",
    "depthwiseconv": "depthwise",
    "drop": "dropout",
    "dropout2d": "spatialdropout",
    "droppath": "stochasticdepth",
    "dwconv": "depthwise",
    "fc": "linear",
    "filters": "conv",
    "fullyconnected": "linear",
    "gap": "globalavg",
    "globalaveragepool": "globalavg",
    "globalmaxpool": "globalmax",
    "gn": "groupnorm",
    "hsigmoid": "hardsigmoid",
    "hswish": "hardswish",
    "image": "input",
    "interpolate": "upsample",
    "kernel": "k",
    "kernel_size": "k",
    "layerscale": "scale",
    "ln": "layernorm",
    "localresponsenorm": "lrn",
    "lrelu": "leakyrelu",
    "maxpooling": "maxpool",
    "mp": "maxpool",
    "mul": "multiply",
    "norm": "bn",
    "output_padding": "outputpad",
    "padding": "pad",
    "pool": "maxpool",
    "reshape": "flatten",
    "resize": "upsample",
    "s": "stride",
    "shortcut": "residual",
    "skip": "residual",
    "strides": "stride",
    "sum": "add",
    "swish": "silu",
    "view": "flatten",
}


def nearest(word: str, known: Iterable[str]) -> str:
    """`did you mean …? ` with the known word closest to `word`, or "" if none is close."""
    import difflib  # only for errors, and slow to import

    known = list(known)
    elsewhere = ELSEWHERE.get(word)
    if elsewhere in known:
        return f"did you mean `{elsewhere}`? "
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean `{close[0]}`? " if close else ""
