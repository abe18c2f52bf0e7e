"""Hoist: what every round of a loop computes alike is computed once, before the loop."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, TypeAlias

from tbc.ir import Graph, Value, rebuilt, symbols_in, topological
from tbc.ops import Broadcast, Dims, Input, Iota, Repeat, Reshape, Slice

if TYPE_CHECKING:
    from tbc.target import Target

VIEWS = (Broadcast, Reshape, Slice)
"""Computed where they are read, for nothing."""
LEAVES = (Input, Dims, Iota)

Loop: TypeAlias = "tuple[Repeat, tuple[Value, ...]]"


def hoist(graph: Graph, target: Target) -> Graph:
    """The graph with loops whose rounds compute only what differs from round to round."""
    done: dict[Loop, Loop] = {}

    def change(value: Value, args: tuple[Value, ...]) -> Value:
        if not isinstance(value.op, Repeat):
            return rebuilt(value, args)
        loop = replace(value.op, which=0), args
        if loop not in done:
            done[loop] = _hoisted(*loop, value)
        op, args = done[loop]
        return value.builder(replace(op, which=value.op.which), *args)

    return graph.rebuild(change)


def _hoisted(op: Repeat, args: tuple[Value, ...], loop: Value) -> Loop:
    """The loop with a smaller body, what it no longer computes among its arguments."""
    body, outside = op.body, dict(zip(op.body.inputs, args, strict=True))
    taken = {v.op.name for v in body.inputs if isinstance(v.op, Input)}
    names = (n for i in count() if (n := f"hoisted{i}") not in taken)
    frontier = zip(_frontier(op), names, strict=False)
    inputs = {v: body.builder(Input(n, v.type)) for v, n in frontier}
    if not inputs:
        return op, args
    given = [_copied(value, outside, loop) for value in inputs]

    def change(value: Value, new: tuple[Value, ...]) -> Value:
        return inputs[value] if value in inputs else rebuilt(value, new)

    smaller = body.rebuild(change)
    used = set(topological(smaller.results))
    kept = [i < op.states or v in used for i, v in enumerate(body.inputs)]
    formal = (v for v, keep in zip(body.inputs, kept, strict=True) if keep)
    smaller = replace(smaller, inputs=(*formal, *inputs.values()))
    actual = (a for a, keep in zip(args, kept, strict=True) if keep)
    return replace(op, body=smaller), (*actual, *given)


def _frontier(op: Repeat) -> list[Value]:
    """The values that are the same in all rounds and that others, which are not, are made of."""
    body = op.body
    fixed: set[Value] = set(body.inputs[op.states :])
    order = topological(body.results)
    for value in order:
        same = all(a in fixed or a.is_constant for a in value.args)
        if not isinstance(value.op, Input) and same and op.index not in symbols_in(value.op):
            fixed.add(value)
    found: dict[Value, None] = {}
    users = [a for v in order if v not in fixed for a in v.args]
    for value in (*users, *body.results):
        while isinstance(value.op, VIEWS) and not value.is_constant:
            value = value.args[0]
        if value in fixed and not value.is_constant and not isinstance(value.op, LEAVES):
            found[value] = None
    return sorted(found, key=lambda v: v.number)


def _copied(value: Value, outside: dict[Value, Value], loop: Value) -> Value:
    """A value of the body as one of the graph around it; `outside` learns what it is made of."""
    for v in topological([value], lambda v: v in outside):
        if v not in outside:
            with loop.builder.origin(v.origin):
                outside[v] = loop.builder(v.op, *(outside[a] for a in v.args))
    return outside[value]
