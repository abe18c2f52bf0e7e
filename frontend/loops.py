"""Loop and Scan: a loop of the IR, or rounds written out where that tells more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tbc.dims import Dim, dim_min
from tbc.errors import Unsupported
from tbc.frontend.context import Context, axis_of, fixed, numpy_scalar, supported, valid
from tbc.frontend.control import Control, Mismatch, Nested, Open, Run, branch, present
from tbc.frontend.nodes import Node
from tbc.frontend.ops_index import part
from tbc.frontend.rounds import LONGEST, SHORT, Rounds, flipped, is_true
from tbc.ir import Value
from tbc.ops import Concat, require_equal
from tbc.types import DType


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


class Undecided(Unsupported):
    """How often a loop runs is not known before the model runs."""

    def __init__(self) -> None:
        super().__init__(
            "how often a loop runs depends on the data or on a symbolic size of an input",
            hint="fix the symbolic sizes, or the inputs' values",
        )


def either(
    c: Context, first: Callable[[], list[Value]], second: Callable[[], list[Value]]
) -> list[Value]:
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


# -- Loop -----------------------------------------------------------------------------------------


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
    initial: Sequence[Value]
    rows: int

    def written_out(self, c: Context) -> list[Value]:
        """The results, a round behind the other."""
        run, carried = self.nested.run, list(self.initial)
        trips = None if self.most is None else int(numpy_scalar(c.numbers(self.most, "its rounds")))
        going = True if self.going is None else _decided(c, self.going)
        rows: list[list[Value]] = [[] for _ in range(self.rows)]
        turn, yes = 0, c.constant(True, DType.bool)
        while going and (trips is None or turn < trips):
            c.spend(len(self.nested.proto.node) + 1, "its rounds")
            again, *results = map(present, run([c.constant(turn, DType.i64), yes, *carried]))
            carried, turn = results[: len(carried)], turn + 1
            for row, value in zip(rows, results[len(carried) :], strict=True):
                row.append(value)
            going = turn == trips or _decided(c, again)
        if turn == 0 and rows:
            number = c.constant(0, DType.i64)
            return [*carried, *_no_rounds(c, lambda: run([number, yes, *carried]), len(carried))]
        return [*carried, *(stacked(c, row) for row in rows)]

    def counted(self, c: Context, trip: Dim) -> list[Value]:
        """The results of a loop whose greatest number of rounds is a size."""
        rounds = Rounds(c, self.initial, trip)
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
        rounds = Rounds(c, [self._flag(c, self.going), *self.initial], trip)
        number = rounds.inside.sizes(rounds.turn)
        again, states, _ = self._round(rounds, number, rounds.states[1:])
        results, _ = rounds.finish([_scalar(rounds.inside, again), *states], (), conditional=True)
        return results[1:]

    def conditional(self, c: Context) -> list[Value]:
        """The results of a loop that only data ends: by its condition, or by its number."""
        self._refuse_rows()
        flag, zero = self._flag(c, self.going), c.constant(0, DType.i64)
        if self.most is not None:
            flag = c.binary("and", flag, c.binary("lt", zero, _scalar(c, self.most)))
        rounds = Rounds(c, [flag, zero, *self.initial], None)
        inside, number = rounds.inside, rounds.states[1]
        again, states, _ = self._round(rounds, number, rounds.states[2:])
        following, again = inside.add(number, 1), _scalar(inside, again)
        if self.most is not None:
            most = rounds.take(_scalar(c, self.most))
            again = inside.binary("and", again, inside.binary("lt", following, most))
        supported(is_true(inside, again) is not True, "a loop never ends")
        results, _ = rounds.finish([again, following, *states], (), conditional=True)
        return results[2:]

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
        supported(
            not self.rows,
            "how often a loop runs depends on the data, and so does the number of its scan outputs",
            "give the loop a constant condition and a number of rounds that is a size",
        )


def loop(
    c: Context, node: Node, inputs: Sequence[Value | None], open_graph: Open
) -> Sequence[Value]:
    """The last carried values, and what each round gave, stacked."""
    body, nested = node["body"], open_graph(node["body"])
    most, going, *initial = inputs
    count = len(initial)
    valid(len(body.input) == count + 2, f"its body has {len(body.input)} inputs")
    valid(len(body.output) >= count + 1, f"its body has {len(body.output)} outputs")
    trip = None if most is None else _size(c, most)
    rows = len(body.output) - count - 1
    it = _Loop(nested, most, trip, going, [present(v) for v in initial], rows)
    start = True if going is None else is_true(c, going)
    if trip is None or (isinstance(trip, int) and trip > LONGEST):
        if most is not None and trip is None:
            return it.conditional(c)
        return either(c, lambda: it.written_out(c), lambda: it.conditional(c))
    if not isinstance(trip, int):
        return it.counted(c, 0 if start is False else trip)
    known = all(v.is_constant or c.known.array(v) is not None for v in it.initial)
    if trip <= SHORT or start is False or (known and start):
        return either(c, lambda: it.written_out(c), lambda: it.counted(c, trip))
    return either(c, lambda: it.counted(c, trip), lambda: it.written_out(c))


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


# -- Scan -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sequences:
    """How a Scan goes through its inputs, and where it puts its outputs."""

    nested: Nested
    axes: Sequence[int]
    backward: Sequence[int]
    out_axes: Sequence[int]
    out_backward: Sequence[int]

    def scan(self, c: Context, states: Sequence[Value], inputs: Sequence[Value]) -> list[Value]:
        """The last states, and the outputs of all rounds."""
        axes = [axis_of(a, x.type.rank) for a, x in zip(self.axes, inputs, strict=True)]
        sizes = [x.type.shape[a] for a, x in zip(axes, inputs, strict=True)]
        for size in sizes:
            require_equal(size, sizes[0], "the lengths of its inputs")
        length = sizes[0]
        along = list(zip(inputs, axes, self.backward, strict=True))
        if not isinstance(length, int) or length == 0:
            return self._counted(c, states, along, length)
        ways = (
            lambda: self._counted(c, states, along, length),
            lambda: self._written_out(c, states, along, length),
        )
        # written out, parts of constants are constants: weights by layer, for example
        short = length <= SHORT or all(x.is_constant for x in inputs)
        return either(c, *(ways[::-1] if short else ways))

    def _written_out(
        self, c: Context, states: Sequence[Value], along: Sequence[tuple[Value, int, int]],
        length: int,
    ) -> list[Value]:  # fmt: skip
        rows: list[list[Value]] = []
        for turn in range(length):
            c.spend(len(self.nested.proto.node) + 1, "its rounds")
            states, row = self._round(c, self.nested.run, states, along, turn, length)
            rows.append(row)
        columns = zip(*rows, strict=True)
        placed = zip(columns, self.out_axes, self.out_backward, strict=True)
        return [*states, *(stacked(c, col[::-1] if back else col, a) for col, a, back in placed)]

    def _counted(
        self, c: Context, states: Sequence[Value], along: Sequence[tuple[Value, int, int]],
        length: Dim,
    ) -> list[Value]:  # fmt: skip
        rounds = Rounds(c, states, length)
        taken = [(rounds.take(x), axis, back) for x, axis, back in along]
        run, turn = self.nested.inside(rounds), rounds.turn
        step = self._round(rounds.inside, run, rounds.states, taken, turn, length)
        last, rows = rounds.finish(*step)
        placed = []
        for row, axis, back in zip(rows, self.out_axes, self.out_backward, strict=True):
            to = axis_of(axis, row.type.rank)
            ordered = flipped(c, row) if back else row
            behind = range(to + 1, row.type.rank)
            placed.append(c.transpose(ordered, [*range(1, to + 1), 0, *behind]))
        return [*last, *placed]

    def _round(
        self, c: Context, run: Run, states: Sequence[Value],
        along: Sequence[tuple[Value, int, int]], turn: Dim, length: Dim,
    ) -> tuple[list[Value], list[Value]]:  # fmt: skip
        """The next states, and what is stacked."""
        items = [item(c, x, length - 1 - turn if back else turn, a) for x, a, back in along]
        results = [present(e) for e in run([*states, *items])]
        return results[: len(states)], results[len(states) :]


def scan(
    c: Context, node: Node, inputs: Sequence[Value | None], open_graph: Open
) -> Sequence[Value]:
    """The last states, and what each round gave; up to opset 8 by element of a batch."""
    body, nested = node["body"], open_graph(node["body"])
    if node.opset < 9:
        supported(inputs[0] is None, "sequence_lens of a Scan is not supported")
        inputs = inputs[1:]
    given, count = [present(v) for v in inputs], node["num_scan_inputs"]
    valid(0 < count <= len(given), f"num_scan_inputs is {count}")
    states, sequences = given[: len(given) - count], given[len(given) - count :]
    valid(len(body.input) == len(given), f"its body has {len(body.input)} inputs")
    valid(len(body.output) >= len(states), f"its body has {len(body.output)} outputs")
    outputs = len(body.output) - len(states)
    backward = node["scan_input_directions"] or node["directions"] or [0] * count
    how = Sequences(
        nested,
        node["scan_input_axes"] or [0] * count,
        backward,
        node["scan_output_axes"] or [0] * outputs,
        node["scan_output_directions"] or [0] * outputs,
    )
    valid(len(how.axes) == len(how.backward) == count, "an axis and direction for each input")
    valid(len(how.out_axes) == len(how.out_backward) == outputs, "one for each output")
    if node.opset >= 9:
        return how.scan(c, states, sequences)
    batch = fixed(given[0].type.shape[0], "the batch of a Scan")
    supported(batch > 0, "an empty batch of a Scan is not supported")
    valid(all(v.type.rank > 0 and v.type.shape[0] == batch for v in given), "its batches differ")
    single = [
        how.scan(c, [item(c, v, b) for v in states], [item(c, v, b) for v in sequences])
        for b in range(batch)
    ]
    return [stacked(c, column) for column in zip(*single, strict=True)]


CONTROL: Mapping[str, Control] = {"If": branch, "Loop": loop, "Scan": scan}
