"""onnxruntime's attention operators: GroupQueryAttention and MultiHeadAttention."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tbc.dims import Dim, dim_max
from tbc.frontend.context import Context, fixed, supported, valid
from tbc.frontend.nodes import Node, Signature
from tbc.frontend.ops_index import padded, part
from tbc.frontend.ops_matmul import swapped
from tbc.frontend.ops_rotary import rotated_at
from tbc.frontend.ops_select import overwritten
from tbc.frontend.ranges import outside
from tbc.ir import Value
from tbc.ops import Concat, Iota, MatMul, require_equal
from tbc.types import DType


def by_heads(c: Context, x: Value, heads: int) -> Value:
    """x[B, S, heads * size] as [B, heads, S, size]."""
    batch, length, hidden = x.type.shape
    size, rest = divmod(fixed(hidden, "the hidden size"), heads)
    valid(rest == 0, f"{hidden} columns do not form {heads} heads")
    return c.transpose(c.reshape(x, [batch, length, heads, size]), (0, 2, 1, 3))


def joined(c: Context, x: Value) -> Value:
    """x[B, heads, S, size] as [B, S, heads * size]."""
    batch, heads, length, size = x.type.shape
    return c.reshape(c.transpose(x, (0, 2, 1, 3)), [batch, length, heads * size])


def columns(c: Context, x: Value, widths: Sequence[int]) -> list[Value]:
    """The parts of x's last axis, of given widths."""
    lead, found, at = x.type.shape[:-1], [], 0
    require_equal(x.type.shape[-1], sum(widths), "all columns and those of the parts")
    for width in widths:
        starts = [*[0] * len(lead), at]
        found.append(part(c, x, starts, [*lead, width], [1] * x.type.rank))
        at += width
    return found


