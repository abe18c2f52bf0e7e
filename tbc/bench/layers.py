"""Compiled models as a C program calls them: no arrays are made, and the weights lie anywhere."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import cycle, islice, repeat
from typing import Any

import numpy as np
import numpy.typing as npt

from tbc.api import InProcess
from tbc.bench.memory import Copies, Room
from tbc.bench.team import Team
from tbc.bench.timing import Call
from tbc.codegen.modelinfo import symbol_of
from tbc.ir import Graph
from tbc.program import Step, in_place
from tbc.report import kernel_counts
from tbc.runtime import structs
from tbc.target import Target

NAME = "bench"


class Layer:
    """A graph in this process, all of whose sizes are numbers, and what it is fed.

    Outputs that may lie where an input does are there, as a C program has its caches.

    With `merge`, steps share phases as usual; without, each is one.

    Attributes:
        weights: its constants.
        results: where the calls write their outputs.
        kernels: of its low-bit dots.
    """

    def __init__(self, graph: Graph, target: Target, merge: bool = True):
        self._ready = InProcess(graph, target, NAME, merge=merge)
        self._raw = structs.Model.from_address(self._ready.code.address(symbol_of(NAME)))
        self._run = structs.RUN(self._raw.run)
        self._arena = Room(int(self._raw.arena_size))
        self._state = self._ready.model.new_state()
        self._copy = Copies(self._ready.weights, 0)
        self._inputs: list[Room] = []
        self.results: list[Room] = []
        self.weights = self._ready.weights
        self.kernels = tuple(kernel_counts(self._ready.program))

    def feed(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Mapping[str, npt.NDArray[Any]]:
        """Set the inputs of the calls to come; the outputs.

        Raises:
            ValueError: the model does not take them.
        """
        outputs = self._ready.model.run(feeds, self._ready.model.new_state())
        given = (np.ascontiguousarray(feeds[t.name]) for t in self._ready.model.inputs)
        self._inputs = [Room.of(array) for array in given]
        self.results = [Room(array.nbytes) for array in outputs.values()]
        return outputs

    def _call(self, weights: int) -> structs.Call:
        """What a run on weights at an address is called with."""
        call = structs.Call()
        call.inputs = (ctypes.c_void_p * len(self._inputs))(*(r.address for r in self._inputs))
        results = [r.address for r in self.results]
        for output, number in in_place(self._ready.program).items():
            results[output] = self._inputs[number].address
        call.outputs = (ctypes.c_void_p * len(results))(*results)
        call.arena, call.weights = self._arena.address, weights
        call.state = self._state.ctypes.data
        return call

    def hot(self) -> Iterator[Call]:
        """Runs on the same weights."""
        return repeat(self._runs(self._call(self._copy.addresses[0])))

    def steps(self) -> list[tuple[Step, Call]]:
        """The steps of a layer without `merge`, each with a call that does it alone, in order."""
        call = ctypes.byref(self._call(self._copy.addresses[0]))
        run_phase = structs.RUN_PHASE(self._raw.run_phase)
        steps = self._ready.program.steps
        return [(step, partial(run_phase, call, n, 0, 1)) for n, step in enumerate(steps)]

    def _runs(self, call: structs.Call) -> Call:
        return partial(self._run, ctypes.byref(call))

    def shared(self, team: Team, size: int) -> tuple[Iterator[Call], int]:
        """Calls of some runs each, by a team, and how many; cold ones if there is a size."""
        copies = Copies(self.weights, size)
        calls = list(map(self._call, copies.addresses))
        run_part = ctypes.cast(self._raw.run_part, ctypes.c_void_p).value
        assert run_part is not None
        count = team.count(run_part, calls[0])

        def forever() -> Iterator[Call]:
            kept = copies, cycle(calls)
            while True:
                yield team.call(run_part, list(islice(kept[1], count)))

        return forever(), count

    def cold(self, size: int) -> Iterator[Call]:
        """Runs on one copy of the weights after the other, `size` bytes of them in turn."""
        copies = Copies(self.weights, size)
        calls = [self._runs(self._call(address)) for address in copies.addresses]
        while True:  # a generator keeps the copies, which addresses do not
            yield from calls
