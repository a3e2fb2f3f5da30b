"""Softmax and the cross-entropy loss, with label smoothing, and its gradient.

For the logits z of one image (one lane), with d_k = z_k − max z and s = Σ exp d_k:

    p_k     = exp(d_k) / s
    target  t_k = (1 − ε) [k = label] + ε / K
    loss    = −Σ t_k log p_k = log s − (1 − ε) d_label − (ε / K) Σ d_k
    dz_k    = weight · (p_k − t_k)

`lane_weight` is 1/N for an image of a batch of N, and 0 for a lane without one.

The loss of an image with a logit that is infinite or no number is no number: Σ d_k carries it, also
where ε is 0 (`logarithm` alone would not).
"""

from __future__ import annotations

from lanewise.native.kernels.functions import (
    exponential,
    integer,
    is_positive,
    keep_where,
    logarithm,
    number,
)
from lanewise.native.kernels.lanes import in_runs
from lanewise.native.nest import (
    LANES,
    Buffer,
    Constant,
    FromIndex,
    Kernel,
    Read,
    Register,
    Value,
    as_index,
    op,
)
from lanewise.native.writer import Writer

LOWEST = Constant(float("-inf"))


def softmax(name: str, classes: int) -> Kernel:
    """Buffers logits, target: the probabilities."""
    logits = Buffer("logits", (classes, LANES))
    target = Buffer("target", (classes, LANES), access="write")
    writer = Writer(name, [logits, target])
    highest, _ = _maximum(writer, logits)
    (total,) = writer.accumulators("s", 1)
    for at, (part,) in in_runs(writer, "k", classes, [total]):
        grown = exponential(writer, _below(writer, logits, at, highest))
        writer.assign(part, op("add", Read(part), grown))
    share = writer.let(op("div", number(1.0), Read(total)))
    with writer.loop("k", classes) as k:
        grown = exponential(writer, _below(writer, logits, k, highest))
        writer.store(target, k, 0, value=op("mul", grown, share))
    return writer.finish()


def softmax_cross_entropy(name: str, classes: int, *, gradient: bool) -> Kernel:
    """Buffers logits, label (i32), lane_weight, settings (ε), [target: dlogits], loss, correct.

    loss: Σ over the lanes of weight · loss; correct: how many lanes with a weight have their first
    largest logit at the label.
    """
    logits = Buffer("logits", (classes, LANES))
    label = Buffer("label", (LANES,), "i32")
    weight = Buffer("lane_weight", (LANES,))
    settings = Buffer("settings", (1,), align=4)
    target = Buffer("target", (classes, LANES), access="write")
    loss = Buffer("loss", (1,), access="write", align=4)
    correct = Buffer("correct", (1,), access="write", align=4)
    buffers = [logits, label, weight, settings, *[target] * gradient, loss, correct]
    writer = Writer(name, buffers)
    wanted = writer.let(writer.load(label, 0), "label")
    share = writer.let(writer.load(weight, 0), "weight")
    smoothing = writer.let(writer.splat(settings, 0), "epsilon")
    rest = writer.let(op("sub", number(1.0), smoothing))
    even = writer.let(op("mul", smoothing, number(1.0 / classes)))

    highest, first = _maximum(writer, logits)
    total, at_label, all_below = writer.accumulators("s", 3)
    for at, (all_part, part) in in_runs(writer, "k", classes, [all_below, total]):
        below = _below(writer, logits, at, highest)
        is_label = op("eq", wanted, FromIndex(at))
        writer.assign(at_label, op("select", is_label, below, Read(at_label)))
        writer.assign(all_part, op("add", Read(all_part), below))
        writer.assign(part, op("add", Read(part), exponential(writer, below)))
    lane = op("fma", op("neg", rest), Read(at_label), logarithm(writer, Read(total)))
    lane = op("fma", op("neg", even), Read(all_below), lane)
    present = writer.let(keep_where(is_positive(share), op("mul", share, lane)))
    writer.store(loss, 0, value=op("lanesum", present))
    hit = keep_where(op("eq", first, wanted), number(1.0))
    writer.store(correct, 0, value=op("lanesum", keep_where(is_positive(share), hit)))

    if gradient:
        inverse = writer.let(op("div", share, Read(total)))
        with writer.loop("k", classes) as k:
            grown = exponential(writer, _below(writer, logits, k, highest))
            is_label = op("eq", wanted, FromIndex(as_index(k)))
            aim = op("add", keep_where(is_label, rest), even)
            slope = op("fma", grown, inverse, op("neg", op("mul", share, aim)))
            writer.store(target, k, 0, value=slope)
    return writer.finish()


def _maximum(writer: Writer, logits: Buffer) -> tuple[Value, Value]:
    """The largest logit of every lane, and where it stands first (i32)."""
    best: Register = writer.assign(writer.register("best"), LOWEST)
    first: Register = writer.assign(writer.register("first", "i32"), integer(0))
    with writer.loop("k", logits.shape[0]) as k:
        z = writer.let(writer.load(logits, k, 0), "z")
        here = op("select", op("gt", z, Read(best)), FromIndex(as_index(k)), Read(first))
        writer.assign(first, here)
        writer.assign(best, op("max", z, Read(best)))
    return Read(best), Read(first)


def _below(writer: Writer, logits: Buffer, k: object, highest: Value) -> Value:
    return writer.let(op("sub", writer.load(logits, k, 0), highest), "d")  # type: ignore[arg-type]
