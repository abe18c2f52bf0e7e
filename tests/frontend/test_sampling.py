"""Resize, Upsample, GridSample, RoiAlign and DeformConv, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnx_models import (
    assert_close,
    by_onnxruntime,
    by_tbc,
    check_against_onnxruntime,
    i64,
    integers,
    model,
    normal,
    one_node,
)

import tbc
from tbc import frontend
from tbc.errors import Unsupported

IMAGE = normal(1, 2, 3, 6, 8)
F = np.float32
WAYS = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("size", [(9, 20), (3, 5), (6, 1), (6, 8)])
def test_resize_to_sizes(mode: str, how: str, size: tuple[int, int]) -> None:
    model, feeds = one_node(
        "Resize", [IMAGE, None, None, i64(2, 3, *size)], constant=(3,), opset=19,
        mode=mode, coordinate_transformation_mode=how,
    )  # fmt: skip
    check_against_onnxruntime(model, feeds)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("opset", [10, 13])
@pytest.mark.parametrize("scales", [(2, 3), (0.5, 0.5), (1.75, 0.625)])
def test_resize_by_scales(mode: str, opset: int, scales: tuple[float, float]) -> None:
    factors = np.array([1, 1, *scales], F)
    args = [IMAGE, factors] if opset == 10 else [IMAGE, None, factors]
    model, feeds = one_node("Resize", args, constant=(len(args) - 1,), opset=opset, mode=mode)
    check_against_onnxruntime(model, feeds)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32])
@pytest.mark.parametrize("scales", [(2, 2), (4, 0.5), (1, 8)])
def test_resize_of_integers(dtype: type[np.integer[Any]], scales: tuple[float, float]) -> None:
    info = np.iinfo(dtype if dtype is not np.int32 else np.int8)
    image = integers(1, int(info.min), int(info.max), 1, 3, 6, 8, dtype=dtype)
    args = [image, None, np.array([1, 1, *scales], F)]
    check_against_onnxruntime(*one_node("Resize", args, constant=(2,), mode="linear"))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32])
@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("shape", [(7, 9), (3, 7, 9), (2, 3, 7, 9), (1, 2, 4, 7, 9)])
def test_linear_resize_of_integers_truncates_alike(
    dtype: type[np.integer[Any]], how: str, shape: tuple[int, ...]
) -> None:
    info = np.iinfo(dtype if dtype is not np.int32 else np.int8)
    image = integers(1, int(info.min), int(info.max), *shape, dtype=dtype)
    for size in ((21, 27), (10, 13), (5, 4), (7, 20), (1, 9)):
        sizes = i64(*shape[:-2], *size)
        proto, feeds = one_node(
            "Resize", [image, None, None, sizes], constant=(3,), opset=19, mode="linear",
            coordinate_transformation_mode=how,
        )  # fmt: skip
        check_against_onnxruntime(proto, feeds)


@pytest.mark.parametrize("how", ["half_pixel", "pytorch_half_pixel", "asymmetric"])
@pytest.mark.parametrize("scales", [(3, 3), (1.3, 2.2), (0.7, 0.6), (1, 1.7), (5 / 3, 7 / 3)])
def test_compiled_linear_resize_of_integers(how: str, scales: tuple[float, float]) -> None:
    image = integers(1, -128, 127, 1, 3, 7, 9, dtype=np.int8)
    proto, feeds = one_node(
        "Resize", [image, None, np.array([1, 1, *scales], F)], constant=(2,), mode="linear",
        coordinate_transformation_mode=how,
    )  # fmt: skip
    check_against_onnxruntime(proto, feeds)
    (result,) = tbc.compile(proto).run(feeds).values()
    np.testing.assert_array_equal(result, by_onnxruntime(proto, feeds)[0])


@pytest.mark.parametrize("rule", ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
def test_how_the_nearest_is_found(rule: str) -> None:
    model, feeds = one_node(
        "Resize", [IMAGE, None, np.array([1, 1, 1.5, 0.75], F)], constant=(2,),
        mode="nearest", nearest_mode=rule,
    )  # fmt: skip
    check_against_onnxruntime(model, feeds)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("size", [(2, 3), (3, 7), (9, 5)])
def test_antialias(mode: str, size: tuple[int, int]) -> None:
    options: dict[str, Any] = {"exclude_outside": 1} if mode == "cubic" else {}
    model, feeds = one_node(
        "Resize", [IMAGE, None, None, i64(*size)], constant=(3,), opset=19, mode=mode,
        antialias=1, axes=[2, 3], **options,
    )  # fmt: skip
    check_against_onnxruntime(model, feeds)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_upsample(mode: str) -> None:
    model, feeds = one_node(
        "Upsample", [IMAGE, np.array([1, 1, 2, 3], F)], constant=(1,), opset=9, mode=mode
    )
    check_against_onnxruntime(model, feeds)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("how", WAYS)
def test_resize_of_symbolic_sizes(mode: str, how: str) -> None:
    node = helper.make_node(
        "Resize", ["x", "", "s"], ["y"], mode=mode, coordinate_transformation_mode=how
    )
    scales = {"s": np.array([1, 1, 2, 1.5], F)}
    proto = model([node], {"x": (F, [1, 2, "h", "w"])}, ["y"], scales)
    imported = frontend.load(proto)
    for h, w in ((5, 6), (3, 10)):  # whole results: with others onnxruntime aligns otherwise
        feeds = {"x": normal(2, 1, 2, h, w)}
        assert_close(by_tbc(imported, feeds)[0], by_onnxruntime(proto, feeds)[0])


def test_a_scale_that_is_no_simple_fraction_needs_a_known_size() -> None:
    node = helper.make_node("Resize", ["x", "", "s"], ["y"], name="it")
    scales = {"s": np.array([1, 1, 1, 1.1], F)}
    proto = model([node], {"x": (F, [1, 2, 5, "w"])}, ["y"], scales)
    with pytest.raises(Unsupported, match="node 'it': Resize: the size w times"):
        frontend.load(proto)
    frontend.load(proto, dims={"w": 10})


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("corners", [0, 1])
def test_grid_sample(mode: str, padding: str, corners: int) -> None:
    grid = normal(3, 2, 4, 5, 2) * F(1.3)
    model, feeds = one_node(
        "GridSample", [IMAGE, grid], opset=20, mode=mode, padding_mode=padding,
        align_corners=corners,
    )  # fmt: skip
    check_against_onnxruntime(model, feeds, scale=4)


def test_grid_sample_of_volumes() -> None:
    args = [normal(1, 2, 3, 4, 5, 6), normal(2, 2, 3, 2, 4, 3)]
    model, feeds = one_node("GridSample", args, opset=20, mode="linear")
    check_against_onnxruntime(model, feeds, scale=4)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("how", ["half_pixel", "output_half_pixel"])
def test_roi_align(mode: str, how: str) -> None:
    rois = np.array([[0, 0, 5, 4], [1.3, 2.2, 6.9, 5.1], [-3, -2, 12, 9]], F)
    model, feeds = one_node(
        "RoiAlign", [IMAGE, rois, i64(0, 1, 1)], mode=mode, output_height=2, output_width=3,
        sampling_ratio=2, coordinate_transformation_mode=how,
    )  # fmt: skip
    if mode == "max":  # onnxruntime takes the greatest sample, the specification the greatest term
        frontend.load(model)
    else:
        check_against_onnxruntime(model, feeds)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_max_roi_pool(scale: float) -> None:
    rois = np.array(
        [[0, 0, 0, 5, 4], [1, 1.5, 2, 6.9, 5.1], [1, -3, -0.5, 12, 9], [0, 20, 20, 30, 30],
         [0, 5, 4, 5, 4]], F,
    )  # fmt: skip
    model, feeds = one_node("MaxRoiPool", [IMAGE, rois], pooled_shape=[2, 3], spatial_scale=scale)
    check_against_onnxruntime(model, feeds)


def test_deform_conv() -> None:
    x, w = normal(1, 2, 4, 6, 7), normal(2, 6, 2, 3, 2)
    offset = normal(3, 2, 2 * 2 * 6, 3, 7)
    args = [x, w, offset, normal(4, 6), normal(5, 2, 2 * 6, 3, 7)]
    model, feeds = one_node(
        "DeformConv", args, opset=19, group=2, offset_group=2, strides=[2, 1],
        pads=[1, 0, 1, 1], kernel_shape=[3, 2],
    )  # fmt: skip
    check_against_onnxruntime(model, feeds, scale=4)
