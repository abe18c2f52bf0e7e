"""Convolutions as matrix products over windows, and pooling as reductions over them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tbc.dims import Dim, ceil_div, dim_max, dim_min, floor_div, product
from tbc.frontend.context import Context, Lowering, fixed, valid
from tbc.frontend.nodes import Node
from tbc.frontend.ops_index import padded
from tbc.frontend.ops_matmul import centered
from tbc.frontend.ops_reduce import lp_norm
from tbc.frontend.ranges import outside
from tbc.frontend.tensors import check_sizes
from tbc.ir import Value
from tbc.ops import Iota, MatMul, ScatterElements, Windows, require_equal
from tbc.types import DType


@dataclass(frozen=True)
class Geometry:
    """The windows of a node, an entry a spatial axis; `after` is the padding it asks for."""

    windows: Windows
    after: tuple[Dim, ...]

    @property
    def covers_padding(self) -> bool:
        """Whether a window may reach out of the tensor."""
        return any(b != 0 for b in self.windows.before) or any(a != 0 for a in self.after)


def geometry(node: Node, x: Value, kernel: Sequence[int]) -> Geometry:
    """The windows that a node's attributes describe."""
    n = x.type.rank - 2
    valid(n >= 0 and len(kernel) == n, f"a kernel of {len(kernel)} axes on {x.type}")
    strides = tuple(node["strides"] or [1] * n)
    dilations = tuple(node["dilations"] or [1] * n)
    pads = tuple(node["pads"] or [0] * (2 * n))
    valid(len(strides) == len(dilations) == n and len(pads) == 2 * n, f"attributes for {x.type}")
    valid(min((*kernel, *strides, *dilations), default=1) > 0, "a kernel, stride or dilation of 0")
    valid(min(pads, default=0) >= 0, f"the padding {list(pads)} is negative")
    axes = [
        _axis(node, size, (k - 1) * d + 1, s, (p, q))
        for size, k, d, s, p, q in zip(
            x.type.shape[2:], kernel, dilations, strides, pads[:n], pads[n:], strict=True
        )
    ]
    check_sizes(
        [s + b + a for s, (b, a, _) in zip(x.type.shape[2:], axes, strict=True)], "padded, x"
    )
    before, out = tuple(b for b, _, _ in axes), tuple(o for _, _, o in axes)
    windows = Windows(tuple(kernel), strides, dilations, before, out)
    return Geometry(windows, tuple(a for _, a, _ in axes))


def _axis(
    node: Node, size: Dim, reach: int, stride: int, pads: tuple[int, int]
) -> tuple[int, Dim, Dim]:
    """Padding before and after, and the number of windows, of one axis."""
    how = node["auto_pad"] or "NOTSET"
    if how in ("SAME_UPPER", "SAME_LOWER"):
        out = ceil_div(size, stride)
        total = fixed(dim_max((out - 1) * stride + reach - size, 0), "the padding of SAME")
        small, large = total // 2, total - total // 2
        return (small, large, out) if how == "SAME_UPPER" else (large, small, out)
    valid(how in ("NOTSET", "VALID"), f"there is no auto_pad '{how}'")
    before, after = (0, 0) if how == "VALID" else pads
    room = size + before + after - reach
    if node["ceil_mode"] and how == "NOTSET":  # but no window starts in the padding at the end
        out = dim_min(ceil_div(room, stride) + 1, ceil_div(size + before, stride))
    else:
        out = floor_div(room, stride) + 1
    return before, after, dim_max(out, 0)


# -- convolution ----------------------------------------------------------------------------------


def convolution(c: Context, node: Node, x: Value, w: Value) -> Value:
    """[N, M, *O] of x[N, C, *S] and w[M, C/group, *K], padded with 0."""
    valid(x.type.rank == w.type.rank >= 3, f"a convolution of {x.type} by {w.type}")
    m, depth, *kernel = (fixed(d, "the size of a kernel") for d in w.type.shape)
    groups = node["group"]
    valid(groups > 0 and m % groups == 0, f"{m} output channels do not form {groups} groups")
    require_equal(x.type.shape[1], depth * groups, "channels of x and of the kernel")
    asked = node["kernel_shape"]
    valid(not asked or list(asked) == kernel, f"kernel_shape {asked} is not {kernel}")
    return convolved(c, geometry(node, x, kernel).windows, x, w, groups)


