"""exp, log, tanh, the logistic function and the normal distribution: values in, a value out.

The coefficients are minimax fits of this project (weighted least squares over Chebyshev points in
float64, reweighted until the error is level). Errors against float64, in units of the last place:
exp and log below 1, exp − 1 below 1.5, tanh below 1.5, sigmoid below 2.5; the normal distribution's
function is wrong by less than 1e-7. `tests/test_kernels_activation.py` measures them.
"""

from __future__ import annotations

from collections.abc import Sequence

from lanewise.native.nest import Constant, Value, op
from lanewise.native.writer import Writer

LOG2_E = 1.4426950408889634
LN2_HIGH = 0.693145751953125  # 15 bits: n · LN2_HIGH is exact
LN2_LOW = 1.428606765330187e-06
#: below LOWEST e^x is no normal number any more; at HIGHEST it is 2.4e38
LOWEST, HIGHEST = -87.33654, 88.37626

#: (e^r − 1 − r) / r² for |r| ≤ ln 2 / 2
EXPONENTIAL = (0.49999994, 0.16666521, 0.041668388, 0.0083687454, 0.0013814538)
#: (log(1 + f) − f + f²/2) / f³ for √½ ≤ 1 + f < √2
LOGARITHM = (
    0.33333313,
    -0.25000009,
    0.20002119,
    -0.16667996,
    0.14219551,
    -0.12405590,
    0.11888178,
    -0.11675653,
    0.067466080,
)
#: (tanh(x) / x − 1) / x² as a polynomial in x², for |x| < TANH_SMALL
TANH = (-0.33333331, 0.13333176, -0.053942855, 0.021678984, -0.0081230942, 0.0020928367)
TANH_SMALL = 0.625
#: e^(t²/2) · (1 − Φ(t)) as a polynomial in v = t / (1 + NORMAL_RATE · t), for t ≥ 0: a fit that
#: weighs the error relative to 1 − Φ(t), but where that is below 0.05 relative to 0.05
NORMAL = (
    0.5,
    -0.39894231,
    0.13490628,
    -0.021943235,
    0.00027117812,
    0.00033663881,
    2.7616442e-05,
    -1.9835212e-05,
    1.9001928e-06,
)
NORMAL_RATE = 0.2885
NORMAL_PEAK = 0.3989422804014327  # the density at 0, 1 / √(2π)
ROOT_HALF_BITS = 0x3F3504F3  # the bits of √½


def exponential(writer: Writer, x: Value) -> Value:
    """e^x; 0 where that is below 1.2e-38, at most 2.4e38. NaN stays NaN (see `rectified`)."""
    tail, power = _tail_and_power(writer, x)
    result = op("mul", op("add", tail, number(1.0)), power)
    return writer.let(op("select", op("lt", x, number(LOWEST)), number(0.0), result))


def exponential_minus_one(writer: Writer, x: Value) -> Value:
    """e^x − 1, also near 0 exact to few last places: there the power is 1, and the tail is left."""
    tail, power = _tail_and_power(writer, x)
    return writer.let(op("fma", power, tail, op("sub", power, number(1.0))))


def _tail_and_power(writer: Writer, x: Value) -> tuple[Value, Value]:
    """e^x as (1 + tail) · power, the power one of 2, the tail within ±0.42."""
    clamped = writer.let(op("min", number(HIGHEST), op("max", number(LOWEST), x)))
    n = writer.let(op("round", op("mul", clamped, number(LOG2_E))))
    whole = writer.let(op("tofloat", n))
    rest = op("fma", whole, number(-LN2_HIGH), clamped)
    r = writer.let(op("fma", whole, number(-LN2_LOW), rest))
    tail = writer.let(op("fma", op("mul", r, r), polynomial(writer, r, EXPONENTIAL), r))
    power = writer.let(op("asfloat", op("shl", op("add", n, integer(127)), integer(23))))
    return tail, power


