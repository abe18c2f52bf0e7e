"""Spare the copies of next states that can be computed where the old ones lie."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

from tbc import ops
from tbc.indices import touched
from tbc.ir import Graph, Value
from tbc.passes.fuse import ANCHORS, WHOLE
from tbc.passes.phases import last_use
from tbc.pieces import pieces
from tbc.program import Step, inside, loop_index

Phases: TypeAlias = tuple[tuple[Step, ...], ...]


def without_copies(graph: Graph, phases: Phases) -> tuple[Phases, dict[Value, Value]]:
    """The phases without the copies that are not needed; where next states then lie.

    A next state lies where the old one does if its step runs when nobody else reads that any more,
    and reads of it no element that it has overwritten already. That place is given as the value
    that was there before.
    """
    outputs = {v for _, v in graph.outputs}
    makers = {
        r: (n, step)
        for n, phase in enumerate(phases)
        for step in phase
        if step.copy_to is None
        for r in step.results
    }
    found: dict[Value, Value] = {}
    for state in graph.states:
        if state.next not in makers or state.next in outputs or state.next in found:
            continue
        number, step = makers[state.next]
        if step.guards or last_use(phases, state.old, graph.checks, step) >= number:
            continue
        if state.old not in step.reads or _is_safe(step, state.old):
            found[state.next] = state.old
    return tuple(filter(None, (_kept(phase, found) for phase in phases))), found


def _kept(phase: tuple[Step, ...], found: dict[Value, Value]) -> tuple[Step, ...]:
    """The steps of a phase that are still needed, told whether they run in place."""
    return tuple(
        replace(step, in_place=True) if _is_in_place(step, found) else step
        for step in phase
        if step.copy_to is None or found.get(step.root) is not step.copy_to
    )


def _is_in_place(step: Step, found: dict[Value, Value]) -> bool:
    return step.copy_to is None and found.get(step.root) in step.reads


def _is_safe(step: Step, old: Value) -> bool:
    """Whether a step reads of a state only the element that it is about to overwrite."""
    if isinstance(step.root.op, ops.SCATTERS):
        users = [v for v in inside(step) for arg in v.args if arg is old]
        return step.root.args[0] is old and len(users) == 1
    if isinstance(step.anchor.op, (*ANCHORS, *WHOLE)):
        return False
    if any(isinstance(v.op, ops.GATHERS) for v in inside(step)):
        return False
    for domain, place, source in pieces(step):
        loops = loop_index(domain)
        where = place(loops)
        if any(v is old and at != where for v, at in touched(step.reads, *source(loops))):
            return False
    return True
