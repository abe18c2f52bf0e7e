"""The dimensions of a compiled model's tensors, from their text: which symbols a call has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from tbc.dims import symbols_of
from tbc.ir import Value
from tbc.ops import Input


@dataclass(frozen=True)
class Dim:
    """One dimension as text: a number, a symbol, or an expression over symbols."""

    text: str

    def value(self, symbols: Mapping[str, int]) -> int:
        """The size for these values of the symbols; KeyError names one that is missing."""
        if self.text in symbols:
            return symbols[self.text]
        if self.text.isdigit():
            return int(self.text)
        text, values = self.text, dict(symbols)
        # ONNX allows any text as a symbol's name; the parser below wants identifiers.
        odd = [name for name in symbols if not name.isidentifier() and name in text]
        for i, name in enumerate(sorted(odd, key=len, reverse=True)):
            values[f"_{i}"] = symbols[name]
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", f"_{i}", text)
        return _value(ast.parse(text, mode="eval").body, values)


def split(text: str) -> tuple[Dim, ...]:
    """The dimensions in `batch,1,min(seq, 8)`: commas inside parentheses do not count."""
    parts, depth = [""], 0
    for char in text:
        depth += (char in "([") - (char in ")]")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return tuple(Dim(part.strip()) for part in parts) if text else ()


def _value(node: ast.expr, symbols: Mapping[str, int]) -> int:
    match node:
        case ast.Constant(value=int(number)):
            return number
        case ast.Name(id=name):
            return symbols[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, symbols)
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _value(left, symbols), _value(right, symbols)
            match op:
                case ast.Add():
                    return a + b
                case ast.Sub():
                    return a - b
                case ast.Mult():
                    return a * b
                case ast.FloorDiv():
                    return a // b
        case ast.Call(func=ast.Name(id="min" | "max" as kind), args=args, keywords=[]):
            values = [_value(arg, symbols) for arg in args]
            return min(values) if kind == "min" else max(values)
    raise ValueError(f"'{ast.unparse(node)}' is not a dimension")


def bind(
    symbols: Sequence[tuple[str, int, int | None]],
    shapes: Sequence[tuple[str, tuple[Dim, ...], tuple[int, ...]]],
) -> dict[str, int]:
    """The symbols' values in their order, from (name, dimensions, shape) of every input.

    A dimension that is just a symbol decides it; all others must agree. A symbol's highest value is
    None where it has no bound.

    Raises:
        ValueError: a rank or size does not fit, a symbol is outside its range or undecided.
    """
    values = {name: low for name, low, high in symbols if low == high}
    free = {name for name, low, high in symbols if low != high}
    for name, dims, shape in shapes:
        if len(dims) != len(shape):
            wanted = f"({', '.join(dim.text for dim in dims)})"
            raise ValueError(f"input '{name}' has rank {len(shape)}, not {len(dims)}: {wanted}")
        for dim, size in zip(dims, shape, strict=True):
            if dim.text in free:
                values.setdefault(dim.text, size)
    for name, low, high in symbols:
        if name not in values:
            raise ValueError(f"no input's shape decides the dimension '{name}'")
        if values[name] < low or (high is not None and values[name] > high):
            allowed = f"{low}.." if high is None else f"{low}..{high}"
            raise ValueError(f"dimension '{name}' is {values[name]}, outside {allowed}")
    for name, dims, shape in shapes:
        for axis, (dim, size) in enumerate(zip(dims, shape, strict=True)):
            wanted_size = dim.value(values)
            if size != wanted_size:
                why = "" if dim.text == str(wanted_size) else f" ({dim.text})"
                message = f"input '{name}' has {size} along axis {axis}, not {wanted_size}{why}"
                raise ValueError(message)
    return {name: values[name] for name, _, _ in symbols}


def check_names(names: Sequence[str], feeds: Iterable[str]) -> None:
    """Nothing if the feeds are for just these inputs; ValueError says which are not."""
    given = list(feeds)
    if wrong := [name for name in given if name not in names]:
        known = f"the inputs are {', '.join(names)}" if names else "the model has none"
        raise ValueError(f"there is no input '{wrong[0]}'; {known}")
    if missing := [name for name in names if name not in given]:
        raise ValueError(f"no array is given for the input '{missing[0]}'")


def bind_symbols(inputs: Iterable[Value], feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, int]:
    """The symbols' values in a call of a graph with these inputs, by name; ValueError as `bind`."""
    types = {value.op.name: value.type for value in inputs if isinstance(value.op, Input)}
    check_names(list(types), feeds)
    symbols = {s for type in types.values() for dim in type.shape for s in symbols_of(dim)}
    named = [
        (name, tuple(Dim(str(dim)) for dim in type.shape), feeds[name].shape)
        for name, type in types.items()
    ]
    ordered = sorted(symbols, key=lambda symbol: symbol.name)
    return bind([(s.name, s.lo, s.hi) for s in ordered], named)
