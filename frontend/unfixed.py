"""What has to be fixed, in words: errors that name sizes and inputs, and what to try for them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import reduce
from operator import and_

from tbc.dims import Dim, Expr, Symbol, bounds, substitute, symbols_of
from tbc.errors import InvalidModel, TbcError, Unfixed, Unsupported
from tbc.ir import Value, topological
from tbc.ops import DimMismatch, Input

_SIZES = (128, 64, 256, 32, 512, 16, 1024, 8, 4, 2, 1)
"""What is tried for a size, in this order."""
_RANGE = (1, 512)
_LONGEST = 160
_MOST_NUMBERS = 4
"""Inputs of more elements are better written to a file."""


def inputs_of(values: Iterable[Value]) -> dict[str, str]:
    """The inputs that values are computed from, and how their values are written."""
    leaves = (v.op for v in topological(values))
    return {leaf.name: _form(leaf) for leaf in leaves if isinstance(leaf, Input)}


def _form(leaf: Input) -> str:
    size = leaf.type.size
    if isinstance(size, int) and 0 < size <= _MOST_NUMBERS and leaf.type.rank <= 1:
        return ",".join(["VALUE"] * size)
    return f"{leaf.name}.npy"


def unfixed_value(reason: str, value: Value) -> TbcError:
    """The error for a value that has to be known, but depends on inputs."""
    inputs = inputs_of([value])
    if not inputs:
        return Unsupported(f"{reason} has {value.type.size} elements, too many to look at")
    return Unfixed(f"{reason} depends on the data of an input", inputs=inputs)


def unfixed_sizes(reason: str, dims: Iterable[Dim], least: int | None = None) -> Unfixed:
    """The error for dims that have to be numbers, or else to have a least value."""
    symbols = sorted({s for dim in dims for s in symbols_of(dim)}, key=lambda s: s.name)
    sizes = {s.name: str(_within(_SIZES[0], s)) for s in symbols}
    if least is not None:
        sizes = {s.name: f"{max(least, s.lo)}..{max(least, _greatest(s))}" for s in symbols}
    return Unfixed(reason, sizes=sizes)


def with_sizes(error: Unfixed, inputs: Iterable[Value | None]) -> Unfixed:
    """The error of a node; where it does not say what to fix, with the sizes of the inputs."""
    dims = [dim for x in inputs if x is not None for dim in x.type.shape]
    if error.sizes or error.inputs or all(isinstance(dim, int) for dim in dims):
        return error
    return unfixed_sizes(error.reason, dims)


def unequal(error: DimMismatch) -> TbcError:
    """The error for sizes that must be equal and cannot be made so."""
    low, high = bounds(error.a - error.b)
    if low > 0 or high < 0:
        return InvalidModel(str(error))
    a, b = _reduced(error.a, error.b)
    return Unfixed(
        f"{error.what}: {brief(a)} is not {brief(b)}, and tbc cannot see that they are equal",
        sizes=_solution(a, b),
    )


def undecided(
    error: TbcError, deciding: Iterable[Value], unequal_sizes: Iterable[tuple[Dim, Dim]] = ()
) -> Unfixed:
    """The error of a branch or loop that inputs' values decide on, saying which and which sizes."""
    sizes: dict[str, str] = {}
    for a, b in unequal_sizes:
        sizes |= _solution(*_reduced(a, b))
    inputs = inputs_of(deciding)
    if isinstance(error, Unfixed):
        sizes, inputs = {**sizes, **error.sizes}, {**inputs, **error.inputs}
    return Unfixed(
        error.reason,
        sizes=sizes,
        inputs=inputs,
        file=error.file,
        node=error.node,
        op=error.op,
        hint=error.hint,
    )


def brief(dim: Dim) -> str:
    """The dim's text, with its middle left out where it is long."""
    text = str(dim)
    half = _LONGEST // 2
    return text if len(text) <= _LONGEST else f"{text[:half]} … {text[-half:]}"


def _reduced(a: Dim, b: Dim) -> tuple[Dim, Dim]:
    """Both sides without the factors that they share."""
    terms = [t for side in (a, b) for t in (side.terms if isinstance(side, Expr) else [((), side)])]
    divisor = math.gcd(*(coef for _, coef in terms))
    common = reduce(and_, (Counter(monomial) for monomial, _ in terms))
    atoms = tuple(sorted(common.elements(), key=str))
    by: Dim = Expr(((atoms, divisor),)) if atoms else divisor
    return (a // by, b // by) if divisor else (a, b)


def _solution(a: Dim, b: Dim) -> Mapping[str, str]:
    """Sizes for the symbols of both sides with which they are equal, as far as one is found."""
    symbols = sorted({*symbols_of(a), *symbols_of(b)}, key=lambda s: s.name)
    ranges: dict[str, Dim] = {s.name: _bounded(s) for s in symbols}
    if substitute(a, ranges) == substitute(b, ranges):
        return {s.name: f"{max(_RANGE[0], s.lo)}..{_greatest(s)}" for s in symbols}
    for size in _SIZES:
        values: dict[str, Dim] = {s.name: _within(size, s) for s in symbols}
        if substitute(a, values) == substitute(b, values):
            return {name: str(value) for name, value in values.items()}
    return {s.name: "VALUE" for s in symbols}


def _bounded(symbol: Symbol) -> Dim:
    low = max(_RANGE[0], symbol.lo)
    return Expr.of(Symbol(symbol.name, low, _greatest(symbol)))


def _greatest(symbol: Symbol) -> int:
    return max(_RANGE[1], symbol.lo) if symbol.hi is None else max(symbol.hi, _RANGE[0])


def _within(size: int, symbol: Symbol) -> int:
    """The size, or the end of the symbol's range that is nearest to it."""
    size = max(size, symbol.lo)
    return size if symbol.hi is None else min(size, symbol.hi)
