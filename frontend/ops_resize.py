"""Resize and Upsample: weighted sums of elements, picked axis by axis or as all corners at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

import numpy as np

from tbc.dims import Dim, floor_div
from tbc.frontend.context import (
    Context,
    Lowering,
    Operand,
    axis_of,
    decided,
    fixed,
    supported,
    valid,
)
from tbc.frontend.nodes import Node
from tbc.frontend.ops_index import part
from tbc.ir import Value
from tbc.ops import Gather, Iota
from tbc.types import DType

_MOST_DENOMINATOR = 1 << 10
"""A symbolic size is scaled by a fraction; one of a greater denominator is no simple scale."""
_FEW_TAPS = 4
_SMALLEST = 1e-9


@dataclass(frozen=True)
class Axis:
    """How one axis is resized.

    Attributes:
        scale: the factor; a number, or an f64 scalar where sizes are symbols.
        roi: the part of the axis that is kept, as f64 scalars, where the mode uses it.
    """

    axis: int
    size: Dim
    out: Dim
    scale: Operand
    roi: tuple[Value, Value] | None = None


def _f64(c: Context, dim: Dim) -> Operand:
    """A size as a number or an f64 scalar."""
    return float(dim) if isinstance(dim, int) else c.cast(c.sizes(dim), DType.f64)


def _fold(c: Context, fn: str, a: Operand, b: Operand) -> Operand:
    """fn(a, b) as a number where both are numbers."""
    if isinstance(a, Value) or isinstance(b, Value):
        return c.binary(fn, a, b)
    number: float = {"sub": a - b, "mul": a * b, "div": a / b if b else math.nan,
                     "max": max(a, b)}[fn]  # fmt: skip
    return number


# -- coordinates ----------------------------------------------------------------------------------


def coordinates(c: Context, how: str, a: Axis, dtype: DType = DType.f64) -> Value:
    """Where each element of the result lies on the original axis: f64[out]; f32 of known sizes."""
    y = c.cast(c(Iota(a.out)), dtype)
    size = _f64(c, a.size)
    width = _fold(c, "mul", size, a.scale)  # what `out` was before it was rounded down
    steps = _fold(c, "max", _fold(c, "sub", width, 1.0), _SMALLEST)
    match how:
        case "align_corners":
            return c.div(c.mul(y, _fold(c, "sub", size, 1.0)), steps)
        case "asymmetric":
            return c.div(y, a.scale)
        case "tf_half_pixel_for_nn":
            return c.div(c.add(y, 0.5), a.scale)
        case "half_pixel":
            return _half_pixel(c, y, a)
        case "pytorch_half_pixel":
            single = c.broadcast(c.binary("le", c.sizes(a.out), 1), (a.out,))
            return c.where(single, 0, _half_pixel(c, y, a))
        case "half_pixel_symmetric":
            adjustment = _fold(c, "div", _f64(c, a.out), width)
            middle = _fold(c, "mul", size, 0.5)
            offset = _fold(c, "mul", middle, _fold(c, "sub", 1, adjustment))
            return c.add(_half_pixel(c, y, a), offset)
        case "tf_crop_and_resize":
            return _cropped(c, y, a, width, steps)
    valid(False, f"there is no coordinate_transformation_mode '{how}'")
    return y


def _half_pixel(c: Context, y: Value, a: Axis) -> Value:
    return c.sub(c.div(c.add(y, 0.5), a.scale), 0.5)


def _cropped(c: Context, y: Value, a: Axis, width: Operand, steps: Operand) -> Value:
    """Positions from the start to the end of the region of interest."""
    assert a.roi is not None
    (start, end), last = a.roi, _fold(c, "sub", _f64(c, a.size), 1.0)
    span = c.mul(c.sub(end, start), last)
    inside = c.div(c.mul(y, span), steps)
    if isinstance(width, Value):
        inside = c.where(c.binary("eq", width, 1), c.mul(span, 0.5), inside)
    elif width == 1:
        inside = c.broadcast(c.mul(span, 0.5), y.type.shape)
    return c.add(inside, c.mul(start, last))


# -- weights --------------------------------------------------------------------------------------

Kernel: TypeAlias = Callable[[Context, Value], Value]


def triangle(c: Context, t: Value) -> Value:
    """max(0, 1 - |t|)."""
    return c.binary("max", c.sub(1, c.unary("abs", t)), 0)


def cubic(a: float) -> Kernel:
    """Keys' cubic convolution kernel with the parameter a."""

    def kernel(c: Context, t: Value) -> Value:
        t = c.unary("abs", t)
        near = c.add(c.mul(c.mul(c.sub(c.mul(t, a + 2), a + 3), t), t), 1)
        far = c.sub(c.mul(c.add(c.mul(c.sub(c.mul(t, a), 5 * a), t), 8 * a), t), 4 * a)
        far = c.where(c.binary("lt", t, 2), far, 0)
        return c.where(c.binary("le", t, 1), near, far)

    return kernel


