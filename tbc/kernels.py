"""The low-bit dot kernels: what each one needs, how it sums, and what it costs. Pure data.

A kernel is a dot instruction (`Dot`), a code of weights and a register tile. `codegen.dots` emits
it; `meaning` is what it computes, with every sum as wide as the machine's, so that an overflow
shows as a wrong result.

Weights are read in place where that is free: field f of a byte, `(byte >> shift) & (mask << scale)`
with shift + scale = f's position, is a weight times 2^scale, and goes to a sum of its own that is
shifted down, exactly, at the end.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from tbc.dims import Dim, bounds
from tbc.errors import Unsupported
from tbc.layout import CODES, Layout
from tbc.types import DType

if TYPE_CHECKING:
    from tbc.target import Target

PANEL_ROWS = 128
"""Activation rows, at most, that pass over a panel before it is unpacked again."""

SMALLEST = "f5"
"""The code of trits where flash is scarce, which nothing else asks for."""

MANY = 64
"""From this many rows on, of activations or weights, one kernel is as good for all."""
WORTH = 0.96
"""A kernel takes over from another only where it costs less than this part of it."""

_I32 = (1 << 31) - 1


@dataclass(frozen=True)
class Dot:
    """sum[i] += the `products` neighbouring products w * x of lane i, w an unsigned code.

    Attributes:
        name: the key of `codegen.dots.EMITTERS`.
        activations: i8, or f32 for the dots that add and subtract under sign and zero masks.
        unsigned: whether it takes activations of u8 as well as of i8.
        arch: the architecture that has it, or None for any.
        requires: the features of LLVM that it needs.
        vector_bytes: the width of float vectors that the target must have; 4 is any.
        products: products added in one sum by one instruction.
        bits: the width of the sums.
        sums: sums of 16 rows of weights that a tile can hold in registers beside what it adds.
        scalable: whether its vectors are as long as the machine has them. Then a kernel's nr and
            cost are those of the shortest, of 16 bytes; longer ones take more blocks at once.
        reading: instructions, as costs count them, for which a core has time while it reads a byte
            of weights from memory, all cores reading. 0.31 was measured on a Sapphire Rapids: 2
            instructions and 6.5 bytes a cycle.
        tiles: whether it multiplies tile registers, which it does over panels only.
        rows: rows of weights in a block of its layout.
        lanes_k: neighbouring k of a row in its layout.
        multiplies: whether the target must have an instruction that multiplies.
    """

    name: str
    activations: DType = DType.i8
    arch: str | None = None
    requires: frozenset[str] = frozenset()
    vector_bytes: int = 4
    products: int = 1
    bits: int = 32
    sums: int = 4
    scalable: bool = False
    reading: float = 0.31
    tiles: bool = False
    rows: int = 16
    lanes_k: int = 4
    multiplies: bool = True
    unsigned: bool = False

    def runs_on(self, target: Target) -> bool:
        """Whether the target has what the dot needs."""
        arch = self.arch in (None, target.arch)
        wide = self.vector_bytes <= target.vector_bytes
        able = target.multiplies or not self.multiplies
        return arch and wide and able and self.requires <= target.features


class Field(NamedTuple):
    """A field as it is read, of a number of `Code.places`: (number >> shift) & (mask << scale)."""

    number: int
    shift: int
    scale: int


_WEIGHTS = {
    "i2": "trit",
    "x5": "trit5",
    "f5": "trit5",
    "b1": "sign",
    "q4": "int4",
    "w8": "int8",
    "s8": "int8",
    **dict.fromkeys(("u8", "u4"), "byte"),
}


@dataclass(frozen=True)
class Kernel:
    """A dot in a register tile of mr activation rows by nr blocks of weight rows.

    Attributes:
        dot: the instruction.
        code: the layout's code of weights: "i2", "x5", "f5", "b1", "q4", "w8" or "s8".
        mr: activation rows of the tile, at most; rows are divided into tiles as evenly as can be.
        nr: blocks of weight rows of the tile; blocks that are left over go one by one. Some cores
            have smaller tiles (`suited`).
        scales: how many field positions are read in place, at most, each into a sum of its own;
            tiles that leave no registers for so many sums shift fields down instead.
        cost: instructions of a tile's innermost loop a multiply-add, in vector code without loads
            and moves, which have ports of their own; a test counts them. Comparable on one target
            only.
        row_cost: the same for a tile of one row.
        panel: weights of a row that are unpacked at a time into a panel of bytes, which all
            activation rows use; 0 where every tile unpacks for itself, in registers.
        unpack_cost: instructions of unpacking into a panel, a weight.
    """

    dot: Dot
    code: str
    mr: int
    nr: int
    scales: int
    cost: float
    row_cost: float
    panel: int = 0
    unpack_cost: float = 0.0

    @property
    def name(self) -> str:
        """`{trit, trit5, sign, int4 or int8}_{gemv, gemm or panel}_{mr}x{nr}c{lanes_k}_{dot}`."""
        weight = _WEIGHTS[self.code]
        shape = "panel" if self.panel else "gemv" if self.mr == 1 else "gemm"
        kr = 1 if self.activations is DType.f32 else self.dot.lanes_k
        return f"{weight}_{shape}_{self.mr}x{self.nr}c{kr}_{self.dot.name}"

    def layout(self, group: int = 0) -> Layout:
        """How its weights lie in memory."""
        return Layout(self.code, group, self.dot.rows, self.dot.lanes_k)

    @property
    def on_bytes(self) -> Kernel:
        """What goes over a panel: the same tile, of weights that are bytes."""
        return replace(self, code="u4" if self.code == "q4" else "u8", panel=0)

    @property
    def has_tiles(self) -> bool:
        """Whether it multiplies tile registers."""
        return self.dot.tiles

    @property
    def activations(self) -> DType:
        """i8 or f32."""
        return self.dot.activations

    @property
    def shape(self) -> tuple[int, int]:
        """The rows and the neighbouring k of its layout."""
        return self.dot.rows, self.dot.lanes_k

    @property
    def arch(self) -> str | None:
        """The architecture, or None for any."""
        return self.dot.arch

    @property
    def requires(self) -> frozenset[str]:
        """The features of LLVM that it needs."""
        return self.dot.requires

    def takes(self, activations: DType) -> bool:
        """Whether it multiplies activations of a type."""
        unsigned = self.dot.unsigned and activations is DType.u8
        return activations is self.activations or unsigned

    def fits(self, target: Target, k: int, group: int = 0) -> bool:
        """Whether a target has it, for rows of k weights in groups of so many, 0 for none."""
        return (
            self.dot.runs_on(target)
            and k <= self.max_k
            and (not group or self.does_groups(group))
            and not (self.panel and target.os == "windows")  # stacks grow by a helper's pages
        )

    def suited(self, target: Target) -> Kernel:
        """With fewer blocks in a tile where cores read fewer runs of memory at once.

        In tiles of few rows only: taller ones compute longer than they read, as floats do.
        """
        waits = self.mr <= 4 and self.activations is DType.i8 and not self.panel
        return replace(self, nr=min(self.nr, target.streams)) if waits else self

    def does_groups(self, group: int) -> bool:
        """Whether rows may have a scale for each group of so many weights."""
        return not (self.has_tiles or self.dot.scalable or 0 < self.panel < group)

    def scales_of(self, rows: int) -> int:
        """How many field positions a tile of some activation rows reads in place."""
        return max(min(self.scales, self.dot.sums // (rows * self.nr)), 1)

    def rows_cost(self, m: int) -> float:
        """Instructions for m activation rows, a weight."""
        once = (self.row_cost - self.cost) * self.mr / max(self.mr - 1, 1)
        unpacked = -(-m // PANEL_ROWS) * self.unpack_cost
        return round(unpacked + -(-m // self.mr) * once + m * (self.row_cost - once), 9)

    def fields(self, rows: int) -> tuple[Field, ...]:
        """How a tile of some rows reads every field of a byte."""
        scales, coding = self.scales_of(rows), CODES[self.code]
        numbers = Counter(number for number, _ in coding.places)

        def read(number: int, bit: int) -> Field:
            shift = bit // coding.bits // scales * scales * coding.bits
            if shift and numbers[number] == 1:  # no other field shares the shift
                shift = bit
            return Field(number, shift, bit - shift)

        return tuple(read(number, bit) for number, bit in coding.places)

    def _largest(self, products: int) -> int:
        """The greatest magnitude that a step can add to a sum, `products` of them a field."""
        product = 128 * CODES[self.code].largest * products
        sums: Counter[tuple[int, int]] = Counter()
        for rows in range(1, self.mr + 1):
            for field in self.fields(rows):
                sums[rows, field.scale] += product << field.scale
        return max(sums.values())

    @property
    def widen(self) -> int:
        """Steps after which 16-bit sums must be widened; 0 where the sums have 32 bits.

        32768 // the greatest magnitude a step adds; for trits that are all shifted down,
        32768 // (256 * products a lane a step).
        """
        return 0 if self.dot.bits == 32 else 32768 // self._largest(self.dot.products)

    @property
    def max_k(self) -> int:
        """The greatest K whose sums are sure to fit in 32 bits."""
        if self.activations is DType.f32:
            return _I32
        unit = self.layout()
        x = 255 if self.dot.unsigned else 128
        fields = unit.fields * unit.lanes_k * x * unit.coding.largest
        return _I32 // max(fields, self._largest(unit.lanes_k)) * unit.unit_k


def _features(names: str) -> frozenset[str]:
    return frozenset(names.split())


_SSE2 = Dot("sse2", arch="x86", requires=_features("sse2"), products=2)
_MADDWD256 = replace(_SSE2, name="maddwd256", requires=_features("avx2"))
_MADDWD512 = replace(_SSE2, name="maddwd512", requires=_features("avx512bw"), sums=18)
_SSSE3 = Dot("ssse3", arch="x86", requires=_features("ssse3"), products=2, bits=16)
_AVX2 = Dot("avx2", arch="x86", requires=_features("avx2"), products=2, bits=16, sums=8)
_AVX512 = Dot("avx512bw", arch="x86", requires=_features("avx512bw"), products=2, bits=16, sums=18)
_AVXVNNI = Dot("avxvnni", arch="x86", requires=_features("avxvnni"), products=4)
_VNNI512 = Dot(
    "vnni512", arch="x86", requires=_features("avx512vnni avx512bw"), products=4, sums=18
)
_VBMI512 = Dot(
    "vbmi512",
    arch="x86",
    requires=_features("avx512vbmi avx512vnni avx512bw"),
    products=4,
    sums=18,
)
_AMX = Dot("amx", arch="x86", requires=_features("amx-int8 avx512bw"), products=4, tiles=True)
_AMX_VBMI = replace(_AMX, name="amxvbmi", requires=_features("amx-int8 avx512bw avx512vbmi"))
# By data sheets, not measured: 2 to 4 instructions a cycle in cores that share their memory are 1.1
# instructions a byte (Apple M1) to 2 (Cortex-A72, Neoverse); 0.2 to 0.5 for a core that is alone.
_NEON = Dot("neon", arch="aarch64", requires=_features("neon"), bits=16, reading=1.2)
_DOTPROD = replace(_NEON, name="neondot", requires=_features("dotprod"), products=4, bits=32)
_I8MM = replace(_DOTPROD, name="i8mm", requires=_features("i8mm"))
_SVE = replace(_DOTPROD, name="sve", requires=_features("sve"), scalable=True)
_SVE_I8MM = replace(_SVE, name="svei8mm", requires=_features("sve i8mm"))
_NEON32 = Dot("neon32", arch="arm", requires=_features("neon"), bits=16)
_RVV = Dot("rvv", arch="riscv", requires=_features("zve32x zvl128b"), bits=16)
_RVVX = replace(_RVV, name="rvvx", rows=64, lanes_k=1)
_RVVX256 = replace(_RVVX, name="rvvx256", requires=_features("zve32x zvl256b"))
_NEON32_ADD = replace(_NEON32, name="neon32add", products=2)
_SIMD128 = Dot("simd128", arch="wasm", requires=_features("simd128"), bits=16)
_RELAXED = Dot("relaxed", arch="wasm", requires=_features("relaxed-simd"), products=4)
_WASM_ADD = replace(_SIMD128, name="wasmadd", products=2)
_WIDE = Dot("wide", vector_bytes=16, bits=16)
_HELIUM = Dot(
    "helium", arch="arm", requires=_features("mve"), products=16, lanes_k=16, unsigned=True
)
_SMLAD = Dot("smlad", arch="arm", requires=_features("dsp"), products=4, unsigned=True)
_PAIRS = Dot("pairs", arch="arm", products=4, bits=16, unsigned=True)
_SCALAR = Dot("scalar", products=4, bits=16, unsigned=True)
_LOOKUP = Dot("lookup", multiplies=False, unsigned=True)
_F32X4 = Dot("f32x4", DType.f32, vector_bytes=16)
_F32AVX2 = Dot("f32avx2", DType.f32, arch="x86", requires=_features("avx2"), vector_bytes=32)
_F32X8 = Dot("f32x8", DType.f32, vector_bytes=32)
_F32X16 = Dot("f32x16", DType.f32, vector_bytes=64)
_F32 = Dot("f32", DType.f32, multiplies=False)

_Tile: TypeAlias = tuple[int, int, float] | tuple[int, int, float, float]
"""mr, nr, cost, and the cost of a tile of one row if it is not that of the table row's first."""

