"""The exact meaning of the elementwise operations, on NumPy arrays.

f16 and bf16 are computed in f32 and rounded once. Integers wrap. Elementary functions are those of
`tbc.elementary`, whose bits every target reproduces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tbc import elementary
from tbc.ops import Binary, BitCast, Cast, Unary, Where
from tbc.types import DType

Array: TypeAlias = npt.NDArray[Any]

HALVES = (DType.f16.numpy, DType.bf16.numpy)
FLOATS = tuple(d.numpy for d in DType if d.is_float)


def widened(x: Array) -> Array:
    """An f16 or bf16 array in f32, in which its arithmetic is done; others as they are."""
    return x.astype(np.float32) if x.dtype in HALVES else x


def _computed(fn: Callable[..., Any], *args: Array) -> Array:
    """fn of the arguments, halves in f32 with a float result rounded once."""
    dtype = args[0].dtype
    result = fn(*map(widened, args))
    rounds = dtype in HALVES and result.dtype == np.float32
    return np.asarray(result.astype(dtype) if rounds else result)


# -- unary ----------------------------------------------------------------------------------------


def _sign(x: Array) -> Array:
    """1, -1, or x itself where x is a zero or a nan."""
    one = x.dtype.type(1)
    return np.where(x > 0, one, np.where(x < 0, -one if x.dtype.kind != "u" else one, x))


_UNARY: Mapping[str, Callable[..., Any]] = {
    "sqrt": np.sqrt,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "neg": np.negative,
    "abs": np.abs,
    "sign": _sign,
    "not": np.logical_not,
    "invert": np.invert,
    "isnan": np.isnan,
    "isinf": np.isinf,
}


def unary(op: Unary, x: Array) -> Array:
    """fn(x)."""
    return _computed(_UNARY.get(op.fn) or partial(elementary.evaluate, op.fn), x)


# -- binary ---------------------------------------------------------------------------------------


def maximum(a: Array, b: Array) -> Array:
    """A where it is greater or a nan, else b."""
    return np.where((a > b) | (a != a), a, b)


def minimum(a: Array, b: Array) -> Array:
    """A where it is less or a nan, else b."""
    return np.where((a < b) | (a != a), a, b)


def _float_mod(a: Array, b: Array) -> Array:
    """`fmod`, plus b where that has the other sign; a zero keeps the sign of a."""
    rest = np.fmod(a, b)
    return np.where((rest != 0) & ((rest < 0) != (b < 0)), rest + b, rest)


def _or_zero(fn: Callable[[Array, Array], Array], a: Array, b: Array) -> Array:
    """fn(a, b), 0 where b is 0."""
    by_zero = b == 0
    return np.where(by_zero, a.dtype.type(0), fn(a, np.where(by_zero, b.dtype.type(1), b)))


def _truncated_div(a: Array, b: Array) -> Array:
    down = np.floor_divide(a, b)
    up = (down < 0) & (down * b != a)
    return np.where(up, down + a.dtype.type(1), down)


def _int_pow(a: Array, b: Array) -> Array:
    """A to the power b, wrapping; for a negative b, 1/a^-b truncated (0 for a = 0)."""
    a, b = np.broadcast_arrays(a, b)
    one, zero = a.dtype.type(1), a.dtype.type(0)
    result, base = np.ones_like(a), a
    for bit in range(8 * a.dtype.itemsize):
        result = np.where((b >> b.dtype.type(bit)) & one != 0, result * base, result)
        base = base * base
    if a.dtype.kind == "u":
        return result
    unit = np.where((a == -1) & (b & one != 0), -one, one)
    return np.where(b < 0, np.where((a == 1) | (a == -1), unit, zero), result)


def _shift(fn: Callable[[Array, Array], Array], a: Array, b: Array) -> Array:
    """A shift; by the width or more, or by a negative number, every bit is shifted out."""
    last = b.dtype.type(8 * a.dtype.itemsize - 1)
    fits = (b >= 0) & (b <= last)
    shifted = fn(a, np.where(fits, b, last))
    sign_fills = fn is np.right_shift and a.dtype.kind == "i"
    return shifted if sign_fills else np.where(fits, shifted, a.dtype.type(0))


_ANY: Mapping[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "min": minimum,
    "max": maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "shl": partial(_shift, np.left_shift),
    "shr": partial(_shift, np.right_shift),
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
_FLOAT: Mapping[str, Callable[..., Any]] = {
    **_ANY,
    "div": np.divide,
    "mod": _float_mod,
    "fmod": np.fmod,
    "pow": partial(elementary.evaluate, "pow"),
}
_INT: Mapping[str, Callable[..., Any]] = {
    **_ANY,
    "mulh": lambda a, b: (np.multiply(a, b, dtype=np.int64) >> 32).astype(np.int32),
    "div": partial(_or_zero, _truncated_div),
    "mod": partial(_or_zero, np.remainder),
    "fmod": partial(_or_zero, np.fmod),
    "pow": _int_pow,
}


def binary(op: Binary, a: Array, b: Array) -> Array:
    """fn(a, b)."""
    return _computed((_FLOAT if a.dtype in FLOATS else _INT)[op.fn], a, b)


def where(op: Where, cond: Array, a: Array, b: Array) -> Array:
    """A where cond, else b."""
    return np.where(cond, a, b)


# -- cast -----------------------------------------------------------------------------------------


def cast(op: Cast, x: Array) -> Array:
    """x in another type."""
    target = op.dtype
    if target is DType.bool:
        return np.asarray(widened(x) != 0)
    if target is DType.bf16:  # by way of f32, as compiled code does
        return x.astype(np.float32).astype(target.numpy)
    if target.is_float:
        return x.astype(target.numpy)
    if x.dtype in FLOATS:
        return _saturated(x, target)
    if target.is_weight:
        return _checked_weight(x, target)
    if target.bits < 8:
        return _wrapped(x, target)
    return x.astype(target.numpy)


def _saturated(x: Array, target: DType) -> Array:
    """A float array truncated to an integer type."""
    low, high = target.range
    wide = x.astype(np.float64)
    above, below = wide >= float(high + 1), wide <= float(low)
    inside = np.where(above | below | np.isnan(wide), 0.0, wide)
    whole = inside.astype(np.uint64 if target is DType.u64 else np.int64)
    if target.is_weight:
        return _checked_weight(np.where(above, high, np.where(below, low, whole)), target)
    limits = np.array([low, high], target.numpy)
    return np.where(above, limits[1], np.where(below, limits[0], whole.astype(target.numpy)))


def _wrapped(x: Array, target: DType) -> Array:
    """An integer array modulo 2^bits, for types of less than a byte."""
    code = x.astype(np.int64) & ((1 << target.bits) - 1)
    sign = 1 << (target.bits - 1) if target.kind == "i" else 0
    return ((code ^ sign) - sign).astype(target.numpy)


def _checked_weight(x: Array, target: DType) -> Array:
    holds = np.abs(x.astype(np.int64)) == 1
    if target is DType.trit:
        holds |= x == 0
    if not np.all(holds):
        raise ValueError(f"a value that {target.name} does not have")
    return x.astype(target.numpy)


def bit_cast(op: BitCast, x: Array) -> Array:
    """x's bits in another type."""
    if x.dtype in FLOATS:
        x = np.where(np.isnan(x), x.dtype.type(np.nan), x)
    return x.view(op.dtype.numpy)
