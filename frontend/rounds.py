"""Bodies of loops under construction: what a round computes, and what it takes from outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tbc.dims import Dim, Expr, Symbol, dim_max, sole_symbol, symbols_of
from tbc.errors import Unsupported
from tbc.frontend.context import Context, axis_of, valid
from tbc.frontend.ops_index import part
from tbc.ir import Graph, Value, topological
from tbc.ops import (
    Concat,
    Dims,
    Input,
    Iota,
    MatMul,
    Repeat,
    Reshape,
    Slice,
    Transpose,
    require_equal,
)
from tbc.types import TensorType

SHORT = 4
"""Loops of at most this many rounds are written out."""
LONGEST = (1 << 31) - 1
"""The greatest number of rounds that a symbol counts."""


@dataclass
class Rounds:
    """The body of a loop.

    Attributes:
        around: makes the values outside.
        inside: makes those of the body.
        initial: what the states begin with.
        trip: how many rounds there are; None where only a condition ends them.
        by_need: whether a loop is refused whose weights are constants if it is written out.
        states: the states at the beginning of a round, inside.
    """

    around: Context
    initial: Sequence[Value]
    trip: Dim | None
    by_need: bool = False
    inside: Context = field(init=False)
    states: list[Value] = field(init=False)
    _index: Symbol | None = field(init=False, default=None)
    _taken: dict[Value, Value] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.inside = self.around.nested()
        if self.trip is not None:
            self.trip = dim_max(self.trip, 0)
            self._index = self.around.round_of(self.trip)
        self.states = [self.inside(Input(f"state{i}", v.type)) for i, v in enumerate(self.initial)]

    @property
    def turn(self) -> Dim:
        """The number of the round, of a loop whose `trip` is known."""
        assert self._index is not None
        return Expr.of(self._index)

    def depends(self, dim: Dim) -> bool:
        """Whether a size changes from round to round."""
        return self._index is not None and self._index in symbols_of(dim)

    def take(self, value: Value) -> Value:
        """What stands for an outer value inside: its recipe, the sizes that it is, or an input."""
        if value not in self._taken:
            with self.inside.builder.origin(value.origin):
                copied = self._copied(value)
                self._taken[value] = copied or self.inside(
                    Input(f"taken{len(self._taken)}", value.type)
                )
        return self._taken[value]

    def _copied(self, value: Value) -> Value | None:
        c = self.inside
        if value.is_constant:
            new: dict[Value, Value] = {}
            for v in topological([value]):
                new[v] = c(v.op, *(new[a] for a in v.args))
            return new[value]
        if isinstance(value.op, Dims | Iota):
            return c(value.op)
        known = self.around.known.array(value)
        if known is None or value.type.dtype.is_float:
            return None
        if known.dtype != object:
            return c.constant(known, value.type.dtype)
        return c.cast(c(Dims(tuple(known.reshape(-1).tolist()), known.shape)), value.type.dtype)

    def finish(
        self, states: Sequence[Value], rows: Sequence[Value] = (), conditional: bool = False
    ) -> tuple[list[Value], list[Value]]:
        """The last states and the stacked rows, given the next states and a round's rows.

        Raises:
            Unsupported: the type of a state or of a row changes from round to round, or `by_need`
                refuses the loop.
        """
        for before, after in zip(self.states, states, strict=True):
            _require_kept(before.type, after.type)
        if any(self.depends(d) for row in rows for d in row.type.shape):
            raise Unsupported("what a loop's rounds give differs in shape from round to round")
        results = [(f"state{i}", v) for i, v in enumerate(states)]
        results += [(f"row{i}", v) for i, v in enumerate(rows)]
        checks = tuple(dict.fromkeys(self.inside.checks))
        used = dict.fromkeys(topological([*(v for _, v in results), *checks]))
        if self.by_need and any(map(self._picks_weights, used)):
            raise Unsupported("every round of a loop has weights of its own")
        taken = {o: i for o, i in self._taken.items() if isinstance(i.op, Input) and i in used}
        body = Graph("body", (*self.states, *taken.values()), tuple(results), checks)
        loop, args = Repeat(body, len(states), self._index, conditional), (*self.initial, *taken)
        values = [self.around(replace(loop, which=i), *args) for i in range(len(results) + 1)]
        if checks:
            self.around.checks.append(values[-1])
        return values[: len(states)], values[len(states) : len(results)]

    def _picks_weights(self, value: Value) -> bool:
        """Whether a product is by a part of a constant that the number of the round tells."""
        for operand in value.args if isinstance(value.op, MatMul) else ():
            picked, x = False, operand
            while isinstance(x.op, Reshape | Transpose | Slice):
                picked |= isinstance(x.op, Slice) and any(map(self.depends, x.op.starts))
                x = x.args[0]
            if picked and x.is_constant:
                return True
        return False


def _require_kept(before: TensorType, after: TensorType) -> None:
    """Raise unless a state has the type that it had; two symbols may turn out to be equal."""
    valid(before.dtype is after.dtype, f"a loop turns {before} into {after}")
    changes = Unsupported(f"a loop turns a value of type {before} into one of {after}")
    if before.rank != after.rank:
        raise changes
    for a, b in zip(before.shape, after.shape, strict=True):
        if a != b and not (_is_other(a, b) or _is_other(b, a)):
            raise changes
        require_equal(a, b, "the sizes of a state before and after a round")


def _is_other(a: Dim, b: Dim) -> bool:
    """Whether a size is a symbol that another symbolic size does not depend on."""
    symbol = sole_symbol(a)
    return symbol is not None and not isinstance(b, int) and symbol not in symbols_of(b)


def flipped(c: Context, x: Value) -> Value:
    """x in the opposite order along its first axis."""
    size, *rest = x.type.shape
    steps = (-1, *[1] * len(rest))
    return c(Slice((size - 1, *[0] * len(rest)), steps, x.type.shape), x)


def stacked(c: Context, items: Sequence[Value], axis: int = 0) -> Value:
    """The items along a new axis."""
    first = items[0].type.shape
    at = axis_of(axis, len(first) + 1)
    single = [*first[:at], 1, *first[at:]]
    return c(Concat(at), *(c.reshape(x, single) for x in items))


def item(c: Context, x: Value, index: Dim, axis: int = 0) -> Value:
    """x at an index of an axis, without that axis."""
    shape = list(x.type.shape)
    rest = shape[:axis] + shape[axis + 1 :]
    shape[axis] = 1
    starts = [index if a == axis else 0 for a in range(x.type.rank)]
    return c.reshape(part(c, x, starts, shape, [1] * x.type.rank), rest)
