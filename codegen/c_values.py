"""What C expressions stand for the values of a function, and which C operations compute them."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tbc.codegen.c_expressions import (
    ATOM,
    BYTE,
    UNARY,
    Address,
    Ex,
    arithmetic,
    binary,
    c_type,
    call,
    cast,
    choice,
    compared,
    element,
    floating,
    integer,
    moved,
    negated,
    typed,
)
from tbc.codegen.c_facts import SIZES, Facts
from tbc.codegen.llvm_simplify import number
from tbc.codegen.llvm_text import Val, bits_of, elem_of, is_float, lanes_of
from tbc.codegen.llvm_tree import BINARY, CASTS, Instr, Parameter
from tbc.errors import InternalError

FIELDS = ("inputs", "outputs", "arena", "state", "weights", "dims", "sync", "fast")
"""The fields of tbc_call."""
_READ_ONLY = ("inputs", "weights", "dims")
_CALL = "const tbc_call *"
_GIVEN = {
    "call": (_CALL, ""),
    "dims": ("const size_t *", "size_t"),
    "shape": ("size_t *", "size_t"),
}
"""By name, the types of parameters that tbc.h fixes, and of what they point to."""

LANE = Ex("lane", ATOM, "int")
"""The number of a lane, in a loop over them."""


@dataclass(frozen=True)
class Signature:
    """A function as it is called.

    Attributes:
        ret: the C type of its result.
        types: those of its parameters.
        pointers: for each parameter, LLVM's type of the elements it leads to, "" for any, and
            whether they are written.
    """

    ret: str
    types: tuple[str, ...]
    pointers: tuple[tuple[str, bool], ...]


@dataclass
class Names:
    """What the functions of one file share.

    Attributes:
        symbol: what the names of helpers begin with.
        globals: by LLVM's name, the address of a constant in C.
        signatures: of the functions so far, by name.
        helpers: the helpers and builtins (`c_helpers`) that were asked for.
    """

    symbol: str
    globals: Mapping[str, str] = field(default_factory=dict)
    signatures: dict[str, Signature] = field(default_factory=dict)
    helpers: set[str] = field(default_factory=set)

    def helper(self, name: str) -> str:
        """The C name of a helper, which will be there."""
        self.helpers.add(name)
        return f"{self.symbol}_{name}"


class Values:
    """The values of a function.

    Attributes:
        known: by name of a scalar or pointer, what stands for it where it is used.
        pending: names of those whose expression is yet to be written somewhere.
        lanes: by name of a vector, what stands for its lane in the loop over lanes around.
    """

    def __init__(self, facts: Facts, names: Names):
        self.facts, self.names = facts, names
        self.known: dict[str, Ex | Address] = {}
        self.pending: list[str] = []
        self.lanes: dict[str, Ex] = {}
        self._continues = dict(facts.same)

    # -- names and types ------------------------------------------------------------------------

    def continues(self, name: str, other: str) -> None:
        """Let a value live in the variable of another one."""
        self._continues[name] = other

    def root(self, name: str) -> str:
        """The value that a value's variable is named for."""
        while name in self._continues:
            name = self._continues[name]
        return name

    def variable(self, name: str) -> str:
        """The C variable of a value."""
        return self.root(name)[1:]

    def type_of(self, value: Val) -> str:
        """The C type of a scalar, or of a vector's elements, where it is a variable."""
        signed = value.text.startswith("%") and self.facts.is_signed(self.root(value.text))
        return c_type(elem_of(value.type), signed)

    def elem(self, name: str) -> str:
        """The C type of what a pointer leads to; bytes where it is not one."""
        type = self.facts.element(name)
        return c_type(type, self.facts.is_signed_at(name)) if type else BYTE

    def parameter(self, parameter: Parameter) -> tuple[str, tuple[str, bool]]:
        """The C type of a parameter, and the elements that it points to, as in `Signature`."""
        value, name = parameter.value, parameter.value.text[1:]
        if value.type != "ptr":
            type = self.type_of(value)
            self.known[value.text] = Ex(name, ATOM, type)
            return type, ("", False)
        if name in _GIVEN:
            type, elem = _GIVEN[name]
            self.known[value.text] = Address(Ex(name, ATOM, type), elem, type.startswith("const"))
            return type, (elem, not type.startswith("const"))
        self.facts.check(value.text)
        written, elem = self.facts.is_written(value.text), self.elem(value.text)
        type = f"{'' if written else 'const '}{elem} *"
        self.known[value.text] = Address(Ex(name, ATOM, type), elem, not written)
        return type, (self.facts.element(value.text), written)

    # -- operands -------------------------------------------------------------------------------

    def constant(self, value: Val, signed: bool = False) -> Ex | None:
        """A scalar constant, or the lane of one that is equal in all lanes or grows evenly."""
        text, elem = value.text, elem_of(value.type)
        if text.startswith(("%", "@")):
            return None
        type = c_type(elem, signed)
        if match := re.fullmatch(r"splat \((\S+) (.+)\)", text):
            return self.constant(Val(elem, match[2]), signed)
        if text.startswith("<"):
            first, step = evenly(text)
            ramp = binary("*", cast(LANE, type), integer(step, type), type)
            return binary("+", ramp, integer(first, type), type)
        if text in ("zeroinitializer", "poison"):
            text = "0"
        if is_float(elem) and elem != "half":
            return floating(_float(text), type)
        bits = int(text[3:], 16) if text.startswith("0xH") else number(Val("i64", text))
        assert bits is not None, value
        return integer(bits, type)

    def get(self, value: Val, type: str = "") -> Ex:
        """An operand that is no pointer, converted to a C type if one is given.

        Of a vector it is the lane of the loop that is being written.
        """
        constant = self.constant(value, type.startswith("int") and type != "int")
        if constant is not None:
            return constant
        if lanes_of(value.type) > 1:
            array = Ex(f"{self.variable(value.text)}[lane]", ATOM, self.type_of(value))
            found = self.lanes.get(value.text, array)
        else:
            ex = self.known[value.text]
            assert isinstance(ex, Ex), value
            found = ex
            self._used(value)
        return cast(found, type) if type else found

    def address(self, value: Val) -> Address:
        """An operand that is a pointer."""
        if value.text == "null":
            return Address(Ex("NULL", ATOM, "void *"), "void", False)
        if value.text.startswith("@"):
            text = self.names.globals[value.text[1:]]
            return Address(Ex(text, UNARY, "const void *"), "void", True)
        found = self.known[value.text]
        assert isinstance(found, Address), value
        self._used(value)
        return found

    def _used(self, value: Val) -> None:
        if value.text in self.pending:
            self.pending.remove(value.text)

    def argument(self, value: Val, type: str) -> Ex:
        """An argument for a parameter of a C type."""
        if value.type != "ptr":
            return self.get(value, type)
        address = self.address(value)
        if type == _CALL:
            return address.base
        return cast(typed(address, type.removeprefix("const ").removesuffix(" *")), type)

    # -- pointers -------------------------------------------------------------------------------

    def pointer(self, instr: Instr) -> Address:
        """The result of an operation that yields a pointer."""
        match instr.op, instr.args:
            case "getelementptr", (base, index):
                address, at = self.address(base), self.get(index, "int32_t")
                if (lanes := lanes_of(instr.detail)) > 1:
                    at = binary("*", at, integer(lanes, at.type), at.type)
                return moved(address, at, SIZES[elem_of(instr.detail)])
            case "load", (table,):
                return self._loaded(self.address(table))
            case "select", (cond, yes, no):
                a, b = self.address(yes), self.address(no)
                is_const = a.is_const or b.is_const
                type = "const void *" if is_const else "void *"
                sides = (cast(typed(s, BYTE) if s.index else s.base, type) for s in (a, b))
                return Address(choice(self.get(cond), *sides), "void", is_const)
            case _:
                raise InternalError(f"no C for a pointer by {instr.op}")

    def _loaded(self, address: Address) -> Address:
        """A field of the call, or an entry of one of its tables."""
        place = int(address.index.text) if address.index is not None else 0
        if address.base.type == _CALL:
            name = FIELDS[place]
            return Address(Ex(f"call->{name}", ATOM, "const void *"), "void", name in _READ_ONLY)
        entry = Ex(f"{address.base.within(ATOM)}[{place}]", ATOM, "const void *")
        return Address(entry, "void", address.is_const)

    # -- operations -----------------------------------------------------------------------------

    def compute(self, instr: Instr) -> Ex:
        """The result of an operation on scalars, or one lane of it."""
        op, args, elem = instr.op, instr.args, elem_of(instr.type)
        match op:
            case _ if op in BINARY:
                return self._binary(instr)
            case _ if op in CASTS:
                return self._cast(op, args[0], elem)
            case "icmp" | "fcmp":
                return self._compare(instr.detail, *args)
            case "select":
                type = self.type_of(instr.value)
                return choice(self.get(args[0]), *(self.get(a, type) for a in args[1:]))
            case "load":
                return element(self.address(args[0]), self.type_of(instr.value))
            case "fneg":
                a = self.get(args[0])
                return Ex(f"-{a.within(ATOM)}", UNARY, a.type, a.reads)
            case "extractelement":
                lane = f"{self.variable(args[0].text)}[{number(args[1])}]"
                return Ex(lane, ATOM, self.type_of(args[0]))
            case "splat":
                return self.get(args[0])
            case "shufflevector":
                return self._shuffled(args[0], args[2].text)
            case "call":
                name = instr.detail.split(".")[1]
                return self._function({"fabs": "abs"}.get(name, name), elem, *map(self.get, args))
            case _:
                raise InternalError(f"no C for {op}")

    def _function(self, name: str, elem: str, *args: Ex) -> Ex:
        """A helper or builtin for a type of floats, with C's `f` behind its name for f32."""
        suffix = "f" if elem == "float" else ""
        return call(self.names.helper(name + suffix), c_type(elem), *args)

    def _binary(self, instr: Instr) -> Ex:
        op, (a, b), elem = instr.op, instr.args, elem_of(instr.type)
        if op == "frem":
            return self._function("fmod", elem, self.get(a), self.get(b))
        type = c_type(elem, instr.is_signed or op in ("sdiv", "srem", "ashr"))
        if op in ("shl", "lshr", "ashr"):
            distance = self.constant(b, signed=True) or self.get(b)
            return arithmetic(op, self.get(a, type), distance, type)
        return arithmetic(op, self.get(a, type), self.get(b, type), type)

    def _compare(self, predicate: str, a: Val, b: Val) -> Ex:
        if a.type == "ptr":
            return compared(predicate, *(self.address(v).base for v in (a, b)))
        if predicate in ("uno", "ord"):
            elem = elem_of(a.type)
            tests = [self._function("is_nan", elem, self.get(v)) for v in dict.fromkeys((a, b))]
            either, *second = (replace(test, type="int") for test in tests)
            if second:
                either = binary("||", either, second[0], "int")
            return either if predicate == "uno" else negated(either)
        if is_float(a.type):
            return compared(predicate, self.get(a), self.get(b))
        signed = predicate[0] == "s"
        if predicate in ("eq", "ne"):
            signed = self.facts.is_signed(a.text)
        type = c_type(elem_of(a.type), signed)
        return compared(predicate.lstrip("su"), self.get(a, type), self.get(b, type))

    def _cast(self, op: str, value: Val, elem: str) -> Ex:
        source, type = elem_of(value.type), c_type(elem, op in ("sext", "fptosi"))
        match op:
            case "ptrtoint":
                base = self.address(value).base
                return Ex(f"({type})(uintptr_t){base.within(UNARY)}", UNARY, type)
            case "fpext" | "fptrunc":
                return self._resized(source, elem, self.get(value))
            case "bitcast" if is_float(source) and source != "half":
                return replace(self._function("bits", source, self.get(value)), type=type)
            case "bitcast" if is_float(elem) and elem != "half":
                bits = self.get(value, c_type(f"i{bits_of(elem)}"))
                return self._function("from_bits", elem, bits)
            case "sext" if source == "i1":
                a = self.get(value, type)
                return Ex(f"-{a.within(ATOM)}", UNARY, type, a.reads)
            case "trunc" if elem == "i1":
                return binary("&", self.get(value), integer(1, c_type(source)), "int")
            case _:
                before = "" if is_float(source) else c_type(source, op in ("sext", "sitofp"))
                return cast(self.get(value, before), type)

    def _resized(self, source: str, elem: str, a: Ex) -> Ex:
        """A float in another format."""
        if source == "half":
            return cast(call(self.names.helper("from_half"), "float", a), c_type(elem))
        if elem == "half":
            name = {"float": "to_half", "double": "double_to_half"}[source]
            return call(self.names.helper(name), "uint16_t", a)
        return cast(a, c_type(elem))

    def _shuffled(self, array: Val, mask: str) -> Ex:
        """Lanes of an array that are evenly apart."""
        first, step = evenly(mask)
        index = LANE if step == 1 else binary("*", LANE, integer(step, "int32_t"), "int")
        if first:
            index = binary("+", index, integer(first, "int32_t"), "int")
        return Ex(f"{self.variable(array.text)}[{index.text}]", ATOM, self.type_of(array))


def evenly(text: str) -> tuple[int, int]:
    """The first number of a constant vector, and the distance between neighbours.

    Raises:
        InternalError: that differs.
    """
    numbers = [int(word.split()[1]) for word in text.strip("<>").split(", ")]
    first, step = numbers[0], numbers[1] - numbers[0]
    if numbers != [first + step * i for i in range(len(numbers))]:
        raise InternalError(f"no C for the constant {text}")
    return first, step


def _float(text: str) -> float:
    """A number that LLVM writes as the bits of a double, or in decimals."""
    if not text.startswith("0x"):
        return float(text)
    (value,) = struct.unpack("<d", struct.pack("<Q", int(text, 16)))
    return float(value)
