"""MatMulNBits and GatherBlockQuantized of com.microsoft: weights and tables of 2, 4 or 8 bits."""

from __future__ import annotations

from tbc.frontend.context import Context, axis_of, fixed, supported, valid
from tbc.frontend.nodes import Node, Signature
from tbc.frontend.ops_index import gathered, leading, padded
from tbc.frontend.ops_matmul import product
from tbc.frontend.ranges import outside
from tbc.ir import Value
from tbc.ops import Gather, require_equal
from tbc.types import DType


def unpacked(c: Context, packed: Value, bits: int) -> Value:
    """The fields of the bytes of the last axis, low bits first, as u8."""
    per_byte = 8 // bits
    shape = packed.type.shape
    bytes_ = c.reshape(packed, [*shape, 1])
    shifts = c.constant([bits * i for i in range(per_byte)], DType.u8)
    fields = c.binary("and", c.binary("shr", bytes_, shifts), (1 << bits) - 1)
    return c.reshape(fields, [*shape[:-1], shape[-1] * per_byte])


def matmul_nbits(
    c: Context, node: Node, a: Value, b: Value, scales: Value, zero_points: Value | None = None,
    group_index: Value | None = None, bias: Value | None = None,
) -> Value:  # fmt: skip
    """a[…, K] @ w[N, K].T + bias with w = (code - zero point) * scale, by blocks of K.

    Halves are computed in f32 and rounded once.
    """
    n, k, bits, block = node["N"], node["K"], node["bits"], node["block_size"]
    supported(bits in (2, 4, 8), f"weights of {bits} bits are not supported")
    valid(n > 0 and k > 0 and block > 0 and block * bits % 8 == 0, f"N={n}, K={k}, block {block}")
    blocks = -(-k // block)
    valid(
        b.type.dtype is DType.u8 and b.type.size == n * blocks * (block * bits // 8),
        f"B is {b.type}, but N={n}, K={k}, bits={bits} and block_size={block} need "
        f"u8[{n}, {blocks}, {block * bits // 8}]",
    )
    valid(scales.type.size == n * blocks, f"the scales are {scales.type}, not [{n}, {blocks}]")
    dtype = DType.f64 if a.type.dtype is DType.f64 else DType.f32
    codes = unpacked(c, c.reshape(b, [n, blocks, block * bits // 8]), bits)
    codes = c.cast(codes, {2: DType.u2, 4: DType.u4, 8: DType.u8}[bits])
    scale = c.cast(c.reshape(scales, [n, blocks]), dtype)
    zero = _zero_points(c, zero_points, n, blocks, bits, dtype)
    if group_index is None:
        columns = [c.reshape(p, [n, blocks, 1]) if p.type.rank else p for p in (zero, scale)]
        w = c.mul(c.sub(c.cast(codes, dtype), columns[0]), columns[1])
        w = leading(c, c.reshape(w, [n, blocks * block]), k)
    else:
        codes = leading(c, c.reshape(codes, [n, blocks * block]), k)
        groups = leading(c, group_index, k)
        c.checks.extend(outside(c, groups, blocks))
        zero, scale = (c(Gather(1), p, groups) if p.type.rank else p for p in (zero, scale))
        w = c.mul(c.sub(c.cast(codes, dtype), zero), scale)
    x = c.cast(a, dtype)
    if node["accuracy_level"] == 4:
        x = rounded_by_blocks(c, x, block)
    y = product(c, x, c.transpose(w, (1, 0)))
    return c.cast(y if bias is None else c.add(y, c.cast(bias, dtype)), a.type.dtype)


def rounded_by_blocks(c: Context, x: Value, block: int) -> Value:
    """x as 8-bit codes times a scale of each block of the last axis: onnxruntime's level 4."""
    *outer, k = x.type.shape
    size = fixed(k, "K")
    blocks = -(-size // block)
    none = [0] * len(outer)
    room = padded(c, x, [*none, 0], [*none, blocks * block - size], c.constant(0, x.type.dtype))
    parts = c.reshape(room, [*outer, blocks, block])
    axis = x.type.rank
    scale = c.div(c.reduce("max", c.unary("abs", parts), [axis], keepdims=True), 127)
    inverse = c.where(c.binary("eq", scale, 0), 0, c.div(1, scale))
    codes = c.clip(c.unary("round", c.mul(parts, inverse)), -127, 127)
    return leading(c, c.reshape(c.mul(codes, scale), room.type.shape), size)


def _zero_points(
    c: Context, given: Value | None, n: int, blocks: int, bits: int, dtype: DType
) -> Value:
    """The zero points [N, blocks], or the default as a scalar, in the type of the activations."""
    if given is None:
        return c.constant(1 << (bits - 1), dtype)
    if given.type.dtype is not DType.u8:
        valid(given.type.size == n * blocks, f"zero points {given.type} for [{n}, {blocks}]")
        return c.cast(c.reshape(given, [n, blocks]), dtype)
    row = -(-blocks * bits // 8)
    valid(
        given.type.size == n * row, f"zero points {given.type} for {bits} bits of [{n}, {blocks}]"
    )
    codes = unpacked(c, c.reshape(given, [n, row]), bits)
    return c.cast(leading(c, codes, blocks), dtype)


# -- tables ---------------------------------------------------------------------------------------


def gather_block_quantized(
    c: Context, node: Node, table: Value, indices: Value, scales: Value,
    zero_points: Value | None = None,
) -> Value:  # fmt: skip
    """Slices of (code - zero point) * scale, by blocks of the table's last axis, in scales' type.

    Codes in bytes of u8 are packed along that axis, as their zero points are.
    """
    bits, block, rank = node["bits"], node["block_size"], table.type.rank
    packed = table.type.dtype is DType.u8
    supported(bits in (2, 4, 8) if packed else bits == 4, f"tables of {bits} bits of {table.type}")
    axis = axis_of(node["gather_axis"], rank)
    is_last = axis_of(node["quantize_axis"], rank) == rank - 1
    supported(is_last and axis < rank - 1, "blocks along another axis than the last, or gathered")
    valid(block > 0 and scales.type.rank == rank, f"scales {scales.type} of blocks of {block}")

    def rows(x: Value) -> Value:
        return gathered(c, x, indices, axis)

    def numbers(x: Value) -> Value:
        return c.cast(unpacked(c, rows(x), bits) if packed else rows(x), DType.f32)

    codes, scale = numbers(table), c.cast(rows(scales), DType.f32)
    *outer, blocks = scale.type.shape
    require_equal(table.type.shape[axis], scales.type.shape[axis], "rows and those of the scales")
    zero = c.constant(1 << (bits - 1) if packed else 0, DType.f32)
    if zero_points is not None:
        zero = leading(c, numbers(zero_points), fixed(blocks, "the blocks of a row"))
    size = fixed(codes.type.shape[-1], "a row of the table")
    valid(blocks == -(-size // block), f"{blocks} scales for rows of {size} in blocks of {block}")

    def wide(p: Value) -> Value:
        if not p.type.rank:
            return p
        each = c.broadcast(c.reshape(p, [*outer, blocks, 1]), [*outer, blocks, block])
        return leading(c, c.reshape(each, [*outer, blocks * block]), size)

    return c.cast(c.mul(c.sub(codes, wide(zero)), wide(scale)), scales.type.dtype)


GATHER_BLOCK_QUANTIZED = (
    gather_block_quantized,
    Signature(
        3,
        4,
        attributes={"bits": 4, "block_size": 128, "gather_axis": 0, "quantize_axis": 1},
        dtypes=(DType.u8, DType.i4, DType.u4),
        limits="blocks are of the last axis, which is not gathered",
    ),
)

MATMUL_NBITS = (
    matmul_nbits,
    Signature(
        3,
        6,
        attributes={
            "K": int,
            "N": int,
            "bits": 4,
            "block_size": int,
            "accuracy_level": 0,
            "weight_prepacked": 0,
        },
        limits="weights of 2, 4 or 8 bits; only accuracy_level 4 rounds the activations",
    ),
)
