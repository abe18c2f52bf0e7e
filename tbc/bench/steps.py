"""Where a compiled model spends its time: step by step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tbc.bench.layers import Layer
from tbc.bench.report import Case, Row
from tbc.bench.timing import CLOCK, Call, quartiles
from tbc.program import Step


def profile(name: str, layer: Layer, rounds: int) -> Case:
    """The steps of a layer without `merge` that has been fed, by their time, the longest first.

    A step's time holds the call of it, about a microsecond.
    """
    steps = layer.steps()
    times = in_order([call for _, call in steps], rounds)
    found = [quartiles(seconds) for seconds in times]
    total = sum(q.median for q in found)
    rows = [
        Row("step", described(step), q.median * 1e6, q.lower * 1e6, q.upper * 1e6,
            share=q.median / total)
        for (step, _), q in zip(steps, found, strict=True)
    ]  # fmt: skip
    return Case(f"{name}, step by step", "hot", tuple(sorted(rows, key=lambda r: -r.median_us)))


def in_order(calls: Sequence[Call], rounds: int) -> list[list[float]]:
    """Seconds of each call, `rounds` times, where all are done one after the other."""
    seconds = np.empty((rounds, len(calls)))
    for times in seconds:
        for number, call in enumerate(calls):
            start = CLOCK()
            call()
            times[number] = CLOCK() - start
    return [list(column) for column in seconds.T]


def described(step: Step) -> str:
    """What a step does, of what, and which node of the model it comes from."""
    arguments = ", ".join(str(value.type) for value in step.anchor.args)
    return f"{step.anchor.op} of {arguments} to {step.root.type}, {step.anchor.origin}"
