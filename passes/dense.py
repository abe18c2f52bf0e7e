"""Dense: products of integers by constants of 8 or 4 bits become dots, where there are kernels.

The product is exact modulo 2^32, as is the dot with what completes it, so nothing but speed depends
on whether a target has kernels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tbc.constants import constant, value_of
from tbc.dims import product, static
from tbc.ir import Graph, Value, rebuilt
from tbc.kernels import dense_code
from tbc.ops import Binary, Broadcast, Cast, GroupedDot, MatMul, Reshape, Slice, Transpose
from tbc.passes.blocks import by_products
from tbc.passes.carry import by_constant, reshaped, swapped
from tbc.passes.codes import factor, integer_dot, row_sums
from tbc.passes.ranges import Ranges
from tbc.types import DType

if TYPE_CHECKING:
    from tbc.target import Target

Array = npt.NDArray[Any]

_KEEPING = (Broadcast, Cast, Reshape, Slice, Transpose)
"""Operations whose results have no other elements than their argument, as wide integers."""


def dense(graph: Graph, target: Target) -> Graph:
    """The graph with products of i32 whose operands have 8 bits as dots of i8.

    Elsewhere such weights are at least kept in 8 bits.
    """
    ranges = Ranges()

    def make(a: Value, b: Value) -> Value | None:
        return _dot(a, b, target, ranges) or _narrow(a, b)

    def change(value: Value, args: tuple[Value, ...]) -> Value:
        value = rebuilt(value, args)
        if isinstance(value.op, MatMul) and value.type.dtype is DType.i32:
            return by_constant(value, make) or value
        if isinstance(value.op, GroupedDot) and value.args[1].type.dtype.is_int:
            return value if _has_kernels(value, target) else by_products(value)
        return value

    return graph.rebuild(change)


def _has_kernels(value: Value, target: Target) -> bool:
    """Whether a target has kernels for a grouped dot of integers."""
    w, s = value.args[1:3]
    k, groups = (static(d, "the size of a weight") for d in (w.type.shape[1], s.type.shape[1]))
    return bool(dense_code(target, k, w.type.dtype, k // groups))


def _dot(a: Value, b: Value, target: Target, ranges: Ranges) -> Value | None:
    """a[…, m, k] by one constant b[k, n], or None where they are of more than 8 bits.

    A column whose range is not that of the type is moved into it.
    """
    build = a.builder
    k, n = (static(d, "the size of a weight") for d in b.type.shape[-2:])
    if product(b.type.shape[:-2]) != 1 or not (k and n) or not dense_code(target, k):
        return None
    codes = factor(reshaped(a, (*[1] * (b.type.rank - a.type.rank), *a.type.shape)), ranges)
    if codes is None or codes.scales:
        return None
    w = swapped(reshaped(b, (k, n)))
    lo, hi = _spans(w)
    dtypes = [DType.i4] if dense_code(target, k, DType.i4) else []
    for dtype in (*dtypes, DType.i8):
        least, most = dtype.range
        if least <= lo.min() and hi.max() <= most:
            return integer_dot(codes, build(Cast(dtype), w))
        if (hi - lo).max() <= most - least:
            break
    else:
        return None
    middle = constant(build, lo - least, DType.i32)
    column = reshaped(middle, (middle.type.size, 1)) if middle.type.rank else middle
    y = integer_dot(codes, build(Cast(dtype), build(Binary("sub"), w, column)))
    return build(Binary("add"), y, build(Binary("mul"), row_sums(codes), middle))


def _narrow(a: Value, b: Value) -> Value | None:
    """The product with b widened where it is read, or None where that is no gain."""
    if isinstance(b.op, Cast) or not b.type.size or b.type.size == 1:
        return None
    lo, hi = _spans(b)
    fits = (d for d in (DType.i8, DType.u8) if d.range[0] <= lo.min() and hi.max() <= d.range[1])
    dtype = next(fits, None)
    if dtype is None:
        return None
    build = a.builder
    return build(MatMul(), a, build(Cast(DType.i32), build(Cast(dtype), b)))


def _spans(b: Value) -> tuple[Array, Array]:
    """The least and the greatest element of a constant's rows, or of all of them.

    Of integers of at most 8 bits in other types they are those of the whole, or what 4 bits hold.
    """
    source = b
    while source.type.dtype.bits > 8 and isinstance(source.op, _KEEPING):
        source = source.args[0]
    if not (source.type.dtype.is_int and source.type.dtype.bits <= 8):
        elements = value_of(b)
        return elements.min(-1).astype(np.int64), elements.max(-1).astype(np.int64)
    if source.type.dtype.bits <= 4:
        least, most = source.type.dtype.range
    else:
        elements = value_of(source)
        least, most = int(elements.min()), int(elements.max())
    return np.array(least), np.array(most)
