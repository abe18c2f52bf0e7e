"""Floats of 8 and 4 bits, which are only stored: what a cast to or from them computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tbc.ir import Value
from tbc.ops import BitCast, Gather
from tbc.types import DType

if TYPE_CHECKING:
    from tbc.frontend.context import Context


@dataclass(frozen=True)
class Format:
    """How a small float's bits are read.

    Attributes:
        fraction: the bits of the fraction.
        bias: what is added to the exponent.
        most: the greatest number.
        nan: the code of a nan.
        infinity: its code; None where a nan stands for it.
        negative_zero: whether there is one.
    """

    fraction: int
    bias: int
    most: float
    nan: int
    infinity: int | None = None
    negative_zero: bool = True


FORMATS: Mapping[DType, Format] = {
    DType.f8e4m3fn: Format(3, 7, 448, nan=0x7F),
    DType.f8e4m3fnuz: Format(3, 8, 240, nan=0x80, negative_zero=False),
    DType.f8e5m2: Format(2, 15, 57344, nan=0x7E, infinity=0x7C),
    DType.f8e5m2fnuz: Format(2, 16, 57344, nan=0x80, negative_zero=False),
    DType.f4e2m1: Format(1, 1, 6, nan=0x8),  # that is -0: it has no nan
}
_PARTS = {DType.f32: (DType.i32, 23, 127), DType.f64: (DType.i64, 52, 1023)}
"""The integers of the same width, the bits of the fraction, and the bias."""


def codes_type(dtype: DType) -> DType:
    """The unsigned integers whose bits a small float's are."""
    return DType.u8 if dtype.bits == 8 else DType.u4


def as_stored(c: Context, x: Value) -> Value:
    """x in the type in which it crosses a model's border: u8 or i8 for what has no bytes in C."""
    dtype = x.type.dtype
    if dtype.is_small_float:
        return c.cast(c(BitCast(codes_type(dtype)), x), DType.u8)
    return c.cast(x, stored_type(dtype))


def from_stored(c: Context, x: Value, dtype: DType) -> Value:
    """The inverse of `as_stored`; what a byte holds besides the element is cut off."""
    if dtype.is_small_float:
        return c(BitCast(dtype), c.cast(x, codes_type(dtype)))
    return c.cast(x, dtype)


def stored_type(dtype: DType) -> DType:
    """The type in which elements of a type cross a model's border."""
    if dtype.is_small_float:
        return DType.u8
    if dtype.bits < 8:
        return DType.i8 if dtype.kind == "i" else DType.u8
    return dtype


def elements_of(array: npt.NDArray[Any], dtype: DType) -> npt.NDArray[Any]:
    """An array that may be the bytes in which small floats cross a model's border, as those."""
    is_bytes = dtype.is_small_float and array.dtype == np.uint8
    return array.view(dtype.numpy) if is_bytes else array


def widened(c: Context, x: Value) -> Value:
    """A small float in f32, by a table of what its codes mean."""
    old = x.type.dtype
    codes = np.arange(1 << old.bits, dtype=np.uint8).view(old.numpy)
    table = c.constant(codes.astype(np.float32), DType.f32)
    index = c.cast(c(BitCast(codes_type(old)), x), DType.i32)
    return c(Gather(0), table, index)


def narrowed(c: Context, x: Value, dtype: DType, saturate: bool = True) -> Value:
    """The small float nearest to x, ties to even.

    What is beyond the greatest one becomes that, or without `saturate` an infinity or a nan; f4e2m1
    always saturates.
    """
    form = FORMATS[dtype]
    wide = x if x.type.dtype is DType.f64 else c.cast(x, DType.f32)
    code, beyond = _magnitude(c, c.unary("abs", wide), form)
    is_nan = c.unary("isnan", wide)
    if saturate or dtype.bits < 8:
        greatest = int(np.array(form.most, dtype.numpy).view(np.uint8))
        code = c.where(beyond, greatest, code)
    elif form.infinity is not None:
        code = c.where(beyond, form.infinity, code)
    else:
        is_nan = c.binary("or", is_nan, beyond)
    negative = c.binary("lt", c(BitCast(code.type.dtype), wide), 0)
    if not form.negative_zero:
        negative = c.binary("and", negative, c.binary("ne", code, 0))
    code = c.where(negative, c.add(code, 1 << (dtype.bits - 1)), code)
    code = c.where(is_nan, form.nan, code)
    return c(BitCast(dtype), c.cast(code, codes_type(dtype)))


def _magnitude(c: Context, size: Value, form: Format) -> tuple[Value, Value]:
    """The code of the nearest number to one that is not negative, and whether it is too great."""
    real = size.type.dtype
    whole, fraction, bias = _PARTS[real]
    exponent = c.binary("shr", c(BitCast(whole), size), fraction)
    exponent = c.binary("max", exponent, 1 - form.bias + bias)
    quantum = c(BitCast(real), c.binary("shl", c.sub(exponent, form.fraction), fraction))
    nearest = c.mul(c.unary("round", c.div(size, quantum)), quantum)
    # With the small float's bias, the upper bits are its code; also where it is subnormal.
    bits = c(BitCast(whole), c.mul(nearest, 2.0 ** (form.bias - bias)))
    return c.binary("shr", bits, fraction - form.fraction), c.binary("gt", nearest, form.most)
