"""Arithmetic written once, evaluated by NumPy or emitted as LLVM IR.

A formula over `Num` uses Python's operators and the functions below. Each stands for exactly one
IEEE 754 or two's-complement instruction of the `Arith` behind it, so every `Arith` computes the
same bits (but for the sign and payload of a NaN).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Format:
    """An IEEE 754 binary format, under LLVM's name for it."""

    name: str
    bits: int
    fraction: int
    """Stored bits of the significand."""

    @property
    def integer(self) -> str:
        """The integer type of the same width."""
        return f"i{self.bits}"

    @property
    def bias(self) -> int:
        """What is added to an exponent to store it; also the largest exponent."""
        return (1 << (self.bits - self.fraction - 2)) - 1

    @property
    def infinity(self) -> int:
        """The bits of +inf: all ones in the exponent."""
        return (2 * self.bias + 1) << self.fraction

    @property
    def sign(self) -> int:
        """The sign bit."""
        return 1 << (self.bits - 1)


HALF = Format("half", 16, 10)
BFLOAT = Format("bfloat", 16, 7)
SINGLE = Format("float", 32, 23)
DOUBLE = Format("double", 64, 52)
FORMATS = {f.name: f for f in (HALF, BFLOAT, SINGLE, DOUBLE)}


class Arith(Protocol):
    """A machine for `Num`: LLVM's instructions and scalar types by LLVM's names."""

    def const(self, type: str, value: float) -> Any:
        """The constant, rounded to a float type or taken modulo 2^n."""

    def op(self, opcode: str, a: Any, b: Any) -> Any:
        """A binary instruction on operands of one type."""

    def compare(self, predicate: str, a: Any, b: Any) -> Any:
        """A comparison; ordered (`olt`, …) for floats."""

    def select(self, cond: Any, yes: Any, no: Any) -> Any:
        """`yes` where `cond`, else `no`."""

    def cast(self, opcode: str, a: Any, to: str) -> Any:
        """A conversion: `bitcast`, `zext` or `trunc`."""

    def sqrt(self, a: Any) -> Any:
        """The correctly rounded square root."""


@dataclass(frozen=True, eq=False)
class Num:
    """A value of an `Arith`: integers are two's complement, `>>` is logical, `<` is signed."""

    arith: Arith
    type: str
    raw: Any

    @property
    def format(self) -> Format:
        """The format of a float."""
        return FORMATS[self.type]

    def const(self, value: float) -> Num:
        """`value` in this value's type."""
        return Num(self.arith, self.type, self.arith.const(self.type, value))

    def _with(self, other: Num | float) -> Num:
        return other if isinstance(other, Num) else self.const(other)

    def _op(self, opcode: str, other: Num | float) -> Num:
        raw = self.arith.op(opcode, self.raw, self._with(other).raw)
        return Num(self.arith, self.type, raw)

    def _arithmetic(self, opcode: str, other: Num | float) -> Num:
        return self._op("f" + opcode if self.type in FORMATS else opcode, other)

    def _compare(self, on_float: str, on_int: str, other: Num | float) -> Num:
        predicate = on_float if self.type in FORMATS else on_int
        raw = self.arith.compare(predicate, self.raw, self._with(other).raw)
        return Num(self.arith, "i1", raw)

    def __add__(self, other: Num | float) -> Num:
        return self._arithmetic("add", other)

    def __sub__(self, other: Num | float) -> Num:
        return self._arithmetic("sub", other)

    def __mul__(self, other: Num | float) -> Num:
        return self._arithmetic("mul", other)

    def __truediv__(self, other: Num | float) -> Num:
        return self._op("fdiv", other)

    def __radd__(self, other: float) -> Num:
        return self.const(other) + self

    def __rsub__(self, other: float) -> Num:
        return self.const(other) - self

    def __rmul__(self, other: float) -> Num:
        return self.const(other) * self

    def __rtruediv__(self, other: float) -> Num:
        return self.const(other) / self

    def __and__(self, other: Num | int) -> Num:
        return self._op("and", other)

    def __or__(self, other: Num | int) -> Num:
        return self._op("or", other)

    def __xor__(self, other: Num | int) -> Num:
        return self._op("xor", other)

    def __invert__(self) -> Num:
        return self ^ -1

    def __lshift__(self, other: Num | int) -> Num:
        return self._op("shl", other)

    def __rshift__(self, other: Num | int) -> Num:
        return self._op("lshr", other)

    def ashr(self, other: Num | int) -> Num:
        """An integer shifted right, its sign copied."""
        return self._op("ashr", other)

    def __lt__(self, other: Num | float) -> Num:
        return self._compare("olt", "slt", other)

    def __le__(self, other: Num | float) -> Num:
        return self._compare("ole", "sle", other)

    def __gt__(self, other: Num | float) -> Num:
        return self._compare("ogt", "sgt", other)

    def __ge__(self, other: Num | float) -> Num:
        return self._compare("oge", "sge", other)

    def eq(self, other: Num | float) -> Num:
        """Whether they are equal."""
        return self._compare("oeq", "eq", other)

    def ne(self, other: Num | float) -> Num:
        """Whether they differ; a NaN differs from itself."""
        return self._compare("une", "ne", other)

    def ult(self, other: Num | int) -> Num:
        """Whether an unsigned integer is less."""
        return self._compare("", "ult", other)

    def cast(self, opcode: str, to: str) -> Num:
        """This value as type `to`, by `zext`, `sext`, `trunc` or `bitcast`; itself if it is one."""
        return (
            self if to == self.type else Num(self.arith, to, self.arith.cast(opcode, self.raw, to))
        )

    def bits(self) -> Num:
        """A float's bits as an integer."""
        return self.cast("bitcast", self.format.integer)

    def as_float(self, format: Format) -> Num:
        """An integer's bits as a float."""
        return self.cast("bitcast", format.name)

    def sqrt(self) -> Num:
        """The correctly rounded square root."""
        return Num(self.arith, self.type, self.arith.sqrt(self.raw))

    def abs(self) -> Num:
        """A float without its sign bit."""
        return (self.bits() & (self.format.sign - 1)).as_float(self.format)

    def negate(self) -> Num:
        """A float with its sign bit flipped."""
        return (self.bits() ^ self.format.sign).as_float(self.format)


