"""Activations as integers: x = scale * (q + offset) with q in 8 bits, through index maps.

`factor` walks from a dot's activations up to the integers that they were made of, and rebuilds the
index maps on the way (patches, transposes, reshapes) on the integers instead. What multiplies or
offsets them must be one value along k, so that it commutes with the dot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

from tbc.constants import constant, value_of
from tbc.dims import Dim, bounds, static
from tbc.ir import Value
from tbc.ops import (
    Binary,
    Broadcast,
    Cast,
    Dot,
    Gather,
    Pad,
    Reduce,
    Reshape,
    Slice,
    Transpose,
    Windows,
)
from tbc.passes.carry import carried, reshaped
from tbc.passes.ranges import Range, Ranges, representable
from tbc.types import DType


class Term(NamedTuple):
    """One operand around the integers: `fn(x, value)`, or `fn(value, x)` where it comes `first`."""

    fn: str
    value: Value
    first: bool


@dataclass(frozen=True)
class Codes:
    """x = the scales, innermost first, applied to (q + shift, then the offsets added).

    Attributes:
        q: i8, or u8 where that was asked for, in the shape of x.
        shift: a number to add to every element of q.
        offsets: i32 operands of `add` or `sub`, one value along the last axis.
        scales: f32 operands of `mul` or `div`, one value along the last axis.
    """

    q: Value
    shift: int
    offsets: tuple[Term, ...] = ()
    scales: tuple[Term, ...] = ()


def factor(x: Value, ranges: Ranges, unsigned: bool = False) -> Codes | None:
    """x by its integer codes, or None where it has none of at most 8 bits.

    Codes from 0 to 255 are u8 if `unsigned`, and i8 with a shift of 128 if not.
    """
    path: list[Value] = []
    found: list[tuple[Value, int]] = []
    step: Value | None = x
    while step is not None:
        known = ranges(step)
        if known.integer and known.hi - known.lo <= 255:
            found.append((step, len(path)))
        path.append(step)
        step = carrier(step, ranges)
    for codes, depth in reversed(found):
        if (result := _rebuild(codes, path[:depth][::-1], ranges, unsigned)) is not None:
            return result
    return None


def integer_dot(codes: Codes, w: Value) -> Value:
    """i32[…, n]: the exact dot of the integers (all but the scales) with a low-bit w[n, k]."""
    build = w.builder
    y = build(Dot(), codes.q, w)
    if codes.shift or codes.offsets:
        sums = build(Reduce("sum", (1,)), build(Cast(DType.i32), w))
        if codes.shift:
            shift = constant(build, codes.shift, DType.i32)
            y = build(Binary("add"), y, build(Binary("mul"), sums, shift))
        for fn, z, _ in codes.offsets:
            y = build(Binary(fn), y, build(Binary("mul"), z, sums))
    return y


def row_sums(codes: Codes) -> Value:
    """i32[…, 1]: the sums of the integers (all but the scales) along the last axis."""
    build, k = codes.q.builder, codes.q.type.shape[-1]
    along = (codes.q.type.rank - 1,)
    y = build(Reduce("sum", along, keepdims=True), build(Cast(DType.i32), codes.q))
    count = constant(build, static(k, "the size of a weight"), DType.i32)
    shift = constant(build, codes.shift, DType.i32)
    terms = [Term("add", shift, False)] if codes.shift else []
    for fn, z, _ in (*terms, *codes.offsets):
        y = build(Binary(fn), y, build(Binary("mul"), z, count))
    return y


def scaled(y: Value, scales: Sequence[Term]) -> Value:
    """y with scales applied, each by the operator and on the side that it had."""
    for fn, s, first in scales:
        y = y.builder(Binary(fn), *((s, y) if first else (y, s)))
    return y


def carrier(value: Value, ranges: Ranges) -> Value | None:
    """The argument that hands on the integers in `value`, if it may be such a step."""
    match value.op, value.args:
        case (Reshape() | Transpose() | Broadcast() | Slice() | Pad() | Windows() | Gather(), args):
            return args[0]
        case Reduce("max"), (x,):
            return x
        case Cast(dtype), (x,):
            known = ranges(x)
            return x if known.integer and _within(known, representable(dtype)) else None
        case Binary("mul" | "div" | "add" | "sub"), _:
            term = _term(value, ranges)
            return None if term is None else value.args[int(term.first)]
    return None


def _term(value: Value, ranges: Ranges) -> Term | None:
    """The operand of a binary operation that is not the carrier of the integers."""
    if not isinstance(value.op, Binary) or value.type.dtype not in (DType.f32, DType.i32):
        return None
    fn = value.op.fn
    a, b = value.args
    sides = [Term(fn, b, False)] if a.type.shape == value.type.shape else []
    if fn in ("mul", "add") and b.type.shape == value.type.shape:
        sides.append(Term(fn, a, True))
    if fn in ("add", "sub"):
        exact = ranges(value).integer and _within(ranges(value), representable(value.type.dtype))
        sides = [t for t in sides if exact and ranges(t.value).integer]
    # Of two operands of the full shape, the one known to be integer is the carrier.
    sides.sort(key=lambda t: (t.value.type.shape == value.type.shape, ranges(t.value).integer))
    return sides[0] if sides else None


class _Rebuilding:
    """The integers and their terms, as the steps towards x are taken one by one."""

    def __init__(self, codes: Value, known: Range, unsigned: bool):
        build = codes.builder
        self.dtype = DType.i8
        if unsigned and known.within(*DType.u8.range) and not known.within(*DType.i8.range):
            self.dtype = DType.u8
        self.shift = 0 if self.dtype is DType.u8 else _shift(known)
        if self.shift:
            shift = constant(build, self.shift, codes.type.dtype)
            codes = build(Binary("sub"), codes, shift)
        self.q = codes if codes.type.dtype is self.dtype else build(Cast(self.dtype), codes)
        self.offsets: list[Term] = []
        self.scales: list[Term] = []

    def take(self, step: Value, after: Value | None, ranges: Ranges) -> bool:
        """Take a step, the one `after` to follow; False where the integers do not pass it."""
        if isinstance(step.op, Cast):
            return True
        if isinstance(step.op, Binary):
            term = _term(step, ranges)
            return term is not None and self._add(term, step, ranges)
        for terms in (self.offsets, self.scales):
            for i, term in enumerate(terms):
                moved = carried(term.value, step)
                if moved is None:
                    return False
                terms[i] = term._replace(value=moved)
        return self._map(step, after, ranges)

    def _add(self, term: Term, step: Value, ranges: Ranges) -> bool:
        build, value = step.builder, term.value
        if value.type.size == 1:
            value = reshaped(value, ())
        if term.fn in ("mul", "div"):
            self.scales.append(term._replace(value=value))
            return step.type.dtype is DType.f32
        if self.scales:
            return False
        if value.is_constant and value.type.rank == 0:
            number = int(value_of(value))
            self.shift += number if term.fn == "add" else -number
        else:
            value = value if value.type.dtype is DType.i32 else build(Cast(DType.i32), value)
            self.offsets.append(Term(term.fn, value, False))
        return True

    def _map(self, step: Value, after: Value | None, ranges: Ranges) -> bool:
        rest = step.args[1:]
        if isinstance(step.op, Reduce):  # a maximum commutes with what does not decrease
            if any(ranges(t.value).lo <= 0 for t in self.scales):
                return False
        elif _is_pooling(step, after, ranges):
            rest = (constant(step.builder, self.dtype.range[0], self.dtype),)
        elif isinstance(step.op, Pad | Windows):
            padding = self._padding(rest[0], ranges)
            if padding is None:
                return False
            rest = (padding,)
        self.q = step.builder(step.op, self.q, *rest)
        return True

    def _padding(self, real: Value, ranges: Ranges) -> Value | None:
        """The code that stands for the number a map pads with."""
        build = real.builder
        known = ranges(real)
        if known.lo != known.hi or not known.integer or (self.scales and known.lo != 0):
            return None
        padding = constant(build, int(known.lo) - self.shift, DType.i32)
        for fn, z, _ in self.offsets:
            if z.type.rank:
                return None
            padding = build(Binary("sub" if fn == "add" else "add"), padding, z)
        if not ranges(padding).within(*self.dtype.range):
            return None
        if padding.is_constant:
            return constant(build, value_of(padding), self.dtype)
        return build(Cast(self.dtype), padding)


def _rebuild(codes: Value, steps: list[Value], ranges: Ranges, unsigned: bool) -> Codes | None:
    """The steps from the codes to x, taken on 8 bits."""
    state = _Rebuilding(codes, ranges(codes), unsigned)
    if not all(state.take(s, after, ranges) for s, after in zip_longest(steps, steps[1:])):
        return None
    terms = (*state.offsets, *state.scales)
    if any(t.value.type.rank and t.value.type.shape[-1] != 1 for t in terms):
        return None
    return Codes(state.q, state.shift, tuple(state.offsets), tuple(state.scales))


def _is_pooling(step: Value, after: Value | None, ranges: Ranges) -> bool:
    """Whether a maximum is taken of windows padded with -inf, each of which has an element."""
    match step, after:
        case Value(Windows() as op, (x, padding)), Value(Reduce("max", axes)):
            whole = axes == tuple(range(x.type.rank, 2 * x.type.rank - 2))
            return whole and ranges(padding).hi == -math.inf and never_empty(op, x.type.shape[2:])
    return False


def never_empty(op: Windows, sizes: tuple[Dim, ...]) -> bool:
    """Whether every window has an element that is not padding."""
    axes = zip(op.kernel, op.strides, op.dilations, op.before, op.out, sizes, strict=True)
    return all(
        (before == 0 or (dilation == 1 and before < kernel))
        and bounds(size - ((out - 1) * stride - before))[0] > 0
        for kernel, stride, dilation, before, out, size in axes
    )


def _within(known: Range, limits: Range) -> bool:
    return known.within(limits.lo, limits.hi)


def _shift(known: Range) -> int:
    """What to take from integers so that they fit i8."""
    if known.within(*DType.i8.range):
        return 0
    return 128 if known.within(*DType.u8.range) else int(known.lo) + 128
