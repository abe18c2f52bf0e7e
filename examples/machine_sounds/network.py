"""An auto-encoder of machine sounds: as it is trained, and as it is exported.

The shape is that of MLPerf Tiny's anomaly detection (arXiv 2106.07597): 640 features, four layers
of 128, a neck of 8, and back. What it was not trained on it reproduces badly, and by how much tells
how unusual a sound is. Weights are ternary (arXiv 1605.04711) with a scale a row, into which the
batch normalisation is folded, and activations are rounded to 8 bits; training rounds them in the
forward pass only (the straight-through estimator, arXiv 1308.3432).
"""

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from sounds import BANDS, FRAMES, STEP
from torch import Tensor, nn

FEATURES = BANDS * FRAMES
WIDTHS = (FEATURES, 128, 128, 128, 128, 8, 128, 128, 128, 128, FEATURES)


def straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    """`rounded` in the forward pass, with the gradient of `x` in the backward pass."""
    return x + (rounded - x).detach()


def trits(w: Tensor) -> tuple[Tensor, Tensor]:
    """Codes in {-1, 0, 1}, and the scale mean(|w|) of each row: w is about codes * scale."""
    scale = w.abs().mean(1, keepdim=True).clamp(min=1e-5)
    return (w / scale).round().clamp(-1, 1), scale


class Layer(nn.Module):
    """A fully connected layer; all but the last are normalised and rectified."""

    def __init__(self, inputs: int, outputs: int, low_bit: bool, last: bool) -> None:
        super().__init__()
        self.low_bit = low_bit
        self.linear = nn.Linear(inputs, outputs, bias=last)
        self.norm = None if last else nn.BatchNorm1d(outputs)
        self.register_buffer("top", torch.tensor(0.0))  # of the results, for their scale

    def forward(self, x: Tensor) -> Tensor:
        w = self.linear.weight
        if self.low_bit:
            codes, scale = trits(w)
            w = straight_through(w, codes * scale)
        y = nn.functional.linear(x, w, self.linear.bias)
        if self.norm is None:
            return y
        y = self.norm(y).relu()
        if not self.low_bit:
            return y
        if self.training:
            self.top.lerp_(y.detach().max(), 0.05 if self.top > 0 else 1.0)
        scale = self.top / 255
        return straight_through(y, (y / scale).round().clamp(0, 255) * scale)

    def folded(self) -> tuple[Tensor, Tensor, Tensor]:
        """Codes i8[n, k], scales f32[n] and biases f32[n], the normalisation among them."""
        codes, scale = trits(self.linear.weight)
        scale = scale.flatten()
        if self.norm is None:
            return codes, scale, self.linear.bias
        gain = self.norm.weight / (self.norm.running_var + self.norm.eps).sqrt()
        flip = gain.sign()  # so that scales are positive
        bias = self.norm.bias - gain * self.norm.running_mean
        return codes * flip[:, None], scale * gain.abs(), bias


class AutoEncoder(nn.Module):
    """Features f32[n, 640], in standard deviations -> what they should be."""

    def __init__(self, low_bit: bool) -> None:
        super().__init__()
        last = len(WIDTHS) - 2
        self.layers = nn.ModuleList(
            Layer(*WIDTHS[i : i + 2], low_bit, i == last) for i in range(last + 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def exported(model: AutoEncoder) -> onnx.ModelProto:
    """A trained network as ONNX: codes of 8 bits to the mean squared error, a window at a time."""
    node = helper.make_node
    constants = {
        "step": np.array(STEP, np.float32),
        "middle": np.array(128, np.uint8),
        "zero": np.array(0, np.uint8),
        "axes": np.array([1]),
    }
    nodes = [node("DequantizeLinear", ["codes", "step", "middle"], ["features"])]
    last = "features"
    for number, layer in enumerate(model.layers):
        w, scale, bias = layer.folded()
        own = {"w": w.to(torch.int8), "scale": scale, "bias": bias}
        constants |= {f"{name}{number}": value.detach().numpy() for name, value in own.items()}
        weight, y = f"weight{number}", f"y{number}"
        nodes += [
            node("DequantizeLinear", [f"w{number}", f"scale{number}"], [weight], axis=0),
            node("Gemm", [last, weight, f"bias{number}"], [y], transB=1),
        ]
        last = y
        if layer.norm is not None:
            top, q, x = f"top{number}", f"q{number}", f"x{number}"
            constants[top] = (layer.top / 255).numpy()
            nodes += [
                node("Relu", [y], [f"relu{number}"]),
                node("QuantizeLinear", [f"relu{number}", top, "zero"], [q]),
                node("DequantizeLinear", [q, top, "zero"], [x]),
            ]
            last = x
    nodes += [
        node("Sub", [last, "features"], ["error"]),
        node("Mul", ["error", "error"], ["squared"]),
        node("ReduceMean", ["squared", "axes"], ["score"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "machine_sounds",
        [helper.make_tensor_value_info("codes", TensorProto.UINT8, [1, FEATURES])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(proto, full_check=True)
    return proto
