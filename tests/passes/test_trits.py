from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbc.ops import Lift
from tbc.passes.trits import TOLERANCE, LowBit, detect, zero_fraction
from tbc.reference import evaluate
from tbc.types import DType

Array = npt.NDArray[Any]


def codes(rng: np.random.Generator, n: int, k: int, dtype: DType) -> Array:
    """Weights of which no row, and no group of 16, lacks one that is not 0."""
    w = rng.choice([-1, 1] if dtype is DType.sign else [-1, 0, 1], (n, k))
    w[:, ::16] = 1
    if dtype is DType.trit:
        w[:, 1::16] = 0
    return w


def rebuilt(w: Array, found: LowBit) -> Array:
    """The weight that a detected scale stands for."""
    trits = evaluate(Lift(found.dtype), [w, found.scale])
    scale = np.repeat(found.scale, w.shape[1] // found.scale.shape[1], 1)
    return np.asarray(trits * scale)


@st.composite
def weights(draw: Any) -> tuple[Array, tuple[int, int], DType]:
    """(w[n, k], the shape of its scales, the type of its codes)."""
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    n, units = draw(st.integers(2, 9)), draw(st.sampled_from([2, 3, 4, 6, 8]))
    groups = draw(st.sampled_from([g for g in range(1, units + 1) if units % g == 0]))
    rows = draw(st.sampled_from([1, n])) if groups == 1 else n
    dtype = draw(st.sampled_from([DType.trit, DType.sign]))
    scale = rng.permutation(np.arange(1, rows * groups + 1)).reshape(rows, groups) / 7
    scale = scale.astype(np.float32)
    w = codes(rng, n, 16 * units, dtype) * np.repeat(scale, 16 * units // groups, 1)
    return w.astype(np.float32), (rows, groups), dtype


@given(weights())
def test_the_coarsest_exact_scales_are_found(drawn: tuple[Array, tuple[int, int], DType]) -> None:
    w, shape, dtype = drawn
    found = detect(w)
    assert isinstance(found, LowBit)
    assert found.dtype is dtype
    assert found.scale.shape == shape
    np.testing.assert_array_equal(rebuilt(w, found), w)


@given(weights(), st.integers(0, 99))
def test_noise_of_the_last_places_is_ignored(
    drawn: tuple[Array, tuple[int, int], DType], seed: int
) -> None:
    w, shape, dtype = drawn
    rng = np.random.default_rng(seed)
    noisy = w * (1 + rng.uniform(-4e-6, 4e-6, w.shape)).astype(np.float32)
    noisy = np.where(w == 0, rng.choice([0, 1e-9], w.shape), noisy).astype(np.float32)
    found = detect(noisy)
    assert isinstance(found, LowBit)
    assert found.dtype is dtype
    assert found.scale.shape == shape
    largest = np.repeat(found.scale, w.shape[1] // shape[1], 1)
    assert (np.abs(rebuilt(noisy, found) - noisy) <= TOLERANCE * largest).all()


@given(weights(), st.integers(0, 999))
def test_one_weight_that_is_off_is_not_snapped(
    drawn: tuple[Array, tuple[int, int], DType], place: int
) -> None:
    w, _, _ = drawn
    place %= w.size
    off = w.copy()
    off.flat[place] += np.abs(w).max() * 1e-4
    reason = detect(off)
    assert isinstance(reason, str)
    assert reason.startswith("not ternary")


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_odd_numbers_are_not_lifted(odd: float) -> None:
    w = np.ones((3, 32), np.float32)
    w[1, 7] = odd
    assert detect(w) == "a weight is infinite or not a number"


def test_rows_and_tensors_of_zeros() -> None:
    w = np.array([[0, 0, 0], [2, 0, -2], [0, 0, 0], [3, 3, 0]], np.float32)
    found = detect(w)
    assert isinstance(found, LowBit)
    assert found.scale.tolist() == [[0], [2], [0], [3]]
    found = detect(w[:3])
    assert isinstance(found, LowBit)
    assert found.scale.tolist() == [[2]]
    found = detect(np.zeros((2, 40), np.float32))
    assert isinstance(found, LowBit)
    assert (found.dtype, found.scale.tolist()) == (DType.trit, [[0]])


def test_a_weight_without_elements() -> None:
    assert detect(np.zeros((0, 4), np.float32)) == "the weight is empty"
    assert np.isnan(zero_fraction(np.zeros((0, 4))))


def test_integers_are_compared_exactly() -> None:
    found = detect(np.array([[127, 0], [-127, 127]], np.int32))
    assert isinstance(found, LowBit)
    assert found.scale.tolist() == [[127]]
    w = np.array([[10_000_000, 0], [-10_000_001, 0]], np.int32)
    found = detect(w)
    assert isinstance(found, LowBit)
    assert found.scale.tolist() == [[10_000_000], [10_000_001]]
    assert isinstance(detect(w.T), str)
    assert isinstance(detect(np.array([[-128, 0, 127]], np.int32)), str)


def test_half_precision() -> None:
    found = detect(np.array([[0.1, 0, -0.1]], np.float16))
    assert isinstance(found, LowBit)
    assert found.scale.dtype == np.float32
    assert found.scale[0, 0] == np.float16(0.1)


def test_a_large_weight_is_read_in_blocks() -> None:
    rng = np.random.default_rng(0)
    w = rng.choice(np.array([-0.5, 0, 0.5], np.float32), (2048, 4096)).T
    tracemalloc.start()
    found = detect(w)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(found, LowBit)
    assert found.scale.shape == (1, 1)
    assert peak < w.nbytes