_TABLE: tuple[tuple[Dot, str, int, tuple[_Tile, ...]], ...] = (
    # dot, code, scales, (mr, nr, cost) of the kernel for one row, then of those for more;
    # those that read fields otherwise have a row of their own
    (_VNNI512, "i2", 4, ((1, 4, 0.0352), (4, 4, 0.0234), (8, 3, 0.0197))),
    (_VNNI512, "b1", 4, ((1, 4, 0.0352), (4, 4, 0.0234), (8, 3, 0.0196))),
    (_VBMI512, "x5", 4, ((1, 4, 0.0477), (4, 4, 0.0268), (8, 2, 0.0217))),
    (_AVXVNNI, "i2", 4, ((1, 4, 0.0898), (2, 2, 0.0625), (6, 1, 0.043))),
    (_AVXVNNI, "b1", 4, ((1, 4, 0.0918), (2, 2, 0.0625), (6, 1, 0.0423))),
    (_AVX512, "i2", 2, ((1, 4, 0.0547), (4, 4, 0.0391), (8, 3, 0.0353))),
    (_AVX512, "b1", 2, ((1, 4, 0.0547), (4, 4, 0.0391), (8, 3, 0.0352))),
    (_AVX2, "i2", 2, ((1, 4, 0.106),)),
    (_AVX2, "i2", 1, ((2, 2, 0.0938, 0.125), (5, 1, 0.0784, 0.133))),
    (_AVX2, "b1", 2, ((1, 4, 0.107),)),
    (_AVX2, "b1", 1, ((2, 2, 0.0938, 0.125), (5, 1, 0.0776, 0.129))),
    (_SSSE3, "i2", 1, ((1, 1, 0.266), (2, 1, 0.203))),
    (_SSSE3, "b1", 1, ((1, 1, 0.266), (2, 1, 0.203))),
    (_SSE2, "i2", 1, ((1, 1, 0.527), (2, 1, 0.41))),
    (_SSE2, "b1", 1, ((1, 1, 0.535), (2, 1, 0.414))),
    (_VNNI512, "w8", 1, ((1, 4, 0.0312), (4, 4, 0.0195), (8, 3, 0.0182))),
    (_AVXVNNI, "w8", 1, ((1, 4, 0.0469), (2, 2, 0.0469, 0.0625), (6, 1, 0.0417, 0.0938))),
    (_MADDWD512, "w8", 1, ((1, 1, 0.145), (8, 1, 0.104))),
    (_MADDWD256, "w8", 1, ((1, 1, 0.238), (4, 1, 0.18))),
    (_SSE2, "w8", 1, ((1, 1, 0.434), (2, 1, 0.363))),
    (_I8MM, "w8", 1, ((1, 1, 0.0781), (4, 1, 0.0684))),
    (_DOTPROD, "s8", 1, ((1, 1, 0.0781), (4, 1, 0.0674))),
    (_VNNI512, "q4", 2, ((1, 4, 0.0391), (4, 4, 0.0234), (8, 3, 0.0199))),
    (_AVXVNNI, "q4", 1, ((1, 4, 0.0859), (2, 2, 0.0625), (6, 1, 0.0443, 0.109))),
    (_AVX512, "q4", 1, ((1, 4, 0.0625), (4, 4, 0.0391), (8, 3, 0.0355))),
    (_AVX2, "q4", 1, ((1, 4, 0.117), (2, 2, 0.0938, 0.125), (5, 1, 0.0781, 0.141))),
    (_SSSE3, "q4", 1, ((1, 1, 0.266), (2, 1, 0.203))),
    (_SSE2, "q4", 1, ((1, 1, 0.496), (2, 1, 0.394))),
    (_I8MM, "q4", 2, ((1, 1, 0.141), (4, 1, 0.0791))),
    (_DOTPROD, "q4", 1, ((1, 1, 0.141), (4, 1, 0.083))),
    (_NEON, "q4", 1, ((1, 1, 0.219), (2, 1, 0.182))),
    (_RELAXED, "q4", 1, ((1, 1, 0.234), (4, 1, 0.117))),
    (_SIMD128, "q4", 1, ((1, 1, 0.539), (4, 1, 0.346))),
    (_NEON32, "q4", 1, ((1, 1, 0.273),)),
    (_WIDE, "q4", 1, ((1, 1, 0.555), (2, 1, 0.434))),
    (_SVE_I8MM, "i2", 3, ((1, 1, 0.137),)),
    (_SVE_I8MM, "b1", 3, ((1, 1, 0.146),)),
    (_SVE, "i2", 3, ((1, 1, 0.137), (4, 1, 0.0908))),
    (_SVE, "b1", 3, ((1, 1, 0.146), (4, 1, 0.0933))),
    (_I8MM, "i2", 4, ((1, 1, 0.137), (4, 1, 0.0742))),
    (_I8MM, "b1", 4, ((1, 1, 0.141), (4, 1, 0.0918))),
    (_I8MM, "x5", 2, ((1, 1, 0.212), (4, 1, 0.0957))),
    (_DOTPROD, "i2", 3, ((1, 1, 0.137), (4, 1, 0.0898))),
    (_DOTPROD, "b1", 4, ((1, 1, 0.141), (4, 1, 0.0918))),
    (_DOTPROD, "x5", 2, ((1, 1, 0.212), (4, 1, 0.111))),
    (_NEON, "i2", 1, ((1, 1, 0.246), (2, 1, 0.195))),
    (_NEON, "b1", 1, ((1, 1, 0.258), (2, 1, 0.199))),
    (_NEON, "x5", 1, ((1, 1, 0.316), (2, 1, 0.241))),
    (_NEON32, "i2", 1, ((1, 1, 0.383),)),
    (_NEON32, "b1", 1, ((1, 1, 0.504),)),
    (_RVVX256, "i2", 1, ((1, 2, 0.0508), (4, 1, 0.0264))),
    (_RVVX256, "b1", 1, ((1, 2, 0.0488), (4, 1, 0.0249))),
    (_RVVX, "i2", 1, ((1, 1, 0.0586), (2, 1, 0.0371))),
    (_RVVX, "b1", 1, ((1, 1, 0.0527), (2, 1, 0.0342))),
    (_RVV, "i2", 1, ((1, 2, 0.0742),)),
    (_RVV, "b1", 1, ((1, 2, 0.0723),)),
    (_RELAXED, "i2", 3, ((1, 1, 0.188), (4, 1, 0.113))),
    (_RELAXED, "b1", 3, ((1, 1, 0.172), (4, 1, 0.111))),
    (_SIMD128, "i2", 1, ((1, 1, 0.535), (4, 1, 0.345))),
    (_SIMD128, "b1", 1, ((1, 1, 0.533), (4, 1, 0.344))),
    (_NEON32_ADD, "b1", 1, ((1, 1, 0.322),)),
    (_WASM_ADD, "b1", 1, ((1, 1, 0.344), (4, 1, 0.238))),
    (_WIDE, "i2", 1, ((1, 1, 0.551), (2, 1, 0.434))),
    (_WIDE, "b1", 1, ((1, 1, 0.564), (2, 1, 0.436))),
    (_HELIUM, "i2", 3, ((1, 1, 0.18),)),
    (_HELIUM, "f5", 1, ((1, 1, 0.225),)),
    (_HELIUM, "b1", 2, ((1, 1, 0.191),)),
    (_SMLAD, "i2", 1, ((1, 1, 1.36),)),
    (_SMLAD, "f5", 1, ((1, 1, 2.41),)),
    (_SMLAD, "b1", 1, ((1, 1, 1.32),)),
    (_PAIRS, "i2", 1, ((1, 1, 1.34),)),
    (_PAIRS, "f5", 1, ((1, 1, 2.43),)),
    (_PAIRS, "b1", 1, ((1, 1, 1.3),)),
    (_SCALAR, "i2", 1, ((1, 1, 2.41),)),
    (_SCALAR, "f5", 1, ((1, 1, 3.95),)),
    (_SCALAR, "b1", 1, ((1, 1, 2.83),)),
    (_LOOKUP, "i2", 1, ((1, 1, 3.59),)),
    (_LOOKUP, "b1", 1, ((1, 1, 2.04),)),
    (_F32X16, "i2", 1, ((1, 4, 0.281), (4, 2, 0.184))),
    (_F32X16, "b1", 1, ((1, 4, 0.219), (4, 2, 0.164))),
    (_F32AVX2, "i2", 1, ((1, 4, 0.438), (4, 1, 0.422))),
    (_F32AVX2, "b1", 1, ((1, 4, 0.406), (4, 1, 0.359))),
    (_F32X8, "i2", 1, ((1, 2, 0.938), (4, 1, 0.523))),
    (_F32X8, "b1", 1, ((1, 2, 0.531), (4, 1, 0.328))),
    (_F32X4, "i2", 1, ((1, 1, 1.94), (2, 1, 1.38))),
    (_F32X4, "b1", 1, ((1, 1, 1.12), (2, 1, 0.844))),
    (_F32, "i2", 1, ((1, 1, 7.5),)),
    (_F32, "b1", 1, ((1, 1, 4.25),)),
)

