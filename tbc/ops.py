"""The operations of the IR: what each one is, and the type of its result.

Few primitives: elementwise functions, index maps, reductions, contractions, and the low-bit dots
with their packing. Their exact meaning on arrays is `tbc.reference`. `OPS` lists them all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from tbc.dims import Dim, Symbol, bounds, product, static, symbols_of
from tbc.ir import Graph
from tbc.layout import Layout
from tbc.types import DType, TensorType


class DimMismatch(ValueError):
    """Two sizes that must be equal are not known to be.

    The frontend may restart with a symbol replaced so that they are.
    """

    def __init__(self, a: Dim, b: Dim, what: str):
        super().__init__(f"{what}: {a} is not {b}")
        self.a, self.b, self.what = a, b, what


def require(holds: bool, what: str) -> None:
    """Raise ValueError(what) unless it holds."""
    if not holds:
        raise ValueError(what)


def has_arithmetic(dtype: DType) -> bool:
    """Whether the type can be computed with: floats, and integers of whole bytes.

    The narrower ones are only stored, moved, compared and cast.
    """
    return dtype.is_float or (dtype.is_int and dtype.bits >= 8)


def has_bits(dtype: DType) -> bool:
    """Whether every pattern of an element's bits is one of the type's values, stored as it is."""
    return dtype.kind in "su" or (dtype.bits >= 8 and dtype.kind in "fi")


def require_equal(a: Dim, b: Dim, what: str) -> None:
    """Raise DimMismatch unless two sizes are equal for every value of the symbols."""
    if a != b:
        raise DimMismatch(a, b, what)


def broadcast_shapes(*shapes: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """The shape of an elementwise result: trailing dims align, and 1 stretches."""
    rank = max(len(s) for s in shapes)
    result: list[Dim] = [1] * rank
    for shape in shapes:
        for axis, dim in enumerate(shape, rank - len(shape)):
            if result[axis] == 1:
                result[axis] = dim
            elif dim != 1:
                require_equal(result[axis], dim, f"sizes of axis {axis} do not broadcast")
    return tuple(result)


class ConstData(Protocol):
    """Where a constant's elements come from."""

    def read(self) -> np.ndarray:
        """All elements, in the constant's type and shape."""


# -- leaves ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Input:
    """A named input of the graph."""

    name: str
    type: TensorType

    def infer(self) -> TensorType:
        """The declared type."""
        return self.type


@dataclass(frozen=True)
class Const:
    """A constant, known by the digest of its elements; read where it is needed."""

    digest: str
    type: TensorType
    data: ConstData = field(compare=False, repr=False)
    is_constant = True

    def infer(self) -> TensorType:
        """The declared type."""
        return self.type


@dataclass(frozen=True)
class Dims:
    """Sizes as data: `i64` elements that are dims, in row-major order."""

    dims: tuple[Dim, ...]
    shape: tuple[int, ...]

    @property
    def is_constant(self) -> bool:
        """Whether no symbol is left in it."""
        return all(isinstance(d, int) for d in self.dims)

    def infer(self) -> TensorType:
        """i64[shape]."""
        require(product(self.shape) == len(self.dims), "Dims needs one dim an element")
        return TensorType(DType.i64, self.shape)


@dataclass(frozen=True)
class Iota:
    """0, 1, 2, … : i64[size]."""

    size: Dim

    @property
    def is_constant(self) -> bool:
        """Whether the size is known."""
        return isinstance(self.size, int)

    def infer(self) -> TensorType:
        """i64[size]."""
        return TensorType(DType.i64, (self.size,))


# -- elementwise ----------------------------------------------------------------------------------

FLOAT_UNARY = (
    "exp", "log", "sqrt", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh",
    "acosh", "atanh", "tanh", "sigmoid", "erf", "floor", "ceil", "round",
)  # fmt: skip
UNARY = (*FLOAT_UNARY, "neg", "abs", "sign", "not", "invert", "isnan", "isinf")
COMPARE = ("eq", "ne", "lt", "le", "gt", "ge")
BITWISE = ("and", "or", "xor", "shl", "shr")
BINARY = (
    *("add", "sub", "mul", "mulh", "div", "mod", "fmod", "pow", "min", "max"),
    *BITWISE,
    *COMPARE,
)


