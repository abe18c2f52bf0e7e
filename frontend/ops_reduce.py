"""Reductions, and the operators that are made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from tbc.dims import product
from tbc.frontend.context import Context, Lowering, axis_of, supported, valid
from tbc.frontend.nodes import Node
from tbc.frontend.ops_shape import axes_of
from tbc.ir import Value
from tbc.ops import Iota

Combine: TypeAlias = Callable[[Context, Value, Sequence[int], bool], Value]
Change: TypeAlias = Callable[[Context, Value], Value]


def reduction(
    combine: Combine, before: Change | None = None, after: Change | None = None
) -> Lowering:
    """The lowering to after(combine(before(x))); roots and logarithms need floats."""

    def lower(c: Context, node: Node, x: Value, axes: Value | None = None) -> Value:
        what = f"{node.op_type} of {x.type.dtype.name} is not supported"
        supported(x.type.dtype.is_float or (after is None and combine is not log_sum_exp), what)
        chosen: Sequence[int] = axes_of(c, node, axes, x.type.rank) or ()
        if not chosen and not node["noop_with_empty_axes"]:
            chosen = range(x.type.rank)
        dtype = x.type.dtype
        if before or after or combine is log_sum_exp:
            x = c.wide(x)
        x = before(c, x) if before else x
        x = combine(c, x, chosen, bool(node["keepdims"]))
        return c.cast(after(c, x) if after else x, dtype)

    return lower


def fold(kind: str) -> Combine:
    """A reduction of the IR; nothing where there are no axes."""

    def combine(c: Context, x: Value, axes: Sequence[int], keepdims: bool) -> Value:
        return c.reduce(kind, x, axes, keepdims) if axes else x

    return combine


def average(c: Context, x: Value, axes: Sequence[int], keepdims: bool) -> Value:
    """The mean."""
    return c.mean(x, axes, keepdims) if axes else x


def log_sum_exp(c: Context, x: Value, axes: Sequence[int], keepdims: bool) -> Value:
    """log(sum(exp(x))), with the greatest element taken out of the sum."""
    top = c.reduce("max", x, axes, keepdims=True)
    top = c.where(c.unary("isinf", top), 0, top)
    total = c.reduce("sum", c.unary("exp", c.sub(x, top)), axes, keepdims)
    return c.add(c.unary("log", total), c.reshape(top, total.type.shape))


def square(c: Context, x: Value) -> Value:
    """x * x."""
    return c.mul(x, x)


def function(fn: str) -> Change:
    """A function of the IR."""
    return lambda c, x: c.unary(fn, x)


def first_extreme(c: Context, x: Value, axis: int, kind: str, last: bool = False) -> Value:
    """i64: where along an axis the greatest ("max") or least ("min") element is; the axis stays 1.

    The first one, or the last, of equal ones; a nan counts as extreme.
    """
    found = c.binary("eq", x, c.reduce(kind, x, [axis], keepdims=True))
    if x.type.dtype.is_float:
        found = c.binary("or", found, c.unary("isnan", x))
    size = x.type.shape[axis]
    index = c.along(c(Iota(size)), axis, x.type.rank)
    if last:
        return c.reduce("max", c.where(found, index, -1), [axis], keepdims=True)
    return c.reduce("min", c.where(found, index, c.sizes(size)), [axis], keepdims=True)


def arg(kind: str) -> Lowering:
    """The index of the extreme element along an axis."""

    def lower(c: Context, node: Node, x: Value) -> Value:
        axis = axis_of(node["axis"], x.type.rank)
        index = first_extreme(c, x, axis, kind, bool(node["select_last_index"]))
        if node["keepdims"]:
            return index
        return c.reshape(index, [d for a, d in enumerate(x.type.shape) if a != axis])

    return lower


def hardmax(c: Context, node: Node, x: Value) -> Value:
    """1 at the first of the greatest elements, 0 elsewhere; before opset 13 over all later axes."""
    axis, shape = axis_of(node["axis"], x.type.rank), x.type.shape
    if node.opset < 13:
        x = c.reshape(x, [product(shape[:axis]), product(shape[axis:])])
        axis = 1
    index = c.along(c(Iota(x.type.shape[axis])), axis, x.type.rank)
    hot = c.binary("eq", first_extreme(c, x, axis, "max"), index)
    return c.reshape(c.cast(hot, x.type.dtype), shape)


def softmax_axes(node: Node, x: Value) -> Sequence[int]:
    """The axis, or before opset 13 it and all later ones."""
    axis = axis_of(node["axis"], x.type.rank)
    return range(axis, x.type.rank) if node.opset < 13 else [axis]


def softmax(c: Context, node: Node, x: Value) -> Value:
    """exp(x - max(x)) / sum(exp(x - max(x))), with one division a sum."""
    axes = softmax_axes(node, x)
    powers = c.unary("exp", c.sub(x, c.reduce("max", x, axes, keepdims=True)))
    return c.mul(powers, c.div(1, c.reduce("sum", powers, axes, keepdims=True)))


def log_softmax(c: Context, node: Node, x: Value) -> Value:
    """x - max(x) - log(sum(exp(x - max(x))))."""
    axes = softmax_axes(node, x)
    shifted = c.sub(x, c.reduce("max", x, axes, keepdims=True))
    total = c.reduce("sum", c.unary("exp", shifted), axes, keepdims=True)
    return c.sub(shifted, c.unary("log", total))


def lp_normalization(c: Context, node: Node, x: Value) -> Value:
    """x divided by its L1 or L2 norm along an axis; 0 where that is 0."""
    axes = [axis_of(node["axis"], x.type.rank)]
    valid(node["p"] in (1, 2), f"it knows no norm of order {node['p']}")
    wide = c.wide(x)
    if node["p"] == 1:
        norm = c.reduce("sum", c.unary("abs", wide), axes, keepdims=True)
    else:
        norm = c.unary("sqrt", c.reduce("sum", c.mul(wide, wide), axes, keepdims=True))
    return c.cast(c.where(c.binary("eq", norm, 0), 0, c.div(wide, norm)), x.type.dtype)


def global_pool(combine: Combine) -> Lowering:
    """The reduction over all spatial axes, which stay as 1."""

    def lower(c: Context, node: Node, x: Value) -> Value:
        valid(x.type.rank >= 2, f"it needs [N, C, …], not {x.type}")
        return combine(c, x, range(2, x.type.rank), True)

    return lower


def global_lp_pool(c: Context, node: Node, x: Value) -> Value:
    """The norm of order p over all spatial axes."""
    return lp_norm(c, x, range(2, x.type.rank), node["p"], keepdims=True)


def lp_norm(c: Context, x: Value, axes: Sequence[int], p: int, keepdims: bool = False) -> Value:
    """sum(|x|^p)^(1/p)."""
    valid(p > 0, f"there is no norm of order {p}")
    size = c.unary("abs", c.wide(x))
    if p == 1:
        y = c.reduce("sum", size, axes, keepdims)
    elif p == 2:
        y = c.unary("sqrt", c.reduce("sum", c.mul(size, size), axes, keepdims))
    else:
        total = c.reduce("sum", c.binary("pow", size, p), axes, keepdims)
        y = c.binary("pow", total, 1 / p)
    return c.cast(y, x.type.dtype)


SUM = fold("sum")

OPERATORS: Mapping[str, Lowering] = {
    "ReduceSum": reduction(SUM),
    "ReduceProd": reduction(fold("prod")),
    "ReduceMax": reduction(fold("max")),
    "ReduceMin": reduction(fold("min")),
    "ReduceMean": reduction(average),
    "ReduceL1": reduction(SUM, before=function("abs")),
    "ReduceL2": reduction(SUM, before=square, after=function("sqrt")),
    "ReduceSumSquare": reduction(SUM, before=square),
    "ReduceLogSum": reduction(SUM, after=function("log")),
    "ReduceLogSumExp": reduction(log_sum_exp),
    "ArgMax": arg("max"),
    "ArgMin": arg("min"),
    "Hardmax": hardmax,
    "Softmax": softmax,
    "LogSoftmax": log_softmax,
    "LpNormalization": lp_normalization,
    "GlobalAveragePool": global_pool(average),
    "GlobalMaxPool": global_pool(fold("max")),
    "GlobalLpPool": global_lp_pool,
}

LIMITS: Mapping[str, str] = {
    "ReduceL2": "floats only",
    "ReduceLogSum": "floats only",
    "ReduceLogSumExp": "floats only",
}
