"""Elementary functions: accuracy against mpmath, C99's special cases, emitted code bit by bit."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from emulator import DTYPES, Map, Native, closed_object, maps_text, run_foreign
from hypothesis import given, settings
from hypothesis import strategies as st

from tbc import elementary
from tbc.codegen.host import host_target
from tbc.codegen.machine import Workers
from tbc.codegen.math import EMITTERS, emit_fmod, emit_pow
from tbc.target import parse

WIDTHS = {"float": 32, "double": 64}
PRECISION = {"float": (24, -149), "double": (53, -1074)}
UNARY = [name for name in elementary.MAX_ULP if name != "pow"]
ROUNDING = {"floor": np.floor, "ceil": np.ceil, "round": np.rint, "trunc": np.trunc}
NUMPY = {
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "pow": np.power,
    "erf": np.vectorize(math.erf),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}
SPECIALS = [0.0, 1.0, 0.5, 2.0, 3.0, 2.5, 1e9, 1e30, 1e-30, 2.0**-140, math.inf, math.nan]

both_formats = pytest.mark.parametrize("format", WIDTHS)


def exact(name, args):
    """The value with hundreds of bits; nan outside the domain."""
    with mpmath.workprec(1500 if name in ("sin", "cos", "tan") else 400):
        if name == "sigmoid":
            return 1 / (1 + mpmath.exp(-args[0]))
        function = getattr(mpmath, {"pow": "power"}.get(name, name))
        value = function(*(mpmath.mpf(a) for a in args))
        return value if isinstance(value, mpmath.mpf) else mpmath.nan


def error(got, want, format):
    """The distance from the exact value in units of its last place; 0 where both overflow."""
    precision, least = PRECISION[format]
    with mpmath.workprec(400):
        if math.isinf(got):
            overflow = mpmath.ldexp(1 - mpmath.mpf(2) ** -precision, 3 - least - precision)
            return 0 if got * want >= got * overflow else math.inf
        place = mpmath.frexp(want)[1] - precision if want else least
        return abs(got - want) / mpmath.ldexp(1, max(int(place), least))


def check(name, format, *arrays):
    """`evaluate` is within `MAX_ULP` of the exact values."""
    for got, *args in zip(elementary.evaluate(name, *arrays), *arrays, strict=True):
        values = [a.item() for a in args]
        want = exact(name, values)
        if not mpmath.isfinite(want):
            assert np.array_equal(got, float(want), equal_nan=True), (values, got, want)
        else:
            assert error(got.item(), want, format) <= elementary.MAX_ULP[name], (values, got, want)


def finite(format):
    width = WIDTHS[format]
    anywhere = st.floats(width=width, allow_nan=False, allow_infinity=False)
    return anywhere | st.floats(-100, 100, width=width) | st.floats(-1, 1, width=width)


@both_formats
@pytest.mark.parametrize("name", UNARY)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_accuracy(name, format, data):
    x = np.array(data.draw(st.lists(finite(format), min_size=1, max_size=30)), DTYPES[format])
    check(name, format, x)


@both_formats
@pytest.mark.parametrize("name", UNARY)
def test_accuracy_of_sample(name, format):
    rng = np.random.default_rng(3)
    x = np.exp2(rng.uniform(-30, 10, 200)) * rng.choice([-1, 1], 200)
    check(name, format, x.astype(DTYPES[format]))


@both_formats
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_accuracy_of_pow(format, data):
    base = finite(format).filter(bool)
    exponent = finite(format) | st.integers(-40, 40).map(float)
    rows = data.draw(st.lists(st.tuples(base, exponent), min_size=1, max_size=20))
    x, y = np.array(rows, DTYPES[format]).T
    check("pow", format, x, y)
    check("pow", format, np.abs(x), y)


@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_hardest_arguments(name):
    """The floats nearest to a multiple of π/2 (Muller, Elementary Functions), and huge ones."""
    check(name, "double", np.array([6381956970095103 * 2.0**797, 1e22, np.finfo("f8").max]))
    check(name, "float", np.array([16367173 * 2.0**72, 1e22, np.finfo("f4").max], "f4"))


def special_values(dtype):
    x = np.array(SPECIALS, dtype)
    return np.concatenate([x, -x])


@both_formats
@pytest.mark.parametrize("name", elementary.MAX_ULP)
def test_special_values(name, format):
    """Zeros, infinities and NaNs come out where C99 wants them, with its signs."""
    x = special_values(DTYPES[format])
    args = np.meshgrid(x, x) if name == "pow" else [x]
    reference = NUMPY.get(name) or getattr(np, name)
    with np.errstate(all="ignore"):
        want = reference(*(a.astype("f8") for a in args)).astype(DTYPES[format])
    got = elementary.evaluate(name, *args)
    special = ~np.isfinite(want) | (want == 0) | ~np.isfinite(got) | (got == 0)
    np.testing.assert_array_equal(got[special], want[special])
    signed = special & ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got[signed]), np.signbit(want[signed]))


@both_formats
@pytest.mark.parametrize("name", ROUNDING)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_rounding(name, format, data):
    width = WIDTHS[format]
    numbers = st.floats(width=width) | st.integers(-9, 9).map(lambda n: n / 2)
    near_whole = st.floats(2.0 ** (width // 3), 2.0**54, width=width)
    x = np.array(data.draw(st.lists(numbers | near_whole)), DTYPES[format])
    got, want = elementary.evaluate(name, x), ROUNDING[name](x)
    np.testing.assert_array_equal(got, want)
    signed = ~np.isnan(x)
    np.testing.assert_array_equal(np.signbit(got[signed]), np.signbit(want[signed]))


def test_evaluate_keeps_shape_and_dtype():
    for shape in ((), (0, 3), (2, 1, 3)):
        for dtype in ("f4", "f8", ">f4"):
            got = elementary.evaluate("exp", np.zeros(shape, dtype))
            assert (got.shape, got.dtype) == (shape, np.dtype(dtype).newbyteorder("="))
            assert (got == 1).all()
    x, y = np.full((2, 1), 2, "f4"), np.arange(3, dtype="f4")
    np.testing.assert_array_equal(elementary.evaluate("pow", x, y), [[1, 2, 4], [1, 2, 4]])


# -- emitted code ---------------------------------------------------------------------------------


def emitted(type):
    """Every emitter as a map on one format."""
    unary = [Map(f"test_{name}", (type,), type, emit) for name, emit in EMITTERS.items()]
    return [*unary, Map("test_pow", (type, type), type, emit_pow)]


def inputs(map, count=512):
    """Arbitrary bits, ordinary numbers and special ones."""
    rng = np.random.default_rng(5)
    dtype = DTYPES[map.ret]
    specials = special_values(dtype)
    x = np.frombuffer(rng.bytes(count * int(dtype[1])), dtype).copy()
    x[::2] = np.exp2(rng.uniform(-12, 9, count // 2)) * rng.choice([-1, 1], count // 2)
    x[: len(specials)] = specials
    return [rng.permutation(x) for _ in map.args]


def assert_same_bits(name, got, arrays):
    want = elementary.evaluate(name.removeprefix("test_"), *arrays)
    bits = f"u{want.itemsize}"
    same = (got.view(bits) == want.view(bits)) | (np.isnan(got) & np.isnan(want))
    assert same.all(), (name, [a[~same][0] for a in (*arrays, got, want)])


@pytest.fixture(scope="module")
def workers():
    with Workers(2) as started:
        yield started


@pytest.mark.parametrize("passes", [False, True])
@pytest.mark.parametrize("lanes", [1, 4, 16])
@both_formats
def test_emitted_bits(workers, format, lanes, passes):
    maps = emitted(format)
    native = Native(workers, maps, lanes=lanes, passes=passes)
    for each in maps:
        arrays = inputs(each)
        assert_same_bits(each.name, native(each.name, *arrays), arrays)


def by_instruction(name):
    """An emitter of a rounding function for a machine that has it."""

    def emit(f, x):
        f.module.rounds = True
        return EMITTERS[name](f, x)

    return emit


@pytest.mark.skipif(not host_target().rounds, reason="this machine does not round at once")
@pytest.mark.parametrize("lanes", [1, 4, 16])
@both_formats
def test_rounding_instructions(workers, format, lanes):
    maps = [Map(f"test_{name}", (format,), format, by_instruction(name)) for name in ROUNDING]
    native = Native(workers, maps, lanes=lanes)
    for each in maps:
        arrays = inputs(each)
        assert_same_bits(each.name, native(each.name, *arrays), arrays)


@pytest.mark.parametrize("name", ["armv8", "i686", "cortex-m0plus"])
def test_emitted_bits_elsewhere(workers, tmp_path, name):
    """The same bits from NEON, from SSE2 and from soft float."""
    target = parse(name)
    lanes = 4 if name != "cortex-m0plus" else 1
    maps = emitted("float")
    text = maps_text(maps, target.triple, lanes)
    obj, _ = closed_object(workers, text, target, [m.name for m in maps], passes=True)
    arrays = [inputs(each) for each in maps]
    results = run_foreign(obj, target, maps, arrays, tmp_path)
    for each, args, got in zip(maps, arrays, results, strict=True):
        assert_same_bits(each.name, got, args)


@both_formats
def test_emitted_fmod(workers, format):
    each = Map("test_fmod", (format, format), format, emit_fmod)
    x, y = inputs(each)
    with np.errstate(invalid="ignore"):
        want = np.fmod(x, y)
    for lanes in (1, 4):
        got = Native(workers, [each], lanes=lanes)("test_fmod", x, y)
        np.testing.assert_array_equal(got, want)