def _nearest(c: Context, how: str, x: Value) -> Value:
    """The positions as whole numbers."""
    match how:
        case "round_prefer_floor":
            return c.unary("ceil", c.sub(x, 0.5))
        case "round_prefer_ceil":
            return c.unary("floor", c.add(x, 0.5))
        case "floor" | "ceil":
            return c.unary(how, x)
    valid(False, f"there is no nearest_mode '{how}'")
    return x


def _index(c: Context, position: Value, size: Dim) -> Value:
    """Positions as indices, those outside moved to the border."""
    index = c.cast(position, DType.i64)
    return c.binary("max", c.binary("min", index, c.sub(c.sizes(size), 1)), 0)


def _weighted(c: Context, node: Node, x: Value, at: Value, a: Axis) -> Value:
    """The sum of the elements around each position, weighted by the kernel."""
    smooth = node["mode"] == "cubic"
    kernel: Kernel = cubic(node["cubic_coeff_a"]) if smooth else triangle
    shrink = 1.0
    if node["antialias"]:
        what = "antialias with a symbolic scale is not supported"
        decided(not isinstance(a.scale, Value), what, a.size + a.out)
        shrink = min(float(a.scale), 1.0)  # type: ignore[arg-type]
    reach = math.ceil((2 if smooth else 1) / shrink)
    low = c.unary("floor", at)
    taps = c.add(c.cast(c(Iota(2 * reach)), DType.f64), 1 - reach)
    distance = c.sub(taps, c.reshape(c.sub(at, low), [a.out, 1]))
    weights = kernel(c, c.mul(distance, shrink))
    position = c.add(c.reshape(low, [a.out, 1]), taps)
    if node["exclude_outside"]:
        below = c.binary("lt", position, 0)
        above = c.binary("gt", position, _fold(c, "sub", _f64(c, a.size), 1.0))
        weights = c.where(c.binary("or", below, above), 0, weights)
    if node["exclude_outside"] or node["antialias"]:
        weights = c.div(weights, c.reduce("sum", weights, [1], keepdims=True))
    return _combined(c, x, _index(c, position, a.size), c.cast(weights, x.type.dtype), a.axis)


def _combined(c: Context, x: Value, index: Value, weights: Value, axis: int) -> Value:
    """y[…, o, …] = sum over t of weights[o, t] * x[…, index[o, t], …]."""
    out, count = weights.type.shape
    rank = x.type.rank
    if count > _FEW_TAPS:  # type: ignore[operator]
        shape = [out if i == axis else count if i == axis + 1 else 1 for i in range(rank + 1)]
        terms = c.mul(c(Gather(axis), x, index), c.reshape(weights, shape))
        return c.reduce("sum", terms, [axis + 1])
    total: Value | None = None
    for t in range(fixed(count, "the number of taps")):
        column, factor = (
            c.reshape(part(c, v, [0, t], [out, 1], [1, 1]), [out]) for v in (index, weights)
        )
        term = c.mul(c(Gather(axis), x, column), c.along(factor, axis, rank))
        total = term if total is None else c.add(total, term)
    assert total is not None
    return total


# -- linear, of integers ---------------------------------------------------------------------------


def _spatial(node: Node, x: Value, axes: Sequence[Axis], how: str) -> list[Axis] | None:
    """The axes of an integer image, the last first, where `_truncated` tells what onnxruntime does.

    Those are the last two, or three of volumes; one that keeps its size is among them.
    """
    usual = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
    plain = node["mode"] == "linear" and not (node["antialias"] or node["exclude_outside"])
    count = {2: 2, 3: 3, 4: 2, 5: 3}.get(x.type.rank)
    if not (x.type.dtype.is_int and plain and how in usual) or count is None:
        return None
    given = {a.axis: a for a in axes}
    spatial: list[Axis] = []
    for axis, size in enumerate(x.type.shape):
        a = given.get(axis, Axis(axis, size, size, 1.0))
        known = isinstance(a.size, int) and isinstance(a.out, int)
        if axis < x.type.rank - count:
            if isinstance(a.scale, Value) or a.scale != 1.0:
                return None
        elif not known or isinstance(a.scale, Value) or 0 in (a.size, a.out):
            return None
        else:
            spatial.insert(0, a)
    return spatial


