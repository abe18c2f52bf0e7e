"""The elementary functions as inline, lane-parallel LLVM instructions: the formulas of the core."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tbc import elementary
from tbc.arith import FORMATS, Num
from tbc.codegen.llvm_text import Function, Val, bits_of, const, elem_of, lanes_of, vec


class LlvmArith:
    """`Arith` that appends to a function; every value has `lanes` lanes."""

    def __init__(self, f: Function, lanes: int = 1):
        self.f, self.lanes = f, lanes

    def const(self, type: str, value: float) -> Val:
        """The constant in every lane."""
        return const(vec(type, self.lanes), value)

    def op(self, opcode: str, a: Val, b: Val) -> Val:
        """A binary instruction."""
        return self.f.op(opcode, a, b)

    def compare(self, predicate: str, a: Val, b: Val) -> Val:
        """An `fcmp` or `icmp`."""
        compare = self.f.fcmp if elem_of(a.type) in FORMATS else self.f.icmp
        return compare(predicate, a, b)

    def select(self, cond: Val, yes: Val, no: Val) -> Val:
        """A `select`, lane by lane."""
        return self.f.select(cond, yes, no)

    def cast(self, opcode: str, a: Val, to: str) -> Val:
        """A conversion of every lane to the scalar type `to`."""
        return self.f.cast(opcode, a, vec(to, self.lanes))

    def sqrt(self, a: Val) -> Val:
        """`llvm.sqrt`: an instruction, or the builtin `sqrtf` or `sqrt` where there is none."""
        return _intrinsic("sqrt", self.f, a)


def _intrinsic(name: str, f: Function, a: Val) -> Val:
    """LLVM's intrinsic of a float, or of a vector of them."""
    prefix = f"v{lanes_of(a.type)}" if lanes_of(a.type) > 1 else ""
    return f.intrinsic(a.type, f"llvm.{name}.{prefix}f{bits_of(a.type)}", a)


def num(f: Function, value: Val) -> Num:
    """`value` for use in formulas that append to `f`."""
    return Num(LlvmArith(f, lanes_of(value.type)), elem_of(value.type), value)


def raw(value: Num) -> Val:
    """The LLVM value of a formula's result."""
    assert isinstance(value.raw, Val)
    return value.raw


_WHOLE = {"floor": "floor", "ceil": "ceil", "round": "roundeven", "trunc": "trunc"}
"""LLVM's names of the functions that are an instruction where `Module.rounds` says so."""


def _emit(name: str, f: Function, *args: Val) -> Val:
    if f.module.rounds and name in _WHOLE:
        return _intrinsic(_WHOLE[name], f, *args)
    return raw(elementary.FUNCTIONS[name](*(num(f, a) for a in args)))


def emit_pow(f: Function, x: Val, y: Val) -> Val:
    """x^y on lanes of `float` or `double`, with the bits of `elementary.evaluate`."""
    return _emit("pow", f, x, y)


def emit_fmod(f: Function, x: Val, y: Val) -> Val:
    """C's fmod, exact; without an instruction LLVM calls the builtin `fmodf` or `fmod` a lane."""
    return f.op("frem", x, y)


EMITTERS: dict[str, Callable[[Function, Val], Val]] = {
    name: partial(_emit, name) for name in elementary.FUNCTIONS if name != "pow"
}
"""By name in `elementary.FUNCTIONS`, the emitter on lanes of `float` or `double`."""
