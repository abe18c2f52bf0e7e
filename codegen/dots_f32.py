"""The dots of f32 activations: additions and subtractions, serial in k for every row of weights.

A weight picks x, -x or +0.0, by masks on the bits of x; nothing is multiplied.
"""

from __future__ import annotations

from typing import Protocol

from tbc.codegen.dots_tile import Parts, State, Sums, Tile, iterate, zeros
from tbc.codegen.llvm_text import Function, Val, const, vec

SIGN = -(1 << 31)
"""The sign bit of an f32."""


class FloatIsa(Protocol):
    """How a machine adds f32 activations as weights decide, a lane for a row of weights."""

    def weights(self, f: Function, w: Val) -> Val:
        """The dwords of the unit at w, <16 x i32>; `picks` knows what was done to them."""

    def activation(self, f: Function, tile: Tile, x: Val) -> Val:
        """The activation at x, as `add` takes it."""

    def picks(self, f: Function, tile: Tile, dwords: Val, lane: int) -> Parts:
        """What decides on the activation of byte `lane`, whose field is now the lowest."""

    def add(self, f: Function, tile: Tile, sums: Val, picks: Parts, x: Val) -> Val:
        """The <16 x float> sums plus x, minus x, or plus 0."""


def float_tile(isa: FloatIsa, f: Function, tile: Tile, x: Val, w: Parts) -> Sums:
    """The sums of f32 activations, serial in k; the loop over the fields shifts them down."""
    bits, lanes = tile.layout.coding.bits, tile.layout.lanes_k
    places = [(m, n) for m in range(tile.mr) for n in range(tile.nr)]
    fields = tile.number(tile.layout.fields)

    def step(index: Val, sums: State[tuple[int, int] | int]) -> None:
        xs = tile.at(f, x, index, tile.x_unit)
        units = [tile.at(f, block, index, tile.layout.unit_bytes) for block in w]
        state = sums | {n: (isa.weights(f, unit),) for n, unit in enumerate(units)}

        def field(index: Val, state: State[tuple[int, int] | int]) -> None:
            first = tile.at(f, xs, index, 4 * lanes)
            for lane in range(lanes):
                picks = [isa.picks(f, tile, state[n][0], lane) for n in range(tile.nr)]
                for m in range(tile.mr):
                    activation = isa.activation(
                        f, tile, tile.at(f, first, m, tile.x_stride, 4 * lane)
                    )
                    for n, pick in enumerate(picks):
                        state[m, n] = (isa.add(f, tile, state[m, n][0], pick, activation),)
            for n in range(tile.nr):
                dwords = state[n][0]
                state[n] = (f.op("lshr", dwords, const(dwords.type, bits)),)

        state = iterate(f, tile.number(0), fields, state, field)
        sums |= {place: state[place] for place in places}

    start: State[tuple[int, int] | int] = {
        place: zeros(vec("float", tile.layout.rows)) for place in places
    }
    sums = iterate(f, tile.number(0), tile.number(tile.steps), start, step)
    return [[sums[m, n][0] for n in range(tile.nr)] for m in range(tile.mr)]


def sign_mask(f: Function, tile: Tile, inverted: Val, position: int) -> Val:
    """The sign bit where the weight at `position` is -1 (or 0, whose sum is masked elsewhere)."""
    to_top = const(inverted.type, 32 - tile.layout.coding.bits - position)
    return f.op("and", f.op("shl", inverted, to_top), const(inverted.type, SIGN))


class Masked:
    """Vectors of any length: sign and zero masks made of the inverted bits of the weights."""

    def weights(self, f: Function, w: Val) -> Val:
        """Inverted."""
        dwords = f.load("<16 x i32>", w, 64)
        return f.op("xor", dwords, const(dwords.type, -1))

    def activation(self, f: Function, tile: Tile, x: Val) -> Val:
        """Its bits, repeated."""
        return f.splat(f.load("i32", x, 4), tile.layout.rows)

    def picks(self, f: Function, tile: Tile, dwords: Val, lane: int) -> Parts:
        """The sign mask; for trits, also which of them are not 0."""
        flip = sign_mask(f, tile, dwords, tile.position(lane))
        if tile.layout.code == "b1":
            return (flip,)
        bit = f.op("and", dwords, const(dwords.type, 1 << tile.position(lane)))
        return flip, f.icmp("ne", bit, const(dwords.type, 0))

    def add(self, f: Function, tile: Tile, sums: Val, picks: Parts, x: Val) -> Val:
        """Where there are mask registers, the sum is left alone: it is never -0.0."""
        flip, *kept = picks
        term = f.op("xor", x, flip)
        predicated = tile.target.arch == "riscv" or "avx512f" in tile.target.features
        if kept and not predicated:
            term = f.select(kept[0], term, const(term.type, 0))
        total = f.op("fadd", sums, f.cast("bitcast", term, sums.type))
        return f.select(kept[0], total, sums) if kept and predicated else total


GROUP = 4
"""Rows of weights that scalar code computes together, so that they share its activations."""


def floats_tile(f: Function, tile: Tile, x: Val, w: Parts) -> Sums:
    """The sums of one activation row and one block, in scalar code."""
    (first,) = w
    out = f.alloca("float", tile.layout.rows, 4)
    with f.loop(tile.number(0), tile.number(tile.layout.rows), GROUP) as group:
        words = [tile.at(f, first, group.index, 4, 4 * row) for row in range(GROUP)]
        for row, total in enumerate(_group(f, tile, x, words)):
            f.store(total, tile.at(f, out, group.index, 4, 4 * row), 4)
    return [[f.load(vec("float", tile.layout.rows), out, 4)]]


def _group(f: Function, tile: Tile, x: Val, words: list[Val]) -> list[Val]:
    """The sums of the rows whose dwords in the first unit are at `words`."""
    bits, lanes = tile.layout.coding.bits, tile.layout.lanes_k

    def step(index: Val, sums: State[int]) -> None:
        at = (tile.at(f, word, index, tile.layout.unit_bytes) for word in words)
        inverted = (f.op("xor", f.load("i32", place, 4), const("i32", -1)) for place in at)
        state = {row: (word, *sums[row]) for row, word in enumerate(inverted)}
        xs = tile.at(f, x, index, tile.x_unit)

        def field(index: Val, state: State[int]) -> None:
            first = tile.at(f, xs, index, 4 * lanes)
            for lane in range(lanes):
                value = f.load("float", f.offset(first, tile.number(4 * lane)), 4)
                activation = f.cast("bitcast", value, "i32")
                for row, (word, total) in state.items():
                    state[row] = (word, _added(f, tile, total, word, lane, activation))
            for row, (word, total) in state.items():
                state[row] = (f.op("lshr", word, const(word.type, bits)), total)

        state = iterate(f, tile.number(0), tile.number(tile.layout.fields), state, field)
        sums |= {row: (total,) for row, (_, total) in state.items()}

    start = {row: zeros("float") for row in range(len(words))}
    sums = iterate(f, tile.number(0), tile.number(tile.steps), start, step)
    return [total for (total,) in sums.values()]


def _added(f: Function, tile: Tile, total: Val, word: Val, lane: int, x: Val) -> Val:
    """The sum plus what a weight picks of the bits x; its dword is inverted."""
    position = tile.position(lane)
    bits = f.op("xor", x, sign_mask(f, tile, word, position))
    if tile.layout.code == "i2":
        to_top = f.op("shl", word, const("i32", 31 - position))
        bits = f.op("and", bits, f.op("ashr", to_top, const("i32", 31)))
    return f.op("fadd", total, f.cast("bitcast", bits, "float"))
