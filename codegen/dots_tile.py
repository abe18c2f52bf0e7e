"""The skeleton of the integer dots: the loops over k of one register tile, on any machine.

An `Isa` says how a machine loads, masks, multiplies and adds; nothing here knows one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeAlias, TypeVar

from tbc.codegen.llvm_text import Function, Val, const, lanes_of
from tbc.kernels import Field, Kernel
from tbc.layout import Code, Layout
from tbc.target import Target

Parts: TypeAlias = tuple[Val, ...]
Sums: TypeAlias = list[list[Val]]
"""By activation row and block of the tile: the <16 x i32> or <16 x float> sums."""

K = TypeVar("K")
State: TypeAlias = dict[K, Parts]
"""What a loop carries."""


@dataclass(frozen=True)
class Tile:
    """mr activation rows by nr blocks of weight rows, over `steps` units along k.

    Attributes:
        x_stride: bytes between activation rows.
        index: the type of indices.
        unsigned: whether the activations are u8 rather than i8.
        halves: whether they have been widened for smlad (`patch_rows.widen`).
        units: units along k of a step.
        together: units along k come in multiples of this.
        one_offset: whether all blocks are to be addressed by one offset in a register; LLVM would
            rather advance an address for each.
    """

    kernel: Kernel
    layout: Layout
    target: Target
    mr: int
    nr: int
    steps: int
    x_stride: int
    index: str
    unsigned: bool = False
    halves: bool = False
    units: int = 1
    together: int = 1
    one_offset: bool = False

    @property
    def fields(self) -> tuple[Field, ...]:
        """How every field of a byte is read."""
        return self.kernel.fields(self.mr)

    @property
    def mask(self) -> int:
        """The bits of field 0 of a byte."""
        return self.layout.coding.mask

    @property
    def x_unit(self) -> int:
        """Bytes of activations a unit."""
        return self.layout.unit_k * self.kernel.activations.bytes * (2 if self.halves else 1)

    @property
    def extends(self) -> str:
        """The cast that widens an activation."""
        return "zext" if self.unsigned else "sext"

    def number(self, value: int) -> Val:
        """An index constant."""
        return const(self.index, value)

    def at(self, f: Function, ptr: Val, index: Val | int, scale: int = 1, plus: int = 0) -> Val:
        """The address ptr + index * scale + plus, in bytes."""
        if isinstance(index, int):
            return f.offset(ptr, self.number(index * scale + plus))
        if scale != 1:
            index = f.op("mul nsw", index, self.number(scale))
        ptr = f.offset(ptr, index)
        return f.offset(ptr, self.number(plus)) if plus else ptr

    def position(self, lane: int) -> int:
        """The lowest bit of byte `lane` of a dword in memory."""
        return 8 * lane if self.target.little_endian else 24 - 8 * lane


class Isa(Protocol):
    """How a machine multiplies and adds vectors of weights and activations.

    A vector of weights may come in several parts; activations have the same number of parts.
    """

    @property
    def vector(self) -> int:
        """Bytes of weights a vector."""

    @property
    def prefetch(self) -> int:
        """How many bytes ahead to fetch weights that are used only once; 0 for not at all."""

    @property
    def step_k(self) -> int:
        """A step takes several units along k where they have fewer than this many weights a row."""

    @property
    def sums(self) -> tuple[str, ...]:
        """The types of a vector's sums."""

    @property
    def wide(self) -> tuple[str, ...]:
        """The types of its 32-bit sums; the same where the sums have 32 bits."""

    def row(self, f: Function, tile: Tile, x: Val) -> Parts:
        """What a step keeps of the activations at x, `tile.units` units of them."""

    def activation(self, f: Function, row: Parts, field: int) -> Parts:
        """The 4 activations of a field, counted through the units, repeated through a vector."""

    def weights(self, f: Function, coding: Code, w: Val) -> tuple[Parts, ...]:
        """The vector of weights at w, by the numbers of `Code.places`."""

    def field(self, f: Function, part: Val, shift: int, mask: int) -> Val:
        """Every byte as (byte >> shift) & mask."""

    def dot(self, f: Function, sums: Parts, w: Val, x: Val) -> Parts:
        """The sums plus w * x."""

    def widen(self, f: Function, wide: Parts, sums: Parts) -> Parts:
        """The wide sums plus the narrow ones."""

    def rows(self, f: Function, wide: Parts) -> Val:
        """<vector / 4 x i32>: one sum for every row of weights."""


