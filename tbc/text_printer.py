"""The printer of IR text (see `tbc.text`)."""

from __future__ import annotations

import keyword
import math
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tbc.constants import digest_of
from tbc.dims import Dim, Expr, Symbol, substitute, symbols_of
from tbc.ir import Graph, Op, Value, body_of
from tbc.ops import Binary, Const, Input, Unary
from tbc.types import DType, TensorType

PRINTED = {"not": "logical_not", "and": "bit_and", "or": "bit_or", "MatMul": "matmul"}
"""Names in the text that differ from the snake case of the operation's name."""

INLINE = 16
"""Elements of the largest constant that is written out."""

_WIDTH = 100


def printed_name(name: str) -> str:
    """An operation's name in the text, from the name of its class or its `fn`."""
    return PRINTED.get(name) or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def print_graph(graph: Graph) -> str:
    """The graph as text.

    Raises:
        ValueError: two of its symbols have the same name, or a value is an input that the graph
            does not list.
    """
    symbols = _symbols_by_name(graph)
    printer = _Printer(graph, _identifiers(symbols, "|".join(DType.__members__)), symbols, {})
    return "\n".join([*map(printer.declaration, symbols.values()), *printer.lines(), ""])


def dump_constants(graph: Graph, path: Path) -> None:
    """Write the constants that the graph's text names by digest to an .npz, one at a time."""
    values = [v for part in graph.graphs() for v in part.values()]
    named = {v.op.digest: v.op for v in values if isinstance(v.op, Const)}
    with zipfile.ZipFile(path, "w") as archive:
        for digest, const in named.items():
            if _elements(const) is None:
                with archive.open(f"{digest}.npy", "w", force_zip64=True) as file:
                    array = const.data.read()
                    if const.type.dtype.is_small_float:  # NumPy cannot name them all in a file
                        array = array.view(np.uint8)
                    np.lib.format.write_array(file, array, allow_pickle=False)


class _Printer:
    """The text of a graph, or of a body in it, and the names in it.

    `dims` and `bodies` are what symbols and bodies are called, `symbols` those by their names.
    """

    def __init__(
        self,
        graph: Graph,
        dims: Mapping[str, str],
        symbols: Mapping[str, Symbol],
        bodies: dict[Graph, str],
    ):
        self.graph, self.dims, self.bodies, self.symbols = graph, dims, bodies, symbols
        self.body = [v for v in _in_order(graph.results) if not isinstance(v.op, Input)]
        inputs = [(i, i.op.name) for i in graph.leaves if isinstance(i.op, Input)]
        names = _identifiers([name for _, name in inputs], r"v\d+|body\d+")
        self.names = {value: names[name] for value, name in inputs}
        self.names |= {v: f"v{n}" for n, v in enumerate(self.body, len(inputs))}
        self.renamed = {
            name: Expr.of(replace(symbols[name], name=new))
            for name, new in dims.items()
            if new != name
        }

    def lines(self, called: str = "") -> list[str]:
        """The function, which is `called` so, or like the graph."""
        name = called or _identifiers([self.graph.name])[self.graph.name]
        lines = _wrapped(f"def {name}(", self.parameters(), "):", "")
        if name != self.graph.name:
            lines.append(f"    {_quoted(self.graph.name)}")
        for value in self.body:
            lines += [f"    {line}" for line in self.body_of(value)]
            lines.append(f"    {self.names[value]}: {self.type(value.type)} = {self.call(value)}")
        lines += [f"    check({self.value(check)})" for check in self.graph.checks]
        for state in self.graph.states:
            old, name, new = self.value(state.old), _quoted(state.name), self.value(state.next)
            lines.append(f"    keep({old}, {name}, {new})")
        results = [f"{_quoted(name)}: {self.value(v)}" for name, v in self.graph.outputs]
        return lines + _wrapped("    return {", results, "}", "    ")

    def body_of(self, value: Value) -> list[str]:
        """The function that a value is the first to run; none where there is none."""
        body = body_of(value.op)
        if body is None or body in self.bodies:
            return []
        self.bodies[body] = f"body{len(self.bodies)}"
        inner = _Printer(body, self.dims, self.symbols, self.bodies)
        return inner.lines(self.bodies[body])

    def declaration(self, symbol: Symbol) -> str:
        bounds = [str(symbol.lo)] + ([] if symbol.hi is None else [str(symbol.hi)])
        name = self.dims[symbol.name]
        below = [] if symbol.below is None else [f"below={self.dim(symbol.below)}"]
        alias = [] if name == symbol.name else [f"name={_quoted(symbol.name)}"]
        return f"{name} = dim({', '.join(bounds + below + alias)})"

    def parameters(self) -> Iterator[str]:
        aliased = False
        for value in self.graph.leaves:
            if isinstance(value.op, Input):
                name = self.names[value]
                aliased |= name != value.op.name
                alias = f" = {_quoted(value.op.name)}" if aliased else ""
                yield f"{name}: {self.type(value.type)}{alias}"

    def value(self, value: Value) -> str:
        if value not in self.names:
            raise ValueError(f"{value} is not listed as an input of the graph")
        return self.names[value]

    def call(self, value: Value) -> str:
        if isinstance(value.op, Const):
            elements = _elements(value.op)
            return f"const({_quoted(value.op.digest) if elements is None else elements})"
        args = [self.value(a) for a in value.args]
        return f"{_op_name(value.op)}({', '.join([*args, *self.fields(value.op)])})"

    def fields(self, item: Any) -> Iterator[str]:
        """The keyword arguments that make a dataclass, but for those that hold their default."""
        for field in fields(item):
            value = getattr(item, field.name)
            is_named = field.name == "fn" and isinstance(item, Unary | Binary)
            if not is_named and (field.default is MISSING or field.default != value):
                yield f"{field.name}={self.attribute(value)}"

    def attribute(self, item: Any) -> str:
        match item:
            case int() | float() | None:
                return repr(item)
            case str():
                return _quoted(item)
            case Symbol():
                return self.dims[item.name]
            case Graph():
                return self.bodies[item]
            case Expr():
                return self.dim(item)
            case DType():
                return item.name
            case tuple():
                inner = ", ".join(map(self.attribute, item))
                return f"({inner},)" if len(item) == 1 else f"({inner})"
            case _:
                return f"{_op_name(item)}({', '.join(self.fields(item))})"

    def type(self, type: TensorType) -> str:
        shape = ", ".join(map(self.dim, type.shape))
        return f"{type.dtype.name}[{shape}]" if type.shape else type.dtype.name

    def dim(self, dim: Dim) -> str:
        return str(substitute(dim, self.renamed))