@dataclass(frozen=True)
class Unary:
    """fn(x), element by element.

    `round` is half to even, `not` logical, `invert` bitwise, `sign` of a zero or a nan is itself.
    """

    fn: str

    def infer(self, x: TensorType) -> TensorType:
        """x's type; bool for the predicates."""
        require(self.fn in UNARY, f"unknown function {self.fn}")
        d = x.dtype
        if self.fn in FLOAT_UNARY or self.fn in ("isnan", "isinf"):
            require(d.is_float, f"{self.fn} needs a float, not {d.name}")
        elif self.fn == "not":
            require(d is DType.bool, f"not needs a bool, not {d.name}")
        else:
            fits = has_arithmetic(d) and not (self.fn == "invert" and d.is_float)
            require(fits, f"{self.fn} does not take {d.name}")
        return TensorType(DType.bool, x.shape) if self.fn in ("isnan", "isinf") else x


@dataclass(frozen=True)
class Binary:
    """fn(a, b), element by element, broadcasting.

    Integers wrap; integer `div` truncates and `mod` takes the divisor's sign, both 0 where the
    divisor is 0; `fmod` takes the dividend's sign (of floats it is exact, and `mod` adds b to it
    where the signs differ). `max(a, b)` is `a if a > b or a is nan else b`, `min` likewise. Shifts
    by the width or more, or by a negative number, give 0 (`shr` of a negative number, -1). An
    integer to a negative power is truncated too: 0 unless it is 1 or -1. `mulh` is the upper half
    of the 64 bits of a product of i32.
    """

    fn: str

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        """The common type, broadcast; bool for comparisons."""
        require(self.fn in BINARY, f"unknown function {self.fn}")
        require(a.dtype is b.dtype, f"{self.fn} of {a.dtype.name} and {b.dtype.name}")
        d = a.dtype
        if self.fn in BITWISE:
            fits = has_arithmetic(d) and not d.is_float
            fits |= d is DType.bool and self.fn in ("and", "or", "xor")
        elif self.fn in ("eq", "ne", "min", "max"):
            fits = not d.is_small_float
        elif self.fn == "mulh":
            fits = d is DType.i32
        else:
            fits = has_arithmetic(d) or (d.is_int and self.fn in COMPARE)
        require(fits, f"{self.fn} does not take {d.name}")
        shape = broadcast_shapes(a.shape, b.shape)
        return TensorType(DType.bool if self.fn in COMPARE else d, shape)


@dataclass(frozen=True)
class Where:
    """a where cond, else b, broadcasting."""

    def infer(self, cond: TensorType, a: TensorType, b: TensorType) -> TensorType:
        """The type of a and b, broadcast with cond."""
        require(cond.dtype is DType.bool, "where needs a bool condition")
        require(a.dtype is b.dtype, f"where of {a.dtype.name} and {b.dtype.name}")
        return TensorType(a.dtype, broadcast_shapes(cond.shape, a.shape, b.shape))


@dataclass(frozen=True)
class Cast:
    """x in another type.

    Floats become integers by truncation, saturated, nan to 0; integers wrap; anything but 0 is
    True; a float is rounded to the nearest, ties to even (to bf16, by way of f32). Only values that
    `trit` or `sign` has can be cast to it. Small floats have a `BitCast` only.
    """

    dtype: DType

    def infer(self, x: TensorType) -> TensorType:
        """x's shape in the new type."""
        small = x.dtype.is_small_float or self.dtype.is_small_float
        require(not small, f"cast of {x} to {self.dtype.name}")
        return TensorType(self.dtype, x.shape)


@dataclass(frozen=True)
class BitCast:
    """x's bits as another type of the same width.

    A nan is the quiet one without a sign before, whatever its bits were.
    """

    dtype: DType

    def infer(self, x: TensorType) -> TensorType:
        """x's shape in the new type."""
        require(has_bits(x.dtype) and has_bits(self.dtype), f"bits of {x} as {self.dtype.name}")
        require(x.dtype.bits == self.dtype.bits, f"bits of {x} as {self.dtype.name}")
        return TensorType(self.dtype, x.shape)


