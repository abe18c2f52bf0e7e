"""The dots of Cortex-M: smlad of the DSP extension, and vmlava of Helium (MVE)."""

from __future__ import annotations

from tbc.codegen.dots_scalar import WORD, Rows
from tbc.codegen.dots_tile import Parts
from tbc.codegen.llvm_text import Function, Val, const

_VECTOR = "<16 x i8>"


def halves_of(f: Function, dword: Val, odd: int, unsigned: bool) -> Val:
    """uxtb16 or sxtb16: bytes 0 and 2 of a dword as halves of 16 bits, or 1 and 3 if `odd` is 8."""
    if odd:
        dword = f.intrinsic(WORD, "llvm.fshr.i32", dword, dword, const(WORD, odd))
    return f.intrinsic(WORD, f"llvm.arm.{'u' if unsigned else 's'}xtb16", dword)


class Smlad(Rows):
    """smlad: two products of 16 bits, added to a sum of 32.

    The sums, the weights and what is made of them take nearly all registers. So Thumb-2 code reads
    a dword of activations twice, by volatile loads: of others LLVM makes one, and spills sums. In
    code for 32-bit Arm it is the other way round.

    `dword >> at & 0x00030003`, one instruction where the mask is in a register, is two trits, and
    sxtb16 (uxtb16) makes the same two bytes of a dword of activations halves of 16 bits.
    """

    rows = 4

    def kept(self) -> Parts:
        """The mask."""
        return (self.pair_mask(),)

    def unit(self, x: Val, w: Val, kept: Parts, sums: list[Val]) -> None:
        """A field at a time: bytes 0 and 2 of the dwords, then 1 and 3."""
        f, coding = self.f, self.tile.layout.coding
        if coding.is_fraction:
            self._digits_of(x, w, kept[0], sums)
            return
        words = self.words(w)
        for field in range(coding.fields):
            for odd in (0, 8):
                pair = self._pair(x, field, odd)
                for row, word in enumerate(words):
                    codes = self.codes(word, field * coding.bits + odd, kept[0])
                    sums[row] = f.intrinsic(WORD, "llvm.arm.smlad", codes, pair, sums[row])

    def _pair(self, x: Val, field: int, odd: int) -> Val:
        """Bytes 0 and 2 of a dword of activations as halves, or 1 and 3 where `odd` is 8."""
        f, tile = self.f, self.tile
        if tile.halves:
            return f.load(WORD, tile.at(f, x, 8 * field + odd // 2), 4)
        load = "load volatile" if tile.target.is_small else "load"
        dword = f.emit(WORD, f"{load} {WORD}, {tile.at(f, x, 4 * field)}, align 4")
        return halves_of(f, dword, odd, tile.unsigned)

    def _digits_of(self, x: Val, w: Val, mask: Val, sums: list[Val]) -> None:
        """A field at a time, of bytes 0 and 2 of the dwords; and all of it again, of 1 and 3."""
        f, tile = self.f, self.tile

        def read(place: Val, odd: int, unsigned: bool) -> Val:
            dword = f.emit(WORD, f"load volatile {WORD}, {place}, align 4")
            return halves_of(f, dword, odd, unsigned)

        for odd in (0, 8):
            places = [tile.at(f, w, 4 * row) for row in range(self.rows)]
            rests = [read(place, odd, True) for place in places]
            for field in range(tile.layout.fields):
                pair = read(tile.at(f, x, 4 * field), odd, tile.unsigned)
                for row, rest in enumerate(rests):
                    codes, triple = self.digits(rest, mask)
                    rests[row] = f.intrinsic(WORD, "llvm.arm.uxtb16", triple)
                    sums[row] = f.intrinsic(WORD, "llvm.arm.smlad", codes, pair, sums[row])


class Helium(Rows):
    """vmlava.s8 or .u8: 16 products of a row, added to a sum of 32 bits in an integer register."""

    rows = 2

    def unit(self, x: Val, w: Val, kept: Parts, sums: list[Val]) -> None:
        """A field at a time."""
        f, tile, scales = self.f, self.tile, len(self.scales)
        rows = [f.load(_VECTOR, tile.at(f, w, 16 * row), 16) for row in range(self.rows)]
        none, unsigned = const(WORD, 0), const(WORD, int(tile.unsigned))
        for number, (_, shift, scale) in enumerate(tile.fields):
            activations = f.load(_VECTOR, tile.at(f, x, 16 * number), 4)
            for row, part in enumerate(rows):
                if tile.layout.coding.is_fraction:
                    part, rows[row] = self._digit_of(part)
                if shift:
                    part = f.op("lshr", part, const(_VECTOR, shift))
                mask = tile.mask << scale
                if mask != 255 >> shift and not tile.layout.coding.is_fraction:
                    part = f.op("and", part, const(_VECTOR, mask))
                at = row * scales + self.scales.index(scale)
                name = "llvm.arm.mve.vmldava.v16i8"
                sums[at] = f.intrinsic(
                    WORD, name, unsigned, none, none, sums[at], part, activations
                )

    def _digit_of(self, rest: Val) -> tuple[Val, Val]:
        """The next codes of fractions, by vmulh.u8, and what they leave."""
        f, wide = self.f, "<16 x i16>"
        three = const(_VECTOR, 3)
        product = f.op("mul", f.cast("zext", rest, wide), const(wide, 3))
        upper = f.cast("trunc", f.op("lshr", product, const(wide, 8)), _VECTOR)
        return upper, f.op("mul", rest, three)
