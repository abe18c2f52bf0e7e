"""A streaming network as ONNX: a ternary convolution over the last frames, and a running sum."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from strategies import Array

STATE = {"past": "present", "sum": "total"}
CHANNELS, FILTERS, TAPS = 5, 9, 3


def weights() -> Array:
    """The filters, each of them a multiple of -1, 0 and 1."""
    trits = np.random.default_rng(0).integers(-1, 2, (FILTERS, CHANNELS, TAPS))
    return trits.astype(np.float32) * np.float32(0.25)


def stream(batch: int | str = 1) -> onnx.ModelProto:
    """x[b, 5, 1], past[b, 5, 2], sum[b, 9, 1] -> y[b, 9, 1], present, total = sum + y."""

    def tensor(name: str, *shape: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, (batch, *shape))

    nodes = [
        helper.make_node("Concat", ["past", "x"], ["window"], "window", axis=2),
        helper.make_node("Slice", ["window", "one", "three", "two"], ["present"], "present"),
        helper.make_node("Conv", ["window", "w"], ["y"], "conv"),
        helper.make_node("Add", ["sum", "y"], ["total"], "add"),
    ]
    numbers = {"one": 1, "two": 2, "three": 3}
    constants = [numpy_helper.from_array(np.array([n]), name) for name, n in numbers.items()]
    past, total = (CHANNELS, TAPS - 1), (FILTERS, 1)
    graph = helper.make_graph(
        nodes,
        "stream",
        [tensor("x", CHANNELS, 1), tensor("past", *past), tensor("sum", *total)],
        [tensor("y", *total), tensor("present", *past), tensor("total", *total)],
        [*constants, numpy_helper.from_array(weights(), "w")],
    )
    opsets = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model)
    return model


def frames(count: int) -> list[Array]:
    """Inputs of calls in turn: multiples of 1/8, so that no sum of them is rounded."""
    made = np.random.default_rng(1).integers(-64, 64, (count, 1, CHANNELS, 1))
    return list(made.astype(np.float32) / np.float32(8))


def by_numpy(inputs: Sequence[Array]) -> Iterator[tuple[Array, Array]]:
    """y and total of calls in turn: the convolution over all frames at once."""
    whole = np.concatenate([np.zeros((1, CHANNELS, TAPS - 1), np.float32), *inputs], axis=2)
    total = np.zeros((1, FILTERS, 1), np.float32)
    for at in range(len(inputs)):
        y = np.einsum("nck,bck->bn", weights(), whole[:, :, at : at + TAPS])[..., None]
        total = total + y
        yield y, total
