"""Lift: constant weights that are low-bit in value become trits or signs and their scales.

How a weight came about (a quantiser's formula, packed codes, a folded initializer) does not matter:
its elements are computed and looked at. The float dot with a lifted weight sums x or -x and
multiplies by the scale once, where the product summed s*x or -s*x: it is the same number in fewer
roundings, except that a weight of 0 contributes nothing where x is infinite or not a number. A
weight of several planes is a sum of such dots. Scales of columns are multiplied to the activations
first, as floats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tbc.constants import constant, value_of
from tbc.dims import Dim, product, static
from tbc.ir import Graph, Value, rebuilt, rewrite
from tbc.kernels import takes_unsigned
from tbc.layout import Layout
from tbc.ops import Binary, Cast, Concat, Dot, GroupedDot, Lift, MatMul, Slice
from tbc.passes.carry import reshaped, swapped
from tbc.passes.codes import factor, integer_dot
from tbc.passes.columns import Part, detect_parts
from tbc.passes.estimators import straight_through
from tbc.passes.gains import Gained, detect_gains
from tbc.passes.planes import WORTH
from tbc.passes.ranges import Ranges
from tbc.passes.refusal import Refusal
from tbc.passes.sums import integer_sum, sum_of_parts
from tbc.passes.trits import LowBit, detect
from tbc.types import DType

if TYPE_CHECKING:
    from tbc.target import Target

FLOATS = (DType.f32, DType.f16, DType.bf16)

Found = LowBit | Gained | tuple[Part, ...]
"""What a weight was found to be."""

BATCHES = 64
"""A batch of more weights than these is not lifted: each one is a dot of its own."""


def lift(graph: Graph, target: Target) -> Graph:
    """The graph with each product by a low-bit constant weight as a dot and a rescale."""
    graph = rewrite(graph, (straight_through,))
    lifter = Lifter(takes_unsigned(target))

    def change(value: Value, args: tuple[Value, ...]) -> Value:
        value = rebuilt(value, args)
        if isinstance(value.op, MatMul) and not value.is_constant:
            lifted = lifter(value)
            return value if isinstance(lifted, Refusal) else lifted
        return value

    return graph.rebuild(change)


class Lifter:
    """Lifts matrix products; weights and ranges looked at are remembered, their elements not.

    Codes of activations from 0 to 255 stay `unsigned` if that is asked for.
    """

    def __init__(self, unsigned: bool = False) -> None:
        self._ranges, self._unsigned = Ranges(), unsigned
        self._found: dict[Value, Found | str] = {}

    def __call__(self, y: Value) -> Value | Refusal:
        """The product as a dot with a low-bit weight, or the reason why it stays as it is."""
        a, b = y.args
        if a.is_constant:
            found = self(y.builder(MatMul(), swapped(b), swapped(a)))
            return found if isinstance(found, Refusal) else swapped(found)
        if not b.is_constant:
            return Refusal("both operands are computed at run time, as in attention: no weight")
        if b.type.dtype not in (*FLOATS, DType.i32):
            name = b.type.dtype.name
            return Refusal(f"dots in {name} have no low-bit form", "export the model in f32")
        if product(b.type.shape[:-2]) != 1:
            return self._batch(a, b)
        lead = b.type.rank - a.type.rank
        a = reshaped(a, (*[1] * lead, *a.type.shape))
        return self._dot(a, reshaped(b, b.type.shape[-2:]))

    def _dot(self, a: Value, b: Value) -> Value | Refusal:
        """The product by one weight b[k, n]."""
        low = self._look(b)
        if isinstance(low, str):
            return Refusal("", weight=b)
        return self._integer(a, b, low) if a.type.dtype is DType.i32 else _float(a, b, low)

    def _look(self, b: Value) -> Found | str:
        if b not in self._found:
            w = value_of(b).T
            # Gains leave few bits, but integers as a sum of planes stay integers.
            is_float = b.type.dtype.is_float
            others = (_gains, detect_parts) if is_float else (detect_parts, _gains)
            found: Found | str = detect(w)
            for look in others:
                found = look(w) if isinstance(found, str) else found
            self._found[b] = found
        return self._found[b]

    def _integer(self, a: Value, b: Value, low: Found) -> Value | Refusal:
        """The dot of integers, exact modulo 2^32 like the product."""
        codes, known = factor(a, self._ranges, self._unsigned), self._ranges(a)
        if codes is None or codes.scales:
            span = f"from {known.lo:.0f} to {known.hi:.0f}"
            reason = f"integer activations {span} do not fit 8 bits"
            return Refusal(reason, "clip them to 8 bits in the model")
        if isinstance(low, Gained):
            reason = "integer weights have a scale for each column, which no sum of integers allows"
            return Refusal(reason, "scale the activations before they are rounded")
        wide = a.builder(Cast(DType.f32), b)
        if not isinstance(low, LowBit):
            return integer_sum(a, codes, max(-known.lo, known.hi), wide, low[0].planes)
        if low.scale.shape[1] > 1:
            return Refusal("integer weights have scales that change along k")
        return _rescaled(integer_dot(codes, _lifted(wide, low)), low)

    def _batch(self, a: Value, b: Value) -> Value | Refusal:
        """The products by a batch of weights (the groups of a convolution) as one dot each."""
        *batch, k, n = (static(d, "the size of a weight") for d in b.type.shape)
        if np.prod(batch) > BATCHES:
            count = f"{np.prod(batch)} groups"
            return Refusal(f"a grouped convolution: of {count}, more than {BATCHES}")
        if not n * k:
            return Refusal("the weight is empty")
        lead = a.type.rank - b.type.rank
        a = reshaped(a, (*[1] * -lead, *a.type.shape))
        done: dict[tuple[int, ...], Value] = {}
        for at in np.ndindex(*batch):
            weight = reshaped(_part(b, at, 0), (k, n))
            low = self._look(weight)
            if isinstance(low, str):
                return Refusal(f"a grouped convolution: in group {list(at)}, ", weight=weight)
            if (bits := _packed_bits(low, n, k)) >= WORTH:
                reason = f"a grouped convolution: {n} filters a group would take {bits:.3g} bits"
                return Refusal(f"{reason} a weight, {WORTH} or more", "make fewer, larger groups")
            lifted = self._dot(_part(a, at, max(lead, 0)), weight)
            if isinstance(lifted, Refusal):
                return lifted
            done[at] = lifted
        return _joined(done, tuple(batch), max(lead, 0))


def _gains(w: npt.NDArray[Any]) -> Gained | str:
    """The gains of w[n, k]'s columns, if with them it takes few bits."""
    found = detect_gains(w)
    if found is None or _packed_bits(found, *w.shape) >= WORTH:
        return "no gains are worth it"
    return found


