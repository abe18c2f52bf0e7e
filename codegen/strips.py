"""Strips of a product's right operand: some columns, laid out k by k for the tiles that use them.

Where a column's elements lie side by side in memory, as the keys of an attention do, or where they
have to be computed, a strip is brought onto the stack once for all rows of the product.
"""

from __future__ import annotations

from collections.abc import Sequence

from tbc import ops
from tbc.codegen.elements import widen_float
from tbc.codegen.expressions import Emitter
from tbc.codegen.llvm_text import Function, Val, const, lanes_of, vec
from tbc.codegen.loops import accesses, irregular
from tbc.dims import Dim, Expr, Symbol, static
from tbc.indices import Index, broadcast_index
from tbc.ir import Value
from tbc.tiles import has_strips


def transposed(f: Function, rows: Sequence[Val]) -> list[Val]:
    """The columns of a square matrix of 2^i rows: halves of blocks are exchanged, ever larger."""
    columns, size = list(rows), 1
    while size < len(rows):
        lanes = range(len(rows))
        low = [i + len(rows) - size if i & size else i for i in lanes]
        high = [i + len(rows) if i & size else i + size for i in lanes]
        for i in lanes:
            if not i & size:
                a, b = columns[i], columns[i + size]
                columns[i], columns[i + size] = f.shuffle(a, b, low), f.shuffle(a, b, high)
        size *= 2
    return columns


def needs_strip(e: Emitter, b: Value) -> bool:
    """Whether b is short enough for strips, and not read evenly along its last axis as it lies."""
    if not has_strips(b.type):
        return False
    return irregularity(e, b, -1) > 0 or is_computed(e, b)


def is_computed(e: Emitter, b: Value) -> bool:
    """Whether reading b takes more than index maps."""
    while b not in e.memory and b.args:
        if isinstance(b.op, ops.ELEMENTWISE):
            return True
        b = b.args[0]
    return False


def irregularity(e: Emitter, b: Value, axis: int) -> int:
    """What reading b in lanes along an axis costs beyond loads of vectors."""
    lane = Symbol("probe", 0, None, b.type.shape[axis])
    index: list[Dim] = [
        0 if d == 1 else Expr.of(Symbol(f"outer{a}", 0, None, d))
        for a, d in enumerate(b.type.shape)
    ]
    index[axis] = Expr.of(lane)
    return sum(irregular(read, lane) for read in accesses(e, b, tuple(index)))


class Strip:
    """Room for `width` columns of b[…, k, n], of a known k, as elements of an LLVM type."""

    def __init__(self, e: Emitter, b: Value, type: str, width: int, element_bytes: int):
        self.e, self.b, self.type, self.width, self.align = e, b, type, width, element_bytes
        self.k = static(b.type.shape[-2], "the rows of a strip")
        self.room = e.f.alloca(type, self.k * width, 64)
        self.along_k = irregularity(e, b, -1) > irregularity(e, b, -2)

    def load(self, k: Dim, first: int, lanes: int) -> Val:
        """Elements of neighbouring columns from the strip's column `first` on."""
        place = self._place(self.e.index(k * self.width + first))
        return self.e.f.load(vec(self.type, lanes), place, self.align)

    def _place(self, position: Val) -> Val:
        return self.e.f.offset(self.room, position, self.type)

    def fill(self, batch: Index, n: Dim, lanes: int, vectors: int) -> None:
        """Bring `vectors` times `lanes` columns from column n on here."""
        e, f = self.e, self.e.f
        v = Symbol(f.fresh("v"), 0, vectors - 1)
        squares = self.k // lanes * lanes if self.along_k else 0
        zero = const(e.index_type, 0)
        with f.loop(zero, const(e.index_type, vectors)) as loop, e.scope(**{v.name: loop.index}):
            first = Expr.of(v) * lanes if vectors > 1 else 0
            for start, stop, step, fill in (
                (0, squares, lanes, self._square),
                (squares, self.k, 1, self._row),
            ):
                if start == stop:
                    continue
                k = Symbol(f.fresh("k"), 0, None, self.k)
                low, high = const(e.index_type, start), const(e.index_type, stop)
                with f.loop(low, high, step) as inner, e.scope(**{k.name: inner.index}):
                    fill(batch, k, inner.index, n, first, lanes)

    def _element(self, index: Index, lanes: int) -> Val:
        element = self.e.element(self.b, broadcast_index(self.b, index))
        element = widen_float(self.e.f, self.b.type.dtype, element)
        return self.e.f.splat(element, lanes) if lanes_of(element.type) == 1 else element

    def _square(self, batch: Index, k: Symbol, at: Val, n: Dim, first: Dim, lanes: int) -> None:
        """As many steps of k as lanes: a column at a time, then exchanged."""
        e, along = self.e, Symbol(self.e.f.fresh("along"), 0, None, self.k)
        with e.lanes_along(along, at, lanes):
            rows = [
                self._element((*batch, Expr.of(along), n + first + r), lanes) for r in range(lanes)
            ]
        for step, column in enumerate(transposed(e.f, rows)):
            self._store(Expr.of(k) + step, first, column)

    def _row(self, batch: Index, k: Symbol, at: Val, n: Dim, first: Dim, lanes: int) -> None:
        """One step of k."""
        e, lane = self.e, Symbol(self.e.f.fresh("lane"), 0, lanes - 1)
        with e.lanes_along(lane, const(e.index_type, 0), lanes):
            row = self._element((*batch, Expr.of(k), n + first + Expr.of(lane)), lanes)
        self._store(Expr.of(k), first, row)

    def _store(self, k: Dim, first: Dim, row: Val) -> None:
        e = self.e
        e.f.store(row, self._place(e.index(k * self.width + first)), self.align)
