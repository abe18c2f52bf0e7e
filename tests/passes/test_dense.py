"""Products by 8-bit weights: exact, as dots where a target has kernels, elsewhere as loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import tbc
from tbc.api import is_native
from tbc.codegen.host import host_target, resolve_target
from tbc.driver import bound_batch
from tbc.frontend import load
from tbc.inspection import inspect

HOST = host_target()
LEVELS = ("x86-64", "x86-64-v3", "x86-64-v3+avxvnni", "x86-64-v4", "x86-64-v4+vnni", "armv8")
TARGETS = [name for name in LEVELS if is_native(resolve_target(name))] + ["native"]
"""Levels of this machine that have kernels of their own, or none."""

Array = npt.NDArray[Any]


def model_of(
    nodes: list[onnx.NodeProto],
    constants: dict[str, Array],
    x: tuple[Any, list[int]],
    rank: int,
    dtype: int = TensorProto.INT32,
) -> onnx.ModelProto:
    """x -> y, of so many axes."""
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x[0]), x[1])],
        [helper.make_tensor_value_info("y", dtype, [None] * rank)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])


def product(x: Array, w: Array, zx: Array, zw: Array) -> onnx.ModelProto:
    node = helper.make_node("MatMulInteger", ["x", "w", "zx", "zw"], ["y"])
    return model_of([node], {"w": w, "zx": zx, "zw": zw}, (x.dtype, list(x.shape)), x.ndim)


def drawn(rng: np.random.Generator, dtype: Any, shape: tuple[int, ...], extreme: bool) -> Array:
    """Elements of the whole range, or only its ends."""
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    if extreme:
        return rng.choice(np.array([least, most], dtype), shape)
    return rng.integers(least, most + 1, shape).astype(dtype)


TYPES = st.sampled_from([np.int8, np.uint8])


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 20), st.integers(1, 150), st.integers(1, 70)),
    *(
        TYPES,
        TYPES,
        st.booleans(),
        st.booleans(),
        st.sampled_from(TARGETS),
        st.integers(0, 1 << 30),
    ),
)
def test_products(
    sizes: tuple[int, int, int],
    of_x: Any,
    of_w: Any,
    by_column: bool,
    extreme: bool,
    target: str,
    seed: int,
) -> None:
    (m, k, n), rng = sizes, np.random.default_rng(seed)
    x, w = drawn(rng, of_x, (m, k), extreme), drawn(rng, of_w, (k, n), extreme)
    zx = drawn(rng, of_x, (), extreme)
    zw = drawn(rng, of_w, (n,) if by_column else (), extreme)
    (y,) = tbc.compile(product(x, w, zx, zw), target=target).run({"x": x}).values()
    wide = x.astype(np.int64) - zx.astype(np.int64), w.astype(np.int64) - zw.astype(np.int64)
    np.testing.assert_array_equal(y, (wide[0] @ wide[1]).astype(np.int32))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("n", [17, 48, 80, 100, 112])
def test_strips_that_are_narrower_than_panels(n: int, target: str) -> None:
    """Columns computed on the stack, of so many rows that few fit, reach into the last panel."""
    rng = np.random.default_rng(n)
    x, w = drawn(rng, np.int8, (8, 129), False), drawn(rng, np.int8, (129, n), False)
    zx, zw = drawn(rng, np.int8, (), False), drawn(rng, np.int8, (n,), False)
    model = tbc.compile(product(x, w, zx, zw), target=target, threads=2)
    (y,) = model.run({"x": x}).values()
    wide = x.astype(np.int64) - int(zx), w.astype(np.int64) - zw.astype(np.int64)
    np.testing.assert_array_equal(y, (wide[0] @ wide[1]).astype(np.int32))


@settings(max_examples=15, deadline=None)
@given(TYPES, TYPES, st.sampled_from(TARGETS), st.integers(0, 1 << 30))
def test_convolutions(of_x: Any, of_w: Any, target: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, w = drawn(rng, of_x, (2, 3, 9, 8), False), drawn(rng, of_w, (18, 3, 3, 3), False)
    zx, zw = drawn(rng, of_x, (), False), drawn(rng, of_w, (), False)
    pads = {"pads": [1, 1, 1, 1], "strides": [2, 1]}
    node = helper.make_node("ConvInteger", ["x", "w", "zx", "zw"], ["y"], **pads)
    model = model_of([node], {"w": w, "zx": zx, "zw": zw}, (x.dtype, list(x.shape)), 4)
    (y,) = tbc.compile(model, target=target).run({"x": x}).values()
    wide = np.pad(x.astype(np.int64) - int(zx), ((0, 0), (0, 0), (1, 1), (1, 1)))
    views = np.lib.stride_tricks.sliding_window_view(wide, (3, 3), (2, 3))[:, :, ::2]
    expected = np.einsum("bchwij,ocij->bohw", views, w.astype(np.int64) - int(zw))
    np.testing.assert_array_equal(y, expected.astype(np.int32))


@settings(max_examples=20, deadline=None)
@given(
    st.tuples(st.integers(1, 9), st.integers(30, 150), st.integers(2, 40)),
    *(TYPES, st.booleans(), st.sampled_from([*TARGETS, "c"]), st.integers(0, 1 << 30)),
)
def test_quantised_layers(
    sizes: tuple[int, int, int], of_x: Any, is_per_row: bool, target: str, seed: int
) -> None:
    """x -> codes -> floats, by floats of 8-bit codes: exact sums, rounded once and scaled."""
    (m, k, n), rng = sizes, np.random.default_rng(seed)
    codes, zero = drawn(rng, of_x, (m, k), False), drawn(rng, of_x, (), False)
    w = drawn(rng, np.int8, (k, n), False)
    sw = rng.uniform(0.01, 1, n if is_per_row else ()).astype(np.float32)
    sx = np.float32(0.03)
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "sx", "zx"], ["a"]),
        helper.make_node("DequantizeLinear", ["w", "sw"], ["b"], axis=1),
        helper.make_node("MatMul", ["a", "b"], ["y"]),
    ]
    constants = {"w": w, "sw": sw, "sx": np.array(sx), "zx": zero}
    model = model_of(nodes, constants, (np.dtype(of_x), [m, k]), 2, TensorProto.FLOAT)
    sums = (codes.astype(np.int64) - int(zero)) @ w.astype(np.int64)
    expected = sums.astype(np.float32) * sx * sw
    if target == "c":
        assert tbc.verify(model, target=target).ok
        return
    (y,) = tbc.compile(model, target=target).run({"x": codes}).values()
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize(
    ("target", "kernel"),
    [
        ("x86-64", "int8_gemm_2x1c4_sse2"),
        ("x86-64-v3", "int8_gemm_4x1c4_maddwd256"),
        ("x86-64-v3+avxvnni", "int8_gemm_6x1c4_avxvnni"),
        ("x86-64-v4", "int8_gemm_8x1c4_maddwd512"),
        ("x86-64-v4+vnni", "int8_gemm_8x3c4_vnni512"),
        ("armv8", ""),
        ("armv8.2+dotprod", "int8_gemm_4x1c4_neondot"),
        ("armv8.6", "int8_gemm_4x1c4_i8mm"),
        ("cortex-m4", ""),
    ],
)
def test_kernels_and_what_inspect_tells_of_them(target: str, kernel: str) -> None:
    rng = np.random.default_rng(0)
    x, w = drawn(rng, np.uint8, (16, 40), False), drawn(rng, np.int8, (40, 30), False)
    made = product(x, w, np.array(3, np.uint8), np.array(0, np.int8))
    graph, _ = bound_batch(load(made).graph)
    (layer,) = inspect(graph, resolve_target(target)).layers
    assert layer.kernel == kernel
    assert layer.multiplications == 16 * 30 * 40
    assert layer.reason


def test_what_does_not_fit_stays_a_product() -> None:
    rng = np.random.default_rng(0)
    x = drawn(rng, np.int8, (2, 70_000), True)
    w = np.full((70_000, 16), -128, np.int8)
    model = product(x, w, np.array(0, np.int8), np.array(0, np.int8))
    (y,) = tbc.compile(model).run({"x": x}).values()
    np.testing.assert_array_equal(y, (x.astype(np.int64) @ w.astype(np.int64)).astype(np.int32))


def test_sums_of_many_rows_of_weights_are_constants() -> None:
    rng = np.random.default_rng(0)
    x, w = drawn(rng, np.uint8, (1, 32), False), rng.integers(-1, 2, (32, 5000)).astype(np.int8)
    model = product(x, w, np.array(7, np.uint8), np.array(0, np.int8))
    (y,) = tbc.compile(model).run({"x": x}).values()
    np.testing.assert_array_equal(y, (x.astype(np.int32) - 7) @ w.astype(np.int32))
