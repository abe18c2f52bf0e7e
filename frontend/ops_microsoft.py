"""The operators of onnxruntime's own domain, com.microsoft, that exported models use."""

from __future__ import annotations

from collections.abc import Mapping

from tbc.frontend.context import Context, Lowering, supported
from tbc.frontend.nodes import Node, Signature
from tbc.frontend.ops_attention import GROUP_QUERY_ATTENTION, MULTI_HEAD_ATTENTION
from tbc.frontend.ops_matmul import centered, product, scaled, swapped
from tbc.frontend.ops_nbits import MATMUL_NBITS
from tbc.frontend.ops_nn import (
    gelu_by_erf,
    gelu_by_tanh,
    root_mean_square,
    scaled_and_shifted,
    simplified_layer_normalization,
    standardized,
)
from tbc.frontend.ops_quant import dynamic_quantize_linear, rounded, scalar
from tbc.frontend.ops_rotary import ROTARY_EMBEDDING
from tbc.ir import Value
from tbc.types import DType


def fused_matmul(c: Context, node: Node, a: Value, b: Value) -> Value:
    """alpha * A @ B, with A and B transposed where asked for."""
    batches = node["transBatchA"] or node["transBatchB"]
    supported(not batches, "transposed batches are not supported")
    a = swapped(c, a) if node["transA"] and a.type.rank > 1 else a
    b = swapped(c, b) if node["transB"] and b.type.rank > 1 else b
    return scaled(c, product(c, a, b), node["alpha"])


# -- quantised operators --------------------------------------------------------------------------


def _real(c: Context, x: Value, scale: Value, zero_point: Value | None) -> Value:
    codes = c.cast(x, DType.i32)
    if zero_point is not None:
        codes = c.sub(codes, c.cast(scalar(c, zero_point), DType.i32))
    return c.mul(c.cast(codes, DType.f32), scalar(c, scale))


def qlinear_add(
    c: Context, node: Node, a: Value, a_scale: Value, a_zero: Value | None, b: Value,
    b_scale: Value, b_zero: Value | None, y_scale: Value, y_zero: Value | None = None,
) -> Value:  # fmt: skip
    """The sum of the dequantised arguments, quantised."""
    total = c.add(_real(c, a, a_scale, a_zero), _real(c, b, b_scale, b_zero))
    zero = None if y_zero is None else scalar(c, y_zero)
    return rounded(c, c.div(total, scalar(c, y_scale)), zero, a.type.dtype)


def qlinear_global_average_pool(
    c: Context, node: Node, x: Value, x_scale: Value, x_zero: Value, y_scale: Value, y_zero: Value
) -> Value:
    """The mean over the spatial axes of the dequantised argument, quantised."""
    rank = x.type.rank
    axes = range(1, rank - 1) if node["channels_last"] else range(2, rank)
    codes = c.sub(c.cast(x, DType.i32), c.cast(scalar(c, x_zero), DType.i32))
    mean = c.mean(c.cast(codes, DType.f32), axes, keepdims=True)
    factor = c.div(scalar(c, x_scale), scalar(c, y_scale))
    return rounded(c, c.mul(mean, factor), scalar(c, y_zero), y_zero.type.dtype)


def matmul_integer_to_float(
    c: Context, node: Node, a: Value, b: Value, a_scale: Value, b_scale: Value,
    a_zero: Value | None = None, b_zero: Value | None = None, bias: Value | None = None,
) -> Value:  # fmt: skip
    """The product of the dequantised matrices, summed in integers, plus a bias."""
    total = product(c, centered(c, a, a_zero), centered(c, b, b_zero))
    factor = c.mul(scalar(c, a_scale), scalar(c, b_scale))
    y = c.mul(c.cast(total, a_scale.type.dtype), factor)
    return y if bias is None else c.add(y, bias)


def dynamic_quantize_matmul(
    c: Context, node: Node, a: Value, b: Value, b_scale: Value, b_zero: Value | None = None,
    bias: Value | None = None,
) -> Value:  # fmt: skip
    """The product of a, quantised as DynamicQuantizeLinear does, and b dequantised."""
    codes, scale, zero = dynamic_quantize_linear(c, node, a)
    return matmul_integer_to_float(c, node, codes, b, scale, b_scale, zero, b_zero, bias)


