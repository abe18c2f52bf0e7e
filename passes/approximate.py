"""Approximate: on request, float activations of low-bit dots are rounded to 8 bits.

Each row, or each sample where rows are patches of a convolution, gets the scale 127 / max|x|, as in
BitNet b1.58 (arXiv 2402.17764); what is rounded is then summed in integers by `quantize`. This is
the one pass that changes what a model computes, and only where a target asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tbc.constants import constant
from tbc.ir import Graph, Value, rebuilt
from tbc.ops import Binary, Dot, GroupedDot, Pad, Reduce, Reshape, Transpose, Unary, Windows
from tbc.passes.codes import factor
from tbc.passes.ranges import Ranges
from tbc.types import DType

if TYPE_CHECKING:
    from tbc.target import Target

LEAST = 1e-5
"""Of max|x|, so that a row of zeros has a scale."""
_MOST = 127


def approximate(graph: Graph, target: Target) -> Graph:
    """The graph with every low-bit dot's activations rounded, if the target asks for int8."""
    if target.activations != "int8":
        return graph
    ranges = Ranges()

    def change(value: Value, args: tuple[Value, ...]) -> Value:
        value = rebuilt(value, args)
        if not isinstance(value.op, Dot | GroupedDot):
            return value
        x, *rest = value.args
        if x.type.dtype is not DType.f32 or factor(x, ranges) is not None:
            return value
        return value.builder(value.op, _rounded(x), *rest)

    return graph.rebuild(change)


def _rounded(x: Value) -> Value:
    """x of codes in -127..127 and their scale; of patches, what they are patches of."""
    path, base = [], x
    while isinstance(base.op, Reshape | Transpose | Windows | Pad) and not base.is_constant:
        path.append(base)
        base = base.args[0]
    if not any(isinstance(step.op, Windows) for step in path):
        return _codes(x, (x.type.rank - 1,))
    value = _codes(base, tuple(range(1, base.type.rank)))
    for step in reversed(path):
        value = step.builder(step.op, value, *step.args[1:])
    return value


def _codes(x: Value, axes: tuple[int, ...]) -> Value:
    """round(x * s) / s with s = 127 / max|x| over some axes."""
    build = x.builder

    def number(value: float) -> Value:
        return constant(build, value, DType.f32)

    largest = build(Reduce("max", axes, keepdims=True), build(Unary("abs"), x))
    largest = build(Binary("max"), largest, number(LEAST))
    scale = build(Binary("div"), number(_MOST), largest)
    codes = build(Unary("round"), build(Binary("mul"), x, scale))
    codes = build(Binary("max"), build(Binary("min"), codes, number(_MOST)), number(-_MOST))
    return build(Binary("div"), codes, scale)
