"""Integer arithmetic that a machine lacks, from the operations that every machine has.

Formulas over integer `Num`s; a `half` is an integer of half the bits. Nothing here may need what it
provides: a product of two words is made of products of half words, a shift of two words of shifts
of one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tbc.arith import Num, where
from tbc.codegen.llvm_text import Val, bits_of
from tbc.codegen.math import LlvmArith, num, raw


def bits(x: Num) -> int:
    """The width of an integer."""
    return bits_of(x.type)


def repeat(times: Num | int, state: Sequence[Num], step: Callable[..., Sequence[Num]]) -> list[Num]:
    """`state` after `times` (an i32; none if negative) applications of `step`."""
    arith = state[0].arith
    assert isinstance(arith, LlvmArith)
    stop = raw(times) if isinstance(times, Num) else Val("i32", str(times))
    with arith.f.loop(Val("i32", "0"), stop, carried=[raw(s) for s in state]) as loop:
        loop.yield_(*(raw(s) for s in step(*(num(arith.f, c) for c in loop.carried))))
    return [num(arith.f, r) for r in loop.results]


def normalize(x: Num, top: int) -> tuple[Num, Num]:
    """(x << n, n) with bit `top` the highest that is set; n is at least `top` for x = 0."""
    n = x.const(0)
    for k in reversed(range(top.bit_length())):
        fits = x.ult(1 << (top + 1 - (1 << k)))
        x = where(fits, x << (1 << k), x)
        n = where(fits, n | (1 << k), n)
    return x, n


def count_leading_zeros(x: Num) -> Num:
    """The zero bits above the highest set bit; all of them for 0."""
    return where(x.eq(0), bits(x), normalize(x, bits(x) - 1)[1])


def halves(x: Num) -> tuple[Num, Num]:
    """(high, low)."""
    half = f"i{bits(x) // 2}"
    return (x >> (bits(x) // 2)).cast("trunc", half), x.cast("trunc", half)


def join(high: Num, low: Num) -> Num:
    """The integer of these halves."""
    whole = f"i{2 * bits(low)}"
    return (high.cast("zext", whole) << bits(low)) | low.cast("zext", whole)


def multiply_wide(a: Num, b: Num) -> tuple[Num, Num]:
    """The (high, low) words of the unsigned product."""
    half = bits(a) // 2
    mask = (1 << half) - 1
    ah, al, bh, bl = a >> half, a & mask, b >> half, b & mask
    low = al * bl
    middle = ah * bl + (low >> half)
    other = al * bh + (middle & mask)
    return ah * bh + (middle >> half) + (other >> half), (other << half) | (low & mask)


def multiply(a: Num, b: Num) -> Num:
    """The product modulo 2^n, from half-width multiplications."""
    (ah, al), (bh, bl) = halves(a), halves(b)
    high, low = multiply_wide(al, bl)
    return join(high + al * bh + ah * bl, low)


def multiply_serially(a: Num, b: Num) -> Num:
    """The product modulo 2^n, from shifts and additions."""

    def step(a: Num, b: Num, product: Num) -> tuple[Num, Num, Num]:
        return a << 1, b >> 1, product + (a & (b.const(0) - (b & 1)))

    return repeat(bits(a), (a, b, a.const(0)), step)[2]


def shift_left(x: Num, n: Num) -> Num:
    """x << n, from half-width shifts."""
    high, low = halves(x)
    width, n = bits(high), n.cast("trunc", high.type)
    near = n & (width - 1)
    crossing = (low >> 1) >> ((width - 1) - near)
    moved = low << near
    is_far = (n & width).ne(0)
    return join(where(is_far, moved, (high << near) | crossing), where(is_far, 0, moved))


def shift_right(x: Num, n: Num, signed: bool) -> Num:
    """x >> n, from half-width shifts."""
    high, low = halves(x)
    width, n = bits(high), n.cast("trunc", high.type)
    near = n & (width - 1)
    crossing = (high << 1) << ((width - 1) - near)
    moved = high.ashr(near) if signed else high >> near
    fill = high.ashr(width - 1) if signed else high.const(0)
    is_far = (n & width).ne(0)
    return join(where(is_far, fill, moved), where(is_far, moved, (low >> near) | crossing))


def divide_unsigned(n: Num, d: Num) -> tuple[Num, Num]:
    """(n / d, n mod d), bit by bit from the highest set bit of n on; anything for d = 0."""
    width = bits(n)

    def step(n: Num, r: Num) -> tuple[Num, Num]:
        overflows = r.ashr(width - 1).ne(0)
        r = (r << 1) | (n >> (width - 1))
        fits = overflows | ~r.ult(d)
        return (n << 1) | where(fits, n.const(1), 0), where(fits, r - d, r)

    shifted, skipped = normalize(n, width - 1)
    times = (width - skipped).cast("trunc", "i32")
    quotient, remainder = repeat(times, (shifted, n.const(0)), step)
    return quotient, remainder


def divide_signed(n: Num, d: Num) -> tuple[Num, Num]:
    """(n / d, n mod d), towards zero."""

    def with_sign(x: Num, sign: Num) -> Num:
        return (x ^ sign) - sign

    n_sign, d_sign = n.ashr(bits(n) - 1), d.ashr(bits(d) - 1)
    quotient, remainder = divide_unsigned(with_sign(n, n_sign), with_sign(d, d_sign))
    return with_sign(quotient, n_sign ^ d_sign), with_sign(remainder, n_sign)
