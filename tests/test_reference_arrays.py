from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxruntime_oracle import run_operator
from strategies import Array, assert_same, random_array

from tbc import ops
from tbc.dims import Expr, Symbol
from tbc.reference import evaluate
from tbc.types import DType, TensorType

B = Expr.of(Symbol("batch"))
X = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
F0 = np.array(-1, np.float32)


def test_sizes_become_data() -> None:
    op = ops.Dims((B, B * 2 + 1, 7, 0), (2, 2))
    assert_same(evaluate(op, [], {"batch": 3}), np.array([[3, 7], [7, 0]]))
    assert_same(evaluate(ops.Iota(B), [], {"batch": 3}), np.arange(3))
    assert_same(evaluate(ops.Dims((5,), ()), []), np.array(5))


def test_a_symbol_without_a_value() -> None:
    with pytest.raises(ValueError, match="must be a number, not batch"):
        evaluate(ops.Iota(B), [])


def test_broadcast_reshape_transpose() -> None:
    stretched = evaluate(ops.Broadcast((B, 3, 2)), [X[:1, :, :1].reshape(3, 1)], {"batch": 2})
    assert_same(stretched, np.array([[[0, 0], [4, 4], [8, 8]]] * 2, np.float32))
    assert_same(evaluate(ops.Reshape((4, B)), [X], {"batch": 6}), X.reshape(4, 6))
    turned = evaluate(ops.Transpose((2, 0, 1)), [X])
    assert all(turned[c, a, b] == X[a, b, c] for a, b, c in np.ndindex(2, 3, 4))
    assert_same(turned, run_operator("Transpose", [X], perm=[2, 0, 1]))


@given(st.data())
def test_slice_is_its_formula(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 7))
    start = data.draw(st.integers(0, size - 1))
    step = data.draw(st.sampled_from([1, 2, 3, -1, -2, -3]))
    most = len(range(start, size if step > 0 else -1, step))
    count = data.draw(st.integers(0, most))
    x = random_array(DType.i16, (size, 2), size)
    result = evaluate(ops.Slice((start, 0), (step, 1), (count, 2)), [x])
    assert_same(
        result, np.array([x[start + i * step] for i in range(count)], np.int16).reshape(-1, 2)
    )


@pytest.mark.parametrize(("start", "step", "size"), [(0, 1, 4), (1, 2, 2), (1, -1, 3), (3, 1, 1)])
def test_a_slice_outside_its_argument(start: int, step: int, size: int) -> None:
    with pytest.raises(ValueError, match="the slice"):
        evaluate(ops.Slice((start,), (step,), (size,)), [np.zeros(3)])


def test_slice_against_onnxruntime() -> None:
    bounds = [np.array(v) for v in ([1, 3], [-9, 0], [1, 2], [-1, -2])]
    expected = run_operator("Slice", [X, *bounds])
    assert_same(evaluate(ops.Slice((0, 1, 3), (1, -1, -2), (2, 2, 2)), [X]), expected)


def test_concat() -> None:
    parts = [X, X[:, :0], X[:, 1:]]
    assert_same(evaluate(ops.Concat(1), parts), run_operator("Concat", parts, axis=1))


@pytest.mark.parametrize("mode", ops.PAD_MODES)
@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 2, 0, 1), (3, 1, 2, 0), (7, 9, 11, 4)])
def test_pad(mode: str, pads: tuple[int, int, int, int]) -> None:
    x = X[0]
    before, after = pads[:2], pads[2:]
    shape = tuple(b + d + a for b, d, a in zip(before, x.shape, after, strict=True))
    result = evaluate(ops.Pad(before, shape, mode), [x, F0])
    widths = list(zip(before, after, strict=True))
    options: dict[str, Any] = {"constant_values": F0} if mode == "constant" else {}
    assert_same(result, np.pad(x, widths, mode, **options))  # type: ignore[call-overload]
    if max(pads) < 3:
        pad = np.array(pads)
        assert_same(result, run_operator("Pad", [x, pad, F0], mode=mode))


def test_reflection_of_one_element() -> None:
    one = np.array([5], np.int8)
    result = evaluate(ops.Pad((2,), (5,), "reflect"), [one, np.array(0, np.int8)])
    assert_same(result, np.full(5, 5, np.int8))


@pytest.mark.parametrize(("before", "size"), [(-1, 4), (2, 4)])
def test_negative_padding(before: int, size: int) -> None:
    with pytest.raises(ValueError, match="cuts it"):
        evaluate(ops.Pad((B - 1,), (size,)), [np.zeros(3), np.zeros(())], {"batch": before + 1})


WINDOWS = [
    # kernel, strides, dilations, before, after
    ((3,), (1,), (1,), (0,), (0,)),
    ((2,), (3,), (2,), (1,), (2,)),
    ((3, 3), (1, 1), (1, 1), (1, 1), (1, 1)),
    ((2, 3), (2, 1), (1, 2), (0, 2), (1, 0)),
    ((1, 1), (2, 2), (1, 1), (0, 0), (0, 0)),
    ((2, 2, 2), (1, 2, 1), (2, 1, 1), (1, 0, 1), (0, 1, 0)),
]


def windows_of(case: tuple[tuple[int, ...], ...], spatial: tuple[int, ...]) -> ops.Windows:
    kernel, strides, dilations, before, after = case
    out = tuple(
        (d + b + a - (k - 1) * dil - 1) // s + 1
        for d, k, s, dil, b, a in zip(
            spatial, kernel, strides, dilations, before, after, strict=True
        )
    )
    return ops.Windows(kernel, strides, dilations, before, out)


