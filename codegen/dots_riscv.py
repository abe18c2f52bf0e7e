"""The dots of RISC-V's vectors: vwmaccsu, products of bytes added to 16-bit sums.

The vectors have a fixed length, that of a unit of weights. LLVM sets the length register to it and
takes as many registers as that needs where they are shortest (4 of VLEN = 128), so the code runs as
it stands on longer ones, which are merely not filled.
"""

from __future__ import annotations

from dataclasses import dataclass

from tbc.codegen.dots_portable import Wide
from tbc.codegen.dots_tile import Isa, Parts
from tbc.codegen.llvm_text import Function, Val, const


@dataclass(frozen=True)
class ByScalar(Wide):
    """vwmaccsu.vx: a byte lane is a row of weights, the activation a scalar register."""

    wide: tuple[str, ...] = ("<64 x i32>",)

    def activation(self, f: Function, row: Parts, field: int) -> Parts:
        """A byte; its repetition is part of the instruction."""
        byte = f.load("i8", f.offset(row[0], const("i32", field)), 1)
        return (f.splat(f.cast("sext", byte, "i16"), self.vector),)

    def widen(self, f: Function, wide: Parts, sums: Parts) -> Parts:
        """vwadd."""
        return (f.op("add", wide[0], f.cast("sext", sums[0], wide[0].type)),)

    def rows(self, f: Function, wide: Parts) -> Val:
        """The sums: a lane is a row."""
        return wide[0]


ISAS: dict[str, Isa] = {"rvv": Wide(), "rvvx": ByScalar(), "rvvx256": ByScalar()}
