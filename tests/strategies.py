"""Hypothesis strategies for dims and arrays; those for graphs are in `graph_strategies`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from tbc.dims import Dim, Expr, Symbol, dim_max, dim_min
from tbc.types import DType

Array = npt.NDArray[Any]


# -- dims -----------------------------------------------------------------------------------------

SYMBOLS = (Symbol("a", 0, 5), Symbol("b", 1, 4), Symbol("c", 0, None), Symbol("d", 2, 7))


@dataclass(frozen=True)
class Formula:
    """A dim, and the same expression as a function of the symbols' values."""

    dim: Dim
    value: Callable[[Mapping[str, int]], int]


INDEX = Symbol("i", 0, None, Expr.of(SYMBOLS[3]))
"""The index of a loop over d."""


@st.composite
def symbol_values(draw: Callable[..., int]) -> dict[str, int]:
    """A value in range for each of `SYMBOLS`, and for `INDEX`."""
    values = {s.name: draw(st.integers(s.lo, 12 if s.hi is None else s.hi)) for s in SYMBOLS}
    return values | {INDEX.name: draw(st.integers(0, values["d"] - 1))}


def _number(n: int) -> Formula:
    return Formula(n, lambda _: n)


def _symbol(s: Symbol) -> Formula:
    return Formula(Expr.of(s), lambda values: values[s.name])


_OPERATORS: tuple[tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]], ...] = (
    (lambda a, b: a + b, lambda a, b: a + b),
    (lambda a, b: a - b, lambda a, b: a - b),
    (lambda a, b: a * b, lambda a, b: a * b),
    (dim_min, min),
    (dim_max, max),
)
_DIVISIONS: tuple[Callable[[Any, Any], Any], ...] = (lambda a, b: a // b, lambda a, b: a % b)
_B, _D = Expr.of(SYMBOLS[1]), Expr.of(SYMBOLS[3])
_DIVISORS = (
    *map(_number, (1, 2, 3, 4, 6, 7, 12)),
    Formula(_B, lambda v: v["b"]),
    Formula(_D, lambda v: v["d"]),
    Formula(_B * _D, lambda v: v["b"] * v["d"]),
    Formula(_B * 2 + _D, lambda v: v["b"] * 2 + v["d"]),
    Formula(_D - 1, lambda v: v["d"] - 1),
)


def _combined(parts: st.SearchStrategy[Formula]) -> st.SearchStrategy[Formula]:
    def both(ops: Any, a: Formula, b: Formula) -> Formula:
        of_dims, of_ints = ops
        return Formula(of_dims(a.dim, b.dim), lambda v: of_ints(a.value(v), b.value(v)))

    def divided(op: Any, a: Formula, b: Formula) -> Formula:
        return Formula(op(a.dim, b.dim), lambda v: op(a.value(v), b.value(v)))

    return st.builds(both, st.sampled_from(_OPERATORS), parts, parts) | st.builds(
        divided, st.sampled_from(_DIVISIONS), parts, st.sampled_from(_DIVISORS)
    )


def formulas(symbols: Sequence[Symbol] = SYMBOLS) -> st.SearchStrategy[Formula]:
    """Expressions over the symbols with +, -, *, //, %, min and max; divisors are positive."""
    leaves = st.integers(-6, 12).map(_number) | st.sampled_from(symbols).map(_symbol)
    return st.recursive(leaves, _combined, max_leaves=8)


# -- arrays ---------------------------------------------------------------------------------------

SPECIAL = (0.0, -0.0, 1.0, -1.0, 0.5, 2.5, -3.5, 1e-40, 6e-8, 65504.0, 1e30, math.inf, math.nan)


def random_array(dtype: DType, shape: tuple[int, ...], seed: int) -> Array:
    """An array with the type's extremes in it."""
    rng = np.random.default_rng(seed)
    if dtype.is_float:
        plain = rng.standard_normal(shape) * 4
        with np.errstate(all="ignore"):
            return np.asarray(
                np.where(rng.random(shape) < 0.3, rng.choice(SPECIAL, shape), plain)
            ).astype(dtype.numpy)
    if dtype.is_small_float:
        codes = rng.integers(0, 1 << dtype.bits, shape, np.uint8)
        return np.asarray(codes.view(dtype.numpy))
    if dtype is DType.sign:
        return rng.choice(np.array([-1, 1], np.int8), shape)
    low, high = dtype.range
    wide = rng.integers(low, high, shape, np.uint64 if low == 0 else np.int64, endpoint=True)
    ends = rng.choice(np.array([low, high, 0, 1], wide.dtype), shape)
    return np.asarray(np.where(rng.random(shape) < 0.3, ends, wide)).astype(dtype.numpy)


def assert_same(result: Array, expected: Array) -> None:
    """The arrays have one type, one shape and the same bits, any nan being the same as another."""
    assert (result.dtype, result.shape) == (expected.dtype, expected.shape)
    bits = np.dtype(f"u{result.dtype.itemsize}")
    with np.errstate(invalid="ignore"):  # of signalling nans, which copies are too
        is_nan = (result != result) & (expected != expected)
    np.testing.assert_array_equal(
        np.where(is_nan, 0, np.ascontiguousarray(result).view(bits)),
        np.where(is_nan, 0, np.ascontiguousarray(expected).view(bits)),
        f"{result} is not {expected}",
    )
