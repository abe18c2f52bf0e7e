from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime_oracle import run_operator
from strategies import Array, assert_same, random_array

from tbc import ops
from tbc.layout import Layout
from tbc.reference import evaluate
from tbc.types import DType

F32 = np.float32
HALVES = (DType.f16, DType.bf16)
FLOATS = (*HALVES, DType.f32, DType.f64)

# -- reductions -----------------------------------------------------------------------------------

Scalar = Any
STEP: dict[str, Callable[[Scalar, Scalar], Scalar]] = {
    "sum": lambda a, b: a + b,
    "prod": lambda a, b: a * b,
    "max": lambda a, b: a if a > b or a != a else b,
    "min": lambda a, b: a if a < b or a != a else b,
}
IDENTITY = {"sum": 0.0, "prod": 1.0, "max": -math.inf, "min": math.inf}


def naive_reduction(kind: str, elements: list[Scalar], scalar: type) -> Scalar:
    """The 16 partial results and the tree, one scalar at a time."""
    partial = [scalar(IDENTITY[kind])] * 16
    for i, element in enumerate(elements):
        partial[i % 16] = STEP[kind](partial[i % 16], scalar(element))
    for stride in (8, 4, 2, 1):
        for j in range(stride):
            partial[j] = STEP[kind](partial[j], partial[j + stride])
    return partial[0]


@given(
    st.sampled_from(FLOATS),
    st.sampled_from(ops.REDUCTIONS),
    st.lists(st.integers(0, 4), max_size=3),
    st.data(),
)
@settings(max_examples=150)
def test_float_reductions_have_the_documented_order(
    dtype: DType, kind: str, shape: list[int], data: st.DataObject
) -> None:
    x = random_array(dtype, (*shape, data.draw(st.integers(0, 40))), data.draw(st.integers(0, 99)))
    axes = sorted(data.draw(st.sets(st.integers(0, x.ndim - 1))))
    scalar = np.float64 if dtype is DType.f64 else F32
    kept = [a for a in range(x.ndim) if a not in axes]
    expected = np.empty([x.shape[a] for a in kept], dtype.numpy)
    with np.errstate(all="ignore"):
        for index in np.ndindex(expected.shape):
            where = dict(zip(kept, index, strict=True))
            ranges = [[where[a]] if a in where else range(n) for a, n in enumerate(x.shape)]
            elements = [x[i] for i in itertools.product(*ranges)]
            expected[index] = dtype.numpy.type(naive_reduction(kind, elements, scalar))
    assert_same(evaluate(ops.Reduce(kind, tuple(axes)), [x]), expected)
    kept_dims = evaluate(ops.Reduce(kind, tuple(axes), True), [x])
    assert_same(kept_dims, np.expand_dims(expected, tuple(axes)))


def test_the_sign_of_a_sum_of_zeros() -> None:
    x = np.full((3, 20), -0.0, F32)
    assert_same(evaluate(ops.Reduce("sum", (1,)), [x]), np.zeros(3, F32))
    assert_same(evaluate(ops.Reduce("sum", ()), [x]), np.zeros((3, 20), F32))
    assert_same(evaluate(ops.Reduce("max", (1,)), [x]), np.full(3, -0.0, F32))


@pytest.mark.parametrize("kind", ops.REDUCTIONS)
def test_float_reductions_against_numpy_and_onnxruntime(kind: str) -> None:
    x = np.random.default_rng(1).uniform(0.5, 1.5, (3, 50, 7)).astype(F32)
    result = evaluate(ops.Reduce(kind, (1, 2)), [x])
    np.testing.assert_allclose(result, getattr(np, kind)(x.astype(np.float64), (1, 2)), rtol=1e-5)
    name = f"Reduce{kind.capitalize()}"
    expected = run_operator(name, [x, np.array([1, 2])], keepdims=0)
    np.testing.assert_allclose(result, expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [d for d in DType if d.is_int and d.bits >= 8])
