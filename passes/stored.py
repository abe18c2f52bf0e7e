"""Which constants are stored as what they are computed of, because that takes fewer bytes.

An int8 weight with its scales, or a table in halves, is widened where an element is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tbc import ops
from tbc.dims import bounds, static
from tbc.ir import Value

OPENED = (ops.Broadcast, ops.Reshape, ops.Transpose, ops.Slice, ops.Cast, ops.Binary)
CHEAP = ("add", "sub", "mul")
"""Operations of two constants that are computed where an element is read."""
FEW_ROWS = 32
"""Of a product: for so many, its right operand is rather computed again than kept in memory."""
LARGE = 16 << 20
"""Bytes of a constant that is not expanded, however often its elements are computed again."""
_DEEP = 64


def opened(values: Iterable[Value]) -> set[Value]:
    """The constants among what products and gathers read that are computed in place."""
    found: set[Value] = set()
    for value in _read(values):
        found.update(_cheapest(value, _DEEP)[1])
    return found


def _read(values: Iterable[Value]) -> Iterator[Value]:
    for value in values:
        if value.is_constant:
            continue
        if isinstance(value.op, ops.MatMul):
            a, b = value.args
            few = bounds(a.type.shape[-2])[1] <= FEW_ROWS
            if b.is_constant and (few or _bits(b) > 8 * LARGE):
                yield b
        elif isinstance(value.op, ops.GATHERS) and value.args[0].is_constant:
            yield value.args[0]


def _bits(value: Value) -> int:
    return static(value.type.size, "a constant's size") * value.type.dtype.bits


def _cheapest(value: Value, depth: int) -> tuple[int, list[Value]]:
    """The least bits that hold a constant, and which values of its expression are computed."""
    whole = 0 if value.type.size == 1 else _bits(value)
    if not depth or not value.args or not isinstance(value.op, OPENED):
        return whole, []
    if isinstance(value.op, ops.Binary) and value.op.fn not in CHEAP:
        return whole, []
    parts = [_cheapest(arg, depth - 1) for arg in dict.fromkeys(value.args)]
    bits = sum(part for part, _ in parts)
    if bits >= whole:
        return whole, []
    return bits, [value, *(v for _, inner in parts for v in inner)]
