"""Fused operators of com.microsoft, which onnxruntime's optimiser writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tbc.frontend.context import Context, Lowering, supported, valid
from tbc.frontend.nodes import Floats, Node, Signature
from tbc.frontend.ops_conv import conv
from tbc.frontend.ops_matmul import gemm, product, scaled, swapped
from tbc.frontend.ops_nn import hard, negative_part
from tbc.ir import Value

_PARAMETERS = {
    "": 0, "Relu": 0, "Tanh": 0, "Sigmoid": 0, "LeakyRelu": 1, "Clip": 2, "HardSigmoid": 2,
}  # fmt: skip
"""The activations, with how many parameters each takes."""


def activated(c: Context, x: Value, name: str, parameters: Sequence[float]) -> Value:
    """An activation, by its name, of x."""
    supported(name in _PARAMETERS, f"the activation {name} is not supported")
    valid(len(parameters) >= _PARAMETERS[name], f"{name} with {len(parameters)} parameters")
    match name:
        case "Relu":
            return c.binary("max", x, 0)
        case "Tanh" | "Sigmoid":
            return c.unary(name.lower(), x)
        case "LeakyRelu":
            return negative_part(c, x, c.mul(x, parameters[0]))
        case "Clip":
            return c.clip(x, parameters[0], parameters[1])
        case "HardSigmoid":
            return hard(c, x, parameters[0], parameters[1])
    return x


def fused_conv(
    c: Context, node: Node, x: Value, w: Value, bias: Value | None = None, z: Value | None = None
) -> Value:
    """An activation of a convolution plus a bias and a tensor of its shape."""
    y = conv(c, node, x, w, bias)
    y = y if z is None else c.add(y, z)
    return activated(c, y, node["activation"], node["activation_params"])


def fused_gemm(c: Context, node: Node, a: Value, b: Value, bias: Value | None = None) -> Value:
    """An activation of a Gemm."""
    parameters = [node[f"activation_{name}"] for name in ("alpha", "beta", "gamma")]
    return activated(c, gemm(c, node, a, b, bias), node["activation"], parameters)


def fused_matmul(c: Context, node: Node, a: Value, b: Value) -> Value:
    """alpha * A @ B, with A and B transposed where asked for."""
    a = _turned(c, a, node["transBatchA"], node["transA"])
    b = _turned(c, b, node["transBatchB"], node["transB"])
    return scaled(c, product(c, a, b), node["alpha"])


def _turned(c: Context, x: Value, batch: int, matrix: int) -> Value:
    """x with its first axis behind the other batch axes, and the last two exchanged, if asked."""
    rank = x.type.rank
    if batch and rank > 2:
        x = c.transpose(x, [*range(1, rank - 1), 0, rank - 1])
    return swapped(c, x) if matrix and rank > 1 else x


_ACTIVATIONS = f"the activations {', '.join(filter(None, _PARAMETERS))}"
FUSED: Mapping[str, tuple[Lowering, Signature]] = {
    "FusedConv": (
        fused_conv,
        Signature(
            2, 4,
            attributes={"activation": "", "activation_params": Floats(), "auto_pad": "NOTSET",
                        "dilations": (), "group": 1, "kernel_shape": (), "pads": (),
                        "strides": ()},
            limits=_ACTIVATIONS,
        ),
    ),
    "FusedGemm": (
        fused_gemm,
        Signature(
            2, 3,
            attributes={"activation": "", "activation_alpha": 0.0, "activation_beta": 0.0,
                        "activation_gamma": 0.0, "alpha": 1.0, "beta": 1.0, "transA": 0,
                        "transB": 0},
            limits=_ACTIVATIONS,
        ),
    ),
    "FusedMatMul": (
        fused_matmul,
        Signature(
            2, 2, attributes={"alpha": 1.0, "transA": 0, "transB": 0,
                              "transBatchA": 0, "transBatchB": 0},
        ),
    ),
}  # fmt: skip
