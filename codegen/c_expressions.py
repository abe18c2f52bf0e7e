"""C expressions: their text, how tightly it binds, and their type.

Integers that LLVM lets wrap are unsigned, and C's promotions are undone by casts, so that nothing
depends on the width of `int`. What two's complement adds to C99 is taken for granted: conversions
to signed types wrap, and `>>` of negative numbers keeps the sign.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from tbc.codegen.llvm_text import bits_of

ATOM, UNARY, TIMES, PLUS, SHIFT, ORDER, EQUAL, AND, XOR, OR, BOTH, EITHER, CHOICE = range(13)
"""How tightly an operator binds, the tightest first."""


@dataclass(frozen=True)
class Ex:
    """An expression.

    Attributes:
        level: of its outermost operator.
        type: the C type of its value, which is that of its text too, but for `int` promotions.
        reads: whether it reads memory that a store may change.
        left: of a sum or product, its first operand and the operator.
    """

    text: str
    level: int
    type: str
    reads: bool = False
    left: tuple[str, str] = ("", "")

    def within(self, level: int) -> str:
        """The text as an operand of an operator that binds so tightly."""
        return self.text if self.level <= level else f"({self.text})"


@dataclass(frozen=True)
class Address:
    """A pointer: `base`, moved by `index` units of so many bytes.

    Attributes:
        base: an expression of pointer type.
        elem: the C type that it points to.
        is_const: whether that may not be written.
        index: how far it is moved; None for not at all.
        unit: the bytes that `index` counts, or "size_t" or "ptr".
    """

    base: Ex
    elem: str
    is_const: bool
    index: Ex | None = None
    unit: int | str = 1

    @property
    def reads(self) -> bool:
        """See `Ex.reads`."""
        return self.base.reads or (self.index is not None and self.index.reads)


BYTE = "unsigned char"
WIDTHS: dict[str, int | str] = {
    BYTE: 1,
    **{f"{u}int{n}_t": n // 8 for u in ("", "u") for n in (8, 16, 32, 64)},
    "float": 4,
    "double": 8,
    "size_t": "size_t",
    "void *": "ptr",
}
"""The bytes of a C type."""


def c_type(type: str, signed: bool = False) -> str:
    """The C type of a scalar of LLVM's; a half is its bits."""
    if type in ("float", "double", "size_t", "void"):
        return type
    if type == "i1":
        return "int"
    return f"{'' if signed else 'u'}int{bits_of(type)}_t"


def integer(value: int, type: str) -> Ex:
    """A constant of an integer type."""
    if type == "int":
        return Ex(str(int(bool(value))), ATOM, type)
    bits = 32 if type == "size_t" else int(type.strip("uint_"))
    value &= (1 << bits) - 1
    if type[0] != "i":
        suffix = "u" if value < 1 << 32 else "ull"
        return Ex(f"{value if value < 1 << 16 else hex(value)}{suffix}", ATOM, type)
    value -= value >> (bits - 1) << bits
    suffix = "ll" if abs(value) >= 1 << 31 else ""
    if value == -1 << (bits - 1) and bits >= 32:
        return Ex(f"(-{-value - 1}{suffix} - 1)", ATOM, type)
    return Ex(f"{value}{suffix}", ATOM if value >= 0 else UNARY, type)


def floating(value: float, type: str) -> Ex:
    """A constant of a floating-point type, in as many decimals as make it that number."""
    suffix, large = ("f", "1e38f") if type == "float" else ("", "1e308")
    if math.isnan(value):
        return Ex(f"({large} * {large} * 0)", ATOM, type)
    if math.isinf(value):
        return Ex(f"({'-' if value < 0 else ''}{large} * {large})", ATOM, type)
    text = str(np.float32(value)) if type == "float" else repr(float(value))
    return Ex(text + suffix, UNARY if text[0] == "-" else ATOM, type)


def cast(ex: Ex, type: str) -> Ex:
    """The value in another type, as C converts it."""
    if ex.type == type:
        return ex
    return Ex(f"({type}){ex.within(UNARY)}", UNARY, type, ex.reads)


_LEVELS = {
    "*": TIMES,
    "/": TIMES,
    "%": TIMES,
    "+": PLUS,
    "-": PLUS,
    "<<": SHIFT,
    ">>": SHIFT,
    "<": ORDER,
    "<=": ORDER,
    ">": ORDER,
    ">=": ORDER,
    "==": EQUAL,
    "!=": EQUAL,
    "&": AND,
    "^": XOR,
    "|": OR,
    "&&": BOTH,
    "||": EITHER,
}


def binary(operator: str, a: Ex, b: Ex, type: str) -> Ex:
    """`a operator b`, with parentheses where compilers would warn without."""
    level = _LEVELS[operator]
    inside = {PLUS: TIMES, ORDER: PLUS, EQUAL: PLUS, BOTH: EQUAL, EITHER: EQUAL}.get(level, UNARY)
    chains = a.left[1] == operator if level != PLUS else a.level == PLUS
    left = a.within(level if chains else inside)
    right = b.within(inside)
    text = f"{left} {operator} {right}"
    return Ex(text, level, type, a.reads or b.reads, (left, operator))


