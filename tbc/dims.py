"""Integer expressions over named symbols: the sizes of tensors and the indices of loop nests.

A `Dim` is an `int` where it is known, else an `Expr`: a polynomial whose atoms are symbols, floor
divisions, minima and maxima. Polynomials are kept in one normal form, so equal expressions are
equal objects to `==` and `hash`, and `a % b`, which is written as `a - a // b * b`, cancels when a
flattened index is split again. Every symbol has a range, and the ranges simplify divisions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from tbc.errors import Unsupported

_MOST_ATOMS = 4000
_DEEPEST = 64
"""A larger dim is given up: every step on it takes ever more time, or ends Python's stack."""


@dataclass(frozen=True)
class Symbol:
    """A named integer from `lo` to `hi` inclusive; `hi` None has no bound.

    `below` is an exclusive bound that is itself a dim: a loop's index is below the loop's extent.
    """

    name: str
    lo: int = 0
    hi: int | None = None
    below: Dim | None = None

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class FloorDiv:
    """num // den, rounded down; den is positive."""

    num: Expr
    den: Dim

    def __str__(self) -> str:
        return f"{_operand(self.num)} // {_operand(self.den)}"


@dataclass(frozen=True)
class Extremum:
    """min(a, b) or max(a, b)."""

    kind: str
    a: Dim
    b: Dim

    def __str__(self) -> str:
        return f"{self.kind}({self.a}, {self.b})"


Atom: TypeAlias = Symbol | FloorDiv | Extremum
Monomial: TypeAlias = tuple[Atom, ...]
"""A product of atoms, sorted by their text; () is 1."""


@dataclass(frozen=True)
class Expr:
    """A polynomial with integer coefficients that is not a constant."""

    terms: tuple[tuple[Monomial, int], ...]

    @staticmethod
    def of(symbol: Symbol) -> Expr:
        """The expression that is one symbol."""
        return Expr((((symbol,), 1),))

    @cached_property
    def extent(self) -> tuple[int, int]:
        """How many atoms are written in it, and how deep they nest."""
        inner = [_extent(atom) for monomial, _ in self.terms for atom in monomial]
        atoms = len(self.terms) + sum(count for count, _ in inner)
        return atoms, 1 + max((depth for _, depth in inner), default=0)

    @cached_property
    def _hash(self) -> int:
        return hash(self.terms)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def text(self) -> str:
        """Python source of the expression."""
        match self.terms:
            case (((FloorDiv() as quotient,), 1),):
                return str(quotient)
        parts = []
        for monomial, coef in self.terms:
            factors = [str(a) if isinstance(a, Symbol | Extremum) else f"({a})" for a in monomial]
            if abs(coef) != 1 or not factors:
                factors.append(str(abs(coef)))
            parts.append(("- " if coef < 0 else "+ ") + "*".join(factors))
        text = " ".join(parts)
        return text[2:] if text.startswith("+ ") else f"-{text[2:]}"

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Expr({self.text})"

    def __add__(self, other: Dim) -> Dim:
        if not isinstance(other, int | Expr):
            return NotImplemented
        return _poly([*self.terms, *_terms(other)])

    __radd__ = __add__

    def __neg__(self) -> Dim:
        return self * -1

    def __sub__(self, other: Dim) -> Dim:
        return self + other * -1

    def __rsub__(self, other: Dim) -> Dim:
        return self * -1 + other

    def __mul__(self, other: Dim) -> Dim:
        if not isinstance(other, int | Expr):
            return NotImplemented
        _require_few(len(self.terms) * len(_terms(other)))
        return _poly(
            [
                (tuple(sorted(m + n, key=str)), c * d)
                for m, c in self.terms
                for n, d in _terms(other)
            ]
        )

    __rmul__ = __mul__

    def __floordiv__(self, other: Dim) -> Dim:
        return floor_div(self, other)

    def __rfloordiv__(self, other: Dim) -> Dim:
        return floor_div(other, self)

    def __mod__(self, other: Dim) -> Dim:
        return self - self // other * other

    def __rmod__(self, other: Dim) -> Dim:
        return other - other // self * self


Dim: TypeAlias = int | Expr


