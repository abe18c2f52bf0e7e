"""Operators that read or update elements at places that are data."""

from __future__ import annotations

from collections.abc import Mapping

from tbc.frontend.context import Context, Lowering, axis_of, fixed, supported, valid
from tbc.frontend.nodes import Node
from tbc.frontend.ranges import outside
from tbc.ir import Value
from tbc.ops import UPDATES, Binary, Concat, GatherElements, ScatterElements, ScatterND, Slice
from tbc.types import DType, TensorType


def check_points(c: Context, x: Value, points: Value, first: int = 0) -> int:
    """The number of x's axes from `first` on that points lead into, which are checked."""
    valid(points.type.rank > 0, f"indices {points.type} are no points")
    depth = fixed(points.type.shape[-1], "the last size of the indices")
    valid(0 < depth <= x.type.rank - first, f"indices {points.type} of {x.type}")
    for i in range(depth):
        c.checks.extend(outside(c, _component(c, points, i), x.type.shape[first + i]))
    return depth


def _component(c: Context, points: Value, i: int) -> Value:
    """Element i of the last axis; of a Concat of single ones, the argument itself."""
    last = points.type.rank - 1
    if points.op == Concat(last) and all(a.type.shape[-1] == 1 for a in points.args):
        return points.args[i]
    starts = [0] * last + [i]
    return c(Slice(tuple(starts), (1,) * (last + 1), (*points.type.shape[:-1], 1)), points)


def _elements_axis(c: Context, node: Node, x: Value, indices: Value) -> int:
    """The axis on which indices of elements stand; they are checked."""
    axis = axis_of(node["axis"], x.type.rank)
    dtype = indices.type.dtype
    valid(dtype in (DType.i32, DType.i64), f"indices of {dtype.name}")
    c.checks.extend(outside(c, indices, x.type.shape[axis]))
    return axis


def _reduction(node: Node, x: Value) -> str:
    """How the node's updates are combined with what they meet."""
    how = node["reduction"] or "none"
    valid(how in UPDATES, f"it knows no reduction '{how}'")
    if how != "none":
        scalar = TensorType(x.type.dtype)
        try:
            Binary(how).infer(scalar, scalar)
        except ValueError as error:
            supported(False, f"the reduction is not supported: {error}")
    return str(how)


def gather_elements(c: Context, node: Node, x: Value, indices: Value) -> Value:
    """y[i, j, …] = x[i, indices[i, j, …], …], the index standing on the axis."""
    return c(GatherElements(_elements_axis(c, node, x, indices)), x, indices)


def scatter_elements(c: Context, node: Node, x: Value, indices: Value, updates: Value) -> Value:
    """x with y[i, indices[i, j, …], …] updated by updates[i, j, …]."""
    axis = _elements_axis(c, node, x, indices)
    return c(ScatterElements(axis, _reduction(node, x)), x, indices, updates)


def scatter_nd(c: Context, node: Node, x: Value, indices: Value, updates: Value) -> Value:
    """x with slices at points updated."""
    depth = check_points(c, x, indices)
    updates = c.broadcast(updates, (*indices.type.shape[:-1], *x.type.shape[depth:]))
    return c(ScatterND(_reduction(node, x)), x, indices, updates)


OPERATORS: Mapping[str, Lowering] = {
    "GatherElements": gather_elements,
    "Scatter": scatter_elements,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
}
