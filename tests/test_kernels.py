"""The kernels' data: exactness of their sums at the bounds, and what is chosen where."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tbc import reference
from tbc.dims import Expr, Symbol
from tbc.errors import Unsupported
from tbc.kernels import BY_NAME, KERNELS, WORTH, Kernel, by_rows, choose, meaning, streamed_cost
from tbc.layout import CODES, Layout
from tbc.ops import Dot
from tbc.target import TARGETS, parse
from tbc.types import DType

ids = pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
integers = pytest.mark.parametrize(
    "kernel", [k for k in KERNELS if k.activations is DType.i8], ids=lambda kernel: kernel.name
)


def weights(code: str, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    least, most = CODES[code].dtype.range
    if CODES[code].dtype.is_int:
        return rng.integers(least, most + 1, shape).astype(np.int8)
    return rng.choice([-1, 1] if code == "b1" else [-1, 0, 1], shape).astype(np.int8)


def wanted(code: str, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    if x.dtype == np.float32:
        return reference.evaluate(Dot(), [x, w])
    return x.astype(np.int64) @ CODES[code].numbers(CODES[code].codes_of(w)).astype(np.int64).T


def computed(kernel: Kernel, x: np.ndarray, w: np.ndarray, rows: int) -> np.ndarray:
    layout = kernel.layout()
    padded = np.zeros((len(x), layout.padded_k(x.shape[1])), x.dtype)
    padded[:, : x.shape[1]] = x
    return meaning(kernel, layout, layout.pack(w), padded, rows)[:, : len(w)]


def heights(kernel: Kernel) -> range:
    return range(1, kernel.mr + 1)


def test_names_are_unique_and_say_what_they_are():
    assert len(BY_NAME) == len(KERNELS)
    for kernel in KERNELS:
        shape = re.fullmatch(
            r"(trit5?|sign|int[48])_(gem[mv]|panel)_(\d+)x(\d+)c(1|4|16)_(\w+)", kernel.name
        )
        assert shape
        assert (kernel.mr, kernel.nr) == (int(shape[3]), int(shape[4]))
        assert ("gemv" in kernel.name) == (kernel.mr == 1)
        assert shape[6] == kernel.dot.name


@ids
def test_fields_cover_the_byte(kernel: Kernel):
    layout = kernel.layout()
    bits = layout.coding.bits
    for rows in heights(kernel):
        places = [(n, shift + scale) for n, shift, scale in kernel.fields(rows)]
        assert places == list(layout.coding.places)
        assert {field.scale for field in kernel.fields(rows)} == {
            bits * s for s in range(kernel.scales_of(rows))
        }


@pytest.mark.parametrize("products", [1, 2])
def test_trits_shifted_down_widen_by_the_products_of_a_step(products: int):
    found = [
        kernel.widen
        for kernel in KERNELS
        if kernel.code == "i2"
        and kernel.scales == 1
        and (kernel.dot.bits, kernel.dot.products) == (16, products)
    ]
    assert set(found) == {32768 // (256 * products * 4)}


@ids
def test_meaning(kernel: Kernel):
    rng = np.random.default_rng(1)
    for n, k in ((1, 1), (17, 33), (40, 131)):
        w = weights(kernel.code, rng, (n, k))
        x = rng.integers(-128, 128, (3, k)).astype(kernel.activations.numpy)
        for rows in heights(kernel):
            assert np.array_equal(computed(kernel, x, w, rows), wanted(kernel.code, x, w))


@integers
def test_meaning_at_the_bounds(kernel: Kernel):
    k = (2 * (kernel.widen or 8) + 1) * kernel.layout().unit_k
    least, most = kernel.layout().dtype.range
    for x, w, rows in itertools.product((-128, 127), (least, 0, most), heights(kernel)):
        xs, ws = np.full((1, k), x, np.int8), np.full((1, k), w, np.int8)
        if kernel.code != "b1" or w:
            assert np.array_equal(computed(kernel, xs, ws, rows), wanted(kernel.code, xs, ws))


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
    k = late.widen * late.layout().unit_k
    x, w = np.full((1, k), -128, np.int8), np.full((1, k), late.layout().dtype.range[1], np.int8)
    right = [
        np.array_equal(computed(late, x, w, h), wanted(kernel.code, x, w)) for h in heights(late)
    ]
    assert not all(right)


@integers
def test_sums_of_max_k_fit(kernel: Kernel):
    layout = kernel.layout()
    steps = kernel.max_k // layout.unit_k
    for rows in heights(kernel):
        for scale in {field.scale for field in kernel.fields(rows)}:
            share = [s for _, _, s in kernel.fields(rows) if s == scale]
            largest = 128 * layout.coding.largest << scale
            assert steps * len(share) * layout.lanes_k * largest < 1 << 31


def relaxed_dots(w: np.ndarray, x: np.ndarray) -> Iterator[np.ndarray]:
    """What WebAssembly lets a relaxed dot of w[…, 4] and x[…, 4] be, if bit 7 of w may be set."""
    for weights in (w.astype(np.uint8).astype(np.int32), w.astype(np.uint8).view(np.int8)):
        products = weights.astype(np.int32) * x
        pairs = products[..., ::2] + products[..., 1::2]
        yield pairs.clip(-(1 << 15), (1 << 15) - 1).sum(-1)
        yield pairs.astype(np.int16).sum(-1, dtype=np.int32)
        yield products.sum(-1)


@pytest.mark.parametrize("kernel", [k for k in KERNELS if k.dot.name == "relaxed"])
def test_what_relaxed_dots_leave_open_does_not_arise(kernel: Kernel):
    codes = range(kernel.layout().coding.levels)
    scales = {field.scale for rows in heights(kernel) for field in kernel.fields(rows)}
    w = np.array(list(itertools.product({c << s for c in codes for s in scales}, repeat=4)))
    for x in (np.array(x) for x in itertools.product((-128, -1, 127), repeat=4)):
        for possible in relaxed_dots(w, x):
            assert np.array_equal(possible, (w * x).sum(-1))
    high = w + 128
    assert not all(np.array_equal(p, (high * 127).sum(-1)) for p in relaxed_dots(high, 127 + 0 * w))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(KERNELS), st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_meaning_of_any_size(kernel: Kernel, k: int, seed: int):
    rng = np.random.default_rng(seed)
    w = weights(kernel.code, rng, (5, k))
    x = (rng.standard_cauchy((2, k)) * 50).clip(-128, 127).astype(kernel.activations.numpy)
    for rows in heights(kernel):
        assert np.array_equal(computed(kernel, x, w, rows), wanted(kernel.code, x, w))


# -- choice ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "m", "name"),
    [
        ("x86-64", 1, "trit_gemv_1x1c4_sse2"),
        ("x86-64-v2", 1, "trit_gemv_1x1c4_ssse3"),
        ("x86-64-v3", 1, "trit_gemv_1x4c4_avx2"),
        ("x86-64-v3", 2, "trit_gemm_2x2c4_avx2"),
        ("x86-64-v3", 5, "trit_gemm_5x1c4_avx2"),
        ("x86-64-v3", 128, "trit_panel_6x1c4_avx2"),
        ("x86-64-v3+avxvnni", 1, "trit_gemv_1x4c4_avxvnni"),
        ("x86-64-v4", 1, "trit_gemv_1x4c4_avx512bw"),
        ("x86-64-v4+vnni", 1, "trit_gemv_1x4c4_vnni512"),
        ("x86-64-v4+vnni", 2, "trit_gemm_4x4c4_vnni512"),
        ("x86-64-v4+vnni", 8, "trit_gemm_8x3c4_vnni512"),
        ("x86-64-v4+vnni", 128, "trit_panel_8x3c4_vnni512"),
        ("x86-64-v4+vnni+amx", 4, "trit_gemm_8x3c4_vnni512"),
        ("x86-64-v4+vnni+amx", 8, "trit_panel_32x2c4_amx"),
        ("sapphirerapids", 512, "trit_panel_32x2c4_amx"),
        ("armv8", 1, "trit_gemv_1x1c4_neon"),
        ("armv8.2+dotprod", 1, "trit_gemv_1x1c4_neondot"),
        ("armv8", 2, "trit_gemm_2x1c4_neon"),
        ("armv8", 128, "trit_panel_2x1c4_neon"),
        ("windows-arm64", 128, "trit_gemm_2x1c4_neon"),
        ("armv8.2+dotprod", 2, "trit_gemm_4x1c4_neondot"),
        ("armv8.2+dotprod", 128, "trit_panel_5x1c4_neondot"),
        ("armv8.6", 1, "trit_gemv_1x1c4_i8mm"),
        ("armv8.6", 4, "trit_gemm_4x1c4_i8mm"),
        ("armv8.6", 128, "trit_panel_6x1c4_i8mm"),
        ("a64fx", 1, "trit_gemv_1x1c4_sve"),
        ("a64fx", 128, "trit_gemm_4x1c4_sve"),
        ("armv9", 1, "trit_gemv_1x1c4_sve"),
        ("armv9", 128, "trit_panel_5x1c4_neondot"),
        ("armv9+i8mm", 1, "trit_gemv_1x1c4_svei8mm"),
        ("armv9+i8mm", 128, "trit_panel_6x1c4_i8mm"),
        ("neoverse-v1", 1, "trit_gemv_1x1c4_svei8mm"),
        ("armv7", 1, "trit_gemv_1x1c4_smlad"),
        ("armv7+neon", 1, "trit_gemv_1x1c4_neon32"),
        ("rv64gc", 8, "trit_gemv_1x1c4_scalar"),
        ("rv64gcv", 1, "trit_gemv_1x1c1_rvvx"),
        ("rv64gcv", 8, "trit_gemm_2x1c1_rvvx"),
        ("spacemit-x60", 1, "trit_gemv_1x2c1_rvvx256"),
        ("spacemit-x60", 8, "trit_gemm_4x1c1_rvvx256"),
        ("rv32imc_zve32x_zvl128b", 1, "trit_gemv_1x1c1_rvvx"),
        ("wasm32+simd128", 1, "trit_gemv_1x1c4_simd128"),
        ("wasm32+simd128", 8, "trit_gemm_4x1c4_simd128"),
        ("wasm32+relaxed", 1, "trit_gemv_1x1c4_relaxed"),
        ("cortex-m0plus", 1, "trit_gemv_1x1c4_pairs"),
        ("cortex-m3", 1, "trit_gemv_1x1c4_pairs"),
        ("cortex-m4", 1, "trit_gemv_1x1c4_smlad"),
        ("cortex-m33", 8, "trit_gemv_1x1c4_smlad"),
        ("cortex-m55", 1, "trit_gemv_1x1c16_helium"),
        ("rv32ic", 1, "trit_gemv_1x1c4_lookup"),
        ("rv64ic", 1, "trit_gemv_1x1c4_lookup"),
        ("wasm32", 1, "trit_gemv_1x1c4_scalar"),
        ("z14", 1, "trit_gemv_1x1c4_wide"),
    ],
)
def test_choice(target: str, m: int, name: str):
    assert [k.name for k in choose(parse(target), "i2", DType.i8, m, 2560)] == [name]


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
    assert [k.name for k in choose(parse(target), "i2", DType.f32, m, 2560)] == [name]


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("wasm32+simd128", "sign_gemv_1x1c4_wasmadd"),
        ("wasm32+relaxed", "sign_gemv_1x1c4_relaxed"),
        ("armv7+neon", "sign_gemv_1x1c4_neon32add"),
        ("rv64gc", "sign_gemv_1x1c4_lookup"),
        ("rv64gcv", "sign_gemv_1x1c1_rvvx"),
    ],
)
def test_signs_are_added_where_that_takes_fewer_instructions(target: str, name: str):
    assert [k.name for k in choose(parse(target), "b1", DType.i8, 1, 2560)] == [name]


def test_few_rows_of_weights_take_the_layout_with_less_padding():
    target = parse("rv64gcv")
    names = {n: choose(target, "i2", DType.i8, 1, 64, n)[0].dot.name for n in (10, 32, 64, 70)}
    assert names == {10: "rvv", 32: "rvv", 64: "rvvx", 70: "rvv"}
    (kernel,) = choose(target, "i2", DType.i8, 1, 64, 640, shape=(16, 4))
    assert kernel.dot.name == "rvv"


def test_every_target_has_kernels():
    for target in (parse(named.name) for named in TARGETS):
        for code, dtype in itertools.product(("i2", "b1"), (DType.i8, DType.f32)):
            (kernel,) = choose(target, code, dtype, 1, 4096)
            assert kernel.dot.runs_on(target)


@pytest.mark.parametrize(
    ("lo", "hi", "names"),
    [
        (0, 1, ["trit_gemv_1x4c4_vnni512"]),
        (1, 8, ["trit_gemv_1x4c4_vnni512", "trit_gemm_4x4c4_vnni512", "trit_gemm_8x3c4_vnni512"]),
        (8, 24, ["trit_gemm_8x3c4_vnni512"]),
        (256, None, ["trit_panel_8x3c4_vnni512"]),
    ],
)
def test_a_symbolic_number_of_rows(lo: int, hi: int | None, names: list[str]):
    rows = Expr.of(Symbol("m", lo, hi))
    found = choose(parse("x86-64-v4+vnni"), "i2", DType.i8, rows, 2560)
    assert [kernel.name for kernel in found] == names


@pytest.mark.parametrize("kernels", [KERNELS[:3], KERNELS[5:6]])
def test_by_rows_takes_what_is_cheapest(kernels: Sequence[Kernel]):
    found = by_rows(kernels, 0, 1000)
    assert [first for first, _ in found] == sorted({first for first, _ in found})
    for m in (1, 2, 3, 7, 8, 20, 63, 1000):
        taken = [kernel for first, kernel in found if first <= m][-1]
        least = min(kernel.rows_cost(m) for kernel in kernels)
        assert taken.rows_cost(m) <= least / WORTH


@ids
def test_the_cost_of_rows_is_that_of_their_tiles(kernel: Kernel):
    once = kernel.unpack_cost
    assert kernel.rows_cost(1) == pytest.approx(kernel.row_cost + once)
    if kernel.mr > 1:
        assert kernel.rows_cost(kernel.mr) == pytest.approx(kernel.mr * kernel.cost + once)


@pytest.mark.parametrize("target", ["x86-64-v4+amx", "armv9+i8mm", "a64fx"])
def test_grouped_dots_have_neither_tile_registers_nor_scalable_vectors(target: str):
    for m in (1, 512):
        (kernel,) = choose(parse(target), "i2", DType.i8, m, 2560, group=128)
        assert kernel.does_groups(128)
        assert not kernel.has_tiles
        assert not kernel.dot.scalable


def test_groups_are_panels_if_they_fit():
    for target, group, is_panel in (
        ("x86-64-v4+vnni", 128, True),
        ("x86-64-v4+vnni", 640, False),
        ("x86-64-v4+vnni+amx", 128, True),
        ("armv8.6", 128, True),
    ):
        (kernel,) = choose(parse(target), "i2", DType.i8, 512, 2560, group=group)
        assert (bool(kernel.panel), kernel.has_tiles) == (is_panel, False)


def test_streamed_weights_cost_at_least_their_reading():
    target, large = parse("x86-64-v4+vnni+vbmi"), (4096, 2560)
    costs = {
        code: streamed_cost(target, Layout(code), DType.i8, 1, *large) for code in ("i2", "x5")
    }
    assert costs["x5"] == pytest.approx(0.8 * costs["i2"], rel=0.01)
    many = streamed_cost(target, Layout("i2"), DType.i8, 512, *large)
    assert many == min(
        k.rows_cost(512) for k in KERNELS if k.code == "i2" and k.dot.name == "vnni512"
    )
    assert streamed_cost(target, Layout("x5"), DType.f32, 1, *large) == float("inf")


def test_long_sums_go_to_kernels_that_hold_them():
    target = parse("x86-64-v4+vnni")
    assert {k.dot.name for k in choose(target, "i2", DType.i8, 1, 1 << 18)} == {"vnni512"}
    (long,) = choose(target, "i2", DType.i8, 1, 1 << 20)
    assert long.max_k >= 1 << 20
    with pytest.raises(Unsupported):
        choose(target, "i2", DType.i8, 1, 1 << 24)
