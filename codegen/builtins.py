"""The run-time functions that LLVM's back ends call, as private functions of the module.

tbc's output links against nothing. Where a target lacks an instruction (soft float, 64-bit
division, `roundevenf`, half precision, memory copies), LLVM calls the function of libgcc,
compiler-rt, the ARM EABI or libm that is named for it. These are those functions, in integer
arithmetic, under the same names and calling conventions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from tbc import elementary
from tbc.arith import BFLOAT, DOUBLE, FORMATS, HALF, SINGLE, Format, Num, where
from tbc.codegen import memory, softfloat, softint
from tbc.codegen.llvm_text import Function, Module, Val
from tbc.codegen.math import num, raw
from tbc.errors import InternalError

_HALVES = (HALF.name, BFLOAT.name)

Body = Callable[[Function], Val | None]


@dataclass(frozen=True)
class Builtin:
    """One function: its types as LLVM spells them, and how its body yields the result."""

    ret: str
    args: tuple[str, ...]
    body: Body


def builtins_text(names: Iterable[str], triple: str) -> str:
    """LLVM assembly that defines `names` for `triple`, to stand behind a module's own text.

    It defines `@llvm.compiler.used`, so that it can be there once only: call this once with every
    name. The functions may need further ones; call again with those added until none is missing.

    Raises:
        InternalError: a name is not known.
    """
    table = dict(_table(memory.Words.of(triple)))
    module = Module(triple)
    wanted = sorted(set(names))
    for name in wanted:
        if name == "_fltused":  # a mark that some float is used, which Windows' linker looks for
            module.globals[name] = f"@{name} = linkonce_odr global i32 0"
        elif name in table:
            _define(module, name, table[name])
        else:
            raise InternalError(f"LLVM calls {name} for {triple}, which tbc does not have")
    used = ", ".join(f"ptr @{name}" for name in wanted)
    return "\n".join(
        [
            *module.globals.values(),
            *module.functions.values(),
            f"@llvm.compiler.used = appending global [{len(wanted)} x ptr] [{used}], "
            'section "llvm.metadata"\n',
        ]
    )


def _define(module: Module, name: str, builtin: Builtin) -> None:
    # AEABI functions take floats in integer registers even where the ABI is hard float.
    is_arm = name.startswith(("__aeabi_", "__gnu_"))
    # What callers rely on in a register wider than the result.
    extension = {"i16": " zeroext", "i32": " signext"}.get(builtin.ret, "")
    f = Function(
        module,
        name,
        [(type, f"a{i}") for i, type in enumerate(builtin.args)],
        builtin.ret,
        linkage="internal" + (" arm_aapcscc" if is_arm else "") + extension,
        attributes='nounwind "no-builtins"',
    )
    result = builtin.body(f)
    if result is not None:
        f.do(f"ret {result}")
    f.finish()


def _table(words: memory.Words) -> Iterator[tuple[str, Builtin]]:
    yield from _memory(words)
    yield from _integers(words)
    yield from _conversions_between_floats()
    for fmt, gnu, arm, c in ((SINGLE, "sf", "f", "f"), (DOUBLE, "df", "d", "")):
        yield from _arithmetic(fmt, gnu, arm)
        yield from _comparisons(fmt, gnu, arm)
        yield from _conversions_of_integers(fmt, gnu, arm)
        yield from _libm(fmt, c)


def _formula(ret: str, args: tuple[str, ...], formula: Callable[..., Num]) -> Builtin:
    """A formula on integers; the floats among `args` and `ret` go in and out as their bits."""

    def body(f: Function) -> Val:
        values = [num(f, arg) for arg in f.args]
        result = formula(*(v.bits() if v.type in FORMATS else v for v in values))
        if ret in _HALVES:
            return _through_memory(f, result, ret)
        return raw(result.cast("bitcast", ret))

    return Builtin(ret, args, body)


def _through_memory(f: Function, bits: Num, ret: str) -> Val:
    """The bits as a half: as a bitcast LLVM might compute with halves, and call this for that."""
    slot = f.alloca(bits.type)
    f.do(f"store volatile {bits.raw}, {slot}, align 2")
    return f.emit(ret, f"load volatile {ret}, {slot}, align 2")


def _pair(type: str, formula: Callable[[Num, Num], tuple[Num, Num]]) -> Builtin:
    """A formula with two results, in a structure."""
    ret = f"{{{type}, {type}}}"

    def body(f: Function) -> Val:
        first, second = formula(*(num(f, arg) for arg in f.args))
        half = f.emit(ret, f"insertvalue {ret} poison, {first.raw}, 0")
        return f.emit(ret, f"insertvalue {half}, {second.raw}, 1")

    return Builtin(ret, (type, type), body)


def _memory(words: memory.Words) -> Iterator[tuple[str, Builtin]]:
    size = words.type

    def transfer(how: Callable[..., None], ret: str) -> Builtin:
        def body(f: Function) -> Val | None:
            to, source, length = f.args
            how(f, words, to, source, length)
            return to if ret == "ptr" else None

        return Builtin(ret, ("ptr", "ptr", size), body)

    def fill(ret: str, args: tuple[str, ...], length: int, byte: int | None) -> Builtin:
        def body(f: Function) -> Val | None:
            value = num(f, Val("i32", "0") if byte is None else f.args[byte])
            memory.fill(f, words, f.args[0], value, f.args[length])
            return f.args[0] if ret == "ptr" else None

        return Builtin(ret, args, body)

    yield "memcpy", transfer(memory.copy, "ptr")
    yield "memmove", transfer(memory.move, "ptr")
    yield "memset", fill("ptr", ("ptr", "i32", size), length=2, byte=1)
    clear = fill("void", ("ptr", size), length=1, byte=None)
    yield "bzero", clear
    yield "__bzero", clear
    for aligned in ("", "4", "8"):
        yield f"__aeabi_memcpy{aligned}", transfer(memory.copy, "void")
        yield f"__aeabi_memmove{aligned}", transfer(memory.move, "void")
        yield f"__aeabi_memset{aligned}", fill("void", ("ptr", size, "i32"), length=1, byte=2)
        yield f"__aeabi_memclr{aligned}", clear


def _integers(words: memory.Words) -> Iterator[tuple[str, Builtin]]:
    unsigned, signed = softint.divide_unsigned, softint.divide_signed
    for type, gnu in (("i32", "si"), ("i64", "di")):
        two = (type, type)
        yield f"__udiv{gnu}3", _formula(type, two, lambda n, d: unsigned(n, d)[0])
        yield f"__umod{gnu}3", _formula(type, two, lambda n, d: unsigned(n, d)[1])
        yield f"__div{gnu}3", _formula(type, two, lambda n, d: signed(n, d)[0])
        yield f"__mod{gnu}3", _formula(type, two, lambda n, d: signed(n, d)[1])
        leading = _formula("i32", (type,), _count_leading_zeros)
        yield f"__clz{gnu}2", leading
    yield "__aeabi_uidiv", _formula("i32", ("i32", "i32"), lambda n, d: unsigned(n, d)[0])
    yield "__aeabi_idiv", _formula("i32", ("i32", "i32"), lambda n, d: signed(n, d)[0])
    yield "__aeabi_uidivmod", _pair("i32", unsigned)
    yield "__aeabi_idivmod", _pair("i32", signed)
    yield "__aeabi_uldivmod", _pair("i64", unsigned)
    yield "__aeabi_ldivmod", _pair("i64", signed)
    yield "__mulsi3", _formula("i32", ("i32", "i32"), softint.multiply_serially)
    # A machine of 64 bits calls this only if it multiplies no words.
    multiply = softint.multiply_serially if words.type == "i64" else softint.multiply
    for names, type, formula in (
        (("__muldi3", "__aeabi_lmul"), "i64", multiply),
        (("__ashldi3", "__aeabi_llsl"), "i32", softint.shift_left),
        (("__lshrdi3", "__aeabi_llsr"), "i32", partial(softint.shift_right, signed=False)),
        (("__ashrdi3", "__aeabi_lasr"), "i32", partial(softint.shift_right, signed=True)),
    ):
        for name in names:
            yield name, _formula("i64", ("i64", type), formula)


def _count_leading_zeros(x: Num) -> Num:
    return softint.count_leading_zeros(x).cast("trunc", "i32")


def _arithmetic(fmt: Format, gnu: str, arm: str) -> Iterator[tuple[str, Builtin]]:
    for name, formula in (
        ("add", softfloat.add),
        ("sub", softfloat.subtract),
        ("mul", softfloat.multiply),
        ("div", softfloat.divide),
    ):
        builtin = _formula(fmt.name, (fmt.name, fmt.name), partial(formula, fmt=fmt))
        yield f"__{name}{gnu}3", builtin
        yield f"__aeabi_{arm}{name}", builtin


def _comparisons(fmt: Format, gnu: str, arm: str) -> Iterator[tuple[str, Builtin]]:
    def ordering(a: Num, b: Num, if_unordered: int) -> Num:
        value = where(softfloat.less(a, b, fmt), num_like(a, -1), 1)
        value = where(softfloat.equal(a, b, fmt), 0, value)
        return where(softfloat.unordered(a, b, fmt), if_unordered, value)

    def num_like(a: Num, value: int) -> Num:
        return a.cast("trunc", "i32").const(value)

    def test(formula: Callable[[Num, Num], Num]) -> Builtin:
        return _formula("i32", two, lambda a, b: formula(a, b).cast("zext", "i32"))

    two = (fmt.name, fmt.name)
    for name in ("eq", "ne", "lt", "le"):
        yield f"__{name}{gnu}2", _formula("i32", two, partial(ordering, if_unordered=1))
    for name in ("gt", "ge"):
        yield f"__{name}{gnu}2", _formula("i32", two, partial(ordering, if_unordered=-1))
    yield f"__unord{gnu}2", test(partial(softfloat.unordered, fmt=fmt))
    prefix = f"__aeabi_{arm}cmp"
    yield prefix + "un", test(partial(softfloat.unordered, fmt=fmt))
    yield prefix + "eq", test(partial(softfloat.equal, fmt=fmt))
    yield prefix + "lt", test(lambda a, b: softfloat.less(a, b, fmt))
    yield prefix + "gt", test(lambda a, b: softfloat.less(b, a, fmt))
    yield prefix + "le", test(lambda a, b: softfloat.less(a, b, fmt) | softfloat.equal(a, b, fmt))
    yield prefix + "ge", test(lambda a, b: softfloat.less(b, a, fmt) | softfloat.equal(a, b, fmt))


def _conversions_of_integers(fmt: Format, gnu: str, arm: str) -> Iterator[tuple[str, Builtin]]:
    for type, gnu_int, signed, arm_int in (
        ("i32", "si", True, "i"),
        ("i32", "si", False, "ui"),
        ("i64", "di", True, "l"),
        ("i64", "di", False, "ul"),
    ):
        uns, un = ("", "") if signed else ("uns", "un")
        to = partial(softfloat.to_integer, fmt=fmt, type=type, signed=signed)
        yield f"__fix{uns}{gnu}{gnu_int}", _formula(type, (fmt.name,), to)
        yield f"__aeabi_{arm}2{arm_int}z", _formula(type, (fmt.name,), to)
        back = partial(softfloat.from_integer, fmt=fmt, signed=signed)
        yield f"__float{un}{gnu_int}{gnu}", _formula(fmt.name, (type,), back)
        yield f"__aeabi_{arm_int}2{arm}", _formula(fmt.name, (type,), back)


def _conversions_between_floats() -> Iterator[tuple[str, Builtin]]:
    gnu = {HALF: "hf", BFLOAT: "bf", SINGLE: "sf", DOUBLE: "df"}
    for small, large in ((HALF, SINGLE), (HALF, DOUBLE), (SINGLE, DOUBLE)):
        widen = partial(softfloat.widen, fmt=small, to=large)
        yield f"__extend{gnu[small]}{gnu[large]}2", _formula(large.name, (small.name,), widen)
    for large, small in (
        (SINGLE, HALF),
        (DOUBLE, HALF),
        (SINGLE, BFLOAT),
        (DOUBLE, BFLOAT),
        (DOUBLE, SINGLE),
    ):
        narrow = partial(softfloat.narrow, fmt=large, to=small)
        yield f"__trunc{gnu[large]}{gnu[small]}2", _formula(small.name, (large.name,), narrow)
    # On ARM a half is passed as an integer.
    from_half = _formula("float", ("i16",), partial(softfloat.widen, fmt=HALF, to=SINGLE))
    to_half = _formula("i16", ("float",), partial(softfloat.narrow, fmt=SINGLE, to=HALF))
    yield "__gnu_h2f_ieee", from_half
    yield "__aeabi_h2f", from_half
    yield "__gnu_f2h_ieee", to_half
    yield "__aeabi_f2h", to_half
    narrow = partial(softfloat.narrow, fmt=DOUBLE, to=HALF)
    yield "__aeabi_d2h", _formula("i16", ("double",), narrow)
    widen = partial(softfloat.widen, fmt=SINGLE, to=DOUBLE)
    yield "__aeabi_f2d", _formula("double", ("float",), widen)
    narrow = partial(softfloat.narrow, fmt=DOUBLE, to=SINGLE)
    yield "__aeabi_d2f", _formula("float", ("double",), narrow)


def _libm(fmt: Format, suffix: str) -> Iterator[tuple[str, Builtin]]:
    def of(count: int, formula: Callable[..., Num]) -> Builtin:
        return _formula(fmt.name, (fmt.name,) * count, partial(formula, fmt=fmt))

    yield f"sqrt{suffix}", of(1, softfloat.square_root)
    yield f"fma{suffix}", of(3, softfloat.fused_multiply_add)
    yield f"fmod{suffix}", of(2, softfloat.remainder)
    for name, extreme in (("min", softfloat.minimum), ("max", softfloat.maximum)):
        number = of(2, partial(extreme, propagate_nan=False))
        yield f"f{name}{suffix}", number
        yield f"f{name}imum_num{suffix}", number
        yield f"f{name}imum{suffix}", of(2, partial(extreme, propagate_nan=True))
    for name, rounding in (
        ("floor", "floor"),
        ("ceil", "ceil"),
        ("trunc", "trunc"),
        ("roundeven", "round"),
        ("rint", "round"),
        ("nearbyint", "round"),
    ):
        yield name + suffix, _rounding(fmt, elementary.FUNCTIONS[rounding])
    yield "round" + suffix, _rounding(fmt, _half_away)


def _rounding(fmt: Format, formula: Callable[[Num], Num]) -> Builtin:
    return Builtin(fmt.name, (fmt.name,), lambda f: raw(formula(num(f, f.args[0]))))


def _half_away(x: Num) -> Num:
    """The nearest whole number, halves away from 0."""
    a = x.abs()
    down = elementary.FUNCTIONS["trunc"](a)
    up = where(a - down < 0.5, down, down + 1).bits()
    return (up | (x.bits() & x.format.sign)).as_float(x.format)