def _op_name(op: Op) -> str:
    return printed_name(op.fn if isinstance(op, Unary | Binary) else type(op).__name__)


def _wrapped(head: str, items: Iterable[str], tail: str, indent: str) -> list[str]:
    """The items between head and tail: on one line, or each on its own where that is too long."""
    items = list(items)
    line = f"{head}{', '.join(items)}{tail}"
    if len(line) <= _WIDTH:
        return [line]
    return [head, *(f"{indent}    {item}," for item in items), f"{indent}{tail}"]


def _in_order(roots: Iterable[Value]) -> list[Value]:
    """The values that the roots need, each right after its arguments."""
    order: dict[Value, None] = {}
    todo = [(root, False) for root in roots][::-1]
    while todo:
        value, args_are_done = todo.pop()
        if args_are_done:
            order[value] = None
        elif value not in order:
            todo.append((value, True))
            todo.extend((arg, False) for arg in reversed(value.args))
    return list(order)


def _identifiers(names: Iterable[str], reserved: str = "") -> Mapping[str, str]:
    """An identifier of its own for each name: the name itself where it is one, else like it."""
    taken: dict[str, str] = {}
    for name in names:
        base = re.sub(r"[^0-9A-Za-z_]", "_", name)
        if not base.isidentifier() or keyword.iskeyword(base) or re.fullmatch(reserved, base):
            base = f"_{base}"
        identifier, count = base, 1
        while identifier in taken:
            count += 1
            identifier = f"{base}_{count}"
        taken[identifier] = name
    return {name: identifier for identifier, name in taken.items()}


def _quoted(text: str) -> str:
    """A Python string literal."""
    escaped = text.encode("unicode_escape").decode().replace('"', '\\"')
    return f'"{escaped}"'


def _symbols_by_name(graph: Graph) -> dict[str, Symbol]:
    """The symbols of a graph and of its bodies, in the order of appearance.

    A symbol comes behind those of its bound.
    """
    found: dict[str, Symbol] = {}
    for symbol in _of_graph(graph, set()):
        if found.setdefault(symbol.name, symbol) != symbol:
            raise ValueError(f"two symbols are called {symbol.name}")
    return found


def _of_graph(graph: Graph, seen: set[Graph]) -> Iterator[Symbol]:
    if graph in seen:
        return
    seen.add(graph)
    for value in (*graph.leaves, *_in_order(graph.results)):
        yield from _symbols(value.type)
        yield from _symbols(value.op)
        if (body := body_of(value.op)) is not None:
            yield from _of_graph(body, seen)


def _symbols(item: Any) -> Iterator[Symbol]:
    if isinstance(item, Expr):
        for symbol in symbols_of(item):
            yield from _symbols(symbol)
    elif isinstance(item, Symbol):
        yield from _symbols(item.below)
        yield item
    elif isinstance(item, tuple):
        for part in item:
            yield from _symbols(part)
    elif is_dataclass(item) and not isinstance(item, Const | Graph):
        for field in fields(item):
            yield from _symbols(getattr(item, field.name))


# -- constants ------------------------------------------------------------------------------------


def _elements(const: Const) -> str | None:
    """A constant's elements as text; None where they are many or text would change their bits.

    A small float is written as its bits.
    """
    if math.prod(d for d in const.type.shape if isinstance(d, int)) > INLINE:
        return None
    array = np.array(const.data.read())
    if const.type.dtype.is_float:
        array[np.isnan(array)] = math.nan
    if const.type.dtype.is_small_float:
        return _nested(array.view(np.uint8))
    if digest_of(const.type, array) != const.digest:
        return None
    return _nested(array)


def _nested(array: np.ndarray[Any, Any]) -> str:
    if array.ndim:
        return f"[{', '.join(map(_nested, array))}]"
    element = array.item() if array.dtype.kind in "iub" else _shortest(array[()])
    return repr(element)


def _shortest(element: Any) -> float:
    """The float with the shortest text that rounds to the element."""
    short = float(str(element))
    return short if type(element)(short) == element else float(element)