def _operand(dim: Dim) -> str:
    text = str(dim)
    return text if text.isidentifier() or text.isdigit() else f"({text})"


def _terms(dim: Dim) -> tuple[tuple[Monomial, int], ...]:
    if isinstance(dim, Expr):
        return dim.terms
    return (((), int(dim)),) if dim else ()


def _poly(terms: list[tuple[Monomial, int]]) -> Dim:
    """The normal form of a sum of terms."""
    sums: dict[Monomial, int] = {}
    for monomial, coef in terms:
        sums[monomial] = sums.get(monomial, 0) + coef
    kept = [(m, c) for m, c in sums.items() if c]
    if all(not m for m, _ in kept):
        return kept[0][1] if kept else 0
    result = Expr(tuple(sorted(kept, key=lambda t: (-len(t[0]), [str(a) for a in t[0]]))))
    _require_few(*result.extent)
    return result


def _extent(item: Atom | Dim) -> tuple[int, int]:
    match item:
        case Expr():
            return item.extent
        case FloorDiv(a, b) | Extremum(_, a, b):
            inner = (_extent(a), _extent(b))
            return sum(count for count, _ in inner), 1 + max(depth for _, depth in inner)
    return 1, 0


def _require_few(atoms: int, depth: int = 0) -> None:
    """Raise Unsupported for a dim that is too large to work with."""
    if atoms > _MOST_ATOMS or depth > _DEEPEST:
        raise Unsupported(
            f"a size of {atoms} terms, nested {depth} deep, is too complicated",
            hint="fix the symbolic sizes",
        )


def floor_div(num: Dim, den: Dim) -> Dim:
    """num // den rounded down, simplified by exact division and by the symbols' ranges."""
    if isinstance(num, int) and isinstance(den, int):
        return num // den
    if den == 0:
        raise ZeroDivisionError(f"{num} // 0")
    if isinstance(den, int) and den < 0:
        num, den = num * -1, -den
    if den == 1:
        return num
    quotient, rest = _divide(num, den)
    lo, hi = bounds(rest)
    if rest == 0:
        return quotient
    if isinstance(rest, int) and isinstance(den, int):
        return quotient + rest // den
    if lo >= 0 and (hi < bounds(den)[0] or bounds(den - at_most(rest))[0] >= 1):
        return quotient
    if isinstance(rest, int):
        rest = Expr((((), rest),))  # an integer over a symbol: kept as an atom of its own
    elif isinstance(den, int) and (inner := _shifted_quotient(rest)) is not None:
        num, by = inner
        return quotient + floor_div(num, by * den)
    return quotient + Expr((((FloorDiv(rest, den),), 1),))


def _shifted_quotient(dim: Expr) -> tuple[Dim, int] | None:
    """(a, b) where the dim is a // b for a number b, written as (a - k*b) // b + k."""
    match dim.terms:
        case (((FloorDiv(num, int(den)),), 1),):
            return num, den
        case (((FloorDiv(num, int(den)),), 1), ((), int(shift))):
            return num + shift * den, den
    return None


def at_most(dim: Dim) -> Dim:
    """A dim with symbols that have a `below` replaced by their greatest value, where that grows."""
    limits = {s.name: s.below - 1 for s in symbols_of(dim) if s.below is not None}
    return substitute(dim, limits) if limits and _grows(dim) else dim


def _is_fixed(dim: Dim) -> bool:
    """Whether no symbol in the dim has a `below`."""
    return all(s.below is None for s in symbols_of(dim))


def _grows(dim: Dim) -> bool:
    """Whether the dim surely never falls where a symbol with a `below` grows."""
    return all(
        _is_fixed(Expr(((monomial, 1),)))
        or (coef > 0 and all(_atom_bounds(a)[0] >= 0 and _atom_grows(a) for a in monomial))
        for monomial, coef in _terms(dim)
    )


def _atom_grows(atom: Atom) -> bool:
    match atom:
        case FloorDiv(num, den):
            return _grows(num) and _is_fixed(den)
        case Extremum(_, a, b):
            return _grows(a) and _grows(b)
        case _:
            return True


