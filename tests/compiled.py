"""Graphs compiled for this machine and run in this process, in memory that shows stray accesses.

Every array that compiled code sees ends where accessible memory ends, so that a read or a write
behind it stops the process; the bytes in front of it must be unchanged after a run.
"""

from __future__ import annotations

import ctypes
import mmap
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from toolchain import INCLUDE, run

from tbc.codegen.host import host_target
from tbc.codegen.jit import Loaded, jit_target
from tbc.codegen.machine import Workers
from tbc.codegen.project import header
from tbc.dims import evaluate
from tbc.driver import Compiled, assemble, lower
from tbc.ir import Graph
from tbc.ops import Input
from tbc.program import Program
from tbc.reference import bind_symbols
from tbc.runtime import Pool, structs
from tbc.target import Target

Array = npt.NDArray[Any]
RunPhase = Callable[[int, int, int], int]
"""(phase, part, parts) -> status."""

_POISON = 0xA5
_libc = ctypes.CDLL(None, use_errno=True)


def native_target() -> Target:
    """This machine, for code that is loaded into this process."""
    return jit_target(host_target())


class Fenced:
    """An array with memory in front of it that must not change, and none behind it.

    Attributes:
        array: the elements; filled with bytes 0xA5 to begin with.
    """

    def __init__(self, shape: Sequence[int], dtype: npt.DTypeLike):
        page = mmap.PAGESIZE
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        room = -(-size // page) * page + page
        self._map = mmap.mmap(-1, room + page)
        memory = np.frombuffer(self._map, np.uint8)
        memory[:] = _POISON
        _protect(memory.ctypes.data + room, page, 0)
        self._front = memory[: room - size]
        self.array: Array = memory[room - size : room].view(dtype).reshape(shape)

    @classmethod
    def of(cls, array: Array) -> Fenced:
        """A copy of an array."""
        fenced = cls(array.shape, array.dtype)
        fenced.array[...] = array
        return fenced

    @property
    def address(self) -> int:
        """Where the array starts; what lies behind an empty one is not accessible."""
        return self._front.ctypes.data + self._front.size

    def is_intact(self) -> bool:
        """Whether the memory in front of the array is as it was."""
        return bool((self._front == _POISON).all())


def _protect(address: int, size: int, access: int) -> None:
    failed = _libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), access)
    assert not failed, ctypes.get_errno()


@dataclass
class Run:
    """A call of a model: what it returned, and its outputs by name."""

    status: int
    outputs: dict[str, Array]


