"""Matrix products with packed low-bit weights: every kernel of `tbc.kernels` as LLVM IR.

Row blocks of weights are the outer loop, so that a block stays in the cache while all activation
rows pass; tiles of the kernel's mr x nr cover the range, smaller ones its edges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import TypeAlias

from tbc.codegen import (
    dots_add,
    dots_amx,
    dots_neon,
    dots_riscv,
    dots_sve,
    dots_wasm,
    dots_x86,
)
from tbc.codegen.dots_f32 import Masked, float_tile, floats_tile
from tbc.codegen.dots_lookup import lookup_tile
from tbc.codegen.dots_mmla import USDOT, i8mm_tile, store_pairs
from tbc.codegen.dots_panel import Panel, Panels, Take
from tbc.codegen.dots_portable import Wide
from tbc.codegen.dots_rows import heights, row_tiles
from tbc.codegen.dots_scalar import Pairs, Rows, rows_tile
from tbc.codegen.dots_thumb import Helium, Smlad
from tbc.codegen.dots_tile import (
    Parts,
    State,
    Sums,
    Tile,
    integer_tile,
    iterate,
    lanewise,
    zeros,
)
from tbc.codegen.llvm_text import Function, Val, const, vec
from tbc.kernels import BY_NAME, Kernel
from tbc.layout import Layout
from tbc.target import Target
from tbc.types import DType

Epilogue: TypeAlias = Callable[[Function, Val, Val, Val], None]
"""(f, activation row, first of `piece_of` output rows, i32 or float of them): emits the consumer.

The rows may lie beyond the last one, where the last block is padded.
"""

TileEmitter: TypeAlias = Callable[[Function, Tile, Val, Parts], Sums]
"""(f, tile, the first activation row, each block) -> the tile's sums."""

_ISAS = dots_x86.ISAS | dots_neon.ISAS | dots_riscv.ISAS | dots_wasm.ISAS | dots_add.ISAS
_SVE = {"sve": "sdot", "svei8mm": "usdot"}
"""The instructions of the dots whose vectors are scalable."""
_ROWS: dict[str, type[Rows]] = {
    **dict.fromkeys(("scalar", "pairs"), Pairs),
    "smlad": Smlad,
    "helium": Helium,
}
"""The dots whose sums are scalars, and so may go to memory one by one."""
EMITTERS: dict[str, TileEmitter] = {
    **{name: partial(integer_tile, isa) for name, isa in _ISAS.items()},
    **{name: partial(integer_tile, Wide()) for name in ("wide", "neon32")},
    "i8mm": i8mm_tile,
    **{dot: partial(dots_sve.sve_tile, name) for dot, name in _SVE.items()},
    **{name: partial(rows_tile, kind) for name, kind in _ROWS.items()},
    "lookup": lookup_tile,
    "f32avx2": partial(float_tile, dots_x86.Permuted()),
    **{name: partial(float_tile, Masked()) for name in ("f32x4", "f32x8", "f32x16")},
    "f32": floats_tile,
}
"""By the name of the kernel's dot."""
_UNPACK = dots_x86.ISAS["vbmi512"]
_PANELS: dict[str, Panel] = {
    **{
        name: Panel(isa, partial(integer_tile, isa))
        for name, isa in (dots_x86.ISAS | dots_neon.ISAS).items()
    },
    **{name: Panel(_UNPACK, partial(integer_tile, _UNPACK)) for name in ("amx", "amxvbmi")},
    "i8mm": Panel(USDOT, i8mm_tile, store_pairs, together=2),
}
"""How the dots that can have them go over panels, of blocks of 16 rows; of tile registers, how they
are unpacked."""


TileSums: TypeAlias = Callable[[int, Val, Parts], Sums]
"""(mr, first activation row, blocks) -> the sums of that tile."""

Compute: TypeAlias = Callable[[int, Val, Parts, Val], None]
"""(mr, first activation row, blocks, where to): store the sums of that tile."""


def is_routine(kernel: str) -> bool:
    """Whether the loops over k of a kernel are a function that steps call."""
    return BY_NAME[kernel].dot.name in _ROWS


