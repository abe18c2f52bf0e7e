"""Rules on elementwise operations that give the same bits with less work."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tbc.constants import constant
from tbc.ir import Uses, Value
from tbc.ops import Binary, Broadcast, Cast, Const, Unary, Where, broadcast_shapes
from tbc.passes.ranges import SMALL, Range, Ranges, representable
from tbc.types import DType

_NO_CHANGE_RIGHT = {"mul": 1, "div": 1, "pow": 1, "add": 0, "sub": 0, "or": 0, "xor": 0,
                    "shl": 0, "shr": 0}  # fmt: skip
_COMMUTE = ("mul", "add", "or", "xor")


def elements(value: Value) -> npt.NDArray[Any] | None:
    """The elements of a small constant, else None."""
    size = value.type.size
    if isinstance(value.op, Const) and isinstance(size, int) and 0 < size <= SMALL:
        return value.op.data.read()
    return None


def uniform(value: Value) -> Any:
    """The number that all elements of a small constant are, as a NumPy scalar, else None."""
    found = elements(value)
    if found is None:
        return None
    flat = found.reshape(-1)
    return flat[0] if flat.tobytes() == flat[:1].tobytes() * flat.size else None


def stretched(x: Value, like: Value) -> Value:
    """x in the shape of a value that it broadcasts to."""
    return x if x.type.shape == like.type.shape else x.builder(Broadcast(like.type.shape), x)


def neutral_operand(value: Value, uses: Uses) -> Value | None:
    """x * 1, x / 1, x ** 1, x + 0, x - 0, x | 0, x ^ 0, x << 0, x >> 0 -> x.

    Of a float, x + -0.0 and x - 0.0 only, and x + 0.0 where x is no -0.0.
    """
    match value:
        case Value(Binary(fn), (a, b)) if fn in _NO_CHANGE_RIGHT:
            if _is_neutral(fn, a, b):
                return stretched(a, value)
            if fn in _COMMUTE and _is_neutral(fn, b, a):
                return stretched(b, value)
    return None


def _is_neutral(fn: str, x: Value, c: Value) -> bool:
    number = uniform(c)
    if number is None or number != _NO_CHANGE_RIGHT[fn]:
        return False
    if fn not in ("add", "sub") or not x.type.dtype.is_float:
        return True
    negative = bool(np.signbit(number))
    return negative == (fn == "add") or (fn == "add" and _never_negative_zero(x))


def _never_negative_zero(x: Value) -> bool:
    match x:
        case Value(Cast(), (source,)):
            return not source.type.dtype.is_float
        case Value(Unary("abs" | "exp" | "sigmoid")):
            return True
    return False


def power_of_two_divisor(value: Value, uses: Uses) -> Value | None:
    """x / 2^n -> x * 2^-n, which is the same number, rounded equally."""
    match value:
        case Value(Binary("div"), (x, c)) if x.type.dtype in (DType.f32, DType.f64):
            divisor = elements(c)
            if divisor is None or not _is_power_of_two(divisor):
                return None
            inverse = constant(value.builder, 1 / divisor, x.type.dtype)
            return value.builder(Binary("mul"), x, inverse)
    return None


def _is_power_of_two(c: npt.NDArray[Any]) -> bool:
    """Whether every element is 2^n or -2^n, and neither it nor its reciprocal is subnormal."""
    mantissa, exponent = np.frexp(c)
    limit = np.finfo(c.dtype).maxexp - 2
    return bool(((np.abs(mantissa) == 0.5) & (np.abs(exponent) < limit)).all())


def repeated_extremum(value: Value, uses: Uses) -> Value | None:
    """max(max(x, a), a) -> max(x, a), and max(x, x) -> x; min likewise."""
    match value:
        case Value(Binary("max" | "min"), (a, b)) if a is b:
            return a
        case Value(Binary("max" | "min") as op, (Value(inner, (_, a)) as x, b)):
            if inner == op and a is b and x.type == value.type:
                return x
    return None


def limits_beyond_range(value: Value, ranges: Ranges) -> Value | None:
    """max(x, c) -> x where x >= c, and min(x, c) -> x where x <= c, always."""
    match value:
        case Value(Binary("max" | "min" as fn), (a, b)):
            for x, c in ((a, b), (b, a)):
                limit = uniform(c)
                if limit is None or limit != limit or x.type.shape != value.type.shape:
                    continue
                known = ranges(x)
                inside = known.lo >= limit if fn == "max" else known.hi <= limit
                if inside and (limit != 0 or not x.type.dtype.is_float):  # max(-0.0, 0.0) is 0.0
                    return x
    return None


def rectified_twice(value: Value, uses: Uses) -> Value | None:
    """max(f(max(x, 0)), 0) -> max(f(x), 0), f being roundings, products and quotients by c > 0.

    Of floats: products of integers wrap.
    """
    match value:
        case Value(Binary("max") as op, (a, zero)) if value.type.dtype.is_float and _is_zero(zero):
            inner = _unrectified(a, uses)
            return None if inner is None else value.builder(op, inner, zero)
    return None


def _is_zero(value: Value) -> bool:
    number = uniform(value)
    return number is not None and number == 0 and not np.signbit(number)


def _unrectified(value: Value, uses: Uses) -> Value | None:
    """f(x) for f(max(x, 0)) that has no other use; None if it is not that."""
    steps: list[Value] = []
    while uses[value] == 1:
        match value:
            case Value(Unary("round" | "floor"), (x,)):
                pass
            case Value(Binary("mul" | "div"), (x, c)) if x.type.shape == value.type.shape:
                factor = elements(c)
                if factor is None or not ((factor > 0) & np.isfinite(factor)).all():
                    return None
            case Value(Binary("max"), (x, zero)) if steps and _is_zero(zero):
                if x.type != value.type:
                    return None
                for step in reversed(steps):
                    x = step.builder(step.op, x, *step.args[1:])
                return x
            case _:
                return None
        steps.append(value)
        value = x
    return None


_INVOLUTIONS = ("not", "neg", "invert")


def twice_applied(value: Value, uses: Uses) -> Value | None:
    """not(not x) -> x, -(-x) -> x, ~~x -> x; abs(abs x) -> abs x, abs(-x) -> abs x."""
    match value:
        case Value(Unary(fn), (Value(Unary(inner), (x,)),)) if fn == inner and fn in _INVOLUTIONS:
            return x
        case Value(Unary("abs") as op, (Value(Unary("abs" | "neg"), (x,)),)):
            return value.builder(op, x)
    return None


def rounding_of_integer(value: Value, ranges: Ranges) -> Value | None:
    """round(x), floor(x) and ceil(x) -> x where x is an integer."""
    match value:
        case Value(Unary("round" | "floor" | "ceil"), (x,)) if ranges(x).integer:
            return x
    return None


def chosen_at_compile_time(value: Value, uses: Uses) -> Value | None:
    """where(c, a, b) -> a or b for a constant c; where(c, a, a) -> a; where(not c, a, b)."""
    match value:
        case Value(Where(), (_, a, b)) if a is b:
            return stretched(a, value)
        case Value(Where() as op, (Value(Unary("not"), (c,)), a, b)):
            return value.builder(op, c, b, a)
        case Value(Where(), (c, a, b)) if (chosen := uniform(c)) is not None:
            return stretched(a if chosen else b, value)
    return None


def broadcast_operand(value: Value, uses: Uses) -> Value | None:
    """fn(broadcast(x), y) -> fn(x, y) where y alone gives the result its shape."""
    if not isinstance(value.op, Binary | Where):
        return None
    for i, arg in enumerate(value.args):
        if isinstance(arg.op, Broadcast):
            args = (*value.args[:i], arg.args[0], *value.args[i + 1 :])
            if broadcast_shapes(*(a.type.shape for a in args)) == value.type.shape:
                return value.builder(value.op, *args)
    return None


def function_of_broadcast(value: Value, uses: Uses) -> Value | None:
    """fn(broadcast(x)) -> broadcast(fn(x))."""
    match value:
        case Value(Unary() | Cast(), (Value(Broadcast() as stretch, (x,)),)):
            return value.builder(stretch, value.builder(value.op, x))
    return None


# -- casts ----------------------------------------------------------------------------------------


def cast_of_cast(value: Value, ranges: Ranges) -> Value | None:
    """cast(cast(x)) -> cast(x), or x, where the inner cast keeps every value that x can have."""
    match value:
        case Value(Cast(dtype), (Value(Cast(middle), (x,)),)):
            if dtype is x.type.dtype and _lossless(x, middle, ranges):
                return x
            if _composes(x, middle, dtype, ranges):
                return value.builder(Cast(dtype), x)
        case Value(Cast(dtype), (x,)) if dtype is x.type.dtype:
            return x
    return None


_WIDER_FLOATS = {
    DType.f16: (DType.f32, DType.f64),
    DType.bf16: (DType.f32, DType.f64),
    DType.f32: (DType.f64,),
}


def _lossless(x: Value, dtype: DType, ranges: Ranges) -> bool:
    """Whether a cast of x keeps every value: no float becomes an integer, which has no -0.0."""
    source = x.type.dtype
    if source.is_float:
        return dtype is source or dtype in _WIDER_FLOATS.get(source, ())
    return dtype is not DType.bool and _fits(ranges(x), dtype)


def _fits(known: Range, dtype: DType) -> bool:
    limits = representable(dtype)
    return known.integer and known.within(limits.lo, limits.hi)


def _composes(x: Value, middle: DType, dtype: DType, ranges: Ranges) -> bool:
    """Whether cast[dtype](cast[middle](x)) is cast[dtype](x), bit by bit."""
    source = x.type.dtype
    if dtype.is_weight or middle.is_weight or dtype is DType.bool:
        return False
    if not _lossless(x, middle, ranges):
        # A float may still be truncated by either cast if it is in the range of both.
        both = source.is_float and middle.is_int and dtype.is_int
        known, (lo, hi) = ranges(x), (middle.range if middle.is_int else (0, 0))
        return both and known.within(lo, hi) and known.within(*dtype.range)
    if dtype.is_float:
        return source.is_float or dtype in (DType.f32, DType.f64)
    # To an integer: floats saturate and integers wrap.
    return source.is_float == middle.is_float or _fits(ranges(x), dtype)


ELEMENTWISE_RULES = (
    neutral_operand,
    power_of_two_divisor,
    repeated_extremum,
    rectified_twice,
    twice_applied,
    chosen_at_compile_time,
    broadcast_operand,
    function_of_broadcast,
)
ELEMENTWISE_RANGE_RULES = (limits_beyond_range, rounding_of_integer, cast_of_cast)