class Native:
    """A graph compiled for this machine, or a target whose code runs on it.

    Attributes:
        program: its steps.
        lowered: the graph that they compute, after all passes.
        raw: its `tbc_model`.
    """

    def __init__(self, graph: Graph, workers: Workers, target: Target | None = None):
        self.target = target or native_target()
        self.program = lower(graph, self.target)
        self.lowered = graph_of(self.program)
        compiled = assemble(self.program, self.target, "m", workers, embed=False)
        self._code = Loaded(object_of(compiled), native_target(), ["tbc_m"])
        self.raw = structs.Model.from_address(self._code.address("tbc_m"))
        self._weights = Fenced((self.program.weights_size,), np.uint8)
        self.state = self.new_state()
        self._pools: dict[int, Pool] = {}
        at = 0
        for block in compiled.weights():
            self._weights.array[at : at + block.size] = block
            at += block.size

    def run(
        self,
        feeds: Mapping[str, Array],
        parts: int = 1,
        at_once: bool = False,
        shared: Mapping[int, int] = MappingProxyType({}),
    ) -> Run:
        """One run; with more than one part, every phase part by part, the last part first.

        `at_once` gives each part a thread of its own instead; `shared` says which outputs lie in
        the memory of which inputs. The state is that which the run before has left.
        """
        program = self.program
        call, inputs, outputs, scratch = self.call(feeds)
        for output, number in shared.items():
            outputs[output] = inputs[number]
        call.outputs = _pointers(outputs)
        status = self._at_once(call, parts) if at_once else self._status(call, parts)
        for fenced in (*inputs, *outputs, *scratch, self.state, self._weights):
            assert fenced.is_intact(), "bytes in front of an array have changed"
        for number, (fenced, value) in enumerate(zip(inputs, program.inputs, strict=True)):
            assert isinstance(value.op, Input)
            if number in shared.values():
                continue
            same = fenced.array.tobytes() == np.ascontiguousarray(feeds[value.op.name]).tobytes()
            assert same, f"the input {value.op.name} has changed"
        names = (name for name, _ in program.outputs)
        return Run(status, {n: o.array for n, o in zip(names, outputs, strict=True)})

    def new_state(self) -> Fenced:
        """The state of a first run."""
        return Fenced.of(np.zeros(self.program.state_size, np.uint8))

    def kept(self) -> dict[str, Array]:
        """What the state holds, by the names of the outputs that it is kept instead of."""
        found = {}
        for state in self.program.states:
            buffer = self.program.buffers[state.old]
            raw = self.state.array[buffer.offset : buffer.offset + buffer.bytes]
            shape = [evaluate(d, {}) for d in state.old.type.shape]
            found[state.name] = raw.view(state.old.type.dtype.numpy).reshape(shape)
        return found

    def phase_by_phase(self, feeds: Mapping[str, Array]) -> tuple[list[Array], RunPhase]:
        """The bytes of outputs, scratch memory and state, and what does a part of a phase."""
        call, *kept = self.call(feeds)
        _, outputs, scratch = kept
        memory = [m.array.reshape(-1).view(np.uint8) for m in (*outputs, *scratch, self.state)]

        def run_phase(phase: int, part: int, parts: int) -> int:
            assert kept  # the call points to them
            return self._run_phase(call, phase, part, parts)

        return memory, run_phase

    def call(
        self, feeds: Mapping[str, Array]
    ) -> tuple[structs.Call, list[Fenced], list[Fenced], list[Fenced]]:
        """A call on these inputs, and its inputs, outputs, and fast memory and arena."""
        program = self.program
        dims = bind_symbols(program.inputs, feeds)
        inputs = [Fenced.of(feeds[v.op.name]) for v in program.inputs if isinstance(v.op, Input)]
        outputs = [
            Fenced([evaluate(d, dims) for d in v.type.shape], v.type.dtype.numpy)
            for _, v in program.outputs
        ]
        scratch = [Fenced((size,), np.uint8) for size in (program.fast_size, program.arena_size)]
        sizes = [dims[s.name] for s in program.symbols]
        call = structs.Call()
        call.inputs, call.outputs = _pointers(inputs), _pointers(outputs)
        call.fast, call.arena = (memory.address for memory in scratch)
        call.weights, call.state = self._weights.address, self.state.address
        call.dims = (ctypes.c_size_t * max(len(sizes), 1))(*sizes)
        return call, inputs, outputs, scratch

    def _at_once(self, call: structs.Call, parts: int) -> int:
        pool = self._pools.setdefault(parts, Pool(parts, 0))
        call.sync = ctypes.pointer(pool.sync)
        status = pool.run(structs.RUN_PART(self.raw.run_part), ctypes.byref(call), call)
        assert status is not None
        assert pool.sync.arrived == 0
        return status

    def _run_phase(self, call: structs.Call, phase: int, part: int, parts: int) -> int:
        function = structs.RUN_PHASE(self.raw.run_phase)
        return int(function(ctypes.byref(call), phase, part, parts))

    def _status(self, call: structs.Call, parts: int) -> int:
        if parts == 1:
            return int(structs.RUN(self.raw.run)(ctypes.byref(call)))
        for phase in range(self.raw.phases):
            for part in reversed(range(parts)):
                if status := self._run_phase(call, phase, part, parts):
                    return status
        return 0


def object_of(compiled: Compiled, compiler: Sequence[str] = ("cc",)) -> bytes:
    """The object code of a model; portable C is compiled first, for this machine by default."""
    if "obj" in compiled.files:
        return compiled.files["obj"]
    with tempfile.TemporaryDirectory() as folder:
        source, obj = Path(folder) / "model.c", Path(folder) / "model.o"
        source.write_bytes(compiled.files["c"])
        source.with_name(f"{compiled.info.name}.h").write_text(header(compiled.info))
        run(*compiler, *STRICT_C, "-O2", "-fPIC", "-c", source, "-o", obj)
        return obj.read_bytes()


STRICT_C = ("-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", f"-I{INCLUDE}")
"""How portable C is compiled in tests, but for -O2."""


def graph_of(program: Program) -> Graph:
    """What a program computes, as a graph."""
    return program.graph


def _pointers(arrays: Sequence[Fenced]) -> Any:
    return (ctypes.c_void_p * max(len(arrays), 1))(*(a.address for a in arrays))
