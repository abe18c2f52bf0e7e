"""Reductions, cumulative sums and products of matrices."""

from __future__ import annotations

from dataclasses import dataclass

from tbc.ops.checks import broadcast_shapes, has_arithmetic, require, require_equal
from tbc.types import DType, TensorType

REDUCTIONS = ("sum", "prod", "max", "min")


@dataclass(frozen=True)
class Reduce:
    """A reduction over some axes.

    Float reductions have a fixed order: 16 partial results by (row-major index over the reduced
    axes) mod 16, then a binary tree with strides 8, 4, 2, 1.
    """

    kind: str
    axes: tuple[int, ...]
    keepdims: bool = False

    def infer(self, x: TensorType) -> TensorType:
        """x's type without the axes, or with 1 in their place."""
        require(self.kind in REDUCTIONS, f"unknown reduction {self.kind}")
        inside = all(0 <= a < x.rank for a in self.axes)
        ordered = tuple(sorted(set(self.axes))) == self.axes
        require(inside and ordered, f"reduction axes {self.axes} of {x}")
        fits = x.dtype is DType.bool and self.kind in ("max", "min")
        require(fits or has_arithmetic(x.dtype), f"{self.kind} of {x.dtype.name}")
        if self.keepdims:
            shape = tuple(1 if a in self.axes else d for a, d in enumerate(x.shape))
        else:
            shape = tuple(d for a, d in enumerate(x.shape) if a not in self.axes)
        return TensorType(x.dtype, shape)


@dataclass(frozen=True)
class Cumulate:
    """y[…, j, …] = the sum or product of x[…, i, …] for i <= j, serially from 0 or 1.

    `exclusive` leaves out the element itself; `reverse` begins at the end of the axis. Halves are
    accumulated in f32, and each result is rounded.
    """

    kind: str
    axis: int
    exclusive: bool = False
    reverse: bool = False

    def infer(self, x: TensorType) -> TensorType:
        """x's type."""
        require(self.kind in ("sum", "prod"), f"unknown accumulation {self.kind}")
        require(0 <= self.axis < x.rank, f"{self.kind} along axis {self.axis} of {x}")
        require(has_arithmetic(x.dtype), f"{self.kind} of {x.dtype.name}")
        return x


@dataclass(frozen=True)
class MatMul:
    """a[…, m, k] @ b[…, k, n] -> [..., m, n], batch axes broadcast.

    Summed serially over k in the arguments' type (f16 and bf16 in f32, rounded once).
    """

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        """The product's type."""
        require(a.rank >= 2 and b.rank >= 2, f"matmul of {a} and {b}")
        fits = a.dtype is b.dtype and has_arithmetic(a.dtype)
        require(fits, f"matmul of {a.dtype.name} and {b.dtype.name}")
        require_equal(a.shape[-1], b.shape[-2], "matmul: inner sizes")
        batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
        return TensorType(a.dtype, (*batch, a.shape[-2], b.shape[-1]))
