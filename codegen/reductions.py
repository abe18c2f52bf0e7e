"""Reductions in `tbc.reference`'s fixed order: 16 partial results, then a binary tree.

Element r of the reduced axes, counted row-major, belongs to partial result r mod 16. Where memory
runs along the reduced axes, the 16 partial results are the lanes of one vector; elsewhere the lanes
run along the results, and each partial result is a vector of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tbc import ops
from tbc.codegen.elements import (
    element_constant,
    emit_binary,
    narrow_float,
    register_type,
    widen_float,
)
from tbc.codegen.expressions import Emitter, Memory
from tbc.codegen.llvm_text import Val, bits_of, const, lanes_of, vec, with_elem
from tbc.codegen.loops import (
    SPLIT,
    Share,
    accesses,
    irregular,
    nest,
    rows_of,
    unordered,
    within,
)
from tbc.dims import Dim, Expr, Symbol, bounds, product, symbols_of
from tbc.indices import Index, reduced_index, split_index
from tbc.ir import Value
from tbc.program import Step, loop_index, loop_order, root_index
from tbc.types import DType

PARTIALS = 16
FEW = 9
"""Up to this many elements, a window of 3 x 3, take about as much code as a loop over them."""
UNROLLED = 64
"""Up to this many elements are reduced in straight-line code when the lanes are the results."""

_BINARY = {"sum": "add", "prod": "mul", "max": "max", "min": "min"}


class Reducer:
    """Partial results of one reduction."""

    def __init__(self, e: Emitter, anchor: Value):
        op = anchor.op
        assert isinstance(op, ops.Reduce)
        self.e, self.anchor, self.op, self.x = e, anchor, op, anchor.args[0]
        self.source = self.x.type.dtype
        narrow = self.source in (DType.f16, DType.bf16)
        self.dtype = DType.f32 if narrow else self.source
        self.sizes = tuple(self.x.type.shape[a] for a in op.axes)
        self.count = product(self.sizes)

    @property
    def identity(self) -> Val:
        """What a partial result starts from."""
        if self.op.kind in ("sum", "prod"):
            return element_constant(self.dtype, 0 if self.op.kind == "sum" else 1)
        low = self.op.kind == "max"
        if self.dtype.is_float:
            return element_constant(self.dtype, float("-inf") if low else float("inf"))
        value = self.dtype.range[0 if low else 1]
        return Val(
            register_type(self.dtype),
            str(value) if self.dtype is not DType.bool else ("false" if low else "true"),
        )

    def combine(self, a: Val, b: Val) -> Val:
        """One step of the reduction."""
        if self.dtype is DType.bool:
            return self.e.f.op("or" if self.op.kind == "max" else "and", a, b)
        return emit_binary(self.e.f, _BINARY[self.op.kind], self.dtype, a, b)

    def tree(self, partial: Callable[[int], Val | None]) -> Val:
        """The result of 16 partial results; those that are None hold the identity still.

        Each partial result is asked for when it is needed, so that few are alive at once.
        """
        return self._node(partial, 0, 1) or self.identity

    def _node(self, partial: Callable[[int], Val | None], first: int, stride: int) -> Val | None:
        if stride == PARTIALS:
            return partial(first)
        a = self._node(partial, first, 2 * stride)
        b = self._node(partial, first + stride, 2 * stride)
        if a is None or b is None:  # combining with the identity changes no partial result
            return a if b is None else b
        return self.combine(a, b)

    def element(self, index: Index, position: Dim) -> Val:
        """Element `position` of the reduced axes, for the result at `index`."""
        value = self.e.element(self.x, self.source_index(index, position))
        return widen_float(self.e.f, self.source, value)

    def source_index(self, index: Index, position: Dim) -> Index:
        """The index into the argument."""
        nothing = (0,) * len(self.sizes)
        inner = nothing if self.count == 0 else split_index(position, self.sizes)
        return reduced_index(self.anchor, index, inner)

    def finish(self, result: Val) -> Val:
        """The result in the reduction's own type."""
        return narrow_float(self.e.f, self.source, result)