def grouped_product(c: Context, a: Value, b: Value) -> Value:
    """a[B, heads, …] @ b[B, kv heads, …], each head of b for a group of heads of a."""
    batch, heads, rows, _ = a.type.shape
    shared = b.type.shape[1]
    if heads == shared:
        return c(MatMul(), a, b)
    count, kv = fixed(heads, "the heads"), fixed(shared, "the heads")
    valid(count % kv == 0, f"{count} heads do not form groups for {kv}")
    apart = c.reshape(a, [batch, kv, count // kv, rows, a.type.shape[-1]])
    wide = c.reshape(b, [batch, kv, 1, *b.type.shape[2:]])
    return c.reshape(c(MatMul(), apart, wide), [batch, heads, rows, b.type.shape[-1]])


def attended(
    c: Context, scores: Value, v: Value, visible: Value | None, sink: Value | None = None
) -> Value:
    """softmax(scores where visible) @ v; a sink is one more score, whose value is 0."""
    dtype = scores.type.dtype
    scores = c.cast(scores, DType.f32)
    if visible is not None:
        scores = c.where(visible, scores, -math.inf)
    top = c.reduce("max", scores, [3], keepdims=True)
    if sink is not None:
        top = c.binary("max", top, sink)
    top = c.where(c.unary("isinf", top), 0, top)
    powers = c.unary("exp", c.sub(scores, top))
    total = c.reduce("sum", powers, [3], keepdims=True)
    if sink is not None:
        total = c.add(total, c.unary("exp", c.sub(sink, top)))
    share = c.where(c.binary("eq", total, 0), 0, c.div(1, total))
    weights = c.mul(powers, share)
    return grouped_product(c, c.cast(weights, dtype), v)


def scored(c: Context, q: Value, k: Value, scale: float, softcap: float) -> Value:
    """q @ k^T * scale, squeezed between -softcap and softcap unless that is 0."""
    size = fixed(q.type.shape[-1], "the size of a head")
    y = c.mul(grouped_product(c, q, swapped(c, k)), scale or 1 / math.sqrt(size))
    return c.mul(c.unary("tanh", c.div(y, softcap)), softcap) if softcap else y


# -- GroupQueryAttention --------------------------------------------------------------------------


def group_query_attention(
    c: Context, node: Node, q: Value, k: Value | None, v: Value | None, past_k: Value | None,
    past_v: Value | None, lengths: Value, total: Value, cos: Value | None = None,
    sin: Value | None = None, position_ids: Value | None = None, bias: Value | None = None,
    sink: Value | None = None,
) -> tuple[Value, ...]:  # fmt: skip
    """Causal attention over a cache to which k and v are added: the result and the new cache."""
    heads, kv = node["num_heads"], node["kv_num_heads"]
    valid(heads > 0 and kv > 0, f"{heads} heads and {kv}")
    for name in ("kv_cache_bit_width", "qk_output"):
        supported(not node[name], f"{name} {node[name]} is not supported")
    if k is None or v is None:
        size = fixed(q.type.shape[-1], "the hidden size") // (heads + 2 * kv)
        q, k, v = columns(c, q, [heads * size, kv * size, kv * size])
    q, k, v = by_heads(c, q, heads), by_heads(c, k, kv), by_heads(c, v, kv)
    batch, _, steps, _ = q.type.shape
    require_equal(lengths.type.size, batch, "seqlens_k and the batch")
    length = c.add(c.reshape(c.cast(lengths, DType.i64), [batch, 1]), 1)
    before = c.binary("max", c.sub(length, c.sizes(steps)), 0)
    if node["do_rotary"]:
        valid(cos is not None and sin is not None, "do_rotary needs cos_cache and sin_cache")
        assert cos is not None
        assert sin is not None
        if position_ids is None:
            position_ids = c.add(before, c.reshape(c(Iota(steps)), [1, steps]))
        interleaved = bool(node["rotary_interleaved"])
        q, k = (rotated_at(c, x, position_ids, cos, sin, interleaved) for x in (q, k))
    (room,) = c.vector(total, "total_sequence_length")
    k, v = (_cached(c, new, old, before, room) for new, old in ((k, past_k), (v, past_v)))
    scores = scored(c, q, k, node["scale"], node["softcap"])
    scores = scores if bias is None else c.add(scores, bias)
    if sink is not None:
        sink = c.reshape(c.cast(sink, DType.f32), [1, heads, 1, 1])
    elif node["smooth_softmax"] == 1:
        sink = c.constant([[[[0.0]]]], DType.f32)
    seen = _seen(c, before, steps, k.type.shape[2], node["local_window_size"])
    return joined(c, attended(c, scores, v, seen, sink)), k, v


def _cached(c: Context, new: Value, old: Value | None, before: Value, room: Dim) -> Value:
    """The cache [B, heads, L, size] with new elements from before[b] on."""
    if old is None:
        return new
    after = [0, 0, dim_max(room - old.type.shape[2], 0), 0]
    old = padded(c, old, [0] * 4, after, c.constant(0, old.type.dtype))
    steps = new.type.shape[2]
    at = c.add(before, c.reshape(c(Iota(steps)), [1, steps]))
    c.checks.extend(outside(c, at, old.type.shape[2]))
    return overwritten(c, old, new, at, 2)


def _seen(c: Context, before: Value, steps: Dim, length: Dim, window: int) -> Value:
    """bool[B, 1, S, L]: which keys a query sees; the latest `window` of them where that is > 0."""
    batch = before.type.shape[0]
    own = c.add(c.reshape(before, [batch, 1, 1, 1]), c.reshape(c(Iota(steps)), [1, 1, steps, 1]))
    key = c(Iota(length))
    seen = c.binary("le", key, own)
    if window <= 0:
        return seen
    return c.binary("and", seen, c.binary("gt", c.add(key, window), own))


# -- MultiHeadAttention ---------------------------------------------------------------------------


def multi_head_attention(
    c: Context, node: Node, q: Value, k: Value | None = None, v: Value | None = None,
    projection: Value | None = None, padding: Value | None = None, bias: Value | None = None,
    past_k: Value | None = None, past_v: Value | None = None,
) -> tuple[Value, ...]:  # fmt: skip
    """softmax(q @ k^T * scale + masks) @ v by heads, and the keys and values with the past's."""
    heads = node["num_heads"]
    valid(heads > 0, f"{heads} heads")
    if q.type.rank == 5:
        q, k, v = (_unpacked(c, q, i) for i in range(3))
    elif k is not None and k.type.rank == 5:
        k, v = (_unpacked(c, k, i) for i in range(2))
    valid(k is not None and v is not None, "it needs a key and a value")
    assert k is not None
    assert v is not None
    given = [q, k, v]
    if projection is not None:
        widths = [fixed(_width(x), "the hidden size") for x in given]
        shifts = columns(c, projection, widths)
        given = [_shifted(c, x, s) for x, s in zip(given, shifts, strict=True)]
    q, k, v = (x if x.type.rank == 4 else by_heads(c, x, heads) for x in given)
    if past_k is not None and past_v is not None:
        k, v = c(Concat(2), past_k, k), c(Concat(2), past_v, v)
    if padding is not None and padding.type.rank == 1:
        is_lengths = padding.type.shape[0] == q.type.shape[0]
        supported(is_lengths, "a key_padding_mask of starts and ends is not supported")
    keep = None if padding is None else kept(c, padding, q.type.shape[0], k.type.shape[2])
    return masked(c, node, q, k, v, keep, bias), k, v


def masked(
    c: Context, node: Node, q: Value, k: Value, v: Value, keep: Value | None, bias: Value | None
) -> Value:
    """[B, S, heads * size] of q, k and v by heads; mask_filter_value is added where not to keep."""
    scores = scored(c, q, k, node["scale"], 0)
    if keep is not None:
        scores = c.where(keep, scores, c.add(scores, node["mask_filter_value"]))
    scores = scores if bias is None else c.add(scores, bias)
    seen = None
    if node["unidirectional"]:
        steps, length = q.type.shape[2], k.type.shape[2]
        past = c.sub(c.sizes(length), c.sizes(steps))
        seen = _seen(c, c.reshape(past, [1, 1]), steps, length, 0)
    return joined(c, attended(c, scores, v, seen))


def _unpacked(c: Context, x: Value, i: int) -> Value:
    """Part i of x[B, S, heads, parts, size] as [B, heads, S, size]."""
    batch, length, heads, _, size = x.type.shape
    shape = [batch, length, heads, 1, size]
    one = part(c, x, [0, 0, 0, i, 0], shape, [1] * 5)
    return c.transpose(c.reshape(one, [batch, length, heads, size]), (0, 2, 1, 3))


def _width(x: Value) -> Dim:
    return x.type.shape[1] * x.type.shape[3] if x.type.rank == 4 else x.type.shape[2]


def _shifted(c: Context, x: Value, shift: Value) -> Value:
    if x.type.rank == 4:
        shift = c.reshape(shift, [x.type.shape[1], 1, x.type.shape[3]])
    return c.add(x, shift)


def kept(c: Context, padding: Value, batch: Dim, length: Dim) -> Value:
    """bool[B, 1, S or 1, L] of a mask [B, L] or [B, S, L] of ones, of lengths [B], or of ends and
    starts [2 * B]."""
    if padding.type.rank == 1:
        limits = c.cast(padding, DType.i64)
        places = c(Iota(length))
        ends = c.reshape(part(c, limits, [0], [batch], [1]), [batch, 1, 1, 1])
        before = c.binary("lt", places, ends)
        if padding.type.shape[0] == batch:
            return before
        require_equal(padding.type.shape[0], 2 * batch, "ends and starts and twice the batch")
        starts = c.reshape(part(c, limits, [batch], [batch], [1]), [batch, 1, 1, 1])
        return c.binary("and", before, c.binary("ge", places, starts))
    shape = padding.type.shape
    valid(padding.type.rank in (2, 3), f"the mask {padding.type}")
    rows = [shape[0], 1, *(shape[1:2] if padding.type.rank == 3 else [1]), shape[-1]]
    return c.binary("ne", c.reshape(padding, rows), 0)


GROUP_QUERY_ATTENTION = (
    group_query_attention,
    Signature(
        7, 12, 4,
        {"num_heads": int, "kv_num_heads": int, "scale": 0.0, "softcap": 0.0, "do_rotary": 0,
         "rotary_interleaved": 0, "local_window_size": -1, "smooth_softmax": 0, "qk_output": 0,
         "kv_cache_bit_width": 0, "k_quant_type": "NONE", "v_quant_type": "NONE"},
        optional=(1, 2, 3, 4),
        limits="no quantised cache, and no output of the scores",
    ),
)  # fmt: skip
MULTI_HEAD_ATTENTION = (
    multi_head_attention,
    Signature(
        1, 8, 3,
        {"num_heads": int, "scale": 0.0, "mask_filter_value": -10000.0, "unidirectional": 0},
        limits="a key_padding_mask of starts and ends is not supported",
    ),
)  # fmt: skip
