"""A program: the steps of a model in order, and where every value that is kept in memory lies."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TypeAlias

from tbc import ops
from tbc.dims import Dim, Expr, Symbol, product, symbols_of, upper
from tbc.indices import Index, reshape_index
from tbc.ir import Graph, State, Value
from tbc.target import Target
from tbc.tiles import SCALED_VECTORS, Panels, Tile, dense_tile
from tbc.types import TensorType


@dataclass(frozen=True)
class Buffer:
    """Where the elements of a value lie.

    Attributes:
        value: whose elements they are.
        place: "input", "output", "arena", "fast" (scratch memory too), "state" or "weights".
        index: number of the input or output; 0 elsewhere.
        offset: bytes from the start of that memory; 0 of inputs and outputs.
        order: the axes from the outermost to the innermost in memory.
        panels: how the last axis, of a constant, is cut into panels; None where it is not.
    """

    value: Value
    place: str
    index: int
    offset: int
    order: tuple[int, ...]
    panels: Panels | None = None

    @property
    def type(self) -> TensorType:
        """The type of the value."""
        return self.value.type

    @property
    def bytes(self) -> int:
        """Its size, at the upper bounds."""
        shape = tuple(self.type.shape[axis] for axis in self.order)
        elements = self.panels.elements(shape) if self.panels else upper(self.type.size)
        return elements * self.type.dtype.bytes

    def strides(self) -> tuple[Dim, ...]:
        """Elements between neighbours along each axis of the value."""
        return strides(self.type.shape, self.order)


def strides(shape: tuple[Dim, ...], order: tuple[int, ...]) -> tuple[Dim, ...]:
    """Elements between neighbours along each axis, for axes lying in an order, without gaps."""
    result: list[Dim] = [0] * len(shape)
    for position, axis in enumerate(order):
        result[axis] = product(tuple(shape[a] for a in order[position + 1 :]))
    return tuple(result)


@dataclass(frozen=True)
class Block:
    """Bytes of scratch memory that hold something from one time to another.

    Attributes:
        size: in bytes, aligned.
        born: the number of the step that fills it, or of the first that may run beside that one.
        dies: the number of the last step that reads it, or that may run beside that one.
        number: of the value, which breaks ties.
        origin: the model's node that it is a result of.
    """

    size: int
    born: int
    dies: int
    number: int
    origin: str


def crowded(blocks: Iterable[Block]) -> tuple[Block, ...]:
    """Those that live when most bytes do, the largest first."""
    blocks = tuple(blocks)
    changes: Counter[int] = Counter()
    for block in blocks:
        changes[block.born] += block.size
        changes[block.dies + 1] -= block.size
    times = sorted(changes)
    sizes = list(accumulate(changes[time] for time in times))
    at = times[sizes.index(max(sizes))] if sizes else 0
    fullest = (b for b in blocks if b.born <= at <= b.dies)
    return tuple(sorted(fullest, key=lambda b: (-b.size, b.number)))


Guard: TypeAlias = tuple[Value, bool]
"""A bool of one element, and what it must be."""


@dataclass(frozen=True)
class Alone:
    """One part does all of a step: number `part`, modulo how many there are."""

    part: int


@dataclass(frozen=True)
class ByRows:
    """Every part does a range of an axis of the step's root, cut at multiples of some rows."""

    axis: int
    multiple: int


@dataclass(frozen=True)
class Step:
    """One kernel call: it computes `root` from buffers.

    Attributes:
        root: the value stored.
        anchor: the contraction or reduction inside, or the root itself where there is none;
            everything between anchor and root is its epilogue.
        reads: the values read from memory, in the order in which the expression meets them.
        copy_to: where the root lies in memory already, what the step copies it to: an output, by
            number, or a state, by the value that is there up to then; else None.
        also: the other results that a loop stores.
        guards: conditions among the reads, and what each must be; the step is skipped where one is
            not, and then no later one is defined.
        rounds: of a loop that is planned, how its rounds run; else None.
        division: how the parts of a phase share the step; None where its code decides that.
        in_place: whether the root lies where one of the reads does, element by element.
    """

    root: Value
    anchor: Value
    reads: tuple[Value, ...]
    copy_to: int | Value | None = None
    also: tuple[Value, ...] = ()
    guards: tuple[Guard, ...] = ()
    rounds: Rounds | None = None
    division: Alone | ByRows | None = None
    in_place: bool = False

    @property
    def results(self) -> tuple[Value, ...]:
        """What the step stores."""
        return (self.root, *self.also)

    @property
    def loop(self) -> ops.Repeat | None:
        """The loop that the step runs, if it runs one."""
        op = self.root.op
        return op if isinstance(op, ops.Repeat) and self.copy_to is None else None


