"""Divide a graph into steps: one contraction or reduction each, with what surrounds it.

A value is kept in memory (it is the root of a step) where a kernel needs it there, where several
steps read it and computing it again would cost more, or where an index map would compute it again
and again. Everything else is computed in place by the step that needs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import networkx as nx

from tbc import ops
from tbc.dims import bounds
from tbc.ir import Graph, Value, topological
from tbc.passes.branches import guarded, heavy, is_choice, needs
from tbc.passes.stored import FEW_ROWS, opened
from tbc.patches import is_row_sum, patches_of
from tbc.program import Step, unreshaped
from tbc.tiles import has_strips
from tbc.types import DType

DOTS = (ops.PackedDot, ops.PackedGroupedDot, ops.CodedDot)
ANCHORS = (ops.Reduce, ops.Cumulate, ops.MatMul, *DOTS)
WHOLE = (*ops.SCATTERS, ops.ArgSort, ops.Repeat)
"""Computed in memory as a whole, not element by element: the root of a step, without epilogue."""
LEAVES = (ops.Input, ops.Const)
FREE = (ops.Dims, ops.Iota, ops.Broadcast, ops.Reshape, ops.Transpose, ops.Slice)
CHEAP = 2
"""Elementwise operations that are rather done again than kept in memory."""


def fuse(graph: Graph) -> tuple[Step, ...]:
    """The steps of a graph, each before those that read what it computes."""
    return _Fusion(graph).steps()


class _Fusion:
    def __init__(self, graph: Graph):
        self.graph = graph
        self.opened = opened(topological(graph.results))
        self.values = topological(graph.results, stop=self.is_leaf)
        self.users: dict[Value, list[Value]] = {v: [] for v in self.values}
        for value in self.values:
            if not self.is_leaf(value):
                for arg in dict.fromkeys(value.args):
                    self.users[arg].append(value)
        self.kept = set(graph.results)
        self.needs = needs(self.values, graph.results, self.is_leaf)
        self.epilogues: dict[Value, Value] = {}
        """From the root of a step to its anchor."""
        self.absorbed: set[Value] = set()
        """What epilogues compute."""
        by_row = [v for v in self.values if _is_by_row(v)]
        activations = {dot.args[0] for dot in by_row}
        self.gathered = {x: p for x in activations if (p := patches_of(x)) is not None}
        """Activations that are brought together row by row, inside of the dot's step."""
        self.row_sums = {v for v in self.values for x in activations if is_row_sum(v, x)}
        """Sums of activations, for which the rows are at hand there."""

    def steps(self) -> tuple[Step, ...]:
        self._keep_arms()
        self._keep_operands()
        after = self._post_dominators()
        for value in self.values:
            if isinstance(value.op, ANCHORS) and not self._is_inside(value):
                root = self._absorb(value, after)
                self.kept.add(root)
                self.epilogues[root] = value
        self._keep_shared()
        roots = sorted((v for v in self.kept if not self.is_memory(v)), key=lambda v: v.number)
        steps = self._joined(map(self._step, roots))
        return (*guarded(steps, self.needs, self._is_stored), *self._copies(), *self._kept_states())

    def _is_inside(self, value: Value) -> bool:
        """Whether a contraction is no step: a constant, or computed in a dot's step."""
        return self.is_leaf(value) or (value in self.row_sums and value not in self.kept)

    def _is_stored(self, value: Value) -> bool:
        return self.is_memory(value) or value in self.kept

    def _joined(self, steps: Iterable[Step]) -> Iterable[Step]:
        """The steps, with all results of a loop stored by the first of them."""
        made: dict[object, Step] = {}
        for step in steps:
            key: object = step.root
            if isinstance(op := step.root.op, ops.Repeat):
                key = (replace(op, which=0), step.root.args)
            first = made.get(key)
            made[key] = step if first is None else replace(first, also=(*first.also, step.root))
        return made.values()

    def _copies(self) -> Iterator[Step]:
        """Steps for outputs that are inputs or constants, or another output's value."""
        seen: set[Value] = set()
        for number, (_, value) in enumerate(self.graph.outputs):
            if self.is_memory(value) or value in seen:
                yield Step(value, value, (value,), copy_to=number)
            seen.add(value)

    def _kept_states(self) -> Iterator[Step]:
        """Steps that copy the next states to where the old ones lie.

        A state that another one becomes is copied before it is overwritten. Where they go around in
        a circle, one of them is copied out of the way first.
        """
        todo = {s.old: s.next for s in self.graph.states if s.next is not s.old}
        while todo:
            wanted = set(todo.values())
            free = next((old for old in todo if old not in wanted), None)
            if free is not None:
                value = todo.pop(free)
                yield Step(value, value, (value,), copy_to=free)
                continue
            old = next(iter(todo))
            aside = old.builder(ops.Reshape(old.type.shape), old)
            yield Step(aside, aside, (old,))
            todo = {o: aside if v is old else v for o, v in todo.items()}

    def _step(self, root: Value) -> Step:
        anchor = self.epilogues.get(root, root)
        inside: list[Value] = []
        reads: dict[Value, None] = {}
        todo = [root]
        seen = set()
        while todo:
            value = todo.pop()
            if value in seen:
                continue
            seen.add(value)
            if self.is_memory(value) or (value is not root and value in self.kept):
                reads[value] = None
            else:
                inside.append(value)
                todo.extend(reversed(value.args))
        return Step(root, anchor, tuple(reads))

    def _keep_arms(self) -> None:
        """Keep both sides of a choice that spares work, and its condition, and all conditions."""
        work = heavy(self.values, self.needs, lambda v: isinstance(v.op, (*ANCHORS, *WHOLE)))
        for value in self.values:
            if is_choice(value) and any(a in work for a in value.args[1:]):
                self.kept.update(a for a in value.args[1:] if not self.is_leaf(a))
        conditions = {c for value in self.kept for c, _ in self.needs[value]}
        self.kept.update(c for c in conditions if not self.is_memory(c))

    def _keep_operands(self) -> None:
        """Keep what kernels read as arrays, and what index maps would compute over and over."""
        for value in self.values:
            if self.is_leaf(value):
                continue
            match value.op:
                case ops.PackedDot() | ops.PackedGroupedDot() | ops.CodedDot():
                    if (patches := self.gathered.get(value.args[0])) is None:
                        self.kept.add(self._operand(value))
                    elif not self.is_leaf(patches.source):
                        self.kept.add(patches.source)
                    self.kept.update(a for a in value.args[1:] if not self.is_leaf(a))
                case ops.MatMul():
                    a, b = value.args
                    if not self._is_view(a, (*FREE, ops.Windows)):
                        self.kept.add(a)
                    if not self._is_read_in_place(a, b):
                        self.kept.add(b)
                case ops.Windows():
                    self.kept.update(a for a in value.args if not self._is_view(a))
                case _ if isinstance(value.op, ops.GATHERS):
                    read = (a for a in value.args if a not in self.opened)
                    self.kept.update(a for a in read if not self._is_view(a))
                case _ if isinstance(value.op, ops.SCATTERS):
                    self.kept.update(a for a in (value.args[1], value) if not self._is_view(a))
                case ops.Repeat():
                    self.kept.update(
                        b for a in value.args if not self.is_memory(b := unreshaped(a))
                    )
                    self.kept.add(value)
                case ops.ArgSort():
                    self.kept.update(a for a in (*value.args, value) if not self.is_leaf(a))
                case ops.Pad(mode="constant") | ops.Concat() if value not in self.gathered:
                    self.kept.add(value)
            for arg in value.args:
                if arg.is_constant or arg in self.gathered or arg in self.row_sums:
                    continue
                if self._is_repeated(arg, value) and not self._is_cheap(arg):
                    self.kept.add(arg)

    def _operand(self, dot: Value) -> Value:
        """What to keep as the activations of a dot: whole rows; of a packed one, aligned ones.

        Those lie in the arena. Weights that are code read one activation at a time, anywhere.
        """
        x, base = dot.args[0], unreshaped(dot.args[0])
        outside = self.is_leaf(base) or base in self.graph.results
        is_aligned = x.type.dtype is not DType.f32 and not isinstance(dot.op, ops.CodedDot)
        return x if outside and is_aligned else base

    def _is_view(self, value: Value, maps: tuple[type, ...] = FREE) -> bool:
        """Whether reading an element costs no arithmetic but on indices."""
        while not self.is_leaf(value) and value not in self.kept:
            if not isinstance(value.op, maps):
                return False
            if not value.args:
                return True
            value = value.args[0]
        return True

    def _is_read_in_place(self, a: Value, b: Value) -> bool:
        """Whether a product reads its right operand from where other values lie."""
        if b in self.opened or (self._is_view(b) and not self._is_transposed(b)):
            return True
        few = bounds(a.type.shape[-2])[1] <= FEW_ROWS and not self._is_transposed(b)
        return (few or has_strips(b.type)) and self._is_light(b)

    def _is_light(self, value: Value) -> bool:
        """Whether an element takes one element of one array in memory, and little arithmetic."""
        while not self.is_leaf(value) and value not in self.kept:
            if not isinstance(value.op, (*FREE, ops.Cast, ops.Binary)) or not value.args:
                return False
            if isinstance(value.op, ops.Binary) and value.op.fn not in ("add", "sub", "mul"):
                return False
            value, *others = sorted(value.args, key=lambda v: v.is_constant)
            if any(not v.is_constant for v in others):
                return False
        return not value.is_constant

    def _is_transposed(self, value: Value) -> bool:
        """Whether a view's last axis may not be the last one in memory."""
        while not self.is_leaf(value) and value not in self.kept and value.args:
            if isinstance(value.op, ops.Transpose):
                return True
            value = value.args[0]
        return False

    def _is_repeated(self, arg: Value, user: Value) -> bool:
        """Whether a user reads the elements of an argument again along outer axes."""
        if not isinstance(user.op, (*ops.ELEMENTWISE, ops.Broadcast)) or arg.type.size == 1:
            return False
        offset = user.type.rank - arg.type.rank
        stretched = [
            axis for axis, d in enumerate(user.type.shape)
            if d != 1 and (axis < offset or arg.type.shape[axis - offset] == 1)
        ]  # fmt: skip
        own = [axis for axis in range(offset, user.type.rank) if arg.type.shape[axis - offset] != 1]
        return bool(stretched) and bool(own) and min(stretched) < max(own)

    def _is_cheap(self, value: Value) -> bool:
        """Whether computing an element again costs next to nothing."""
        cost = 0
        todo = [value]
        while todo and cost <= CHEAP:
            value = todo.pop()
            if self.is_memory(value) or value in self.kept:
                continue
            if isinstance(value.op, ops.Unary) and value.op.fn not in ("neg", "abs", "not"):
                return False
            if isinstance(value.op, ops.Binary) and value.op.fn in ("div", "mod", "fmod", "pow"):
                return False
            if isinstance(value.op, (*ANCHORS, *WHOLE)):
                return False
            cost += isinstance(value.op, ops.ELEMENTWISE)
            todo.extend(value.args)
        return cost <= CHEAP

    def _post_dominators(self) -> dict[Value, Value]:
        """For each value the first one through which all its uses pass."""
        flow = nx.DiGraph()
        end = object()
        flow.add_node(end)
        for value in self.values:
            for user in self.users[value]:
                flow.add_edge(user, value)
        for value in self.graph.results:
            flow.add_edge(end, value)
        found = nx.immediate_dominators(flow, end)
        return {v: d for v, d in found.items() if isinstance(v, Value) and isinstance(d, Value)}

    def _absorb(self, anchor: Value, after: dict[Value, Value]) -> Value:
        """How far a step reaches: the last value computed on the anchor's elements in place."""
        root = anchor
        while root not in self.kept and root in after:
            region = self._between(root, after[root])
            if region is None or not self.absorbed.isdisjoint(region):
                break
            self.absorbed.update(region)
            root = after[root]
        return root

    def _between(self, below: Value, above: Value) -> list[Value] | None:
        """The values from one to its post-dominator, if each keeps its elements one for one."""
        found: list[Value] = []
        todo = [above]
        seen = set()
        reaches = self._reaching(below, above)
        while todo:
            value = todo.pop()
            if value in seen or value is below:
                continue
            seen.add(value)
            if value not in reaches:
                continue
            if value is not above and value in self.kept:
                return None
            if not self._keeps_elements(value, reaches | {below}):
                return None
            found.append(value)
            todo.extend(value.args)
        return found

    def _reaching(self, below: Value, above: Value) -> set[Value]:
        """The values on the way from one to the other."""
        found: set[Value] = set()
        todo = [below]
        while todo:
            for user in self.users[todo.pop()]:
                if user not in found and user.number <= above.number:
                    found.add(user)
                    todo.append(user)
        return found

    def _keeps_elements(self, value: Value, inside: set[Value]) -> bool:
        """Whether a value has the elements of its arguments inside, one for one."""
        if isinstance(value.op, ops.Reshape | ops.Transpose):
            return True
        if not isinstance(value.op, ops.ELEMENTWISE):
            return False
        for arg in value.args:
            if arg in inside:
                extra = value.type.rank - arg.type.rank
                if value.type.shape != ((1,) * extra + arg.type.shape):
                    return False
        return True

    def _keep_shared(self) -> None:
        """Keep what several steps need, unless it is cheap; users before arguments."""
        needed_by: dict[Value, set[Value]] = {v: set() for v in self.values}
        for value in reversed(self.values):
            if self.is_leaf(value):
                continue
            if value not in self.kept and not value.is_constant:
                roots = needed_by[value]
                if len(roots) > 1 and not self._is_view(value) and not self._is_cheap(value):
                    self.kept.add(value)
            owners = {value} if value in self.kept else needed_by[value]
            for arg in value.args:
                needed_by[arg] |= owners

    def is_leaf(self, value: Value) -> bool:
        """Whether a step does not look inside a value: it lies in memory, or in the code."""
        return value not in self.opened and is_leaf(value)

    def is_memory(self, value: Value) -> bool:
        """Whether a leaf lies in memory; a constant of one element is part of the code."""
        if isinstance(value.op, ops.Input):
            return True
        return self.is_leaf(value) and value.type.size != 1


def _is_by_row(value: Value) -> bool:
    """Whether a dot brings rows of activations together by itself."""
    op = value.op
    return isinstance(op, ops.CodedDot) or (isinstance(op, ops.PackedDot) and op.by_row)


def is_leaf(value: Value) -> bool:
    """Whether a step does not look inside a value: an input or a constant that is no index map."""
    if isinstance(value.op, LEAVES):
        return True
    if not value.is_constant or isinstance(value.op, ops.Broadcast | ops.Dims | ops.Iota):
        return False
    return not _is_widening(value)


def _is_widening(value: Value) -> bool:
    """Whether a constant array is kept smaller by casting its elements where they are read."""
    if not isinstance(value.op, ops.Cast) or value.type.size == 1:
        return False
    return value.args[0].type.dtype.bytes < value.type.dtype.bytes
