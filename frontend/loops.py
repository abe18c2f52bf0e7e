"""Loop: a loop of the IR, or its rounds written out where that tells more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tbc.dims import Dim, dim_min
from tbc.errors import Unfixed, Unsupported
from tbc.frontend.context import Context, T, numpy_scalar, supported, valid
from tbc.frontend.control import (
    Given,
    Mismatch,
    Nested,
    Open,
    given,
    present,
    restored,
    without_constants,
)
from tbc.frontend.nodes import Node
from tbc.frontend.rounds import LONGEST, SHORT, Rounds, stacked
from tbc.ir import Value
from tbc.types import DType


def is_true(c: Context, value: Value) -> bool | None:
    """A condition, where it is known before the model runs."""
    known = c.known.array(value)
    valid(value.type.dtype is DType.bool, f"a condition is of type {value.type}")
    if known is None or known.dtype == object:
        return None
    valid(known.size == 1, f"a condition is of type {value.type}")
    return bool(known.all())


class Undecided(Unsupported):
    """How often a loop runs is not known before the model runs."""

    def __init__(self) -> None:
        super().__init__(
            "how often a loop runs depends on the data or on a symbolic size of an input",
            hint="fix the symbolic sizes, or the inputs' values",
        )


def either(c: Context, first: Callable[[], list[T]], second: Callable[[], list[T]]) -> list[T]:
    """What the first way gives, or, where it is not supported, the second.

    The error is that of the first way, unless that cannot say how often a loop runs.
    """
    checks, unrolled = len(c.checks), c.unrolled
    try:
        return first()
    except (Unsupported, Mismatch) as error:
        del c.checks[checks:]
        c.unrolled = unrolled
        try:
            return second()
        except (Unsupported, Mismatch) as other:
            del c.checks[checks:]
            raise (other if isinstance(error, Undecided) else error) from None


@dataclass(frozen=True)
class _Loop:
    """A Loop.

    Attributes:
        most: how many rounds there are at most, a value; None where only a condition ends it.
        trip: the same where shape arithmetic knows it.
        going: whether a round is to begin, a value; None for yes.
        initial: the carried values.
        rows: how many outputs are stacked.
    """

    nested: Nested
    most: Value | None
    trip: Dim | None
    going: Value | None
    initial: Sequence[Given]
    rows: int

    @property
    def states(self) -> list[Value]:
        """The carried values; those of a loop of the IR are no sequences."""
        if any(isinstance(v, tuple) for v in self.initial):
            raise Unsupported(
                "a sequence goes through a loop, and how often that runs is not known",
                hint="fix the symbolic sizes, or the inputs' values",
            )
        return [present(v) for v in self.initial]

    def written_out(self, c: Context) -> list[Given]:
        """The results, a round behind the other."""
        run, carried = self.nested.run, list(self.initial)
        trips = None if self.most is None else int(numpy_scalar(c.numbers(self.most, "its rounds")))
        going = True if self.going is None else _decided(c, self.going)
        rows: list[list[Value]] = [[] for _ in range(self.rows)]
        turn, yes = 0, c.constant(True, DType.bool)
        while going and (trips is None or turn < trips):
            c.spend(len(self.nested.proto.node) + 1, "its rounds")
            again, *results = run([c.constant(turn, DType.i64), yes, *carried])
            carried, turn = [given(e) for e in results[: len(carried)]], turn + 1
            for row, value in zip(rows, results[len(carried) :], strict=True):
                row.append(present(value))
            going = turn == trips or _decided(c, present(again))
        if turn == 0 and rows:
            number = c.constant(0, DType.i64)
            return [*carried, *_no_rounds(c, lambda: run([number, yes, *carried]), len(carried))]
        return [*carried, *(stacked(c, row) for row in rows)]

    def counted(self, c: Context, trip: Dim, by_need: bool = False) -> list[Given]:
        """The results of a loop whose greatest number of rounds is a size."""
        rounds = Rounds(c, self.states, trip, by_need)
        number = rounds.inside.sizes(rounds.turn)
        again, states, rows = self._round(rounds, number, rounds.states)
        decided = is_true(rounds.inside, again)
        going = None if self.going is None else is_true(c, self.going)
        if decided is False and trip != 1:
            return self.counted(c, dim_min(trip, 1))
        if (decided is not None or trip == 1) and (self.going is None or going):
            last, outputs = rounds.finish(states, rows)
            return [*last, *outputs]
        self._refuse_rows()
        rounds = Rounds(c, [self._flag(c, self.going), *self.states], trip)
        number = rounds.inside.sizes(rounds.turn)
        again, states, _ = self._round(rounds, number, rounds.states[1:])
        results, _ = rounds.finish([_scalar(rounds.inside, again), *states], (), conditional=True)
        return list(results[1:])

    def conditional(self, c: Context) -> list[Given]:
        """The results of a loop that only data ends: by its condition, or by its number."""
        self._refuse_rows()
        flag, zero = self._flag(c, self.going), c.constant(0, DType.i64)
        if self.most is not None:
            flag = c.binary("and", flag, c.binary("lt", zero, _scalar(c, self.most)))
        rounds = Rounds(c, [flag, zero, *self.states], None)
        inside, number = rounds.inside, rounds.states[1]
        again, states, _ = self._round(rounds, number, rounds.states[2:])
        following, again = inside.add(number, 1), _scalar(inside, again)
        if self.most is not None:
            most = rounds.take(_scalar(c, self.most))
            again = inside.binary("and", again, inside.binary("lt", following, most))
        supported(is_true(inside, again) is not True, "a loop never ends")
        results, _ = rounds.finish([again, following, *states], (), conditional=True)
        return list(results[2:])

    def _round(
        self, rounds: Rounds, number: Value, states: Sequence[Value]
    ) -> tuple[Value, list[Value], list[Value]]:
        """Whether to go on, the next carried values, and what is stacked."""
        yes = rounds.inside.constant(True, DType.bool)
        run = self.nested.inside(rounds)
        again, *results = map(present, run([number, yes, *states]))
        return again, results[: len(states)], results[len(states) :]

    def _flag(self, c: Context, going: Value | None) -> Value:
        return c.constant(True, DType.bool) if going is None else _scalar(c, going)

    def _refuse_rows(self) -> None:
        if self.rows:
            raise Unfixed(
                "how often a loop runs depends on the data, and so does the number of its scan "
                "outputs",
                hint="give the loop a constant condition and a number of rounds that is a size",
            )


def loop(c: Context, node: Node, inputs: Sequence[Given], open_graph: Open) -> Sequence[Given]:
    """The last carried values, and what each round gave, stacked."""
    body, nested = node["body"], open_graph(node["body"])
    most, going, *carried = inputs
    most, going = (None if x is None else present(x) for x in (most, going))
    count = len(carried)
    valid(len(body.input) == count + 2, f"its body has {len(body.input)} inputs")
    valid(len(body.output) >= count + 1, f"its body has {len(body.output)} outputs")
    rows = len(body.output) - count - 1
    nested, kept = without_constants(nested, carried, 2, 1)
    trip = None if most is None else _size(c, most)
    changing = [v for i, v in enumerate(carried) if i not in kept]
    it = _Loop(nested, most, trip, going, changing, rows)
    known = all(_is_known(c, v) for v in carried)
    return restored(_results(c, it, known), kept)


def _is_known(c: Context, x: Given) -> bool:
    return isinstance(x, Value) and (x.is_constant or c.known.array(x) is not None)


def _results(c: Context, it: _Loop, known: bool) -> list[Given]:
    """The results of a loop in the way that tells most; whether its values are `known` at first."""
    trip = it.trip
    start = True if it.going is None else is_true(c, it.going)
    if trip is None or (isinstance(trip, int) and trip > LONGEST):
        if it.most is not None and trip is None:
            return it.conditional(c)
        return either(c, lambda: it.written_out(c), lambda: it.conditional(c))
    if not isinstance(trip, int):
        return it.counted(c, 0 if start is False else trip)

    def short() -> list[Given]:
        return either(c, lambda: it.written_out(c), lambda: it.counted(c, trip))

    if trip <= SHORT or start is False or (known and start):
        return short()
    return either(c, lambda: it.counted(c, trip, by_need=True), short)


def _size(c: Context, most: Value) -> Dim | None:
    """The greatest number of rounds, where shape arithmetic knows it."""
    known = c.known.array(most)
    valid(most.type.dtype.is_int, f"the number of rounds is of type {most.type}")
    if known is None:
        return None
    valid(known.size == 1, f"the number of rounds is of type {most.type}")
    size: Dim = known.reshape(-1).tolist()[0]
    return max(size, 0) if isinstance(size, int) else size


def _scalar(c: Context, value: Value) -> Value:
    valid(value.type.size == 1, f"a loop's condition or number of rounds is of type {value.type}")
    return c.reshape(value, ())


def _decided(c: Context, value: Value) -> bool:
    known = is_true(c, value)
    if known is None:
        raise Undecided
    return known


def _no_rounds(c: Context, run: Callable[[], Sequence[object]], count: int) -> list[Value]:
    """Empty stacks of what a round would give."""
    before = len(c.checks)
    values = [present(e) for e in run()[count + 1 :]]  # type: ignore[arg-type]
    del c.checks[before:]
    return [c.broadcast(c.constant(0, v.type.dtype), [0, *v.type.shape]) for v in values]
