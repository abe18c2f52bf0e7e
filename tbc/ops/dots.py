"""Dots with low-bit weights, and the packing of these."""

from __future__ import annotations

from dataclasses import dataclass

from tbc.dims import Dim, static
from tbc.layout import Layout
from tbc.ops.checks import require, require_equal
from tbc.types import DType, TensorType


def require_scales(s: TensorType, w: TensorType, rows: tuple[Dim, ...]) -> None:
    """Raise ValueError unless s is [one of `rows`, g] with g groups that divide w[n, k]'s k."""
    require(s.rank == 2 and s.shape[0] in rows, f"scales {s} of {w}")
    k, groups = static(w.shape[1], "k"), static(s.shape[1], "the number of groups")
    require(groups > 0 and k % groups == 0, f"{groups} groups of {k}")


def require_group_scales(x: TensorType, groups: Dim, xs: TensorType | None) -> None:
    """Raise ValueError unless xs is None, or f32[…, groups] for i8 activations x[…, k]."""
    if xs is not None:
        fits = xs == TensorType(DType.f32, (*x.shape[:-1], groups))
        require(fits and x.dtype is DType.i8, f"scales {xs} of {groups} groups of {x}")


ACTIVATIONS = (DType.i8, DType.u8, DType.f32)
"""What low-bit dots multiply."""


@dataclass(frozen=True)
class Dot:
    """y[…, n] = sum_k w[n, k] * x[…, k] for a low-bit weight: additions and subtractions.

    i8 and u8 activations are summed exactly in i32; those of i8 may have weights of 8 and 4 bits
    too. f32 activations are summed serially over k; a weight of 0 adds +0.0 whatever x is.
    """

    def infer(self, x: TensorType, w: TensorType) -> TensorType:
        """i32 for i8 and u8 activations, f32 for f32."""
        dense = w.dtype in (DType.i8, DType.i4) and x.dtype is DType.i8
        require(x.rank >= 1 and w.rank == 2, f"dot of {x} and {w}")
        require(dense or w.dtype.is_weight, f"dot of {x} and {w}")
        require(x.dtype in ACTIVATIONS, f"dot of {x.dtype.name} activations")
        require_equal(x.shape[-1], w.shape[1], "dot: inner sizes")
        dtype = DType.f32 if x.dtype is DType.f32 else DType.i32
        return TensorType(dtype, (*x.shape[:-1], w.shape[0]))


@dataclass(frozen=True)
class GroupedDot:
    """y[…, n] = sum_g s[n, g] * f32(dot(x_g, w_g)), groups in ascending order from +0.0.

    x_g and w_g are the k/g elements of group g; the inner dot is `Dot`'s. With scales xs[…, g] of
    groups of i8 activations, the terms are s[n, g] * (xs[…, g] * f32(dot(x_g, w_g))).
    """

    def infer(
        self, x: TensorType, w: TensorType, s: TensorType, xs: TensorType | None = None
    ) -> TensorType:
        """f32[…, n]."""
        Dot().infer(x, w)
        require(x.dtype is not DType.u8, "dot of u8 activations in groups")
        n = w.shape[0]
        require_scales(s, w, (n,))
        require(s.dtype is DType.f32, f"scales {s}")
        require_group_scales(x, s.shape[1], xs)
        return TensorType(DType.f32, (*x.shape[:-1], n))


@dataclass(frozen=True)
class Lift:
    """The low-bit weight t with t * s nearest to a float weight w[n, k], s[n or 1, g].

    A trit is 0 where |w| = |s| / 2 or s is 0; a sign is 1 where both are as near. `plane` numbers
    the weights whose sum stands for one float weight; reports tell by it what belongs together.
    """

    dtype: DType
    plane: int = 0

    def infer(self, w: TensorType, s: TensorType) -> TensorType:
        """trit[n, k] or sign[n, k]."""
        require(self.dtype.is_weight and w.rank == 2, f"lift of {w} to {self.dtype.name}")
        require(w.dtype.is_float and s.dtype.is_float, f"lift of {w} by {s}")
        require_scales(s, w, (1, w.shape[0]))
        return TensorType(self.dtype, w.shape)


def require_packable(layout: Layout, k: int) -> None:
    """Raise ValueError unless k is a positive number of whole groups."""
    group = layout.group or k
    require(k > 0 and group > 0 and k % group == 0, f"{k} weights in groups of {group}")


