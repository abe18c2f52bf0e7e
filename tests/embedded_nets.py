"""Small networks for microcontrollers, as shapes: with ternary weights for tbc, in int8 for others.

Every layer is quantised, multiplied, rectified, as in examples/digits. Weights are random, since
neither the instructions nor the flash of any contestant depend on them; half of the trits are 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]
SCALE = 0.02
"""Of all activations; those of int8 have the zero point -128, as they are not negative."""


@dataclass(frozen=True)
class Conv:
    """A convolution with stride 1 that keeps height and width, and ReLU."""

    channels: int
    kernel: tuple[int, int]
    groups: int = 1


@dataclass(frozen=True)
class Pool:
    """The maximum of 2x2, with stride 2."""


@dataclass(frozen=True)
class Mean:
    """The average over height and width."""


@dataclass(frozen=True)
class Dense:
    """A fully connected layer, with ReLU unless it is the last."""

    outputs: int


Layer: TypeAlias = Conv | Pool | Mean | Dense


@dataclass(frozen=True)
class Net:
    """A network for one sample: channels, height and width, or features alone."""

    name: str
    shape: tuple[int, ...]
    layers: tuple[Layer, ...]

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Those of the input of each layer, and of the result."""
        shapes = [self.shape]
        for layer in self.layers:
            shapes.append(_after(layer, shapes[-1]))
        return tuple(shapes)

    @property
    def macs(self) -> int:
        """Multiply-adds of a run."""
        return sum(
            prod(weight) * (prod(shape[1:]) if isinstance(layer, Conv) else 1)
            for layer, weight, shape in zip(
                self.layers, self.weights, self.shapes[:-1], strict=True
            )
            if weight
        )

    @property
    def weights(self) -> tuple[tuple[int, ...], ...]:
        """The shape of each layer's weights, outputs first; () of layers without."""
        return tuple(
            (layer.channels, shape[0] // layer.groups, *layer.kernel)
            if isinstance(layer, Conv)
            else (layer.outputs, prod(shape))
            if isinstance(layer, Dense)
            else ()
            for layer, shape in zip(self.layers, self.shapes[:-1], strict=True)
        )


def _after(layer: Layer, shape: tuple[int, ...]) -> tuple[int, ...]:
    match layer:
        case Conv():
            return (layer.channels, *shape[1:])
        case Pool():
            return (shape[0], shape[1] // 2, shape[2] // 2)
        case Mean():
            return (shape[0],)
        case Dense():
            return (layer.outputs,)


CNN = Net(
    "digits_cnn",
    (1, 8, 8),
    (
        *(Conv(16, (3, 3)), Conv(16, (3, 3), 16), Conv(32, (1, 1)), Pool(), Conv(32, (3, 3))),
        *(Mean(), Dense(10)),
    ),
)
"""The shape of examples/digits/digits_cnn.onnx."""
MLP = Net("digits_mlp", (64,), (Dense(128), Dense(128), Dense(10)))
"""The shape of digits_mlp.onnx, but for its normalisations, which int8 networks do not have."""
AUTOENCODER = Net(
    "autoencoder", (640,), tuple(map(Dense, (128, 128, 128, 128, 8, 128, 128, 128, 128, 640)))
)
"""Of MLPerf Tiny's anomaly detection."""
KEYWORDS = Net(
    "keywords",
    (40, 1, 49),
    (Conv(64, (1, 3)), Conv(64, (1, 3)), Conv(64, (1, 3)), Mean(), Dense(12)),
)
"""Convolutions over time for 49 frames of 40 features, and 12 words."""
NETS = (CNN, MLP, AUTOENCODER, KEYWORDS)


@dataclass
class _Graph:
    """An ONNX graph that is being made, of one value after the other."""

    net: Net
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    known: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """The shapes that onnx does not infer."""

    def constant(self, value: Any, dtype: npt.DTypeLike) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value, dtype)
        return name

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def model(self, y: str, dtype: int) -> onnx.ModelProto:
        shape, last = (1, *self.net.shape), (1, *self.net.shapes[-1])
        graph = helper.make_graph(
            self.nodes,
            self.net.name,
            [helper.make_tensor_value_info("x", dtype, shape)],
            [helper.make_tensor_value_info(y, dtype, last)],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
            value_info=[
                helper.make_tensor_value_info(name, dtype, known)
                for name, known in self.known.items()
            ],
        )
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        inferred: onnx.ModelProto = onnx.shape_inference.infer_shapes(model)
        return inferred


def _windows(layer: Conv) -> dict[str, Any]:
    pads = [k // 2 for k in layer.kernel]
    return {"kernel_shape": layer.kernel, "pads": pads * 2, "group": layer.groups}


def ternary(net: Net, seed: int = 0) -> onnx.ModelProto:
    """The network as examples/digits exports one: activations rounded to 8 bits in front of every
    layer of trits, which have one scale a row; then a bias and ReLU, in floats."""
    random, graph, value = np.random.default_rng(seed), _Graph(net), "x"
    scale = graph.constant(SCALE, np.float32)
    bounds = graph.constant(0, np.float32), graph.constant(255, np.float32)
    for number, (layer, shape) in enumerate(zip(net.layers, net.weights, strict=True)):
        match layer:
            case Pool():
                value = graph.add("MaxPool", value, kernel_shape=[2, 2], strides=[2, 2])
            case Mean():
                value = graph.add("Flatten", graph.add("GlobalAveragePool", value))
            case Conv() | Dense():
                rounded = graph.add("Round", graph.add("Div", value, scale))
                value = graph.add("Mul", graph.add("Clip", rounded, *bounds), scale)
                trits = random.choice([-1, 0, 0, 1], shape)
                scales = random.uniform(0.1, 0.3, (len(trits), *[1] * (trits.ndim - 1)))
                shift = random.normal(size=len(trits))
                weight = graph.constant(trits * scales.astype(np.float32), np.float32)
                bias = graph.constant(shift, np.float32)
                if isinstance(layer, Conv):
                    value = graph.add("Conv", value, weight, bias, **_windows(layer))
                else:
                    value = graph.add("Gemm", value, weight, bias, transB=1)
                if number < len(net.layers) - 1:
                    value = graph.add("Relu", value)
    return graph.model(value, TensorProto.FLOAT)


def int8(net: Net, seed: int = 0) -> onnx.ModelProto:
    """The network of ONNX's QLinear operators, int8 in and out, with a scale a channel where those
    can have one; ReLU is what rounding to -128 leaves of negative numbers."""
    random, graph, value = np.random.default_rng(seed), _Graph(net), "x"
    quantised = graph.constant(SCALE, np.float32), graph.constant(-128, np.int8)
    for layer, shape, before in zip(net.layers, net.weights, net.shapes[:-1], strict=True):
        weight = random.integers(-127, 128, shape)
        match layer:
            case Pool():
                value = graph.add("MaxPool", value, kernel_shape=[2, 2], strides=[2, 2])
            case Mean():
                value = graph.add(
                    "QLinearGlobalAveragePool",
                    *(value, *quantised, *quantised),
                    domain="com.microsoft",
                )
                graph.known[value] = (1, before[0], 1, 1)
                value = graph.add("Flatten", value)
            case Conv():
                scales = graph.constant(np.full(len(weight), 0.01), np.float32)
                zeros = graph.constant(np.zeros(len(weight)), np.int8)
                bias = graph.constant(random.integers(-99, 99, len(weight)), np.int32)
                w = graph.constant(weight, np.int8)
                value = graph.add(
                    "QLinearConv",
                    *(value, *quantised, w, scales, zeros, *quantised, bias),
                    **_windows(layer),
                )
            case Dense():
                w = graph.constant(weight.T, np.int8)
                scales, zeros = graph.constant(0.01, np.float32), graph.constant(0, np.int8)
                value = graph.add(
                    "QLinearMatMul", *(value, *quantised, w, scales, zeros, *quantised)
                )
    return graph.model(value, TensorProto.INT8)
