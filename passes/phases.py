"""Put steps that need not wait for each other into one phase, and say how its parts share them.

All parts meet behind a phase, which costs about as long as a small step takes. So a step joins the
phase of the steps that it reads from where every part reads only what it has written itself:

- what one part does alone may be followed by more that the same part does alone: small steps;
- steps divided by the same rows, each of which reads rows at their own place: a row's chain of
  norm, quantiser and product;
- two products that are divided alike, the second of which reads the first where it writes: a gate.

A step that depends on nothing in a phase joins it too: the projections of attention. It may come
before steps that were in front of it, but not much: what it computes lives longer then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import TYPE_CHECKING

from tbc import ops
from tbc.dims import Dim, Expr, Symbol, bounds, upper
from tbc.indices import Index, broadcast_index, reduced_index, touched
from tbc.ir import Value
from tbc.passes.fuse import ANCHORS
from tbc.pieces import pieces
from tbc.program import Alone, ByRows, Step, inside, loop_index, root_index, row_axis
from tbc.tiles import LONG, dense_tile, most_rows

if TYPE_CHECKING:
    from tbc.target import Target

SMALL = 1 << 15
"""Scalar operations up to which one part does a step: about a microsecond. Two parts meet in a
quarter of that, and would have to meet before and after it."""
MANY_ROWS = 64
"""From this many rows on, the parts of a phase divide the rows of a product, not its weights."""
FEW_ROWS = 16
"""From this many rows on, they divide the rows of a chain without a product."""
BACK = 8
"""Phases by which a step may come before its place in the order of steps."""
LARGE = 1 << 17
"""Bytes of results up to which steps share a phase: they cannot share memory there, and beside
steps that store more it costs next to nothing to meet."""

LINE = 64


def merged(
    steps: tuple[Step, ...], target: Target, checks: tuple[Value, ...] = ()
) -> tuple[tuple[Step, ...], ...]:
    """The steps in phases, each told how it is divided; in an order in which they can run.

    States are overwritten when nobody reads them any more, and the `checks` have been computed. On
    targets without threads a step is a phase: that takes the least memory.
    """
    if not target.has_threads:
        return tuple((step,) for step in steps)
    merger = _Merger(target, checks)
    for step in steps:
        merger.add(step)
    return tuple(tuple(map(partial(_settled, phase), phase)) for phase in merger.phases)


def last_use(
    phases: Sequence[Sequence[Step]], old: Value, checks: tuple[Value, ...], but: Step | None = None
) -> int:
    """The last phase before whose end a state must not be overwritten; -1 if there is none.

    That is the last in which a step, `but` one, reads it, or a check is computed that may end the
    run.
    """
    return max(
        (
            number
            for number, phase in enumerate(phases)
            for step in phase
            if (old in step.reads and step is not but)
            or (step.copy_to is None and not set(checks).isdisjoint(step.results))
        ),
        default=-1,
    )


def _stored(step: Step) -> int:
    """Bytes of a step's results."""
    return sum(int(upper(r.type.size)) * r.type.dtype.bytes for r in step.results)


def _settled(phase: Sequence[Step], step: Step) -> Step:
    """A step of a phase, divided by rows only if it shares them with another step."""
    if not isinstance(step.division, ByRows):
        return step
    reads = {r for other in phase if other is not step for r in other.reads}
    stored = {r for other in phase for r in other.results}
    is_linked = not (reads.isdisjoint(step.results) and stored.isdisjoint(step.reads))
    return step if is_linked else replace(step, division=None)


