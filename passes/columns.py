"""Weights by parts: one low-bit weight, a sum of planes, or one for each of two classes of columns.

Classes are what BiLLM makes (arXiv 2402.04291): in every block of columns the few salient ones are
binarised twice, and the others in two groups by their magnitude. The levels of a row tell the
classes apart: two columns that share a level in some row are of one class.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tbc.passes.levels import MOST
from tbc.passes.planes import WORTH, Planes, detect_planes
from tbc.passes.trits import TOLERANCE, UNIT

Array = npt.NDArray[Any]

LEAST = 32
"""The least block of columns that may have classes of its own."""

FEW = 4
"""Planes of the whole weight that take so few bits a weight are not tried to be bettered."""

SAME = 5e-7
"""How far apart, relative to a row's greatest, equal levels of a class may be.

Among the levels of thousands of rows, some of two classes are nearer than the tolerance by chance.
"""


TOLD = 64
"""Rows that tell classes apart: enough to join what belongs together, and few accidents."""


@dataclass(frozen=True)
class Part:
    """The planes of some columns of a weight[n, k].

    Attributes:
        columns: which, in order; k stands for one more column, of zeros. None for all of them.
        planes: the sum that w[:, columns] is, but for columns of zeros, which may have any weights.
    """

    columns: Array | None
    planes: Planes


def detect_parts(w: Array) -> tuple[Part, ...] | str:
    """The sums of planes that the columns of w[n, k] are, or why they are none."""
    if not w.size:
        return "the weight is empty"
    tolerance = 0.0 if w.dtype.kind in "iu" else TOLERANCE
    found = detect_planes(w, tolerance)
    worth: float = WORTH
    if isinstance(found, Planes):
        worth = found.bits(*w.shape)
        if worth <= FEW:
            return (Part(None, found),)
    for classes in _splits(w) if tolerance else ():
        parts = _parts(w, classes, worth)
        if parts is not None:
            return parts
    return (Part(None, found),) if isinstance(found, Planes) else found


def _parts(w: Array, classes: tuple[Array, ...], most: float) -> tuple[Part, ...] | None:
    """The planes of each class, if they take less than `most` bits a weight."""
    n, k = w.shape
    parts, bits = [], 0.0
    for columns in classes:
        worth = WORTH * k / len(columns)
        planes = detect_planes(w[:, taken(columns, k)], TOLERANCE, worth)
        if isinstance(planes, str):
            return None
        parts.append(Part(columns, planes))
        bits += planes.bits(n, len(columns)) * len(columns) / k
    return tuple(parts) if bits < most else None


def taken(columns: Array, k: int) -> Array:
    """For each column one that has weights: where it is of zeros, the nearest before it."""
    places = np.maximum.accumulate(np.where(columns < k, np.arange(len(columns)), 0))
    first = columns[np.argmax(columns < k)]
    found = columns[places]
    return np.where(found < k, found, first)


# -- classes of columns ---------------------------------------------------------------------------


def _splits(w: Array) -> Iterator[tuple[Array, Array]]:
    """The columns of two classes, for each size of block in which no block has more than two.

    Columns of zeros fill up each class of a block to whole units, as many as the largest needs.
    """
    k = w.shape[1]
    for block in sorted((d for d in range(LEAST, k + 1) if k % d == 0), reverse=True):
        classes = []
        for start in range(0, k, block):
            found = _classes(w[:, start : start + block])
            if found is None:
                break
            classes.append([start + c for c in found])
        else:
            if any(len(smaller) for _, smaller in classes):
                yield _filled([c for c, _ in classes], k), _filled([c for _, c in classes], k)


def _filled(blocks: list[Array], k: int) -> Array:
    """The columns of all blocks, each filled up with columns of zeros to the same whole units."""
    width = -(-max(map(len, blocks)) // UNIT) * UNIT
    return np.concatenate([np.append(b, np.full(width - len(b), k, b.dtype)) for b in blocks])


def _classes(w: Array) -> tuple[Array, Array] | None:
    """The larger and the smaller class of a block's columns, or None if there are more.

    The smaller one may be empty.
    """
    label = np.arange(w.shape[1])
    for row in w[:TOLD]:
        levels = _levels(row)
        if levels is None:
            return None
        if levels.max() < 2:
            continue  # a row of two levels or one, as of zeros, tells nothing apart
        for number in range(levels.max() + 1):
            joined = np.unique(label[levels == number])
            label[np.isin(label, joined)] = joined[0]
        if not label.any():  # all are joined
            break
    one, *others = (np.flatnonzero(label == number) for number in np.unique(label))
    if len(others) > 1:
        return None
    other = others[0] if others else np.arange(0)
    return (one, other) if len(one) >= len(other) else (other, one)


def _levels(row: Array) -> Array | None:
    """The number of each element's level in a row, or None if they are more than two classes'."""
    order = np.argsort(row)
    ordered = row[order].astype(np.float64)
    with np.errstate(invalid="ignore"):
        level = np.cumsum(np.diff(ordered) > SAME * np.abs(ordered).max(), dtype=np.int64)
    if len(level) and level[-1] >= 2 * MOST:
        return None
    numbers = np.zeros(len(row), np.int64)
    numbers[order[1:]] = level
    return numbers
