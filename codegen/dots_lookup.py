"""Integer dots without a multiplication: sums of activations, looked up by the bits of weights.

Four bits of a byte are two trits or four signs. For each place that they can stand in, a table
holds the sums of the activations that they may select, made by additions and read by all rows of a
block. It is the method of the four Russians (Arlazarov and others, 1970), which LUT-GEMM (arXiv
2206.09557) and T-MAC (arXiv 2407.00088) use for low-bit weights.
"""

from __future__ import annotations

from tbc.codegen.dots_tile import Parts, Sums, Tile
from tbc.codegen.llvm_text import Function, Val, const, vec

INDEX_BITS = 4
"""Bits of a byte that are looked up together."""
_TABLE = 2 << INDEX_BITS
"""Bytes of a table, whose sums fit in 16 bits."""


def lookup_tile(f: Function, tile: Tile, x: Val, w: Parts) -> Sums:
    """8-bit activations, in scalar code: one activation row and one block."""
    layout, number = tile.layout, tile.number
    places = [(lane, half) for half in (0, INDEX_BITS) for lane in range(layout.lanes_k)]
    tables = f.alloca("i8", _TABLE * len(places))
    sums = f.alloca("i32", layout.rows)
    f.store(const(vec("i32", layout.rows), 0), sums, 16)
    with f.loop(number(0), number(tile.steps)) as step:
        xs = tile.at(f, x, step.index, tile.x_unit)
        unit = tile.at(f, w[0], step.index, layout.unit_bytes)
        for place, (lane, half) in enumerate(places):
            _fill(f, tile, xs, lane, half, f.offset(tables, number(_TABLE * place)))
        with f.loop(number(0), number(layout.rows)) as row:
            dword = f.load("i32", tile.at(f, unit, row.index, layout.lanes_k), 4)
            at = tile.at(f, sums, row.index, 4)
            total = f.load("i32", at, 4)
            for place, (lane, half) in enumerate(places):
                bits = f.op("lshr", dword, const("i32", tile.position(lane) + half))
                index = f.op("and", bits, const("i32", (1 << INDEX_BITS) - 1))
                if tile.index != "i32":
                    index = f.cast("zext", index, tile.index)
                table = f.offset(tables, number(_TABLE * place))
                entry = f.load("i16", tile.at(f, table, index, 2), 2)
                total = f.op("add", total, f.cast("sext", entry, "i32"))
            f.store(total, at, 4)
    return [[f.load(vec("i32", layout.rows), sums, 16)]]


def _fill(f: Function, tile: Tile, xs: Val, lane: int, half: int, table: Val) -> None:
    """Write the sums that `INDEX_BITS` bits from `half` on of a byte in `lane` can select."""
    coding, lanes = tile.layout.coding, tile.layout.lanes_k
    values: list[Val] = []
    """What each bit stands for."""
    for field in range(half // coding.bits, (half + INDEX_BITS) // coding.bits):
        byte = f.load("i8", tile.at(f, xs, field * lanes + lane), 1)
        one = f.cast(tile.extends, byte, "i16")
        values += [
            f.op("shl", one, const("i16", bit)) if bit else one for bit in range(coding.bits)
        ]
    entries = {0: const("i16", 0)}
    for word in range(1, 1 << INDEX_BITS):
        top = word.bit_length() - 1
        rest = word ^ 1 << top
        if rest in entries and _is_possible(word, coding.bits, coding.levels):
            entries[word] = f.op("add", entries[rest], values[top]) if rest else values[top]
    for word, entry in entries.items():
        f.store(entry, tile.at(f, table, 2 * word), 2)


def _is_possible(word: int, bits: int, levels: int) -> bool:
    """Whether every field of some bits is a code."""
    fields = (word >> at & (1 << bits) - 1 for at in range(0, INDEX_BITS, bits))
    return all(field < levels for field in fields)
