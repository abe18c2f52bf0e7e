"""Operators that make or change shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tbc.dims import Dim, ceil_div, dim_max, floor_div, product
from tbc.errors import Unsupported
from tbc.frontend.context import (
    Context,
    Lowering,
    axis_of,
    numpy_scalar,
    only,
    valid,
)
from tbc.frontend.nodes import Node
from tbc.frontend.tensors import check_sizes, dense, dtype_of, tensor
from tbc.ir import Value
from tbc.ops import Iota
from tbc.types import DType


def new_shape(c: Context, shape: Value, what: str) -> list[Dim]:
    """The sizes in a shape operand, none surely negative."""
    dims = c.vector(shape, what)
    check_sizes([d for d in dims if isinstance(d, int)], what)
    return dims


def reshape(c: Context, node: Node, x: Value, shape: Value) -> Value:
    """x in another shape: 0 keeps a size (unless allowzero), -1 is what is left."""
    target = c.vector(shape, "the new shape")
    valid(sum(d == -1 for d in target) <= 1, f"the new shape {target} has more than one -1")
    check_sizes([d for d in target if isinstance(d, int) and d != -1], "the new shape")
    for axis, dim in enumerate(target):
        if dim == 0 and not node["allowzero"]:
            valid(axis < x.type.rank, f"the new shape {target} keeps an axis that {x.type} lacks")
            target[axis] = x.type.shape[axis]
    if -1 in target:
        axis = target.index(-1)
        others = product(tuple(d for a, d in enumerate(target) if a != axis))
        valid(others != 0, f"the new shape {target} leaves the size of -1 open")
        target[axis] = floor_div(x.type.size, others)
    return c.reshape(x, target)


def flatten(c: Context, node: Node, x: Value) -> Value:
    """x as a matrix, split before an axis."""
    axis = node["axis"]
    axis = axis if axis == x.type.rank else axis_of(axis, x.type.rank)
    return c.reshape(x, [product(x.type.shape[:axis]), product(x.type.shape[axis:])])


def transpose(c: Context, node: Node, x: Value) -> Value:
    """x with permuted axes; reversed where no permutation is given."""
    perm = node["perm"]
    return c.transpose(x, tuple(reversed(range(x.type.rank))) if perm is None else perm)


def axes_of(c: Context, node: Node, axes: Value | None, rank: int) -> tuple[int, ...] | None:
    """The axes that an input, or in older operator sets an attribute, names; None where neither."""
    named = node["axes"] if axes is None else c.integers(axes, "the axes")
    if named is None:
        return None
    found = tuple(axis_of(a, rank) for a in named)
    valid(len(set(found)) == len(found), f"the axes {list(named)} repeat one")
    return found


def squeeze(c: Context, node: Node, x: Value, axes: Value | None = None) -> Value:
    """x without axes of size 1."""
    chosen = axes_of(c, node, axes, x.type.rank)
    if chosen is None:
        chosen = tuple(a for a, d in enumerate(x.type.shape) if d == 1)
    return c.reshape(x, [d for a, d in enumerate(x.type.shape) if a not in chosen])


def unsqueeze(c: Context, node: Node, x: Value, axes: Value | None = None) -> Value:
    """x with new axes of size 1."""
    count = len(node["axes"] if axes is None else c.integers(axes, "the axes"))
    new = axes_of(c, node, axes, x.type.rank + count) or ()
    left = iter(x.type.shape)
    return c.reshape(x, [1 if a in new else next(left) for a in range(x.type.rank + count)])


def stretched(x: Value, target: Sequence[Dim]) -> list[Dim]:
    """The shape of x broadcast with a shape in both directions."""
    rank = max(x.type.rank, len(target))
    a = [1] * (rank - x.type.rank) + list(x.type.shape)
    b = [1] * (rank - len(target)) + list(target)
    return [q if p == 1 else p if q == 1 else q for p, q in zip(a, b, strict=True)]


def expand(c: Context, node: Node, x: Value, shape: Value) -> Value:
    """x broadcast with a shape."""
    return c.broadcast(x, stretched(x, new_shape(c, shape, "the new shape")))


def tile(c: Context, node: Node, x: Value, repeats: Value) -> Value:
    """x repeated along each axis."""
    times = new_shape(c, repeats, "the number of repeats")
    valid(len(times) == x.type.rank, f"{len(times)} repeats do not fit {x.type}")
    apart = [d for size in x.type.shape for d in (1, size)]
    wide = [d for pair in zip(times, x.type.shape, strict=True) for d in pair]
    joined = [t * d for t, d in zip(times, x.type.shape, strict=True)]
    return c.reshape(c.broadcast(c.reshape(x, apart), wide), joined)


def shape(c: Context, node: Node, x: Value) -> Value:
    """The sizes of x from `start` to `end`."""
    return c.sizes(x.type.shape[slice(node["start"] or 0, node["end"])])


def size(c: Context, node: Node, x: Value) -> Value:
    """The number of elements."""
    return c.sizes(x.type.size)


def constant(c: Context, node: Node) -> Value:
    """The attribute that is given."""
    given = [k for k, v in node.attributes.items() if v is not None]
    valid(len(given) == 1, f"it needs one value, not {len(given)}")
    value = node[given[0]]
    match given[0]:
        case "value":
            return c(tensor(value, c.folder))
        case "sparse_value":
            return c(dense(value, c.folder))
        case "value_int" | "value_ints":
            return c.constant(value, DType.i64)
        case "value_float" | "value_floats":
            return c.constant(value, DType.f32)
    raise Unsupported(f"a constant given by '{given[0]}' is not supported")


def constant_of_shape(c: Context, node: Node, shape: Value) -> Value:
    """One element, f32 0 unless given, in a shape."""
    fill = c.constant(0, DType.f32)
    if node["value"] is not None:
        fill = c(tensor(node["value"], c.folder))
    valid(fill.type.size == 1, "its value must have one element")
    return c.broadcast(c.reshape(fill, ()), new_shape(c, shape, "the shape"))


def range_(c: Context, node: Node, start: Value, limit: Value, delta: Value) -> Value:
    """start, start + delta, … before limit."""
    dtype = start.type.dtype
    if dtype.is_float:
        first, end, step = (numpy_scalar(c.numbers(v, "the range")) for v in (start, limit, delta))
        valid(step != 0 and math.isfinite((end - first) / step), "its size is not finite")
        wide = DType.f64 if dtype is DType.f64 else DType.f32
        index = c.cast(c(Iota(max(math.ceil((end - first) / step), 0))), wide)
        return c.cast(c.add(c.mul(index, c.cast(delta, wide)), c.cast(start, wide)), dtype)
    (first_dim,), (end_dim,) = c.vector(start, "its start"), c.vector(limit, "its limit")
    step = numpy_scalar(c.numbers(delta, "its delta"))
    valid(step != 0, "its delta is 0")
    distance = end_dim - first_dim if step > 0 else first_dim - end_dim
    index = c(Iota(dim_max(ceil_div(distance, abs(int(step))), 0)))
    if step != 1:
        index = c.mul(index, int(step))
    return c.cast(index if first_dim == 0 else c.add(index, c.sizes(first_dim)), dtype)


def diagonal(c: Context, x: Value, fn: str, offset: Dim) -> Value:
    """fn(column, row + offset) for each element of a matrix of the size of x."""
    rows, columns = x.type.shape[-2:]
    row = c.add(c.reshape(c(Iota(rows)), [rows, 1]), c.sizes(offset))
    return c.binary(fn, c(Iota(columns)), row)


def trilu(c: Context, node: Node, x: Value, k: Value | None = None) -> Value:
    """The upper or lower triangle of each matrix, the rest 0."""
    valid(x.type.rank >= 2, f"it needs matrices, not {x.type}")
    offset = 0 if k is None else only(c.vector(k, "the diagonal"), "the diagonal")
    return c.where(diagonal(c, x, "ge" if node["upper"] else "le", offset), x, 0)


def eye_like(c: Context, node: Node, x: Value) -> Value:
    """Ones on a diagonal."""
    valid(x.type.rank == 2, f"it needs a matrix, not {x.type}")
    code = node["dtype"]
    dtype = x.type.dtype if code is None else dtype_of(code, "the attribute 'dtype'")
    return c.cast(diagonal(c, x, "eq", node["k"]), dtype)


def depth_to_space(c: Context, node: Node, x: Value) -> Value:
    """Channels moved into blocks of rows and columns."""
    n, channels, h, w = _image(x)
    block = node["blocksize"]
    valid(block > 0, "its blocksize must be more than 0")
    depth = floor_div(channels, block * block)
    if node["mode"] == "CRD":
        apart = c.reshape(x, [n, depth, block, block, h, w])
        moved = c.transpose(apart, (0, 1, 4, 2, 5, 3))
    else:
        apart = c.reshape(x, [n, block, block, depth, h, w])
        moved = c.transpose(apart, (0, 3, 4, 1, 5, 2))
    return c.reshape(moved, [n, depth, h * block, w * block])


def space_to_depth(c: Context, node: Node, x: Value) -> Value:
    """Blocks of rows and columns moved into channels."""
    n, channels, h, w = _image(x)
    block = node["blocksize"]
    valid(block > 0, "its blocksize must be more than 0")
    rows, columns = floor_div(h, block), floor_div(w, block)
    apart = c.reshape(x, [n, channels, rows, block, columns, block])
    moved = c.transpose(apart, (0, 1, 3, 5, 2, 4) if node["mode"] == "CRD" else (0, 3, 5, 1, 2, 4))
    return c.reshape(moved, [n, channels * block * block, rows, columns])


def _image(x: Value) -> tuple[Dim, Dim, Dim, Dim]:
    valid(x.type.rank == 4, f"it needs [N, C, H, W], not {x.type}")
    n, channels, h, w = x.type.shape
    return n, channels, h, w


OPERATORS: Mapping[str, Lowering] = {
    "Reshape": reshape,
    "Flatten": flatten,
    "Transpose": transpose,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Expand": expand,
    "Tile": tile,
    "Shape": shape,
    "Size": size,
    "Constant": constant,
    "ConstantOfShape": constant_of_shape,
    "Range": range_,
    "Trilu": trilu,
    "EyeLike": eye_like,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
}

LIMITS: Mapping[str, str] = {
    "Constant": "no text",
}
