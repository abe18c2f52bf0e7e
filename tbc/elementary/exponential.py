"""Exponentials, logarithms, hyperbolic functions, powers and the error function."""

from __future__ import annotations

from collections.abc import Sequence

from tbc.arith import Num, where
from tbc.elementary.coefficients import LN2
from tbc.elementary.common import (
    INF,
    NAN,
    add_exactly,
    constants,
    multiply_exactly,
    nearest,
    polynomial,
    scale,
    to_float,
    with_sign_of,
)
from tbc.elementary.rounding import round_even


def _clamp(x: Num, low: float, high: float) -> Num:
    x = where(x < low, low, x)
    return where(x > high, high, x)


def _exp_parts(x: Num, low: Num | None = None) -> tuple[Num, Num]:
    """(n, v) with e^(x + low) = 2^n v and v near 1, for x in `exp_range`."""
    c = constants(x)
    n, k = nearest(x * float(1 / LN2))
    step = k * -c.ln2[1]
    r, r_low = add_exactly(x - k * c.ln2[0], step if low is None else step + low)
    high, error = add_exactly(x.const(1), r)
    return n, high + (error + (r * r * polynomial(r, c.polynomials.exp) + r_low))


def exp(x: Num) -> Num:
    """e^x."""
    n, v = _exp_parts(_clamp(x, *constants(x).exp_range))
    return scale(v, n)


def sigmoid(x: Num) -> Num:
    """1 / (1 + e^-x)."""
    z = exp(x.abs().negate())
    total, lost = add_exactly(x.const(1), z)
    value = where(x < 0, z, 1) / total
    return value - value * lost * (1.5 - total * 0.5)  # 1 / total, roughly


def _odd(x: Num, coefficients: Sequence[float]) -> Num:
    """x + x z polynomial(z), z = x²."""
    z = x * x
    return x + x * z * polynomial(z, coefficients)


def tanh(x: Num) -> Num:
    """The hyperbolic tangent."""
    c = constants(x)
    a = x.abs()
    far = 1 - 2 / (exp(_clamp(a, 0, c.one_after) * 2) + 1)
    return with_sign_of(where(a < 0.625, _odd(a, c.polynomials.tanh), far), x)


def _half_exp(a: Num) -> Num:
    """e^a / 2, for a >= 0."""
    n, v = _exp_parts(_clamp(a, 0, constants(a).exp_range[1]))
    return scale(v, n - 1)


def sinh(x: Num) -> Num:
    """The hyperbolic sine."""
    a = x.abs()
    half = _half_exp(a)
    near = _odd(a, constants(x).polynomials.sinh)
    return with_sign_of(where(a < 1, near, half - 0.25 / half), x)


def cosh(x: Num) -> Num:
    """The hyperbolic cosine."""
    half = _half_exp(x.abs())
    return half + 0.25 / half


def erf(x: Num) -> Num:
    """The error function."""
    c = constants(x)
    a = x.abs()
    near = a + a * polynomial(a * a, c.polynomials.erf)
    u = where(a > c.erf_max, c.erf_max, a) - 1
    far = 1 - exp(polynomial(u, c.polynomials.erfc).negate())
    return with_sign_of(where(a < 1, near, far), x)


def _exponent(x: Num) -> tuple[Num, Num]:
    """(k, m) with x = 2^k m and m in [sqrt(1/2), sqrt(2)], for finite x > 0; k as a float."""
    fmt = x.format
    tiny = x < 2.0 ** (1 - fmt.bias)
    bits = where(tiny, x * 2.0 ** (fmt.fraction + 2), x).bits()
    k = (bits - x.const(0.5**0.5).bits()).ashr(fmt.fraction)
    m = (bits - (k << fmt.fraction)).as_float(fmt)
    return to_float(k, x) - where(tiny, x.const(fmt.fraction + 2), 0), m