_PANELS = (
    # dot, code, mr, nr, cost, row_cost, panel, unpack_cost; what AMX costs beside vpdpbusd is not
    # counted, but from times of a Sapphire Rapids: 1.4 times as fast at 8 rows, 4 times at 128
    (_AMX, "i2", 32, 2, 0.0046, 0.0627, 640, 0.043),
    (_AMX, "b1", 32, 2, 0.0046, 0.0627, 640, 0.045),
    (_AMX_VBMI, "x5", 32, 2, 0.0046, 0.0627, 640, 0.056),
    (_AMX, "q4", 32, 2, 0.0046, 0.0627, 640, 0.039),
    (_VNNI512, "i2", 8, 3, 0.0182, 0.0365, 320, 0.043),
    (_VNNI512, "b1", 8, 3, 0.0182, 0.0365, 320, 0.045),
    (_VBMI512, "x5", 8, 3, 0.0182, 0.0365, 320, 0.056),
    (_VNNI512, "q4", 8, 3, 0.0182, 0.0365, 320, 0.039),
    (_AVXVNNI, "i2", 6, 1, 0.0417, 0.0938, 512, 0.086),
    (_AVXVNNI, "b1", 6, 1, 0.0417, 0.0938, 512, 0.09),
    (_AVXVNNI, "q4", 6, 1, 0.0417, 0.0938, 512, 0.078),
    (_AVX2, "i2", 6, 1, 0.0729, 0.125, 512, 0.086),
    (_AVX2, "b1", 6, 1, 0.0729, 0.125, 512, 0.09),
    (_AVX2, "q4", 6, 1, 0.0729, 0.125, 512, 0.078),
    (_I8MM, "i2", 6, 1, 0.0384, 0.0859, 320, 0.164),
    (_I8MM, "b1", 6, 1, 0.0384, 0.0859, 320, 0.178),
    (_I8MM, "x5", 6, 1, 0.0384, 0.0859, 320, 0.219),
    (_I8MM, "q4", 6, 1, 0.0384, 0.0859, 320, 0.172),
    (_DOTPROD, "i2", 5, 1, 0.0664, 0.0781, 320, 0.141),
    (_DOTPROD, "b1", 5, 1, 0.0664, 0.0781, 320, 0.148),
    (_DOTPROD, "x5", 5, 1, 0.0664, 0.0781, 320, 0.2),
    (_DOTPROD, "q4", 5, 1, 0.0664, 0.0781, 320, 0.125),
    (_NEON, "i2", 2, 1, 0.15, 0.156, 320, 0.141),
    (_NEON, "b1", 2, 1, 0.15, 0.156, 320, 0.148),
    (_NEON, "x5", 2, 1, 0.15, 0.156, 320, 0.194),
    (_NEON, "q4", 2, 1, 0.15, 0.156, 320, 0.125),
)

