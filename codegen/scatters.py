"""Scatters: a copy of the data, unless the result lies there, then one update after the other.

A part owns a range of the outermost axis that is longer than 1: it copies that range, and applies
the updates that fall into it. So no two parts write the same element, and the updates of one
element keep their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tbc import ops
from tbc.codegen.elements import emit_binary
from tbc.codegen.expressions import Emitter, Memory
from tbc.codegen.llvm_text import Val, const, lanes_of
from tbc.codegen.loops import Share, accesses, nest
from tbc.dims import Dim, Expr, Symbol
from tbc.indices import Index
from tbc.ir import Value
from tbc.program import Step


def emit_scatter(e: Emitter, step: Step, out: Memory, share: Share, lanes: int) -> None:
    """A step whose root is a ScatterElements or a ScatterND."""
    scatter = _Scatter(e, step.root, out, share, lanes)
    if (data := e.memory.get(scatter.x)) is None:
        scatter.copy()
    else:  # an output may share memory with the input that it is made of (`program.in_place`)
        with e.f.when(e.f.icmp("ne", out.pointer, data.pointer)), e.scope():
            scatter.copy()
    some = e.f.icmp("sgt", e.index(step.root.type.size), const(e.index_type, 0))
    with e.f.when(some), e.scope():  # into an empty axis no index can be clamped
        if isinstance(step.root.op, ops.ScatterND):
            scatter.slices(())
        else:
            scatter.elements(())


class _Scatter:
    def __init__(self, e: Emitter, root: Value, out: Memory, share: Share, lanes: int):
        self.e, self.f, self.root, self.out, self.lanes = e, e.f, root, out, lanes
        self.x, self.indices, self.updates = root.args
        self.reduction = getattr(root.op, "reduction", "none")
        self.shape = root.type.shape
        long = [a for a in out.order if self.shape[a] != 1]
        self.owned = (long or out.order)[0]
        """The axis of which every part owns a range."""
        size = self.shape[self.owned]
        self.low, self.high = share.of(e, size)
        self.count = self.f.op("sub", self.high, self.low)
        self.first = Symbol(self.f.fresh("first"), 0, None, size)
        self.range = Symbol(self.f.fresh("range"), 0, None, size + 1)
        e.bind_symbol(self.first.name, self.low)
        e.bind_symbol(self.range.name, self.count)

    def copy(self) -> None:
        """The elements of x in the part's range."""

        def visit(index: Index) -> None:
            self.e.store(self.out, self.root, index, self.e.element(self.x, index))

        def probe(index: Index) -> Iterator[Dim | None]:
            yield self.out.address(self.root, index)
            yield from accesses(self.e, self.x, index)

        self._each(self.out.order, (), visit, probe)

    def elements(self, index: Index) -> None:
        """The updates of single elements whose index begins so."""
        op, e = self.root.op, self.e
        assert isinstance(op, ops.ScatterElements)
        axis = len(index)
        if axis < len(self.shape):
            owned = axis == self.owned and axis != op.axis
            with self._loop(self.updates.type.shape[axis], owned) as i:
                self.elements((*index, i))
            return
        at = e.runtime_index(e.element(self.indices, index), self.shape[op.axis])
        place = (*index[: op.axis], at, *index[op.axis + 1 :])
        with self._own(place):
            self._update(place, index)

    def slices(self, index: Index) -> None:
        """The updates of the slices at the points whose index begins so."""
        leading = self.indices.type.shape[:-1]
        if len(index) < len(leading):
            with self._loop(leading[len(index)], False) as i:
                self.slices((*index, i))
            return
        point = self.e.point(self.indices, index, self.shape)

        def visit(place: Index) -> None:
            self._update(place, (*index, *place[len(point) :]))

        def probe(place: Index) -> Iterator[Dim | None]:
            yield self.out.address(self.root, place)
            yield from accesses(self.e, self.updates, (*index, *place[len(point) :]))

        with self._own(point):
            axes = tuple(a for a in self.out.order if a >= len(point))
            self._each(axes, point, visit, probe)

    def _update(self, place: Index, index: Index) -> None:
        """One update, or one for each lane."""
        e, new = self.e, self.e.element(self.updates, index)
        if self.reduction != "none":
            old = e.load(self.out, self.root, place)
            new = self.f.splat(new, lanes_of(old.type)) if lanes_of(new.type) == 1 else new
            new = emit_binary(self.f, self.reduction, self.root.type.dtype, old, new)
        e.store(self.out, self.root, place, new)

    # -- ranges ---------------------------------------------------------------------------------

    @contextmanager
    def _loop(self, size: Dim, owned: bool) -> Iterator[Dim]:
        """A loop over an axis, or over what the part owns of it."""
        low, high = const(self.e.index_type, 0), self.e.index(size)
        if owned:
            low, high = self.low, self._lesser(self.high, high)
        i = Symbol(self.f.fresh("u"), 0, None, size)
        with self.f.loop(low, high) as loop, self.e.scope(**{i.name: loop.index}):
            yield Expr.of(i)

    def _lesser(self, a: Val, b: Val) -> Val:
        return self.f.select(self.f.icmp("slt", a, b), a, b)

    @contextmanager
    def _own(self, place: Index) -> Iterator[None]:
        """Code that runs only where the part owns a place; all of it where an axis is not given."""
        if self.owned >= len(place):
            yield
            return
        distance = self.f.op("sub", self.e.index(place[self.owned]), self.low)
        with self.f.when(self.f.icmp("ult", distance, self.count)), self.e.scope():
            yield

    def _each(
        self,
        axes: tuple[int, ...],
        leading: Index,
        visit: Callable[[Index], None],
        probe: Callable[[Index], Iterator[Dim | None]],
    ) -> None:
        """Visit what the part owns behind the leading indices; `axes` from the outermost one."""

        def placed(index: Index) -> Index:
            result: list[Dim] = [*leading, *(0 for _ in axes)]
            for axis, i in zip(axes, index, strict=True):
                result[axis] = i + Expr.of(self.first) if axis == self.owned else i
            return tuple(result)

        domain = tuple(Expr.of(self.range) if a == self.owned else self.shape[a] for a in axes)
        nest(
            self.e,
            domain,
            Share.whole(self.e),
            lambda index: probe(placed(index)),
            lambda index: visit(placed(index)),
            self.lanes,
        )
