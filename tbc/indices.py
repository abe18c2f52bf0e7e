"""Where elements come from: the index maps of the IR, applied to symbolic indices."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import TypeAlias

from tbc import ops
from tbc.dims import (
    Dim,
    Expr,
    FloorDiv,
    Symbol,
    at_most,
    bounds,
    dim_max,
    dim_min,
    product,
)
from tbc.errors import InternalError
from tbc.ir import Value

Index: TypeAlias = tuple[Dim, ...]


def surely_below(index: Dim, size: Dim) -> bool:
    """Whether an index is below a size for every value of the symbols."""
    return bounds(size - at_most(index))[0] >= 1


def broadcast_index(arg: Value, index: Index) -> Index:
    """The index into an argument of an elementwise operation."""
    own = index[len(index) - arg.type.rank :]
    return tuple(0 if d == 1 else i for i, d in zip(own, arg.type.shape, strict=True))


def windows_index(value: Value, index: Index) -> Index:
    """The index into the first argument of Windows; it may lie outside."""
    op = value.op
    assert isinstance(op, ops.Windows)
    spatial = len(op.kernel)
    out, tap = index[2 : 2 + spatial], index[2 + spatial :]
    inner = (
        o * s + t * d - b
        for o, s, t, d, b in zip(out, op.strides, tap, op.dilations, op.before, strict=True)
    )
    return (*index[:2], *inner)


def mapped_index(value: Value, index: Index) -> Index:
    """The index into the argument of an index map that neither pads nor gathers."""
    arg = value.args[0]
    match value.op:
        case ops.Broadcast():
            return broadcast_index(arg, index)
        case ops.Reshape():
            return reshape_index(value.type.shape, arg.type.shape, index)
        case ops.Transpose(perm):
            inner: list[Dim] = [0] * len(perm)
            for axis, source in enumerate(perm):
                inner[source] = index[axis]
            return tuple(inner)
        case ops.Slice(starts, steps, _):
            return tuple(s + i * t for i, s, t in zip(index, starts, steps, strict=True))
        case ops.Pad(before, _, mode):
            return tuple(
                _border(i - b, d, mode)
                for i, b, d in zip(index, before, arg.type.shape, strict=True)
            )
        case _:
            raise InternalError(f"{value.op} is not an index map")


def _border(inner: Dim, size: Dim, mode: str) -> Dim:
    """Where a padded index reads from, for the modes that fill from the array itself."""
    if mode == "edge":
        return clamp(inner, size)
    if mode == "wrap":
        return inner % size
    period = dim_max(2 * (size - 1), 1)
    phase = inner % period
    return dim_min(phase, period - phase) if size != 1 else 0


def clamp(index: Dim, size: Dim) -> Dim:
    """An index brought into 0 .. size - 1."""
    return dim_max(dim_min(index, size - 1), 0)


def reshape_index(shape: tuple[Dim, ...], source: tuple[Dim, ...], index: Index) -> Index:
    """The index in `source` of the element at `index` in `shape`, both row-major.

    Axes are matched in the smallest runs of equal size, so that only what a reshape merges or
    splits costs a division.
    """
    result: list[Dim] = []
    for run, target in reshape_runs(shape, source):
        flat: Dim = 0
        for axis in run:
            flat = flat * shape[axis] + index[axis]
        result.extend(split_index(flat, [source[axis] for axis in target]))
    return tuple(result)


def reshape_runs(shape: tuple[Dim, ...], source: tuple[Dim, ...]) -> Iterator[tuple[range, range]]:
    """The smallest runs of axes of two shapes that have equally many elements, in order."""
    i = j = 0
    while i < len(shape) or j < len(source):
        left, right = min(i + 1, len(shape)), min(j + 1, len(source))
        while (a := product(shape[i:left])) != (b := product(source[j:right])):
            more_left, more_right = left < len(shape), right < len(source)
            if more_left and (not more_right or bounds(b - a)[0] >= 0 or _divides(a, b)):
                left += 1
            elif more_right:
                right += 1
            else:
                break
        yield range(i, left), range(j, right)
        i, j = left, right


def _divides(a: Dim, b: Dim) -> bool:
    return b % a == 0 if a != 0 else False


def split_index(flat: Dim, dims: Sequence[Dim]) -> Index:
    """A row-major position as an index into `dims`."""
    index: list[Dim] = []
    for axis, dim in enumerate(dims):
        inner = product(tuple(dims[axis + 1 :]))
        index.append(0 if dim == 1 else flat // inner)
        flat = flat - index[-1] * inner if dim != 1 else flat
    return tuple(index)


def operands(value: Value, index: Index) -> list[tuple[Value, Index]]:
    """What an element that is computed in place needs: arguments, and where.

    Nothing for gathers, whose place is data.
    """
    op = value.op
    if isinstance(op, ops.GATHERS):
        return []
    if isinstance(op, ops.ELEMENTWISE):
        return [(a, broadcast_index(a, index)) for a in value.args]
    if isinstance(op, ops.Concat):
        start: Dim = 0
        result: list[tuple[Value, Index]] = []
        for arg in value.args:
            inner = (*index[: op.axis], index[op.axis] - start, *index[op.axis + 1 :])
            result.append((arg, opaque(inner, op.axis)))
            start = start + arg.type.shape[op.axis]
        return result
    if isinstance(op, ops.Windows):
        return [(value.args[0], windows_index(value, index))]
    if isinstance(op, ops.Pad) and op.mode == "constant":
        return [(value.args[0], tuple(i - b for i, b in zip(index, op.before, strict=True)))]
    if isinstance(op, ops.INDEX_MAPS):
        return [(value.args[0], mapped_index(value, index))]
    return []


def opaque(index: Index, axis: int) -> Index:
    """An index whose one axis is clamped, which makes it irregular where it varies."""
    moved = index[axis]
    if isinstance(moved, int):
        return index
    clamped: Dim = Expr((((FloorDiv(moved, 1),), 1),))
    return (*index[:axis], clamped, *index[axis + 1 :])


def reduced_index(value: Value, index: Index, inner: Index) -> Index:
    """The index into the argument of the Reduce `value`: `inner` along the reduced axes."""
    op = value.op
    assert isinstance(op, ops.Reduce)
    along, kept = iter(inner), iter(index)
    result = []
    for axis in range(value.args[0].type.rank):
        if axis not in op.axes:
            result.append(next(kept))
            continue
        result.append(next(along))
        if op.keepdims:
            next(kept)
    return tuple(result)


def touched(
    memory: Container[Value], value: Value, index: Index, bound: Value | None = None
) -> Iterator[tuple[Value, Index]]:
    """Which elements of what lies in memory an element is computed from, not entering `bound`.

    A gather on the way is named too, with the index into its indices: it touches what it gathers
    from at a place that they tell. What GatherND gathers from is not listed, it may be anywhere.
    """
    todo, seen = [(value, index)], set()
    while todo:
        value, index = todo.pop()
        if value is bound or (value, index) in seen:
            continue
        seen.add((value, index))
        if value in memory:
            yield value, index
        elif isinstance(value.op, ops.Gather | ops.GatherElements):
            x, indices = value.args
            axis, rank = value.op.axis, indices.type.rank
            is_plain = isinstance(value.op, ops.Gather)
            where = index[axis : axis + rank] if is_plain else index
            after = index[axis + (rank if is_plain else 1) :]
            yield value, where
            data = Expr.of(Symbol("data", 0, None, x.type.shape[axis]))
            todo += [(x, (*index[:axis], data, *after)), (indices, where)]
        elif isinstance(value.op, ops.GATHERS):
            yield value, index
        else:
            todo += operands(value, index)
