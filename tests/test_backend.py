"""tbc behind the interface of the onnx package."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.base import Backend

from tbc import backend
from tbc.errors import Unsupported

X = np.arange(6, dtype=np.float32)


def model_of(node: onnx.NodeProto, *inputs: onnx.ValueInfoProto, **weights: Any) -> onnx.ModelProto:
    """The model that is one node."""
    graph = helper.make_graph(
        [node],
        node.op_type,
        inputs,
        [onnx.ValueInfoProto(name=name) for name in node.output],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph)


def floats(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def test_run_node_with_several_outputs_by_name() -> None:
    x = X.reshape(2, 3)
    node = helper.make_node("Split", ["x"], ["left", "right"], axis=1, num_outputs=2)
    found = backend.run_node(node, [x])
    np.testing.assert_array_equal(found["left"], x[:, :2])
    np.testing.assert_array_equal(found[1], x[:, 2:])


def test_run_node_of_an_old_opset() -> None:
    x = X.reshape(2, 3)
    node = helper.make_node("Clip", ["x"], ["y"], min=1.0, max=3.0)
    (y,) = backend.run_node(node, [x], opset_version=7)
    np.testing.assert_array_equal(y, x.clip(1, 3))


def test_shapes_that_depend_on_values_are_compiled_for_them() -> None:
    shape = helper.make_tensor_value_info("shape", TensorProto.INT64, [2])
    model = model_of(helper.make_node("Reshape", ["x", "shape"], ["y"]), floats("x", 6), shape)
    prepared = backend.prepare(model)
    for sizes in ([2, 3], [3, -1], [3, -1], [1, 6], [2, 3]):
        (y,) = prepared.run({"x": X, "shape": np.array(sizes)})
        np.testing.assert_array_equal(y, X.reshape(sizes))


def test_floats_are_compiled_in_where_they_decide_a_shape() -> None:
    node = helper.make_node("NonZero", ["x"], ["y"])
    for x in (np.eye(2, dtype=np.float32), np.zeros((3, 1), np.float32)):
        (y,) = backend.run_node(node, [x])
        np.testing.assert_array_equal(y, np.nonzero(x))


def test_initializers_are_no_inputs() -> None:
    add = helper.make_node("Add", ["x", "w"], ["y"])
    w = np.array([1, 2], np.float32)
    model = model_of(add, floats("w", 2), floats("x", "n", 2), w=w)
    for n in (1, 5):
        (y,) = backend.run_model(model, [np.ones((n, 2), np.float32)])
        np.testing.assert_array_equal(y, np.full((n, 2), [2, 3], np.float32))


def test_what_is_not_supported() -> None:
    sized_by_data = helper.make_node("NonZero", ["x"], ["y"])
    assert not backend.is_compatible(model_of(sized_by_data, floats("x", 2, 2)))
    with pytest.raises(Unsupported, match="Multinomial"):
        backend.run_node(helper.make_node("Multinomial", ["x"], ["y"]), [np.eye(2)])
    relu = model_of(helper.make_node("Relu", ["x"], ["y"]), floats("x", 2))
    assert backend.is_compatible(relu)
    assert backend.supports_device("CPU")
    for device in ("CUDA", "CUDA:1"):
        assert not backend.supports_device(device)
        assert not backend.is_compatible(relu, device)
        with pytest.raises(Unsupported, match="CUDA"):
            backend.prepare(relu, device)


def test_the_module_is_a_backend() -> None:
    """What `onnx.backend.test.BackendTest` asks of a module."""
    for name in dir(Backend):
        if not name.startswith("_"):
            assert callable(getattr(backend, name))
