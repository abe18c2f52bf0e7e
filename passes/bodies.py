"""Passes reach the bodies of loops: what is done to a graph is done to every body in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, TypeAlias

from tbc.ir import Graph, Value, rebuilt
from tbc.ops import Repeat

if TYPE_CHECKING:
    from tbc.target import Target

Pass: TypeAlias = "Callable[[Graph, Target], Graph]"


def everywhere(step: Pass) -> Pass:
    """The pass on the bodies of a graph, the innermost first, and then on the graph itself."""

    @wraps(step)
    def run(graph: Graph, target: Target) -> Graph:
        return step(with_bodies(graph, lambda body: run(body, target)), target)

    return run


def with_bodies(graph: Graph, change: Callable[[Graph], Graph]) -> Graph:
    """The graph with its bodies changed, each once; their checks become checks of the graph."""
    bodies = {v.op.body: None for v in graph.values() if isinstance(v.op, Repeat)}
    if not bodies:
        return graph
    changed = {body: change(body) for body in bodies}
    checks: dict[Value, None] = {}

    def replaced(value: Value, args: tuple[Value, ...]) -> Value:
        op = value.op
        if not isinstance(op, Repeat):
            return rebuilt(value, args)
        body = changed[op.body]
        if body.checks:
            checks[value.builder(replace(op, body=body, which=len(body.outputs)), *args)] = None
        return value.builder(replace(op, body=body), *args)

    graph = graph.rebuild(replaced)
    return replace(graph, checks=tuple(dict.fromkeys((*graph.checks, *checks))))
