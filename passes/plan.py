"""Give every value that is kept in memory its place: an order of axes, and bytes in the arena."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from tbc import ops
from tbc.dims import Dim, Expr, Symbol, is_polynomial, symbols_of, upper
from tbc.indices import Index, operands, reduced_index
from tbc.ir import Graph, Value
from tbc.passes.fuse import fuse
from tbc.passes.phases import merged
from tbc.passes.scratch import accesses, regions
from tbc.passes.share import share
from tbc.passes.states import behind_readers, without_copies
from tbc.program import (
    Alone,
    Block,
    Buffer,
    Program,
    Rounds,
    Step,
    by_stride,
    inside,
    loop_index,
    loop_order,
    product_tile,
    reshapes,
    root_index,
    state_places,
    strides,
    unreshaped,
)
from tbc.tiles import Panels, fields_of

if TYPE_CHECKING:
    from tbc.target import Target

T = TypeVar("T")


@dataclass
class Image:
    """Where constants lie, those of loops aside, that several programs may share.

    Attributes:
        places: of buffers with an offset of 0, the offset.
        size: in bytes, of all of it.
    """

    places: dict[Buffer, int] = field(default_factory=dict)
    size: int = 0

    def placed(self, buffer: Buffer, alignment: int) -> Buffer:
        """A constant's buffer where the same one lies already, or behind all others."""
        if buffer not in self.places:
            self.places[buffer] = self.size
            self.size += aligned(buffer.bytes, alignment)
        return replace(buffer, offset=self.places[buffer])


def plan(
    graph: Graph,
    steps: tuple[Step, ...],
    target: Target,
    symbols: tuple[Symbol, ...] | None = None,
    merge: bool = True,
    image: Image | None = None,
) -> Program:
    """The program of a graph's steps, in phases of several of them if `merge` is given.

    `symbols` are those that have values when it runs; by default those of the inputs. Constants go
    where an `image` has them, or are added to it.
    """
    image = image or Image()
    symbols = graph.symbols() if symbols is None else symbols
    steps = behind_readers(graph, steps)
    phases = merged(steps, target, graph.checks) if merge else tuple((step,) for step in steps)
    phases, overwritten = without_copies(graph, phases, target.has_threads)
    steps = tuple(step for phase in phases for step in phase)
    bodies = {s: _body(s, s.loop, target, symbols) for s in steps if s.loop is not None}
    buffers: dict[Value, Buffer] = {}
    for number, value in enumerate(graph.inputs):
        buffers[value] = _buffer(value, "input", number)
    kept, state_size = state_places((s.old for s in graph.states), target.alignment)
    buffers |= {old: _buffer(old, "state", 0, offset) for old, offset in kept.items()}
    for value, old in overwritten.items():
        buffers[value] = replace(buffers[old], value=value)
    computed = {r: None for s in steps if s.copy_to is None for r in s.results}
    for number, (_, value) in enumerate(graph.outputs):
        if value in computed and value not in buffers:
            buffers[value] = _buffer(value, "output", number)
    orders = _orders(steps, buffers)
    times = _times(phases)
    blocks = _blocks(times, [r for r in computed if r not in buffers], graph, target.alignment)
    for step, body in bodies.items():
        size = body.arena_size + 2 * sum(_state_sizes(step, target.alignment))
        blocks[step] = Block(size, *times[step], step.root.number, step.root.origin)
    fast, slow = regions(blocks, accesses(steps, bodies), target.fast_ram)
    places = {key: ("fast", offset) for key, offset in fast.offsets.items()}
    places |= {key: ("arena", offset) for key, offset in slow.offsets.items()}
    for key, (place, offset) in places.items():
        if isinstance(key, Value):
            buffers[key] = Buffer(key, place, 0, offset, orders[key])
    filters = _filter_orders(steps, orders)
    panels = _panels(steps, target)
    planned = {}
    for step in steps:
        for value in step.reads:
            if value not in buffers:
                plain = filters.get(value, tuple(range(value.type.rank)))
                order, layout = panels.get(value, (plain, None))
                buffer = Buffer(value, "weights", 0, 0, order, layout)
                buffers[value] = image.placed(buffer, target.alignment)
        planned[step] = step
        if step in bodies:
            body = bodies[step]
            states = _states(step, body.arena_size, target.alignment)
            rounds = Rounds(body, *places[step], states, image.size)
            image.size += body.weights_size
            planned[step] = replace(step, rounds=rounds)
    return Program(
        name=graph.name,
        inputs=graph.inputs,
        outputs=graph.outputs,
        checks=graph.checks,
        symbols=symbols,
        phases=tuple(tuple(planned[step] for step in phase) for phase in phases),
        buffers=buffers,
        blocks=tuple(blocks[key] for key in slow.offsets),
        arena_size=slow.size,
        weights_size=image.size,
        alignment=target.alignment,
        states=graph.states,
        state_size=state_size,
        fast_blocks=tuple(blocks[key] for key in fast.offsets),
        fast_size=fast.size,
    )


# -- loops ----------------------------------------------------------------------------------------


