"""Rotary position embeddings as onnxruntime has them: pairs of numbers turned by angles."""

from __future__ import annotations

from tbc.dims import Dim
from tbc.frontend.context import Context, fixed, supported, valid
from tbc.frontend.nodes import Node, Signature
from tbc.frontend.ops_index import leading, part
from tbc.frontend.ops_matmul import scaled
from tbc.frontend.ranges import outside
from tbc.ir import Value
from tbc.ops import Concat, Gather, Iota


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
    y = rotated_at(c, by_heads, position_ids, cos_cache, sin_cache, bool(node["interleaved"]))
    if x.type.rank == 3:
        y = c.reshape(c.transpose(y, (0, 2, 1, 3)), x.type.shape)
    return scaled(c, y, node["scale"])


def rotated_at(
    c: Context, x: Value, position_ids: Value, cos: Value, sin: Value, interleaved: bool
) -> Value:
    """x[B, heads, S, size] turned by the caches' rows at the positions."""
    cos, sin = (_angles(c, t, position_ids, x) for t in (cos, sin))
    return rotated(c, x, cos, sin, interleaved)


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


ROTARY_EMBEDDING = (
    rotary_embedding,
    Signature(
        4, 4, attributes={"interleaved": 0, "num_heads": 0, "rotary_embedding_dim": 0,
                          "scale": 1.0, "is_packed_batching": 0},
        limits="no packed batches",
    ),
)  # fmt: skip