def piece_of(target: Target) -> int:
    """How many rows of weights an epilogue is given at once: one where code should be small."""
    return 1 if target.is_small else 16


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
    rows: tuple[int, int],
    block_lo: Val,
    block_hi: Val,
    epilogue: Epilogue,
    index: str,
    unsigned: bool = False,
    halves: bool = False,
) -> None:
    """Emit `PackedDot`'s sums of activation rows m_lo..m_hi and row blocks block_lo..block_hi.

    Args:
        f: the function to append to.
        kernel: from `tbc.kernels.choose`, for this target, code and k.
        layout: how `packed` lies in memory.
        k: weights of a row.
        target: what the code is for.
        x: activations, i8, u8 or f32 [m, x_stride] with k padded as `layout.padded_k`, zeros in the
            padding; 4-byte aligned.
        x_stride: elements between activation rows, a multiple of the layout's unit.
        packed: the weights' bytes, 64-byte aligned.
        m_lo: first activation row.
        m_hi: behind the last activation row.
        rows: the least and the greatest m_hi - m_lo.
        block_lo: first block of output rows.
        block_hi: behind the last block.
        epilogue: emits what becomes of 16 sums, the rows that pad the last block among them.
        index: the type of indices, "i32" or "i64".
        unsigned: whether the activations are u8.
        halves: whether the one row of them has been widened for smlad.
    """
    _check(kernel, layout, k, target, x_stride)
    kernel = kernel.suited(target)
    assert kernel.dot.unsigned or not unsigned, kernel.name
    steps = layout.padded_k(k) // layout.unit_k
    tiles = _tiles(kernel, layout, target, x_stride, steps, index, unsigned, halves)
    if kernel.panel:
        whole = tiles(kernel.mr, kernel.nr)
        panels = Panels.on_stack(f, _PANELS[kernel.dot.name], whole, rows)
        for columns in _streams(f, block_lo, block_hi, kernel.nr):
            ws = tuple(whole.at(f, packed, block, layout.block_bytes(k)) for block in columns)
            panels.cover(f, x, ws, (m_lo, m_hi), _by_column(f, whole, columns, epilogue))
        if kernel.has_tiles:
            dots_amx.release(f)
        return

    if kernel.dot.scalable:

        def take(row: Val, block: Val, acc: Val) -> None:
            epilogue(f, row, f.op("mul nsw", block, const(index, layout.rows)), acc)

        name, blocks = _SVE[kernel.dot.name], (block_lo, block_hi)
        dots_sve.cover(name, f, tiles, x, packed, (m_lo, m_hi), rows, blocks, take)
        return

    def compute(mr: int, m: Val, blocks: Parts, out: Val) -> None:
        tile = tiles(mr, len(blocks))
        ws = tuple(tile.at(f, packed, block, layout.block_bytes(k)) for block in blocks)
        row = tile.at(f, x, m, tile.x_stride)
        if kind := _ROWS.get(kernel.dot.name):
            kind.call(f, tile, row, ws[0], out)
        else:
            _store(f, tile, EMITTERS[kernel.dot.name](f, tile, row, ws), out)

    element = "float" if kernel.activations is DType.f32 else "i32"
    _cover(f, tiles(1, 1), (m_lo, m_hi), rows, (block_lo, block_hi), compute, element, epilogue)


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
    rows: tuple[int, int],
    block_lo: Val,
    block_hi: Val,
    epilogue: Epilogue,
    index: str,
) -> None:
    """Emit `PackedGroupedDot`: sum_g s * (xs * f32(c * raw_g - xsum_g)), g ascending from +0.0.

    The arguments are those of `emit_dot`, the epilogue consumes floats, and:

    Args:
        scales: f32 [blocks, groups, rows of a block].
        xsum: the sums of x, i32 [m, groups]; None for f32 activations, whose term is s * raw_g.
        x_scales: xs, f32 [m, groups]; None where it is 1.
    """
    _check(kernel, layout, k, target, x_stride)
    kernel = kernel.suited(target)
    groups = k // (layout.group or k)
    steps = layout.padded_k(k) // layout.unit_k // groups
    tiles = _tiles(kernel, layout, target, x_stride, steps, index)
    n, scale_bytes = layout.rows, layout.rows * 4

    def terms(m: Val, blocks: Parts) -> Callable[[Val, Sums], Sums]:
        """(group, its raw sums) -> its terms, of the activation rows from m on."""
        tile = tiles(1, len(blocks))
        row_scales = [tile.at(f, scales, block, groups * scale_bytes) for block in blocks]
        row_sums = None if xsum is None else tile.at(f, xsum, m, groups * 4)
        row_x_scales = None if x_scales is None else tile.at(f, x_scales, m, groups * 4)

        def of_group(g: Val, raw: Sums) -> Sums:
            places = (tile.at(f, scale, g, scale_bytes) for scale in row_scales)
            s = [f.load(vec("float", n), place, 4) for place in places]
            sum_of_x = None if row_sums is None else tile.at(f, row_sums, g, 4)
            scale_of_x = None if row_x_scales is None else tile.at(f, row_x_scales, g, 4)
            found = []
            for i, row in enumerate(raw):
                row = _centred(f, tile, row, sum_of_x, i * groups * 4)
                if scale_of_x is not None:
                    one = f.load("float", tile.at(f, scale_of_x, i * groups * 4), 4)
                    row = [lanewise(f, target, "fmul", f.splat(one, n), t) for t in row]
                found.append(
                    [lanewise(f, target, "fmul", *pair) for pair in zip(s, row, strict=True)]
                )
            return found

        return of_group

    if kernel.panel:
        whole = tiles(kernel.mr, kernel.nr)
        panels = Panels.on_stack(f, _PANELS[kernel.dot.name], whole, rows, groups)
        for columns in _streams(f, block_lo, block_hi, kernel.nr):
            ws = tuple(whole.at(f, packed, block, layout.block_bytes(k)) for block in columns)
            take = _by_column(f, whole, columns, epilogue)
            of_blocks = partial(terms, blocks=columns)
            panels.cover(f, x, ws, (m_lo, m_hi), take, of_blocks)
        return

    def sums(mr: int, m: Val, blocks: Parts) -> Sums:
        tile, nr = tiles(mr, len(blocks)), len(blocks)
        rows = tile.at(f, x, m, tile.x_stride)
        starts = [tile.at(f, packed, block, layout.block_bytes(k)) for block in blocks]
        of_group = terms(m, blocks)

        def group(g: Val, totals: State[tuple[int, int]]) -> None:
            xs = tile.at(f, rows, g, steps * tile.x_unit)
            ws = tuple(tile.at(f, w, g, steps * layout.unit_bytes) for w in starts)
            found = of_group(g, EMITTERS[kernel.dot.name](f, tile, xs, ws))
            for i, j in totals:
                totals[i, j] = (lanewise(f, target, "fadd", totals[i, j][0], found[i][j]),)

        start = {(i, j): zeros(vec("float", n)) for i in range(mr) for j in range(nr)}
        totals = iterate(f, tile.number(0), tile.number(groups), start, group)
        return [[totals[i, j][0] for j in range(nr)] for i in range(mr)]

    def compute(mr: int, m: Val, blocks: Parts, out: Val) -> None:
        _store(f, tiles(1, 1), sums(mr, m, blocks), out)

    _cover(f, tiles(1, 1), (m_lo, m_hi), rows, (block_lo, block_hi), compute, "float", epilogue)


