"""Integer dots by AMX: tile registers of 16 rows by 64 bytes, over a panel of bytes.

A step is 64 along k: two tiles of 16 activation rows against two of 16 weight rows, whose bytes
lie in a panel just as tdpbsud wants them, 4 neighbouring k of a row of weights in a dword. Four
tiles of sums stay in registers along a panel, and lie in memory between panels.

The registers belong to a thread. Their shapes are set anew for each panel, because the last rows
and the last k are fewer, and given up behind the last one: so nothing is expected of who calls, and
the system has no tiles to save when threads change.
"""

from __future__ import annotations

from dataclasses import dataclass

from tbc.codegen.dots_tile import Parts, Tile
from tbc.codegen.llvm_text import Function, Val, const

ROWS = 16
"""Of a tile register."""
DEPTH = 64
"""Bytes of a row of one: the k of a step."""

_SUMS = ((0, 1), (2, 3))
"""Registers of sums, by tile of activations and tile of weights."""
_X = (4, 5)
_W = (6, 7)


def _register(number: int) -> Val:
    return const("i8", number)


@dataclass(frozen=True)
class Tiles:
    """The part of a panel's work that AMX does.

    Attributes:
        tile: the packed weights' tile, with as many blocks as the panel has.
        config: 64 bytes of stack for `ldtilecfg`.
        x: the first activation row, at the panel's first k.
        w: the panel's blocks.
        sums: of the first activation row, which is followed by the others'.
    """

    tile: Tile
    config: Val
    x: Val
    w: Parts
    sums: Val

    def add(self, f: Function, count: Val, depth: Val) -> None:
        """Add the products of `count` activation rows, and `depth` along k, to the sums."""
        number = self.tile.number
        rest = f.op("urem", depth, number(DEPTH))
        whole = f.op("sub nsw", depth, rest)
        with f.loop(number(0), number(2)) as part:
            is_whole = f.icmp("eq", part.index, number(0))
            first = f.select(is_whole, number(0), whole)
            last = f.select(is_whole, whole, depth)
            with f.when(f.icmp("slt", first, last)):
                self._rows(f, count, first, last, f.select(is_whole, number(DEPTH), rest))

    def _rows(self, f: Function, count: Val, first: Val, last: Val, depth: Val) -> None:
        """All rows, for k from `first` to `last` in steps of `depth` each."""
        number = self.tile.number
        sixteen, pair = number(ROWS), number(2 * ROWS)
        left = f.op("urem", count, pair)
        whole = f.op("sub nsw", count, left)
        with f.when(f.icmp("slt", number(0), whole)):
            _configure(f, self.config, (sixteen, sixteen), depth)
            with f.loop(number(0), whole, 2 * ROWS) as row:
                self._tile(f, 2, row.index, first, last)
        with f.when(f.icmp("slt", sixteen, left)):
            _configure(f, self.config, (sixteen, f.op("sub nsw", left, sixteen)), depth)
            self._tile(f, 2, whole, first, last)
        one = f.op("and", f.icmp("slt", number(0), left), f.icmp("sle", left, sixteen))
        with f.when(one):
            _configure(f, self.config, (left, left), depth)
            self._tile(f, 1, whole, first, last)

    def _configure(self, f: Function, rows: tuple[Val, Val], depth: Val) -> None:
        """Give every register its rows and bytes a row; the registers are zeroed."""
        rows = (f.cast("trunc", rows[0], "i8"), f.cast("trunc", rows[1], "i8"))
        dwords = f.cast("trunc", f.op("udiv", depth, self.tile.number(4)), "i8")
        whole = const("i16", DEPTH)
        shapes = {register: (rows[i], whole) for i in (0, 1) for register in _SUMS[i]}
        shapes |= {_X[i]: (rows[i], f.cast("trunc", depth, "i16")) for i in (0, 1)}
        shapes |= dict.fromkeys(_W, (dwords, whole))
        f.store(const("<64 x i8>", 0), self.config, DEPTH)
        f.store(const("i8", 1), self.config, DEPTH)  # the palette: 8 registers of 1 KiB
        for register, (height, width) in shapes.items():
            f.store(width, self.tile.at(f, self.config, 16 + 2 * register), 2)
            f.store(height, self.tile.at(f, self.config, 48 + register), 1)
        f.intrinsic("void", "llvm.x86.ldtilecfg", self.config)

    def _tile(self, f: Function, heights: int, row: Val, first: Val, last: Val) -> None:
        """Add to the sums of one or two tiles of rows, and of every block."""
        tile = self.tile
        blocks = range(tile.nr)
        sums = tile.at(f, self.sums, row, DEPTH * tile.nr)
        stride = const("i64", DEPTH * tile.nr)
        places = {
            _SUMS[i][j]: tile.at(f, sums, DEPTH * (i * ROWS * tile.nr + j))
            for i in range(heights)
            for j in blocks
        }
        for register, place in places.items():
            f.intrinsic("void", "llvm.x86.tileloadd64", _register(register), place, stride)
        rows = tile.at(f, self.x, row, tile.x_stride)
        with f.loop(first, last, DEPTH) as k:
            x = f.offset(rows, k.index)
            xs = [tile.at(f, x, i * ROWS * tile.x_stride) for i in range(heights)]
            ws = [tile.at(f, block, k.index, tile.layout.rows) for block in self.w]
            self._step(f, xs, ws)
        for register, place in places.items():
            f.intrinsic("void", "llvm.x86.tilestored64", _register(register), place, stride)

    def _step(self, f: Function, xs: list[Val], ws: list[Val]) -> None:
        """One step along k; each register is loaded right before the first product needs it."""
        for i, x in enumerate(xs):
            self._load(f, _X[i], x, self.tile.x_stride)
            for j, w in enumerate(ws):
                if i == 0:
                    self._load(f, _W[j], w, DEPTH)
                operands = (_register(r) for r in (_SUMS[i][j], _X[i], _W[j]))
                f.intrinsic("void", "llvm.x86.tdpbsud", *operands)

    def _load(self, f: Function, register: int, at: Val, stride: int) -> None:
        f.intrinsic("void", "llvm.x86.tileloadd64", _register(register), at, const("i64", stride))


