"""Operators in the forms of older and newer operator sets, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx_models import (
    Array,
    by_tbc,
    check_against_onnxruntime,
    i64,
    integers,
    normal,
    one_node,
)

import tbc
from tbc import frontend
from tbc.errors import Unfixed, Unsupported

X = normal(1, 3, 4, 5)
IMAGE = normal(2, 2, 6, 7, 5)
POSITIVE = np.abs(X) + 0.1
VECTOR = normal(3, 4)


def i8(*numbers: int) -> Array:
    return np.array(numbers, np.int8)


def f32(number: float) -> Array:
    return np.array(number, np.float32)


Case = tuple[str, int, list[Array | None], tuple[int, ...], dict[str, Any]]

AXES_AS_ATTRIBUTES: list[Case] = [
    ("Squeeze", 11, [X.reshape(3, 1, 4, 1, 5)], (), {"axes": [1, -2]}),
    ("Squeeze", 12, [X.reshape(3, 1, 4, 5)], (), {}),
    ("Unsqueeze", 11, [X], (), {"axes": [0, -1]}),
    ("ReduceSum", 11, [X], (), {"axes": [0, 2], "keepdims": 0}),
    ("ReduceMean", 17, [X], (), {"axes": [-1]}),
    ("ReduceMax", 11, [X], (), {"keepdims": 0}),
    ("ReduceL2", 13, [X], (), {"axes": [1]}),
    ("ReduceLogSumExp", 13, [X], (), {"axes": [1]}),
    ("Slice", 9, [X], (), {"starts": [1, -4], "ends": [1000, -1], "axes": [0, 2]}),
    ("Pad", 9, [X], (), {"pads": [1, 0, 2, 0, 1, 0], "value": 1.5}),
    ("Pad", 9, [X], (), {"pads": [0, 1, 2, 0, 0, 1], "mode": "reflect"}),
    ("Split", 11, [X], (), {"axis": 1, "split": [1, 3]}),
    ("Split", 11, [X], (), {"axis": 1}),
    ("Clip", 9, [X], (), {"min": -0.5, "max": 0.5}),
    ("Clip", 10, [X], (), {"max": 0.5}),
    ("Dropout", 9, [X], (), {"ratio": 0.3}),
]
AXES_AS_INPUTS: list[Case] = [
    ("Squeeze", 13, [X.reshape(3, 1, 4, 5), i64(1)], (1,), {}),
    ("Unsqueeze", 13, [X, i64(3, 0)], (1,), {}),
    ("ReduceSum", 13, [X, i64(-1)], (1,), {}),
    ("ReduceSum", 13, [X], (), {"noop_with_empty_axes": 1}),
    ("ReduceMean", 18, [X, i64(0, 2)], (1,), {"keepdims": 0}),
    ("ReduceProd", 18, [X, i64(1)], (1,), {}),
    ("ReduceMin", 20, [X > 0, i64(1)], (1,), {}),
    ("Slice", 10, [X, i64(0, 3), i64(2, -6), i64(1, 2), i64(1, -2)], (1, 2, 3, 4), {}),
    ("Slice", 13, [X, i64(-2), i64(2**63 - 1)], (1, 2), {}),
    ("Slice", 13, [X, i64(9), i64(-(2**63)), i64(1), i64(-1)], (1, 2, 3, 4), {}),
    ("Slice", 13, [X, i64(3), i64(1), i64(1)], (1, 2, 3), {}),
    ("Pad", 13, [X, i64(1, -1, 0, 0, 2, -2), f32(2.5)], (1, 2), {}),
    ("Pad", 18, [X, i64(1, 2), None, i64(-1)], (1, 3), {"mode": "edge"}),
    ("Pad", 19, [X, i64(2, 1), None, i64(1)], (1, 3), {"mode": "wrap"}),
    ("Split", 13, [X, i64(1, 0, 3)], (1,), {"axis": 1}),
    ("Split", 18, [X], (), {"axis": 2, "num_outputs": 3}),
    ("Clip", 13, [X, None, f32(0.5)], (2,), {}),
    ("Clip", 13, [X, f32(0.5), f32(-0.5)], (1, 2), {}),
    ("Clip", 13, [i8(-5, -1, 0, 1, 100), np.int8(-1), np.int8(1)], (), {}),
    ("Dropout", 13, [X, f32(0.4), np.array(False)], (1, 2), {}),
]
SHAPES: list[Case] = [
    ("Reshape", 13, [X, i64(0, -1)], (1,), {}),
    ("Reshape", 14, [X[:, :0], i64(0, 7)], (1,), {"allowzero": 1}),
    ("Flatten", 13, [X], (), {"axis": -1}),
    ("Flatten", 13, [X], (), {"axis": 3}),
    ("Flatten", 13, [X], (), {"axis": 0}),
    ("Transpose", 13, [X], (), {}),
    ("Transpose", 13, [X], (), {"perm": [1, 0, 2]}),
    ("Expand", 13, [X[:, :1], i64(2, 1, 4, 1)], (1,), {}),
    ("Tile", 13, [X, i64(2, 1, 3)], (1,), {}),
    ("Concat", 13, [X, X], (), {"axis": -2}),
    ("Shape", 15, [X], (), {"start": -2}),
    ("Size", 13, [X], (), {}),
    ("ConstantOfShape", 13, [i64(2, 3)], (0,), {}),
    ("Range", 13, [np.int32(7), np.int32(-3), np.int32(-4)], (0, 1, 2), {}),
    ("Range", 13, [f32(0.5), f32(3.1), f32(0.5)], (0, 1, 2), {}),
    ("Trilu", 14, [IMAGE, np.int64(-2)], (1,), {"upper": 0}),
    ("Trilu", 14, [integers(4, -9, 9, 5, 4)], (), {}),
    ("EyeLike", 9, [X[0]], (), {"k": -1, "dtype": 1}),
    ("DepthToSpace", 13, [normal(5, 2, 8, 3, 2)], (), {"blocksize": 2, "mode": "CRD"}),
    ("DepthToSpace", 11, [normal(5, 2, 8, 3, 2)], (), {"blocksize": 2}),
    ("SpaceToDepth", 13, [normal(5, 2, 3, 4, 6)], (), {"blocksize": 2}),
]
INDEXING: list[Case] = [
    ("Gather", 13, [X, integers(6, -4, 3, 2, 3)], (), {"axis": 1}),
    ("Gather", 13, [X, np.int32(2)], (), {"axis": -1}),
    ("GatherND", 13, [X, integers(7, -3, 2, 4, 1)], (), {"batch_dims": 0}),
    ("GatherND", 13, [X, integers(8, -4, 3, 3, 6, 1)], (), {"batch_dims": 1}),
    ("GatherElements", 13, [X, integers(9, -4, 3, 3, 2, 5)], (), {"axis": 1}),
    ("GatherElements", 13, [X, integers(9, -5, 4, 2, 4, 3, dtype=np.int32)], (), {"axis": -1}),
    ("ScatterND", 16, [X, i64(2, 0).reshape(2, 1), normal(10, 2, 4, 5)], (1,), {}),
    *(
        ("ScatterND", 18, [X, integers(7, -3, 2, 9, 1), normal(10, 9, 4, 5)], (), {"reduction": r})
        for r in ("add", "mul", "max", "min")
    ),
    ("Scatter", 9, [X, i64(1, 3, 0).reshape(1, 3, 1), normal(35, 1, 3, 1)], (), {"axis": 1}),
    (
        "ScatterElements",
        11,
        [X, i64(1, -1).reshape(1, 1, 2), normal(35, 1, 1, 2)],
        (),
        {"axis": -1},
    ),
    *(
        (
            "ScatterElements",
            18,
            [X, integers(9, -4, 3, 3, 9, 2), normal(36, 3, 9, 2)],
            (),
            {"axis": 1, "reduction": r},
        )
        for r in ("add", "mul", "max", "min")
    ),
    ("TopK", 9, [X], (), {"k": 3, "axis": 1}),
    ("TopK", 11, [np.round(X), i64(2)], (1,), {"axis": 0, "largest": 0}),
    ("TopK", 11, [np.round(normal(37, 2, 300)), i64(40)], (1,), {}),
    ("TopK", 24, [integers(38, -9, 9, 70), i64(70)], (1,), {"largest": 0}),
    ("OneHot", 11, [integers(11, -5, 5, 2, 3), np.int64(4), VECTOR[:2]], (1,), {"axis": 1}),
    ("CumSum", 14, [X, np.int64(1)], (1,), {"exclusive": 1}),
    ("CumSum", 14, [integers(12, -9, 9, 3, 7), np.int32(-1)], (1,), {"reverse": 1}),
    ("ArgMax", 13, [np.round(X)], (), {"axis": 1, "keepdims": 0}),
    ("ArgMin", 13, [np.round(X)], (), {"axis": -1, "select_last_index": 1}),
]
FUNCTIONS: list[Case] = [
    ("Softmax", 12, [X], (), {"axis": 1}),
    ("Softmax", 13, [X], (), {"axis": 1}),
    ("LogSoftmax", 11, [X], (), {}),
    ("LogSoftmax", 13, [X * 50], (), {}),
    ("Hardmax", 12, [np.round(X)], (), {"axis": 1}),
    ("Hardmax", 13, [np.round(X)], (), {"axis": 1}),
    ("LpNormalization", 13, [X], (), {"axis": 1, "p": 1}),
    ("LeakyRelu", 15, [X], (), {"alpha": 0.2}),
    ("PRelu", 9, [X, VECTOR[:, None]], (), {}),
    ("Elu", 9, [X], (), {"alpha": 1.5}),
    ("Selu", 9, [X], (), {}),
    ("Celu", 12, [X], (), {"alpha": 0.7}),
    ("HardSigmoid", 9, [X], (), {}),
    ("HardSwish", 14, [X], (), {}),
    ("ThresholdedRelu", 10, [X], (), {"alpha": 0.3}),
    ("Shrink", 9, [X], (), {"lambd": 0.4, "bias": 0.1}),
    ("Softplus", 9, [X * 20], (), {}),
    ("Softsign", 9, [X], (), {}),
    ("Mish", 18, [X], (), {}),
    ("Gelu", 20, [X], (), {"approximate": "tanh"}),
    ("Gelu", 20, [X], (), {}),
    ("Erf", 13, [X], (), {}),
    ("Pow", 13, [POSITIVE, np.float64(2.5)], (), {}),
    ("Pow", 13, [integers(13, -3, 3, 9), np.int32(3)], (), {}),
    ("Mod", 13, [integers(14, -9, 9, 30), np.array([4, -4, 3] * 10)], (), {}),
    ("Mod", 13, [X, np.float32(0.7)], (), {"fmod": 1}),
    ("Div", 14, [integers(15, -9, 9, 30), np.array([4, -4, 3] * 10)], (), {}),
    ("BitShift", 11, [np.arange(9, dtype=np.uint8), np.uint8(3)], (), {"direction": "LEFT"}),
    ("IsInf", 10, [f32(np.inf) * X], (), {"detect_negative": 0}),
    ("Mean", 13, [X, X[0], VECTOR[:, None]], (), {}),
    ("Min", 13, [X, X[0], VECTOR[:, None]], (), {}),
    ("Cast", 13, [X * 300], (), {"to": 9}),
    ("Round", 11, [X * 4 + 0.5], (), {}),
]
NORMALISATIONS: list[Case] = [
    *(
        ("BatchNormalization", v, [IMAGE, *normal(16, 3, 6), np.abs(normal(17, 6))], (), {})
        for v in (7, 9, 14, 15)
    ),
    ("LayerNormalization", 17, [X, VECTOR[:, None], X[0]], (), {"axis": 1, "epsilon": 1e-2}),
    ("InstanceNormalization", 7, [IMAGE, normal(18, 6), normal(19, 6)], (), {}),
    ("GroupNormalization", 21, [IMAGE, normal(18, 6), normal(19, 6)], (), {"num_groups": 3}),
    ("MeanVarianceNormalization", 13, [IMAGE], (), {}),
    ("GlobalAveragePool", 13, [IMAGE], (), {}),
    ("GlobalMaxPool", 13, [IMAGE], (), {}),
    ("GlobalLpPool", 13, [IMAGE], (), {"p": 3}),
    *(
        (
            "MaxPool",
            12,
            [np.round(IMAGE)],
            (),
            {
                "kernel_shape": [3, 2],
                "strides": [2, 1],
                "pads": [1, 1, 2, 0],
                "dilations": [1, 2],
                "storage_order": order,
            },
        )
        for order in (0, 1)
    ),
]
PRODUCTS: list[Case] = [
    ("MatMul", 13, [VECTOR, normal(20, 3, 4, 2)], (), {}),
    ("MatMul", 13, [normal(20, 3, 2, 4), VECTOR], (), {}),
    ("MatMul", 13, [VECTOR, VECTOR], (), {}),
    ("MatMul", 13, [normal(21, 2, 1, 3, 4), normal(22, 5, 4, 2)], (), {}),
    ("MatMul", 13, [integers(23, -9, 9, 3, 4), integers(24, -9, 9, 4, 2)], (), {}),
    ("Gemm", 13, [normal(25, 4, 3), normal(26, 2, 4), normal(27, 3, 1)], (), {
        "transA": 1, "transB": 1, "alpha": 0.5, "beta": -2.0}),
    ("Gemm", 11, [normal(25, 3, 4), normal(26, 4, 2)], (), {}),
    ("MatMulInteger", 10, [
        integers(28, 0, 255, 3, 4, dtype=np.uint8), integers(29, -128, 127, 4, 2, dtype=np.int8),
        np.uint8(12), i8(3, -4)], (3,), {}),
    ("QLinearMatMul", 10, [
        integers(28, 0, 255, 3, 4, dtype=np.uint8), f32(0.02), np.uint8(120),
        integers(29, -128, 127, 4, 2, dtype=np.int8), np.array([0.01, 0.03], np.float32),
        i8(0, 0), f32(0.05), np.uint8(128)], (3, 4, 5), {}),
]  # fmt: skip
QUANTISATION: list[Case] = [
    ("QuantizeLinear", 13, [X * 99, f32(0.5), np.uint8(128)], (), {}),
    ("QuantizeLinear", 13, [X * 99, np.abs(VECTOR) + 0.1, i8(1, 2, 3, 4)], (), {"axis": 1}),
    ("QuantizeLinear", 10, [X * 99, f32(0.5)], (), {}),
    ("QuantizeLinear", 21, [X * 9000, f32(0.5), np.int16(5)], (), {}),
    ("QuantizeLinear", 21, [X * 20, np.abs(normal(30, 3, 4, 2)) + 0.1], (), {
        "axis": 2, "block_size": 3, "output_dtype": 3}),
    ("DequantizeLinear", 10, [integers(31, -128, 127, 4, 5, dtype=np.int8), f32(0.3), i8(7)[0]],
     (), {}),
    ("DequantizeLinear", 13, [integers(31, -128, 127, 3, 4, dtype=np.int8), VECTOR], (), {}),
    ("DequantizeLinear", 13, [integers(32, -999, 999, 4, dtype=np.int32), f32(0.3)], (), {}),
    ("DequantizeLinear", 21, [integers(33, 0, 255, 5, 4, dtype=np.uint8), normal(34, 3, 4)], (), {
        "axis": 0, "block_size": 2}),
    ("DynamicQuantizeLinear", 11, [X], (), {}),
    ("DynamicQuantizeLinear", 11, [POSITIVE], (), {}),
    ("DynamicQuantizeLinear", 11, [X * 0], (), {}),
]  # fmt: skip

CASES = [
    *AXES_AS_ATTRIBUTES, *AXES_AS_INPUTS, *SHAPES, *INDEXING, *FUNCTIONS, *NORMALISATIONS,
    *PRODUCTS, *QUANTISATION,
]  # fmt: skip
OUTPUTS = {"TopK": 2, "MaxPool": 2, "Split": 2, "DynamicQuantizeLinear": 3}


def names(cases: list[Case]) -> list[str]:
    return [f"{op}-{opset}-{i}" for i, (op, opset, *_) in enumerate(cases)]


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_operator(case: Case) -> None:
    op, opset, args, constant, attributes = case
    count = attributes.get("num_outputs") or OUTPUTS.get(op, 1)
    if op == "Split" and len(args) > 1 and args[1] is not None:
        count = len(args[1])
    arrays = [None if a is None else np.asarray(a) for a in args]
    model, feeds = one_node(op, arrays, constant=constant, outputs=count, opset=opset, **attributes)
    check_against_onnxruntime(model, feeds)


def test_of_all_zeros_is_quantised_with_scale_one() -> None:
    model, feeds = one_node("DynamicQuantizeLinear", [np.zeros(3, np.float32)], outputs=3)
    y, scale, zero_point = by_tbc(frontend.load(model), feeds)
    assert not y.any()
    assert scale == 1
    assert zero_point == 0


@pytest.mark.parametrize("mode", ["TF", "IDF", "TFIDF"])
@pytest.mark.parametrize(("least", "most", "skips"), [(1, 1, 0), (1, 2, 0), (2, 3, 2)])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_n_grams(mode: str, least: int, most: int, skips: int, dtype: Any) -> None:
    """Single numbers, pairs and triples; a column is of no n-gram."""
    model, feeds = one_node(
        "TfIdfVectorizer", [integers(1, 1, 3, 2, 9, dtype=dtype)], mode=mode,
        min_gram_length=least, max_gram_length=most, max_skip_count=skips,
        pool_int64s=[2, 3, 1, 2, 3, 3, 1, 2, 1, 3, 2, 2], ngram_counts=[0, 2, 6],
        ngram_indexes=[0, 6, 1, 3, 2, 5], weights=[0.5, 1.5, 2.0, 3.0, 4.0, 5.0],
    )  # fmt: skip
    check_against_onnxruntime(model, feeds)


def test_mean_variance_normalization() -> None:
    for attributes in ({}, {"axes": [1, 2]}):
        check_against_onnxruntime(*one_node("MeanVarianceNormalization", [IMAGE], **attributes))


@pytest.mark.parametrize("op", ["BatchNormalization", "RMSNormalization"])
def test_a_normalisation_of_halves_with_parameters_in_f32(op: str) -> None:
    """It is computed in f32: the result of the widened input, rounded at the end."""
    count = 4 if op == "BatchNormalization" else 1
    size = IMAGE.shape[1] if count == 4 else IMAGE.shape[-1]
    parameters = [np.abs(normal(i, size)) for i in range(count)]
    halves = IMAGE.astype(np.float16)
    results = []
    for x in (halves, halves.astype(np.float32)):
        proto, feeds = one_node(op, [x, *parameters], opset=23)
        results += by_tbc(frontend.load(proto), feeds)
    if op == "BatchNormalization":
        np.testing.assert_array_equal(results[0], results[1].astype(np.float16))
    else:  # the result has the parameter's type, the normalised value the input's
        assert results[0].dtype == np.float32
        np.testing.assert_allclose(*results, rtol=2e-3)


LARGE = (np.abs(normal(1, 1, 3, 64, 64)) * 30 + 5).astype(np.float16)
"""Halves whose squares, or whose sum over an image, overflow."""


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("ReduceMean", {"axes": [2, 3]}), ("ReduceMean", {}), ("ReduceL2", {"axes": [3]}),
        ("ReduceLogSum", {"axes": [2, 3]}), ("GlobalAveragePool", {}), ("GlobalLpPool", {}),
        ("AveragePool", {"kernel_shape": [60, 60]}),
        ("AveragePool", {"kernel_shape": [60, 60], "pads": [1, 1, 1, 1]}),
        ("LpPool", {"kernel_shape": [9, 9]}), ("LpNormalization", {"axis": 3}),
    ],
)  # fmt: skip
def test_sums_of_halves_do_not_overflow(op: str, attributes: dict[str, Any]) -> None:
    imported = check_against_onnxruntime(*one_node(op, [LARGE], **attributes))
    assert np.isfinite(by_tbc(imported, {"x0": LARGE})[0]).all()


def test_what_is_refused_says_why() -> None:
    proto, _ = one_node("RandomNormalLike", [X], opset=22)
    with pytest.raises(
        Unsupported, match=r"node .it.: RandomNormalLike: .* its results are random"
    ):
        frontend.load(proto)
    proto, _ = one_node("Binarizer", [X], domain="ai.onnx.ml", threshold=0.5)
    with pytest.raises(Unsupported, match=r"ai.onnx.ml::Binarizer: .* no tensor algebra"):
        frontend.load(proto)
    state = [normal(i, 4) for i in range(4)]
    proto, _ = one_node("BatchNormalization", [X, *state], opset=15, training_mode=1)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    with pytest.raises(Unsupported, match=r"training is not supported\n  try: export") as error:
        tbc.compile(proto)
    assert not isinstance(error.value, Unfixed)
    proto, _ = one_node("QuickGelu", [X.astype(np.int32)], domain="com.microsoft")
    with pytest.raises(Unsupported, match="its first input is i32"):
        frontend.load(proto)
