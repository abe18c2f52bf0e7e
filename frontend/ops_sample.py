"""Sampling at computed positions: GridSample, DeformConv, RoiAlign, MaxRoiPool."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tbc.dims import Dim, product
from tbc.frontend.context import Context, Lowering, fixed, supported, valid
from tbc.frontend.nodes import Node
from tbc.frontend.ops_conv import geometry
from tbc.frontend.ops_index import part
from tbc.frontend.ops_resize import Kernel, cubic, triangle
from tbc.frontend.ranges import outside
from tbc.ir import Value
from tbc.ops import Concat, Gather, GatherND, Iota, MatMul, require_equal
from tbc.types import DType


def size_of(c: Context, dim: Dim, like: Value) -> Value:
    """A size as a scalar of the type of `like`."""
    return c.cast(c.sizes(dim), like.type.dtype)


def wide(c: Context, x: Value) -> Value:
    """x in f32, or in f64 where it is of that type."""
    return x if x.type.dtype is DType.f64 else c.cast(x, DType.f32)


def picked(c: Context, rows: Value, indices: Sequence[Value], batch_dims: int) -> Value:
    """rows[b…, indices[0], indices[1], …] for integer-valued floats that lie within."""
    points = [c.reshape(c.cast(i, DType.i64), [*i.type.shape, 1]) for i in indices]
    return c(GatherND(batch_dims), rows, c(Concat(points[0].type.rank - 1), *points))


@dataclass(frozen=True)
class Border:
    """What lies outside an axis.

    Attributes:
        how: zeros, border or reflection.
        corners: whether the first and last elements' centres, not their edges, are the ends.
    """

    how: str
    corners: bool

    def reflected(self, c: Context, v: Value, size: Dim) -> Value:
        """Positions mirrored at the ends of an axis until they are within."""
        low = 0.0 if self.corners else -0.5
        high = c.sub(size_of(c, size, v), 1.0 + low)
        span = c.binary("max", c.sub(high, low), 1e-6)
        below = c.binary("lt", v, low)
        distance = c.binary("max", c.where(below, c.sub(low, v), c.sub(v, high)), 0)
        turns = c.unary("floor", c.div(distance, span))
        rest = c.sub(distance, c.mul(turns, span))
        even = c.binary("eq", c.binary("mod", turns, 2), 0)
        mirrored = c.where(c.binary("eq", below, even), c.add(rest, low), c.sub(high, rest))
        return c.where(c.binary("gt", distance, 0), mirrored, v)

    def moved(self, c: Context, v: Value, size: Dim) -> Value:
        """Positions brought within the axis, where that is what the border is for."""
        if self.how == "reflection":
            return self.reflected(c, v, size)
        if self.how == "border":
            return c.clip(v, 0, c.sub(size_of(c, size, v), 1))
        return v

    def weight(self, c: Context, index: Value, weight: Value | None, size: Dim) -> Value | None:
        """A neighbour's weight: 0 outside where zeros lie there; None for 1."""
        if self.how != "zeros":
            return weight
        last = c.sub(size_of(c, size, index), 1)
        inside = c.binary("and", c.binary("ge", index, 0), c.binary("le", index, last))
        return c.where(inside, c.constant(1, index.type.dtype) if weight is None else weight, 0)


def sampled(
    c: Context, x: Value, positions: Sequence[Value], border: Border, kernel: Kernel | None,
    reach: int,
) -> Value:  # fmt: skip
    """[N, C, *O]: x[N, C, *S] at positions[d][N, *O], by a kernel, or the nearest without one."""
    rank, sizes = x.type.rank, x.type.shape[2:]
    rows = wide(c, c.transpose(x, [0, *range(2, rank), 1]))
    taps = [
        _taps(c, c.cast(v, rows.type.dtype), size, border, kernel, reach)
        for v, size in zip(positions, sizes, strict=True)
    ]
    total: Value | None = None
    for corner in itertools.product(*taps):
        value = picked(c, rows, [index for index, _ in corner], 1)
        for _, weight in corner:
            if weight is not None:
                value = c.mul(value, c.reshape(weight, [*weight.type.shape, 1]))
        total = value if total is None else c.add(total, value)
    assert total is not None
    last = total.type.rank - 1
    return c.cast(c.transpose(total, [0, last, *range(1, last)]), x.type.dtype)


