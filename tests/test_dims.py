from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import INDEX, SYMBOLS, Formula, formulas, symbol_values

from tbc.dims import (
    Dim,
    Expr,
    FloorDiv,
    Symbol,
    at_most,
    bounds,
    ceil_div,
    dim_max,
    dim_min,
    evaluate,
    floor_div,
    product,
    static,
    substitute,
    symbols_of,
    upper,
)
from tbc.errors import Unsupported

ALL = (*SYMBOLS, INDEX)
A, B, C, D, INNER = map(Expr.of, ALL)
N = Expr.of(Symbol("n", 1))
VALUES = symbol_values()


@given(formulas(ALL), VALUES)
@settings(max_examples=400)
def test_an_expression_has_the_value_of_the_integers(f: Formula, values: dict[str, int]) -> None:
    assert evaluate(f.dim, values) == f.value(values)


@given(formulas(ALL), VALUES)
@settings(max_examples=400)
def test_the_bounds_hold_every_value(f: Formula, values: dict[str, int]) -> None:
    low, high = bounds(f.dim)
    assert low <= f.value(values) <= high


@given(formulas(), formulas(), VALUES)
def test_equal_dims_have_equal_values_and_hashes(
    f: Formula, g: Formula, values: dict[str, int]
) -> None:
    assert f.dim - f.dim == 0
    assert f.dim + g.dim == g.dim + f.dim
    assert f.dim * g.dim == g.dim * f.dim
    assert hash(f.dim + g.dim) == hash(g.dim + f.dim)
    if f.dim == g.dim:
        assert f.value(values) == g.value(values)


@given(formulas(), st.sets(st.sampled_from([s.name for s in SYMBOLS])), VALUES)
def test_substitution_of_some_symbols(f: Formula, names: set[str], values: dict[str, int]) -> None:
    left = substitute(f.dim, {name: values[name] for name in names})
    assert not names & {s.name for s in symbols_of(left)}
    assert evaluate(left, values) == f.value(values)


@given(formulas(), formulas(), VALUES)
def test_substitution_of_an_expression(f: Formula, g: Formula, values: dict[str, int]) -> None:
    left = substitute(f.dim, {"c": dim_max(g.dim, 0)})
    assert evaluate(left, values) == f.value({**values, "c": max(g.value(values), 0)})


def row_major(shape: list[Dim]) -> tuple[Dim, list[Dim]]:
    """The flat index of i0, i1, …, and these indices."""
    flat: Dim = 0
    indices: list[Dim] = []
    for axis, size in enumerate(shape):
        hi = size - 1 if isinstance(size, int) else None
        below = None if isinstance(size, int) else size
        indices.append(Expr.of(Symbol(f"i{axis}", 0, hi, below)))
        flat = flat * size + indices[-1]
    return flat, indices


@given(st.lists(st.sampled_from([2, 3, 5, 16, N, B]), min_size=1, max_size=4))
def test_a_flattened_index_splits_again(shape: list[Dim]) -> None:
    flat, indices = row_major(shape)
    for size, index in zip(shape[::-1], indices[::-1], strict=True):
        assert flat % size == index
        flat = flat // size
    assert flat == 0


