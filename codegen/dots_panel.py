"""Integer dots of many activation rows: weights are unpacked once into a panel of bytes.

A panel is a few blocks of rows by as much of k as the L1 cache holds. All activation rows pass
over it in tiles before the next one is unpacked; their sums are kept in memory in between.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

from tbc.codegen import dots_amx
from tbc.codegen.dots_rows import heights, row_tiles, shares
from tbc.codegen.dots_tile import Isa, Parts, Sums, Tile, lanewise
from tbc.codegen.llvm_text import Function, Val, const, lanes_of
from tbc.kernels import PANEL_ROWS

ALIGN = 64

Take = Callable[[Val, Val, Val], None]
"""(activation row, number of the block in the tile, its sums): emits what becomes of them."""


Add = Callable[[Function, Tile, Val, Parts, Val], Sums]
"""(f, tile of bytes, first activation row, blocks of a panel, dwords along k) -> their sums."""

Store = Callable[[Function, Tile, Val, list[list[Val]]], None]
"""(f, tile, place in the panel, vectors of codes by dword along k): writes a step's codes."""


def store_dwords(f: Function, tile: Tile, out: Val, dwords: list[list[Val]]) -> None:
    """Write codes as `integer_tile` reads them: of each dword along k those of all rows."""
    for number, vectors in enumerate(dwords):
        for v, codes in enumerate(vectors):
            size = lanes_of(codes.type)
            f.store(codes, tile.at(f, out, number * tile.layout.unit_bytes + v * size), size)


@dataclass(frozen=True)
class Panel:
    """How weights are unpacked into a panel, and what goes over it."""

    isa: Isa
    add: Add
    store: Store = store_dwords
    together: int = 1
    """Dwords along k that must lie in a panel together."""


Terms = Callable[[Val], Callable[[Val, Sums], Sums]]
"""(first activation row) -> (group, its raw sums) -> the floats that are added for it."""