KERNELS: tuple[Kernel, ...] = (
    *(
        Kernel(dot, code, mr, nr, scales, cost, row[0] if row else tiles[0][2])
        for dot, code, scales, tiles in _TABLE
        for mr, nr, cost, *row in tiles
    ),
    *(
        Kernel(dot, code, mr, nr, 1, cost, row_cost, panel, unpack)
        for dot, code, mr, nr, cost, row_cost, panel, unpack in _PANELS
    ),
)
BY_NAME: dict[str, Kernel] = {kernel.name: kernel for kernel in KERNELS}


def kernels_for(
    target: Target, code: str, activations: DType, k: int = 0, group: int = 0
) -> list[Kernel]:
    """Those that a target has for weights in a code, rows of k and groups of so many."""
    return [
        kernel
        for kernel in KERNELS
        if kernel.code == code and kernel.takes(activations) and kernel.fits(target, k, group)
    ]


def takes_unsigned(target: Target) -> bool:
    """Whether all low-bit dots that a target has for i8 activations take u8, too."""
    dots = (k.dot for k in KERNELS if k.layout().dtype.is_weight and k.activations is DType.i8)
    return all(dot.unsigned for dot in dots if dot.runs_on(target))


def is_code_of(target: Target, code: str, activations: DType) -> bool:
    """Whether a target has kernels for weights in a code."""
    return bool(kernels_for(target, code, activations))


