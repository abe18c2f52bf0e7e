"""onnxruntime, an implementation that tbc has no part in, as the tests ask it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper

from tbc.codegen.host import host_target

HOST = host_target()
SATURATES = HOST.arch == "x86" and HOST.features.isdisjoint({"avx512vnni", "avxvnni"})
LARGEST_WEIGHT = 64 if SATURATES else 127
"""The largest int8 weight whose products by uint8 onnxruntime adds exactly on this machine: with
vpmaddubsw, the sums of two larger ones saturate (its documentation, "Quantize ONNX models")."""


def session(model: onnx.ModelProto | Path) -> onnxruntime.InferenceSession:
    """One thread, no graph optimisations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run_operator(
    name: str, arrays: Sequence[npt.NDArray[Any]], **attributes: Any
) -> npt.NDArray[Any]:
    """The first result of one operator."""
    inputs = [
        helper.make_tensor_value_info(f"x{i}", helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for i, a in enumerate(arrays)
    ]
    node = helper.make_node(name, [i.name for i in inputs], ["y"], **attributes)
    graph = helper.make_graph([node], name, inputs, [onnx.ValueInfoProto(name="y")])
    opset = helper.make_opsetid("", 21)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=10)
    (result,) = session(model).run(None, {i.name: a for i, a in zip(inputs, arrays, strict=True)})
    return np.asarray(result)
