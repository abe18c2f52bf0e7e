"""The operators of onnxruntime's own domain, com.microsoft, that exported models use."""

from __future__ import annotations

from collections.abc import Mapping

from tbc.frontend.context import Context, Lowering
from tbc.frontend.nodes import Node, Signature
from tbc.frontend.ops_attention import GROUP_QUERY_ATTENTION, MULTI_HEAD_ATTENTION
from tbc.frontend.ops_encoder import ENCODER
from tbc.frontend.ops_fused import FUSED
from tbc.frontend.ops_nbits import GATHER_BLOCK_QUANTIZED, MATMUL_NBITS
from tbc.frontend.ops_nn import (
    gelu_by_erf,
    gelu_by_tanh,
    root_mean_square,
    scaled_and_shifted,
    simplified_layer_normalization,
    standardized,
)
from tbc.frontend.ops_qlinear import QLINEAR
from tbc.frontend.ops_rotary import ROTARY_EMBEDDING
from tbc.ir import Value
from tbc.types import DType

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
    "GatherBlockQuantized": GATHER_BLOCK_QUANTIZED,
    **ENCODER,
    **FUSED,
    **QLINEAR,
    "SimplifiedLayerNormalization": SIMPLIFIED,
    "SkipSimplifiedLayerNormalization": (
        skip_simplified_layer_normalization, Signature(3, 4, 4, _SKIP_NORM)
    ),
    "SkipLayerNormalization": (skip_layer_normalization, Signature(3, 5, 4, _SKIP_NORM)),
    "RotaryEmbedding": ROTARY_EMBEDDING,
    "GroupQueryAttention": GROUP_QUERY_ATTENTION,
    "MultiHeadAttention": MULTI_HEAD_ATTENTION,
    "Gelu": (gelu, Signature(1, 1)),
    "BiasGelu": (bias_gelu, Signature(2, 2)),
    "FastGelu": (fast_gelu, Signature(1, 2)),
    "QuickGelu": (quick_gelu, Signature(1, 1, attributes={"alpha": 1.702})),
}  # fmt: skip
