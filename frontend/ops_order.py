"""Operators that go through an axis in order: sorting, and running sums and products."""

from __future__ import annotations

from collections.abc import Mapping

from tbc.dims import bounds
from tbc.frontend.context import Context, Lowering, axis_of, decided, supported, valid
from tbc.frontend.nodes import Node
from tbc.ir import Value
from tbc.ops import ArgSort, Cumulate, GatherElements
from tbc.types import DType


def top_k(c: Context, node: Node, x: Value, k: Value | None = None) -> tuple[Value, Value]:
    """The k greatest or least elements along an axis, sorted, and where they stand.

    Of equal elements the first ones come first; a nan is greater than every number. Before opset
    10, k is an attribute.
    """
    axis = axis_of(-1 if node["axis"] is None else node["axis"], x.type.rank)
    counts = [int(node["k"])] if k is None else c.integers(k, "k")
    valid(len(counts) == 1 and counts[0] >= 0, f"k is {counts}")
    (count,), size = counts, x.type.shape[axis]
    low, high = bounds(size)
    valid(count <= high, f"the first {count} of {size} elements")
    what = f"the axis of {size} elements may have fewer than {count}"
    decided(count <= low, what, size, least=count)
    supported(x.type.dtype is not DType.bool, "sorting bools is not supported")
    descending = node["largest"] is None or bool(node["largest"])
    order = c(ArgSort(axis, count, descending), x)
    return c(GatherElements(axis), x, order), order


def cumulative(kind: str) -> Lowering:
    """The sum or product of the elements up to each one along an axis, or from it for `reverse`."""

    def lower(c: Context, node: Node, x: Value, axis: Value) -> Value:
        (where,) = c.integers(axis, "the axis")
        at = axis_of(where, x.type.rank)
        return c(Cumulate(kind, at, bool(node["exclusive"]), bool(node["reverse"])), x)

    return lower


OPERATORS: Mapping[str, Lowering] = {
    "TopK": top_k,
    "CumSum": cumulative("sum"),
    "CumProd": cumulative("prod"),
}

LIMITS: Mapping[str, str] = {
    "TopK": "no bools; the axis is never shorter than k",
}
