"""Diagnose: what it is about a weight's elements that keeps it from being low-bit, in numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tbc.passes.columns import detect_parts
from tbc.passes.levels import GAP, MOST
from tbc.passes.planes import row_blocks
from tbc.passes.refusal import Refusal
from tbc.passes.trits import TOLERANCE, UNIT

Array = npt.NDArray[Any]

FEW = 256
"""A row of at most this many different weights was quantised by somebody."""

FIRST = 8
"""Rows whose levels are counted."""

CHANGED = (
    "the weight was changed after it was quantised (trained further, averaged, or scaled column by "
    "column): export the quantised weight itself"
)
TRAIN = "train it ternary, binary, or of at most 8 levels: tbc quantises no weights by itself"


def diagnose(w: Array) -> Refusal:
    """What is wrong with w[n, k], the most specific condition first."""
    if not w.size:
        return Refusal("the weight is empty")
    for rows in row_blocks(*w.shape):
        odd = np.argwhere(~np.isfinite(w[rows].astype(np.float64)))
        if len(odd):
            row, column = odd[0] + (rows.start, 0)
            where = f"row {row}, column {column} is {w[row, column]}"
            return Refusal(f"not all weights are finite: {where}", "the export went wrong")
    k = w.shape[1]
    return _nearly(w, k) or (_nearly(w, UNIT) if k % UNIT == 0 else None) or _by_levels(w)


def _nearly(w: Array, unit: int) -> Refusal | None:
    """Where all cells of `unit` weights have one magnitude, but for more than the tolerance."""
    worst = 0.0
    at, numbers = (0, 0), ""
    n, k = w.shape
    for rows in row_blocks(n, k, first=1):
        cells = np.abs(w[rows].astype(np.float64)).reshape(-1, k // unit, unit)
        top = cells.max(-1, keepdims=True)
        near = np.where(cells > GAP * top, top - cells, cells)  # to the scale, or to 0
        off = np.divide(near, top, out=np.zeros_like(near), where=top > 0)
        if off.max() > GAP:
            return None
        if off.max() > worst:
            row, cell, place = np.unravel_index(off.argmax(), off.shape)
            worst, at = float(off.max()), (rows.start + int(row), int(cell))
            numbers = f"{cells[row, cell, place]:.6g} and {top[row, cell, 0]:.6g}"
    if worst <= TOLERANCE:
        return None
    row, cell = at
    where = f"row {row}" if unit == k else f"row {row} from column {cell * unit} on"
    reason = f"{where} has magnitudes {numbers}, off by {worst:.1g} of the scale"
    return Refusal(f"{reason}; at most {TOLERANCE:g} is noise", CHANGED)


def _by_levels(w: Array) -> Refusal:
    """How many levels rows have, and why they are no sum of planes."""
    counts = [len(np.unique(row)) for row in w[:FIRST]]
    row, levels, k = int(np.argmax(counts)), max(counts), w.shape[1]
    if levels > FEW or 2 * levels > k:
        return Refusal(f"row {row} has {levels} different values among {k}: it is dense", TRAIN)
    parts = detect_parts(w)
    detail = parts if isinstance(parts, str) else "the scales of its rows differ in kind"
    reason = f"row {row} has {levels} levels among {k} weights: {detail}"
    return Refusal(reason, CHANGED if "nearer" in detail else TRAIN if levels > MOST else "")
