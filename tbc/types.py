"""Element types and tensor types."""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import ml_dtypes
import numpy as np

from tbc.dims import Dim, product
from tbc.errors import Unsupported


class DType(Enum):
    """An element type: (bits in memory, kind, numpy type, ONNX's TensorProto code).

    Kinds: `f` float, `s` small float, which is only stored, `i` signed, `u` unsigned, `b` bool, `w`
    low-bit weight. NumPy holds types of
    less than a byte one element a byte; `trit` is {-1, 0, 1} and `sign` is {-1, 1} in int8.
    """

    f16 = (16, "f", np.float16, 10)
    bf16 = (16, "f", ml_dtypes.bfloat16, 16)
    f32 = (32, "f", np.float32, 1)
    f64 = (64, "f", np.float64, 11)
    f8e4m3fn = (8, "s", ml_dtypes.float8_e4m3fn, 17)
    f8e4m3fnuz = (8, "s", ml_dtypes.float8_e4m3fnuz, 18)
    f8e5m2 = (8, "s", ml_dtypes.float8_e5m2, 19)
    f8e5m2fnuz = (8, "s", ml_dtypes.float8_e5m2fnuz, 20)
    f4e2m1 = (4, "s", ml_dtypes.float4_e2m1fn, 23)
    i2 = (2, "i", np.int8, 26)
    i4 = (4, "i", np.int8, 22)
    i8 = (8, "i", np.int8, 3)
    i16 = (16, "i", np.int16, 5)
    i32 = (32, "i", np.int32, 6)
    i64 = (64, "i", np.int64, 7)
    u2 = (2, "u", np.uint8, 25)
    u4 = (4, "u", np.uint8, 21)
    u8 = (8, "u", np.uint8, 2)
    u16 = (16, "u", np.uint16, 4)
    u32 = (32, "u", np.uint32, 12)
    u64 = (64, "u", np.uint64, 13)
    bool = (8, "b", np.bool_, 9)
    trit = (2, "w", np.int8, 0)
    sign = (1, "w", np.int8, -1)

    def __init__(self, bits: int, kind: str, numpy: Any, onnx: int):
        self.bits, self.kind, self.onnx = bits, kind, onnx
        self.numpy: np.dtype[Any] = np.dtype(numpy)

    def __repr__(self) -> str:
        return self.name

    @property
    def bytes(self) -> int:
        """Bytes an element takes in a buffer, where every element has at least one."""
        return max(self.bits // 8, 1)

    @property
    def is_float(self) -> builtins.bool:
        """Whether the type is a floating-point one."""
        return self.kind == "f"

    @property
    def is_small_float(self) -> builtins.bool:
        """Whether the type is a float of 8 or 4 bits: stored and moved, but not computed with."""
        return self.kind == "s"

    @property
    def is_int(self) -> builtins.bool:
        """Whether the type is a signed or unsigned integer."""
        return self.kind in "iu"

    @property
    def is_weight(self) -> builtins.bool:
        """Whether the type is `trit` or `sign`."""
        return self.kind == "w"

    @property
    def range(self) -> tuple[int, int]:
        """The least and the greatest value of an integer, bool or low-bit weight type.

        Of a small float, those of its bits.
        """
        if self.kind == "w":
            return -1, 1
        if self.kind == "b":
            return 0, 1
        if self.kind == "i":
            return -(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1
        return 0, (1 << self.bits) - 1


BY_ONNX_CODE = {dtype.onnx: dtype for dtype in DType if dtype.onnx > 0}


@dataclass(frozen=True)
class TensorType:
    """An element type and a shape; rank 0 is a scalar."""

    dtype: DType
    shape: tuple[Dim, ...] = ()

    @property
    def rank(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> Dim:
        """The number of elements."""
        return product(self.shape)

    @property
    def is_static(self) -> bool:
        """Whether every dimension is a number."""
        return all(isinstance(d, int) for d in self.shape)

    def __str__(self) -> str:
        return f"{self.dtype.name}[{', '.join(map(str, self.shape))}]"


MOST_AXES = 64
"""NumPy's limit of an array's rank."""
MOST_ELEMENTS = (1 << 59) - 1
"""So that 63 bits count the bytes of a tensor."""


def require_sizes(sizes: Sequence[Dim], what: str) -> None:
    """Refuse sizes that, as far as they are numbers, cannot be a shape.

    Raises:
        ValueError: one is negative.
        Unsupported: there are too many axes or elements.
    """
    numbers = [d for d in sizes if isinstance(d, int)]
    if any(d < 0 for d in numbers):
        raise ValueError(f"{what} has a negative size: {numbers}")
    if len(sizes) > MOST_AXES:
        raise Unsupported(f"{what} has {len(sizes)} axes")
    if math.prod(d for d in numbers if d) > MOST_ELEMENTS:
        raise Unsupported(f"{what} has more elements than can be counted: {numbers}")