def iterate(
    f: Function,
    start: Val,
    stop: Val,
    state: State[K],
    body: Callable[[Val, State[K]], None],
    step: int = 1,
) -> State[K]:
    """`for index in range(start, stop, step): body(index, state)`; the body renews the state."""
    if start.text == "0" and stop.text == "1":
        state = dict(state)
        body(start, state)
        return state

    def named(values: Parts) -> State[K]:
        rest = iter(values)
        return {key: tuple(next(rest) for _ in parts) for key, parts in state.items()}

    def values(state: State[K]) -> Parts:
        return tuple(val for parts in state.values() for val in parts)

    with f.loop(start, stop, step, values(state)) as loop:
        inside = named(loop.carried)
        body(loop.index, inside)
        loop.yield_(*values(inside))
    return named(loop.results)


def zeros(*types: str) -> Parts:
    """A zero of every type."""
    return tuple(const(t, 0) for t in types)


def lanewise(f: Function, target: Target, opcode: str, a: Val, b: Val) -> Val:
    """A float operation on vectors; lane by lane where the target's vectors are not IEEE's."""
    if target.vector_bytes > 4 or target.arch == "c":
        return f.op(opcode, a, b)
    result = Val(a.type, "poison")
    for lane in range(lanes_of(a.type)):
        result = f.insert(result, f.op(opcode, f.extract(a, lane), f.extract(b, lane)), lane)
    return result