def _truncated(c: Context, x: Value, spatial: Sequence[Axis], how: str) -> Value:
    """Every corner times the product of its weights, added up in f32, the last axis the quickest.

    A result that ought to be whole is often one below it, and is cut off towards 0: so positions,
    weights and the order of the sum are those of onnxruntime, and not each axis by itself.
    """
    rank = x.type.rank
    sides = [_sides(c, how, a) for a in spatial]
    total: Value | None = None
    for corner in range(1 << len(spatial)):
        y, factor = x, None
        for bit, (a, side) in enumerate(zip(spatial, sides, strict=True)):
            index, weight = side[corner >> bit & 1]
            y = c(Gather(a.axis), y, index)
            along = c.along(weight, a.axis, rank)
            factor = along if factor is None else c.mul(factor, along)
        assert factor is not None
        term = c.mul(c.cast(y, DType.f32), factor)
        total = term if total is None else c.add(total, term)
    assert total is not None
    return c.cast(total, x.type.dtype)


def _sides(c: Context, how: str, a: Axis) -> tuple[tuple[Value, Value], tuple[Value, Value]]:
    """(index, weight) of the elements around each position; both weights 1/2 where they are one."""
    last = _fold(c, "sub", _f64(c, a.size), 1.0)
    at = c.binary("min", c.binary("max", coordinates(c, how, a, DType.f32), 0), last)
    before = c.cast(at, DType.i64)
    after = c.binary("min", c.add(before, 1), last)
    same = c.binary("eq", before, after)

    def away(index: Value) -> Value:
        distance = c.unary("abs", c.sub(at, c.cast(index, DType.f32)))
        return c.where(same, 0.5, distance)

    return (before, away(after)), (after, away(before))


# -- operators ------------------------------------------------------------------------------------


def _resized(c: Context, node: Node, x: Value, axes: Sequence[Axis], how: str) -> Value:
    dtype, nearest = x.type.dtype, node["mode"] == "nearest"
    valid(node["mode"] in ("nearest", "linear", "cubic"), f"there is no mode '{node['mode']}'")
    supported(not (nearest and node["antialias"]), "antialias of the mode nearest is not supported")
    spatial = _spatial(node, x, axes, how)
    if spatial is not None:
        return _truncated(c, x, spatial, how)
    y = x if nearest or dtype is DType.f64 else c.cast(x, DType.f32)
    beyond: list[Value] = []
    for a in axes:
        if how != "tf_crop_and_resize" and a.out == a.size and a.scale == 1.0:
            continue
        at = coordinates(c, how, a)
        if how == "tf_crop_and_resize":
            last = _fold(c, "sub", _f64(c, a.size), 1.0)
            outside = c.binary("or", c.binary("lt", at, 0), c.binary("gt", at, last))
            beyond.append(c.along(outside, a.axis, x.type.rank))
        if nearest:
            y = c(Gather(a.axis), y, _index(c, _nearest(c, _rule(node, a), at), a.size))
        else:
            y = _weighted(c, node, y, at, a)
    if dtype.is_int and (node["mode"] == "cubic" or node["antialias"]):
        y = c.unary("round", y)  # otherwise towards 0, as onnxruntime
    y = c.cast(y, dtype)
    for mask in beyond:
        y = c.where(mask, node["extrapolation_value"], y)
    return y


def _rule(node: Node, a: Axis) -> str:
    """How the mode nearest rounds; before opset 11, up where an axis gets smaller."""
    if node["nearest_mode"] is not None:
        return str(node["nearest_mode"])
    shrinks = not isinstance(a.scale, Value) and a.scale < 1
    return "ceil" if shrinks and node.op_type == "Resize" else "floor"


def _scaled_size(size: Dim, scale: float) -> Dim:
    """floor(size * scale), in f32 as onnx infers it."""
    if isinstance(size, int):
        return math.floor(np.float32(size) * np.float32(scale))
    factor = Fraction(scale)
    what = f"the size {size} times {scale} is not supported"
    decided(factor.denominator <= _MOST_DENOMINATOR, what, size)
    return floor_div(size * factor.numerator, factor.denominator)


