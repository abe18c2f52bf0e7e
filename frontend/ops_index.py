"""Operators that pick, join and place parts of tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tbc.dims import Dim, bounds, ceil_div, dim_max, dim_min
from tbc.frontend.context import Context, Items, Lowering, axis_of, decided, valid
from tbc.frontend.nodes import Node
from tbc.frontend.ops_scatter import check_points
from tbc.frontend.ops_shape import axes_of
from tbc.frontend.ranges import outside
from tbc.frontend.tensors import check_sizes
from tbc.indices import surely_below
from tbc.ir import Value
from tbc.ops import Concat, Gather, GatherND, Iota, Pad, Slice, require_equal
from tbc.types import DType

_END = (1 << 31) - 1
"""An end of this or more means the end of the axis, whatever its size."""


def concat(c: Context, node: Node, *xs: Value) -> Value:
    """The arguments one behind the other."""
    return c(Concat(axis_of(node["axis"], xs[0].type.rank)), *xs)


# -- slices ---------------------------------------------------------------------------------------


def slice_(
    c: Context,
    node: Node,
    x: Value,
    starts: Value | None = None,
    ends: Value | None = None,
    axes: Value | None = None,
    steps: Value | None = None,
) -> Value:
    """x from starts to ends by steps; up to opset 9 they are attributes."""
    if starts is None or ends is None:
        first, last = list(node["starts"]), list(node["ends"])
    else:
        first, last = c.vector(starts, "its start"), c.vector(ends, "its end")
    chosen = axes_of(c, node, axes, x.type.rank)
    chosen = tuple(range(len(first))) if chosen is None else chosen
    by = [1] * len(first) if steps is None else c.integers(steps, "its step")
    valid(
        len(first) == len(last) == len(chosen) == len(by) and len(first) <= x.type.rank,
        "its starts, ends, axes and steps differ in number",
    )
    valid(0 not in by, "a step is 0")
    begin: list[Dim] = [0] * x.type.rank
    size, step = list(x.type.shape), [1] * x.type.rank
    for axis, s, e, d in zip(chosen, first, last, by, strict=True):
        begin[axis], size[axis] = _part(s, e, d, x.type.shape[axis])
        step[axis] = d
    return part(c, x, begin, size, step)


def part(
    c: Context, x: Value, starts: Sequence[Dim], sizes: Sequence[Dim], steps: Sequence[int]
) -> Value:
    """A part of x; x itself where that is all of it."""
    if tuple(sizes) == x.type.shape and set(steps) <= {1}:
        return x
    return c(Slice(tuple(starts), tuple(steps), tuple(sizes)), x)


def leading(c: Context, x: Value, size: int) -> Value:
    """The first elements of the last axis."""
    shape = [*x.type.shape[:-1], size]
    return part(c, x, [0] * len(shape), shape, [1] * len(shape))


def _part(start: Dim, end: Dim, step: int, size: Dim) -> tuple[Dim, Dim]:
    """Where a slice starts and how many elements it has."""
    if step > 0:
        if _is_from_end(end):
            stop = dim_max(end + size, 0)
        else:
            stop = size if isinstance(end, int) and end >= _END else dim_min(end, size)
        if _is_from_end(start):  # stop - max(start + size, 0), written so that it simplifies
            return dim_max(start + size, 0), _count(dim_min(stop - start - size, stop), step)
        return start, _count(stop - start, step)
    if _is_from_end(start):
        begin = dim_min(dim_max(start + size, 0), size - 1)
    else:
        begin = size - 1 if isinstance(start, int) and start >= _END else dim_min(start, size - 1)
    if _is_from_end(end):
        stop = -1 if isinstance(end, int) and end <= -_END else dim_max(end + size, -1)
    else:
        stop = end
    return begin, _count(begin - stop, -step)


def _count(distance: Dim, step: int) -> Dim:
    return dim_max(ceil_div(distance, step), 0)


def _is_from_end(index: Dim) -> bool:
    """Whether an index is negative, so that it counts from the end of the axis."""
    low, high = bounds(index)
    what = f"a slice at {index} may count from the start or from the end"
    decided(low >= 0 or high < 0, what, index)
    return high < 0


def split(c: Context, node: Node, x: Value, sizes: Value | None = None) -> tuple[Value, ...]:
    """Parts of x along an axis: of given sizes, or equal with a smaller last one."""
    axis = axis_of(node["axis"], x.type.rank)
    size, count = x.type.shape[axis], len(node.outputs)
    if sizes is not None or node["split"] is not None:
        parts = list(node["split"]) if sizes is None else c.vector(sizes, "the sizes of the parts")
        valid(len(parts) == count, f"{len(parts)} sizes for {count} outputs")
        check_sizes([p for p in parts if isinstance(p, int)], "the parts")
        total: Dim = 0
        for p in parts:
            total = total + p
        require_equal(total, size, "the sizes of the parts and the axis")
    else:
        valid(node["num_outputs"] in (None, count), "num_outputs is not the number of outputs")
        each = ceil_div(size, count)
        parts = [each] * (count - 1) + [size - each * (count - 1)]
        valid(bounds(parts[-1])[1] >= 0, f"an axis of {size} cannot be split in {count}")
    return parts_along(c, x, axis, parts)


def parts_along(c: Context, x: Value, axis: int, sizes: Sequence[Dim]) -> Items:
    """x in parts of these sizes, which are those of all of the axis."""
    results = []
    start: Dim = 0
    for size in sizes:
        begin: list[Dim] = [0] * x.type.rank
        begin[axis] = start
        shape = [size if a == axis else d for a, d in enumerate(x.type.shape)]
        results.append(part(c, x, begin, shape, [1] * x.type.rank))
        start = start + size
    return tuple(results)


# -- padding --------------------------------------------------------------------------------------


def pad(
    c: Context,
    node: Node,
    x: Value,
    pads: Value | None = None,
    value: Value | None = None,
    axes: Value | None = None,
) -> Value:
    """x with borders; negative ones cut it. Up to opset 10 they are attributes."""
    amounts = list(node["pads"]) if pads is None else c.vector(pads, "the padding")
    chosen = axes_of(c, node, axes, x.type.rank)
    chosen = tuple(range(x.type.rank)) if chosen is None else chosen
    valid(len(amounts) == 2 * len(chosen), f"{len(amounts)} amounts for {len(chosen)} axes")
    before: list[Dim] = [0] * x.type.rank
    after: list[Dim] = [0] * x.type.rank
    for i, axis in enumerate(chosen):
        before[axis], after[axis] = amounts[i], amounts[i + len(chosen)]
    fill = c.constant(node["value"] or 0, x.type.dtype) if value is None else c.reshape(value, ())
    return padded(c, x, before, after, fill, node["mode"])


def padded(
    c: Context,
    x: Value,
    before: Sequence[Dim],
    after: Sequence[Dim],
    fill: Value,
    mode: str = "constant",
) -> Value:
    """x with borders; negative ones cut it."""
    for amount in (*before, *after):
        low, high = bounds(amount)
        decided(low >= 0 or high <= 0, f"a padding of {amount} may add or cut", amount)
    cuts = [dim_max(-1 * b, 0) for b in before]
    left = [
        d - cut - dim_max(-1 * a, 0) for d, cut, a in zip(x.type.shape, cuts, after, strict=True)
    ]
    valid(all(bounds(d)[1] >= 0 for d in left), f"cutting more than there is of {x.type}")
    x = part(c, x, cuts, left, [1] * x.type.rank)
    before = [dim_max(b, 0) for b in before]
    shape = [b + d + dim_max(a, 0) for b, d, a in zip(before, left, after, strict=True)]
    if tuple(shape) == x.type.shape:
        return x
    if mode != "constant":
        _require_elements(c, left, shape)
    return c(Pad(tuple(before), tuple(shape), mode), x, fill)


def _require_elements(c: Context, sizes: Sequence[Dim], padded: Sequence[Dim]) -> None:
    """Refuse axes that are padded from their elements and have none; symbolic ones as they run."""
    for axis, (size, wide) in enumerate(zip(sizes, padded, strict=True)):
        if wide != size:
            valid(size != 0, f"the axis {axis} has no elements to pad it with")
            if bounds(size)[0] < 1:
                c.checks.append(c.binary("eq", c.sizes(size), 0))


# -- gather ---------------------------------------------------------------------------


def gather(c: Context, node: Node, x: Value, indices: Value) -> Value:
    """Slices of x along an axis."""
    axis = axis_of(node["axis"], x.type.rank)
    valid(indices.type.dtype in (DType.i32, DType.i64), f"indices of {indices.type.dtype.name}")
    place = _place(c, indices, x.type.shape[axis])
    if place is not None:
        starts = [place if a == axis else 0 for a in range(x.type.rank)]
        sizes = [1 if a == axis else d for a, d in enumerate(x.type.shape)]
        rest = x.type.shape[axis + 1 :]
        shape = [*x.type.shape[:axis], *indices.type.shape, *rest]
        return c.reshape(part(c, x, starts, sizes, [1] * x.type.rank), shape)
    return gathered(c, x, indices, axis)


def gathered(c: Context, x: Value, indices: Value, axis: int = 0) -> Value:
    """Slices of x along an axis, at indices that are checked."""
    c.checks.extend(outside(c, indices, x.type.shape[axis]))
    return c(Gather(axis), x, indices)


def _place(c: Context, indices: Value, size: Dim) -> Dim | None:
    """A sole index that is a symbolic size, such as a loop's number; None if it may be outside."""
    known = c.known.array(indices)
    if known is None or known.dtype != object or known.size != 1:
        return None
    index: Dim = known.reshape(-1).tolist()[0]
    return index if bounds(index)[0] >= 0 and surely_below(index, size) else None


