"""Rows that are patches of an array: what a convolution's dot multiplies its weights by."""

from __future__ import annotations

from typing import NamedTuple

from tbc.dims import product
from tbc.ir import Value
from tbc.ops import Cast, Pad, Reduce, Reshape, Transpose, Windows
from tbc.types import DType

VIEWS = (Reshape, Transpose, Windows)


class Patches(NamedTuple):
    """Rows x[m, k] that need not be an array, since their elements lie elsewhere.

    Attributes:
        values: the same elements in more axes.
        axes: how many leading ones of these count rows; the others count k.
        source: whose elements they are.
    """

    values: Value
    axes: int
    source: Value


def patches_of(x: Value) -> Patches | None:
    """The patches that rows x[m, k] are, or rows with zeros behind them; None of other rows."""
    padded = isinstance(x.op, Pad)
    if padded:
        (x, _) = x.args
    rows, k = x.type.shape if x.type.rank == 2 else (0, 0)
    while isinstance(x.op, Reshape):
        (x,) = x.args
    source, has_windows = x, False
    while isinstance(source.op, VIEWS):
        has_windows |= isinstance(source.op, Windows)
        source = source.args[0]
    shape = x.type.shape
    for axes in range(len(shape) + 1) if padded or has_windows else ():
        if (product(shape[:axes]), product(shape[axes:])) == (rows, k):
            return Patches(x, axes, source)
    return None


def is_row_sum(value: Value, x: Value) -> bool:
    """Whether a value is i32[m, 1], the sums of the rows of x[m, k]."""
    match value:
        case Value(Reduce("sum", (1,), True), (Value(Cast(DType.i32), (summed,)),)):
            return summed is x
    return False
