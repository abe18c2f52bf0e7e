"""Operators of onnxruntime's and QONNX's domains, against onnxruntime and the formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_models import (
    MICROSOFT,
    QONNX,
    Array,
    assert_close,
    by_onnxruntime,
    by_tbc,
    check_against_onnxruntime,
    integers,
    model,
    normal,
    one_node,
)
from onnxruntime_oracle import LARGEST_WEIGHT

from tbc import frontend
from tbc.errors import InvalidModel, Unsupported

X = normal(1, 3, 4, 6)


# -- MatMulNBits ----------------------------------------------------------------------------------


def nbits(
    n: int, k: int, bits: int, block: int, seed: int = 0
) -> tuple[Array, Array, Array, dict[str, int]]:
    """Packed codes, scales, packed zero points and attributes of a random weight."""
    blocks = -(-k // block)
    codes = integers(seed, 0, 255, n, blocks, block * bits // 8, dtype=np.uint8)
    zeros = integers(seed + 1, 0, 255, n, -(-blocks * bits // 8), dtype=np.uint8)
    scales = np.abs(normal(seed + 2, n, blocks)) + np.float32(0.1)
    return codes, scales, zeros, {"N": n, "K": k, "bits": bits, "block_size": block}


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("k", [64, 80])
@pytest.mark.parametrize("zero", ["default", "packed", "float"])
def test_matmul_nbits(bits: int, k: int, zero: str) -> None:
    if bits == 8 and zero == "float":
        pytest.skip("onnxruntime does not have it")
    codes, scales, zeros, attributes = nbits(6, k, bits, 32)
    given = {"default": None, "packed": zeros, "float": normal(9, *scales.shape)}[zero]
    args = [normal(3, 2, 5, k), codes, scales, given, None, normal(4, 6)]
    model, feeds = one_node(
        "MatMulNBits", args, constant=(1, 2, 3, 5), domain=MICROSOFT, **attributes
    )
    check_against_onnxruntime(model, feeds, scale=5)


def test_matmul_nbits_in_halves_is_rounded_once() -> None:
    codes, scales, zeros, attributes = nbits(6, 64, 4, 32)
    halves = [a.astype(np.float16) for a in (normal(3, 5, 64), scales, normal(4, 6))]
    args = [halves[0], codes, halves[1], zeros, None, halves[2]]
    model, feeds = one_node(
        "MatMulNBits", args, constant=(1, 2, 3, 5), domain=MICROSOFT, **attributes
    )
    (got,) = by_tbc(frontend.load(model), feeds)
    wide = [args[0], codes, halves[1].astype(np.float32), zeros, None, args[5]]
    wide[0], wide[5] = halves[0].astype(np.float32), halves[2].astype(np.float32)
    model, feeds = one_node(
        "MatMulNBits", wide, constant=(1, 2, 3, 5), domain=MICROSOFT, **attributes
    )
    (exact,) = by_tbc(frontend.load(model), feeds)
    np.testing.assert_array_equal(got, exact.astype(np.float16))


def test_matmul_nbits_of_flat_layouts_is_the_same() -> None:
    codes, scales, zeros, attributes = nbits(6, 64, 2, 16)
    x = normal(3, 5, 64)
    results = []
    for s, z in ((scales, zeros), (scales.reshape(-1), zeros.reshape(-1))):
        model, feeds = one_node(
            "MatMulNBits", [x, codes, s, z], constant=(1, 2, 3), domain=MICROSOFT, **attributes
        )
        results.append(by_tbc(frontend.load(model), feeds)[0])
    np.testing.assert_array_equal(*results)


def test_matmul_nbits_by_group_index() -> None:
    codes, scales, _, attributes = nbits(6, 64, 4, 16)
    index = integers(5, 0, 3, 64, dtype=np.int32)
    args = [normal(3, 5, 64), codes, scales, None, index]
    model, feeds = one_node("MatMulNBits", args, constant=(1, 2, 4), domain=MICROSOFT, **attributes)
    check_against_onnxruntime(model, feeds, scale=5)


def test_the_natural_group_index_changes_nothing() -> None:
    codes, scales, zeros, attributes = nbits(6, 64, 2, 16)
    results = []
    for index in (None, np.repeat(np.arange(4, dtype=np.int32), 16)):
        args = [normal(3, 5, 64), codes, scales, zeros, index]
        constant = (1, 2, 3) if index is None else (1, 2, 3, 4)
        model, feeds = one_node(
            "MatMulNBits", args, constant=constant, domain=MICROSOFT, **attributes
        )
        results.append(by_tbc(frontend.load(model), feeds)[0])
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("k", [64, 128])
def test_accuracy_level_4_rounds_activations(k: int) -> None:
    codes, scales, zeros, attributes = nbits(6, k, 2, 32)
    model, feeds = one_node(
        "MatMulNBits", [normal(3, 5, k), codes, scales, zeros], constant=(1, 2, 3),
        domain=MICROSOFT, accuracy_level=4, **attributes,
    )  # fmt: skip
    check_against_onnxruntime(model, feeds, scale=5)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"bits": 3}, Unsupported),
        ({"N": 7}, InvalidModel),
        ({"K": 96}, InvalidModel),
        ({"block_size": 0}, InvalidModel),
        ({"K": -64}, InvalidModel),
        ({"K": 1 << 62}, InvalidModel),
    ],
)
def test_matmul_nbits_is_refused(change: dict[str, int], error: type[Exception]) -> None:
    codes, scales, zeros, attributes = nbits(6, 64, 4, 32)
    args = [normal(3, 5, 64), codes, scales, zeros]
    model, _ = one_node(
        "MatMulNBits", args, constant=(1, 2, 3), domain=MICROSOFT, **{**attributes, **change}
    )
    with pytest.raises(error, match="node 'it'"):
        frontend.load(model)


@pytest.mark.parametrize(
    ("kind", "bits"), [("u8", 2), ("u8", 4), ("u8", 8), ("INT4", 4), ("UINT4", 4)]
)
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("rank", [2, 3])
def test_gather_block_quantized(kind: str, bits: int, zeros: bool, rank: int) -> None:
    shape = [4, 10, 64][-rank:]

    def codes(seed: int, *shape: int) -> Array | onnx.TensorProto:
        if kind == "u8":
            return integers(seed, 0, 255, *shape[:-1], shape[-1] * bits // 8, dtype=np.uint8)
        low, high = (-8, 7) if kind == "INT4" else (0, 15)
        numbers = integers(seed, low, high, *shape).reshape(-1).tolist()
        return helper.make_tensor("x", onnx.TensorProto.DataType.Value(kind), shape, numbers)

    axis = 0 if kind == "u8" else rank - 2
    constants = {"t": codes(1, *shape), "s": normal(2, *shape[:-1], 4)}
    if zeros:
        constants["z"] = codes(3, *shape[:-1], 4)
    node = helper.make_node(
        "GatherBlockQuantized", ["t", "i", "s", *["z"] * zeros], ["y"], domain=MICROSOFT,
        bits=bits, block_size=16, gather_axis=axis, quantize_axis=rank - 1,
    )  # fmt: skip
    for name, tensor in constants.items():
        if isinstance(tensor, onnx.TensorProto):
            tensor.name = name
    proto = model([node], {"i": (np.int64, (2, 2))}, ["y"], constants, opset=21)
    check_against_onnxruntime(proto, {"i": np.array([[1, 3], [2, 0]])})


# -- the others -----------------------------------------------------------------------------------

U8 = integers(6, 0, 255, 2, 3, 4, 5, dtype=np.uint8)
SCALE, OTHER, ZERO = np.float32(0.02), np.float32(0.05), np.uint8(120)
IMAGE, KERNEL = normal(1, 2, 3, 6, 7), normal(2, 5, 3, 3, 2)
WEIGHTS = integers(5, -LARGEST_WEIGHT, LARGEST_WEIGHT, 6, 3, 2, 2, dtype=np.int8)
ANGLES = normal(7, 9, 3)
POSITIONS = integers(8, 0, 8, 3, 4)

CASES: list[tuple[str, list[Any], int, dict[str, Any]]] = [
    ("FusedMatMul", [X, normal(2, 3, 5, 6)], 1, {"alpha": 0.5, "transB": 1}),
    ("FusedMatMul", [normal(2, 6, 4), normal(3, 6, 5)], 1, {"transA": 1}),
    ("QLinearAdd", [U8, SCALE, ZERO, U8[0], OTHER, ZERO, OTHER, np.uint8(99)], 1, {}),
    ("QLinearGlobalAveragePool", [U8, SCALE, ZERO, OTHER, np.uint8(9)], 1, {}),
    ("QLinearGlobalAveragePool", [U8, SCALE, ZERO, OTHER, ZERO], 1, {"channels_last": 1}),
    ("SkipLayerNormalization", [X, X[::-1].copy(), *normal(4, 3, 6)], 1, {"epsilon": 1e-3}),
    ("SkipSimplifiedLayerNormalization", [X, X[::-1].copy(), normal(4, 6)], 1, {}),
    ("RotaryEmbedding", [normal(9, 3, 2, 4, 6), POSITIONS, np.cos(ANGLES), np.sin(ANGLES)], 1, {}),
    ("RotaryEmbedding", [normal(9, 3, 4, 12), POSITIONS, np.cos(ANGLES), np.sin(ANGLES)], 1, {
        "interleaved": 1}),
    ("RotaryEmbedding", [
        normal(9, 3, 4, 12), np.array([2]), np.cos(ANGLES), np.sin(ANGLES)], 1, {}),
    ("RotaryEmbedding", [
        normal(9, 3, 4, 16), POSITIONS, np.cos(ANGLES), np.sin(ANGLES)], 1, {
        "rotary_embedding_dim": 6, "num_heads": 2}),
    ("DynamicQuantizeMatMul", [X, U8[0, 0, :1].repeat(6, 0), SCALE, ZERO, normal(3, 5)], 1, {}),
    ("DynamicQuantizeMatMul", [X, integers(3, -9, 9, 6, 2, dtype=np.int8), normal(4, 2)], 1, {}),
    ("MatMulIntegerToFloat", [
        U8[0, 0], U8[1, 0].T.copy(), SCALE, OTHER, ZERO, np.uint8(7), normal(3, 4)], 1, {}),
    ("FusedMatMul", [normal(2, 4, 2, 3), normal(3, 4, 2, 5)], 1, {
        "transBatchA": 1, "transBatchB": 1, "transA": 1, "transB": 0}),
    ("FusedMatMul", [normal(2, 4, 2, 3), normal(3, 2, 4, 5)], 1, {"transBatchA": 1, "transA": 1}),
    ("FusedMatMul", [normal(2, 4, 2, 3, 6), normal(3, 5, 2, 3, 6)], 1, {
        "transBatchA": 1, "transBatchB": 1, "transB": 1}),
    ("FusedConv", [IMAGE, KERNEL, normal(4, 5)], 1, {
        "activation": "Clip", "activation_params": [-0.5, 2.0], "pads": [1, 0, 1, 0]}),
    ("FusedConv", [IMAGE, KERNEL, normal(4, 5), normal(5, 2, 5, 3, 4)], 1, {
        "activation": "Relu", "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("FusedConv", [IMAGE, KERNEL], 1, {"activation": "LeakyRelu", "activation_params": [0.3]}),
    ("FusedConv", [IMAGE, KERNEL], 1, {
        "activation": "HardSigmoid", "activation_params": [0.3, 0.4]}),
    ("FusedGemm", [normal(2, 6, 4), normal(3, 6, 5), normal(4, 5)], 1, {
        "transA": 1, "alpha": 0.5, "activation": "LeakyRelu", "activation_alpha": 0.2}),
    ("FusedGemm", [normal(2, 4, 6), normal(3, 6, 5)], 1, {"activation": "Tanh"}),
    ("QuantizeLinear", [X, SCALE, ZERO], 1, {}),
    ("QuantizeLinear", [X, np.abs(normal(2, 4)), integers(3, 0, 9, 4, dtype=np.uint8)], 1, {
        "axis": 1}),
    ("DequantizeLinear", [U8, SCALE, ZERO], 1, {}),
    ("DequantizeLinear", [U8, np.abs(normal(2, 3)), integers(3, 0, 9, 3, dtype=np.uint8)], 1, {
        "axis": 1}),
    ("QLinearSigmoid", [U8, SCALE, ZERO, np.float32(1 / 256), np.uint8(0)], 1, {}),
    ("QLinearLeakyRelu", [U8, SCALE, ZERO, OTHER, np.uint8(99)], 1, {"alpha": 0.2}),
    ("NhwcMaxPool", [U8], 1, {"kernel_shape": [2, 3], "pads": [1, 1, 0, 1], "strides": [1, 2]}),
    ("QLinearConcat", [OTHER, ZERO, U8, SCALE, np.uint8(3), U8, OTHER, ZERO], 1, {"axis": 1}),
    ("QLinearWhere", [
        U8 > 99, U8, SCALE, ZERO, U8[:, :, :1], OTHER, np.uint8(7), OTHER, ZERO], 1, {}),
    ("QLinearConv", [
        U8, SCALE, ZERO, WEIGHTS, OTHER, np.int8(0), np.float32(9), ZERO,
        integers(3, -999, 999, 6, dtype=np.int32)], 1, {"pads": [1, 1, 1, 1]}),
    ("QLinearConv", [
        U8.transpose(0, 2, 3, 1).copy(), SCALE, ZERO, WEIGHTS, OTHER, np.int8(0), np.float32(9),
        ZERO], 1, {"channels_last": 1}),
    ("QGemm", [
        U8[0, 0], SCALE, ZERO, U8[1, 0], OTHER, np.uint8(7),
        integers(3, -99, 99, 4, dtype=np.int32), np.float32(9), np.uint8(99)], 1, {
        "transB": 1, "alpha": 0.5}),
    ("QGemm", [U8[0, 0], SCALE, ZERO, U8[1, 0], OTHER, np.uint8(7)], 1, {"transA": 1}),
    ("QGemm", [
        U8[0, 0], SCALE, ZERO, U8[1, 0].T.copy(), np.abs(normal(3, 4)),
        integers(4, 0, 9, 4, dtype=np.uint8), None, np.float32(9), np.uint8(99)], 1, {}),
    ("Gelu", [X], 1, {}),
    ("BiasGelu", [X, normal(5, 6)], 1, {}),
    ("FastGelu", [X, normal(5, 6)], 1, {}),
    ("QuickGelu", [X], 1, {"alpha": 1.5}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[f"{c[0]}-{i}" for i, c in enumerate(CASES)])
def test_microsoft(case: tuple[str, list[Any], int, dict[str, Any]]) -> None:
    op, args, outputs, attributes = case
    arrays = [None if a is None else np.asarray(a) for a in args]
    scalars = [i for i, a in enumerate(arrays) if a is not None and a.ndim == 0]
    model, feeds = one_node(
        op, arrays, constant=scalars, outputs=outputs, domain=MICROSOFT, **attributes
    )
    check_against_onnxruntime(model, feeds)


@pytest.mark.parametrize("opset", [11, 13])
def test_qlinear_softmax(opset: int) -> None:
    """The attribute names the operator set whose Softmax is meant."""
    args = [np.asarray(a) for a in (U8, SCALE, ZERO, np.float32(1 / 256), np.uint8(3))]
    model, feeds = one_node("QLinearSoftmax", args, constant=(1, 2, 3, 4), domain=MICROSOFT, axis=2)
    model.graph.node[0].attribute.append(helper.make_attribute("opset", opset))
    check_against_onnxruntime(model, feeds)


@pytest.mark.parametrize(
    ("op", "args", "attributes"),
    [
        ("QLinearMul", [U8, SCALE, ZERO, U8[0], OTHER, ZERO, OTHER, np.uint8(99)], {}),
        ("QLinearMul", [U8, SCALE, ZERO, U8[:, :1], OTHER, ZERO, OTHER], {}),
        (
            "QLinearAveragePool",
            [U8, SCALE, ZERO, OTHER, np.uint8(99)],
            {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "strides": [2, 1]},
        ),
        (
            "QLinearAveragePool",
            [U8, SCALE, ZERO, OTHER, np.uint8(99)],
            {"kernel_shape": [2, 2], "pads": [1, 1, 0, 0], "count_include_pad": 1,
             "channels_last": 1},
        ),
    ],
)  # fmt: skip
def test_what_lies_between_two_codes_may_become_either(
    op: str, args: list[Any], attributes: dict[str, Any]
) -> None:
    """tbc rounds the exact result; onnxruntime has rounding errors where it is a tie."""
    arrays = [np.asarray(a) for a in args]
    scalars = [i for i, a in enumerate(arrays) if a.ndim == 0]
    model, feeds = one_node(op, arrays, constant=scalars, domain=MICROSOFT, **attributes)
    (got,), (wanted,) = by_tbc(frontend.load(model), feeds), by_onnxruntime(model, feeds)
    apart = np.abs(got.astype(int) - wanted)
    assert got.shape == wanted.shape
    assert got.dtype == wanted.dtype
    assert apart.max() <= 1
    assert apart.mean() < 0.1


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("by_column", [False, True])
@pytest.mark.parametrize(("batch", "scale"), [(1, 1), (2, 500)])
def test_dynamic_quantize_lstm(direction: str, by_column: bool, batch: int, scale: float) -> None:
    """Of several rows, onnxruntime rounds the hidden state of each by itself."""
    ways = 2 if direction == "bidirectional" else 1
    steps, size, hidden = 4, 6, 5
    shape = [ways, 4 * hidden] if by_column else [ways]
    weights = [integers(i, -LARGEST_WEIGHT, LARGEST_WEIGHT, ways, k, 4 * hidden, dtype=np.int8)
               for i, k in ((1, size), (2, hidden))]  # fmt: skip
    scales = [np.abs(normal(i, *shape)) * np.float32(0.005) for i in (3, 4)]
    zeros = [np.zeros(shape, np.int8)] * 2
    state = normal(5, ways, batch, hidden)
    args = [
        normal(6, steps, batch, size), *weights, normal(7, ways, 8 * hidden), None, state, state,
        None, scales[0], zeros[0], scales[1], zeros[1],
    ]  # fmt: skip
    model, feeds = one_node(
        "DynamicQuantizeLSTM", args, constant=(1, 2, 8, 9, 10, 11), outputs=3, domain=MICROSOFT,
        direction=direction, hidden_size=hidden,
    )  # fmt: skip
    check_against_onnxruntime(model, feeds, scale)


def test_the_sum_of_a_skip_normalisation_is_its_fourth_output() -> None:
    args = [X, X[::-1].copy(), normal(4, 6)]
    model, feeds = one_node("SkipSimplifiedLayerNormalization", args, outputs=4, domain=MICROSOFT)
    for i in (2, 1):
        model.graph.node[0].output[i] = ""
        del model.graph.output[i]
    expected = by_onnxruntime(model, feeds)
    for got, wanted in zip(by_tbc(frontend.load(model), feeds), expected, strict=True):
        assert_close(got, wanted)


def test_simplified_layer_normalization_stands_in_onnx_domain() -> None:
    model, feeds = one_node("SimplifiedLayerNormalization", [X, normal(4, 6)], epsilon=1e-3)
    check_against_onnxruntime(model, feeds)


@pytest.mark.parametrize("opset", [11, 16])
def test_layer_normalization_stands_in_operator_sets_before_its_own(opset: int) -> None:
    args = [X, normal(4, 6), normal(5, 6)]
    model, feeds = one_node("LayerNormalization", args, constant=(1, 2), opset=opset, epsilon=1e-3)
    check_against_onnxruntime(model, feeds)


def test_what_onnxruntime_laid_out_for_a_cpu_is_refused() -> None:
    args = [normal(1, 1, 8, 5, 5), normal(2, 8, 8, 3, 3)]
    model, _ = one_node("Conv", args, domain="com.microsoft.nchwc")
    with pytest.raises(Unsupported, match="save it with ORT_ENABLE_EXTENDED, or compile"):
        frontend.load(model)


# -- QONNX ----------------------------------------------------------------------------------------


def quantised(x: Array, scale: float, zero: float, low: int, high: int) -> Array:
    codes = np.clip(np.rint(x / np.float32(scale) + np.float32(zero)), low, high)
    return ((codes - np.float32(zero)) * np.float32(scale)).astype(np.float32)


@pytest.mark.parametrize(
    ("bits", "signed", "narrow", "low", "high"),
    [(2, 1, 1, -1, 1), (2, 1, 0, -2, 1), (8, 1, 0, -128, 127), (4, 0, 0, 0, 15), (4, 0, 1, 0, 14)],
)
@pytest.mark.parametrize("zero", [0.0, 3.0])
def test_quant(bits: int, signed: int, narrow: int, low: int, high: int, zero: float) -> None:
    scalars = [np.array(v, np.float32) for v in (0.25, zero, bits)]
    model, feeds = one_node(
        "Quant", [X, *scalars], constant=(1, 2, 3), domain=QONNX,
        signed=signed, narrow=narrow, rounding_mode="ROUND",
    )  # fmt: skip
    (got,) = by_tbc(frontend.load(model), feeds)
    np.testing.assert_array_equal(got, quantised(X, 0.25, zero, low, high))


def test_quant_of_one_signed_bit_is_a_sign() -> None:
    x = np.array([-2, -0.0, 0.0, 3], np.float32)
    scalars = [np.array(v, np.float32) for v in (0.5, 0, 1)]
    model, feeds = one_node(
        "Quant", [x, *scalars], constant=(1, 2, 3), domain=QONNX, signed=1, narrow=0
    )
    (got,) = by_tbc(frontend.load(model), feeds)
    np.testing.assert_array_equal(got, np.array([-0.5, 0.5, 0.5, 0.5], np.float32))


def test_bipolar_quant() -> None:
    x = np.array([-2, -0.0, 0.0, 3], np.float32)
    model, feeds = one_node("BipolarQuant", [x, np.float32(0.3).reshape(())], domain=QONNX)
    (got,) = by_tbc(frontend.load(model), feeds)
    np.testing.assert_array_equal(got, np.array([-0.3, 0.3, 0.3, 0.3], np.float32))


@pytest.mark.parametrize(("mode", "rule"), [("FLOOR", np.floor), ("ROUND", np.rint)])
def test_trunc(mode: str, rule: Any) -> None:
    scalars = [np.array(v, np.float32) for v in (0.25, 2, 8, 5)]
    model, feeds = one_node(
        "Trunc", [X * 9, *scalars], constant=(1, 2, 3, 4), domain=QONNX, rounding_mode=mode
    )
    (got,) = by_tbc(frontend.load(model), feeds)
    expected = (rule(np.rint(X * 9 / 0.25 + 2) / 8) - 2) * 0.25
    np.testing.assert_array_equal(got, expected.astype(np.float32))


def test_an_unknown_rounding_mode_is_refused() -> None:
    scalars = [np.array(v, np.float32) for v in (0.5, 0, 4)]
    model, _ = one_node(
        "Quant", [X, *scalars], constant=(1, 2, 3), domain=QONNX,
        signed=1, narrow=0, rounding_mode="HALF_UP",
    )  # fmt: skip
    with pytest.raises(Unsupported, match="HALF_UP"):
        frontend.load(model)
