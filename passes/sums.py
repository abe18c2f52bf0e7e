"""Products by weights of several planes, as sums of low-bit dots.

A weight offset + sum_i s_i * t_i gives sum_i s_i * dot(x, t_i) + offset * sum(x). The planes are
recipes over the weight: each is lifted from what the planes before it leave.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

import numpy as np

from tbc.constants import constant
from tbc.dims import static
from tbc.ir import Value
from tbc.ops import Binary, Cast, Dot, Gather, GroupedDot, Lift, Pad, Reduce, Reshape, Transpose
from tbc.passes.carry import reshaped
from tbc.passes.codes import Codes, integer_dot
from tbc.passes.columns import Part, taken
from tbc.passes.planes import Array, Planes
from tbc.passes.refusal import Refusal
from tbc.types import DType

EXACT_BITS = 31
"""Integer sums of four times the terms must fit so many bits."""


def sum_of_parts(x: Value, b: Value, parts: tuple[Part, ...]) -> Value:
    """The f32 product of x[…, k] and b[k, n] whose columns k have these planes."""
    build = x.builder
    terms: list[Value] = []
    plane = 0
    for part in parts:
        own, weights = x, b
        if part.columns is not None:
            columns = taken(part.columns, static(b.type.shape[0], "k"))
            own = _picked(x, part.columns)
            weights = build(Gather(0), b, constant(build, columns, DType.i64))
        terms += _terms(own, weights, part.planes, plane)
        plane += len(part.planes.scales)
    return reduce(lambda a, b: build(Binary("add"), a, b), terms)


def _picked(x: Value, columns: Array) -> Value:
    """Some elements of x along its last axis, k standing for 0."""
    build, (*lead, k) = x.builder, x.type.shape
    if (columns == k).any():
        shape = (*lead, k + 1)
        x = build(Pad((0,) * x.type.rank, shape), x, constant(build, 0, x.type.dtype))
    return build(Gather(x.type.rank - 1), x, constant(build, columns, DType.i64))


def _terms(x: Value, b: Value, planes: Planes, plane: int) -> Iterator[Value]:
    """The terms of the sum, its planes numbered from `plane`."""
    build = x.builder
    for scale, t in zip(planes.scales, lifted_planes(b, planes, plane), strict=True):
        if planes.groups > 1:
            every = np.broadcast_to(scale, (static(t.type.shape[0], "n"), planes.groups))
            yield build(GroupedDot(), x, t, constant(build, every, DType.f32))
        else:
            yield _times(build(Dot(), x, t), scale)
    if planes.offset is None:
        return
    if planes.groups == 1:
        total = build(Reduce("sum", (x.type.rank - 1,), keepdims=True), x)
        yield _times(total, planes.offset)
        return
    *lead, k = x.type.shape
    groups = build(Reshape((*lead, planes.groups, static(k, "k") // planes.groups)), x)
    sums = build(Reduce("sum", (x.type.rank,)), groups)
    each = build(Reshape((*lead, 1, planes.groups)), sums)
    offset = constant(build, planes.offset, DType.f32)
    yield build(Reduce("sum", (x.type.rank,)), build(Binary("mul"), each, offset))


def _times(y: Value, scale: Array) -> Value:
    """y[…, n or 1] times scale[n or 1, 1]."""
    if (scale == 1).all():
        return y
    factor = scale[:, 0] if scale.size > 1 else scale[0, 0]
    return y.builder(Binary("mul"), y, constant(y.builder, factor, y.type.dtype))


def lifted_planes(b: Value, planes: Planes, plane: int) -> Iterator[Value]:
    """The planes t[n, k] of a float b[k, n], numbered from `plane`."""
    build = b.builder
    n, k = (static(d, "the size of a weight") for d in b.type.shape[::-1])
    cells = (n, k) if planes.groups == 1 else (n, planes.groups, k // planes.groups)
    w = reshaped(build(Transpose((1, 0)), b), cells)

    def along(array: Array) -> Value:
        """An array of the planes, to broadcast over the cells."""
        return constant(build, array.reshape(-1, *cells[1:-1], 1), DType.f32)

    def less(x: Value, array: Array | None) -> Value:
        return x if array is None else build(Binary("sub"), x, along(array))

    left = less(w, planes.offset)
    first = left if planes.centre is None else less(w, planes.centre)
    for number, scale in enumerate(planes.scales):
        flat = reshaped(left if number else first, (n, k))
        lift = Lift(planes.dtype, plane + number)
        t = build(lift, flat, constant(build, scale, DType.f32))
        yield t
        taken_away = build(Binary("mul"), reshaped(build(Cast(DType.f32), t), cells), along(scale))
        left = build(Binary("sub"), left, taken_away)


def integer_sum(
    x: Value, codes: Codes, largest: float, b: Value, planes: Planes
) -> Value | Refusal:
    """The i32 product of integers x[…, k], up to `largest`, and a float b[k, n] of integers.

    Offsets and scales are quarters: the sum of four times the terms, which must not overflow, is
    shifted. The codes are x's.
    """
    build = x.builder
    if planes.groups > 1:
        return Refusal("integer weights have scales that change along k")
    arrays = planes.scales if planes.offset is None else (*planes.scales, planes.offset)
    k = static(b.type.shape[0], "k")
    if 4 * k * largest * float(sum(np.abs(a).max() for a in arrays)) >= 1 << EXACT_BITS:
        return Refusal(f"as planes, sums of {k} integer products may not fit 32 bits")
    terms = []
    for scale, t in zip(planes.scales, lifted_planes(b, planes, 0), strict=True):
        terms.append(_times(integer_dot(codes, t), 4 * scale))
    if planes.offset is not None:
        total = build(Reduce("sum", (x.type.rank - 1,), keepdims=True), x)
        terms.append(_times(total, 4 * planes.offset))
    four = reduce(lambda a, b: build(Binary("add"), a, b), terms)
    return build(Binary("shr"), four, constant(build, 2, DType.i32))
