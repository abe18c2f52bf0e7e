"""i8mm: usmmla multiplies 2 rows of weights and 2 of activations, 8 along k; usdot is for one.

A row's 8 weights are two dwords of the layout, side by side. Packed weights of two units along k
are zipped before their fields are read, and activations likewise; in a panel, dwords lie side by
side from the start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from tbc.codegen.dots_neon import VECTOR, Dot4, activations
from tbc.codegen.dots_tile import (
    Parts,
    State,
    Sums,
    Tile,
    concat,
    integer_tile,
    iterate,
    rescaled,
    whole,
    zeros,
)
from tbc.codegen.llvm_text import Function, Val, const, vec

PAIR = 8
"""Weights of a row that an instruction multiplies."""

MOST_FIELDS = 5
"""Of codes that usmmla multiplies without a panel."""

_Key: TypeAlias = tuple[int, int, int, int]
"""Pair of activation rows, block, pair of weight rows, scale of the fields that are summed."""

USDOT, USMMLA = Dot4(name="usdot"), Dot4(name="usmmla")
"""How weights are read, and one row of activations multiplied, or two."""


def i8mm_tile(f: Function, tile: Tile, x: Val, w: Parts, steps: Val | None = None) -> Sums:
    """The exact sums of a tile, as `integer_tile`; `steps` are given for panels only.

    The activations of more than `MOST_FIELDS` fields, by twos, would take the sums' registers.
    """
    alone = tile.mr == 1 or len(tile.fields) > MOST_FIELDS
    if alone and not tile.layout.coding.is_of_panels:
        return integer_tile(USDOT, f, tile, x, w)
    mmla = _Mmla(f, tile, x, w)
    pairs = tile.layout.rows // 2
    keys = [
        (p, n, v, scale)
        for p in range(-(-tile.mr // 2))
        for n in range(tile.nr)
        for v in range(pairs)
        for scale in mmla.scales
    ]
    sums: State[_Key] = {key: zeros("<4 x i32>") for key in keys}
    if tile.layout.coding.is_of_panels:
        sums = mmla.panel(sums, steps or tile.number(tile.steps))
    else:
        sums = mmla.packed(sums)
    return [[mmla.rows(sums, m, n) for n in range(tile.nr)] for m in range(tile.mr)]


@dataclass(frozen=True)
class _Mmla:
    f: Function
    tile: Tile
    x: Val
    w: Parts

    @property
    def scales(self) -> list[int]:
        """Of the fields."""
        return sorted({field.scale for field in self.tile.fields})

    # -- panels -----------------------------------------------------------------------------------

    def panel(self, sums: State[_Key], steps: Val) -> State[_Key]:
        """Add `steps` dwords along k: 4 at a time, then 2, of which one may be missing."""
        f, number = self.f, self.tile.number
        most = whole(f, self.tile, number(0), steps, 4)
        sums = iterate(f, number(0), most, sums, self._four, 4)
        if most == steps:
            return sums

        def rest(index: Val, sums: State[_Key]) -> None:
            after = f.op("add nsw", index, number(1))
            is_whole = f.icmp("slt", after, steps)
            second = f.select(is_whole, after, index)

            def row(m: int) -> Parts:
                first, last = (
                    f.load("i32", self.tile.at(f, self._row(m), at, 4), 4) for at in (index, second)
                )
                return first, f.select(is_whole, last, const("i32", 0))

            self._pair(index, 0, self._couples(row), sums)

        return iterate(f, most, steps, sums, rest, 2)

    def _four(self, index: Val, sums: State[_Key]) -> None:
        """Add 4 dwords along k."""
        for pair in range(2):

            def row(m: int, pair: int = pair) -> Parts:
                start = self.tile.at(self.f, self._row(m), index, 4)
                return (self.f.load("i64", self.tile.at(self.f, start, pair, PAIR), 4),)

            self._pair(index, pair, self._couples(row), sums)

    def _pair(self, index: Val, pair: int, xs: list[Val], sums: State[_Key]) -> None:
        """Add the two dwords along k of a panel that are `pair` pairs behind an index."""
        tile, unit = self.tile, self.tile.layout.unit_bytes
        for n, block in enumerate(self.w):
            start = tile.at(self.f, tile.at(self.f, block, index, unit), pair, 2 * unit)
            for v in range(tile.layout.rows // 2):
                weights = self.f.load("<16 x i8>", tile.at(self.f, start, v, VECTOR), VECTOR)
                self._add(sums, n, v, 0, weights, xs)

    # -- packed weights ---------------------------------------------------------------------------

    def packed(self, sums: State[_Key]) -> State[_Key]:
        """Add all units of packed weights: two at a time, and the one that is left over."""
        number, steps = self.tile.number, self.tile.steps
        even = steps // 2 * 2
        sums = iterate(self.f, number(0), number(even), sums, self._two_units, 2)
        if even < steps:
            self._units(number(even), 1, sums)
        return sums

    def _two_units(self, index: Val, sums: State[_Key]) -> None:
        self._units(index, 2, sums)

    def _units(self, index: Val, units: int, sums: State[_Key]) -> None:
        """Add two units, or one beside zeros."""
        f, tile, coding = self.f, self.tile, self.tile.layout.coding
        rows = [self._zipped_row(m, index, units) for m in range(tile.mr)]

        def field_of_row(q: int, m: int) -> Parts:
            return (f.extract(rows[m][q // 2], q % 2),)

        xs = [self._couples(partial(field_of_row, q)) for q in range(len(tile.fields))]
        for n, block in enumerate(self.w):
            unit = tile.at(f, block, index, tile.layout.unit_bytes)
            for at in range(0, tile.layout.unit_bytes, VECTOR):
                one = f.load("<4 x i32>", tile.at(f, unit, at), VECTOR)
                two = const("<4 x i32>", 0)
                if units == 2:
                    two = f.load("<4 x i32>", tile.at(f, unit, at + tile.layout.unit_bytes), VECTOR)
                for half, zipped in enumerate(self._zip(one, two)):
                    numbers = USDOT.numbers(f, coding, f.cast("bitcast", zipped, "<16 x i8>"))
                    for q, (number, shift, scale) in enumerate(tile.fields):
                        weights = USDOT.field(f, numbers[number][0], shift, tile.mask << scale)
                        self._add(sums, n, at // PAIR + half, scale, weights, xs[q])

    def _zipped_row(self, m: int, index: Val, units: int) -> Parts:
        """<2 x i64>s: of every field the dword of the first unit beside that of the second."""
        f, tile = self.f, self.tile
        start = tile.at(f, self._row(m), index, tile.x_unit)
        one = activations(f, start, tile.x_unit)
        two = activations(f, tile.at(f, start, tile.x_unit), tile.x_unit) if units == 2 else one
        zipped = (half for a, b in zip(one, two, strict=True) for half in self._zip(a, b))
        return tuple(f.cast("bitcast", half, "<2 x i64>") for half in zipped)

    def _zip(self, one: Val, two: Val) -> Parts:
        """The dwords of both by turns."""
        return tuple(self.f.shuffle(one, two, lanes) for lanes in ([0, 4, 1, 5], [2, 6, 3, 7]))

    # -- both -------------------------------------------------------------------------------------

    def _couples(self, row: Callable[[int], Parts]) -> list[Val]:
        """<16 x i8>s: every two rows beside each other; the last one may be there twice."""
        found = []
        for m in range(0, self.tile.mr, 2):
            parts = row(m) + row(min(m + 1, self.tile.mr - 1))
            both = Val(vec(parts[0].type, len(parts)), "poison")
            for lane, part in enumerate(parts):
                both = self.f.insert(both, part, lane)
            found.append(self.f.cast("bitcast", both, "<16 x i8>"))
        return found

    def _row(self, m: int) -> Val:
        return self.tile.at(self.f, self.x, m, self.tile.x_stride)

    def _add(
        self, sums: State[_Key], n: int, v: int, scale: int, weights: Val, xs: list[Val]
    ) -> None:
        """Add a vector of weights times each pair of activation rows."""
        for p, x in enumerate(xs):
            sums[p, n, v, scale] = USMMLA.dot(self.f, sums[p, n, v, scale], weights, x)

    def rows(self, sums: State[_Key], m: int, n: int) -> Val:
        """<16 x i32>: the sums of activation row m with block n."""
        p, odd, f = m // 2, m % 2, self.f
        parts = []
        for v in range(self.tile.layout.rows // 2):
            parts.append(rescaled(f, [(sums[p, n, v, scale][0], scale) for scale in self.scales]))
        lanes = [odd, 2 + odd, 4 + odd, 6 + odd]
        return concat(
            f, [f.shuffle(a, b, lanes) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        )


def store_pairs(f: Function, tile: Tile, out: Val, dwords: list[list[Val]]) -> None:
    """Write codes as `i8mm_tile` reads them: dwords along k side by side, two by two.

    `dwords` are vectors of bytes, of each dword along k those of all rows.
    """
    name = "llvm.aarch64.neon.st2.v4i32.p0"
    for number in range(0, len(dwords), 2):
        for v, one in enumerate(dwords[number]):
            two = dwords[min(number + 1, len(dwords) - 1)][v]
            at = tile.at(f, out, number * tile.layout.unit_bytes + 2 * v * VECTOR)
            words = [f.cast("bitcast", part, "<4 x i32>") for part in (one, two)]
            f.intrinsic("void", name, *words, at)
