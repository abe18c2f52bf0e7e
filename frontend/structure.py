"""What a graph's names say, before any meaning: definitions, order, cycles, nesting."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import onnx

from tbc.errors import InvalidModel, Unsupported
from tbc.frontend.nodes import name_of, op_of
from tbc.frontend.reader import MOST_NESTING, plain_domain

_MOST_GROWTH = 100
_FEW_NODES = 1 << 13
"""Functions may grow a model so many times by being inlined, and up to so many nodes anyway."""

FunctionKey: TypeAlias = tuple[str, str, str]
"""Domain, name and overload of one of the model's functions."""


@dataclass(frozen=True)
class Body:
    """The nodes of a graph or a function.

    Attributes:
        nodes: each behind those whose outputs it reads.
        free: names that are read but not defined here, with a node that reads them.
    """

    nodes: Sequence[onnx.NodeProto]
    free: Mapping[str, onnx.NodeProto]


def graph_body(graph: onnx.GraphProto) -> Body:
    """The body of a graph.

    Raises:
        InvalidModel: a name is defined twice, or nodes need each other.
    """
    initializers = [t.name for t in graph.initializer]
    initializers += [t.values.name for t in graph.sparse_initializer]
    for what, names in (("inputs", [i.name for i in graph.input]), ("initializers", initializers)):
        if len(set(names)) < len(names):
            twice = next(n for n in names if names.count(n) > 1)
            raise InvalidModel(f"two {what} are called '{twice}'")
    return _body(graph.node, {*(i.name for i in graph.input), *initializers})


@dataclass(frozen=True)
class Function:
    """A function and its body, in which every name that is read is defined."""

    proto: onnx.FunctionProto
    body: Body


def function_of(proto: onnx.FunctionProto) -> Function:
    """The function; raises InvalidModel for a name that is not defined, as for a graph."""
    body = _body(proto.node, set(proto.input))
    refuse_free(body, ())
    return Function(proto, body)


def refuse_free(body: Body, visible: Iterable[str]) -> None:
    """Raise InvalidModel for a name that is read but not defined anywhere."""
    for name in body.free.keys() - set(visible):
        node = body.free[name]
        raise InvalidModel(f"its input '{name}' is not defined", node=name_of(node), op=op_of(node))


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs in a node's attributes."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _body(nodes: Iterable[onnx.NodeProto], defined: set[str]) -> Body:
    nodes = list(nodes)
    maker: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in node.output:
            if name and (name in defined or maker.setdefault(name, index) != index):
                raise InvalidModel(
                    f"its output '{name}' is defined already", node=name_of(node), op=op_of(node)
                )
    free: dict[str, onnx.NodeProto] = {}
    needs: list[set[int]] = []
    for node in nodes:
        reads = {name for name in node.input if name}
        for graph in subgraphs(node):
            reads |= graph_body(graph).free.keys()
        needs.append({maker[name] for name in reads if name in maker})
        free |= {name: node for name in reads if name not in maker and name not in defined}
    return Body([nodes[i] for i in _sorted(nodes, needs)], free)


def _sorted(nodes: Sequence[onnx.NodeProto], needs: Sequence[set[int]]) -> list[int]:
    """The nodes' numbers, each behind those it needs, otherwise as they stand."""
    users: dict[int, list[int]] = {}
    for index, needed in enumerate(needs):
        for other in needed:
            users.setdefault(other, []).append(index)
    missing = [len(n) for n in needs]
    ready = [i for i, count in enumerate(missing) if not count]
    order = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for user in users.get(index, ()):
            missing[user] -= 1
            if not missing[user]:
                heapq.heappush(ready, user)
    if len(order) < len(nodes):
        node = nodes[min(set(range(len(nodes))) - set(order))]
        raise InvalidModel(
            "it needs its own result: the graph has a cycle", node=name_of(node), op=op_of(node)
        )
    return order


# -- functions of the model -----------------------------------------------------------------------


def functions_of(model: onnx.ModelProto) -> dict[FunctionKey, Function]:
    """The model's own functions.

    Raises:
        InvalidModel: one is defined twice, calls itself, or does not define an output.
        Unsupported: the model with its functions inlined would be too large.
    """
    found: dict[FunctionKey, onnx.FunctionProto] = {}
    for function in model.functions:
        key = (plain_domain(function.domain), function.name, function.overload)
        if key in found:
            raise InvalidModel(f"the function '{function.name}' is defined twice")
        found[key] = function
    if found:
        bodies = (model.graph.node, *(f.node for f in found.values()))
        written = sum(_inlined(nodes, {}, {})[0] for nodes in bodies)
        inlined, _ = _inlined(model.graph.node, found, {})
        if inlined > max(_MOST_GROWTH * written, _FEW_NODES):
            raise Unsupported(f"with its functions inlined, its {written} nodes become {inlined}")
    for function in found.values():
        defined = {*function.input, *(name for node in function.node for name in node.output)}
        if missing := [name for name in function.output if name not in defined]:
            raise InvalidModel(f"the function '{function.name}' does not define '{missing[0]}'")
    return {key: function_of(function) for key, function in found.items()}


def function_key(node: onnx.NodeProto) -> FunctionKey:
    """The key of the function that a node would call."""
    return plain_domain(node.domain), node.op_type, node.overload


def _inlined(
    nodes: Iterable[onnx.NodeProto],
    functions: Mapping[FunctionKey, onnx.FunctionProto],
    known: dict[FunctionKey, tuple[int, int]],
    callers: tuple[FunctionKey, ...] = (),
    depth: int = 0,
) -> tuple[int, int]:
    """How many nodes there are with every call replaced by its body, and how deep they nest."""
    _refuse_deep(depth)
    total = height = 0
    for node in nodes:
        inner = [
            _inlined(graph.node, functions, known, callers, depth + 1) for graph in subgraphs(node)
        ]
        key = function_key(node)
        if key in functions:
            if key in callers:
                raise InvalidModel(f"the function '{key[1]}' calls itself")
            if key not in known:
                body = functions[key].node
                known[key] = _inlined(body, functions, known, (*callers, key), depth + 1)
            inner.append(known[key])
        total += 1 + sum(count for count, _ in inner)
        height = max([height, *(1 + below for _, below in inner)])
    _refuse_deep(depth + height)
    return total, height


def _refuse_deep(depth: int) -> None:
    if depth > MOST_NESTING:
        raise Unsupported(f"functions and graphs nest deeper than {MOST_NESTING}")
