"""The few values that a weight takes, cell by cell, and the sums of signs or trits that make them.

A cell is a part of a row that has scales of its own. Arrays of levels are [cells, up to `MOST`]:
ascending, with nan behind a cell's last one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from tbc.types import DType

Array = npt.NDArray[Any]

MOST = 8
"""Three signs make at most so many levels."""

GAP = 1e-2
"""Levels are apart by at least this much of a cell's greatest magnitude.

Values that are nearer to each other, and yet further than the tolerance, are not a quantiser's.
"""


@dataclass(frozen=True)
class Fit:
    """level == offset + sum_i scales[i] * t_i for every level of every cell.

    The t_i are found one after the other: t_0 is the nearest to level - centre, every other one to
    what is left of level - offset. Arrays are [cells].

    Attributes:
        dtype: of the t_i.
        scales: the greatest first.
        offset: what the levels lie around.
        centre: what the first t tells the levels above from those below by.
    """

    dtype: DType
    scales: tuple[Array, ...]
    offset: Array
    centre: Array


def clusters(values: Array, tolerance: float) -> Array | None:
    """The levels [cells, up to MOST] of values[cells, count], nan behind the last; nans are none.

    A level is the middle of values that differ by at most `tolerance` of the cell's greatest
    magnitude. None where a cell has more than `MOST` of them.
    """
    left = np.where(np.isnan(values.T), np.inf, values.T)
    slack = tolerance * np.where(left < np.inf, np.abs(left), 0).max(0, initial=0)
    levels: list[Array] = []
    while True:
        lowest = left.min(0, initial=np.inf)
        if not (lowest < np.inf).any():
            none = np.full((len(values), 1), np.nan, values.dtype)
            return np.stack(levels, -1) if levels else none
        if len(levels) == MOST:
            return None
        own = left <= lowest + slack
        highest = np.where(own, left, -np.inf).max(0) if tolerance else lowest
        with np.errstate(invalid="ignore"):
            middle = lowest + (highest - lowest) / 2
        levels.append(np.where(lowest < np.inf, middle, np.nan).astype(values.dtype))
        left[own] = np.inf


def closest(levels: Array) -> float:
    """The least distance of two levels of a cell, relative to its greatest magnitude."""
    with np.errstate(invalid="ignore", divide="ignore"):
        top = np.fmax.reduce(np.abs(levels), -1, keepdims=True)
        return float(np.fmin.reduce(np.diff(levels, axis=-1) / top, None, initial=np.inf))


# -- fits -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    """A way to explain levels.

    Attributes:
        dtype: of its planes.
        planes: how many.
        levels: the most of a cell that it explains.
        fit: (levels, tolerance) -> the scales, or None.
    """

    dtype: DType
    planes: int
    levels: int
    fit: Callable[[Array, float], Fit | None]


def _signs(planes: int, levels: Array, tolerance: float) -> Fit | None:
    """Any two levels by one sign, any three by two; by three any four, or some of a grid of eight.

    Four levels are two signs where they lie as those around their middle do.
    """
    slack, many = tolerance * _top(levels), _count(levels) > 4
    fit = _four(levels, slack)
    if planes == 3 and many.any():
        return _merged(many, _grid(levels, slack), fit)
    if many.any() or any((s > slack).any() for s in fit.scales[planes:]):
        return None
    return replace(fit, scales=fit.scales[:planes])


def _four(levels: Array, slack: Array) -> Fit:
    """Three signs for cells of at most four levels; the scales that are not needed are 0.

    The third sign is the product of the first two, so that offset and scales are what a Hadamard
    matrix makes of the levels.
    """
    count = _count(levels)
    a, second, third, fourth = _first(levels, 4)
    b = np.where(count > 2, second, a)
    c = np.choose(np.minimum(count, 3) - 1, (a, second, third))
    d = np.choose(np.minimum(count, 4) - 1, (a, second, b + c - a, fourth))
    offset, first, inner = (a + b + c + d) / 4, (c + d - a - b) / 4, (b + d - a - c) / 4
    product = np.abs(a + d - b - c) / 4
    product = np.where(product > slack, product, 0)
    centre = np.where(product > 0, (b + c) / 2, offset)
    return Fit(DType.sign, (first, inner, product), offset, centre)


def _grid(levels: Array, slack: Array) -> Fit | None:
    """Three signs for equally spaced levels, some of which may be absent."""
    levels = levels.astype(np.float64)
    lowest, highest = levels[:, 0], np.fmax.reduce(levels, -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        steps = np.rint((highest - lowest) / np.fmin.reduce(np.diff(levels, axis=-1), -1))
        step = (highest - lowest) / steps
        places = (levels - lowest[:, None]) / step[:, None]
        off = np.abs(places - np.rint(places)) * step[:, None] > slack[:, None]
    if ((_count(levels) > 4) & (off.any(-1) | (steps >= MOST))).any():
        return None
    offset = (lowest + highest) / 2 + step * (MOST - 1 - steps) / 2
    return Fit(DType.sign, (2 * step, step, step / 2), offset, offset)


def _merged(where: Array, one: Fit | None, other: Fit) -> Fit | None:
    """A fit of the cells `where`, and the other of the rest."""
    if one is None:
        return None
    pairs = zip(one.scales, other.scales, strict=True)
    scales = tuple(np.where(where, a, b) for a, b in pairs)
    offset = np.where(where, one.offset, other.offset)
    return Fit(one.dtype, scales, offset, np.where(where, one.centre, other.centre))


def _mirrored(planes: int, levels: Array, tolerance: float) -> Fit | None:
    """Signs around 0: the first is the level's, and the others make its magnitude."""
    found = clusters(np.abs(levels), tolerance)
    fit = None if found is None else _signs(planes - 1, found, tolerance)
    if fit is None:
        return None
    zero = np.zeros(len(levels))
    return Fit(DType.sign, (fit.offset, *fit.scales), zero, zero)


