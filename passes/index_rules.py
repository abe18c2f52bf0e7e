"""Rules on index maps: fewer of them, and cheaper ones, over the same elements."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tbc.constants import constant, value_of
from tbc.dims import Dim, bounds, static
from tbc.ir import Uses, Value
from tbc.ops import (
    Binary,
    Broadcast,
    Cast,
    Concat,
    Gather,
    MatMul,
    Pad,
    Reduce,
    Reshape,
    Slice,
    Transpose,
    Where,
    Windows,
)
from tbc.passes.elementwise_rules import elements
from tbc.types import DType

_MOST_PARTS = 64
"""Of a concat that comes of opening others."""


def same_shape(value: Value, uses: Uses) -> Value | None:
    """A reshape, broadcast, pad or slice that keeps the shape, or a transpose of nothing -> x."""
    match value:
        case Value(Reshape() | Broadcast() | Pad(), (x, *_)) if x.type == value.type:
            return x
        case Value(Transpose(perm), (x,)) if perm == tuple(range(x.type.rank)):
            return x
        case Value(Slice(starts, steps), (x,)) if x.type == value.type:
            if not any(starts) and all(s == 1 for s in steps):
                return x
    return None


def transpose_of_transpose(value: Value, uses: Uses) -> Value | None:
    """Two transposes -> one."""
    match value:
        case Value(Transpose(outer), (Value(Transpose(inner), (x,)),)):
            return value.builder(Transpose(tuple(inner[p] for p in outer)), x)
    return None


def transpose_of_ones(value: Value, uses: Uses) -> Value | None:
    """A transpose that only moves axes of size 1 -> a reshape."""
    match value:
        case Value(Transpose(perm), (x,)):
            long = [p for p in perm if x.type.shape[p] != 1]
            if long == sorted(long):
                return value.builder(Reshape(value.type.shape), x)
    return None


def reshape_of_reshape(value: Value, uses: Uses) -> Value | None:
    """Two reshapes -> one."""
    match value:
        case Value(Reshape() as op, (Value(Reshape(), (x,)),)):
            return value.builder(op, x)
    return None


def broadcast_of_broadcast(value: Value, uses: Uses) -> Value | None:
    """Two broadcasts -> one."""
    match value:
        case Value(Broadcast() as op, (Value(Broadcast(), (x,)),)):
            return value.builder(op, x)
    return None


def slice_of_slice(value: Value, uses: Uses) -> Value | None:
    """Two slices -> one."""
    match value:
        case Value(Slice() as outer, (Value(Slice() as inner, (x,)),)):
            both = list(zip(inner.starts, inner.steps, outer.starts, outer.steps, strict=True))
            starts = tuple(start + step * further for start, step, further, _ in both)
            steps = tuple(step * further for _, step, _, further in both)
            return value.builder(Slice(starts, steps, outer.shape), x)
    return None


def slice_of_concat(value: Value, uses: Uses) -> Value | None:
    """A slice that lies within one part of a concat -> a slice of that part."""
    match value:
        case Value(Slice(starts, steps, shape) as op, (Value(Concat(axis), parts),)):
            first, last = starts[axis], starts[axis] + (shape[axis] - 1) * steps[axis]
            low, high = (first, last) if steps[axis] > 0 else (last, first)
            offset: Dim = 0
            for part in parts:
                end = offset + part.type.shape[axis]
                if bounds(low - offset)[0] >= 0 and bounds(end - high)[0] > 0:
                    moved = (*starts[:axis], first - offset, *starts[axis + 1 :])
                    return value.builder(Slice(moved, op.steps, shape), part)
                offset = end
    return None


def flat_concat(value: Value, uses: Uses) -> Value | None:
    """A concat of one -> it; a concat's empty parts are left out, and concats in it opened."""
    if not isinstance(value.op, Concat):
        return None
    axis = value.op.axis
    parts: list[Value] = []
    for arg in value.args:
        parts += arg.args if arg.op == value.op else (arg,)
    if len(parts) > max(len(value.args), _MOST_PARTS):  # doubled again and again, it never ends
        parts = list(value.args)
    kept = [p for p in parts if p.type.shape[axis] != 0] or parts[:1]
    if len(kept) == 1:
        return kept[0]
    return None if kept == list(value.args) else value.builder(value.op, *kept)


