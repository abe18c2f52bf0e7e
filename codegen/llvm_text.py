"""LLVM IR as text, written through values that know their type.

`Function` appends instructions to a body; every instruction method returns a `Val`, so a caller
never spells a type twice. Types are LLVM's own spelling: `i32`, `float`, `<16 x i8>`, `ptr`.
Structured loops (`Function.loop`) place the phis, so no kernel deals with basic blocks.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

_VECTOR = re.compile(r"<(?:vscale x )?(\d+) x (.+)>")


@dataclass(frozen=True)
class Val:
    """One SSA value or constant: its LLVM type and how it is written."""

    type: str
    text: str

    def __str__(self) -> str:
        return f"{self.type} {self.text}"


def vec(elem: str, lanes: int) -> str:
    """`elem` for one lane, `<lanes x elem>` for more."""
    return elem if lanes == 1 else f"<{lanes} x {elem}>"


def lanes_of(type: str) -> int:
    """The number of lanes of a (fixed) vector type; 1 for a scalar."""
    match = _VECTOR.fullmatch(type)
    return int(match[1]) if match else 1


def elem_of(type: str) -> str:
    """The element type of a vector type; a scalar is its own element."""
    match = _VECTOR.fullmatch(type)
    return match[2] if match else type


def with_elem(type: str, elem: str) -> str:
    """The type with the lanes of `type` and the element `elem`."""
    return vec(elem, lanes_of(type))


def bits_of(type: str) -> int:
    """The bits of a scalar (or of one lane) of a numeric type."""
    elem = elem_of(type)
    return {"half": 16, "bfloat": 16, "float": 32, "double": 64}.get(elem) or int(elem[1:])


def is_float(type: str) -> bool:
    """Whether one lane of `type` is a floating-point number."""
    return elem_of(type) in ("half", "bfloat", "float", "double")


def const(type: str, value: float | int) -> Val:
    """The constant `value` in every lane of `type`; floats are rounded to the type first."""
    elem, lanes = elem_of(type), lanes_of(type)
    if elem == "float":
        (value,) = struct.unpack("<f", struct.pack("<f", value))
    if elem in ("float", "double"):
        text = f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"
    elif elem == "half":
        text = f"0xH{struct.unpack('<H', struct.pack('<e', value))[0]:04X}"
    elif elem == "bfloat":
        text = f"0xR{struct.unpack('<I', struct.pack('<f', value))[0] >> 16:04X}"
    else:
        text = str(int(value))
    return Val(type, text if lanes == 1 else f"splat ({elem} {text})")


def lanes_const(elem: str, values: Sequence[int]) -> Val:
    """A vector constant of integers, lane by lane."""
    body = ", ".join(f"{elem} {v}" for v in values)
    return Val(vec(elem, len(values)), f"<{body}>")


@dataclass
class Module:
    """Functions, declarations and constants of one LLVM module, each emitted once by name.

    `rounds` says that the machine has instructions that round floats to whole numbers,
    `rounds_to_int` how integers are made of them (`Target.rounds_to_int`). Names of functions that
    several steps share begin with `prefix`; those that are scheduled already are for the module
    `scheduled`, if there is one.
    """

    triple: str
    datalayout: str = ""
    rounds: bool = False
    rounds_to_int: str = ""
    prefix: str = ""
    scheduled: Module | None = None
    functions: dict[str, str] = field(default_factory=dict)
    declarations: dict[str, str] = field(default_factory=dict)
    globals: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """The module as LLVM assembly; deterministic in the order of definition."""
        head = [f'target triple = "{self.triple}"']
        if self.datalayout:
            head.insert(0, f'target datalayout = "{self.datalayout}"')
        declared = [t for n, t in self.declarations.items() if n not in self.functions]
        parts = [*head, *self.globals.values(), *declared, *self.functions.values()]
        return "\n".join(parts) + "\n"

    def routine(
        self, name: str, args: Sequence[tuple[str, str]], emit: Callable[[Function], None]
    ) -> str:
        """The name of a scheduled function that returns nothing, which `emit` makes if need be.

        Args:
            name: says all that its code depends on.
            args: as of `Function`.
            emit: appends its code.
        """
        home = self.scheduled or self
        name = self.prefix + name.removeprefix(self.prefix)
        if name not in home.functions:
            f = Function(home, name, args, linkage="hidden")
            emit(f)
            f.finish()
        self.declarations[name] = f"declare void @{name}({', '.join(type for type, _ in args)})"
        return name

    def constant(self, name: str, data: bytes, align: int = 1, linkage: str = "private") -> Val:
        """A constant byte array; returns its address."""
        body = "".join(_BYTE_TEXT[b] for b in data)
        self.globals[name] = (
            f'@{name} = {linkage} unnamed_addr constant [{len(data)} x i8] c"{body}", align {align}'
        )
        return Val("ptr", f"@{name}")


_BYTE_TEXT = [chr(b) if 32 <= b < 127 and b not in (34, 92) else f"\\{b:02X}" for b in range(256)]


class Loop:
    """The state of an open `Function.loop`: its index, the carried values, and where they end."""

    def __init__(self, index: Val, carried: tuple[Val, ...]):
        self.index = index
        self.carried = carried
        self.results = carried
        """After the loop: the values it left with (the ones it entered with if it never ran)."""
        self.next: tuple[Val, ...] | None = None if carried else ()
        self.done = ""
        """The label behind a `repeat`, once its condition is there."""

    def go_on(self, f: Function, cond: Val) -> None:
        """Leave a `Function.repeat` unless the i1 `cond` holds."""
        body, self.done = f.fresh("body"), f.fresh("done")
        f.do(f"br {cond}, label %{body}, label %{self.done}")
        f.label(body)

    def yield_(self, *values: Val) -> None:
        """Give the values that the next iteration carries; exactly once an iteration."""
        assert self.next is None, "one yield_ a loop"
        assert [v.type for v in values] == [c.type for c in self.carried], (values, self.carried)
        self.next = values


class Function:
    """A function under construction; `finish()` adds it to its module."""

    def __init__(
        self,
        module: Module,
        name: str,
        args: Sequence[tuple[str, str]],
        ret: str = "void",
        linkage: str = "internal",
        attributes: str = "nounwind",
    ):
        """`args` are (type, name) pairs; a type may carry attributes, as in `ptr noalias`."""
        self.module, self.name, self.ret = module, name, ret
        self.args = tuple(Val(t.split()[0] if t[0] != "<" else t, f"%{n}") for t, n in args)
        params = ", ".join(f"{t} %{n}" for t, n in args)
        self._head = f"define {linkage} {ret} @{name}({params}) {attributes} {{"
        self.attributes = attributes
        self._lines: list[str] = ["entry:"]
        self._entry_lines: list[str] = []
        self._block = "entry"
        self._count = 0

    # -- plumbing ---------------------------------------------------------------------------

    def fresh(self, hint: str = "v") -> str:
        """A new local name."""
        self._count += 1
        return f"{hint}{self._count}"

    def emit(self, type: str, text: str) -> Val:
        """Append an instruction that yields a value of `type`; `text` is its right-hand side."""
        name = f"%{self.fresh()}"
        self._lines.append(f"  {name} = {text}")
        return Val(type, name)

    def do(self, text: str) -> None:
        """Append an instruction that yields nothing."""
        self._lines.append(f"  {text}")

    def label(self, name: str) -> None:
        """Start the basic block `name`."""
        self._lines.append(f"{name}:")
        self._block = name

    @property
    def block(self) -> str:
        """The label of the block that instructions go to now."""
        return self._block

    def finish(self) -> str:
        """Close the function (with `ret void` where it returns nothing) and add it."""
        if self.ret == "void":
            self.do("ret void")
        body = [self._lines[0], *self._entry_lines, *self._lines[1:]]
        self.module.functions[self.name] = "\n".join([self._head, *body, "}"])
        return self.name

    # -- instructions -----------------------------------------------------------------------

    def op(self, opcode: str, a: Val, b: Val) -> Val:
        """A binary instruction (`add`, `fmul`, `lshr exact`, …) on equal types."""
        assert a.type == b.type, (opcode, a, b)
        return self.emit(a.type, f"{opcode} {a.type} {a.text}, {b.text}")

    def fneg(self, a: Val) -> Val:
        """-a, sign bit only."""
        return self.emit(a.type, f"fneg {a}")

    def icmp(self, pred: str, a: Val, b: Val) -> Val:
        """An integer or pointer comparison."""
        assert a.type == b.type, (pred, a, b)
        return self.emit(with_elem(a.type, "i1"), f"icmp {pred} {a.type} {a.text}, {b.text}")

    def fcmp(self, pred: str, a: Val, b: Val) -> Val:
        """A floating-point comparison (`olt`, `une`, `uno`, …)."""
        assert a.type == b.type, (pred, a, b)
        return self.emit(with_elem(a.type, "i1"), f"fcmp {pred} {a.type} {a.text}, {b.text}")

    def select(self, cond: Val, yes: Val, no: Val) -> Val:
        """`yes` where `cond`, else `no`, lane by lane."""
        assert yes.type == no.type, (yes, no)
        return self.emit(yes.type, f"select {cond}, {yes}, {no}")

    def cast(self, opcode: str, a: Val, to: str) -> Val:
        """A conversion (`sext`, `zext`, `trunc`, `sitofp`, `bitcast`, …); none if `to` is `a`'s."""
        return a if a.type == to else self.emit(to, f"{opcode} {a} to {to}")

    def load(self, type: str, ptr: Val, align: int) -> Val:
        """Load a value of `type`."""
        return self.emit(type, f"load {type}, {ptr}, align {align}")

    def store(self, value: Val, ptr: Val, align: int) -> None:
        """Store `value`."""
        self.do(f"store {value}, {ptr}, align {align}")

    def offset(self, ptr: Val, index: Val, elem: str = "i8") -> Val:
        """The address of `ptr[index]` in units of `elem`."""
        return self.emit("ptr", f"getelementptr inbounds {elem}, {ptr}, {index}")

    def call(self, ret: str, name: str, *args: Val) -> Val:
        """Call a function of the module; void calls return a Val that must not be used."""
        actual = ", ".join(str(a) for a in args)
        text = f"call {ret} @{name}({actual})"
        if ret == "void":
            self.do(text)
            return Val("void", "")
        return self.emit(ret, text)

    def intrinsic(self, ret: str, name: str, *args: Val) -> Val:
        """Call an LLVM intrinsic, declaring it."""
        formal = ", ".join(a.type for a in args)
        self.module.declarations[name] = f"declare {ret} @{name}({formal})"
        return self.call(ret, name, *args)

    def splat(self, a: Val, lanes: int) -> Val:
        """Scalar `a` in every lane."""
        if lanes == 1:
            return a
        type = vec(a.type, lanes)
        if not a.text.startswith("%"):
            return Val(type, f"splat ({a})")
        one = self.emit(type, f"insertelement {type} poison, {a}, i32 0")
        zeros = Val(vec("i32", lanes), "zeroinitializer")
        return self.emit(type, f"shufflevector {one}, {type} poison, {zeros}")

    def extract(self, a: Val, lane: int) -> Val:
        """Lane `lane` of a vector."""
        return self.emit(elem_of(a.type), f"extractelement {a}, i32 {lane}")

    def insert(self, a: Val, value: Val, lane: int) -> Val:
        """`a` with lane `lane` replaced."""
        return self.emit(a.type, f"insertelement {a}, {value}, i32 {lane}")

    def shuffle(self, a: Val, b: Val, lanes: Sequence[int]) -> Val:
        """Lanes picked out of `a` (0 …) and `b` (lanes_of(a) …)."""
        mask = lanes_const("i32", lanes)
        type = vec(elem_of(a.type), len(lanes))
        return self.emit(type, f"shufflevector {a}, {b}, {mask}")

    def prefetch(self, ptr: Val, ahead: int) -> None:
        """Ask for a cache line `ahead` bytes on, which may lie behind the buffer, to read it."""
        ptr = self.emit("ptr", f"getelementptr i8, {ptr}, i32 {ahead}")
        read, keep, data = const("i32", 0), const("i32", 3), const("i32", 1)
        self.intrinsic("void", "llvm.prefetch.p0", ptr, read, keep, data)

    def alloca(self, type: str, count: int = 1, align: int = 16) -> Val:
        """Stack space, reserved in the entry block."""
        name = f"%{self.fresh('stack')}"
        self._entry_lines.append(f"  {name} = alloca [{count} x {type}], align {align}")
        return Val("ptr", name)

    # -- control flow -----------------------------------------------------------------------

    @contextmanager
    def loop(
        self, start: Val, stop: Val, step: int = 1, carried: Sequence[Val] = ()
    ) -> Iterator[Loop]:
        """`for index in range(start, stop, step)`, signed; the body may run zero times.

        Carried values enter as `loop.carried`, are renewed by `loop.yield_(…)`, and are found in
        `loop.results` behind the loop.
        """
        head, body, done = self.fresh("head"), self.fresh("body"), self.fresh("done")
        before = self._block
        self.do(f"br label %{head}")
        self.label(head)
        index = Val(start.type, f"%{self.fresh('i')}")
        state = Loop(index, tuple(Val(c.type, f"%{self.fresh('c')}") for c in carried))
        phis_at = len(self._lines)
        more = self.icmp("slt", index, stop)
        self.do(f"br {more}, label %{body}, label %{done}")
        self.label(body)
        yield state
        assert state.next is not None, "the loop's body never called yield_"
        following = self.emit(index.type, f"add nsw {index}, {step}")
        phis = zip(
            (index, *state.carried), (start, *carried), (following, *state.next), strict=True
        )
        self._again(head, before, phis_at, phis)
        self.label(done)

    @contextmanager
    def repeat(self, *carried: Val) -> Iterator[Loop]:
        """Run the body until a condition fails, which it gives to `loop.go_on` exactly once.

        Values are carried as by `loop`; what precedes the condition runs once more than the rest.
        """
        head, before = self.fresh("head"), self._block
        self.do(f"br label %{head}")
        self.label(head)
        state = Loop(Val("", ""), tuple(Val(c.type, f"%{self.fresh('c')}") for c in carried))
        phis_at = len(self._lines)
        yield state
        assert state.done, "the loop's body never called go_on"
        assert state.next is not None, "the loop's body never called yield_"
        self._again(head, before, phis_at, zip(state.carried, carried, state.next, strict=True))
        self.label(state.done)

    def _again(
        self, head: str, before: str, phis_at: int, phis: Iterable[tuple[Val, Val, Val]]
    ) -> None:
        """Go back to a loop's head; its phis are (variable, first value, next value)."""
        latch = self._block
        self.do(f"br label %{head}")
        self._lines[phis_at:phis_at] = [
            f"  {var.text} = phi {var.type} [ {first.text}, %{before} ], [ {after.text}, %{latch} ]"
            for var, first, after in phis
        ]

    @contextmanager
    def when(self, cond: Val) -> Iterator[None]:
        """Run the body only where the i1 `cond` holds."""
        yes, done = self.fresh("then"), self.fresh("endif")
        self.do(f"br {cond}, label %{yes}, label %{done}")
        self.label(yes)
        yield
        self.do(f"br label %{done}")
        self.label(done)
