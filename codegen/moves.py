"""Bytes that go from memory to memory as they are: by words, wherever they lie."""

from __future__ import annotations

from collections.abc import Iterator

from tbc import ops
from tbc.codegen.expressions import Emitter, Memory
from tbc.codegen.llvm_text import Val, bits_of, const
from tbc.constants import value_of
from tbc.dims import Dim
from tbc.indices import Index, mapped_index, windows_index
from tbc.ir import Value
from tbc.patches import VIEWS
from tbc.target import Target


def bytes_at_once(target: Target) -> int:
    """Bytes that a core without wide vectors moves at once, whatever their address.

    They are two loads and stores of 32 bits, which take fewer registers than four, or one of
    Helium. Of less than that, the loop around them is most of what is executed.
    """
    if not target.is_small or target.arch != "arm" or target.is_thumb1:
        return 1
    return 16 if "mve" in target.features else 8


def _held(e: Emitter, value: Value, index: Index) -> tuple[Memory, Dim] | None:
    """Where an element lies, if no more than views are between it and what is in memory."""
    while value not in e.memory:
        if not isinstance(value.op, VIEWS):
            return None
        if isinstance(value.op, ops.Windows):
            if not value.op.fits(value.args[0].type):
                return None
            index = windows_index(value, index)
        else:
            index = mapped_index(value, index)
        value = value.args[0]
    memory = e.memory[value]
    return memory, memory.address(value, index)


def reads(e: Emitter, value: Value, index: Index) -> Iterator[Dim | None]:
    """The position that `move` reads, none of a constant scalar; None where it cannot."""
    if not _is_scalar(value):
        found = _held(e, value, index)
        yield found[1] if found and found[0].panels is None else None


def move(e: Emitter, value: Value, index: Index, to: Val) -> None:
    """Store an element of one byte, and its neighbours as far as there are lanes."""
    type = "<16 x i8>" if e.lanes == 16 else f"i{8 * e.lanes}"
    if _is_scalar(value):
        repeated = value_of(value).tobytes() * (bits_of(type) // 8)
        element = const(type, int.from_bytes(repeated, "little"))
    else:
        found = _held(e, value, index)
        assert found is not None
        memory, position = found
        element = e.f.load(type, e.f.offset(memory.pointer, e.index(position)), 1)
    e.f.store(element, to, 1)


def _is_scalar(value: Value) -> bool:
    return value.is_constant and value.type.shape == ()
