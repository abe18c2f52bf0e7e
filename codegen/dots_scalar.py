"""Integer dots whose sums are scalars: a few rows of weights at a time, in one loop along k.

`Rows` is their skeleton. `Pairs` runs on every target: one multiplication does two products.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from tbc.codegen.dots_tile import Parts, Sums, Tile, rescaled
from tbc.codegen.llvm_text import Function, Val, const

WORD = "i32"


class Rows(ABC):
    """The sums of one activation row and one block of weights; subclasses add a unit to them.

    Attributes:
        rows: rows of weights that one loop sums.
    """

    rows: int

    def __init__(self, f: Function, tile: Tile):
        self.f, self.tile = f, tile
        self.scales = sorted({field.scale for field in tile.fields})

    def kept(self) -> Parts:
        """Constants to keep in registers: as operands they would be instructions of their own."""
        return ()

    @abstractmethod
    def unit(self, x: Val, w: Val, kept: Parts, sums: list[Val]) -> None:
        """Add a unit to the sums of `rows` rows, the scales of a row side by side.

        Args:
            x: where its activations are.
            w: where the weights of the first row are.
            kept: what `kept` returned.
            sums: i32; to be renewed.
        """

    @classmethod
    def call(cls, f: Function, tile: Tile, x: Val, w: Val, out: Val) -> None:
        """Store the sums of the block at w with the row at x, i32 [rows of the block], to `out`.

        A function does it that all dots of a module share: in the function of a step LLVM has to
        keep what is around the loop in registers, too, and there are too few.
        """
        args = [("ptr", "x"), ("ptr", "w"), ("ptr", "out"), (tile.index, "steps")]
        name = f.module.routine(cls.routine(tile), args, lambda own: cls(own, tile).emit(*own.args))
        f.call("void", name, x, w, out, tile.number(tile.steps))

    @classmethod
    def routine(cls, tile: Tile) -> str:
        """The name of the function: it holds what its code depends on."""
        kind = "_halves" if tile.halves else "_u8" if tile.unsigned else ""
        return f"dot_{tile.kernel.dot.name}_{tile.layout.code}{kind}"

    def emit(self, x: Val, w: Val, out: Val, steps: Val) -> None:
        """What the function does, of some steps along k."""
        f = self.f

        def take(place: Val, sum: Val) -> None:
            f.store(sum, place, 4)

        self.loop(x, self.tile.x_unit, w, steps, out, take)

    def loop(
        self,
        x: Val,
        x_unit: int,
        w: Val,
        steps: Val,
        out: Val,
        take: Callable[[Val, Val], None],
    ) -> None:
        """Sum `steps` units, at least one; take(place in `out`, sum) consumes the sum of a row."""
        f, tile, scales = self.f, self.tile, len(self.scales)
        zero = const(WORD, 0)
        with f.loop(tile.number(0), tile.number(tile.layout.rows), self.rows) as group:
            first = tile.at(f, w, group.index, tile.layout.lanes_k)
            kept = self.kept()
            zeros = [zero] * (self.rows * scales)
            end = tile.at(f, x, steps, x_unit)
            with f.repeat(x, first, *kept, *zeros) as loop:
                xs, ws, *rest = loop.carried
                constants, sums = tuple(rest[: len(kept)]), rest[len(kept) :]
                self.unit(xs, ws, constants, sums)
                xs, ws = tile.at(f, xs, x_unit), tile.at(f, ws, tile.layout.unit_bytes)
                loop.yield_(xs, ws, *constants, *sums)
                loop.go_on(f, f.icmp("ne", xs, end))
            for row in range(self.rows):
                parts = sums[row * scales : (row + 1) * scales]
                total = rescaled(f, list(zip(parts, self.scales, strict=True)))
                take(tile.at(f, out, group.index, 4, 4 * row), total)

    def words(self, w: Val) -> list[Val]:
        """The dwords of the rows, which hold 4 bytes each."""
        return [self.f.load(WORD, self.tile.at(self.f, w, 4 * row), 4) for row in range(self.rows)]

    def codes(self, word: Val, at: int, mask: Val) -> Val:
        """Two codes of a dword, 16 bits apart, the first of which stands at bit `at`."""
        part = self.f.op("lshr", word, const(WORD, at)) if at else word
        return self.f.op("and", part, mask)

    def digits(self, rest: Val, mask: Val) -> tuple[Val, Val]:
        """The next codes of two fractions 16 bits apart, and three times what they leave."""
        triple = self.f.op("add", self.f.op("shl", rest, const(WORD, 1)), rest)
        return self.codes(triple, 8, mask), triple

    def pair_mask(self) -> Val:
        """What `codes` needs."""
        coding = self.tile.layout.coding
        return const(WORD, (3 if coding.is_fraction else coding.mask) * 0x10001)


class Pairs(Rows):
    """Two products a multiplication: (c0 + c1 * 2^16) * (x1 + x0 * 2^16), summed mod 2^32.

    The upper half is the sum of c0 * x0 + c1 * x1, less the borrow of a negative lower half, which
    is the sum of c0 * x1. Of u8 activations both halves are numbers without a sign, and `widen` is
    small enough for them, too: 65535 // 255 > 32768 // 128. The activations of some steps are made
    pairs once for all rows.
    """

    rows = 2

    def __init__(self, f: Function, tile: Tile):
        super().__init__(f, tile)
        if tile.target.is_thumb1:  # it has 8 registers
            self.rows = 1

    def kept(self) -> Parts:
        """The mask."""
        return (self.pair_mask(),)

    def unit(self, x: Val, w: Val, kept: Parts, sums: list[Val]) -> None:
        """A field at a time; the activations are pairs already."""
        f, tile = self.f, self.tile
        words = self.words(w)
        if tile.layout.coding.is_fraction:
            self._digits_of(x, words, kept[0], sums)
            return
        for number in range(2 * tile.layout.fields):
            field, odd = divmod(number, 2)
            pair = f.load(WORD, tile.at(f, x, 4 * number), 4)
            for row, word in enumerate(words):
                codes = self.codes(word, field * tile.layout.coding.bits + 8 * odd, kept[0])
                sums[row] = f.op("add", sums[row], f.op("mul", codes, pair))

    def _digits_of(self, x: Val, words: list[Val], mask: Val, sums: list[Val]) -> None:
        """A field at a time, of bytes 0 and 2 of the words and then of 1 and 3."""
        f, tile = self.f, self.tile
        for odd in (0, 1):
            rests = [self.bytes_of(word, odd) for word in words]
            for field in range(tile.layout.fields):
                pair = f.load(WORD, tile.at(f, x, 4 * (2 * field + odd)), 4)
                for row, rest in enumerate(rests):
                    codes, triple = self.digits(rest, mask)
                    rests[row] = self.bytes_of(triple, 0)
                    sums[row] = f.op("add", sums[row], f.op("mul", codes, pair))

    def bytes_of(self, word: Val, odd: int) -> Val:
        """Bytes 0 and 2 of a word, or 1 and 3, as halves of 16 bits."""
        part = self.f.op("lshr", word, const(WORD, 8)) if odd else word
        return self.f.op("and", part, const(WORD, 0x00FF00FF))

    @classmethod
    def routine(cls, tile: Tile) -> str:
        """How many pairs are made at a time tells functions apart, too."""
        return f"{super().routine(tile)}_{cls.chunk(tile)}"

    @staticmethod
    def chunk(tile: Tile) -> int:
        """Steps whose activations are made pairs at a time."""
        return min(tile.kernel.widen, tile.steps)

    def emit(self, x: Val, w: Val, out: Val, steps: Val) -> None:
        """The upper halves are added to sums of 32 bits as often as the kernel's data asks."""
        f, tile, layout = self.f, self.tile, self.tile.layout
        most = self.chunk(tile)
        pairs = f.alloca(WORD, most * layout.unit_k // 2, 4)
        with f.loop(tile.number(0), tile.number(layout.rows)) as row:
            f.store(const(WORD, 0), tile.at(f, out, row.index, 4), 4)

        def take(place: Val, sum: Val) -> None:
            sixteen = const(WORD, 16)
            if tile.unsigned:
                upper = f.op("lshr", sum, sixteen)
            else:
                low = f.op("ashr", f.op("shl", sum, sixteen), sixteen)
                upper = f.op("ashr", f.op("sub", sum, low), sixteen)
            f.store(f.op("add", f.load(WORD, place, 4), upper), place, 4)

        with f.loop(tile.number(0), steps, most) as chunk:
            rest, number = f.op("sub nsw", steps, chunk.index), tile.number(most)
            number = f.select(f.icmp("slt", rest, number), rest, number)
            self._pair(tile.at(f, x, chunk.index, tile.x_unit), number, pairs)
            first = tile.at(f, w, chunk.index, layout.unit_bytes)
            self.loop(pairs, 2 * layout.unit_k, first, number, out, take)

    def _pair(self, x: Val, steps: Val, pairs: Val) -> None:
        """x1 + x0 * 2^16 of the activations that meet `codes`, whatever the order of bytes."""
        f, tile = self.f, self.tile
        fields = f.op("mul nsw", steps, tile.number(tile.layout.fields))
        with f.loop(tile.number(0), fields) as field:
            dword = tile.at(f, x, field.index, 4)
            lanes = {tile.position(lane): tile.at(f, dword, lane) for lane in range(4)}
            bytes_ = {at: f.load("i8", p, 1) for at, p in lanes.items()}
            wide = {at: f.cast(tile.extends, byte, WORD) for at, byte in bytes_.items()}
            for number, at in enumerate((0, 8)):
                pair = f.op("add", f.op("shl", wide[at], const(WORD, 16)), wide[at + 16])
                f.store(pair, tile.at(f, pairs, field.index, 8, 4 * number), 4)


def rows_tile(kind: type[Rows], f: Function, tile: Tile, x: Val, w: Parts) -> Sums:
    """The sums as a vector."""
    out = f.alloca(WORD, tile.layout.rows, 4)
    kind.call(f, tile, x, w[0], out)
    return [[f.load(f"<{tile.layout.rows} x {WORD}>", out, 4)]]
