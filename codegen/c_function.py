"""A function in C: what `llvm_tree` read, with types and expressions that people write.

A value that is used once stands where it is used; others are constants with names. A vector is an
array, or nothing: neighbouring operations on vectors are one loop over their lanes, in which
whatever stays inside is a scalar.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from tbc.codegen.c_expressions import (
    ATOM,
    BYTE,
    CHOICE,
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
    is_float_type,
    moved,
    negated,
    typed,
)
from tbc.codegen.c_facts import MEMORY, SIZES, Facts
from tbc.codegen.llvm_text import Val, bits_of, elem_of, is_float, lanes_of
from tbc.codegen.llvm_tree import (
    BINARY,
    CASTS,
    Break,
    If,
    Instr,
    Loop,
    Node,
    Parameter,
    Phi,
    Switch,
    Tree,
    number,
)
from tbc.errors import InternalError

LONGEST = 76
"""Characters of an expression, from which on it gets a name."""
WIDTH = 100

FIELDS = ("inputs", "outputs", "arena", "state", "weights", "dims", "sync")
"""The fields of tbc_call."""
_READ_ONLY = ("inputs", "weights", "dims")

STATUS = ("OK", "ABI", "CPU", "NULL", "ALIGN", "DIM", "WEIGHTS", "VALUE")
"""The names of enum tbc_status."""


@dataclass(frozen=True)
class Signature:
    """A function as it is called.

    Attributes:
        ret: the C type of its result.
        types: those of its parameters.
        pointers: for each parameter, the type of the elements it leads to, "" for any, and whether
            they are written.
    """

    ret: str
    types: tuple[str, ...]
    pointers: tuple[tuple[str, bool], ...]


@dataclass
class Names:
    """What functions of one file share.

    Attributes:
        signatures: of the functions so far.
        helpers: the helpers (`c_helpers.HELPERS`) and builtins that were asked for.
        symbol: what the names of functions begin with.
        globals: by LLVM's name, the address of a constant in C.
    """

    symbol: str
    globals: Mapping[str, str] = field(default_factory=dict)
    signatures: dict[str, Signature] = field(default_factory=dict)
    helpers: dict[str, None] = field(default_factory=dict)

    def helper(self, name: str) -> str:
        """The C name of a helper, which will be there."""
        self.helpers[name] = None
        return f"{self.symbol}_{name}"


def c_function(tree: Tree, names: Names) -> str:
    """The function in C; its signature is added to the names."""
    return _Writer(tree, names).write()


class _Writer:
    def __init__(self, tree: Tree, names: Names):
        self.tree, self.names = tree, names
        self.facts = Facts(tree, {n: s.pointers for n, s in names.signatures.items()})
        self.values: dict[str, Ex | Address] = {}
        """The scalars and pointers: what stands where they are used."""
        self.pending: list[str] = []
        """Those of them that are yet to be computed, there."""
        self.lines: list[str] = []
        self.top: list[str] = []
        self.indent = 1
        self.block = 0
        self.group: list[Instr | tuple[str, Val]] = []
        """Operations on vectors that will be one loop; ends with what is stored or assigned."""
        self.lanes = 0
        self.inside: dict[str, Ex] = {}
        """Within that loop, the lanes of vectors."""
        self.addresses: dict[str, Address] = {}

    # -- the function as a whole ----------------------------------------------------------------

    def write(self) -> str:
        tree = self.tree
        types, pointers = [], []
        for parameter in tree.parameters:
            type, pointer = self._parameter(parameter)
            types.append(type)
            pointers.append(pointer)
        ret = c_type(tree.ret, signed=tree.ret == "i32")
        self.names.signatures[tree.name] = Signature(ret, tuple(types), tuple(pointers))
        self._block(tree.body)
        unused = [p.value.text[1:] for p in tree.parameters if not self.facts.count(p.value.text)]
        formal = ", ".join(
            f"{t}{'' if t.endswith('*') else ' '}{self._alone(p, t)}{p.value.text[1:]}"
            for t, p in zip(types, tree.parameters, strict=True)
        )
        head = f"static {ret}{'' if ret.endswith('*') else ' '}{tree.name}({formal})"
        head = "\n".join(textwrap.wrap(head, WIDTH, subsequent_indent="        "))
        top = [f"    (void){name};" for name in unused] + [f"    {line}" for line in self.top]
        return "\n".join([f"{head} {{", *top, *self.lines, "}"])

    def _alone(self, parameter: Parameter, type: str) -> str:
        return "TBC_RESTRICT " if parameter.is_alone and type.endswith("*") else ""

    def _parameter(self, parameter: Parameter) -> tuple[str, tuple[str, bool]]:
        """The C type of a parameter, and what it points to."""
        value = parameter.value
        name = value.text[1:]
        if value.type != "ptr":
            type = c_type(value.type, self.facts.is_signed(value.text))
            self.values[value.text] = Ex(name, ATOM, type)
            return type, ("", False)
        if name == "call":
            self.values[value.text] = Address(Ex(name, ATOM, "const tbc_call *"), "", True)
            return "const tbc_call *", ("", False)
        self.facts.check(value.text)
        written = self.facts.is_written(value.text)
        elem = self._elem(value.text)
        type = f"{'' if written else 'const '}{elem} *"
        self.values[value.text] = Address(Ex(name, ATOM, type), elem, not written)
        return type, (self.facts.element(value.text), written)

    def _elem(self, name: str) -> str:
        """The C type of what a pointer leads to; bytes where it is not one."""
        type = self.facts.element(name)
        return c_type(type, self._is_signed_at(name)) if type else BYTE

    def _is_signed_at(self, pointer: str) -> bool:
        """Whether the integers at a pointer are best read as signed ones."""
        for use in self.facts.uses.get(pointer, ()):
            match use.by:
                case Instr(op="load", type="ptr"):
                    pass
                case Instr(op="load", name=name) if self.facts.is_signed(name):
                    return True
                case Instr(op="getelementptr", name=name) if self._is_signed_at(name):
                    return True
                case _:
                    pass
        return False

    # -- lines ----------------------------------------------------------------------------------

    def _line(self, text: str) -> None:
        pad = "    " * self.indent
        more = pad + "        "
        self.lines += textwrap.wrap(
            pad + text, WIDTH, subsequent_indent=more, break_long_words=False, break_on_hyphens=False
        )

    @contextmanager
    def _braces(self, head: str) -> Iterator[None]:
        self._line(f"{head} {{")
        self.indent += 1
        yield
        self.indent -= 1
        self._line("}")

    def _name(self, name: str) -> str:
        """The C variable of a value."""
        while name in self.facts.same:
            name = self.facts.same[name]
        return name[1:]

    def _keep(self, name: str, what: Ex | Address) -> None:
        """Compute a value now, into a variable."""
        variable = self._name(name)
        if isinstance(what, Address):
            elem = self._elem(name)
            pointer = typed(what, elem)
            self._declare(name, pointer.type, pointer.text)
            kept = Ex(variable, ATOM, pointer.type)
            self.values[name] = Address(kept, elem, what.is_const)
        else:
            self._declare(name, what.type, what.text)
            self.values[name] = Ex(variable, ATOM, what.type)
        if name in self.pending:
            self.pending.remove(name)

    def _declare(self, name: str, type: str, text: str) -> None:
        variable = self._name(name)
        space = "" if type.endswith("*") else " "
        if self.facts.outlives(name, self.block):
            self.top.append(f"{type}{space}{variable};")
            self._line(f"{variable} = {text};")
        else:
            self._line(f"{_declared(type, variable)} = {text};")

    def _settle(self) -> None:
        """Read what is yet to be read, before memory changes or a block ends."""
        for name in [n for n in self.pending if self.values[n].reads]:
            self._keep(name, self.values[name])

    # -- operands -------------------------------------------------------------------------------

    def _constant(self, value: Val, signed: bool = False) -> Ex | None:
        """A scalar constant, or the lane of one that is equal in all lanes or grows evenly."""
        text, elem = value.text, elem_of(value.type)
        if text.startswith(("%", "@")):
            return None
        type = c_type(elem, signed)
        if match := re.fullmatch(r"splat \((\S+) (.+)\)", text):
            return self._constant(Val(elem, match[2]), signed)
        if match := re.fullmatch(r"<(.+)>", text):
            numbers = [int(word.split()[1]) for word in match[1].split(", ")]
            step = numbers[1] - numbers[0]
            if numbers != [numbers[0] + step * i for i in range(len(numbers))]:
                raise InternalError(f"no C for the constant {value}")
            ramp = binary("*", cast(_LANE, type), integer(step, type), type)
            return binary("+", ramp, integer(numbers[0], type), type)
        if text in ("zeroinitializer", "poison", "undef"):
            text = "0"
        if is_float(elem) and elem != "half":
            return floating(_float(text), type)
        bits = int(text[3:], 16) if text.startswith("0xH") else number(Val("i64", text))
        assert bits is not None, value
        return integer(bits, type)

    def _get(self, value: Val, type: str = "") -> Ex:
        """An operand that is no pointer, converted to a C type if one is given.

        Of a vector it is the lane of the loop that is being written.
        """
        constant = self._constant(value, type.startswith("int") and type != "int")
        if constant is not None:
            return constant
        name = value.text
        if lanes_of(value.type) > 1:
            found = self.inside.get(name) or Ex(
                f"{self._name(name)}[lane]",
                ATOM,
                c_type(elem_of(value.type), self.facts.is_signed(name)),
            )
        else:
            ex = self.values[name]
            assert isinstance(ex, Ex), value
            found = ex
            if name in self.pending:
                self.pending.remove(name)
        return cast(found, type) if type else found

    def _address(self, value: Val) -> Address:
        """An operand that is a pointer."""
        if value.text.startswith("@"):
            text = self.names.globals[value.text[1:]]
            return Address(Ex(text, UNARY, "const void *"), "void", True)
        if value.text == "null":
            return Address(Ex("NULL", ATOM, "void *"), "void", False)
        found = self.values[value.text]
        assert isinstance(found, Address), value
        if value.text in self.pending:
            self.pending.remove(value.text)
        return found

    def _signed_type(self, value: Val, signed: bool) -> str:
        return c_type(elem_of(value.type), signed)

    # -- statements -----------------------------------------------------------------------------

    def _block(self, nodes: list[Node], phis: list[Phi] | None = None) -> None:
        """The statements of a block; at its end, the next values of a loop's variables."""
        around, pending = self.block, self.pending
        self.block, self.pending = self.facts.inner[id(nodes)], []
        for node in nodes:
            match node:
                case Instr():
                    self._instruction(node)
                case Loop():
                    self._loop(node)
                case If(cond=cond, body=body):
                    self._flush()
                    condition = self._get(cond)
                    self._settle()
                    with self._braces(f"if ({condition.text})"):
                        self._block(body)
                case Switch():
                    self._switch(node)
                case Break(goes_on=goes_on):
                    self._flush()
                    condition = negated(self._get(goes_on))
                    self._settle()
                    self._line(f"if ({condition.text}) break;")
        self._renew(phis or [])
        self._flush()
        self.block, self.pending = around, pending

    def _switch(self, node: Switch) -> None:
        value = self._get(node.value)
        self._settle()
        with self._braces(f"switch ({value.text})"):
            for case, body in node.cases:
                self.indent -= 1
                with self._braces(f"case {case}:"):
                    self._block(body)
                    last = body[-1] if body else None
                    if not (isinstance(last, Instr) and last.op == "ret"):
                        self._line("break;")
                self.indent += 1
            self.indent -= 1
            self._line("default: break;")
            self.indent += 1

    def _instruction(self, instr: Instr) -> None:
        vectors = [v for v in (instr.value, *instr.args) if lanes_of(v.type) > 1]
        if not instr.has_effect and not self.facts.count(instr.name):
            return
        if vectors and instr.op not in ("extractelement", "insertelement"):
            self._vector(instr, lanes_of(vectors[0].type))
            return
        if instr.has_effect or vectors:
            self._flush()
        match instr.op:
            case "store":
                target = self._stored(instr)
                value = self._get(instr.args[0], target.type)
                self._settle()
                self._line(f"{target.text} = {value.text};")
            case "ret":
                self._return(instr)
            case "call" if instr.has_effect:
                self._call(instr)
            case "insertelement":
                self._insert(instr)
            case "alloca":
                self._alloca(instr)
            case _:
                self._scalar(instr)

    def _scalar(self, instr: Instr) -> None:
        """A result: for the place where it is used, if there is one only."""
        what: Ex | Address
        what = self._pointer(instr) if instr.type == "ptr" else self._compute(instr)
        (use, *more) = self.facts.uses[instr.name]
        text = what.text if isinstance(what, Ex) else what.base.text
        long = len(text) > LONGEST
        self.values[instr.name] = what
        is_name = isinstance(what, Ex) and what.level == ATOM and not what.reads
        field = isinstance(what, Address) and what.index is None and not what.reads
        if not (is_name or field) and (more or use.block != self.block or long):
            self._keep(instr.name, what)
        else:
            self.pending.append(instr.name)

    def _return(self, instr: Instr) -> None:
        if not instr.args:
            return
        status = number(instr.args[0])
        if self.tree.ret == "i32" and status is not None and self.tree.parameters[0].value.text == "%call":
            self._line(f"return TBC_{'ERROR_' if status else ''}{STATUS[status]};")
            return
        self._line(f"return {self._get(instr.args[0], c_type(self.tree.ret, self.tree.ret == 'i32')).text};")

    def _call(self, instr: Instr) -> None:
        if instr.detail.startswith("llvm.memcpy"):
            to, source, size, _ = instr.args
            name = self.names.helper("copy")
            args = [typed(self._address(to), BYTE), typed(self._address(source), BYTE)]
            text = f"{name}({args[0].text}, {args[1].text}, {self._get(size, 'uint32_t').text})"
            self._settle()
            self._line(f"{text};")
            return
        signature = self.names.signatures[instr.detail]
        args = [
            self._argument(value, type) for value, type in zip(instr.args, signature.types, strict=True)
        ]
        text = f"{instr.detail}({', '.join(a.text for a in args)})"
        self._settle()
        if instr.type == "void":
            self._line(f"{text};")
        else:
            self._declare(instr.name, signature.ret, text)
            self.values[instr.name] = Ex(self._name(instr.name), ATOM, signature.ret)

    def _argument(self, value: Val, type: str) -> Ex:
        if value.type != "ptr":
            return self._get(value, type)
        address = self._address(value)
        if type == "const tbc_call *":
            return address.base
        elem = type.removeprefix("const ").removesuffix(" *")
        return cast(typed(address, elem), type) if address.base.type != type else typed(address, elem)

    def _alloca(self, instr: Instr) -> None:
        self.facts.check(instr.name)
        types, _ = self.facts.accesses(instr.name)
        (type,) = types
        count, _, elem = instr.detail.partition(" x ")
        size, wanted = SIZES[elem_of(elem)], SIZES[type]
        total = int(count) * lanes_of(elem)
        if size != wanted:
            assert isinstance(size, int) and isinstance(wanted, int)
            total = total * size // wanted
        c = c_type(type, self._is_signed_at(instr.name))
        name = self._name(instr.name)
        self._line(f"{c} {name}[{total}];")
        self.values[instr.name] = Address(Ex(name, ATOM, f"{c} *"), c, False)

    # -- loops ----------------------------------------------------------------------------------

    def _loop(self, loop: Loop) -> None:
        phis = [p for p in loop.phis if self.facts.count(p.value.text)]
        self._flush()
        counted = self._counted(loop)
        head = "for (;;)"
        for phi in phis:
            if phi.value.text not in self.facts.same and phi is not counted:
                self._start(phi)
            elif phi is not counted:
                self._variable(phi)
        body = loop.body
        if counted is not None:
            start = self._start_text(counted)
            self._settle()
            name = self._name(counted.value.text)
            type = self.values[counted.value.text]
            assert isinstance(type, Ex)
            first, test, step = f"{type.type} {name} = {start}", self._test(body[0]), self._step(counted)
            if self.facts.outlives(counted.value.text, self.facts.inner[id(body)]):
                self._line(f"{first};")
                first = ""
            head = f"for ({first}; {test}; {step})"
        else:
            self._settle()
        with self._braces(head):
            skipped = 2 if counted is not None else 0
            rest = _Rest(body, skipped)
            self.facts.inner[id(rest)] = self.facts.inner[id(body)]
            self._block(rest, [p for p in phis if p is not counted])

    def _counted(self, loop: Loop) -> Phi | None:
        """The variable of a loop that counts up to a limit known before."""
        test, leave = loop.body[:2] if len(loop.body) > 1 else (None, None)
        phi = loop.phis[0] if loop.phis else None
        if not isinstance(test, Instr) or test.op != "icmp" or not isinstance(leave, Break) or not phi:
            return None
        after = self.facts.made.get(phi.after.text)
        counts = isinstance(after, Instr) and after.op == "add" and after.args[0] == phi.value
        is_test = leave.goes_on == test.value and test.args[0] == phi.value
        return phi if counts and is_test and self.facts.count(test.name) == 1 and phi.value.type != "ptr" and phi.value.text not in self.facts.same and number(after.args[1]) is not None else None

    def _test(self, test: Node) -> str:
        assert isinstance(test, Instr)
        return self._compute(test).text

    def _step(self, phi: Phi) -> str:
        after = self.facts.made[phi.after.text]
        assert isinstance(after, Instr)
        step, name = number(after.args[1]), self._name(phi.value.text)
        return f"{name}++" if step == 1 else f"{name} += {step}"

    def _variable(self, phi: Phi) -> str:
        """Note what a loop's variable is called; its C type."""
        value, name = phi.value, self._name(phi.value.text)
        if value.type == "ptr":
            written = self.facts.is_written(value.text)
            type = f"{'' if written else 'const '}{BYTE} *"
            self.values[value.text] = Address(Ex(name, ATOM, type), BYTE, not written)
            return type
        type = self._signed_type(value, self.facts.is_signed(self._root(value.text)))
        if lanes_of(value.type) == 1:
            self.values[value.text] = Ex(name, ATOM, type)
        return type

    def _root(self, name: str) -> str:
        while name in self.facts.same:
            name = self.facts.same[name]
        return name

    def _start_text(self, phi: Phi) -> str:
        type = self._variable(phi)
        if phi.value.type == "ptr":
            return cast(typed(self._address(phi.first), BYTE), type).text
        return self._get(phi.first, type).text

    def _start(self, phi: Phi) -> None:
        """Declare a loop's variable with its first value."""
        lanes, name = lanes_of(phi.value.type), self._name(phi.value.text)
        if lanes == 1:
            start = self._start_text(phi)
            type = self.values[phi.value.text]
            c = type.type if isinstance(type, Ex) else type.base.type
            self._line(f"{c}{'' if c.endswith('*') else ' '}{name} = {start};")
            return
        self._line(f"{self._variable(phi)} {name}[{lanes}];")
        self._each_lane(lanes, [f"{name}[lane] = {self._get(phi.first).text};"])

    def _renew(self, phis: list[Phi]) -> None:
        """Give a loop's variables their values for the next round, all at once."""
        vectors = [p for p in phis if lanes_of(p.value.type) > 1 and not self._stays(p)]
        for phi in vectors:
            lanes = lanes_of(phi.value.type)
            if len(vectors) > 1 or (self.group and lanes != self.lanes):
                self._flush()
            self.lanes = lanes
            self.group.append((self._name(phi.value.text), phi.after))
        self._flush()
        scalars = [p for p in phis if lanes_of(p.value.type) == 1 and not self._stays(p)]
        after = {self._name(p.value.text): self._after(p) for p in scalars}
        while after:
            free = (n for n in after if not any(mentions(after[o], n) for o in after if o != n))
            name = next(free, "")
            if name:
                self._assign(name, after.pop(name))
                continue
            name, ex = next(iter(after.items()))  # each waits for another one
            kept = f"next_{name}"
            self._line(f"{_declared(ex.type, kept)} = {ex.text};")
            after[name] = Ex(kept, ATOM, ex.type)

    def _assign(self, name: str, ex: Ex) -> None:
        """Set a variable; where it is added to, say so."""
        first, operator = ex.left
        if first == name and operator in ("+", "-", "|", "^", "&", "*", ">>", "<<"):
            rest = ex.text.removeprefix(f"{name} {operator} ")
            self._line(f"{name} {operator}= {_bare(rest)};")
        else:
            self._line(f"{name} = {ex.text};")

    def _stays(self, phi: Phi) -> bool:
        return self._name(phi.after.text) == self._name(phi.value.text)

    def _after(self, phi: Phi) -> Ex:
        variable = self.values[phi.value.text]
        if isinstance(variable, Address):
            return cast(typed(self._address(phi.after), BYTE), variable.base.type)
        return self._get(phi.after, variable.type)

    # -- results --------------------------------------------------------------------------------

    def _pointer(self, instr: Instr) -> Address:
        match instr.op, instr.args:
            case "getelementptr", (base, index):
                unit = SIZES[elem_of(instr.detail)]
                address = self._address(base)
                at = self._get(index, "int32_t")
                if (lanes := lanes_of(instr.detail)) > 1:
                    at = binary("*", at, integer(lanes, at.type), at.type)
                return moved(address, at, unit)
            case "load", (pointer,):
                return self._loaded_pointer(self._address(pointer))
            case "select", (cond, yes, no):
                a, b = self._address(yes), self._address(no)
                is_const = a.is_const or b.is_const
                type = "const void *" if is_const else "void *"
                sides = [cast(typed(s, BYTE) if s.index else s.base, type) for s in (a, b)]
                return Address(choice(self._get(cond), *sides), "void", is_const)
            case _:
                raise InternalError(f"no C for a pointer by {instr.op}")

    def _loaded_pointer(self, address: Address) -> Address:
        """A field of the call, or an entry of one of its tables."""
        place = int(address.index.text) if address.index is not None else 0
        if address.base.type == "const tbc_call *":
            name = FIELDS[place]
            return Address(Ex(f"call->{name}", ATOM, "const void *"), "void", name in _READ_ONLY)
        table = address.base.within(ATOM)
        return Address(Ex(f"{table}[{place}]", ATOM, "const void *"), "void", address.is_const)

    def _compute(self, instr: Instr) -> Ex:
        """The result of an operation on scalars, or one lane of it."""
        op, args = instr.op, instr.args
        elem = elem_of(instr.type)
        if op in BINARY:
            return self._binary(instr)
        if op in CASTS:
            return self._cast(op, args[0], elem)
        match op:
            case "icmp" | "fcmp":
                return self._compare(instr.detail, *args)
            case "select":
                type = self._signed_type(instr.value, self.facts.is_signed(instr.name))
                return choice(*(self._get(a, t) for a, t in zip(args, ("", type, type), strict=True)))
            case "load":
                type = self._signed_type(instr.value, self.facts.is_signed(instr.name))
                return element(self._address(args[0]), type)
            case "fneg":
                a = self._get(args[0])
                return Ex(f"-{a.within(ATOM)}", UNARY, a.type, a.reads)
            case "extractelement":
                lane = number(args[1])
                type = c_type(instr.type, self.facts.is_signed(args[0].text))
                return Ex(f"{self._name(args[0].text)}[{lane}]", ATOM, type)
            case "splat":
                return self._get(args[0])
            case "shufflevector":
                return self._shuffled(*args)
            case "call":
                name = {"fabs": "abs"}.get(instr.detail.split(".")[1], instr.detail.split(".")[1])
                return self._function(name, elem, *map(self._get, args))
            case _:
                raise InternalError(f"no C for {op}")

    def _function(self, name: str, elem: str, *args: Ex) -> Ex:
        """A helper or builtin for floats of a type: `f` behind its name as in C for f32."""
        suffix = "f" if elem == "float" else ""
        return call(self.names.helper(name + suffix), c_type(elem), *args)

    def _binary(self, instr: Instr) -> Ex:
        a, b = instr.args
        elem = elem_of(instr.type)
        if is_float(elem):
            if instr.op == "frem":
                return self._function("fmod", elem, self._get(a), self._get(b))
            return binary(_FLOAT[instr.op], self._get(a), self._get(b), c_type(elem))
        type = c_type(elem, instr.is_signed or instr.op in ("sdiv", "srem", "ashr"))
        left = self._get(a, type)
        is_shift = instr.op in ("shl", "lshr", "ashr")
        right = (self._constant(b, True) or self._get(b)) if is_shift else self._get(b, type)
        return arithmetic(instr.op, left, right, type)

    def _compare(self, predicate: str, a: Val, b: Val) -> Ex:
        if a.type == "ptr":
            sides = [self._address(v).base for v in (a, b)]
            return compared(predicate, *(cast(s, s.type) for s in sides))
        if predicate in ("uno", "ord"):
            values = dict.fromkeys((a, b))
            tests = [self._function("is_nan", elem_of(a.type), self._get(v)) for v in values]
            tests = [replace_type(t, "int") for t in tests]
            either = tests[0] if len(tests) == 1 else binary("||", *tests, "int")
            return either if predicate == "uno" else negated(either)
        if is_float(a.type):
            return compared(predicate, self._get(a), self._get(b))
        signed = predicate[0] == "s" if predicate not in ("eq", "ne") else self.facts.is_signed(a.text)
        type = self._signed_type(a, signed)
        return compared(predicate.lstrip("su"), self._get(a, type), self._get(b, type))

    def _cast(self, op: str, value: Val, elem: str) -> Ex:
        source = elem_of(value.type)
        if op == "ptrtoint":
            address = self._address(value)
            return Ex(f"({c_type(elem)})(uintptr_t){address.base.within(UNARY)}", UNARY, c_type(elem))
        if op in ("fpext", "fptrunc"):
            return self._resized(source, elem, self._get(value))
        if op == "bitcast":
            return self._bits(source, elem, self._get(value))
        if source == "i1":
            a = self._get(value)
            if op == "sext":
                to = c_type(elem, True)
                return Ex(f"-{cast(a, to).within(UNARY)}", UNARY, to, a.reads)
            return cast(a, c_type(elem))
        if elem == "i1":
            return binary("&", self._get(value), integer(1, c_type(source)), "int")
        signed = op in ("sext", "sitofp")
        a = self._get(value, c_type(source, signed) if not is_float(source) else "")
        return cast(a, c_type(elem, op in ("sext", "fptosi")))

    def _resized(self, source: str, elem: str, a: Ex) -> Ex:
        """A float in another format."""
        if source == "half":
            wide = call(self.names.helper("from_half"), "float", a)
            return cast(wide, c_type(elem))
        if elem == "half":
            name = {"float": "to_half", "double": "double_to_half"}[source]
            return call(self.names.helper(name), "uint16_t", a)
        return cast(a, c_type(elem))

    def _bits(self, source: str, elem: str, a: Ex) -> Ex:
        """The bits of a value in another type."""
        if is_float_type(c_type(source)):
            return self._replaced("bits", source, elem, a)
        if is_float_type(c_type(elem)):
            return self._replaced("from_bits", elem, elem, cast(a, c_type(f"i{bits_of(elem)}")))
        return cast(a, c_type(elem))

    def _replaced(self, name: str, suffix: str, elem: str, a: Ex) -> Ex:
        return replace_type(self._function(name, suffix, a), c_type(elem))

    # -- vectors --------------------------------------------------------------------------------

    def _vector(self, instr: Instr, lanes: int) -> None:
        """Add an operation to the loop over lanes, or begin another one."""
        if instr.op == "store":
            lanes = lanes_of(instr.args[0].type)
            address = self._address(instr.args[1])
            if self._may_overlap(address, instr.args[1]):
                self._flush()
            self.addresses[instr.args[1].text] = address
        if self.group and lanes != self.lanes:
            self._flush()
        if instr.op == "shufflevector":
            self._flush()
        self.lanes = lanes
        for value in instr.args:  # scalars before the loop
            if lanes_of(value.type) == 1 and value.type != "ptr" and value.text.startswith("%"):
                ex = self.values[value.text]
                if isinstance(ex, Ex) and ex.level != ATOM or ex.reads:
                    self._keep(value.text, ex)
        if instr.op == "load":
            address = self._address(instr.args[0])
            if address.reads:
                self._keep(instr.args[0].text, address)
                address = self._address(instr.args[0])
            self.addresses[instr.name] = address
        self.group.append(instr)
        if instr.op == "store":
            self._settle()
            self._flush()

    def _may_overlap(self, address: Address, pointer: Val) -> bool:
        """Whether the loop reads, through the same name, other elements than it is to write."""
        loads = [i for i in self.group if isinstance(i, Instr) and i.op == "load"]
        return any(
            self.addresses[i.name].base == address.base and i.args[0] != pointer for i in loads
        )

    def _shuffled(self, a: Val, b: Val, mask: Val) -> Ex:
        """Lanes of an array at even distances."""
        index = self._constant(mask, signed=True)
        assert index is not None
        type = c_type(elem_of(a.type), self.facts.is_signed(a.text))
        text = index.text.replace("(int32_t)lane", "lane").replace("lane * 1 + 0", "lane")
        return Ex(f"{self._name(a.text)}[{text.replace('lane * 1 ', 'lane ')}]", ATOM, type)

    def _insert(self, instr: Instr) -> None:
        """A vector that is built lane by lane, in one array."""
        vector, value, lane = instr.args
        type = self._signed_type(instr.value, self.facts.is_signed(instr.name))
        ex = self._get(value, type)
        if vector.text == "poison":
            name = self._name(instr.name)
            self._line(f"{type} {name}[{lanes_of(instr.type)}];")
        else:
            assert self.facts.count(vector.text) == 1, f"{vector} changes while it is used"
            self.facts.same[instr.name] = vector.text
            name = self._name(instr.name)
        self._line(f"{name}[{number(lane)}] = {ex.text};")

    def _flush(self) -> None:
        """Write the loop over lanes."""
        group, self.group = self.group, []
        if not group:
            return
        own = {id(i) for i in group if isinstance(i, Instr)}
        assigned = [value.text for item in group if isinstance(item, tuple) for value in item[1:]]
        body: list[str] = []
        for item in group:
            if isinstance(item, tuple):
                name, value = item
                ex = self._get(value)
                first, operator = ex.left
                if first == f"{name}[lane]" and operator in ("+", "-"):
                    rest = ex.text.removeprefix(f"{first} {operator} ")
                    body.append(f"{first} {operator}= {_bare(rest)};")
                else:
                    body.append(f"{name}[lane] = {ex.text};")
            elif item.op == "store":
                value, pointer = item.args
                elem = MEMORY.get(elem_of(value.type), elem_of(value.type))
                signed = value.text.startswith("%") and self.facts.is_signed(value.text)
                type = c_type(elem, signed)
                target = element(self.addresses[pointer.text], type, _LANE)
                body.append(f"{target.text} = {self._get(value, type).text};")
            else:
                body += self._lane_of(item, own, assigned)
        self._each_lane(self.lanes, body)
        self.inside = {}

    def _lane_of(self, instr: Instr, own: set[int], assigned: list[str]) -> Iterator[str]:
        """What a lane of a result is; the line that computes it, if it gets a name."""
        if instr.op == "load":
            type = self._signed_type(instr.value, self.facts.is_signed(instr.name))
            ex = element(self.addresses[instr.name], type, _LANE)
        else:
            ex = self._compute(instr)
        uses = self.facts.uses[instr.name]
        inside = sum(id(u.by) in own for u in uses) + assigned.count(instr.name)
        name = self._name(instr.name)
        if inside < len(uses):
            self._line(f"{ex.type} {name}[{self.lanes}];")
            yield f"{name}[lane] = {ex.text};"
        elif len(uses) > 1 or len(ex.text) > LONGEST:
            yield f"const {ex.type} {name} = {ex.text};"
            self.inside[instr.name] = Ex(name, ATOM, ex.type)
        else:
            self.inside[instr.name] = ex

    def _each_lane(self, lanes: int, body: list[str]) -> None:
        with self._braces(f"for (int lane = 0; lane < {lanes}; lane++)"):
            for line in body:
                self._line(line)

    def _stored(self, instr: Instr) -> Ex:
        value, pointer = instr.args
        type = MEMORY.get(value.type, value.type)
        address = self._address(pointer)
        signed = address.elem.startswith("int") or (
            value.text.startswith("%") and self.facts.is_signed(value.text)
        )
        return element(address, c_type(type, signed))


