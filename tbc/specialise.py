"""From a model and what a run feeds it to a graph whose sizes all have bounds.

A graph with open sizes is bounded when their extents are seen. A model that does not import with
open sizes is imported for the extents: with bounds above them, with some or all of them exact, and
at last with the values of inputs as constants. What an attempt's error asks for is what the next
one fixes, so nothing is fixed that need not be; the first that imports is remembered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tbc.dims import Dim, Expr, Symbol, symbols_of
from tbc.driver import bound_batch
from tbc.errors import InvalidModel, Unfixed, Unsupported
from tbc.frontend import Model, element_types, load, read, signature
from tbc.ir import Graph, Value, bind
from tbc.ops import Input
from tbc.runtime import bind_symbols
from tbc.states import require_not_given, tied

Array: TypeAlias = npt.NDArray[Any]
Feeds: TypeAlias = Mapping[str, Array]
Range: TypeAlias = tuple[int, int]

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_MOST_ELEMENTS = 4096
"""Inputs of more elements do not become constants: shape arithmetic does not look at so many."""


@dataclass(frozen=True)
class Specialised:
    """A graph whose symbols all have bounds.

    Attributes:
        graph: the graph.
        ranges: the least and the greatest value of every symbol that was open.
        values: the inputs that are constants in it because their values decide shapes.
        batch: the symbol that was set to 1 for want of a bound, or "".
    """

    graph: Graph
    ranges: Mapping[str, Range]
    values: Feeds
    batch: str = ""


@dataclass(frozen=True)
class _Level:
    """What an import fixes: whether sizes are bounded, which are exact, whose values are known."""

    bounded: bool = False
    exact: frozenset[str] = frozenset()
    valued: frozenset[str] = frozenset()


class Specialiser:
    """Imports one model, for whatever it is fed.

    Attributes:
        name: the model's name.
        values: the inputs that the caller has fixed.
        states: the inputs that are kept from call to call, with the outputs that they were.
        inputs: the other inputs.
        kept: the inputs that are states.
        symbols: the sizes that a run decides.
    """

    def __init__(
        self,
        model: Model,
        dims: Mapping[str, int | tuple[int, int]] = _NOTHING,
        inputs: Mapping[str, npt.ArrayLike] = _NOTHING,
        states: Mapping[str, str] = _NOTHING,
    ):
        """The model with some sizes and inputs fixed; raises as `frontend.load`.

        An error that other sizes and values may mend is raised later, where there are none.
        """
        source = read(model)
        self.name = source.name
        self.states, self._declared = dict(states), element_types(source)
        require_not_given(self.states, inputs)
        self._refusal: Unfixed | None = None
        self._dims = dict(dims)
        signed = signature(source, dims=dims, input_values=inputs)
        self.values = signed.values
        try:
            self._graph = self.import_(source)
        except Unfixed as error:
            self._source, self._refusal = source, error
            self.inputs, self.kept = self._divided(signed.inputs)
            self.symbols = _symbols(self.inputs)
            level = self._after(_Level(), error)
            if level is None:
                raise
            self._level = level
        else:
            self.inputs, self.kept = self._divided(self._graph.inputs)
            self.symbols = tuple(s for s in _symbols(self.inputs) if s.hi is None)

    @property
    def is_complete(self) -> bool:
        """Whether one graph is for everything that can be fed."""
        return self._refusal is None and not self.symbols

    @property
    def graph(self) -> Graph:
        """The graph with open sizes.

        Raises:
            Unfixed: sizes or values must be fixed first; the error says which.
            BadState: the states do not fit the model.
        """
        return self.tied(self._open)

    @property
    def _open(self) -> Graph:
        """The graph with open sizes, the states among its inputs and outputs."""
        if self._refusal is not None:
            raise self._refusal.with_traceback(None)
        return self._graph

    def check_states(self) -> None:
        """Nothing if the states fit the model, as far as that can be told; else BadState."""
        if self.states and self._refusal is None:
            _ = self.bounded() if self.is_complete else self.graph

    def tied(self, graph: Graph) -> Graph:
        """A graph of the model with its states; BadState if they do not fit."""
        return tied(graph, self.states, self._declared)

    def _divided(self, inputs: tuple[Value, ...]) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
        """The inputs that a call gives, and those that are states, in the order of these."""
        named = {_name(v): v for v in inputs}
        given = tuple(v for name, v in named.items() if name not in self.states)
        return given, tuple(named[name] for name in self.states if name in named)

    def bounded(self) -> Specialised:
        """The graph for everything that can be fed.

        Raises:
            Unfixed: there is none, because sizes have no bound or values are not fixed.
        """
        graph, batch = bound_batch(self._open)
        ranges = {} if batch is None else {batch.name: (1, 1)}
        return Specialised(self.tied(graph), ranges, {}, batch.name if batch else "")

    def specialise(self, feeds: Feeds) -> Specialised:
        """A graph for these inputs, and for others that are like them.

        Raises:
            ValueError: the inputs do not fit the model.
            Unsupported: tbc cannot compile the model even for just these inputs.
        """
        extents = bind_symbols(self.inputs, feeds)
        if self._refusal is None:
            ranges = {s.name: self._range(s, extents[s.name], _Level()) for s in self.symbols}
            return Specialised(self.tied(_bind(self._graph, ranges)), ranges, {})
        level = self._level
        while True:
            ranges = {s.name: self._range(s, extents[s.name], level) for s in self.symbols}
            values = {name: self._value(name, feeds) for name in sorted(level.valued)}
            try:
                graph = self.import_(self._source, ranges, values)
            except (InvalidModel, Unsupported) as error:
                after = self._after(level, error)
                if after is None:
                    raise _final(error, ranges, values) from None
                level = after
            else:
                self._level = level
                return Specialised(self.tied(graph), ranges, values)

    def _range(self, symbol: Symbol, extent: int, level: _Level) -> Range:
        """The range of a symbol at a level; a state has the same size in all calls."""
        if symbol in _symbols(self.kept):
            return extent, extent
        if self._refusal is None:
            return _above(symbol, extent)
        return _range(symbol, extent, level)

    def bound(self, model: Model, special: Specialised) -> Graph:
        """The graph of a model with the same inputs, with what a graph of this one has fixed.

        States are among its inputs and outputs.
        """
        if self._refusal is None:
            return _bind(self.import_(model), special.ranges)
        return self.import_(model, special.ranges, special.values)

    def import_(
        self, model: Model, ranges: Mapping[str, Range] = _NOTHING, values: Feeds = _NOTHING
    ) -> Graph:
        """The graph of a model with the same inputs, with more sizes and inputs fixed."""
        sizes = {n: lo if lo == hi else (lo, hi) for n, (lo, hi) in ranges.items()}
        dims, inputs = {**self._dims, **sizes}, {**self.values, **values}
        return load(model, dims=dims, input_values=inputs).graph

    def _after(self, level: _Level, error: InvalidModel | Unsupported) -> _Level | None:
        """What to fix after an error: what it asks for, sizes first, else all there is."""
        if isinstance(error, InvalidModel):
            return None
        names = {s.name for s in self.symbols}
        small, whole = self._constants()
        sizes, inputs = set[str](), set[str]()
        if isinstance(error, Unfixed):
            sizes, inputs = error.sizes.keys() & names, error.inputs.keys() & small
        is_loose = any(s.hi is None for s in self.symbols)
        if is_loose and not level.bounded and (sizes or not inputs):
            return replace(level, bounded=True)
        if sizes - level.exact:
            return replace(level, bounded=True, exact=level.exact | sizes)
        if inputs - level.valued:
            return _Level(True, valued=level.valued | inputs)
        if names - level.exact:
            return replace(level, bounded=True, exact=frozenset(names))
        more = next((i for i in (whole, small) if i - level.valued), None)
        return None if more is None else _Level(True, level.exact, level.valued | more)

    def _constants(self) -> tuple[set[str], set[str]]:
        """The inputs that are not too large to be constants, and those of them with integers."""
        leaves = [v.op for v in self.inputs if isinstance(v.op, Input)]
        small = [i for i in leaves if not _is_large(i)]
        return {i.name for i in small}, {i.name for i in small if not i.type.dtype.is_float}

    def _value(self, name: str, feeds: Feeds) -> Array:
        """A copy of an input, which must be of the model's type."""
        wanted = next(v.type.dtype.numpy for v in self.inputs if _name(v) == name)
        array = np.array(feeds[name])
        if array.dtype != wanted:
            raise ValueError(f"input '{name}' has dtype {array.dtype}, not {wanted}")
        return array


