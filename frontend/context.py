"""What a lowering has at hand: the builder, constants, and what is known of shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from tbc.constants import constant
from tbc.dims import Dim, Expr, Symbol
from tbc.errors import InvalidModel, Unsupported
from tbc.frontend.known import Known
from tbc.frontend.small_floats import narrowed, widened
from tbc.frontend.unfixed import brief, unfixed_sizes, unfixed_value
from tbc.ir import Builder, Op, Value
from tbc.ops import Binary, Broadcast, Cast, Dims, Reduce, Reshape, Transpose, Unary, Where
from tbc.types import DType

T = TypeVar("T")
Array: TypeAlias = npt.NDArray[Any]
Items: TypeAlias = tuple[Value, ...]
"""A sequence of tensors."""
Lowering: TypeAlias = Callable[..., "Value | tuple[Value | Items | None, ...]"]
"""lower(context, node, *inputs): a value an output; None for an output that tbc does not have."""
Operand: TypeAlias = Value | float
"""A value, or a number that becomes a scalar constant of the other operand's type."""
_MOST_UNROLLED = 1 << 13


@dataclass
class Context:
    """Makes values.

    Attributes:
        builder: the graph's builder.
        folder: the folder of external data; None where the model is no file.
        known: the elements that shape arithmetic knows.
        checks: bool scalars that are True where an input holds what the model cannot accept.
        unrolled: how many nodes the rounds of loops became so far.
        depth: in how many bodies of loops the values are.
        rounds: the numbers of the rounds of loops, by depth and by how many there are.
        warnings: what is unusual, a sentence each.
    """

    builder: Builder
    folder: Path | None = None
    known: Known = field(default_factory=Known)
    checks: list[Value] = field(default_factory=list)
    unrolled: int = 0
    depth: int = 0
    rounds: dict[tuple[int, Dim], Symbol] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def __call__(self, op: Op, *args: Value) -> Value:
        """The value `op(*args)`."""
        return self.builder(op, *args)

    def nested(self) -> Context:
        """Makes the values of a loop's body."""
        return replace(
            self, builder=Builder(self.builder.here), known=Known(), checks=[], depth=self.depth + 1
        )

    def round_of(self, trip: Dim) -> Symbol:
        """The number of the round of a loop of `trip` rounds; its name is none of the model's."""
        symbol = Symbol(f"t.{len(self.rounds)}", 0, None, trip)
        return self.rounds.setdefault((self.depth, trip), symbol)

    def spend(self, nodes: int, what: str) -> None:
        """Count nodes that a loop becomes; raises Unsupported where there are too many in all."""
        self.unrolled += nodes
        if self.unrolled > _MOST_UNROLLED:
            raise Unsupported(f"{what}, written out, are over {_MOST_UNROLLED} nodes")

    # -- constants --------------------------------------------------------------------------------

    def constant(self, elements: npt.ArrayLike, dtype: DType) -> Value:
        """The constant that holds an array, converted to `dtype`."""
        return constant(self.builder, elements, dtype)

    def sizes(self, dims: Sequence[Dim] | Dim) -> Value:
        """i64 elements: a vector of dims, or one dim as a scalar."""
        if isinstance(dims, int | Expr):
            return self(Dims((dims,), ()))
        return self(Dims(tuple(dims), (len(dims),)))

    def operand(self, x: Operand, like: Value) -> Value:
        """x, or the scalar constant of the type of `like`."""
        return x if isinstance(x, Value) else self.constant(x, like.type.dtype)

    # -- elementwise ------------------------------------------------------------------------------

    def unary(self, fn: str, x: Value) -> Value:
        """fn(x)."""
        return self(Unary(fn), x)

    def binary(self, fn: str, a: Operand, b: Operand) -> Value:
        """fn(a, b), broadcasting; one of them may be a number."""
        if isinstance(a, Value):
            return self(Binary(fn), a, self.operand(b, a))
        if isinstance(b, Value):
            return self(Binary(fn), self.operand(a, b), b)
        raise TypeError(f"{fn} of two numbers")

    def add(self, a: Operand, b: Operand) -> Value:
        """a + b."""
        return self.binary("add", a, b)

    def sub(self, a: Operand, b: Operand) -> Value:
        """a - b."""
        return self.binary("sub", a, b)

    def mul(self, a: Operand, b: Operand) -> Value:
        """a * b."""
        return self.binary("mul", a, b)

    def div(self, a: Operand, b: Operand) -> Value:
        """a / b."""
        return self.binary("div", a, b)

    def clip(self, x: Value, low: Operand, high: Operand) -> Value:
        """min(max(x, low), high)."""
        return self.binary("min", self.binary("max", x, low), high)

    def where(self, cond: Value, a: Operand, b: Operand) -> Value:
        """a where cond, else b; one of them may be a number."""
        like = a if isinstance(a, Value) else b
        assert isinstance(like, Value)
        return self(Where(), cond, self.operand(a, like), self.operand(b, like))

    def cast(self, x: Value, dtype: DType, saturate: bool = True) -> Value:
        """x in another type; x itself where it has that type.

        What is beyond a small float's range becomes its greatest number, unless `saturate` is off.
        """
        if x.type.dtype is dtype:
            return x
        if x.type.dtype.is_small_float:
            return self.cast(widened(self, x), dtype, saturate)
        if dtype.is_small_float:
            return narrowed(self, x, dtype, saturate)
        return self(Cast(dtype), x)

    # -- shapes -----------------------------------------------------------------------------------

    def reshape(self, x: Value, shape: Sequence[Dim]) -> Value:
        """x in another shape; x itself where it has that shape."""
        return x if x.type.shape == tuple(shape) else self(Reshape(tuple(shape)), x)

    def transpose(self, x: Value, perm: Sequence[int]) -> Value:
        """x with permuted axes; x itself where they stay."""
        return x if list(perm) == list(range(len(perm))) else self(Transpose(tuple(perm)), x)

    def broadcast(self, x: Value, shape: Sequence[Dim]) -> Value:
        """x stretched to a shape; x itself where it has that shape."""
        return x if x.type.shape == tuple(shape) else self(Broadcast(tuple(shape)), x)

    def along(self, vector: Value, axis: int, rank: int) -> Value:
        """A vector as a tensor of a rank, its elements along an axis."""
        return self.reshape(vector, [vector.type.size if a == axis else 1 for a in range(rank)])

    def reduce(self, kind: str, x: Value, axes: Sequence[int], keepdims: bool = False) -> Value:
        """The reduction over some axes."""
        return self(Reduce(kind, tuple(sorted(axes)), keepdims), x)

    def mean(self, x: Value, axes: Sequence[int], keepdims: bool = False) -> Value:
        """The sum over some axes, divided by their number of elements; of halves in f32."""
        wide = self.wide(x)
        total = self.reduce("sum", wide, axes, keepdims)
        count: Dim = 1
        for axis in axes:
            count = count * x.type.shape[axis]
        dtype = wide.type.dtype
        number = self.constant(count, dtype) if isinstance(count, int) else None
        return self.cast(
            self.div(total, number or self.cast(self.sizes(count), dtype)), x.type.dtype
        )

    def wide(self, x: Value) -> Value:
        """x in f32 if it is of floats of 16 bits, whose sums and squares soon overflow."""
        dtype = x.type.dtype
        return self.cast(x, DType.f32) if dtype.is_float and dtype.bits == 16 else x

    # -- what is known ----------------------------------------------------------------------------

    def dims(self, value: Value, what: str) -> Array:
        """The elements of an integer value as dims.

        Raises:
            Unfixed: they depend on the data of an input.
        """
        valid(value.type.dtype.is_int, f"{what} is of type {value.type}, not integers")
        array = self.known.array(value)
        if array is None:
            raise unfixed_value(what, value)
        return array.astype(object)

    def numbers(self, value: Value, what: str) -> Array:
        """The elements of a value as numbers.

        Raises:
            Unfixed: they depend on the data or on the symbolic sizes of an input.
        """
        array = self.known.array(value)
        if array is None:
            raise unfixed_value(what, value)
        if array.dtype == object:
            reason = f"{what} is {array.tolist()}; it must be a number"
            raise unfixed_sizes(reason, array.reshape(-1).tolist())
        return array

    def vector(self, value: Value, what: str) -> list[Dim]:
        """The elements of an integer vector or scalar as a list of dims; errors as `dims`."""
        return list(self.dims(value, what).reshape(-1))

    def integers(self, value: Value, what: str) -> list[int]:
        """The elements of an integer or bool vector or scalar as numbers; errors as `numbers`."""
        valid(not value.type.dtype.is_float, f"{what} is of type {value.type}, not integers")
        return [int(e) for e in self.numbers(value, what).reshape(-1)]

    def integer(self, value: Value, what: str) -> int:
        """The only element of an integer or bool value as a number; errors as `numbers`."""
        return only(self.integers(value, what), what)


