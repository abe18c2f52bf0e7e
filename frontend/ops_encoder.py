"""onnxruntime's operators of encoders: embeddings, and attention with its projections."""

from __future__ import annotations

from collections.abc import Mapping

from tbc.frontend.context import Context, Lowering, fixed, supported, valid
from tbc.frontend.nodes import Node, Signature
from tbc.frontend.ops_attention import by_heads, columns, kept, masked
from tbc.frontend.ops_index import gathered, part
from tbc.frontend.ops_matmul import product
from tbc.frontend.ops_nn import scaled_and_shifted, standardized
from tbc.frontend.ops_qlinear import matmul_integer_to_float, real
from tbc.ir import Value
from tbc.ops import Concat, Iota, require_equal
from tbc.types import DType

# -- attention ------------------------------------------------------------------------------------


def attention(
    c: Context, node: Node, x: Value, weights: Value, bias: Value | None = None,
    mask: Value | None = None, past: Value | None = None, scores_bias: Value | None = None,
    past_length: Value | None = None,
) -> tuple[Value, ...]:  # fmt: skip
    """Attention of x @ weights + bias, which are queries, keys and values; the latter two, too."""
    supported(past_length is None, "a cache longer than what is in it is not supported")
    y = product(c, x, weights)
    y = y if bias is None else c.add(y, bias)
    return _attention(c, node, y, mask, past, scores_bias)


def quantised_attention(
    c: Context, node: Node, x: Value, weights: Value, bias: Value, x_scale: Value,
    weight_scale: Value, mask: Value | None = None, x_zero: Value | None = None,
    weight_zero: Value | None = None, past: Value | None = None,
) -> tuple[Value, ...]:  # fmt: skip
    """As `attention`, of codes; the scale of the weights is one, or one a column."""
    y = matmul_integer_to_float(
        c, node, x, weights, x_scale, weight_scale, x_zero, weight_zero, bias
    )
    return _attention(c, node, y, mask, past, None)


def _attention(
    c: Context, node: Node, y: Value, mask: Value | None, past: Value | None, bias: Value | None
) -> tuple[Value, ...]:
    """Attention of y[B, S, queries, keys and values]; keys and values [2, B, heads, L, size]."""
    for name in ("do_rotary", "past_present_share_buffer"):
        supported(not node[name], f"{name} is not supported")
    heads = node["num_heads"]
    valid(heads > 0, f"{heads} heads")
    supported(mask is None or mask.type.rank < 4, "a mask of rank 4 is not supported")
    widths = node["qkv_hidden_sizes"] or [fixed(y.type.shape[-1], "the hidden size") // 3] * 3
    valid(len(widths) == 3, f"{len(widths)} qkv_hidden_sizes")
    q, k, v = (by_heads(c, one, heads) for one in columns(c, y, widths))
    if past is not None:
        shape = past.type.shape[1:]
        old = [part(c, past, [i, 0, 0, 0, 0], [1, *shape], [1] * 5) for i in range(2)]
        k, v = (
            c(Concat(2), c.reshape(before, shape), one)
            for before, one in zip(old, (k, v), strict=True)
        )
    keep = None if mask is None else kept(c, mask, q.type.shape[0], k.type.shape[2])
    result = masked(c, node, q, k, v, keep, bias)
    if not node.has_output(1):
        return (result,)
    require_equal(k.type.shape[-1], v.type.shape[-1], "the sizes of keys and values")
    both = [c.reshape(one, [1, *one.type.shape]) for one in (k, v)]
    return result, c(Concat(0), *both)


_ATTENTION = {
    "num_heads": int, "scale": 0.0, "mask_filter_value": -10000.0, "unidirectional": 0,
    "do_rotary": 0, "past_present_share_buffer": 0, "qkv_hidden_sizes": (),
    "rotary_embedding_dim": 0,
}  # fmt: skip
_LIMITS = "no rotary embedding, no mask of rank 4, and no cache in place"

# -- embeddings -----------------------------------------------------------------------------------


def embed_layer_normalization(
    c: Context, node: Node, ids: Value, segments: Value | None, words: Value, positions: Value,
    kinds: Value | None, scale: Value, shift: Value, mask: Value | None = None,
    places: Value | None = None,
) -> tuple[Value, ...]:  # fmt: skip
    """The normalised sum of the embeddings, how many of a row's mask are 1, and the sum."""
    if places is None:
        places = c(Iota(ids.type.shape[1]))
    total = c.add(gathered(c, words, ids), gathered(c, positions, places))
    if segments is not None and kinds is not None:
        total = c.add(total, gathered(c, kinds, segments))
    return *_normalised(c, node, total, scale, shift, mask), total


def quantised_embed_layer_normalization(
    c: Context, node: Node, ids: Value, segments: Value | None, words: Value, positions: Value,
    kinds: Value | None, scale: Value, shift: Value, mask: Value | None, *given: Value | None,
) -> tuple[Value, ...]:  # fmt: skip
    """As `embed_layer_normalization`, of codes, with five scales and then five zero points."""
    tables = (words, positions, kinds, scale, shift)
    w, p, k, s, b = zip(tables, given[:5], given[5:], strict=True)
    total = c.add(_rows(c, w, ids), _rows(c, p, c(Iota(ids.type.shape[1]))))
    if segments is not None:
        total = c.add(total, _rows(c, k, segments))
    return _normalised(c, node, total, _rows(c, s, None), _rows(c, b, None), mask)


def _rows(
    c: Context, table: tuple[Value | None, Value | None, Value | None], indices: Value | None
) -> Value:
    """Rows of a table of codes, or all of it, dequantised with its scale and zero point."""
    codes, scale, zero = table
    valid(codes is not None and scale is not None, "a table or its scale is missing")
    assert codes is not None
    assert scale is not None
    return real(c, codes if indices is None else gathered(c, codes, indices), scale, zero)


def _normalised(
    c: Context, node: Node, x: Value, scale: Value, shift: Value, mask: Value | None
) -> tuple[Value, Value]:
    """The layer normalisation of x[B, S, hidden], and i32[B]: how many of a row's mask are 1."""
    normal, _, _ = standardized(c, c.cast(x, DType.f32), [2], node["epsilon"])
    y = scaled_and_shifted(c, c.cast(normal, x.type.dtype), scale, shift)
    if mask is None:
        return y, c.broadcast(c.constant(0, DType.i32), x.type.shape[:1])
    return y, c.reduce("sum", c.cast(c.binary("eq", mask, 1), DType.i32), [1])


ENCODER: Mapping[str, tuple[Lowering, Signature]] = {
    "Attention": (attention, Signature(2, 7, 2, _ATTENTION, limits=_LIMITS)),
    "QAttention": (
        quantised_attention, Signature(5, 9, 2, _ATTENTION, dtypes=(DType.u8, DType.i8),
                                       limits=_LIMITS)
    ),
    "EmbedLayerNormalization": (
        embed_layer_normalization,
        Signature(
            7, 9, 3, {"epsilon": 1e-12, "mask_index_type": 0}, optional=(1, 4), dtypes=(DType.i32,)
        ),
    ),
    "QEmbedLayerNormalization": (
        quantised_embed_layer_normalization,
        Signature(
            18, 18, 2, {"epsilon": 1e-12}, optional=(1, 4, 7, 10, 15), dtypes=(DType.i32,)
        ),
    ),
}  # fmt: skip