def _check(kernel: Kernel, layout: Layout, k: int, target: Target, x_stride: int) -> None:
    """LLVM aborts the process on an instruction that the CPU lacks, so assert before it does."""
    assert kernel.dot.runs_on(target), (kernel.name, target)
    assert layout == kernel.layout(layout.group), (kernel.name, layout)
    assert k <= kernel.max_k, (kernel.name, k)
    assert x_stride % layout.unit_k == 0, (layout, x_stride)
    assert layout.padded_k(k) <= x_stride, (layout, k, x_stride)


def _tiles(
    kernel: Kernel,
    layout: Layout,
    target: Target,
    x_stride: int,
    steps: int,
    index: str,
    *activations: bool,
) -> Callable[[int, int], Tile]:
    """(mr, nr) -> that tile of the kernel, over `steps` units of k."""
    x_bytes = x_stride * kernel.activations.bytes
    return lambda mr, nr: Tile(kernel, layout, target, mr, nr, steps, x_bytes, index, *activations)


def _streams(f: Function, lo: Val, hi: Val, count: int) -> Iterator[Parts]:
    """The blocks of tiles that cover lo..hi: `count` at a time as far as they go, then one.

    Those of a tile are far apart, so that a tile after the other reads `count` long runs of memory:
    several such streams together are read faster than one. Their distance is odd, since at powers
    of two they would all meet in the same few places of the caches.
    """
    one = const(lo.type, 1)
    if count > 1:
        tiles = f.op("udiv", f.op("sub nsw", hi, lo), const(lo.type, count))
        apart = f.op("or", f.op("sub nsw", tiles, one), one)
        apart = f.select(f.icmp("slt", apart, tiles), apart, tiles)
        far = f.op("mul nsw", apart, const(lo.type, count))
        with f.loop(const(lo.type, 0), tiles) as loop:
            within = f.icmp("slt", loop.index, apart)
            beyond = f.op("mul nsw", f.op("sub nsw", loop.index, apart), const(lo.type, count))
            first = f.select(within, loop.index, f.op("add nsw", far, beyond))
            step = f.select(within, apart, one)
            blocks = [f.op("add nsw", lo, first)]
            while len(blocks) < count:
                blocks.append(f.op("add nsw", blocks[-1], step))
            yield tuple(blocks)
        lo = f.op("add nsw", lo, f.op("mul nsw", tiles, const(lo.type, count)))
    with f.loop(lo, hi) as loop:
        yield (loop.index,)