@dataclass(frozen=True)
class Rounds:
    """The body of a loop as a program, and what it works on.

    The program's inputs are the body's; its outputs are the next states, then the rows that are
    stored. Two buffers a state follow its arena: rounds write one and read the other.

    Attributes:
        place: which memory the loop works in: "arena" or "fast".
        scratch: where its part of that begins, in bytes.
        states: for each state where its buffers lie, in bytes from there.
        weights: where the program's constants begin among those of the program around it.
    """

    program: Program
    place: str
    scratch: int
    states: tuple[tuple[int, int], ...]
    weights: int


@dataclass(frozen=True)
class Program:
    """Phases in order, the buffers they work on, and what the arena and fast memory hold when.

    Each part of a phase does its share of the phase's steps, in order, without waiting for another
    part; all parts meet behind it. So no part of a phase reads what another part of it writes.
    """

    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[tuple[str, Value], ...]
    checks: tuple[Value, ...]
    symbols: tuple[Symbol, ...]
    phases: tuple[tuple[Step, ...], ...]
    buffers: dict[Value, Buffer]
    blocks: tuple[Block, ...]
    arena_size: int
    weights_size: int
    alignment: int
    states: tuple[State, ...] = ()
    state_size: int = 0
    fast_blocks: tuple[Block, ...] = ()
    fast_size: int = 0

    @property
    def graph(self) -> Graph:
        """What the program computes."""
        return Graph(self.name, self.inputs, self.outputs, self.checks, self.states)

    @property
    def arena_bound(self) -> int:
        """Bytes without which no arena can do, wherever in it things lie."""
        return sum(block.size for block in crowded(self.blocks))

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps of all phases, in order."""
        return tuple(step for phase in self.phases for step in phase)

    @property
    def all_steps(self) -> tuple[Step, ...]:
        """The steps, each loop followed by those of its body."""
        found: list[Step] = []
        for step in self.steps:
            found.append(step)
            if step.rounds is not None:
                found += step.rounds.program.all_steps
        return tuple(found)

    @property
    def constants(self) -> tuple[Buffer, ...]:
        """The buffers of the weights, those of loops' bodies included, by offset.

        Empty ones, which may share theirs, come first.
        """
        found = [b for b in self.buffers.values() if b.place == "weights"]
        for step in self.steps:
            if (inner := step.rounds) is not None:
                moved = (
                    replace(b, offset=b.offset + inner.weights) for b in inner.program.constants
                )
                found += moved
        return tuple(sorted(found, key=lambda b: (b.offset, b.type.size != 0)))


def state_places(states: Iterable[Value], alignment: int) -> tuple[dict[Value, int], int]:
    """Where each state lies, one behind the other, and the bytes of all."""
    places, end = {}, 0
    for state in states:
        places[state] = end
        size = upper(state.type.size) * state.type.dtype.bytes
        end += -(-size // alignment) * alignment
    return places, end


def out_buffer(program: Program, step: Step) -> Buffer:
    """Where a step stores its root."""
    if step.copy_to is None:
        return program.buffers[step.root]
    if isinstance(step.copy_to, Value):
        return replace(program.buffers[step.copy_to], value=step.root)
    return Buffer(step.root, "output", step.copy_to, 0, tuple(range(step.root.type.rank)))


def in_place(program: Program) -> dict[int, int]:
    """The outputs that may share memory with an input, by number, with that of the input.

    Only the steps that make them read these inputs, and write nothing but what changes.
    """
    numbers = {value: number for number, value in enumerate(program.inputs)}
    outputs = {value: number for number, (_, value) in reversed([*enumerate(program.outputs)])}
    found = {}
    for step in program.steps:
        if not isinstance(step.root.op, ops.SCATTERS) or step.root not in outputs:
            continue
        data = step.root.args[0]
        readers = [s for s in program.steps if data in s.reads]
        users = [v for v in inside(step) for arg in v.args if arg is data]
        if data in numbers and readers == [step] and len(users) == 1:
            found[outputs[step.root]] = numbers[data]
    return found


def unreshaped(value: Value) -> Value:
    """The value behind reshapes: the same elements in the same order."""
    return reshapes(value)[-1]


def reshapes(value: Value) -> list[Value]:
    """The value and those with the same elements that it is a reshape of."""
    found = [value]
    while isinstance(value.op, ops.Reshape) and not value.is_constant:
        value = value.args[0]
        found.append(value)
    return found


def root_index(step: Step, index: Index) -> Index:
    """Where in the root the element of the anchor at `index` goes."""
    for below, above in _path(step):
        if isinstance(above.op, ops.Transpose):
            index = tuple(index[p] for p in above.op.perm)
        elif isinstance(above.op, ops.Reshape):
            index = reshape_index(below.type.shape, above.type.shape, index)
        else:  # elementwise, of equal size: leading axes of 1 may be new
            index = (*((0,) * (above.type.rank - below.type.rank)), *index)
    return index


def row_axis(axis: int, loops: Index, place: Index) -> int | None:
    """The axis of a nest of loops that goes along an axis of the place stored to, and only there.

    None where there is no such axis.
    """
    if place[axis] not in loops or isinstance(place[axis], int):
        return None
    (symbol,) = symbols_of(place[axis])
    elsewhere = (symbols_of(i) for a, i in enumerate(place) if a != axis)
    return None if any(symbol in found for found in elsewhere) else loops.index(place[axis])


def _path(step: Step) -> list[tuple[Value, Value]]:
    """The (argument, user) pairs that lead from the anchor to the root."""
    came_from: dict[Value, Value] = {}
    todo = [step.root]
    reads = set(step.reads)
    while todo:
        value = todo.pop()
        if value is step.anchor:
            break
        for arg in value.args:
            if arg not in came_from and arg not in reads:
                came_from[arg] = value
                todo.append(arg)
    pairs = []
    value = step.anchor
    while value is not step.root:
        pairs.append((value, came_from[value]))
        value = came_from[value]
    return pairs


def inside(step: Step) -> Iterator[Value]:
    """The values that a step computes."""
    todo, seen = [step.root], set(step.reads)
    while todo:
        value = todo.pop()
        if value not in seen:
            seen.add(value)
            todo += value.args
            yield value


def product_tile(step: Step, target: Target) -> Tile:
    """The register tile of a step whose anchor is a MatMul."""
    a, b = step.anchor.args
    m, n = step.anchor.type.shape[-2:]
    tile = dense_tile(target, a.type.dtype, m, n)
    todo = [b]
    for value in todo:
        if value not in step.reads:
            if isinstance(value.op, ops.Binary):  # its scales want registers too
                return replace(tile, vectors=min(tile.vectors, SCALED_VECTORS))
            todo += value.args
    return tile


@dataclass(frozen=True)
class Outline:
    """What a step computes, whatever it computes it of: equal outlines make equal code.

    Attributes:
        text: the step's expression, reads by their number and scalar constants by theirs.
        scalars: the constants of one element that the expression holds, in order.
    """

    text: str
    scalars: tuple[Value, ...]


def outline(step: Step) -> Outline:
    """The outline of a step."""
    names: dict[Value, str] = {}
    scalars: list[Value] = []
    lines: list[str] = []
    reads = {v: i for i, v in enumerate(step.reads)}
    todo = [(step.root, False)]
    while todo:
        value, done = todo.pop()
        if value in names:
            continue
        if value in reads:
            names[value] = f"read {reads[value]}"
            lines.append(f"{names[value]}: {value.type}")
        elif value.is_constant and value.type.size == 1:
            names[value] = f"scalar {len(scalars)}: {value.type}"
            scalars.append(value)
        elif done:
            names[value] = f"v{len(lines)}"
            args = ", ".join(names[a] for a in value.args)
            mark = " anchor" if value is step.anchor else ""
            lines.append(f"{names[value]}: {value.type} = {value.op}({args}){mark}")
        else:
            todo.append((value, True))
            todo += [(a, False) for a in reversed(value.args)]
    return Outline("\n".join([*lines, f"copy: {step.copy_to is not None}"]), tuple(scalars))


def loop_order(step: Step, order: tuple[int, ...]) -> tuple[int, ...]:
    """The anchor's axes from the outermost to the innermost, as the root lies in memory."""
    loops = loop_index(step.anchor.type.shape)
    steps = strides(step.root.type.shape, order)
    place = root_index(step, loops)
    return by_stride(loops, sum((i * s for i, s in zip(place, steps, strict=True)), start=0))


def loop_index(shape: tuple[Dim, ...]) -> Index:
    """The index of a nest of loops over a shape: a symbol an axis, or 0 where its size is 1."""
    return tuple(
        0 if d == 1 else Expr.of(Symbol(f"axis{a}", 0, None, d)) for a, d in enumerate(shape)
    )


def by_stride(loops: Index, position: Dim) -> tuple[int, ...]:
    """The axes of a loop nest by how far a step along them moves a position, the farthest first.

    Those along which it moves unevenly, or not at all, come before the others.
    """
    terms = position.terms if isinstance(position, Expr) else ()

    def stride(loop: Dim) -> float:
        ((own, _),) = loop.terms if isinstance(loop, Expr) else (((), 0),)
        together = [c for m, c in terms if own and own[0] in m]
        alone = [c for m, c in terms if own and m == own]
        return alone[0] if together == alone and alone else math.inf

    return tuple(sorted(range(len(loops)), key=lambda axis: stride(loops[axis]), reverse=True))
