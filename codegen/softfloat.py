"""IEEE 754 arithmetic in integers, for every binary format: round to nearest even, no traps.

Formulas over `Num`s that hold a float's bits as an integer; `fmt` is the format of the operands.
Results are correctly rounded, subnormals included; a NaN is always the same quiet one.

In between, a number is a sign (its bit in place), a biased exponent e, and a significand whose
highest bit stands for 2^(e - bias). `_round` takes three bits below the last place: two, and one
that says whether anything was lost below.
"""

from __future__ import annotations

from tbc.arith import Format, Num, where
from tbc.codegen.softint import bits, multiply_wide, normalize, repeat


def _nan(fmt: Format) -> int:
    return fmt.infinity | 1 << (fmt.fraction - 1)


def _magnitude(x: Num, fmt: Format) -> Num:
    return x & (fmt.sign - 1)


def _sign(x: Num, fmt: Format) -> Num:
    return x & fmt.sign


def is_nan(x: Num, fmt: Format) -> Num:
    """Whether the bits are a NaN's."""
    return x.const(fmt.infinity).ult(_magnitude(x, fmt))


def _is_infinite(x: Num, fmt: Format) -> Num:
    return _magnitude(x, fmt).eq(fmt.infinity)


def _is_zero(x: Num, fmt: Format) -> Num:
    return _magnitude(x, fmt).eq(0)


def _unpack(x: Num, fmt: Format) -> tuple[Num, Num]:
    """(e, significand) of a finite number; subnormals have e = 1 and their high bit clear."""
    e = _magnitude(x, fmt) >> fmt.fraction
    significand = x & ((1 << fmt.fraction) - 1)
    is_normal = e.ne(0)
    return where(is_normal, e, 1), where(is_normal, significand | 1 << fmt.fraction, significand)


def _unpack_normal(x: Num, fmt: Format) -> tuple[Num, Num]:
    """(e, significand) of a finite number that is not 0; the high bit is set."""
    e, significand = _unpack(x, fmt)
    significand, shift = normalize(significand, fmt.fraction)
    return e - shift, significand


def _flag(cond: Num, like: Num) -> Num:
    return where(cond, like.const(1), 0)


def _shift_right(x: Num, n: Num | int) -> Num:
    """x >> n, with the lowest bit set if any was lost; any n >= 0."""
    if isinstance(n, Num):
        n = where(n.ult(bits(x)), n, bits(x) - 1)
    shifted = x >> n
    return shifted | _flag((shifted << n).ne(x), x)


def _round(sign: Num, e: Num, significand: Num, fmt: Format) -> Num:
    """The bits of the nearest number; the highest bit is fraction + 3, or lower where e is 1."""
    is_low = e < 1
    significand = _shift_right(significand, where(is_low, 1 - e, 0))
    e = where(is_low, 1, e)
    rounded = (significand + 3 + ((significand >> 3) & 1)) >> 3
    # A subnormal lacks the high bit that the exponent counts on, and rounding may carry into it.
    packed = ((e - 1) << fmt.fraction) + rounded
    return where(e > 2 * fmt.bias, fmt.infinity, packed) | sign


def negate(x: Num, fmt: Format) -> Num:
    """-x."""
    return x ^ fmt.sign


def add(a: Num, b: Num, fmt: Format) -> Num:
    """a + b."""
    swap = _magnitude(a, fmt).ult(_magnitude(b, fmt))
    a, b = where(swap, b, a), where(swap, a, b)
    (e, x), (e_b, y) = _unpack(a, fmt), _unpack(b, fmt)
    differ = _sign(a ^ b, fmt).ne(0)
    x, y = x << 3, _shift_right(y << 3, e - e_b)
    total = where(differ, x - y, x + y)
    # One bit more than a significand takes, so that a carry needs no shift of its own.
    normal, shift = normalize(total, fmt.fraction + 4)
    value = _round(_sign(a, fmt), e + 1 - shift, _shift_right(normal, 1), fmt)
    value = where(total.eq(0), where(differ, 0, _sign(a, fmt)), value)
    invalid = is_nan(a, fmt) | (_is_infinite(b, fmt) & differ)
    special = where(invalid, _nan(fmt), a)
    return where(_magnitude(a, fmt).ult(fmt.infinity), value, special)


