"""Dense matrix products: every element is summed serially over k, the lanes run along n.

A register tile (`tbc.tiles`) holds the sums of some rows and some vectors of columns. What lies
between the product and the step's root is computed on it when the sums are complete.
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
from tbc.codegen.llvm_text import Val, const, lanes_of
from tbc.codegen.loops import Share, accesses
from tbc.codegen.strips import Strip, needs_strip
from tbc.dims import Dim, Expr, Symbol, ceil_div, product, symbols_of, upper
from tbc.indices import Index, broadcast_index, operands, reshape_runs
from tbc.ir import Value
from tbc.program import ByRows, Step, inside, product_tile, root_index
from tbc.target import Target
from tbc.tiles import PREFETCH, side_by_side, strip_tile
from tbc.types import DType

ROWS_TO_SPLIT = 8
"""From this many rows on, the parts of a phase divide the rows, below it the columns."""
UNROLLED = 4
CACHE_LINE = 64
"""Up to this many terms of an innermost loop along k are written one behind the other."""


class Product:
    """The operands of one product, and the code of its tiles."""

    def __init__(self, e: Emitter, step: Step, out: Memory, target: Target):
        self.e, self.step, self.out = e, step, out
        self.a, self.b = step.anchor.args
        self.source = self.a.type.dtype
        narrow = self.source in (DType.f16, DType.bf16)
        self.dtype = DType.f32 if narrow else self.source
        *batch, self.m, self.n = step.anchor.type.shape
        self.batch = tuple(batch)
        self.tile = product_tile(step, target)
        self.strip: Strip | None = None
        if self.tile.lanes > 1 and needs_strip(e, self.b):
            self.tile = strip_tile(self.tile, self.b.type)
            element = register_type(self.dtype)
            self.strip = Strip(e, self.b, element, self.tile.width, self.dtype.bytes)
        widths = [m.panels.width for m in _memories(e, self.b) if m.panels is not None]
        self.panel = max(widths, default=0)
        """The columns of a panel that the right operand lies in, a multiple of a tile's; or 0."""
        self.ahead = PREFETCH.get(target.arch, 0)
        held = [v for v, m in e.memory.items() if m.panels is not None and self.ahead]
        self.stream = max(held, key=lambda v: upper(v.type.size), default=None)
        self.loops = _loops_along_k(e, step)
        self.side_by_side = side_by_side(inside(step), target)

    # -- one tile -------------------------------------------------------------------------------

    def compute(self, at: Index, rows: int, lanes: int, vectors: int, columns: int) -> None:
        """Compute and store a tile of `columns` columns; `at` is its first element."""
        e, f = self.e, self.e.f
        sums = self._sums(at, rows, lanes, vectors)
        if rows == 1:
            self._store(at, sums, columns)
            return
        # through memory, so that there is one copy of what follows the product
        type, align = sums[0].type, self.dtype.bytes
        slots = f.alloca(type, rows * vectors, 64)
        for number, total in enumerate(sums):
            f.store(total, f.offset(slots, const(e.index_type, number), type), align)
        row = Symbol(f.fresh("r"), 0, rows - 1)
        zero, end = const(e.index_type, 0), const(e.index_type, rows)
        with f.loop(zero, end) as loop, e.scope(**{row.name: loop.index}):
            first = f.op("mul", loop.index, const(e.index_type, vectors))
            places = [f.op("add", first, const(e.index_type, v)) for v in range(vectors)]
            own = [f.load(type, f.offset(slots, place, type), align) for place in places]
            *batch, m, n = at
            self._store((*batch, m + Expr.of(row), n), own, columns)

    def _sums(self, at: Index, rows: int, lanes: int, vectors: int) -> Sequence[Val]:
        """The sums of a tile, row by row."""
        e, f = self.e, self.e.f
        *batch, m, n = at
        lane = Symbol(f.fresh("lane"), 0, lanes - 1)
        columns = [n + v * lanes + Expr.of(lane) for v in range(vectors)]

        def add(k: Dim, sums: Sequence[Val]) -> list[Val]:
            if self.strip is None:
                right = [self._operand(self.b, (*batch, k, column), lanes) for column in columns]
            else:
                right = [self.strip.load(k, v * lanes, lanes) for v in range(vectors)]
            if rows == 1 and self.stream is not None:
                self._prefetch(self.stream, (*batch, k, n), lanes * vectors)
            result = []
            for r in range(rows):
                left = self._operand(self.a, (*batch, m + r, k), lanes)
                for v in range(vectors):
                    term = emit_binary(f, "mul", self.dtype, left, right[v])
                    before = sums[r * vectors + v]
                    result.append(emit_binary(f, "add", self.dtype, before, term))
            return result

        zero = f.splat(element_constant(self.dtype, 0), lanes)
        with e.lanes_along(lane, const(e.index_type, 0), lanes):
            return self._contract(self.loops, 0, [zero] * (rows * vectors), add)

    def _contract(
        self,
        sizes: Sequence[Dim],
        k: Dim,
        sums: Sequence[Val],
        add: Callable[[Dim, Sequence[Val]], list[Val]],
    ) -> Sequence[Val]:
        """The sums with the terms of a nest of loops added; `k` counts the loops around it."""
        if not sizes:
            return add(k, sums)
        e, f = self.e, self.e.f
        size, *inner = sizes
        if not inner and isinstance(size, int) and size <= UNROLLED:
            for step in range(size):
                sums = add(k * size + step, sums)
            return sums
        along = Symbol(f.fresh("k"), 0, None, size)
        low, high = const(e.index_type, 0), e.index(size)
        with f.loop(low, high, carried=sums) as loop, e.scope(**{along.name: loop.index}):
            following = k * size + Expr.of(along)
            loop.yield_(*self._contract(inner, following, loop.carried, add))
        return loop.results

    def _prefetch(self, stream: Value, index: Index, columns: int) -> None:
        """Ask for what will be read of a constant in panels some rows later."""
        e, memory = self.e, self.e.memory[stream]
        todo = [(self.b, broadcast_index(self.b, index))]
        for value, at in todo:
            if value not in e.memory:
                todo += operands(value, at)
            elif value is stream and memory.field(value, at) in (None, 0):
                row = e.address(memory, value, at)
                for ahead in range(0, columns * value.type.dtype.bytes, CACHE_LINE):
                    e.f.prefetch(row, self.ahead + ahead)

    def _operand(self, value: Value, index: Index, lanes: int) -> Val:
        element = self.e.element(value, broadcast_index(value, index))
        element = widen_float(self.e.f, self.source, element)
        return self.e.f.splat(element, lanes) if lanes_of(element.type) == 1 else element

    def _store(self, at: Index, sums: Sequence[Val], columns: int) -> None:
        """Store one row of a tile: vectors as wide as suits, then ever narrower pieces."""
        lanes = lanes_of(sums[0].type) * self.side_by_side
        start = 0
        while columns > start:
            width = min(lanes, 1 << (columns - start).bit_length() - 1)
            self._store_piece(at, start, _piece(self.e, sums, start, width))
            start += width

    def _store_piece(self, at: Index, start: int, sums: Val) -> None:
        e = self.e
        *batch, m, n = at
        lane = Symbol(e.f.fresh("lane"), 0, lanes_of(sums.type) - 1)
        with e.lanes_along(lane, const(e.index_type, 0), lanes_of(sums.type)):
            e.bind(self.step.anchor, narrow_float(e.f, self.source, sums))
            along = 0 if self.n == 1 else n + start + Expr.of(lane)
            place = root_index(self.step, (*batch, 0 if self.m == 1 else m, along))
            e.store(self.out, self.step.root, place, e.element(self.step.root, place))

    # -- all tiles ------------------------------------------------------------------------------

    def rows(
        self, batch: Index, low: Val, high: Val, n: Dim, lanes: int, vectors: int, columns: int
    ) -> None:
        """The tiles of a strip of columns: as many rows as possible, then ever fewer."""
        e, f = self.e, self.e.f
        if self.strip is not None:
            self.strip.fill(batch, n, lanes, vectors)
        rows = self.tile.rows
        while rows:
            rest = f.op("and", f.op("sub", high, low), const(e.index_type, rows - 1))
            middle = f.op("sub", high, rest)
            if rows == self.tile.rows or not isinstance(self.m, int) or self.m & rows:
                row = Symbol(f.fresh("m"), 0, None, self.m)
                with f.loop(low, middle, rows) as loop, e.scope(**{row.name: loop.index}):
                    self.compute((*batch, Expr.of(row), n), rows, lanes, vectors, columns)
                low = middle
            rows //= 2

    def columns(self, batch: Index, rows: tuple[Val, Val], tiles: tuple[Val, Val]) -> None:
        """Some of the tiles side by side; the last one may be narrower.

        Tiles of the last panel, which is narrower than others, are apart: whose is the first.
        """
        e, f, tile = self.e, self.e.f, self.tile
        whole = self.n // tile.width
        if self.panel:
            whole = self.n // self.panel * (self.panel // tile.width)
        (low, high), last = tiles, e.index(whole)
        if whole != 0:
            end = f.select(f.icmp("slt", high, last), high, last)
            number = Symbol(f.fresh("n"), 0, None, whole)
            with f.loop(low, end) as loop, e.scope(**{number.name: loop.index}):
                n = Expr.of(number) * tile.width
                self.rows(batch, *rows, n, tile.lanes, tile.vectors, tile.width)
        if self.n != whole * tile.width:
            is_mine = f.op("and", f.icmp("sle", low, last), f.icmp("sgt", high, last))
            with f.when(is_mine), e.scope():
                self._last_columns(batch, rows, whole * tile.width)

    def _last_columns(self, batch: Index, rows: tuple[Val, Val], start: Dim) -> None:
        """What is left of the columns: at once if they are padded, else in narrower tiles."""
        e, f, tile = self.e, self.e.f, self.tile
        rest = self.n - start
        if self.panel:
            assert isinstance(start, int)
            assert isinstance(self.n, int)
            for first in range(start, self.n, tile.width):
                columns = min(tile.width, self.n - first)
                with e.scope():
                    self.rows(batch, *rows, first, tile.lanes, -(-columns // tile.lanes), columns)
            return
        width = tile.width // 2
        while width:
            n, lanes = start + rest // (2 * width) * (2 * width), min(width, tile.lanes)
            bit = f.op("and", e.index(rest), const(e.index_type, width))
            if not isinstance(rest, int) or rest & width:
                with f.when(f.icmp("ne", bit, const(e.index_type, 0))), e.scope():
                    self.rows(batch, *rows, n, lanes, width // lanes, width)
            width //= 2


def emit_matmul(e: Emitter, step: Step, out: Memory, share: Share, target: Target) -> None:
    """A step whose anchor is a MatMul."""
    p = Product(e, step, out, target)
    zero = const(e.index_type, 0)
    tiles = ceil_div(p.n, p.tile.width)
    if isinstance(step.division, ByRows):
        rows, columns = share.of(e, p.m, step.division.multiple), (zero, e.index(tiles))
    else:
        rows, columns = share.of_product(e, (p.m, p.tile.rows), (tiles, 1), ROWS_TO_SPLIT)
    batches = e.index(product(p.batch))
    with e.f.loop(zero, batches) as each, e.split(each.index, p.batch) as batch:
        p.columns(batch, rows, columns)


def _piece(e: Emitter, sums: Sequence[Val], first: int, lanes: int) -> Val:
    """Some lanes of vectors that lie side by side: of one of them, or of whole ones."""
    each = lanes_of(sums[0].type)
    vector, start = divmod(first, each)
    if lanes == each:
        return sums[vector]
    if lanes == 1:
        return e.f.extract(sums[vector], start)
    if lanes < each:
        return e.f.shuffle(sums[vector], sums[vector], range(start, start + lanes))
    low, high = (_piece(e, sums, at, lanes // 2) for at in (first, first + lanes // 2))
    return e.f.shuffle(low, high, range(lanes))


# -- along k --------------------------------------------------------------------------------------


def _memories(e: Emitter, value: Value) -> Iterator[Memory]:
    """Where the elements lie that a value is computed of."""
    todo = [value]
    while todo:
        value = todo.pop()
        if value in e.memory:
            yield e.memory[value]
        else:
            todo += value.args


def _loops_along_k(e: Emitter, step: Step) -> list[Dim]:
    """The sizes of a nest of loops along k in which addresses grow evenly: as few as will do."""
    a, b = step.anchor.args
    sizes = _parts_of_axis(e, a, a.type.rank - 1)
    if len(sizes) == 1:
        sizes = _parts_of_axis(e, b, b.type.rank - 2)
    fields = max((m.panels.fields for m in _memories(e, b) if m.panels is not None), default=1)
    *outer, last = sizes
    if fields > 1 and isinstance(last, int) and last % fields == 0 and last > fields:
        sizes = [*outer, last // fields, fields]
    for at in reversed(range(len(sizes) - 1)):
        merged = [*sizes[:at], sizes[at] * sizes[at + 1], *sizes[at + 2 :]]
        if _are_even(e, step.anchor, merged):
            sizes = merged
    return sizes


def _parts_of_axis(e: Emitter, value: Value, axis: int) -> list[Dim]:
    """The sizes of the axes that an axis was before it was flattened."""
    whole = value.type.shape[axis]
    if whole == 1:
        return [1]
    while value not in e.memory and value.args:
        source = value.args[0]
        match value.op:
            case ops.Transpose(perm):
                axis = perm[axis]
            case ops.Reshape(shape):
                runs = reshape_runs(shape, source.type.shape)
                own, parts = next(run for run in runs if axis in run[0])
                sizes = [source.type.shape[a] for a in parts if source.type.shape[a] != 1]
                if len(own) > 1 or len(sizes) > 1:
                    return sizes if len(own) == 1 and product(tuple(sizes)) == whole else [whole]
                axis = next((a for a in parts if source.type.shape[a] != 1), parts[0])
            case ops.Cast() | ops.Binary() | ops.Slice():
                source = max(
                    value.args, key=lambda v: (v.type.rank, v.type.size == value.type.size)
                )
                if source.type.rank != value.type.rank or source.type.shape[axis] != whole:
                    break
            case _:
                break
        value = source
    return [whole]


def _are_even(e: Emitter, anchor: Value, sizes: Sequence[Dim]) -> bool:
    """Whether the operands' addresses grow evenly with each of the loops of these sizes."""
    k: Dim = 0
    for number, size in enumerate(sizes):
        k = k * size + Expr.of(Symbol(f"k{number}", 0, None, size))
    *outer, m, n = (
        0 if d == 1 else Expr.of(Symbol(f"outer{axis}", 0, None, d))
        for axis, d in enumerate(anchor.type.shape)
    )
    a, b = anchor.args
    reads = [
        *accesses(e, a, broadcast_index(a, (*outer, m, k))),
        *accesses(e, b, broadcast_index(b, (*outer, k, n))),
    ]
    return all(position is not None and _is_even(position) for position in reads)


def _is_even(position: Dim) -> bool:
    """Whether no loop along k is part of a division."""
    return not any(
        symbol.name.startswith("k") and not all(isinstance(atom, Symbol) for atom in monomial)
        for monomial, _ in (position.terms if isinstance(position, Expr) else ())
        for symbol in symbols_of(Expr(((monomial, 1),)))
    )
