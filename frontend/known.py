"""Shape arithmetic: the elements of small values, as numbers or as dims, found at import."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tbc import reference
from tbc.dims import Dim, Expr, FloorDiv, bounds, dim_max, dim_min, floor_div
from tbc.ir import Value, topological
from tbc.ops import (
    GATHERS,
    INDEX_MAPS,
    SCATTERS,
    Binary,
    Cast,
    Const,
    Dims,
    Input,
    Reduce,
    Unary,
    Where,
)
from tbc.types import DType

Array = npt.NDArray[Any]

_MOST_ELEMENTS = 4096
_LONGEST_TEXT = 500
"""Longer dims are given up: arithmetic on them would take ever more time."""


class Known:
    """The elements of small values that depend on no input's data.

    An array of numbers has the value's own type; where a symbol is left it is one of objects, each
    an `int` or an `Expr`. Every value is looked at once.
    """

    def __init__(self) -> None:
        self._arrays: dict[int, Array | None] = {}

    def array(self, value: Value) -> Array | None:
        """The elements, or None where they are not known before the model runs."""
        if not _is_small(value):
            return None
        for v in topological([value], lambda v: v.number in self._arrays or not _is_small(v)):
            if v.number not in self._arrays:
                self._arrays[v.number] = self._find(v) if _is_small(v) else None
        return self._arrays[value.number]

    def _find(self, value: Value) -> Array | None:
        op = value.op
        if isinstance(op, Input):
            return None
        if isinstance(op, Dims):
            return _settled(np.array([*op.dims, None], object)[:-1].reshape(op.shape), DType.i64)
        args = [self._arrays[a.number] for a in value.args]
        found = [a for a in args if a is not None]
        if len(found) < len(args):
            return _decided(value, args)
        if all(a.dtype != object for a in found):
            return _evaluated(value, found)
        return _symbolic(value, found)


def _is_small(value: Value) -> bool:
    size = value.type.size
    return value.type.is_static and isinstance(size, int) and size <= _MOST_ELEMENTS


def _evaluated(value: Value, args: list[Array]) -> Array | None:
    if isinstance(value.op, Const):
        return value.op.data.read()
    if 0 in value.type.shape:
        return np.empty([d for d in value.type.shape if isinstance(d, int)], value.type.dtype.numpy)
    try:
        return reference.evaluate(value.op, args)
    except ValueError:
        return None


def _decided(value: Value, args: list[Array | None]) -> Array | None:
    """The elements where those that are not known make no difference."""
    shape = tuple(d for d in value.type.shape if isinstance(d, int))
    match value.op, args:
        case Binary("and" | "or" as fn), [a, b] if value.type.dtype is DType.bool:
            settling = fn == "or"
            if any(x is not None and np.all(x == settling) for x in (a, b)):
                return np.full(shape, settling)
        case Where(), [cond, a, b] if cond is not None:
            chosen = a if cond.all() else None if cond.any() else b
            return None if chosen is None else np.broadcast_to(chosen, shape)
    return None


# -- arithmetic on dims ---------------------------------------------------------------------------


def _divide(a: Dim, b: Dim) -> Dim | None:
    """a / b, truncated; 0 where b is 0."""
    if bounds(b)[0] < 0 or b == 0:
        return None
    return _floor(dim_max(a, 0), b) - _floor(dim_max(-1 * a, 0), b)


def _floor(a: Dim, b: Dim) -> Dim:
    """a // b, with b kept from being 0 unless it divides a exactly."""
    quotient = floor_div(a, b)
    if isinstance(quotient, Expr) and any(
        isinstance(atom, FloorDiv) for monomial, _ in quotient.terms for atom in monomial
    ):
        return floor_div(a, dim_max(b, 1))
    return quotient


def _modulo(a: Dim, b: Dim) -> Dim | None:
    if bounds(b)[0] < 0 or b == 0:
        return None
    return a - _floor(a, b) * b


