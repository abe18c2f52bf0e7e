"""Narrow: on a microcontroller, values are rounded to 8 bits before they are pooled, not behind.

A maximum and what does not decrease may be done in either order. Done behind, rounding is less
work; done before, what lies in memory between is a quarter as large, and there that is what counts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tbc.constants import constant, value_of
from tbc.ir import Graph, Value, rebuilt
from tbc.ops import Binary, Broadcast, Cast, Reduce, Reshape, Slice, Transpose, Unary, Windows
from tbc.passes.codes import never_empty
from tbc.passes.ranges import Ranges
from tbc.types import DType

if TYPE_CHECKING:
    from tbc.target import Target

_LARGEST = 1e37
"""Of magnitudes that are sure to be finite in f32, whatever was rounded on the way."""


def narrow(graph: Graph, target: Target) -> Graph:
    """The graph with maxima of windows taken of 8-bit integers, on a target of little memory."""
    if not target.is_short_of_memory:
        return graph
    ranges = Ranges()

    def change(value: Value, args: tuple[Value, ...]) -> Value:
        value = rebuilt(value, args)
        is_narrow = isinstance(value.op, Cast) and value.type.dtype in (DType.i8, DType.u8)
        return (_before_pooling(value, ranges) if is_narrow else None) or value

    return graph.rebuild(change)


def _before_pooling(value: Value, ranges: Ranges) -> Value | None:
    """A narrow cast behind a pooling, as the pooling of casts; None where it is not that."""
    chain = [value]
    while (step := chain[-1].args[0]) and not isinstance(step.op, Reduce):
        if not _rises(step):
            return None
        chain.append(step)
    match step:
        case Value(Reduce("max", axes, False), (Value(Windows() as op, (x, padding)),)):
            pass
        case _:
            return None
    pooled = tuple(range(x.type.rank, 2 * x.type.rank - 2))
    fits = ranges(chain[0].args[0]).within(*value.type.dtype.range)
    if axes != pooled or ranges(padding).hi != -math.inf or not never_empty(op, x.type.shape[2:]):
        return None
    if not fits or x.type.dtype is not DType.f32 or _magnitude(x, {}) > _LARGEST:
        return None
    build, codes = value.builder, x
    for each in reversed(chain):
        codes = build(each.op, codes, *each.args[1:])
        if codes.type.shape != x.type.shape:  # an operand that differs from window to window
            return None
    least = constant(build, value.type.dtype.range[0], value.type.dtype)
    return build(step.op, build(op, codes, least))


def _rises(value: Value) -> bool:
    """Whether a value does not decrease where its first argument increases, all else constant."""
    match value:
        case Value(Unary("round" | "floor" | "ceil") | Cast()):
            return True
        case Value(Binary("add" | "sub" | "max" | "min"), (_, c)):
            return c.is_constant
        case Value(Binary("mul" | "div"), (_, c)) if c.is_constant:
            return bool((np.asarray(value_of(c)) > 0).all())
    return False


def _magnitude(value: Value, known: dict[Value, float]) -> float:
    """A bound of a value's magnitude; infinite where it may be no number."""
    if value not in known:
        known[value] = _bound(value, known)
    return known[value]


def _bound(value: Value, known: dict[Value, float]) -> float:
    dtype = value.type.dtype
    if dtype.is_int:
        return float(-dtype.range[0] or dtype.range[1])
    if value.is_constant:
        found = float(np.abs(value_of(value)).max(initial=0))
        return found if math.isfinite(found) else math.inf
    match value.op:
        case Reshape() | Transpose() | Broadcast() | Slice() | Cast():
            return _magnitude(value.args[0], known)
        case Binary("mul"):
            return math.prod(_magnitude(arg, known) for arg in value.args)
        case Binary("add" | "sub" | "max" | "min"):
            return sum(_magnitude(arg, known) for arg in value.args)
    return math.inf
