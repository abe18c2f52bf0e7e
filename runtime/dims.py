"""The dimensions of a compiled model's tensors, from their text: which symbols a call has."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Dim:
    """One dimension as text: a number, a symbol, or an expression over symbols."""

    text: str

    def value(self, symbols: Mapping[str, int]) -> int:
        """The size for these values of the symbols; KeyError names one that is missing."""
        if self.text in symbols:
            return symbols[self.text]
        return _value(ast.parse(self.text, mode="eval").body, symbols)


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
    symbols: Sequence[tuple[str, int, int]],
    shapes: Sequence[tuple[str, tuple[Dim, ...], tuple[int, ...]]],
) -> dict[str, int]:
    """The symbols' values in their order, from (name, dimensions, shape) of every input.

    A dimension that is just a symbol decides it; all others must agree.

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
        if not low <= values[name] <= high:
            raise ValueError(f"dimension '{name}' is {values[name]}, outside {low}..{high}")
    for name, dims, shape in shapes:
        for axis, (dim, size) in enumerate(zip(dims, shape, strict=True)):
            wanted_size = dim.value(values)
            if size != wanted_size:
                why = "" if dim.text == str(wanted_size) else f" ({dim.text})"
                message = f"input '{name}' has {size} along axis {axis}, not {wanted_size}{why}"
                raise ValueError(message)
    return {name: values[name] for name, _, _ in symbols}
