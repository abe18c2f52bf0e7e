"""Operations that some target lacks: as LLVM's instruction, as the builtin, and in NumPy."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
from emulator import DTYPES

from tbc.codegen.llvm_text import Function, Val, const

Array = npt.NDArray[Any]
Body = Callable[..., Val]


@dataclass(frozen=True)
class Operation:
    """`ret(args…)`: what LLVM is given, the builtin by its GNU or libm name, and the meaning."""

    name: str
    args: tuple[str, ...]
    ret: str
    instruction: Body
    builtin: Body
    meaning: Callable[..., Array]
    domain: Callable[..., tuple[Array, ...]] = lambda *arrays: arrays
    """Puts arrays into the domain where LLVM defines the instruction."""


def _call(ret: str, name: str) -> Body:
    return lambda f, *args: f.call(ret, name, *args)


def _op(opcode: str) -> Body:
    return lambda f, a, b: f.op(opcode, a, b)


def _cast(opcode: str, to: str) -> Body:
    return lambda f, a: f.cast(opcode, a, to)


def _intrinsic(name: str, type: str) -> Body:
    suffix = {"float": "f32", "double": "f64"}[type]
    return lambda f, *args: f.intrinsic(type, f"llvm.{name}.{suffix}", *args)


def _fcmp(predicate: str) -> Body:
    return lambda f, a, b: f.cast("zext", f.fcmp(predicate, a, b), "i32")


def _sign_of(name: str, predicate: str) -> Body:
    """A comparison by a function whose result compares to 0 as its arguments do."""

    def body(f: Function, a: Val, b: Val) -> Val:
        order = f.call("i32", name, a, b)
        return f.cast("zext", f.icmp(predicate, order, const("i32", 0)), "i32")

    return body


def _libm(name: str, type: str) -> Callable[..., Array]:
    kind = {"float": ctypes.c_float, "double": ctypes.c_double}[type]

    def meaning(*arrays: Array) -> Array:
        function = getattr(ctypes.CDLL(None), name)
        function.restype, function.argtypes = kind, [kind] * len(arrays)
        rows = zip(*(a.tolist() for a in arrays), strict=True)
        return np.array([function(*row) for row in rows], DTYPES[type])

    return meaning


def arithmetic() -> Iterator[Operation]:
    """Float arithmetic, comparisons and rounding."""
    for type, gnu, c in (("float", "sf", "f"), ("double", "df", "")):
        two = (type, type)
        for name, meaning in (
            ("add", np.add),
            ("sub", np.subtract),
            ("mul", np.multiply),
            ("div", np.divide),
        ):
            builtin = _call(type, f"__{name}{gnu}3")
            yield Operation(f"{name}.{type}", two, type, _op("f" + name), builtin, meaning)
        for name, predicate, on_order, meaning in (
            ("eq", "oeq", "eq", np.equal),
            ("ne", "une", "ne", np.not_equal),
            ("lt", "olt", "slt", np.less),
            ("le", "ole", "sle", np.less_equal),
            ("gt", "ogt", "sgt", np.greater),
            ("ge", "oge", "sge", np.greater_equal),
            ("unord", "uno", "ne", lambda a, b: np.isnan(a) | np.isnan(b)),
        ):
            builtin = _sign_of(f"__{name}{gnu}2", on_order)
            yield Operation(f"{name}.{type}", two, "i32", _fcmp(predicate), builtin, meaning)
        for name, count, meaning in (
            ("sqrt", 1, np.sqrt),
            ("floor", 1, np.floor),
            ("ceil", 1, np.ceil),
            ("trunc", 1, np.trunc),
            ("roundeven", 1, np.rint),
            ("round", 1, _libm("round" + c, type)),
            ("fma", 3, _libm("fma" + c, type)),
        ):
            body, builtin = _intrinsic(name, type), _call(type, name + c)
            yield Operation(f"{name}.{type}", (type,) * count, type, body, builtin, meaning)
        yield Operation(f"rem.{type}", two, type, _op("frem"), _call(type, "fmod" + c), np.fmod)


def _within(type: str, dtype: str) -> Callable[[Array], tuple[Array]]:
    limits = np.iinfo(dtype)
    low, high = float(limits.min) - 1, float(limits.max) + 1
    return lambda x: (np.where((x > low) & (x < high), x, 0).astype(DTYPES[type]),)


def conversions() -> Iterator[Operation]:
    """Between floats and integers."""
    for type, gnu in (("float", "sf"), ("double", "df")):
        for dtype, opcode, uns, un in (
            ("i4", "si", "", ""),
            ("u4", "ui", "uns", "un"),
            ("i8", "si", "", ""),
            ("u8", "ui", "uns", "un"),
        ):
            whole, mode = ("i32", "si") if dtype[1] == "4" else ("i64", "di")
            signed = "i" + dtype[1]
            yield Operation(
                f"{type}_to_{dtype}",
                (type,),
                whole,
                _cast(f"fpto{opcode}", whole),
                _call(whole, f"__fix{uns}{gnu}{mode}"),
                lambda x, d=dtype, s=signed: x.astype(d).view(s),
                _within(type, dtype),
            )
            yield Operation(
                f"{dtype}_to_{type}",
                (whole,),
                type,
                _cast(f"{opcode}tofp", type),
                _call(type, f"__float{un}{mode}{gnu}"),
                lambda x, d=dtype, t=type: x.view(d).astype(DTYPES[t]),
            )


def _bits_of(body: Body) -> Body:
    return lambda f, x: f.cast("bitcast", body(f, x), "i16")


def _from_half(body: Body) -> Body:
    return lambda f, x: body(f, f.cast("bitcast", x, "half"))


def _double_to_bfloat(x: Array) -> Array:
    """Rounded once; ml_dtypes goes through float32."""
    unit = np.ldexp(1.0, np.maximum(np.frexp(x)[1] - 8, -133))
    rounded = np.where(np.isfinite(x), np.rint(x / unit) * unit, x)
    return np.copysign(rounded, x).astype(ml_dtypes.bfloat16)


def formats() -> Iterator[Operation]:
    """Between float formats; 16 bits wide ones as integers."""
    for large, small, name, meaning in (
        ("float", "half", "__truncsfhf2", lambda x: x.astype("f2")),
        ("double", "half", "__truncdfhf2", lambda x: x.astype("f2")),
        ("float", "bfloat", "__truncsfbf2", lambda x: x.astype(ml_dtypes.bfloat16)),
        ("double", "bfloat", "__truncdfbf2", _double_to_bfloat),
    ):
        body, builtin = _bits_of(_cast("fptrunc", small)), _bits_of(_call(small, name))
        yield Operation(f"{large}_to_{small}", (large,), "i16", body, builtin, meaning)
    for large, name in (("float", "__extendhfsf2"), ("double", "__extendhfdf2")):
        body, builtin = _from_half(_cast("fpext", large)), _from_half(_call(large, name))
        to = DTYPES[large]
        yield Operation(
            f"half_to_{large}",
            ("i16",),
            large,
            body,
            builtin,
            lambda x, t=to: x.view("f2").astype(t),
        )
    for source, to, opcode, name in (
        ("float", "double", "fpext", "__extendsfdf2"),
        ("double", "float", "fptrunc", "__truncdfsf2"),
    ):
        body, builtin = _cast(opcode, to), _call(to, name)
        yield Operation(
            f"{source}_to_{to}", (source,), to, body, builtin, lambda x, t=DTYPES[to]: x.astype(t)
        )


def extremes() -> Iterator[Operation]:
    """The lesser and the greater, by functions; emitters compare and select instead."""
    for type, c in (("float", "f"), ("double", "")):
        for name, order in (("min", np.less), ("max", np.greater)):

            def number(a: Array, b: Array, order: Any = order) -> Array:
                zeros = order(np.copysign(1, a), np.copysign(1, b)) & (a == b)
                value = np.where(order(a, b) | zeros, a, b)
                return np.where(np.isnan(a), b, np.where(np.isnan(b), a, value))

            def propagating(a: Array, b: Array, number: Any = number) -> Array:
                return np.where(np.isnan(a), a, np.where(np.isnan(b), b, number(a, b)))

            for function, meaning in (
                (f"f{name}{c}", number),
                (f"f{name}imum_num{c}", number),
                (f"f{name}imum{c}", propagating),
            ):
                body = _call(type, function)
                yield Operation(function, (type, type), type, body, body, meaning)


def integers() -> Iterator[Operation]:
    """Division, multiplication and shifts."""

    def divisors(n: Array, d: Array) -> tuple[Array, Array]:
        return n, np.where((d == 0) | (d == -1), 3, d).astype(d.dtype)

    def remainder(n: Array, d: Array) -> Array:
        return np.fmod(n, d)

    def quotient(n: Array, d: Array) -> Array:
        # No intermediate overflows: n - fmod(n, d) is a multiple of d between 0 and n.
        return (n - np.fmod(n, d)) // d

    for type, mode in (("i32", "si"), ("i64", "di")):
        for name, opcode, unsigned, meaning in (
            (f"__udiv{mode}3", "udiv", True, quotient),
            (f"__umod{mode}3", "urem", True, remainder),
            (f"__div{mode}3", "sdiv", False, quotient),
            (f"__mod{mode}3", "srem", False, remainder),
        ):
            dtype = ("u" if unsigned else "i") + DTYPES[type][1]
            yield Operation(
                f"{opcode}.{type}",
                (type, type),
                type,
                _op(opcode),
                _call(type, name),
                lambda n, d, m=meaning, t=dtype: m(n.view(t), d.view(t)).view("i" + t[1]),
                divisors,
            )
        yield Operation(
            f"clz.{type}",
            (type,),
            "i32",
            _leading_zeros(type),
            _call("i32", f"__clz{mode}2"),
            lambda x: np.array([8 * x.itemsize - int(v).bit_length() for v in _unsigned(x)]),
        )
    two = ("i64", "i64")
    for type, mode in (("i32", "si"), ("i64", "di")):
        builtin = _call(type, f"__mul{mode}3")
        yield Operation(f"mul.{type}", (type, type), type, _op("mul"), builtin, np.multiply)
    for opcode, name, meaning in (
        ("shl", "__ashldi3", np.left_shift),
        ("ashr", "__ashrdi3", np.right_shift),
        ("lshr", "__lshrdi3", lambda x, n: (_unsigned(x) >> _unsigned(n)).view("i8")),
    ):
        yield Operation(
            f"{opcode}.i64",
            two,
            "i64",
            _op(opcode),
            lambda f, x, n, name=name: f.call("i64", name, x, f.cast("trunc", n, "i32")),
            meaning,
            lambda x, n: (x, n & 63),
        )


def _unsigned(x: Array) -> Array:
    return x.view(f"u{x.itemsize}")


def _leading_zeros(type: str) -> Body:
    def body(f: Function, x: Val) -> Val:
        n = f.intrinsic(type, f"llvm.ctlz.{type}", x, Val("i1", "false"))
        return f.cast("trunc", n, "i32")

    return body


def _on_stack(operate: Callable[[Function, Val, Val, Val, Val], None]) -> Body:
    """A memory operation (to, source, value, length) on a word that holds -1."""

    def body(f: Function, value: Val, length: Val) -> Val:
        to, source = f.alloca("i64"), f.alloca("i64")
        f.store(value, source, 8)
        f.store(const("i64", -1), to, 8)
        operate(f, to, source, value, length)
        return f.load("i64", to, 8)

    return body


def memory() -> Iterator[Operation]:
    """Copying and filling; by the second argument a word or nothing."""

    def copy(name: str) -> Callable[..., None]:
        def intrinsic(f: Function, to: Val, source: Val, value: Val, length: Val) -> None:
            size = f.cast("trunc", length, "i32")
            f.intrinsic("void", f"llvm.{name}.p0.p0.i32", to, source, size, Val("i1", "false"))

        return intrinsic

    def fill(byte: Callable[[Function, Val], Val]) -> Callable[..., None]:
        def intrinsic(f: Function, to: Val, source: Val, value: Val, length: Val) -> None:
            size = f.cast("trunc", length, "i32")
            f.intrinsic("void", "llvm.memset.p0.i32", to, byte(f, value), size, Val("i1", "false"))

        return intrinsic

    def call(name: str) -> Callable[..., None]:
        return lambda f, to, source, value, length: f.do(
            f"call ptr @{name}({to}, {source}, {length})"
        )

    def call_fill(f: Function, to: Val, source: Val, value: Val, length: Val) -> None:
        f.do(f"call ptr @memset({to}, {f.cast('trunc', value, 'i32')}, {length})")

    low_byte = fill(lambda f, value: f.cast("trunc", value, "i8"))
    every_byte = 0x0101010101010101
    for name, operate, builtin, meaning in (
        ("memcpy", copy("memcpy"), call("memcpy"), lambda x: x),
        ("memmove", copy("memmove"), call("memmove"), lambda x: x),
        ("memset", low_byte, call_fill, lambda x: (x & 255) * every_byte),
        ("memclr", fill(lambda f, value: const("i8", 0)), None, lambda x: x * 0),
    ):
        yield Operation(
            name,
            ("i64", "i64"),
            "i64",
            _on_stack(operate),
            _on_stack(builtin or operate),
            lambda x, n, m=meaning: np.where(n == 0, -1, m(x)),
            lambda x, n: (x, (n & 1) * 8),
        )


OPERATIONS = (*arithmetic(), *conversions(), *formats(), *integers(), *memory())
EXTREMES = tuple(extremes())


def equal(got: Array, want: Array) -> Array:
    """Element by element, whether the bits agree, or both are NaNs."""
    if want.dtype.kind not in "fV":
        return got == want.astype(got.dtype)
    bits = f"u{got.itemsize}"
    return (got.view(bits) == want.view(bits)) | (np.isnan(got.view(want.dtype)) & np.isnan(want))


def values(type: str, data: bytes) -> Array:
    """Numbers of a type from random bytes, 9 each: any bits, and often what is hard."""
    raw = np.frombuffer(data[: len(data) // 9 * 9], np.uint8).reshape(-1, 9)
    choice = raw[:, 8] % 8
    bits = raw[:, :8].copy().view("u8").ravel()
    if type.startswith("i") and type != "i16":
        bits = np.where(choice < 4, bits >> (bits % 64), bits)
        bits = np.where(choice == 4, 0 - (bits >> (bits % 64)), bits)
        return bits.astype(f"u{DTYPES[type][1]}").view(DTYPES[type])
    width, fraction = {"i16": (16, 10), "float": (32, 23), "double": (64, 52)}[type]
    bits >>= 64 - width
    sign, field = 1 << (width - 1), (1 << fraction) - 1
    one = (sign - 1 - field) // 2 & ~field
    special = np.array([0, one, 2 * one, sign - 1 - field, sign - 1, 1, field], "u8")
    spread = 1 << (width - fraction - 4)
    near_one = (bits & (sign | field)) | (one + ((bits >> 3) % spread - spread // 2 << fraction))
    bits = np.select(
        [choice < 2, choice == 2, choice == 3, choice == 4, choice == 5],
        [
            near_one,
            near_one & (2 * sign - 1 ^ field >> 3),  # few significant bits: exact results and ties
            bits & (sign | field),  # subnormal
            special[bits % len(special)] | (bits & sign),
            near_one | (field >> 2),
        ],
        bits,
    ).astype("u8")
    return bits.astype(f"u{width // 8}").view(DTYPES[type])
