"""Small nets for the oracle: every kind of layer over the shapes that break things, and every way
in which values are read, joined and normalised.

Most chain two layers of the kind under test and end in `flatten`: the second sees the gradient of
the loss itself, the first what the second passes back.
"""

from __future__ import annotations

CONVOLUTIONS = {
    "one channel": "input 1x6x7; conv 1 k3; conv 1 k2; flatten",
    "one pixel": "input 3x1x1; conv 4 k1; conv 5 k3 pad1; flatten",
    "one output position": "input 2x5x4; conv 7 k 5x4; conv 3 k1; flatten",
    "kernel larger than input": "input 2x3x2; conv 3 k5 pad2; conv 2 k 7x5 pad 3x2; flatten",
    "stride larger than kernel": "input 3x13x11; conv 4 k2 stride3; conv 5 k1 stride 2x3; flatten",
    "uneven pads": "input 2x7x6; conv 5 k3 pad 0:2x1:0; conv 3 k 2x4 pad 1:0x0:3; flatten",
    "pads beyond the kernel": "input 1x3x3; conv 2 k3 pad4; conv 2 k2 pad 3:0x0:3; flatten",
    "dilation": "input 2x11x12; conv 4 k3 dilation2; conv 3 k2 dilation 3x2 pad 0:1x2; flatten",
    "groups": "input 4x6x5; conv 8 k3 groups2 pad1; conv 6 k3 groups2; flatten",
    "as many groups as channels": (
        "input 5x7x7; conv 5 k3 groups5 pad1; conv 10 k3 groups5 stride2; flatten"
    ),
    "long rows": "input 2x3x37; conv 19 k3 pad1; conv 3 k 1x5 stride 1x3; flatten",
    "long columns": "input 1x29x2; conv 6 k 5x1; conv 17 k 3x2 stride 2x1; flatten",
    "many channels": "input 17x4x5; conv 33 k3 pad1 nobias; conv 7 k1; flatten",
    "same": "input 3x13x10; conv 4 k 6x3 stride 5x2 pad same; conv 3 k 2x4 pad same; flatten",
    # Two registers of this kernel once got one name (a1·123 and a11·23).
    "many registers": "input 1x9x10; conv 10 k4 pad same nobias; flatten",
    "unread rows": "input 2x10x11; conv 3 k3 stride4; conv 2 k1 stride2 nobias; flatten",
    "strided 1x1 of tiny maps": (
        "input 3x3x3; conv 4 k1 stride2; conv 5 k1 stride2; conv 3 k1 stride2 pad1; flatten"
    ),
    "strided 1x1 of rows and columns": (
        "input 2x5x4; conv 9 k1 stride 2x1; conv 5 k1 stride 1x2; conv 4 k1 stride 3x2; flatten"
    ),
    "all at once": (
        "input 6x14x13; conv 9 k 3x2 stride 2x3 pad 3:1x0:2 dilation 2x3 groups3 nobias;"
        "conv 6 k 2x3 stride 3x1 pad 1:2x2:0 groups3; flatten"
    ),
}
OTHER_CONVOLUTIONS = {
    "depthwise": "input 5x7x7; depthwise k3 pad1; depthwise k3 stride2; flatten",
    "depthwise, multiplier": (
        "input 3x8x6; depthwise k 3x2 multiplier 2 pad 1:0x0:1;"
        "depthwise k5 multiplier 3 stride 2x1 pad2 nobias; flatten"
    ),
    "depthwise, dilation": (
        "input 4x10x9; depthwise k2 dilation 2x3 pad same; depthwise k4 stride3; flatten"
    ),
    "depthwise, one pixel": "input 3x1x1; depthwise k1; depthwise k3 pad1; flatten",
    "depthwise, then pointwise": (
        "input 3x9x9; conv 8 k3 stride2 pad1; relu; depthwise k3 pad1; relu6; conv 6 k1 nobias;"
        "depthwise k5 pad2 stride2; relu; conv 20 k1; flatten"
    ),
    "depthwise, many channels": "input 2x5x19; conv 35 k1; depthwise k 3x7 pad 1x3; flatten",
    "partialconv": (
        "input 4x9x8; partialconv 0,1,2/1,2,3/0,3/0,1,2,3 k3;"
        "partialconv 0/1,3/2 k 2x3 stride2 pad 1:0x0:1 nobias; flatten"
    ),
    "partialconv, maps that nobody reads": (
        "input 5x6x7; conv 5 k1; partialconv 4/1/4,1 k3 dilation2 pad2; relu; flatten"
    ),
    "convtranspose": (
        "input 3x4x5; convtranspose 4 k4 stride2 pad1; convtranspose 2 k3 pad1; flatten"
    ),
    "convtranspose, uneven": (
        "input 2x3x4; convtranspose 5 k 3x4 stride 2x3 pad 1:0x0:2 outputpad 1x2;"
        "convtranspose 3 k2 stride 1x2 pad 0:1x1:0; flatten"
    ),
    "convtranspose, stride larger than kernel": (
        "input 3x3x2; convtranspose 2 k2 stride3; convtranspose 3 k1 stride2 outputpad1; flatten"
    ),
    "convtranspose, groups": (
        "input 4x3x3; convtranspose 6 k3 stride3 groups2 dilation 2x1 nobias;"
        "convtranspose 4 k1 groups2 stride2; flatten"
    ),
    "convtranspose, between convolutions": (
        "input 2x6x6; conv 5 k3 stride2 pad1; relu; convtranspose 4 k2 stride2; relu;"
        "conv 3 k3; flatten"
    ),
}
WINDOWS = {
    "halves": "input 3x8x6; {0} 2; {0} 2x3; flatten",
    "remainder": "input 2x9x7; {0} 2; {0} 3x2; flatten",
    "overlap": "input 2x9x11; {0} 3 stride2; {0} 3 stride 1x2; flatten",
    "stride larger than window": "input 2x13x11; {0} 2 stride3; {0} 1 stride 2x3; flatten",
    "padding": "input 2x7x6; {0} 3 stride2 pad1; {0} 2x3 stride1 pad 1x1; flatten",
    "uneven pads": "input 2x7x6; {0} 3 stride2 pad 1:0x0:1; {0} 2 stride1 pad 0:1x1:0; flatten",
    "ceil": "input 3x7x6; {0} 2 ceil; {0} 3 stride2 pad1 ceil; flatten",
    "ceil, uneven": "input 2x10x8; {0} 3 stride2 pad 1:0x0:1 ceil; {0} 2x4 stride3 ceil; flatten",
    "same": "input 2x7x9; {0} 3 stride2 pad same; {0} 2 stride1 pad same; flatten",
    "whole map": "input 5x4x6; {0} 4x6; flatten",
    "one pixel": "input 5x1x1; {0} 1; {0} 3 pad1 stride1; flatten",
    "after convolution": "input 2x8x9; conv 5 k3 pad1; {0} 3 stride2; conv 3 k2; {0} 2; flatten",
}
# These two move their windows as sumpool does.
LIKE_SUMS = ("overlap", "ceil, uneven", "same", "one pixel", "after convolution")
POOLS = {
    f"{kind}: {name}": text.format(kind)
    for kind in ("maxpool", "avgpool", "sumpool", "l2pool", "subsample")
    for name, text in WINDOWS.items()
    if kind not in ("l2pool", "subsample") or name in LIKE_SUMS
} | {
    "relu under l2pool": "input 2x7x7; conv 4 k3; relu; l2pool 2; conv 3 k1; relu; flatten",
    "adaptiveavg": "input 3x7x5; adaptiveavg 3x2; adaptiveavg 2; flatten",
    "adaptiveavg, larger": "input 2x3x2; conv 3 k1; adaptiveavg 5x4; relu; flatten",
    "adaptiveavg, the same size": "input 2x3x4; adaptiveavg 3x4; adaptiveavg 1; flatten",
    "adaptivemax": "input 3x7x5; conv 4 k1; adaptivemax 3x2; adaptivemax 2; flatten",
    "adaptivemax, larger": "input 2x3x2; conv 3 k1; relu; adaptivemax 5x4; conv 2 k2; flatten",
    "globalmax": "input 3x5x7; conv 6 k2; globalmax; flatten; linear 4",
    "globalmax of the input": "input 7x3x4; globalmax; flatten",
    "globalavg": "input 3x5x7; conv 6 k2; globalavg; flatten; linear 4",
    "globalavg of one pixel": "input 7x1x1; globalavg; conv 3 k1; flatten",
    "globalsum": "input 3x5x7; conv 6 k2; globalsum; flatten; linear 4",
    "globalsum, then convolution": "input 5x3x2; globalsum; conv 3 k1; flatten",
}
FEATURES = {
    "linear": "input 2x3x5; flatten; linear 17; linear 33 nobias; linear 5",
    "linear from one feature": "input 1x1x1; flatten; linear 3; linear 1; linear 2",
    "linear, large": "input 3x9x11; flatten; linear 130; linear 3",
    "only flatten": "input 2x1x3; flatten",
    "rbf": "input 2x3x3; flatten; linear 12; tanh; rbf 10",
    "rbf of the input, then linear": "input 2x2x3; flatten; rbf 7; linear 4",
}
ACTIVATIONS = (
    "relu",
    "leakyrelu 0.2",
    "leakyrelu 0",
    "relu6",
    "elu",
    "elu 0.4",
    "silu",
    "gelu",
    "tanh",
    "sigmoid",
    "hardsigmoid",
    "hardswish",
    "prelu",
    "prelu channels",
    "scale",
)
AFTER = (
    "input 2x5x4; {0}; conv 3 k2; {0}; conv 2 k2; {0}; {0}; flatten; linear 6; {0}; linear 3; {0}",
    "input 2x7x6; conv 3 k2; {0}; maxpool 2; avgpool 2 stride1; {0}; flatten; {0}; linear 4",
    "input 2x7x6; maxpool 2; {0}; sumpool 2 stride1; {0}; globalmax; {0}; flatten; linear 4",
)
# What joins its neighbours, or has parameters, goes through all three.
EVERYWHERE = ("relu", "leakyrelu 0.2", "tanh", "hardswish", "prelu channels")
VALUES = {
    f"{name}, {i}": net.format(name)
    for name in ACTIVATIONS
    for i, net in enumerate(AFTER if name in EVERYWHERE else AFTER[:1])
}
JOINED_RELU = {
    "relu under a pool that overlaps": "input 2x9x9; conv 4 k3; relu; maxpool 3 stride2; flatten",
    "relu under a padded pool": "input 2x7x7; conv 4 k3; relu; maxpool 3 stride2 pad1; flatten",
    "relu under an uneven pool": "input 2x8x7; relu; maxpool 3 stride2 pad 1:0x0:1 ceil; flatten",
    "relu under globalmax": "input 3x4x5; conv 5 k2; relu; globalmax; flatten; linear 3",
    "relu under avgpool": "input 2x7x7; conv 4 k3; relu; avgpool 2; flatten",
    "relu twice, pool twice": "input 2x9x9; relu; relu; maxpool 2; maxpool 2; relu; flatten",
    "relu on the last linear": "input 3x2x2; flatten; linear 9; relu",
    "relu between dropouts": "input 3x4x4; dropout 0.3; relu; dropout 0.6; maxpool 2; flatten",
}
NOISE = {
    "dropout everywhere": (
        "input 2x6x5; dropout 0.2; conv 4 k3; dropout 0.5; relu; maxpool 2; flatten; dropout 0.4;"
        "linear 8; tanh; dropout 0.1; linear 4; dropout 0.5"
    ),
    "spatialdropout": (
        "input 5x4x5; spatialdropout 0.4; conv 7 k3; relu; spatialdropout 0.5; conv 6 k2;"
        "spatialdropout 0.2; relu; flatten; linear 8; spatialdropout 0.3; linear 4"
    ),
    "stochasticdepth": (
        "input 4x5x5; residual { conv 4 k3 pad1; relu; conv 4 k1; stochasticdepth 0.4 }; relu;"
        "residual { depthwise k3 pad1; stochasticdepth 0.3 }; flatten; linear 5;"
        "stochasticdepth 0.2"
    ),
}
NORMS = {
    "layernorm": (
        "input 3x5x4; layernorm; conv 6 k3 pad1; layernorm eps 0.01; relu; conv 4 k2; layernorm;"
        "conv 5 k1; flatten; layernorm; linear 5; layernorm; linear 3"
    ),
    "layernorm, then relu": "input 2x6x5; conv 8 k3; layernorm; relu; maxpool 2; flatten; linear 4",
    "groupnorm": (
        "input 4x5x4; groupnorm 2; conv 6 k3; groupnorm 3 eps 0.01; relu; conv 5 k2; groupnorm 1;"
        "relu; flatten; linear 4"
    ),
    "groupnorm of single channels": (
        "input 3x6x5; conv 5 k2 stride2; groupnorm 5; tanh; conv 4 k1; groupnorm 1; flatten"
    ),
    "lrn": (
        "input 6x5x4; lrn 5; conv 7 k3; relu; lrn 3 alpha 0.5 beta 0.75 k 2; conv 4 k1;"
        "lrn 1 alpha 0.3 beta 0.5; flatten"
    ),
    "lrn of an even size, and larger than the channels": (
        "input 5x3x4; lrn 4 alpha 1 beta 1; conv 3 k2; lrn 9 alpha 0.8 beta 0.6 k 0.5; relu;"
        "flatten; linear 3"
    ),
    "lrn of several vectors of channels": (
        "input 3x5x7; conv 37 k2; sigmoid; lrn 5; conv 19 k1; lrn 40 alpha 0.3 k 2;"
        "conv 32 k2; lrn 2 alpha 0.5; globalavg; flatten; linear 3"
    ),
}
CHANNELS = {
    "shuffle": "input 6x4x5; shuffle 2; conv 6 k2; shuffle 3; relu; conv 4 k2; shuffle 4; flatten",
    "split": "input 6x4x5; split 2 of 3; conv 4 k2; relu; split 1 of 2; conv 3 k1; flatten",
    "padchannels": (
        "input 2x5x4; padchannels 2:1; conv 4 k2; relu; padchannels 0:3; padchannels 1:0;"
        "conv 3 k2; padchannels 1:1; flatten"
    ),
    "upsample": "input 2x3x4; upsample 2; conv 3 k2; relu; upsample 3x2; upsample 1x2; flatten",
    "upsample bilinear": (
        "input 2x3x4; upsample 2 bilinear; conv 3 k2; relu; upsample 3x2 bilinear;"
        "upsample 1x3 bilinear; flatten"
    ),
    "upsample one pixel": "input 3x1x1; upsample 3 bilinear; upsample 2; conv 2 k2; flatten",
}
GRAPHS = {
    # The gradient of a sum or a concatenation is that of its parts, until somebody adds to it.
    "add: one value twice and another": (
        "input 2x4x4; flatten; i: linear 6; a: tanh; z: flatten; b: linear 6 from i; s: sigmoid;"
        "add a s z; linear 3"
    ),
    "add: one value twice and one that others read": (
        "input 2x4x4; flatten; linear 6; i: tanh; s: relu; v: add i s; z: flatten; add v z i;"
        "linear 3"
    ),
    "concat: one value twice, then a sum": (
        "input 2x4x4; flatten; i: linear 3; a: tanh; z: flatten; c: concat a z;"
        "b: linear 6 from i; u: tanh; add c u; linear 3"
    ),
    "residual": (
        "input 3x6x5; conv 4 k3 pad1; relu; residual { conv 4 k3 pad1; relu; conv 4 k3 pad1 };"
        "relu; residual { conv 4 k1 }; flatten; linear 3"
    ),
    "residual of the input": "input 2x4x4; residual { conv 2 k3 pad1 }; flatten",
    "residual with projection": (
        "input 3x7x6; conv 4 k3; relu;"
        "residual { conv 6 k3 stride2 pad1; relu; conv 6 k3 pad1 } { conv 6 k1 stride2 }; relu;"
        "globalavg; flatten; linear 4"
    ),
    "residual whose branch ends in relu": (
        "input 2x5x5; conv 4 k1; residual { conv 4 k3 pad1; relu }; maxpool 2; flatten; linear 3"
    ),
    "residual whose both branches end in relu": (
        "input 2x5x5; conv 4 k1; relu; residual { conv 4 k3 pad1; relu } { conv 4 k1; relu }; relu;"
        "flatten; linear 3"
    ),
    "residual of a pool and of features": (
        "input 2x6x6; conv 4 k3; maxpool 2; residual { relu; conv 4 k1 }; flatten;"
        "residual { linear 16; tanh }; linear 3"
    ),
    # In inference, and where the rate is 0, both names mean one value.
    "one value twice": (
        "input 2x3x3; conv 3 k2; x: relu; y: dropout 0; add x y; z: dropout 0.2; add y z; flatten;"
        "linear 3"
    ),
    "residual of a shared value": (
        "input 3x4x4; conv 4 k1; a: tanh; b: conv 4 k3 pad1; c: conv 4 k1 from a; add a b c;"
        "flatten; linear 3"
    ),
    "a value that three layers read": (
        "input 2x6x6; conv 4 k3; a: relu; b: conv 3 k3 from a; c: maxpool 3 stride1 from a;"
        "d: conv 3 k3 stride1 from a; e: add b d; concat c e; flatten; linear 3"
    ),
    "a convolution that a relu and others read": (
        "input 2x5x5; a: conv 4 k2; b: relu; c: conv 4 k1 from a; add a b c; flatten; linear 3"
    ),
    "the image read by all": (
        "input 2x5x5; a: conv 3 k3 pad1; b: maxpool 3 stride1 pad1 from input; concat a b input;"
        "conv 3 k2; flatten"
    ),
    "concat of three": (
        "input 3x6x5; concat { conv 4 k1 } { conv 3 k3 pad1; relu } { maxpool 3 stride1 pad1 };"
        "conv 5 k2; relu; flatten; linear 3"
    ),
    "dense": (
        "input 3x5x4; conv 4 k3 pad1; relu; concat { } { conv 3 k3 pad1; relu };"
        "concat { } { conv 3 k3 pad1; relu }; concat { } { relu; conv 2 k1 }; avgpool 2; relu;"
        "flatten; linear 3"
    ),
    "nested concat": (
        "input 2x4x5; concat { concat { conv 2 k1 } { conv 3 k1; relu } } { conv 3 k3 pad1 };"
        "concat { concat { } { dropout 0 } } { relu }; conv 3 k2; flatten"
    ),
    "concat, then relu": (
        "input 2x5x5; concat { conv 3 k1 } { conv 2 k3 pad1; relu }; relu; maxpool 2; flatten"
    ),
    "concat of features": (
        "input 2x4x3; concat { globalavg; flatten } { flatten; linear 5; relu } { flatten };"
        "linear 6; relu; linear 3"
    ),
    "concat of one value twice": (
        "input 2x3x3; conv 3 k2; x: relu; y: dropout 0; concat x y; conv 2 k1; flatten"
    ),
    "squeeze-and-excite": (
        "input 3x6x5; conv 6 k3; relu;"
        "multiply { } { globalavg; conv 3 k1; relu; conv 6 k1; sigmoid }; conv 4 k2; flatten"
    ),
    "squeeze-and-excite, hard": (
        "input 3x6x5; depthwise k3 multiplier 2 pad1; x: hardswish; globalavg; conv 2 k1; relu;"
        "conv 6 k1; gate: hardsigmoid; multiply x gate; conv 4 k1; flatten"
    ),
    "multiply of equals, of itself and of features": (
        "input 2x4x4; multiply { conv 3 k2 } { conv 3 k2; tanh }; x: conv 3 k1; y: dropout 0;"
        "multiply x y; flatten; multiply { linear 5 } { linear 5; sigmoid } { linear 5; tanh };"
        "linear 3"
    ),
    "add of a pixel": (
        "input 3x5x4; conv 4 k2; add { } { globalavg; conv 4 k1 }; relu;"
        "add { globalmax } { conv 4 k1 }; flatten; linear 3"
    ),
    "shuffle units": (
        "input 3x6x6; conv 8 k3 stride2 pad1; relu;"
        "concat { split 1 of 2 } { split 2 of 2; conv 4 k1; relu; depthwise k3 pad1; conv 4 k1;"
        "relu }; shuffle 2;"
        "concat { depthwise k3 stride2 pad1; conv 8 k1; relu }"
        "{ conv 8 k1; relu; depthwise k3 stride2 pad1; conv 8 k1; relu }; shuffle 2;"
        "globalavg; flatten; linear 4"
    ),
    "a shortcut of subsampled and padded channels": (
        "input 3x6x6; conv 4 k3 pad1; relu; residual { conv 8 k3 stride2 pad1; relu;"
        "conv 8 k3 pad1 } { maxpool 1 stride2; padchannels 2:2 }; relu; flatten; linear 3"
    ),
    "add as output": "input 2x3x3; conv 3 k2; flatten; add { linear 5 } { linear 5; relu }",
    "concat as output": "input 2x3x3; conv 3 k2; flatten; concat { linear 3 } { linear 2; relu }",
    "multiply as output": "input 2x3x3; flatten; multiply { linear 4 } { linear 4; sigmoid }",
    "the output is an earlier value": (
        "input 2x4x4; conv 4 k2; a: relu; b: conv 4 k1 from a; add a b; globalavg; flatten;"
        "dropout 0.3"
    ),
    "flatten of an earlier value as output": (
        "input 2x3x3; a: conv 3 k3; b: conv 3 k1; c: add a b; flatten"
    ),
    "flatten read twice": (
        "input 2x3x3; conv 2 k2; x: flatten; a: linear 8; b: linear 8 from x; add a b x; linear 3"
    ),
}
BATCH_NORMS = {
    "bn after conv": "input 2x6x5; conv 5 k3 nobias; bn; conv 4 k2; bn eps 0.01; flatten",
    "bn, relu": "input 2x6x5; conv 5 k3 nobias; bn; relu; conv 4 k2; bn; relu; flatten; linear 3",
    "bn first": "input 3x5x4; bn; conv 4 k2; relu; flatten; linear 3",
    "bn twice in a row": "input 2x5x4; conv 4 k2; bn; bn momentum 0.3; relu; flatten; linear 3",
    "bn noaffine": "input 2x6x5; bn noaffine; conv 5 k3; bn noaffine; relu; flatten; linear 3",
    "bn before conv": "input 2x6x6; conv 4 k3; bn; relu; conv 4 k1; relu; bn; conv 3 k2; flatten",
    "bn, pools": (
        "input 2x9x9; conv 4 k3; bn; relu; maxpool 3 stride2; bn; maxpool 2; flatten; linear 3"
    ),
    "bn, every activation": (
        "input 2x5x5; conv 4 k2; bn; silu; conv 4 k1; bn; hardswish; conv 4 k1; bn; relu6;"
        "conv 4 k1; bn; leakyrelu 0.1; conv 4 k1; bn; prelu channels; flatten; linear 3"
    ),
    "bn, add, relu": (
        "input 3x6x6; conv 4 k3 pad1 nobias; bn; relu;"
        "residual { conv 4 k3 pad1 nobias; bn; relu; conv 4 k3 pad1 nobias; bn }; relu;"
        "residual { conv 6 k3 stride2 pad1 nobias; bn; relu; conv 6 k3 pad1 nobias; bn }"
        "{ conv 6 k1 stride2 nobias; bn }; relu; globalavg; flatten; linear 4"
    ),
    "bn before everything, dense": (
        "input 3x5x5; conv 4 k3 pad1;"
        "concat { } { bn; relu; conv 3 k1; bn; relu; conv 2 k3 pad1 };"
        "concat { } { bn; relu; conv 2 k3 pad1 }; bn; relu; avgpool 2; flatten; linear 3"
    ),
    "bn of a value that others read": (
        "input 2x5x5; conv 4 k2; a: relu; b: bn from a; c: bn noaffine from a; add a b c; bn;"
        "flatten; linear 3"
    ),
    "inverted residual": (
        "input 3x6x6; conv 4 k3 pad1; bn; relu6;"
        "residual { conv 12 k1 nobias; bn; relu6; depthwise k3 pad1 nobias; bn; relu6;"
        "conv 4 k1 nobias; bn }; flatten; linear 4"
    ),
    "bn, dropout, noise": (
        "input 2x5x5; conv 6 k3; bn; relu; spatialdropout 0.3; residual { conv 6 k3 pad1; bn;"
        "stochasticdepth 0.3 }; bn; dropout 0.2; flatten; linear 3"
    ),
    "bn as output": "input 2x5x5; conv 4 k3; relu; conv 3 k2; bn; flatten",
    "bn ghost": "input 2x5x4; conv 4 k2; bn ghost 16; relu; conv 4 k2; bn ghost 16; flatten",
}
# These need more than one image: a channel has one value in each.
FLAT_NORMS = {
    "bn of features": "input 2x4x4; flatten; linear 9; bn; relu; linear 6; bn; linear 3",
    "bn of flat maps": "input 2x5x5; conv 3 k3; flatten; bn; linear 4; bn noaffine",
    "bn of pixels": "input 4x5x5; globalavg; bn; conv 5 k1; bn; relu; flatten; linear 4",
    "bn ghost of features": "input 2x4x4; flatten; linear 9; bn ghost 16; relu; linear 3",
}
NETS = (
    {f"conv: {name}": text for name, text in CONVOLUTIONS.items()}
    | OTHER_CONVOLUTIONS
    | POOLS
    | FEATURES
    | VALUES
    | JOINED_RELU
    | NOISE
    | NORMS
    | CHANNELS
    | GRAPHS
    | BATCH_NORMS
    | FLAT_NORMS
)
