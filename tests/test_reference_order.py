"""Scatters, sorting, and running sums and products, against loops in Python and onnxruntime."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxruntime_oracle import run_operator
from strategies import Array, assert_same, random_array

from tbc import ops
from tbc.reference import evaluate
from tbc.types import DType

X = np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 7
seeds = st.integers(0, 999)

UPDATE: dict[str, Callable[[Any, Any], Any]] = {
    "none": lambda old, new: new,
    "add": lambda old, new: old + new,
    "mul": lambda old, new: old * new,
    "max": lambda old, new: new if math.isnan(new) or new > old else old,
    "min": lambda old, new: new if math.isnan(new) or new < old else old,
}
DTYPES = (DType.f32, DType.f16, DType.i8, DType.u16, DType.i64)


def _places(rng: np.random.Generator, axis: int) -> Array:
    """Places in X along an axis, several of them the same."""
    shape = [2, 3, 4]
    shape[axis] = 5
    return rng.integers(-X.shape[axis], X.shape[axis], shape)


def _same_numbers(result: Array, expected: Array) -> None:
    """Equal, zeros of either sign: Python's loop may keep another one of two equal zeros."""
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_gather_elements(axis: int) -> None:
    places = _places(np.random.default_rng(axis), axis)
    result = evaluate(ops.GatherElements(axis), [X, places])
    assert_same(result, run_operator("GatherElements", [X, places], axis=axis))
    few = places[:1, :2, :3]
    assert_same(evaluate(ops.GatherElements(axis), [X, few]), result[:1, :2, :3])


@given(st.sampled_from(ops.UPDATES), st.sampled_from(DTYPES), st.integers(0, 2), seeds)
def test_scatter_elements(how: str, dtype: DType, axis: int, seed: int) -> None:
    x = random_array(dtype, (2, 3, 4), seed)
    places = _places(np.random.default_rng(seed), axis)
    updates = random_array(dtype, places.shape, seed + 1)
    expected = x.copy()
    with np.errstate(all="ignore"):
        for index in np.ndindex(places.shape):
            place = (*index[:axis], places[index], *index[axis + 1 :])
            expected[place] = UPDATE[how](expected[place], updates[index])
    _same_numbers(evaluate(ops.ScatterElements(axis, how), [x, places, updates]), expected)


@given(st.sampled_from(ops.UPDATES), st.sampled_from(DTYPES), st.integers(1, 3), seeds)
def test_scatter_nd(how: str, dtype: DType, depth: int, seed: int) -> None:
    x = random_array(dtype, (2, 3, 4), seed)
    sizes = np.array(x.shape[:depth])
    points = np.random.default_rng(seed).integers(-sizes, sizes, (2, 4, depth))
    updates = random_array(dtype, (2, 4, *x.shape[depth:]), seed + 1)
    expected = x.copy()
    with np.errstate(all="ignore"):
        for index in itertools.product(range(2), range(4)):
            for inner in np.ndindex(x.shape[depth:]):
                place = (*points[index], *inner)
                expected[place] = UPDATE[how](expected[place], updates[(*index, *inner)])
    _same_numbers(evaluate(ops.ScatterND(how), [x, points, updates]), expected)


@pytest.mark.parametrize("how", ["add", "mul", "max", "min"])
def test_reductions_are_those_of_onnxruntime(how: str) -> None:
    places = _places(np.random.default_rng(1), 1)
    updates = np.random.default_rng(2).standard_normal(places.shape).astype(np.float32)
    result = evaluate(ops.ScatterElements(1, how), [X, places, updates])
    expected = run_operator("ScatterElements", [X, places, updates], axis=1, reduction=how)
    _same_numbers(result, expected)


@pytest.mark.parametrize("index", [3, -4])
def test_a_place_outside(index: int) -> None:
    place = np.full((1, 1, 1), index)
    for op in (ops.GatherElements(1), ops.ScatterElements(1)):
        args = [X, place] if isinstance(op, ops.GatherElements) else [X, place, X[:1, :1, :1]]
        with pytest.raises(ValueError, match="out of bounds"):
            evaluate(op, args)
    with pytest.raises(ValueError, match="out of bounds"):
        evaluate(ops.ScatterND("add"), [X, np.array([[0, index]]), X[:1, 0]])


@given(st.sampled_from([*DTYPES, DType.bf16, DType.i4]), st.booleans(), st.integers(0, 40), seeds)
def test_arg_sort(dtype: DType, descending: bool, size: int, seed: int) -> None:
    x = np.stack([random_array(dtype, (size,), seed + i) for i in range(2)], 1)
    x[size // 2 :] = x[: size - size // 2]  # so that there are equal ones

    def key(column: int, row: int) -> tuple[Any, ...]:
        number = float(x[row, column])
        greatness = (math.isnan(number), 0.0 if math.isnan(number) else number)
        return (*((-g for g in greatness) if descending else greatness), row)

    expected = [sorted(range(size), key=lambda row: key(column, row)) for column in range(2)]
    for count in {size, size // 3}:
        result = evaluate(ops.ArgSort(0, count, descending), [x])
        assert_same(result, np.array(expected, np.int64).reshape(2, size).T[:count])


@given(
    st.sampled_from(["sum", "prod"]), st.sampled_from(DTYPES), st.booleans(), st.booleans(), seeds
)
def test_cumulate(kind: str, dtype: DType, exclusive: bool, reverse: bool, seed: int) -> None:
    x = random_array(dtype, (2, 9, 3), seed)
    exact = np.float32 if dtype is DType.f16 else x.dtype.type
    expected = np.empty_like(x)
    with np.errstate(all="ignore"):
        for outer, inner in itertools.product(range(2), range(3)):
            total = exact(0 if kind == "sum" else 1)
            for i in reversed(range(9)) if reverse else range(9):
                term = exact(x[outer, i, inner])
                after = total + term if kind == "sum" else total * term
                expected[outer, i, inner] = total if exclusive else after
                total = after
    op = ops.Cumulate(kind, 1, exclusive, reverse)
    assert_same(evaluate(op, [x]), expected)
