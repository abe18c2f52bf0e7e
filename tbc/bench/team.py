"""Threads that run a model together, again and again, as a pool in C would let them.

To wake a thread of Python takes as long as a decoder's layer. So a call of the bench is many runs:
each thread stays in native code for all of them, and between two runs all of them meet. They look
for each other without yielding, so that the time is that of threads with a core each.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from itertools import repeat

from tbc.bench.dots import load
from tbc.bench.limits import LINE
from tbc.bench.memory import Room
from tbc.bench.timing import WALL, Call, shortest
from tbc.codegen.llvm_text import Function, Module, const
from tbc.codegen.machine import Workers
from tbc.codegen.waiting import emit_wait
from tbc.runtime import Pool, structs
from tbc.target import Target

LEAST = 3e-3
"""Seconds that the runs of a call take at least, of which waking the threads is little then."""

_KINDS = (*[ctypes.c_void_p] * 2, *[ctypes.c_uint32] * 3, ctypes.c_void_p)


def _emit(module: Module, target: Target) -> None:
    """`i32 together(run_part, calls, count, part, parts, sync)`: a part of each call, in order."""
    emit_wait(module, "meet", target)
    pointers, numbers = ("run_part", "calls"), ("count", "part", "parts")
    args = [*(("ptr", p) for p in pointers), *(("i32", n) for n in numbers), ("ptr", "sync")]
    f = Function(module, "together", args, "i32", linkage="")
    run_part, calls, count, part, parts, sync = f.args
    zero = const("i32", 0)
    with f.loop(zero, count, carried=[parts, zero]) as loop:
        goal, status = loop.carried
        call = f.load("ptr", f.offset(calls, loop.index, "ptr"), target.index_bits // 8)
        new = f.emit("i32", f"call i32 {run_part.text}({call}, {part}, {parts})")
        f.call("void", "meet", sync, goal)
        loop.yield_(f.op("add", goal, parts), f.op("or", status, new))
    f.do(f"ret {loop.results[1]}")
    f.finish()


class Team:
    """Some threads.

    Attributes:
        threads: how many.
    """

    def __init__(self, threads: int, target: Target):
        self.threads = threads
        module = Module(target.triple)
        _emit(module, target)
        with Workers(1) as workers:
            self._code = load(module, target, workers, ("together",))
        function = ctypes.CFUNCTYPE(ctypes.c_int32, *_KINDS)
        self._together = function(self._code.address("together"))
        self._pool = Pool(threads, 0)
        self._syncs = Room(2 * LINE)
        self._within, self._between = (
            structs.Sync.from_address(self._syncs.address + at) for at in (0, LINE)
        )

    def count(self, run_part: int, call: structs.Call) -> int:
        """How many runs a call of the bench should be."""
        single = shortest(repeat(self.call(run_part, [call])), WALL)
        return max(1, round(LEAST / single))

    def call(self, run_part: int, calls: Sequence[structs.Call]) -> Call:
        """Runs of a model's `run_part`, one behind the other, each by all threads."""
        for call in calls:
            call.sync = ctypes.pointer(self._within)
        table = (ctypes.c_void_p * len(calls))(*map(ctypes.addressof, calls))
        meeting = self._between

        def part_of(_: object, part: int, parts: int) -> int:
            where = ctypes.addressof(meeting)
            return int(self._together(run_part, table, len(calls), part, parts, where))

        def run() -> None:
            meeting.arrived = 0
            status = self._pool.run(part_of, None, calls)
            assert status == structs.OK

        return run
