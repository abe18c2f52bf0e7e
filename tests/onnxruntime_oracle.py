"""One ONNX operator, run by onnxruntime: an implementation that tbc has no part in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper


def run_operator(
    name: str, arrays: Sequence[npt.NDArray[Any]], **attributes: Any
) -> npt.NDArray[Any]:
    """The operator's first result, without graph optimisations."""
    inputs = [
        helper.make_tensor_value_info(f"x{i}", helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for i, a in enumerate(arrays)
    ]
    node = helper.make_node(name, [i.name for i in inputs], ["y"], **attributes)
    graph = helper.make_graph([node], name, inputs, [onnx.ValueInfoProto(name="y")])
    opset = helper.make_opsetid("", 21)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (result,) = session.run(None, {i.name: a for i, a in zip(inputs, arrays, strict=True)})
    return np.asarray(result)
