"""Products of 8-bit codes by integers that have a scale for each group along k: grouped dots.

So are the weights of MatMulNBits and of DequantizeLinear by blocks. The products of a group are
summed exactly, and their sum is scaled once, where the float product rounded each of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tbc.constants import constant, value_of
from tbc.dims import Dim, product, static, upper
from tbc.ir import Value
from tbc.ops import (
    Binary,
    Broadcast,
    Cast,
    Concat,
    MatMul,
    Reshape,
    Slice,
    Transpose,
)
from tbc.passes.carry import reshaped
from tbc.passes.codes import factor, scaled
from tbc.passes.quantize import dot_of_codes, dot_of_grouped_codes
from tbc.passes.ranges import Ranges
from tbc.passes.trits import UNIT
from tbc.types import DType

_TERMS = 1 << 20
"""Floats of a grouped dot's terms, about, that are in memory at once where no kernel adds them."""


MOST = 1 << 24
"""Scales that are written out one for each weight, where it takes that to see their groups."""


class Blocked(NamedTuple):
    """Weights q[n, k] * s[n, groups]."""

    q: Value
    s: npt.NDArray[np.float32]


def grouped_product(x: Value, w: Value, ranges: Ranges) -> Value | None:
    """f32[..., n] of x[..., k] by a constant w[n, k]; None where either has no codes and scales."""
    found = blocked(w, ranges)
    if found is None:
        return None
    s = constant(w.builder, found.s, DType.f32)
    codes = factor(x, ranges)
    if codes is None:
        return dot_of_grouped_codes(x, found.q, s, ranges)
    if codes.offsets:
        return None
    return scaled(dot_of_codes(codes, found.q, s), codes.scales)


def blocked(w: Value, ranges: Ranges) -> Blocked | None:
    """A constant as integers i4 or i8 times scales of groups along k, or None."""
    path: list[Value] = []
    while isinstance(w.op, Reshape | Transpose | Slice):
        path.append(w)
        (w,) = w.args
    if w.op != Binary("mul"):
        return None
    codes, s = w.args
    dtype = _dtype(codes, ranges)
    if dtype is None:
        codes, s = s, codes
        dtype = _dtype(codes, ranges)
    if dtype is None or codes.type.shape != w.type.shape:
        return None
    q = w.builder(Cast(dtype), codes)
    for step in reversed(path):
        q = step.builder(step.op, q)
    scales = _scales(s, w.type.shape, path[::-1])
    return None if scales is None else Blocked(q, scales)


def _dtype(codes: Value, ranges: Ranges) -> DType | None:
    """The smaller type that holds all that a value can be, or None where it is no such integer."""
    known = ranges(codes)
    fits = (d for d in (DType.i4, DType.i8) if known.integer and known.within(*d.range))
    return next(fits, None)


def _scales(
    s: Value, shape: tuple[Dim, ...], path: Sequence[Value]
) -> npt.NDArray[np.float32] | None:
    """Scales of a shape, or broadcast to it, as the path makes a matrix of them, by groups.

    None where groups are no whole units, or the scales too many to be written out.
    """
    match s:
        case Value(Reshape(joined), (Value(Broadcast(wide), (inner,)),)) if joined == shape:
            s, shape, path = inner, wide, (s, *path)
    if (found := _of_blocks(s, shape, path)) is not None:
        return _of_groups(*found)
    if upper(product(shape)) > MOST:
        return None
    s = s.builder(Broadcast(shape), s)
    for step in path:
        s = step.builder(step.op, s)
    return _of_groups(value_of(s), 1)


