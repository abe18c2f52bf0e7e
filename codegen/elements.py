"""Elementwise operations on LLVM values, one lane or many: the emitted twin of `tbc.reference`.

A value of type bf16 is its i16 bits, a small float its i8 bits, and a bool is an i1; every other
element type is LLVM's own. f16 and bf16 are computed in f32 and rounded once an operation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tbc.codegen.llvm_text import Function, Val, bits_of, const, is_float, lanes_of, vec, with_elem
from tbc.codegen.math import EMITTERS, emit_fmod, emit_pow
from tbc.types import DType

REGISTER = {DType.f16: "half", DType.bf16: "i16", DType.f32: "float", DType.f64: "double"}


def register_type(dtype: DType, lanes: int = 1) -> str:
    """The LLVM type of `lanes` elements in a register."""
    if dtype is DType.bool:
        return vec("i1", lanes)
    return vec(REGISTER.get(dtype) or f"i{dtype.bytes * 8}", lanes)


def load_element(f: Function, dtype: DType, ptr: Val, lanes: int = 1) -> Val:
    """`lanes` neighbouring elements from memory."""
    if dtype is DType.bool:
        byte = f.load(vec("i8", lanes), ptr, 1)
        return f.icmp("ne", byte, const(byte.type, 0))
    return f.load(register_type(dtype, lanes), ptr, dtype.bytes)


def store_element(f: Function, dtype: DType, value: Val, ptr: Val) -> None:
    """Neighbouring elements to memory."""
    if dtype is DType.bool:
        value = f.cast("zext", value, with_elem(value.type, "i8"))
    f.store(value, ptr, dtype.bytes)


def element_constant(dtype: DType, value: Any) -> Val:
    """A constant of one lane: a number, or an element of an array of that type."""
    if dtype is DType.bf16:
        text = const("bfloat", float(value)).text
        return Val("i16", str(int(text[3:], 16)))
    if dtype.is_small_float:
        return const("i8", int(np.array(value, dtype.numpy).view(np.uint8)))
    return const(register_type(dtype), value)


# -- bf16 and f16 ---------------------------------------------------------------------------------


def widen_float(f: Function, dtype: DType, a: Val) -> Val:
    """An f16 or bf16 as f32, exactly; other floats as they are."""
    if dtype is DType.bf16:
        wide = f.cast("zext", a, with_elem(a.type, "i32"))
        bits = f.op("shl", wide, const(wide.type, 16))
        return f.cast("bitcast", bits, with_elem(a.type, "float"))
    if dtype is DType.f16:
        return f.cast("fpext", a, with_elem(a.type, "float"))
    return a


def narrow_float(f: Function, dtype: DType, a: Val) -> Val:
    """An f32 rounded to f16 or bf16, ties to even; for other types `a` as it is."""
    if dtype is DType.f16:
        return f.cast("fptrunc", a, with_elem(a.type, "half"))
    if dtype is not DType.bf16:
        return a
    bits = f.cast("bitcast", a, with_elem(a.type, "i32"))
    odd = f.op("and", f.op("lshr", bits, const(bits.type, 16)), const(bits.type, 1))
    rounded = f.op("add", f.op("add", bits, const(bits.type, 0x7FFF)), odd)
    quiet = f.op("or", bits, const(bits.type, 1 << 22))
    chosen = f.select(f.fcmp("uno", a, a), quiet, rounded)
    high = f.op("lshr", chosen, const(bits.type, 16))
    return f.cast("trunc", high, with_elem(a.type, "i16"))


# -- unary ----------------------------------------------------------------------------------------


def emit_unary(f: Function, fn: str, dtype: DType, a: Val) -> Val:
    """fn(a) for `ops.Unary`; `dtype` is a's."""
    if dtype in (DType.f16, DType.bf16):
        wide = emit_unary(f, fn, DType.f32, widen_float(f, dtype, a))
        return wide if fn in ("isnan", "isinf") else narrow_float(f, dtype, wide)
    if fn in EMITTERS:
        return EMITTERS[fn](f, a)
    return _UNARY[fn](f, dtype, a)


