"""Requantize: sums become codes of the next layer in integers, where that gives the same codes.

Between the exact sums of one layer and the 8-bit codes of the next stand floats: scales, biases,
activations, a rounding. On a microcontroller they cost more than the sums of a short row; without a
floating-point unit, more than all else. They do not decrease as a sum grows, so codes change at
certain sums, their thresholds, which a bisection finds. A line in fixed point,

    code = clip((mulh(sum << before, multiplier) + offset) >> after)

replaces the floats of all rows if for each there is one that changes at just these sums. Whether
it does is computed, not estimated: every code of every sum is the same.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from tbc.constants import constant, value_of
from tbc.dims import Dim, Expr
from tbc.indices import Index, broadcast_index, mapped_index
from tbc.ir import Graph, Value, rebuilt
from tbc.ops import Binary, Cast, Reshape, Transpose, Unary
from tbc.passes.carry import reshaped
from tbc.passes.ranges import Ranges
from tbc.program import loop_index
from tbc.reference import evaluate
from tbc.types import DType

if TYPE_CHECKING:
    from tbc.target import Target

Array: TypeAlias = npt.NDArray[np.int64]

_BITS = 31
"""Of what a register holds beside a sign."""
_SEARCHES = 100
"""Rounds of the search for a slope; each leaves two thirds of where it may be."""


def requantize(graph: Graph, target: Target) -> Graph:
    """The graph with integers between layers of integers, where floats are dear."""
    if not target.floats_are_dear:
        return graph
    ranges, uses = Ranges(), graph.uses()
    new: dict[Value, Value] = {}

    def change(value: Value, args: tuple[Value, ...]) -> Value:
        made = None
        if isinstance(value.op, Cast) and value.type.dtype in (DType.i8, DType.u8):
            made = _in_integers(value, uses, ranges, new)
        new[value] = made or rebuilt(value, args)
        return new[value]

    return graph.rebuild(change)


class Operand(NamedTuple):
    """An operation on the way from sums to codes, and its constants, one for each row or one.

    `constant` is [rows, 1], or [1, 1]; None where the operation takes the value alone.
    """

    value: Value
    constant: npt.NDArray[np.float32] | None


@dataclass(frozen=True)
class Chain:
    """What makes codes of sums.

    Attributes:
        sums: i32, exact.
        axis: that of the rows, whose constants differ; None where none do.
        steps: the operations, that on the sums first, index maps aside.
        path: all values from behind the sums to the codes.
    """

    sums: Value
    axis: int | None
    steps: tuple[Operand, ...]
    path: tuple[Value, ...]

    def codes(self, sums: Array) -> Array:
        """The codes of sums[rows, points]."""
        result: npt.NDArray[np.generic] = sums.astype(np.int32)
        with np.errstate(all="ignore"):
            for value, other in self.steps:
                result = evaluate(value.op, [result] if other is None else [result, other])
        return result.astype(np.int64)

    def signs(self, rows: int) -> Array:
        """1 where the codes of a row do not decrease as its sum grows, else -1: [rows, 1]."""
        signs = np.ones((rows, 1), np.int64)
        for value, other in self.steps:
            if other is not None and value.op in (Binary("mul"), Binary("div")):
                signs = signs * np.where(other < 0, -1, 1)
        return signs


def chain_of(codes: Value, uses: Counter[Value]) -> Chain | None:
    """The chain that ends with a cast to codes; None if there is none, or others read of it."""
    index: Index = loop_index(codes.type.shape)
    value, path = codes, [codes]
    others: list[tuple[Value, Value | None, Index]] = []
    while not (isinstance(value.op, Cast) and value.args[0].type.dtype is DType.i32):
        match value:
            case Value(Reshape() | Transpose(), (x,)):
                index = mapped_index(value, index)
            case Value(Cast() | Unary("round" | "floor" | "ceil"), (x,)):
                others.append((value, None, ()))
            case Value(Binary("add" | "sub" | "mul" | "div" | "max" | "min"), (x, c)) if (
                c.is_constant and not x.is_constant and x.type.size == value.type.size
            ):
                others.append((value, c, broadcast_index(c, index)))
                index = broadcast_index(x, index)
            case _:
                return None
        if uses[x] != 1 or x.type.dtype not in (DType.f32, DType.i32):
            return None
        value = x
        path.append(value)
    others.append((value, None, ()))
    (sums,) = value.args
    if sums.is_constant or len(path) == 1:
        return None
    found = [_constant(value, c, place) for value, c, place in reversed(others)]
    along = {along for along, _ in found if along is not None}
    axes = [axis for axis, at in enumerate(index) if at in along]
    if any(operand is None for _, operand in found) or len(along) != len(axes) or len(along) > 1:
        return None
    steps = tuple(operand for _, operand in found if operand is not None)
    return Chain(sums, axes[0] if axes else None, steps, tuple(reversed(path)))


def _constant(value: Value, c: Value | None, index: Index) -> tuple[Dim | None, Operand | None]:
    """Along what an operation's constants differ, and these; no operand where along more."""
    if c is None:
        return None, Operand(value, None)
    moving = [(axis, at) for axis, at in enumerate(index) if at != 0]
    elements = np.asarray(value_of(c))
    if not moving and elements.size == 1:
        return None, Operand(value, elements.reshape(1, 1))
    ((_, along), *more) = moving or [(0, 0)]
    if more or not isinstance(along, Expr) or elements.size != max(elements.shape):
        return None, None
    return along, Operand(value, elements.reshape(-1, 1))


