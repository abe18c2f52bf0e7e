"""Codes that a model rounds to one side here and to the other elsewhere.

Where a model rounds inside, a tiny difference before may be a whole step after: a value next to a
tie becomes one code here and its neighbour there. Such flips are told from errors by computing the
graph again with the oracle's codes in place of its own. Then every code must be within a step of
the oracle's, given the oracle's codes before it, few of them may differ, and the outputs agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tbc.differences import difference
from tbc.ir import Graph
from tbc.oracle import Feeds, Oracle
from tbc.reference import bind_symbols, evaluate, run

Array = npt.NDArray[Any]

_FEW = 0.1
"""The part of a node's codes that may be flips (float16 flips 4 % of them); two always may."""


@dataclass(frozen=True)
class Flips:
    """Codes of a node that are a step from the oracle's.

    Attributes:
        node: the node.
        op: its operator.
        count: how many codes differ.
        elements: of how many.
    """

    node: str
    op: str
    count: int
    elements: int

    def __or__(self, other: Flips) -> Flips:
        """Both together, of one node."""
        count, elements = self.count + other.count, self.elements + other.elements
        return replace(self, count=count, elements=elements)


def find_flips(
    oracle: Oracle,
    front: Callable[[Graph], Graph],
    feeds: Feeds,
    wanted: Mapping[str, Array],
    rtol: float,
) -> tuple[Flips, ...] | None:
    """The flips that explain outputs beyond the tolerance; None if flips alone do not.

    Args:
        oracle: whose codes are taken.
        front: the passes up to the graph that the compiled code must equal.
        feeds: the inputs.
        wanted: the oracle's outputs.
        rtol: the tolerance of the outputs.
    """
    graph, results = oracle.results()
    coded = [r for r in results if r.is_discrete]
    codes = oracle.run(feeds, [r.name for r in coded])
    extra = tuple((r.name, r.value) for r in coded)
    count = len(graph.outputs)
    lowered = front(replace(graph, outputs=(*graph.outputs, *extra)))
    outputs, values = lowered.outputs[:count], [v for _, v in lowered.outputs[count:]]
    pairs = [(r, v) for r, v in zip(coded, values, strict=True) if v.args and not v.is_constant]
    known = {v: codes[r.name] for r, v in pairs}
    needed = dict.fromkeys([*(v for _, v in outputs), *(a for v in known for a in v.args)])
    arrays = dict(zip(needed, run(list(needed), feeds, known), strict=True))
    dims = bind_symbols(graph.inputs, feeds)
    found = []
    for result, value in pairs:
        mine, theirs = evaluate(value.op, [arrays[a] for a in value.args], dims), known[value]
        if mine.shape != theirs.shape:
            return None
        differ = int(np.count_nonzero(mine != theirs))
        steps = np.abs(mine.astype(np.float64) - theirs.astype(np.float64))
        if differ and (not steps.max() <= 1 or differ > max(2, _FEW * mine.size)):
            return None
        if differ:
            found.append(Flips(result.node, result.op, differ, mine.size))
    for name, value in outputs:
        if difference(arrays[value], wanted[name], value.type.dtype, rtol).beyond:
            return None
    return tuple(found)