def _body(step: Step, op: ops.Repeat, target: Target, symbols: tuple[Symbol, ...]) -> Program:
    """The program of a loop's body: the next states, and the rows and checks that are stored."""
    wanted = {r.op.which for r in step.results if isinstance(r.op, ops.Repeat)}
    outputs = tuple(o for i, o in enumerate(op.body.outputs) if i < op.states or i in wanted)
    checks = op.body.checks if len(op.body.outputs) in wanted else ()
    body = replace(op.body, outputs=outputs, checks=checks)
    inner = symbols if op.index is None else (*symbols, op.index)
    return plan(body, share(fuse(body)), replace(target, fast_ram=0), inner, merge=False)


def _state_sizes(step: Step, alignment: int) -> list[int]:
    assert step.loop is not None
    return [_size(a, alignment) for a in step.root.args[: step.loop.states]]


def _states(step: Step, start: int, alignment: int) -> tuple[tuple[int, int], ...]:
    """Where two buffers for each state lie, one behind the other."""
    places = []
    for size in _state_sizes(step, alignment):
        places.append((start, start + size))
        start += 2 * size
    return tuple(places)


# -- memory ---------------------------------------------------------------------------------------


def _size(value: Value, alignment: int) -> int:
    """The bytes to set aside for a value."""
    return aligned(upper(value.type.size) * value.type.dtype.bytes, alignment)


