"""How dense products use the registers, and how their constant operands lie in memory. Pure data.

A tile is a block of the result that is summed in registers. Where the right operand is a constant,
its columns lie in panels as wide as a tile, so that a step along k reads neighbouring memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tbc.dims import Dim, bounds, static
from tbc.ir import Value
from tbc.ops import Unary
from tbc.types import DType, TensorType

if TYPE_CHECKING:
    from tbc.target import Target

SUMS = {8: 4, 16: 8, 32: 16}
"""By vector registers, how many of them hold sums; the others hold operands and products."""

MAX_VECTORS = 8
"""Of a tile's row: more are no faster, and take registers."""


SCALED_VECTORS = 4
"""The same where the right operand is computed, and takes registers for that."""

SIDE_BY_SIDE = {8: 1, 16: 2, 32: 4}
"""By vector registers, how many vectors of a long formula are computed at once."""

LONG = ("exp", "log", "tanh", "sigmoid", "erf", "sinh", "cosh")
"""Formulas of which each operation waits for the one before it, with registers to spare."""


PREFETCH = {"x86": 2048}
"""By architecture, how far ahead of what a product of one row reads its weights are asked for."""


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


STRIP_COLUMN = 1024
"""Bytes, at most, of a column of a product's right operand that is brought onto the stack."""
STRIP = 1 << 14
"""Bytes, at most, of all columns that are there at a time."""


def has_strips(b: TensorType) -> bool:
    """Whether columns of b[…, k, n] may be brought onto the stack."""
    k = b.shape[-2]
    return isinstance(k, int) and k * max(b.dtype.bytes, 4) <= STRIP_COLUMN


def strip_tile(tile: Tile, b: TensorType) -> Tile:
    """A tile for a product by b that is no wider than a strip may be."""
    column = static(b.shape[-2], "k") * max(b.dtype.bytes, 4)
    vectors = tile.vectors
    while vectors > 1 and vectors * tile.lanes * column > STRIP:
        vectors //= 2
    return replace(tile, vectors=vectors)


@dataclass(frozen=True)
class Panels:
    """The layout of a constant w[…, n]: panels of columns one behind the other, row by row.

    Attributes:
        width: columns of a panel, each of its rows a run of memory.
        lanes: the last panel has as few columns as it can, in multiples of this; those past n
            are zeros.
        fields: neighbouring rows that share a byte, the first one in its low bits.
    """

    width: int
    lanes: int
    fields: int = 1

    def rest(self, n: int) -> int:
        """The columns of the last panel where they are fewer than the width; else 0."""
        return -(-(n % self.width) // self.lanes) * self.lanes

    def columns(self, n: int) -> int:
        """The columns of all panels."""
        return n // self.width * self.width + self.rest(n)

    def _sizes(self, shape: tuple[Dim, ...]) -> tuple[int, int]:
        """Rows, of `fields` each, and columns."""
        *outer, n = (static(d, "the size of a weight") for d in shape)
        return -(-math.prod(outer) // self.fields), n

    def elements(self, shape: tuple[Dim, ...]) -> int:
        """The elements, or bytes of several, that an array takes in this layout."""
        rows, n = self._sizes(shape)
        return rows * self.columns(n)

    def address(self, shape: tuple[Dim, ...], index: tuple[Dim, ...]) -> Dim:
        """Where an element lies; the columns that an index names must be all of one panel.

        In the last panel, columns past n have addresses too.
        """
        rows, n = self._sizes(shape)
        row, column = self._row(shape, index) // self.fields, index[-1]
        whole = n // self.width * self.width
        if bounds(column)[0] >= whole:
            return whole * rows + row * self.rest(n) + (column - whole)
        panel = column // self.width
        return panel * (rows * self.width) + row * self.width + (column - panel * self.width)

    def field(self, shape: tuple[Dim, ...], index: tuple[Dim, ...]) -> Dim:
        """Which of the fields of its byte an element is."""
        return self._row(shape, index) % self.fields

    @staticmethod
    def _row(shape: tuple[Dim, ...], index: tuple[Dim, ...]) -> Dim:
        row: Dim = 0
        for i, size in zip(index[:-1], shape[:-1], strict=True):
            row = row * size + i
        return row

    def pack(self, elements: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The elements of an array in this layout."""
        rows, n = self._sizes(elements.shape)
        padded = np.zeros((rows * self.fields, self.columns(n)), elements.dtype)
        given = elements.size // max(n, 1)
        padded[:given, :n] = elements.reshape(given, n)
        if self.fields > 1:
            bits = 8 // self.fields
            fields = padded.view(np.uint8).reshape(rows, self.fields, self.columns(n))
            codes = fields & ((1 << bits) - 1)
            shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
            padded = np.bitwise_or.reduce(codes << shifts, axis=1)
        whole = n // self.width * self.width
        blocks = padded[:, :whole].reshape(rows, whole // self.width, self.width).transpose(1, 0, 2)
        return np.concatenate([blocks.reshape(-1), padded[:, whole:].reshape(-1)])


def fields_of(dtype: DType) -> int:
    """How many elements of a type lie in a byte of panels."""
    return max(8 // dtype.bits, 1) if dtype.is_int else 1
