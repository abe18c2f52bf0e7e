"""Give every value that is kept in memory its place: an order of axes, and bytes in the arena."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from tbc import ops
from tbc.dims import Dim, Expr, Symbol, is_polynomial, symbols_of, upper
from tbc.indices import operands, reduced_index
from tbc.ir import Graph, Value
from tbc.passes.fuse import fuse
from tbc.passes.share import share
from tbc.program import (
    Buffer,
    Program,
    Rounds,
    Step,
    by_stride,
    inside,
    loop_index,
    loop_order,
    reshapes,
    root_index,
    strides,
    unreshaped,
)
from tbc.tiles import Panels, dense_tile

if TYPE_CHECKING:
    from tbc.target import Target

T = TypeVar("T")


@dataclass(frozen=True)
class _Block:
    """Bytes of the arena that hold something from one step to another; `number` breaks ties."""

    size: int
    born: int
    dies: int
    number: int


def plan(
    graph: Graph,
    steps: tuple[Step, ...],
    target: Target,
    symbols: tuple[Symbol, ...] | None = None,
) -> Program:
    """The program of a graph's steps.

    `symbols` are those that have values when it runs; by default those of the inputs. Arena offsets
    are first fit, largest buffer first, among buffers that live at the same time.
    """
    symbols = graph.symbols() if symbols is None else symbols
    bodies = {s: _body(s, s.loop, target, symbols) for s in steps if s.loop is not None}
    buffers: dict[Value, Buffer] = {}
    for number, value in enumerate(graph.inputs):
        buffers[value] = _buffer(value, "input", number)
    computed = {r: None for s in steps if s.copy_to is None for r in s.results}
    for number, (_, value) in enumerate(graph.outputs):
        if value in computed and value not in buffers:
            buffers[value] = _buffer(value, "output", number)
    orders = _orders(steps, buffers)
    in_arena = [r for r in computed if r not in buffers]
    blocks = _blocks(steps, in_arena, graph, target.alignment)
    for number, step in enumerate(steps):
        if step in bodies:
            size = bodies[step].arena_size + 2 * sum(_state_sizes(step, target.alignment))
            blocks[step] = _Block(size, number, number, step.root.number)
    offsets, arena_size = _arena(blocks)
    for found, offset in offsets.items():
        if isinstance(found, Value):
            buffers[found] = Buffer(found, "arena", 0, offset, orders[found])
    filters = _filter_orders(steps, orders)
    panels = _panels(steps, target)
    weights_size = 0
    planned = []
    for step in steps:
        for value in step.reads:
            if value not in buffers:
                order = filters.get(value, tuple(range(value.type.rank)))
                layout = panels.get(value)
                if layout is not None:
                    order = tuple(range(value.type.rank))
                buffers[value] = Buffer(value, "weights", 0, weights_size, order, layout)
                elements = layout.elements(value.type.shape) if layout else upper(value.type.size)
                weights_size += aligned(elements * value.type.dtype.bytes, target.alignment)
        if (body := bodies.get(step)) is not None:
            states = _states(step, body.arena_size, target.alignment)
            rounds = Rounds(body, offsets[step], states, weights_size)
            weights_size += body.weights_size
            step = replace(step, rounds=rounds)
        planned.append(step)
    return Program(
        name=graph.name,
        inputs=graph.inputs,
        outputs=graph.outputs,
        checks=graph.checks,
        symbols=symbols,
        steps=tuple(planned),
        buffers=buffers,
        arena_size=arena_size,
        weights_size=weights_size,
        alignment=target.alignment,
    )


# -- loops ----------------------------------------------------------------------------------------


def _body(step: Step, op: ops.Repeat, target: Target, symbols: tuple[Symbol, ...]) -> Program:
    """The program of a loop's body: the next states, and the rows and checks that are stored."""
    wanted = {r.op.which for r in step.results if isinstance(r.op, ops.Repeat)}
    outputs = tuple(o for i, o in enumerate(op.body.outputs) if i < op.states or i in wanted)
    checks = op.body.checks if len(op.body.outputs) in wanted else ()
    body = replace(op.body, outputs=outputs, checks=checks)
    inner = symbols if op.index is None else (*symbols, op.index)
    return plan(body, share(fuse(body)), target, inner)


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


def _panels(steps: tuple[Step, ...], target: Target) -> dict[Value, Panels]:
    """The constants that nothing but products reads, as their right operands, by their layout."""
    wanted: dict[Value, set[Panels | None]] = {}
    for step in steps:
        right = _right_operand(step)
        for value in step.reads:
            layouts = wanted.setdefault(value, set())
            if value is right and value.is_constant:
                (a, _), (m, n) = step.anchor.args, step.anchor.type.shape[-2:]
                tile = dense_tile(target, a.type.dtype, m, n)
                layouts.add(Panels(tile.width, tile.lanes))
            else:
                layouts.add(None)
    agreed = (
        (value, next(iter(layouts))) for value, layouts in wanted.items() if len(layouts) == 1
    )
    return {value: layout for value, layout in agreed if layout is not None}


def _right_operand(step: Step) -> Value | None:
    """What a step reads only as the right operand of its product, if anything."""
    if not isinstance(step.anchor.op, ops.MatMul):
        return None
    right, user = step.anchor.args[1], step.anchor
    if isinstance(right.op, ops.Cast) and right not in step.reads:
        right, user = right.args[0], right
    once = [v for v in inside(step) for arg in v.args if arg is right] == [user]
    return right if once else None


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


def _blocks(
    steps: tuple[Step, ...], values: list[Value], graph: Graph, alignment: int
) -> dict[Value | Step, _Block]:
    """What the arena holds of the values."""
    born = {r: i for i, s in enumerate(steps) for r in s.results}
    dies = dict(born)
    for i, step in enumerate(steps):
        for value in step.reads:
            dies[value] = i
    for check in graph.checks:
        dies[check] = len(steps)
    return {v: _Block(_size(v, alignment), born[v], dies[v], v.number) for v in values}


def _arena(blocks: Mapping[T, _Block]) -> tuple[dict[T, int], int]:
    """Offsets in the arena, and its size."""
    placed: list[tuple[int, _Block]] = []
    offsets: dict[T, int] = {}
    for key, block in sorted(blocks.items(), key=lambda b: (-b[1].size, b[1].number)):
        offset = 0
        alive = [p for p in placed if p[1].born <= block.dies and block.born <= p[1].dies]
        for start, other in sorted(alive, key=lambda p: p[0]):
            if offset + block.size <= start:
                break
            offset = max(offset, start + other.size)
        offsets[key] = offset
        placed.append((offset, block))
    return offsets, max((start + block.size for start, block in placed), default=0)