def aligned(size: int, alignment: int) -> int:
    """A size rounded up to a multiple of the alignment."""
    return -(-size // alignment) * alignment


def _buffer(value: Value, place: str, index: int, offset: int = 0) -> Buffer:
    return Buffer(value, place, index, offset, tuple(range(value.type.rank)))


def _orders(steps: tuple[Step, ...], fixed: dict[Value, Buffer]) -> dict[Value, tuple[int, ...]]:
    """For each root in the arena, the order of axes that its step writes most evenly."""
    rows = _row_major(steps)
    orders: dict[Value, tuple[int, ...]] = {}
    for step in steps:
        root = step.root
        order = tuple(range(root.type.rank))
        if step.loop is not None:
            orders |= {r: tuple(range(r.type.rank)) for r in step.results}
            continue
        if root not in fixed and root not in rows and step.copy_to is None:
            if isinstance(step.anchor.op, ops.MatMul) or _is_packed(step.anchor):
                order = _columns_last(step)
            elif step.anchor is root or isinstance(step.anchor.op, ops.Reduce | ops.Cumulate):
                ranked = (r for r in step.reads if r in orders)
                alike = list(_like_reads(step, orders)) or [
                    orders[r] for r in ranked if r.type.rank == root.type.rank
                ]
                order = max(alike, key=alike.count, default=order)
        orders[root] = order
    return orders


def _like_reads(step: Step, orders: dict[Value, tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
    """Orders in which a root is written as most of it is read, where its step reads evenly."""
    root = step.root
    loops = loop_index(root.type.shape)
    todo, seen = [(root, loops)] if step.anchor is root else [], set()
    while todo:
        value, index = todo.pop()
        if value not in step.reads:
            todo += [entry for entry in operands(value, index) if entry not in seen]
            seen.update(todo)
        elif value in orders and 2 * upper(value.type.size) >= upper(root.type.size):
            places = zip(index, strides(value.type.shape, orders[value]), strict=True)
            position = sum((i * s for i, s in places), start=0)
            if is_polynomial(position):
                yield by_stride(loops, position)


def _row_major(steps: tuple[Step, ...]) -> set[Value]:
    """What kernels and the bodies of loops read as it is written in ONNX."""
    packed = (s.anchor.args[0] for s in steps if _is_packed(s.anchor))
    given = (a for s in steps if s.loop is not None for a in s.root.args)
    return {*map(unreshaped, packed), *(v for a in given for v in reshapes(a))}


def _filter_orders(
    steps: tuple[Step, ...], orders: dict[Value, tuple[int, ...]]
) -> dict[Value, tuple[int, ...]]:
    """For constants read by reductions, an order that puts the innermost axis of the result last.

    So the filters of a depthwise convolution lie channel by channel where its results do.
    """
    rows = _row_major(steps)
    found: dict[Value, tuple[int, ...]] = {}
    for step in steps:
        anchor = step.anchor
        if not isinstance(anchor.op, ops.Reduce) or not anchor.type.rank:
            continue
        axis = loop_order(step, orders[step.root])[-1]
        lane = Symbol("lane", 0, None, anchor.type.shape[axis])
        index: list[Dim] = [_along(f"axis{a}", d) for a, d in enumerate(anchor.type.shape)]
        index[axis] = Expr.of(lane)
        (x,) = anchor.args
        inner = tuple(_along(f"inner{a}", x.type.shape[a]) for a in anchor.op.axes)
        todo = [(x, reduced_index(anchor, tuple(index), inner))]
        while todo:
            value, at = todo.pop()
            if value not in step.reads:
                todo += operands(value, at)
            elif value.is_constant and value not in (found.keys() | rows) and Expr.of(lane) in at:
                axes = list(range(value.type.rank))
                axes.append(axes.pop(at.index(Expr.of(lane))))
                found[value] = tuple(axes)
    return found


def _panels(steps: tuple[Step, ...], target: Target) -> dict[Value, tuple[tuple[int, ...], Panels]]:
    """The order of axes and the panels of the constants that products read in lanes.

    A product's right operand has panels all of it or not at all, and only where whoever else reads
    them wants the same; gathers, which read few elements, take what there is.
    """
    wanted: dict[Value, set[tuple[tuple[int, ...], Panels] | None]] = {}
    together: list[set[Value]] = []
    for step in steps:
        panels = _own_panels(step, target)
        together.append(set(panels))
        for value in set(step.reads) - _gathered(step):
            wanted.setdefault(value, set()).add(panels.get(value))
    found = {value: next(iter(layouts)) for value, layouts in wanted.items() if len(layouts) == 1}
    agreed = {value: layout for value, layout in found.items() if layout is not None}
    while refused := [v for group in together if not group <= agreed.keys() for v in group]:
        if not any(v in agreed for v in refused):
            break
        for value in refused:
            agreed.pop(value, None)
    return agreed


def _own_panels(step: Step, target: Target) -> dict[Value, tuple[tuple[int, ...], Panels]]:
    """The panels that a step's product would have the constants of its right operand in."""
    if not isinstance(step.anchor.op, ops.MatMul) or step.copy_to is not None:
        return {}
    b, n = step.anchor.args[1], step.anchor.type.shape[-1]
    tile = product_tile(step, target)
    column = Symbol("column", 0, None, n)
    users = [arg for v in inside(step) for arg in dict.fromkeys(v.args)]
    index = tuple(_along(f"axis{i}", d) for i, d in enumerate(b.type.shape[:-1]))
    todo: list[tuple[Value, Index]] = [(b, (*index, Expr.of(column) if n != 1 else 0))]
    found = {}
    for value, at in todo:
        if value not in step.reads:
            todo += (entry for entry in operands(value, at) if entry not in todo)
            continue
        moving = [axis for axis, i in enumerate(at) if column in symbols_of(i)]
        if not moving:
            continue
        if not value.is_constant or users.count(value) != 1 or len(moving) != 1:
            return {}
        if at[moving[0]] != Expr.of(column) or value.type.shape[moving[0]] != n:
            return {}
        axes = [axis for axis in range(value.type.rank) if axis != moving[0]]
        panels = Panels(tile.width, tile.lanes, fields_of(value.type.dtype))
        found[value] = ((*axes, moving[0]), panels)
    return found


def _gathered(step: Step) -> set[Value]:
    """What a step reads at indices that are data, and only so."""
    direct, todo, seen = set(), [step.root], set()
    while todo:
        value = todo.pop()
        if value in seen:
            continue
        seen.add(value)
        if value in step.reads:
            direct.add(value)
        elif isinstance(value.op, ops.GATHERS):
            todo += value.args[1:]
        else:
            todo += value.args
    return set(step.reads) - direct


def _along(name: str, size: Dim) -> Dim:
    """An index along an axis."""
    return 0 if size == 1 else Expr.of(Symbol(name, 0, None, size))


def _is_packed(anchor: Value) -> bool:
    return isinstance(anchor.op, ops.PackedDot | ops.PackedGroupedDot)


def _columns_last(step: Step) -> tuple[int, ...]:
    """The axes of the root with that one last along which the columns of a product run."""
    shape = step.anchor.type.shape
    column = Symbol("column", 0, None, shape[-1])
    index = tuple(_along(f"axis{a}", d) for a, d in enumerate(shape[:-1]))
    place = root_index(step, (*index, Expr.of(column) if shape[-1] != 1 else 0))
    moving = [a for a, i in enumerate(place) if any(s == column for s in symbols_of(i))]
    axes = list(range(step.root.type.rank))
    if len(moving) == 1 and place[moving[0]] == Expr.of(column):
        axes.remove(moving[0])
        axes.append(moving[0])
    return tuple(axes)


def _times(phases: tuple[tuple[Step, ...], ...]) -> dict[Step, tuple[int, int]]:
    """When each step runs, in order: between two numbers, while other parts are at other steps.

    All that the first part does alone in a phase is done one after the other.
    """
    times = {}
    start = 0
    for phase in phases:
        end = start + len(phase) - 1
        for number, step in enumerate(phase, start):
            times[step] = (number, number) if step.division == Alone(0) else (start, end)
        start += len(phase)
    return times


def _blocks(
    times: dict[Step, tuple[int, int]], values: list[Value], graph: Graph, alignment: int
) -> dict[Value | Step, Block]:
    """What scratch memory holds of the values."""
    born = {r: start for s, (start, _) in times.items() if s.copy_to is None for r in s.results}
    dies = {r: end for s, (_, end) in times.items() if s.copy_to is None for r in s.results}
    for step, (_, end) in times.items():
        for value in step.reads:
            dies[value] = max(end, dies.get(value, end))
    for check in graph.checks:
        dies[check] = len(times)
    return {v: Block(_size(v, alignment), born[v], dies[v], v.number, v.origin) for v in values}
