"""Where the parts of a run wait for each other: a counter of arrivals in the caller's memory.

Every part adds 1 when it has done its share of a phase, and goes on when all have: the goal grows
by `parts` with each phase. Who leaves last puts the counter back to 0. Counts may wrap around,
since only their differences matter.
"""

from __future__ import annotations

from tbc.codegen.llvm_text import Function, Module, Val, const
from tbc.codegen.steps import ATTRIBUTES
from tbc.target import Target

SPINS = 100
"""How often a part looks whether the others have arrived before it calls the caller's `yield`."""

_PAUSE = {"x86": ("llvm.x86.sse2.pause", ()), "aarch64": ("llvm.aarch64.hint", (1,))}
"""By architecture: the intrinsic that tells the CPU that a loop only waits, and its arguments."""


def emit_wait(module: Module, name: str, target: Target) -> None:
    """Add `void name(sync, goal)`: arrive, and return when the count has reached the goal."""
    f = _function(module, name)
    sync, goal = f.args
    _arrive(f, sync)
    limit, zero = const("i32", SPINS), const("i32", 0)
    with f.repeat(zero) as loop:
        arrived = f.emit("i32", f"load atomic i32, {sync} acquire, align 4")
        loop.go_on(f, f.icmp("slt", f.op("sub", arrived, goal), zero))
        if target.arch in _PAUSE:
            pause, args = _PAUSE[target.arch]
            f.intrinsic("void", pause, *(const("i32", a) for a in args))
        spins = loop.carried[0]
        is_long = f.icmp("uge", spins, limit)
        with f.when(is_long):
            _yield(f, sync, target.index_bits // 8)
        loop.yield_(f.select(is_long, spins, f.op("add", spins, const("i32", 1))))
    f.finish()


def emit_leave(module: Module, name: str) -> None:
    """Add `void name(sync, goal)`: arrive for the last time; who completes the goal resets it."""
    f = _function(module, name)
    sync, goal = f.args
    before = _arrive(f, sync)
    with f.when(f.icmp("eq", f.op("add", before, const("i32", 1)), goal)):
        f.do(f"store atomic i32 0, {sync} release, align 4")
    f.finish()


def _function(module: Module, name: str) -> Function:
    args = [("ptr", "sync"), ("i32", "goal")]
    return Function(module, name, args, attributes=f"noinline {ATTRIBUTES}")


def _arrive(f: Function, sync: Val) -> Val:
    """Add 1 to the count of a tbc_sync, its first field; the count before."""
    return f.emit("i32", f"atomicrmw add {sync}, i32 1 acq_rel, align 4")


def _yield(f: Function, sync: Val, pointer_bytes: int) -> None:
    """Call the function of a tbc_sync, its second field, with the third, if there is one."""
    function, context = (
        f.load("ptr", f.offset(sync, const("i32", field * pointer_bytes)), pointer_bytes)
        for field in (1, 2)
    )
    with f.when(f.icmp("ne", function, Val("ptr", "null"))):
        f.do(f"call void {function.text}({context})")
