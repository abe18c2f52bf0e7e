"""The kernels' data: exactness of their sums at the bounds, and what is chosen where."""

from __future__ import annotations

import itertools
import re
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tbc import reference
from tbc.dims import Expr, Symbol
from tbc.errors import Unsupported
from tbc.kernels import BY_NAME, KERNELS, Kernel, choose, meaning
from tbc.layout import Layout
from tbc.ops import Dot
from tbc.target import TARGETS, parse
from tbc.types import DType

ids = pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
integers = pytest.mark.parametrize(
    "kernel", [k for k in KERNELS if k.activations is DType.i8], ids=lambda kernel: kernel.name
)


def weights(code: str, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.choice([-1, 0, 1] if code == "i2" else [-1, 1], shape).astype(np.int8)


def wanted(code: str, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    if x.dtype == np.float32:
        return reference.evaluate(Dot(), [x, w])
    return x.astype(np.int64) @ (w + 1 if code == "i2" else w > 0).astype(np.int64).T


def computed(kernel: Kernel, x: np.ndarray, w: np.ndarray, scales: int) -> np.ndarray:
    layout = Layout(kernel.code)
    padded = np.zeros((len(x), layout.padded_k(x.shape[1])), x.dtype)
    padded[:, : x.shape[1]] = x
    return meaning(kernel, layout, layout.pack(w), padded, scales)[:, : len(w)]


def scales_of(kernel: Kernel) -> set[int]:
    return {kernel.scales, kernel.row_scales}


def test_names_are_unique_and_say_what_they_are():
    assert len(BY_NAME) == len(KERNELS)
    for kernel in KERNELS:
        shape = re.fullmatch(r"(trit|sign)_gem[mv]_(\d+)x(\d+)c([14])_(\w+)", kernel.name)
        assert shape
        assert (kernel.mr, kernel.nr) == (int(shape[2]), int(shape[3]))
        assert ("gemv" in kernel.name) == (kernel.mr == 1)
        assert shape[5] == kernel.dot.name


@ids
def test_fields_cover_the_byte(kernel: Kernel):
    layout = Layout(kernel.code)
    bits = 8 // layout.fields
    for scales in scales_of(kernel):
        positions = [shift + scale for shift, scale in kernel.fields(scales)]
        assert positions == [bits * f for f in range(layout.fields)]
        assert {scale for _, scale in kernel.fields(scales)} == {bits * s for s in range(scales)}


@pytest.mark.parametrize("products", [1, 2])
def test_trits_shifted_down_widen_by_the_products_of_a_step(products: int):
    found = [
        kernel.widen
        for kernel in KERNELS
        if kernel.code == "i2"
        and scales_of(kernel) == {1}
        and (kernel.dot.bits, kernel.dot.products) == (16, products)
    ]
    assert set(found) == {32768 // (256 * products * 4)}


@ids
def test_meaning(kernel: Kernel):
    rng = np.random.default_rng(1)
    for n, k in ((1, 1), (17, 33), (40, 131)):
        w = weights(kernel.code, rng, (n, k))
        x = rng.integers(-128, 128, (3, k)).astype(kernel.activations.numpy)
        for scales in scales_of(kernel):
            assert np.array_equal(computed(kernel, x, w, scales), wanted(kernel.code, x, w))


@integers
def test_meaning_at_the_bounds(kernel: Kernel):
    k = (2 * (kernel.widen or 8) + 1) * Layout(kernel.code).unit_k
    for x, w, scales in itertools.product((-128, 127), (-1, 0, 1), scales_of(kernel)):
        xs, ws = np.full((1, k), x, np.int8), np.full((1, k), w, np.int8)
        if kernel.code == "i2" or w:
            assert np.array_equal(computed(kernel, xs, ws, scales), wanted(kernel.code, xs, ws))


class Late(Kernel):
    """A kernel that widens its sums a step too late."""

    @property
    def widen(self) -> int:
        return super().widen + 1


@pytest.mark.parametrize(
    "kernel", [k for k in KERNELS if k.dot.bits == 16], ids=lambda kernel: kernel.name
)
def test_meaning_shows_an_overflow(kernel: Kernel):
    late = Late(**{f.name: getattr(kernel, f.name) for f in fields(kernel)})
    k = late.widen * Layout(kernel.code).unit_k
    x, w = np.full((1, k), -128, np.int8), np.ones((1, k), np.int8)
    right = [
        np.array_equal(computed(late, x, w, s), wanted(kernel.code, x, w)) for s in scales_of(late)
    ]
    assert not all(right)


@integers
def test_sums_of_max_k_fit(kernel: Kernel):
    layout = Layout(kernel.code)
    steps = kernel.max_k // layout.unit_k
    for scales in scales_of(kernel):
        for scale in {scale for _, scale in kernel.fields(scales)}:
            share = [s for _, s in kernel.fields(scales) if s == scale]
            largest = 128 * (2 if kernel.code == "i2" else 1) << scale
            assert steps * len(share) * layout.lanes_k * largest < 1 << 31


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(KERNELS), st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_meaning_of_any_size(kernel: Kernel, k: int, seed: int):
    rng = np.random.default_rng(seed)
    w = weights(kernel.code, rng, (5, k))
    x = (rng.standard_cauchy((2, k)) * 50).clip(-128, 127).astype(kernel.activations.numpy)
    for scales in scales_of(kernel):
        assert np.array_equal(computed(kernel, x, w, scales), wanted(kernel.code, x, w))


# -- choice ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "m", "name"),
    [
        ("x86-64", 1, "trit_gemv_1x1c4_sse2"),
        ("x86-64-v2", 1, "trit_gemv_1x1c4_ssse3"),
        ("x86-64-v3", 1, "trit_gemv_1x1c4_avx2"),
        ("x86-64-v3", 128, "trit_gemm_4x1c4_avx2"),
        ("x86-64-v3+avxvnni", 1, "trit_gemv_1x1c4_avxvnni"),
        ("x86-64-v4", 1, "trit_gemv_1x2c4_avx512bw"),
        ("x86-64-v4+vnni", 1, "trit_gemv_1x4c4_vnni512"),
        ("x86-64-v4+vnni", 2, "trit_gemm_2x4c4_vnni512"),
        ("x86-64-v4+vnni", 4, "trit_gemm_4x4c4_vnni512"),
        ("x86-64-v4+vnni", 8, "trit_gemm_8x3c4_vnni512"),
        ("x86-64-v4+vnni", 128, "trit_gemm_12x2c4_vnni512"),
        ("armv8", 1, "trit_gemv_1x1c4_neon"),
        ("armv8.2+dotprod", 1, "trit_gemv_1x1c4_neondot"),
        ("armv8.2+dotprod", 64, "trit_gemm_4x1c4_neondot"),
        ("armv7", 1, "trit_gemv_1x1c4_scalar"),
        ("armv7+neon", 1, "trit_gemv_1x1c4_neon32"),
        ("rv64gc", 8, "trit_gemv_1x1c4_scalar"),
        ("rv64gcv", 8, "trit_gemm_2x1c4_wide"),
        ("wasm32+simd128", 1, "trit_gemv_1x1c4_wide"),
        ("cortex-m4", 1, "trit_gemv_1x1c4_scalar"),
        ("z14", 1, "trit_gemv_1x1c4_wide"),
    ],
)
def test_choice(target: str, m: int, name: str):
    assert choose(parse(target), "i2", DType.i8, m, 2560).name == name


@pytest.mark.parametrize(
    ("target", "m", "name"),
    [
        ("x86-64", 1, "trit_gemv_1x1c1_f32x4"),
        ("x86-64-v3", 1, "trit_gemv_1x4c1_f32avx2"),
        ("x86-64-v4", 1, "trit_gemv_1x4c1_f32x16"),
        ("armv8", 1, "trit_gemv_1x1c1_f32x4"),
        ("armv7+neon", 1, "trit_gemv_1x1c1_f32"),
        ("cortex-m0", 1, "trit_gemv_1x1c1_f32"),
    ],
)
def test_choice_for_floats(target: str, m: int, name: str):
    assert choose(parse(target), "i2", DType.f32, m, 2560).name == name


def test_every_target_has_kernels():
    for target in (parse(named.name) for named in TARGETS):
        for code, dtype in itertools.product(("i2", "b1"), (DType.i8, DType.f32)):
            assert choose(target, code, dtype, 1, 4096).dot.runs_on(target)


def test_a_symbolic_number_of_rows_counts_at_its_bound():
    target = parse("x86-64-v4+vnni")
    for hi, mr in ((1, 1), (128, 12), (None, 12)):
        rows = Expr.of(Symbol("m", 0, hi))
        assert choose(target, "i2", DType.i8, rows, 64).mr == mr


def test_long_sums_go_to_kernels_that_hold_them():
    target = parse("x86-64-v4+vnni")
    assert choose(target, "i2", DType.i8, 1, 1 << 18).dot.name == "vnni512"
    long = choose(target, "i2", DType.i8, 1, 1 << 20)
    assert long.max_k >= 1 << 20
    with pytest.raises(Unsupported):
        choose(target, "i2", DType.i8, 1, 1 << 24)
