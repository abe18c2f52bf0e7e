"""The range of index values, and the run-time check where it may leave an axis."""

from __future__ import annotations

from functools import reduce
from typing import TypeAlias

from tbc.dims import Dim, bounds, dim_max, dim_min
from tbc.errors import InvalidModel
from tbc.frontend.context import Context
from tbc.frontend.known import Known
from tbc.indices import surely_below
from tbc.ir import Value, topological
from tbc.ops import (
    ArgSort,
    Binary,
    Broadcast,
    Cast,
    Concat,
    Const,
    Gather,
    GatherElements,
    GatherND,
    Iota,
    Reshape,
    Slice,
    Transpose,
    Where,
)
from tbc.types import DType

Span: TypeAlias = tuple[Dim, Dim]


def outside(c: Context, indices: Value, size: Dim) -> list[Value]:
    """The check that tells whether an index is outside -size..size-1; none where none can be.

    Raises:
        InvalidModel: a constant index is.
    """
    exact = _of_known(c.known, indices)
    span = exact or _span(c.known, indices)
    if span is not None:
        low, high = span
        if bounds(low + size)[0] >= 0 and surely_below(high, size):
            return []
    if exact and (bounds(low + size)[1] < 0 or bounds(size - 1 - high)[1] < 0):
        raise InvalidModel(f"an index in {low}..{high} is outside an axis of {size}")
    limit = c.cast(c.sizes(size), indices.type.dtype)
    below = c.binary("lt", indices, c.unary("neg", limit))
    wrong_ones = c.binary("or", below, c.binary("ge", indices, limit))
    return [c.reduce("max", wrong_ones, range(wrong_ones.type.rank))]


def _span(known: Known, value: Value) -> Span | None:
    """The least and the greatest element, where the model's data alone tells them."""
    spans: dict[int, Span | None] = {}
    for v in topological([value], lambda v: not v.type.dtype.is_int):
        spans[v.number] = _of_known(known, v) or _of_op(v, [spans.get(a.number) for a in v.args])
    return spans[value.number]


def _of_known(known: Known, value: Value) -> Span | None:
    array = known.array(value)
    if array is None and isinstance(value.op, Const) and value.type.dtype.is_int:
        array = value.op.data.read()
    if array is None or not array.size or not value.type.dtype.is_int:
        return None
    if array.dtype != object:
        return int(array.min()), int(array.max())
    elements = array.reshape(-1).tolist()
    return reduce(dim_min, elements), reduce(dim_max, elements)


def _of_op(value: Value, args: list[Span | None]) -> Span | None:
    match value.op:
        case Iota(size):
            return 0, size - 1
        case ArgSort(axis):
            return 0, value.args[0].type.shape[axis] - 1
        case Broadcast() | Reshape() | Transpose() | Slice() | Gather() | GatherND():
            return args[0]
        case GatherElements():
            return args[0]
        case Cast(DType.i64 | DType.i32):
            return args[0]
        case Concat():
            return _union(args)
        case Where():
            return _union(args[1:])
        case Binary("add" | "sub" | "min" | "max" as fn):
            a, b = args
            return _combine(fn, a, b) if a and b else None
    return None


def _union(spans: list[Span | None]) -> Span | None:
    found = [s for s in spans if s is not None]
    if len(found) < len(spans):
        return None
    return reduce(dim_min, (s[0] for s in found)), reduce(dim_max, (s[1] for s in found))


def _combine(fn: str, a: Span, b: Span) -> Span:
    match fn:
        case "add":
            return a[0] + b[0], a[1] + b[1]
        case "sub":
            return a[0] - b[1], a[1] - b[0]
        case "min":
            return dim_min(a[0], b[0]), dim_min(a[1], b[1])
    return dim_max(a[0], b[0]), dim_max(a[1], b[1])
