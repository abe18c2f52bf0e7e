from __future__ import annotations

import math
import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxruntime_oracle import run_operator
from strategies import Array, assert_same, random_array

from tbc import elementary
from tbc.ops import FLOAT_UNARY, Binary, Unary, Where
from tbc.reference import evaluate
from tbc.types import DType

INTS = [d for d in DType if d.is_int and d.bits >= 8]
FLOATS = [d for d in DType if d.is_float]
F32 = np.float32


def unary(fn: str, x: Array) -> Array:
    return evaluate(Unary(fn), [x])


def binary(fn: str, a: Array, b: Array) -> Array:
    return evaluate(Binary(fn), [a, b])


def wrapped(value: int, dtype: DType) -> int:
    low, high = dtype.range
    return (value - low) % (high - low + 1) + low


# -- integers -------------------------------------------------------------------------------------


def truncated(a: int, b: int) -> int:
    return int(math.copysign(1, a) * math.copysign(1, b)) * (abs(a) // abs(b))


def power(a: int, b: int) -> int:
    if b >= 0:
        return pow(a, b, 1 << 64)
    return truncated(1, pow(a, -b)) if a in (-1, 1) else 0


def shifted(a: int, b: int, width: int) -> int:
    if 0 <= b < width:
        return a >> b
    return -1 if a < 0 else 0


INT_MEANING: dict[str, Callable[[int, int, int], int]] = {
    "add": lambda a, b, _: a + b,
    "sub": lambda a, b, _: a - b,
    "mul": lambda a, b, _: a * b,
    "div": lambda a, b, _: truncated(a, b) if b else 0,
    "mod": lambda a, b, _: a % b if b else 0,
    "fmod": lambda a, b, _: a - truncated(a, b) * b if b else 0,
    "pow": lambda a, b, _: power(a, b),
    "min": lambda a, b, _: min(a, b),
    "max": lambda a, b, _: max(a, b),
    "and": lambda a, b, _: a & b,
    "or": lambda a, b, _: a | b,
    "xor": lambda a, b, _: a ^ b,
    "shl": lambda a, b, width: a << b if 0 <= b < width else 0,
    "shr": shifted,
}


@pytest.mark.parametrize("dtype", INTS)
@pytest.mark.parametrize("fn", INT_MEANING)
def test_integers_are_those_of_python_wrapped(fn: str, dtype: DType) -> None:
    low, high = dtype.range
    edges = sorted({low, low + 1, -1, 0, 1, 2, 3, 7, 8, 31, 32, 63, 64, high - 1, high})
    edges = [e for e in edges if low <= e <= high]
    a, b = np.meshgrid(
        np.concatenate([np.array(edges, dtype.numpy), random_array(dtype, (9,), 3)]),
        np.concatenate([np.array(edges, dtype.numpy), random_array(dtype, (9,), 4)]),
    )
    expected = [
        wrapped(INT_MEANING[fn](int(p), int(q), dtype.bits), dtype)
        for p, q in zip(a.flat, b.flat, strict=True)
    ]
    assert_same(binary(fn, a, b), np.array(expected, dtype.numpy).reshape(a.shape))


@pytest.mark.parametrize("dtype", INTS)
def test_unary_integers(dtype: DType) -> None:
    x = random_array(dtype, (50,), 5)
    meanings: dict[str, Callable[[int], int]] = {
        "neg": operator.neg,
        "abs": abs,
        "invert": operator.invert,
        "sign": lambda v: (v > 0) - (v < 0),
    }
    for fn, meaning in meanings.items():
        expected = np.array([wrapped(meaning(int(v)), dtype) for v in x], dtype.numpy)
        assert_same(unary(fn, x), expected)


@pytest.mark.parametrize("dtype", [*INTS, DType.i4, DType.u2, *FLOATS])
def test_comparisons(dtype: DType) -> None:
    a, b = random_array(dtype, (60,), 6), random_array(dtype, (60,), 7)
    b[::3] = a[::3]
    for fn in ("eq", "ne", "lt", "le", "gt", "ge"):
        expected = [
            getattr(operator, fn)(p, q) for p, q in zip(a.tolist(), b.tolist(), strict=True)
        ]
        assert_same(binary(fn, a, b), np.array(expected))


def test_bools() -> None:
    a, b = np.array([[False], [True]]), np.array([False, True])
    for fn, meaning in {"and": operator.and_, "or": operator.or_, "xor": operator.xor}.items():
        expected = [[meaning(p, q) for q in (False, True)] for p in (False, True)]
        assert_same(binary(fn, a, b), np.array(expected))
    assert_same(binary("max", a, b), a | b)
    assert_same(binary("min", a, b), a & b)
    assert_same(unary("not", b), np.array([True, False]))


# -- floats ---------------------------------------------------------------------------------------

ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
}


