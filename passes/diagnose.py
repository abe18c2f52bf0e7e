"""Diagnose: what it is about a weight's elements that keeps it from being low-bit, in numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tbc.passes.columns import detect_parts
from tbc.passes.levels import GAP, MOST
from tbc.passes.refusal import Refusal
from tbc.passes.trits import TOLERANCE, UNIT

Array = npt.NDArray[Any]

FEW = 256
"""A row of at most this many different weights was quantised by somebody."""

CHANGED = (
    "the weight was changed after it was quantised (trained further, averaged, or scaled column by "
    "column): export the quantised weight itself"
)
TRAIN = "train it ternary, binary, or of at most 8 levels: tbc quantises no weights by itself"


def diagnose(w: Array) -> Refusal:
    """What is wrong with w[n, k], the most specific condition first."""
    if not w.size:
        return Refusal("the weight is empty")
    wide = w.astype(np.float64)
    odd = np.argwhere(~np.isfinite(wide))
    if len(odd):
        row, column = odd[0]
        reason = (
            f"{len(odd)} weights are not finite: row {row}, column {column} is {w[row, column]}"
        )
        return Refusal(reason, "the training or the export went wrong")
    return _nearly(wide) or _by_levels(w, wide)


def _nearly(w: Array) -> Refusal | None:
    """Where every cell has one magnitude but for a deviation that is greater than the tolerance."""
    n, k = w.shape
    for unit in (k, UNIT) if k % UNIT == 0 else (k,):
        cells = np.abs(w).reshape(n, -1, unit)
        top = cells.max(-1)
        counted = cells > GAP * top[..., None]
        low = np.where(counted, cells, np.inf).min(-1)
        deviation = np.divide(top - low, top, out=np.zeros_like(top), where=top > 0)
        dust = np.where(counted, 0, cells).max(-1)
        dust = np.divide(dust, top, out=np.zeros_like(top), where=top > 0)
        if deviation.max() > GAP:
            continue
        if deviation.max() > TOLERANCE:
            row, cell = np.unravel_index(deviation.argmax(), deviation.shape)
            numbers = f"{low[row, cell]:.6g} and {top[row, cell]:.6g}"
            off = deviation[row, cell]
        else:
            row, cell = np.unravel_index(dust.argmax(), dust.shape)
            numbers = f"{dust[row, cell] * top[row, cell]:.6g} and {top[row, cell]:.6g}"
            off = dust[row, cell]
        if off <= TOLERANCE:
            return None
        where = f"row {row}" if unit == k else f"row {row} from column {cell * unit} on"
        reason = f"{where} has magnitudes {numbers}, off by {off:.1g} of the scale"
        return Refusal(f"{reason}; at most {TOLERANCE:g} is noise", CHANGED)
    return None


def _by_levels(w: Array, wide: Array) -> Refusal:
    """How many levels rows have, and why they are no sum of planes."""
    counts = [len(np.unique(np.abs(row))) for row in wide[:MOST]]
    row = int(np.argmax(counts))
    levels, k = len(np.unique(wide[row])), w.shape[1]
    if levels > FEW or 2 * levels > k:
        return Refusal(f"row {row} has {levels} different values among {k}: it is dense", TRAIN)
    parts = detect_parts(w)
    detail = parts if isinstance(parts, str) else "the scales of its rows differ in kind"
    bits = f"row {row} has {levels} levels among {k} weights: {detail}"
    return Refusal(bits, TRAIN if levels > MOST else CHANGED if "nearer" in detail else "")
