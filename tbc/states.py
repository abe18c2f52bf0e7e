"""Inputs and outputs of a model that are kept from call to call instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from tbc.dims import symbols_of
from tbc.errors import BadState
from tbc.ir import Graph, State, Value
from tbc.ops import Input

_NONE: Mapping[str, int] = MappingProxyType({})


def require_not_given(pairs: Mapping[str, str], values: Mapping[str, object]) -> None:
    """Raise BadState where an input is to be kept that a value is compiled in for."""
    for name in sorted(pairs.keys() & values.keys()):
        raise BadState(
            f"state {name}={pairs[name]}: a value is compiled in for that input",
            hint="a value for it, or a state",
        )


def tied(graph: Graph, pairs: Mapping[str, str], declared: Mapping[str, int] = _NONE) -> Graph:
    """The graph with inputs that hold what outputs were in the call before; neither are left.

    Args:
        graph: as imported.
        pairs: by name of an input, that of an output. Inputs may have one output in common.
        declared: the element types of inputs and outputs, as the file has them. They may differ
            where those of the graph, in which they are stored, do not.

    Raises:
        BadState: there is no such input or output, they differ in type, a call could change
            their sizes, or no output is left.
    """
    inputs = {v.op.name: v for v in graph.inputs if isinstance(v.op, Input)}
    outputs = dict(graph.outputs)
    states = []
    for name, output in pairs.items():
        option = f"state {name}={output}"
        for kind, wanted, known in (("input", name, inputs), ("output", output, outputs)):
            if wanted not in known:
                listed = ", ".join(known) or "none"
                raise BadState(
                    f"{option}: there is no {kind} '{wanted}' that a call gives",
                    file=graph.name,
                    hint=f"one of the {kind}s: {listed}",
                )
        old, next = inputs[name], outputs[output]
        _require_alike(graph, option, old, next)
        if len({declared.get(name, 0), declared.get(output, 0)} - {0}) > 1:
            raise BadState(
                f"{option}: the file has the input in another element type than the output",
                file=graph.name,
                hint="a Cast in the model, so that they are of one type",
            )
        states.append(State(old, output, next))
    left = tuple((n, v) for n, v in graph.outputs if n not in pairs.values())
    if states and not left:
        raise BadState(
            "no output would be left: all of them are kept as state",
            file=graph.name,
            hint="an Identity in the model, whose output is not",
        )
    kept = {s.old for s in states}
    return replace(
        graph,
        inputs=tuple(v for v in graph.inputs if v not in kept),
        outputs=left,
        states=(*graph.states, *states),
    )


def _require_alike(graph: Graph, option: str, old: Value, next: Value) -> None:
    """Raise unless the values are of one type, whose sizes are numbers."""
    open_sizes = dict.fromkeys(
        d for v in (old, next) for d in v.type.shape if not isinstance(d, int)
    )
    if old.type != next.type:
        raise BadState(
            f"{option}: the input is {old.type}, the output {next.type}",
            file=graph.name,
            hint="a model whose output has the type of the input: a cache of a fixed size, say, "
            "into which ScatterND writes",
        )
    if open_sizes:
        names = ", ".join(sorted({s.name for d in open_sizes for s in symbols_of(d)}))
        raise BadState(
            f"{option}: its type is {old.type}, and a state has the same size in all calls",
            file=graph.name,
            hint=f"a number for {names}: --dim, or dims= in Python",
        )
