"""Fold: small constant expressions become constants, and so does what has no elements."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tbc.constants import constant, value_of
from tbc.ir import Graph, Uses, Value, rebuilt
from tbc.ops import Cast, Const, Input, Reshape
from tbc.types import DType

if TYPE_CHECKING:
    from tbc.target import Target

LIMIT = 4096
"""Constant expressions of at most this many elements are evaluated."""


def fold(graph: Graph, target: Target) -> Graph:
    """The graph with every small constant expression evaluated, and every value of no elements.

    Larger ones stay recipes, evaluated where their elements are needed, one at a time; so do
    low-bit weights, whose recipes tell their scales.
    """

    def change(value: Value, args: tuple[Value, ...]) -> Value:
        value = rebuilt(value, args)
        if isinstance(value.op, Input | Const):
            return value
        if value.type.is_static and value.type.size == 0:
            return constant(value.builder, np.empty(value.type.shape), value.type.dtype)
        folded = small_constant(value, {})
        return value if folded is None else folded

    return graph.rebuild(change)


def small_constant(value: Value, uses: Uses) -> Value | None:
    """A constant expression of at most `LIMIT` elements -> its elements."""
    size = value.type.size
    small = isinstance(size, int) and size <= LIMIT
    if not small or not value.is_constant or isinstance(value.op, Const) or _is_low_bit(value):
        return None
    return constant(value.builder, value_of(value), value.type.dtype)


def _is_low_bit(value: Value) -> bool:
    """Whether a value is a weight of few bits, perhaps reshaped, to be widened where it is read."""
    if isinstance(value.op, Cast) and value.type.dtype is DType.i32 and value.type.rank > 1:
        narrow = value.args[0].type.dtype
        return (
            narrow.is_weight or (narrow.is_int and narrow.bits <= 8) or _is_low_bit(value.args[0])
        )
    while isinstance(value.op, Cast | Reshape):
        value = value.args[0]
    return value.type.dtype.is_weight