def where(cond: Num, yes: Num | float, no: Num | float) -> Num:
    """`yes` where `cond`, else `no`; at least one is a `Num`."""
    typed = yes if isinstance(yes, Num) else no
    assert isinstance(typed, Num)
    yes, no = typed._with(yes), typed._with(no)
    return Num(typed.arith, typed.type, typed.arith.select(cond.raw, yes.raw, no.raw))


_DTYPES: dict[str, type[np.generic]] = {
    "i1": np.bool_,
    "i32": np.uint32,
    "i64": np.uint64,
    "float": np.float32,
    "double": np.float64,
}

_UFUNCS: dict[str, Callable[[Any, Any], Any]] = {
    "fadd": np.add,
    "fsub": np.subtract,
    "fmul": np.multiply,
    "fdiv": np.divide,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "shl": np.left_shift,
    "lshr": np.right_shift,
}

_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}


def _signed(a: Any) -> Any:
    return a.view(np.dtype(f"i{a.dtype.itemsize}"))


class NumpyArith:
    """`Arith` on NumPy arrays; integers are kept unsigned, where NumPy wraps around."""

    def const(self, type: str, value: float) -> Any:
        """The constant as a NumPy scalar."""
        dtype = np.dtype(_DTYPES[type])
        if dtype.kind == "u":
            value = int(value) % (1 << (8 * dtype.itemsize))
        return dtype.type(value)

    def op(self, opcode: str, a: Any, b: Any) -> Any:
        """A binary instruction, element by element."""
        if opcode == "ashr":
            return np.right_shift(_signed(a), _signed(b)).view(a.dtype)
        return _UFUNCS[opcode](a, b)

    def compare(self, predicate: str, a: Any, b: Any) -> Any:
        """A comparison, element by element."""
        if predicate[0] == "s":
            a, b = _signed(a), _signed(b)
        return _COMPARISONS[predicate[-2:]](a, b)

    def select(self, cond: Any, yes: Any, no: Any) -> Any:
        """`np.where`."""
        return np.where(cond, yes, no)

    def cast(self, opcode: str, a: Any, to: str) -> Any:
        """A reinterpretation of the bits, or a wider or narrower unsigned integer."""
        return a.view(_DTYPES[to]) if opcode == "bitcast" else a.astype(_DTYPES[to])

    def sqrt(self, a: Any) -> Any:
        """`np.sqrt`, which is correctly rounded."""
        return np.sqrt(a)
