"""Tensors of a model: every type from every field, external data, and what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from malformed import product, refused
from onnx import TensorProto, helper, numpy_helper
from onnx_models import by_tbc, integers, model, normal

from tbc import frontend
from tbc.errors import InvalidModel

X = normal(1, 3, 4)

TYPES = [
    ("FLOAT", np.float32), ("DOUBLE", np.float64), ("FLOAT16", np.float16), ("INT8", np.int8),
    ("INT16", np.int16), ("INT32", np.int32), ("INT64", np.int64), ("UINT8", np.uint8),
    ("UINT16", np.uint16), ("UINT32", np.uint32), ("UINT64", np.uint64), ("BOOL", np.bool_),
    ("BFLOAT16", None), ("INT4", None), ("UINT4", None), ("INT2", None), ("UINT2", None),
]  # fmt: skip


@pytest.mark.parametrize("name", [t[0] for t in TYPES])
@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("shape", [(), (0, 3), (3, 3)])
def test_every_type_is_read_from_either_field(name: str, raw: bool, shape: tuple[int, ...]) -> None:
    code = getattr(TensorProto, name)
    low = 0 if name.startswith(("U", "B")) else -2
    values = integers(5, low, 1, *shape)
    dtype = helper.tensor_dtype_to_np_dtype(code)
    tensor = numpy_helper.from_array(values.astype(dtype), "w")
    if not raw:
        tensor = helper.make_tensor("w", code, shape, values.reshape(-1).tolist())
        assert not tensor.HasField("raw_data")
    node = helper.make_node("Identity", ["w"], ["y"])
    (got,) = by_tbc(frontend.load(model([node], {}, ["y"], {"w": tensor}, opset=25)), {})
    np.testing.assert_array_equal(got.astype(np.float64), values)


@pytest.mark.parametrize(
    ("code", "field", "numbers", "match"),
    [
        ("INT8", "int32_data", [1, 200], "holds 200 in int32_data, which is no i8"),
        ("UINT8", "int32_data", [1, -1], "holds -1"),
        ("BOOL", "int32_data", [1, 2], "holds 2"),
        ("FLOAT16", "int32_data", [1, 1 << 16], "holds 65536"),
        ("BFLOAT16", "int32_data", [-1, 0], "holds -1"),
        ("UINT4", "int32_data", [256], "holds 256"),
        ("INT2", "int32_data", [1, 0], "holds 2 numbers in int32_data, but i2.* needs 1"),
        ("UINT32", "uint64_data", [1, 1 << 32], "holds 4294967296"),
        ("INT8", "int64_data", [1, 2], "holds 0 numbers in int32_data"),
        ("INT4", "raw_data", b"12", "holds 2 bytes of raw data, but i4.* needs 1"),
    ],
)
def test_codes_outside_the_type(code: str, field: str, numbers: Any, match: str) -> None:
    tensor = TensorProto(name="w", data_type=getattr(TensorProto, code), dims=[2])
    if field == "raw_data":
        tensor.raw_data = numbers
    else:
        getattr(tensor, field).extend(numbers)
    node = helper.make_node("Identity", ["w"], ["y"])
    refused(model([node], {}, ["y"], {"w": tensor}, opset=25), InvalidModel, f"'w' {match}")


def test_any_byte_but_0_is_true() -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.BOOL, dims=[3], raw_data=b"\0\1\7")
    node = helper.make_node("Cast", ["w"], ["y"], to=TensorProto.INT8)
    (got,) = by_tbc(frontend.load(model([node], {}, ["y"], {"w": tensor})), {})
    assert got.tolist() == [0, 1, 1]


def external(
    folder: Path, location: str = "w.bin", size: int = 80, **keys: str
) -> tuple[Path, onnx.ModelProto]:
    proto = product()
    tensor = proto.graph.initializer[0]
    data = tensor.raw_data
    (folder / "w.bin").write_bytes(data.ljust(size, b"0"))
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **keys}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path, proto


@pytest.mark.parametrize("keys", [{}, {"length": "80"}, {"offset": "0", "length": "80"}])
def test_external_data(tmp_path: Path, keys: dict[str, str]) -> None:
    path, _ = external(tmp_path, size=100, **keys)
    (got,) = by_tbc(frontend.load(path), {"x": X})
    (expected,) = by_tbc(frontend.load(product()), {"x": X})
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"location": "../w.bin"}, "outside the model's folder"),
        ({"location": "sub/../../w.bin"}, "outside the model's folder"),
        ({"location": "/etc/hostname"}, "outside the model's folder"),
        ({"location": ""}, "outside the model's folder"),
        ({"location": "none.bin"}, "not there"),
        ({"location": "link.bin"}, "a link out of the model's folder"),
        ({"location": "folder"}, "not there"),
        ({"location": "a\0b"}, "no path"),
        ({"location": "a" * 5000}, "no path"),
        ({"offset": "8"}, "bytes 8 to 88 of 'w.bin', which has 80"),
        ({"offset": "-8"}, "bytes -8"),
        ({"offset": "9" * 30}, "which has 80"),
        ({"offset": "x"}, "no number"),
        ({"length": "79"}, "79 bytes of external data"),
    ],
)
def test_wrong_external_data(tmp_path: Path, keys: dict[str, str], match: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "folder").mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(80))
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    path, _ = external(folder, **keys)
    refused(path, InvalidModel, f"the tensor 'w' .*{match}")


def test_external_data_needs_a_path(tmp_path: Path) -> None:
    _, proto = external(tmp_path)
    assert refused(proto, InvalidModel, "not read from a file").hint