def only(items: Sequence[T], what: str) -> T:
    """The only one of some items.

    Raises:
        InvalidModel: there are more or none.
    """
    valid(len(items) == 1, f"{what} has {len(items)} elements instead of one")
    return items[0]


def fixed(dim: Dim, what: str) -> int:
    """The dim as a number.

    Raises:
        Unfixed: it depends on a symbol.
    """
    if isinstance(dim, int):
        return dim
    raise unfixed_sizes(f"{what} is {brief(dim)}; it must be a number", [dim])


def axis_of(axis: int, rank: int) -> int:
    """An axis counted from the start.

    Raises:
        InvalidModel: there is no such axis.
    """
    if not -rank <= axis < rank:
        raise InvalidModel(f"the axis {axis} is not one of a tensor of rank {rank}")
    return axis % rank


def valid(holds: bool, reason: str) -> None:
    """Raise InvalidModel(reason) unless it holds."""
    if not holds:
        raise InvalidModel(reason)


def supported(holds: bool, reason: str, hint: str = "") -> None:
    """Raise Unsupported(reason) unless it holds; no size or value mends it, but the hint may."""
    if not holds:
        raise Unsupported(reason, hint=hint)


def decided(holds: bool, reason: str, dim: Dim, least: int | None = None) -> None:
    """Raise Unfixed(reason) unless it holds: other sizes in the dim, from a least one, may do."""
    if not holds:
        raise unfixed_sizes(reason, [dim], least)


def numpy_scalar(array: Array) -> float:
    """The only element of an array.

    Raises:
        InvalidModel: it has more or none.
    """
    if array.size != 1:
        raise InvalidModel(f"a scalar is needed, not an array of shape {list(array.shape)}")
    return np.asarray(array).reshape(()).item()  # type: ignore[no-any-return]
