"""Conventions along one axis against ONNX's reference evaluator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from convention_values import NUMBERS, convolved, few, image, spread, weights
from lanewise.size import conventions
from lanewise.size.conventions import (
    CONVENTIONS,
    Written,
    transposed,
    window,
)

TORCH, KERAS, ONNX, LOWER, CAFFE, D2L = (
    CONVENTIONS[name] for name in ("torch", "keras", "onnx", "onnx-lower", "caffe", "d2l")
)


def evaluated(operator: str, *inputs: np.ndarray[Any, Any], **attributes: Any) -> list[float]:
    """The operator along a width, the height being 1; any error of the evaluator passes through."""
    onnx = pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    names = [f"input{i}" for i in range(len(inputs))]
    both = {
        "strides": lambda s: s if isinstance(s, tuple) else [1, s],
        "dilations": lambda d: [1, d],
        "kernel_shape": lambda k: [1, k],
        "pads": lambda p: [0, p[0], 0, p[1]],
        "output_padding": lambda p: [0, p],
    }
    given = {name: both.get(name, lambda v: v)(value) for name, value in attributes.items()}
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(operator, names, ["y"], **given)],
        "one",
        [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in names],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 22)])
    feeds = {name: x.reshape(1, 1, 1, -1) for name, x in zip(names, inputs, strict=True)}
    (result,) = ReferenceEvaluator(model).run(None, feeds)
    return list(np.asarray(result, float).ravel())


# Windows that lie wholly in the padding are not in the standard.
PADS: list[Written] = ["same", "valid", (0, 0), (1, 1), (2, 0), (1, 3)]


@few
@given(  # type: ignore[arg-type]
    **NUMBERS, pad=st.sampled_from(PADS), rule=st.sampled_from([ONNX, LOWER])
)
def test_onnx_convolution(
    n: int, kernel: int, stride: int, dilation: int, pad: Written, rule: conventions.Convention
) -> None:
    axis = window(rule, n, kernel, stride, pad, dilation)
    auto = "SAME_LOWER" if rule is LOWER else "SAME_UPPER"
    how: dict[str, Any] = {"pads": pad}
    if isinstance(pad, str):
        how = {"auto_pad": auto if pad == "same" else "VALID"}
    try:
        theirs = evaluated(
            "Conv", image(n), weights(kernel), strides=stride, dilations=dilation, **how
        )
    except (ValueError, IndexError):
        assert axis.out < 1
    else:
        # It gives an empty result, or numbers at positions that do not exist, for 0 or less.
        assert convolved(axis) == theirs or axis.out < 1


@few
@given(**NUMBERS, pad=st.sampled_from(PADS[2:]), ceil=st.booleans())  # type: ignore[arg-type]
def test_onnx_max_pool(
    n: int, kernel: int, stride: int, dilation: int, pad: tuple[int, int], ceil: bool
) -> None:
    axis = window(ONNX, n, kernel, stride, pad, dilation, ceil, pool=True)
    assume(axis.out >= 1)
    # Height 1 may have any stride; with 1 the evaluator takes another way, which mixes up pads.
    theirs = evaluated(
        "MaxPool",
        -image(n),
        kernel_shape=kernel,
        strides=(2, stride),
        dilations=dilation,
        pads=pad,
        ceil_mode=int(ceil),
    )
    # What reads padding alone is 0 there.
    assert theirs == [
        max((-float(at + 1) for at in read if 0 <= at < n), default=0.0) for read in axis.reads
    ]


@few
@given(  # type: ignore[arg-type]
    **NUMBERS, pad=st.sampled_from(PADS), rule=st.sampled_from([ONNX, LOWER]), ceil=st.booleans()
)
def test_onnx_average_counts_no_padding(
    n: int,
    kernel: int,
    stride: int,
    dilation: int,
    pad: Written,
    rule: conventions.Convention,
    ceil: bool,
) -> None:
    axis = window(rule, n, kernel, stride, pad, dilation, ceil, pool=True)
    assume(axis.out >= 1 and all(any(0 <= at < n for at in read) for read in axis.reads))
    # Nor does it follow where ceil drops a window that rounding down would keep.
    assume(axis.unread < stride)
    assert not rule.counts
    how: dict[str, Any] = {"pads": pad, "ceil_mode": int(ceil)}
    if isinstance(pad, str):
        # Without SAME's lower bound of 0 the evaluator's padding may be negative.
        assume(dilation == 1 and not (ceil and pad == "valid"))
        assume(pad == "valid" or kernel >= stride)
        auto = "SAME_LOWER" if rule is LOWER else "SAME_UPPER"
        how = {"auto_pad": auto if pad == "same" else "VALID"}
    how |= {"dilations": dilation} if dilation > 1 else {}
    theirs = evaluated("AveragePool", image(n), kernel_shape=kernel, strides=stride, **how)
    assert len(theirs) == axis.out
    # The evaluator lays half of what ceil adds at the begin, where the standard has it at the end.
    if axis.overhang <= 1:
        ours = [np.mean([at + 1 for at in read if 0 <= at < n]) for read in axis.reads]
        assert theirs == pytest.approx(ours)


@few
@given(  # type: ignore[arg-type]
    **NUMBERS, pad=st.sampled_from(PADS), rule=st.sampled_from([ONNX, LOWER])
)
def test_onnx_transposed_convolution(
    n: int, kernel: int, stride: int, dilation: int, pad: Written, rule: conventions.Convention
) -> None:
    grown = transposed(rule, n, kernel, stride, pad, dilation)
    assume(grown.out >= 1)
    how: dict[str, Any] = {"pads": (grown.begin, grown.end)}
    if pad == "same":
        # A kernel shorter than the stride would be a negative padding.
        assume(grown.output_pad == 0)
        how = {"auto_pad": "SAME_LOWER" if rule is LOWER else "SAME_UPPER"}
    theirs = evaluated(
        "ConvTranspose", image(n), weights(kernel), strides=stride, dilations=dilation, **how
    )
    assert spread(grown) == theirs
