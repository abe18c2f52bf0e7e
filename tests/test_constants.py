from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import assert_same, random_array

from tbc import constants, ops
from tbc.constants import Array, FileRange, constant, decode, digest_of, file_constant, value_of
from tbc.dims import Expr, Symbol
from tbc.errors import InvalidModel, Unsupported
from tbc.ir import Builder
from tbc.types import DType, TensorType

WHOLE = [d for d in DType if d.bits >= 8]
NARROW = [DType.i2, DType.u2, DType.i4, DType.u4]
B = Expr.of(Symbol("batch"))


def packed(array: np.ndarray, bits: int) -> bytes:
    """ONNX's raw form of types of less than a byte, in pure Python."""
    codes = [int(v) & ((1 << bits) - 1) for v in array.flat]
    per_byte = 8 // bits
    codes += [0] * (-len(codes) % per_byte)
    parts = [codes[i : i + per_byte] for i in range(0, len(codes), per_byte)]
    return bytes(sum(c << (bits * i) for i, c in enumerate(part)) for part in parts)


@pytest.mark.parametrize("dtype", WHOLE)
def test_decode_of_whole_bytes(dtype: DType) -> None:
    array = random_array(dtype, (3, 4), 1)
    raw = array.astype(dtype.numpy.newbyteorder("<")) if dtype is not DType.bf16 else array
    assert_same(decode(np.frombuffer(raw.tobytes(), np.uint8), TensorType(dtype, (3, 4))), array)


@given(st.sampled_from(NARROW), st.integers(0, 9), st.integers(0, 9))
def test_decode_of_parts_of_a_byte(dtype: DType, size: int, seed: int) -> None:
    array = random_array(dtype, (size,), seed)
    type = TensorType(dtype, (size,))
    raw = np.frombuffer(packed(array, dtype.bits), np.uint8)
    assert constants.raw_size(type) == raw.size
    assert_same(decode(raw, type), array)


def test_a_constant_is_converted_and_cannot_change() -> None:
    b = Builder()
    source = np.array([[1.0, 2.5]])
    value = constant(b, source, DType.f16)
    source[0, 0] = 9
    assert value.type == TensorType(DType.f16, (1, 2))
    elements = value_of(value)
    assert_same(elements, np.array([[1.0, 2.5]], np.float16))
    with pytest.raises(ValueError, match="read-only"):
        elements[0, 0] = 0
    assert constant(b, 3, DType.i8).type == TensorType(DType.i8)
    assert constant(b, np.zeros((0, 2)), DType.f32).type == TensorType(DType.f32, (0, 2))


def test_the_digest_depends_on_type_and_shape() -> None:
    b = Builder()
    same_bytes = [
        constant(b, np.zeros(shape), dtype)
        for shape, dtype in [((4,), DType.i8), ((2, 2), DType.i8), ((4,), DType.u8), (1, DType.i32)]
    ]
    assert len({v.op.digest for v in same_bytes if isinstance(v.op, ops.Const)}) == 4


@pytest.mark.parametrize("dtype", [*WHOLE, *NARROW])
def test_a_part_of_a_file(dtype: DType, tmp_path: Path) -> None:
    array = random_array(dtype, (3, 5), 2)
    raw = packed(array, dtype.bits) if dtype.bits < 8 else array.tobytes()
    path = tmp_path / "weights.bin"
    path.write_bytes(b"header" + raw + b"tail")
    b = Builder()
    value = file_constant(b, path, 6, TensorType(dtype, (3, 5)))
    assert value.is_constant
    assert_same(value_of(value), array)
    if dtype.bits >= 8:
        assert value is constant(b, array, dtype)


def test_the_digest_of_a_file_is_read_block_by_block(tmp_path: Path) -> None:
    size = (1 << 20) * 2 + 3
    raw = np.random.default_rng(0).integers(0, 256, size).astype(np.uint8)
    path = tmp_path / "weights.bin"
    raw.tofile(path)
    type = TensorType(DType.u8, (size,))
    expected = hashlib.sha256(f"u8[{size}]".encode() + raw.tobytes()).hexdigest()[:16]
    assert FileRange(path, 0, type).digest() == digest_of(type, raw) == expected
    assert FileRange(path, 0, TensorType(DType.i8, (size,))).digest() != expected


def test_a_constant_expression_is_evaluated() -> None:
    b = Builder()
    w = b(ops.Binary("mul"), constant(b, [1.0, -2.0], DType.f32), constant(b, 3.0, DType.f32))
    assert_same(value_of(b(ops.Cast(DType.i8), w)), np.array([3, -6], np.int8))
    assert_same(value_of(b(ops.Iota(3))), np.arange(3))


def test_what_depends_on_an_input_has_no_value() -> None:
    b = Builder()
    x = b(ops.Input("x", TensorType(DType.f32)))
    for value in (x, b(ops.Unary("neg"), x), b(ops.Iota(B)), b(ops.Dims((B,), (1,)))):
        with pytest.raises(ValueError, match="is not a constant"):
            value_of(value)


def test_a_constant_of_unknown_size_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a constant's size must be a number"):
        file_constant(Builder(), tmp_path / "none", 0, TensorType(DType.f32, (B,)))


def test_equal_constants_need_not_be_read_to_be_equal() -> None:
    class Unread:
        def read(self) -> np.ndarray:
            raise AssertionError

    type = TensorType(DType.f32, (2,))
    b = Builder()
    assert b(ops.Const("d", type, Unread())) is b(ops.Const("d", type, Array(np.zeros(2))))


@pytest.mark.parametrize(
    ("number", "dtype", "expected"),
    [
        (np.nan, DType.i32, 0),
        (1e30, DType.i8, 127),
        (-np.inf, DType.u4, 0),
        (1e30, DType.f16, np.inf),
    ],
)
def test_what_a_type_does_not_hold_is_converted_like_a_cast(
    number: float, dtype: DType, expected: float
) -> None:
    assert value_of(constant(Builder(), number, dtype)) == expected


def test_a_constant_that_grows_out_of_nothing_is_refused() -> None:
    b = Builder()
    with b.origin("node"):
        wide = b(ops.Broadcast((1 << 40,)), constant(b, 1, DType.f32))
    with pytest.raises(Unsupported, match=r"a constant f32.* too large") as caught:
        value_of(b(ops.Reduce("sum", (0,)), wide))
    assert caught.value.node == "node"


def test_a_constant_without_elements_is_not_computed() -> None:
    b = Builder()
    value = b(ops.Iota(1 << 40))
    value = b(ops.Broadcast((0, 1 << 40)), value)
    assert value_of(value).shape == (0, 1 << 40)


def test_a_constant_of_a_wrong_index_is_refused() -> None:
    b = Builder()
    nothing, first = constant(b, np.zeros((0, 2)), DType.f32), constant(b, [-1], DType.i64)
    with pytest.raises(InvalidModel, match="cannot be computed: v2: "):
        value_of(b(ops.Gather(0), nothing, first))


@pytest.mark.parametrize("shape", [(1 << 59,), (1 << 30, 0, 1 << 30), (1,) * 65])
def test_values_of_impossible_sizes_are_not_made(shape: tuple[int, ...]) -> None:
    b = Builder()
    with pytest.raises(Unsupported, match="its result has"):
        b(ops.Broadcast(shape), constant(b, 1, DType.f32))
