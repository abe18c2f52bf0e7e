"""Loop nests: how a step visits the elements it computes, vectorised along its innermost axes.

A nest covers a domain of indices. The trailing axes that every access walks through evenly are
merged into one loop, which runs in lanes; the axes before them are one flat loop, which is what
the parts of a phase divide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from tbc import ops
from tbc.codegen.expressions import Emitter, Memory
from tbc.codegen.llvm_text import Val, const
from tbc.codegen.moves import bytes_at_once, move, reads
from tbc.dims import Dim, Expr, Symbol, bounds, product, symbols_of
from tbc.indices import Index, split_index, touched
from tbc.ir import Value
from tbc.pieces import Map, Source, pieces
from tbc.program import ByRows, Step, loop_index, row_axis
from tbc.target import Target

SPLIT = 64
"""Elements to whose multiples a flat loop is divided among parts: a cache line of bytes."""


@dataclass(frozen=True)
class Share:
    """Which part of the work a call does: part of parts."""

    part: Val
    parts: Val

    @staticmethod
    def whole(e: Emitter) -> Share:
        """All of it: part 0 of 1."""
        return Share(const(e.index_type, 0), const(e.index_type, 1))

    def of(self, e: Emitter, count: Dim, multiple: int = 1) -> tuple[Val, Val]:
        """This part's range of 0 .. count, cut at multiples."""
        f = e.f
        units = e.index((count + (multiple - 1)) // multiple)
        first = f.op("udiv", f.op("mul", units, self.part), self.parts)
        following = f.op("add", self.part, const(e.index_type, 1))
        last = f.op("udiv", f.op("mul", units, following), self.parts)
        if multiple == 1:
            return first, last
        scale, total = const(e.index_type, multiple), e.index(count)
        low, high = f.op("mul", first, scale), f.op("mul", last, scale)
        return low, f.select(f.icmp("slt", high, total), high, total)

    def of_product(
        self, e: Emitter, rows: tuple[Dim, int], columns: tuple[Dim, int], many: int
    ) -> tuple[tuple[Val, Val], tuple[Val, Val]]:
        """This part's ranges of rows and columns: of the rows a share if they are `many`, else all.

        Of the columns it is the other way round. Both are given as (count, multiple to cut at).
        """
        f, zero = e.f, const(e.index_type, 0)
        all_rows, all_columns = ((zero, e.index(count)) for count, _ in (rows, columns))
        least, most = bounds(rows[0])
        if most < many:
            return all_rows, self.of(e, *columns)
        if least >= many:
            return self.of(e, *rows), all_columns
        are_many = f.icmp("sge", all_rows[1], const(e.index_type, many))
        pairs = (self.of(e, *rows), all_rows), (all_columns, self.of(e, *columns))
        mine, theirs = (
            (f.select(are_many, a[0], b[0]), f.select(are_many, a[1], b[1])) for a, b in pairs
        )
        return mine, theirs


def nest(
    e: Emitter,
    domain: tuple[Dim, ...],
    share: Share,
    probe: Callable[[Index], Iterator[Dim | None]],
    visit: Callable[[Index], None],
    lanes: int,
    lanes_outside: bool = False,
    split: int = SPLIT,
    rows: tuple[int, int] | None = None,
) -> None:
    """Visit every index of a domain once, in lanes along its last axes where that is possible.

    `probe` yields the memory positions that a visit to an index touches; None is one that no
    merging of loops makes regular. With `lanes_outside` the loop in lanes goes around the flat one,
    so that what depends on the lanes alone is loaded once. What the parts divide is the flat loop,
    or the elements where there is none, at multiples of `split`; or else `rows`, an axis of the
    domain and the multiple to cut it at, which then is the outermost loop.
    """
    if product(domain) == 0:
        return
    if rows is not None:
        axis, multiple = rows
        row = Symbol(e.f.fresh("row"), 0, None, domain[axis])

        def at(index: Index) -> Index:
            return (*index[:axis], Expr.of(row), *index[axis:])

        rest = (*domain[:axis], *domain[axis + 1 :])
        own = (lambda index: probe(at(index))), (lambda index: visit(at(index)))
        low, high = share.of(e, domain[axis], multiple)
        with e.f.loop(low, high) as loop, e.scope(**{row.name: loop.index}):
            nest(e, rest, Share.whole(e), *own, lanes, lanes_outside)
        return
    merged = _merge(domain, probe)
    outer, inner = domain[: len(domain) - merged], domain[len(domain) - merged :]
    extent, count = product(inner), product(outer)
    along = Symbol(e.f.fresh("j"), 0, None, extent)
    tail = split_index(Expr.of(along), inner)

    def in_lanes(strips: Iterator[tuple[Val, Val, int]], body: Callable[[], None]) -> None:
        for start, stop, step in strips:
            with e.f.loop(start, stop, step) as loop, e.lanes_along(along, loop.index, step):
                body()

    def flat(low: Val, high: Val, body: Callable[[Index], None]) -> None:
        with e.f.loop(low, high) as loop, e.split(loop.index, outer) as head:
            body(head)

    def whole(head: Index) -> None:
        visit((*head, *tail))

    none = (0,) * len(outer)
    if count != 1:
        low, high = share.of(e, count)
        if lanes_outside:
            in_lanes(_strips(e, extent, lanes), lambda: flat(low, high, whole))
        else:
            flat(low, high, lambda i: in_lanes(_strips(e, extent, lanes), lambda: whole(i)))
    elif isinstance(extent, int) and extent < 4 * split:
        with e.f.when(e.f.icmp("eq", share.part, const(e.index_type, 0))):
            in_lanes(_strips(e, extent, lanes), lambda: whole(none))
    else:
        low, high = share.of(e, extent, split)
        in_lanes(_range_strips(e, low, high, lanes), lambda: whole(none))


def _strips(e: Emitter, size: Dim, lanes: int) -> Iterator[tuple[Val, Val, int]]:
    """0 .. size as (start, stop, lanes): whole vectors, then ever narrower ones."""
    if not isinstance(size, int):
        yield from _range_strips(e, const(e.index_type, 0), e.index(size), lanes)
        return
    start = 0
    while lanes >= 1:
        stop = start + (size - start) // lanes * lanes
        if stop > start:
            yield const(e.index_type, start), const(e.index_type, stop), lanes
        start, lanes = stop, lanes // 2


def _range_strips(e: Emitter, low: Val, high: Val, lanes: int) -> Iterator[tuple[Val, Val, int]]:
    """low .. high, known at run time: whole vectors, some narrower ones, then single lanes."""
    f = e.f
    for width in (lanes, lanes // 4):
        if width > 1:
            rest = f.op("and", f.op("sub", high, low), const(e.index_type, width - 1))
            middle = f.op("sub", high, rest)
            yield low, middle, width
            low = middle
    yield low, high, 1


def innermost(
    domain: tuple[Dim, ...], probe: Callable[[Index], Iterator[Dim | None]]
) -> tuple[Symbol, Index]:
    """The symbol of the innermost loop of a nest, and the index that it visits."""
    return _of_merged(domain, _merge(domain, probe))


def is_run(
    domain: tuple[Dim, ...],
    probe: Callable[[Index], Iterator[Dim | None]],
    positions: Callable[[Index], Iterator[Dim | None]],
) -> bool:
    """Whether a nest's innermost loop goes through each of some positions one by one."""
    along, index = innermost(domain, probe)
    one = Expr.of(along)
    return all(p is not None and not mentions(p - one, along) for p in positions(index))


def _of_merged(domain: tuple[Dim, ...], merged: int) -> tuple[Symbol, Index]:
    """A symbol that runs through the last axes, and the index with it and symbols of the others."""
    inner = domain[len(domain) - merged :]
    along = Symbol("probe", 0, None, product(inner))
    outer = tuple(
        0 if d == 1 else Expr.of(Symbol(f"outer{a}", 0, None, d))
        for a, d in enumerate(domain[: len(domain) - merged])
    )
    return along, (*outer, *split_index(Expr.of(along), inner))


def _merge(domain: tuple[Dim, ...], probe: Callable[[Index], Iterator[Dim | None]]) -> int:
    """How many trailing axes to run through in one loop: as many as stay regular."""
    best, best_cost = 1 if domain else 0, None
    for merged in range(len(domain), 0, -1):
        along, index = _of_merged(domain, merged)
        cost = sum(irregular(position, along) for position in probe(index))
        if cost == 0:
            return merged
        if merged > 1 and product(domain[len(domain) - merged : -1]) == 1:
            continue
        if best_cost is None or cost < best_cost:
            best, best_cost = merged, cost
    return best


def irregular(position: Dim | None, along: Symbol) -> int:
    """What an access costs beyond a vector load or a broadcast: 0, 1 (strided) or 2."""
    if position is None:
        return 2
    if isinstance(position, int):
        return 0
    moving = [(m, c) for m, c in position.terms if m and mentions(Expr(((m, 1),)), along)]
    if not moving:
        return 0
    if len(moving) == 1 and moving[0][0] == (along,):
        return 0 if moving[0][1] == 1 else 1
    return 2


def mentions(dim: Dim, along: Symbol) -> bool:
    """Whether a dim depends on a symbol of that name."""
    return any(s.name == along.name for s in symbols_of(dim))


# -- what a step touches --------------------------------------------------------------------------


def accesses(
    e: Emitter, value: Value, index: Index, bound: Value | None = None
) -> Iterator[Dim | None]:
    """The memory positions read to compute an element, not entering the value `bound`."""
    for source, at in touched(e.memory, value, index, bound):
        if (memory := e.memory.get(source)) is not None:
            yield memory.address(source, at)
        elif isinstance(source.op, ops.GatherND) or _varies(at):
            yield None  # what varies in the indices makes the data irregular


def _varies(index: Index) -> bool:
    return any(s.name == "probe" for i in index for s in symbols_of(i))


# -- plain steps ----------------------------------------------------------------------------------


def emit_loops(
    e: Emitter, step: Step, out: Memory, share: Share, lanes: int, target: Target
) -> None:
    """A step without a contraction: every element of the root from what it reads."""
    for domain, place, source in pieces(step):
        rows = rows_of(step, loop_index(domain), place)
        emit_piece(e, step.root, out, share, lanes, target, domain, place, source, rows)


def rows_of(step: Step, loops: Index, place: Map) -> ByRows | None:
    """A step's division by rows, as one of the loops over a domain whose elements go to `place`."""
    if not isinstance(step.division, ByRows):
        return None
    axis = row_axis(step.division.axis, loops, place(loops))
    assert axis is not None, step
    return replace(step.division, axis=axis)


def emit_piece(
    e: Emitter,
    root: Value,
    out: Memory,
    share: Share,
    lanes: int,
    target: Target,
    domain: tuple[Dim, ...],
    place: Map,
    source: Source,
    rows: ByRows | None = None,
) -> None:
    """Store the elements that `source` names for the indices of a domain, at `place`."""

    order = out.order if len(domain) == len(out.order) else tuple(range(len(domain)))

    def visit(index: Index) -> None:
        index = unordered(index, order)
        value, at = source(index)
        if not moves or e.lanes == 1:
            e.store(out, root, place(index), e.element(value, at))
            return
        move(e, value, at, e.address(out, root, place(index)))

    def moved(index: Index) -> Iterator[Dim | None]:
        index = unordered(index, order)
        value, at = source(index)
        yield out.address(root, place(index))
        yield from reads(e, value, at)

    def probe(index: Index) -> Iterator[Dim | None]:
        index = unordered(index, order)
        value, at = source(index)
        yield out.address(root, place(index))
        yield from accesses(e, value, at)

    ordered = tuple(domain[a] for a in order)
    wide = bytes_at_once(target)
    moves = wide > 1 and root.type.dtype.bytes == 1 and is_run(ordered, probe, moved)
    nest(e, ordered, share, probe, visit, wide if moves else lanes, rows=within(order, rows))


def within(order: tuple[int, ...], rows: ByRows | None) -> tuple[int, int] | None:
    """What `nest` is told of rows, where the domain's axes come in an order."""
    return None if rows is None else (order.index(rows.axis), rows.multiple)


def unordered(index: Index, order: tuple[int, ...]) -> Index:
    """An index whose axes come in the order of the loops, in the value's own order."""
    result: list[Dim] = [0] * len(index)
    for position, axis in enumerate(order):
        result[axis] = index[position]
    return tuple(result)
