"""A function in C: what `llvm_tree` read, with types and expressions that people write.

A value that is used once stands where it is used; others are constants with names.
"""

from __future__ import annotations

from tbc.codegen.c_expressions import (
    ATOM,
    BYTE,
    Address,
    Ex,
    c_type,
    cast,
    element,
    negated,
    typed,
)
from tbc.codegen.c_facts import MEMORY, SIZES, Facts
from tbc.codegen.c_lanes import LONGEST, Lanes
from tbc.codegen.c_lines import Lines, assigned, constant, declared, mentions, unbroken, wrapped
from tbc.codegen.c_values import Names, Signature, Values
from tbc.codegen.llvm_simplify import number
from tbc.codegen.llvm_text import Val, elem_of, lanes_of
from tbc.codegen.llvm_tree import Break, If, Instr, Loop, Node, Phi, Switch, Tree

STATUS = (
    "TBC_OK",
    *(f"TBC_ERROR_{n}" for n in ("ABI", "CPU", "NULL", "ALIGN", "DIM", "WEIGHTS", "VALUE")),
)
"""The names of enum tbc_status."""


def c_function(tree: Tree, names: Names) -> str:
    """The function in C; its signature is added to the names."""
    return _Writer(tree, names).write()


class _Writer:
    def __init__(self, tree: Tree, names: Names):
        self.tree, self.names = tree, names
        self.facts = Facts(tree, {n: s.pointers for n, s in names.signatures.items()})
        self.values = Values(self.facts, names)
        self.lines = Lines()
        self.lanes = Lanes(self.facts, self.values, self.lines)
        self.block = 0

    def write(self) -> str:
        """The definition."""
        tree = self.tree
        parameters = [self.values.parameter(p) for p in tree.parameters]
        types = tuple(type for type, _ in parameters)
        pointers = tuple(pointer for _, pointer in parameters)
        ret = c_type(tree.ret, signed=tree.ret == "i32")
        self.names.signatures[tree.name] = Signature(ret, types, pointers)
        self._block(tree.body, tree.body)
        names = [p.value.text for p in tree.parameters]
        formal = []
        for parameter, type in zip(tree.parameters, types, strict=True):
            alone = "TBC_RESTRICT " if parameter.is_alone and type.endswith("*") else ""
            formal.append(declared(type, alone + parameter.value.text[1:]))
        head = f"static {declared(ret, tree.name)}({', '.join(map(unbroken, formal))}"
        unused = [f"(void){name[1:]};" for name in names if not self.facts.count(name)]
        top = [f"    {line}" for line in (*unused, *self.lines.top)]
        return "\n".join([*wrapped(head + unbroken(") {")), *top, *self.lines.text, "}"])

    # -- variables ------------------------------------------------------------------------------

    def _keep(self, name: str) -> None:
        """Compute a value now, into a variable."""
        what, variable = self.values.known[name], self.values.variable(name)
        if isinstance(what, Address):
            elem = self.values.elem(name)
            pointer = typed(what, elem)
            self._define(name, pointer)
            kept = Ex(variable, ATOM, pointer.type)
            self.values.known[name] = Address(kept, elem, what.is_const)
        else:
            self._define(name, what)
            self.values.known[name] = Ex(variable, ATOM, what.type)
        if name in self.values.pending:
            self.values.pending.remove(name)

    def _define(self, name: str, ex: Ex) -> None:
        variable = self.values.variable(name)
        if self.facts.outlives(name, self.block):
            self.lines.top.append(f"{declared(ex.type, variable)};")
            self.lines.add(f"{variable} = {ex.text};")
        else:
            self.lines.add(f"{constant(ex.type, variable)} = {ex.text};")

    def _settle(self) -> None:
        """Read what is yet to be read, before memory changes or a block begins."""
        for name in [n for n in self.values.pending if self.values.known[n].reads]:
            self._keep(name)

    # -- statements -----------------------------------------------------------------------------

    def _block(self, whole: list[Node], nodes: list[Node], phis: list[Phi] | None = None) -> None:
        """The statements of a block, or some of them; last, the next values of a loop's variables.

        What is pending when a block begins is not used inside.
        """
        around, pending = self.block, self.values.pending
        self.block, self.values.pending = self.facts.inner[id(whole)], []
        for node in nodes:
            self._statement(node)
        self._renew(phis or [])
        self.lanes.flush()
        self.block, self.values.pending = around, pending

    def _statement(self, node: Node) -> None:
        if isinstance(node, Instr):
            self._instruction(node)
            return
        self.lanes.flush()
        match node:
            case Loop():
                self._loop(node)
            case If(cond=cond, body=body):
                condition = self.values.get(cond)
                self._settle()
                with self.lines.braces(f"if ({condition.text})"):
                    self._block(body, body)
            case Switch(value=value, cases=cases):
                self._switch(self.values.get(value), cases)
            case Break(goes_on=goes_on):
                condition = negated(self.values.get(goes_on))
                self._settle()
                self.lines.add(f"if ({condition.text}) break;")

    def _switch(self, value: Ex, cases: list[tuple[int, list[Node]]]) -> None:
        self._settle()
        with self.lines.braces(f"switch ({value.text})", indent=0):
            for case, body in cases:
                with self.lines.braces(f"case {case}:"):
                    self._block(body, body)
                    last = body[-1] if body else None
                    if not (isinstance(last, Instr) and last.op == "ret"):
                        self.lines.add("break;")
            self.lines.add("default: break;")

    def _instruction(self, instr: Instr) -> None:
        if not instr.has_effect and not self.facts.count(instr.name):
            return
        has_vectors = any(lanes_of(v.type) > 1 for v in (instr.value, *instr.args))
        if has_vectors and instr.op not in ("extractelement", "insertelement"):
            self._on_vectors(instr)
            return
        if instr.has_effect or has_vectors:
            self.lanes.flush()
        match instr.op:
            case "store":
                self._store(*instr.args)
            case "ret":
                self._return(instr.args)
            case "call" if instr.has_effect:
                self._call(instr)
            case "insertelement":
                self.lanes.insert(instr)
            case "alloca":
                self._alloca(instr)
            case _:
                self._result(instr)

    def _on_vectors(self, instr: Instr) -> None:
        """Part of a loop over lanes; what is equal in all lanes is computed before."""
        for value in instr.args:
            what = self.values.known.get(value.text)
            is_scalar = lanes_of(value.type) == 1 and value.text in self.values.pending
            if is_scalar and what and (what.reads or value.type != "ptr"):
                self._keep(value.text)
        self.lanes.add(instr)
        if instr.op == "store":
            self._settle()
            self.lanes.flush()

    def _result(self, instr: Instr) -> None:
        """A scalar: for the place where it is used, if there is one only."""
        what = self.values.pointer(instr) if instr.type == "ptr" else self.values.compute(instr)
        self.values.known[instr.name] = what
        first, *more = self.facts.uses[instr.name]
        if isinstance(what, Ex):
            is_name, size = what.level == ATOM and "(" not in what.text, len(what.text)
        else:
            is_name, size = what.index is None, len(what.base.text)
        if what.reads or not is_name:
            if more or first.block != self.block or size > LONGEST:
                self._keep(instr.name)
            else:
                self.values.pending.append(instr.name)

    def _store(self, value: Val, pointer: Val) -> None:
        address = self.values.address(pointer)
        type = c_type(MEMORY[value.type]) if value.type in MEMORY else self.values.type_of(value)
        if address.elem in (f"u{type}", type.removeprefix("u")):
            type = address.elem
        target, ex = element(address, type), self.values.get(value, type)
        self._settle()
        self.lines.add(f"{target.text} = {ex.text};")

    def _return(self, args: tuple[Val, ...]) -> None:
        if not args:
            return
        status = number(args[0])
        if status is not None and self.tree.parameters[0].value.text == "%call":
            self.lines.add(f"return {STATUS[status]};")
        else:
            type = self.names.signatures[self.tree.name].ret
            self.lines.add(f"return {self.values.get(args[0], type).text};")

    def _call(self, instr: Instr) -> None:
        if instr.detail.startswith("llvm.memcpy"):
            to, source, size, _ = instr.args
            name = self.names.helper("copy")
            types = [f"{BYTE} *", f"const {BYTE} *", "uint32_t"]
            args = map(self.values.argument, (to, source, size), types)
        else:
            name = instr.detail
            args = map(self.values.argument, instr.args, self.names.signatures[name].types)
        text = f"{name}({', '.join(a.text for a in args)})"
        self._settle()
        if instr.type == "void":
            self.lines.add(f"{text};")
            return
        self.values.known[instr.name] = Ex(text, ATOM, self.names.signatures[name].ret)
        self._keep(instr.name)

    def _alloca(self, instr: Instr) -> None:
        self.facts.check(instr.name)
        ((type,), _) = self.facts.accesses(instr.name)
        count, _, elem = instr.detail.partition(" x ")
        total = int(count) * lanes_of(elem)
        size, wanted = SIZES[elem_of(elem)], SIZES[type]
        if isinstance(size, int) and isinstance(wanted, int):
            total = total * size // wanted
        c, name = c_type(type, self.facts.is_signed_at(instr.name)), instr.name[1:]
        self.lines.add(f"{c} {name}[{total}];")
        self.values.known[instr.name] = Address(Ex(name, ATOM, f"{c} *"), c, False)

    # -- loops ----------------------------------------------------------------------------------

    def _loop(self, loop: Loop) -> None:
        counter = self._counter(loop)
        phis = [p for p in loop.phis if self.facts.count(p.value.text) and p is not counter]
        for phi in phis:
            type = self._variable(phi.value)
            if phi.value.text == self.values.root(phi.value.text):
                self._start(phi, type)
        head = "for (;;)" if counter is None else self._head(loop, counter)
        self._settle()
        with self.lines.braces(head):
            self._block(loop.body, loop.body[2 if counter else 0 :], phis)

    def _counter(self, loop: Loop) -> Phi | None:
        """The variable of a loop that counts up to a limit known before."""
        match loop:
            case Loop(
                phis=[Phi(value=value, after=after) as phi, *_],
                body=[Instr(op="icmp", args=(left, _)) as test, Break(goes_on=goes_on), *_],
            ) if left == value and goes_on == test.value and self.facts.count(test.name) == 1:
                step = self.facts.made.get(after.text)
                counts = isinstance(step, Instr) and (step.op, step.args[0]) == ("add", value)
                own = value.text == self.values.root(value.text)
                return phi if counts and own else None
        return None

    def _head(self, loop: Loop, phi: Phi) -> str:
        test, step = loop.body[0], self.facts.made[phi.after.text]
        assert isinstance(test, Instr)
        assert isinstance(step, Instr)
        type, name = self._variable(phi.value), self.values.variable(phi.value.text)
        start = f"{declared(type, name)} = {self.values.get(phi.first, type).text}"
        if self.facts.outlives(phi.value.text, self.facts.inner[id(loop.body)]):
            self.lines.add(f"{start};")
            start = ""
        more = self.values.get(step.args[1], type)
        further = f"{name}++" if more.text == "1" else f"{name} += {more.text}"
        return f"for ({start}; {self.values.compute(test).text}; {further})"

    def _variable(self, value: Val) -> str:
        """Note what a loop's variable is called; its C type."""
        name = self.values.variable(value.text)
        if value.type == "ptr":
            written = self.facts.is_written(value.text)
            type = f"{'' if written else 'const '}{BYTE} *"
            self.values.known[value.text] = Address(Ex(name, ATOM, type), BYTE, not written)
            return type
        type = self.values.type_of(value)
        if lanes_of(value.type) == 1:
            self.values.known[value.text] = Ex(name, ATOM, type)
        return type

    def _start(self, phi: Phi, type: str) -> None:
        """Declare a loop's variable with its first value."""
        lanes, name = lanes_of(phi.value.type), self.values.variable(phi.value.text)
        if lanes == 1:
            first = self.values.argument(phi.first, type)
            self.lines.add(f"{declared(type, name)} = {first.text};")
        else:
            self.lines.add(f"{type} {name}[{lanes}];")
            first = self.values.get(phi.first, type)
            self.lines.each_lane(lanes, [f"{name}[lane] = {first.text};"])

    def _renew(self, phis: list[Phi]) -> None:
        """Give a loop's variables their values for the next round, all at once."""
        moving = [
            p for p in phis if self.values.root(p.after.text) != self.values.root(p.value.text)
        ]
        after: dict[str, Ex] = {}
        for phi in moving:
            name = self.values.variable(phi.value.text)
            if lanes_of(phi.value.type) > 1:
                self.lanes.renew(phi.value, phi.after)
            else:
                after[name] = self._after(phi)
        self.lanes.flush()
        while after:
            others = {n: [e for o, e in after.items() if o != n] for n in after}
            free = (n for n, rest in others.items() if not any(mentions(e, n) for e in rest))
            if name := next(free, ""):
                self.lines.add(assigned(name, after.pop(name)))
            else:  # each waits for another one
                name, ex = next(iter(after.items()))
                kept = f"next_{name}"
                self.lines.add(f"{constant(ex.type, kept)} = {ex.text};")
                after[name] = Ex(kept, ATOM, ex.type)

    def _after(self, phi: Phi) -> Ex:
        variable = self.values.known[phi.value.text]
        if isinstance(variable, Address):
            return cast(typed(self.values.address(phi.after), BYTE), variable.base.type)
        return self.values.get(phi.after, variable.type)
