"""Operations without arguments: inputs, constants and sizes as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from tbc.dims import Dim, product
from tbc.ops.checks import require
from tbc.types import DType, TensorType


class ConstData(Protocol):
    """Where a constant's elements come from."""

    def read(self) -> np.ndarray:
        """All elements, in the constant's type and shape."""


@dataclass(frozen=True)
class Input:
    """A named input of the graph."""

    name: str
    type: TensorType

    def infer(self) -> TensorType:
        """The declared type."""
        return self.type


@dataclass(frozen=True)
class Const:
    """A constant, known by the digest of its elements; read where it is needed."""

    digest: str
    type: TensorType
    data: ConstData = field(compare=False, repr=False)
    is_constant = True

    def infer(self) -> TensorType:
        """The declared type."""
        return self.type


@dataclass(frozen=True)
class Dims:
    """Sizes as data: `i64` elements that are dims, in row-major order."""

    dims: tuple[Dim, ...]
    shape: tuple[int, ...]

    @property
    def is_constant(self) -> bool:
        """Whether no symbol is left in it."""
        return all(isinstance(d, int) for d in self.dims)

    def infer(self) -> TensorType:
        """i64[shape]."""
        require(product(self.shape) == len(self.dims), "Dims needs one dim an element")
        return TensorType(DType.i64, self.shape)


@dataclass(frozen=True)
class Iota:
    """0, 1, 2, … : i64[size]."""

    size: Dim

    @property
    def is_constant(self) -> bool:
        """Whether the size is known."""
        return isinstance(self.size, int)

    def infer(self) -> TensorType:
        """i64[size]."""
        return TensorType(DType.i64, (self.size,))