def test_integer_reductions_wrap(dtype: DType) -> None:
    x = random_array(dtype, (4, 5, 3), 2)
    low, high = dtype.range
    meanings: dict[str, Callable[[list[int]], int]] = {
        "sum": sum, "prod": math.prod, "max": max, "min": min,
    }  # fmt: skip
    for kind, meaning in meanings.items():
        exact = [meaning([int(v) for v in x[:, i].flat]) for i in range(5)]
        expected = [(e - low) % (high - low + 1) + low for e in exact]
        assert_same(evaluate(ops.Reduce(kind, (0, 2)), [x]), np.array(expected, dtype.numpy))
    empty = x[:0]
    for kind, identity in {"sum": 0, "prod": 1, "max": low, "min": high}.items():
        result = evaluate(ops.Reduce(kind, (0,)), [empty])
        assert_same(result, np.full((5, 3), identity, dtype.numpy))


def test_bool_reductions() -> None:
    x = np.array([[True, False], [True, True]])
    assert_same(evaluate(ops.Reduce("max", (0,)), [x]), np.array([True, True]))
    assert_same(evaluate(ops.Reduce("min", (0,)), [x]), np.array([True, False]))
    assert_same(evaluate(ops.Reduce("max", (0,)), [x[:0]]), np.array([False, False]))
    assert_same(evaluate(ops.Reduce("min", (0, 1)), [x[:0]]), np.array(True))


# -- matmul ---------------------------------------------------------------------------------------


def naive_matmul(a: Array, b: Array, scalar: type) -> Array:
    """Each element summed serially over k, two roundings a step."""
    m, n = a.shape[0], b.shape[1]
    y: Array = np.empty((m, n), scalar)
    for i, j in np.ndindex(m, n):
        total = scalar(0)
        for k in range(a.shape[1]):
            total = total + scalar(a[i, k]) * scalar(b[k, j])
        y[i, j] = total
    return y


@given(st.sampled_from(FLOATS), st.tuples(*[st.integers(0, 6)] * 3), st.integers(0, 99))
def test_matmul_is_serial(dtype: DType, sizes: tuple[int, int, int], seed: int) -> None:
    m, k, n = sizes
    a, b = random_array(dtype, (m, k), seed), random_array(dtype, (k, n), seed + 1)
    with np.errstate(all="ignore"):
        exact = naive_matmul(a, b, np.float64 if dtype is DType.f64 else F32).astype(dtype.numpy)
    assert_same(evaluate(ops.MatMul(), [a, b]), exact)


