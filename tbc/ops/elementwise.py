"""Operations on one element of each argument at a time."""

from __future__ import annotations

from dataclasses import dataclass

from tbc.ops.checks import broadcast_shapes, has_arithmetic, has_bits, require
from tbc.types import DType, TensorType

FLOAT_UNARY = (
    "exp", "log", "sqrt", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh",
    "acosh", "atanh", "tanh", "sigmoid", "erf", "floor", "ceil", "round",
)  # fmt: skip
UNARY = (*FLOAT_UNARY, "neg", "abs", "sign", "not", "invert", "isnan", "isinf")
COMPARE = ("eq", "ne", "lt", "le", "gt", "ge")
BITWISE = ("and", "or", "xor", "shl", "shr")
BINARY = (
    *("add", "sub", "mul", "mulh", "div", "mod", "fmod", "pow", "min", "max"),
    *BITWISE,
    *COMPARE,
)


@dataclass(frozen=True)
class Unary:
    """fn(x), element by element.

    `round` is half to even, `not` logical, `invert` bitwise, `sign` of a zero or a nan is itself.
    """

    fn: str

    def infer(self, x: TensorType) -> TensorType:
        """x's type; bool for the predicates."""
        require(self.fn in UNARY, f"unknown function {self.fn}")
        d = x.dtype
        if self.fn in FLOAT_UNARY or self.fn in ("isnan", "isinf"):
            require(d.is_float, f"{self.fn} needs a float, not {d.name}")
        elif self.fn == "not":
            require(d is DType.bool, f"not needs a bool, not {d.name}")
        else:
            fits = has_arithmetic(d) and not (self.fn == "invert" and d.is_float)
            require(fits, f"{self.fn} does not take {d.name}")
        return TensorType(DType.bool, x.shape) if self.fn in ("isnan", "isinf") else x


@dataclass(frozen=True)
class Binary:
    """fn(a, b), element by element, broadcasting.

    Integers wrap; integer `div` truncates and `mod` takes the divisor's sign, both 0 where the
    divisor is 0; `fmod` takes the dividend's sign (of floats it is exact, and `mod` adds b to it
    where the signs differ). `max(a, b)` is `a if a > b or a is nan else b`, `min` likewise. Shifts
    by the width or more, or by a negative number, give 0 (`shr` of a negative number, -1). An
    integer to a negative power is truncated too: 0 unless it is 1 or -1. `mulh` is the upper half
    of the 64 bits of a product of i32.
    """

    fn: str

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        """The common type, broadcast; bool for comparisons."""
        require(self.fn in BINARY, f"unknown function {self.fn}")
        require(a.dtype is b.dtype, f"{self.fn} of {a.dtype.name} and {b.dtype.name}")
        d = a.dtype
        if self.fn in BITWISE:
            fits = has_arithmetic(d) and not d.is_float
            fits |= d is DType.bool and self.fn in ("and", "or", "xor")
        elif self.fn in ("eq", "ne", "min", "max"):
            fits = not d.is_small_float
        elif self.fn == "mulh":
            fits = d is DType.i32
        else:
            fits = has_arithmetic(d) or (d.is_int and self.fn in COMPARE)
        require(fits, f"{self.fn} does not take {d.name}")
        shape = broadcast_shapes(a.shape, b.shape)
        return TensorType(DType.bool if self.fn in COMPARE else d, shape)


@dataclass(frozen=True)
class Where:
    """a where cond, else b, broadcasting."""

    def infer(self, cond: TensorType, a: TensorType, b: TensorType) -> TensorType:
        """The type of a and b, broadcast with cond."""
        require(cond.dtype is DType.bool, "where needs a bool condition")
        require(a.dtype is b.dtype, f"where of {a.dtype.name} and {b.dtype.name}")
        return TensorType(a.dtype, broadcast_shapes(cond.shape, a.shape, b.shape))


@dataclass(frozen=True)
class Cast:
    """x in another type.

    Floats become integers by truncation, saturated, nan to 0; integers wrap; anything but 0 is
    True; a float is rounded to the nearest, ties to even (to bf16, by way of f32). Only values that
    `trit` or `sign` has can be cast to it. Small floats have a `BitCast` only.
    """

    dtype: DType

    def infer(self, x: TensorType) -> TensorType:
        """x's shape in the new type."""
        small = x.dtype.is_small_float or self.dtype.is_small_float
        require(not small, f"cast of {x} to {self.dtype.name}")
        return TensorType(self.dtype, x.shape)


@dataclass(frozen=True)
class BitCast:
    """x's bits as another type of the same width.

    A nan is the quiet one without a sign before, whatever its bits were.
    """

    dtype: DType

    def infer(self, x: TensorType) -> TensorType:
        """x's shape in the new type."""
        require(has_bits(x.dtype) and has_bits(self.dtype), f"bits of {x} as {self.dtype.name}")
        require(x.dtype.bits == self.dtype.bits, f"bits of {x} as {self.dtype.name}")
        return TensorType(self.dtype, x.shape)
