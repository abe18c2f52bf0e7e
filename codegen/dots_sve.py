"""Scalable vectors of AArch64: one code for registers of any length.

A tile has 4 registers of weights. Those of 16 bytes hold one block of 16 rows, those of 32 bytes
two, and those of 64 or more bytes four, with which no more than 64 bytes are used: a slot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tbc.codegen.dots_panel import Take
from tbc.codegen.dots_rows import heights, row_tiles
from tbc.codegen.dots_tile import Parts, Sums, Tile, integer_tile
from tbc.codegen.llvm_text import Function, Val, const
from tbc.layout import Code

_BYTES, _WORDS = "<vscale x 16 x i8>", "<vscale x 4 x i32>"
SLOTS = 4
_UNIT = 64
"""Bytes of a unit, of the sums of a block, and at most of a slot."""


@dataclass(frozen=True)
class _Lane(Val):
    """A vector of which an instruction takes one dword of every 16 bytes."""

    lane: int


@dataclass(frozen=True)
class Sve:
    """sdot or usdot: 4 products of weights and s8 activations, added to an i32.

    Attributes:
        name: of the instruction.
        lanes: the predicate of a slot's bytes.
        masks: by mask, registers that hold it: `and` with a constant overwrites its operand.
    """

    name: str
    lanes: Val
    masks: Mapping[int, Val]
    step_k: int
    vector: int = _UNIT
    prefetch: int = 0
    sums: tuple[str, ...] = (_WORDS,)
    wide: tuple[str, ...] = (_WORDS,)

    def row(self, f: Function, tile: Tile, x: Val) -> Parts:
        """The unit's activations, 4 fields repeated through a register."""
        name, all = "llvm.aarch64.sve.ld1rq.nxv16i8", const("<vscale x 16 x i1>", 1)
        at = range(0, tile.units * tile.layout.unit_k, 16)
        return tuple(f.intrinsic(_BYTES, name, all, f.offset(x, const("i32", a))) for a in at)

    def activation(self, f: Function, row: Parts, field: int) -> Parts:
        """A dword, repeated."""
        return (_Lane(_BYTES, row[field // 4].text, field % 4),)

    def weights(self, f: Function, coding: Code, w: Val) -> tuple[Parts, ...]:
        """The bytes."""
        none, name = const(_BYTES, 0), "llvm.masked.load.nxv16i8.p0"
        return ((f.intrinsic(_BYTES, name, w, const("i32", 1), self.lanes, none),),)

    def field(self, f: Function, part: Val, shift: int, mask: int) -> Val:
        """By byte shifts, with a mask unless the shift leaves nothing else."""
        if shift:
            part = f.op("lshr", part, const(part.type, shift))
        return part if mask == 255 >> shift else f.op("and", part, self.masks[mask])

    def dot(self, f: Function, sums: Parts, w: Val, x: Val) -> Parts:
        """The instruction."""
        assert isinstance(x, _Lane)
        name = f"llvm.aarch64.sve.{self.name}.lane.nxv4i32"
        return (f.intrinsic(_WORDS, name, sums[0], w, x, const("i32", x.lane)),)

    def widen(self, f: Function, wide: Parts, sums: Parts) -> Parts:
        """Not needed."""
        return sums

    def rows(self, f: Function, wide: Parts) -> Val:
        """The sums: a lane is a row."""
        return wide[0]


@dataclass(frozen=True)
class _Slots:
    """Where the slots of a tile lie, which holds the first `left` blocks or fewer.

    Attributes:
        size: bytes of a slot.
        span: blocks of a tile.
    """

    f: Function
    tile: Tile
    size: Val
    span: Val

    @staticmethod
    def of_machine(f: Function, tile: Tile) -> _Slots:
        """By the length of the machine's registers."""
        scale = f.intrinsic(tile.index, f"llvm.vscale.{tile.index}")
        length = f.op("mul nsw", scale, tile.number(16))
        is_short = f.icmp("slt", length, tile.number(_UNIT))
        size = f.select(is_short, length, tile.number(_UNIT))
        return _Slots(f, tile, size, f.op("lshr", size, tile.number(4)))

    def weights(self, block: Val, left: Val) -> Parts:
        """The addresses, of a slot that no block fills that of the last block."""
        f, tile = self.f, self.tile
        last = f.op("sub nsw", left, tile.number(1))
        found = []
        for slot in range(SLOTS):
            place = f.op("mul nsw", self.size, tile.number(slot))
            number = f.op("lshr", place, tile.number(6))
            number = f.select(f.icmp("slt", number, left), number, last)
            start = tile.at(f, block, number, tile.steps * _UNIT)
            found.append(tile.at(f, start, f.op("and", place, tile.number(_UNIT - 1))))
        return tuple(found)

    def store(self, sums: Parts, at: Val, left: Val) -> None:
        """Write the sums of one activation row, those of `left` blocks one behind the other."""
        f, tile = self.f, self.tile
        end = f.op("mul nsw", left, tile.number(_UNIT))
        for slot, total in enumerate(sums):
            first = f.op("mul nsw", self.size, tile.number(slot))
            behind = f.op("add nsw", first, self.size)
            behind = f.select(f.icmp("slt", behind, end), behind, end)
            words = (f.op("ashr", bytes_, tile.number(2)) for bytes_ in (first, behind))
            name = f"llvm.aarch64.sve.whilelt.nxv4i1.{tile.index}"
            lanes = f.intrinsic("<vscale x 4 x i1>", name, *words)
            place = tile.at(f, at, first)
            f.intrinsic("void", "llvm.aarch64.sve.st1.nxv4i32", total, lanes, place)


def sve_tile(name: str, f: Function, tile: Tile, x: Val, w: Parts, left: Val | None = None) -> Sums:
    """The exact sums of an instruction: by activation row, those of each slot.

    Slots hold the `left` blocks from w[0] on, as far as there is room, by default as many as there
    is room for.
    """
    slots = _Slots.of_machine(f, tile)
    lanes = f.intrinsic(
        "<vscale x 16 x i1>",
        f"llvm.aarch64.sve.whilelt.nxv16i1.{tile.index}",
        tile.number(0),
        slots.size,
    )
    starts = slots.weights(w[0], left or slots.span)
    masks = {tile.mask << field.scale: _mask(f, tile.mask << field.scale) for field in tile.fields}
    # With more than one row, two units' activations would take registers from the sums.
    isa = Sve(name, lanes, masks, 2 * tile.layout.unit_k if tile.mr == 1 else 0)
    return integer_tile(isa, f, replace(tile, nr=SLOTS, one_offset=True), x, starts)


def _mask(f: Function, mask: int) -> Val:
    """A byte in all lanes, from memory: a constant would become part of the instruction."""
    byte = f.load("i8", f.module.constant(f"byte{mask}", bytes([mask])), 1)
    return f.intrinsic(_BYTES, "llvm.aarch64.sve.dup.x.nxv16i8", byte)


def cover(
    name: str,
    f: Function,
    tiles: Callable[[int, int], Tile],
    x: Val,
    packed: Val,
    m: tuple[Val, Val],
    rows: tuple[int, int],
    blocks: tuple[Val, Val],
    take: Take,
) -> None:
    """Compute all tiles and take their sums; blocks are numbered as they are."""
    one, (lo, hi) = tiles(1, 1), blocks
    slots, possible = _Slots.of_machine(f, one), heights(rows, one.kernel.mr)
    number, span = one.number, slots.span
    stack = f.alloca("i8", _UNIT * SLOTS * max(possible, default=1), _UNIT)
    many = f.op("add nsw", f.op("sub nsw", hi, lo), f.op("sub nsw", span, number(1)))
    with f.loop(number(0), f.op("sdiv", many, span)) as loop:
        first = f.op("add nsw", lo, f.op("mul nsw", loop.index, span))
        rest = f.op("sub nsw", hi, first)
        left = f.select(f.icmp("slt", rest, span), rest, span)
        block = one.at(f, packed, first, one.steps * _UNIT)

        def compute(row: Val, mr: int) -> None:
            at = one.at(f, x, row, one.x_stride)
            for i, sums in enumerate(sve_tile(name, f, tiles(mr, 1), at, (block,), left)):
                start = one.at(f, stack, f.op("mul nsw", left, number(i)), _UNIT)
                slots.store(tuple(sums), start, left)

        with (
            row_tiles(f, *m, one.kernel.mr, possible, compute) as (row, height),
            f.loop(number(0), height) as i,
            f.loop(number(0), left) as j,
        ):
            place = f.op("add nsw", f.op("mul nsw", i.index, left), j.index)
            acc = f.load("<16 x i32>", one.at(f, stack, place, _UNIT), 16)
            take(f.op("add nsw", row, i.index), f.op("add nsw", first, j.index), acc)
