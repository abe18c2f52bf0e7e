"""Hypothesis strategies for graphs of every operation.

`graphs()` draws well-typed graphs whose sizes are numbers or the symbols `batch` and `n`;
`bindings()` draws values of these; `feeds(graph, dims, seed)` makes input arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from strategies import Array, random_array

from tbc import ops
from tbc.constants import constant
from tbc.dims import Dim, Expr, Symbol, bounds, evaluate, symbols_of, upper
from tbc.ir import Builder, Graph, Op, Value
from tbc.layout import Layout
from tbc.ops import Input
from tbc.text import print_graph
from tbc.types import DType, TensorType

Draw = Callable[..., Any]


def _show(graph: Graph, printer: Any, cycle: bool) -> None:
    printer.text(f"\n{print_graph(graph)}")


Graph._repr_pretty_ = _show  # type: ignore[attr-defined] # how hypothesis shows an example

BATCH, N = Symbol("batch", 0, 3), Symbol("n", 1, 4)
_SIZE_LIMIT = 1500


def bindings() -> st.SearchStrategy[dict[str, int]]:
    """Values of the symbols of `graphs()`."""
    return st.fixed_dictionaries({s.name: st.integers(s.lo, s.hi) for s in (BATCH, N)})


def fits(op: Op, *types: TensorType) -> bool:
    """Whether the operation takes arguments of these types."""
    try:
        op.infer(*types)
    except ValueError:
        return False
    return True


@dataclass
class Pool:
    """A graph being drawn: its values, and one builder."""

    draw: Draw
    builder: Builder = field(default_factory=Builder)
    values: list[Value] = field(default_factory=list)
    depth: int = 0

    def pick(self, wanted: Callable[[TensorType], bool] = lambda _: True) -> Value:
        """One of the values whose type is wanted; raises LookupError where there is none."""
        found = [v for v in self.values if wanted(v.type)]
        if not found:
            raise LookupError
        value: Value = self.draw(st.sampled_from(found))
        return value

    def integer(self, low: int, high: int) -> int:
        """A number in low..high."""
        number: int = self.draw(st.integers(low, high))
        return number

    def constant(self, dtype: DType, *shape: int) -> Value:
        """A constant of random elements."""
        return constant(self.builder, random_array(dtype, shape, self.integer(0, 9)), dtype)


def _static(type: TensorType) -> bool:
    return type.rank > 0 and type.is_static and 0 not in type.shape


def _unary(p: Pool) -> Value:
    op = ops.Unary(p.draw(st.sampled_from(ops.UNARY)))
    return p.builder(op, p.pick(lambda t: fits(op, t)))


def _binary(p: Pool) -> Value:
    op = ops.Binary(p.draw(st.sampled_from(ops.BINARY)))
    a = p.pick(lambda t: fits(op, t, t))
    return p.builder(op, a, p.pick(lambda t: fits(op, a.type, t)))


def _where(p: Pool) -> Value:
    cond = p.pick(lambda t: t.dtype is DType.bool)
    a = p.pick(lambda t: fits(ops.Where(), cond.type, t, t))
    b = p.pick(lambda t: fits(ops.Where(), cond.type, a.type, t))
    return p.builder(ops.Where(), cond, a, b)


def _cast(p: Pool) -> Value:
    plain = [d for d in DType if not (d.is_weight or d.is_small_float)]
    x = p.pick(lambda t: not t.dtype.is_small_float)
    return p.builder(ops.Cast(p.draw(st.sampled_from(plain))), x)


def _bit_cast(p: Pool) -> Value:
    x = p.pick(lambda t: ops.has_bits(t.dtype))
    same = [d for d in DType if ops.has_bits(d) and d.bits == x.type.dtype.bits]
    return p.builder(ops.BitCast(p.draw(st.sampled_from(same))), x)


def _broadcast(p: Pool) -> Value:
    x = p.pick(lambda t: t.rank < 4)
    shape = tuple(p.integer(1, 3) if d == 1 else d for d in x.type.shape)
    return p.builder(ops.Broadcast((p.draw(st.sampled_from([2, Expr.of(N)])), *shape)), x)


def _reshape(p: Pool) -> Value:
    x = p.pick()
    flat: tuple[Dim, ...] = (x.type.size,)
    halves = [(2, x.type.size // 2)] if x.type.size % 2 == 0 else []
    shapes = [flat, (1, *flat), (*x.type.shape[::-1],), (*x.type.shape, 1), *halves]
    return p.builder(ops.Reshape(p.draw(st.sampled_from(shapes))), x)


def _transpose(p: Pool) -> Value:
    x = p.pick()
    return p.builder(ops.Transpose(tuple(p.draw(st.permutations(range(x.type.rank))))), x)


def _slice(p: Pool) -> Value:
    x = p.pick(lambda t: t.rank > 0)
    starts: list[Dim] = []
    steps: list[int] = []
    shape: list[Dim] = []
    for dim in x.type.shape:
        step = p.draw(st.sampled_from([1, -1, 2, -2]))
        if not isinstance(dim, int):
            step = 1 if step > 0 else -1
            starts.append(0 if step > 0 else dim - 1)
            shape.append(dim)
        else:
            start = p.integer(0, max(dim - 1, 0))
            left = dim - start if step > 0 or dim == 0 else start + 1
            starts.append(start)
            shape.append(p.integer(0, -(-left // abs(step))))
        steps.append(step)
    return p.builder(ops.Slice(tuple(starts), tuple(steps), tuple(shape)), x)


def _concat(p: Pool) -> Value:
    x = p.pick(lambda t: t.rank > 0)
    op = ops.Concat(p.integer(0, x.type.rank - 1))
    return p.builder(op, x, p.pick(lambda t: fits(op, x.type, t)), x)


def _pad(p: Pool) -> Value:
    mode = p.draw(st.sampled_from(ops.PAD_MODES))
    x = p.pick(lambda t: mode == "constant" or _static(t))
    before = tuple(p.integer(0, 3) for _ in x.type.shape)
    shape = tuple(d + b + p.integer(0, 3) for d, b in zip(x.type.shape, before, strict=True))
    return p.builder(ops.Pad(before, shape, mode), x, p.constant(x.type.dtype))


def _windows(p: Pool) -> Value:
    x = p.pick(lambda t: 2 <= t.rank <= 4)
    spatial = x.type.shape[2:]

    def numbers(low: int, high: int) -> tuple[int, ...]:
        return tuple(p.integer(low, high) for _ in spatial)

    out = tuple(p.draw(st.sampled_from([1, 2, d])) for d in spatial)
    op = ops.Windows(numbers(1, 3), numbers(1, 2), numbers(1, 2), numbers(0, 2), out)
    return p.builder(op, x, p.constant(x.type.dtype))


def _indices(p: Pool, extents: tuple[int, ...], *shape: int) -> Value:
    """Constant points [*shape, len(extents)] inside the extents."""
    rng = np.random.default_rng(p.integer(0, 9))
    array = rng.integers([-e for e in extents], list(extents), (*shape, len(extents)))
    return constant(p.builder, array, DType.i64)


def _gather(p: Pool) -> Value:
    x = p.pick(_static)
    axis = p.integer(0, x.type.rank - 1)
    extent = x.type.shape[axis]
    assert isinstance(extent, int)
    indices = _indices(p, (extent,), p.integer(0, 3))
    if p.draw(st.booleans()):
        indices = p.builder(ops.Cast(DType.i32), indices)
    return p.builder(ops.Gather(axis), x, indices)


def _extents(x: Value, first: int, depth: int) -> tuple[int, ...]:
    return tuple(d for d in x.type.shape[first : first + depth] if isinstance(d, int))


def _gather_nd(p: Pool) -> Value:
    x = p.pick(_static)
    batch = p.integer(0, x.type.rank - 1)
    depth = p.integer(1, x.type.rank - batch)
    leading = _extents(x, 0, batch)
    points = _indices(p, _extents(x, batch, depth), *leading, p.integer(1, 3))
    return p.builder(ops.GatherND(batch), x, points)


def _element_indices(p: Pool, x: Value, axis: int) -> Value:
    """Constant places along an axis of x, nowhere more than there are elements beside it."""
    shape = [p.integer(0, d) for d in _extents(x, 0, x.type.rank)]
    shape[axis] = p.integer(0, 4)
    indices = _indices(p, _extents(x, axis, 1), *shape)
    return p.builder(ops.Reshape(tuple(shape)), indices)


def _gather_elements(p: Pool) -> Value:
    x = p.pick(_static)
    axis = p.integer(0, x.type.rank - 1)
    return p.builder(ops.GatherElements(axis), x, _element_indices(p, x, axis))


def _update(p: Pool, x: Value) -> str:
    """How to update elements of x's type."""
    scalar = TensorType(x.type.dtype)
    fitting = [r for r in ops.UPDATES if r == "none" or fits(ops.Binary(r), scalar, scalar)]
    reduction: str = p.draw(st.sampled_from(fitting))
    return reduction


