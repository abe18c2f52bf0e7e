"""Integers: products of quantised activations by stored 8-bit weights are products of integers.

Such are the layers of a quantised network that are not low-bit: DequantizeLinear of both operands,
and the product in f32. The product of the integers is exact and is rounded once, on its way to f32,
where the scales are applied, those of the activations first; or, of scales of groups along k, group
by group (`blocks`). Low-bit weights are left to `lift`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tbc.constants import constant, value_of
from tbc.dims import product, static
from tbc.ir import Graph, Value, rebuilt
from tbc.ops import Binary, Broadcast, Cast, MatMul, Reshape, Slice, Transpose
from tbc.passes.blocks import grouped_product
from tbc.passes.carry import by_constant, reshaped, swapped
from tbc.passes.codes import Codes, factor, scaled
from tbc.passes.columns import detect_parts
from tbc.passes.ranges import Ranges
from tbc.passes.trits import detect
from tbc.types import DType

if TYPE_CHECKING:
    from tbc.target import Target

_LONGEST = (1 << 31) // (255 * 255)
"""Of sums of products of 8-bit numbers that fit 32 bits."""


def integers(graph: Graph, target: Target) -> Graph:
    """The graph with every f32 product of codes by dense 8-bit weights as one of i32."""
    ranges = Ranges()

    def change(value: Value, args: tuple[Value, ...]) -> Value:
        value = rebuilt(value, args)
        if isinstance(value.op, MatMul) and value.type.dtype is DType.f32:
            return by_constant(value, partial(_product, ranges)) or value
        return value

    return graph.rebuild(change)


def _product(ranges: Ranges, a: Value, b: Value) -> Value | None:
    """a[…, m, k] by one constant b[k, n], or None where it is left as it is."""
    k, n = (static(d, "the size of a weight") for d in b.type.shape[-2:])
    if product(b.type.shape[:-2]) != 1 or not 0 < k <= _LONGEST or not n or not _has_8_bits(b):
        return None
    w = swapped(reshaped(b, (k, n)))
    a = reshaped(a, (*[1] * (b.type.rank - a.type.rank), *a.type.shape))
    x = factor(a, ranges)
    codes = None if x is None else factor(w, ranges)
    if x is None or codes is None:
        found = grouped_product(a, w, ranges)
        return None if found is None or _is_low_bit(w) else found
    if _is_low_bit(w):
        return None
    build = a.builder
    y = build(Cast(DType.f32), build(MatMul(), _whole(x), swapped(_whole(codes))))
    of_rows = (t._replace(value=_along_rows(t.value)) for t in codes.scales)
    return scaled(y, [*x.scales, *of_rows])


def _has_8_bits(b: Value) -> bool:
    """Whether a constant is made of an array of integers of at most 8 bits."""
    while not (b.type.dtype.is_int and b.type.dtype.bits <= 8):
        if not isinstance(b.op, Broadcast | Cast | Reshape | Slice | Transpose | Binary):
            return False
        b = max(b.args, key=lambda arg: static(arg.type.size, "a constant's size"))
    return True


def _is_low_bit(w: Value) -> bool:
    elements = value_of(w)
    return not (isinstance(detect(elements), str) and isinstance(detect_parts(elements), str))


def _whole(codes: Codes) -> Value:
    """The integers, all but their scales."""
    build = codes.q.builder
    y = build(Cast(DType.i32), codes.q)
    if codes.shift:
        y = build(Binary("add"), y, constant(build, codes.shift, DType.i32))
    for fn, z, _ in codes.offsets:
        y = build(Binary(fn), y, z)
    return y


def _along_rows(scale: Value) -> Value:
    """A scale of rows of weights, which is 1 along k, as one of columns of the product."""
    return reshaped(scale, scale.type.shape[:-1]) if scale.type.rank else scale
