"""Loops whose body is a graph."""

from __future__ import annotations

from dataclasses import dataclass, field

from tbc.dims import Dim, Symbol, symbols_of
from tbc.ir import Graph
from tbc.ops.checks import require, require_same
from tbc.types import DType, TensorType


@dataclass(frozen=True)
class Repeat:
    """One result of a loop, each round of which computes a body.

    The body's inputs are the states, then what all rounds see alike; its outputs are the next
    states, then rows, which the loop stacks along a new first axis. In round t the symbol `index`
    is t; its bound is how many rounds there are, and without an index nothing bounds them. If the
    loop is `conditional`, its first state is a bool scalar, and no round begins where it is False.

    Values that differ only in `which` are results of one loop: the last states, the rows, and last
    whether a check of the body was True in some round.
    """

    body: Graph = field(repr=False)
    states: int
    index: Symbol | None
    conditional: bool = False
    which: int = 0

    @property
    def trip(self) -> Dim | None:
        """How many rounds there are, or are at most; None where nothing bounds them."""
        return None if self.index is None else self.index.below

    @property
    def rows(self) -> int:
        """How many results are rows."""
        return len(self.body.outputs) - self.states

    @property
    def is_state(self) -> bool:
        """Whether the result is a state."""
        return self.which < self.states

    @property
    def is_check(self) -> bool:
        """Whether the result is that of the checks."""
        return self.which == len(self.body.outputs)

    def infer(self, *args: TensorType) -> TensorType:
        """The type of the state, of the stacked rows, or a bool scalar."""
        inputs = [v.type for v in self.body.inputs]
        outputs = [v.type for _, v in self.body.outputs]
        fits = 0 <= self.states <= min(len(inputs), len(outputs))
        require(fits and len(inputs) == len(args), f"a loop of {len(args)} arguments")
        pairs = [
            *zip(inputs, args, strict=True),
            *zip(inputs[: self.states], outputs, strict=False),
        ]
        for formal, given in pairs:
            require_same(formal, given, "an argument or a state of a loop")
        if self.index is None:
            require(self.conditional, "a loop that nothing ends")
        else:
            require(self.index.below is not None, "a loop's index has no bound")
        if self.conditional:
            flag = TensorType(DType.bool)
            require(self.states > 0 and inputs[0] == flag, "a loop's condition is its first state")
            require(not self.rows, "the number of rows depends on a condition")
        inner = {self.index} - {None}
        free = (s for t in outputs for d in t.shape for s in symbols_of(d))
        require(inner.isdisjoint(free), "the shape of a row changes from round to round")
        require(0 <= self.which <= len(outputs), f"a loop has no result {self.which}")
        if self.is_check:
            return TensorType(DType.bool)
        result = outputs[self.which]
        if self.is_state or self.trip is None:
            return result
        return TensorType(result.dtype, (self.trip, *result.shape))