def gather_of_progression(value: Value, uses: Uses) -> Value | None:
    """A gather by constant indices in equal steps -> a slice."""
    match value:
        case Value(Gather(axis), (x, chosen)) if chosen.type.rank <= 1:
            found = elements(chosen)
            run = None if found is None else _progression(found.reshape(-1), x.type.shape[axis])
            if run is None:
                return None
            start, step, count = run
            around = (x.type.shape[:axis], x.type.shape[axis + 1 :])
            y = x.builder(
                Slice(
                    (*(0 for _ in around[0]), start, *(0 for _ in around[1])),
                    (*(1 for _ in around[0]), step, *(1 for _ in around[1])),
                    (*around[0], count, *around[1]),
                ),
                x,
            )
            return y if y.type == value.type else x.builder(Reshape(value.type.shape), y)
    return None


def _progression(indices: npt.NDArray[Any], size: Dim) -> tuple[Dim, int, int] | None:
    """(start, step, count) of indices within an axis of a size; None where they are not such."""
    steps = np.unique(np.diff(indices))
    if len(steps) > 1 or 0 in steps:
        return None
    low, high = int(indices.min()), int(indices.max())
    if low < 0 <= high or bounds(size)[0] < (high + 1 if low >= 0 else -low):
        return None
    start = int(indices[0]) + (size if low < 0 else 0)
    return start, int(steps[0]) if len(steps) else 1, len(indices)


def windows_of_one(value: Value, uses: Uses) -> Value | None:
    """Windows of one element, none of them outside -> the elements, strided."""
    match value:
        case Value(Windows(kernel, strides, _, before, out), (x, _)):
            last = [
                size - 1 - (count - 1) * step
                for size, count, step in zip(x.type.shape[2:], out, strides, strict=True)
            ]
            inside = all(bounds(rest)[0] >= 0 for rest in last) and not any(before)
            if not inside or any(k != 1 for k in kernel):
                return None
            starts, steps = (0,) * x.type.rank, (1, 1, *strides)
            y = x.builder(Slice(starts, steps, (*x.type.shape[:2], *out)), x)
            return x.builder(Reshape(value.type.shape), y)
    return None


def reduction_of_one(value: Value, uses: Uses) -> Value | None:
    """A reduction over axes of size 1 -> a reshape (not of float sums: 0.0 + -0.0 is 0.0)."""
    match value:
        case Value(Reduce(kind, axes), (x,)) if all(x.type.shape[a] == 1 for a in axes):
            if kind in ("max", "min") or not x.type.dtype.is_float:
                return value.builder(Reshape(value.type.shape), x)
    return None


_COUNTED = (DType.i8, DType.i16, DType.i32, DType.i64, DType.u8, DType.u16, DType.u32)


def product_of_one_hot(value: Value, uses: Uses) -> Value | None:
    """(x == 0, 1, … k-1) @ w -> where(0 <= x < k, w[x] + 0.0, 0.0), of finite floats w."""
    match value:
        case Value(MatMul(), (Value(Cast(), (Value(Binary("eq"), (x, classes)) as hot,)), w)):
            counts = elements(classes)
            k, *_ = w.type.shape
            if x.type.dtype not in _COUNTED or counts is None or counts.size != k:
                return None
            if x.type.shape != (*hot.type.shape[:-1], 1) or w.type.rank != 2 or not w.is_constant:
                return None
            if not w.type.dtype.is_float or not (counts.reshape(-1) == np.arange(k)).all():
                return None
            if not np.isfinite(value_of(w)).all():
                return None
            return _rows_of(x, w)
    return None


def _rows_of(x: Value, w: Value) -> Value:
    """The rows of w that x[…, 1] counts, and zeros where there is none."""
    b = x.builder
    count = static(w.type.shape[0], "the rows of a table")
    zero, end = constant(b, 0, DType.i64), constant(b, count, DType.i64)
    at = b(Cast(DType.i64), b(Reshape(x.type.shape[:-1]), x))
    there = b(Binary("and"), b(Binary("ge"), at, zero), b(Binary("lt"), at, end))
    nothing = constant(b, 0, w.type.dtype)
    table = b(Binary("add"), w, nothing)  # the sum that this was starts from 0.0
    rows = b(Gather(0), table, b(Where(), there, at, zero))
    return b(Where(), b(Reshape(x.type.shape), there), rows, nothing)


INDEX_RULES = (
    same_shape,
    transpose_of_transpose,
    transpose_of_ones,
    reshape_of_reshape,
    broadcast_of_broadcast,
    slice_of_slice,
    slice_of_concat,
    flat_concat,
    gather_of_progression,
    windows_of_one,
    reduction_of_one,
    product_of_one_hot,
)
