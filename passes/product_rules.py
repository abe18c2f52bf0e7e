"""Rules on products by matrices that several others share, as heads of an attention do."""

from __future__ import annotations

from tbc.ir import Uses, Value
from tbc.ops import Broadcast, MatMul, Reshape, Transpose


def product_of_repeated(value: Value, uses: Uses) -> Value | None:
    """a @ (every matrix of b g times) -> groups of g matrices of a @ b."""
    match value:
        case Value(MatMul(), (a, b)) if a.type.rank == b.type.rank > 2:
            once = _unrepeated(b)
            if once is None or a.type.shape[-3] != b.type.shape[-3]:
                return None
            build, count, (*lead, heads, m, k) = value.builder, once.type.shape[-4], a.type.shape
            apart = build(Reshape((*lead, count, heads // count, m, k)), a)
            return build(Reshape(value.type.shape), build(MatMul(), apart, once))
    return None


def _unrepeated(b: Value) -> Value | None:
    """x[…, count, 1, k, n] where b[…, count * g, k, n] has each of its matrices g times."""
    match b:
        case Value(Transpose(perm), (source,)) if perm == _swapped(b.type.rank):
            once = _unrepeated(source)
            return None if once is None else once.builder(Transpose(_swapped(once.type.rank)), once)
        case Value(Reshape(), (Value(Broadcast(), (x,)) as wide,)):
            if wide.type.rank != b.type.rank + 1:
                return None
            *lead, count, _, k, n = wide.type.shape
            shapes = (*lead, count, 1, k, n), (*lead, b.type.shape[-3], k, n)
            return x if (x.type.shape, b.type.shape) == shapes else None
    return None


def _swapped(rank: int) -> tuple[int, ...]:
    return (*range(rank - 2), rank - 1, rank - 2)


def product_by_shared(value: Value, uses: Uses) -> Value | None:
    """Several matrices, each times the same one -> one matrix of all their rows times it."""
    match value:
        case Value(MatMul(), (a, b)) if a.type.rank == b.type.rank > 2 and not b.is_constant:
            *lead, groups, m, k = a.type.shape
            if groups == 1 or b.type.shape[-3] != 1:
                return None
            build = value.builder
            rows = build(Reshape((*lead, groups * m, k)), a)
            once = build(Reshape((*b.type.shape[:-3], *b.type.shape[-2:])), b)
            return build(Reshape(value.type.shape), build(MatMul(), rows, once))
    return None


PRODUCT_RULES = (product_of_repeated, product_by_shared)
