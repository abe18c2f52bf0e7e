"""Values, the builder that makes each of them once, and graphs.

A value is an operation applied to values; a graph is its outputs. Values are immutable and typed
when they are made. Their numbers give every order in the compiler: a value's arguments always have
smaller numbers than itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Protocol, TypeAlias

from tbc.dims import Dim, Expr, Symbol, substitute, symbols_of
from tbc.types import TensorType, require_sizes


class Op(Protocol):
    """An operation: a frozen dataclass that infers the type of its result (see `tbc.ops`)."""

    @property
    def infer(self) -> Callable[..., TensorType]:
        """From the arguments' types, the result's; raises ValueError where they do not fit."""


@dataclass(frozen=True, eq=False, repr=False)
class Value:
    """The result of `op` applied to `args`."""

    op: Op
    args: tuple[Value, ...]
    type: TensorType
    number: int
    builder: Builder = field(repr=False)
    is_constant: bool
    """Whether the value depends on no input and no symbol: a constant, given as a recipe."""
    origin: str
    """The model's node that the value comes from."""

    def __repr__(self) -> str:
        args = ", ".join(f"v{a.number}" for a in self.args)
        return f"v{self.number}: {self.type} = {self.op}({args})"


class Builder:
    """Makes values, each combination of operation and arguments once.

    Attributes:
        here: the node that new values say they come from.
    """

    def __init__(self, here: str = "") -> None:
        self._interned: dict[tuple[Any, ...], Value] = {}
        self.here = here

    def __call__(self, op: Op, *args: Value) -> Value:
        """The value `op(*args)`.

        Raises:
            ValueError: it is ill-typed.
            Unsupported: it is larger than can be counted.
        """
        key = (op, *(a.number for a in args))
        value = self._interned.get(key)
        if value is None:
            fixed = getattr(op, "is_constant", False)
            if args:
                fixed = body_of(op) is None and all_constant(args) and not symbols_in(op)
            type = op.infer(*(a.type for a in args))
            require_sizes(type.shape, "its result")
            value = Value(
                op=op,
                args=args,
                type=type,
                number=len(self._interned),
                builder=self,
                is_constant=fixed,
                origin=self.here,
            )
            self._interned[key] = value
        return value

    @contextmanager
    def origin(self, name: str) -> Iterator[None]:
        """Within it, new values say that they come from the node `name`."""
        before, self.here = self.here, name
        try:
            yield
        finally:
            self.here = before


def symbols_in(item: Any) -> set[Symbol]:
    """The symbols in an operation, or in a field of one; a body's own number of a round counts."""
    if isinstance(item, Expr):
        return set(symbols_of(item))
    if isinstance(item, Graph):
        return set[Symbol]().union(*(symbols_in(v.op) for v in item.values()))
    if isinstance(item, tuple):
        return set[Symbol]().union(*map(symbols_in, item))
    if isinstance(item, Symbol):
        return {item} | symbols_in(item.below)
    if is_dataclass(item):
        return set[Symbol]().union(*(symbols_in(getattr(item, f.name)) for f in fields(item)))
    return set()


def body_of(op: Op) -> Graph | None:
    """The graph that an operation runs on its arguments; None for one that runs none."""
    return getattr(op, "body", None)


def all_constant(values: Iterable[Value]) -> bool:
    """Whether every one of the values is a constant."""
    return all(v.is_constant for v in values)


def topological(
    roots: Iterable[Value], stop: Callable[[Value], bool] = lambda _: False
) -> list[Value]:
    """The values that the roots need, arguments before users; `stop` values are not entered."""
    seen: dict[int, Value] = {}
    todo = list(roots)
    while todo:
        value = todo.pop()
        if value.number not in seen:
            seen[value.number] = value
            if not stop(value):
                todo.extend(value.args)
    return [seen[n] for n in sorted(seen)]


Uses: TypeAlias = Mapping[Value, int]
Rule: TypeAlias = Callable[[Value, Uses], Value | None]


@dataclass(frozen=True)
class State:
    """What is kept from call to call: `old` is what `next` was in the call before, or zeros.

    Attributes:
        old: an input of the model that its caller does not give.
        name: the model's output that `next` is, and that its caller does not get.
        next: of the type of `old`.
    """

    old: Value
    name: str
    next: Value


