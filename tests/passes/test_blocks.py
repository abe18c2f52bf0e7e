"""Products by 4- and 8-bit weights with scales of blocks: integer dots, the same bits anywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from test_dense import TARGETS, drawn, model_of

import tbc
from tbc import ops
from tbc.codegen.host import resolve_target
from tbc.driver import bound_batch
from tbc.frontend import load
from tbc.inspection import Layer, inspect
from tbc.ir import Builder, Graph
from tbc.passes.dense import dense
from tbc.reference import run_graph
from tbc.target import parse
from tbc.types import DType, TensorType

Array = npt.NDArray[Any]
F32 = np.float32


def nbits(
    codes: Array,
    scales: Array,
    m: int,
    zeros: Array | None = None,
    level: int = 4,
    bits: int = 4,
) -> onnx.ModelProto:
    """x[m, k] by (codes[n, blocks, block] - zeros) * scales[n, blocks]."""
    n, blocks, block = codes.shape
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    packed = np.bitwise_or.reduce(codes.reshape(n, blocks, -1, 8 // bits) << shifts, axis=-1)
    constants = {"w": packed, "s": scales}
    if zeros is not None:
        padded = np.zeros((n, -(-blocks * bits // 8) * 8 // bits), np.uint8)
        padded[:, :blocks] = zeros
        each = padded.reshape(n, -1, 8 // bits) << shifts
        constants["z"] = np.bitwise_or.reduce(each, axis=-1)
    sizes = {"K": blocks * block, "N": n, "bits": bits, "block_size": block}
    domain = "com.microsoft"
    node = helper.make_node(
        "MatMulNBits", ["x", *constants], ["y"], domain=domain, accuracy_level=level, **sizes
    )
    shape = (np.dtype(F32), [m, blocks * block])
    model = model_of([node], constants, shape, 2, TensorProto.FLOAT)
    model.opset_import.append(helper.make_opsetid(domain, 1))
    model.ir_version = 10
    return model


def dequantised(m: int, w: Array, scales: Array, least: int, sx: Array) -> onnx.ModelProto:
    """x[m, k] * sx by w[k, n] of 4 bits from `least` on, with scales[blocks, n]."""
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "sx"], ["a"]),
        helper.make_node(
            "DequantizeLinear", ["w", "s", "z"], ["b"], axis=0, block_size=len(w) // len(scales)
        ),
        helper.make_node("MatMul", ["a", "b"], ["y"]),
    ]
    x = np.dtype(np.int8), [m, len(w)]
    model = model_of(nodes, {"s": scales, "sx": np.array(sx)}, x, 2, 1)
    kind = TensorProto.INT4 if least else TensorProto.UINT4
    zeros = np.full(scales.shape, least + 8)
    for name, array in (("w", w), ("z", zeros)):
        made = helper.make_tensor(name, kind, array.shape, array.reshape(-1).tolist())
        model.graph.initializer.append(made)
    return model


def added_by_blocks(x: Array, xs: Array, w: Array, s: Array) -> Array:
    """x[m, blocks, block] by w[n, blocks, block]: exact in a block, then floats in order."""
    total = np.zeros((len(x), len(w)), F32)
    for g in range(w.shape[1]):
        exact = x[:, g].astype(np.int64) @ w[:, g].astype(np.int64).T
        total = total + s[:, g] * (xs[:, g, None] * exact.astype(F32))
    return total


def layer_of(model: onnx.ModelProto, target: str) -> Layer:
    graph, _ = bound_batch(load(model).graph)
    (layer,) = inspect(graph, resolve_target(target)).layers
    return layer


SIZES = st.tuples(
    st.integers(1, 20), st.integers(1, 40), st.integers(2, 5), st.sampled_from([16, 32, 64, 256])
)
"""Rows of activations and of weights, blocks, and the weights of one."""


@settings(max_examples=25, deadline=None)
@given(
    SIZES,
    st.sampled_from([4, 8]),
    *(st.booleans(), st.booleans(), st.sampled_from(TARGETS), st.integers(0, 99)),
)
def test_activations_rounded_by_blocks(
    sizes: tuple[int, int, int, int],
    bits: int,
    has_zeros: bool,
    has_scales: bool,
    target: str,
    seed: int,
) -> None:
    """`has_scales`: of blocks of weights; else they have one a row."""
    (m, n, blocks, block), rng = sizes, np.random.default_rng(seed)
    codes = rng.integers(0, 1 << bits, (n, blocks, block)).astype(np.uint8)
    scales = rng.uniform(-1, 1, (n, blocks if has_scales else 1)).astype(F32)
    scales = np.broadcast_to(scales, (n, blocks))
    # zero points of 8 bits leave integers of 9
    zeros = rng.integers(0, 16, (n, blocks)).astype(np.uint8) if has_zeros and bits == 4 else None
    x = (rng.standard_normal((m, blocks, block)) * 10.0 ** rng.integers(-3, 3)).astype(F32)
    x[:, rng.integers(blocks)] *= rng.integers(2)  # a block of zeros among them
    xs = (np.abs(x).max(-1) / F32(127)).astype(F32)
    inverse = np.divide(F32(1), xs, out=np.zeros_like(xs), where=xs != 0)
    rounded = np.clip(np.rint(x * inverse[..., None]), -127, 127)
    middle = np.full((n, blocks), 1 << bits - 1) if zeros is None else zeros
    w = codes.astype(np.int64) - middle[..., None]
    model = nbits(codes, scales, m, zeros=zeros, bits=bits)
    (y,) = tbc.compile(model, target=target).run({"x": x.reshape(m, -1)}).values()
    np.testing.assert_array_equal(y, added_by_blocks(rounded, xs, w, scales))


def test_scales_are_not_written_out_for_each_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large head's would be more than is computed at compile time."""
    monkeypatch.setattr("tbc.passes.blocks.MOST", 0)
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 16, (24, 3, 32)).astype(np.uint8)
    model = nbits(codes, rng.uniform(1, 2, (24, 3)).astype(F32), 1)
    assert layer_of(model, "x86-64-v3").weights == "i4 groups of 32"
    w = rng.integers(-8, 8, (96, 24)).astype(np.int8)
    model = dequantised(1, w, rng.uniform(1, 2, (3, 24)).astype(F32), -8, F32(0.03))
    assert layer_of(model, "x86-64-v3").weights == "i4 groups of 32"


