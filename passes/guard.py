"""Check the indices that come from a model's inputs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tbc import ops
from tbc.constants import constant
from tbc.dims import Dim, static
from tbc.ir import Graph, Value
from tbc.types import DType

if TYPE_CHECKING:
    from tbc.target import Target


def guard(graph: Graph, target: Target) -> Graph:
    """The graph with a check for all indices that are data: each within the axis it stands on."""
    found = [c for value in graph.values() for c in _checks(value)]
    return replace(graph, checks=tuple(dict.fromkeys((*graph.checks, *found))))


def _checks(value: Value) -> list[Value]:
    sizes = _indexed(value)
    if not sizes or value.args[1].is_constant or _is_order(value.args[1], sizes):
        return []
    if _is_code(value.args[1], sizes):
        return []
    b, indices = value.builder, value.args[1]
    with b.origin(value.origin):
        wide = b(ops.Cast(DType.i64), indices)
        points = isinstance(value.op, ops.GatherND | ops.ScatterND)
        limit = b(ops.Dims(sizes, (len(sizes),) if points else ()))
        zero = constant(b, 0, DType.i64)
        below = b(ops.Binary("lt"), wide, b(ops.Binary("sub"), zero, limit))
        above = b(ops.Binary("ge"), wide, limit)
        wrong = b(ops.Binary("or"), below, above)
        return [b(ops.Reduce("max", tuple(range(wrong.type.rank))), wrong)]


def _indexed(value: Value) -> tuple[Dim, ...]:
    """The sizes of the axes that the second argument points into."""
    match value.op:
        case ops.Gather(axis) | ops.GatherElements(axis) | ops.ScatterElements(axis):
            return (value.args[0].type.shape[axis],)
        case ops.GatherND(batch):
            return value.args[0].type.shape[batch : batch + _depth(value.args[1])]
        case ops.ScatterND():
            return value.args[0].type.shape[: _depth(value.args[1])]
    return ()


def _depth(points: Value) -> int:
    return static(points.type.shape[-1], "a depth of indices")


def _is_order(indices: Value, sizes: tuple[Dim, ...]) -> bool:
    """Whether indices come from sorting an axis of the size that they point into."""
    while isinstance(indices.op, ops.Slice | ops.Reshape | ops.Transpose | ops.Broadcast):
        indices = indices.args[0]
    if not isinstance(indices.op, ops.ArgSort):
        return False
    return sizes == (indices.args[0].type.shape[indices.op.axis],)


def _is_code(indices: Value, sizes: tuple[Dim, ...]) -> bool:
    """Whether indices are unsigned numbers that an axis has a place for each of."""
    if not isinstance(indices.op, ops.Cast) or indices.args[0].type.dtype.kind != "u":
        return False
    codes = indices.args[0].type.dtype.range[1] + 1
    return len(sizes) == 1 and isinstance(sizes[0], int) and sizes[0] >= codes