def convolved(c: Context, shape: Windows, x: Value, w: Value, groups: int) -> Value:
    """The convolution of x by w[M, C/groups, *K] over given windows, padded with 0."""
    m, depth = w.type.shape[:2]
    patches = c(shape, x, c.constant(0, x.type.dtype))
    if groups == 1:
        return _dense(c, shape, patches, w)
    if depth == 1 and m == groups:
        n = len(shape.kernel)
        by_tap = c.mul(patches, c.reshape(w, [m, *[1] * n, *shape.kernel]))
        return c.reduce("sum", by_tap, range(2 + n, 2 + 2 * n))
    return _grouped(c, shape, patches, w, groups)


def _dense(c: Context, shape: Windows, patches: Value, w: Value) -> Value:
    """The product of patches as rows [N, prod(O), prod(K)*C] and the kernel as columns."""
    n, (batch, channels) = len(shape.kernel), patches.type.shape[:2]
    taps = math.prod(shape.kernel) * channels
    m = w.type.shape[0]
    rows = c.transpose(patches, [0, *range(2, 2 + 2 * n), 1])
    rows = c.reshape(rows, [batch, product(shape.out), taps])
    kernel = c.reshape(c.transpose(w, [0, *range(2, 2 + n), 1]), [m, taps])
    y = c(MatMul(), rows, c.transpose(kernel, (1, 0)))
    return c.reshape(c.transpose(y, (0, 2, 1)), [batch, m, *shape.out])


