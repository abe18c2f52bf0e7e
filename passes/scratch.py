"""Where blocks of scratch memory lie: in the arena or, as far as it goes, in faster memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Generic, TypeVar

from tbc import ops
from tbc.dims import upper
from tbc.ir import Value
from tbc.passes.phases import operations
from tbc.program import Block, Program, Step, crowded

T = TypeVar("T")

_SUMS = (
    *(ops.Reduce, ops.Cumulate, ops.MatMul),
    *(ops.PackedDot, ops.PackedGroupedDot, ops.CodedDot),
)
"""What reads its arguments more than once."""

_LOOKS = 1 << 20
"""Comparisons of two blocks, about, that finding a small region may take."""


@dataclass(frozen=True)
class Region(Generic[T]):
    """Bytes that blocks share.

    Attributes:
        offsets: where each block begins.
        size: of all of it.
    """

    offsets: dict[T, int]
    size: int


def accesses(steps: Sequence[Step], bodies: Mapping[Step, Program]) -> Counter[Value | Step]:
    """How often elements of each value, and of what each loop works in, are read or written, about.

    What a product or reduction takes is read once for every operation of it.
    """
    found: Counter[Value | Step] = Counter()
    for step in steps:
        for value in step.results:
            found[value] += upper(value.type.size)
        taken, anchor = _operands(step), step.anchor
        for value in step.reads:
            size = upper(value.type.size)
            found[value] += max(size, operations(anchor)) if value in taken else size
    for step, body in bodies.items():
        assert step.loop is not None
        rounds = 1 if step.loop.trip is None else upper(step.loop.trip)
        found[step] = rounds * sum(accesses(body.steps, {}).values())
    return found


def _operands(step: Step) -> set[Value]:
    """What a step reads for its product or reduction."""
    found: set[Value] = set()
    todo = [*step.anchor.args] if isinstance(step.anchor.op, _SUMS) else []
    while todo:
        value = todo.pop()
        if value not in found:
            found.add(value)
            todo += [] if value in step.reads else value.args
    return found & {*step.reads}


def regions(
    blocks: Mapping[T, Block], accesses: Mapping[T, int], limit: int
) -> tuple[Region[T], Region[T]]:
    """Fast memory of at most `limit` bytes, and the arena, which has all other blocks.

    The blocks with the most accesses a byte come first, each where it fits beside those before it.
    """
    fast: list[T] = []
    if limit:
        density = {key: accesses[key] / block.size for key, block in blocks.items() if block.size}
        ranked = sorted(density, key=lambda key: (-density[key], blocks[key].number))
        fast = list(first_fit(blocks, ranked, limit).offsets)
    chosen = {key: blocks[key] for key in fast}
    rest = {key: block for key, block in blocks.items() if key not in chosen}
    found = min(arena(chosen), first_fit(blocks, fast, limit), key=attrgetter("size"))
    return found, arena(rest)


def arena(blocks: Mapping[T, Block]) -> Region[T]:
    """A small region for all blocks.

    First fit, the largest block first. Where that leaves gaps, the block at the top goes first
    instead, again and again, and the smallest region is taken: a hill climb as in Arm's Vela.
    """
    order = sorted(blocks, key=lambda key: (-blocks[key].size, blocks[key].number))
    found = best = first_fit(blocks, order)
    bound = sum(block.size for block in crowded(blocks.values()))
    for _ in range(min(len(order), _LOOKS // (len(order) ** 2 + 1))):
        if best.size == bound:
            break
        top = max(order, key=lambda key: found.offsets[key] + blocks[key].size)
        order.insert(0, order.pop(order.index(top)))
        found = first_fit(blocks, order)
        best = min(best, found, key=attrgetter("size"))
    return best


def first_fit(blocks: Mapping[T, Block], order: Sequence[T], limit: int | None = None) -> Region[T]:
    """Each block, in order, at the lowest offset where nothing lies that lives with it.

    Those that would end behind the limit are left out.
    """
    placed: list[tuple[int, Block]] = []
    offsets: dict[T, int] = {}
    for key in order:
        block, offset = blocks[key], 0
        alive = [p for p in placed if p[1].born <= block.dies and block.born <= p[1].dies]
        for start, other in sorted(alive, key=lambda p: p[0]):
            if offset + block.size <= start:
                break
            offset = max(offset, start + other.size)
        if limit is None or offset + block.size <= limit:
            offsets[key] = offset
            placed.append((offset, block))
    return Region(offsets, max((start + block.size for start, block in placed), default=0))
