"""Quantize: low-bit dots of quantised activations become dots of their integer codes.

A dot of x = s * c, c integers of at most 8 bits and s one number a row, is s times the dot of c.
Where the float dot summed s*c, each product and each sum rounded, the integer one is exact and is
rounded once, on its way to f32; where c alone was summed in f32, both are exact up to 2^24 and the
integer one beyond. The scale is applied by the operator, and on the side, that the graph has. A c
that is not a number counts as 0.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from tbc.constants import constant
from tbc.dims import static
from tbc.ir import Graph, Value, rebuilt
from tbc.kernels import takes_unsigned
from tbc.ops import Binary, Broadcast, Cast, Dot, GroupedDot, Reduce, Reshape
from tbc.passes.carry import reshaped
from tbc.passes.codes import Codes, factor, integer_dot, scaled
from tbc.passes.ranges import Ranges
from tbc.passes.trits import UNIT
from tbc.types import DType

if TYPE_CHECKING:
    from tbc.target import Target


def quantize(graph: Graph, target: Target) -> Graph:
    """The graph with every low-bit dot of float codes as a dot of 8-bit integers."""
    ranges, unsigned = Ranges(), takes_unsigned(target)
    dotted = {v.args[0] for v in graph.values() if isinstance(v.op, Dot | GroupedDot)}

    def change(value: Value, args: tuple[Value, ...]) -> Value:
        before, value = value, rebuilt(value, args)
        if _is_sum_beside_dot(before, dotted):
            codes = factor(args[0], ranges, unsigned)
            return value if codes is None else _sum_of_codes(value, codes)
        if not isinstance(value.op, Dot | GroupedDot) or args[0].type.dtype is not DType.f32:
            return value
        codes = factor(args[0], ranges, unsigned and isinstance(value.op, Dot))
        if codes is None:
            w, *scales = args[1:]
            found = dot_of_grouped_codes(args[0], w, scales[0] if scales else None, ranges)
            return found or value
        if isinstance(value.op, GroupedDot) and codes.offsets:
            return value
        return scaled(dot_of_codes(codes, *args[1:]), codes.scales)

    return graph.rebuild(change)


def dot_of_codes(codes: Codes, w: Value, s: Value | None = None) -> Value:
    """The dot of the integers with w[n, k], in f32, or with w times s[n, groups].

    With scales of groups the integers have no offsets.
    """
    build = w.builder
    if s is None:
        return build(Cast(DType.f32), integer_dot(codes, w))
    y = build(GroupedDot(), codes.q, w, s)
    if not codes.shift:
        return y
    n, groups = (static(d, "the size of a weight") for d in s.type.shape)
    by_group = build(Reshape((n, groups, static(w.type.shape[1], "k") // groups)), w)
    sums = build(Reduce("sum", (2,)), build(Cast(DType.i32), by_group))
    shift = constant(build, codes.shift, DType.f32)
    each = build(Binary("mul"), s, build(Binary("mul"), build(Cast(DType.f32), sums), shift))
    return build(Binary("add"), y, build(Reduce("sum", (1,)), each))


# -- activations with scales of groups ------------------------------------------------------------


def dot_of_grouped_codes(x: Value, w: Value, s: Value | None, ranges: Ranges) -> Value | None:
    """The dot of integers in x whose scales change from group to group along k, or None.

    It is with w[n, k], or with w times s[n, groups]. A product of the codes by the scales is what
    is understood; a quotient would be another number. Groups are of whole units, as those of
    weights are.
    """
    build = w.builder
    grouped = _grouped(x)
    codes = None if grouped is None else factor(grouped, ranges)
    if codes is None or codes.shift or codes.offsets or any(t.fn != "mul" for t in codes.scales):
        return None
    n = static(w.type.shape[0], "the size of a weight")
    own = static(codes.q.type.shape[-2], "the number of groups")
    of_weight = 1 if s is None else static(s.type.shape[1], "the number of groups")
    groups, k = max(own, of_weight), static(w.type.shape[1], "k")
    if groups % own or groups % of_weight or not codes.scales or k // groups < UNIT:
        return None
    first, *rest = (t.value for t in codes.scales)
    xs = reduce(lambda a, b: build(Binary("mul"), a, b), rest, first)
    xs = build(Broadcast((*codes.q.type.shape[:-1], groups // own)), xs)
    xs = build(Reshape((*x.type.shape[:-1], groups)), xs)
    s = constant(build, np.ones((n, 1)), DType.f32) if s is None else s
    s = build(Broadcast((n, of_weight, groups // of_weight)), build(Reshape((n, of_weight, 1)), s))
    s = build(Reshape((n, groups)), s)
    return build(GroupedDot(), build(Reshape(x.type.shape), codes.q), w, s, xs)


def _grouped(x: Value) -> Value | None:
    """x[…, k] as it was before its last two axes, groups and their elements, were made one."""
    lead = x.type.shape[:-1]
    while isinstance(x.op, Reshape):
        (x,) = x.args
        if x.type.rank == len(lead) + 2 and x.type.shape[:-2] == lead:
            return x
    return None


# -- sums beside dots -----------------------------------------------------------------------------


def _is_sum_beside_dot(value: Value, dotted: set[Value]) -> bool:
    """Whether a value sums f32 activations of a dot over k, or over groups of it."""
    match value:
        case Value(Reduce("sum", axes), (x,)) if x.type.dtype is DType.f32:
            of_last = axes == (x.type.rank - 1,)
            return of_last and (x in dotted or (isinstance(x.op, Reshape) and x.args[0] in dotted))
    return False


def _sum_of_codes(value: Value, codes: Codes) -> Value:
    """The sum over the last axis of the integers, exact, then in f32 and scaled."""
    build, op = value.builder, value.op
    assert isinstance(op, Reduce)
    k = static(codes.q.type.shape[-1], "k")
    y = build(op, build(Cast(DType.i32), codes.q))
    if codes.shift:
        y = build(Binary("add"), y, constant(build, codes.shift * k, DType.i32))
    for fn, z, _ in codes.offsets:
        times = build(Binary("mul"), _along(z, op), constant(build, k, DType.i32))
        y = build(Binary(fn), y, times)
    y = build(Cast(DType.f32), y)
    return scaled(y, [term._replace(value=_along(term.value, op)) for term in codes.scales])


def _along(term: Value, op: Reduce) -> Value:
    """A term, which is 1 along the last axis, of what the reduction leaves."""
    if op.keepdims or not term.type.rank:
        return term
    return reshaped(term, term.type.shape[:-1])
