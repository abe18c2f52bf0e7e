"""Operations that compute nothing: each element of the result is one of the arguments'."""

from __future__ import annotations

from dataclasses import dataclass

from tbc.dims import Dim, bounds, product, static
from tbc.ops.checks import broadcast_shapes, require, require_equal
from tbc.types import DType, TensorType


@dataclass(frozen=True)
class Broadcast:
    """x stretched to a shape, trailing dims aligned."""

    shape: tuple[Dim, ...]

    def infer(self, x: TensorType) -> TensorType:
        """x's element type in the new shape."""
        shape = broadcast_shapes(x.shape, self.shape)
        require(shape == self.shape, f"{x} does not broadcast to {TensorType(x.dtype, self.shape)}")
        return TensorType(x.dtype, self.shape)


@dataclass(frozen=True)
class Reshape:
    """x's elements, in row-major order, in another shape."""

    shape: tuple[Dim, ...]

    def infer(self, x: TensorType) -> TensorType:
        """x's element type in the new shape."""
        require_equal(x.size, product(self.shape), "elements before and after a reshape")
        return TensorType(x.dtype, self.shape)


@dataclass(frozen=True)
class Transpose:
    """y[i_perm[0], i_perm[1], …] = x[i_0, i_1, …]: axis j of the result is axis perm[j] of x."""

    perm: tuple[int, ...]

    def infer(self, x: TensorType) -> TensorType:
        """x's type with permuted axes."""
        require(sorted(self.perm) == list(range(x.rank)), f"{self.perm} does not permute {x}")
        return TensorType(x.dtype, tuple(x.shape[p] for p in self.perm))


@dataclass(frozen=True)
class Slice:
    """y[i, j, …] = x[starts[0] + steps[0]*i, starts[1] + steps[1]*j, …], all within x."""

    starts: tuple[Dim, ...]
    steps: tuple[int, ...]
    shape: tuple[Dim, ...]

    def infer(self, x: TensorType) -> TensorType:
        """x's element type in the new shape."""
        require(x.rank == len(self.starts) == len(self.steps) == len(self.shape), "slice rank")
        require(0 not in self.steps, "a slice's step is 0")
        for dim, start, step, size in zip(
            x.shape, self.starts, self.steps, self.shape, strict=True
        ):
            if isinstance(size, int) and size == 0:
                continue
            last = start + (size - 1) * step
            low, high = (start, last) if step > 0 else (last, start)
            require(bounds(low)[0] >= 0 or not isinstance(low, int), f"slice starts at {low}")
            require(bounds(dim - high)[1] > 0, f"slice reaches {high} of {dim}")
        return TensorType(x.dtype, self.shape)


@dataclass(frozen=True)
class Concat:
    """The arguments one behind the other along an axis."""

    axis: int

    def infer(self, *xs: TensorType) -> TensorType:
        """The common type, sizes added along the axis."""
        require(bool(xs), "concat of nothing")
        first = xs[0]
        require(0 <= self.axis < first.rank, f"concat axis {self.axis} of {first}")
        total: Dim = 0
        for x in xs:
            require(x.dtype is first.dtype and x.rank == first.rank, f"concat of {first} and {x}")
            for axis, (a, b) in enumerate(zip(first.shape, x.shape, strict=True)):
                if axis != self.axis:
                    require_equal(a, b, f"concat: sizes of axis {axis}")
            total = total + x.shape[self.axis]
        shape = (*first.shape[: self.axis], total, *first.shape[self.axis + 1 :])
        return TensorType(first.dtype, shape)


PAD_MODES = ("constant", "edge", "reflect", "wrap")


@dataclass(frozen=True)
class Pad:
    """x put at `before` into a larger `shape`, the rest filled with the scalar second argument.

    The modes other than constant fill from x: edge repeats the border, reflect mirrors at it, wrap
    goes round.
    """

    before: tuple[Dim, ...]
    shape: tuple[Dim, ...]
    mode: str = "constant"

    def infer(self, x: TensorType, value: TensorType) -> TensorType:
        """x's element type in the new shape."""
        require(x.rank == len(self.before) == len(self.shape), "pad rank")
        require(self.mode in PAD_MODES, f"unknown pad mode {self.mode}")
        require(value.dtype is x.dtype and value.rank == 0, f"padding {x} with {value}")
        for dim, before, size in zip(x.shape, self.before, self.shape, strict=True):
            require(bounds(before)[1] >= 0, "padding is negative")
            require(bounds(size - before - dim)[1] >= 0, "padding is negative")
        return TensorType(x.dtype, self.shape)


