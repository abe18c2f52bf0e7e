"""Dense: products of integers by constant weights of 8 bits become dots, where there are kernels.

The product is exact modulo 2^32, as is the dot with what completes it, so nothing but speed depends
on whether a target has kernels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tbc.constants import constant, value_of
from tbc.dims import product, static
from tbc.ir import Graph, Value, rebuilt
from tbc.kernels import dense_code
from tbc.ops import Binary, Broadcast, Cast, MatMul, Reshape, Slice, Transpose
from tbc.passes.carry import reshaped, swapped
from tbc.passes.codes import factor, integer_dot, row_sums
from tbc.passes.ranges import Ranges
from tbc.types import DType

if TYPE_CHECKING:
    from tbc.target import Target


_KEEPING = (Broadcast, Cast, Reshape, Slice, Transpose)
"""Operations whose results have no other elements than their argument, as wide integers."""


def dense(graph: Graph, target: Target) -> Graph:
    """The graph with products of i32 whose operands have 8 bits as dots of i8."""
    if not dense_code(target, 1):
        return graph
    ranges = Ranges()

    def change(value: Value, args: tuple[Value, ...]) -> Value:
        value = rebuilt(value, args)
        is_product = isinstance(value.op, MatMul) and value.type.dtype is DType.i32
        if not is_product or value.is_constant:
            return value
        a, b = args
        if b.is_constant:
            return _dot(a, b, target, ranges) or value
        if a.is_constant:
            found = _dot(swapped(b), swapped(a), target, ranges)
            return value if found is None else swapped(found)
        return value

    return graph.rebuild(change)


def _dot(a: Value, b: Value, target: Target, ranges: Ranges) -> Value | None:
    """a[…, m, k] by one constant b[k, n], or None where they are not of 8 bits."""
    build = a.builder
    k, n = (static(d, "the size of a weight") for d in b.type.shape[-2:])
    if product(b.type.shape[:-2]) != 1 or not (k and n) or not dense_code(target, k):
        return None
    codes = factor(reshaped(a, (*[1] * (b.type.rank - a.type.rank), *a.type.shape)), ranges)
    lo, hi = _span(b)
    if codes is None or codes.scales or hi - lo > 255:
        return None
    w, (least, most) = swapped(reshaped(b, (k, n))), DType.i8.range
    if least <= lo and hi <= most:
        return integer_dot(codes, build(Cast(DType.i8), w))
    middle = constant(build, lo - least, DType.i32)
    y = integer_dot(codes, build(Cast(DType.i8), build(Binary("sub"), w, middle)))
    return build(Binary("add"), y, build(Binary("mul"), row_sums(codes), middle))


def _span(b: Value) -> tuple[int, int]:
    """The least and the greatest element of a constant, or of those that its type can hold."""
    source = b
    while source.type.dtype.bits > 8 and isinstance(source.op, _KEEPING):
        source = source.args[0]
    if source.type.dtype.is_int and source.type.dtype.bits <= 8:
        return source.type.dtype.range
    elements = value_of(b)
    return int(elements.min()), int(elements.max())
