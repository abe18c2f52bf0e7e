"""Activations: why those of a low-bit dot are multiplied as floats, and not as 8-bit codes."""

from __future__ import annotations

from tbc.ir import Value
from tbc.ops import Binary, Cast, Input
from tbc.passes.codes import carrier, factor
from tbc.passes.ranges import Ranges
from tbc.passes.refusal import Refusal


def why_float(x: Value, grouped: bool, ranges: Ranges) -> Refusal:
    """What keeps the activations x of a dot, with scales of groups or not, from being codes."""
    codes = factor(x, ranges)
    if codes is not None and grouped and codes.offsets:
        reason = "the weights have scales of groups, and the activations a zero point"
        return Refusal(reason, "quantise the activations symmetrically")
    columns = _by_column(x, ranges)
    step: Value | None = x
    last = x
    while step is not None and not step.is_constant:
        known = ranges(step)
        if known.integer and known.hi - known.lo <= 255:
            reason = f"{_made(step)} gives 8-bit codes, but their scale or offset changes along k"
            if columns:
                reason += ": each column, or each of the weight's, has a scale of its own"
                return Refusal(reason, "multiply by the columns' scales before rounding to codes")
            return Refusal(reason, "use one scale a row, or scales of the weight's groups")
        if known.integer and not columns:
            span = f"from {known.lo:.6g} to {known.hi:.6g}"
            reason = f"{_made(step)} gives integers {span}, more than 8 bits hold"
            return Refusal(reason, "clip them to -128..127 or 0..255 before they are scaled")
        last, step = step, carrier(step, ranges)
    while isinstance(last.op, Cast):
        (last,) = last.args
    reason = f"no quantiser is found: {_made(last)} gives floats that nothing rounds"
    return Refusal(reason, "quantise activations in training, or --activations=int8")


def _by_column(x: Value, ranges: Ranges) -> bool:
    """Whether x is codes but for constants along k, as the gains of a weight's columns."""
    if not isinstance(x.op, Binary) or x.op.fn != "mul":
        return False
    for gains, codes in (x.args, x.args[::-1]):
        if gains.is_constant and gains.type.rank == 1 and gains.type.size != 1:
            return factor(codes, ranges) is not None
    return False


def _made(value: Value) -> str:
    """The operation that makes a value, and its node."""
    if isinstance(value.op, Input):
        return f"the input '{value.op.name}'"
    fn = getattr(value.op, "fn", type(value.op).__name__.lower())
    return f"'{value.origin}' ({fn})" if value.origin else str(fn)