@dataclass(frozen=True)
class Graph:
    """Named inputs and named outputs; everything between is reached from the outputs.

    A check is a bool scalar that is True where an input holds a value the model cannot accept (an
    index outside its axis); a run then ends with an error status, and the states stay as they are.
    """

    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[tuple[str, Value], ...]
    checks: tuple[Value, ...] = ()
    states: tuple[State, ...] = ()

    @property
    def builder(self) -> Builder:
        """The builder of the graph's values."""
        return (*self.inputs, *(v for _, v in self.outputs))[0].builder

    @property
    def leaves(self) -> tuple[Value, ...]:
        """The inputs, then the states as they were."""
        return (*self.inputs, *(s.old for s in self.states))

    @property
    def results(self) -> tuple[Value, ...]:
        """The values of the outputs, then the next states, then the checks."""
        return (*(v for _, v in self.outputs), *(s.next for s in self.states), *self.checks)

    @property
    def untied(self) -> Graph:
        """The graph with the states among its inputs and its outputs, behind the others."""
        kept = {s.name: s.next for s in self.states}
        return replace(self, inputs=self.leaves, outputs=(*self.outputs, *kept.items()), states=())

    def values(self) -> list[Value]:
        """Every value the outputs need, constants' recipes included, arguments before users."""
        return topological(self.results)

    def graphs(self) -> Iterator[Graph]:
        """The graph, and each body within it, once."""
        found: dict[Graph, None] = {}
        todo = [self]
        while todo:
            graph = todo.pop()
            if graph not in found:
                found[graph] = None
                todo += [body for v in graph.values() if (body := body_of(v.op)) is not None]
        yield from found

    def uses(self) -> Counter[Value]:
        """How often each value is an argument or an output."""
        count: Counter[Value] = Counter(self.results)
        for value in self.values():
            count.update(value.args)
        return count

    def symbols(self) -> tuple[Symbol, ...]:
        """The symbols of the inputs' shapes, in the order in which they appear."""
        found = {s: None for i in self.inputs for d in i.type.shape for s in symbols_of(d)}
        return tuple(found)

    def rebuild(self, change: Callable[[Value, tuple[Value, ...]], Value]) -> Graph:
        """The graph with each value replaced by `change(value, its new arguments)`."""
        new: dict[Value, Value] = {}
        for value in topological((*self.leaves, *self.results)):
            with self.builder.origin(value.origin):
                new[value] = change(value, tuple(new[a] for a in value.args))
        return Graph(
            self.name,
            tuple(new[i] for i in self.inputs),
            tuple((name, new[v]) for name, v in self.outputs),
            tuple(new[c] for c in self.checks),
            tuple(State(new[s.old], s.name, new[s.next]) for s in self.states),
        )


def rebuilt(value: Value, args: tuple[Value, ...]) -> Value:
    """The value on other arguments."""
    return value if args == value.args else value.builder(value.op, *args)


def rewrite(graph: Graph, rules: Iterable[Rule]) -> Graph:
    """The graph after applying the rules wherever they match, until none does.

    A rule sees a value with the use counts of the graph it stands in, and returns its replacement
    or None. One walk applies the rules to every value on its new arguments; there the uses that
    the walk has taken away are still counted, so a rule that refuses shared values refuses a few
    too many, until the next walk.
    """
    rules = tuple(rules)
    while True:
        uses = graph.uses()
        fired = False

        def change(value: Value, args: tuple[Value, ...], uses: Counter[Value] = uses) -> Value:
            nonlocal fired
            new = rebuilt(value, args)
            if new is not value:
                uses[new] += uses[value]
            for rule in rules:
                if (better := rule(new, uses)) is not None and better is not new:
                    fired = True
                    _count_new(better, uses)
                    uses[better] += uses[new]
                    return better
            return new

        graph = graph.rebuild(change)
        if not fired:
            return graph


def _count_new(value: Value, uses: Counter[Value]) -> None:
    """Count the uses by the values behind `value` that are not counted yet."""
    new = [v for v in topological([value], lambda v: v in uses) if v not in uses]
    for user in new:
        uses.update(user.args)


def bind(graph: Graph, dims: Mapping[str, Dim]) -> Graph:
    """The graph with symbols replaced: by numbers, or by symbols of another range."""
    return _bind(graph, dims, {})


def _bind(graph: Graph, dims: Mapping[str, Dim], done: dict[Graph, Graph]) -> Graph:
    builder = Builder()

    def change(value: Value, args: tuple[Value, ...]) -> Value:
        op = substitute_op(value.op, dims)
        if (body := body_of(op)) is not None:
            if body not in done:
                own = {s.name: Expr.of(s) for s in vars(op).values() if isinstance(s, Symbol)}
                done[body] = _bind(body, {**dims, **own}, done)
            op = replace(op, body=done[body])  # type: ignore[type-var]
        with builder.origin(value.origin):
            return builder(op, *args)

    return graph.rebuild(change)


def substitute_op(op: Op, dims: Mapping[str, Dim]) -> Op:
    """The operation with the symbols in its fields replaced."""
    changed = {}
    for name, item in vars(op).items():
        new = _substitute_field(item, dims)
        if new is not item:
            changed[name] = new
    return replace(op, **changed) if changed else op  # type: ignore[type-var]


def _substitute_field(item: Any, dims: Mapping[str, Dim]) -> Any:
    if isinstance(item, TensorType):
        return TensorType(item.dtype, _substitute_field(item.shape, dims))
    if isinstance(item, Symbol) and item.below is not None:
        return replace(item, below=substitute(item.below, dims))
    if isinstance(item, tuple):
        new = tuple(_substitute_field(i, dims) for i in item)
        return item if new == item else new
    return substitute(item, dims) if isinstance(item, Expr) else item
