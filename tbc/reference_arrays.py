"""The exact meaning of the index maps, on NumPy arrays. Every size is a number here."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tbc.dims import Dim, static
from tbc.ops import (
    Broadcast,
    Concat,
    Dims,
    Gather,
    GatherElements,
    GatherND,
    Iota,
    Pad,
    Reshape,
    Slice,
    Transpose,
    Windows,
)
from tbc.reference_elementwise import Array


def _ints(dims: tuple[Dim, ...]) -> tuple[int, ...]:
    return tuple(static(d, "a size or position") for d in dims)


def sizes(op: Dims) -> Array:
    """The dims as i64 elements."""
    return np.array(_ints(op.dims), np.int64).reshape(op.shape)


def iota(op: Iota) -> Array:
    """0, 1, 2, …."""
    return np.arange(static(op.size, "a size"), dtype=np.int64)


def broadcast(op: Broadcast, x: Array) -> Array:
    """x stretched."""
    return np.broadcast_to(x, _ints(op.shape))


def reshape(op: Reshape, x: Array) -> Array:
    """x in another shape."""
    return x.reshape(_ints(op.shape))


def transpose(op: Transpose, x: Array) -> Array:
    """x with permuted axes."""
    return x.transpose(op.perm)


def strided(op: Slice, x: Array) -> Array:
    """A part of x with steps."""
    parts = []
    axes = zip(_ints(op.starts), op.steps, _ints(op.shape), x.shape, strict=True)
    for axis, (start, step, size, extent) in enumerate(axes):
        last = start + (size - 1) * step
        if size > 0 and not (0 <= start < extent and 0 <= last < extent):
            raise ValueError(f"the slice {start}..{last} of axis {axis} leaves 0..{extent - 1}")
        stop = last + (1 if step > 0 else -1)
        parts.append(slice(start, stop if stop >= 0 else None, step) if size > 0 else slice(0))
    return x[tuple(parts)]


def concat(op: Concat, *xs: Array) -> Array:
    """The arguments one behind the other."""
    return np.concatenate(xs, op.axis)


def pad(op: Pad, x: Array, value: Array) -> Array:
    """x in a larger shape."""
    before, shape = _ints(op.before), _ints(op.shape)
    after = [size - b - d for size, b, d in zip(shape, before, x.shape, strict=True)]
    if min((*before, *after), default=0) < 0:
        raise ValueError(f"padding {x.shape} at {before} to {shape} cuts it")
    if op.mode == "constant":
        padded = np.full(shape, value, x.dtype)
        padded[tuple(slice(b, b + d) for b, d in zip(before, x.shape, strict=True))] = x
        return padded
    for axis, (b, size, extent) in enumerate(zip(before, shape, x.shape, strict=True)):
        x = np.take(x, _padding_source(op.mode, np.arange(size) - b, extent), axis)
    return x


def _padding_source(mode: str, index: npt.NDArray[np.intp], extent: int) -> npt.NDArray[np.intp]:
    """The index that an index outside 0..extent-1 stands for."""
    if mode == "edge":
        return np.clip(index, 0, extent - 1)
    if mode == "wrap":
        return index % extent if extent else index
    turn = max(2 * (extent - 1), 1)
    index = index % turn
    return np.minimum(index, turn - index) if extent > 1 else index


def windows(op: Windows, x: Array, value: Array) -> Array:
    """The windows of x, as [n, c, *out, *kernel]."""
    out, spatial = _ints(op.out), len(op.kernel)
    shape = (*x.shape[:2], *out, *op.kernel)
    if 0 in x.shape[2:]:
        return np.full(shape, value, x.dtype)
    inside: Array = np.array(True)
    positions = []
    for axis in range(spatial):
        steps = np.arange(out[axis])[:, None] * op.strides[axis]
        taps = np.arange(op.kernel[axis]) * op.dilations[axis]
        position = (steps + taps - op.before[axis]).reshape(
            [n if a % spatial == axis else 1 for a, n in enumerate((*out, *op.kernel))]
        )
        inside = inside & (position >= 0) & (position < x.shape[2 + axis])
        positions.append(np.clip(position, 0, x.shape[2 + axis] - 1))
    if not positions:
        return x
    return np.where(inside, x[(slice(None), slice(None), *positions)], value)


def gather(op: Gather, x: Array, indices: Array) -> Array:
    """Slices of x by index."""
    return np.take(x, indices, op.axis)


def points_at(indices: Array, batch_dims: int = 0) -> tuple[Array, ...]:
    """One array of indices for each axis that the last axis of `indices` points into."""
    batch = np.indices(indices.shape[:-1], sparse=True)[:batch_dims]
    return (*batch, *np.moveaxis(indices, -1, 0))


def gather_nd(op: GatherND, x: Array, indices: Array) -> Array:
    """Slices of x by points."""
    return x[points_at(indices, op.batch_dims)]


def gather_elements(op: GatherElements, x: Array, indices: Array) -> Array:
    """Elements of x by their places along an axis."""
    return x[elements_at(op.axis, indices)]


def elements_at(axis: int, indices: Array) -> tuple[Array, ...]:
    """Indices into every axis, `indices` standing on one of them."""
    grid = np.indices(indices.shape, sparse=True)
    return (*grid[:axis], indices, *grid[axis + 1 :])
