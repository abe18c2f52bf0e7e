"""The operators of onnxruntime's own domain, com.microsoft, that exported models use."""

from __future__ import annotations

from collections.abc import Mapping

from tbc.dims import Dim
from tbc.frontend.context import Context, Lowering, fixed, supported, valid
from tbc.frontend.nodes import Node, Signature
from tbc.frontend.ops_index import leading, part
from tbc.frontend.ops_matmul import product, scaled, swapped
from tbc.frontend.ops_nbits import MATMUL_NBITS
from tbc.frontend.ops_nn import (
    gelu_by_erf,
    gelu_by_tanh,
    root_mean_square,
    scaled_and_shifted,
    simplified_layer_normalization,
    standardized,
)
from tbc.frontend.ops_quant import rounded, scalar
from tbc.frontend.ranges import outside
from tbc.ir import Value
from tbc.ops import Concat, Gather, Iota
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


def rotary_embedding(
    c: Context, node: Node, x: Value, position_ids: Value, cos_cache: Value, sin_cache: Value
) -> Value:
    """Pairs of x[B, S, heads*size] or x[B, heads, S, size] turned by their positions' angles."""
    supported(not node["is_packed_batching"], "packed batches are not supported")
    valid(x.type.rank in (3, 4), f"it needs rank 3 or 4, not {x.type}")
    by_heads = x
    if x.type.rank == 3:
        batch, length, hidden = x.type.shape
        width = 2 * fixed(cos_cache.type.shape[1], "the size of the cache")
        size = fixed(hidden, "the hidden size") // node["num_heads"] if node["num_heads"] else width
        heads = c.reshape(x, [batch, length, fixed(hidden, "the hidden size") // size, size])
        by_heads = c.transpose(heads, (0, 2, 1, 3))
    cos, sin = (_angles(c, t, position_ids, by_heads) for t in (cos_cache, sin_cache))
    y = rotated(c, by_heads, cos, sin, bool(node["interleaved"]))
    if x.type.rank == 3:
        y = c.reshape(c.transpose(y, (0, 2, 1, 3)), x.type.shape)
    return scaled(c, y, node["scale"])


def _angles(c: Context, cache: Value, position_ids: Value, x: Value) -> Value:
    """The rows of a cache at the positions, as [B or 1, 1, S, size / 2]."""
    length = x.type.shape[2]
    if position_ids.type.size == 1 and position_ids.type.rank < 2:
        first = c.reshape(position_ids, [1, 1])
        position_ids = c.add(first, c.reshape(c(Iota(length)), [1, length]))
    c.checks.extend(outside(c, position_ids, cache.type.shape[0]))
    rows = c(Gather(0), cache, position_ids)
    batch, _, half = rows.type.shape
    return c.reshape(rows, [batch, 1, length, half])


def rotated(c: Context, x: Value, cos: Value, sin: Value, interleaved: bool) -> Value:
    """The first 2 * half elements of the last axis turned pairwise, the others as they are."""
    half = fixed(cos.type.shape[-1], "the size of the cache")
    *outer, size = x.type.shape
    left: list[Dim] = [0] * len(outer)
    ones = [1] * x.type.rank
    turning = leading(c, x, 2 * half)
    pairs = c.reshape(turning, [*outer, half, 2] if interleaved else [*outer, 2, half])
    axis = len(outer) + 1 if interleaved else len(outer)
    shape = [*outer, half, 1] if interleaved else [*outer, 1, half]
    a, b = (
        c.reshape(part(c, pairs, _at(axis, i, len(shape)), shape, [1] * len(shape)), [*outer, half])
        for i in range(2)
    )
    real = c.sub(c.mul(a, cos), c.mul(b, sin))
    imaginary = c.add(c.mul(a, sin), c.mul(b, cos))
    parts = [c.reshape(p, shape) for p in (real, imaginary)]
    y = c.reshape(c(Concat(axis), *parts), turning.type.shape)
    if turning.type.shape == x.type.shape:
        return y
    rest = part(c, x, [*left, 2 * half], [*outer, size - 2 * half], ones)
    return c(Concat(len(outer)), y, rest)


def _at(axis: int, index: int, rank: int) -> list[Dim]:
    return [index if a == axis else 0 for a in range(rank)]


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
    "RotaryEmbedding": (
        rotary_embedding,
        Signature(
            4, 4, attributes={"interleaved": 0, "num_heads": 0, "rotary_embedding_dim": 0,
                              "scale": 1.0, "is_packed_batching": 0},
        ),
    ),
    "Gelu": (gelu, Signature(1, 1)),
    "BiasGelu": (bias_gelu, Signature(2, 2)),
    "FastGelu": (fast_gelu, Signature(1, 2)),
    "QuickGelu": (quick_gelu, Signature(1, 1, attributes={"alpha": 1.702})),
}  # fmt: skip