@pytest.mark.parametrize("dtype", [DType.f16, DType.f32])
@pytest.mark.parametrize("fn", ARITHMETIC)
def test_float_arithmetic_is_rounded_once(fn: str, dtype: DType) -> None:
    a, b = random_array(dtype, (999,), 8), random_array(dtype, (999,), 9)
    with np.errstate(all="ignore"):  # f64 has more than twice the bits, so this rounds as once
        expected = ARITHMETIC[fn](a.astype(np.float64), b.astype(np.float64)).astype(dtype.numpy)
    assert_same(binary(fn, a, b), expected)


def bf16_bits(value: float) -> int:
    """The bits of an f32 rounded to bf16, ties to even, in integers."""
    bits = int(np.float32(value).view(np.uint32))
    tail, head = bits & 0xFFFF, bits >> 16
    return head + (tail > 0x8000 or (tail == 0x8000 and head & 1))


@pytest.mark.parametrize("fn", ARITHMETIC)
def test_bf16_is_computed_in_f32(fn: str) -> None:
    a, b = random_array(DType.bf16, (300,), 8), random_array(DType.bf16, (300,), 9)
    wide = binary(fn, a.astype(F32), b.astype(F32))
    result = binary(fn, a, b)
    assert result.dtype == DType.bf16.numpy
    for value, bits in zip(wide, result.view(np.uint16), strict=True):
        assert math.isnan(value) or bits == bf16_bits(value)


@pytest.mark.parametrize("dtype", FLOATS)
def test_min_and_max(dtype: DType) -> None:
    nan = math.nan
    rows = [  # a, b, max, min
        (1.0, 2.0, 2.0, 1.0),
        (nan, 1.0, nan, nan),
        (1.0, nan, nan, nan),
        (0.0, -0.0, -0.0, -0.0),
        (-0.0, 0.0, 0.0, 0.0),
        (-math.inf, 3.0, 3.0, -math.inf),
    ]
    a, b, most, least = np.array(rows).T.astype(dtype.numpy)
    assert_same(binary("max", a, b), most)
    assert_same(binary("min", a, b), least)


@given(st.floats(), st.floats())
def test_float_remainders(a: float, b: float) -> None:
    x, y = np.array(a), np.array(b)
    fmod, mod = float(binary("fmod", x, y)), float(binary("mod", x, y))
    if math.isnan(a) or math.isnan(b) or math.isinf(a) or b == 0:
        assert math.isnan(fmod)
        assert math.isnan(mod)
        return
    if math.isfinite(b):
        quotient = Fraction(abs(a)) // Fraction(abs(b))
        rest = Fraction(abs(a)) - quotient * Fraction(abs(b))
        assert fmod == math.copysign(float(rest), a)
    assert math.copysign(1, fmod) == math.copysign(1, a)
    assert mod == a % b
    assert mod != 0 or math.copysign(1, mod) == math.copysign(1, fmod)


def test_f32_remainder_of_a_large_quotient_is_exact() -> None:
    a, b = np.array([1e30, 3e38, -1e20], F32), np.array([3.0, 1e-30, 0.7], F32)
    expected = [math.fmod(float(p), float(q)) for p, q in zip(a, b, strict=True)]
    assert_same(binary("fmod", a, b), np.array(expected, F32))


@pytest.mark.parametrize("dtype", FLOATS)
def test_exact_unary_functions(dtype: DType) -> None:
    x = random_array(dtype, (400,), 10)
    meanings: dict[str, Callable[[float], float]] = {
        "neg": operator.neg,
        "abs": abs,
        "sign": lambda v: v if v == 0 or math.isnan(v) else math.copysign(1, v),
        "floor": lambda v: math.copysign(math.floor(v), v) if math.isfinite(v) else v,
        "ceil": lambda v: math.copysign(math.ceil(v), v) if math.isfinite(v) else v,
        "round": lambda v: math.copysign(round(v), v) if math.isfinite(v) else v,
    }
    for fn, meaning in meanings.items():
        with np.errstate(all="ignore"):
            expected = np.array([meaning(float(v)) for v in x]).astype(dtype.numpy)
        assert_same(unary(fn, x), expected)
    assert_same(unary("isnan", x), np.array([math.isnan(v) for v in x]))
    assert_same(unary("isinf", x), np.array([math.isinf(v) for v in x]))


@pytest.mark.parametrize("fn", ["floor", "ceil", "round"])
def test_rounding_is_also_the_emitted_formula(fn: str) -> None:
    x = np.concatenate([random_array(DType.f32, (900,), 11), np.arange(-4, 4, 0.25).astype(F32)])
    assert_same(unary(fn, x), elementary.evaluate(fn, x))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("fn", [f for f in FLOAT_UNARY if f not in ("floor", "ceil", "round")])