@dataclass(frozen=True)
class Panels:
    """Panels for tiles of one shape.

    Attributes:
        tile: the packed weights' largest tile: all of k, mr activation rows, nr blocks.
        units: packed units along k of a panel; the last one may have fewer.
        panel: where the bytes of a panel lie: block by block, k by k.
        sums: where the sums of `PANEL_ROWS` rows by nr blocks lie; floats if there are groups.
        groups: of weights, each of which is a panel; 0 where a row is one sum.
        heights: the heights that tiles can have.
        config: room for the shapes of tile registers, if there are any.
    """

    how: Panel
    tile: Tile
    units: int
    panel: Val
    sums: Val
    heights: frozenset[int]
    config: Val | None
    groups: int

    @staticmethod
    def on_stack(
        f: Function, how: Panel, tile: Tile, rows: tuple[int, int], groups: int = 0
    ) -> Panels:
        """Panels in the frame of the function, for from rows[0] to rows[1] activation rows.

        With groups, the tile's steps are those of one.
        """
        most = tile.kernel.panel // tile.layout.unit_k
        count = 1 if groups else -(-tile.steps // most)
        units = -(-tile.steps // count)
        if tile.kernel.has_tiles:
            together = math.lcm(dots_amx.DEPTH, tile.layout.unit_k) // tile.layout.unit_k
            units = -(-units // together) * together
        size = tile.nr * units * tile.layout.unit_k * tile.layout.rows
        panel = f.alloca("i8", size, ALIGN)
        sums = f.alloca("i8", 64 * PANEL_ROWS * tile.nr, ALIGN)
        found = heights(rows, tile.kernel.mr, PANEL_ROWS)
        config = f.alloca("i8", dots_amx.DEPTH, ALIGN) if tile.kernel.has_tiles else None
        return Panels(how, tile, units, panel, sums, found, config, groups)

    def cover(
        self,
        f: Function,
        x: Val,
        w: Parts,
        m: tuple[Val, Val],
        take: Take,
        terms: Terms | None = None,
    ) -> None:
        """Compute the sums of activation rows m with the blocks at w, and take them.

        With groups, `terms` makes what is added of each group's sums.
        """
        tile = replace(self.tile, nr=len(w))
        number, lo = tile.number, m[0]
        steps = number(tile.steps * (self.groups or 1))
        with shares(f, f.op("sub nsw", m[1], lo), PANEL_ROWS) as (first, count):
            self._clear(f, tile, count)
            row = f.op("add nsw", lo, first)
            with f.loop(number(0), steps, self.units) as panel:
                left = f.op("sub nsw", steps, panel.index)
                whole = f.icmp("slt", number(self.units), left)
                units = f.select(whole, number(self.units), left)
                starts = [tile.at(f, at, panel.index, tile.layout.unit_bytes) for at in w]
                self._unpack(f, tile, starts, units)
                at = tile.at(f, tile.at(f, x, row, tile.x_stride), panel.index, tile.x_unit)
                if terms is None:
                    self._add(f, tile, at, units, count)
                else:
                    self._add_group(f, tile, at, panel.index, row, count, terms)
            self._take(f, tile, row, count, take)

    def _clear(self, f: Function, tile: Tile, count: Val) -> None:
        """Set the sums to 0."""
        with f.loop(tile.number(0), f.op("mul nsw", count, tile.number(tile.nr))) as loop:
            f.store(const("<16 x i32>", 0), tile.at(f, self.sums, loop.index, 64), ALIGN)

    def _unpack(self, f: Function, tile: Tile, starts: list[Val], units: Val) -> None:
        """Write the codes of a panel, a byte each."""
        fields, isa = tile.layout.fields, self.how.isa
        several = self.how.together // math.gcd(self.how.together, fields)
        zero, one = tile.number(0), tile.number(1)
        most = units if several == 1 else f.op("sub nsw", units, f.op("and", units, one))
        for first, last, count in ((zero, most, several), (most, units, 1))[:several]:
            with f.loop(first, last, count) as loop:
                for n, start in enumerate(starts):
                    unit = tile.at(f, start, loop.index, tile.layout.unit_bytes)
                    if isa.prefetch:
                        f.prefetch(unit, isa.prefetch)
                    out = tile.at(f, self._block(f, tile, n), loop.index, 64 * fields)
                    self.how.store(f, tile, out, self._codes(f, tile, unit, count))

    def _codes(self, f: Function, tile: Tile, unit: Val, units: int) -> list[list[Val]]:
        """Vectors of the codes of some units, by dword along k."""
        isa, layout = self.how.isa, tile.layout
        found = []
        for start in range(0, units * layout.unit_bytes, layout.unit_bytes):
            vectors = [
                isa.weights(f, layout.coding, tile.at(f, unit, start + v))
                for v in range(0, layout.unit_bytes, isa.vector)
            ]
            for number, bit in layout.coding.places:
                found.append([isa.field(f, v[number][0], bit, tile.mask) for v in vectors])
        return found

    def _block(self, f: Function, tile: Tile, n: int) -> Val:
        """Where block n of the panel begins."""
        return tile.at(f, self.panel, n * self.units * tile.layout.unit_k * tile.layout.rows)

    def _add(self, f: Function, tile: Tile, x: Val, units: Val, count: Val) -> None:
        """Add a panel's part of the sums, tile by tile."""
        w = tuple(self._block(f, tile, n) for n in range(tile.nr))
        if self.config is not None:
            depth = f.op("mul nsw", units, tile.number(tile.layout.unit_k))
            dots_amx.Tiles(tile, self.config, x, w, self.sums).add(f, count, depth)
            return
        steps = f.op("mul nsw", units, tile.number(tile.layout.fields))

        def add(row: Val, height: int) -> None:
            for at, acc in self._tile(f, tile, x, row, height, w, steps):
                f.store(f.op("add", f.load(acc.type, at, ALIGN), acc), at, ALIGN)

        self._rows(f, tile, count, add)

    def _add_group(
        self, f: Function, tile: Tile, x: Val, unit: Val, first: Val, count: Val, terms: Terms
    ) -> None:
        """Add the terms of the group that begins at a unit, tile by tile."""
        w = tuple(self._block(f, tile, n) for n in range(tile.nr))
        group = f.op("udiv", unit, tile.number(self.units))
        steps = tile.number(self.units * tile.layout.fields)

        def add(row: Val, height: int) -> None:
            places, raw = zip(*self._tile(f, tile, x, row, height, w, steps), strict=True)
            rows = [list(raw[i : i + tile.nr]) for i in range(0, len(raw), tile.nr)]
            found = terms(f.op("add nsw", first, row))(group, rows)
            for at, term in zip(places, chain.from_iterable(found), strict=True):
                total = lanewise(f, tile.target, "fadd", f.load(term.type, at, ALIGN), term)
                f.store(total, at, ALIGN)

        self._rows(f, tile, count, add)

    def _rows(self, f: Function, tile: Tile, count: Val, add: Callable[[Val, int], None]) -> None:
        """Tiles for all activation rows."""
        with row_tiles(f, tile.number(0), count, tile.kernel.mr, self.heights, add):
            pass

    def _tile(
        self, f: Function, tile: Tile, x: Val, row: Val, size: int, w: Parts, steps: Val
    ) -> Iterator[tuple[Val, Val]]:
        """A panel's part of the sums of a tile, each with the place of its sum."""
        fields = tile.layout.fields
        small = replace(
            tile,
            kernel=tile.kernel.on_bytes,
            layout=tile.kernel.on_bytes.layout(),
            mr=size,
            steps=self.units * fields,
            together=fields,
        )
        start = tile.at(f, x, row, tile.x_stride)
        sums = tile.at(f, self.sums, row, 64 * tile.nr)
        found = self.how.add(f, small, start, w, steps)
        for place, acc in enumerate(chain.from_iterable(found)):
            yield tile.at(f, sums, 64 * place), acc

    def _take(self, f: Function, tile: Tile, row: Val, count: Val, take: Take) -> None:
        with f.loop(tile.number(0), count) as i, f.loop(tile.number(0), tile.number(tile.nr)) as j:
            place = f.op("add nsw", f.op("mul nsw", i.index, tile.number(tile.nr)), j.index)
            type = "<16 x float>" if self.groups else "<16 x i32>"
            acc = f.load(type, tile.at(f, self.sums, place, 64), ALIGN)
            take(f.op("add nsw", row, i.index), j.index, acc)