# -- normalisations and activations ---------------------------------------------------------------


def _with_skip(c: Context, x: Value, skip: Value, bias: Value | None) -> Value:
    total = c.add(x, skip)
    return total if bias is None else c.add(total, bias)


def skip_simplified_layer_normalization(
    c: Context, node: Node, x: Value, skip: Value, scale: Value, bias: Value | None = None
) -> tuple[Value | None, ...]:
    """The RMS normalisation of x + skip + bias, and that sum as the fourth output."""
    total = _with_skip(c, x, skip, bias)
    wide, last = c.cast(total, DType.f32), [x.type.rank - 1]
    inverse = c.div(1, root_mean_square(c, wide, last, node["epsilon"]))
    y = c.mul(c.cast(c.mul(wide, inverse), x.type.dtype), scale)
    return y, None, inverse, total


def skip_layer_normalization(
    c: Context, node: Node, x: Value, skip: Value, scale: Value, shift: Value | None = None,
    bias: Value | None = None,
) -> tuple[Value | None, ...]:  # fmt: skip
    """The layer normalisation of x + skip + bias, and that sum as the fourth output."""
    total = _with_skip(c, x, skip, bias)
    wide, last = c.cast(total, DType.f32), [x.type.rank - 1]
    normal, mean, inverse = standardized(c, wide, last, node["epsilon"])
    y = scaled_and_shifted(c, c.cast(normal, x.type.dtype), scale, shift)
    return y, mean, inverse, total


def bias_gelu(c: Context, node: Node, x: Value, bias: Value) -> Value:
    """gelu(x + bias)."""
    return gelu_by_erf(c, c.add(x, bias))


def fast_gelu(c: Context, node: Node, x: Value, bias: Value | None = None) -> Value:
    """gelu(x + bias) by tanh."""
    return gelu_by_tanh(c, x if bias is None else c.add(x, bias))


def gelu(c: Context, node: Node, x: Value) -> Value:
    """gelu(x) by erf."""
    return gelu_by_erf(c, x)


def quick_gelu(c: Context, node: Node, x: Value) -> Value:
    """x * sigmoid(alpha * x)."""
    return c.mul(x, c.unary("sigmoid", c.mul(x, node["alpha"])))


_NORM = {"epsilon": 1e-5, "axis": -1, "stash_type": 1}
_SKIP_NORM = {"epsilon": 1e-12}

SIMPLIFIED = (simplified_layer_normalization, Signature(2, 2, 2, _NORM))
"""onnxruntime's operator that stands in ONNX's own domain, whose operator sets do not have it."""

MICROSOFT: Mapping[str, tuple[Lowering, Signature]] = {
    "MatMulNBits": MATMUL_NBITS,
    "FusedMatMul": (
        fused_matmul,
        Signature(
            2, 2, attributes={"alpha": 1.0, "transA": 0, "transB": 0,
                              "transBatchA": 0, "transBatchB": 0},
        ),
    ),
    "QLinearAdd": (qlinear_add, Signature(7, 8, optional=(2, 5))),
    "QLinearGlobalAveragePool": (
        qlinear_global_average_pool, Signature(5, 5, attributes={"channels_last": 0})
    ),
    "SimplifiedLayerNormalization": SIMPLIFIED,
    "SkipSimplifiedLayerNormalization": (
        skip_simplified_layer_normalization, Signature(3, 4, 4, _SKIP_NORM)
    ),
    "SkipLayerNormalization": (skip_layer_normalization, Signature(3, 5, 4, _SKIP_NORM)),
    "RotaryEmbedding": ROTARY_EMBEDDING,
    "GroupQueryAttention": GROUP_QUERY_ATTENTION,
    "MultiHeadAttention": MULTI_HEAD_ATTENTION,
    "DynamicQuantizeMatMul": (dynamic_quantize_matmul, Signature(3, 5)),
    "MatMulIntegerToFloat": (matmul_integer_to_float, Signature(4, 7)),
    "Gelu": (gelu, Signature(1, 1)),
    "BiasGelu": (bias_gelu, Signature(2, 2)),
    "FastGelu": (fast_gelu, Signature(1, 2)),
    "QuickGelu": (quick_gelu, Signature(1, 1, attributes={"alpha": 1.702})),
}  # fmt: skip
