"""Scan: a loop of the IR over sequences, or its rounds written out where that tells more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tbc.dims import Dim
from tbc.frontend.context import Context, axis_of, fixed, supported, valid
from tbc.frontend.control import Given, Nested, Open, Run, present, restored, without_constants
from tbc.frontend.loops import either
from tbc.frontend.nodes import Node
from tbc.frontend.rounds import SHORT, Rounds, flipped, item, stacked
from tbc.ir import Value
from tbc.ops import require_equal


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
        if not isinstance(length, int):
            return self._counted(c, states, along, length)
        supported(length > 0, "a Scan of length 0 is not supported")

        def short() -> list[Value]:
            return either(
                c,
                lambda: self._written_out(c, states, along, length),
                lambda: self._counted(c, states, along, length),
            )

        if length <= SHORT:
            return short()
        return either(c, lambda: self._counted(c, states, along, length, by_need=True), short)

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
        length: Dim, by_need: bool = False,
    ) -> list[Value]:  # fmt: skip
        rounds = Rounds(c, states, length, by_need)
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


def scan(c: Context, node: Node, inputs: Sequence[Given], open_graph: Open) -> Sequence[Given]:
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
    kept: Mapping[int, Given] = {}
    if node.opset >= 9:
        nested, kept = without_constants(nested, states, 0, 0)
        states = [v for i, v in enumerate(states) if i not in kept]
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
        return restored(how.scan(c, states, sequences), kept)
    batch = fixed(given[0].type.shape[0], "the batch of a Scan")
    supported(batch > 0, "an empty batch of a Scan is not supported")
    valid(all(v.type.rank > 0 and v.type.shape[0] == batch for v in given), "its batches differ")
    single = [
        how.scan(c, [item(c, v, b) for v in states], [item(c, v, b) for v in sequences])
        for b in range(batch)
    ]
    return [stacked(c, column) for column in zip(*single, strict=True)]