def dense_code(target: Target, k: int, weights: DType = DType.i8, group: int = 0) -> str:
    """The code in which a target multiplies rows of k integers i8 or i4; "" where it has none.

    With a group, so many weights along k have one scale.
    """
    codes = ("q4",) if weights is DType.i4 else ("w8", "s8")
    return next((code for code in codes if kernels_for(target, code, DType.i8, k, group)), "")


def streamed_cost(
    target: Target,
    layout: Layout,
    activations: DType,
    m: int,
    n: int,
    k: int,
    *,
    is_read: bool = True,
) -> float:
    """Instructions a weight, for m activation rows, where w[n, k] comes from memory.

    Reading is counted as the instructions that its time would be enough for, unless the weights
    are in a cache (not `is_read`). Infinite where the target has no kernel for the layout's code.
    """
    read = layout.size(n, k) / (n * k) if is_read else 0.0
    found = kernels_for(target, layout.code, activations, group=layout.group)
    costs = (max(kernel.rows_cost(m), kernel.dot.reading * read) for kernel in found)
    return min(costs, default=math.inf)


def choose(
    target: Target,
    code: str,
    activations: DType,
    m: Dim,
    k: int,
    n: int = MANY,
    group: int = 0,
    shape: tuple[int, int] | None = None,
) -> tuple[Kernel, ...]:
    """The kernels of a dot of m activation rows, each the cheapest for some numbers of rows.

    Where m is no number, those up to `MANY` are looked at, and the greatest. All have one layout:
    that of the kernel which is cheapest for the least m and n rows of weights, padding included.

    Args:
        group: weights of one scale along k, 0 where a row has one scale.
        shape: the rows and the neighbouring k of the layout, where it is given.

    Raises:
        Unsupported: the sums of k products need not fit in any kernel.
    """
    fit = [
        kernel
        for kernel in kernels_for(target, code, activations, k, group)
        if shape in (None, kernel.shape)
    ]
    if not fit:
        raise Unsupported(f"a sum of {k} products may overflow 32 bits")
    least, most = row_bounds(m)
    best = min(fit, key=lambda kernel: kernel.rows_cost(least) * kernel.layout(group).size(n, k))
    fit = [kernel for kernel in fit if kernel.shape == best.shape]
    return tuple(kernel for _, kernel in by_rows(fit, least, most))


