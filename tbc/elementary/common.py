"""What the formulas share: polynomials, powers of two, and sums and products without error."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from tbc.arith import Num
from tbc.elementary.coefficients import CONSTANTS, Constants

INF = float("inf")
NAN = float("nan")


def constants(x: Num) -> Constants:
    """The numbers for the format of `x`."""
    return CONSTANTS[x.type]


def polynomial(x: Num, coefficients: Sequence[float]) -> Num:
    """Horner's rule; coefficients ascending."""
    *rest, last = coefficients
    return reduce(lambda total, c: total * x + c, reversed(rest), x.const(last))


def with_sign_of(magnitude: Num, x: Num) -> Num:
    """`magnitude`, which is not negative, with the sign of `x`."""
    return (magnitude.bits() | (x.bits() & x.format.sign)).as_float(x.format)


def _magic(x: Num) -> Num:
    """1.5 * 2^fraction: in a sum with it, the low bits are a whole number."""
    return x.const(1.5 * 2.0**x.format.fraction)


def nearest(x: Num) -> tuple[Num, Num]:
    """The whole number nearest to x as integer and as float; |x| < 2^fraction / 2."""
    shifted = x + _magic(x)
    return shifted.bits() - _magic(x).bits(), shifted - _magic(x)


def to_float(n: Num, like: Num) -> Num:
    """A small integer of the float's width, exactly."""
    return (_magic(like).bits() + n).as_float(like.format) - _magic(like)


def _power_of_two(n: Num, like: Num) -> Num:
    """2^n, for normal results."""
    return ((n + like.format.bias) << like.format.fraction).as_float(like.format)


def scale(x: Num, n: Num) -> Num:
    """x * 2^n, rounded once: both factors are normal, and x is near 1."""
    half = n.ashr(1)
    return x * _power_of_two(half, x) * _power_of_two(n - half, x)


def add_exactly(a: Num, b: Num) -> tuple[Num, Num]:
    """a + b as rounded sum and error, |a| >= |b| or a = 0 (Dekker)."""
    total = a + b
    return total, b - (total - a)


def multiply_exactly(a: Num, b: Num) -> tuple[Num, Num]:
    """a * b as rounded product and error, from halves of the significands (Dekker)."""

    def halves(x: Num) -> tuple[Num, Num]:
        low_bits = x.format.fraction // 2 + 1
        high = (x.bits() & (-1 << low_bits)).as_float(x.format)
        return high, x - high

    total = a * b
    (ah, al), (bh, bl) = halves(a), halves(b)
    return total, ((ah * bh - total) + ah * bl + al * bh) + al * bl