def _divide(num: Dim, den: Dim) -> tuple[Dim, Dim]:
    """(q, r) with num == q * den + r, where q takes every term that the leading term divides."""
    divisor = _terms(den)
    (lead, lead_coef), rest_of_den = divisor[0], divisor[1:]
    quotient: Dim = 0
    rest = num
    for _ in range(64):
        for monomial, coef in _terms(rest):
            left = _cancel(monomial, lead)
            if left is not None and coef // lead_coef and (coef % lead_coef == 0 or not left):
                factor = _poly([(left, coef // lead_coef)])
                quotient, rest = quotient + factor, rest - factor * den
                break
        else:
            break
    if rest_of_den and rest != 0:  # a partial division by a sum only makes terms grow
        return 0, num
    return quotient, rest


def _cancel(monomial: Monomial, factor: Monomial) -> Monomial | None:
    left = list(monomial)
    for atom in factor:
        if atom not in left:
            return None
        left.remove(atom)
    return tuple(left)


def _extremum(kind: str, a: Dim, b: Dim) -> Dim:
    lo, hi = bounds(a - b)
    if lo >= 0:
        return a if kind == "max" else b
    if hi <= 0:
        return b if kind == "max" else a
    if a in _compared(kind, b):
        return b
    if b in _compared(kind, a):
        return a
    for x, y in ((a, b), (b, a)):
        if isinstance(y, Expr) and (absorbed := _absorbed(kind, x, y)) is not None:
            return absorbed
    a, b = sorted((a, b), key=str)
    result = Expr((((Extremum(kind, a, b),), 1),))
    _require_few(*result.extent)
    return result


def _compared(kind: str, dim: Dim) -> tuple[Dim, ...]:
    """The dims whose minimum or maximum a dim is."""
    match dim:
        case Expr((((Extremum(k, a, b),), 1),)) if k == kind:
            return (*_compared(kind, a), *_compared(kind, b))
    return (dim,)


def _absorbed(kind: str, a: Dim, b: Expr) -> Dim | None:
    """max(a, max(c, d)) is max(c, d) where c >= a, max(a, min(c, d)) is a where c <= a; so min."""
    match b.terms:
        case (((Extremum(inner, c, d),), 1),):
            for other in (c, d):
                lo, hi = bounds(other - a)
                grows, falls = (lo >= 0, hi <= 0) if kind == "max" else (hi <= 0, lo >= 0)
                if inner == kind and grows:
                    return b
                if inner != kind and falls:
                    return a
    return None


def dim_min(a: Dim, b: Dim) -> Dim:
    """The smaller of two dims."""
    return _extremum("min", a, b)


def dim_max(a: Dim, b: Dim) -> Dim:
    """The larger of two dims."""
    return _extremum("max", a, b)


def ceil_div(a: Dim, b: int) -> Dim:
    """a / b, rounded up."""
    return (a + (b - 1)) // b


def product(dims: tuple[Dim, ...]) -> Dim:
    """The product of dims; 1 of none."""
    result: Dim = 1
    for dim in dims:
        result = result * dim
    return result


def bounds(dim: Dim) -> tuple[float, float]:
    """The least and the greatest value that a dim can have, by interval arithmetic."""
    if isinstance(dim, int):
        return dim, dim
    lo, hi = _interval(dim)
    if (relaxed := _without_quotients(dim)) is not None:
        (low, high), (down, up) = _interval(relaxed[0]), relaxed[1]
        lo, hi = max(lo, low + down), min(hi, high + up)
    return lo, hi


def _without_quotients(dim: Expr) -> tuple[Dim, tuple[int, int]] | None:
    """A dim without quotients that are multiplied again, and how far it is off.

    a // b * b is a less 0 to b - 1, which other terms may cancel.
    """
    terms: list[tuple[Monomial, int]] = []
    down = up = 0
    for monomial, coef in dim.terms:
        match monomial:
            case (FloorDiv(num, int(den)),) if coef % den == 0:
                factor = coef // den
                terms += _terms(num * factor)
                down, up = down - max(factor, 0) * (den - 1), up - min(factor, 0) * (den - 1)
            case _:
                terms.append((monomial, coef))
    return (_poly(terms), (down, up)) if down != up else None


def _interval(dim: Dim) -> tuple[float, float]:
    """The bounds of a dim, each of its terms taken by itself."""
    if isinstance(dim, int):
        return dim, dim
    lo = hi = 0.0
    for monomial, coef in dim.terms:
        term: tuple[float, float] = (_capped(coef), _capped(coef))
        for atom in monomial:
            term = _interval_product(term, _atom_bounds(atom))
        lo, hi = lo + term[0], hi + term[1]
    return lo, hi


_HUGE = 1 << 256
"""No size: finite bounds beyond it are taken for it, before floats overflow."""


def _interval_product(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    corners = [0 if x == 0 or y == 0 else x * y for x in a for y in b]
    return _capped(min(corners)), _capped(max(corners))


def _capped(bound: float) -> float:
    infinite = isinstance(bound, float) and math.isinf(bound)
    return bound if infinite else max(-_HUGE, min(bound, _HUGE))


def _atom_bounds(atom: Atom) -> tuple[float, float]:
    match atom:
        case Symbol(_, lo, hi, below):
            if hi is None and below is not None:
                return lo, bounds(below)[1] - 1
            return lo, math.inf if hi is None else hi
        case Extremum(kind, a, b):
            (alo, ahi), (blo, bhi) = bounds(a), bounds(b)
            pick = min if kind == "min" else max
            return pick(alo, blo), pick(ahi, bhi)
        case FloorDiv(num, den):
            dens = [max(d, 1) for d in bounds(den)]
            ends = [_quotient(n, d) for n in bounds(num) for d in dens]
            return min(ends), max(ends)


def _quotient(num: float, den: float) -> float:
    if math.isinf(num):
        return num
    if math.isinf(den):
        return -1 if num < 0 else 0
    return num // den


def upper(dim: Dim) -> int:
    """The greatest value of a dim.

    Raises:
        ValueError: it has none, because a symbol is unbounded.
    """
    hi = bounds(dim)[1]
    if math.isinf(hi):
        names = ", ".join(s.name for s in symbols_of(dim) if s.hi is None)
        raise ValueError(f"{dim} has no upper bound: {names}")
    return int(hi)


def static(dim: Dim, what: str) -> int:
    """The dim as a number.

    Raises:
        ValueError: it depends on a symbol; `what` says what it is.
    """
    if isinstance(dim, int):
        return dim
    raise ValueError(f"{what} must be a number, not {dim}")


def is_polynomial(dim: Dim) -> bool:
    """Whether a dim holds no division, minimum or maximum."""
    return all(isinstance(atom, Symbol) for monomial, _ in _terms(dim) for atom in monomial)


def symbols_of(dim: Dim) -> Iterator[Symbol]:
    """The symbols of a dim, each as often as it is written."""
    for monomial, _ in _terms(dim):
        for atom in monomial:
            match atom:
                case Symbol():
                    yield atom
                case FloorDiv(num, den):
                    yield from symbols_of(num)
                    yield from symbols_of(den)
                case Extremum(_, a, b):
                    yield from symbols_of(a)
                    yield from symbols_of(b)


def sole_symbol(dim: Dim) -> Symbol | None:
    """The symbol that a dim is, and nothing more."""
    match dim:
        case Expr((((Symbol() as symbol,), 1),)):
            return symbol
    return None


def substitute(dim: Dim, values: Mapping[str, Dim]) -> Dim:
    """The dim with symbols replaced by name; symbols not named stay."""
    if isinstance(dim, int):
        return dim
    total: Dim = 0
    for monomial, coef in dim.terms:
        term: Dim = coef
        for atom in monomial:
            match atom:
                case Symbol(name):
                    term = term * values.get(name, Expr.of(atom))
                case FloorDiv(num, den):
                    term = term * floor_div(substitute(num, values), substitute(den, values))
                case Extremum(kind, a, b):
                    a, b = substitute(a, values), substitute(b, values)
                    term = term * _extremum(kind, a, b)
        total = total + term
    return total


def evaluate(dim: Dim, values: Mapping[str, int]) -> int:
    """The dim as a number, given every symbol's value."""
    result = substitute(dim, values)
    if not isinstance(result, int):
        missing = sorted({s.name for s in symbols_of(result)})
        raise KeyError(f"no value for {', '.join(missing)}")
    return result
