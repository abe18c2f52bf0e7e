"""The exact meaning of reductions, contractions and low-bit weights, on NumPy arrays.

The order of every float sum is fixed here, with no BLAS; integer sums are exact or wrap, so their
order does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tbc.ops import (
    CodedDot,
    Cumulate,
    Dot,
    GroupedDot,
    Lift,
    MatMul,
    Pack,
    PackedDot,
    PackedGroupedDot,
    Reduce,
)
from tbc.reference_elementwise import FLOATS, Array, maximum, minimum, widened
from tbc.straight import weights_of
from tbc.types import DType

PARTIALS = 16
"""Partial results of a float reduction."""

_BLOCK = 1 << 16
"""Elements of a product that are summed at a time, so that they stay in the cache."""


# -- reductions -----------------------------------------------------------------------------------

_FLOAT_REDUCE: Mapping[str, tuple[Callable[[Array, Array], Array], float]] = {
    "sum": (np.add, 0.0),
    "prod": (np.multiply, 1.0),
    "max": (maximum, -math.inf),
    "min": (minimum, math.inf),
}


def reduce(op: Reduce, x: Array) -> Array:
    """The reduction over the axes."""
    kept = [a for a in range(x.ndim) if a not in op.axes]
    count = math.prod(x.shape[a] for a in op.axes)
    rows = x.transpose((*kept, *op.axes)).reshape([*(x.shape[a] for a in kept), count])
    if x.dtype in FLOATS:
        reduced = _float_reduce(op.kind, widened(rows)).astype(x.dtype)
    else:
        reduced = np.asarray(_int_reduce(op.kind, rows))
    if op.keepdims:
        return reduced.reshape([1 if a in op.axes else d for a, d in enumerate(x.shape)])
    return reduced


def _float_reduce(kind: str, rows: Array) -> Array:
    """Along the last axis: 16 partial results by index mod 16, then a binary tree."""
    fn, identity = _FLOAT_REDUCE[kind]
    *kept, count = rows.shape
    steps = -(-count // PARTIALS)
    padded = np.full((*kept, steps * PARTIALS), identity, rows.dtype)
    padded[..., :count] = rows
    blocks = padded.reshape(*kept, steps, PARTIALS)
    partial = np.full((*kept, PARTIALS), identity, rows.dtype)
    for step in range(steps):
        partial = fn(partial, blocks[..., step, :])
    stride = PARTIALS // 2
    while stride:
        partial = fn(partial[..., :stride], partial[..., stride:])
        stride //= 2
    return partial[..., 0]


def _int_reduce(kind: str, rows: Array) -> Any:
    """Along the last axis, wrapping; bools have max (any) and min (all)."""
    if kind == "sum":
        return np.add.reduce(rows, -1, rows.dtype)
    if kind == "prod":
        return np.multiply.reduce(rows, -1, rows.dtype)
    low, high = (False, True) if rows.dtype == np.bool_ else _limits(rows.dtype)
    if kind == "max":
        return np.maximum.reduce(rows, -1, initial=low)
    return np.minimum.reduce(rows, -1, initial=high)


def _limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def cumulate(op: Cumulate, x: Array) -> Array:
    """The running sum or product along an axis, serially."""
    terms = np.moveaxis(widened(x), op.axis, -1)
    terms = terms[..., ::-1] if op.reverse else terms
    fn, identity = (np.add, 0) if op.kind == "sum" else (np.multiply, 1)
    start = np.full((*terms.shape[:-1], 1), identity, terms.dtype)
    totals = fn.accumulate(np.concatenate([start, terms], -1), -1, terms.dtype)
    totals = totals[..., :-1] if op.exclusive else totals[..., 1:]
    totals = totals[..., ::-1] if op.reverse else totals
    return np.moveaxis(totals, -1, op.axis).astype(x.dtype)


# -- contractions ---------------------------------------------------------------------------------


def _serial_matmul(a: Array, b: Array, taken: npt.NDArray[np.bool_] | None = None) -> Array:
    """a[…, m, k] @ b[…, k, n], summed serially over k from +0.0; a product not `taken` is +0.0."""
    (m, k), n = a.shape[-2:], b.shape[-1]
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    total = np.zeros((*batch, m, n), a.dtype)
    rows = max(1, _BLOCK // max(1, n * math.prod(batch)))
    for start in range(0, m, rows):
        block = total[..., start : start + rows, :]
        columns = np.ascontiguousarray(np.moveaxis(a[..., start : start + rows, :], -1, 0))
        product = np.empty_like(block)
        for j in range(k):
            np.multiply(columns[j][..., None], b[..., j, None, :], out=product)
            if taken is not None:
                np.copyto(product, 0, where=~taken[j])
            np.add(block, product, out=block)
    return total


def matmul(op: MatMul, a: Array, b: Array) -> Array:
    """a @ b."""
    if a.dtype in FLOATS:
        return _serial_matmul(widened(a), widened(b)).astype(a.dtype)
    return np.asarray(np.matmul(a, b))


def _dot(x: Array, w: Array) -> Array:
    """y[…, n] = sum_k w[n, k] x[…, k]: f32 serially, a weight of 0 adding +0.0; i8 exactly."""
    if x.dtype == np.float32:
        flat = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
        weight = w.T.astype(np.float32)
        taken = None if np.isfinite(x).all() else weight != 0  # 0 * inf is not 0
        return _serial_matmul(flat, weight, taken).reshape(*x.shape[:-1], w.shape[0])
    # every partial sum, in whatever order, is a whole number that this float type holds exactly
    largest = 128 * int(np.abs(w).max(initial=2)) * x.shape[-1]
    exact = np.float32 if largest < 1 << 24 else np.float64
    return np.asarray(np.matmul(x.astype(exact), w.T.astype(exact)).astype(np.int32))


def dot(op: Dot, x: Array, w: Array) -> Array:
    """The dot with a low-bit weight."""
    return _dot(x, w)


def _grouped(
    x: Array, w: Array, s: Array, xs: Array | None, finish: Callable[[Array, int], Array]
) -> Array:
    """sum_g s[:, g] * (xs[…, g] * f32(finish(x_g · w_g, g))), g ascending from +0.0."""
    groups = s.shape[1]
    size = w.shape[1] // groups
    total = np.zeros((*x.shape[:-1], w.shape[0]), np.float32)
    for g in range(groups):
        part = slice(g * size, (g + 1) * size)
        term = finish(_dot(x[..., part], w[:, part]), g).astype(np.float32)
        total = total + s[:, g] * (term if xs is None else xs[..., g, None] * term)
    return total


def grouped_dot(op: GroupedDot, x: Array, w: Array, s: Array, xs: Array | None = None) -> Array:
    """The dot with a scaled low-bit weight."""
    return _grouped(x, w, s, xs, lambda dot, g: dot)


# -- low-bit weights ------------------------------------------------------------------------------


def lift(op: Lift, w: Array, s: Array) -> Array:
    """The nearest trit, t = 0 where |w| <= |s| / 2; the nearest sign, 1 where both are as near."""
    n, k = w.shape
    nearest = np.empty((n, k), op.dtype.numpy)
    rows = max(1, _BLOCK // max(1, k))  # a block at a time, for it is computed in f64
    for start in range(0, n, rows):
        part = slice(start, start + rows)
        scale = s if s.shape[0] == 1 else s[part]
        nearest[part] = _nearest(op.dtype, w[part], np.repeat(scale, k // s.shape[1], 1))
    return nearest


def _nearest(dtype: DType, w: Array, s: Array) -> Array:
    wide, scale = w.astype(np.float64), s.astype(np.float64)
    below = np.where(scale < 0, -wide, wide) < 0
    if dtype is DType.sign:
        return np.where(below & (scale != 0), -1, 1)
    far = (np.abs(wide) > np.abs(scale) / 2) & (scale != 0)
    return np.where(far, np.where(below, -1, 1), 0)


def pack(op: Pack, w: Array) -> Array:
    """The bytes of the layout."""
    return op.layout.pack(w)


def _unpadded(op: PackedDot | PackedGroupedDot, x: Array) -> Array:
    """x[…, k] without the padding that the layout puts behind every group."""
    group = op.layout.group or op.k
    groups = x.reshape(*x.shape[:-1], op.k // group, op.layout.padded_k(group))
    return groups[..., :group].reshape(*x.shape[:-1], op.k)


def packed_dot(op: PackedDot, x: Array, packed: Array) -> Array:
    """The sum over the stored codes; of f32, the dot with the weights."""
    w, x = op.layout.unpack(packed, op.n, op.k), _unpadded(op, x)
    if x.dtype == np.float32:
        return _dot(x, w)
    return _dot(x, op.layout.coding.numbers(op.layout.coding.codes_of(w)))


def coded_dot(op: CodedDot, x: Array) -> Array:
    """The dot with the weights of the code."""
    return _dot(x, weights_of(op.weights, op.n))


def packed_grouped_dot(
    op: PackedGroupedDot,
    x: Array,
    packed: Array,
    s: Array,
    xsum: Array | None = None,
    xs: Array | None = None,
) -> Array:
    """The dot with a scaled weight, from its codes."""
    w, x = op.layout.unpack(packed, op.n, op.k), _unpadded(op, x)
    s = s.transpose(0, 2, 1).reshape(-1, s.shape[1])[: op.n]
    if xsum is None:
        return _grouped(x, w, s, None, lambda dot, g: dot)
    sums, c = xsum, op.layout.coding.slope
    codes = op.layout.coding.numbers(op.layout.coding.codes_of(w))
    return _grouped(x, codes, s, xs, lambda raw, g: c * raw - sums[..., g, None])
