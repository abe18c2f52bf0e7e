"""Check the indices that come from a model's inputs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tbc import ops
from tbc.constants import constant
from tbc.dims import Dim
from tbc.ir import Graph, Value
from tbc.types import DType

if TYPE_CHECKING:
    from tbc.target import Target


def guard(graph: Graph, target: Target) -> Graph:
    """The graph with a check for every gather whose indices are data: each within its axis."""
    found = [c for value in graph.values() for c in _checks(value)]
    return replace(graph, checks=tuple(dict.fromkeys((*graph.checks, *found))))


def _checks(value: Value) -> list[Value]:
    match value:
        case Value(op=ops.Gather(axis), args=(x, indices)):
            sizes: tuple[Dim, ...] = (x.type.shape[axis],)
        case Value(op=ops.GatherND(batch), args=(x, indices)):
            depth = indices.type.shape[-1]
            assert isinstance(depth, int)
            sizes = x.type.shape[batch : batch + depth]
        case _:
            return []
    if indices.is_constant:
        return []
    b = value.builder
    with b.origin(value.origin):
        wide = b(ops.Cast(DType.i64), indices)
        limit = b(ops.Dims(sizes, (len(sizes),) if isinstance(value.op, ops.GatherND) else ()))
        zero = constant(b, 0, DType.i64)
        below = b(ops.Binary("lt"), wide, b(ops.Binary("sub"), zero, limit))
        above = b(ops.Binary("ge"), wide, limit)
        wrong = b(ops.Binary("or"), below, above)
        return [b(ops.Reduce("max", tuple(range(wrong.type.rank))), wrong)]