@settings(max_examples=15, deadline=None)
@given(SIZES, st.booleans(), st.sampled_from(TARGETS), st.integers(0, 99))
def test_dequantised_blocks(
    sizes: tuple[int, int, int, int], is_signed: bool, target: str, seed: int
) -> None:
    """DequantizeLinear of int4 by blocks of k, and of activations with one scale."""
    (m, n, blocks, block), rng = sizes, np.random.default_rng(seed)
    least = -8 if is_signed else 0
    w = rng.integers(least, least + 16, (blocks * block, n)).astype(np.int8)
    scales = rng.uniform(-1, 1, (blocks, n)).astype(F32)
    x, sx = drawn(rng, np.int8, (m, blocks * block), False), F32(0.03)
    model = dequantised(m, w, scales, least, sx)
    (y,) = tbc.compile(model, target=target).run({"x": x}).values()
    ones = np.ones((m, blocks), F32)
    by_block = (w - np.int8(least + 8)).T.reshape(n, blocks, block)
    sums = added_by_blocks(x.reshape(m, blocks, block), ones, by_block, scales.T)
    np.testing.assert_array_equal(y, sums * sx)


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.integers(1, 20), st.integers(1, 150), st.integers(1, 70)),
    *(st.booleans(), st.booleans(), st.sampled_from(TARGETS), st.integers(0, 99)),
)
def test_integers_of_sixteen_levels_a_row(
    sizes: tuple[int, int, int], is_stored_in_4: bool, by_row: bool, target: str, seed: int
) -> None:
    """MatMulInteger of uint8 by int4, or by int8 that a zero point of its row moves into 4 bits."""
    (m, k, n), rng = sizes, np.random.default_rng(seed)
    x, zx = drawn(rng, np.uint8, (m, k), False), drawn(rng, np.uint8, (), False)
    w = rng.integers(-8, 8, (k, n)).astype(np.int8)
    w[0], w[-1] = -8, 7
    zw = rng.integers(-50, 50, n if by_row else ()).astype(np.int8)
    nodes = [helper.make_node("MatMulInteger", ["x", "v", "zx", "zw"], ["y"])]
    constants = {"zx": zx, "zw": zw}
    if is_stored_in_4:
        nodes.insert(0, helper.make_node("Cast", ["w"], ["v"], to=TensorProto.INT8))
    else:
        w = w + zw
        constants["v"] = w
    model = model_of(nodes, constants, (x.dtype, [m, k]), 2)
    if is_stored_in_4:
        made = helper.make_tensor("w", TensorProto.INT4, w.shape, w.reshape(-1).tolist())
        model.graph.initializer.append(made)
    (y,) = tbc.compile(model, target=target).run({"x": x}).values()
    wide = x.astype(np.int64) - int(zx), w.astype(np.int64) - zw
    np.testing.assert_array_equal(y, wide[0] @ wide[1])


