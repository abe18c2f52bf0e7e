"""Choose the kernel, the layout and the packing of every low-bit dot.

What a kernel asks of its surroundings becomes ordinary operations: activations padded to whole
units, their sum, which the stored codes {0, 1, 2} make necessary, and the packing of the weight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tbc import kernels, ops, straight
from tbc.constants import constant, value_of
from tbc.dims import Dim, product, static
from tbc.ir import Graph, Uses, Value, rewrite
from tbc.layout import CODES, Layout
from tbc.tuning import DotShape
from tbc.types import DType

if TYPE_CHECKING:
    from tbc.kernels import Kernel
    from tbc.target import Target


CACHED = 1 << 20
"""Bytes of weights that can be expected to stay in a core's own cache from call to call."""
TIGHT = 1024
"""Bytes of flash that digits to the base 3 have to save, since their dots are longer code."""


def select(graph: Graph, target: Target) -> Graph:
    """Dot and GroupedDot become PackedDot and PackedGroupedDot of the target's best kernels."""
    is_streamed, is_tight = _is_streamed(graph), _is_tight(graph, target)

    def rule(value: Value, uses: Uses) -> Value | None:
        match value.op:
            case ops.Dot():
                return _dot(value, target, is_streamed, is_tight)
            case ops.GroupedDot():
                return _grouped_dot(value, target, is_streamed)
        return None

    return rewrite(graph, [rule])


def dot_shapes(graph: Graph) -> list[DotShape]:
    """The shapes of the low-bit dots of a graph that is ready for selection, each once."""
    found: dict[DotShape, None] = {}
    for part in graph.graphs():
        is_streamed = _is_streamed(part)
        for value in part.values():
            match value.op, value.args:
                case ops.Dot(), (x, w):
                    found[_shape(x, w, 0, is_streamed)] = None
                case ops.GroupedDot(), (x, w, s, *_):
                    found[_shape(x, w, _group(w, s), is_streamed)] = None
    return list(found)


def _is_streamed(graph: Graph) -> bool:
    """Whether the weights of a graph are more than a core's own cache keeps."""
    weights = {v.args[1] for v in graph.values() if isinstance(v.op, ops.Dot | ops.GroupedDot)}
    sizes = (static(w.type.size, "a weight's size") * w.type.dtype.bits for w in weights)
    return sum(sizes) // 8 > CACHED


def _is_tight(graph: Graph, target: Target) -> bool:
    """Whether flash is scarce, and 1.6 bits a trit save more of it than their dots take."""
    if target.optimize != "size":
        return False
    dots = (v.args for v in graph.values() if isinstance(v.op, ops.Dot))
    found = (_tighter(_shape(x, w, 0, False), target) for x, w in dots)
    return sum(saved for _, saved in filter(None, found)) > TIGHT


def _tighter(shape: DotShape, target: Target) -> tuple[Kernel, int] | None:
    """The kernel that does what the best one for 2 bits does with digits to the base 3.

    And how many bytes fewer the weights take; None if there is no such kernel, or they do not.
    """
    if shape.weights != DType.trit.name:
        return None
    best = by_cost(shape, target)[0][0]
    for kernel in kernels.kernels_for(target, kernels.SMALLEST, DType[shape.activations], shape.k):
        sizes = (each.layout().size(shape.n, shape.k) for each in (best, kernel))
        if kernel.dot is best.dot and (saved := next(sizes) - next(sizes)) > 0:
            return kernel, saved
    return None


def _shape(x: Value, w: Value, group: int, is_streamed: bool) -> DotShape:
    n, k = (static(d, "the size of a weight") for d in w.type.shape)
    least, most = kernels.row_bounds(product(x.type.shape[:-1]))
    dtypes = w.type.dtype.name, x.type.dtype.name
    return DotShape(*dtypes, least, most, n, k, group, is_streamed)


def by_cost(shape: DotShape, target: Target) -> tuple[tuple[Kernel, ...], tuple[int, ...]]:
    """The kernels that cost least, and from which numbers of rows on each but the first does."""
    dtype = DType[shape.activations]
    code = _code(shape, dtype, target)
    found = kernels.choose(target, code, dtype, shape.rows, shape.k, shape.n, shape.group)
    return found, kernels.starts(found, shape.rows)


def codes_of(shape: DotShape) -> tuple[str, ...]:
    """The codes in which the weights of a dot can be for speed; 4 bits may have a byte each."""
    dtypes = {DType[shape.weights]}
    if shape.weights == DType.i4.name and not shape.group:
        dtypes.add(DType.i8)
    fast = (code for code in CODES.values() if code.name != kernels.SMALLEST)
    return tuple(code.name for code in fast if code.dtype in dtypes)


def _code(shape: DotShape, activations: DType, target: Target) -> str:
    """The code of weights: trits take fewer bytes in a book, and fewer instructions in 2 bits.

    So do integers of 4 bits, by two in a byte and in a byte each. Of equal costs, memory decides.
    """
    if shape.weights == DType.sign.name:
        return "b1"
    if shape.weights == DType.i8.name:
        return kernels.dense_code(target, shape.k, group=shape.group)
    if shape.weights == DType.i4.name:
        wide = "" if shape.group else kernels.dense_code(target, shape.k)
        return _fewer_bytes("q4", wide, shape, activations, target) if wide else "q4"
    return _fewer_bytes("x5", "i2", shape, activations, target)


