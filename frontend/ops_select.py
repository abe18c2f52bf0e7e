"""Operators that reorder or pick by data: along a batch, or by elements known at import."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tbc.frontend.context import Context, Lowering, axis_of, decided, valid
from tbc.frontend.nodes import Node
from tbc.ir import Value
from tbc.ops import Concat, Gather, GatherND, Iota, ScatterND, require_equal
from tbc.types import DType


def picked_by_row(c: Context, x: Value, index: Value) -> Value:
    """y[b, i, …] = x[b, index[b, i], …] for indices within x."""
    return c(GatherND(1), x, c.reshape(index, [*index.type.shape, 1]))


def reverse_sequence(c: Context, node: Node, x: Value, lengths: Value) -> Value:
    """The first lengths[b] elements of each row reversed in time, the others as they are."""
    batch, time = (axis_of(node[a], x.type.rank) for a in ("batch_axis", "time_axis"))
    valid(x.type.rank >= 2 and batch != time, f"axes {batch} and {time} of {x.type}")
    perm = [batch, time, *(a for a in range(x.type.rank) if a not in (batch, time))]
    rows = c.transpose(x, perm)
    count, size = rows.type.shape[:2]
    require_equal(lengths.type.size, count, "the lengths and the batch")
    length = c.reshape(c.cast(lengths, DType.i64), [count, 1])
    c.checks.append(_any(c, c.binary("gt", length, c.sizes(size))))
    t = c.reshape(c(Iota(size)), [1, size])
    index = c.where(c.binary("lt", t, length), c.sub(c.sub(length, 1), t), t)
    limit = c.sub(c.sizes(size), 1)
    y = picked_by_row(c, rows, c.clip(index, 0, limit))
    return c.transpose(y, [perm.index(a) for a in range(len(perm))])


def _any(c: Context, mask: Value) -> Value:
    return c.reduce("max", mask, range(mask.type.rank))


def tensor_scatter(
    c: Context, node: Node, cache: Value, update: Value, starts: Value | None = None
) -> Value:
    """The cache with a part of its sequence axis replaced, from starts[b] on in row b."""
    axis, rank = axis_of(node["axis"], cache.type.rank), cache.type.rank
    valid(axis > 0 and update.type.rank == rank, f"axis {axis} of {cache.type} and {update.type}")
    valid(node["mode"] in ("linear", "circular"), f"there is no mode '{node['mode']}'")
    (batch, size), length = (cache.type.shape[a] for a in (0, axis)), update.type.shape[axis]
    at = c.reshape(c(Iota(length)), [1, length])
    if starts is not None:
        require_equal(starts.type.size, batch, "the write indices and the batch")
        first = c.reshape(c.cast(starts, DType.i64), [batch, 1])
        c.checks.append(_any(c, c.binary("lt", first, 0)))
        at = c.add(at, first)
        if node["mode"] == "circular":
            at = c.binary("mod", at, c.sizes(size))
        else:
            c.checks.append(_any(c, c.binary("gt", c.add(first, c.sizes(length)), c.sizes(size))))
    return overwritten(c, cache, update, c.broadcast(at, [batch, length]), axis)


def overwritten(c: Context, old: Value, new: Value, at: Value, axis: int) -> Value:
    """`old` with its slices at[b, i] along an axis behind the batch replaced by new[b, …, i]."""
    lead = new.type.shape[: axis + 1]
    counts = [
        c.reshape(c(Iota(size)), [size if a == b else 1 for b in range(axis + 1)])
        for a, size in enumerate(lead[:-1])
    ]
    places = c.reshape(at, [lead[0], *[1] * (axis - 1), lead[-1]])
    columns = [c.reshape(c.broadcast(i, lead), [*lead, 1]) for i in (*counts, places)]
    return c(ScatterND("none"), old, c(Concat(axis + 1), *columns), new)


# -- results whose sizes are data -----------------------------------------------------------------


def compress(c: Context, node: Node, x: Value, condition: Value) -> Value:
    """The slices along an axis, or the elements, at which a known condition holds."""
    chosen = np.flatnonzero(c.numbers(condition, "the condition, which decides the result's size,"))
    if node["axis"] is None:
        x, axis = c.reshape(x, [x.type.size]), 0
    else:
        axis = axis_of(node["axis"], x.type.rank)
    size = x.type.shape[axis]
    fits = condition.type.rank == 1 and (not isinstance(size, int) or np.all(chosen < size))
    valid(bool(fits), f"the condition {condition.type} of an axis of {size}")
    what = f"an axis of {size} is not supported"
    decided(isinstance(size, int) or not chosen.size, what, size)
    return c(Gather(axis), x, c.constant(chosen, DType.i64))


def non_zero(c: Context, node: Node, x: Value) -> Value:
    """i64[rank, count]: where a known value is not 0."""
    elements = c.numbers(x, "the value, which decides the result's size,")
    return c.constant(np.array(np.nonzero(np.atleast_1d(elements))), DType.i64)


def unique(c: Context, node: Node, x: Value) -> tuple[Value, ...]:
    """The different elements or slices of a known value, where each is first, all, and counts."""
    elements = c.numbers(x, "the value, which decides the result's size,")
    axis = node["axis"]
    axis = None if axis is None else axis_of(axis, x.type.rank)
    y, first, all_of, counts = np.unique(
        elements, return_index=True, return_inverse=True, return_counts=True, axis=axis
    )
    all_of = all_of.reshape(-1)
    if not node["sorted"]:
        order = np.argsort(first)
        y = np.take(y, order, axis=axis or 0)
        first, counts, all_of = first[order], counts[order], np.argsort(order)[all_of]
    return c.constant(y, x.type.dtype), *(c.constant(v, DType.i64) for v in (first, all_of, counts))


OPERATORS: Mapping[str, Lowering] = {
    "ReverseSequence": reverse_sequence,
    "TensorScatter": tensor_scatter,
    "Compress": compress,
    "NonZero": non_zero,
    "Unique": unique,
}

LIMITS: Mapping[str, str] = {
    "Compress": "the condition is known at import",
    "NonZero": "the argument is known at import",
    "Unique": "the argument is known at import",
}