def _scatter_elements(p: Pool) -> Value:
    x = p.pick(_static)
    axis = p.integer(0, x.type.rank - 1)
    indices = _element_indices(p, x, axis)
    updates = p.constant(x.type.dtype, *_extents(indices, 0, x.type.rank))
    return p.builder(ops.ScatterElements(axis, _update(p, x)), x, indices, updates)


def _scatter_nd(p: Pool) -> Value:
    x = p.pick(_static)
    depth = p.integer(1, x.type.rank)
    count, rest = p.integer(1, 5), _extents(x, depth, x.type.rank)
    points = _indices(p, _extents(x, 0, depth), count)
    updates = p.constant(x.type.dtype, count, *rest)
    return p.builder(ops.ScatterND(_update(p, x)), x, points, updates)


def _arg_sort(p: Pool) -> Value:
    x = p.pick(lambda t: t.rank > 0 and fits(ops.Binary("lt"), t, t))
    axis = p.integer(0, x.type.rank - 1)
    size = x.type.shape[axis]
    least = int(bounds(size)[0])
    count = p.draw(st.sampled_from([size, least, least // 2, min(least, 1)]))
    return p.builder(ops.ArgSort(axis, count, p.draw(st.booleans())), x)


def _cumulate(p: Pool) -> Value:
    kind = p.draw(st.sampled_from(["sum", "prod"]))
    x = p.pick(lambda t: t.rank > 0 and fits(ops.Cumulate(kind, 0), t))
    axis = p.integer(0, x.type.rank - 1)
    op = ops.Cumulate(kind, axis, p.draw(st.booleans()), p.draw(st.booleans()))
    return p.builder(op, x)


def _reduce(p: Pool) -> Value:
    kind = p.draw(st.sampled_from(ops.REDUCTIONS))
    x = p.pick(lambda t: fits(ops.Reduce(kind, ()), t))
    axes = p.draw(st.sets(st.integers(0, max(x.type.rank - 1, 0)), max_size=x.type.rank))
    return p.builder(ops.Reduce(kind, tuple(sorted(axes)), p.draw(st.booleans())), x)


def _matmul(p: Pool) -> Value:
    a = p.pick(lambda t: t.rank >= 2 and fits(ops.Unary("neg"), t))
    last = a.type.rank - 1
    turned = p.builder(ops.Transpose((*range(last - 1), last, last - 1)), a)
    b = turned if p.draw(st.booleans()) else p.pick(lambda t: fits(ops.MatMul(), a.type, t))
    return p.builder(ops.MatMul(), a, b)


_WEIGHTS = st.sampled_from([DType.trit, DType.sign])
_SIGNED = (DType.i8, DType.f32)
"""The activations of dots in groups."""


def _activations(p: Pool, dtypes: tuple[DType, ...] = ops.ACTIVATIONS) -> tuple[Value, int]:
    """A value to dot with, and its k."""
    x = p.pick(lambda t: t.dtype in dtypes and t.rank > 0 and t.shape[-1] in range(1, 99))
    k = x.type.shape[-1]
    assert isinstance(k, int)
    return x, k


def _dot(p: Pool) -> Value:
    x, k = _activations(p)
    return p.builder(ops.Dot(), x, p.constant(p.draw(_WEIGHTS), p.integer(1, 5), k))


def _group(p: Pool, k: int) -> int:
    group: int = p.draw(st.sampled_from([g for g in range(1, k + 1) if k % g == 0]))
    return group


def _grouped_dot(p: Pool) -> Value:
    x, k = _activations(p, _SIGNED)
    n = p.integer(1, 5)
    s = p.constant(DType.f32, n, k // _group(p, k))
    w = p.constant(p.draw(_WEIGHTS), n, k)
    return p.builder(ops.GroupedDot(), x, w, s, *_group_scales(p, x, s.type.shape[1]))


def _group_scales(p: Pool, x: Value, groups: Dim) -> list[Value]:
    """The scales of groups of i8 activations, or none."""
    if x.type.dtype is not DType.i8 or p.draw(st.booleans()):
        return []
    shape = (*x.type.shape[:-1], groups)
    return [p.builder(ops.Broadcast(shape), p.constant(DType.f32, groups))]


def _lift(p: Pool) -> Value:
    n, k = p.integer(1, 5), p.integer(1, 6)
    s = p.constant(DType.f32, p.draw(st.sampled_from([1, n])), k // _group(p, k))
    return p.builder(ops.Lift(p.draw(_WEIGHTS)), p.constant(DType.f32, n, k), s)


def _layout(p: Pool, group: int = 0) -> Layout:
    return Layout(p.draw(st.sampled_from(["b1", "i2"])), group)


def _pack(p: Pool) -> Value:
    layout = _layout(p, p.integer(0, 3))
    k = (layout.group or 1) * p.integer(1, 3)
    return p.builder(ops.Pack(layout), p.constant(layout.dtype, p.integer(1, 20), k))


def _padded(p: Pool, x: Value, group: int, layout: Layout) -> Value:
    """x[…, k] with each group padded to the layout's units."""
    *rows, k = x.type.shape
    assert isinstance(k, int)
    per_group = layout.padded_k(k) // (k // group)
    groups = p.builder(ops.Reshape((*rows, k // group, group)), x)
    pad = ops.Pad((0,) * groups.type.rank, (*rows, k // group, per_group))
    zero = constant(p.builder, 0, x.type.dtype)
    return p.builder(ops.Reshape((*rows, layout.padded_k(k))), p.builder(pad, groups, zero))


def _packed_dot(p: Pool) -> Value:
    x, k = _activations(p)
    n, layout = p.integer(1, 20), _layout(p)
    w = p.builder(ops.Pack(layout), p.constant(layout.dtype, n, k))
    return p.builder(ops.PackedDot((), layout, n, k), _padded(p, x, k, layout), w)


def _coded_dot(p: Pool) -> Value:
    x = p.pick(
        lambda t: t.dtype in (DType.i8, DType.u8) and t.rank == 2 and t.shape[1] in range(1, 99)
    )
    n, k = p.integer(1, 20), int(x.type.shape[-1])
    weights = p.draw(st.text(".+-", min_size=n * k, max_size=n * k))
    return p.builder(ops.CodedDot(weights, n, k), x)


def _packed_grouped_dot(p: Pool) -> Value:
    x, k = _activations(p, _SIGNED)
    n, group = p.integer(1, 20), _group(p, k)
    layout = _layout(p, group)
    w = p.builder(ops.Pack(layout), p.constant(layout.dtype, n, k))
    s = p.constant(DType.f32, layout.blocks(n), k // group, layout.rows)
    args = [_padded(p, x, group, layout), w, s]
    if x.type.dtype is DType.i8:
        split = p.builder(ops.Reshape((*x.type.shape[:-1], k // group, group)), x)
        wide = p.builder(ops.Cast(DType.i32), split)
        args.append(p.builder(ops.Reduce("sum", (split.type.rank - 1,)), wide))
        args += _group_scales(p, x, k // group)
    return p.builder(ops.PackedGroupedDot((), layout, n, k), *args)


def _dims(p: Pool) -> Value:
    choices: list[Dim] = [2, Expr.of(N), Expr.of(BATCH) * 2 + 1, (Expr.of(BATCH) + N.lo) // 2]
    dims = tuple(p.draw(st.lists(st.sampled_from(choices), min_size=2, max_size=2)))
    return p.builder(ops.Dims(dims, p.draw(st.sampled_from([(2,), (1, 2)]))))


def _iota(p: Pool) -> Value:
    sizes: list[Dim] = [0, 3, Expr.of(N), Expr.of(BATCH) + Expr.of(N)]
    return p.builder(ops.Iota(p.draw(st.sampled_from(sizes))))


_TRIPS: tuple[Dim, ...] = (0, 1, 3, Expr.of(N), Expr.of(BATCH))


def _repeat(p: Pool) -> Value:
    """A loop with a body of its own, whose other results join the pool."""
    trip: Dim = p.draw(st.sampled_from(_TRIPS))
    index = Symbol(f"t{p.depth}.{trip}", 0, None, trip)
    conditional = p.draw(st.booleans())
    states = [p.pick() for _ in range(p.integer(0, 2))]
    if conditional:
        states.insert(0, p.draw(st.sampled_from([p.constant(DType.bool), *_flags(p)])))
    given = [*states, *(p.pick() for _ in range(p.integer(1, 2)))]
    inner = Pool(p.draw, depth=p.depth + 1)
    inputs = [inner.builder(Input(f"a{i}", v.type)) for i, v in enumerate(given)]
    inner.values += [*inputs, inner.builder(ops.Dims((Expr.of(index),), ()))]
    for x in inputs:
        if x.type.rank and x.type.shape[0] == trip and trip != 0:
            starts, ones = [Expr.of(index), *[0] * (x.type.rank - 1)], (1,) * x.type.rank
            inner.values.append(
                inner.builder(ops.Slice(tuple(starts), ones, (1, *x.type.shape[1:])), x)
            )
    makers = [m for op, m in MAKERS.items() if op is not ops.Repeat or p.depth == 0]
    for maker in p.draw(st.lists(st.sampled_from(makers), max_size=4)):
        _extended(inner, maker)
    results = [inner.pick(lambda t, s=s: t == s.type) for s in states]
    for _ in range(0 if conditional else p.integer(not states, 2)):
        results.append(inner.pick(lambda t: not _depends(t, index)))
    outputs = tuple((f"r{i}", v) for i, v in enumerate(results))
    body = Graph("body", tuple(inputs), outputs, tuple(_flags(inner)[1:]))
    loop = ops.Repeat(body, len(states), index, conditional)
    found = [p.builder(replace(loop, which=i), *given) for i in range(len(results) + 1)]
    p.values += [v for v in found if upper(v.type.size) <= _SIZE_LIMIT]
    chosen: Value = p.draw(st.sampled_from(found))
    return chosen


def _flags(p: Pool) -> list[Value]:
    return [v for v in p.values if v.type == TensorType(DType.bool)]


def _depends(type: TensorType, symbol: Symbol) -> bool:
    return any(symbol in symbols_of(d) for d in type.shape)


MAKERS: Mapping[type, Callable[[Pool], Value]] = {
    ops.Dims: _dims,
    ops.Iota: _iota,
    ops.Unary: _unary,
    ops.Binary: _binary,
    ops.Where: _where,
    ops.Cast: _cast,
    ops.BitCast: _bit_cast,
    ops.Broadcast: _broadcast,
    ops.Reshape: _reshape,
    ops.Transpose: _transpose,
    ops.Slice: _slice,
    ops.Concat: _concat,
    ops.Pad: _pad,
    ops.Windows: _windows,
    ops.Gather: _gather,
    ops.GatherND: _gather_nd,
    ops.GatherElements: _gather_elements,
    ops.ScatterElements: _scatter_elements,
    ops.ScatterND: _scatter_nd,
    ops.ArgSort: _arg_sort,
    ops.Reduce: _reduce,
    ops.Cumulate: _cumulate,
    ops.MatMul: _matmul,
    ops.Dot: _dot,
    ops.GroupedDot: _grouped_dot,
    ops.Lift: _lift,
    ops.Pack: _pack,
    ops.PackedDot: _packed_dot,
    ops.CodedDot: _coded_dot,
    ops.PackedGroupedDot: _packed_grouped_dot,
    ops.Repeat: _repeat,
}
"""How to draw each operation but `Input` and `Const`; raises LookupError where nothing fits."""


def _extended(pool: Pool, maker: Callable[[Pool], Value]) -> None:
    try:
        value = maker(pool)
    except LookupError:
        return
    if upper(value.type.size) <= _SIZE_LIMIT:
        pool.values.append(value)


@st.composite
def graphs(draw: Draw, ops: tuple[type, ...] = tuple(MAKERS), steps: int = 10) -> Graph:
    """A graph of up to `steps` of the operations (and what their arguments take)."""
    pool = Pool(draw)
    shapes: list[tuple[Dim, ...]] = [(Expr.of(BATCH), Expr.of(N)), (2, 8), (), (Expr.of(N), 4)]
    dtypes = st.sampled_from([DType.f32, DType.i8, *DType])
    for number, shape in enumerate(shapes):
        type = TensorType(draw(dtypes), shape)
        pool.values.append(pool.builder(Input(f"x{number}", type)))
    inputs = tuple(pool.values)
    for op in draw(st.lists(st.sampled_from(ops), min_size=1, max_size=steps)):
        _extended(pool, MAKERS[op])
    results = draw(st.lists(st.sampled_from(pool.values), min_size=1, max_size=3))
    outputs = (*results, pool.values[-1])
    return Graph("drawn", inputs, tuple((f"y{i}", v) for i, v in enumerate(outputs)))


def feeds(graph: Graph, dims: Mapping[str, int], seed: int) -> dict[str, Array]:
    """Arrays for the graph's inputs, with the symbols' values."""
    arrays = {}
    for number, value in enumerate(graph.inputs):
        assert isinstance(value.op, Input)
        shape = tuple(evaluate(d, dims) for d in value.type.shape)
        arrays[value.op.name] = random_array(value.type.dtype, shape, seed + number)
    return arrays