def _fewer_bytes(small: str, plain: str, shape: DotShape, dtype: DType, target: Target) -> str:
    """The smaller code where it costs no more than the plain one.

    About the same is no more where weights come from memory.
    """
    n, k = shape.n, shape.k
    layouts = [Layout(code, shape.group) for code in (small, plain)]
    sizes = [layout.size(n, k) for layout in layouts]
    if sizes[0] > 0.9 * sizes[1]:
        return plain
    m, cost = min(shape.least, kernels.MANY), kernels.streamed_cost
    costs = [cost(target, at, dtype, m, n, k, is_read=shape.is_streamed) for at in layouts]
    return small if costs[0] * (kernels.WORTH if shape.is_streamed else 1) <= costs[1] else plain


def _dot(value: Value, target: Target, is_streamed: bool, is_tight: bool) -> Value:
    b, (x, w) = value.builder, value.args
    n, k = (static(d, "the size of a weight") for d in w.type.shape)
    shape = _shape(x, w, 0, is_streamed)
    found, starts = target.tuning.find(shape) or by_cost(shape, target)
    if is_tight and (tighter := _tighter(shape, target)):
        found, starts = (tighter[0],), ()
    rows, layout = product(x.type.shape[:-1]), found[0].layout()
    if w.type.dtype is DType.trit and straight.may_be(found[0], n * k):
        trits = value_of(w)
        if straight.is_worth_it(trits, shape.least, found[0], target):
            flat = b(ops.Reshape((rows, k)), x)
            y = b(ops.CodedDot(straight.text_of(trits), n, k), flat)
            return b(ops.Reshape((*x.type.shape[:-1], n)), y)
    packed = b(ops.Pack(layout), w if w.type.dtype.is_weight else b(ops.Cast(layout.dtype), w))
    padded = _pad_groups(x, rows, k, layout)
    names = tuple(kernel.name for kernel in found)
    by_row = target.is_short_of_memory and x.type.dtype is not DType.f32
    op = ops.PackedDot(names, layout, n, k, starts, by_row)
    total = b(op, padded, packed)
    if x.type.dtype is not DType.f32:
        total = _of_weights(total, padded, layout)
    return b(ops.Reshape((*x.type.shape[:-1], n)), total)


def _of_weights(total: Value, x: Value, layout: Layout) -> Value:
    """The sums over the weights, of those over what kernels multiply by."""
    b, coding = total.builder, layout.coding
    total = _times(total, coding.slope)
    if not coding.zero:
        return total
    xsum = b(ops.Reduce("sum", (1,), keepdims=True), b(ops.Cast(DType.i32), x))
    return b(ops.Binary("sub"), total, _times(xsum, coding.zero))


def _times(sums: Value, factor: int) -> Value:
    """i32 sums times a number."""
    b = sums.builder
    return sums if factor == 1 else b(ops.Binary("mul"), sums, constant(b, factor, DType.i32))


def _grouped_dot(value: Value, target: Target, is_streamed: bool) -> Value:
    b, (x, w, s, *xs) = value.builder, value.args
    n, k = (static(d, "the size of a weight") for d in w.type.shape)
    group = _group(w, s)
    groups = k // group
    shape = _shape(x, w, group, is_streamed)
    found, starts = target.tuning.find(shape) or by_cost(shape, target)
    rows, layout = product(x.type.shape[:-1]), found[0].layout(group)
    packed = b(ops.Pack(layout), w)
    padded = _pad_groups(x, rows, k, layout)
    args = [padded, packed, _scale_blocks(s, layout)]
    if x.type.dtype is DType.i8:
        by_group = b(ops.Reshape((rows, groups, layout.padded_k(k) // groups)), padded)
        wide = b(ops.Cast(DType.i32), by_group)
        args.append(_times(b(ops.Reduce("sum", (2,)), wide), layout.coding.zero))
    args += [b(ops.Reshape((rows, groups)), scales) for scales in xs]
    op = ops.PackedGroupedDot(tuple(kernel.name for kernel in found), layout, n, k, starts)
    total = b(op, *args)
    return b(ops.Reshape((*x.type.shape[:-1], n)), total)


def _group(w: Value, s: Value) -> int:
    """How many weights along k have one of the scales s[n, groups]."""
    k = static(w.type.shape[1], "the size of a weight")
    return k // static(s.type.shape[1], "the number of groups")


def _pad_groups(x: Value, rows: Dim, k: int, layout: Layout) -> Value:
    """x as [rows, padded k], every group of k filled up with zeros to whole units."""
    b = x.builder
    groups = k // layout.group if layout.group else 1
    width = layout.padded_k(k) // groups
    if width == k // groups:
        return b(ops.Reshape((rows, k)), x)
    zero = constant(b, 0, x.type.dtype)
    if groups == 1:
        return b(ops.Pad((0, 0), (rows, width)), b(ops.Reshape((rows, k)), x), zero)
    split = b(ops.Reshape((rows, groups, k // groups)), x)
    padded = b(ops.Pad((0, 0, 0), (rows, groups, width)), split, zero)
    return b(ops.Reshape((rows, groups * width)), padded)


def _scale_blocks(s: Value, layout: Layout) -> Value:
    """Scales s[n, g] as [blocks, g, rows of a block], which is how a kernel reads them."""
    b = s.builder
    n, groups = (static(d, "scales") for d in s.type.shape)
    blocks = layout.blocks(n)
    zero = constant(b, 0.0, DType.f32)
    padded = b(ops.Pad((0, 0), (blocks * layout.rows, groups)), s, zero)
    return b(ops.Transpose((0, 2, 1)), b(ops.Reshape((blocks, layout.rows, groups)), padded))
