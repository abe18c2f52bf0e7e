"""A sentence's tone from its words: the network as it is trained, and as it is exported.

Words -> embeddings of 8 bits -> ternary convolution over three words -> the largest of each feature
in the sentence -> 8 bits -> ternary layer -> two scores: Kim's network (arXiv 1408.5882) with
ternary weights (arXiv 1605.04711). Training keeps float weights and rounds them in the forward pass
only (the straight-through estimator, arXiv 1308.3432).
"""

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

WIDTH = 32
"""Numbers of an embedding."""
FEATURES = 64
REACH = 3
"""Words that a feature looks at."""


def straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    """`rounded` in the forward pass, with the gradient of `x` in the backward pass."""
    return x + (rounded - x).detach()


def trits(w: Tensor) -> tuple[Tensor, Tensor]:
    """Codes in {-1, 0, 1}, and the scale mean(|w|) of each output: w is about codes * scale."""
    axes = tuple(range(1, w.ndim))
    scale = w.abs().mean(axes, keepdim=True).clamp(min=1e-5)
    return (w / scale).round().clamp(-1, 1), scale


class Sentiment(nn.Module):
    """Token numbers [n, t], and which of them there are -> scores [n, 2]: bad, good."""

    def __init__(self, words: int, low_bit: bool) -> None:
        super().__init__()
        self.low_bit = low_bit
        self.table = nn.Embedding(words, WIDTH)
        self.conv = nn.Conv1d(WIDTH, FEATURES, REACH, padding=REACH // 2)
        self.head = nn.Linear(FEATURES, 2)
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("top", torch.tensor(0.0))  # of the features, for their scale
        nn.init.normal_(self.table.weight, std=0.1)

    def table_codes(self) -> tuple[Tensor, Tensor]:
        """The embeddings as codes in -127..127, and their scale."""
        scale = self.table.weight.abs().max() / 127
        return (self.table.weight / scale).round(), scale

    def forward(self, numbers: Tensor, there: Tensor) -> Tensor:
        table, conv, head = self.table.weight, self.conv.weight, self.head.weight
        if self.low_bit:
            codes, scale = self.table_codes()
            table = straight_through(table, codes * scale)
            conv, head = (
                straight_through(w, codes * scale)
                for w in (conv, head)
                for codes, scale in [trits(w)]
            )
        x = nn.functional.embedding(numbers, table) * there[..., None]
        x = nn.functional.conv1d(x.mT, conv, self.conv.bias, padding=REACH // 2).relu()
        x = x.masked_fill(~there[:, None], 0).amax(2)
        if self.low_bit:
            if self.training:
                self.top.lerp_(x.detach().max(), 0.05)
            scale = self.top / 255
            x = straight_through(x, (x / scale).round().clamp(0, 255) * scale)
        return nn.functional.linear(self.dropout(x), head, self.head.bias)


def exported(model: Sentiment) -> onnx.ModelProto:
    """A trained network as ONNX: int8 codes beside their scales, one sentence of any length."""
    with torch.no_grad():
        codes, scale = model.table_codes()
        values = {"table": codes.to(torch.int8), "table_scale": scale}
        for name, layer in (("conv", model.conv), ("head", model.head)):
            codes, scale = trits(layer.weight)
            values[name] = codes.to(torch.int8)
            values[f"{name}_scale"] = scale.flatten()
            values[f"{name}_bias"] = layer.bias
        values["feature_scale"] = model.top / 255
    constants = {name: value.detach().numpy() for name, value in values.items()}
    constants["feature_zero"] = np.array(0, np.uint8)
    constants |= {"first": np.array([0]), "last": np.array([2])}
    node = helper.make_node
    nodes = [
        node("Gather", ["table", "tokens"], ["codes"]),
        node("DequantizeLinear", ["codes", "table_scale"], ["embedded"]),
        node("Transpose", ["embedded"], ["turned"], perm=[1, 0]),
        node("Unsqueeze", ["turned", "first"], ["x"]),
        node("DequantizeLinear", ["conv", "conv_scale"], ["conv_weight"], axis=0),
        node("Conv", ["x", "conv_weight", "conv_bias"], ["sums"], pads=[REACH // 2] * 2),
        node("Relu", ["sums"], ["features"]),
        node("ReduceMax", ["features", "last"], ["largest"], keepdims=0),
        node("QuantizeLinear", ["largest", "feature_scale", "feature_zero"], ["q"]),
        node("DequantizeLinear", ["q", "feature_scale", "feature_zero"], ["kept"]),
        node("DequantizeLinear", ["head", "head_scale"], ["head_weight"], axis=0),
        node("Gemm", ["kept", "head_weight", "head_bias"], ["scores"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "sentiment",
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["tokens"])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(proto, full_check=True)
    return proto
