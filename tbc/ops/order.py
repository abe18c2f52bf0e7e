"""Scatters, whose updates have an order, and sorting."""

from __future__ import annotations

from dataclasses import dataclass

from tbc.dims import Dim, bounds, static
from tbc.ops.checks import require, require_equal
from tbc.ops.elementwise import Binary
from tbc.ops.index_maps import require_elements
from tbc.types import DType, TensorType

UPDATES = ("none", "add", "mul", "max", "min")
"""A scatter's update replaces the element, or the element becomes fn(element, update)."""


def require_update(reduction: str, x: TensorType, updates: TensorType) -> None:
    """Raise ValueError unless elements of x can be updated so."""
    require(reduction in UPDATES, f"unknown reduction {reduction}")
    require(x.dtype is updates.dtype, f"updating {x} by {updates}")
    if reduction != "none":
        Binary(reduction).infer(TensorType(x.dtype), TensorType(x.dtype))


@dataclass(frozen=True)
class ScatterElements:
    """x with y[i, indices[i, j, …], …] updated by updates[i, j, …], in row-major order.

    The index stands on the axis; negative ones count from its end.
    """

    axis: int
    reduction: str = "none"

    def infer(self, x: TensorType, indices: TensorType, updates: TensorType) -> TensorType:
        """x's type."""
        require_elements(self.axis, x, indices)
        require_update(self.reduction, x, updates)
        require(updates.rank == indices.rank, f"{updates} by {indices}")
        for a, b in zip(indices.shape, updates.shape, strict=True):
            require_equal(a, b, "ScatterElements: sizes of indices and updates")
        return x


@dataclass(frozen=True)
class ScatterND:
    """ONNX ScatterND: x with slices at points updated, in the row-major order of the points."""

    reduction: str = "none"

    def infer(self, x: TensorType, indices: TensorType, updates: TensorType) -> TensorType:
        """x's type."""
        require(indices.dtype is DType.i64, f"ScatterND by {indices}")
        require_update(self.reduction, x, updates)
        require(indices.rank >= 1, f"ScatterND by {indices}")
        depth = static(indices.shape[-1], "ScatterND's index depth")
        shape = (*indices.shape[:-1], *x.shape[depth:])
        require(1 <= depth <= x.rank, f"ScatterND of {x} by {indices}")
        require(len(shape) == updates.rank, f"ScatterND of {x} by {indices} with {updates}")
        for a, b in zip(shape, updates.shape, strict=True):
            require_equal(a, b, "ScatterND: sizes of the updates")
        return x


@dataclass(frozen=True)
class ArgSort:
    """Where the first `count` elements along an axis, in ascending or descending order, stand.

    Of equal elements the first one comes first. A nan is greater than every number, and equal to
    any other nan; zeros are equal.
    """

    axis: int
    count: Dim
    descending: bool = False

    def infer(self, x: TensorType) -> TensorType:
        """i64, `count` along the axis."""
        require(0 <= self.axis < x.rank, f"sorting along axis {self.axis} of {x}")
        Binary("lt").infer(TensorType(x.dtype), TensorType(x.dtype))
        size = x.shape[self.axis]
        fits = bounds(self.count)[0] >= 0 and bounds(size - self.count)[0] >= 0
        require(fits, f"the first {self.count} of {size} elements")
        return TensorType(DType.i64, (*x.shape[: self.axis], self.count, *x.shape[self.axis + 1 :]))
