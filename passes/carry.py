"""Carries an operand of an elementwise operation through the index map that follows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tbc.dims import Dim, product
from tbc.ir import Value
from tbc.ops import Broadcast, Gather, Pad, Reduce, Reshape, Slice, Transpose, Windows


def reshaped(value: Value, shape: tuple[Dim, ...]) -> Value:
    """The value in another shape; itself where it has that shape."""
    return value if value.type.shape == shape else value.builder(Reshape(shape), value)


def swapped(value: Value) -> Value:
    """The value with its last two axes swapped."""
    rank = value.type.rank
    swap = Transpose((*range(rank - 2), rank - 1, rank - 2))
    return value.args[0] if value.op == swap else value.builder(swap, value)


def by_constant(value: Value, make: Callable[[Value, Value], Value | None]) -> Value | None:
    """What `make` makes of the operands of a product whose second one is constant.

    Where that is the first one, the transposed product is made, and transposed.
    """
    a, b = value.args
    if b.is_constant:
        return None if a.is_constant else make(a, b)
    if not a.is_constant:
        return None
    found = make(swapped(b), swapped(a))
    return None if found is None else swapped(found)


def carried(term: Value, step: Value) -> Value | None:
    """What broadcasts against step's result as term does against its first argument, or None.

    None where the elements that the term is equal for do not stay together.
    """
    if term.type.rank == 0:
        return term
    source = step.args[0].type.shape
    shape = (1,) * (len(source) - term.type.rank) + term.type.shape
    term = reshaped(term, shape)
    build = term.builder
    match step.op:
        case Transpose():
            return build(step.op, term)
        case Broadcast(new):
            return reshaped(term, (1,) * (len(new) - len(shape)) + shape)
        case Reshape(new):
            split = _split(shape, source, new)
            return None if split is None else reshaped(term, split)
        case Slice() as op:
            kept = [d != 1 for d in shape]
            starts = tuple(s if k else 0 for s, k in zip(op.starts, kept, strict=True))
            strides = tuple(s if k else 1 for s, k in zip(op.steps, kept, strict=True))
            sizes = tuple(s if k else 1 for s, k in zip(op.shape, kept, strict=True))
            return build(replace(op, starts=starts, steps=strides, shape=sizes), term)
        case Pad(before, new):
            grown = [b != 0 or a != d for b, a, d in zip(before, new, source, strict=True)]
            return None if any(g and d != 1 for g, d in zip(grown, shape, strict=True)) else term
        case Windows(kernel) if all(d == 1 for d in shape[2:]):
            return reshaped(term, shape + (1,) * len(kernel))
        case Reduce(_, axes, keepdims) if all(shape[a] == 1 for a in axes):
            kept_axes = [a for a in range(len(shape)) if keepdims or a not in axes]
            return reshaped(term, tuple(shape[a] for a in kept_axes))
        case Gather(axis) if shape[axis] == 1:
            ones = (1,) * step.args[1].type.rank
            return reshaped(term, (*shape[:axis], *ones, *shape[axis + 1 :]))
    return None


def _split(
    term: tuple[Dim, ...], source: tuple[Dim, ...], target: tuple[Dim, ...]
) -> tuple[Dim, ...] | None:
    """The shape of a term after a reshape of what it broadcasts against, or None.

    The smallest runs of axes of source and target with equally many elements correspond; a term
    must have all of a run's elements or be 1 along it.
    """
    result: list[Dim] = []
    i = j = 0
    while i < len(source) or j < len(target):
        run = _run(source, target, i, j)
        if run is None:
            return None
        sizes, ends = term[i : run[0]], run
        if all(d == 1 for d in sizes):
            result += [1] * (ends[1] - j)
        elif sizes == source[i : ends[0]]:
            result += target[j : ends[1]]
        else:
            return None
        i, j = ends
    return tuple(result)


def _run(
    source: tuple[Dim, ...], target: tuple[Dim, ...], i: int, j: int
) -> tuple[int, int] | None:
    """The nearest ends (i', j') with as many elements in source[i:i'] as in target[j:j']."""
    for total in range(1, len(source) + len(target) - i - j + 1):
        for left in range(max(0, total - len(target) + j), min(total, len(source) - i) + 1):
            ends = i + left, j + total - left
            if product(source[i : ends[0]]) == product(target[j : ends[1]]):
                return ends
    return None
