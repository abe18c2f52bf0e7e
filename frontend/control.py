"""If, Loop and Scan: branches chosen or selected, rounds written out one behind the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import onnx

from tbc.dims import Dim
from tbc.errors import TbcError, Unsupported
from tbc.frontend.context import Context, axis_of, fixed, numpy_scalar, supported, valid
from tbc.frontend.nodes import Node
from tbc.frontend.ops_index import part
from tbc.ir import Value
from tbc.ops import Concat, require_equal
from tbc.types import DType


@dataclass(frozen=True)
class Absent:
    """Stands for a value that tbc cannot make; it matters only where it is used."""

    error: Unsupported


Entry: TypeAlias = Value | Absent | None
"""What a name stands for; None where an optional input of a function was not given."""
Run: TypeAlias = Callable[[Sequence[Value]], "list[Entry]"]
"""The outputs of a nested graph for values of its inputs."""
Open: TypeAlias = Callable[[onnx.GraphProto], Run]
Control: TypeAlias = Callable[[Context, Node, Sequence["Value | None"], Open], "Sequence[Entry]"]


class Mismatch(Exception):
    """Sizes that must be equal are not known to be, at a node."""

    def __init__(self, a: Dim, b: Dim, error: TbcError):
        super().__init__(str(error))
        self.a, self.b, self.error = a, b, error


def present(entry: Entry) -> Value:
    """The value.

    Raises:
        Unsupported: tbc cannot make it.
    """
    if isinstance(entry, Absent):
        raise entry.error
    valid(entry is not None, "a nested graph gives nothing where a value is needed")
    assert entry is not None
    return entry


# -- branches -------------------------------------------------------------------------------------


def branch(
    c: Context, node: Node, inputs: Sequence[Value | None], open_graph: Open
) -> Sequence[Entry]:
    """The outputs of the branch that the condition chooses, at import if it is known then."""
    condition = inputs[0]
    assert condition is not None
    known = c.known.array(condition)
    if known is not None and known.dtype != object:
        return open_graph(node["then_branch" if known.any() else "else_branch"])([])
    valid(condition.type.dtype is DType.bool, f"the condition is of type {condition.type}")
    condition = c.reshape(condition, ())
    yes = _guarded(c, condition, open_graph(node["then_branch"]))
    no = _guarded(c, c.unary("not", condition), open_graph(node["else_branch"]))
    valid(len(yes) == len(no), "its branches differ in the number of outputs")
    return [_selected(c, condition, a, b) for a, b in zip(yes, no, strict=True)]


def _guarded(c: Context, condition: Value, run: Run) -> list[Entry]:
    """The outputs of a branch, whose checks count only where it is taken."""
    before = len(c.checks)
    try:
        entries = run([])
    except Mismatch as mismatch:
        raise Unsupported(
            f"in a branch that data decides on, {mismatch.error.reason}",
            hint="fix the symbolic sizes",
        ) from None
    c.checks[before:] = [c.binary("and", condition, check) for check in c.checks[before:]]
    return entries


def _selected(c: Context, condition: Value, yes: Entry, no: Entry) -> Entry:
    if isinstance(yes, Absent) or isinstance(no, Absent):
        return yes if isinstance(yes, Absent) else no
    a, b = present(yes), present(no)
    if a.type != b.type:
        return Absent(
            Unsupported(
                f"the condition depends on the data of an input, and its branches give {a.type} "
                f"and {b.type}",
                hint="make the condition a constant of the model, or compute it from shapes only",
            )
        )
    return a if a is b else c.where(condition, a, b)


# -- loops ----------------------------------------------------------------------------------------


def stacked(c: Context, items: Sequence[Value], axis: int = 0) -> Value:
    """The items along a new axis."""
    first = items[0].type.shape
    at = axis_of(axis, len(first) + 1)
    single = [*first[:at], 1, *first[at:]]
    return c(Concat(at), *(c.reshape(x, single) for x in items))


def item(c: Context, x: Value, index: int, axis: int = 0) -> Value:
    """x at an index of an axis, without that axis."""
    shape = list(x.type.shape)
    rest = shape[:axis] + shape[axis + 1 :]
    shape[axis] = 1
    starts = [index if a == axis else 0 for a in range(x.type.rank)]
    return c.reshape(part(c, x, starts, shape, [1] * x.type.rank), rest)


def _condition(c: Context, value: Value) -> bool:
    known = c.known.array(value)
    supported(
        known is not None and known.dtype != object,
        "how often a loop runs depends on the data or on a symbolic size of an input",
        "fix the symbolic sizes, or the inputs' values",
    )
    return bool(numpy_scalar(known))  # type: ignore[arg-type]


def loop(
    c: Context, node: Node, inputs: Sequence[Value | None], open_graph: Open
) -> Sequence[Entry]:
    """The last carried values, and what each round gave, stacked."""
    body, run = node["body"], open_graph(node["body"])
    most, condition, *initial = inputs
    trips = None
    if most is not None:
        trips = max(int(numpy_scalar(c.numbers(most, "how often a loop runs"))), 0)
    going = True if condition is None else _condition(c, condition)
    carried = [present(v) for v in initial]
    count = len(carried)
    valid(len(body.input) == count + 2, f"its body has {len(body.input)} inputs")
    valid(len(body.output) >= count + 1, f"its body has {len(body.output)} outputs")
    rows: list[list[Value]] = [[] for _ in body.output[count + 1 :]]
    turn, yes = 0, c.constant(True, DType.bool)
    while going and (trips is None or turn < trips):
        c.spend(len(body.node) + 1, "its rounds")
        again, *results = map(present, run([c.constant(turn, DType.i64), yes, *carried]))
        carried, turn = results[:count], turn + 1
        for row, value in zip(rows, results[count:], strict=True):
            row.append(value)
        going = turn == trips or _condition(c, again)
    if turn == 0 and rows:
        return [*carried, *_no_rounds(c, lambda: run([c.constant(0, DType.i64), yes, *carried]),
                                      count + 1)]  # fmt: skip
    return [*carried, *(stacked(c, row) for row in rows)]


def _no_rounds(c: Context, run: Callable[[], list[Entry]], skip: int) -> list[Value]:
    """Empty stacks of what a round would give."""
    before = len(c.checks)
    values = [present(e) for e in run()[skip:]]
    del c.checks[before:]
    return [c.broadcast(c.constant(0, v.type.dtype), [0, *v.type.shape]) for v in values]


@dataclass(frozen=True)
class Sequences:
    """How a Scan goes through its inputs, and where it puts its outputs."""

    axes: Sequence[int]
    backward: Sequence[int]
    out_axes: Sequence[int]
    out_backward: Sequence[int]

    def scan(
        self, c: Context, body: onnx.GraphProto, run: Run, states: Sequence[Value],
        inputs: Sequence[Value],
    ) -> list[Value]:  # fmt: skip
        """The last states, and the outputs of all rounds."""
        axes = [axis_of(a, x.type.rank) for a, x in zip(self.axes, inputs, strict=True)]
        sizes = [x.type.shape[a] for a, x in zip(axes, inputs, strict=True)]
        for size in sizes:
            require_equal(size, sizes[0], "the lengths of its inputs")
        length = fixed(sizes[0], "the length of a Scan")
        supported(length > 0, "a Scan of length 0 is not supported")
        rows: list[list[Value]] = [[] for _ in body.output[len(states) :]]
        for turn in range(length):
            c.spend(len(body.node) + 1, "its rounds")
            items = [
                item(c, x, length - 1 - turn if back else turn, a)
                for x, a, back in zip(inputs, axes, self.backward, strict=True)
            ]
            results = [present(e) for e in run([*states, *items])]
            states = results[: len(states)]
            for row, value in zip(rows, results[len(states) :], strict=True):
                row.append(value)
        placed = zip(rows, self.out_axes, self.out_backward, strict=True)
        return [*states, *(stacked(c, row[::-1] if back else row, a) for row, a, back in placed)]


def scan(
    c: Context, node: Node, inputs: Sequence[Value | None], open_graph: Open
) -> Sequence[Entry]:
    """The last states, and what each round gave; up to opset 8 by element of a batch."""
    body, run = node["body"], open_graph(node["body"])
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
        node["scan_input_axes"] or [0] * count,
        backward,
        node["scan_output_axes"] or [0] * outputs,
        node["scan_output_directions"] or [0] * outputs,
    )
    valid(len(how.axes) == len(how.backward) == count, "an axis and direction for each input")
    valid(len(how.out_axes) == len(how.out_backward) == outputs, "one for each output")
    if node.opset >= 9:
        return how.scan(c, body, run, states, sequences)
    batch = fixed(given[0].type.shape[0], "the batch of a Scan")
    supported(batch > 0, "an empty batch of a Scan is not supported")
    valid(all(v.type.rank > 0 and v.type.shape[0] == batch for v in given), "its batches differ")
    single = [
        how.scan(c, body, run, [item(c, v, b) for v in states], [item(c, v, b) for v in sequences])
        for b in range(batch)
    ]
    return [stacked(c, column) for column in zip(*single, strict=True)]


CONTROL: Mapping[str, Control] = {"If": branch, "Loop": loop, "Scan": scan}
