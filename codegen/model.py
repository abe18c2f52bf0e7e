"""A program as an LLVM module: its steps, and the functions of `tbc_model` that call them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from tbc.codegen.calls import Calls
from tbc.codegen.expressions import Emitter
from tbc.codegen.llvm_text import Function, Module, Val, const
from tbc.codegen.steps import ATTRIBUTES
from tbc.codegen.waiting import emit_leave, emit_wait
from tbc.constants import value_of
from tbc.dims import Expr, upper
from tbc.program import Alone, Buffer, Program, Step
from tbc.target import Target

NULL, ALIGN, DIM, WEIGHTS, VALUE = 3, 4, 5, 6, 7
"""`enum tbc_status`."""

INPUTS, OUTPUTS, ARENA, STATE, CALL_WEIGHTS, DIMS, SYNC, FAST = range(8)
"""The fields of `tbc_call`, each one pointer."""

_MEMORY = {"arena": ARENA, "fast": FAST, "state": STATE}
"""By place of a buffer, the memory that the caller brings for it."""


@dataclass(frozen=True)
class ModelCode:
    """The LLVM text of a model.

    Attributes:
        hand: functions that are already scheduled; no pass pipeline.
        glue: everything else.
        phases: how many phases `run_phase` knows.
        kernels: by phase, the names of the functions that it calls.
        steps: by name of a function, the step that it was emitted for.
    """

    hand: Module
    glue: Module
    phases: int
    kernels: tuple[tuple[str, ...], ...]
    steps: Mapping[str, Step]


def emit_model(
    program: Program, target: Target, symbol: str, weights_symbol: str | None, datalayout: str
) -> ModelCode:
    """The functions `<symbol>_run`, `_run_phase`, `_output_shape`, and `_run_part` if it can be.

    `weights_symbol` names the constants inside the module; None where the caller brings them.
    """
    return _Emission(program, target, symbol, weights_symbol, datalayout).emit()


class _Emission:
    def __init__(
        self,
        program: Program,
        target: Target,
        symbol: str,
        weights_symbol: str | None,
        datalayout: str,
    ):
        self.program, self.target, self.symbol = program, target, symbol
        self.weights_symbol = weights_symbol
        common = target.triple, datalayout, target.rounds, target.rounds_to_int, f"{symbol}_"
        self.hand = Module(*common)
        self.glue = Module(*common, self.hand)
        self.index, self.size = f"i{target.index_bits}", target.size_type
        self.pointer_bytes = target.index_bits // 8

    def emit(self) -> ModelCode:
        calls = Calls(self.hand, self.glue, self.target, self.symbol)
        calls.expect(self.program)
        names = [
            [calls.function(self.program, step) for step in phase] for phase in self.program.phases
        ]
        tests = self._checks_before()
        phases = len(names) + (len(names) in tests)
        self._phase_function(calls, names, tests)
        self._check()
        self._run(phases)
        self._run_phase(phases)
        self._output_shape()
        if self.target.has_threads:
            self._run_part(phases)
        return ModelCode(self.hand, self.glue, phases, tuple(map(tuple, names)), calls.done)

    def _checks_before(self) -> dict[int, list[Buffer]]:
        """By phase, the checks to look at before it: those that the phase before computed."""
        tests: dict[int, list[Buffer]] = {}
        for number, phase in enumerate(self.program.phases):
            stored = (r for step in phase if step.copy_to is None for r in step.results)
            found = [self.program.buffers[r] for r in stored if r in self.program.checks]
            if found:
                tests[number + 1] = found
        return tests

    # -- pointers -------------------------------------------------------------------------------

    def _field(self, f: Function, call: Val, field: int) -> Val:
        return self._pointer_at(f, call, field)

    def _pointer_at(self, f: Function, table: Val, number: int) -> Val:
        """A pointer out of a table of them, as which a tbc_call may be taken too."""
        return f.load("ptr", f.offset(table, const(self.index, number), "ptr"), self.pointer_bytes)

    def _weights(self, f: Function, call: Val) -> Val:
        given = self._field(f, call, CALL_WEIGHTS)
        if self.weights_symbol is None:
            return given
        absent = f.icmp("eq", given, Val("ptr", "null"))
        return f.select(absent, Val("ptr", f"@{self.weights_symbol}"), given)

    def _pointer(self, f: Function, call: Val, buffer: Buffer) -> Val:
        match buffer.place:
            case "arena" | "fast" | "state" as place:
                memory = self._field(f, call, _MEMORY[place])
                return f.offset(memory, const(self.index, buffer.offset))
            case "weights":
                return f.offset(self._weights(f, call), const(self.index, buffer.offset))
            case place:
                table = self._field(f, call, INPUTS if place == "input" else OUTPUTS)
                return self._pointer_at(f, table, buffer.index)

    # -- functions ------------------------------------------------------------------------------

    def _phase_function(
        self, calls: Calls, names: list[list[str]], tests: dict[int, list[Buffer]]
    ) -> None:
        """`i32 <symbol>_phase(call, phase, part, parts)`: a phase, no checks of the call."""
        args = [("ptr", "call"), ("i32", "phase"), (self.index, "part"), (self.index, "parts")]
        f = self._function("phase", args, "internal")
        call, phase, part, parts = f.args
        count = len(names) + (len(names) in tests)
        cases = "\n".join(f"    i32 {i}, label %phase{i}" for i in range(count))
        f.do(f"switch {phase}, label %done [\n{cases}\n  ]")
        for number in range(count):
            f.label(f"phase{number}")
            for buffer in tests.get(number, ()):
                flag = f.load("i8", self._pointer(f, call, buffer), 1)
                _return_if(f, f.icmp("ne", flag, const("i8", 0)), VALUE)
            if number < len(names):
                place = partial(self._pointer, f, call)
                dims = self._field(f, call, DIMS)
                for step, name in zip(self.program.phases[number], names[number], strict=True):
                    with self._share(f, step, part, parts) as share:
                        calls.call(f, name, self.program, step, place, dims, *share)
            f.do("br label %done")
        f.label("done")
        f.do("ret i32 0")
        f.finish()

    @contextmanager
    def _share(self, f: Function, step: Step, part: Val, parts: Val) -> Iterator[tuple[Val, Val]]:
        """The part and parts that a step is called with; a region that its one part enters."""
        if not isinstance(step.division, Alone):
            yield part, parts
            return
        number, zero = step.division.part, const(self.index, 0)
        own = f.op("urem", const(self.index, number), parts) if number else zero
        with f.when(f.icmp("eq", part, own)):
            yield zero, const(self.index, 1)

    def _run(self, phases: int) -> None:
        f = self._entry("run", [])
        (call,) = f.args
        zero, one = const(self.index, 0), const(self.index, 1)
        with f.loop(const("i32", 0), const("i32", phases)) as loop:
            status = f.call("i32", f"{self.symbol}_phase", call, loop.index, zero, one)
            with _Returning(f, f.icmp("ne", status, const("i32", 0))):
                f.do(f"ret {status}")
        f.do("ret i32 0")
        f.finish()

    def _run_phase(self, phases: int) -> None:
        f = self._entry("run_phase", [("i32", "phase"), ("i32", "part"), ("i32", "parts")])
        call, phase, part, parts = f.args
        outside = f.icmp("uge", phase, const("i32", phases))
        _return_if(f, f.op("or", outside, f.icmp("uge", part, parts)), DIM)
        wide = [f.cast("zext", v, self.index) for v in (part, parts)]
        status = f.call("i32", f"{self.symbol}_phase", call, phase, *wide)
        f.do(f"ret {status}")
        f.finish()

    def _run_part(self, phases: int) -> None:
        """`i32 <symbol>_run_part(call, part, parts)`: a part of all phases, with waits between.

        What fails in a phase, or in the checks of the call, fails in all parts alike, so none is
        waited for in vain.
        """
        wait, leave = f"{self.symbol}_wait", f"{self.symbol}_leave"
        emit_wait(self.glue, wait, self.target)
        emit_leave(self.glue, leave)
        f = self._entry("run_part", [("i32", "part"), ("i32", "parts")])
        call, part, parts = f.args
        _return_if(f, f.icmp("uge", part, parts), DIM)
        sync = self._field(f, call, SYNC)
        _return_if(f, f.icmp("eq", sync, Val("ptr", "null")), NULL)
        wide = [f.cast("zext", v, self.index) for v in (part, parts)]
        zero, last = const("i32", 0), const("i32", phases - 1)
        with f.loop(zero, last, carried=[parts]) as loop:
            status = f.call("i32", f"{self.symbol}_phase", call, loop.index, *wide)
            goal = loop.carried[0]
            with _Returning(f, f.icmp("ne", status, zero)):
                f.call("void", leave, sync, goal)
                f.do(f"ret {status}")
            f.call("void", wait, sync, goal)
            loop.yield_(f.op("add", goal, parts))
        status = f.call("i32", f"{self.symbol}_phase", call, last, *wide)
        f.call("void", leave, sync, loop.results[0])
        f.do(f"ret {status}")
        f.finish()

    def _entry(self, name: str, args: list[tuple[str, str]]) -> Function:
        """A function of `tbc_model` that begins by checking the call."""
        f = self._function(name, [("ptr", "call"), *args], "hidden")
        status = f.call("i32", f"{self.symbol}_check", f.args[0])
        with _Returning(f, f.icmp("ne", status, const("i32", 0))):
            f.do(f"ret {status}")
        return f

    def _function(self, name: str, args: list[tuple[str, str]], linkage: str) -> Function:
        symbol = f"{self.symbol}_{name}"
        # On some machines a C caller takes the status to be sign-extended to a whole register.
        return Function(self.glue, symbol, args, "i32", f"{linkage} signext", ATTRIBUTES)

    def _check(self) -> None:
        """`i32 <symbol>_check(call)`: whether the model can run on what the caller brought."""
        f = self._function("check", [("ptr", "call")], "internal")
        call = f.args[0]
        _return_if(f, f.icmp("eq", call, Val("ptr", "null")), NULL)
        self._check_table(f, self._field(f, call, INPUTS), len(self.program.inputs))
        self._check_table(f, self._field(f, call, OUTPUTS), len(self.program.outputs))
        program = self.program
        sizes = {
            "arena": program.arena_size,
            "fast": program.fast_size,
            "state": program.state_size,
        }
        for place in (place for place, size in sizes.items() if size):
            memory = self._field(f, call, _MEMORY[place])
            _return_if(f, f.icmp("eq", memory, Val("ptr", "null")), NULL)
            self._check_alignment(f, memory)
        if self.program.weights_size:
            given = self._field(f, call, CALL_WEIGHTS)
            if self.weights_symbol is None:
                _return_if(f, f.icmp("eq", given, Val("ptr", "null")), WEIGHTS)
            self._check_alignment(f, given)
        self._checked_sizes(f, call)
        f.do("ret i32 0")
        f.finish()

    def _checked_sizes(self, f: Function, call: Val) -> dict[str, Val]:
        """The values of the symbols in a call's dims, all in range."""
        if not self.program.symbols:
            return {}
        dims = self._field(f, call, DIMS)
        _return_if(f, f.icmp("eq", dims, Val("ptr", "null")), NULL)
        sizes = {}
        for i, symbol in enumerate(self.program.symbols):
            place = f.offset(dims, const(self.index, i), self.size)
            size = f.load(self.size, place, self.pointer_bytes)
            low = f.icmp("ult", size, const(self.size, symbol.lo))
            high = f.icmp("ugt", size, const(self.size, upper(Expr.of(symbol))))
            _return_if(f, f.op("or", low, high), DIM)
            sizes[symbol.name] = f.cast("trunc", size, self.index)
        return sizes

    def _check_table(self, f: Function, table: Val, count: int) -> None:
        """A table of `count` pointers, none of them null."""
        if not count:
            return
        null = Val("ptr", "null")
        _return_if(f, f.icmp("eq", table, null), NULL)
        for i in range(count):
            _return_if(f, f.icmp("eq", self._pointer_at(f, table, i), null), NULL)

    def _check_alignment(self, f: Function, block: Val) -> None:
        address = f.cast("ptrtoint", block, self.index)
        rest = f.op("and", address, const(self.index, self.program.alignment - 1))
        _return_if(f, f.icmp("ne", rest, const(self.index, 0)), ALIGN)

    def _output_shape(self) -> None:
        """`i32 <symbol>_output_shape(call, index, shape)`."""
        args = [("ptr", "call"), ("i32", "index"), ("ptr", "shape")]
        f = self._function("output_shape", args, "hidden")
        call, index, shape = f.args
        null = Val("ptr", "null")
        _return_if(f, f.icmp("eq", call, null), NULL)
        sizes = self._checked_sizes(f, call)
        count = len(self.program.outputs)
        cases = "\n".join(f"    i32 {i}, label %output{i}" for i in range(count))
        f.do(f"switch {index}, label %none [\n{cases}\n  ]")
        for number, (_, value) in enumerate(self.program.outputs):
            f.label(f"output{number}")
            e = Emitter(f, self.index, {})
            for name, size in sizes.items():
                e.bind_symbol(name, size)
            if value.type.rank:
                _return_if(f, f.icmp("eq", shape, null), NULL)
            for axis, dim in enumerate(value.type.shape):
                place = f.offset(shape, const(self.index, axis), self.size)
                f.store(f.cast("zext", e.index(dim), self.size), place, self.pointer_bytes)
            f.do("ret i32 0")
        f.label("none")
        f.do(f"ret i32 {DIM}")
        f.finish()


