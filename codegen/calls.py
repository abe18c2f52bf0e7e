"""The functions of a program's steps: each distinct one once, and the calls of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from tbc import ops
from tbc.codegen.llvm_text import Function, Module, Val
from tbc.codegen.rounds import emit_rounds
from tbc.codegen.steps import emit_step, is_hand_shaped, signature
from tbc.program import Buffer, Program, Step, out_buffer
from tbc.straight import NAME
from tbc.target import Target

Place: TypeAlias = Callable[[Buffer], Val]
"""The address of a buffer, in the function that is being emitted."""


@dataclass
class Calls:
    """Emits the functions of steps into modules.

    Attributes:
        hand: functions that are already scheduled.
        glue: everything else, the declarations of those among it.
        symbol: what all names begin with.
        done: by name of a function, the step that it was emitted for.
    """

    hand: Module
    glue: Module
    target: Target
    symbol: str
    done: dict[str, Step] = field(default_factory=dict)
    _uses: Counter[str] = field(default_factory=Counter)
    _steps: dict[str, str] = field(default_factory=dict)
    _loops: int = 0

    @property
    def index(self) -> str:
        """The type of sizes."""
        return f"i{self.target.index_bits}"

    def expect(self, program: Program) -> None:
        """Note the steps of a program, before they are emitted: what is shared is not inlined."""
        for step in program.steps:
            if step.rounds is not None:
                self.expect(step.rounds.program)
            else:
                self._uses[_key(program, step)] += 1

    def function(self, program: Program, step: Step) -> str:
        """The name of a step's function."""
        if step.rounds is not None:
            name = f"{self.symbol}_loop{self._loops}"
            self._loops += 1  # before those of its body
            self.done[name] = step
            emit_rounds(self, name, step, step.rounds)
            return name
        out = out_buffer(program, step)
        key = _key(program, step)
        if key not in self._steps:
            name = self._steps[key] = f"{self.symbol}_step{len(self._steps)}_{_title(step)}"
            self.done[name] = step
            module = self.hand if is_hand_shaped(step) else self.glue
            shared = self._uses[key] > 1
            buffers, symbols = program.buffers, program.symbols
            emit_step(module, name, step, buffers, out, symbols, self.target, shared)
            args = ", ".join(["ptr"] * (len(step.reads) + 2) + [self.index] * 2)
            self.glue.declarations[name] = f"declare void @{name}({args})"
        return self._steps[key]

    def call(
        self, f: Function, name: str, program: Program, step: Step, place: Place, *rest: Val
    ) -> None:
        """Call a step's function; the rest of its arguments are dims, part and parts."""
        also = [program.buffers[v] for v in (*step.also, *step.reads)]
        buffers = [out_buffer(program, step), *also]
        if (rounds := step.rounds) is not None:
            for where, at in ((rounds.place, rounds.scratch), ("weights", rounds.weights)):
                buffers.append(Buffer(step.root, where, 0, at, ()))
        f.call("void", name, *map(place, buffers), *rest)


def _key(program: Program, step: Step) -> str:
    """What is equal for steps that one function can do."""
    return signature(step, program.buffers, out_buffer(program, step), program.symbols)


def _title(step: Step) -> str:
    """A word for what a step does, for its symbol."""
    op = step.anchor.op
    if step.copy_to is not None:
        return "copy"
    if isinstance(op, ops.PackedDot | ops.PackedGroupedDot):
        return op.kernels[-1]
    if isinstance(op, ops.CodedDot):
        return NAME
    return type(op).__name__.lower()
