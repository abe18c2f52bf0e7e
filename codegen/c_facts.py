"""What has to be known of a function before it can be written in C."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

from tbc.codegen.llvm_text import Val, elem_of
from tbc.codegen.llvm_tree import If, Instr, Loop, Node, Phi, Switch, Tree
from tbc.errors import InternalError

MEMORY = {"half": "i16"}
"""The integer that an element is in memory, where C has no type of its own for it."""
SIZES: dict[str, int | str] = {
    "i8": 1,
    "i16": 2,
    "half": 2,
    "i32": 4,
    "float": 4,
    "i64": 8,
    "double": 8,
    "size_t": "size_t",
    "ptr": "ptr",
}
"""The bytes of an element; those of sizes and pointers depend on the machine."""

_SIGNED = frozenset(["sext", "sdiv", "srem", "ashr", "fptosi"])
_TAKES_SIGNED = frozenset(["sext", "sitofp", "sdiv", "srem", "ashr", "getelementptr"])
_NEUTRAL = "select phi store ret call insertelement splat eq ne bitcast extractelement"
_TAKES_EITHER = frozenset(_NEUTRAL.split())


@dataclass(frozen=True)
class Use:
    """Where a value is used: by what, as which operand, and in which block."""

    by: Node | Phi
    operand: int
    block: int


class Facts:
    """Definitions and uses in a function.

    Attributes:
        uses: by name, those that matter.
        block: by name, the block in which it is defined.
        same: by name of a loop's variable, the variable around that loop that it continues.
    """

    def __init__(self, tree: Tree, pointers: dict[str, tuple[tuple[str, bool], ...]]):
        self.tree, self.pointers = tree, pointers
        self.made: dict[str, Instr | Phi] = {}
        self.block: dict[str, int] = {p.value.text: 0 for p in tree.parameters}
        self.around: dict[int, int] = {}
        self.inner: dict[int, int] = {}
        """By the identity of a list of statements, its block."""
        self._all: dict[str, list[Use]] = defaultdict(list)
        self._wanted: list[str] = []
        self._visit(tree.body, -1)
        live = self._live()
        self.uses = {
            name: [u for u in uses if self._matters(u, live)] for name, uses in self._all.items()
        }
        self.same: dict[str, str] = {}
        self._merge(tree.body)
        self._votes: dict[str, bool] = {}

    # -- definitions and uses -------------------------------------------------------------------

    def _visit(self, nodes: list[Node], around: int) -> None:
        block = len(self.around)
        self.around[block], self.inner[id(nodes)] = around, block
        for node in nodes:
            match node:
                case Instr(name=name, args=args):
                    if name:
                        self.made[name], self.block[name] = node, block
                    for number, arg in enumerate(args):
                        self._use(arg, Use(node, number, block), node.has_effect)
                case Loop(phis=phis, body=body):
                    for phi in phis:
                        self.made[phi.value.text], self.block[phi.value.text] = phi, block
                    self._visit(body, block)
                    for phi in phis:
                        self._use(phi.first, Use(phi, 0, block), False)
                        self._use(phi.after, Use(phi, 1, self.inner[id(body)]), False)
                case If(cond=cond, body=body):
                    self._use(cond, Use(node, 0, block), True)
                    self._visit(body, block)
                case Switch(value=value, cases=cases):
                    self._use(value, Use(node, 0, block), True)
                    for _, body in cases:
                        self._visit(body, block)
                case _:
                    self._use(node.goes_on, Use(node, 0, block), True)

    def _use(self, value: Val, use: Use, wanted: bool) -> None:
        if value.text.startswith("%"):
            self._all[value.text].append(use)
            if wanted:
                self._wanted.append(value.text)

    def _live(self) -> set[str]:
        """The values that an effect depends on."""
        live: set[str] = set()
        todo = self._wanted
        while todo:
            name = todo.pop()
            if name in live:
                continue
            live.add(name)
            made = self.made.get(name)
            args = (made.first, made.after) if isinstance(made, Phi) else made.args if made else ()
            todo += [a.text for a in args if a.text.startswith("%")]
        return live

    def _matters(self, use: Use, live: set[str]) -> bool:
        match use.by:
            case Instr() as instr:
                return instr.has_effect or instr.name in live
            case Phi(value=value):
                return value.text in live
            case _:
                return True

    def count(self, name: str) -> int:
        """How often a value is used."""
        return len(self.uses.get(name, ()))

    def is_within(self, block: int, outer: int) -> bool:
        """Whether a block is another one or inside it."""
        while block > outer:
            block = self.around[block]
        return block == outer

    def outlives(self, name: str, block: int) -> bool:
        """Whether a value is used outside of a block."""
        return any(not self.is_within(u.block, block) for u in self.uses.get(name, ()))

    def _merge(self, nodes: list[Node]) -> None:
        """Find variables of loops that only go on from, and back to, one of the loop around."""
        for node in nodes:
            bodies = [node.body] if isinstance(node, Loop | If) else []
            if isinstance(node, Switch):
                bodies = [body for _, body in node.cases]
            if isinstance(node, Loop):
                own = {p.after.text: p.value.text for p in node.phis}
                within = self.inner[id(node.body)]
                for inner in (p for n in node.body if isinstance(n, Loop) for p in n.phis):
                    outer = own.get(inner.value.text, "")
                    uses = [u for u in self.uses.get(outer, ()) if self.is_within(u.block, within)]
                    if inner.first.text == outer and [u.by for u in uses] == [inner]:
                        self.same[inner.value.text] = outer
            for body in bodies:
                self._merge(body)

    # -- types ----------------------------------------------------------------------------------

    def is_signed(self, name: str) -> bool:
        """Whether an integer is better kept in a signed type."""
        made = self.made.get(name)
        if isinstance(made, Instr) and made.op not in ("load", "select", "extractelement"):
            if made.op in ("splat", "shufflevector") and made.args[0].text.startswith("%"):
                return self.is_signed(made.args[0].text)
            return made.is_signed or made.op in _SIGNED or _returns_status(made)
        if name not in self._votes:
            self._votes[name] = False
            after = self.made.get(made.after.text) if isinstance(made, Phi) else None
            counts = Counter(map(_takes_signed, self.uses.get(name, ())))
            is_index = isinstance(after, Instr) and after.is_signed
            self._votes[name] = is_index or counts[True] > counts[False]
        return self._votes[name]

    def element(self, name: str) -> str:
        """The one type of all elements that are reached by a pointer; "" if it is not one.

        It is also "" where an address is counted in other units than that.
        """
        types, units = self.accesses(name)
        if len(types) != 1:
            return ""
        (type,) = types
        return type if units <= {SIZES[type]} else ""

    def is_signed_at(self, pointer: str) -> bool:
        """Whether the integers at a pointer are best read as signed ones."""
        for use in self.uses.get(pointer, ()):
            match use.by:
                case Instr(op="load", name=name, type=type) if type != "ptr":
                    if self.is_signed(name):
                        return True
                case Instr(op="getelementptr", name=name):
                    if self.is_signed_at(name):
                        return True
                case _:
                    pass
        return False

    def accesses(self, name: str) -> tuple[set[str], set[int | str]]:
        """The types of elements that are reached by a pointer, and the units that it is moved by.

        Through loops and selections of pointers nothing is known.
        """
        types: set[str] = set()
        units: set[int | str] = set()
        for use in self.uses.get(name, ()):
            match use.by:
                case Instr(op="load", type=type):
                    types.add(MEMORY.get(elem_of(type), elem_of(type)))
                case Instr(op="store", args=(value, _)) if use.operand == 1:
                    types.add(MEMORY.get(elem_of(value.type), elem_of(value.type)))
                case Instr(op="getelementptr", name=moved, detail=unit):
                    more, steps = self.accesses(moved)
                    types |= more
                    units |= steps | {SIZES[elem_of(unit)]}
                case Instr(op="call", detail=called):
                    parameters = self.pointers.get(called, ())
                    if use.operand < len(parameters):
                        types.add(parameters[use.operand][0])
                        units.add(1)
                case Phi() | Instr(op="select"):
                    units |= {1, 2}
                case _:
                    pass
        return types - {""}, units

    def is_written(self, name: str, seen: frozenset[str] = frozenset()) -> bool:
        """Whether something is stored where a pointer leads."""
        return any(self._writes(use, seen | {name}) for use in self.uses.get(name, ()))

    def _writes(self, use: Use, seen: frozenset[str]) -> bool:
        match use.by:
            case Instr(op="store"):
                return use.operand == 1
            case Instr(op="call", detail=called):
                if called.startswith("llvm."):
                    return use.operand == 0
                return self.pointers[called][use.operand][1]
            case Instr(op="getelementptr" | "select", name=name):
                return self.is_written(name, seen)
            case Phi(value=value):
                return value.text not in seen and self.is_written(value.text, seen)
            case _:
                return False

    def check(self, name: str) -> None:
        """C's rules on types of objects: memory of one name has elements of one type.

        Raises:
            InternalError: it has not.
        """
        types, _ = self.accesses(name)
        if len(types) > 1:
            raise InternalError(f"{self.tree.name} reads {name} as {' and '.join(sorted(types))}")


def _returns_status(instr: Instr) -> bool:
    return instr.op == "call" and instr.has_effect


def _takes_signed(use: Use) -> bool | None:
    """Whether a use wants a signed integer; None where it does not matter."""
    if not isinstance(use.by, Instr) or use.by.op in _TAKES_EITHER:
        return None
    if use.by.op == "icmp":
        return None if use.by.detail in _TAKES_EITHER else use.by.detail[0] == "s"
    return use.by.is_signed or use.by.op in _TAKES_SIGNED