class _Merger:
    def __init__(self, target: Target, checks: tuple[Value, ...]):
        self.target, self.checks = target, checks
        self.phases: list[list[Step]] = []
        self.made: dict[Value, tuple[int, Step]] = {}
        """By value, the phase and the step that stores it."""

    def add(self, step: Step) -> None:
        found = [self.made[r] for r in step.reads if r in self.made]
        last = len(self.phases) - 1
        first = max((phase for phase, _ in found), default=last)
        if isinstance(step.copy_to, Value):
            first = max(first, 1 + last_use(self.phases, step.copy_to, self.checks))
        for number in range(max(first, last - BACK, 0), last + 2):
            before = list(dict.fromkeys(s for phase, s in found if phase == number))
            if self._has_room(number, step) and (divided := self._divided(step, number, before)):
                self._put(number, divided)
                return

    def _has_room(self, number: int, step: Step) -> bool:
        """Whether a phase can store the results of a step too; a new one can."""
        if number == len(self.phases):
            return True
        return _stored(step) + sum(map(_stored, self.phases[number])) <= LARGE

    def _put(self, number: int, step: Step) -> None:
        if number == len(self.phases):
            self.phases.append([])
        self.phases[number].append(step)
        if step.copy_to is None:
            self.made |= dict.fromkeys(step.results, (number, step))

    def _divided(self, step: Step, number: int, before: list[Step]) -> Step | None:
        """The step as a phase takes it that has the steps `before` it; None if it cannot."""
        if step.loop is not None:
            return None if before else replace(step, division=self._another(number))
        shape = _Shape(step, self.target)
        if work(step) <= SMALL:
            owners = {s.division for s in before} or {Alone(0)}
            if len(owners) == 1 and isinstance(owner := owners.pop(), Alone):
                return replace(step, division=owner)
        for rows in shape.rows():
            if all(shape.keeps_rows(rows, s) for s in before):
                return replace(step, division=rows)
        if all(shape.keeps_places(s, self.target) for s in before):
            return step
        return None

    def _another(self, number: int) -> Alone:
        """A part that does nothing alone in a phase yet; the first is for small steps."""
        steps = self.phases[number] if number < len(self.phases) else ()
        taken = (s.division.part for s in steps if isinstance(s.division, Alone))
        return Alone(1 + max(taken, default=0))


@dataclass(frozen=True)
class _Shape:
    """What a step computes where."""

    step: Step
    target: Target

    def nests(self) -> Iterator[tuple[Index, Index, list[tuple[Value, Index]]]]:
        """For each nest of loops: its index, where in the root that goes, and what is touched."""
        step, anchor = self.step, self.step.anchor
        if step.copy_to is not None or not isinstance(anchor.op, ANCHORS):
            for domain, moved, source in pieces(step):
                loops = loop_index(domain)
                yield loops, moved(loops), list(touched(step.reads, *source(loops)))
            return
        loops = loop_index(anchor.type.shape)
        place = root_index(step, loops)
        found = list(touched(step.reads, step.root, place, anchor))
        for arg, index in _operands(anchor, loops):
            found += touched(step.reads, arg, index)
        yield loops, place, found

    def rows(self) -> Iterator[ByRows]:
        """How the step can be divided by rows."""
        root = self.step.root
        if isinstance(root.op, (*ops.SCATTERS, ops.ArgSort)) or self.step.copy_to is not None:
            return
        if isinstance(self.step.anchor.op, ops.Cumulate):
            return
        multiple = most_rows(self.target)
        least = FEW_ROWS if _tiling(self.step, self.target) is None else MANY_ROWS
        for axis, size in enumerate(root.type.shape):
            behind = prod(int(upper(d)) for d in root.type.shape[axis + 1 :])
            is_even = behind > 1 and behind * multiple * root.type.dtype.bytes >= LINE
            if bounds(size)[0] < least or not (is_even or self._is_long()):
                continue
            if all(self._can_divide(axis, loops, place) for loops, place, _ in self.nests()):
                yield ByRows(axis, multiple)

    def _is_long(self) -> bool:
        """Whether an element is a reduction along memory, so that lanes are not elements."""
        op = self.step.anchor.op
        return isinstance(op, ops.Reduce) and self.step.anchor.args[0].type.rank - 1 in op.axes

    def _can_divide(self, axis: int, loops: Index, place: Index) -> bool:
        """Whether one of the loops, and one that the code of the step can divide, is the axis."""
        found = row_axis(axis, loops, place)
        match self.step.anchor.op:
            case ops.PackedDot() | ops.PackedGroupedDot() | ops.CodedDot():
                return found == 0
            case ops.MatMul():
                return found == len(loops) - 2
            case _:
                return found is not None

    def keeps_rows(self, rows: ByRows, before: Step) -> bool:
        """Whether a part touches of what another step stores only the rows that it stores there."""
        given = before.division
        if not isinstance(given, ByRows) or given.multiple != rows.multiple:
            return False
        if before.root.type.shape[given.axis] != self.step.root.type.shape[rows.axis]:
            return False
        if before.root in self._conditions():
            return False
        for loops, place, found in self.nests():
            axis = row_axis(rows.axis, loops, place)
            for value, index in found:
                if value not in self.step.reads and isinstance(value.op, ops.GatherND):
                    return False
                if value is before.root and (axis is None or index[given.axis] != loops[axis]):
                    return False
        return True

    def _conditions(self) -> set[Value]:
        return {condition for condition, _ in self.step.guards}

    def keeps_places(self, before: Step, target: Target) -> bool:
        """Whether both steps are products that parts divide alike, and one reads the other so."""
        alike = _tiling(self.step, target)
        if alike is None or before.division is not None or alike != _tiling(before, target):
            return False
        ((_, _, found),) = self.nests()
        place = root_index(before, loop_index(before.anchor.type.shape))
        own = [index for value, index in found if value is before.root]
        return bool(own) and all(i == place for i in own) and not self._conditions()


