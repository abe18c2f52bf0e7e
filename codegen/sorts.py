"""The first elements of rows in sorted order, as indices: a heap of them, in the result itself.

The heap holds the best `count` elements seen so far with the last of them in order at its root
(Williams' heapsort; Floyd's way to build a heap). Ties are broken by index, so the order is total,
and a sort that is not stable in itself gives the stable order.
"""

from __future__ import annotations

from dataclasses import dataclass

from tbc import ops
from tbc.codegen.elements import emit_binary, load_element, widen_float
from tbc.codegen.expressions import Emitter, Memory
from tbc.codegen.llvm_text import Function, Val, const
from tbc.codegen.loops import Share
from tbc.dims import Dim, product
from tbc.program import Step, strides
from tbc.types import DType


@dataclass(frozen=True)
class _Rows:
    """A row of elements and the heap of indices into it, in one function."""

    f: Function
    op: ops.ArgSort
    dtype: DType
    heap: Val
    heap_step: Val
    row: Val
    row_step: Val

    def slot(self, position: Val) -> Val:
        """The address of an index in the heap."""
        return self.f.offset(self.heap, self.f.op("mul nsw", position, self.heap_step), "i64")

    def item(self, position: Val) -> Val:
        """The index at a position of the heap."""
        loaded = self.f.load("i64", self.slot(position), 8)
        return self.f.cast("trunc", loaded, position.type)

    def put(self, position: Val, item: Val) -> None:
        """Store an index in the heap."""
        self.f.store(self.f.cast("sext", item, "i64"), self.slot(position), 8)

    def key(self, item: Val) -> Val:
        """The element at an index, as something to compare."""
        where = self.f.op("mul nsw", item, self.row_step)
        place = self.f.offset(self.row, where, f"i{self.dtype.bytes * 8}")
        return widen_float(self.f, self.dtype, load_element(self.f, self.dtype, place))

    def follows(self, a: Val, b: Val) -> Val:
        """Whether the element at index a comes after the one at b."""
        f = self.f
        first, second = (
            (self.key(b), self.key(a)) if self.op.descending else (self.key(a), self.key(b))
        )
        above, below = self._greater(first, second), self._greater(second, first)
        tied = f.op("and", f.op("xor", below, const("i1", 1)), f.icmp("sgt", a, b))
        return f.op("or", above, tied)

    def _greater(self, a: Val, b: Val) -> Val:
        if not self.dtype.is_float:
            return emit_binary(self.f, "gt", self.dtype, a, b)
        # nan is greater than every number, but not than nan
        return self.f.op("and", self.f.fcmp("ugt", a, b), self.f.fcmp("ord", b, b))


def emit_sort(e: Emitter, step: Step, out: Memory, share: Share) -> None:
    """A step whose root is an ArgSort; its parts divide the rows."""
    root, op, f = step.root, step.root.op, e.f
    assert isinstance(op, ops.ArgSort)
    (x,) = root.args
    sift = _sift(f, op, x.type.dtype, e.index_type)
    axes = tuple(a for a in out.order if a != op.axis)
    others = tuple(root.type.shape[a] for a in axes)
    steps = [
        e.index(strides(v.type.shape, m.order)[op.axis]) for v, m in ((root, out), (x, e.memory[x]))
    ]
    size, count = e.index(x.type.shape[op.axis]), e.index(op.count)
    low, high = share.of(e, product(others))
    with f.loop(low, high) as loop, e.split(loop.index, others) as index:
        start: list[Dim] = [0] * root.type.rank
        for axis, i in zip(axes, index, strict=True):
            start[axis] = i
        heap, row = (e.address(m, v, tuple(start)) for v, m in ((root, out), (x, e.memory[x])))
        rows = _Rows(f, op, x.type.dtype, heap, steps[0], row, steps[1])
        with f.when(f.icmp("sgt", count, const(count.type, 0))):
            _fill(rows, sift, size, count)


def _fill(rows: _Rows, sift: str, size: Val, count: Val) -> None:
    """The heap of the first elements, then all others against its root, then the heap in order."""
    f, type = rows.f, size.type
    zero, one = const(type, 0), const(type, 1)

    def sifted(position: Val, length: Val) -> None:
        fixed = (rows.heap, rows.heap_step, rows.row, rows.row_step)
        f.call("void", sift, *fixed, position, length)

    with f.loop(zero, count) as loop:
        rows.put(loop.index, loop.index)
    half = f.op("lshr", count, one)
    with f.loop(zero, half) as loop:
        sifted(f.op("sub", f.op("sub", half, one), loop.index), count)
    with f.loop(count, size) as loop, f.when(rows.follows(rows.item(zero), loop.index)):
        rows.put(zero, loop.index)
        sifted(zero, count)
    last = f.op("sub", count, one)
    with f.loop(zero, last) as loop:
        end = f.op("sub", last, loop.index)
        item, top = rows.item(end), rows.item(zero)
        rows.put(end, top)
        rows.put(zero, item)
        sifted(zero, end)


def _sift(caller: Function, op: ops.ArgSort, dtype: DType, type: str) -> str:
    """`void(heap, heap_step, row, row_step, position, length)`: bring an item down to its place.

    As long as an item follows neither of its two children, the later one of them moves up.
    """
    args = [("ptr", "heap"), (type, "heap_step"), ("ptr", "row"), (type, "row_step")]
    args += [(type, "position"), (type, "length")]
    f = Function(caller.module, f"{caller.name}_sift", args, attributes=caller.attributes)
    *fixed, position, length = f.args
    rows = _Rows(f, op, dtype, *fixed)
    one, last = const(type, 1), f.op("sub", length, const(type, 1))

    def within(place: Val) -> Val:
        return f.select(f.icmp("slt", place, last), place, last)

    item = rows.item(position)
    with f.repeat(position) as loop:
        (hole,) = loop.carried
        left = f.op("add", f.op("shl", hole, one), one)
        a, b = within(left), within(f.op("add", left, one))
        child = f.select(rows.follows(rows.item(b), rows.item(a)), b, a)
        moved = rows.item(child)
        inside = f.icmp("slt", left, length)
        loop.go_on(f, f.op("and", inside, rows.follows(moved, item)))
        rows.put(hole, moved)
        loop.yield_(child)
    rows.put(loop.results[0], item)
    return f.finish()
