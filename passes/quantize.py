"""Quantize: low-bit dots of quantised activations become dots of their integer codes.

A dot of x = s * c, c integers of at most 8 bits and s one number a row, is s times the dot of c.
Where the float dot summed s*c, each product and each sum rounded, the integer one is exact and is
rounded once, on its way to f32; where c alone was summed in f32, both are exact up to 2^24 and the
integer one beyond. The scale is applied by the operator, and on the side, that the graph has. A c
that is not a number counts as 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tbc.constants import constant
from tbc.dims import static
from tbc.ir import Graph, Value, rebuilt
from tbc.ops import Binary, Cast, Dot, GroupedDot, Reduce, Reshape
from tbc.passes.codes import Codes, factor, integer_dot, scaled
from tbc.passes.ranges import Ranges
from tbc.types import DType

if TYPE_CHECKING:
    from tbc.target import Target


def quantize(graph: Graph, target: Target) -> Graph:
    """The graph with every low-bit dot of float codes as a dot of i8."""
    ranges = Ranges()

    def change(value: Value, args: tuple[Value, ...]) -> Value:
        value = rebuilt(value, args)
        if not isinstance(value.op, Dot | GroupedDot) or args[0].type.dtype is not DType.f32:
            return value
        codes = factor(args[0], ranges)
        if codes is None or (isinstance(value.op, GroupedDot) and codes.offsets):
            return value
        return scaled(_of_codes(value, codes), codes.scales)

    return graph.rebuild(change)


def _of_codes(value: Value, codes: Codes) -> Value:
    """The dot of the integers, in f32."""
    build, w = value.builder, value.args[1]
    if isinstance(value.op, Dot):
        return build(Cast(DType.f32), integer_dot(codes, w))
    s = value.args[2]
    y = build(GroupedDot(), codes.q, w, s)
    if not codes.shift:
        return y
    n, groups = (static(d, "the size of a weight") for d in s.type.shape)
    by_group = build(Reshape((n, groups, static(w.type.shape[1], "k") // groups)), w)
    sums = build(Reduce("sum", (2,)), build(Cast(DType.i32), by_group))
    shift = constant(build, codes.shift, DType.f32)
    each = build(Binary("mul"), s, build(Binary("mul"), build(Cast(DType.f32), sums), shift))
    return build(Binary("add"), y, build(Reduce("sum", (1,)), each))