def logarithm(writer: Writer, x: Value) -> Value:
    """The natural logarithm of positive normal numbers."""
    bits = writer.let(op("sub", op("asint", x), integer(ROOT_HALF_BITS)))
    # shr is logical: an offset of 128 makes the exponent positive, and is taken off again
    shifted = op("shr", op("add", bits, integer(1 << 30)), integer(23))
    n = writer.let(op("sub", shifted, integer(128)))
    mantissa = op("sub", op("asint", x), op("shl", n, integer(23)))
    f = writer.let(op("sub", op("asfloat", mantissa), number(1.0)))
    whole = writer.let(op("tofloat", n))
    square = writer.let(op("mul", f, f))
    cubic = op("mul", op("mul", square, f), polynomial(writer, f, LOGARITHM))
    small = op("fma", square, number(-0.5), op("fma", whole, number(LN2_LOW), cubic))
    return writer.let(op("fma", whole, number(LN2_HIGH), op("add", f, small)))


def tanh(writer: Writer, x: Value) -> Value:
    """Hyperbolic tangent: an odd polynomial near zero, 1 − 2 / (e^2|x| + 1) elsewhere."""
    size = writer.let(op("max", x, op("neg", x)))
    square = writer.let(op("mul", x, x))
    cubic = op("mul", x, square)
    near = writer.let(op("fma", cubic, polynomial(writer, square, TANH), x))
    grown = exponential(writer, op("min", number(40.0), op("add", size, size)))
    rest = op("div", number(2.0), op("add", grown, number(1.0)))
    positive = writer.let(op("sub", number(1.0), rest))
    far = op("select", op("lt", x, number(0.0)), op("neg", positive), positive)
    # a NaN is not at least TANH_SMALL: it takes the polynomial and stays a NaN
    return writer.let(op("select", op("ge", size, number(TANH_SMALL)), far, near))


def sigmoid(writer: Writer, x: Value) -> Value:
    """1 / (1 + e^−x)."""
    shrunk = exponential(writer, op("neg", x))
    return writer.let(op("div", number(1.0), op("add", shrunk, number(1.0))))


def normal(writer: Writer, x: Value) -> tuple[Value, Value]:
    """Φ(x) = (1 + erf(x / √2)) / 2, and its derivative, the density φ(x)."""
    size = writer.let(op("min", number(14.0), op("max", x, op("neg", x))))  # there φ is 0
    bell = exponential(writer, op("mul", op("mul", size, number(-0.5)), size))
    v = writer.let(op("div", size, op("fma", size, number(NORMAL_RATE), number(1.0))))
    tail = writer.let(op("mul", bell, polynomial(writer, v, NORMAL)))
    below = op("select", is_positive(x), op("sub", number(1.0), tail), tail)
    return writer.let(below), writer.let(op("mul", bell, number(NORMAL_PEAK)))


def polynomial(writer: Writer, x: Value, coefficients: Sequence[float]) -> Value:
    """Horner's rule, one fused multiply–add a step; coefficients from the lowest power up."""
    result: Value = number(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = op("fma", result, x, number(coefficient))
    return writer.let(result)


def number(value: float) -> Constant:
    """The same float in every lane."""
    return Constant(value)


def integer(value: int) -> Constant:
    """The same 32-bit integer in every lane."""
    return Constant(value, "i32")


def is_positive(value: Value) -> Value:
    """Lane by lane: greater than zero?"""
    return op("gt", value, number(0.0))


def keep_where(condition: Value, value: Value) -> Value:
    """The value where the condition holds, zero elsewhere."""
    return op("select", condition, value, number(0.0))


def rectified(value: Value) -> Value:
    """max(0, x). NaN passes: `max(a, b)` is b where the two do not compare."""
    return op("max", number(0.0), value)


def at_most_six(value: Value) -> Value:
    """min(max(x, 0), 6); NaN passes."""
    return op("min", number(6.0), rectified(value))