def _taps(
    c: Context, v: Value, size: Dim, border: Border, kernel: Kernel | None, reach: int
) -> list[tuple[Value, Value | None]]:
    """The neighbours of positions on one axis, each with its weight."""
    if kernel is None:
        neighbours: list[tuple[Value, Value | None]] = [
            (border.moved(c, c.unary("round", v), size), None)
        ]
    else:
        if reach == 1 or border.how == "reflection":
            v = border.moved(c, v, size)
        low = c.unary("floor", v)
        away = c.sub(v, low)
        neighbours = [
            (c.add(low, o), kernel(c, c.sub(away, o))) for o in range(1 - reach, reach + 1)
        ]
    last = c.sub(size_of(c, size, v), 1)
    found = []
    for index, weight in neighbours:
        weight = border.weight(c, index, weight, size)
        index = border.reflected(c, index, size) if border.how == "reflection" else index
        found.append((c.clip(index, 0, last), weight))
    return found


def component(c: Context, x: Value, i: int, axis: int) -> Value:
    """x at an index of an axis, without that axis."""
    shape: list[Dim] = [1 if a == axis else d for a, d in enumerate(x.type.shape)]
    starts = [i if a == axis else 0 for a in range(x.type.rank)]
    one = part(c, x, starts, shape, [1] * x.type.rank)
    return c.reshape(one, [d for a, d in enumerate(shape) if a != axis])


def grid_sample(c: Context, node: Node, x: Value, grid: Value) -> Value:
    """x[N, C, *S] at the positions grid[N, *O, r], in -1 … 1 along each axis, last axis first."""
    r = x.type.rank - 2
    valid(r >= 1 and grid.type.rank == r + 2, f"a grid {grid.type} on {x.type}")
    require_equal(grid.type.shape[-1], r, "the grid's last size and the axes")
    require_equal(grid.type.shape[0], x.type.shape[0], "batches of x and of the grid")
    kinds: Mapping[str, tuple[Kernel | None, int]] = {
        "nearest": (None, 0), "linear": (triangle, 1), "cubic": (cubic(-0.75), 2)
    }  # fmt: skip
    mode, padding = node["mode"].removeprefix("bi"), node["padding_mode"]
    valid(mode in kinds, f"there is no mode '{mode}'")
    valid(padding in ("zeros", "border", "reflection"), f"there is no padding_mode '{padding}'")
    border = Border(padding, bool(node["align_corners"]))
    positions = []
    for d, size in enumerate(x.type.shape[2:]):
        g = c.add(wide(c, component(c, grid, r - 1 - d, r + 1)), 1)
        length = size_of(c, size, g)
        if border.corners:
            positions.append(c.mul(c.div(g, 2), c.sub(length, 1)))
        else:
            positions.append(c.div(c.sub(c.mul(g, length), 1), 2))
    return sampled(c, x, positions, border, *kinds[mode])


