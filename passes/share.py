"""Let steps that differ in their scalar constants only share their code."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from tbc.constants import value_of
from tbc.ir import Value
from tbc.program import Step, outline


def share(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The steps, reading from memory the constants in which they differ from otherwise equal ones.

    So the layers of a network call one kernel each with a scale of its own. A constant that is the
    same in all of them stays part of the code.
    """
    alike: defaultdict[str, list[tuple[int, tuple[Value, ...]]]] = defaultdict(list)
    for number, step in enumerate(steps):
        if step.root.is_constant or step.loop is not None:
            continue  # an output that its step stores; a loop, whose code is that of its body
        what = outline(step)
        alike[what.text].append((number, what.scalars))
    result = list(steps)
    for group in alike.values():
        columns = zip(*(scalars for _, scalars in group), strict=True)
        differing = [i for i, column in enumerate(columns) if len(_elements(column)) > 1]
        for number, scalars in group:
            own = dict.fromkeys(scalars[i] for i in differing)
            result[number] = replace(steps[number], reads=(*steps[number].reads, *own))
    return tuple(result)


def _elements(column: tuple[Value, ...]) -> set[bytes]:
    return {value_of(value).tobytes() for value in column}