@pytest.mark.parametrize(
    ("dim", "text"),
    [
        (A * 2 + 3, "a*2 + 3"),
        (-A, "-a"),
        (3 - A * B * 2, "-a*b*2 + 3"),
        (A // 3, "a // 3"),
        (A // 3 + (B + 7) // D, "((b + 7) // d) + (a // 3)"),
        (5 // D, "5 // d"),
        (dim_max(C, A + 1) * 4, "max(a + 1, c)*4"),
        (dim_min(C, 7), "min(7, c)"),
    ],
)
def test_text(dim: Dim, text: str) -> None:
    assert str(dim) == text


@pytest.mark.parametrize(
    ("dim", "expected"),
    [
        (A + B - A, B),
        ((A * 6 + 12) // 3, A * 2 + 4),
        ((A * B + B) // B, A + 1),
        (A * B % B, 0),
        (A // 8, 0),
        ((A + 16) // 8, 2),
        (A % 8, A),
        (INNER // D, 0),
        ((C * D + INNER) // D, C),
        (dim_max(A, 5), 5),
        (dim_min(A, -1), -1),
        (dim_max(A + C, C), A + C),
        (dim_max(C, dim_max(A, C)), dim_max(A, C)),
        (dim_max(C, dim_max(A, C + 1)), dim_max(A, C + 1)),
        (dim_min(dim_min(A, C), C), dim_min(A, C)),
        (dim_max(C, dim_min(A, C)), C),
        (dim_min(dim_max(A, C), C), C),
        (dim_max((C + 5) // 2 * 2, C + 5), C + 5),
        (dim_min((C + 5) // 2 * 2, C + 4), C + 4),
        (dim_max(dim_max(A, C), A), dim_max(A, C)),
        (dim_min(C, dim_min(B, dim_min(A, C))), dim_min(B, dim_min(A, C))),
        (A // -8, (-A) // 8),
        (A * B // 1, A * B),
        (((C + 1) // 2 + 1) // 2, (C + 3) // 4),
        (C // 3 // 2, C // 6),
        ((C // 4 - 5) // 3, (C - 20) // 12),
        (0 * A, 0),
    ],
)
def test_simplification(dim: Dim, expected: Dim) -> None:
    assert dim == expected


def test_a_quotient_that_does_not_simplify_is_one_atom() -> None:
    num = C * 5 + 1
    assert isinstance(num, Expr)
    assert str((C * 5 + 7) // 3) == "((c*5 + 1) // 3) + 2"
    assert (num // 3) + 2 == Expr((((FloorDiv(num, 3),), 1), ((), 2)))


def test_division_by_zero() -> None:
    for num in (3, A):
        with pytest.raises(ZeroDivisionError):
            floor_div(num, 0)
    with pytest.raises(ZeroDivisionError):
        evaluate(B // A, {"a": 0, "b": 1})


def test_helpers() -> None:
    assert product(()) == 1
    assert product((A, 2, B)) == A * B * 2
    assert [ceil_div(n, 4) for n in range(6)] == [0, 1, 1, 1, 1, 2]
    assert bounds(A * B - C) == (-math.inf, 20)
    assert upper(A * B + 1) == 21
    with pytest.raises(ValueError, match="no upper bound: c"):
        upper(C + A)
    assert static(3, "k") == 3
    with pytest.raises(ValueError, match="k must be a number, not a"):
        static(A, "k")
    with pytest.raises(KeyError, match="no value for a, b"):
        evaluate(A * B + C, {"c": 1})
    names = [s.name for s in symbols_of(A * B // D + dim_max(C, A))]
    assert sorted(names) == ["a", "a", "b", "c", "d"]


@given(formulas(ALL), VALUES)
@settings(max_examples=400)
def test_at_most_is_not_exceeded_by_any_index(f: Formula, values: dict[str, int]) -> None:
    assert all(
        f.value({**values, "i": i}) <= evaluate(at_most(f.dim), {**values, "i": i})
        for i in range(values["d"])
    )


def test_at_most() -> None:
    assert at_most(INNER * 2 - 3) == D * 2 - 5
    assert at_most((INNER + C) // 2 * B) == (D - 1 + C) // 2 * B
    for falling in (D - INNER, dim_max(D - INNER, 0), (D - INNER) // 2, D // (INNER + 1)):
        assert at_most(falling) == falling


def square(dim: Dim) -> Dim:
    return dim * dim


def sum_of_quotients(dim: Dim) -> Dim:
    return (dim + C) * dim // (dim + 3)


@pytest.mark.parametrize("grow", [square, sum_of_quotients])
def test_what_grows_without_end_is_given_up(grow: Callable[[Dim], Dim]) -> None:
    n: Dim = Expr.of(Symbol("n"))
    with pytest.raises(Unsupported, match="too complicated"):
        reduce(lambda dim, _: grow(dim), range(100), n)


def test_bounds_of_numbers_that_no_float_has() -> None:
    low, high = bounds(Expr.of(Symbol("s", 0, 1 << 600)) * (1 << 900) + 1)
    assert low == 1
    assert 1 << 128 < high < math.inf
