"""How far arrays are from what is expected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tbc.types import DType

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Difference:
    """How far an array is from what is expected; NaN equals NaN.

    Attributes:
        elements: how many were compared.
        max_abs: the largest |got - expected|; infinite where one is not finite and the other is not
            the same.
        max_rel: the largest |got - expected| / |expected|, where something is expected but 0.
        max_ulp: the most representable numbers between the two; of integers, the difference.
        beyond: how many elements are further off than the tolerance.
    """

    elements: int = 0
    max_abs: float = 0.0
    max_rel: float = 0.0
    max_ulp: int = 0
    beyond: int = 0

    @property
    def is_exact(self) -> bool:
        """Whether everything is equal, up to the sign of zeros."""
        return self.max_abs == 0.0

    def __or__(self, other: Difference) -> Difference:
        """Both together."""
        return Difference(
            self.elements + other.elements,
            max(self.max_abs, other.max_abs),
            max(self.max_rel, other.max_rel),
            max(self.max_ulp, other.max_ulp),
            self.beyond + other.beyond,
        )


def tolerance(dtype: DType, rtol: float) -> float:
    """The relative tolerance for a type: `rtol`, or more for short floats, and 0 for integers."""
    if not dtype.is_float:
        return 0.0
    return max(rtol, {DType.f16: 4 * 2**-10, DType.bf16: 4 * 2**-7}.get(dtype, 0.0))


def difference(got: Array, expected: Array, dtype: DType, rtol: float) -> Difference:
    """How far `got` is from `expected`, both of the type `dtype`.

    An element is beyond the tolerance where |got - expected| > rtol * (|expected| + the root mean
    square of everything expected), with `tolerance` of the type as rtol.
    """
    if got.shape != expected.shape:
        return Difference(expected.size, np.inf, np.inf, 0, 1)
    if not expected.size:
        return Difference()
    g, e = got.astype(np.float64), expected.astype(np.float64)
    with np.errstate(all="ignore"):
        same = (g == e) | (np.isnan(g) & np.isnan(e))
        error = np.where(same, 0.0, np.abs(g - e))
        error = np.where(np.isfinite(error), error, np.inf)
        rel = np.where(same | (e == 0), 0.0, error / np.abs(e))
        finite = np.where(np.isfinite(e), e, 0.0)
        largest = np.max(np.abs(finite)) or 1.0  # the squares of large numbers are not finite
        scale = largest * np.sqrt(np.mean(np.square(finite / largest)))
        beyond = error > tolerance(dtype, rtol) * (np.abs(finite) + scale)
    if not dtype.is_float and dtype is not DType.bool:
        beyond |= got != expected  # 64-bit integers lose bits above
    return Difference(
        expected.size,
        float(error.max()),
        float(np.nan_to_num(rel, nan=np.inf).max()),
        _ulps(got, expected, same, dtype),
        int(np.count_nonzero(beyond)),
    )


def _ulps(got: Array, expected: Array, same: npt.NDArray[np.bool_], dtype: DType) -> int:
    """The most representable numbers between elements that are not the same."""
    if same.all():
        return 0
    places = [_place(a[~same], dtype) for a in (got, expected)]
    return max(abs(int(a) - int(b)) for a, b in zip(*places, strict=True))


def _place(array: Array, dtype: DType) -> Array:
    """The number of each element when all values of the type are counted in order."""
    if not dtype.is_float:
        return array.astype(np.int64)
    bits = array.view(f"i{array.itemsize}").astype(np.int64)
    return np.where(bits < 0, -(bits & ((1 << (8 * array.itemsize - 1)) - 1)), bits)