def _of_blocks(
    s: Value, shape: tuple[Dim, ...], path: Sequence[Value]
) -> tuple[npt.NDArray[Any], int] | None:
    """s[n, blocks] and the size of a block, where s is 1 along an axis that becomes the end of k.

    The path makes one axis of that and the one before it, and exchanges axes.
    """
    own = (1,) * (len(shape) - s.type.rank) + s.type.shape
    axis = next((a for a in range(1, len(shape)) if own[a] == 1 != shape[a]), 0)
    if not axis or any(d == 1 != whole for d, whole in zip(own[:axis], shape, strict=False)):
        return None
    block, blocks = static(shape[axis], "a block"), shape[axis - 1]
    merged = (*shape[: axis - 1], blocks * block, *shape[axis + 1 :])
    found, place = (
        np.asarray(value_of(s)).reshape(_sizes((*own[:axis], *own[axis + 1 :]))),
        axis - 1,
    )
    if not path or path[0].op != Reshape(merged):
        return None
    for step in path[1:]:
        if not isinstance(step.op, Transpose):
            return None
        found, place = found.transpose(step.op.perm), step.op.perm.index(place)
    return (found, block) if (found.ndim, place) == (2, 1) else None


def _sizes(shape: tuple[Dim, ...]) -> tuple[int, ...]:
    return tuple(static(d, "the size of scales") for d in shape)


def _of_groups(s: npt.NDArray[Any], unit: int) -> npt.NDArray[np.float32] | None:
    """s[n, k / unit] by its coarsest groups of equal columns; None if they are no whole units."""
    k = s.shape[1] * unit
    starts = (np.flatnonzero((s[:, 1:] != s[:, :-1]).any(0)) + 1) * unit
    group = math.gcd(k, *map(int, starts))
    if (group != k and group % UNIT) or not np.isfinite(s).all():
        return None
    return np.ascontiguousarray(s[:, :: group // unit], np.float32)


# -- without kernels ------------------------------------------------------------------------------


def by_products(value: Value) -> Value:
    """A grouped dot of i8 as one product of i32 for each group, scaled and added in their order.

    A product of ones by the terms adds them serially, as the dot does. As many groups are computed
    together as keep the terms small.
    """
    b, (x, w, s, *xs) = value.builder, value.args
    n, k = (static(d, "the size of a weight") for d in w.type.shape)
    groups = static(s.type.shape[1], "the number of groups")
    m = product(x.type.shape[:-1])
    a = b(Transpose((1, 0, 2)), _wide(x, (m, groups, k // groups)))
    c = b(Transpose((1, 2, 0)), _wide(w, (n, groups, k // groups)))
    scales = b(Reshape((groups, 1, n)), b(Transpose((1, 0)), s))
    of_x = [
        b(Reshape((groups, m, 1)), b(Transpose((1, 0)), b(Reshape((m, groups)), t))) for t in xs
    ]
    total: Value | None = None
    for start, count in _chunks(groups, upper(m) * n):
        part = [_part(v, start, count) for v in (a, c, scales, *of_x)]
        terms = b(Cast(DType.f32), b(MatMul(), *part[:2]))
        for scale in (*part[3:], part[2]):
            terms = b(Binary("mul"), scale, terms)
        rows = [b(Reshape((count, m * n)), terms)]
        rows = rows if total is None else [total, *rows]
        ones = constant(b, np.ones((1, count + len(rows) - 1)), DType.f32)
        total = b(MatMul(), ones, rows[0] if len(rows) == 1 else b(Concat(0), *rows))
    assert total is not None
    return reshaped(total, value.type.shape)


def _chunks(groups: int, size: int) -> Iterator[tuple[int, int]]:
    """(first, count) of groups whose terms, `size` floats each, are computed together."""
    step = min(max(_TERMS // max(size, 1), 1), groups)
    return ((start, min(step, groups - start)) for start in range(0, groups, step))


def _wide(x: Value, shape: tuple[Dim, ...]) -> Value:
    return x.builder(Cast(DType.i32), reshaped(x, shape))


def _part(x: Value, start: int, count: int) -> Value:
    """`count` groups of those along the first axis."""
    shape = x.type.shape
    if count == shape[0]:
        return x
    starts = (start, *[0] * (len(shape) - 1))
    return x.builder(Slice(starts, (1,) * len(shape), (count, *shape[1:])), x)
