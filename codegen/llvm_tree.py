"""LLVM text of our own emitters, read back as a tree of statements.

Not LLVM's language: the instructions that `llvm_text.Function` writes, and its structured loops and
conditions, which are recognised by the names of their labels. What is trivial is simplified on the
way: equal expressions are one, loops of one round are none.
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

from tbc.codegen.llvm_simplify import is_false, number, simplified
from tbc.codegen.llvm_text import Val
from tbc.errors import InternalError

_PARAMETER = re.compile(r"(\w+)((?: \w+)*) %(\w+)")
_HEAD = re.compile(r"define (?:\w* )*?(void|i\d+|float|double) @([\w.]+)\((.*)\) .*\{")
_INSTRUCTION = re.compile(r"(?:(%\w+) = )?(\w+)((?: (?:nsw|exact|inbounds))*) ?(.*)")
_PHI = re.compile(r"(%\w+) = phi (.+) \[ (.+), %\w+ \], \[ (.+), %\w+ \]")
_BRANCH = re.compile(r"br i1 (\S+), label %(\w+), label %(\w+)")
_CASE = re.compile(r"i32 (\d+), label %(\w+)")

_INTEGERS = "add sub mul udiv sdiv urem srem shl lshr ashr and or xor"
_CONVERSIONS = "sext zext trunc sitofp uitofp fptosi fptoui fpext fptrunc bitcast ptrtoint"

BINARY = frozenset(f"{_INTEGERS} fadd fsub fmul fdiv frem".split())
CASTS = frozenset(_CONVERSIONS.split())


@dataclass(frozen=True, eq=False)
class Instr:
    """One instruction.

    Attributes:
        op: its opcode; "call" also stands for intrinsics.
        name: of the result, with LLVM's %; "" where there is none.
        type: of the result, or "void".
        args: the operands.
        detail: a predicate, what is called, or what an address is counted in.
        is_signed: whether a sum or product of integers does not wrap (nsw).
    """

    op: str
    name: str
    type: str
    args: tuple[Val, ...]
    detail: str = ""
    is_signed: bool = False

    @property
    def value(self) -> Val:
        """The result."""
        return Val(self.type, self.name)

    @property
    def has_effect(self) -> bool:
        """Whether it does more than yield a result."""
        call = self.op == "call" and not self.detail.startswith("llvm.")
        return call or self.op in ("store", "ret") or self.type == "void"

    @property
    def is_pure(self) -> bool:
        """Whether the result depends on the operands only, never on memory that changes."""
        return not self.has_effect and (self.op != "load" or self.type == "ptr")


@dataclass(eq=False)
class Phi:
    """A variable of a loop: its value before the first round, and after each."""

    value: Val
    first: Val
    after: Val


@dataclass(eq=False)
class Break:
    """Leave the loop around it unless a condition holds."""

    goes_on: Val


@dataclass(eq=False)
class Loop:
    """Rounds until a `Break`, one of which is at the top of the body."""

    phis: list[Phi]
    body: list[Node]


@dataclass(eq=False)
class If:
    """Statements that run where a condition holds."""

    cond: Val
    body: list[Node]


@dataclass(eq=False)
class Switch:
    """Statements by the value of an integer; for any other value none."""

    value: Val
    cases: list[tuple[int, list[Node]]]


Node: TypeAlias = Instr | Loop | If | Switch | Break


@dataclass(frozen=True)
class Parameter:
    """A parameter; `is_alone` says that nothing else leads to its memory."""

    value: Val
    is_alone: bool


@dataclass(frozen=True)
class Tree:
    """A function."""

    name: str
    ret: str
    parameters: tuple[Parameter, ...]
    body: list[Node]


def parse(text: str) -> Tree:
    """The tree of a function's text; InternalError for what `Function` does not write."""
    head, *lines = text.splitlines()
    match = _HEAD.fullmatch(head)
    if match is None:
        raise InternalError(f"not the head of a function: {head}")
    ret, name, parameters = match.groups()
    found = [_PARAMETER.fullmatch(p) for p in _split(parameters)]
    return Tree(
        name,
        ret,
        tuple(Parameter(Val(m[1], f"%{m[3]}"), " noalias" in m[2]) for m in found if m),
        _Parser(lines).parse(),
    )


