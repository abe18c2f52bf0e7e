"""How dense products use the registers, and how their constant operands lie in memory. Pure data.

A tile is a block of the result that is summed in registers. Where the right operand is a constant,
its columns lie in panels as wide as a tile, so that a step along k reads neighbouring memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tbc.dims import Dim, bounds, static
from tbc.ir import Value
from tbc.ops import Unary
from tbc.types import DType

if TYPE_CHECKING:
    from tbc.target import Target

SUMS = {8: 4, 16: 8, 32: 16}
"""By vector registers, how many of them hold sums; the others hold operands and products."""

MAX_VECTORS = 8
"""Of a tile's row: more are no faster, and take registers."""


SIDE_BY_SIDE = {8: 1, 16: 2, 32: 4}
"""By vector registers, how many vectors of a long formula are computed at once."""

LONG = ("exp", "log", "tanh", "sigmoid", "erf", "sinh", "cosh")
"""Formulas of which each operation waits for the one before it, with registers to spare."""


def side_by_side(values: Iterable[Value], target: Target) -> int:
    """How many vectors of elements to compute at once, where these values are computed."""
    long = any(
        isinstance(v.op, Unary) and v.op.fn in LONG and v.type.dtype.bytes <= 4 for v in values
    )
    return SIDE_BY_SIDE[target.vector_registers] if long and target.vector_bytes > 4 else 1


@dataclass(frozen=True)
class Tile:
    """`rows` rows by `vectors` vectors of `lanes` columns, each a power of two."""

    rows: int
    vectors: int
    lanes: int

    @property
    def width(self) -> int:
        """Columns."""
        return self.vectors * self.lanes


def most_rows(target: Target) -> int:
    """The most rows of any tile of a target."""
    return SUMS[target.vector_registers] // 2


def dense_tile(target: Target, dtype: DType, m: Dim, n: Dim) -> Tile:
    """The tile of an [m, n] product summed in a type.

    As many sums as there is room for, since each waits for the one before it: many rows by two
    vectors where there are rows, else few rows by many vectors.
    """
    lanes = max(target.vector_bytes // max(dtype.bytes, 4), 1)
    while lanes > 1 and bounds(n)[1] < lanes:
        lanes //= 2
    sums = SUMS[target.vector_registers]
    rows = most_rows(target)
    while rows > 1 and rows > bounds(m)[1]:
        rows //= 2
    return Tile(rows, min(sums // rows, MAX_VECTORS), lanes)


@dataclass(frozen=True)
class Panels:
    """The layout of a constant b[…, k, n]: panels of columns one behind the other, k by k.

    Attributes:
        width: columns of a panel, each of its k rows a run of memory.
        lanes: the last panel has as few columns as it can, in multiples of this; those past n
            are zeros.
    """

    width: int
    lanes: int

    def rest(self, n: int) -> int:
        """The columns of the last panel where they are fewer than the width; else 0."""
        return -(-(n % self.width) // self.lanes) * self.lanes

    def columns(self, n: int) -> int:
        """The columns of all panels."""
        return n // self.width * self.width + self.rest(n)

    def elements(self, shape: tuple[Dim, ...]) -> int:
        """The elements that an array takes in this layout."""
        *batch, k, n = (static(d, "the size of a weight") for d in shape)
        return int(np.prod(batch)) * k * self.columns(n)

    def address(self, shape: tuple[Dim, ...], index: tuple[Dim, ...]) -> Dim:
        """Where an element lies; the columns that an index names must be all of one panel.

        In the last panel, columns past n have addresses too.
        """
        *batch, k, n = (static(d, "the size of a weight") for d in shape)
        *outer, row, column = index
        whole = n // self.width * self.width
        matrix: Dim = 0
        for i, size in zip(outer, batch, strict=True):
            matrix = matrix * size + i
        start = matrix * (k * self.columns(n))
        if bounds(column)[0] >= whole:
            return start + whole * k + row * self.rest(n) + (column - whole)
        panel = column // self.width
        return start + panel * (k * self.width) + row * self.width + (column - panel * self.width)

    def pack(self, elements: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The elements of an array in this layout."""
        *batch, k, n = elements.shape
        padded = np.zeros((*batch, k, self.columns(n)), elements.dtype)
        padded[..., :n] = elements
        matrices = padded.reshape(int(np.prod(batch)), k, self.columns(n))
        whole = n // self.width * self.width
        blocks = matrices[:, :, :whole].reshape(len(matrices), k, -1, self.width)
        main = blocks.transpose(0, 2, 1, 3).reshape(len(matrices), -1)
        last = matrices[:, :, whole:].reshape(len(matrices), -1)
        return np.concatenate([main, last], 1).reshape(-1)