def _neg(f: Function, dtype: DType, a: Val) -> Val:
    return f.fneg(a) if dtype.is_float else f.op("sub", const(a.type, 0), a)


def _abs(f: Function, dtype: DType, a: Val) -> Val:
    if dtype.is_float:
        return f.intrinsic(a.type, f"llvm.fabs.{_suffix(a.type)}", a)
    if dtype.kind == "u":
        return a
    return f.select(f.icmp("slt", a, const(a.type, 0)), _neg(f, dtype, a), a)


def _sign(f: Function, dtype: DType, a: Val) -> Val:
    zero, one = const(a.type, 0), const(a.type, 1)
    if dtype.is_float:
        # nan and zero keep their own value
        below = f.select(f.fcmp("olt", a, zero), const(a.type, -1), a)
        return f.select(f.fcmp("ogt", a, zero), one, below)
    if dtype.kind == "u":
        return f.select(f.icmp("ne", a, zero), one, zero)
    below = f.select(f.icmp("slt", a, zero), const(a.type, -1), zero)
    return f.select(f.icmp("sgt", a, zero), one, below)


def _invert(f: Function, dtype: DType, a: Val) -> Val:
    return f.op("xor", a, const(a.type, 1 if dtype is DType.bool else -1))


def _isnan(f: Function, dtype: DType, a: Val) -> Val:
    return f.fcmp("uno", a, a)


def _isinf(f: Function, dtype: DType, a: Val) -> Val:
    return f.fcmp("oeq", _abs(f, dtype, a), const(a.type, float("inf")))


def _sqrt(f: Function, dtype: DType, a: Val) -> Val:
    return f.intrinsic(a.type, f"llvm.sqrt.{_suffix(a.type)}", a)


_UNARY: dict[str, Callable[[Function, DType, Val], Val]] = {
    "neg": _neg,
    "abs": _abs,
    "sign": _sign,
    "not": _invert,
    "invert": _invert,
    "isnan": _isnan,
    "isinf": _isinf,
    "sqrt": _sqrt,
}


def _suffix(type: str) -> str:
    """The suffix of an overloaded intrinsic's name."""
    elem = {"half": "f16", "float": "f32", "double": "f64"}.get(type)
    if elem:
        return elem
    lanes = lanes_of(type)
    return f"v{lanes}{_suffix(type.split(' x ')[1][:-1])}" if lanes > 1 else type


# -- binary ---------------------------------------------------------------------------------------

_FLOAT_OPS = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_INT_OPS = {"add": "add", "sub": "sub", "mul": "mul", "and": "and", "or": "or", "xor": "xor"}
_FLOAT_COMPARE = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}
_ORDER = {"lt": "lt", "le": "le", "gt": "gt", "ge": "ge"}


def emit_binary(f: Function, fn: str, dtype: DType, a: Val, b: Val) -> Val:
    """fn(a, b) for `ops.Binary`; `dtype` is that of a and b."""
    if dtype in (DType.f16, DType.bf16):
        wide = emit_binary(f, fn, DType.f32, widen_float(f, dtype, a), widen_float(f, dtype, b))
        return wide if fn in _FLOAT_COMPARE else narrow_float(f, dtype, wide)
    if dtype.is_float:
        return _float_binary(f, fn, a, b)
    signed = dtype.kind in "iw"
    if fn in _INT_OPS:
        return f.op(_INT_OPS[fn], a, b)
    if fn in ("eq", "ne"):
        return f.icmp(fn, a, b)
    if fn in _ORDER:
        return f.icmp(("s" if signed else "u") + _ORDER[fn], a, b)
    if fn in ("min", "max"):
        order = ("s" if signed else "u") + ("gt" if fn == "max" else "lt")
        return f.select(f.icmp(order, a, b), a, b)
    if fn in ("shl", "shr"):
        return _shift(f, fn, signed, a, b)
    if fn == "mulh":
        return _upper_half(f, a, b)
    if fn == "pow":
        return _int_pow(f, dtype, a, b)
    return _divide(f, fn, signed, a, b)


