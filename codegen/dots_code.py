"""Weights as code: blocks of rows as functions without loops (`tbc.straight`)."""

from __future__ import annotations

from functools import partial

from tbc.codegen.llvm_text import Function, Val, const
from tbc.straight import Core, Pair, Trits, core_of, pairs
from tbc.target import Target

MOST_COLUMNS = 512
"""Of a function: longer ones take LLVM too long."""


def emit_code(f: Function, w: Trits, row: Val, out: Val, target: Target, extends: str) -> None:
    """Calls of functions that store w[n, k] times a row of 8-bit x[k], as i32[n].

    In one function all blocks would be more than registers hold.

    `extends` is the cast that widens an element of x.
    """
    core, (n, k) = core_of(target), w.shape
    for first in range(0, n, core.rows):
        to = f.offset(out, const("i32", 4 * first))
        for column in range(0, k, MOST_COLUMNS):
            part = w[first : first + core.rows, column : column + MOST_COLUMNS]
            name = f"{f.name}_rows{first}" + (f"_from{column}" if column else "")
            emit = partial(_emit_block, w=part, core=core, adds=column > 0, extends=extends)
            name = f.module.routine(name, [("ptr", "x"), ("ptr", "out")], emit)
            f.call("void", name, f.offset(row, const("i32", column)), to)


def _emit_block(f: Function, w: Trits, core: Core, adds: bool, extends: str) -> None:
    """In a function of x and out: the sums of a block, added to what is there if it `adds`."""
    x, out = f.args
    places = [f.offset(out, const("i32", 4 * row)) for row in range(len(w))]
    sums = [f.load("i32", place, 4) if adds else const("i32", 0) for place in places]
    never, is_there = f.fresh("never"), f.icmp("ne", x, Val("ptr", "null"))
    for number, pair in enumerate(pairs(w)):
        if core.chunk and number and number % core.chunk == 0:
            following = f.fresh("next")
            f.do(f"br {is_there}, label %{following}, label %{never}")
            f.label(following)
        _pair(f, pair, x, sums, extends)
    for place, total in zip(places, sums, strict=True):
        f.store(total, place, 4)
    if core.chunk:
        f.do("ret void")
        f.label(never)


def _pair(f: Function, pair: Pair, x: Val, sums: list[Val], extends: str) -> None:
    """Add two activations to the sums."""

    def load(column: int) -> Val:
        byte = f.load("i8", f.offset(x, const("i32", column)), 1)
        return f.cast(extends, byte, "i32")

    of, used = {}, pair.used
    if used & {"a", "s", "d"}:
        of["a"] = load(pair.column)
    if used & {"b", "s", "d"}:
        of["b"] = load(pair.column + 1)
    for name, opcode in (("s", "add"), ("d", "sub")):
        if name in used:
            of[name] = f.op(opcode, of["a"], of["b"])
    for term in pair.terms:
        opcode = "add" if term.sign > 0 else "sub"
        sums[term.row] = f.op(opcode, sums[term.row], of[term.of])