def subtract(a: Num, b: Num, fmt: Format) -> Num:
    """a - b."""
    return add(a, negate(b, fmt), fmt)


def multiply(a: Num, b: Num, fmt: Format) -> Num:
    """a * b."""
    sign = _sign(a ^ b, fmt)
    (e_a, x), (e_b, y) = _unpack_normal(a, fmt), _unpack_normal(b, fmt)
    # Shifted so that the high word of the product ends three or four bits below the last place.
    high, low = multiply_wide(x << (fmt.bits - fmt.fraction - 1), y << 4)
    product = high | _flag(low.ne(0), low)
    carry = product >> (fmt.fraction + 4)
    value = _round(sign, e_a + e_b - fmt.bias + carry, _shift_right(product, carry), fmt)
    zero = _is_zero(a, fmt) | _is_zero(b, fmt)
    infinite = _is_infinite(a, fmt) | _is_infinite(b, fmt)
    value = where(zero, sign, where(infinite, sign | fmt.infinity, value))
    invalid = is_nan(a, fmt) | is_nan(b, fmt) | (zero & infinite)
    return where(invalid, _nan(fmt), value)


def divide(a: Num, b: Num, fmt: Format) -> Num:
    """a / b, bit by bit."""
    sign = _sign(a ^ b, fmt)
    (e_a, x), (e_b, y) = _unpack_normal(a, fmt), _unpack_normal(b, fmt)
    less = _flag(x.ult(y), x)

    def step(quotient: Num, rest: Num) -> tuple[Num, Num]:
        fits = ~rest.ult(y)
        return (quotient << 1) | _flag(fits, quotient), where(fits, rest - y, rest) << 1

    quotient, rest = repeat(fmt.fraction + 4, (x.const(0), x << less), step)
    quotient = quotient | _flag(rest.ne(0), rest)
    value = _round(sign, e_a - e_b + fmt.bias - less, quotient, fmt)
    a_zero, b_zero = _is_zero(a, fmt), _is_zero(b, fmt)
    a_infinite, b_infinite = _is_infinite(a, fmt), _is_infinite(b, fmt)
    value = where(a_zero | b_infinite, sign, value)
    value = where(a_infinite | b_zero, sign | fmt.infinity, value)
    invalid = is_nan(a, fmt) | is_nan(b, fmt) | (a_zero & b_zero) | (a_infinite & b_infinite)
    return where(invalid, _nan(fmt), value)


def square_root(a: Num, fmt: Format) -> Num:
    """The square root, bit by bit."""
    e, x = _unpack_normal(a, fmt)
    odd = (e - fmt.bias) & 1

    def step(root: Num, bit: Num, rest: Num) -> tuple[Num, Num, Num]:
        trial = (root << 1) + bit
        fits = ~rest.ult(trial)
        rest = where(fits, rest - trial, rest) << 1
        return where(fits, root + bit, root), bit >> 1, rest

    top = fmt.fraction + 3
    start = (x.const(0), x.const(1 << top), (x << 3) << odd)
    root, _, rest = repeat(top + 1, start, step)
    root = root | _flag(rest.ne(0), rest)
    value = _round(x.const(0), (e - fmt.bias).ashr(1) + fmt.bias, root, fmt)
    value = where(_is_zero(a, fmt) | a.eq(fmt.infinity), a, value)
    invalid = is_nan(a, fmt) | (_sign(a, fmt).ne(0) & ~_is_zero(a, fmt))
    return where(invalid, _nan(fmt), value)


def _pair_shift_right(high: Num, low: Num, n: Num) -> tuple[Num, Num]:
    """Two words shifted right together, the lowest bit set if any was lost; any n >= 0."""
    width = bits(low)
    is_far = ~n.ult(width)
    lost = is_far & low.ne(0)
    low = where(is_far, high, low)
    high = where(is_far, 0, high)
    n = where(is_far, n - width, n)
    n = where(n.ult(width), n, width - 1)
    shifted = (low >> n) | ((high << 1) << (width - 1 - n))
    lost = lost | (low & ~(low.const(-1) << n)).ne(0)
    return high >> n, shifted | _flag(lost, low)


