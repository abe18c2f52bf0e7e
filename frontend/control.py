"""Nested graphs, and If: a branch chosen at import, or selected by data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import onnx

from tbc.dims import Dim
from tbc.errors import InvalidModel, TbcError, Unsupported
from tbc.frontend.context import Context, Items, T, valid
from tbc.frontend.nodes import Node, op_of
from tbc.frontend.rounds import Rounds
from tbc.ir import Value
from tbc.types import DType


@dataclass(frozen=True)
class Absent:
    """Stands for a value that tbc cannot make; it matters only where it is used."""

    error: Unsupported


Entry: TypeAlias = Value | Items | Absent | None
"""What a name stands for; None where an optional input of a function was not given."""
Given: TypeAlias = Value | Items | None
"""An input of a node."""
Run: TypeAlias = Callable[[Sequence[Given]], "list[Entry]"]
"""The outputs of a nested graph for values of its inputs."""


@dataclass(frozen=True)
class Nested:
    """A nested graph.

    Attributes:
        proto: as it stands in the model.
        run: its values become values of the graph around it.
        inside: the `Run` that makes them values of a loop's body instead.
    """

    proto: onnx.GraphProto
    run: Run
    inside: Callable[[Rounds], Run]


Open: TypeAlias = Callable[[onnx.GraphProto], Nested]
Control: TypeAlias = Callable[[Context, Node, Sequence[Given], Open], "Sequence[Entry]"]


class Mismatch(Exception):
    """Sizes that must be equal are not known to be, at a node."""

    def __init__(self, a: Dim, b: Dim, error: TbcError):
        super().__init__(str(error))
        self.a, self.b, self.error = a, b, error


def given(entry: Entry) -> Given:
    """What a node is given; raises Unsupported where tbc cannot make it."""
    if isinstance(entry, Absent):
        raise entry.error
    return entry


def present(entry: Entry) -> Value:
    """The value.

    Raises:
        Unsupported: tbc cannot make it, or it is a sequence.
    """
    value = given(entry)
    if isinstance(value, tuple):
        raise Unsupported("a sequence of tensors is not supported here")
    valid(value is not None, "a nested graph gives nothing where a value is needed")
    assert value is not None
    return value


def without_constants(
    nested: Nested, initial: Sequence[Given], inputs: int, outputs: int
) -> tuple[Nested, Mapping[int, Given]]:
    """A loop's body without the states that all rounds pass on as they are, and these by place.

    Exporters whose loops see nothing from outside hand weights and sequences from round to round.

    Args:
        initial: what the states begin with.
        inputs: how many inputs of the body come before the states.
        outputs: how many of its outputs do.
    """
    body = nested.proto
    sources = {n.output[0]: n.input[0] for n in body.node if op_of(n) == "Identity"}
    kept: dict[int, Given] = {}
    for i, value in enumerate(initial):
        name = body.output[outputs + i].name
        while name in sources:
            name = sources[name]
        if name == body.input[inputs + i].name:
            kept[i] = value
    if not kept:
        return nested, kept

    def filled(run: Run, take: Callable[[Value], Value]) -> Run:
        def run_all(values: Sequence[Given]) -> list[Entry]:
            rest = iter(values[inputs:])
            states = [
                each_by(take, kept[i]) if i in kept else next(rest) for i in range(len(initial))
            ]
            entries = run([*values[:inputs], *states, *rest])
            return [e for i, e in enumerate(entries, -outputs) if i not in kept]

        return run_all

    return Nested(
        body,
        filled(nested.run, lambda value: value),
        lambda rounds: filled(nested.inside(rounds), rounds.take),
    ), kept


def each_by(take: Callable[[Value], Value], entry: T) -> T | Value | Items:
    """What `take` makes of a value, or of each item of a sequence; the rest as it is."""
    if isinstance(entry, tuple):
        return tuple(map(take, entry))
    return take(entry) if isinstance(entry, Value) else entry


def restored(results: Sequence[Given], kept: Mapping[int, Given]) -> list[Given]:
    """A loop's results with the states in their places that `without_constants` left out."""
    whole = list(results)
    for i in sorted(kept):
        whole.insert(i, kept[i])
    return whole


# -- branches -------------------------------------------------------------------------------------


def branch(c: Context, node: Node, inputs: Sequence[Given], open_graph: Open) -> Sequence[Entry]:
    """The outputs of the branch that the condition chooses, at import if it is known then."""
    condition = present(inputs[0])
    known = c.known.array(condition)
    if known is not None and known.dtype != object:
        return open_graph(node["then_branch" if known.any() else "else_branch"]).run([])
    valid(condition.type.dtype is DType.bool, f"the condition is of type {condition.type}")
    condition = c.reshape(condition, ())
    taken, other = condition, c.unary("not", condition)
    yes = _guarded(c, taken, open_graph(node["then_branch"]).run)
    no = _guarded(c, other, open_graph(node["else_branch"]).run)
    if isinstance(yes, InvalidModel):
        if isinstance(no, InvalidModel):
            raise yes
        return _impossible(c, taken, yes, no)
    if isinstance(no, InvalidModel):
        return _impossible(c, other, no, yes)
    valid(len(yes) == len(no), "its branches differ in the number of outputs")
    return [_selected(c, condition, a, b) for a, b in zip(yes, no, strict=True)]


def _impossible(
    c: Context, condition: Value, error: InvalidModel, entries: list[Entry]
) -> list[Entry]:
    """What the other branch gives; that the wrong one is to be taken is an error of the call.

    Models hold branches for other sizes of an input than those that they are compiled for.
    """
    c.checks.append(condition)
    c.warnings.append(
        f"a branch cannot run with these inputs, and a call must not take it: {error}"
    )
    return entries


def _guarded(c: Context, condition: Value, run: Run) -> list[Entry] | InvalidModel:
    """The outputs of a branch, whose checks count only where it is taken; or why it cannot run."""
    before = len(c.checks)
    try:
        entries = run([])
    except InvalidModel as error:
        del c.checks[before:]
        return error
    except Mismatch as mismatch:
        if isinstance(mismatch.error, InvalidModel):
            del c.checks[before:]
            return mismatch.error
        raise Unsupported(
            f"in a branch that data decides on, {mismatch.error.reason}",
            hint="fix the symbolic sizes",
        ) from None
    c.checks[before:] = [c.binary("and", condition, check) for check in c.checks[before:]]
    return entries


def _selected(c: Context, condition: Value, yes: Entry, no: Entry) -> Entry:
    if isinstance(yes, Absent) or isinstance(no, Absent):
        return yes if isinstance(yes, Absent) else no
    if isinstance(yes, tuple) and isinstance(no, tuple) and len(yes) == len(no):
        return tuple(present(_selected(c, condition, a, b)) for a, b in zip(yes, no, strict=True))
    if isinstance(yes, tuple) or isinstance(no, tuple):
        reason = "the condition depends on the data of an input, and its branches give sequences"
        return Absent(Unsupported(f"{reason} of other lengths"))
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