def _packed_bits(low: Found, n: int, k: int) -> float:
    """Bits a weight as packed, rows and k filled up to whole units."""
    if isinstance(low, Gained):
        return _packed_bits(low.low, n, k) + 32 / n
    if isinstance(low, LowBit):
        planes = [(low.dtype, low.scale.shape[1])]
    else:
        planes = [(p.planes.dtype, p.planes.groups) for p in low for _ in p.planes.scales]
    layouts = (Layout("b1" if d is DType.sign else "i2", k // g if g > 1 else 0) for d, g in planes)
    return 8 * sum(layout.size(n, k) for layout in layouts) / (n * k)


def _part(x: Value, at: tuple[int, ...], lead: int) -> Value:
    """One element of the batch axes, kept as axes of 1; those of size 1 broadcast."""
    batch = range(lead, lead + len(at))
    starts: list[Dim] = [0] * x.type.rank
    shape = list(x.type.shape)
    for axis, index in zip(batch, at, strict=True):
        starts[axis] = 0 if shape[axis] == 1 else index
        shape[axis] = 1
    return x.builder(Slice(tuple(starts), (1,) * x.type.rank, tuple(shape)), x)


def _joined(parts: dict[tuple[int, ...], Value], batch: tuple[int, ...], lead: int) -> Value:
    """The parts put together again, the innermost batch axis first."""
    for axis in reversed(range(len(batch))):
        rows: dict[tuple[int, ...], list[Value]] = {}
        for at, part in parts.items():
            rows.setdefault(at[:axis], []).append(part)
        parts = {at: row[0].builder(Concat(lead + axis), *row) for at, row in rows.items()}
    return parts[()]


def _float(a: Value, b: Value, low: Found) -> Value:
    """The float dot; of halves in f32, like their product, and rounded once."""
    build, dtype = a.builder, a.type.dtype
    if dtype is not DType.f32:
        a, b = build(Cast(DType.f32), a), build(Cast(DType.f32), b)
    if isinstance(low, Gained):
        gains = constant(build, low.gains, DType.f32)
        a = build(Binary("mul"), a, gains)
        b = build(Binary("div"), b, reshaped(gains, (len(low.gains), 1)))
        low = low.low
    if not isinstance(low, LowBit):
        y = sum_of_parts(a, b, low)
    elif low.scale.shape[1] > 1:
        y = build(GroupedDot(), a, _lifted(b, low), constant(build, low.scale, DType.f32))
    else:
        y = _rescaled(build(Dot(), a, _lifted(b, low)), low)
    return y if dtype is DType.f32 else build(Cast(dtype), y)


def _lifted(b: Value, low: LowBit) -> Value:
    """The low-bit w[n, k] of a float b[k, n], as a recipe."""
    return b.builder(Lift(low.dtype), swapped(b), constant(b.builder, low.scale, DType.f32))


def _rescaled(y: Value, low: LowBit) -> Value:
    """y times the scale of each row, left out where that is 1 or, as is y then, 0."""
    scale = low.scale[:, 0] if low.scale.size > 1 else low.scale[0, 0]
    if ((scale == 1) | (scale == 0)).all():
        return y
    whole = scale if y.type.dtype.is_float else np.asarray(scale).astype(np.int64)
    return y.builder(Binary("mul"), y, constant(y.builder, whole, y.type.dtype))