def _in_integers(
    codes: Value, uses: Counter[Value], ranges: Ranges, new: dict[Value, Value]
) -> Value | None:
    """The codes computed of the sums in integers; None where that is not done."""
    chain = chain_of(codes, uses)
    most = chain and _most(chain.sums, ranges)
    line = line_of(chain, most, codes.type.dtype) if chain and most else None
    if not chain or not line:
        return None
    x, build = new[chain.sums], codes.builder
    rank = 0 if chain.axis is None else chain.sums.type.rank - chain.axis - 1

    def rows(elements: Array) -> Value:
        held = elements.reshape(-1) if elements.size > 1 else elements.reshape(())
        shape = (*held.shape, *((1,) * rank)) if elements.size > 1 else ()
        return constant(build, held.reshape(shape), DType.i32)

    def number(value: int) -> Value:
        return constant(build, value, DType.i32)

    high = build(Binary("shl"), x, number(line.before)) if line.before else x
    high = build(Binary("mulh"), high, rows(line.multipliers))
    code = build(Binary("add"), high, rows(line.offsets))
    code = build(Binary("shr"), code, number(line.after))
    code = build(Binary("max"), code, number(line.least))
    code = build(Binary("min"), code, number(line.most))
    made = build(Cast(codes.type.dtype), code)
    for value in chain.path:
        match value.op:
            case Reshape() | Transpose():
                made = build(value.op, made)
            case _ if value.type.shape != made.type.shape:
                made = reshaped(made, value.type.shape)
    return made


def _most(sums: Value, ranges: Ranges) -> int | None:
    """The greatest magnitude that sums can have; None where they need all bits."""
    found = ranges(sums)
    most = max(abs(found.lo), abs(found.hi))
    return int(most) if most < 1 << (_BITS - 1) else None


