"""Weights with a scale for each column: w[n, k] == s[n] * g[k] * t[n, k], t ternary or binary.

Exporters and optimisers make them: they fold a norm's gain into the weight behind it, or quantise
along the input channels (`DequantizeLinear` of axis 0). The gains scale the activations instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tbc.passes.trits import TOLERANCE, LowBit, detect

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Gained:
    """What makes w[n, k] low-bit once its columns are divided by their gains.

    Attributes:
        low: the scales of w / gains: one for the tensor, or one a row.
        gains: f32[k], positive; 1 for a column of zeros.
    """

    low: LowBit
    gains: Array


def detect_gains(w: Array) -> Gained | None:
    """The gains of w[n, k]'s columns, or None where they do not make it low-bit.

    Weights must be 0 to count as zeros: noise around 0 cannot be told from a small gain.
    """
    if not w.size:
        return None
    gains = _gains(w)
    if gains is None:
        return None
    with np.errstate(over="ignore", under="ignore"):
        rounded = gains.astype(np.float32)
    if not (np.isfinite(rounded) & (rounded >= np.finfo(np.float32).tiny)).all():
        return None
    low = detect(w.astype(np.float32) / rounded)
    if isinstance(low, str) or low.scale.shape[1] > 1:
        return None
    return Gained(low, rounded)


def _gains(w: Array) -> Array | None:
    """The positive gains of the columns, or None if two rows disagree about them.

    A row that shares a column with those before it has its scale from there, and tells the gains
    of its other columns. Rows are gone through until none is left; if none of them shares a
    column, its first has the scale 1.
    """
    n, k = w.shape
    gains = np.zeros(k)
    left, alone = list(range(n)), True
    while left:
        later = []
        for row in left:
            sizes = np.abs(w[row].astype(np.float64))
            if not np.isfinite(sizes).all():
                return None
            used = sizes > 0
            known = used & (gains > 0)
            if known.any():
                ratios = sizes[known] / gains[known]
                scale = float(np.median(ratios))
                if np.abs(ratios - scale).max() > TOLERANCE * scale:
                    return None
            elif alone or not used.any():
                scale = 1.0
            else:
                later.append(row)
                continue
            alone = False if used.any() else alone
            fresh = used & ~known
            gains[fresh] = sizes[fresh] / scale
        alone = len(later) == len(left)
        left = later
    return np.where(gains > 0, gains, 1)
