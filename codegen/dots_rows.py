"""How the activation rows of a dot are divided into tiles of about equal height."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from tbc.codegen.llvm_text import Function, Val, const

LONGEST = 512
"""Ranges of numbers of rows up to this long are gone through one by one."""


@contextmanager
def shares(f: Function, total: Val, size: int) -> Iterator[tuple[Val, Val]]:
    """A loop over the fewest parts of `total` with at most `size` each, as even as can be.

    Yields the first element of a part and how many it has.
    """
    type = total.type
    one, most = const(type, 1), const(type, size)
    parts = f.op("udiv", f.op("add nsw", total, const(type, size - 1)), most)
    divisor = f.select(f.icmp("slt", parts, one), one, parts)
    each = f.op("udiv", total, divisor)
    larger = f.op("sub nsw", total, f.op("mul nsw", each, divisor))
    with f.loop(const(type, 0), parts) as loop:
        is_larger = f.icmp("slt", loop.index, larger)
        before = f.select(is_larger, loop.index, larger)
        first = f.op("add nsw", f.op("mul nsw", loop.index, each), before)
        yield first, f.op("add nsw", each, f.cast("zext", is_larger, type))


def sizes_of_shares(totals: Iterable[int], size: int) -> frozenset[int]:
    """The sizes that the parts of some totals have in `shares`."""
    found: set[int] = set()
    for total in totals:
        parts = -(-total // size)
        if parts:
            found |= {total // parts, -(-total // parts)}
    return frozenset(found)


def heights(rows: tuple[int, int], size: int, blocks: int = 0) -> frozenset[int]:
    """The heights of tiles of at most `size` rows, for from rows[0] to rows[1] rows in all.

    With `blocks`, rows are first divided into blocks of at most that many.
    """
    least, most = rows
    if most - least > LONGEST:
        return frozenset(range(1, size + 1))
    totals: Iterable[int] = range(least, most + 1)
    return sizes_of_shares(sizes_of_shares(totals, blocks) if blocks else totals, size)


@contextmanager
def row_tiles(
    f: Function,
    lo: Val,
    hi: Val,
    size: int,
    heights: frozenset[int],
    compute: Callable[[Val, int], None],
) -> Iterator[tuple[Val, Val]]:
    """A loop over tiles that cover lo..hi; yields the first row and the height, once computed.

    `compute(row, height)` emits the tile of each height that there can be.
    """
    if size == 1:
        with f.loop(lo, hi) as loop:
            compute(loop.index, 1)
            yield loop.index, const(lo.type, 1)
        return
    with shares(f, f.op("sub nsw", hi, lo), size) as (first, height):
        row = f.op("add nsw", lo, first)
        for possible in sorted(heights):
            if len(heights) == 1:
                compute(row, possible)
                continue
            with f.when(f.icmp("eq", height, const(height.type, possible))):
                compute(row, possible)
        yield row, height
