"""The exact meaning of scatters and of sorting, on NumPy arrays. Every size is a number here."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tbc.dims import static
from tbc.ops import ArgSort, Binary, ScatterElements, ScatterND
from tbc.reference_arrays import elements_at, points_at
from tbc.reference_elementwise import Array, binary, widened


def scatter_elements(op: ScatterElements, x: Array, indices: Array, updates: Array) -> Array:
    """x with elements updated."""
    return _updated(op.reduction, x, elements_at(op.axis, indices), updates)


def scatter_nd(op: ScatterND, x: Array, indices: Array, updates: Array) -> Array:
    """x with slices updated."""
    return _updated(op.reduction, x, points_at(indices), updates)


def _updated(reduction: str, x: Array, where: tuple[Array, ...], updates: Array) -> Array:
    """x with x[where] updated, one update after the other.

    The first update of every element comes first, then every second one, and so on: the order
    among the updates of one element is kept, and no element is met twice at once.
    """
    places = np.arange(x.size).reshape(x.shape)[where].reshape(-1)
    order = np.argsort(places, kind="stable")
    places, values = places[order], updates.reshape(-1)[order]
    turns = _turns(places)
    by_turn = np.argsort(turns, kind="stable")
    result = x.copy().reshape(-1)
    for turn in np.split(by_turn, np.flatnonzero(np.diff(turns[by_turn])) + 1):
        old, new = result[places[turn]], values[turn]
        result[places[turn]] = new if reduction == "none" else binary(Binary(reduction), old, new)
    return result.reshape(x.shape)


def _turns(places: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """How many equal ones stand before each of the sorted places."""
    return np.arange(places.size) - np.searchsorted(places, places)


def argsort(op: ArgSort, x: Array) -> Array:
    """The order of the elements along an axis, stable in both directions."""
    keys = np.moveaxis(widened(x), op.axis, -1)
    if op.descending:  # stable too: what is sorted backwards is read backwards
        order = keys.shape[-1] - 1 - np.argsort(keys[..., ::-1], -1, kind="stable")[..., ::-1]
    else:
        order = np.argsort(keys, -1, kind="stable")
    first = order[..., : static(op.count, "a count")]
    return np.asarray(np.moveaxis(first, -1, op.axis).astype(np.int64))
