"""The dot instructions of AArch64: usdot and sdot, and smlal into 16-bit sums without them."""

from __future__ import annotations

from dataclasses import dataclass

from tbc.codegen.dots_tile import Isa, Parts, Tile
from tbc.codegen.llvm_text import Function, Val, const, lanes_const
from tbc.layout import BOOK_HIGH, BOOK_LOW, Code

VECTOR = 16
"""Bytes of a register."""


@dataclass(frozen=True)
class _Bytes:
    """Vectors of 16 bytes of weights, against 4 bytes of activations picked out of a register."""

    vector: int = VECTOR
    prefetch: int = 0
    step_k: int = VECTOR

    def row(self, f: Function, tile: Tile, x: Val) -> Parts:
        """The units' activations, 4 fields a register; the last has what is left."""
        return activations(f, x, tile.units * tile.layout.unit_k)

    def activation(self, f: Function, row: Parts, field: int) -> Parts:
        """A dword, repeated."""
        part = row[field // 4]
        return (f.cast("bitcast", f.shuffle(part, part, [field % 4] * 4), "<16 x i8>"),)

    def weights(self, f: Function, coding: Code, w: Val) -> tuple[Parts, ...]:
        """The bytes, looked up if they are words of the code book."""
        return self.numbers(f, coding, f.load("<16 x i8>", w, VECTOR))

    def numbers(self, f: Function, coding: Code, bytes_: Val) -> tuple[Parts, ...]:
        """The numbers of `Code.places` made of bytes."""
        return _words(f, bytes_) if coding.is_book else ((bytes_,),)

    def field(self, f: Function, part: Val, shift: int, mask: int) -> Val:
        """By byte shifts, with a mask unless the shift leaves nothing else."""
        if shift:
            part = f.op("lshr", part, const(part.type, shift))
        return (
            part
            if mask & 255 >> shift == 255 >> shift
            else f.op("and", part, const(part.type, mask))
        )


def activations(f: Function, x: Val, count: int) -> Parts:
    """<4 x i32>s of `count` activations, a multiple of 4: nothing behind them is read."""
    whole = range(0, count - count % VECTOR, VECTOR)
    parts = [f.load("<4 x i32>", f.offset(x, const("i32", at)), 4) for at in whole]
    if count % VECTOR:
        part = Val("<4 x i32>", "poison")
        for lane, at in enumerate(range(count - count % VECTOR, count, 4)):
            part = f.insert(part, f.load("i32", f.offset(x, const("i32", at)), 4), lane)
        parts.append(part)
    return tuple(parts)


def _words(f: Function, index: Val) -> tuple[Parts, ...]:
    """low ^ high, low and high of the code book, by tbl in 4 registers."""
    below = f.op("and", index, const(index.type, 63))
    above = f.op("lshr", index, const(index.type, 2))
    name = "llvm.aarch64.neon.tbl4.v16i8"
    low, high = (
        f.intrinsic(index.type, name, *(_table(book, at) for at in range(0, 64, VECTOR)), place)
        for book, place in ((BOOK_LOW, below), (BOOK_HIGH, above))
    )
    return (f.op("xor", low, high),), (low,), (high,)


def _table(book: bytes, at: int) -> Val:
    return lanes_const("i8", list(book[at : at + VECTOR]))


@dataclass(frozen=True)
class Dot4(_Bytes):
    """sdot or usdot: 4 products of weights and s8 activations, added to an i32."""

    name: str = "sdot"
    sums: tuple[str, ...] = ("<4 x i32>",)
    wide: tuple[str, ...] = ("<4 x i32>",)

    def dot(self, f: Function, sums: Parts, w: Val, x: Val) -> Parts:
        """The instruction."""
        name = f"llvm.aarch64.neon.{self.name}.v4i32.v16i8"
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


ISAS: dict[str, Isa] = {"neon": Smull(), "neondot": Dot4()}
