"""Rounding to integer codes by integer arithmetic, where that of floats takes longer.

The quantisers of ONNX are `cast(clip(round(x)) + zero)` in some order, in floats. With an FPU, but
without float vectors, 32-bit Arm has `vcvtr`, which makes an integer of x, rounded to even,
saturated. The rest is integer arithmetic, and `usat` or `ssat` is a whole clip. A comparison and a
choice of floats are five instructions, so all of it in floats would be some forty. Where floats are
calls, it would be about 500; there the integer is made of the bits of x.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from tbc.codegen.llvm_text import Function, Val, const
from tbc.constants import value_of
from tbc.ir import Value
from tbc.ops import Binary, Cast, Unary
from tbc.types import DType

_LARGEST = 1 << 20
"""Bounds and zero points are at most so large: sums of them and floats up to 2^23 are exact, and
what is larger ends at a bound."""


@dataclass(frozen=True)
class Codes:
    """clip(round(x), lo, hi) + offset, where x is f32; 0 where x is nan.

    Attributes:
        steps: the values between x and the cast, and the constants of lo, hi and offset.
    """

    x: Value
    lo: float = -math.inf
    hi: float = math.inf
    offset: float = 0.0
    steps: tuple[Value, ...] = ()

    def plus(self, c: float) -> Codes:
        """The codes with c added."""
        return replace(self, offset=self.offset + c)

    def clipped(self, lo: float, hi: float) -> Codes:
        """The codes with results kept in lo..hi."""
        low, high = lo - self.offset, hi - self.offset
        inside = [min(max(bound, low), high) for bound in (self.lo, self.hi)]
        return replace(self, lo=inside[0], hi=inside[1])

    @property
    def is_small(self) -> bool:
        """Whether 32-bit integers do what floats do."""
        return max(abs(self.lo), abs(self.hi), abs(self.offset)) <= _LARGEST


def codes_of(value: Value) -> Codes | None:
    """A cast to at most 16 bits as codes, if it is one of a rounded f32 value."""
    match value:
        case Value(Cast(dtype), (inner,)) if dtype.is_int and dtype.bits <= 16:
            found = _rounded(inner)
            whole = found and found.clipped(*map(float, dtype.range))
            return whole if whole and whole.is_small else None
    return None


def _rounded(value: Value) -> Codes | None:
    match value:
        case Value(Unary("round"), (x,)) if x.type.dtype is DType.f32:
            return Codes(x, steps=(value,))
        case Value(Binary("add" | "sub" | "max" | "min" as fn), (a, b)):
            c, found = _integer(b), _rounded(a) if a.type.shape == value.type.shape else None
            if c is None or found is None:
                return None
            found = replace(found, steps=(*found.steps, value, b))
            if fn in ("add", "sub"):
                moved = found.plus(c if fn == "add" else -c)
                return moved if abs(moved.offset) <= _LARGEST else None
            return found.clipped(c, math.inf) if fn == "max" else found.clipped(-math.inf, c)
    return None


def _integer(value: Value) -> float | None:
    """The number that a scalar constant is, if that is a small integer."""
    if not value.is_constant or value.type.size != 1:
        return None
    number = float(np.asarray(value_of(value)).reshape(()))
    return number if number.is_integer() and abs(number) <= _LARGEST else None


def emit_codes(f: Function, codes: Codes, x: Val, width: int) -> Val:
    """The code of one x, as an integer of so many bits, or of a byte."""
    bits = f.cast("bitcast", x, "i32")
    vcvtr = f.module.rounds_to_int == "vcvtr"
    whole = _converted(f, x) if vcvtr else _of_bits(f, bits)
    clipped = _clip(f, whole, int(codes.lo), int(codes.hi), vcvtr)
    code = f.op("add", clipped, const("i32", int(codes.offset)))
    magnitude = f.op("and", bits, const("i32", 0x7FFFFFFF))
    is_nan = f.fcmp("uno", x, x) if vcvtr else f.icmp("ugt", magnitude, const("i32", 0x7F800000))
    kept = f.select(is_nan, const("i32", 0), code)
    return f.cast("trunc", kept, f"i{max(width, 8)}")


def _converted(f: Function, x: Val) -> Val:
    """x rounded to even, saturated to 32 bits."""
    return f.cast("bitcast", f.intrinsic("float", "llvm.arm.vcvtr.f32", x), "i32")


def _of_bits(f: Function, bits: Val) -> Val:
    """The f32 of some bits, not nan, rounded to even; of 2^23 on, any integer from 2^22 on.

    A float is m * 2^-shift, m of 24 bits: half of the last place that stays, less what makes a tie
    even, is added before the rest is shifted out.
    """

    def number(value: int) -> Val:
        return const("i32", value)

    exponent = f.op("and", f.op("lshr", bits, number(23)), number(255))
    shift = f.op("sub", number(150), exponent)
    shift = f.select(f.icmp("sgt", shift, number(1)), shift, number(1))
    shift = f.select(f.icmp("slt", shift, number(25)), shift, number(25))
    m = f.op("or", f.op("and", bits, number((1 << 23) - 1)), number(1 << 23))
    half = f.op("shl", number(1), f.op("sub", shift, number(1)))
    odd = f.op("and", f.op("lshr", m, shift), number(1))
    rounded = f.op("lshr", f.op("add", f.op("add", m, half), f.op("sub", odd, number(1))), shift)
    sign = f.op("ashr", bits, number(31))
    return f.op("sub", f.op("xor", rounded, sign), sign)


def _clip(f: Function, a: Val, lo: int, hi: int, saturates: bool) -> Val:
    """a in lo..hi; `saturates` says that usat and ssat are there."""
    bits = (hi - lo).bit_length()
    if saturates and hi - lo == (1 << bits) - 1 and lo in (0, -(1 << bits >> 1)):
        return f.intrinsic("i32", f"llvm.arm.{'ssat' if lo else 'usat'}", a, const("i32", bits))
    low = f.select(f.icmp("sgt", a, const("i32", lo)), a, const("i32", lo))
    return f.select(f.icmp("slt", low, const("i32", hi)), low, const("i32", hi))