def fused_multiply_add(a: Num, b: Num, c: Num, fmt: Format) -> Num:
    """a * b + c, rounded once."""
    width, fraction = fmt.bits, fmt.fraction
    sign, sign_c = _sign(a ^ b, fmt), _sign(c, fmt)
    (e_a, x), (e_b, y), (e_c, z) = (_unpack_normal(v, fmt) for v in (a, b, c))
    # In two words: the product's high bit is the second or third of all, the addend's the third.
    high, low = multiply_wide(x << (width - fraction - 1), y << (width - fraction - 2))
    e = e_a + e_b - fmt.bias
    z = z << (width - fraction - 3)
    later = e < e_c
    high, low = _pair_shift_right(high, low, where(later, e_c - e, 0))
    z, z_low = _pair_shift_right(z, z.const(0), where(later, 0, e - e_c))
    e = where(later, e_c, e)

    differ = sign.ne(sign_c)
    less = high.ult(z) | (high.eq(z) & low.ult(z_low))
    swap = differ & less
    high, z = where(swap, z, high), where(swap, high, z)
    low, z_low = where(swap, z_low, low), where(swap, low, z_low)
    total_low = where(differ, low - z_low, low + z_low)
    carry = _flag(where(differ, low.ult(z_low), total_low.ult(low)), low)
    total = where(differ, high - z - carry, high + z + carry)
    cancelled = (total | total_low).eq(0)

    is_low = total.eq(0)
    total, total_low = where(is_low, total_low, total), where(is_low, 0, total_low)
    e = where(is_low, e - width, e) + 2
    normal, shift = normalize(total, width - 1)
    normal = normal | ((total_low >> 1) >> (width - 1 - shift))
    sticky = _flag((total_low << shift).ne(0), total_low)
    significand = _shift_right(normal, width - fraction - 4) | sticky
    value = where(cancelled, 0, _round(where(swap, sign_c, sign), e - shift, significand, fmt))

    zero = _is_zero(a, fmt) | _is_zero(b, fmt)
    value = where(zero, where(_is_zero(c, fmt), sign & sign_c, c), value)
    infinite = _is_infinite(a, fmt) | _is_infinite(b, fmt)
    infinite_c = _is_infinite(c, fmt)
    value = where(infinite_c, c, where(infinite, sign | fmt.infinity, value))
    invalid = (zero & infinite) | (infinite & infinite_c & differ)
    return where(invalid | is_nan(a, fmt) | is_nan(b, fmt) | is_nan(c, fmt), _nan(fmt), value)


def remainder(a: Num, b: Num, fmt: Format) -> Num:
    """C's fmod: a - b trunc(a / b), exactly."""
    (e_a, x), (e_b, y) = _unpack_normal(a, fmt), _unpack_normal(b, fmt)

    def step(rest: Num) -> tuple[Num]:
        return (where(rest.ult(y), rest, rest - y) << 1,)

    times = (e_a - e_b + 1).cast("trunc", "i32")
    (rest,) = repeat(times, (x,), step)
    rest, shift = normalize(rest, fmt.fraction + 3)
    value = _round(_sign(a, fmt), e_b + 2 - shift, rest, fmt)
    value = where(rest.eq(0), _sign(a, fmt), value)
    value = where(_magnitude(a, fmt).ult(_magnitude(b, fmt)), a, value)
    invalid = is_nan(a, fmt) | is_nan(b, fmt) | _is_infinite(a, fmt) | _is_zero(b, fmt)
    return where(invalid, _nan(fmt), value)


def _order(x: Num, fmt: Format) -> Num:
    """A signed integer that orders numbers, -0 below 0."""
    return x ^ (x.ashr(fmt.bits - 1) & (fmt.sign - 1))


def unordered(a: Num, b: Num, fmt: Format) -> Num:
    """Whether one is a NaN."""
    return is_nan(a, fmt) | is_nan(b, fmt)


def equal(a: Num, b: Num, fmt: Format) -> Num:
    """a == b."""
    both_zero = _is_zero(a | b, fmt)
    return (a.eq(b) | both_zero) & ~unordered(a, b, fmt)