def emit_reduction(
    e: Emitter, step: Step, out: Memory, share: Share, lanes: int, rolled: bool
) -> None:
    """A step whose anchor is a Reduce; `rolled`: in code that is small, an element at a time."""
    reducer = Reducer(e, step.anchor)
    shape = step.anchor.type.shape
    order = loop_order(step, out.order)
    domain = tuple(shape[a] for a in order)
    along = not rolled and _runs_along(e, reducer, shape, order)

    def visit(index: Index) -> None:
        index = unordered(index, order)
        with e.scope():
            result = _rolled(reducer, index) if rolled else _reduce(reducer, index, along)
            e.bind(step.anchor, reducer.finish(result))
            place = root_index(step, index)
            e.store(out, step.root, place, e.element(step.root, place))

    def probe(index: Index) -> Iterator[Dim | None]:
        index = unordered(index, order)
        yield out.address(step.root, root_index(step, index))
        yield from accesses(e, step.root, root_index(step, index), step.anchor)
        if not along:
            first = Expr.of(Symbol("reduced", 0, None, reducer.count))
            yield from accesses(e, reducer.x, reducer.source_index(index, first))

    around = not along and _has_filter(e, reducer, order)
    rows = rows_of(step, loop_index(shape), lambda index: root_index(step, index))
    width = 1 if along else lanes
    least = max(int(bounds(reducer.count)[0]), 1)
    split = max(SPLIT // least, width)
    nest(e, domain, share, probe, visit, width, around, split, within(order, rows))


def _has_filter(e: Emitter, reducer: Reducer, order: tuple[int, ...]) -> bool:
    """Whether a short reduction reads what moves with no axis of the result but the innermost."""
    if not order or not isinstance(reducer.count, int) or reducer.count > UNROLLED:
        return False
    loops = loop_index(reducer.anchor.type.shape)
    outer = {s for axis in order[:-1] for s in symbols_of(loops[axis])}
    term = Symbol("term", 0, None, reducer.count)
    reads = accesses(e, reducer.x, reducer.source_index(loops, Expr.of(term)))
    moving = [set(symbols_of(position)) for position in reads if position is not None]
    return any(term in symbols and outer.isdisjoint(symbols) for symbols in moving)


def _runs_along(
    e: Emitter, reducer: Reducer, shape: tuple[Dim, ...], order: tuple[int, ...]
) -> bool:
    """Whether to put the lanes along the reduced axes: where that makes more loads regular."""
    if isinstance(reducer.count, int) and reducer.count < PARTIALS:
        return False
    lane = Symbol("probe", 0, None, reducer.count)
    fixed = [0 if d == 1 else Expr.of(Symbol(f"outer{a}", 0, None, d)) for a, d in enumerate(shape)]

    def cost(index: list[Dim], position: Dim, lane: Symbol) -> int:
        reads = accesses(e, reducer.x, reducer.source_index(tuple(index), position))
        return sum(irregular(read, lane) for read in reads)

    along = cost(fixed, Expr.of(lane), lane)
    if not shape or along == 0:
        return True
    inner = Symbol("probe", 0, None, shape[order[-1]])
    if shape[order[-1]] != 1:
        fixed[order[-1]] = Expr.of(inner)
    position = Expr.of(Symbol("reduced", 0, None, reducer.count))
    return along < cost(fixed, position, inner)


def _reduce(reducer: Reducer, index: Index, along: bool) -> Val:
    count = reducer.count
    if isinstance(count, int) and count <= (PARTIALS if along else UNROLLED):
        return _unrolled(reducer, index, count)
    return _along(reducer, index) if along else _across(reducer, index)


def _unrolled(reducer: Reducer, index: Index, count: int) -> Val:
    """Straight-line code, with no identity to start from."""

    def partial(number: int) -> Val | None:
        total: Val | None = None
        for r in range(number, count, PARTIALS):
            element = reducer.element(index, r)
            total = element if total is None else reducer.combine(total, element)
        return total

    total = reducer.tree(partial)
    if reducer.op.kind != "sum" or not reducer.dtype.is_float:
        return total
    # from 0.0 on, no sum is -0.0
    return reducer.combine(total, reducer.e.f.splat(reducer.identity, lanes_of(total.type)))


def _rolled(reducer: Reducer, index: Index) -> Val:
    """One element at a time; partial results of floats lie in memory, integers have one."""
    e, f, type = reducer.e, reducer.e.f, reducer.e.index_type
    if isinstance(reducer.count, int) and reducer.count <= FEW:
        return _unrolled(reducer, index, reducer.count)
    r = Symbol(f.fresh("r"), 0, None, reducer.count)
    zero, total = const(type, 0), e.index(reducer.count)
    if not reducer.dtype.is_float:
        with (
            f.loop(zero, total, carried=[reducer.identity]) as loop,
            e.scope(**{r.name: loop.index}),
        ):
            loop.yield_(reducer.combine(loop.carried[0], reducer.element(index, Expr.of(r))))
        return loop.results[0]
    elem = reducer.identity.type
    size = bits_of(elem) // 8
    slots = f.alloca(elem, PARTIALS, size)

    def combine(number: Val, other: Callable[[], Val]) -> None:
        place = f.offset(slots, number, elem)
        f.store(reducer.combine(f.load(elem, place, size), other()), place, size)

    with f.loop(zero, const(type, PARTIALS)) as loop:
        f.store(reducer.identity, f.offset(slots, loop.index, elem), size)
    with f.loop(zero, total) as loop, e.scope(**{r.name: loop.index}):
        number = f.op("and", loop.index, const(type, PARTIALS - 1))
        combine(number, lambda: reducer.element(index, Expr.of(r)))
    with f.repeat(const(type, PARTIALS // 2)) as halves:
        (stride,) = halves.carried
        with f.loop(zero, stride) as loop:
            other = f.offset(slots, f.op("add", loop.index, stride), elem)
            combine(loop.index, lambda: f.load(elem, other, size))
        half = f.op("lshr", stride, const(type, 1))
        halves.yield_(half)
        halves.go_on(f, f.icmp("ne", half, zero))
    return f.load(elem, slots, size)


def _along(reducer: Reducer, index: Index) -> Val:
    """Lanes along the reduced axes: one vector of partial results."""
    e, f, type = reducer.e, reducer.e.f, reducer.e.index_type
    total = e.index(reducer.count)
    rest = f.op("and", total, const(type, PARTIALS - 1))
    whole = f.op("sub", total, rest)
    start = f.splat(reducer.identity, PARTIALS)
    r = Symbol(f.fresh("r"), 0, None, reducer.count)
    with (
        f.loop(const(type, 0), whole, PARTIALS, carried=[start]) as loop,
        e.lanes_along(r, loop.index, PARTIALS),
    ):
        element = reducer.element(index, Expr.of(r))
        element = f.splat(element, PARTIALS) if lanes_of(element.type) == 1 else element
        loop.yield_(reducer.combine(loop.carried[0], element))
    partials = loop.results
    if not (isinstance(reducer.count, int) and reducer.count % PARTIALS == 0):
        partials = _tail(reducer, index, partials, whole, total)
    return _folded(reducer, partials[0])


def _folded(reducer: Reducer, partials: Val) -> Val:
    """The tree's result of 16 partial results in one vector."""
    f, lanes = reducer.e.f, PARTIALS // 2
    while lanes > 1:
        low, high = range(lanes), range(lanes, 2 * lanes)
        halves = (f.shuffle(partials, partials, half) for half in (low, high))
        partials = reducer.combine(*halves)
        lanes //= 2
    return reducer.combine(f.extract(partials, 0), f.extract(partials, 1))


def _across(reducer: Reducer, index: Index) -> Val:
    """Lanes along the results: each partial result is a vector."""
    e, f, type = reducer.e, reducer.e.f, reducer.e.index_type
    total = e.index(reducer.count)
    rest = f.op("and", total, const(type, PARTIALS - 1))
    whole = f.op("sub", total, rest)
    block = Symbol(f.fresh("r"), 0, None, reducer.count)
    start = [f.splat(reducer.identity, e.lanes)] * PARTIALS
    with (
        f.loop(const(type, 0), whole, PARTIALS, carried=start) as loop,
        e.scope(**{block.name: loop.index}),
    ):
        elements = [reducer.element(index, Expr.of(block) + r) for r in range(PARTIALS)]
        wide = [f.splat(x, e.lanes) if lanes_of(x.type) == 1 else x for x in elements]
        loop.yield_(*(reducer.combine(p, x) for p, x in zip(loop.carried, wide, strict=True)))
    partials = loop.results
    if not (isinstance(reducer.count, int) and reducer.count % PARTIALS == 0):
        partials = _tail(reducer, index, partials, whole, total)
    return reducer.tree(lambda number: partials[number])


def _tail(
    reducer: Reducer, index: Index, partials: Sequence[Val], whole: Val, total: Val
) -> tuple[Val, ...]:
    """The last, incomplete group of 16: element j is added to partial result j, through memory."""
    e, f = reducer.e, reducer.e.f
    elem = reducer.identity.type
    memory_type = "i8" if elem == "i1" else elem
    piece, slot_type = with_elem(partials[0].type, memory_type), vec(memory_type, e.lanes)
    slots = f.alloca(piece, len(partials), 64)
    places = [f.offset(slots, const(e.index_type, n), piece) for n in range(len(partials))]
    for partial, place in zip(partials, places, strict=True):
        f.store(f.cast("zext", partial, piece), place, 1)
    r = Symbol(f.fresh("r"), 0, None, reducer.count)
    with f.loop(whole, total) as loop, e.scope(**{r.name: loop.index}):
        slot = f.offset(slots, f.op("sub", loop.index, whole), slot_type)
        element = reducer.element(index, Expr.of(r))
        element = f.splat(element, e.lanes) if lanes_of(element.type) == 1 else element
        _into_slot(reducer, slot, memory_type, element)
    return tuple(f.cast("trunc", f.load(piece, place, 1), partials[0].type) for place in places)


def _into_slot(reducer: Reducer, slot: Val, memory_type: str, element: Val) -> None:
    """Combine an element into a partial result that lies in memory."""
    f = reducer.e.f
    lanes = lanes_of(element.type)
    size = {"i8": 1, "i16": 2, "half": 2, "i32": 4, "float": 4}.get(memory_type, 8)
    before = f.load(vec(memory_type, lanes), slot, size)
    boolean = reducer.dtype is DType.bool
    after = reducer.combine(f.cast("trunc", before, element.type) if boolean else before, element)
    f.store(f.cast("zext", after, before.type) if boolean else after, slot, size)