def test_elementary_functions(fn: str, dtype: DType) -> None:
    low, high = {"acosh": (1, 9), "log": (0.1, 9), "sqrt": (0, 9)}.get(fn, (-0.9, 0.9))
    x = np.random.default_rng(12).uniform(low, high, (5, 7)).astype(dtype.numpy)
    meaning = sigmoid if fn == "sigmoid" else getattr(math, fn)
    exact = np.vectorize(meaning)(x.astype(np.float64))
    unit = float(np.finfo(np.float16).eps) if dtype is DType.f16 else 0.0
    unit = unit or {DType.bf16: 2.0**-7, DType.f32: 2.0**-23}.get(dtype, 2.0**-52)
    result = unary(fn, x)
    assert result.dtype == dtype.numpy
    np.testing.assert_allclose(result.astype(np.float64), exact, rtol=4 * unit, atol=unit * 1e-3)


def test_sqrt_is_correctly_rounded() -> None:
    x = np.random.default_rng(13).uniform(0, 1e6, 999).astype(F32)
    assert_same(unary("sqrt", x), np.sqrt(x.astype(np.float64)).astype(F32))


def test_pow() -> None:
    a, b = np.array([2, 0.5, -3, 9, 0, -2], F32), np.array([10, 3, 3, 0.5, 2, 0.5], F32)
    result = binary("pow", a, b)
    assert result.dtype == F32
    np.testing.assert_allclose(result, [1024, 0.125, -27, 3, 0, math.nan], rtol=1e-6)


def test_scalars_stay_arrays() -> None:
    x = np.array(2.0, F32)
    for result in (unary("exp", x), unary("neg", x), binary("add", x, x), binary("pow", x, x)):
        assert isinstance(result, np.ndarray)
        assert result.shape == ()


def test_where() -> None:
    cond = np.array([[True], [False]])
    a, b = np.array([1, -1, 0], np.int8), np.array(1, np.int8)
    expected = np.array([[1, -1, 0], [1, 1, 1]], np.int8)
    assert_same(evaluate(Where(), [cond, a, b]), expected)


# -- onnxruntime ----------------------------------------------------------------------------------


def finite(dtype: DType, seed: int) -> Array:
    x = random_array(dtype, (7, 9), seed)
    return np.where(np.isfinite(x), x, 1).astype(dtype.numpy) if dtype.is_float else x


SAME_AS_ONNX: list[tuple[str, str, DType, dict[str, Any]]] = [
    ("Add", "add", DType.f32, {}),
    ("Sub", "sub", DType.f16, {}),
    ("Mul", "mul", DType.f64, {}),
    ("Div", "div", DType.f32, {}),
    ("Add", "add", DType.i32, {}),
    ("Mul", "mul", DType.i64, {}),
    ("Mod", "mod", DType.i32, {}),
    ("Mod", "mod", DType.u8, {}),
    ("Mod", "fmod", DType.i32, {"fmod": 1}),
    ("Mod", "fmod", DType.f32, {"fmod": 1}),
    ("Div", "div", DType.i32, {}),
    ("BitShift", "shl", DType.u32, {"direction": "LEFT"}),
    ("BitShift", "shr", DType.u64, {"direction": "RIGHT"}),
    ("BitwiseAnd", "and", DType.i16, {}),
    ("BitwiseXor", "xor", DType.u8, {}),
    ("Max", "max", DType.i32, {}),
    ("Min", "min", DType.f64, {}),
    ("Equal", "eq", DType.f32, {}),
    ("LessOrEqual", "le", DType.i64, {}),
]


@pytest.mark.parametrize(("name", "fn", "dtype", "attributes"), SAME_AS_ONNX)
def test_binary_functions_against_onnxruntime(
    name: str, fn: str, dtype: DType, attributes: dict[str, Any]
) -> None:
    a, b = finite(dtype, 17), finite(dtype, 18)
    if fn in ("mod", "fmod", "div") and dtype.is_int:
        b = np.where((b == 0) | (b == -1 if dtype.kind == "i" else False), 3, b).astype(b.dtype)
    if fn in ("shl", "shr"):
        b %= b.dtype.type(dtype.bits)
    result, expected = binary(fn, a, b), run_operator(name, [a, b], **attributes)
    if dtype.is_float and result.dtype != bool:
        result, expected = result + result.dtype.type(0), expected + result.dtype.type(0)
    assert_same(result, expected)


@pytest.mark.parametrize("name", ["Exp", "Erf", "Tanh", "Sigmoid", "Sin", "Atan", "Round", "Sign"])
def test_unary_functions_against_onnxruntime(name: str) -> None:
    x = np.random.default_rng(19).uniform(-3, 3, (5, 9)).astype(F32)
    result, expected = unary(name.lower(), x), run_operator(name, [x])
    np.testing.assert_allclose(result, expected, rtol=3e-6, atol=1e-7)
