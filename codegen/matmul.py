"""Dense matrix products: every element is summed serially over k, the lanes run along n.

A register tile holds up to MR rows of `a` by NR vectors of `b`; what lies between the product and
the step's root is computed on the tile while it is in registers.
"""

from __future__ import annotations

from tbc.codegen.elements import element_constant, emit_binary, narrow_float, widen_float
from tbc.codegen.expressions import Emitter, Memory
from tbc.codegen.llvm_text import Val, const, lanes_of
from tbc.codegen.loops import Share
from tbc.dims import Dim, Expr, Symbol, bounds, product
from tbc.indices import Index, broadcast_index
from tbc.ir import Value
from tbc.program import Step, root_index
from tbc.types import DType

MR, NR = 4, 2
ROWS_TO_SPLIT = 8
"""From this many rows on, the parts of a phase divide the rows, below it the columns."""


class Product:
    """The operands of one product and the tile's code."""

    def __init__(self, e: Emitter, step: Step, out: Memory):
        self.e, self.step, self.out = e, step, out
        self.a, self.b = step.anchor.args
        self.source = self.a.type.dtype
        narrow = self.source in (DType.f16, DType.bf16)
        self.dtype = DType.f32 if narrow else self.source
        *self.batch, self.m, self.n = step.anchor.type.shape
        self.k = self.a.type.shape[-1]

    def tile(self, batch: Index, row: Dim, rows: int, column: Dim, vectors: int) -> None:
        """Compute and store `rows` rows by `vectors` vectors; `column` runs with the lanes."""
        e, f = self.e, self.e.f
        zero = f.splat(element_constant(self.dtype, 0), e.lanes)
        k = Symbol(f.fresh("k"), 0, None, self.k)
        columns = [column + v * e.lanes for v in range(vectors)]
        start = [zero] * (rows * vectors)
        low, high = const(e.index_type, 0), e.index(self.k)
        with f.loop(low, high, carried=start) as loop, e.scope(**{k.name: loop.index}):
            along = Expr.of(k)
            bs = [self._operand(self.b, (*batch, along, c)) for c in columns]
            sums = []
            for r in range(rows):
                a = self._operand(self.a, (*batch, row + r, along))
                for v in range(vectors):
                    x, y = (f.splat(o, e.lanes) if lanes_of(o.type) == 1 else o for o in (a, bs[v]))
                    term = emit_binary(f, "mul", self.dtype, x, y)
                    before = loop.carried[r * vectors + v]
                    sums.append(emit_binary(f, "add", self.dtype, before, term))
            loop.yield_(*sums)
        for number, total in enumerate(loop.results):
            r, v = divmod(number, vectors)
            with e.scope():
                e.bind(self.step.anchor, narrow_float(f, self.source, total))
                place = root_index(self.step, (*batch, row + r, columns[v]))
                e.store(self.out, self.step.root, place, e.element(self.step.root, place))

    def _operand(self, value: Value, index: Index) -> Val:
        element = self.e.element(value, broadcast_index(value, index))
        return widen_float(self.e.f, self.source, element)

    def columns(self, batch: Index, row: Dim, rows: int, low: Val, high: Val, lanes: int) -> None:
        """One strip of rows across the columns low .. high."""
        e, f = self.e, self.e.f
        widths = [(lanes, NR), (lanes, 1)]
        while lanes > 1:
            lanes //= 2
            widths.append((lanes, 1))
        for width, vectors in widths:
            step = width * vectors
            span = f.op("sub", high, low)
            if step & (step - 1) == 0:
                rest = f.op("and", span, const(e.index_type, step - 1))
            else:
                rest = f.op("urem", span, const(e.index_type, step))
            middle = f.op("sub", high, rest)
            column = Symbol(f.fresh("n"), 0, None, self.n)
            with f.loop(low, middle, step) as loop, e.lanes_along(column, loop.index, width):
                self.tile(batch, row, rows, Expr.of(column), vectors)
            low = middle


def emit_matmul(e: Emitter, step: Step, out: Memory, share: Share, lanes: int) -> None:
    """A step whose anchor is a MatMul."""
    p = Product(e, step, out)
    f, type = e.f, e.index_type
    zero = const(type, 0)
    by_rows = bounds(p.m)[1] >= ROWS_TO_SPLIT
    columns = (zero, e.index(p.n)) if by_rows else share.of(e, p.n, max(lanes, 1) * NR)
    lanes = _fitting(lanes, p.n)
    batches = product(tuple(p.batch))
    row = Symbol(f.fresh("m"), 0, None, p.m)
    row_low, row_high = share.of(e, p.m, MR) if by_rows else (zero, e.index(p.m))
    with f.loop(zero, e.index(batches)) as each, e.split(each.index, tuple(p.batch)) as batch:
        rest = f.op("and", f.op("sub", row_high, row_low), const(type, MR - 1))
        middle = f.op("sub", row_high, rest)
        for low, high, rows in ((row_low, middle, MR), (middle, row_high, 1)):
            if rows > bounds(p.m)[1]:
                continue
            with f.loop(low, high, rows) as loop, e.scope(**{row.name: loop.index}):
                p.columns(batch, Expr.of(row), rows, *columns, lanes)


def _fitting(lanes: int, n: Dim) -> int:
    """The widest vector, up to `lanes`, that n fills at least once."""
    while lanes > 1 and bounds(n)[1] < lanes:
        lanes //= 2
    return lanes