def _sign_of(dim: Dim) -> int | None:
    """1, 0 or -1 where the bounds tell it."""
    lo, hi = bounds(dim)
    if lo > 0:
        return 1
    if hi < 0:
        return -1
    return 0 if dim == 0 else None


def _decide(yes: tuple[int, ...]) -> Callable[[Dim, Dim], bool | None]:
    """A comparison by the sign of a - b."""

    def compare(a: Dim, b: Dim) -> bool | None:
        lo, hi = bounds(a - b)
        possible = {1} if lo > 0 else {-1} if hi < 0 else {0} if a == b else {1, 0, -1}
        possible -= {-1} if lo >= 0 else {1} if hi <= 0 else set()
        if possible <= set(yes):
            return True
        return None if possible & set(yes) else False

    return compare


_BINARY: Mapping[str, Callable[[Dim, Dim], Dim | bool | None]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": _divide,
    "mod": _modulo,
    "fmod": lambda a, b: _modulo(a, b) if bounds(a)[0] >= 0 else None,
    "min": dim_min,
    "max": dim_max,
    "eq": _decide((0,)),
    "ne": _decide((1, -1)),
    "lt": _decide((-1,)),
    "le": _decide((-1, 0)),
    "gt": _decide((1,)),
    "ge": _decide((1, 0)),
}
_UNARY: Mapping[str, Callable[[Dim], Dim | None]] = {
    "neg": lambda a: -1 * a,
    "abs": lambda a: a if bounds(a)[0] >= 0 else None,
    "sign": _sign_of,
}
_REDUCE: Mapping[str, Callable[[Dim, Dim], Dim]] = {
    "sum": lambda a, b: a + b,
    "prod": lambda a, b: a * b,
    "min": dim_min,
    "max": dim_max,
}


def _symbolic(value: Value, args: list[Array]) -> Array | None:
    """The elements where at least one argument is made of dims."""
    if isinstance(value.op, (*GATHERS, *SCATTERS)):  # the elements are dims, the indices numbers
        if args[1].dtype == object or getattr(value.op, "reduction", "none") != "none":
            return None
        x, indices, *updates = args
        found = _evaluated(value, [x.astype(object), indices, *(u.astype(object) for u in updates)])
        return None if found is None else _settled(found, value.type.dtype)
    objects = [a if a.dtype in (object, np.bool_) else a.astype(object) for a in args]
    result: Any
    match value.op:
        case Unary(fn) if fn in _UNARY:
            result = np.frompyfunc(_UNARY[fn], 1, 1)(*objects)
        case Binary(fn) if fn in _BINARY:
            result = np.frompyfunc(_BINARY[fn], 2, 1)(*objects)
        case Cast(DType.bool):
            result = np.frompyfunc(_BINARY["ne"], 2, 1)(objects[0], np.array(0, object))
        case Cast(dtype) if dtype in (DType.i64, DType.i32):
            result = objects[0]
        case Where():
            result = np.where(*objects)
        case Reduce(kind, axes, keepdims) if objects[0].size:
            fold = np.frompyfunc(_REDUCE[kind], 2, 1)
            result = objects[0]
            for axis in reversed(axes):
                result = fold.reduce(result, axis=axis, keepdims=keepdims)
        case op if isinstance(op, INDEX_MAPS):
            result = _evaluated(value, objects)
            if result is None:
                return None
        case _:
            return None
    return _settled(np.asarray(result, object), value.type.dtype)


def _settled(elements: Array, dtype: DType) -> Array | None:
    """An array of objects as one of numbers where it holds no symbol; None where one is unknown."""
    flat = elements.reshape(-1).tolist()
    if any(isinstance(e, Expr) for e in flat):
        hopeless = any(e is None or len(str(e)) > _LONGEST_TEXT for e in flat)
        return None if hopeless else elements
    low, high = dtype.range
    if any(e is None or not low <= e <= high for e in flat):
        return None
    return np.array(flat, dtype.numpy).reshape(elements.shape)
