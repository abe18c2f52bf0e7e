"""Spare the copies of next states that can be computed where the old ones lie.

A step that reads the old state may write over it as it goes: where it reads only the element that
it writes (sums, gates of recurrent layers), a scatter, and where one part moves elements to lower
addresses (frames that shift), since loops ascend.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

from tbc import ops
from tbc.dims import Dim
from tbc.indices import Index, touched
from tbc.ir import Graph, Value
from tbc.passes.fuse import ANCHORS, WHOLE
from tbc.passes.phases import last_use
from tbc.pieces import pieces
from tbc.program import Alone, Step, inside, loop_index, strides

Phases: TypeAlias = tuple[tuple[Step, ...], ...]


def behind_readers(graph: Graph, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The steps, those that make next states behind all that read the old ones, where they may be.

    They may if nothing up to there reads what they make.
    """
    order = list(steps)
    for state in graph.states:
        makers = [n for n, s in enumerate(order) if s.copy_to is None and state.next in s.results]
        readers = [n for n, s in enumerate(order) if state.old in s.reads and s.copy_to is None]
        if makers and readers and makers[0] < readers[-1]:
            (start, *_), end = makers, readers[-1]
            made = set(order[start].results)
            if all(made.isdisjoint(s.reads) for s in order[start + 1 : end + 1]):
                order.insert(end, order.pop(start))
    return tuple(order)


def without_copies(
    graph: Graph, phases: Phases, has_threads: bool
) -> tuple[Phases, dict[Value, Value]]:
    """The phases without the copies that are not needed; where next states then lie.

    A next state lies where the old one does if its step runs when nobody else reads that any more,
    and reads of it no element that it has overwritten already. That place is given as the value
    that was there before. Where no threads share phases, one part does such a step.
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
        by_one = isinstance(step.division, Alone) or not has_threads
        if state.old not in step.reads or _is_safe(step, state.old, by_one):
            found[state.next] = state.old
    kept = (_kept(phase, found, has_threads) for phase in phases)
    return tuple(filter(None, kept)), found


def _kept(
    phase: tuple[Step, ...], found: dict[Value, Value], has_threads: bool
) -> tuple[Step, ...]:
    """The steps of a phase that are still needed, told whether they run in place."""
    kept = [s for s in phase if s.copy_to is None or found.get(s.root) is not s.copy_to]
    for number, step in enumerate(kept):
        if step.copy_to is None and found.get(step.root) in step.reads:
            division = step.division if has_threads else Alone(0)
            kept[number] = replace(step, in_place=True, division=division)
    return tuple(kept)


def _is_safe(step: Step, old: Value, by_one: bool) -> bool:
    """Whether a step reads of a state no element that it has overwritten already.

    `by_one` says that one part does it.
    """
    if isinstance(step.root.op, ops.SCATTERS):
        users = [v for v in inside(step) for arg in v.args if arg is old]
        return step.root.args[0] is old and len(users) == 1
    if isinstance(step.anchor.op, (*ANCHORS, *WHOLE)):
        return False
    if any(isinstance(v.op, ops.GATHERS) for v in inside(step)):
        return False
    for number, (domain, place, source) in enumerate(pieces(step)):
        loops = loop_index(domain)
        where = _address(old, place(loops))
        reads = [at for v, at in touched(step.reads, *source(loops)) if v is old]
        ahead = {_address(old, at) - where for at in reads}
        if ahead - {0}:
            # What a piece stores, those behind it must not read.
            moves_down = all(isinstance(d, int) and d > 0 for d in ahead - {0})
            if not (by_one and number == 0 and moves_down):
                return False
    return True


def _address(state: Value, index: Index) -> Dim:
    """The element of a state at an index, by its number in memory."""
    steps = strides(state.type.shape, tuple(range(state.type.rank)))
    return sum((i * s for i, s in zip(index, steps, strict=True)), start=0)