def _float_binary(f: Function, fn: str, a: Val, b: Val) -> Val:
    if fn in _FLOAT_OPS:
        return f.op(_FLOAT_OPS[fn], a, b)
    if fn in _FLOAT_COMPARE:
        return f.fcmp(_FLOAT_COMPARE[fn], a, b)
    if fn in ("min", "max"):
        if b.text.startswith("%"):
            past = f.fcmp("ogt" if fn == "max" else "olt", a, b)
            keep = f.op("or", past, f.fcmp("uno", a, a))
        else:  # a constant b is no nan: one comparison that holds for nan does both
            keep = f.fcmp("ugt" if fn == "max" else "ult", a, b)
        return f.select(keep, a, b)
    if fn == "pow":
        return emit_pow(f, a, b)
    rest = emit_fmod(f, a, b)
    if fn == "fmod":
        return rest
    # mod takes the divisor's sign
    zero = const(a.type, 0.0)
    differs = f.op("xor", f.fcmp("olt", rest, zero), f.fcmp("olt", b, zero))
    wrong = f.op("and", differs, f.fcmp("une", rest, zero))
    return f.select(wrong, f.op("fadd", rest, b), rest)


def _upper_half(f: Function, a: Val, b: Val) -> Val:
    """Of the 64 bits of a product of i32, or of vectors of them."""
    wide = a.type.replace("i32", "i64")
    product = f.op("mul nsw", f.cast("sext", a, wide), f.cast("sext", b, wide))
    return f.cast("trunc", f.op("lshr", product, const(wide, 32)), a.type)


def _shift(f: Function, fn: str, signed: bool, a: Val, b: Val) -> Val:
    width = const(a.type, bits_of(a.type))
    fits = f.icmp("ult", b, width)
    if fn == "shr" and signed:
        amount = f.select(fits, b, const(a.type, bits_of(a.type) - 1))
        return f.op("ashr", a, amount)
    amount = f.select(fits, b, const(a.type, 0))
    shifted = f.op("shl" if fn == "shl" else "lshr", a, amount)
    return f.select(fits, shifted, const(a.type, 0))


def _divide(f: Function, fn: str, signed: bool, a: Val, b: Val) -> Val:
    """div, mod or fmod; hardware must see neither a divisor of 0 nor the least number by -1."""
    zero, one = const(a.type, 0), const(a.type, 1)
    by_zero = f.icmp("eq", b, zero)
    trap = by_zero
    if signed:
        minus = f.icmp("eq", b, const(a.type, -1))
        trap = f.op("or", by_zero, minus)
    safe = f.select(trap, one, b)
    if fn == "div":
        quotient = f.op("sdiv" if signed else "udiv", a, safe)
        if signed:
            quotient = f.select(minus, f.op("sub", zero, a), quotient)
        return f.select(by_zero, zero, quotient)
    rest = f.op("srem" if signed else "urem", a, safe)
    if fn == "mod" and signed:
        differs = f.icmp("slt", f.op("xor", rest, safe), zero)
        wrong = f.op("and", differs, f.icmp("ne", rest, zero))
        rest = f.select(wrong, f.op("add", rest, safe), rest)
    return f.select(trap, zero, rest)


def _int_pow(f: Function, dtype: DType, a: Val, b: Val) -> Val:
    """a ** b by squaring, wrapping; 0 for a negative exponent unless |a| is 1."""
    one, zero = const(a.type, 1), const(a.type, 0)
    result: Val = one
    base = a
    for bit in range(min(bits_of(a.type), 64)):
        taken = f.op("and", f.op("lshr", b, const(a.type, bit)), one)
        use = f.icmp("ne", taken, zero)
        result = f.select(use, f.op("mul", result, base), result)
        if bit + 1 < bits_of(a.type):
            base = f.op("mul", base, base)
    if dtype.kind == "i":
        odd = f.icmp("ne", f.op("and", b, one), zero)
        minus = const(a.type, -1)
        unit = f.select(f.icmp("eq", a, minus), f.select(odd, minus, one), zero)
        inverse = f.select(f.icmp("eq", a, one), one, unit)
        result = f.select(f.icmp("slt", b, zero), inverse, result)
    return result


# -- casts ----------------------------------------------------------------------------------------