def arithmetic(opcode: str, a: Ex, b: Ex, type: str) -> Ex:
    """An LLVM instruction on integers of a C type, of which both operands are (but for shifts)."""
    operator = _OPERATORS[opcode]
    if type == "int":
        return _logical(operator, a, b)
    if operator == "^" and b == integer(-1, type):
        return _narrowed(Ex(f"~{a.within(UNARY)}", UNARY, type, a.reads))
    if WIDTHS[type] in (1, 2) and operator in ("*", "<<"):
        a = cast(a, "uint32_t")  # as int the product may overflow
    elif operator == "<<" and a.text[0].isdigit():
        a = Ex(f"({type}){a.text}", UNARY, type)  # a constant may be a shorter int
    return _narrowed(binary(operator, a, b, type))


def _narrowed(ex: Ex) -> Ex:
    """The result in its type, where C computes with int."""
    if WIDTHS[ex.type] not in (1, 2):
        return ex
    return Ex(f"({ex.type}){ex.within(UNARY)}", UNARY, ex.type, ex.reads)


def _logical(operator: str, a: Ex, b: Ex) -> Ex:
    if operator == "^" and b.text == "1":
        return negated(a)
    return binary({"+": "^", "-": "^", "*": "&"}.get(operator, operator), a, b, "int")


_OPERATORS = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "udiv": "/",
    "sdiv": "/",
    "urem": "%",
    "srem": "%",
    "shl": "<<",
    "lshr": ">>",
    "ashr": ">>",
    "and": "&",
    "or": "|",
    "xor": "^",
    "fadd": "+",
    "fsub": "-",
    "fmul": "*",
    "fdiv": "/",
}


def negated(a: Ex) -> Ex:
    """Whether a condition does not hold."""
    return Ex(f"!{a.within(UNARY)}", UNARY, "int", a.reads)


_COMPARED = {
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
}
_OPPOSITE = {"lt": "ge", "le": "gt", "gt": "le", "ge": "lt"}


def compared(predicate: str, a: Ex, b: Ex) -> Ex:
    """`icmp`'s or `fcmp`'s comparison, but for `uno` and `ord`."""
    if predicate in ("eq", "ne", "oeq", "une"):
        return binary(_COMPARED[predicate[-2:]], a, b, "int")
    if predicate == "ueq":
        return negated(compared("one", a, b))
    if predicate == "one":
        return binary("||", binary("<", a, b, "int"), binary(">", a, b, "int"), "int")
    order = predicate[-2:]
    if is_float_type(a.type) and predicate[0] == "u":
        return negated(binary(_COMPARED[_OPPOSITE[order]], a, b, "int"))
    return binary(_COMPARED[order], a, b, "int")


def is_float_type(type: str) -> bool:
    """Whether a C type is a floating-point one."""
    return type in ("float", "double")


def choice(cond: Ex, yes: Ex, no: Ex) -> Ex:
    """`cond ? yes : no`, both of one type."""
    text = f"{cond.within(EQUAL)} ? {yes.within(EITHER)} : {no.within(EITHER)}"
    chosen = Ex(text, CHOICE, yes.type, cond.reads or yes.reads or no.reads)
    return _narrowed(chosen) if WIDTHS.get(yes.type) in (1, 2) else chosen


def call(name: str, type: str, *args: Ex) -> Ex:
    """A function's result that depends on its arguments only."""
    text = ", ".join(a.text for a in args)
    return Ex(f"{name}({text})", ATOM, type, any(a.reads for a in args))


# -- memory ---------------------------------------------------------------------------------------


def bytes_of(address: Address) -> Ex:
    """The pointer to bytes at an address."""
    type = f"{'const ' if address.is_const else ''}{BYTE} *"
    base = cast(address.base, type)
    if address.index is None:
        return base
    index = address.index
    if address.unit != 1:
        assert isinstance(address.unit, int)
        factor = integer(address.unit, index.type)
        index = binary("*", index, factor, index.type)
    return binary("+", base, index, type)


def moved(address: Address, index: Ex, unit: int | str) -> Address:
    """The address some units further on."""
    if address.index is None:
        return replace(address, index=index, unit=unit)
    if address.unit != unit:
        return Address(bytes_of(address), BYTE, address.is_const, index, unit)
    index = cast(index, address.index.type)
    return replace(address, index=binary("+", address.index, index, index.type))


def typed(address: Address, elem: str) -> Ex:
    """The address as a pointer to elements of a C type."""
    star = "" if elem.endswith("*") else " "
    type = f"{'const ' if address.is_const and star else ''}{elem}{star}*"
    if elem == "void *":
        type = "void *const *" if not address.is_const else "const void *const *"
    if address.index is None or address.unit != WIDTHS[elem]:
        whole = address.base if address.index is None else bytes_of(address)
        return cast(whole, type)
    base = cast(address.base, type)
    return binary("+", base, address.index, type)


def element(address: Address, elem: str, lane: Ex | None = None) -> Ex:
    """The element of a C type at an address, or the one `lane` behind it."""
    if address.index is not None and address.unit == WIDTHS[elem]:
        base, index = typed(replace(address, index=None), elem), address.index
        if lane is not None:
            index = lane if index.text == "0" else binary("+", index, lane, index.type)
        return Ex(f"{base.within(ATOM)}[{index.text}]", ATOM, elem, True)
    whole = typed(address, elem)
    if lane is not None:
        return Ex(f"{whole.within(ATOM)}[{lane.text}]", ATOM, elem, True)
    return Ex(f"*{whole.within(UNARY)}", UNARY, elem, True)