def _centred(planes: int, levels: Array, tolerance: float) -> Fit | None:
    """Signs around the middle of the least and the greatest level."""
    centre = (levels[:, 0] + np.fmax.reduce(levels, -1)) / 2
    fit = _mirrored(planes, levels - centre[:, None], tolerance)
    return None if fit is None else replace(fit, offset=centre, centre=centre)


def _trits(levels: Array, tolerance: float) -> Fit | None:
    """Three equally spaced levels by one trit."""
    count, (a, b, c) = _count(levels), _first(levels, 3)
    uneven = np.abs(a + c - 2 * b) > 2 * tolerance * _top(levels)
    if (count > 3).any() or uneven.any():
        return None
    last = np.choose(count - 1, (a, b, c))
    offset = np.where(count == 3, b, (a + last) / 2)
    return Fit(DType.trit, ((last - a) / 2,), offset, offset)


MODELS: tuple[Model, ...] = (
    Model(DType.sign, 1, 2, partial(_signs, 1)),
    Model(DType.trit, 1, 3, _trits),
    Model(DType.sign, 2, 4, partial(_mirrored, 2)),
    Model(DType.sign, 2, 4, partial(_signs, 2)),
    Model(DType.sign, 3, MOST, partial(_mirrored, 3)),
    Model(DType.sign, 3, MOST, partial(_signs, 3)),
    Model(DType.sign, 3, MOST, partial(_centred, 3)),
)
"""What explains levels, from the fewest bits a weight to the most."""


def _first(levels: Array, count: int) -> Array:
    """The first levels of all cells, in f64, nan where there are fewer."""
    found = np.full((count, len(levels)), np.nan)
    found[: levels.shape[1]] = levels.T[:count]
    return found


def _count(levels: Array) -> Array:
    return np.asarray((~np.isnan(levels)).sum(-1))


def _top(levels: Array) -> Array:
    return np.asarray(np.fmax.reduce(np.abs(levels), -1))