def _configure(f: Function, config: Val, rows: tuple[Val, Val], depth: Val) -> None:
    """Give every register its rows and bytes a row; the registers are zeroed."""
    rows = (f.cast("trunc", rows[0], "i8"), f.cast("trunc", rows[1], "i8"))
    dwords = f.cast("trunc", f.op("udiv", depth, const(depth.type, 4)), "i8")
    whole = const("i16", DEPTH)
    shapes = {register: (rows[i], whole) for i in (0, 1) for register in _SUMS[i]}
    shapes |= {_X[i]: (rows[i], f.cast("trunc", depth, "i16")) for i in (0, 1)}
    shapes |= dict.fromkeys(_W, (dwords, whole))
    f.store(const("<64 x i8>", 0), config, DEPTH)
    f.store(const("i8", 1), config, DEPTH)  # the palette: 8 registers of 1 KiB
    for register, (height, width) in shapes.items():
        f.store(width, f.offset(config, const("i32", 16 + 2 * register)), 2)
        f.store(height, f.offset(config, const("i32", 48 + register)), 1)
    f.intrinsic("void", "llvm.x86.ldtilecfg", config)


PEAK = 2 * 2 * ROWS * ROWS * DEPTH
"""Multiply-adds of a round of `peak`."""


def peak(f: Function, rounds: Val) -> None:
    """A loop of nothing but products of registers, by every register of sums."""
    config = f.alloca("i8", DEPTH, DEPTH)
    sixteen = const(rounds.type, ROWS)
    _configure(f, config, (sixteen, sixteen), const(rounds.type, DEPTH))
    with f.loop(const(rounds.type, 0), rounds):
        for i in (0, 1):
            for j in (0, 1):
                operands = (_register(r) for r in (_SUMS[i][j], _X[i], _W[j]))
                f.intrinsic("void", "llvm.x86.tdpbsud", *operands)
    release(f)


def release(f: Function) -> None:
    """Give the registers up."""
    f.intrinsic("void", "llvm.x86.tilerelease")