def _operands(anchor: Value, loops: Index) -> Iterator[tuple[Value, Index]]:
    """The arguments of a contraction, and which elements of them one of its elements needs."""
    match anchor.op:
        case ops.Reduce(axes=axes):
            (x,) = anchor.args
            inner = tuple(_along(f"inner{a}", x.type.shape[a]) for a in axes)
            yield x, reduced_index(anchor, loops, inner)
        case ops.Cumulate(axis=axis):
            (x,) = anchor.args
            position = _along("inner", x.type.shape[axis])
            yield x, (*loops[:axis], position, *loops[axis + 1 :])
        case ops.MatMul():
            a, b = anchor.args
            *batch, m, n = loops
            k = _along("inner", a.type.shape[-1])
            yield a, broadcast_index(a, (*batch, m, k))
            yield b, broadcast_index(b, (*batch, k, n))
        case _:
            for arg in anchor.args:
                columns = (_along(f"inner{i}", d) for i, d in enumerate(arg.type.shape[1:]))
                if not arg.is_constant:
                    yield arg, (loops[0], *columns)


def _along(name: str, size: Dim) -> Dim:
    """An index along an axis."""
    return 0 if size == 1 else Expr.of(Symbol(name, 0, None, size))


def _tiling(step: Step, target: Target) -> object:
    """What is equal for products whose parts get the same rows and columns; None of others."""
    op, shape = step.anchor.op, step.anchor.type.shape
    match op:
        case _ if step.copy_to is not None:
            return None
        case ops.PackedDot() | ops.PackedGroupedDot():
            return op.kernels, op.starts, op.layout.rows, shape
        case ops.MatMul():
            *_, m, n = shape
            return dense_tile(target, step.anchor.args[0].type.dtype, m, n), shape
        case _:
            return None


def work(step: Step) -> int:
    """Scalar operations of a step, about, at its largest sizes."""
    return max(sum(map(operations, inside(step))), int(upper(step.root.type.size)))


def operations(value: Value) -> int:
    """Scalar operations that compute a value of its arguments, about, at its largest size."""
    size = int(upper(value.type.size))
    match value.op:
        case ops.Reduce() | ops.Cumulate():
            return int(upper(value.args[0].type.size))
        case ops.MatMul():
            return 2 * size * int(upper(value.args[0].type.shape[-1]))
        case ops.PackedDot(k=k) | ops.PackedGroupedDot(k=k) | ops.CodedDot(k=k):
            return size * k // 4
        case ops.Unary(fn=fn) if fn in LONG:
            return 16 * size
        case ops.ArgSort():
            return 16 * int(upper(value.args[0].type.size))
        case op if isinstance(op, (*ops.ELEMENTWISE, *ops.GATHERS, *ops.SCATTERS)):
            return size
        case _:
            return 0