def _log(x: Num, low: Num | None = None, k: Num | None = None) -> Num:
    """log((x + low) * 2^k), for x >= 0 and a small `low`."""
    c = constants(x)
    exponent, m = _exponent(x)
    if k is not None:
        exponent = exponent + k
    f = m - 1
    s = f / (2 + f)
    z = s * s
    series = z * (polynomial(z, c.polynomials.atanh) * z + c.third[0])
    half = f * f * 0.5
    tail = s * (half + series * 2) + exponent * c.ln2[1]
    if low is not None:
        tail = tail + low / x
    value = exponent * c.ln2[0] - ((half - tail) - f)
    return where(x < INF, where(x.eq(0), -INF, value), x)


def log(x: Num) -> Num:
    """The natural logarithm."""
    return where(x < 0, NAN, _log(x))


def _log1p(x: Num, double_of: Num | None = None) -> Num:
    """log(1 + x) for x >= 0; log(2 `double_of`) where that is so large that 1 is lost beside it."""
    u = x + 1
    low = where(x < 1, x - (u - 1), 1 - (u - x))
    if double_of is None:
        return _log(u, low)
    large = double_of > 2.0 ** (x.format.bits // 2 - 3)
    return _log(where(large, double_of, u), where(large, 0, low), where(large, x.const(1), 0))


def asinh(x: Num) -> Num:
    """The inverse hyperbolic sine."""
    a = x.abs()
    square = a * a
    return with_sign_of(_log1p(a + square / (1 + (square + 1).sqrt()), double_of=a), x)


def acosh(x: Num) -> Num:
    """The inverse hyperbolic cosine, not negative."""
    over = x - 1
    return where(x < 1, NAN, _log1p(over + (over * (x + 1)).sqrt(), double_of=x))


def atanh(x: Num) -> Num:
    """The inverse hyperbolic tangent."""
    a = x.abs()
    value = _log1p((a + a) / (1 - a)) * 0.5
    return with_sign_of(where(a > 1, NAN, value), x)


def _log_pair(x: Num) -> tuple[Num, Num]:
    """log(x) as a sum, with 12 bits (single) or more beyond the precision, for finite x > 0."""
    c = constants(x)
    k, m = _exponent(x)
    f, d = m - 1, m + 1
    s = f / d
    p, error = multiply_exactly(s, d)
    s_low = ((f - p) - error - s * (f - (d - 2))) / d
    z, z_low = multiply_exactly(s, s)
    z_low = z_low + s * s_low * 2
    t, t_low = add_exactly(x.const(c.third[0]), z * polynomial(z, c.polynomials.atanh))
    t_low = t_low + c.third[1]
    v, v_low = multiply_exactly(z, t)
    v_low = v_low + z * t_low + z_low * t
    w, w_low = multiply_exactly(s, v)
    w_low = w_low + s * v_low + s_low * v
    m_log, m_low = add_exactly(s, w)
    m_low = m_low + s_low + w_low
    high, low = add_exactly(k * c.ln2[0], m_log * 2)
    return add_exactly(high, low + (k * c.ln2[1] + m_low * 2))


def pow(x: Num, y: Num) -> Num:
    """x^y, with the special cases of C99."""
    c = constants(x)
    a = x.abs()
    log_a, log_low = _log_pair(a)
    log_a = where(a.eq(0), -INF, where(a < INF, log_a, a))
    product, low = multiply_exactly(y, log_a)
    clamped = _clamp(product, *c.exp_range)
    n, v = _exp_parts(clamped, where(product.eq(clamped), low + y * log_low, 0))
    value = scale(v, n)

    is_whole = round_even(y).eq(y)
    half = y * 0.5
    is_odd = is_whole & round_even(half).ne(half)
    value = where(is_odd, with_sign_of(value, x), value)
    value = where((x < 0) & (x > -INF) & ~is_whole, NAN, value)
    is_one = x.eq(1) | y.eq(0) | (a.eq(1) & y.abs().eq(INF))
    return where(is_one, 1, value)
