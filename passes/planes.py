"""Finds weights that are sums of few low-bit planes: offset + sum_i scale_i * t_i, cell by cell.

So are weights of 2 bits (two signs), binary and ternary ones with a zero point, and residual
binarisations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tbc.layout import CODES
from tbc.passes.levels import GAP, MODELS, MOST, Fit, Model, closest, clusters
from tbc.passes.trits import UNIT
from tbc.types import DType

Array = npt.NDArray[Any]

WORTH = 8
"""Bits a weight, scales included, from which on a sum of planes is no gain over dense weights."""

CANCELLING = 8
"""How much greater than a row's weights what its planes add and take away again may be.

A float sum's error grows with the magnitudes that it adds up. A row of many small weights and few
great ones, as a sum of planes, adds great ones throughout.
"""

_BLOCK = 1 << 18


@dataclass(frozen=True)
class Planes:
    """w[n, k] == offset + sum_i scales[i] * t_i, with t_i of `dtype`; arrays are [n or 1, groups].

    Attributes:
        dtype: `sign`, or `trit` where there is one plane.
        scales: f32, or f64 of integer weights. Each t_i is the one nearest to what the planes
            before it leave of the weight.
        offset: None where it is 0.
        centre: t_0 is the one nearest to the weight without this; None where that is the offset.
    """

    dtype: DType
    scales: tuple[Array, ...]
    offset: Array | None
    centre: Array | None

    @property
    def groups(self) -> int:
        """How many scales a row has along k."""
        return int(self.scales[0].shape[1])

    def bits(self, n: int, k: int) -> float:
        """Bits a weight of w[n, k], with the scales, before padding."""
        arrays = len(self.scales) + (self.offset is not None)
        return _bits(self.dtype, len(self.scales), 32 * arrays * self.scales[0].size / (n * k))


def _bits(dtype: DType, planes: int, scales: float) -> float:
    return planes * CODES["b1" if dtype is DType.sign else "i2"].bits + scales


def detect_planes(w: Array, tolerance: float, worth: float = WORTH) -> Planes | str:
    """The sum of planes of fewest bits that w[n, k] is within the tolerance, or why it is none.

    Only one of fewer than `worth` bits a weight is. Of equal ones the coarsest scales win. A row of
    most dense weights tells that they are dense.
    """
    n, k = w.shape
    cells = _cells(w, tolerance)
    if isinstance(cells, str):
        return cells
    totals = np.abs(w).sum(1, dtype=np.float64)
    best: Planes | None = None
    reasons = {3: f"the weights of a row have more than {MOST} levels, or levels of no pattern"}
    for levels in _coarser(cells, tolerance):
        shape, flat = levels.shape[:2], levels.reshape(-1, levels.shape[-1])
        if (gap := closest(flat)) < GAP:
            reasons[2] = f"levels are nearer than a quantiser's: {gap:.1g} of the greatest"
            continue
        for model in MODELS:
            least = worth if best is None else best.bits(n, k)
            if best is not None and _least_bits(model, len(flat) / (n * k)) >= least:
                continue
            fit = model.fit(flat, tolerance) if flat.shape[1] <= model.levels else None
            if fit is None:
                continue
            planes = _planes(fit, shape, flat, tolerance)
            if (bits := planes.bits(n, k)) >= least:
                reasons[1] = f"as {_words(planes)} a weight would take {bits:.3g} bits"
            elif (ratio := _cancelled(planes, totals, k)) > CANCELLING:
                reasons[0] = f"as {_words(planes)}, {ratio:.3g} times the weights would cancel"
            elif _holds(planes, w, tolerance):
                best = planes
    return reasons[min(reasons)] if best is None else best


def _least_bits(model: Model, cells: float) -> float:
    """Bits a weight that a model takes at least, with `cells` a weight."""
    return _bits(model.dtype, model.planes, 32 * model.planes * cells)


def _words(planes: Planes) -> str:
    count = len(planes.scales)
    return f"{count} plane{'s' * (count > 1)} of {planes.dtype.name}s"


# -- levels of cells ------------------------------------------------------------------------------


def _cells(w: Array, tolerance: float) -> Array | str:
    """The levels [n, units, up to MOST] of w's finest cells, or why some have too many."""
    n, k = w.shape
    unit = UNIT if k % UNIT == 0 else k
    number = np.float64 if w.dtype.kind in "iu" else np.float32
    levels = np.full((n * (k // unit), MOST), np.nan, number)
    most = done = 0
    for rows in row_blocks(n, k, first=1):
        block = np.ascontiguousarray(w[rows]).astype(number, copy=False).reshape(-1, unit)
        if not np.isfinite(block).all():
            return "a weight is infinite or not a number"
        found = clusters(block, tolerance)
        if found is None:
            return f"{unit} weights of one row have more than {MOST} levels"
        levels[done : done + len(found), : found.shape[1]] = found
        most, done = max(most, found.shape[1]), done + len(found)
    return levels[:, :most].reshape(n, k // unit, most)


def row_blocks(n: int, k: int, first: int = 0) -> Iterator[slice]:
    """Slices of rows of w[n, k] to read together, the first of `first` rows if that is not 0."""
    start, step = 0, first or max(_BLOCK // k, 1)
    while start < n:
        yield slice(start, start + step)
        start, step = start + step, max(_BLOCK // k, 1)


def _coarser(cells: Array, tolerance: float) -> Iterator[Array]:
    """The levels of ever smaller cells: of the tensor, of rows, of groups."""
    n, units, _ = cells.shape
    by_groups: dict[int, Array | None] = {units: cells}
    for groups in sorted((d for d in range(1, units) if units % d == 0), reverse=True):
        by_groups[groups] = _joined(by_groups, groups, tolerance)
    rows = by_groups[1]
    whole = None if rows is None else _merge(rows.swapaxes(0, 1), 1, tolerance)
    if whole is not None and n > 1:
        yield whole
    for groups in sorted(by_groups):
        if (found := by_groups[groups]) is not None:
            yield found


def _joined(finer: Mapping[int, Array | None], groups: int, tolerance: float) -> Array | None:
    """The levels of cells that take in those of the least finer division."""
    found = finer[min(g for g in finer if g % groups == 0)]
    return None if found is None else _merge(found, groups, tolerance)


def _merge(levels: Array, groups: int, tolerance: float) -> Array | None:
    """The levels [rows, groups, …] of cells of neighbours along the second axis, or None."""
    rows = len(levels)
    cells = levels.reshape(rows * groups, -1)
    if rows > 1 and clusters(cells[:1], tolerance) is None:
        return None
    found = clusters(cells, tolerance)
    return None if found is None else found.reshape(rows, groups, -1)


# -- planes ---------------------------------------------------------------------------------------


def _planes(fit: Fit, shape: tuple[int, ...], levels: Array, tolerance: float) -> Planes:
    slack = tolerance * np.fmax.reduce(np.abs(levels), -1)
    number = levels.dtype
    scales = tuple(s.reshape(shape).astype(number) for s in fit.scales)
    offset = fit.offset if (np.abs(fit.offset) > slack).any() else None
    around = np.zeros_like(fit.offset) if offset is None else offset
    centre = fit.centre if (np.abs(fit.centre - around) > slack).any() else None
    return Planes(
        fit.dtype,
        scales,
        None if offset is None else offset.reshape(shape).astype(number),
        None if centre is None else centre.reshape(shape).astype(number),
    )


def _cancelled(planes: Planes, totals: Array, k: int) -> float:
    """The greatest ratio over the rows of what planes add up, in magnitude, to the weights."""
    arrays = planes.scales if planes.offset is None else (*planes.scales, planes.offset)
    added = np.sum([np.abs(a).astype(np.float64) for a in arrays], (0, 2)) * (k / planes.groups)
    added = np.broadcast_to(added, totals.shape)
    ratios = np.divide(added, totals, out=np.where(added > 0, np.inf, 0), where=totals > 0)
    return float(ratios.max())


def _holds(planes: Planes, w: Array, tolerance: float) -> bool:
    """Whether every weight is within the tolerance of what the planes make of it."""
    n, k = w.shape
    groups, number = planes.groups, planes.scales[0].dtype
    for rows in row_blocks(n, k):
        block = (
            np.ascontiguousarray(w[rows])
            .astype(number, copy=False)
            .reshape(-1, groups, k // groups)
        )

        def part(array: Array, rows: slice = rows) -> Array:
            return (array if len(array) == 1 else array[rows])[..., None]

        offset = 0 if planes.offset is None else part(planes.offset)
        left = block - (offset if planes.centre is None else part(planes.centre))
        made = np.zeros_like(block) + offset
        for scale in map(part, planes.scales):
            made += scale * _nearest(planes.dtype, left, scale)
            left = block - made
        rounding = 0 if planes.scales[0].dtype == np.float64 else _ROUNDING
        top = np.abs(block).max(-1, keepdims=True)
        if (np.abs(left) > (tolerance + rounding) * top).any():
            return False
    return True


_ROUNDING = 8 * float(np.finfo(np.float32).eps)
"""What the sum in f32 of up to four numbers that were rounded to it may be off by."""


def _nearest(dtype: DType, x: Array, scale: Array) -> Array:
    if dtype is DType.sign:
        return np.where(x < 0, -1, 1).astype(x.dtype)
    return np.where(np.abs(x) > scale / 2, np.sign(x), 0).astype(x.dtype)
