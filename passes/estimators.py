"""Straight-through estimators: what exporters leave of a quantiser that training can go through."""

from __future__ import annotations

from tbc.ir import Op, Uses, Value, topological
from tbc.ops import COMPARE, Binary, Unary


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