# -- the line -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """clip((mulh(sum << before, multipliers) + offsets) >> after, least, most), row by row.

    Attributes:
        multipliers: [rows, 1], i32.
        offsets: [rows, 1], i32.
    """

    before: int
    multipliers: Array
    offsets: Array
    after: int
    least: int
    most: int

    def high(self, sums: Array) -> Array:
        """The upper halves of the products, of sums[rows, points]."""
        return (sums << self.before) * self.multipliers >> 32


def line_of(chain: Chain, bound: int, dtype: DType) -> Line | None:
    """The line whose codes are those of a chain, for all sums of a magnitude up to the bound.

    None where there is none, at least none that 32 bits can hold.
    """
    rows = max([c.shape[0] for _, c in chain.steps if c is not None], default=1)
    if any(not np.isfinite(c).all() for _, c in chain.steps if c is not None):
        return None
    signs = chain.signs(rows)
    ends = chain.codes(signs * np.array([[-bound, bound]]))
    least, most = int(ends.min()), int(ends.max())
    if not dtype.range[0] <= least < most <= dtype.range[1]:
        return None
    levels = np.arange(least + 1, most + 1, dtype=np.int64)[None, :]
    firsts = _thresholds(chain, signs, levels, bound)
    reached, crossed = firsts <= bound, firsts > -bound
    slopes, gap = _slopes(firsts, levels, reached, crossed)
    before = _BITS - 1 - bound.bit_length()
    steepest = float(slopes.max())
    if before < 0 or not gap > 0 or not np.isfinite(steepest):
        return None
    after = 31
    while after > 0 and (
        steepest * 2.0 ** (after + 32 - before) >= (1 << _BITS) - 1
        or (steepest * bound + max(abs(least), abs(most)) + 1) * 2.0**after >= 1 << (_BITS - 1)
    ):
        after -= 1
    multipliers = signs * np.rint(slopes * 2.0 ** (after + 32 - before)).astype(np.int64)
    line = Line(before, multipliers, np.zeros_like(multipliers), after, least, most)
    low = np.where(reached, (levels << after) - line.high(signs * firsts), -(1 << 62)).max(1)
    high = (levels << after) - 1 - line.high(signs * (firsts - 1))
    high = np.where(crossed, high, 1 << 62).min(1)
    low, high = np.maximum(low, -(1 << _BITS)), np.minimum(high, (1 << _BITS) - 1)
    offsets = (low + high)[:, None] // 2
    extremes = line.high(np.array([[-bound, bound]])) + offsets
    fits = (low <= high).all() and np.abs(extremes).max() < 1 << _BITS
    return Line(before, multipliers, offsets, after, least, most) if fits else None


def _thresholds(chain: Chain, signs: Array, levels: Array, bound: int) -> Array:
    """[rows, levels]: the least sum, by its row's sign, with a code of a level or more.

    bound + 1 where none has.
    """
    low = np.full((len(signs), levels.shape[1]), -bound, np.int64)
    high = np.full_like(low, bound + 1)
    while (low < high).any():
        middle = (low + high) // 2
        is_there = chain.codes(signs * middle) >= levels
        high = np.where(is_there, middle, high)
        low = np.where(is_there, low, np.minimum(middle + 1, high))
    return low


def _slopes(
    firsts: Array, levels: Array, reached: npt.NDArray[np.bool_], crossed: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float64], float]:
    """Of each row the slope, [rows, 1], that leaves the most room for an offset; the least room.

    A line of slope m and offset b changes at the thresholds if b is at least level - m first for
    all that are reached, and below level - m (first - 1) for all that are crossed. The room
    between is concave in m, so thirds of an interval find its greatest.
    """

    def room(slopes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        above = np.where(crossed, levels - slopes * (firsts - 1), np.inf).min(1, keepdims=True)
        below = np.where(reached, levels - slopes * firsts, -np.inf).max(1, keepdims=True)
        return np.asarray(above - below)

    low = np.zeros((len(firsts), 1))
    high = np.full_like(low, float(levels.size + 1))
    for _ in range(_SEARCHES):
        third = (high - low) / 3
        left, right = low + third, high - third
        better = room(left) < room(right)
        low, high = np.where(better, left, low), np.where(better, high, right)
    slopes = (low + high) / 2
    return slopes, float(room(slopes).min())
