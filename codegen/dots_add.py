"""Integer dots of signs by additions alone: a bit keeps an activation or clears it.

A sign is one bit, so its product with an activation is a mask: what is kept is added to its
neighbour's and to a 16-bit sum, in three or four instructions for 16 weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from tbc.codegen.dots_portable import SixteenBytes
from tbc.codegen.dots_tile import Isa, Parts
from tbc.codegen.llvm_text import Function, Val, const


@dataclass(frozen=True)
class AddPairs(SixteenBytes):
    """Selects and adds.

    Attributes:
        pairs: the intrinsic that adds neighbouring bytes in i16.
        wide_pairs: the one that adds neighbouring i16 in i32.
    """

    pairs: str
    wide_pairs: str
    vector: int = 16
    prefetch: int = 0
    sums: tuple[str, ...] = ("<8 x i16>",)
    wide: tuple[str, ...] = ("<4 x i32>",)

    def field(self, f: Function, part: Val, shift: int, mask: int) -> Val:
        """All bits of a byte as the one that is asked for, which stays in its place."""
        assert mask == 1
        bit = f.op("and", part, const(part.type, 1 << shift))
        return f.cast("sext", f.icmp("ne", bit, const(part.type, 0)), part.type)

    def dot(self, f: Function, sums: Parts, w: Val, x: Val) -> Parts:
        """What is kept, in pairs, and sum."""
        kept = f.intrinsic(sums[0].type, self.pairs, f.op("and", w, x))
        return (f.op("add", sums[0], kept),)

    def widen(self, f: Function, wide: Parts, sums: Parts) -> Parts:
        """Neighbours added."""
        return (f.op("add", wide[0], f.intrinsic(wide[0].type, self.wide_pairs, sums[0])),)

    def rows(self, f: Function, wide: Parts) -> Val:
        """The sums: a lane is a row."""
        return wide[0]


_NEON32 = "llvm.arm.neon.vpaddls"
_WASM = "llvm.wasm.extadd.pairwise.signed"

ISAS: dict[str, Isa] = {
    "neon32add": AddPairs(f"{_NEON32}.v8i16.v16i8", f"{_NEON32}.v4i32.v8i16"),
    "wasmadd": AddPairs(f"{_WASM}.v8i16", f"{_WASM}.v4i32"),
}
