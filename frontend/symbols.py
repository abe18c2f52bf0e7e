"""The model's symbolic sizes: their names and ranges, and the equalities found between them."""

from __future__ import annotations

import ast
import keyword
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from tbc.dims import Dim, Expr, Symbol, bounds, floor_div, sole_symbol, substitute, symbols_of

Range: TypeAlias = int | tuple[int, int | None]
"""What the caller says of a symbol: its value, or its least and its greatest value."""

_OPERATORS: Mapping[type[ast.operator], Callable[[Dim, Dim], Dim]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.FloorDiv: floor_div,
}


class Symbols:
    """The sizes that the model's inputs name, each with what is known about it.

    Attributes:
        equalities: the symbols that turned out to be other sizes.
    """

    def __init__(self, declared: Iterable[str], given: Mapping[str, Range]):
        """Symbols for the texts in `dim_param`, in their order.

        Raises:
            ValueError: `given` names a symbol that the model does not have.
        """
        self.equalities: dict[str, Dim] = {}
        self._order: list[str] = []
        self._sizes: dict[str, Dim] = {}
        texts = list(dict.fromkeys(declared))
        for text in sorted(texts, key=lambda t: not _is_name(t)):
            size = None if _is_name(text) else self._computed(text)
            self._sizes[text] = self._declare(text, given) if size is None else size
        if unknown := [n for n in given if n not in self._order and n not in texts]:
            known = ", ".join(self._order) or "none"
            raise ValueError(f"the model has no symbol {', '.join(unknown)} (it has: {known})")

    def _declare(self, text: str, given: Mapping[str, Range]) -> Dim:
        """A new symbol, or the number it is said to have."""
        name = text if _is_name(text) else re.sub(r"\W", "_", f"d_{text}", flags=re.ASCII)
        while name in self._order:
            name += "_"
        self._order.append(name)
        spec = given.get(text, given.get(name, (0, None)))
        lo, hi = (spec, spec) if isinstance(spec, int) else spec
        if lo < 0 or (hi is not None and hi < lo):
            raise ValueError(f"{text}: {lo}..{hi} is not a range of sizes")
        return lo if lo == hi else Expr.of(Symbol(name, lo, hi))

    def _computed(self, text: str) -> Dim | None:
        """The size where the text is arithmetic on declared symbols, as exporters write it."""

        def walk(node: ast.expr) -> Dim:
            match node:
                case ast.BinOp(left, op, right):
                    return _OPERATORS[type(op)](walk(left), walk(right))
                case ast.Name(name):
                    return self._sizes[name]
                case ast.Constant(int(number)):
                    return number
            raise KeyError

        try:
            size = walk(ast.parse(text, mode="eval").body)
        except (SyntaxError, KeyError, ValueError, RecursionError, MemoryError, ZeroDivisionError):
            return None
        return size if bounds(size)[0] >= 0 else None

    def dim(self, text: str) -> Dim:
        """The size that a `dim_param` stands for."""
        return self._sizes[text]

    def equate(self, a: Dim, b: Dim) -> bool:
        """Replace a symbol so that a == b holds; whether there is one that can be."""
        found = self._solve(a, b)
        if found is None:
            return False
        symbol, size = found
        changes = {symbol.name: size}
        if (kept := sole_symbol(size)) is not None:
            his = [s.hi for s in (kept, symbol) if s.hi is not None]
            both = Symbol(kept.name, max(kept.lo, symbol.lo), min(his) if his else None)
            changes = {symbol.name: Expr.of(both), kept.name: Expr.of(both)}
        self._sizes = {n: substitute(d, changes) for n, d in self._sizes.items()}
        self.equalities = {n: substitute(d, changes) for n, d in self.equalities.items()}
        self.equalities[symbol.name] = changes[symbol.name]
        return True

    def _solve(self, a: Dim, b: Dim) -> tuple[Symbol, Dim] | None:
        """A symbol, the last declared that can be, and the size it must have for a == b.

        A common factor of both sides is taken to be more than 0.
        """
        difference = a - b
        if isinstance(difference, int):
            return None
        factor = math.gcd(*(c for _, c in difference.terms))
        difference = Expr(tuple((m, c // factor) for m, c in difference.terms))
        terms = difference.terms
        common = [atom for atom in terms[0][0] if all(atom in m for m, _ in terms)]
        if common and len(terms) > 1:
            return self._solve(floor_div(difference, Expr((((common[0],), 1),))), 0)
        symbols = list(symbols_of(difference))
        if any(s.name not in self._order for s in symbols):  # the number of a loop's round
            return None
        for symbol in sorted(set(symbols), key=lambda s: -self._order.index(s.name)):
            coef = dict(terms).get((symbol,), 0)
            if abs(coef) == 1 and symbols.count(symbol) == 1:
                size = (difference - Expr.of(symbol) * coef) * -coef
                if _fits(size, symbol):
                    return symbol, size
        return None


def _is_name(text: str) -> bool:
    return text.isascii() and text.isidentifier() and not keyword.iskeyword(text)


def _fits(size: Dim, symbol: Symbol) -> bool:
    """Whether a symbol can have that size, which is at least surely no negative one."""
    (lo, hi), most = bounds(size), symbol.hi
    if isinstance(size, int):
        return symbol.lo <= size and (most is None or size <= most)
    return lo >= 0 and hi >= symbol.lo and (most is None or lo <= most)
