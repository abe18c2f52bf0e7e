"""Constants: where their elements are kept, how a value is made of them, and how they are read.

A constant expression (any value with `is_constant`) is its own recipe. `value_of` evaluates it
when it is needed; nothing keeps the result, so memory holds one large tensor at a time.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tbc import reference
from tbc.dims import static
from tbc.errors import InvalidModel, Unsupported
from tbc.ir import Builder, Value, topological
from tbc.ops import Cast, Const
from tbc.reference_elementwise import cast
from tbc.types import DType, TensorType

_BLOCK = 1 << 20
_LARGEST = 1 << 27
_GROWTH = 64
"""A constant that is computed takes at most `_LARGEST` bytes, or so many times those given."""


@dataclass(frozen=True)
class Array:
    """Elements in memory."""

    array: npt.NDArray[Any]

    def read(self) -> npt.NDArray[Any]:
        """The array."""
        return self.array


@dataclass(frozen=True)
class FileRange:
    """Elements in little-endian raw form in a part of a file; sub-byte types are packed."""

    path: Path
    offset: int
    type: TensorType

    def read(self) -> npt.NDArray[Any]:
        """The elements, read anew."""
        size = raw_size(self.type)
        raw = np.fromfile(self.path, np.uint8, count=size, offset=self.offset)
        return decode(raw, self.type)

    def digest(self) -> str:
        """A digest of the type and the bytes, read block by block."""
        state = hashlib.sha256(f"{self.type}".encode())
        left = raw_size(self.type)
        with self.path.open("rb") as file:
            file.seek(self.offset)
            while left:
                block = file.read(min(left, _BLOCK))
                left -= len(block)
                state.update(block)
        return state.hexdigest()[:16]


def raw_size(type: TensorType) -> int:
    """Bytes of a tensor's elements in ONNX's raw form, where sub-byte elements are packed."""
    return -(-static(type.size, "a constant's size") * type.dtype.bits // 8)


def decode(raw: npt.NDArray[np.uint8], type: TensorType) -> npt.NDArray[Any]:
    """The elements of ONNX's raw form: little-endian, sub-byte elements low bits first."""
    shape = tuple(static(d, "a constant's size") for d in type.shape)
    dtype = type.dtype
    if dtype is DType.bool:
        return np.not_equal(raw, 0).reshape(shape)
    if dtype.bits >= 8:
        stored = np.frombuffer(raw.data, dtype.numpy.newbyteorder("<"))
        return stored.astype(dtype.numpy, copy=False).reshape(shape)
    per_byte = 8 // dtype.bits
    fields = (raw[:, None] >> (np.arange(per_byte, dtype=np.uint8) * dtype.bits)).reshape(-1)
    codes = fields[: int(np.prod(shape))].astype(np.int16) & ((1 << dtype.bits) - 1)
    if dtype.is_small_float:
        return codes.astype(np.uint8).view(dtype.numpy).reshape(shape)
    sign = 1 << (dtype.bits - 1) if dtype.kind == "i" else 0
    return ((codes ^ sign) - sign).astype(dtype.numpy).reshape(shape)


def digest_of(type: TensorType, elements: npt.NDArray[Any]) -> str:
    """The digest of a constant that is held in memory."""
    state = hashlib.sha256(f"{type}".encode())
    state.update(np.ascontiguousarray(elements).reshape(-1).view(np.uint8).data)
    return state.hexdigest()[:16]


def constant(builder: Builder, array: npt.ArrayLike, dtype: DType) -> Value:
    """The constant value that holds an array, converted to `dtype` as `ops.Cast` does."""
    given = np.asarray(array)
    with np.errstate(all="ignore"):
        same = given.dtype == dtype.numpy
        elements = given.copy() if same else np.asarray(cast(Cast(dtype), given), order="C")
    elements.setflags(write=False)
    type = TensorType(dtype, elements.shape)
    return builder(Const(digest_of(type, elements), type, Array(elements)))


def file_constant(builder: Builder, path: Path, offset: int, type: TensorType) -> Value:
    """The constant whose elements are a part of a file."""
    data = FileRange(path, offset, type)
    return builder(Const(data.digest(), type, data))


def value_of(value: Value) -> npt.NDArray[Any]:
    """The elements of a constant expression, evaluated by `tbc.reference`.

    Raises:
        ValueError: the value depends on an input.
        InvalidModel: an index in its recipe is outside what it points into.
        Unsupported: it, or a step of its recipe, is far larger than what the model holds.
    """
    if not value.is_constant:
        raise ValueError(f"{value} is not a constant")
    if isinstance(value.op, Const):
        elements: npt.NDArray[Any] = value.op.data.read()
        return elements
    if value.type.size == 0:
        shape = [static(d, "a constant's size") for d in value.type.shape]
        return np.empty(shape, value.type.dtype.numpy)
    _refuse_absurd(value)
    try:
        return reference.run([value], {})[0]
    except ValueError as error:
        raise InvalidModel(f"a constant cannot be computed: {error}", node=value.origin) from error


def _refuse_absurd(value: Value) -> None:
    """Raise Unsupported where a recipe makes a large constant out of little."""
    recipe = topological([value])
    held = sum(_bytes(v) for v in recipe if isinstance(v.op, Const))
    limit = max(_LARGEST, _GROWTH * held)
    for v in recipe:
        if _bytes(v) > limit:
            raise Unsupported(
                f"a constant {v.type} of {_bytes(v)} bytes, made of {held}, is too large to be "
                "computed when the model is compiled",
                node=v.origin,
                hint="make it an initializer of the model",
            )


def _bytes(value: Value) -> int:
    return static(value.type.size, "a constant's size") * value.type.dtype.bytes
