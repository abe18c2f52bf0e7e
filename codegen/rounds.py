"""Loops: a function that runs the steps of a body round after round."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tbc import ops
from tbc.codegen.index_arithmetic import IndexEmitter
from tbc.codegen.llvm_text import Function, Val, const
from tbc.codegen.steps import ATTRIBUTES, chosen
from tbc.dims import Dim
from tbc.ir import Value
from tbc.program import Buffer, Rounds, Step, reshapes

if TYPE_CHECKING:
    from tbc.codegen.calls import Calls


def emit_rounds(calls: Calls, name: str, step: Step, rounds: Rounds) -> None:
    """Add the function `name` that does all rounds of a loop in part 0, one behind the other.

    Its arguments: what it stores, what it reads, its memory, its constants, dims, part and parts.
    Round r reads the states from where round r - 1 has written them, and writes the other one of
    two buffers; rows go straight to their places.
    """
    _Loop(calls, name, step, rounds).emit()


class _Loop:
    """The function of a loop, under construction."""

    def __init__(self, calls: Calls, name: str, step: Step, rounds: Rounds):
        assert step.loop is not None
        self.calls, self.step, self.op, self.rounds = calls, step, step.loop, rounds
        self.program = rounds.program
        self.functions = [calls.function(self.program, s) for s in self.program.steps]
        outs = [f"o{i}" for i in range(len(step.results))]
        reads = [f"r{i}" for i in range(len(step.reads))]
        names = [*outs, *reads, "scratch", "weights", "dims"]
        args = [*(("ptr", n) for n in names), *((calls.index, n) for n in ("part", "parts"))]
        f = self.f = Function(calls.glue, name, args, "void", "internal", ATTRIBUTES)
        self.outs = dict(zip(step.results, f.args, strict=False))
        self.reads = dict(zip(step.reads, f.args[len(step.results) :], strict=False))
        self.scratch, self.weights, self.dims, self.part, _ = f.args[-5:]
        self.e = IndexEmitter(f, calls.index)

    def emit(self) -> None:
        f = self.f
        first_part = f.icmp("eq", self.part, self._number(0))
        with f.when(first_part), chosen(f, self.step, list(self.reads.values())):
            inner = self._symbols()
            given = [self._given(a) for a in self.step.root.args]
            self.captured = given[self.op.states :]
            first = [self._scratch(a) for a, _ in self.rounds.states]
            second = [self._scratch(b) for _, b in self.rounds.states]
            start = [self._number(0), const("i8", 0), *given[: self.op.states], *first, *second]
            with f.repeat(*start) as loop:
                turn, wrong = loop.carried[:2]
                states, free, other = self._split(loop.carried[2:])
                loop.go_on(f, self._goes_on(turn, states))
                with self.e.scope():
                    wrong = self._round(turn, wrong, states, free, inner)
                loop.yield_(f.op("add", turn, self._number(1)), wrong, *free, *other, *free)
            self._finish(loop.results[1], self._split(loop.results[2:])[0])
        f.finish()

    def _number(self, value: int) -> Val:
        return const(self.calls.index, value)

    def _given(self, arg: Value) -> Val:
        """Where an argument lies, which may be read as what it is a reshape of."""
        return next(self.reads[v] for v in reshapes(arg) if v in self.reads)

    def _scratch(self, offset: int) -> Val:
        return self.f.offset(self.scratch, self._number(offset))

    def _split(self, carried: tuple[Val, ...]) -> list[tuple[Val, ...]]:
        count = self.op.states
        return [carried[i * count : (i + 1) * count] for i in range(3)]

    def _symbols(self) -> Val:
        """The dims of the body: those of the program around it, and room for the round's number."""
        f, target = self.f, self.calls.target
        type, bytes = target.size_type, target.index_bits // 8
        outer = [s for s in self.program.symbols if s != self.op.index]
        inner = f.alloca(type, len(self.program.symbols)) if self.op.index else self.dims
        for number, symbol in enumerate(outer):
            at = self._number(number)
            size = f.load(type, f.offset(self.dims, at, type), bytes)
            self.e.bind_symbol(symbol.name, f.cast("trunc", size, self.calls.index))
            if self.op.index:
                f.store(size, f.offset(inner, at, type), bytes)
        return inner

    def _goes_on(self, turn: Val, states: tuple[Val, ...]) -> Val:
        """Whether there is another round."""
        f, tests = self.f, []
        if self.op.trip is not None:
            tests.append(f.icmp("slt", turn, self.e.index(self.op.trip)))
        if self.op.conditional:
            tests.append(f.icmp("ne", f.load("i8", states[0], 1), const("i8", 0)))
        return tests[0] if len(tests) == 1 else f.op("and", *tests)

    def _round(
        self, turn: Val, wrong: Val, states: tuple[Val, ...], free: tuple[Val, ...], dims: Val
    ) -> Val:
        """One round, from the states to the free buffers; whether a check held up to now."""
        f, target = self.f, self.calls.target
        if self.op.index is not None:
            last = f.offset(dims, self._number(len(self.program.symbols) - 1), target.size_type)
            f.store(f.cast("zext", turn, target.size_type), last, target.index_bits // 8)
        inputs = [*states, *self.captured]
        rows = [v for v in self.step.results if self._is_row(v)]
        outputs = [*free, *(self._row(v, turn) for v in sorted(rows, key=_which))]

        def place(buffer: Buffer) -> Val:
            match buffer.place:
                case "input":
                    return inputs[buffer.index]
                case "output":
                    return outputs[buffer.index]
                case where:
                    base = self.scratch if where == "arena" else self.weights
                    return f.offset(base, self._number(buffer.offset))

        for step, name in zip(self.program.steps, self.functions, strict=True):
            rest = dims, self._number(0), self._number(1)
            self.calls.call(f, name, self.program, step, place, *rest)
        for check in self.program.checks:
            wrong = f.op("or", wrong, f.load("i8", place(self.program.buffers[check]), 1))
        return wrong

    def _is_row(self, value: Value) -> bool:
        op = value.op
        return isinstance(op, ops.Repeat) and not op.is_state and not op.is_check

    def _row(self, value: Value, turn: Val) -> Val:
        """Where a round's row of a result lies."""
        size = self._bytes(value, value.type.shape[1:])
        return self.f.offset(self.outs[value], self.f.op("mul", turn, size))

    def _bytes(self, value: Value, shape: tuple[Dim, ...]) -> Val:
        size: Dim = value.type.dtype.bytes
        for dim in shape:
            size = size * dim
        return self.e.index(size)

    def _finish(self, wrong: Val, states: tuple[Val, ...]) -> None:
        """Store the last states, and whether a check held."""
        for value, out in self.outs.items():
            op = value.op
            assert isinstance(op, ops.Repeat)
            if op.is_check:
                self.f.store(wrong, out, 1)
            elif op.is_state:
                size = self._bytes(value, value.type.shape)
                name = f"llvm.memcpy.p0.p0.{self.calls.index}"
                volatile = Val("i1", "false")
                self.f.intrinsic("void", name, out, states[op.which], size, volatile)


def _which(value: Value) -> int:
    return value.op.which if isinstance(value.op, ops.Repeat) else 0