def _name(value: Value) -> str:
    assert isinstance(value.op, Input)
    return value.op.name


def _is_large(leaf: Input) -> bool:
    size = leaf.type.size
    return isinstance(size, int) and size > _MOST_ELEMENTS


def _symbols(inputs: tuple[Value, ...]) -> tuple[Symbol, ...]:
    """The symbols of the inputs' shapes, in the order in which they appear."""
    return tuple(dict.fromkeys(s for v in inputs for d in v.type.shape for s in symbols_of(d)))


def _range(symbol: Symbol, extent: int, level: _Level) -> Range:
    """The range of a symbol at a level: more imports where no axis may be empty."""
    if symbol.name in level.exact:
        return extent, extent
    low, high = _above(symbol, extent) if symbol.hi is None else (symbol.lo, symbol.hi)
    return max(low, min(extent, 1)), high


def _above(symbol: Symbol, extent: int) -> Range:
    """From the symbol's least value to the next power of two from an extent on."""
    return symbol.lo, max(1 << max(extent - 1, 0).bit_length(), symbol.lo)


def _bind(graph: Graph, ranges: Mapping[str, Range]) -> Graph:
    sizes: dict[str, Dim] = {
        n: lo if lo == hi else Expr.of(Symbol(n, lo, hi)) for n, (lo, hi) in ranges.items()
    }
    return bind(graph, sizes)


def _final(
    error: InvalidModel | Unsupported, ranges: Mapping[str, Range], values: Feeds
) -> Exception:
    """The error of the last attempt, which says what was fixed by then."""
    sizes = [f"{n} = {lo}" if lo == hi else f"{n} up to {hi}" for n, (lo, hi) in ranges.items()]
    given = ", ".join([*sizes, *(f"the value of {name}" for name in values)])
    if isinstance(error, InvalidModel):
        return ValueError(f"the model does not take these inputs, with {given}: {error}")
    reason = f"{error.reason} (with {given})"
    return Unsupported(reason, file=error.file, node=error.node, op=error.op)
