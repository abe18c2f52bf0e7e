"""The integer dots that every LLVM target can run: wide byte vectors, and scalar words.

Neither depends on the order of bytes in memory, but for the position of a byte in a word.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from tbc.codegen.dots_tile import Parts, State, Sums, Tile, iterate, zeros
from tbc.codegen.llvm_text import Function, Val, bits_of, const, lanes_of, vec
from tbc.layout import Code

GROUP = 4
"""Rows of weights that a scalar loop computes together, so that they share its activations."""


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


class Scalar(ABC):
    """One activation row and one block, a few rows of weights at a time; subclasses do the sums.

    Attributes:
        word: the integer type that weights are loaded in: one row in 32 bits, two in 64.
        sum: the type of a word's sum.
    """

    word: str
    sum: str

    def __init__(self, f: Function, tile: Tile):
        self.f, self.tile = f, tile

    def weights(self, ptr: Val) -> Val:
        """The word at ptr."""
        return self.f.load(self.word, ptr, bits_of(self.word) // 8)

    @abstractmethod
    def activation(self, ptr: Val) -> Val:
        """The activation at ptr."""

    @abstractmethod
    def add(self, sum: Val, word: Val, position: int, x: Val) -> Val:
        """The sum plus x times the weight that has its lowest bit at `position`."""

    def rows(self, sum: Val) -> Sequence[Val]:
        """The sums of a word's rows, in the order of memory."""
        return (sum,)

    def emit(self, x: Val, w: Val) -> Sums:
        """The sums of the block at w with the row at x."""
        f, tile = self.f, self.tile
        size = bits_of(self.word) // 8
        out = f.alloca("i32", tile.layout.rows)
        unit = tile.number(tile.layout.unit_bytes)
        with f.loop(tile.number(0), unit, GROUP * 4) as group:
            words = [tile.at(f, w, group.index, 1, at) for at in range(0, GROUP * 4, size)]
            sums = self._sums(x, words)
            rows = [row for sum in sums for row in self.rows(sum)]
            for number, row in enumerate(rows):
                f.store(row, tile.at(f, out, group.index, 1, 4 * number), 4)
        return [[f.load(vec(rows[0].type, tile.layout.rows), out, 16)]]

    def _sums(self, x: Val, words: Sequence[Val]) -> list[Val]:
        """The sums of the rows in some words of every unit, the first of which are at `words`."""
        f, tile = self.f, self.tile
        bits, lanes = tile.layout.coding.bits, tile.layout.lanes_k
        fields = tile.number(tile.layout.fields)
        element = tile.kernel.activations.bytes

        def step(index: Val, sums: State[int]) -> None:
            units = [self.weights(tile.at(f, w, index, tile.layout.unit_bytes)) for w in words]
            state = {i: (word, *sums[i]) for i, word in enumerate(units)}
            xs = tile.at(f, x, index, tile.x_unit)

            def field(index: Val, state: State[int]) -> None:
                at = tile.at(f, xs, index, lanes * element)
                for lane in range(lanes):
                    activation = self.activation(f.offset(at, tile.number(lane * element)))
                    for i, (word, sum) in state.items():
                        position = tile.position(lane)
                        state[i] = (word, self.add(sum, word, position, activation))
                for i, (word, sum) in state.items():
                    state[i] = (f.op("lshr", word, const(word.type, bits)), sum)

            state = iterate(f, tile.number(0), fields, state, field)
            sums |= {i: (sum,) for i, (_, sum) in state.items()}

        start = {i: zeros(self.sum) for i in range(len(words))}
        sums = iterate(f, tile.number(0), tile.number(tile.steps), start, step)
        return [sum for (sum,) in sums.values()]


class Words(Scalar):
    """i8 activations: a multiplication does all rows of a word at once.

    (c0 + c1 * 2^32) * x, summed mod 2^64, is the sum of c0 * x in the low half and of c1 * x in
    the high half, less the borrow of a negative low half.
    """

    def __init__(self, f: Function, tile: Tile):
        super().__init__(f, tile)
        self.word = self.sum = tile.index

    def activation(self, ptr: Val) -> Val:
        """Sign-extended."""
        return self.f.cast("sext", self.f.load("i8", ptr, 1), self.word)

    def add(self, sum: Val, word: Val, position: int, x: Val) -> Val:
        """One multiply-add."""
        f, mask = self.f, self.tile.mask
        if position:
            word = f.op("lshr", word, const(word.type, position))
        every_row = mask if word.type == "i32" else mask | mask << 32
        codes = f.op("and", word, const(word.type, every_row))
        return f.op("add", sum, f.op("mul", codes, x))

    def rows(self, sum: Val) -> Sequence[Val]:
        """The halves of an i64."""
        f = self.f
        if sum.type == "i32":
            return (sum,)
        low = f.cast("trunc", sum, "i32")
        rest = f.op("sub", sum, f.cast("sext", low, "i64"))
        high = f.cast("trunc", f.op("lshr", rest, const("i64", 32)), "i32")
        return (low, high) if self.tile.target.little_endian else (high, low)


def words_tile(f: Function, tile: Tile, x: Val, w: Parts) -> Sums:
    """i8 activations, in scalar code."""
    return Words(f, tile).emit(x, *w)
