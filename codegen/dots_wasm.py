"""The dots of WebAssembly: relaxed SIMD's dot product, and widened products without it."""

from __future__ import annotations

from dataclasses import dataclass

from tbc.codegen.dots_portable import SixteenBytes, Wide, field_of_words
from tbc.codegen.dots_tile import Isa, Parts
from tbc.codegen.llvm_text import Function, Val


@dataclass(frozen=True)
class Extend(Wide):
    """Bytes extended to i16, multiplied and added.

    i16x8.extmul is fewer instructions of WebAssembly, but slower on x86, which has no such
    (docs/kernels.md).
    """

    def field(self, f: Function, part: Val, shift: int, mask: int) -> Val:
        """By 16-bit shifts: x86 shifts no bytes."""
        return field_of_words(f, part, shift, mask)


@dataclass(frozen=True)
class RelaxedDot(SixteenBytes):
    """i32x4.relaxed_dot_i8x16_i7x16_add_s: 4 products of s8 and 7-bit numbers, added to an i32.

    What it leaves open, whether bit 7 of the second operand is a sign and whether two products may
    be more than 16 bits hold, does not arise: a weight in place is at most 64.
    """

    vector: int = 16
    prefetch: int = 0
    sums: tuple[str, ...] = ("<4 x i32>",)
    wide: tuple[str, ...] = ("<4 x i32>",)

    def field(self, f: Function, part: Val, shift: int, mask: int) -> Val:
        """By 16-bit shifts: x86 shifts no bytes."""
        return field_of_words(f, part, shift, mask)

    def dot(self, f: Function, sums: Parts, w: Val, x: Val) -> Parts:
        """The instruction."""
        name = "llvm.wasm.relaxed.dot.i8x16.i7x16.add.signed"
        return (f.intrinsic("<4 x i32>", name, x, w, sums[0]),)

    def widen(self, f: Function, wide: Parts, sums: Parts) -> Parts:
        """Not needed."""
        return sums

    def rows(self, f: Function, wide: Parts) -> Val:
        """The sums: a lane is a row."""
        return wide[0]


ISAS: dict[str, Isa] = {"simd128": Extend(), "relaxed": RelaxedDot()}
