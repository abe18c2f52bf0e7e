"""Depthwise: convolutions with one low-bit filter a channel, of quantised activations, in integers.

Such a convolution has no matrix product: it is the sum over each window of activations times
weights, and it stays that, of 8-bit codes and trits in i32. The sum is exact; scales and zero
points are taken out of it as `quantize` does with those of a dot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tbc.constants import constant, value_of
from tbc.dims import static
from tbc.ir import Graph, Value, rebuilt
from tbc.kernels import takes_unsigned
from tbc.ops import INDEX_MAPS, Binary, Cast, Lift, Reduce, Reshape, Windows
from tbc.passes.carry import reshaped
from tbc.passes.codes import Codes, Term, factor, scaled
from tbc.passes.ranges import Ranges
from tbc.passes.trits import LowBit, detect
from tbc.types import DType

if TYPE_CHECKING:
    from tbc.target import Target


CARRIERS = (Cast, *INDEX_MAPS)
"""What may stand between windows and the product."""


class Filters(NamedTuple):
    """A sum over windows x[N, C, *O, *K] times constant filters w[C, 1…, *K]."""

    x: Value
    w: Value
    taps: int

    @property
    def matrix(self) -> Value:
        """The filters as w[C, taps]."""
        channels = self.w.type.shape[0]
        return reshaped(self.w, (channels, self.taps))


def depthwise(graph: Graph, target: Target) -> Graph:
    """The graph with depthwise sums over integer codes and low-bit filters in i32."""
    ranges, unsigned = Ranges(), takes_unsigned(target)

    def change(value: Value, args: tuple[Value, ...]) -> Value:
        value = rebuilt(value, args)
        filters = filters_of(value)
        if filters is None:
            return value
        low = low_bit(filters)
        codes = factor(filters.x, ranges, unsigned)
        if isinstance(low, str) or codes is None:
            return value
        return _integer(value, filters, low, codes) or value

    return graph.rebuild(change)


def filters_of(value: Value) -> Filters | None:
    """The parts of a depthwise convolution, or None if the value is none."""
    match value:
        case Value(Reduce("sum", axes, False), (Value(Binary("mul"), (x, w)),)) if w.is_constant:
            windows = x
            while isinstance(windows.op, CARRIERS) and not isinstance(windows.op, Windows):
                windows = windows.args[0]
            spatial = len(axes)
            rank = 2 + 2 * spatial
            aligned = x.type.rank == rank and w.type.rank == rank - 1
            if (
                isinstance(windows.op, Windows)
                and aligned
                and axes == (*range(rank - spatial, rank),)
            ):
                taps = [static(d, "a filter's size") for d in w.type.shape[-spatial:]]
                return Filters(x, w, int(np.prod(taps)))
    return None


def low_bit(filters: Filters) -> LowBit | str:
    """The filters as low-bit weights, or why they are none."""
    found = detect(value_of(filters.matrix))
    if isinstance(found, LowBit) and found.scale.shape[1] > 1:
        return "the scales of a filter's taps differ"
    return found


def _integer(value: Value, filters: Filters, low: LowBit, codes: Codes) -> Value | None:
    """The convolution of the codes by the signs, and what was taken out of the sum."""
    build = value.builder
    reduce = value.op
    assert isinstance(reduce, Reduce)
    whole = value.type.dtype is DType.i32
    terms = (*codes.offsets, *codes.scales)
    if (whole and codes.scales) or any(not _even(t.value, len(reduce.axes)) for t in terms):
        return None
    spatial = len(reduce.axes)
    matrix = build(Cast(DType.f32), filters.matrix)
    trits = build(Lift(low.dtype), matrix, constant(build, low.scale, DType.f32))
    w = build(Cast(DType.i32), build(Reshape(filters.w.type.shape), trits))
    x = build(Cast(DType.i32), codes.q)
    y = build(reduce, build(Binary("mul"), x, w))
    sums = build(Reduce("sum", tuple(range(1 + spatial, 1 + 2 * spatial))), w)
    if codes.shift:
        shift = build(Binary("mul"), sums, constant(build, codes.shift, DType.i32))
        y = build(Binary("add"), y, shift)
    for fn, z, _ in codes.offsets:
        y = build(Binary(fn), y, build(Binary("mul"), _summed(z, spatial), sums))
    scale = low.scale[:, 0].reshape(-1, *[1] * spatial)
    if whole:
        return build(Binary("mul"), y, constant(build, scale.astype(np.int64), DType.i32))
    scales = [Term(fn, _summed(s, spatial), first) for fn, s, first in codes.scales]
    y = scaled(build(Cast(DType.f32), y), scales)
    return build(Binary("mul"), y, constant(build, scale, DType.f32))


def _even(term: Value, spatial: int) -> bool:
    """Whether a term is one value over each window."""
    return all(d == 1 for d in term.type.shape[-spatial:])


def _summed(term: Value, spatial: int) -> Value:
    """A term without the axes of the window."""
    return reshaped(term, term.type.shape[:-spatial]) if term.type.rank else term
