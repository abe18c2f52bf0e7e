"""What values can be: an interval, and whether they are integers, derived from the operations.

The analysis assumes that no value is nan: what it says of a value holds wherever the value is a
number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tbc.constants import value_of
from tbc.dims import product, upper
from tbc.ir import Value, topological
from tbc.ops import (
    GATHERS,
    Binary,
    Broadcast,
    Cast,
    Concat,
    Dot,
    Gather,
    GatherElements,
    GatherND,
    Pad,
    Reduce,
    Reshape,
    Slice,
    Transpose,
    Unary,
    Where,
    Windows,
)
from tbc.types import DType

SMALL = 4096
"""Constants of at most this many elements are looked at."""

_EXACT_BITS = {DType.f16: 11, DType.bf16: 8, DType.f32: 24, DType.f64: 53}


@dataclass(frozen=True)
class Range:
    """Every element lies in lo..hi, and is an integer if `integer`."""

    lo: float = -math.inf
    hi: float = math.inf
    integer: bool = False

    def within(self, lo: float, hi: float) -> bool:
        """Whether every element lies in lo..hi."""
        return lo <= self.lo and self.hi <= hi

    def joined(self, other: Range) -> Range:
        """The range of values that are of one or of the other."""
        both = self.integer and other.integer
        return Range(min(self.lo, other.lo), max(self.hi, other.hi), both)


ANY = Range()


def representable(dtype: DType) -> Range:
    """The values of an integer type; for a float type, the integers up to which all are exact."""
    if dtype.is_float:
        limit = float(1 << _EXACT_BITS[dtype])
        return Range(-limit, limit, True)
    lo, hi = dtype.range
    return Range(lo, hi, True)


class Ranges:
    """The range of each value, found when it is asked for and remembered."""

    def __init__(self) -> None:
        self._known: dict[Value, Range] = {}

    def __call__(self, value: Value) -> Range:
        """The range of a value."""
        if value not in self._known:
            for v in topological([value], stop=lambda v: v in self._known or _is_leaf(v)):
                if v not in self._known:
                    self._known[v] = self._of(v)
        return self._known[value]

    def _of(self, value: Value) -> Range:
        if value.is_constant and _is_leaf(value):
            return _of_constant(value)
        args = () if _is_leaf(value) else tuple(self._known[a] for a in value.args)
        return _in_type(_transfer(value, args) if args else ANY, value.type.dtype)


def _is_leaf(value: Value) -> bool:
    """Whether a value's range does not depend on those of its arguments."""
    if value.is_constant and _is_looked_at(value):
        return True
    return not isinstance(value.op, _TRANSFERRED)


def _is_looked_at(value: Value) -> bool:
    """Whether a constant is so small that its elements tell its range."""
    size = value.type.size
    return isinstance(size, int) and 0 < size <= SMALL


def _of_constant(value: Value) -> Range:
    if _is_looked_at(value):
        elements = np.asarray(value_of(value)).astype(np.float64)
        if not np.isnan(elements).any():
            integer = bool((np.isfinite(elements) & (elements == np.rint(elements))).all())
            return Range(float(elements.min()), float(elements.max()), integer)
    return _in_type(ANY, value.type.dtype)


def _in_type(found: Range, dtype: DType) -> Range:
    """A range within what a type can hold; the whole type where integers may have wrapped."""
    if dtype.is_float or dtype.is_small_float:
        return found
    whole = representable(dtype)
    return Range(found.lo, found.hi, True) if found.within(whole.lo, whole.hi) else whole


_TRANSFERRED = (
    Unary, Binary, Where, Cast, Broadcast, Reshape, Transpose, Slice, *GATHERS, Concat, Pad,
    Windows, Reduce, Dot,
)  # fmt: skip