def deform_conv(
    c: Context, node: Node, x: Value, w: Value, offset: Value, bias: Value | None = None,
    mask: Value | None = None,
) -> Value:  # fmt: skip
    """The convolution of x[N, C, *S] by w[M, C/group, *K], each tap moved by its offset."""
    n = x.type.rank - 2
    valid(w.type.rank == n + 2 and n >= 1, f"a convolution of {x.type} by {w.type}")
    m, depth, *kernel = (fixed(d, "the size of a kernel") for d in w.type.shape)
    groups, parts = node["group"], node["offset_group"]
    channels, taps = depth * groups, product(tuple(kernel))
    valid(groups > 0 and parts > 0 and m % groups == 0 and channels % parts == 0, "its groups")
    require_equal(x.type.shape[1], channels, "channels of x and of the kernel")
    shape = geometry(node, x, kernel).windows
    batch, sizes, out = x.type.shape[0], x.type.shape[2:], shape.out
    rows: Dim = batch * parts
    by_part = c.reshape(x, [rows, channels // parts, *sizes])
    moves = c.reshape(offset, [rows, taps, n, *out])
    positions = []
    for d in range(n):
        tap = c.along(c(Iota(kernel[d])), d, n)
        at_tap = c.reshape(c.broadcast(tap, kernel), [taps, *[1] * n])
        start = c.add(c.mul(c.along(c(Iota(out[d])), d, n), shape.strides[d]), -shape.before[d])
        base = c.add(c.mul(at_tap, shape.dilations[d]), start)
        positions.append(c.add(component(c, moves, d, 2), c.cast(base, offset.type.dtype)))
    values = sampled(c, by_part, positions, Border("zeros", True), triangle, 1)
    if mask is not None:
        values = c.mul(values, c.reshape(mask, [rows, 1, taps, *out]))
    depth_of_all = depth * fixed(taps, "a kernel")
    columns = c.reshape(values, [batch, groups, depth_of_all, product(out)])
    y = c(MatMul(), c.reshape(w, [groups, m // groups, depth_of_all]), columns)
    y = c.reshape(y, [batch, m, *out])
    return y if bias is None else c.add(y, c.along(bias, 1, n + 2))


def roi_align(c: Context, node: Node, x: Value, rois: Value, batches: Value) -> Value:
    """[R, C, h, w]: each region of x[N, C, H, W] sampled in h x w bins, averaged or maximised."""
    valid(x.type.rank == 4 and rois.type.rank == 2, f"regions {rois.type} of {x.type}")
    require_equal(rois.type.shape[1], 4, "the numbers of a region")
    per_bin, mode = node["sampling_ratio"], node["mode"].lower()
    supported(per_bin > 0, "a sampling_ratio that depends on the data is not supported")
    valid(mode in ("avg", "max"), f"there is no mode '{mode}'")
    bins = (node["output_height"], node["output_width"])
    valid(min(bins) > 0, f"it has {bins} bins")
    half = node["coordinate_transformation_mode"] == "half_pixel"
    count = rois.type.shape[0]
    rows = wide(c, c.transpose(x, (0, 2, 3, 1)))
    regions = c.sub(c.mul(c.cast(rois, rows.type.dtype), node["spatial_scale"]), 0.5 * half)
    taps, inside = [], []
    for d, size in enumerate(x.type.shape[2:]):
        start, end = (component(c, regions, i, 1) for i in (1 - d, 3 - d))
        found, within = _bin_taps(c, start, end, bins[d], per_bin, size, half)
        shape = [count, *(bins[d] * per_bin if a == d else 1 for a in range(2)), 1]
        taps.append([tuple(c.reshape(v, shape) for v in tap) for tap in found])
        inside.append(c.reshape(within, shape))
    whole = [count, bins[0] * per_bin, bins[1] * per_bin]
    c.checks.extend(outside(c, batches, x.type.shape[0]))
    row = c.broadcast(c.reshape(c.cast(batches, DType.i64), [count, 1, 1]), whole)
    counts = c.binary("and", *inside)
    total: Value | None = None
    for (i, weight_i), (j, weight_j) in itertools.product(*taps):
        indices = [c.broadcast(c.reshape(v, v.type.shape[:3]), whole) for v in (i, j)]
        value = c.mul(picked(c, rows, [row, *indices], 0), c.mul(weight_i, weight_j))
        value = c.where(counts, value, 0)
        total = (
            value if total is None else c.binary("add" if mode == "avg" else "max", total, value)
        )
    assert total is not None
    apart = c.reshape(total, [count, bins[0], per_bin, bins[1], per_bin, x.type.shape[1]])
    y = c.mean(apart, [2, 4]) if mode == "avg" else c.reduce("max", apart, [2, 4])
    return c.cast(c.transpose(y, (0, 3, 1, 2)), x.type.dtype)


def _bin_taps(
    c: Context, start: Value, end: Value, bins: int, per_bin: int, size: Dim, half: bool
) -> tuple[list[tuple[Value, Value]], Value]:
    """Both neighbours of each sample [R, bins * per_bin] with weights, and which samples count."""
    extent = c.sub(end, start)
    extent = extent if half else c.binary("max", extent, 1)
    count = start.type.shape[0]
    samples = c.cast(c(Iota(bins * per_bin)), start.type.dtype)
    step = c.reshape(c.div(extent, bins), [count, 1])
    at = c.mul(c.div(c.add(samples, 0.5), per_bin), step)
    v = c.add(at, c.reshape(start, [count, 1]))
    length = size_of(c, size, v)
    counts = c.binary("and", c.binary("ge", v, -1), c.binary("le", v, length))
    last = c.sub(length, 1)
    v = c.clip(v, 0, last)
    low = c.unary("floor", v)
    away = c.sub(v, low)
    high = c.binary("min", c.add(low, 1), last)
    return [(low, c.sub(1, away)), (high, away)], counts


def max_roi_pool(c: Context, node: Node, x: Value, rois: Value) -> Value:
    """[R, C, h, w]: the greatest element of x[N, C, H, W] in each bin of each region; 0 of none."""
    valid(x.type.rank == 4 and rois.type.rank == 2, f"regions {rois.type} of {x.type}")
    require_equal(rois.type.shape[1], 5, "the numbers of a region")
    bins = node["pooled_shape"]
    valid(len(bins) == 2 and min(bins) > 0, f"it has {bins} bins")
    count, least = rois.type.shape[0], c.constant(-math.inf, x.type.dtype)
    row = c.cast(c.reshape(component(c, rois, 0, 1), [count]), DType.i64)
    c.checks.extend(outside(c, row, x.type.shape[0]))
    y = c(Gather(0), x, row)
    for d in (1, 0):  # y is [R, C, H, W], then [R, C, H, w], then [R, C, h, w]
        ends = [component(c, rois, i, 1) for i in (2 - d, 4 - d)]
        inside = _in_bins(c, [c.mul(e, node["spatial_scale"]) for e in ends], bins[d], y, 2 + d)
        shape = list(y.type.shape)
        apart = c.reshape(y, [*shape[: 2 + d], 1, *shape[2 + d :]])
        y = c.reduce("max", c.where(inside, apart, least), [3 + d])
    return c.where(c.binary("eq", y, least), 0, y)


def _in_bins(c: Context, ends: Sequence[Value], bins: int, y: Value, axis: int) -> Value:
    """bool[R, 1, …, bins, size, …]: which places of an axis of y lie in which bin."""
    count, size = y.type.shape[0], y.type.shape[axis]
    nearest = (c.unary("floor", c.add(c.unary("abs", e), 0.5)) for e in ends)  # ties go outwards
    start, end = (
        c.reshape(c.mul(c.unary("sign", e), n), [count, 1, 1])
        for e, n in zip(ends, nearest, strict=True)
    )
    step = c.div(c.binary("max", c.add(c.sub(end, start), 1), 1), bins)
    number = c.reshape(c.cast(c(Iota(bins)), start.type.dtype), [bins, 1])
    low = c.add(c.unary("floor", c.mul(number, step)), start)
    high = c.add(c.unary("ceil", c.mul(c.add(number, 1), step)), start)
    place = c.cast(c(Iota(size)), start.type.dtype)
    inside = c.binary("and", c.binary("ge", place, low), c.binary("lt", place, high))
    after = [1] * (y.type.rank - axis - 1)
    return c.reshape(inside, [count, *[1] * (axis - 1), bins, size, *after])


OPERATORS: Mapping[str, Lowering] = {
    "GridSample": grid_sample,
    "DeformConv": deform_conv,
    "RoiAlign": roi_align,
    "MaxRoiPool": max_roi_pool,
}

LIMITS: Mapping[str, str] = {
    "RoiAlign": "sampling_ratio is a number above 0",
}
