"""Scales of columns are found whatever the rows' scales, and only where there are some."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbc.ops import Lift
from tbc.passes.gains import Gained, detect_gains
from tbc.passes.trits import TOLERANCE
from tbc.reference import evaluate
from tbc.types import DType

Array = npt.NDArray[Any]


def rebuilt(w: Array, found: Gained) -> Array:
    """The weight that gains and scales stand for."""
    codes = evaluate(Lift(found.low.dtype), [w / found.gains, found.low.scale])
    return np.asarray(codes * found.low.scale.astype(np.float64) * found.gains)


@given(st.integers(0, 999), st.integers(2, 9), st.integers(2, 40), st.booleans(), st.booleans())
def test_gains_and_scales_give_the_weight(
    seed: int, n: int, k: int, rows: bool, binary: bool
) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.choice([-1, 1] if binary else [-1, 0, 0, 1], (n, k))
    w = (codes * rng.uniform(0.01, 4, k)).astype(np.float32)
    if rows:
        w = w * rng.uniform(0.01, 4, (n, 1)).astype(np.float32)
    found = detect_gains(w)
    assert found is not None
    assert (found.gains > 0).all()
    assert found.low.dtype is (DType.sign if binary else found.low.dtype)
    assert (np.abs(rebuilt(w, found) - w) <= 2 * TOLERANCE * np.abs(w)).all()


def test_equal_scales_of_rows_are_exact() -> None:
    rng = np.random.default_rng(1)
    gains = rng.uniform(0.01, 4, 24).astype(np.float32)
    w = rng.choice([-1, 0, 1], (16, 24)).astype(np.float32) * gains
    found = detect_gains(w)
    assert found is not None
    np.testing.assert_array_equal(found.low.scale, [[1]])
    np.testing.assert_array_equal(rebuilt(w, found), w)


def test_rows_that_share_no_column() -> None:
    w = np.zeros((4, 6), np.float32)
    w[0, :2], w[1, 2:4], w[2, 3:5], w[3, [1, 4]] = (1, 2), (3, 5), (10, 7), (6, 21)
    found = detect_gains(w)
    assert found is not None
    np.testing.assert_allclose(rebuilt(w, found), w, rtol=1e-6)
    w[3, 1] = 6.01  # closes no ring: rows 1 and 2 are scaled by row 3
    assert detect_gains(w) is not None
    w[3, 2] = 1.0  # a ring of the rows 1, 2 and 3
    assert detect_gains(w) is None


@pytest.mark.parametrize("value", [1e-4, np.inf, np.nan])
def test_one_weight_that_is_off(value: float) -> None:
    rng = np.random.default_rng(1)
    w = rng.choice([-1, 1], (16, 24)).astype(np.float32) * rng.uniform(1, 2, 24).astype(np.float32)
    assert detect_gains(w) is not None
    w[3, 5] *= 1 + value
    assert detect_gains(w) is None


def test_gains_that_no_float_holds() -> None:
    w = np.ones((8, 4), np.float32)
    w[:, 1] = 1e-42
    assert detect_gains(w) is None


def test_dense_weights_have_none() -> None:
    assert detect_gains(np.random.default_rng(1).normal(size=(8, 4)).astype(np.float32)) is None
