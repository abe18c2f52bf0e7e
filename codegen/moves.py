"""Bytes that go from memory to memory as they are: by words, wherever they lie."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tbc import ops
from tbc.codegen.expressions import Emitter, Memory
from tbc.codegen.llvm_text import Val, bits_of, const
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


def held(e: Emitter, value: Value, index: Index) -> tuple[Memory, Dim] | None:
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


def move(e: Emitter, source: Val, to: Val) -> None:
    """Move as many bytes as there are lanes."""
    e.f.store(e.f.load(_type_of(e.lanes), source, 1), to, 1)


def fill(e: Emitter, element: npt.NDArray[np.generic], to: Val) -> None:
    """Store an element of one byte as many times as there are lanes."""
    type = _type_of(e.lanes)
    repeated = element.tobytes() * (bits_of(type) // 8)
    e.f.store(const(type, int.from_bytes(repeated, "little")), to, 1)


def _type_of(lanes: int) -> str:
    return "<16 x i8>" if lanes == 16 else f"i{8 * lanes}"