def _by_scales(c: Context, x: Value, chosen: Sequence[int], scales: Sequence[float]) -> list[Axis]:
    valid(len(scales) == len(chosen), f"{len(scales)} scales for {len(chosen)} axes")
    valid(all(s > 0 and math.isfinite(s) for s in scales), f"the scales {list(scales)}")
    return [
        Axis(a, x.type.shape[a], _scaled_size(x.type.shape[a], s), float(s))
        for a, s in zip(chosen, scales, strict=True)
    ]


def _by_sizes(
    c: Context, node: Node, x: Value, chosen: Sequence[int], sizes: Sequence[Dim]
) -> list[Axis]:
    valid(len(sizes) == len(chosen), f"{len(sizes)} sizes for {len(chosen)} axes")
    policy = node["keep_aspect_ratio_policy"] or "stretch"
    if policy == "stretch":
        axes = []
        for a, out in zip(chosen, sizes, strict=True):
            size = x.type.shape[a]
            valid(
                out == size or 0 not in (out, size), f"an axis of {size} cannot become one of {out}"
            )
            scale = 1.0 if out == size else _fold(c, "div", _f64(c, out), _f64(c, size))
            axes.append(Axis(a, size, out, scale))
        return axes
    valid(policy in ("not_larger", "not_smaller"), f"there is no policy '{policy}'")
    known = [fixed(d, f"a size for the policy {policy}") for d in sizes]
    given = [fixed(x.type.shape[a], f"a size for the policy {policy}") for a in chosen]
    valid(0 not in given, "an axis of size 0 has no aspect ratio")
    ratios = [out / size for out, size in zip(known, given, strict=True)]
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    return [
        Axis(a, size, int(scale * size + 0.5), scale) for a, size in zip(chosen, given, strict=True)
    ]


def _with_roi(c: Context, roi: Value | None, axes: Sequence[Axis]) -> list[Axis]:
    """The axes with their starts and ends in roi, which lists all starts, then all ends."""
    valid(roi is not None and roi.type.shape == (2 * len(axes),), "roi needs two numbers an axis")
    assert roi is not None
    wide = c.cast(roi, DType.f64)
    ends = [c.reshape(part(c, wide, [i], [1], [1]), ()) for i in range(2 * len(axes))]
    return [
        Axis(a.axis, a.size, a.out, a.scale, (ends[i], ends[i + len(axes)]))
        for i, a in enumerate(axes)
    ]


def resize(
    c: Context, node: Node, x: Value, roi: Value | None = None, scales: Value | None = None,
    sizes: Value | None = None,
) -> Value:  # fmt: skip
    """x stretched along axes; in opset 10 the second input holds the scales."""
    if node.opset < 11:
        return upsample(c, node, x, roi)
    how = node["coordinate_transformation_mode"]
    named = node["axes"]
    chosen = range(x.type.rank) if named is None else [axis_of(a, x.type.rank) for a in named]
    valid(len(set(chosen)) == len(chosen), f"the axes {named} repeat one")
    if scales is not None and scales.type.size != 0:
        axes = _by_scales(c, x, chosen, c.numbers(scales, "the scales").reshape(-1).tolist())
    else:
        valid(sizes is not None, "it needs scales or sizes")
        assert sizes is not None
        axes = _by_sizes(c, node, x, chosen, c.vector(sizes, "the sizes"))
    if how == "tf_crop_and_resize":
        axes = _with_roi(c, roi, axes)
    return _resized(c, node, x, axes, how)


def upsample(c: Context, node: Node, x: Value, scales: Value | None = None) -> Value:
    """x stretched by a factor an axis; up to opset 8 the factors are an attribute."""
    if scales is None:
        valid(node["scales"] is not None, "it needs scales")
        factors = list(node["scales"])
    else:
        factors = c.numbers(scales, "the scales").reshape(-1).tolist()
    return _resized(c, node, x, _by_scales(c, x, range(x.type.rank), factors), "asymmetric")


OPERATORS: Mapping[str, Lowering] = {"Resize": resize, "Upsample": upsample}

LIMITS: Mapping[str, str] = {
    "Resize": "antialias not with the mode nearest, nor with symbolic scales",
}
