"""How low-bit weights lie in memory: one object that the packer and the kernels share.

The 16x4 layout: rows in blocks of 16, each block a run of 64-byte units. Byte 4*r + j of a unit
belongs to row r and holds `fields` weights, of k = step*4*fields + 4*f + j for field f. A 64-byte
unit is thus one dword lane a row: the dot needs no horizontal sum, and its activation operand is a
broadcast of 4 bytes. Codes: `i2` holds trit + 1 in 2 bits, `b1` (sign + 1) / 2 in 1 bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tbc.types import DType

FIELD_BITS = {"i2": 2, "b1": 1}


@dataclass(frozen=True)
class Layout:
    """A packing of w[n, k].

    Attributes:
        code: how a weight is written, "i2" or "b1".
        group: weights of one scale along k, or 0 where a row has one scale; every group is padded
            to whole units on its own.
        rows: rows of a block.
        lanes_k: neighbouring k in one row's dword.
    """

    code: str
    group: int = 0
    rows: int = 16
    lanes_k: int = 4

    def __post_init__(self) -> None:
        if self.code not in FIELD_BITS or self.group < 0 or min(self.rows, self.lanes_k) < 1:
            raise ValueError(f"there is no layout {self}")

    @property
    def fields(self) -> int:
        """Weights a byte."""
        return 8 // FIELD_BITS[self.code]

    @property
    def unit_k(self) -> int:
        """Weights of one row in a unit: k is padded to multiples of it."""
        return self.lanes_k * self.fields

    @property
    def unit_bytes(self) -> int:
        """Bytes of a unit: one step along k for a block of rows."""
        return self.rows * self.lanes_k

    @property
    def dtype(self) -> DType:
        """The weights' type."""
        return DType.sign if self.code == "b1" else DType.trit

    def padded_k(self, k: int) -> int:
        """K with every group padded to whole units; what the activations are padded to."""
        group = self.group or k
        return k // group * -(-group // self.unit_k) * self.unit_k

    def blocks(self, n: int) -> int:
        """Blocks of rows, the last one filled up."""
        return -(-n // self.rows)

    def block_bytes(self, k: int) -> int:
        """Bytes of one block of rows."""
        return self.padded_k(k) // self.unit_k * self.unit_bytes

    def size(self, n: int, k: int) -> int:
        """Bytes of a packed w[n, k]."""
        return self.blocks(n) * self.block_bytes(k)

    def pack(self, w: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
        """The bytes of w[n, k]; padding is the weight 0 (code 1) of i2, and code 0 of b1."""
        n, k = w.shape
        group = self.group or k
        fill = 1 if self.code == "i2" else 0
        codes = (w + 1 if self.code == "i2" else w > 0).astype(np.uint8)
        per_group = self.padded_k(group)
        shape = (self.blocks(n) * self.rows, k // group, per_group)
        padded = np.full(shape, fill, np.uint8)
        padded[:n, :, :group] = codes.reshape(n, k // group, group)
        # [block, row, step, field, lane] -> [block, step, row, lane, field]
        units = padded.reshape(self.blocks(n), self.rows, -1, self.fields, self.lanes_k)
        units = units.transpose(0, 2, 1, 4, 3)
        shifts = np.arange(self.fields, dtype=np.uint8) * FIELD_BITS[self.code]
        packed: npt.NDArray[np.uint8] = np.bitwise_or.reduce(units << shifts, axis=-1)
        return packed.reshape(-1)

    def unpack(self, packed: npt.NDArray[np.uint8], n: int, k: int) -> npt.NDArray[np.int8]:
        """w[n, k] from its bytes."""
        group = self.group or k
        mask = (1 << FIELD_BITS[self.code]) - 1
        shifts = np.arange(self.fields, dtype=np.uint8) * FIELD_BITS[self.code]
        units = packed.reshape(self.blocks(n), -1, self.rows, self.lanes_k)
        codes = (units[..., None] >> shifts) & mask
        rows = codes.transpose(0, 2, 1, 4, 3).reshape(self.blocks(n) * self.rows, k // group, -1)
        kept = rows[:n, :, :group].reshape(n, k).astype(np.int8)
        return (kept - 1 if self.code == "i2" else kept * 2 - 1).astype(np.int8)