class _Rest(list[Node]):
    """A block without its first statements, which have been written otherwise."""

    def __init__(self, nodes: list[Node], skipped: int):
        super().__init__(nodes[skipped:])


def mentions(ex: Ex, name: str) -> bool:
    """Whether an expression has a variable in it."""
    return re.search(rf"\b{name}\b", ex.text) is not None


def _declared(type: str, name: str) -> str:
    """The declaration of a constant."""
    return f"{type}const {name}" if type.endswith("*") else f"const {type} {name}"


def replace_type(ex: Ex, type: str) -> Ex:
    """The expression, whose type is known better."""
    return Ex(ex.text, ex.level, type, ex.reads)


def _bare(text: str) -> str:
    """The text without parentheses around all of it."""
    depth = 0
    for at, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0 and at < len(text) - 1:
            return text
    return text[1:-1] if text.startswith("(") else text


def _float(text: str) -> float:
    """The number that LLVM writes as the bits of a double."""
    import struct

    if not text.startswith("0x"):
        return float(text)
    (value,) = struct.unpack("<d", struct.pack("<Q", int(text, 16)))
    return float(value)


_FLOAT = {"fadd": "+", "fsub": "-", "fmul": "*", "fdiv": "/"}
_LANE = Ex("lane", ATOM, "int")