def less(a: Num, b: Num, fmt: Format) -> Num:
    """a < b."""
    both_zero = _is_zero(a | b, fmt)
    return (_order(a, fmt) < _order(b, fmt)) & ~both_zero & ~unordered(a, b, fmt)


def minimum(a: Num, b: Num, fmt: Format, propagate_nan: bool) -> Num:
    """The lesser, -0 below 0; of a NaN and a number the NaN, or else the number."""
    value = where(_order(a, fmt) < _order(b, fmt), a, b)
    if propagate_nan:
        return where(unordered(a, b, fmt), _nan(fmt), value)
    return where(is_nan(a, fmt), b, where(is_nan(b, fmt), a, value))


def maximum(a: Num, b: Num, fmt: Format, propagate_nan: bool) -> Num:
    """The greater, 0 above -0; of a NaN and a number the NaN, or else the number."""
    value = where(_order(a, fmt) < _order(b, fmt), b, a)
    if propagate_nan:
        return where(unordered(a, b, fmt), _nan(fmt), value)
    return where(is_nan(a, fmt), b, where(is_nan(b, fmt), a, value))


def widen(x: Num, fmt: Format, to: Format) -> Num:
    """The same number in a format whose exponent and fraction both have more bits."""
    x = x.cast("zext", to.integer)
    sign = _sign(x, fmt) << (to.bits - fmt.bits)
    e, significand = _unpack_normal(x, fmt)
    significand = significand << (to.fraction - fmt.fraction)
    value = ((e + to.bias - fmt.bias - 1) << to.fraction) + significand
    value = where(_is_zero(x, fmt), 0, where(_is_infinite(x, fmt), to.infinity, value))
    return where(is_nan(x, fmt), _nan(to), value | sign)


def narrow(x: Num, fmt: Format, to: Format) -> Num:
    """The nearest number of a format with a shorter fraction."""
    sign = _sign(x, fmt) >> (fmt.bits - to.bits)
    e, significand = _unpack(x, fmt)
    significand = _shift_right(significand, fmt.fraction - to.fraction - 3)
    value = _round(sign, e - fmt.bias + to.bias, significand, to)
    value = where(_is_infinite(x, fmt), sign | to.infinity, value)
    return where(is_nan(x, fmt), _nan(to), value).cast("trunc", to.integer)


def from_integer(x: Num, fmt: Format, signed: bool) -> Num:
    """The nearest number to an integer of 32 or 64 bits."""
    width = max(bits(x), fmt.bits)
    negative = x < 0 if signed else x.ne(x)
    size = where(negative, 0 - x, x).cast("zext", f"i{width}")
    size, shift = normalize(size, width - 1)
    significand = _shift_right(size, width - fmt.fraction - 4)
    e = size.const(fmt.bias + width - 1) - shift
    sign = where(negative, size.const(fmt.sign), 0)
    value = _round(sign, e, significand, fmt)
    return where(size.eq(0), 0, value).cast("trunc", fmt.integer)


def to_integer(x: Num, fmt: Format, type: str, signed: bool) -> Num:
    """x truncated to an integer of 32 or 64 bits, at the nearest end if out of range; 0 for NaN."""
    width = int(type[1:])
    wide = f"i{max(width, fmt.bits)}"
    negative, nan = _sign(x, fmt).ne(0), is_nan(x, fmt)
    e, significand = (v.cast("zext", wide) for v in _unpack(x, fmt))
    e = e - fmt.bias
    up, down = e - fmt.fraction, fmt.fraction - e
    last = e.const(bits(e) - 1)
    left = significand << where(up.ult(last), up, last)
    right = significand >> where(down.ult(last), down, last)
    size = where(e < fmt.fraction, where(e < 0, 0, right), left)
    if signed:
        limit = (1 << (width - 1)) - 1
        too_large = ~(e < width - 1)
        value = where(too_large, where(negative, ~size.const(limit), limit), size)
        value = where(negative & ~too_large, 0 - value, value)
    else:
        value = where(~(e < width), (1 << width) - 1, size)
        value = where(negative, 0, value)
    value = value.cast("trunc", type)
    return where(nan, 0, value)
