"""TensorProto to constants: types, sizes and data are checked against each other before use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx

from tbc.constants import constant, decode, file_constant, raw_size, value_of
from tbc.dims import Dim
from tbc.errors import InvalidModel, Unsupported
from tbc.ir import Builder
from tbc.ops import Const
from tbc.types import BY_ONNX_CODE, DType, TensorType, require_sizes

_MOST_DENSE = 1 << 31
"""Bytes that a sparse tensor may take with its zeros."""
_SMALL_FLOATS = tuple(d.name for d in DType if d.is_small_float)
_INT32_DATA = ("i32", "i16", "i8", "i4", "i2", "u16", "u8", "u4", "u2", "bool", "f16", "bf16")
_FIELDS = {
    "f32": "float_data",
    "f64": "double_data",
    "i64": "int64_data",
    "u64": "uint64_data",
    "u32": "uint64_data",
    **dict.fromkeys((*_INT32_DATA, *_SMALL_FLOATS), "int32_data"),
}

_CARRIERS = {
    "float_data": np.float32,
    "double_data": np.float64,
    "int32_data": np.int32,
    "int64_data": np.int64,
    "uint64_data": np.uint64,
}


def dtype_of(code: int, what: str) -> DType:
    """The element type of ONNX's code.

    Raises:
        InvalidModel: there is no such type.
        Unsupported: it is not one of tbc's.
    """
    if code in BY_ONNX_CODE:
        return BY_ONNX_CODE[code]
    names = {v: k for k, v in onnx.TensorProto.DataType.items()}
    if code not in names or code == onnx.TensorProto.UNDEFINED:
        raise InvalidModel(f"{what} has the element type {code}, which ONNX does not have")
    raise Unsupported(f"{what} has elements of type {names[code]}, which tbc does not have")


def check_sizes(sizes: Sequence[Dim], what: str) -> None:
    """Raise InvalidModel unless the sizes, as far as they are numbers, can be a shape."""
    try:
        require_sizes(sizes, what)
    except (ValueError, Unsupported) as error:
        raise InvalidModel(str(error)) from None


def tensor(proto: onnx.TensorProto, folder: Path | None) -> Const:
    """The constant that a tensor holds; external data stays in its file.

    Raises:
        InvalidModel: type, sizes and data do not fit each other.
        Unsupported: the element type is not one of tbc's.
    """
    what = f"the tensor '{proto.name}'" if proto.name else "a tensor"
    dtype = dtype_of(proto.data_type, what)
    sizes = tuple(proto.dims)
    check_sizes(sizes, what)
    type = TensorType(dtype, sizes)
    if proto.data_location == onnx.TensorProto.EXTERNAL:
        path, offset = _external_range(proto, type, folder, what)
        value = file_constant(Builder(), path, offset, type)
    else:
        value = constant(Builder(), _inline(proto, type, what), dtype)
    return cast(Const, value.op)


def dense(proto: onnx.SparseTensorProto, folder: Path | None) -> Const:
    """The constant that a sparse tensor holds: zeros, but for the values that it gives.

    Raises:
        InvalidModel: sizes, values and indices do not fit each other.
        Unsupported: it is too large with its zeros, or its element type is not one of tbc's.
    """
    what = f"the sparse tensor '{proto.values.name}'" if proto.values.name else "a sparse tensor"
    sizes = tuple(proto.dims)
    check_sizes(sizes, what)
    build = Builder()
    found, places = build(tensor(proto.values, folder)), build(tensor(proto.indices, folder))
    type = TensorType(found.type.dtype, sizes)
    if raw_size(type) > _MOST_DENSE:
        raise Unsupported(f"{what} has {raw_size(type)} bytes with its zeros")
    count = found.type.size
    shapes = ((count,), (count, len(sizes)))
    if not sizes or found.type.rank != 1 or places.type.shape not in shapes:
        raise InvalidModel(f"{what} has {found.type} for values and {places.type} for indices")
    if places.type.dtype is not DType.i64:
        raise InvalidModel(f"{what} has indices of type {places.type.dtype.name}")
    index, elements = value_of(places), math.prod(sizes)
    if index.ndim == 2 and ((index < 0) | (index >= np.array(sizes, np.int64))).any():
        raise InvalidModel(f"{what} has an index outside of {type}")
    strides = np.cumprod((1, *sizes[:0:-1]), dtype=np.int64)[::-1]
    flat = index @ strides if index.ndim == 2 else index
    if (np.diff(flat, prepend=-1, append=elements) <= 0).any():
        raise InvalidModel(f"{what} has indices that do not ascend within {type}")
    values = value_of(found)
    array = np.zeros(elements, values.dtype)
    array[flat] = values
    return cast(Const, constant(build, array.reshape(sizes), type.dtype).op)


def _inline(proto: onnx.TensorProto, type: TensorType, what: str) -> npt.NDArray[Any]:
    """The elements that the message itself holds."""
    dtype = type.dtype
    if proto.HasField("segment"):
        raise Unsupported(f"{what} is a segment of a tensor, which tbc does not have")
    if proto.HasField("raw_data") and (other := [n for n in _CARRIERS if getattr(proto, n)]):
        raise InvalidModel(f"{what} holds data in raw_data and in {other[0]}")
    if proto.HasField("raw_data"):
        raw = np.frombuffer(proto.raw_data, np.uint8)
        if raw.size != raw_size(type):
            raise InvalidModel(
                f"{what} holds {raw.size} bytes of raw data, but {type} needs {raw_size(type)}"
            )
        return decode(raw, type)
    name = _FIELDS[dtype.name]
    field = getattr(proto, name)
    count = raw_size(type) if dtype.bits < 8 else math.prod(proto.dims)
    if len(field) != count:
        raise InvalidModel(f"{what} holds {len(field)} numbers in {name}, but {type} needs {count}")
    numbers = np.fromiter(field, _CARRIERS[name], count)
    if name == "int32_data" or dtype is DType.u32:
        low, high = (0, (1 << max(dtype.bits, 8)) - 1) if _as_bits(dtype) else dtype.range
        if wrong := numbers[(numbers < low) | (numbers > high)].tolist():
            raise InvalidModel(f"{what} holds {wrong[0]} in {name}, which is no {dtype.name}")
    if dtype.bits < 8:
        return decode(numbers.astype(np.uint8), type)
    if _as_bits(dtype):
        bits = numbers.astype(f"u{dtype.bytes}")
        return bits.view(dtype.numpy).reshape(proto.dims)
    return numbers.astype(dtype.numpy).reshape(proto.dims)


def _as_bits(dtype: DType) -> bool:
    """Whether int32_data holds the bits of elements, not their values."""
    return dtype.bits < 8 or dtype.is_small_float or dtype in (DType.f16, DType.bf16)


def _external_range(
    proto: onnx.TensorProto, type: TensorType, folder: Path | None, what: str
) -> tuple[Path, int]:
    """The file and the offset that hold the elements."""
    keys = {e.key: e.value for e in proto.external_data}
    path = _inside(keys.get("location", ""), folder, what)
    try:
        offset = int(keys.get("offset") or 0)
        length = int(keys["length"]) if keys.get("length") else None
    except ValueError:
        raise InvalidModel(f"{what} has an external offset or length that is no number") from None
    needed, held = raw_size(type), path.stat().st_size
    if length is not None and length != needed:
        raise InvalidModel(f"{what} has {length} bytes of external data, but {type} needs {needed}")
    if offset < 0 or offset + needed > held:
        raise InvalidModel(
            f"{what} lies at bytes {offset} to {offset + needed} of '{path.name}', "
            f"which has {held}: the file is truncated or of another model"
        )
    return path, offset


def _inside(location: str, folder: Path | None, what: str) -> Path:
    """The file at a location, which must lie in the model's folder."""
    if folder is None:
        raise InvalidModel(
            f"{what} has external data, but the model was not read from a file",
            hint="load the model by its path",
        )
    named = PurePosixPath(location)
    if not location or named.is_absolute() or Path(location).is_absolute() or ".." in named.parts:
        raise InvalidModel(f"{what} has its data at '{location}', outside the model's folder")
    try:
        path = (folder / location).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise InvalidModel(
                f"{what} has its data at '{location}', a link out of the model's folder",
                hint="copy the data file to the model",
            )
        if not path.is_file():
            raise InvalidModel(f"{what} has its data in '{location}', which is not there")
    except (OSError, ValueError, RuntimeError):
        raise InvalidModel(f"{what} has its data at '{location}', which is no path") from None
    return path
