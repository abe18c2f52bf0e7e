"""Branches: what is needed only where a condition, one bool that is data, chooses it."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import TypeAlias

from tbc import ops
from tbc.ir import Value
from tbc.program import Guard, Step

Need: TypeAlias = frozenset[Guard]
"""Conditions that all hold wherever a value is needed; none of a value that always is."""
ALWAYS: Need = frozenset()


def needs(
    values: Sequence[Value], results: Iterable[Value], is_leaf: Callable[[Value], bool]
) -> dict[Value, Need]:
    """When each of the values is needed; they come after their arguments."""
    found: dict[Value, Need] = dict.fromkeys(results, ALWAYS)
    for value in reversed(values):
        if is_leaf(value):
            continue
        for arg, chosen in _choices(value):
            need = found[value] | chosen
            found[arg] = found[arg] & need if arg in found else need
    return found


def _choices(value: Value) -> Iterator[tuple[Value, Need]]:
    """The arguments, each with the condition under which the value depends on it."""
    if is_choice(value):
        condition, a, b = value.args
        yield condition, ALWAYS
        yield a, frozenset({_guard(condition, True)})
        yield b, frozenset({_guard(condition, False)})
    elif value.op == ops.Binary("and") and value.type.size == 1 and not value.args[0].is_constant:
        condition, check = value.args
        yield condition, ALWAYS
        yield check, frozenset({_guard(condition, True)})
    else:
        for arg in value.args:
            yield arg, ALWAYS


def is_choice(value: Value) -> bool:
    """Whether a value is one of two as a whole, by a condition that is data."""
    if not isinstance(value.op, ops.Where):
        return False
    return value.args[0].type.size == 1 and not value.args[0].is_constant


def _guard(condition: Value, holds: bool) -> Guard:
    """The guard on a condition in memory."""
    while isinstance(condition.op, ops.Reshape) or condition.op == ops.Unary("not"):
        holds ^= isinstance(condition.op, ops.Unary)
        condition = condition.args[0]
    return condition, holds


def guarded(
    steps: Iterable[Step], need: Mapping[Value, Need], in_memory: Callable[[Value], bool]
) -> list[Step]:
    """The steps, each skipped where nothing that it stores is needed, in an order that allows it.

    Conditions in memory are tested, one that is itself computed under conditions after these.
    """
    result = []
    for step in steps:
        if step.copy_to is None:
            common = reduce(frozenset.__and__, (need[v] for v in step.results))
            tested = (g for g in common if in_memory(g[0]))
            order = sorted(tested, key=lambda g: (len(need[g[0]]), g[0].number, g[1]))
            reads = dict.fromkeys((*step.reads, *(c for c, _ in order)))
            step = replace(step, reads=tuple(reads), guards=tuple(order))
        result.append(step)
    return _in_order(result)


def _in_order(steps: Sequence[Step]) -> list[Step]:
    """The steps, each as early as its place in the sequence and what it reads allow."""
    maker = {v: i for i, s in enumerate(steps) if s.copy_to is None for v in s.results}
    waits = [{maker[v] for v in s.reads if v in maker} for s in steps]
    users: list[list[int]] = [[] for _ in steps]
    for number, before in enumerate(waits):
        for other in before:
            users[other].append(number)
    ready = [n for n, before in enumerate(waits) if not before]
    order = []
    while ready:
        number = heapq.heappop(ready)
        order.append(steps[number])
        for user in users[number]:
            waits[user].discard(number)
            if not waits[user]:
                heapq.heappush(ready, user)
    assert len(order) == len(steps), "steps wait for each other"
    return order


def heavy(
    values: Sequence[Value], need: Mapping[Value, Need], is_work: Callable[[Value], bool]
) -> set[Value]:
    """The values behind which there is work that is needed only where they are."""
    found: set[Value] = set()
    for value in values:
        own = (a for a in value.args if need.get(a, ALWAYS) >= need[value])
        if is_work(value) or any(a in found for a in own):
            found.add(value)
    return found
