"""What operations require of the types of their arguments, and what follows from them."""

from __future__ import annotations

from tbc.dims import Dim
from tbc.types import DType, TensorType


class DimMismatch(ValueError):
    """Two sizes that must be equal are not known to be.

    The frontend may restart with a symbol replaced so that they are.
    """

    def __init__(self, a: Dim, b: Dim, what: str):
        super().__init__(f"{what}: {a} is not {b}")
        self.a, self.b, self.what = a, b, what


def require(holds: bool, what: str) -> None:
    """Raise ValueError(what) unless it holds."""
    if not holds:
        raise ValueError(what)


def require_equal(a: Dim, b: Dim, what: str) -> None:
    """Raise DimMismatch unless two sizes are equal for every value of the symbols."""
    if a != b:
        raise DimMismatch(a, b, what)


def require_same(a: TensorType, b: TensorType, what: str) -> None:
    """Raise ValueError unless two types are equal for every value of the symbols."""
    require(a.dtype is b.dtype and a.rank == b.rank, f"{what}: {a} is not {b}")
    for d, e in zip(a.shape, b.shape, strict=True):
        require_equal(d, e, what)


def has_arithmetic(dtype: DType) -> bool:
    """Whether the type can be computed with: floats, and integers of whole bytes.

    The narrower ones are only stored, moved, compared and cast.
    """
    return dtype.is_float or (dtype.is_int and dtype.bits >= 8)


def has_bits(dtype: DType) -> bool:
    """Whether every pattern of an element's bits is one of the type's values, stored as it is."""
    return dtype.kind in "su" or (dtype.bits >= 8 and dtype.kind in "fi")


def broadcast_shapes(*shapes: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """The shape of an elementwise result: trailing dims align, and 1 stretches."""
    rank = max(len(s) for s in shapes)
    result: list[Dim] = [1] * rank
    for shape in shapes:
        for axis, dim in enumerate(shape, rank - len(shape)):
            if result[axis] == 1:
                result[axis] = dim
            elif dim != 1:
                require_equal(result[axis], dim, f"sizes of axis {axis} do not broadcast")
    return tuple(result)