def require_packed(layout: Layout, n: int, k: int, x: TensorType, packed: TensorType) -> None:
    """Raise ValueError unless x[…, padded k] and u8 `packed` fit a weight[n, k] in the layout."""
    require_packable(layout, k)
    require(x.dtype in ACTIVATIONS and x.rank >= 1, f"packed dot of {x}")
    require(x.shape[-1] == layout.padded_k(k), f"{x} is not padded for k={k}")
    fits = packed == TensorType(DType.u8, (layout.size(n, k),))
    require(fits, f"{packed} is no packed weight[{n}, {k}]")


@dataclass(frozen=True)
class Pack:
    """A low-bit weight w[n, k] in the bytes of a layout."""

    layout: Layout

    def infer(self, w: TensorType) -> TensorType:
        """u8[layout.size(n, k)]."""
        require(w.rank == 2 and w.dtype is self.layout.dtype, f"pack of {w} as {self.layout.code}")
        n, k = (static(d, "the size of a packed weight") for d in w.shape)
        require_packable(self.layout, k)
        return TensorType(DType.u8, (self.layout.size(n, k),))


@dataclass(frozen=True)
class PackedDot:
    """raw[…, n] = sum_k code[n, k] * x[…, k] over the stored codes of a packed weight.

    Codes are trit + 1 in {0, 1, 2} or (sign + 1) / 2 in {0, 1}. x is i8 or u8 with k padded by
    zeros to the layout's unit; the sum is exact in i32. With f32 activations the codes are taken as
    their weights, and the sum is `Dot`'s. `kernels` names those that compute it; from `starts[i]`
    rows of x on it is kernels[i + 1]. With `by_row`, a row of x, in 8 bits, is summed and, if it is
    a patch, brought together when it is its turn, so that neither is in memory as a whole
    (`tbc.patches`).
    """

    kernels: tuple[str, ...]
    layout: Layout
    n: int
    k: int
    starts: tuple[int, ...] = ()
    by_row: bool = False

    def infer(self, x: TensorType, packed: TensorType) -> TensorType:
        """i32[…, n] of i8 and u8, f32[…, n] of f32."""
        require_packed(self.layout, self.n, self.k, x, packed)
        require(not (self.by_row and x.dtype is DType.f32), f"packed dot of {x} by row")
        dtype = DType.f32 if x.dtype is DType.f32 else DType.i32
        return TensorType(dtype, (*x.shape[:-1], self.n))


@dataclass(frozen=True)
class CodedDot:
    """y[m, n] = sum_k w[n, k] * x[m, k], exact in i32, of a ternary weight that becomes code.

    `weights` has a character for each weight, row by row: `.`, `+` or `-`; see `tbc.straight`.
    """

    weights: str
    n: int
    k: int

    def infer(self, x: TensorType) -> TensorType:
        """i32[m, n] of i8 or u8."""
        require(
            x.dtype in (DType.i8, DType.u8) and x.rank == 2,
            f"dot of {x} with weights that are code",
        )
        require(
            x.shape[-1] == self.k > 0 and {*self.weights} <= {*".+-"}, f"dot of {x}, k={self.k}"
        )
        require(len(self.weights) == self.n * self.k, f"weights of {self.n} by {self.k}")
        return TensorType(DType.i32, (x.shape[0], self.n))


@dataclass(frozen=True)
class PackedGroupedDot:
    """`GroupedDot` on a packed weight: sum_g s[n, g] * f32(c * raw_g - xsum[…, g]) for i8 x.

    The scales come as f32[blocks, groups, rows of a block], which is how kernels read them. raw_g
    is the sum over the stored codes of group g; c is 1, and 2 for signs; xsum is the sum of x times
    what stands for the weight 0 (1, of i4 8). With f32 activations xsum is not an argument and
    codes are taken as their weights. Scales xs of groups of
    activations are as in `GroupedDot`. `kernels` and `starts` are as in `PackedDot`.
    """

    kernels: tuple[str, ...]
    layout: Layout
    n: int
    k: int
    starts: tuple[int, ...] = ()

    def infer(
        self,
        x: TensorType,
        packed: TensorType,
        s: TensorType,
        xsum: TensorType | None = None,
        xs: TensorType | None = None,
    ) -> TensorType:
        """f32[…, n]."""
        require_packed(self.layout, self.n, self.k, x, packed)
        groups = self.k // (self.layout.group or self.k)
        blocks = (self.layout.blocks(self.n), groups, self.layout.rows)
        require(s == TensorType(DType.f32, blocks), f"scales {s}, {groups} groups")
        sums = None if x.dtype is DType.f32 else TensorType(DType.i32, (*x.shape[:-1], groups))
        require(xsum == sums, f"grouped i8 dots, and only they, need {sums} as sums of x")
        require_group_scales(x, groups, xs)
        return TensorType(DType.f32, (*x.shape[:-1], self.n))
