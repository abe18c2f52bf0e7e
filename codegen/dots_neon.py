"""The dot instructions of AArch64: sdot, and smull with 16-bit sums where there is none."""

from __future__ import annotations

from dataclasses import dataclass

from tbc.codegen.dots_tile import Isa, Parts, Tile
from tbc.codegen.llvm_text import Function, Val, const
from tbc.layout import Code


@dataclass(frozen=True)
class _Bytes:
    """Vectors of 16 bytes of weights, against 4 bytes of activations picked out of a register."""

    vector: int = 16
    prefetch: int = 0

    def row(self, f: Function, tile: Tile, x: Val) -> Parts:
        """The unit's activations, 4 fields a register."""
        at = range(0, tile.layout.unit_k, 16)
        return tuple(f.load("<4 x i32>", f.offset(x, const("i32", a)), 16) for a in at)

    def activation(self, f: Function, row: Parts, field: int) -> Parts:
        """A dword, repeated."""
        part = row[field // 4]
        return (f.cast("bitcast", f.shuffle(part, part, [field % 4] * 4), "<16 x i8>"),)

    def weights(self, f: Function, coding: Code, w: Val) -> tuple[Parts, ...]:
        """The bytes."""
        return ((f.load("<16 x i8>", w, 16),),)

    def field(self, f: Function, part: Val, shift: int, mask: int) -> Val:
        """By byte shifts, with a mask unless the shift leaves nothing else."""
        if shift:
            part = f.op("lshr", part, const(part.type, shift))
        return part if mask == 255 >> shift else f.op("and", part, const(part.type, mask))


@dataclass(frozen=True)
class Sdot(_Bytes):
    """sdot: 4 products of s8 weights and s8 activations, added to an i32."""

    sums: tuple[str, ...] = ("<4 x i32>",)
    wide: tuple[str, ...] = ("<4 x i32>",)

    def dot(self, f: Function, sums: Parts, w: Val, x: Val) -> Parts:
        """The instruction."""
        name = "llvm.aarch64.neon.sdot.v4i32.v16i8"
        return (f.intrinsic("<4 x i32>", name, sums[0], w, x),)

    def widen(self, f: Function, wide: Parts, sums: Parts) -> Parts:
        """Not needed."""
        return sums

    def rows(self, f: Function, wide: Parts) -> Val:
        """The sums: a lane is a row."""
        return wide[0]


@dataclass(frozen=True)
class Smull(_Bytes):
    """smull and smull2: 16 products, each added to an i16."""

    sums: tuple[str, ...] = ("<8 x i16>", "<8 x i16>")
    wide: tuple[str, ...] = ("<4 x i32>", "<4 x i32>")

    def dot(self, f: Function, sums: Parts, w: Val, x: Val) -> Parts:
        """Low and high halves."""
        halves = [range(8), range(8, 16)]
        products = (
            f.intrinsic(
                "<8 x i16>",
                "llvm.aarch64.neon.smull.v8i16",
                *(f.shuffle(a, a, half) for a in (w, x)),
            )
            for half in halves
        )
        return tuple(f.op("add", s, p) for s, p in zip(sums, products, strict=True))

    def widen(self, f: Function, wide: Parts, sums: Parts) -> Parts:
        """Neighbours added."""
        name = "llvm.aarch64.neon.saddlp.v4i32.v8i16"
        pairs = (f.intrinsic("<4 x i32>", name, s) for s in sums)
        return tuple(f.op("add", a, b) for a, b in zip(wide, pairs, strict=True))

    def rows(self, f: Function, wide: Parts) -> Val:
        """Neighbours added: a row is two lanes."""
        return f.intrinsic("<4 x i32>", "llvm.aarch64.neon.addp.v4i32", *wide)


ISAS: dict[str, Isa] = {"neon": Smull(), "neondot": Sdot()}
