"""What instructions on constants, and trivial ones, yield."""

from __future__ import annotations

import re
from collections.abc import Callable

from tbc.codegen.llvm_text import Val, bits_of


def number(value: Val) -> int | None:
    """The value of an integer constant, if it is one."""
    if value.text in ("true", "false"):
        return int(value.text == "true")
    integer = value.type[0] == "i" or value.type == "size_t"
    return int(value.text) if integer and re.fullmatch(r"-?\d+", value.text) else None


def is_false(value: Val) -> bool:
    """Whether a value is the constant false."""
    return value.type == "i1" and number(value) == 0


_FOLDED: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
}
_COMPARED: dict[str, Callable[[int, int], bool]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "slt": lambda a, b: a < b,
    "sgt": lambda a, b: a > b,
    "sge": lambda a, b: a >= b,
    "sle": lambda a, b: a <= b,
}


def simplified(op: str, type: str, args: tuple[Val, ...], detail: str) -> Val | None:
    """What an instruction on scalars yields, if that is a constant or an operand of it."""
    if type[0] == "<" or not args:
        return None
    a, *others = args
    known = [number(v) for v in args]
    match op, known:
        case (("add" | "sub" | "mul" | "and" | "or" | "xor"), [int(x), int(y)]) if type != "i1":
            bits = bits_of(type)
            result = _FOLDED[op](x, y) & ((1 << bits) - 1)
            return Val(type, str(result - (result >> (bits - 1) << bits)))
        case "icmp", [int(x), int(y)] if detail in _COMPARED:
            return Val("i1", "true" if _COMPARED[detail](x, y) else "false")
        case "icmp", [_, 0] if detail in ("ult", "uge"):
            return Val("i1", "true" if detail == "uge" else "false")
        case (("add" | "or" | "sub" | "shl" | "lshr" | "ashr"), [_, 0]):
            return a
        case (("mul" | "udiv" | "sdiv"), [_, 1]):
            return a
        case (("add" | "or"), [0, _]):
            return others[0]
        case "mul", [1, _]:
            return others[0]
        case (("sub" | "xor"), _) if a == others[0]:
            return Val(type, "0")
        case "getelementptr", [_, 0]:
            return a
        case "select", [int(x), *_]:
            return others[0] if x else others[1]
        case _:
            return None