@pytest.mark.parametrize(
    ("a_shape", "b_shape"),
    [((2, 3, 4), (4, 5)), ((4, 7), (3, 7, 2)), ((2, 1, 3, 4), (5, 4, 2)), ((0, 2, 3), (3, 2))],
)
def test_matmul_broadcasts_its_batches(a_shape: tuple[int, ...], b_shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    for dtype in (F32, np.int32, np.float16):
        a, b = (rng.integers(-9, 9, s).astype(dtype) for s in (a_shape, b_shape))
        assert_same(evaluate(ops.MatMul(), [a, b]), np.matmul(a, b))


def test_a_matmul_of_several_blocks() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal((300, 40)), rng.standard_normal((40, 700))
    result = evaluate(ops.MatMul(), [a.astype(F32), b.astype(F32)])
    np.testing.assert_allclose(result, a @ b, rtol=1e-3, atol=1e-4)
    rows = [0, 93, 94, 299]
    expected = naive_matmul(a[rows].astype(F32), b[:, :5].astype(F32), F32)
    assert_same(result[rows, :5], expected)
    onnx = run_operator("MatMul", [a.astype(F32), b.astype(F32)])
    np.testing.assert_allclose(result, onnx, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [DType.i8, DType.u8, DType.i32, DType.u64])
def test_integer_matmuls_wrap(dtype: DType) -> None:
    a, b = random_array(dtype, (3, 9), 5), random_array(dtype, (9, 4), 6)
    low, high = dtype.range
    exact = a.astype(object) @ b.astype(object)
    expected = np.array((exact - low) % (high - low + 1) + low).astype(dtype.numpy)
    assert_same(evaluate(ops.MatMul(), [a, b]), expected)


# -- dots -----------------------------------------------------------------------------------------

WEIGHTS = (DType.trit, DType.sign)


def naive_dot(x: Array, w: Array) -> Array:
    """y[m, n], each serially over k: additions, subtractions, and + 0.0 for a weight of 0."""
    y = np.empty((len(x), len(w)), F32)
    for i, j in np.ndindex(y.shape):
        total = F32(0)
        for element, weight in zip(x[i], w[j], strict=True):
            total += (F32(0), element, -element)[weight]
        y[i, j] = total
    return y


@given(st.sampled_from(WEIGHTS), st.tuples(*[st.integers(0, 7)] * 3), st.integers(0, 99))
def test_float_dots_add_and_subtract(dtype: DType, sizes: tuple[int, int, int], seed: int) -> None:
    m, n, k = sizes
    x, w = random_array(DType.f32, (m, k), seed), random_array(dtype, (n, k), seed)
    with np.errstate(all="ignore"):
        assert_same(evaluate(ops.Dot(), [x, w]), naive_dot(x, w))


def test_a_weight_of_zero_hides_what_is_not_finite() -> None:
    x = np.array([[np.nan, 1, np.inf, -2]], F32)
    w = np.array([[0, 1, 0, 1], [1, 0, 0, 0], [0, 0, -1, 1]], np.int8)
    assert_same(evaluate(ops.Dot(), [x, w]), np.array([[-1, np.nan, -np.inf]], F32))


@pytest.mark.parametrize("dtype", WEIGHTS)
@pytest.mark.parametrize("k", [1, 65, 70_000])
def test_integer_dots_are_exact(dtype: DType, k: int) -> None:
    ones = np.ones((1, k), np.int8)
    x = np.concatenate([ones * -128, ones * 127, random_array(DType.i8, (1, k), 7)])
    w = np.concatenate([ones, -ones, random_array(dtype, (2, k), 8)])
    result = evaluate(ops.Dot(), [x.reshape(3, 1, k), w])
    expected = np.einsum("mk,nk->mn", x.astype(np.int64), w.astype(np.int64))
    assert_same(result, expected.astype(np.int32)[:, None])
    assert_same(result[:, 0], run_operator("MatMulInteger", [x, np.ascontiguousarray(w.T)]))


def scaled(x: Array, w: Array, s: Array, xs: Array | None = None) -> Array:
    """sum_g s[n, g] (xs[m, g] f32(dot_g)), one rounding an operation."""
    groups, (n, k) = s.shape[1], w.shape
    y = np.zeros((len(x), n), F32)
    for g in range(groups):
        part = slice(g * k // groups, (g + 1) * k // groups)
        if x.dtype == np.int8:
            dots = (x[:, part].astype(np.int64) @ w[:, part].T.astype(np.int64)).astype(F32)
        else:
            dots = naive_dot(x[:, part], w[:, part])
        for i, j in np.ndindex(y.shape):
            term = dots[i, j] if xs is None else F32(xs[i, g] * dots[i, j])
            y[i, j] = F32(y[i, j] + F32(s[j, g] * term))
    return y


SHAPES = [(1, 1, 4, 1), (3, 17, 12, 3), (2, 5, 40, 2), (0, 3, 6, 6)]


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("dtype", [DType.i8, DType.f32])
@pytest.mark.parametrize(("m", "n", "k", "groups"), SHAPES)
def test_grouped_dots_and_their_packed_forms(
    weight: DType, dtype: DType, m: int, n: int, k: int, groups: int
) -> None:
    x, w = random_array(dtype, (m, k), 9), random_array(weight, (n, k), 10)
    x = np.where(np.isfinite(x), x, 1).astype(dtype.numpy)
    s = np.random.default_rng(11).uniform(-1, 1, (n, groups)).astype(F32)
    expected = scaled(x, w, s)
    assert_same(evaluate(ops.GroupedDot(), [x, w, s]), expected)

    size = k // groups
    layout = Layout("i2" if weight is DType.trit else "b1", size)
    padded = np.zeros((m, groups, layout.padded_k(size)), dtype.numpy)
    padded[..., :size] = x.reshape(m, groups, size)
    blocks = np.zeros((layout.blocks(n) * layout.rows, groups), F32)
    blocks[:n] = s
    scales = blocks.reshape(layout.blocks(n), layout.rows, groups).transpose(0, 2, 1)
    args = [padded.reshape(m, layout.padded_k(k)), evaluate(ops.Pack(layout), [w]), scales]
    if dtype is DType.i8:
        args.append(x.reshape(m, groups, size).sum(2, np.int32))
    assert_same(evaluate(ops.PackedGroupedDot((), layout, n, k), args), expected)
    if dtype is DType.i8:
        xs = np.random.default_rng(12).uniform(0, 1, (m, groups)).astype(F32)
        expected = scaled(x, w, s, xs)
        assert_same(evaluate(ops.GroupedDot(), [x, w, s, xs]), expected)
        assert_same(evaluate(ops.PackedGroupedDot((), layout, n, k), [*args, xs]), expected)


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("k", [1, 16, 33])
def test_packed_dots_sum_codes(weight: DType, k: int) -> None:
    layout = Layout("i2" if weight is DType.trit else "b1")
    w = random_array(weight, (18, k), 12)
    packed = evaluate(ops.Pack(layout), [w])
    assert_same(packed, layout.pack(w))
    op = ops.PackedDot((), layout, 18, k)
    width = [(0, 0), (0, layout.padded_k(k) - k)]
    x = random_array(DType.i8, (3, k), 13)
    codes = w.astype(int) + 1 if weight is DType.trit else (w.astype(int) + 1) // 2
    raw = evaluate(op, [np.pad(x, width), packed])
    assert_same(raw, (x.astype(int) @ codes.T).astype(np.int32))
    y = random_array(DType.f32, (3, k), 14)
    assert_same(evaluate(op, [np.pad(y, width), packed]), evaluate(ops.Dot(), [y, w]))


# -- lift -----------------------------------------------------------------------------------------


@given(st.sampled_from(WEIGHTS), st.sampled_from([1, 2, 4]), st.booleans(), st.integers(0, 99))
def test_lift_finds_the_nearest(dtype: DType, groups: int, per_row: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    w = rng.choice([-2.0, -1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.6, 1, 3], (5, 8)).astype(F32)
    s = rng.choice([-1.0, -0.5, 0.5, 1, 1.5], (5 if per_row else 1, groups)).astype(F32)
    t = evaluate(ops.Lift(dtype), [w, s])
    assert t.dtype == np.int8
    scale = np.broadcast_to(np.repeat(s, 8 // groups, 1), w.shape)
    choices = (-1, 0, 1) if dtype is DType.trit else (-1, 1)
    for i in np.ndindex(w.shape):
        chosen = int(t[i])
        distances = {c: abs(float(w[i]) - c * float(scale[i])) for c in choices}
        assert distances[chosen] == min(distances.values())
        ties = [c for c in choices if distances[c] == distances[chosen]]
        assert len(ties) == 1 or chosen == (0 if dtype is DType.trit else 1)


def test_lift_of_an_exact_weight_returns_it() -> None:
    t = np.array([[-1, 0, 1, 1]], np.int8)
    for s in (0.1, -0.1, 3e38, 1e-45):
        scale = np.array([[s]], F32)
        assert_same(evaluate(ops.Lift(DType.trit), [t * scale, scale]), t)
        signs = np.where(t == 0, 1, t)
        assert_same(evaluate(ops.Lift(DType.sign), [signs * scale, scale]), signs)


def test_lift_of_several_blocks() -> None:
    rng = np.random.default_rng(15)
    w, s = rng.standard_normal((700, 300)).astype(F32), rng.uniform(0.5, 2, (700, 3)).astype(F32)
    scale = np.repeat(s, 100, 1)
    for one_row in (False, True):
        used, full = (s[:1], scale[:1]) if one_row else (s, scale)
        expected = np.clip(np.rint(w / full), -1, 1).astype(np.int8)
        assert_same(evaluate(ops.Lift(DType.trit), [w, used]), expected)


def test_lift_by_zero() -> None:
    w, zero = np.array([[-1, 0, 1]], F32), np.zeros((1, 1), F32)
    assert_same(evaluate(ops.Lift(DType.trit), [w, zero]), np.zeros((1, 3), np.int8))
    assert_same(evaluate(ops.Lift(DType.sign), [w, zero]), np.ones((1, 3), np.int8))
