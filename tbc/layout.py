"""How low-bit weights lie in memory: one object that the packer and the kernels share.

The 16x4 layout: rows in blocks of 16, each block a run of 64-byte units. Byte 4*r + j of a unit
belongs to row r and holds `fields` weights, of k = step*4*fields + 4*f + j for field f. A 64-byte
unit is thus one dword lane a row: the dot needs no horizontal sum, and its activation operand is a
broadcast of 4 bytes. `CODES` are the ways in which a byte holds its weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tbc.types import DType

Bytes = npt.NDArray[np.uint8]

BOOK_LOW = bytes.fromhex(
    "0010204050608090041424445464849418284858688898a80111214151618191"
    "051525455565859509192949596989990212224252628292a0a4a1a508a9a2a6"
)
BOOK_HIGH = bytes.fromhex(
    "0000000000000000000000000000000040404040404040404040404040404040"
    "8080808080808080808080808080808006064242828287870f0f434388000a43"
)
"""The code book x5: with low = BOOK_LOW[b & 63] and high = BOOK_HIGH[b >> 2], the byte b holds the
codes (low ^ high) & 3, (low ^ high) >> 2 & 3, low >> 4 & 3, low >> 6 and high >> 6.

64 of the 81 words of four trits are numbered by the lower 6 bits; the upper 2, while they are not
3, are the fifth trit. Where they are 3, `high`, which sees the bits from 2 on, changes the first
two trits of four words at a time into those of the 17 words that have no number, and supplies the
fifth. Two tables of 64 bytes are two byte permutations of AVX512-VBMI, four of NEON.
"""


@dataclass(frozen=True, eq=False)
class Code:
    """How a byte holds `fields` weights.

    A weight is a code: trit + 1 in {0, 1, 2}, (sign + 1) / 2 in {0, 1}, an integer of 4 bits plus
    8, or one of 8 bits, plus 128 where kernels take bytes without a sign.

    Attributes:
        name: of the code; "i2": 2 bits a trit, "b1": 1 bit a sign, "x5" and "f5": 5 trits a byte,
            by a code book and as digits; "q4": two integers of 4 bits a byte; "u8" and "u4": a code
            a byte, which is how kernels unpack those of low-bit weights and of 4 bits; "w8" and
            "s8": integers of 8 bits, with 128 added and as they are.
        dtype: the weights' type.
        bits: of a field.
        places: of each field, which number made of the byte it stands in, and at which bit. Number
            0 is the byte itself; of a code book, low ^ high, and then low and high.
        padding: the code that fills up rows and k: of the weight 0, or of the sign -1.
        is_signed: whether kernels take the byte as a signed number.
        is_fraction: whether the codes are the digits of byte / 256 to the base 3: each is the upper
            byte of three times what the one before has left, as in ggml's TQ1_0.
        is_of_panels: whether others are unpacked into it, and it lies in a cache then.
    """

    name: str
    dtype: DType
    bits: int
    places: tuple[tuple[int, int], ...]
    padding: int
    is_signed: bool = False
    is_fraction: bool = False
    is_of_panels: bool = False

    @property
    def fields(self) -> int:
        """Weights a byte."""
        return len(self.places)

    @property
    def is_book(self) -> bool:
        """Whether bytes are looked up in the code book."""
        return max(number for number, _ in self.places) > 0

    @property
    def mask(self) -> int:
        """The bits of a field at bit 0."""
        return (1 << self.bits) - 1

    @property
    def levels(self) -> int:
        """How many codes there are."""
        return {DType.sign: 2, DType.trit: 3, DType.i4: 16}.get(self.dtype, 256)

    @property
    def largest(self) -> int:
        """The greatest magnitude of what kernels multiply by."""
        return 128 if self.is_signed else self.levels - 1

    @property
    def slope(self) -> int:
        """A weight is slope * what kernels multiply by - `zero`."""
        return 2 if self.dtype is DType.sign else 1

    @property
    def zero(self) -> int:
        """What is to be taken from `slope` times a code to get the weight."""
        return 1 if self.dtype is DType.sign else 0 if self.is_signed else self.padding

    def numbers(self, codes: Bytes) -> npt.NDArray[np.int32]:
        """What kernels multiply by."""
        return (codes.view(np.int8) if self.is_signed else codes).astype(np.int32)

    @cached_property
    def words(self) -> Bytes:
        """u8[256, fields]: the codes that each byte holds."""
        byte = np.arange(256, dtype=np.uint8)
        if self.is_fraction:
            digits, rest = [], byte.astype(np.uint16)
            for _ in self.places:
                rest = rest * np.uint16(3)
                digits.append((rest >> 8).astype(np.uint8))
                rest &= 255
            return np.stack(digits, axis=-1)
        numbers = [byte]
        if self.is_book:
            low = np.frombuffer(BOOK_LOW, np.uint8)[byte & 63]
            high = np.frombuffer(BOOK_HIGH, np.uint8)[byte >> 2]
            numbers = [low ^ high, low, high]
        fields = [numbers[number] >> bit & self.mask for number, bit in self.places]
        return np.stack(fields, axis=-1)

    @cached_property
    def _bytes(self) -> Bytes:
        """u8[levels ** fields]: the byte of each word, numbered as `_number` does."""
        byte_of = np.zeros(self.levels**self.fields, np.uint8)
        possible = (self.words < self.levels).all(-1)
        byte_of[self._number(self.words[possible])] = np.flatnonzero(possible)
        return byte_of

    def _number(self, codes: Bytes) -> npt.NDArray[np.uint8]:
        """u8[…]: codes[…, fields] as digits, the first the least."""
        weights = self.levels ** np.arange(self.fields)
        found: npt.NDArray[np.uint8] = (codes * weights.astype(np.uint8)).sum(-1, dtype=np.uint8)
        return found

    def encode(self, codes: Bytes) -> Bytes:
        """u8[…]: the bytes that hold codes[…, fields]."""
        found: Bytes = self._bytes[self._number(codes)]
        return found

    def codes_of(self, w: npt.NDArray[np.int8]) -> Bytes:
        """The codes of weights."""
        if self.dtype is DType.sign:
            return (w > 0).astype(np.uint8)
        return w.astype(np.uint8) + np.uint8(self.padding)

    def weights_of(self, codes: Bytes) -> npt.NDArray[np.int8]:
        """The weights of codes."""
        if self.dtype is DType.sign:
            return codes.astype(np.int8) * 2 - 1
        return (codes - np.uint8(self.padding)).astype(np.int8)


CODES = {
    code.name: code
    for code in (
        Code("i2", DType.trit, 2, ((0, 0), (0, 2), (0, 4), (0, 6)), padding=1),
        Code("x5", DType.trit, 2, ((0, 0), (0, 2), (1, 4), (1, 6), (2, 6)), padding=1),
        Code("f5", DType.trit, 8, ((0, 0),) * 5, padding=1, is_fraction=True),
        Code("b1", DType.sign, 1, tuple((0, bit) for bit in range(8)), padding=0),
        Code("q4", DType.i4, 4, ((0, 0), (0, 4)), padding=8),
        Code("u8", DType.trit, 8, ((0, 0),), padding=1, is_of_panels=True),
        Code("u4", DType.i4, 8, ((0, 0),), padding=8, is_of_panels=True),
        Code("w8", DType.i8, 8, ((0, 0),), padding=128),
        Code("s8", DType.i8, 8, ((0, 0),), padding=0, is_signed=True),
    )
}


@dataclass(frozen=True)
class Layout:
    """A packing of w[n, k].

    Attributes:
        code: the name of how a byte holds its weights.
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
        if self.code not in CODES or self.group < 0 or min(self.rows, self.lanes_k) < 1:
            raise ValueError(f"there is no layout {self}")

    @property
    def coding(self) -> Code:
        """How a byte holds its weights."""
        return CODES[self.code]

    @property
    def fields(self) -> int:
        """Weights a byte."""
        return self.coding.fields

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
        return self.coding.dtype

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

    def pack(self, w: npt.NDArray[np.int8]) -> Bytes:
        """The bytes of w[n, k]; padding is the weight 0 of trits, and -1 of signs."""
        n, k = w.shape
        group = self.group or k
        per_group = self.padded_k(group)
        shape = (self.blocks(n) * self.rows, k // group, per_group)
        padded = np.full(shape, self.coding.padding, np.uint8)
        padded[:n, :, :group] = self.coding.codes_of(w).reshape(n, k // group, group)
        # [block, row, step, field, lane] -> [block, step, row, lane, field]
        units = padded.reshape(self.blocks(n), self.rows, -1, self.fields, self.lanes_k)
        return self.coding.encode(units.transpose(0, 2, 1, 4, 3)).reshape(-1)

    def unpack(self, packed: Bytes, n: int, k: int) -> npt.NDArray[np.int8]:
        """w[n, k] from its bytes."""
        group = self.group or k
        codes = self.coding.words[packed.reshape(self.blocks(n), -1, self.rows, self.lanes_k)]
        rows = codes.transpose(0, 2, 1, 4, 3).reshape(self.blocks(n) * self.rows, k // group, -1)
        return self.coding.weights_of(rows[:n, :, :group].reshape(n, k))