def emit_cast(f: Function, source: DType, target: DType, a: Val) -> Val:
    """`a` of one element type in another, as `ops.Cast`."""
    if source is target:
        return a
    to = register_type(target, lanes_of(a.type))
    if target is DType.bool:
        if source.is_float:
            wide = widen_float(f, source, a)
            return f.fcmp("une", wide, const(wide.type, 0.0))
        return f.icmp("ne", a, const(a.type, 0))
    if source.is_float and target.is_float:
        return _float_to_float(f, source, target, a)
    if source.is_float:
        return _float_to_int(f, target, widen_float(f, source, a))
    if target.is_float:
        wide_type = with_elem(to, "double" if target is DType.f64 else "float")
        opcode = "sitofp" if source.kind in "iw" else "uitofp"
        return narrow_float(f, target, f.cast(opcode, a, wide_type))
    if bits_of(to) < bits_of(a.type):
        resized = f.cast("trunc", a, to)
    elif bits_of(to) > bits_of(a.type):
        resized = f.cast("sext" if source.kind in "iw" else "zext", a, to)
    else:
        resized = a
    return _wrap_narrow(f, target, resized)


def emit_bit_cast(f: Function, source: DType, target: DType, a: Val) -> Val:
    """The bits of `a` in another element type, as `ops.BitCast`."""
    lanes = lanes_of(a.type)
    whole = vec(f"i{source.bytes * 8}", lanes)
    bits = a if a.type == whole else f.cast("bitcast", a, whole)
    if source.is_float:
        wide = widen_float(f, source, a)
        nan = int(np.array(np.nan, source.numpy).view(f"u{source.bytes}"))
        bits = f.select(f.fcmp("uno", wide, wide), const(whole, nan), bits)
    to = register_type(target, lanes)
    return bits if to == whole else f.cast("bitcast", bits, to)


def _wrap_narrow(f: Function, target: DType, a: Val) -> Val:
    """A byte reduced to a type of less than a byte, as that type wraps."""
    if target.bits >= 8 or target.is_weight:
        return a
    shift = const(a.type, 8 - target.bits)
    return f.op("ashr" if target.kind == "i" else "lshr", f.op("shl", a, shift), shift)


def _float_to_float(f: Function, source: DType, target: DType, a: Val) -> Val:
    if target is DType.f64:
        wide = widen_float(f, source, a)
        return f.cast("fpext", wide, with_elem(a.type, "double"))
    if source is DType.f64:
        if target is DType.f16:
            return f.cast("fptrunc", a, with_elem(a.type, "half"))
        a = f.cast("fptrunc", a, with_elem(a.type, "float"))
        return narrow_float(f, target, a)
    return narrow_float(f, target, widen_float(f, source, a))


def _float_to_int(f: Function, target: DType, a: Val) -> Val:
    """Truncation with saturation, nan to 0.

    By limits in front of a plain conversion, which LLVM has for whole vectors; its saturating one
    it does lane by lane on many machines.
    """
    low, high = target.range
    zero = const(a.type, 0.0)
    inside = f.select(f.fcmp("ogt", a, const(a.type, low)), a, const(a.type, low))
    if target.bits <= 16:  # the limits are floats
        inside = f.select(f.fcmp("olt", inside, const(a.type, high)), inside, const(a.type, high))
        inside = f.select(f.fcmp("uno", a, a), zero, inside)
        whole = f.cast("fptosi", inside, with_elem(a.type, "i32"))
        return f.cast("trunc", whole, with_elem(a.type, f"i{max(target.bits, 8)}"))
    kind, to = "fptosi" if target.kind == "i" else "fptoui", with_elem(a.type, f"i{target.bits}")
    above = f.fcmp("oge", a, const(a.type, high + 1))
    inside = f.select(f.op("or", above, f.fcmp("uno", a, a)), zero, inside)
    return f.select(above, const(to, high), f.cast(kind, inside, to))


__all__ = [
    "element_constant",
    "emit_binary",
    "emit_bit_cast",
    "emit_cast",
    "emit_unary",
    "is_float",
    "load_element",
    "narrow_float",
    "register_type",
    "store_element",
    "widen_float",
]
