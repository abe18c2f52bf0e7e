"""Bodies of loops under construction: what a round computes, and what it takes from outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tbc.dims import Dim, Expr, Symbol, dim_max, sole_symbol, symbols_of
from tbc.errors import Unsupported
from tbc.frontend.context import Context, valid
from tbc.ir import Graph, Value, topological
from tbc.ops import Dims, Input, Iota, Repeat, Slice, require_equal
from tbc.types import DType, TensorType

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
        states: the states at the beginning of a round, inside.
    """

    around: Context
    initial: Sequence[Value]
    trip: Dim | None
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
            Unsupported: the type of a state or of a row changes from round to round.
        """
        for before, after in zip(self.states, states, strict=True):
            _require_kept(before.type, after.type)
        if any(self.depends(d) for row in rows for d in row.type.shape):
            raise Unsupported("what a loop's rounds give differs in shape from round to round")
        results = [(f"state{i}", v) for i, v in enumerate(states)]
        results += [(f"row{i}", v) for i, v in enumerate(rows)]
        checks = tuple(dict.fromkeys(self.inside.checks))
        used = set(topological([*(v for _, v in results), *checks]))
        taken = {o: i for o, i in self._taken.items() if isinstance(i.op, Input) and i in used}
        body = Graph("body", (*self.states, *taken.values()), tuple(results), checks)
        loop, args = Repeat(body, len(states), self._index, conditional), (*self.initial, *taken)
        values = [self.around(replace(loop, which=i), *args) for i in range(len(results) + 1)]
        if checks:
            self.around.checks.append(values[-1])
        return values[: len(states)], values[len(states) : len(results)]


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


def is_true(c: Context, value: Value) -> bool | None:
    """A condition, where it is known before the model runs."""
    known = c.known.array(value)
    valid(value.type.dtype is DType.bool, f"a condition is of type {value.type}")
    if known is None or known.dtype == object:
        return None
    valid(known.size == 1, f"a condition is of type {value.type}")
    return bool(known.all())
