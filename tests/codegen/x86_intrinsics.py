"""Intrinsics of x86 that this machine may lack, as functions of plain LLVM IR.

A kernel's text, with its intrinsics exchanged for these, runs on any x86-64: the same loops over
the same addresses, and instructions that do what Intel's manual (SDM, volume 2) says of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from tbc.codegen.llvm_text import Function, Module, Val, const, elem_of, lanes_of, with_elem

TILES = 8
ROWS, ROW_BYTES = 16, 64
"""Of a tile, in palette 1."""


def _every(f: Function, a: Val, step: int, first: int) -> Val:
    """Lanes first, first + step, … of a."""
    lanes = range(first, lanes_of(a.type), step)
    return f.shuffle(a, a, lanes) if len(lanes) > 1 else f.extract(a, first)


def _products(f: Function, a: Val, b: Val, opcodes: tuple[str, str], group: int) -> Val:
    """i32 sums of `group` neighbouring products."""
    wide = with_elem(a.type, "i32")
    products = f.op("mul", f.cast(opcodes[0], a, wide), f.cast(opcodes[1], b, wide))
    total = _every(f, products, group, 0)
    for number in range(1, group):
        total = f.op("add", total, _every(f, products, group, number))
    return total


def _vpdpbusd(f: Function) -> Val:
    total, u, s = f.args
    return f.op("add", total, _products(f, u, s, ("zext", "sext"), 4))


def _pmaddubsw(f: Function) -> Val:
    u, s = f.args
    sums = _products(f, u, s, ("zext", "sext"), 2)
    for bound, name in ((-32768, "sgt"), (32767, "slt")):
        limit = const(sums.type, bound)
        sums = f.select(f.icmp(name, sums, limit), sums, limit)
    return f.cast("trunc", sums, f.ret)


def _pmaddwd(f: Function) -> Val:
    a, b = f.args
    return _products(f, a, b, ("sext", "sext"), 2)


def _vpermb(f: Function) -> Val:
    table, index = f.args
    index = f.op("and", index, const(index.type, lanes_of(table.type) - 1))
    result = Val(f.ret, "poison")
    for lane in range(lanes_of(f.ret)):
        at = f.extract(index, lane)
        one = f.emit(elem_of(f.ret), f"extractelement {table}, {at}")
        result = f.insert(result, one, lane)
    return result


VECTORS: dict[str, Callable[[Function], Val]] = {
    r"avx512\.vpdpbusd\.(128|256|512)": _vpdpbusd,
    r"avx512\.pmaddubs\.w\.512": _pmaddubsw,
    r"avx512\.pmaddw\.d\.512": _pmaddwd,
    r"avx512\.permvar\.qi\.512": _vpermb,
}
"""By the name behind `llvm.x86.`."""


# -- tiles ----------------------------------------------------------------------------------------

_STATE = f"""
@emulated.tiles = internal global [{TILES * ROWS * ROW_BYTES} x i8] zeroinitializer, align 64
@emulated.config = internal global [64 x i8] zeroinitializer, align 64
"""
_TILES, _CONFIG = Val("ptr", "@emulated.tiles"), Val("ptr", "@emulated.config")


def _i64(value: int) -> Val:
    return const("i64", value)


def _tile(f: Function, number: Val) -> Val:
    number = f.cast("zext", number, "i64")
    return f.offset(_TILES, f.op("mul", number, _i64(ROWS * ROW_BYTES)))


def _shape(f: Function, number: Val) -> tuple[Val, Val]:
    """Rows, and bytes of a row; a trap where the tile, or any, is not configured."""
    number = f.cast("zext", number, "i64")
    colsb = f.load("i16", f.offset(_CONFIG, f.op("add", f.op("mul", number, _i64(2)), _i64(16))), 1)
    rows = f.load("i8", f.offset(_CONFIG, f.op("add", number, _i64(48))), 1)
    palette = f.load("i8", _CONFIG, 1)
    _trap_unless(f, f.icmp("eq", palette, const("i8", 1)))
    _trap_unless(f, f.icmp("ne", rows, const("i8", 0)))
    _trap_unless(f, f.icmp("ne", colsb, const("i16", 0)))
    return f.cast("zext", rows, "i64"), f.cast("zext", colsb, "i64")


def _trap_unless(f: Function, holds: Val) -> None:
    with f.when(f.op("xor", holds, const("i1", 1))):
        f.intrinsic("void", "llvm.trap")


def _zero(f: Function, at: Val, size: int) -> None:
    with f.loop(_i64(0), _i64(size)) as loop:
        f.store(const("i8", 0), f.offset(at, loop.index), 1)


def _ldtilecfg(f: Function) -> None:
    (at,) = f.args
    with f.loop(_i64(0), _i64(64)) as loop:
        f.store(f.load("i8", f.offset(at, loop.index), 1), f.offset(_CONFIG, loop.index), 1)
    for tile in range(TILES):
        rows, colsb = _shape(f, const("i8", tile))
        _trap_unless(f, f.icmp("ule", rows, _i64(ROWS)))
        _trap_unless(f, f.icmp("ule", colsb, _i64(ROW_BYTES)))
    _zero(f, _TILES, TILES * ROWS * ROW_BYTES)


def _tilerelease(f: Function) -> None:
    _zero(f, _CONFIG, 64)
    _zero(f, _TILES, TILES * ROWS * ROW_BYTES)


def _tilezero(f: Function) -> None:
    _shape(f, f.args[0])
    _zero(f, _tile(f, f.args[0]), ROWS * ROW_BYTES)


def _copy(f: Function, is_load: bool) -> None:
    """Rows between a tile and memory; what a load leaves out of the tile becomes 0."""
    number, at, stride = f.args
    rows, colsb = _shape(f, number)
    tile = _tile(f, number)
    if is_load:
        _zero(f, tile, ROWS * ROW_BYTES)
    with f.loop(_i64(0), rows) as row, f.loop(_i64(0), colsb) as byte:
        inside = f.op("add", f.op("mul", row.index, _i64(ROW_BYTES)), byte.index)
        outside = f.op("add", f.op("mul", row.index, stride), byte.index)
        places = [f.offset(at, outside), f.offset(tile, inside)]
        source, target = places if is_load else places[::-1]
        f.store(f.load("i8", source, 1), target, 1)


def _tileload(f: Function) -> None:
    _copy(f, is_load=True)


def _tilestore(f: Function) -> None:
    _copy(f, is_load=False)


def _tdp(opcodes: tuple[str, str]) -> Callable[[Function], None]:
    def emit(f: Function) -> None:
        numbers = f.args
        c, a, b = (_tile(f, number) for number in numbers)
        (rows, c_bytes), (a_rows, a_bytes), (b_rows, b_bytes) = (_shape(f, n) for n in numbers)
        _trap_unless(f, f.icmp("eq", rows, a_rows))
        _trap_unless(f, f.icmp("eq", c_bytes, b_bytes))
        _trap_unless(f, f.icmp("eq", a_bytes, f.op("mul", b_rows, _i64(4))))
        columns = f.op("udiv", c_bytes, _i64(4))

        def dword(tile: Val, row: Val, column: Val) -> Val:
            at = f.op("add", f.op("mul", row, _i64(16)), column)
            return f.offset(tile, at, "i32")

        with (
            f.loop(_i64(0), rows) as m,
            f.loop(_i64(0), b_rows) as k,
            f.loop(_i64(0), columns) as n,
        ):
            x = f.load("<4 x i8>", dword(a, m.index, k.index), 4)
            w = f.load("<4 x i8>", dword(b, k.index, n.index), 4)
            at = dword(c, m.index, n.index)
            product = _products(f, x, w, opcodes, 4)
            f.store(f.op("add", f.load("i32", at, 4), product), at, 4)

    return emit


TILE_OPS: dict[str, Callable[[Function], None]] = {
    "ldtilecfg": _ldtilecfg,
    "tilerelease": _tilerelease,
    "tilezero": _tilezero,
    "tileloadd64": _tileload,
    "tilestored64": _tilestore,
    "tdpbssd": _tdp(("sext", "sext")),
    "tdpbsud": _tdp(("sext", "zext")),
}
"""Whose registers are a global of the module: for one thread."""


def emulated(text: str) -> str:
    """The module with functions in place of those intrinsics of x86 that are above.

    Raises:
        AssertionError: it has other ones of AVX-512, AVX-VNNI or AMX.
    """
    module = Module("")
    found = re.findall(r"(?m)^declare (.+) @llvm\.x86\.([\w.]+)\((.*)\)$", text)
    for ret, name, formal in found:
        emit = next((e for n, e in VECTORS.items() if re.fullmatch(n, name)), TILE_OPS.get(name))
        if emit is None:
            assert not re.match(r"avx512|t(ile|dp)|.*tile", name), name
            continue
        types = re.findall(r"<[^>]*>|\w+", formal)
        args = [(type, f"a{number}") for number, type in enumerate(types)]
        f = Function(module, f"emulated.{name}", args, ret)
        result = emit(f)
        if result is not None:
            f.do(f"ret {result}")
        f.finish()
        text = text.replace(f"declare {ret} @llvm.x86.{name}({formal})\n", "")
        text = text.replace(f"@llvm.x86.{name}(", f"@emulated.{name}(")
    new = [line for line in module.text().splitlines() if not line.startswith("target ")]
    helpers = [line for line in new if not (line.startswith("declare") and line in text)]
    state = _STATE if any(name in TILE_OPS for _, name, _ in found) else ""
    return text + state + "\n".join(helpers) + "\n"
