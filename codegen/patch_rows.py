"""Rows of 8-bit activations that a dot takes one by one: brought together, and summed."""

from __future__ import annotations

from collections.abc import Iterator

from tbc import ops
from tbc.codegen.dots_thumb import halves_of
from tbc.codegen.expressions import Emitter
from tbc.codegen.llvm_text import Function, Val, const
from tbc.codegen.loops import Share, accesses, is_run, nest
from tbc.codegen.moves import bytes_at_once, move, reads
from tbc.dims import Dim, product
from tbc.indices import Index, reshape_index
from tbc.ir import Value
from tbc.patches import patches_of
from tbc.program import reshapes
from tbc.target import Target

WORD = "i32"
HALVES = 128
"""Words whose bytes can be summed in two halves of 16 bits: 128 * 2 * 255 is below 2^16."""


def gather_patch(e: Emitter, x: Value, number: Val, to: Val, target: Target) -> None:
    """Store the k elements of row `number` of x, which are a patch, one behind the other."""
    whole = patches_of(x)
    assert whole is not None
    patches, axes = whole.values, whole.axes
    if isinstance(x.op, ops.Pad) and patches not in e.memory:
        (rows, _) = x.args
        if any(value in e.memory for value in reshapes(rows)):
            patches, axes = rows, 1
    shape = patches.type.shape
    lead, tail = shape[:axes], shape[axes:]
    with e.split(number, lead) as head:

        def position(index: Index) -> Dim:
            (at,) = reshape_index(tail, (product(tail),), index)
            return at

        def probe(index: Index) -> Iterator[Dim | None]:
            yield position(index)
            yield from accesses(e, patches, (*head, *index))

        def visit(index: Index) -> None:
            place = e.f.offset(to, e.index(position(index)))
            if e.lanes == 1:
                e.f.store(e.element(patches, (*head, *index)), place, 1)
                return
            move(e, patches, (*head, *index), place)

        def source(index: Index) -> Iterator[Dim | None]:
            yield from reads(e, patches, (*head, *index))

        lanes = bytes_at_once(target) if is_run(tail, probe, source) else 1
        nest(e, tail, Share.whole(e), probe, visit, lanes)


def widen(f: Function, row: Val, to: Val, width: int, unsigned: bool, index: str) -> Val:
    """i32: the sum of i8 or u8 [width] at `row`, a multiple of 16, which are stored for smlad.

    It takes halves of 16 bits: of each four bytes, 0 and 2 and then 1 and 3. The row may be the
    second half of where they go.
    """
    with f.loop(const(index, 0), const(index, width), 16, (const(WORD, 0),)) as loop:
        source = f.offset(row, loop.index)
        place = f.offset(to, f.op("mul nsw", loop.index, const(index, 2)))
        (total,) = loop.carried
        for number in range(0, 16, 4):
            dword = f.load(WORD, f.offset(source, const(index, number)), 4)
            total = _add_bytes(f, dword, unsigned, total)
            for odd in (0, 8):
                at = f.offset(place, const(index, 2 * number + odd // 2))
                f.store(halves_of(f, dword, odd, unsigned), at, 4)
        loop.yield_(total)
    return _signed_sum(f, loop.results[0], width, unsigned)


def row_sum(f: Function, row: Val, width: int, unsigned: bool, target: Target, index: str) -> Val:
    """i32: the sum of i8 or u8 [width], a multiple of 4 (of 16 where there is Helium) at `row`.

    Bytes with a sign are summed as b + 128, of which 128 * width is taken in the end.
    """
    if "mve" in target.features:
        return _by_vectors(f, row, width, unsigned, index)
    total = _by_words if target.arch == "arm" and "dsp" in target.features else _by_halves
    return _signed_sum(f, total(f, row, width // 4, unsigned, index), width, unsigned)


def _signed_sum(f: Function, total: Val, width: int, unsigned: bool) -> Val:
    """A sum of bytes; of those with a sign, out of that of b + 128."""
    return total if unsigned else f.op("sub", total, const(WORD, 128 * width))


def _without_sign(f: Function, word: Val, unsigned: bool) -> Val:
    """The bytes of a word; of those with a sign, b + 128."""
    return word if unsigned else f.op("xor", word, const(WORD, 0x80808080))


def _add_bytes(f: Function, word: Val, unsigned: bool, total: Val) -> Val:
    """usada8: a sum, and the four bytes of a word."""
    word = _without_sign(f, word, unsigned)
    return f.intrinsic(WORD, "llvm.arm.usada8", word, const(WORD, 0), total)


def _by_vectors(f: Function, row: Val, width: int, unsigned: bool, index: str) -> Val:
    """vaddva: 16 bytes at a time."""
    bytes_, wide = "<16 x i8>", "<16 x i32>"
    with f.loop(const(index, 0), const(index, width), 16, (const(WORD, 0),)) as loop:
        part = f.load(bytes_, f.offset(row, loop.index), 4)
        part = f.cast("zext" if unsigned else "sext", part, wide)
        sum = f.intrinsic(WORD, "llvm.vector.reduce.add.v16i32", part)
        loop.yield_(f.op("add", loop.carried[0], sum))
    return loop.results[0]


def _load(f: Function, row: Val, number: Val) -> Val:
    return f.load(WORD, f.offset(row, number, WORD), 4)


def _by_words(f: Function, row: Val, words: int, unsigned: bool, index: str) -> Val:
    """usada8: the four bytes of a word."""
    with f.loop(const(index, 0), const(index, words), carried=(const(WORD, 0),)) as loop:
        word = _load(f, row, loop.index)
        loop.yield_(_add_bytes(f, word, unsigned, loop.carried[0]))
    return loop.results[0]


def _by_halves(f: Function, row: Val, words: int, unsigned: bool, index: str) -> Val:
    """Two bytes at a time, in any order of bytes."""
    mask, end = const(WORD, 0x00FF00FF), const(index, words)
    with f.loop(const(index, 0), end, HALVES, (const(WORD, 0),)) as chunk:
        stop = f.op("add nsw", chunk.index, const(index, HALVES))
        stop = end if words <= HALVES else f.select(f.icmp("slt", stop, end), stop, end)
        with f.loop(chunk.index, stop, carried=(const(WORD, 0),)) as loop:
            word = _without_sign(f, _load(f, row, loop.index), unsigned)
            odd = f.op("and", f.op("lshr", word, const(WORD, 8)), mask)
            both = f.op("add", f.op("and", word, mask), odd)
            loop.yield_(f.op("add", loop.carried[0], both))
        (halves,) = loop.results
        low, high = f.op("and", halves, const(WORD, 0xFFFF)), f.op("lshr", halves, const(WORD, 16))
        chunk.yield_(f.op("add", chunk.carried[0], f.op("add", low, high)))
    return chunk.results[0]
