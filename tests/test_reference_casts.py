from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from onnxruntime_oracle import run_operator
from strategies import SPECIAL, assert_same, random_array

from tbc.ops import BitCast, Cast
from tbc.reference import evaluate
from tbc.types import DType

INTS = [d for d in DType if d.is_int and d.bits >= 8]
FLOATS = [d for d in DType if d.is_float]
F32 = np.float32


def wrapped(value: int, dtype: DType) -> int:
    low, high = dtype.range
    return (value - low) % (high - low + 1) + low


@pytest.mark.parametrize("target", [d for d in DType if d.is_int])
@pytest.mark.parametrize("source", FLOATS)
def test_floats_become_integers(source: DType, target: DType) -> None:
    low, high = target.range
    ends = [e + d for e in (low, high, 0) for d in (-1.5, -1, -0.5, 0, 0.5, 1, 1.5)]
    with np.errstate(all="ignore"):
        edges = [*ends, *SPECIAL, -math.inf, 2.0**31, 2.0**63, 2.0**64]
        x = np.array(edges, np.float64).astype(source.numpy)
    expected = []
    for v in x.astype(np.float64).tolist():
        if math.isnan(v):
            expected.append(0)
        elif math.isinf(v):
            expected.append(low if v < 0 else high)
        else:
            expected.append(min(max(math.trunc(v), low), high))
    assert_same(evaluate(Cast(target), [x]), np.array(expected, target.numpy))


@pytest.mark.parametrize("target", [d for d in DType if d.is_int])
@pytest.mark.parametrize("source", [*INTS, DType.i4, DType.trit, DType.bool])
def test_integers_wrap(source: DType, target: DType) -> None:
    x = random_array(source, (99,), 14)
    expected = [wrapped(int(v), target) for v in x]
    assert_same(evaluate(Cast(target), [x]), np.array(expected, target.numpy))


@pytest.mark.parametrize("source", [*INTS, DType.u4, DType.sign, DType.bool])
def test_integers_become_the_nearest_f32(source: DType) -> None:
    x = random_array(source, (200,), 15)
    result = evaluate(Cast(DType.f32), [x])
    for v, y in zip(x.tolist(), result, strict=True):
        neighbours = [y, np.nextafter(y, F32(-np.inf)), np.nextafter(y, F32(np.inf))]
        assert min(abs(Fraction(int(v)) - Fraction(float(n))) for n in neighbours) == abs(
            Fraction(int(v)) - Fraction(float(y))
        )


def test_floats_become_other_floats() -> None:
    x = np.array([1 + 2**-11, 1 + 2**-11 + 2**-40, 65520, 65519.99, 1e-8, math.nan, -0.0])
    halves = evaluate(Cast(DType.f16), [x])
    assert_same(halves, np.array([1, 1 + 2**-10, np.inf, 65504, 0, np.nan, -0.0], np.float16))
    assert_same(evaluate(Cast(DType.f32), [halves]), halves.astype(F32))
    tie = np.array([1 + 2**-8, 1 + 2**-8 + 2**-40, 1 + 2**-7 + 2**-8])
    brain = evaluate(Cast(DType.bf16), [tie])  # the second is a tie in f32
    assert_same(brain, np.array([1, 1, 1 + 2**-6], DType.bf16.numpy))
    assert_same(evaluate(Cast(DType.f64), [brain]), np.array([1, 1, 1 + 2**-6]))


@pytest.mark.parametrize("source", [*FLOATS, *INTS, DType.trit])
def test_anything_but_zero_is_true(source: DType) -> None:
    x = random_array(source, (99,), 16)
    expected = np.array([v != 0 for v in x.astype(np.float64)])
    assert_same(evaluate(Cast(DType.bool), [x]), expected)


def test_only_weights_become_weights() -> None:
    whole = np.array([-1, 0, 1])
    for dtype in (np.int8, np.int64, np.float32, np.float64):
        assert_same(evaluate(Cast(DType.trit), [whole.astype(dtype)]), whole.astype(np.int8))
        with pytest.raises(ValueError, match="sign does not have"):
            evaluate(Cast(DType.sign), [whole.astype(dtype)])
    with pytest.raises(ValueError, match="trit does not have"):
        evaluate(Cast(DType.trit), [np.array([255, 1], np.uint8)])
    assert_same(evaluate(Cast(DType.sign), [whole[::2]]), whole[::2].astype(np.int8))


@pytest.mark.parametrize(
    ("source", "target"),
    [(DType.f32, DType.i32), (DType.i64, DType.i8), (DType.f64, DType.f16), (DType.f16, DType.u8)],
)
def test_casts_against_onnxruntime(source: DType, target: DType) -> None:
    x = random_array(source, (9, 9), 20)
    if source.is_float:
        low = 0 if target is DType.u8 else -100
        x = np.where((x > low) & (x < 100), x, 1).astype(source.numpy)
    assert_same(evaluate(Cast(target), [x]), run_operator("Cast", [x], to=target.onnx))


@pytest.mark.parametrize("source", [*INTS, *FLOATS])
def test_bits_of_another_type(source: DType) -> None:
    x = random_array(source, (200,), 17)
    plain = x[~np.isnan(x.astype(np.float64))]
    for target in (d for d in (*INTS, *FLOATS) if d.bits == source.bits):
        result = evaluate(BitCast(target), [plain])
        assert result.tobytes() == plain.tobytes()
        assert result.dtype == target.numpy


def test_the_bits_of_a_nan_are_always_the_same() -> None:
    for source, bits in ((DType.f16, 0x7E00), (DType.bf16, 0x7FC0)):
        odd = np.array([bits, bits | 1, bits | 0x8000], np.uint16)
        whole = evaluate(BitCast(DType.u16), [odd.view(source.numpy)])
        assert_same(whole, np.full(3, bits, np.uint16))
    odd = np.array([np.nan, -np.nan], np.float64)
    assert_same(evaluate(BitCast(DType.i64), [odd]), np.full(2, 0x7FF8 << 48))