def _transfer(value: Value, args: tuple[Range, ...]) -> Range:
    """The range of a value, given its arguments'."""
    match value.op:
        case Unary(fn):
            return _unary(fn, args[0])
        case Binary(fn):
            return _binary(fn, args[0], args[1], value.type.dtype)
        case Cast(dtype):
            return _cast(args[0], value.args[0].type.dtype, dtype)
        case Where():
            return args[1].joined(args[2])
        case Broadcast() | Reshape() | Transpose() | Slice():
            return args[0]
        case Gather() | GatherND() | GatherElements():
            return args[0]
        case Pad() | Windows():
            return args[0].joined(args[1])
        case Concat():
            joined = args[0]
            for other in args[1:]:
                joined = joined.joined(other)
            return joined
        case Reduce("max" | "min"):
            return args[0]
        case Dot() if value.type.dtype.is_int:
            most = math.prod(max(abs(arg.lo), abs(arg.hi)) for arg in args)
            most *= upper(value.args[0].type.shape[-1])
            return Range(-most, most, True)
        case Reduce("sum", axes) if value.type.dtype.is_int:
            count = upper(product(tuple(value.args[0].type.shape[axis] for axis in axes)))
            return Range(count * min(args[0].lo, 0), count * max(args[0].hi, 0), True)
    return ANY


def _cast(x: Range, source: DType, to: DType) -> Range:
    if to is DType.bool:
        return Range(0, 1, True)
    if to.is_float:
        # Rounding keeps the order, and integers beyond the precision are still integers.
        kept = x.within(-65504.0, 65504.0)
        return Range(_rounded(x.lo, to), _rounded(x.hi, to), x.integer) if kept else ANY
    whole = representable(to)
    if source.is_float:  # saturates
        lo, hi = (min(max(v, whole.lo), whole.hi) for v in (x.lo, x.hi))
        return Range(math.trunc(lo), math.trunc(hi), True)
    return x


def _rounded(bound: float, dtype: DType) -> float:
    with np.errstate(over="ignore"):
        if dtype in (DType.f16, DType.bf16):  # computed in f32, then rounded once more
            bound = float(np.float32(bound))
        return float(np.float64(bound).astype(dtype.numpy))


_ROUNDINGS: dict[str, Callable[[float], float]] = {
    "round": lambda v: float(np.rint(v)),
    "floor": lambda v: float(np.floor(v)),
    "ceil": lambda v: float(np.ceil(v)),
}
_BOUNDED = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0), "sin": (-1.0, 1.0), "cos": (-1.0, 1.0)}


def _unary(fn: str, x: Range) -> Range:
    if fn in _ROUNDINGS:
        rounding = _ROUNDINGS[fn]
        return Range(rounding(x.lo), rounding(x.hi), True)
    if fn in _BOUNDED:
        return Range(*_BOUNDED[fn])
    match fn:
        case "sign":
            return Range(-1, 1, True)
        case "neg":
            return Range(-x.hi, -x.lo, x.integer)
        case "abs":
            top = max(abs(x.lo), abs(x.hi))
            return Range(0.0 if x.lo <= 0 <= x.hi else min(abs(x.lo), abs(x.hi)), top, x.integer)
        case "exp" | "sqrt":
            return Range(0.0)
        case "isnan" | "isinf" | "not":
            return Range(0, 1, True)
    return ANY


def _binary(fn: str, a: Range, b: Range, dtype: DType) -> Range:
    both = a.integer and b.integer
    match fn:
        case "min":
            return Range(min(a.lo, b.lo), min(a.hi, b.hi), both)
        case "max":
            return Range(max(a.lo, b.lo), max(a.hi, b.hi), both)
        case "add":
            return _sums([a.lo + b.lo, a.hi + b.hi], both, dtype)
        case "sub":
            return _sums([a.lo - b.hi, a.hi - b.lo], both, dtype)
        case "mul":
            corners = [0.0 if 0 in (x, y) else x * y for x in (a.lo, a.hi) for y in (b.lo, b.hi)]
            return _sums(corners, both, dtype)
        case "eq" | "ne" | "lt" | "le" | "gt" | "ge":
            return Range(0, 1, True)
    return ANY


def _sums(corners: list[float], integer: bool, dtype: DType) -> Range:
    """The hull of exact results; floats are rounded where they are not small integers."""
    lo, hi = min(corners), max(corners)
    if math.isnan(lo) or math.isnan(hi):
        return ANY
    exact = representable(dtype)
    if dtype.is_float and not (integer and exact.within(lo, lo) and exact.within(hi, hi)):
        lo, hi = _rounded(lo, dtype), _rounded(hi, dtype)
    return Range(lo, hi, integer)
