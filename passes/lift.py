"""Lift: constant weights that are low-bit in value become trits or signs and their scales.

How a weight came about (a quantiser's formula, packed codes, a folded initializer) does not matter:
its elements are computed and looked at. The float dot with a lifted weight sums x or -x and
multiplies by the scale once, where the product summed s*x or -s*x: it is the same number in fewer
roundings, except that a weight of 0 contributes nothing where x is infinite or not a number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tbc.constants import constant, value_of
from tbc.dims import product
from tbc.ir import Graph, Op, Uses, Value, rebuilt, rewrite, topological
from tbc.ops import (
    COMPARE,
    Binary,
    Cast,
    Dot,
    GroupedDot,
    Lift,
    MatMul,
    Reshape,
    Transpose,
    Unary,
)
from tbc.passes.codes import factor, integer_dot
from tbc.passes.ranges import Ranges
from tbc.passes.trits import LowBit, detect
from tbc.types import DType

if TYPE_CHECKING:
    from tbc.target import Target

_FLOATS = (DType.f32, DType.f16, DType.bf16)


def lift(graph: Graph, target: Target) -> Graph:
    """The graph with each product by a low-bit constant weight as a dot and a rescale."""
    graph = rewrite(graph, (straight_through,))
    lifter = Lifter()

    def change(value: Value, args: tuple[Value, ...]) -> Value:
        value = rebuilt(value, args)
        if isinstance(value.op, MatMul) and not value.is_constant:
            lifted = lifter(value)
            return value if isinstance(lifted, str) else lifted
        return value

    return graph.rebuild(change)


class Lifter:
    """Lifts matrix products; weights and ranges looked at are remembered, their elements not."""

    def __init__(self) -> None:
        self._ranges = Ranges()
        self._found: dict[Value, LowBit | str] = {}

    def __call__(self, y: Value) -> Value | str:
        """The product as a dot with a low-bit weight, or the reason why it stays as it is."""
        a, b = y.args
        if a.is_constant and a.type.rank == 2:
            swapped = self(y.builder(MatMul(), _swapped(b), _swapped(a)))
            return swapped if isinstance(swapped, str) else _swapped(swapped)
        if not b.is_constant:
            left = "a batch of weights is the left operand"
            return left if a.is_constant else "both operands are computed at run time"
        if product(b.type.shape[:-2]) != 1:
            return "every part of the batch has weights of its own (a grouped convolution)"
        if b.type.rank > a.type.rank:
            return f"a weight of rank {b.type.rank} broadcasts activations of rank {a.type.rank}"
        if b.type.dtype not in (*_FLOATS, DType.i32):
            return f"dots in {b.type.dtype.name} have no low-bit form"
        b = b if b.type.rank == 2 else b.builder(Reshape(b.type.shape[-2:]), b)
        low = self._look(b)
        if isinstance(low, str):
            return low
        return self._integer(a, b, low) if a.type.dtype is DType.i32 else _float(a, b, low)

    def _look(self, b: Value) -> LowBit | str:
        if b not in self._found:
            self._found[b] = detect(value_of(b).T)
        return self._found[b]

    def _integer(self, a: Value, b: Value, low: LowBit) -> Value | str:
        """The dot of integers, exact modulo 2^32 like the product."""
        if low.scale.shape[1] > 1:
            return "integer weights have scales that change along k"
        codes = factor(a, self._ranges)
        if codes is None or codes.scales:
            known = self._ranges(a)
            return f"integer activations from {known.lo:.0f} to {known.hi:.0f} do not fit 8 bits"
        y = integer_dot(codes, _lifted(a.builder(Cast(DType.f32), b), low))
        return _rescaled(y, low)


def _float(a: Value, b: Value, low: LowBit) -> Value:
    """The float dot; of halves in f32, like their product, and rounded once."""
    build, dtype = a.builder, a.type.dtype
    if dtype is not DType.f32:
        a, b = build(Cast(DType.f32), a), build(Cast(DType.f32), b)
    w = _lifted(b, low)
    if low.scale.shape[1] > 1:
        y = build(GroupedDot(), a, w, constant(build, low.scale, DType.f32))
    else:
        y = _rescaled(build(Dot(), a, w), low)
    return y if dtype is DType.f32 else build(Cast(dtype), y)


def _lifted(b: Value, low: LowBit) -> Value:
    """The low-bit w[n, k] of a float b[k, n], as a recipe."""
    return b.builder(Lift(low.dtype), _swapped(b), constant(b.builder, low.scale, DType.f32))


def _rescaled(y: Value, low: LowBit) -> Value:
    """y times the scale of each row, left out where that is 1 or, as is y then, 0."""
    scale = low.scale[:, 0] if low.scale.size > 1 else low.scale[0, 0]
    if ((scale == 1) | (scale == 0)).all():
        return y
    whole = scale if y.type.dtype.is_float else np.asarray(scale).astype(np.int64)
    return y.builder(Binary("mul"), y, constant(y.builder, whole, y.type.dtype))


def _swapped(value: Value) -> Value:
    """The value with its last two axes swapped."""
    rank = value.type.rank
    swap = Transpose((*range(rank - 2), rank - 1, rank - 2))
    return value.args[0] if value.op == swap else value.builder(swap, value)


# -- straight-through estimators ------------------------------------------------------------------


def straight_through(value: Value, uses: Uses) -> Value | None:
    """x + (q - x) -> q, and the other orders of it, where q rounds x.

    Training writes a quantiser so (`x + (q - x).detach()`), and exporters drop the detach. The sum
    is q but for rounding noise that is not meant.
    """
    for q, x in _detached(value):
        if q.type == value.type and _rounds(q, x):
            return q
    return None


def _detached(value: Value) -> list[tuple[Value, Value]]:
    """The (q, x) for which a sum or a difference is x + (q - x)."""
    match value:
        case Value(Binary("add"), (a, b)):
            pairs = [(d, x) for d, x in ((a, b), (b, a)) if d.op == Binary("sub")]
            return [(d.args[0], x) for d, x in pairs if d.args[1] is x]
        case Value(Binary("sub"), (x, Value(Binary("sub"), (other, q)))) if x is other:
            return [(q, x)]
        case Value(Binary("sub"), (Value(Binary("add"), (a, b)), x)):
            return [(q, x) for q, other in ((a, b), (b, a)) if other is x]
    return []


def _rounds(q: Value, x: Value) -> bool:
    """Whether q is computed from x with a step that rounds or decides."""
    between = topological([q], lambda v: v is x or (v.is_constant and not x.is_constant))
    return x in between and any(_is_rounding(v.op) for v in between if v is not x)


def _is_rounding(op: Op) -> bool:
    match op:
        case Unary("round" | "floor" | "ceil" | "sign"):
            return True
        case Binary(fn):
            return fn in COMPARE
    return False