@dataclass(frozen=True)
class Windows:
    """The windows of a convolution or a pooling.

    x[n, c, *s] -> y[n, c, *o, *kernel] with
    y[n, c, o…, t…] = x[n, c, o*strides + t*dilations - before …], the scalar second argument
    where that lies outside x.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    out: tuple[Dim, ...]

    def fits(self, x: TensorType) -> bool:
        """Whether no window reaches over x's border."""
        axes = zip(
            x.shape[2:], self.out, self.kernel, self.strides, self.dilations, self.before,
            strict=True,
        )  # fmt: skip
        return all(
            before == 0 and bounds(size - ((out - 1) * stride + (kernel - 1) * dilation))[0] >= 1
            for size, out, kernel, stride, dilation, before in axes
        )

    def infer(self, x: TensorType, value: TensorType) -> TensorType:
        """x's element type as [n, c, *out, *kernel]."""
        spatial = x.rank - 2
        sizes = (self.kernel, self.strides, self.dilations, self.before, self.out)
        require(all(len(s) == spatial for s in sizes), f"windows of {x} need {spatial} axes")
        require(all(s > 0 for s in (*self.kernel, *self.strides, *self.dilations)), "window of 0")
        require(value.dtype is x.dtype and value.rank == 0, f"padding {x} with {value}")
        return TensorType(x.dtype, (*x.shape[:2], *self.out, *self.kernel))


@dataclass(frozen=True)
class Gather:
    """y[a…, i…, b…] = x[a…, indices[i…], b…] along an axis; negative indices count from the end."""

    axis: int

    def infer(self, x: TensorType, indices: TensorType) -> TensorType:
        """x's type with the axis replaced by the indices' shape."""
        require(0 <= self.axis < x.rank, f"gather axis {self.axis} of {x}")
        require(indices.dtype in (DType.i32, DType.i64), f"gather by {indices}")
        shape = (*x.shape[: self.axis], *indices.shape, *x.shape[self.axis + 1 :])
        return TensorType(x.dtype, shape)


@dataclass(frozen=True)
class GatherND:
    """ONNX GatherND: the last axis of indices[…, d] points into d axes behind `batch_dims`."""

    batch_dims: int

    def infer(self, x: TensorType, indices: TensorType) -> TensorType:
        """The indices' shape but for its last axis, then x's axes that they leave."""
        require(indices.dtype is DType.i64, f"gather by {indices}")
        require(indices.rank > self.batch_dims >= 0, f"GatherND of {x} by {indices}")
        depth = static(indices.shape[-1], "GatherND's index depth")
        require(1 <= depth <= x.rank - self.batch_dims, f"GatherND of {x} by {indices}")
        left = x.shape[self.batch_dims + depth :]
        for a, b in zip(x.shape[: self.batch_dims], indices.shape, strict=False):
            require_equal(a, b, "GatherND: batch sizes")
        return TensorType(x.dtype, (*indices.shape[:-1], *left))


@dataclass(frozen=True)
class GatherElements:
    """y[i, j, …] = x[i, indices[i, j, …], …], the index standing on the axis; negatives wrap."""

    axis: int

    def infer(self, x: TensorType, indices: TensorType) -> TensorType:
        """x's element type in the indices' shape."""
        require_elements(self.axis, x, indices)
        return TensorType(x.dtype, indices.shape)


def require_elements(axis: int, x: TensorType, indices: TensorType) -> None:
    """Raise ValueError unless indices stand for elements of x: nowhere longer, but for the axis."""
    require(indices.dtype in (DType.i32, DType.i64), f"elements by {indices}")
    require(indices.rank == x.rank and 0 <= axis < x.rank, f"elements {indices} of {x}")
    for a, (size, count) in enumerate(zip(x.shape, indices.shape, strict=True)):
        if a != axis and bounds(size - count)[0] < 0:
            require_equal(size, count, f"elements {indices} of {x}: sizes of axis {a}")