class _Parser:
    def __init__(self, lines: list[str]):
        assert (lines[0], lines[-1]) == ("entry:", "}")
        self.lines = [line.strip() for line in lines[1:-1]]
        self.at = 0
        self.known: dict[str, Val] = {}
        """What stands for a result, where that is not the result itself."""
        self.equal: ChainMap[object, Val] = ChainMap()
        """The results of what was computed before, in this block or one around it."""
        self.first_lane: dict[str, Val] = {}
        """What was inserted into nothing."""
        self.lane: dict[str, Val] = {}
        """What all lanes of a vector are."""
        steps = (re.fullmatch(r"(%\w+) = add nsw \w+ %\w+, (\d+)", line) for line in self.lines)
        self.steps = {m[1]: int(m[2]) for m in steps if m}

    def parse(self) -> list[Node]:
        nodes = self._block("")
        assert self.at == len(self.lines), self.lines[self.at]
        return nodes

    def _next(self) -> str:
        self.at += 1
        return self.lines[self.at - 1]

    def _block(self, end: str) -> list[Node]:
        """The statements up to the jump to a label, or to the end of the function."""
        self.equal = self.equal.new_child()
        nodes: list[Node] = []
        while self.at < len(self.lines):
            line = self._next()
            if line == f"br label %{end}":
                break
            nodes += self._node(line)
            if line.startswith("ret ") and (self.at == len(self.lines) or self._is_label()):
                break
        self.equal = self.equal.parents
        return nodes

    def _is_label(self) -> bool:
        return self.lines[self.at].endswith(":")

    def _label(self, name: str) -> None:
        line = self._next()
        if line != f"{name}:":
            raise InternalError(f"not the label {name}: {line}")

    def _node(self, line: str) -> list[Node]:
        if line.startswith("br label %head"):
            return self._loop(line.removeprefix("br label %"))
        if match := _BRANCH.fullmatch(line):
            cond, yes, after = match.groups()
            self._label(yes)
            body = self._block(after)
            self._label(after)
            value = self._known(Val("i1", cond))
            return body if value.text == "true" else [] if is_false(value) else [If(value, body)]
        if line.startswith("switch "):
            return [self._switch(line)]
        return list(self._instruction(line))

    def _switch(self, line: str) -> Switch:
        match = re.fullmatch(r"switch i32 (\S+), label %(\w+) \[", line)
        assert match, line
        labels = []
        while case := _CASE.fullmatch(self._next()):
            labels.append((int(case[1]), case[2]))
        cases = []
        for case_number, label in labels:
            self._label(label)
            cases.append((case_number, self._block(match[2])))
        self._label(match[2])
        return Switch(self._known(Val("i32", match[1])), cases)

    # -- loops ----------------------------------------------------------------------------------

    def _loop(self, head: str) -> list[Node]:
        self._label(head)
        phis = []
        while match := _PHI.fullmatch(self.lines[self.at]):
            name, type, first, after = match.groups()
            phis.append((Val(type, name), self._known(Val(type, first)), Val(type, after)))
            self.at += 1
        if (rounds := self._rounds(phis)) is not None and rounds <= 1:
            return self._straight(head, phis, rounds)
        self.equal = self.equal.new_child()
        body: list[Node] = []
        while not (match := _BRANCH.fullmatch(line := self._next())):
            body += self._node(line)
        cond, inside, done = match.groups()
        body.append(Break(self._known(Val("i1", cond))))
        self._label(inside)
        body += self._block(head)
        self.equal = self.equal.parents
        self._label(done)
        return [Loop([Phi(v, first, self._known(after)) for v, first, after in phis], body)]

    def _rounds(self, phis: list[tuple[Val, Val, Val]]) -> int | None:
        """How often a loop runs, if its limits are constants."""
        index, first, after = phis[0]
        match = re.fullmatch(rf"%\w+ = icmp slt i\d+ {index.text}, (\S+)", self.lines[self.at])
        limit = match and self._known(Val(index.type, match[1]))
        start, stop = number(first), number(limit) if limit else None
        if start is None or stop is None or after.text not in self.steps:
            return None
        return max(0, -(-(stop - start) // self.steps[after.text]))

    def _straight(self, head: str, phis: list[tuple[Val, Val, Val]], rounds: int) -> list[Node]:
        """A loop of one round or none, written out."""
        for value, first, _ in phis:
            self.known[value.text] = first
        self._next()
        match = _BRANCH.fullmatch(self._next())
        assert match
        self._label(match[2])
        before = self.equal
        body = self._block(head)
        self.equal = before
        self._label(match[3])
        if not rounds:
            return []
        ends = [(value, self._known(after)) for value, _, after in phis]
        self.known |= {value.text: end for value, end in ends}
        return body

    # -- instructions ---------------------------------------------------------------------------

    def _known(self, value: Val) -> Val:
        return self.known.get(value.text, value)

    def _typed(self, text: str) -> Val:
        """An operand with its type in front of it."""
        cut = text.index(">") + 1 if text[0] == "<" else text.index(" ")
        return self._known(Val(text[:cut], text[cut:].strip()))

    def _instruction(self, line: str) -> Iterator[Node]:
        match = _INSTRUCTION.fullmatch(line)
        assert match, line
        name, op, flags, rest = match[1] or "", match[2], match[3], match[4]
        instr = replace(self._read(op, rest), name=name, is_signed="nsw" in flags)
        if op == "insertelement" and instr.args[0].text == "poison":
            self.first_lane[name] = instr.args[1]
        if instr.op == "splat":
            self.lane[name] = instr.args[0]
        if instr.is_pure and op != "alloca":
            if op == "extractelement" and (lane := self._any_lane(instr.args[0])) is not None:
                self.known[name] = lane
                return
            if (value := simplified(op, instr.type, instr.args, instr.detail)) is not None:
                self.known[name] = value
                return
            key = (op, instr.type, instr.args, instr.detail, instr.is_signed)
            if key in self.equal:
                self.known[name] = self.equal[key]
                return
            self.equal[key] = instr.value
        yield instr

    def _any_lane(self, vector: Val) -> Val | None:
        """What all lanes of a vector are, if it is the same."""
        match = re.fullmatch(r"splat \((\S+) (.+)\)", vector.text)
        return Val(match[1], match[2]) if match else self.lane.get(vector.text)

    def _read(self, op: str, rest: str) -> Instr:
        def typed(text: str = rest) -> tuple[Val, ...]:
            return tuple(map(self._typed, _split(text)))

        def pair(text: str) -> tuple[Val, Val]:
            first, second = _split(text)
            a = self._typed(first)
            return a, self._known(Val(a.type, second))

        match op:
            case "icmp" | "fcmp":
                detail, _, operands = rest.partition(" ")
                a, b = pair(operands)
                lanes = re.sub(r"\w+>$|^\w+$", "i1", a.type) + (">" if a.type[0] == "<" else "")
                return Instr(op, "", lanes, (a, b), detail)
            case "call":
                type, called, args = re.fullmatch(r"(.+?) @([\w.]+)\((.*)\)", rest).groups()  # type: ignore[union-attr]
                return Instr(op, "", type, typed(args) if args else (), called)
            case "load":
                type, pointer, _ = _split(rest)
                return Instr(op, "", type, (self._typed(pointer),))
            case "store":
                value, pointer, _ = _split(rest)
                return Instr(op, "", "void", (self._typed(value), self._typed(pointer)))
            case "getelementptr":
                elem, pointer, index = _split(rest)
                return Instr(op, "", "ptr", (self._typed(pointer), self._typed(index)), elem)
            case "alloca":
                return Instr(op, "", "ptr", (), rest[1 : rest.index("]")])
            case "ret":
                return Instr(op, "", "void", () if rest == "void" else (self._typed(rest),))
            case _ if op in BINARY:
                a, b = pair(rest)
                return Instr(op, "", a.type, (a, b))
            case _ if op in CASTS:
                source, _, type = rest.rpartition(" to ")
                return Instr(op, "", type, (self._typed(source),))
            case "fneg":
                (a,) = typed()
                return Instr(op, "", a.type, (a,))
            case "select" | "insertelement" | "extractelement" | "shufflevector":
                args = typed()
                if op == "shufflevector" and args[2].text == "zeroinitializer":
                    return Instr("splat", "", args[0].type, (self.first_lane[args[0].text],))
                return Instr(op, "", _result(op, args), args)
            case _:
                raise InternalError(f"no C for the instruction {op} {rest}")


def _result(op: str, args: tuple[Val, ...]) -> str:
    """The type that an operation on lanes yields."""
    if op == "select":
        return args[1].type
    if op == "extractelement":
        return args[0].type[1:-1].split(" x ")[1]
    if op == "shufflevector":
        count, elem = args[2].type[1:-1].split(" x ")[0], args[0].type[1:-1].split(" x ")[1]
        return f"<{count} x {elem}>"
    return args[0].type


def _split(text: str) -> list[str]:
    """What commas separate, but for those in brackets."""
    parts, depth, start = [], 0, 0
    for at, character in enumerate(text):
        if character in "<([{":
            depth += 1
        elif character in ">)]}":
            depth -= 1
        elif character == "," and not depth:
            parts.append(text[start:at].strip())
            start = at + 1
    return [*parts, text[start:].strip()] if text.strip() else []