def gather_nd(c: Context, node: Node, x: Value, indices: Value) -> Value:
    """Slices of x at points."""
    batch = node["batch_dims"] or 0
    valid(batch >= 0, f"batch_dims is {batch}")
    check_points(c, x, indices, batch)
    return c(GatherND(batch), x, indices)


def one_hot(c: Context, node: Node, indices: Value, depth: Value, values: Value) -> Value:
    """A new axis that holds values[1] at the index and values[0] elsewhere."""
    (count,) = c.dims(c.cast(depth, DType.i64), "the depth").reshape(-1)
    rank = indices.type.rank
    axis = axis_of(node["axis"], rank + 1)
    index = c.cast(indices, DType.i64)
    from_end = c.add(index, c.sizes(count))
    index = c.where(c.binary("lt", index, 0), from_end, index)
    index = c.reshape(index, [*indices.type.shape[:axis], 1, *indices.type.shape[axis:]])
    hot = c.binary("eq", index, c.along(c(Iota(count)), axis, rank + 1))
    off, on = (c.reshape(part(c, values, [i], [1], [1]), ()) for i in range(2))
    return c.where(hot, on, off)


OPERATORS: Mapping[str, Lowering] = {
    "Concat": concat,
    "Slice": slice_,
    "Split": split,
    "Pad": pad,
    "Gather": gather,
    "GatherND": gather_nd,
    "OneHot": one_hot,
}

LIMITS: Mapping[str, str] = {
    "Pad": "a padding of symbols may not both add and cut",
    "Slice": "steps are numbers; a symbolic start counts from one end only",
}
