"""The integer dot of wide byte vectors, for every target that has vectors."""

from __future__ import annotations

from dataclasses import dataclass

from tbc.codegen.dots_tile import Parts, Tile
from tbc.codegen.llvm_text import Function, Val, const, lanes_of, vec
from tbc.layout import Code


def field_of_words(f: Function, part: Val, shift: int, mask: int) -> Val:
    """Every byte as (byte >> shift) & mask, where only words of 16 bits can be shifted."""
    if shift:
        words = f.cast("bitcast", part, vec("i16", lanes_of(part.type) // 2))
        words = f.op("lshr", words, const(words.type, shift))
        part = f.cast("bitcast", words, part.type)
    return part if mask == 255 else f.op("and", part, const(part.type, mask))


class SixteenBytes:
    """Vectors of 16 bytes, against 4 bytes of activations that are loaded and repeated."""

    def row(self, f: Function, tile: Tile, x: Val) -> Parts:
        """The address: every field is loaded by itself."""
        return (x,)

    def activation(self, f: Function, row: Parts, field: int) -> Parts:
        """A dword, repeated."""
        dword = f.load("i32", f.offset(row[0], const("i32", 4 * field)), 4)
        return (f.cast("bitcast", f.splat(dword, 4), "<16 x i8>"),)

    def weights(self, f: Function, coding: Code, w: Val) -> tuple[Parts, ...]:
        """The bytes."""
        return ((f.load("<16 x i8>", w, 16),),)


@dataclass(frozen=True)
class Wide:
    """Bytes widened to i16 and multiplied: <64 x i8> fits any vector length."""

    vector: int = 64
    prefetch: int = 0
    step_k: int = 0
    sums: tuple[str, ...] = ("<64 x i16>",)
    wide: tuple[str, ...] = ("<32 x i32>",)

    def row(self, f: Function, tile: Tile, x: Val) -> Parts:
        """The address: every field is loaded by itself."""
        return (x,)

    def activation(self, f: Function, row: Parts, field: int) -> Parts:
        """A dword, repeated, as i16."""
        dword = f.load("i32", f.offset(row[0], const("i32", 4 * field)), 4)
        bytes_ = f.cast("bitcast", f.splat(dword, 16), "<64 x i8>")
        return (f.cast("sext", bytes_, "<64 x i16>"),)

    def weights(self, f: Function, coding: Code, w: Val) -> tuple[Parts, ...]:
        """The bytes."""
        return ((f.load("<64 x i8>", w, 64),),)

    def field(self, f: Function, part: Val, shift: int, mask: int) -> Val:
        """By byte shifts."""
        if shift:
            part = f.op("lshr", part, const(part.type, shift))
        return f.op("and", part, const(part.type, mask))

    def dot(self, f: Function, sums: Parts, w: Val, x: Val) -> Parts:
        """Products and sum."""
        return (f.op("add", sums[0], f.op("mul", f.cast("zext", w, x.type), x)),)

    def widen(self, f: Function, wide: Parts, sums: Parts) -> Parts:
        """Both halves of every i32, whichever is the first in memory."""
        words = f.cast("bitcast", sums[0], "<32 x i32>")
        sixteen = const(words.type, 16)
        high = f.op("ashr", words, sixteen)
        low = f.op("ashr", f.op("shl", words, sixteen), sixteen)
        return (f.op("add", wide[0], f.op("add", low, high)),)

    def rows(self, f: Function, wide: Parts) -> Val:
        """Neighbours added: a row is two lanes."""
        even, odd = (f.shuffle(wide[0], wide[0], range(i, 32, 2)) for i in (0, 1))
        return f.op("add", even, odd)