def conv_attributes(case: tuple[tuple[int, ...], ...]) -> dict[str, list[int]]:
    kernel, strides, dilations, before, after = case
    return {
        "kernel_shape": [*kernel],
        "strides": [*strides],
        "dilations": [*dilations],
        "pads": [*before, *after],
    }


@pytest.mark.parametrize("case", WINDOWS)
def test_windows_are_their_formula(case: tuple[tuple[int, ...], ...]) -> None:
    spatial = (7, 6, 5)[: len(case[0])]
    op = windows_of(case, spatial)
    x = random_array(DType.i32, (2, 3, *spatial), 1)
    result = evaluate(op, [x, np.array(99, np.int32)])
    type = op.infer(TensorType(DType.i32, x.shape), TensorType(DType.i32))
    assert result.shape == type.shape
    count = len(spatial)
    for index in np.ndindex(result.shape[2:]):
        o, t = index[:count], index[count:]
        at = [
            i * s + j * d - b
            for i, j, s, d, b in zip(o, t, op.strides, op.dilations, op.before, strict=True)
        ]
        inside = all(0 <= p < n for p, n in zip(at, spatial, strict=True))
        expected = x[(slice(None), slice(None), *at)] if inside else np.full((2, 3), 99)
        np.testing.assert_array_equal(result[(slice(None), slice(None), *index)], expected)


@pytest.mark.parametrize("case", WINDOWS)
def test_convolution_and_pooling_by_windows(case: tuple[tuple[int, ...], ...]) -> None:
    spatial = (7, 6, 5)[: len(case[0])]
    rng = np.random.default_rng(2)
    x = rng.standard_normal((2, 3, *spatial)).astype(np.float32)
    w = rng.standard_normal((4, 3, *case[0])).astype(np.float32)
    op = windows_of(case, spatial)
    patches = evaluate(op, [x, np.zeros((), np.float32)])
    taps = range(2 + len(spatial), 2 + 2 * len(spatial))
    result = np.tensordot(patches, w, ((1, *taps), tuple(range(1, w.ndim))))
    expected = run_operator("Conv", [x, w], **conv_attributes(case))
    np.testing.assert_allclose(np.moveaxis(result, -1, 1), expected, rtol=1e-4, atol=1e-5)

    low = evaluate(op, [x, np.array(-np.inf, np.float32)])
    pooled = evaluate(ops.Reduce("max", tuple(taps)), [low])
    if max(case[3] + case[4]) < min(case[0]):  # as onnxruntime demands
        assert_same(pooled, run_operator("MaxPool", [x], **conv_attributes(case)))


def test_windows_of_nothing() -> None:
    x = np.zeros((1, 2, 0), np.float32)
    result = evaluate(ops.Windows((2,), (1,), (1,), (1,), (3,)), [x, F0])
    assert_same(result, np.full((1, 2, 3, 2), -1, np.float32))
    flat = evaluate(ops.Windows((), (), (), (), ()), [X[0], F0])
    assert_same(flat, X[0])


INDICES = np.array([[0, -1], [2, -3]])


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_gather(dtype: Any) -> None:
    indices = INDICES.astype(dtype)
    result = evaluate(ops.Gather(1), [X, indices])
    assert_same(result, run_operator("Gather", [X, indices], axis=1))
    empty = evaluate(ops.Gather(0), [X, np.zeros((0, 2), dtype)])
    assert empty.shape == (0, 2, 3, 4)


@pytest.mark.parametrize("index", [3, -4])
def test_an_index_outside(index: int) -> None:
    with pytest.raises(ValueError, match="out of bounds"):
        evaluate(ops.Gather(1), [X, np.array(index)])
    with pytest.raises(ValueError, match="out of bounds"):
        evaluate(ops.GatherND(0), [X, np.array([0, index])])


@pytest.mark.parametrize(
    ("batch_dims", "indices"),
    [
        (0, [[0, 1, 2], [1, -1, 3]]),
        (0, [[[1], [0]]]),
        (0, [1]),
        (1, [[2], [0]]),
        (1, [[[0, 1], [2, -2]], [[1, 1], [0, 0]]]),
        (2, [[[3], [1], [0]], [[2], [2], [-1]]]),
    ],
)
def test_gather_nd(batch_dims: int, indices: Any) -> None:
    points = np.array(indices)
    result = evaluate(ops.GatherND(batch_dims), [X, points])
    assert_same(result, run_operator("GatherND", [X, points], batch_dims=batch_dims))


@pytest.mark.parametrize(
    "indices", [[[0, 1, 2], [1, -1, 3]], [[1, 0], [0, 2]], [[[1]], [[0]]], [[1]]]
)
def test_scatter_nd(indices: Any) -> None:
    points = np.array(indices)
    shape = points.shape[:-1] + X.shape[points.shape[-1] :]
    updates: Array = -np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    before = X.copy()
    result = evaluate(ops.ScatterND(), [X, points, updates])
    assert_same(result, run_operator("ScatterND", [X, points, updates]))
    assert_same(X, before)


def test_the_last_update_stays() -> None:
    result = evaluate(ops.ScatterND(), [np.zeros(2), np.array([[1]] * 3), np.array([3.0, 4, 5])])
    assert_same(result, np.array([0.0, 5]))