class _Returning:
    """A conditional block that ends with a return of its own."""

    def __init__(self, f: Function, cond: Val):
        self.f, self.cond = f, cond

    def __enter__(self) -> None:
        yes, self.after = self.f.fresh("return"), self.f.fresh("go")
        self.f.do(f"br {self.cond}, label %{yes}, label %{self.after}")
        self.f.label(yes)

    def __exit__(self, *_: object) -> None:
        self.f.label(self.after)


def _return_if(f: Function, cond: Val, status: int) -> None:
    with _Returning(f, cond):
        f.do(f"ret i32 {status}")


# -- weights --------------------------------------------------------------------------------------


def constant_bytes(buffer: Buffer, little_endian: bool) -> npt.NDArray[np.uint8]:
    """The elements of a constant as they lie in the weights."""
    elements: npt.NDArray[Any] = value_of(buffer.value).transpose(buffer.order)
    if buffer.panels is not None:
        elements = buffer.panels.pack(elements)
    dtype = elements.dtype.newbyteorder("<" if little_endian else ">")
    stored = elements.astype(dtype, copy=False)
    return np.frombuffer(stored.tobytes(), np.uint8)


def weight_blocks(program: Program, little_endian: bool) -> Iterator[npt.NDArray[np.uint8]]:
    """The weights' bytes in order, one constant at a time, padding included."""
    return shared_blocks([program], little_endian)


def shared_blocks(
    programs: Sequence[Program], little_endian: bool
) -> Iterator[npt.NDArray[np.uint8]]:
    """The bytes of the weights of programs that were planned in one image."""
    constants = {(b.offset, b.type.size != 0): b for p in programs for b in p.constants}
    end = 0
    for (offset, _), buffer in sorted(constants.items(), key=itemgetter(0)):
        if offset > end:
            yield np.zeros(offset - end, np.uint8)
        block = constant_bytes(buffer, little_endian)
        yield block
        end = offset + block.size
    size = max(program.weights_size for program in programs)
    if size > end:
        yield np.zeros(size - end, np.uint8)


def aligned_weights(program: Program) -> npt.NDArray[np.uint8]:
    """The weights in this process's memory, aligned as the program asks."""
    room = np.empty(program.weights_size + program.alignment, np.uint8)
    start = -room.ctypes.data % program.alignment
    image = room[start : start + program.weights_size]
    end = 0
    for block in weight_blocks(program, sys.byteorder == "little"):
        image[end : end + block.size] = block
        end += block.size
    return image
