"""Proves on a compiled plan that the parts of a phase have nothing to do with each other.

Every part of every phase runs by itself, on memory in which all that the phase may not read holds a
pattern, and again with another pattern: a byte that keeps neither is one that the part writes. The
parts must write disjoint bytes, together those that one part would write, and the same values
whatever the pattern is and whether the other parts have run before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
from compiled import Native, RunPhase
from strategies import Array

from tbc.dims import upper
from tbc.program import Buffer, Program, out_buffer

PATTERNS = (0xA5, 0x5A)


@contextmanager
def divided_finely() -> Iterator[None]:
    """Within it no step is too small to be divided, nor are rows too few."""
    with patch.multiple("tbc.passes.phases", SMALL=0, MANY_ROWS=2, FEW_ROWS=2):
        yield


def check_phases(native: Native, feeds: Mapping[str, Array], parts: int) -> int:
    """Assert it for a run on these inputs; the greatest number of parts that shared a phase.

    A run that ends with an error is checked up to the phase that finds it.
    """
    memory, run_phase = native.phase_by_phase(feeds)
    most = 0
    for number in range(len(native.program.phases)):
        before = np.concatenate(memory)
        if run_phase(number, 0, 1):
            break
        phase = _Phase(native.program, number, memory, run_phase, before)
        wrote = [phase.alone(part, parts) for part in range(parts)]
        times = np.sum(wrote, 0)
        assert times.max(initial=0) <= 1, f"phase {number}: two parts write the same byte"
        assert (phase.alone(0, 1) == (times > 0)).all(), f"phase {number}: the parts miss a byte"
        for part, own in enumerate(wrote):
            phase.last(part, parts, own, times > 0)
        phase.set(phase.after)
        most = max(most, sum(bool(w.any()) for w in wrote))
    return most


class _Phase:
    """A phase that has just run in one part, and which bytes of memory it may read."""

    def __init__(
        self,
        program: Program,
        number: int,
        memory: Sequence[Array],
        run_phase: RunPhase,
        before: Array,
    ):
        self.number, self.memory, self.before = number, memory, before
        self.run_phase, self.after = run_phase, np.concatenate(memory)
        self.there = _there(program, number, [m.size for m in memory])

    def set(self, contents: Array) -> None:
        """Put bytes into all memory."""
        start = 0
        for m in self.memory:
            m[...] = contents[start : start + m.size]
            start += m.size

    def alone(self, part: int, parts: int) -> Array:
        """The bytes that a part writes when no other has run."""
        found = []
        for pattern in PATTERNS:
            start = np.where(self.there, self.before, np.uint8(pattern))
            self.set(start)
            assert self.run_phase(self.number, part, parts) == 0
            found.append((np.concatenate(self.memory), start))
        wrote = np.logical_or.reduce([after != start for after, start in found])
        for after, _ in found:
            same = after[wrote] == self.after[wrote]
            assert same.all(), f"phase {self.number}, part {part}: reads what it may not"
        return wrote

    def last(self, part: int, parts: int, own: Array, written: Array) -> None:
        """Assert that a part writes the same when all others have run."""
        by_others = written & ~own
        start = np.where(self.there, self.before, np.uint8(PATTERNS[0]))
        self.set(np.where(by_others, self.after, start))
        assert self.run_phase(self.number, part, parts) == 0
        same = np.concatenate(self.memory)[own] == self.after[own]
        assert same.all(), f"phase {self.number}, part {part}: reads what another part writes"


def _there(program: Program, phase: int, sizes: Sequence[int]) -> Array:
    """Which bytes of all memory that is written hold what a phase, or a later one, may read."""
    there = [np.zeros(size, bool) for size in sizes]
    later = {r for p in program.phases[phase:] for step in p for r in step.reads}
    unchanged = {s.old for s in program.states if s.old is s.next}

    def mark(buffer: Buffer, is_read: bool) -> None:
        if buffer.place == "output":
            there[buffer.index][:] = True
        elif is_read or buffer.place == "state":
            size = int(upper(buffer.type.size)) * buffer.type.dtype.bytes
            memory = {"fast": -3, "arena": -2, "state": -1}[buffer.place]
            there[memory][buffer.offset :][:size] = True

    for old in (s.old for s in program.states if s.old in later | unchanged):
        mark(program.buffers[old], True)
    for step in (step for p in program.phases[:phase] for step in p):
        for result in step.results:
            is_copy = step.copy_to is not None
            buffer = out_buffer(program, step) if is_copy else program.buffers[result]
            mark(buffer, is_copy or result in later or result in program.checks)
    return np.concatenate(there)
