from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import random_array

from tbc.layout import BOOK_HIGH, BOOK_LOW, CODES, Code, Layout

LAYOUTS = st.builds(
    Layout,
    st.sampled_from(sorted(CODES)),
    st.sampled_from([0, 1, 4, 16, 20, 32]),
    st.sampled_from([16, 1, 4]),
    st.sampled_from([4, 1, 16]),
)


def code_at(
    layout: Layout, packed: npt.NDArray[np.uint8], n: int, row: int, column: int, k: int
) -> int:
    """The stored code of w[row, column], found by the module's description of the layout."""
    group = layout.group or k
    inside = layout.padded_k(k) // (k // group) * (column // group) + column % group
    step, rest = divmod(inside, layout.lanes_k * layout.fields)
    f, j = divmod(rest, layout.lanes_k)
    block, r = divmod(row, layout.rows)
    steps = layout.padded_k(k) // layout.unit_k
    byte = packed[(block * steps + step) * layout.unit_bytes + layout.lanes_k * r + j]
    if layout.code == "x5":
        low, high = BOOK_LOW[byte & 63], BOOK_HIGH[byte >> 2]
        both = low ^ high
        return [both & 3, both >> 2 & 3, low >> 4 & 3, low >> 6, high >> 6][f]
    if layout.code == "f5":
        return int(byte) * 3 ** (f + 1) // 256 % 3
    bits = {"i2": 2, "b1": 1, "q4": 4}.get(layout.code, 8)
    return int(byte) >> (f * bits) & ((1 << bits) - 1)


@given(LAYOUTS, st.integers(1, 35), st.integers(1, 70), st.integers(0, 99))
def test_pack_puts_every_weight_where_the_layout_says(
    layout: Layout, n: int, k: int, seed: int
) -> None:
    k = -(-k // (layout.group or k)) * (layout.group or k)
    w = random_array(layout.dtype, (n, k), seed)
    packed = layout.pack(w)
    assert packed.dtype == np.uint8
    assert packed.shape == (layout.size(n, k),)
    np.testing.assert_array_equal(layout.unpack(packed, n, k), w)
    for row, column in [(0, 0), (n - 1, k - 1), (n // 2, k // 3), (n // 3, k // 2)]:
        code = code_at(layout, packed, n, row, column, k)
        weight = {"b1": code * 2 - 1, "w8": code - 128, "s8": (code ^ 128) - 128}
        weight |= {"q4": code - 8, "u4": code - 8}
        assert weight.get(layout.code, code - 1) == w[row, column]


@given(LAYOUTS, st.integers(1, 35), st.integers(1, 70))
def test_padding_is_neutral(layout: Layout, n: int, k: int) -> None:
    k = -(-k // (layout.group or k)) * (layout.group or k)
    w = np.ones((n, k), np.int8)
    packed = layout.pack(w)
    codes = layout.coding.words[packed]
    found = {"b1": (0, 1), "q4": (8, 9), "u4": (8, 9), "w8": (128, 129), "s8": (0, 1)}
    pads, weights = found.get(layout.code, (1, 2))
    assert np.count_nonzero(codes == weights) == n * k
    assert np.count_nonzero(codes == pads) == codes.size - n * k


def test_bytes_of_the_16x4_layout() -> None:
    w = np.zeros((16, 16), np.int8)
    w[0, [0, 4, 8, 12]] = [1, -1, 0, 1]
    w[3, 5] = -1
    packed = Layout("i2").pack(w)
    assert packed[0] == 2 | 0 << 2 | 1 << 4 | 2 << 6
    assert packed[4 * 3 + 1] == 1 | 0 << 2 | 1 << 4 | 1 << 6
    assert np.count_nonzero(packed == 0b01010101) == 62

    signs = np.full((16, 32), -1, np.int8)
    signs[2, 4 * 7 + 3] = 1
    packed = Layout("b1").pack(signs)
    assert packed[4 * 2 + 3] == 1 << 7
    assert np.count_nonzero(packed) == 1


@pytest.mark.parametrize(
    ("layout", "n", "k", "padded", "size"),
    [
        (Layout("i2"), 1, 1, 16, 64),
        (Layout("i2"), 16, 16, 16, 64),
        (Layout("i2"), 17, 17, 32, 256),
        (Layout("b1"), 17, 33, 64, 256),
        (Layout("x5"), 17, 33, 40, 256),
        (Layout("x5", 20), 16, 40, 40, 128),
        (Layout("f5"), 17, 33, 40, 256),
        (Layout("f5", 0, 16, 16), 16, 80, 80, 256),
        (Layout("i2", 20), 16, 40, 64, 256),
        (Layout("i2", 128), 16, 256, 256, 1024),
        (Layout("i2", 0, 1, 16), 10, 64, 64, 160),
    ],
)
def test_sizes(layout: Layout, n: int, k: int, padded: int, size: int) -> None:
    assert layout.padded_k(k) == padded
    assert layout.size(n, k) == size


def test_types() -> None:
    found = {code: Layout(code).dtype.name for code in CODES}
    low = {**dict.fromkeys(("i2", "x5", "f5", "u8"), "trit"), "b1": "sign"}
    assert found == {**low, "q4": "i4", "u4": "i4", "w8": "i8", "s8": "i8"}


@pytest.mark.parametrize("code", CODES.values(), ids=lambda code: code.name)
def test_every_word_of_weights_has_a_byte(code: Code) -> None:
    digits = np.arange(code.levels**code.fields)[:, None] // code.levels ** np.arange(code.fields)
    words = (digits % code.levels).astype(np.uint8)
    np.testing.assert_array_equal(code.words[code.encode(words)], words)
    np.testing.assert_array_equal(code.codes_of(code.weights_of(words)), words)


@pytest.mark.parametrize("args", [("x4",), ("i2", -1), ("i2", 0, 0), ("i2", 0, 16, 0)])
def test_layouts_that_do_not_exist(args: tuple[str, int]) -> None:
    with pytest.raises(ValueError, match="there is no layout"):
        Layout(*args)
