"""Circular functions and their inverses."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from tbc.arith import Num, where
from tbc.elementary.coefficients import PI, TWO_OVER_PI, TWO_OVER_PI_PAD
from tbc.elementary.common import (
    INF,
    NAN,
    add_exactly,
    constants,
    multiply_exactly,
    polynomial,
    to_float,
    with_sign_of,
)

_LIMB = 0xFFFFFFFF


def _window_of_two_over_pi(offset: Num, largest: int, count: int) -> list[Num]:
    """`count` limbs of 2/π from bit `offset` <= `largest` on, the least significant first."""
    limbs = [offset.const(limb) for limb in TWO_OVER_PI[: (largest >> 5) + count + 1]]
    index = offset >> 5
    for step in reversed(range((largest >> 5).bit_length())):
        is_set, span = (index & (1 << step)).ne(0), 1 << step
        kept = min(len(limbs), count + span)
        limbs = [
            where(is_set, limbs[i + span], limbs[i]) if i + span < len(limbs) else limbs[i]
            for i in range(kept)
        ]
    shift = 32 - (offset & 31)
    return [(high << 32 | low) >> shift & _LIMB for high, low in pairwise(limbs)][::-1]


def _times_mod(a: Sequence[Num], b: Sequence[Num]) -> list[Num]:
    """a * b mod 2^(32 len(a)); limbs in 64-bit lanes, the least significant first."""
    columns = [a[0].const(0)] * (len(a) + 1)
    for j, y in enumerate(b):
        for i, x in enumerate(a[: len(a) - j]):
            product = x * y
            columns[i + j] = columns[i + j] + (product & _LIMB)
            columns[i + j + 1] = columns[i + j + 1] + (product >> 32)
    limbs = []
    carry = a[0].const(0)
    for column in columns[:-1]:
        total = column + carry
        limbs.append(total & _LIMB)
        carry = total >> 32
    return limbs


def _digits(limbs: Sequence[Num], width: int, type: str) -> list[Num]:
    """The four leading signed digits of a fraction in limbs, the most significant first."""
    if width == 32:
        return [limb.cast("trunc", type) for limb in limbs[:-5:-1]]
    pairs = [(limb.ashr(width), limb & ((1 << width) - 1)) for limb in limbs[:-3:-1]]
    return [digit.cast("trunc", type) for pair in pairs for digit in pair]


def _reduced(a: Num) -> tuple[Num, Num, Num]:
    """(q, r, low) with a = q π/2 + r + low, |r| <= π/4, q mod 4; for every finite a >= 0."""
    c, fmt = constants(a), a.format
    bits = a.bits().cast("zext", "i64")
    # a = m * 2^e. The first e - 2 bits of 2/π give a multiple of 4, whatever m is.
    padding = TWO_OVER_PI_PAD - (fmt.bias + fmt.fraction + 2)
    offset = (bits >> fmt.fraction) + padding
    m = (bits & ((1 << fmt.fraction) - 1)) | (1 << fmt.fraction)
    m_limbs = [m] if fmt.bits == 32 else [m & _LIMB, m >> 32]
    window = _window_of_two_over_pi(offset, 2 * fmt.bias + padding, c.limbs)
    limbs = _times_mod(window, m_limbs)
    quadrant = (limbs[-1] + (1 << 29)) >> 30
    limbs[-1] = limbs[-1] - (quadrant << 30)

    unit = 2.0 ** (2 - c.digit)
    r, low = a.const(0), a.const(0)
    for digit in _digits(limbs, c.digit, fmt.integer):
        r, error = add_exactly(r, to_float(digit, a) * unit)
        low = low + error
        unit *= 2.0**-c.digit
    r, low = add_exactly(r, low)
    high, error = multiply_exactly(r, a.const(c.half_pi[0]))
    high, low = add_exactly(high, error + (r * c.half_pi[1] + low * c.half_pi[0]))
    is_small = a < float(PI / 4)
    return (
        where(is_small, 0, quadrant.cast("trunc", fmt.integer)),
        where(is_small, a, high),
        where(is_small, 0, low),
    )


def _sin_cos(x: Num) -> tuple[Num, Num, Num]:
    """(q, sin(r), cos(r)) of |x| = q π/2 + r; NaN where x is not finite."""
    poly = constants(x).polynomials
    a = x.abs()
    q, r, low = _reduced(a)
    r = where(a < INF, r, NAN)
    z = r * r
    half = z * 0.5
    w = 1 - half
    sine = r + (r * z * polynomial(z, poly.sin) + low * w)
    cosine = w + (((1 - w) - half) + (z * z * polynomial(z, poly.cos) - r * low))
    return q, sine, cosine


def _flip(value: Num, sign: Num) -> Num:
    """`value` negated where `sign` has a sign bit."""
    return (value.bits() ^ (sign & value.format.sign)).as_float(value.format)


def sin(x: Num) -> Num:
    """The sine of radians."""
    q, sine, cosine = _sin_cos(x)
    value = where((q & 1).eq(0), sine, cosine)
    return _flip(value, (q << (x.format.bits - 2)) ^ x.bits())


def cos(x: Num) -> Num:
    """The cosine of radians."""
    q, sine, cosine = _sin_cos(x)
    value = where((q & 1).eq(0), cosine, sine)
    return _flip(value, (q + 1) << (x.format.bits - 2))


def tan(x: Num) -> Num:
    """The tangent of radians."""
    q, sine, cosine = _sin_cos(x)
    even = (q & 1).eq(0)
    value = where(even, sine, cosine) / where(even, cosine, sine)
    return _flip(value, (q << (x.format.bits - 1)) ^ x.bits())


def atan(x: Num) -> Num:
    """The arc tangent."""
    c = constants(x)
    a = x.abs()
    middle, large = a > 2**0.5 - 1, a > 2**0.5 + 1
    num = where(large, -1, where(middle, a - 1, a))
    den = where(large, a, where(middle, a + 1, 1))
    t = num / den
    z = t * t
    turns = where(large, x.const(1), where(middle, x.const(0.5), 0))
    tail = t * z * polynomial(z, c.polynomials.atan) + turns * c.half_pi[1]
    return with_sign_of(turns * c.half_pi[0] + (t + tail), x)


def _asin_parts(a: Num) -> tuple[Num, Num, Num]:
    """(large, s, t): asin(a) is π/2 - 2 (s + t) where `large` (a >= 1/2), else s + t."""
    large = a >= 0.5
    z = where(large, (1 - a) * 0.5, a * a)
    s = where(large, z.sqrt(), a)
    return large, s, s * z * polynomial(z, constants(a).polynomials.asin)


def asin(x: Num) -> Num:
    """The arc sine."""
    high, low = constants(x).half_pi
    large, s, t = _asin_parts(x.abs())
    return with_sign_of(where(large, (high - s * 2) - (t * 2 - low), s + t), x)


def acos(x: Num) -> Num:
    """The arc cosine, in [0, π]."""
    high, low = constants(x).half_pi
    large, s, t = _asin_parts(x.abs())
    twice = (s + t) * 2
    far = where(x < 0, high * 2 - (twice - low * 2), twice)
    return where(large, far, high - (_flip(s, x.bits()) - (low - _flip(t, x.bits()))))