def starts(kernels: Sequence[Kernel], m: Dim) -> tuple[int, ...]:
    """From which numbers of rows on each of `choose`'s kernels but the first is the cheapest."""
    return tuple(start for start, _ in by_rows(kernels, *row_bounds(m))[1:])


def row_bounds(m: Dim) -> tuple[int, int]:
    """The least and the greatest number of rows that a choice looks at."""
    least, most = (int(min(b, 1 << 16)) or 1 for b in bounds(m))
    return least, most


def by_rows(kernels: Sequence[Kernel], least: int, most: int) -> list[tuple[int, Kernel]]:
    """(rows, kernel): the kernel that is cheapest from that many rows on, rows ascending.

    The first is for `least` rows and fewer. Of those that cost about the same the one before stays
    or, if that is dearer, the first in `kernels` is taken: it reads more streams at once.
    """
    found: list[tuple[int, Kernel]] = []
    for m in [*range(least, min(most, MANY)), most]:
        enough = min(kernel.rows_cost(m) for kernel in kernels) / WORTH
        if not found or found[-1][1].rows_cost(m) > enough:
            found.append((m, next(k for k in kernels if k.rows_cost(m) <= enough)))
    return found


def meaning(
    kernel: Kernel, layout: Layout, packed: npt.NDArray[np.uint8], x: npt.NDArray[Any], rows: int
) -> npt.NDArray[Any]:
    """raw[m, rows of all blocks]: what the kernel computes in tiles of `rows` activation rows.

    Args:
        kernel: the kernel.
        layout: of the weights; one group.
        packed: the weights' bytes.
        x: i8 or f32 [m, padded k].
        rows: from 1 to `kernel.mr`.
    """
    m = len(x)
    steps = x.shape[1] // layout.unit_k
    units = packed.reshape(-1, steps, 1, layout.unit_bytes)
    xs = x.reshape(m, 1, steps, layout.fields, layout.lanes_k)
    if x.dtype == np.float32:
        return _float_meaning(layout, units[:, :, 0], xs)
    bytes_x = np.tile(xs.astype(np.int32), layout.rows)
    codes = layout.coding.numbers(layout.coding.words[units])
    dtype = np.int16 if kernel.dot.bits == 16 else np.int32

    def terms(step: int, field: int, scale: int) -> npt.NDArray[np.int32]:
        w = codes[:, step, 0, :, field] << scale
        products = w * bytes_x[:, :, step, field]
        lanes = products.reshape(*products.shape[:2], -1, kernel.dot.products).sum(-1)
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        saturated: npt.NDArray[np.int32] = np.clip(lanes, low, high)  # as pmaddubsw does
        return saturated

    lanes = (m, len(units), layout.unit_bytes // kernel.dot.products)
    wide = np.zeros((8, m, len(units), layout.rows), np.int32)
    for start in range(0, steps, kernel.widen or steps):
        sums = np.zeros((8, *lanes), dtype)
        for step in range(start, min(start + (kernel.widen or steps), steps)):
            for field, (_, _, scale) in enumerate(kernel.fields(rows)):
                sums[scale] += terms(step, field, scale).astype(dtype)
        wide += sums.reshape(*wide.shape, -1).sum(-1, dtype=np.int32)
    total = wide[0]
    for s in range(1, 8):
        total = total + (wide[s] >> s)
    return np.reshape(total, (m, -1))


def _float_meaning(
    layout: Layout, units: npt.NDArray[np.uint8], xs: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """The sum, serial in k, of x's bits with the sign flipped by -1 and all cleared by 0."""
    m, bits = len(xs), layout.coding.bits
    dwords = units.reshape(*units.shape[:2], layout.rows, layout.lanes_k)
    total = np.zeros((m, len(units), layout.rows), np.float32)
    for step in range(units.shape[1]):
        for f in range(layout.fields):
            for j in range(layout.lanes_k):
                code = dwords[:, step, :, j] >> f * bits & (1 << bits) - 1
                flip = np.where(code >> bits - 1 == 0, 1 << 31, 0).astype(np.uint32)
                zero = (code == 1) & (layout.code == "i2")
                x = xs[:, 0, step, f, j, None, None].view(np.uint32)
                total = total + np.where(zero, 0, x ^ flip).astype(np.uint32).view(np.float32)
    return total.reshape(m, -1)
