"""Convolutions and pooling over random geometries, against onnxruntime; symbolic sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from onnx_models import (
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
from tbc.ops import MatMul


@st.composite
def windows(draw: st.DrawFn, dilated: bool = True) -> dict[str, Any]:
    """The attributes of windows over one to three axes."""
    axes = draw(st.integers(1, 3))

    def each(low: int, high: int, count: int = 1) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=axes * count, max_size=axes * count))

    attributes: dict[str, Any] = {"kernel_shape": each(1, 3), "strides": each(1, 3)}
    if dilated and draw(st.booleans()):
        attributes["dilations"] = each(1, 2)
    if draw(st.booleans()):
        attributes["pads"] = each(0, min(attributes["kernel_shape"]) - 1, 2)
    else:
        attributes["auto_pad"] = draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"]))
        if attributes["auto_pad"] != "VALID":  # onnxruntime refuses what would need less than 0
            attributes.pop("dilations", None)
            attributes["strides"] = list(
                map(min, attributes["strides"], attributes["kernel_shape"])
            )
    return attributes


def image(axes: int, channels: int, seed: int) -> Array:
    return normal(seed, 2, channels, *(7, 6, 5)[:axes])


@settings(max_examples=60, deadline=None)
@given(windows(), st.sampled_from([(1, 3, 4), (2, 4, 6), (4, 4, 4), (4, 4, 8)]), st.booleans())
def test_conv(attributes: dict[str, Any], sizes: tuple[int, int, int], bias: bool) -> None:
    group, channels, out = sizes
    kernel = attributes["kernel_shape"]
    x = image(len(kernel), channels, 1)
    w = normal(2, out, channels // group, *kernel)
    args = [x, w, normal(3, out)] if bias else [x, w]
    proto, feeds = one_node("Conv", args, constant=(1,), group=group, **attributes)
    check_against_onnxruntime(proto, feeds)


@settings(max_examples=60, deadline=None)
@given(st.data(), windows(), st.sampled_from([(1, 3, 4), (2, 4, 3), (4, 4, 1)]))
def test_conv_transpose(
    data: st.DataObject, attributes: dict[str, Any], sizes: tuple[int, int, int]
) -> None:
    group, channels, depth = sizes
    kernel, strides = attributes["kernel_shape"], attributes["strides"]
    if data.draw(st.booleans()):
        extra = [data.draw(st.integers(0, s - 1)) for s in strides]
        attributes = {**attributes, "output_padding": extra}
    if "SAME" in attributes.get("auto_pad", ""):  # onnxruntime adds this where it has no meaning
        attributes.pop("output_padding", None)
    args = [image(len(kernel), channels, 1), normal(2, channels, depth, *kernel)]
    proto, feeds = one_node(
        "ConvTranspose", [*args, normal(3, depth * group)], constant=(1,), group=group, **attributes
    )
    check_against_onnxruntime(proto, feeds)


def test_the_size_of_a_transposed_convolution_may_be_given_or_a_symbol() -> None:
    w = normal(2, 3, 4, 3, 3)
    for options in (
        {"output_shape": [15, 12]},
        {"output_shape": [14, 12], "auto_pad": "SAME_UPPER"},
    ):
        proto, feeds = one_node("ConvTranspose", [image(2, 3, 1), w], strides=[2, 2], **options)
        check_against_onnxruntime(proto, feeds)
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1])
    proto = model([node], {"x": (np.float32, [1, 3, "h", "w"])}, ["y"], {"w": w})
    imported = frontend.load(proto, dims={"h": (1, None), "w": (1, None)})
    for h, width in ((3, 4), (1, 5)):
        feeds = {"x": normal(3, 1, 3, h, width)}
        assert_close(by_tbc(imported, feeds)[0], by_onnxruntime(proto, feeds)[0])


@settings(max_examples=25, deadline=None)
@given(windows(), st.sampled_from([1, 2]))
def test_conv_integer(attributes: dict[str, Any], group: int) -> None:
    kernel = attributes["kernel_shape"]
    x = integers(4, 0, 255, 1, 4, *(7, 6, 5)[: len(kernel)], dtype=np.uint8)
    w = integers(5, 0, 255, 6, 4 // group, *kernel, dtype=np.uint8)
    zeros = [np.uint8(120), np.uint8(7)]
    proto, feeds = one_node(
        "ConvInteger", [x, w, *map(np.asarray, zeros)], constant=(2, 3), group=group, **attributes
    )
    check_against_onnxruntime(proto, feeds)


def test_qlinear_conv_by_channel() -> None:
    x = integers(4, 0, 255, 1, 4, 7, 6, dtype=np.uint8)
    w = integers(5, -LARGEST_WEIGHT, LARGEST_WEIGHT, 3, 4, 3, 3, dtype=np.int8)
    args = [
        x, np.float32(0.02), np.uint8(120), w, np.array([0.01, 0.02, 0.005], np.float32),
        np.zeros(3, np.int8), np.float32(0.7), np.uint8(99),
        integers(6, -99, 99, 3, dtype=np.int32),
    ]  # fmt: skip
    proto, feeds = one_node(
        "QLinearConv", [np.asarray(a) for a in args], constant=range(1, 9), pads=[1, 1, 1, 1]
    )
    check_against_onnxruntime(proto, feeds)


@settings(max_examples=60, deadline=None)
@given(
    windows(), st.sampled_from(["MaxPool", "AveragePool", "LpPool"]), st.booleans(), st.booleans()
)
def test_pool(attributes: dict[str, Any], op: str, ceil: bool, padding_counts: bool) -> None:
    x = image(len(attributes["kernel_shape"]), 3, 7)
    if "auto_pad" not in attributes:
        attributes = {**attributes, "ceil_mode": int(ceil)}
    if op == "AveragePool":
        attributes = {**attributes, "count_include_pad": int(padding_counts)}
    proto, feeds = one_node(op, [x], opset=19 if op != "LpPool" else 18, **attributes)
    expected = by_onnxruntime(proto, feeds)
    (got,) = by_tbc(frontend.load(proto), feeds)
    assert_close(got, expected[0])


def test_integers_are_pooled() -> None:
    x = integers(8, -128, -100, 1, 2, 5, 5, dtype=np.int8)
    proto, feeds = one_node("MaxPool", [x], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])
    check_against_onnxruntime(proto, feeds)


def test_sizes_may_be_symbols() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("MaxPool", ["a"], ["b"], kernel_shape=[2, 2], ceil_mode=1, strides=[2, 2]),
        helper.make_node("Conv", ["b", "v"], ["c"], group=4),
        helper.make_node("AveragePool", ["c"], ["d"], kernel_shape=[2, 2], pads=[1, 1, 0, 0]),
        helper.make_node("GlobalAveragePool", ["d"], ["y"]),
    ]
    constants = {"w": normal(1, 4, 3, 3, 3), "v": normal(2, 4, 1, 2, 2)}
    proto = model(nodes, {"x": (np.float32, ["n", 3, "h", "w"])}, ["y"], constants)
    imported = frontend.load(proto)
    for n, h, w in ((1, 32, 32), (3, 17, 24), (2, 21, 30), (0, 16, 16)):
        feeds = {"x": normal(3, n, 3, h, w)}
        (got,) = by_tbc(imported, feeds)
        assert_close(got, by_onnxruntime(proto, feeds)[0])


def test_a_dense_convolution_is_one_product_with_a_constant() -> None:
    proto, _ = one_node("Conv", [image(2, 3, 1), normal(2, 4, 3, 3, 3)], constant=(1,))
    values = frontend.load(proto).graph.values()
    (product,) = [v for v in values if isinstance(v.op, MatMul)]
    assert product.args[1].is_constant
    assert product.args[1].type.shape == (27, 4)


@pytest.mark.parametrize(
    ("attributes", "shape"),
    [
        ({"group": 2}, (4, 3, 3, 3)),
        ({"group": 3}, (4, 1, 3, 3)),
        ({"group": 0}, (4, 3, 3, 3)),
        ({"kernel_shape": [2, 2]}, (4, 3, 3, 3)),
        ({"strides": [1]}, (4, 3, 3, 3)),
        ({"strides": [0, 1]}, (4, 3, 3, 3)),
        ({"pads": [-1, 0, 0, 0]}, (4, 3, 3, 3)),
        ({"auto_pad": "SOME"}, (4, 3, 3, 3)),
        ({}, (4, 3, 3)),
        ({}, (4, 2, 3, 3)),
    ],
)
def test_a_wrong_convolution_is_refused(attributes: dict[str, Any], shape: tuple[int, ...]) -> None:
    proto, _ = one_node("Conv", [image(2, 3, 1), normal(2, *shape)], **attributes)
    with pytest.raises(InvalidModel, match="node 'it': Conv"):
        frontend.load(proto)


def test_padding_that_depends_on_a_symbol_is_refused() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER", strides=[2, 2])
    constants = {"w": normal(1, 4, 3, 3, 3)}
    proto = model([node], {"x": (np.float32, [1, 3, "h", "w"])}, ["y"], constants)
    with pytest.raises(Unsupported, match="SAME"):
        frontend.load(proto)
    assert frontend.load(proto, dims={"h": 9, "w": 8}).graph.inputs[0].type.shape == (1, 3, 9, 8)


@pytest.mark.parametrize("sizes", [(9,), (5, 4, 6)])
def test_the_indices_of_a_pool(sizes: tuple[int, ...]) -> None:
    x = np.round(normal(3, 2, 3, *sizes))
    pads = [1] * (2 * len(sizes))
    kernel = [2] * len(sizes)
    proto, feeds = one_node("MaxPool", [x], outputs=2, kernel_shape=kernel, pads=pads)
    check_against_onnxruntime(proto, feeds)


def test_max_unpool() -> None:
    """With an output shape onnxruntime counts in that, unlike ONNX, whose node tests have it."""
    windows = {"kernel_shape": [2, 3], "strides": [2, 2], "pads": [0, 0, 0, 1]}
    pooled, feeds = one_node("MaxPool", [normal(1, 2, 3, 6, 8)], outputs=2, **windows)
    y, places = by_onnxruntime(pooled, feeds)
    check_against_onnxruntime(*one_node("MaxUnpool", [y, places], **windows))
