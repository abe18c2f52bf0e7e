"""Transposed convolution, and Col2Im: elements put apart by zeros, summed where they overlap."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from tbc.dims import Dim, bounds, product
from tbc.frontend.context import Context, Lowering, decided, fixed, valid
from tbc.frontend.nodes import Node
from tbc.frontend.ops_conv import convolved
from tbc.frontend.ops_index import padded, part
from tbc.ir import Value
from tbc.ops import Windows, require_equal


def put_apart(c: Context, x: Value, strides: Sequence[int]) -> Value:
    """x[N, C, *S] with strides - 1 zeros between neighbours along each of S."""
    if set(strides) <= {1}:
        return x
    outer, sizes = x.type.shape[:2], x.type.shape[2:]
    zero = c.constant(0, x.type.dtype)
    apart = c.reshape(x, [*outer, *(d for size in sizes for d in (size, 1))])
    none = [0] * apart.type.rank
    after = [0, 0, *(a for s in strides for a in (0, s - 1))]
    apart = padded(c, apart, none, after, zero)
    joined = [*outer, *(size * s for size, s in zip(sizes, strides, strict=True))]
    spread = [*outer, *((size - 1) * s + 1 for size, s in zip(sizes, strides, strict=True))]
    for size in sizes:
        decided(bounds(size)[0] > 0, f"an axis of {x.type} may be empty", size, least=1)
    rank = x.type.rank
    return part(c, c.reshape(apart, joined), [0] * rank, spread, [1] * rank)


def transposed_padding(
    node: Node, size: Dim, reach: int, stride: int, pads: tuple[int, int], extra: int,
    out: int | None,
) -> tuple[Dim, Dim]:  # fmt: skip
    """What one axis loses before and after; the loss after is less by what `extra` adds."""
    how = node["auto_pad"]
    valid(how in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"), f"there is no auto_pad '{how}'")
    whole = (size - 1) * stride + reach
    if out is None and how in ("NOTSET", "VALID"):
        before, after = pads if how == "NOTSET" else (0, 0)
        return before, after - extra
    total = whole + extra - (size * stride if out is None else out)
    lost = fixed(total, "the padding of a transposed convolution")
    if lost < 0:  # zeros at the end fill what the output has more
        return 0, lost - extra
    small, large = lost // 2, lost - lost // 2
    before, after = (small, large) if how == "SAME_UPPER" else (large, small)
    return before, after - extra


def conv_transpose(c: Context, node: Node, x: Value, w: Value, bias: Value | None = None) -> Value:
    """[N, M, *O]: the sums of each element of x[N, C, *S] times the kernel w[C, M/group, *K]."""
    valid(x.type.rank == w.type.rank >= 3, f"a convolution of {x.type} by {w.type}")
    n, rank = x.type.rank - 2, x.type.rank
    channels, m, *kernel = (fixed(d, "the size of a kernel") for d in w.type.shape)
    groups = node["group"]
    valid(groups > 0 and channels % groups == 0, f"{channels} channels, {groups} groups")
    require_equal(x.type.shape[1], channels, "channels of x and of the kernel")
    asked = node["kernel_shape"]
    valid(asked is None or list(asked) == kernel, f"kernel_shape {asked} is not {kernel}")
    strides, dilations = list(node["strides"] or [1] * n), list(node["dilations"] or [1] * n)
    pads, extra = list(node["pads"] or [0] * (2 * n)), list(node["output_padding"] or [0] * n)
    out = list(node["output_shape"] or [None] * n)[-n:]
    counts = (strides, dilations, extra, out)
    valid(all(len(a) == n for a in counts) and len(pads) == 2 * n, f"attributes for {x.type}")
    valid(min((*kernel, *strides, *dilations)) > 0, "a kernel, stride or dilation of 0")
    valid(min((*pads, *extra)) >= 0, "the padding is negative")
    lost = [
        transposed_padding(node, size, (k - 1) * d + 1, s, (p, q), e, o)
        for size, k, d, s, p, q, e, o in zip(
            x.type.shape[2:], kernel, dilations, strides, pads[:n], pads[n:], extra, out,
            strict=True,
        )
    ]  # fmt: skip
    edges = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
    before: list[Dim] = [0, 0, *(edge - lo for edge, (lo, _) in zip(edges, lost, strict=True))]
    after: list[Dim] = [0, 0, *(edge - hi for edge, (_, hi) in zip(edges, lost, strict=True))]
    spread = padded(c, put_apart(c, x, strides), before, after, c.constant(0, x.type.dtype))
    sizes = tuple(d - edge for d, edge in zip(spread.type.shape[2:], edges, strict=True))
    windows = Windows(tuple(kernel), (1,) * n, tuple(dilations), (0,) * n, sizes)
    y = convolved(c, windows, spread, _turned(c, w, groups, m), groups)
    return y if bias is None else c.add(y, c.along(bias, 1, rank))


def _turned(c: Context, w: Value, groups: int, m: int) -> Value:
    """The kernel w[C, M/group, *K] as that of a convolution: [M, C/group, *K], K reversed."""
    channels, _, *kernel = w.type.shape
    rank = w.type.rank
    starts = [0, 0, *(k - 1 for k in kernel)]
    flipped = part(c, w, starts, w.type.shape, [1, 1, *[-1] * len(kernel)])
    depth = fixed(channels, "channels") // groups
    apart = c.reshape(flipped, [groups, depth, m, *kernel])
    moved = c.transpose(apart, [0, 2, 1, *range(3, rank + 1)])
    return c.reshape(moved, [groups * m, depth, *kernel])


def col2im(c: Context, node: Node, x: Value, image_shape: Value, block_shape: Value) -> Value:
    """[N, C, *image]: the blocks of x[N, C*prod(block), L] summed where they overlap."""
    image = c.vector(image_shape, "the shape of the image")
    block = c.integers(block_shape, "the shape of a block")
    n = len(block)
    valid(x.type.rank == 3 and len(image) == n > 0, f"blocks of {n} axes of {x.type}")
    strides, dilations = list(node["strides"] or [1] * n), list(node["dilations"] or [1] * n)
    pads = list(node["pads"] or [0] * (2 * n))
    valid(len(strides) == len(dilations) == n and len(pads) == 2 * n, "attributes for the blocks")
    valid(min((*block, *strides, *dilations)) > 0, "a block, stride or dilation of 0")
    taps = product(tuple(block))
    depth = fixed(x.type.shape[1], "the number of channels")
    valid(depth % fixed(taps, "a block") == 0, f"{depth} channels do not form blocks of {taps}")
    reach = [(k - 1) * d + 1 for k, d in zip(block, dilations, strict=True)]
    room = [i + p + q for i, p, q in zip(image, pads[:n], pads[n:], strict=True)]
    places = [
        (fixed(size, "the image") - r) // s + 1
        for size, r, s in zip(room, reach, strides, strict=True)
    ]
    batch = x.type.shape[0]
    columns = c.reshape(x, [batch, depth // fixed(taps, "a block"), *block, *places])
    zero = c.constant(0, x.type.dtype)
    total: Value | None = None
    for tap in itertools.product(*map(range, block)):
        sizes = [*columns.type.shape[:2], *[1] * n, *places]
        one = part(c, columns, [0, 0, *tap, *[0] * n], sizes, [1] * (2 + 2 * n))
        spread = put_apart(c, c.reshape(one, [*sizes[:2], *places]), strides)
        at = [t * d - p for t, d, p in zip(tap, dilations, pads, strict=False)]
        before: list[Dim] = [0, 0, *at]
        after = [
            0, 0,
            *(i - b - d for i, b, d in zip(image, before[2:], spread.type.shape[2:], strict=True)),
        ]  # fmt: skip
        term = padded(c, spread, before, after, zero)
        total = term if total is None else c.add(total, term)
    assert total is not None
    return total


OPERATORS: Mapping[str, Lowering] = {"ConvTranspose": conv_transpose, "Col2Im": col2im}

LIMITS: Mapping[str, str] = {
    "Col2Im": "sizes are numbers",
    "ConvTranspose": "the padding of auto_pad is a number; no axis is empty",
}
