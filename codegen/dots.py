"""Matrix products with packed low-bit weights: every kernel of `tbc.kernels` as LLVM IR.

Row blocks of weights are the outer loop, so that a block stays in the cache while all activation
rows pass; tiles of the kernel's mr x nr cover the range, smaller ones its edges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

from tbc.codegen import dots_neon, dots_x86
from tbc.codegen.dots_f32 import Masked, float_tile, floats_tile
from tbc.codegen.dots_portable import Wide, words_tile
from tbc.codegen.dots_tile import State, Sums, Tile, integer_tile, iterate, zeros
from tbc.codegen.llvm_text import Function, Val, const, lanes_of
from tbc.kernels import Kernel
from tbc.layout import Layout
from tbc.target import Target

Epilogue: TypeAlias = Callable[[Function, Val, Val, Val], None]
"""(f, activation row, first of 16 output rows, <16 x i32> or <16 x float>): emits the consumer.

The rows may lie beyond the last one, where the last block is padded.
"""

TileEmitter: TypeAlias = Callable[[Function, Tile, Val, Val], Sums]

EMITTERS: dict[str, TileEmitter] = {
    **{name: partial(integer_tile, isa) for name, isa in (dots_x86.ISAS | dots_neon.ISAS).items()},
    **{name: partial(integer_tile, Wide()) for name in ("wide", "neon32")},
    "scalar": words_tile,
    "f32avx2": partial(float_tile, dots_x86.Permuted()),
    **{name: partial(float_tile, Masked()) for name in ("f32x4", "f32x8", "f32x16")},
    "f32": floats_tile,
}
"""By the name of the kernel's dot."""


TileSums: TypeAlias = Callable[[int, int, Val, Val], Sums]
"""(mr, nr, first activation row, first block) -> the tile's sums."""


def emit_dot(
    f: Function,
    kernel: Kernel,
    layout: Layout,
    k: int,
    *,
    target: Target,
    x: Val,
    x_stride: int,
    packed: Val,
    m_lo: Val,
    m_hi: Val,
    block_lo: Val,
    block_hi: Val,
    epilogue: Epilogue,
    index: str,
) -> None:
    """Emit `PackedDot`'s sums of activation rows m_lo..m_hi and row blocks block_lo..block_hi.

    Args:
        f: the function to append to.
        kernel: from `tbc.kernels.choose`, for this target, code and k.
        layout: how `packed` lies in memory.
        k: weights of a row.
        target: what the code is for.
        x: activations, i8 or f32 [m, x_stride] with k padded as `layout.padded_k`, zeros in the
            padding; 4-byte aligned.
        x_stride: elements between activation rows, a multiple of the layout's unit.
        packed: the weights' bytes, 64-byte aligned.
        m_lo: first activation row.
        m_hi: behind the last activation row.
        block_lo: first block of 16 output rows.
        block_hi: behind the last block.
        epilogue: emits what becomes of 16 sums, the rows that pad the last block among them.
        index: the type of indices, "i32" or "i64".
    """
    _check(kernel, layout, k, target, x_stride)
    steps = layout.padded_k(k) // layout.unit_k
    tiles = _tiles(kernel, layout, k, target, x_stride, steps, index)

    def sums(mr: int, nr: int, m: Val, block: Val) -> Sums:
        tile = tiles(mr, nr)
        rows, blocks = tile.at(f, x, m, tile.x_stride), tile.at(f, packed, block, tile.w_stride)
        return EMITTERS[kernel.dot.name](f, tile, rows, blocks)

    _cover(f, tiles(1, 1), (m_lo, m_hi), (block_lo, block_hi), sums, epilogue)


def emit_grouped_dot(
    f: Function,
    kernel: Kernel,
    layout: Layout,
    k: int,
    *,
    target: Target,
    x: Val,
    x_stride: int,
    packed: Val,
    scales: Val,
    xsum: Val | None,
    x_scales: Val | None,
    m_lo: Val,
    m_hi: Val,
    block_lo: Val,
    block_hi: Val,
    epilogue: Epilogue,
    index: str,
) -> None:
    """Emit `PackedGroupedDot`: sum_g s * (xs * f32(c * raw_g - xsum_g)), g ascending from +0.0.

    The arguments are those of `emit_dot`, the epilogue consumes <16 x float>, and:

    Args:
        scales: f32 [blocks, groups, 16].
        xsum: the sums of x, i32 [m, groups]; None for f32 activations, whose term is s * raw_g.
        x_scales: xs, f32 [m, groups]; None where it is 1.
    """
    _check(kernel, layout, k, target, x_stride)
    groups = k // (layout.group or k)
    steps = layout.padded_k(k) // layout.unit_k // groups
    tiles = _tiles(kernel, layout, k, target, x_stride, steps, index)

    def sums(mr: int, nr: int, m: Val, block: Val) -> Sums:
        tile = tiles(mr, nr)
        rows, blocks = tile.at(f, x, m, tile.x_stride), tile.at(f, packed, block, tile.w_stride)
        row_scales = tile.at(f, scales, block, groups * _SCALES)
        row_sums = None if xsum is None else tile.at(f, xsum, m, groups * 4)
        row_x_scales = None if x_scales is None else tile.at(f, x_scales, m, groups * 4)

        def group(g: Val, totals: State[tuple[int, int]]) -> None:
            xs = tile.at(f, rows, g, steps * tile.x_unit)
            ws = tile.at(f, blocks, g, steps * layout.unit_bytes)
            raw = EMITTERS[kernel.dot.name](f, tile, xs, ws)
            scale = tile.at(f, row_scales, g, _SCALES)
            s = [_load_f32(f, tile.at(f, scale, n, groups * _SCALES)) for n in range(nr)]
            sum_of_x = None if row_sums is None else tile.at(f, row_sums, g, 4)
            scale_of_x = None if row_x_scales is None else tile.at(f, row_x_scales, g, 4)
            for i in range(mr):
                terms = _centred(f, tile, raw[i], sum_of_x, i * groups * 4)
                if scale_of_x is not None:
                    one = f.load("float", tile.at(f, scale_of_x, i * groups * 4), 4)
                    terms = [_lanewise(f, target, "fmul", f.splat(one, 16), t) for t in terms]
                for j, term in enumerate(terms):
                    scaled = _lanewise(f, target, "fmul", s[j], term)
                    totals[i, j] = (_lanewise(f, target, "fadd", totals[i, j][0], scaled),)

        start = {(i, j): zeros("<16 x float>") for i in range(mr) for j in range(nr)}
        totals = iterate(f, tile.number(0), tile.number(groups), start, group)
        return [[totals[i, j][0] for j in range(nr)] for i in range(mr)]

    _cover(f, tiles(1, 1), (m_lo, m_hi), (block_lo, block_hi), sums, epilogue)


