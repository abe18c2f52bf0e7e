"""Layers of low-bit weights as ONNX models: with activations rounded, and as MatMulNBits."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]

BLOCK = 128
"""Weights of a scale of MatMulNBits, if so many divide k."""
MIDDLE = {2: 2, 4: 8}
"""By bits, the code of MatMulNBits that means 0."""


def model_of(
    nodes: list[onnx.NodeProto], constants: dict[str, Array], m: int | str, n: int, k: int
) -> onnx.ModelProto:
    """The model f32 x[m, k] -> y[m, n]."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (m, k))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, (m, n))
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "bench", [x], [y], initializers)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def bit_linear(w: npt.NDArray[np.int8], scale: float, m: int | str) -> onnx.ModelProto:
    """x[m, k] by w; x is rounded to 8 bits by the largest of each row, as BitNet b1.58 does."""
    node = helper.make_node
    nodes = [
        node("Abs", ["x"], ["abs"]),
        node("ReduceMax", ["abs", "last"], ["top"], keepdims=1),
        node("Clip", ["top", "eps"], ["clipped"]),
        node("Div", ["most", "clipped"], ["s"]),
        node("Mul", ["x", "s"], ["scaled"]),
        node("Round", ["scaled"], ["rounded"]),
        node("Clip", ["rounded", "low", "most"], ["codes"]),
        node("Cast", ["w"], ["wf"], to=TensorProto.FLOAT),
        node("MatMul", ["codes", "wf"], ["sums"]),
        node("Div", ["sums", "s"], ["unscaled"]),
        node("Mul", ["unscaled", "ws"], ["y"]),
    ]
    numbers = {"eps": 1e-5, "most": 127.0, "low": -128.0, "ws": scale}
    constants: dict[str, Array] = {k: np.array(v, np.float32) for k, v in numbers.items()}
    constants |= {"last": np.array([-1]), "w": np.ascontiguousarray(w.T)}
    return model_of(nodes, constants, m, *w.shape)


def block_of(k: int) -> int:
    """The largest number of weights a scale that MatMulNBits may have for k; 0 if none."""
    return next((block for block in (BLOCK, 64, 32, 16) if k % block == 0), 0)


def nbits(w: npt.NDArray[np.int8], scale: float, m: int, bits: int = 2) -> onnx.ModelProto:
    """The same weights in 2 or 4 bits, with a scale a block; level 4 lets activations be rounded.

    k is a multiple of 16.
    """
    n, k = w.shape
    block = block_of(k)
    codes = (w + MIDDLE[bits]).astype(np.uint8).reshape(n, k // block, -1, 8 // bits)
    packed = np.bitwise_or.reduce(codes << np.arange(0, 8, bits, dtype=np.uint8), axis=-1)
    scales = np.full((n, k // block), scale, np.float32)
    sizes = {"K": k, "N": n, "bits": bits, "block_size": block, "accuracy_level": 4}
    domain = "com.microsoft"
    node = helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain=domain, **sizes)
    return model_of([node], {"w": packed, "s": scales}, m, n, k)