def integer_tile(
    isa: Isa, f: Function, tile: Tile, x: Val, w: Parts, steps: Val | None = None
) -> Sums:
    """The exact sums of a tile whose first activation row is at x, and whose blocks are at w.

    `steps` is how many of the tile's steps along k to take; all of them if not given.
    """
    scales = sorted({field.scale for field in tile.fields})
    keys = [(place, scale) for place in _places(isa, tile) for scale in scales]
    zero, stop = tile.number(0), steps or tile.number(tile.steps)
    widen = tile.kernel.widen

    def add(first: Val, last: Val, sums: State[_Key]) -> State[_Key]:
        several = replace(tile, units=isa.step_k // tile.layout.unit_k)
        if several.units > 1:
            most = whole(f, tile, first, last, several.units)
            step = partial(_step, isa, f, several, x, w)
            sums = iterate(f, first, most, sums, step, several.units)
            if most == last:
                return sums
            first = most
        return iterate(f, first, last, sums, partial(_step, isa, f, tile, x, w))

    def add_steps(first: Val, last: Val, wide: State[_Key]) -> None:
        sums = add(first, last, {key: zeros(*isa.sums) for key in keys})
        wide |= {key: isa.widen(f, wide[key], parts) for key, parts in sums.items()}

    def chunk(index: Val, wide: State[_Key]) -> None:
        last = f.op("add nsw", index, tile.number(widen))
        if steps or tile.steps % widen:
            last = f.select(f.icmp("slt", last, stop), last, stop)
        add_steps(index, last, wide)

    wide = {key: zeros(*isa.wide) for key in keys}
    if not widen:
        wide = add(zero, stop, wide)
    elif tile.steps > widen:
        wide = iterate(f, zero, stop, wide, chunk, widen)
    else:
        add_steps(zero, stop, wide)

    def rows(place: _Place) -> Val:
        return rescaled(f, [(isa.rows(f, wide[place, scale]), scale) for scale in scales])

    vectors = range(tile.layout.unit_bytes // isa.vector)
    return [
        [concat(f, [rows((m, n, v)) for v in vectors]) for n in range(tile.nr)]
        for m in range(tile.mr)
    ]


_Place: TypeAlias = tuple[int, int, int]
"""Activation row, block, and vector within the block."""

_Key: TypeAlias = tuple[_Place, int]
"""A place, and the scale of the fields that are summed there."""


def _places(isa: Isa, tile: Tile) -> list[_Place]:
    vectors = tile.layout.unit_bytes // isa.vector
    return [(m, n, v) for m in range(tile.mr) for n in range(tile.nr) for v in range(vectors)]


def whole(f: Function, tile: Tile, first: Val, last: Val, units: int) -> Val:
    """As much of the tile's units first..last as can be taken `units` at a time ends there."""
    if tile.together % units == 0:
        return last
    if first.text.isdigit() and last.text.isdigit():
        return const(last.type, int(last.text) - (int(last.text) - int(first.text)) % units)
    rest = f.op("urem", f.op("sub nsw", last, first), const(last.type, units))
    return f.op("sub nsw", last, rest)


def rescaled(f: Function, sums: list[tuple[Val, int]]) -> Val:
    """sum(sums >> scale), each shift exact."""
    total, *rest = (
        f.op("ashr exact", s, const(s.type, scale)) if scale else s for s, scale in sums
    )
    for part in rest:
        total = f.op("add", total, part)
    return total


def concat(f: Function, parts: list[Val]) -> Val:
    """The lanes of all parts, one behind the other."""
    while len(parts) > 1:
        lanes = range(2 * lanes_of(parts[0].type))
        parts = [f.shuffle(a, b, lanes) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _step(
    isa: Isa, f: Function, tile: Tile, x: Val, w: Parts, index: Val, sums: State[_Key]
) -> None:
    """Add a step's units of k to the sums."""
    x = tile.at(f, x, index, tile.x_unit)
    blocks = [tile.at(f, block, index, tile.layout.unit_bytes) for block in w]
    rows = [isa.row(f, tile, tile.at(f, x, m, tile.x_stride)) for m in range(tile.mr)]
    if isa.prefetch and not tile.layout.coding.is_of_panels:
        for block in blocks:
            f.prefetch(block, isa.prefetch)
    for unit in range(tile.units):
        starts = [tile.at(f, block, unit, tile.layout.unit_bytes) for block in blocks]
        if tile.one_offset:
            starts = _one_offset(f, tile, w, index, unit)
        places = [(n, v) for m, n, v in _places(isa, tile) if m == 0]
        # Where rows are few, their activations stay in registers, and one vector of weights. But 4
        # fields' activations are one register of a scalable vector, and LLVM orders fields better.
        few = 2 * tile.mr * len(isa.sums) <= len(places)
        few = few and not (tile.one_offset and len(tile.fields) <= 4)
        for group in [[at] for at in places] if few else [places]:
            vectors = {
                (n, v): isa.weights(f, tile.layout.coding, tile.at(f, starts[n], v * isa.vector))
                for n, v in group
            }
            for field in range(len(tile.fields)):
                _add_field(isa, f, tile, rows, vectors, unit, field, sums)


def _one_offset(f: Function, tile: Tile, w: Parts, index: Val, unit: int) -> list[Val]:
    """The blocks' addresses of a unit, behind an offset that LLVM does not look through."""
    offset = f.op("mul nsw", index, tile.number(tile.layout.unit_bytes))
    if unit:
        offset = f.op("add nsw", offset, tile.number(unit * tile.layout.unit_bytes))
    offset = f.emit(offset.type, f"freeze {offset}")
    return [f.offset(block, offset) for block in w]


def _add_field(
    isa: Isa,
    f: Function,
    tile: Tile,
    rows: list[Parts],
    vectors: dict[tuple[int, int], tuple[Parts, ...]],
    unit: int,
    field: int,
    sums: State[_Key],
) -> None:
    """Add one field of a unit: of its activations and weights, the fewer stay in registers."""
    number, shift, scale = tile.fields[field]
    quad = unit * len(tile.fields) + field

    def weights(at: tuple[int, int]) -> Parts:
        parts = vectors[at][number]
        return tuple(isa.field(f, part, shift, tile.mask << scale) for part in parts)

    def add(place: _Place, w: Parts, x: Parts) -> None:
        for part, activations in zip(w, x, strict=True):
            sums[place, scale] = isa.dot(f, sums[place, scale], part, activations)

    if len(rows) > len(vectors):
        ws = {at: weights(at) for at in vectors}
        for m, row in enumerate(rows):
            x = isa.activation(f, row, quad)
            for at, w in ws.items():
                add((m, *at), w, x)
    else:
        xs = [isa.activation(f, row, quad) for row in rows]
        for at in vectors:
            w = weights(at)
            for m, x in enumerate(xs):
                add((m, *at), w, x)