_SCALES = 64
"""Bytes of the scales of a block and group."""


def _check(kernel: Kernel, layout: Layout, k: int, target: Target, x_stride: int) -> None:
    """LLVM aborts the process on an instruction that the CPU lacks, so assert before it does."""
    assert kernel.dot.runs_on(target), (kernel.name, target)
    assert kernel.code == layout.code, (kernel.name, layout)
    assert k <= kernel.max_k, (kernel.name, k)
    assert x_stride % layout.unit_k == 0, (layout, x_stride)
    assert layout.padded_k(k) <= x_stride, (layout, k, x_stride)


def _tiles(
    kernel: Kernel,
    layout: Layout,
    k: int,
    target: Target,
    x_stride: int,
    steps: int,
    index: str,
) -> Callable[[int, int], Tile]:
    """(mr, nr) -> that tile of the kernel, over `steps` units of k."""
    x_bytes, w_bytes = x_stride * kernel.activations.bytes, layout.block_bytes(k)
    return lambda mr, nr: Tile(kernel, layout, target, mr, nr, steps, x_bytes, w_bytes, index)


def _spans(f: Function, lo: Val, hi: Val, size: int) -> Iterator[tuple[Val, int]]:
    """(first, size) of spans that cover lo..hi: as many of `size` as fit, then single ones."""
    if size > 1:
        with f.loop(lo, f.op("sub nsw", hi, const(hi.type, size - 1)), size) as loop:
            yield loop.index, size
        lo = loop.index
    with f.loop(lo, hi) as loop:
        yield loop.index, 1


def _cover(
    f: Function,
    one: Tile,
    m: tuple[Val, Val],
    blocks: tuple[Val, Val],
    sums: TileSums,
    epilogue: Epilogue,
) -> None:
    """Compute and consume all tiles.

    Larger tiles pass their sums through the stack, so that the epilogue is emitted once for each.
    """
    kernel, align = one.kernel, max(16, one.target.vector_bytes)
    tiled = kernel.mr * kernel.nr > 1
    stack = f.alloca("i8", 64 * kernel.mr * kernel.nr, align) if tiled else None
    for block, nr in _spans(f, *blocks, kernel.nr):
        for row, mr in _spans(f, *m, kernel.mr):
            tile = sums(mr, nr, row, block)
            if stack is None or mr * nr == 1:
                epilogue(f, row, f.op("mul nsw", block, one.number(16)), tile[0][0])
                continue
            for number, acc in enumerate(acc for row_sums in tile for acc in row_sums):
                f.store(acc, one.at(f, stack, 64 * number), align)
            for i in _each(f, one, mr):
                for j in _each(f, one, nr):
                    place = f.op("add nsw", f.op("mul nsw", i, one.number(nr)), j)
                    acc = f.load(tile[0][0].type, one.at(f, stack, place, 64), align)
                    first = f.op("mul nsw", f.op("add nsw", block, j), one.number(16))
                    epilogue(f, f.op("add nsw", row, i), first, acc)


def _each(f: Function, tile: Tile, count: int) -> Iterator[Val]:
    """0 .. count, in a loop if there is more than one."""
    if count == 1:
        yield tile.number(0)
        return
    with f.loop(tile.number(0), tile.number(count)) as loop:
        yield loop.index


def _load_f32(f: Function, ptr: Val) -> Val:
    return f.load("<16 x float>", ptr, 4)


def _centred(f: Function, tile: Tile, raw: list[Val], xsum: Val | None, at: int) -> list[Val]:
    """f32(c * raw - xsum), or raw where the activations are f32."""
    if xsum is None:
        return raw
    subtrahend = f.splat(f.load("i32", tile.at(f, xsum, at), 4), 16)
    if tile.layout.code == "b1":
        raw = [f.op("add", sum, sum) for sum in raw]
    return [f.cast("sitofp", f.op("sub", sum, subtrahend), "<16 x float>") for sum in raw]


def _lanewise(f: Function, target: Target, opcode: str, a: Val, b: Val) -> Val:
    """A float operation on vectors; lane by lane where the target's vectors are not IEEE's."""
    if target.vector_bytes > 4:
        return f.op(opcode, a, b)
    result = Val(a.type, "poison")
    for lane in range(lanes_of(a.type)):
        result = f.insert(result, f.op(opcode, f.extract(a, lane), f.extract(b, lane)), lane)
    return result