@settings(max_examples=20, deadline=None)
@given(
    st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 5), st.sampled_from([16, 48])),
    *(st.booleans(), st.booleans(), st.integers(0, 99)),
)
def test_products_that_stand_for_a_kernel_have_its_bits(
    sizes: tuple[int, int, int, int], is_scaled: bool, is_split: bool, seed: int
) -> None:
    (m, n, groups, block), rng = sizes, np.random.default_rng(seed)
    b, k = Builder(), groups * block
    x = b(ops.Input("x", TensorType(DType.i8, (m, k))))
    w = b(ops.Input("w", TensorType(DType.i4, (n, k))))
    s = b(ops.Input("s", TensorType(DType.f32, (n, groups))))
    of_x = [b(ops.Input("xs", TensorType(DType.f32, (m, groups))))] if is_scaled else []
    graph = Graph("f", (x, w, s, *of_x), (("y", b(ops.GroupedDot(), x, w, s, *of_x)),))
    with pytest.MonkeyPatch.context() as patch:
        if is_split:
            patch.setattr("tbc.passes.blocks._TERMS", 2 * m * n)
        after = dense(graph, parse("rv32imc"))
    assert not any(isinstance(v.op, ops.GroupedDot) for v in after.values())
    feeds: dict[str, Array] = {
        "x": drawn(rng, np.int8, (m, k), False),
        "w": rng.integers(-8, 8, (n, k)).astype(np.int8),
        "s": rng.standard_normal((n, groups)).astype(F32),
    }
    if is_scaled:
        feeds["xs"] = rng.standard_normal((m, groups)).astype(F32)
    expected, found = (run_graph(g, feeds)["y"] for g in (graph, after))
    np.testing.assert_array_equal(found.view(np.int32), expected.view(np.int32))


@pytest.mark.parametrize("m", [1, 5, 130])
def test_beside_onnxruntime(m: int) -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 16, (70, 8, 32)).astype(np.uint8)
    scales = rng.uniform(0.01, 0.1, (70, 8)).astype(F32)
    zeros = rng.integers(0, 16, (70, 8)).astype(np.uint8)
    x = rng.standard_normal((m, 256)).astype(F32)
    for model in (nbits(codes, scales, m), nbits(codes, scales, m, zeros=zeros)):
        session = onnxruntime.InferenceSession(model.SerializeToString())
        (expected,) = session.run(None, {"x": x})
        (y,) = tbc.compile(model).run({"x": x}).values()
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_portable_c() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 16, (5, 3, 32)).astype(np.uint8)
    model = nbits(codes, rng.uniform(0.01, 0.1, (5, 3)).astype(F32), 2)
    assert tbc.verify(model, target="c").ok


@pytest.mark.parametrize(
    ("target", "kernel"),
    [
        ("x86-64", "int4_gemv_1x1c4_sse2"),
        ("x86-64-v2", "int4_gemv_1x1c4_ssse3"),
        ("x86-64-v3", "int4_gemv_1x4c4_avx2"),
        ("x86-64-v3+avxvnni", "int4_gemv_1x4c4_avxvnni"),
        ("x86-64-v4", "int4_gemv_1x4c4_avx512bw"),
        ("x86-64-v4+vnni", "int4_gemv_1x4c4_vnni512"),
        ("armv8", "int4_gemv_1x1c4_neon"),
        ("armv8.2+dotprod", "int4_gemv_1x1c4_neondot"),
        ("armv8.6", "int4_gemv_1x1c4_i8mm"),
        ("armv7+neon", "int4_gemv_1x1c4_neon32"),
        ("rv64gcv", "int4_gemv_1x1c4_wide"),
        ("wasm32+simd128", "int4_gemv_1x1c4_simd128"),
        ("wasm32+relaxed", "int4_gemv_1x1c4_relaxed"),
        ("rv32imc", ""),
    ],
)
def test_kernels_and_what_inspect_tells_of_them(target: str, kernel: str) -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 16, (32, 4, 32)).astype(np.uint8)
    scales = rng.uniform(0.01, 0.1, (32, 4)).astype(F32)
    layer = layer_of(nbits(codes, scales, 1), target)
    assert layer.kernel == kernel
    assert (layer.weights, layer.bits) == ("i4 groups of 32", 4)
    assert layer.reason == "weights of 4 bits are multiplied, as integers"
    assert layer.multiplications == 32 * 128


def test_what_is_not_rounded_stays_a_float_product() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 16, (32, 4, 32)).astype(np.uint8)
    scales = rng.uniform(0.01, 0.1, (32, 4)).astype(F32)
    for level in (0, 1):
        layer = layer_of(nbits(codes, scales, 1, level=level), "native")
        assert (layer.kernel, layer.activations) == ("", "f32")


def test_large_weights_are_two_a_byte_where_reading_takes_the_time() -> None:
    rng = np.random.default_rng(0)
    w = rng.integers(-8, 8, (2048, 1100)).astype(np.int8)
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    for columns, layout in ((1100, "16x4 q4"), (300, "16x4 w8")):
        part = {"w": np.ascontiguousarray(w[:, :columns])}
        model = model_of([node], part, (np.dtype(np.uint8), [1, 2048]), 2)
        assert layer_of(model, "x86-64-v4+vnni").layout == layout