# -- index maps -----------------------------------------------------------------------------------


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


# -- scatters -------------------------------------------------------------------------------------

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


# -- order ----------------------------------------------------------------------------------------


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


# -- reductions and contractions ------------------------------------------------------------------

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


# -- packed weights -------------------------------------------------------------------------------


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


# -- loops ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Repeat:
    """One result of a loop, each round of which computes a body.

    The body's inputs are the states, then what all rounds see alike; its outputs are the next
    states, then rows, which the loop stacks along a new first axis. In round t the symbol `index`
    is t; its bound is how many rounds there are, and without an index nothing bounds them. If the
    loop is `conditional`, its first state is a bool scalar, and no round begins where it is False.

    Values that differ only in `which` are results of one loop: the last states, the rows, and last
    whether a check of the body was True in some round.
    """

    body: Graph = field(repr=False)
    states: int
    index: Symbol | None
    conditional: bool = False
    which: int = 0

    @property
    def trip(self) -> Dim | None:
        """How many rounds there are, or are at most; None where nothing bounds them."""
        return None if self.index is None else self.index.below

    @property
    def rows(self) -> int:
        """How many results are rows."""
        return len(self.body.outputs) - self.states

    @property
    def is_state(self) -> bool:
        """Whether the result is a state."""
        return self.which < self.states

    @property
    def is_check(self) -> bool:
        """Whether the result is that of the checks."""
        return self.which == len(self.body.outputs)

    def infer(self, *args: TensorType) -> TensorType:
        """The type of the state, of the stacked rows, or a bool scalar."""
        inputs = [v.type for v in self.body.inputs]
        outputs = [v.type for _, v in self.body.outputs]
        fits = 0 <= self.states <= min(len(inputs), len(outputs))
        require(fits and len(inputs) == len(args), f"a loop of {len(args)} arguments")
        pairs = [
            *zip(inputs, args, strict=True),
            *zip(inputs[: self.states], outputs, strict=False),
        ]
        for formal, given in pairs:
            require_same(formal, given, "an argument or a state of a loop")
        if self.index is None:
            require(self.conditional, "a loop that nothing ends")
        else:
            require(self.index.below is not None, "a loop's index has no bound")
        if self.conditional:
            flag = TensorType(DType.bool)
            require(self.states > 0 and inputs[0] == flag, "a loop's condition is its first state")
            require(not self.rows, "the number of rows depends on a condition")
        inner = {self.index} - {None}
        free = (s for t in outputs for d in t.shape for s in symbols_of(d))
        require(inner.isdisjoint(free), "the shape of a row changes from round to round")
        require(0 <= self.which <= len(outputs), f"a loop has no result {self.which}")
        if self.is_check:
            return TensorType(DType.bool)
        result = outputs[self.which]
        if self.is_state or self.trip is None:
            return result
        return TensorType(result.dtype, (self.trip, *result.shape))


def require_same(a: TensorType, b: TensorType, what: str) -> None:
    """Raise ValueError unless two types are equal for every value of the symbols."""
    require(a.dtype is b.dtype and a.rank == b.rank, f"{what}: {a} is not {b}")
    for d, e in zip(a.shape, b.shape, strict=True):
        require_equal(d, e, what)


OPS = (
    Input, Const, Dims, Iota,
    Unary, Binary, Where, Cast, BitCast,
    Broadcast, Reshape, Transpose, Slice, Concat, Pad, Windows, Gather, GatherND, GatherElements,
    ScatterElements, ScatterND, ArgSort,
    Reduce, Cumulate, MatMul, Dot, GroupedDot, Lift,
    Pack, PackedDot, CodedDot, PackedGroupedDot,
    Repeat,
)  # fmt: skip
ELEMENTWISE = (Unary, Binary, Where, Cast, BitCast)
GATHERS = (Gather, GatherND, GatherElements)
"""Index maps whose place is data."""
INDEX_MAPS = (Broadcast, Reshape, Transpose, Slice, Concat, Pad, Windows, *GATHERS)
SCATTERS = (ScatterElements, ScatterND)