def _cover(
    f: Function,
    one: Tile,
    m: tuple[Val, Val],
    rows: tuple[int, int],
    blocks: tuple[Val, Val],
    compute: Compute,
    element: str,
    epilogue: Epilogue,
) -> None:
    """Compute and consume all tiles, whose sums are of the type `element`.

    Their sums pass through the stack, so that the epilogue is emitted once for tiles of any height.
    """
    kernel, align, piece = one.kernel, _alignment(one), piece_of(one.target)
    possible, size = heights(rows, kernel.mr), 4 * one.layout.rows
    stack = f.alloca("i8", size * max(possible, default=1) * kernel.nr, align)
    for columns in _streams(f, *blocks, kernel.nr):

        def tile(row: Val, mr: int, columns: Parts = columns) -> None:
            compute(mr, row, columns, stack)

        take = _by_column(f, one, columns, epilogue)
        pieces = one.number(len(columns) * one.layout.rows // piece)
        with (
            row_tiles(f, *m, kernel.mr, possible, tile) as (row, height),
            f.loop(one.number(0), height) as i,
            f.loop(one.number(0), pieces) as j,
        ):
            place = f.op("add nsw", f.op("mul nsw", i.index, pieces), j.index)
            at = one.at(f, stack, place, 4 * piece)
            acc = f.load(vec(element, piece), at, 4 if piece == 1 else align)
            take(f.op("add nsw", row, i.index), j.index, acc)


def _alignment(tile: Tile) -> int:
    """Of sums on the stack: for their vectors, where there are any."""
    return 4 if tile.target.is_small else max(16, tile.target.vector_bytes)


def _store(f: Function, tile: Tile, sums: Sums, out: Val) -> None:
    """The sums of a tile, one behind the other."""
    for number, acc in enumerate(chain.from_iterable(sums)):
        f.store(acc, tile.at(f, out, 4 * tile.layout.rows * number), _alignment(tile))


def _by_column(f: Function, tile: Tile, columns: Parts, epilogue: Epilogue) -> Take:
    """The epilogue, told a piece by its number in the tile; blocks are equally far apart."""
    apart = f.op("sub nsw", columns[1], columns[0]) if len(columns) > 1 else tile.number(0)
    piece = piece_of(tile.target)
    pieces = tile.layout.rows // piece

    def take(row: Val, j: Val, acc: Val) -> None:
        block, within = j, j
        if pieces > 1 and len(columns) > 1:
            block, within = (f.op(part, j, tile.number(pieces)) for part in ("udiv", "urem"))
        first = columns[0]
        if len(columns) > 1:
            first = f.op("add nsw", first, f.op("mul nsw", block, apart))
        first = f.op("mul nsw", first, tile.number(tile.layout.rows))
        if pieces > 1:
            first = f.op("add nsw", first, f.op("mul nsw", within, tile.number(piece)))
        epilogue(f, row, first, acc)

    return take


def _centred(f: Function, tile: Tile, raw: list[Val], xsum: Val | None, at: int) -> list[Val]:
    """f32(c * raw - xsum), or raw where the activations are f32."""
    if xsum is None:
        return raw
    floats = vec("float", tile.layout.rows)
    subtrahend = f.splat(f.load("i32", tile.at(f, xsum, at), 4), tile.layout.rows)
    if tile.layout.code == "b1":
        raw = [f.op("add", sum, sum) for sum in raw]
    return [f.cast("sitofp", f.op("sub", sum, subtrahend), floats) for sum in raw]
