"""Casts to and from floats of 8 and 4 bits, against ml_dtypes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper
from onnx_models import Array, by_tbc, model, nodes, normal
from strategies import assert_same

from tbc import frontend
from tbc.errors import InvalidModel
from tbc.frontend.small_floats import FORMATS
from tbc.types import DType

SMALL = list(FORMATS)
EVERY_HALF = np.arange(1 << 16, dtype=np.uint16).view(np.float16)


def cast(x: Array, dtype: DType, **attributes: Any) -> Array:
    """x in a small float, as the bytes that it leaves a model in."""
    proto = model(
        [helper.make_node("Cast", ["x"], ["y"], to=dtype.onnx, **attributes)],
        {"x": (x.dtype, x.shape)},
        opset=24,
    )
    (codes,) = by_tbc(frontend.load(proto), {"x": x})
    return codes.view(dtype.numpy)


def saturated(x: Array, dtype: DType) -> Array:
    """x between the least and the greatest number of a type, nans as they are."""
    most = FORMATS[dtype].most
    return np.where(np.isnan(x), np.nan, np.clip(x, -most, most)).astype(x.dtype)


def nearest(x: Array, dtype: DType) -> Array:
    """The small floats nearest to numbers in f64, ties to the even code, by distances."""
    codes = np.arange(1 << (dtype.bits - 1), dtype=np.uint8)
    numbers = codes.view(dtype.numpy).astype(np.float64)
    codes, numbers = codes[np.isfinite(numbers)], numbers[np.isfinite(numbers)]
    place = np.searchsorted(numbers, np.abs(x)).clip(1, len(numbers) - 1)
    low, high = (np.abs(np.abs(x) - numbers[place - i]) for i in (1, 0))
    upper = (high < low) | ((high == low) & (codes[place] % 2 == 0))
    found = np.where(upper, numbers[place], numbers[place - 1])
    return np.copysign(found, x).astype(dtype.numpy)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", SMALL)
def test_every_half_is_rounded_to_the_nearest(dtype: DType) -> None:
    wanted = saturated(EVERY_HALF, dtype).astype(dtype.numpy)
    assert_same(cast(EVERY_HALF, dtype), wanted)


@pytest.mark.parametrize("dtype", SMALL)
@pytest.mark.parametrize("source", [np.float32, np.float64])
def test_numbers_between_two(dtype: DType, source: Any) -> None:
    """Ties and their neighbours; those of f64 are ties in f32."""
    codes = np.arange(1 << dtype.bits, dtype=np.uint8).view(dtype.numpy).astype(np.float64)
    numbers = np.sort(codes[np.isfinite(codes)])
    ties = ((numbers[1:] + numbers[:-1]) / 2).astype(source)
    x = np.concatenate([ties, np.nextafter(ties, source(1e9)), np.nextafter(ties, source(-1e9))])
    assert_same(cast(x, dtype), nearest(x, dtype))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", [d for d in SMALL if d.bits == 8])
def test_beyond_the_greatest_without_saturation(dtype: DType) -> None:
    x = np.concatenate([EVERY_HALF.astype(np.float32) * 2, [1e9, -1e9]]).astype(np.float32)
    assert_same(cast(x, dtype, saturate=0), x.astype(dtype.numpy))


@pytest.mark.parametrize("dtype", SMALL)
def test_every_code_is_read(dtype: DType) -> None:
    """Given as bytes, moved, and cast; a constant of that type too."""
    codes = np.arange(1 << dtype.bits, dtype=np.uint8)
    line = ["t = Transpose(x)", "p = Cast(t)", "q = Cast(w)", "y = Concat(p, q)"]
    to = {"to": DType.f32.onnx}
    proto = model(
        nodes(*line, p=to, q=to, y={"axis": 0}),
        {"x": (dtype.onnx, [len(codes)])},
        constants={"w": numpy_helper.from_array(codes[:3].view(dtype.numpy), "w")},
        opset=24,
    )
    (y,) = by_tbc(frontend.load(proto), {"x": codes})
    assert_same(y, np.concatenate([codes, codes[:3]]).view(dtype.numpy).astype(np.float32))


@pytest.mark.parametrize("dtype", [d for d in SMALL if d.bits == 8 and "u" not in d.name])
def test_what_is_no_number_or_infinite(dtype: DType) -> None:
    codes = np.arange(256, dtype=np.uint8)
    proto = model(
        nodes("n = IsNaN(x)", "i = IsInf(x)", i={"detect_negative": 0}),
        {"x": (dtype.onnx, [256])},
        outputs=("n", "i"),
        opset=24,
    )
    nans, infinities = by_tbc(frontend.load(proto), {"x": codes})
    numbers = codes.view(dtype.numpy).astype(np.float64)
    assert_same(nans, np.isnan(numbers))
    assert_same(infinities, np.isposinf(numbers))


def test_a_zero_point_of_small_floats_is_0() -> None:
    proto = model(
        nodes("y = QuantizeLinear(x, s, z)"),
        {"x": (np.float32, [4])},
        constants={
            "s": np.float32(0.5).reshape(()),
            "z": numpy_helper.from_array(np.ones((), DType.f8e5m2.numpy), "z"),
        },
        opset=24,
    )
    with pytest.raises(InvalidModel, match="zero point"):
        frontend.load(proto)
    dynamic = model(
        nodes("y = QuantizeLinear(x, s, z)"),
        {"x": (np.float32, [4]), "z": (DType.f8e5m2.onnx, [])},
        constants={"s": np.float32(0.5).reshape(())},
        opset=24,
    )
    with pytest.raises(ValueError, match="cannot accept"):
        by_tbc(frontend.load(dynamic), {"x": normal(1, 4), "z": np.uint8(1).reshape(())})
    del proto.graph.initializer[1]
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros((), DType.f8e5m2.numpy), "z"))
    x = normal(1, 4)
    (y,) = by_tbc(frontend.load(proto), {"x": x})
    assert_same(y.view(DType.f8e5m2.numpy), (x / np.float32(0.5)).astype(DType.f8e5m2.numpy))


def test_the_value_of_an_input_is_given_as_bytes_or_as_floats() -> None:
    codes = np.array([0x80, 0x7E, 0x3C, 1], np.uint8)
    proto = model(
        nodes("y = Cast(x)", y={"to": DType.f32.onnx}), {"x": (DType.f8e5m2.onnx, [4])}, opset=24
    )
    wanted = codes.view(DType.f8e5m2.numpy).astype(np.float32)
    for given in (codes, codes.view(DType.f8e5m2.numpy)):
        (y,) = by_tbc(frontend.load(proto, input_values={"x": given}), {})
        assert_same(y, wanted)
