"""The low-bit dot kernels: what each one needs, how it sums, and what it costs. Pure data.

A kernel is a dot instruction (`Dot`), a code of weights and a register tile. `codegen.dots` emits
it; `meaning` is what it computes, with every sum as wide as the machine's, so that an overflow
shows as a wrong result.

Weights are read in place where that is free: field f of a byte, `(byte >> shift) & (mask << scale)`
with shift + scale = f's position, is a weight times 2^scale, and goes to a sum of its own that is
shifted down, exactly, at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tbc.dims import Dim, bounds
from tbc.errors import Unsupported
from tbc.layout import FIELD_BITS, Layout
from tbc.types import DType

if TYPE_CHECKING:
    from tbc.target import Target

MAX_CODE = {"i2": 2, "b1": 1}
"""The greatest stored code of a weight."""

_I32 = (1 << 31) - 1


@dataclass(frozen=True)
class Dot:
    """sum[i] += the `products` neighbouring products w * x of lane i, w an unsigned code.

    Attributes:
        name: the key of `codegen.dots.EMITTERS`.
        activations: i8, or f32 for the dots that add and subtract under sign and zero masks.
        arch: the architecture that has it, or None for any.
        requires: the features of LLVM that it needs.
        vector_bytes: the width of float vectors that the target must have; 4 is any.
        products: products added in one sum by one instruction.
        bits: the width of the sums.
    """

    name: str
    activations: DType = DType.i8
    arch: str | None = None
    requires: frozenset[str] = frozenset()
    vector_bytes: int = 4
    products: int = 1
    bits: int = 32

    def runs_on(self, target: Target) -> bool:
        """Whether the target has what the dot needs."""
        arch = self.arch in (None, target.arch)
        wide = self.vector_bytes <= target.vector_bytes
        return arch and wide and self.requires <= target.features


@dataclass(frozen=True)
class Kernel:
    """A dot in a register tile of mr activation rows by nr blocks of 16 weight rows.

    Attributes:
        dot: the instruction.
        code: the layout's code of weights, "i2" or "b1".
        mr: activation rows of the tile; rows that are left over go one by one.
        nr: blocks of 16 weight rows of the tile; blocks that are left over go one by one.
        scales: how many field positions are read in place, each into a sum of its own; 1 where
            all are shifted down.
        row_scales: the same for the rows that go one by one.
        cost: instructions of the innermost loop a multiply-add, without loads and moves, which
            have ports of their own; a test counts them. Comparable on one target only.
        row_cost: the same for the rows that go one by one.
    """

    dot: Dot
    code: str
    mr: int
    nr: int
    scales: int
    row_scales: int
    cost: float
    row_cost: float

    @property
    def name(self) -> str:
        """`{trit or sign}_{gemv or gemm}_{mr}x{nr}c{neighbouring k}_{dot}`."""
        weight = "trit" if self.code == "i2" else "sign"
        shape = "gemv" if self.mr == 1 else "gemm"
        kr = 1 if self.activations is DType.f32 else 4
        return f"{weight}_{shape}_{self.mr}x{self.nr}c{kr}_{self.dot.name}"

    @property
    def activations(self) -> DType:
        """i8 or f32."""
        return self.dot.activations

    @property
    def arch(self) -> str | None:
        """The architecture, or None for any."""
        return self.dot.arch

    @property
    def requires(self) -> frozenset[str]:
        """The features of LLVM that it needs."""
        return self.dot.requires

    def fields(self, scales: int) -> tuple[tuple[int, int], ...]:
        """(shift, scale) of every field of a byte where `scales` positions are read in place."""
        bits = FIELD_BITS[self.code]
        return tuple((f // scales * scales * bits, f % scales * bits) for f in range(8 // bits))

    def _largest(self, scales: int, products: int) -> int:
        """The greatest magnitude that a step can add to a sum, `products` of them a field."""
        product = 128 * MAX_CODE[self.code] * products
        sums = [0] * 8
        for _, scale in self.fields(scales):
            sums[scale] += product << scale
        return max(sums)

    @property
    def widen(self) -> int:
        """Steps after which 16-bit sums must be widened; 0 where the sums have 32 bits.

        32768 // the greatest magnitude a step adds; for trits that are all shifted down,
        32768 // (256 * products a lane a step).
        """
        if self.dot.bits == 32:
            return 0
        each = (self._largest(s, self.dot.products) for s in (self.scales, self.row_scales))
        return 32768 // max(each)

    @property
    def max_k(self) -> int:
        """The greatest K whose sums are sure to fit in 32 bits."""
        if self.activations is DType.f32:
            return _I32
        unit = Layout(self.code)
        fields = unit.fields * unit.lanes_k * 128 * MAX_CODE[self.code]
        each = (self._largest(s, unit.lanes_k) for s in (self.scales, self.row_scales))
        return _I32 // max(fields, *each) * unit.unit_k


def _features(names: str) -> frozenset[str]:
    return frozenset(names.split())


_SSE2 = Dot("sse2", arch="x86", requires=_features("sse2"), products=2)
_SSSE3 = Dot("ssse3", arch="x86", requires=_features("ssse3"), products=2, bits=16)
_AVX2 = Dot("avx2", arch="x86", requires=_features("avx2"), products=2, bits=16)
_AVX512 = Dot("avx512bw", arch="x86", requires=_features("avx512bw"), products=2, bits=16)
_AVXVNNI = Dot("avxvnni", arch="x86", requires=_features("avxvnni"), products=4)
_VNNI512 = Dot("vnni512", arch="x86", requires=_features("avx512vnni avx512bw"), products=4)
_NEON = Dot("neon", arch="aarch64", requires=_features("neon"), bits=16)
_DOTPROD = Dot("neondot", arch="aarch64", requires=_features("dotprod"), products=4)
_NEON32 = Dot("neon32", arch="arm", requires=_features("neon"), bits=16)
_WIDE = Dot("wide", vector_bytes=16, bits=16)
_SCALAR = Dot("scalar")
_F32X4 = Dot("f32x4", DType.f32, vector_bytes=16)
_F32AVX2 = Dot("f32avx2", DType.f32, arch="x86", requires=_features("avx2"), vector_bytes=32)
_F32X8 = Dot("f32x8", DType.f32, vector_bytes=32)
_F32X16 = Dot("f32x16", DType.f32, vector_bytes=64)
_F32 = Dot("f32", DType.f32)

_TABLE: tuple[tuple[Dot, str, tuple[tuple[int, int, int, float], ...]], ...] = (
    # dot, code, (mr, nr, scales, cost) of the kernel for one row, then of those for more
    (
        _VNNI512,
        "i2",
        (
            (1, 4, 4, 0.0352),
            (2, 4, 2, 0.0273),
            (4, 4, 1, 0.0234),
            (8, 3, 1, 0.0197),
            (12, 2, 1, 0.0186),
        ),
    ),
    (
        _VNNI512,
        "b1",
        (
            (1, 4, 4, 0.0352),
            (2, 4, 2, 0.0273),
            (4, 4, 1, 0.0234),
            (8, 3, 1, 0.0196),
            (12, 2, 1, 0.0184),
        ),
    ),
    (_AVXVNNI, "i2", ((1, 1, 4, 0.0781), (2, 1, 2, 0.0586), (6, 1, 1, 0.043))),
    (_AVXVNNI, "b1", ((1, 1, 4, 0.0742), (2, 1, 2, 0.0566), (6, 1, 1, 0.0423))),
    (_AVX512, "i2", ((1, 2, 2, 0.0586), (2, 2, 2, 0.0449), (8, 1, 1, 0.0366))),
    (_AVX512, "b1", ((1, 2, 2, 0.0566), (2, 2, 2, 0.0439), (8, 1, 1, 0.0359))),
    (_AVX2, "i2", ((1, 1, 2, 0.117), (2, 1, 2, 0.0898), (4, 1, 1, 0.0801))),
    (_AVX2, "b1", ((1, 1, 2, 0.113), (2, 1, 2, 0.0879), (4, 1, 1, 0.0791))),
    (_SSSE3, "i2", ((1, 1, 1, 0.266), (2, 1, 1, 0.203))),
    (_SSSE3, "b1", ((1, 1, 1, 0.266), (2, 1, 1, 0.203))),
    (_SSE2, "i2", ((1, 1, 1, 0.527), (2, 1, 1, 0.41))),
    (_SSE2, "b1", ((1, 1, 1, 0.535), (2, 1, 1, 0.414))),
    (_DOTPROD, "i2", ((1, 1, 3, 0.137), (2, 1, 2, 0.109), (4, 1, 1, 0.0898))),
    (_DOTPROD, "b1", ((1, 1, 2, 0.156), (2, 1, 2, 0.113), (4, 1, 1, 0.0918))),
    (_NEON, "i2", ((1, 1, 1, 0.246), (2, 1, 1, 0.195))),
    (_NEON, "b1", ((1, 1, 1, 0.258), (2, 1, 1, 0.199))),
    (_NEON32, "i2", ((1, 1, 1, 0.383),)),
    (_NEON32, "b1", ((1, 1, 1, 0.504),)),
    (_WIDE, "i2", ((1, 1, 1, 0.551), (2, 1, 1, 0.434))),
    (_WIDE, "b1", ((1, 1, 1, 0.564), (2, 1, 1, 0.436))),
    (_SCALAR, "i2", ((1, 1, 1, 2.19),)),
    (_SCALAR, "b1", ((1, 1, 1, 2.19),)),
    (_F32X16, "i2", ((1, 4, 1, 0.281), (4, 2, 1, 0.184))),
    (_F32X16, "b1", ((1, 4, 1, 0.219), (4, 2, 1, 0.164))),
    (_F32AVX2, "i2", ((1, 4, 1, 0.438), (4, 1, 1, 0.422))),
    (_F32AVX2, "b1", ((1, 4, 1, 0.406), (4, 1, 1, 0.359))),
    (_F32X8, "i2", ((1, 2, 1, 0.938), (4, 1, 1, 0.523))),
    (_F32X8, "b1", ((1, 2, 1, 0.531), (4, 1, 1, 0.328))),
    (_F32X4, "i2", ((1, 1, 1, 1.94), (2, 1, 1, 1.38))),
    (_F32X4, "b1", ((1, 1, 1, 1.12), (2, 1, 1, 0.844))),
    (_F32, "i2", ((1, 1, 1, 7.5),)),
    (_F32, "b1", ((1, 1, 1, 4.25),)),
)

KERNELS: tuple[Kernel, ...] = tuple(
    Kernel(dot, code, mr, nr, scales, tiles[0][2], cost, tiles[0][3])
    for dot, code, tiles in _TABLE
    for mr, nr, scales, cost in tiles
)
BY_NAME: dict[str, Kernel] = {kernel.name: kernel for kernel in KERNELS}


def choose(target: Target, code: str, activations: DType, m: Dim, k: int) -> Kernel:
    """The cheapest kernel for up to `m` activation rows: those that run there, then `cost`.

    m rows cost `m // mr * mr * cost + m % mr * row_cost`; of equals the first in `KERNELS` wins.

    Raises:
        Unsupported: the sums of k products need not fit in any kernel.
    """
    rows = int(min(bounds(m)[1], 1 << 16)) or 1

    def cost(kernel: Kernel) -> float:
        left = rows % kernel.mr
        return (rows - left) * kernel.cost + left * kernel.row_cost

    fit = [
        kernel
        for kernel in KERNELS
        if (kernel.code, kernel.activations) == (code, activations)
        and kernel.dot.runs_on(target)
        and k <= kernel.max_k
    ]
    if not fit:
        raise Unsupported(f"a sum of {k} products may overflow 32 bits")
    return min(fit, key=cost)


def meaning(
    kernel: Kernel, layout: Layout, packed: npt.NDArray[np.uint8], x: npt.NDArray[Any], scales: int
) -> npt.NDArray[Any]:
    """raw[m, rows of all blocks]: what the kernel computes with `scales`, its own or of one row.

    Args:
        kernel: the kernel.
        layout: of the weights; one group.
        packed: the weights' bytes.
        x: i8 or f32 [m, padded k].
        scales: `kernel.scales` or `kernel.row_scales`.
    """
    m, bits = len(x), FIELD_BITS[layout.code]
    steps = x.shape[1] // layout.unit_k
    units = packed.reshape(-1, steps, 1, layout.unit_bytes)
    xs = x.reshape(m, 1, steps, layout.fields, layout.lanes_k)
    if x.dtype == np.float32:
        return _float_meaning(layout, units[:, :, 0], xs)
    bytes_x = np.tile(xs.astype(np.int32), layout.rows)
    mask = (1 << bits) - 1
    dtype = np.int16 if kernel.dot.bits == 16 else np.int32

    def terms(step: int, field: int, shift: int, scale: int) -> npt.NDArray[np.int32]:
        w = (units[:, step, 0] >> shift & mask << scale).astype(np.int32)
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
            for field, (shift, scale) in enumerate(kernel.fields(scales)):
                sums[scale] += terms(step, field, shift, scale).astype(dtype)
        wide += sums.reshape(*wide.shape, -1).sum(-1, dtype=np.int32)
    total = wide[0]
    for s in range(1, 8):
        total = total + (wide[s] >> s)
    return np.reshape(total, (m, -1))


def _float_meaning(
    layout: Layout, units: npt.NDArray[np.uint8], xs: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """The sum, serial in k, of x's bits with the sign flipped by -1 and all cleared by 0."""
    m, bits = len(xs), FIELD_BITS[layout.code]
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
