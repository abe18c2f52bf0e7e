"""The dot instructions of x86: vpdpbusd, pmaddubsw, and pmaddwd where there is neither."""

from __future__ import annotations

from dataclasses import dataclass, field

from tbc.codegen.dots_f32 import SIGN
from tbc.codegen.dots_neon import activations
from tbc.codegen.dots_portable import field_of_words
from tbc.codegen.dots_tile import Isa, Parts, Tile
from tbc.codegen.llvm_text import Function, Val, const, lanes_const, lanes_of, vec
from tbc.layout import BOOK_HIGH, BOOK_LOW, Code


@dataclass(frozen=True)
class _Bytes:
    """Vectors of unsigned bytes of weights, against 4 bytes of activations that a load repeats."""

    vector: int
    step_k: int = field(default=0, kw_only=True)

    @property
    def prefetch(self) -> int:
        """As far as was found best on a Sapphire Rapids, in L2 and beyond."""
        return 2048

    @property
    def wide(self) -> tuple[str, ...]:
        """<vector / 4 x i32>."""
        return (vec("i32", self.vector // 4),)

    def row(self, f: Function, tile: Tile, x: Val) -> Parts:
        """The address: every field is loaded by itself."""
        return (x,)

    def activation(self, f: Function, row: Parts, field: int) -> Parts:
        """A dword, broadcast."""
        dword = f.load("i32", f.offset(row[0], const("i32", 4 * field)), 4)
        return (f.cast("bitcast", f.splat(dword, self.vector // 4), vec("i8", self.vector)),)

    def weights(self, f: Function, coding: Code, w: Val) -> tuple[Parts, ...]:
        """The bytes, looked up if they are words of the code book."""
        loaded = f.load(vec("i8", self.vector), w, self.vector)
        return _words(f, loaded) if coding.is_book else ((loaded,),)

    def field(self, f: Function, part: Val, shift: int, mask: int) -> Val:
        """By 16-bit shifts: x86 shifts no bytes."""
        return field_of_words(f, part, shift, mask)

    def rows(self, f: Function, wide: Parts) -> Val:
        """The sums: a lane is a row."""
        return wide[0]


def _words(f: Function, index: Val) -> tuple[Parts, ...]:
    """low ^ high, low and high of the code book, by vpermb, which takes an index's lower 6 bits."""
    words = f.cast("bitcast", index, vec("i16", lanes_of(index.type) // 2))
    above = f.cast("bitcast", f.op("lshr", words, const(words.type, 2)), index.type)
    name = f"llvm.x86.avx512.permvar.qi.{8 * lanes_of(index.type)}"
    low, high = (
        f.intrinsic(index.type, name, lanes_const("i8", list(table)), at)
        for table, at in ((BOOK_LOW, index), (BOOK_HIGH, above))
    )
    return (f.op("xor", low, high),), (low,), (high,)


@dataclass(frozen=True)
class Vnni(_Bytes):
    """vpdpbusd: 4 products of u8 weights and s8 activations, added to an i32."""

    @property
    def sums(self) -> tuple[str, ...]:
        """<vector / 4 x i32>."""
        return self.wide

    def dot(self, f: Function, sums: Parts, w: Val, x: Val) -> Parts:
        """The instruction."""
        name = f"llvm.x86.avx512.vpdpbusd.{self.vector * 8}"
        return (f.intrinsic(sums[0].type, name, sums[0], w, x),)

    def widen(self, f: Function, wide: Parts, sums: Parts) -> Parts:
        """Not needed."""
        return sums


@dataclass(frozen=True)
class Maddubs(_Bytes):
    """pmaddubsw: 2 products of u8 weights and s8 activations, added to an i16 by paddw."""

    multiply: str
    pairs: str
    """The intrinsic that adds neighbouring products of i16 in an i32."""

    @property
    def sums(self) -> tuple[str, ...]:
        """<vector / 2 x i16>."""
        return (vec("i16", self.vector // 2),)

    def dot(self, f: Function, sums: Parts, w: Val, x: Val) -> Parts:
        """Products and sum; pmaddubsw saturates, but no two products of ours are that large."""
        return (f.op("add", sums[0], f.intrinsic(sums[0].type, self.multiply, w, x)),)

    def widen(self, f: Function, wide: Parts, sums: Parts) -> Parts:
        """Neighbours added by pmaddwd with ones."""
        ones = const(sums[0].type, 1)
        return (f.op("add", wide[0], f.intrinsic(wide[0].type, self.pairs, sums[0], ones)),)


@dataclass(frozen=True)
class Maddwd:
    """pmaddwd: 2 products of i16, added to an i32; bytes 0 and 2 of a row, then 1 and 3."""

    vector: int
    multiply: str
    prefetch: int = 2048
    step_k: int = 16

    @property
    def sums(self) -> tuple[str, ...]:
        """<vector / 4 x i32>."""
        return (vec("i32", self.vector // 4),)

    @property
    def wide(self) -> tuple[str, ...]:
        """The same."""
        return self.sums

    def row(self, f: Function, tile: Tile, x: Val) -> Parts:
        """The units' activations as i16: even and odd ones, 4 fields at a time."""
        parts: list[Val] = []
        for quad in activations(f, x, tile.units * tile.layout.unit_k):
            words = f.cast("bitcast", quad, "<8 x i16>")
            eight = const(words.type, 8)
            parts += [f.op("ashr", f.op("shl", words, eight), eight), f.op("ashr", words, eight)]
        return tuple(parts)

    def activation(self, f: Function, row: Parts, field: int) -> Parts:
        """Even and odd activations of a field, repeated."""
        first = field // 4 * 2
        lanes = [2 * (field % 4), 2 * (field % 4) + 1] * (self.vector // 4)
        return tuple(f.shuffle(part, part, lanes) for part in row[first : first + 2])

    def weights(self, f: Function, coding: Code, w: Val) -> tuple[Parts, ...]:
        """Even bytes and odd bytes, each in the low half of an i16."""
        words = f.load(vec("i16", self.vector // 2), w, self.vector)
        return ((words, f.op("lshr", words, const(words.type, 8))),)

    def field(self, f: Function, part: Val, shift: int, mask: int) -> Val:
        """The field of the low byte."""
        if shift:
            part = f.op("lshr", part, const(part.type, shift))
        return f.op("and", part, const(part.type, mask))

    def dot(self, f: Function, sums: Parts, w: Val, x: Val) -> Parts:
        """Products and sum."""
        return (f.op("add", sums[0], f.intrinsic(sums[0].type, self.multiply, w, x)),)

    def widen(self, f: Function, wide: Parts, sums: Parts) -> Parts:
        """Not needed."""
        return sums

    def rows(self, f: Function, wide: Parts) -> Val:
        """The sums: a lane is a row."""
        return wide[0]


class Permuted:
    """AVX2: a weight's two bits pick x, 0 or -x out of a table in each half of a register."""

    def weights(self, f: Function, w: Val) -> Val:
        """As they are."""
        return f.load("<16 x i32>", w, 64)

    def activation(self, f: Function, tile: Tile, x: Val) -> Val:
        """The table: -x, 0, x, 0 for trits; -x, x, -x, x for signs, which have one bit."""
        bits = f.splat(f.load("i32", x, 4), 8)
        if tile.layout.code == "b1":
            table = f.op("xor", bits, lanes_const("i32", [SIGN, 0] * 4))
        else:
            table = f.op("xor", bits, lanes_const("i32", [SIGN, 0, 0, 0] * 2))
            table = f.op("and", table, lanes_const("i32", [-1, 0] * 4))
        return f.cast("bitcast", table, "<8 x float>")

    def picks(self, f: Function, tile: Tile, dwords: Val, lane: int) -> Parts:
        """The codes, in the lowest bits."""
        if lane:
            dwords = f.op("lshr", dwords, const(dwords.type, tile.position(lane)))
        return tuple(f.shuffle(dwords, dwords, half) for half in (range(8), range(8, 16)))

    def add(self, f: Function, tile: Tile, sums: Val, picks: Parts, x: Val) -> Val:
        """Look up and add."""
        name = "llvm.x86.avx.vpermilvar.ps.256"
        low, high = (f.intrinsic("<8 x float>", name, x, pick) for pick in picks)
        return f.op("fadd", sums, f.shuffle(low, high, range(16)))


ISAS: dict[str, Isa] = {
    "sse2": Maddwd(16, "llvm.x86.sse2.pmadd.wd"),
    "maddwd256": Maddwd(32, "llvm.x86.avx2.pmadd.wd"),
    "maddwd512": Maddwd(64, "llvm.x86.avx512.pmaddw.d.512"),
    "ssse3": Maddubs(16, "llvm.x86.ssse3.pmadd.ub.sw.128", "llvm.x86.sse2.pmadd.wd"),
    "avx2": Maddubs(32, "llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx2.pmadd.wd"),
    "avx512bw": Maddubs(64, "llvm.x86.avx512.pmaddubs.w.512", "llvm.x86.avx512.pmaddw.d.512"),
    "avxvnni": Vnni(32),
    "vnni512": Vnni(64),
    "vbmi512": Vnni(64),
}
