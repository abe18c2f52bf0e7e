"""Finds low-bit weights by their values: arrays that are {-1, 0, 1} or {-1, 1} times a scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tbc.types import DType

TOLERANCE = 1e-5
"""How far a magnitude may lie from its scale, relative to it, where no exact scale exists.

Straight-through estimators and folded batch normalisation leave one or two units in the last place
of f32; a value that is off by 1e-4 is meant to be.
"""
UNIT = 16
"""Groups along k are multiples of this many weights."""
_BLOCK = 1 << 20

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class LowBit:
    """What makes a weight w[n, k] low-bit: w == t * scale, t of `dtype`.

    Attributes:
        dtype: `trit`, or `sign` where no weight is 0.
        scale: [1, 1] (per tensor), [n, 1] (per row) or [n, g] (per group of k // g); 0 where every
            weight that it scales is 0. f32 for float weights, f64 for integer ones.
    """

    dtype: DType
    scale: Array


@dataclass(frozen=True)
class _Magnitudes:
    """The least and the greatest |w| of each row's cells along k, not counting zeros."""

    lo: Array
    hi: Array
    zeros: bool

    def fit(self, tolerance: float) -> bool:
        """Whether one scale explains each cell."""
        return bool(_spread(self.lo, self.hi, tolerance).all())

    def merged(self, axis_sizes: tuple[int, int], tolerance: float) -> _Magnitudes:
        """The magnitudes of cells that take in that many rows and cells of these."""
        rows, cells = axis_sizes
        shape = (self.hi.shape[0] // rows, rows, self.hi.shape[1] // cells, cells)
        hi = self.hi.reshape(shape).max((1, 3), keepdims=True)
        counted = self.hi.reshape(shape) > tolerance * hi
        lo = np.where(counted, self.lo.reshape(shape), np.inf).min((1, 3))
        zeros = self.zeros or not counted.all()
        return _Magnitudes(lo, hi[:, 0, :, 0], zeros)


def detect(w: Array) -> LowBit | str:
    """The coarsest scales that explain w[n, k] as low-bit, or why there are none.

    Exact scales are looked for first: one for the tensor, one a row, then groups along k from the
    largest; then the same within `TOLERANCE`, for float weights. Rows are read block by block.
    """
    if not w.size:
        return "the weight is empty"
    exact_only = w.dtype.kind in "iu"
    reason = ""
    for tolerance in (0.0,) if exact_only else (0.0, TOLERANCE):
        cells = _magnitudes(w, tolerance)
        if isinstance(cells, str):
            reason = cells
        elif (found := _coarsest(cells, tolerance)) is not None:
            return found
    return reason


def _spread(lo: Array, hi: Array, tolerance: float) -> Array:
    return (hi - lo) <= tolerance * hi


def _magnitudes(w: Array, tolerance: float) -> _Magnitudes | str:
    """The magnitudes of w's finest cells, or why not even those have one scale each."""
    n, k = w.shape
    unit = UNIT if k % UNIT == 0 else k
    number = np.float64 if w.dtype.kind in "iu" else np.float32
    lo, hi = np.empty((2, n, k // unit), number)
    zeros = False
    step = max(_BLOCK // k, 1)
    for start in range(0, n, step):
        rows = slice(start, start + step)
        block = np.abs(np.ascontiguousarray(w[rows]).astype(number, copy=False))
        block = block.reshape(-1, k // unit, unit)
        top = block.max(-1)
        if not np.isfinite(top).all():
            return "a weight is infinite or not a number"
        counted = block > tolerance * top[..., None]
        zeros = zeros or not counted.all()
        np.copyto(block, np.inf, where=~counted)
        lo[rows], hi[rows] = block.min(-1), top
        if not (fits := _spread(lo[rows], top, tolerance)).all():
            return _reason(lo[rows][~fits][0], top[~fits][0], unit)
    return _Magnitudes(lo, hi, zeros)


def _reason(lo: float, hi: float, unit: int) -> str:
    return f"not ternary: {unit} weights of one row have magnitudes from {lo:.6g} to {hi:.6g}"


def _coarsest(finest: _Magnitudes, tolerance: float) -> LowBit | None:
    n, units = finest.hi.shape
    groups = [d for d in range(units, 0, -1) if units % d == 0]
    for merge in ((n, units), *((1, d) for d in groups)):
        cells = finest.merged(merge, tolerance)
        if cells.fit(tolerance):
            middle = (cells.lo.astype(np.float64) + cells.hi) / 2
            scale = np.where(cells.hi > 0, middle, 0).astype(finest.hi.dtype)
            return LowBit(DType.trit if cells.zeros else DType.sign, scale)
    return None


def zero_fraction(w: Array) -> float:
    """How many of the weights are 0, from 0 to 1; nan where there are none."""
    return 1 - int(np.count_nonzero(w)) / w.size if w.size else math.nan
