"""Operations on vectors, as loops over lanes.

Neighbouring operations are one loop: what is used inside it only is a scalar there, the rest are
arrays. A store, or the new value of a loop's variable, is the last operation of such a loop.
"""

from __future__ import annotations

from collections.abc import Iterator

from tbc.codegen.c_expressions import ATOM, Address, Ex, c_type, element
from tbc.codegen.c_facts import MEMORY, Facts
from tbc.codegen.c_lines import Lines, assigned
from tbc.codegen.c_values import LANE, Values
from tbc.codegen.llvm_simplify import number
from tbc.codegen.llvm_text import Val, elem_of, lanes_of
from tbc.codegen.llvm_tree import Instr

LONGEST = 76
"""Characters of an expression, from which on it gets a name."""


class Lanes:
    """The loop over lanes that is being collected."""

    def __init__(self, facts: Facts, values: Values, lines: Lines):
        self.facts, self.values, self.lines = facts, values, lines
        self._group: list[Instr] = []
        self._renewed: list[tuple[Val, Val]] = []
        self._lanes = 0
        self._addresses: dict[str, Address] = {}
        """By the name of what is loaded, and by that of a pointer stored to."""

    def add(self, instr: Instr) -> None:
        """Take part of it in the loop; its scalar operands are names or constants already."""
        vector = instr.value if lanes_of(instr.type) > 1 else instr.args[0]
        pointer = instr.args[-1]
        if instr.op == "store" and self._may_overlap(pointer):
            self.flush()
        if lanes_of(vector.type) != self._lanes or instr.op == "shufflevector":
            self.flush()
        self._lanes = lanes_of(vector.type)
        if instr.op in ("load", "store"):
            name = instr.name or pointer.text
            self._addresses[name] = self.values.address(pointer)
        self._group.append(instr)

    def renew(self, variable: Val, value: Val) -> None:
        """Give a loop's variable its next value, at the end of the loop over lanes."""
        shuffles = any(i.op == "shufflevector" for i in self._group)
        if shuffles or lanes_of(variable.type) != self._lanes:
            self.flush()
        self._lanes = lanes_of(variable.type)
        self._renewed.append((variable, value))

    def insert(self, instr: Instr) -> None:
        """A vector that is built lane by lane, in one array."""
        vector, value, lane = instr.args
        type = self.values.type_of(instr.value)
        ex = self.values.get(value, type)
        if vector.text == "poison":
            name = self.values.variable(instr.name)
            self.lines.add(f"{type} {name}[{lanes_of(instr.type)}];")
        else:
            assert self.facts.count(vector.text) == 1, f"{vector} changes while it is used"
            self.values.continues(instr.name, vector.text)
        self.lines.add(f"{self.values.variable(instr.name)}[{number(lane)}] = {ex.text};")

    def flush(self) -> None:
        """Write the loop."""
        group, renewed = self._group, self._renewed
        self._group, self._renewed = [], []
        own = {id(i) for i in group}
        body: list[str] = []
        for instr in group:
            body += [self._store(instr)] if instr.op == "store" else self._lane(instr, own, renewed)
        body += self._renewals(renewed)
        if body:
            self.lines.each_lane(self._lanes, body)
        self.values.lanes = {}

    def _may_overlap(self, pointer: Val) -> bool:
        """Whether the loop reads, through the same name, other elements than those stored."""
        known = self.values.known.get(pointer.text)
        return any(
            i.op == "load"
            and i.args[0] != pointer
            and isinstance(known, Address)
            and self._addresses[i.name].base == known.base
            for i in self._group
        )

    def _store(self, instr: Instr) -> str:
        value, pointer = instr.args
        elem = elem_of(value.type)
        type = c_type(MEMORY[elem]) if elem in MEMORY else self.values.type_of(value)
        target = element(self._addresses[pointer.text], type, LANE)
        return f"{target.text} = {self.values.get(value, type).text};"

    def _lane(self, instr: Instr, own: set[int], renewed: list[tuple[Val, Val]]) -> Iterator[str]:
        """Note what a lane of a result is; the line that computes it, if it gets a name."""
        if instr.op == "load":
            ex = element(self._addresses[instr.name], self.values.type_of(instr.value), LANE)
        else:
            ex = self.values.compute(instr)
        uses = self.facts.uses[instr.name]
        inside = sum(id(u.by) in own for u in uses)
        inside += sum(value.text == instr.name for _, value in renewed)
        name = self.values.variable(instr.name)
        if inside < len(uses):
            self.lines.add(f"{ex.type} {name}[{self._lanes}];")
            yield f"{name}[lane] = {ex.text};"
        elif len(uses) > 1 or len(ex.text) > LONGEST:
            yield f"const {ex.type} {name} = {ex.text};"
            self.values.lanes[instr.name] = Ex(name, ATOM, ex.type)
        else:
            self.values.lanes[instr.name] = ex

    def _renewals(self, renewed: list[tuple[Val, Val]]) -> Iterator[str]:
        """The next values, all computed before the first is assigned."""
        names = [f"{self.values.variable(variable.text)}[lane]" for variable, _ in renewed]
        after = [
            self.values.get(value, self.values.type_of(variable)) for variable, value in renewed
        ]
        if len(renewed) > 1:
            for number_, ex in enumerate(after):
                yield f"const {ex.type} next{number_} = {ex.text};"
                after[number_] = Ex(f"next{number_}", ATOM, ex.type)
        for name, ex in zip(names, after, strict=True):
            yield assigned(name, ex)