def _grouped(c: Context, shape: Windows, patches: Value, w: Value, groups: int) -> Value:
    """One product a group, the groups as a batch axis."""
    n, (batch, _) = len(shape.kernel), patches.type.shape[:2]
    m, depth = (fixed(d, "the size of a kernel") for d in w.type.shape[:2])
    taps = math.prod(shape.kernel) * depth
    rows = c.reshape(patches, [batch, groups, depth, *shape.out, *shape.kernel])
    rows = c.transpose(rows, [0, 1, *range(3, 3 + 2 * n), 2])
    rows = c.reshape(rows, [batch, groups, product(shape.out), taps])
    kernel = c.reshape(w, [groups, m // groups, depth, *shape.kernel])
    kernel = c.transpose(kernel, [0, *range(3, 3 + n), 2, 1])
    y = c(MatMul(), rows, c.reshape(kernel, [groups, taps, m // groups]))
    return c.reshape(c.transpose(y, (0, 1, 3, 2)), [batch, m, *shape.out])


def conv(c: Context, node: Node, x: Value, w: Value, bias: Value | None = None) -> Value:
    """The convolution, plus a bias by channel."""
    y = convolution(c, node, x, w)
    return y if bias is None else c.add(y, c.along(bias, 1, x.type.rank))


def integer_convolution(
    c: Context, node: Node, x: Value, w: Value, x_zero: Value | None, w_zero: Value | None
) -> Value:
    """The convolution of x - x_zero by w - w_zero in i32; w_zero is one or one a channel."""
    if w_zero is not None:
        w_zero = c.along(w_zero, 0, w.type.rank)
    if x_zero is not None:
        x_zero = c.reshape(x_zero, ())
    return convolution(c, node, centered(c, x, x_zero), centered(c, w, w_zero))


def conv_integer(
    c: Context, node: Node, x: Value, w: Value, x_zero: Value | None = None,
    w_zero: Value | None = None,
) -> Value:  # fmt: skip
    """The convolution of x - x_zero by w - w_zero in i32."""
    return integer_convolution(c, node, x, w, x_zero, w_zero)


# -- pooling --------------------------------------------------------------------------------------


def _kernel_axes(x: Value) -> range:
    """The axes of the windows of x that lie inside a window."""
    return range(x.type.rank, 2 * x.type.rank - 2)


def max_pool(c: Context, node: Node, x: Value) -> Value | tuple[Value, Value]:
    """The greatest element of each window, where padding does not count; also where it stands."""
    shape = geometry(node, x, node["kernel_shape"]).windows
    dtype = x.type.dtype
    least = -math.inf if dtype.is_float else dtype.range[0]
    patches = c(shape, x, c.constant(least, dtype))
    y = c.reduce("max", patches, _kernel_axes(x))
    if not node.has_output(1):
        return y
    return y, _positions(c, node, shape, x, patches)


def _positions(c: Context, node: Node, shape: Windows, x: Value, patches: Value) -> Value:
    """The positions in x of the windows' greatest elements, the first ones of equal ones.

    They count in row-major order or, for a storage_order of 1, column-major within a channel.
    """
    batch, channels, *sizes = x.type.shape
    size, axes = product(tuple(sizes)), _kernel_axes(x)
    places = c(shape, c.reshape(c(Iota(size)), [1, 1, *sizes]), c.constant(-1, DType.i64))
    greatest = c.binary("eq", patches, c.reduce("max", patches, axes, keepdims=True))
    if x.type.dtype.is_float:
        greatest = c.binary("or", greatest, c.unary("isnan", patches))
    greatest = c.binary("and", greatest, c.binary("ge", places, 0))
    first = c.reduce("min", c.where(greatest, places, c.sizes(size - 1)), axes)
    if node["storage_order"]:
        first = _column_major(c, first, sizes)
    channel = c.reshape(c(Iota(batch * channels)), [batch, channels, *[1] * len(sizes)])
    return c.add(c.mul(channel, c.sizes(size)), first)


def _column_major(c: Context, position: Value, sizes: Sequence[Dim]) -> Value:
    """A row-major position within axes of these sizes as one that counts the first axis fastest."""
    total = c.constant(0, DType.i64)
    for axis in reversed(range(len(sizes))):
        size = c.sizes(sizes[axis])
        digit = c.binary("mod", position, size)
        position = c.div(position, size)
        total = c.add(total, c.mul(digit, c.sizes(product(tuple(sizes[:axis])))))
    return total


def average_pool(c: Context, node: Node, x: Value) -> Value:
    """The mean of each window; padding counts as 0 where count_include_pad says so."""
    dtype, x = x.type.dtype, c.wide(x)
    where = geometry(node, x, node["kernel_shape"])
    shape, zero = where.windows, c.constant(0, x.type.dtype)
    total = c.reduce("sum", c(shape, x, zero), _kernel_axes(x))
    if not where.covers_padding and not node["ceil_mode"]:
        return c.cast(c.div(total, math.prod(shape.kernel)), dtype)
    ones = c.broadcast(c.constant(1, x.type.dtype), [1, 1, *x.type.shape[2:]])
    if node["count_include_pad"]:
        before, after = (0, 0, *shape.before), (0, 0, *where.after)
        ones = padded(c, ones, before, after, c.constant(1, x.type.dtype))
        none = (0,) * len(shape.kernel)
        shape = Windows(shape.kernel, shape.strides, shape.dilations, none, shape.out)
    count = c.reduce("sum", c(shape, ones, zero), _kernel_axes(x))
    return c.cast(c.div(total, count), dtype)


def lp_pool(c: Context, node: Node, x: Value) -> Value:
    """The norm of order p of each window."""
    shape = geometry(node, x, node["kernel_shape"]).windows
    patches = c(shape, x, c.constant(0, x.type.dtype))
    return lp_norm(c, patches, _kernel_axes(x), node["p"])


def max_unpool(
    c: Context, node: Node, x: Value, indices: Value, output_shape: Value | None = None
) -> Value:
    """Zeros with x's elements at the places that a MaxPool of the same windows found them at."""
    n = x.type.rank - 2
    kernel, strides = node["kernel_shape"], node["strides"] or [1] * n
    pads = node["pads"] or [0] * (2 * n)
    valid(n > 0 and len(kernel) == len(strides) == n and len(pads) == 2 * n, f"windows of {x.type}")
    require_equal(indices.type.size, x.type.size, "the elements and their places")
    sizes = [
        (size - 1) * stride + k - before - after
        for size, stride, k, before, after in zip(
            x.type.shape[2:], strides, kernel, pads[:n], pads[n:], strict=True
        )
    ]
    shape = (*x.type.shape[:2], *sizes)
    places = c.reshape(indices, [x.type.size])
    size = product(shape)
    c.checks.extend(outside(c, places, size))
    zeros = c.broadcast(c.constant(0, x.type.dtype), [size])
    flat = c(ScatterElements(0), zeros, places, c.reshape(x, [x.type.size]))
    y = c.reshape(flat, shape)
    if output_shape is None:
        return y
    wanted = c.vector(output_shape, "the output shape")
    valid(len(wanted) == len(shape), f"the output shape {wanted} of {y.type}")
    after = [w - d for w, d in zip(wanted, shape, strict=True)]
    return padded(c, y, [0] * len(shape), after, c.constant(0, x.type.dtype))


OPERATORS: Mapping[str, Lowering] = {
    "Conv": conv,
    "ConvInteger": conv_integer,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "LpPool": lp_pool,
    "MaxUnpool": max_unpool,
}
