"""Explain: what became of every matrix product and convolution, for `tbc inspect`."""

from __future__ import annotations

from dataclasses import dataclass

from tbc.constants import value_of
from tbc.dims import Dim, product
from tbc.ir import Graph, Value
from tbc.ops import INDEX_MAPS, Binary, Cast, Dot, GroupedDot, Lift, MatMul, Reduce, Reshape
from tbc.passes.depthwise import Filters, filters_of, low_bit
from tbc.passes.lift import Lifter
from tbc.passes.ranges import Ranges
from tbc.passes.trits import zero_fraction
from tbc.types import DType, TensorType


@dataclass(frozen=True)
class DotReport:
    """One matrix product or convolution, y[m, n] = x[m, k] · w[n, k].

    Attributes:
        origin: the model's node that it comes from.
        m: the rows of x: batch, positions and groups together.
        n: the rows of w.
        k: the elements summed.
        weights: "trit per row", "sign per tensor", "trit groups of 128", …, or the type of weights
            that were not lifted.
        reason: why the weights were not lifted, or "".
        zeros: the fraction of lifted weights that are 0, or None.
        activations: "i8 codes", "u8 codes", or the type in which they are multiplied.
    """

    origin: str
    m: Dim
    n: Dim
    k: Dim
    weights: str
    reason: str
    zeros: float | None
    activations: str


def explain(graph: Graph) -> list[DotReport]:
    """A report on each product in the graph, arguments before users.

    The graph is one that has been lifted; quantising it first tells activations' codes. Weights
    are evaluated again, one at a time.
    """
    lifter, ranges = Lifter(), Ranges()
    reports = []
    for value in (v for part in graph.graphs() for v in part.values()):
        if value.is_constant:
            continue
        if isinstance(value.op, Dot | GroupedDot):
            reports.append(_lifted(value, ranges))
        elif isinstance(value.op, MatMul):
            reports.append(_dense(value, str(lifter(value))))
        elif (filters := filters_of(value)) is not None:
            reports.append(_depthwise(value, filters, ranges))
    return reports


def _lifted(value: Value, ranges: Ranges) -> DotReport:
    x, w = value.args[:2]
    n, k = w.type.shape
    weights = w.type.dtype.name
    if isinstance(w.op, Lift):
        weights += f" {_granularity(w.args[1].type, k)}"
    return DotReport(
        origin=value.origin,
        m=product(x.type.shape[:-1]),
        n=n,
        k=k,
        weights=weights,
        reason="",
        zeros=zero_fraction(value_of(w)),
        activations=_activations(x, ranges),
    )


def _granularity(s: TensorType, k: Dim) -> str:
    """In words, what one of the scales s[n or 1, g] applies to."""
    rows, groups = s.shape
    if groups != 1:
        return f"groups of {k // groups}"
    return "per tensor" if rows == 1 else "per row"


def _activations(x: Value, ranges: Ranges) -> str:
    """What the codes were before they were shifted into i8."""
    if x.type.dtype is not DType.i8:
        return x.type.dtype.name
    while isinstance(x.op, (*INDEX_MAPS, Reduce)):
        x = x.args[0]
    match x:
        case Value(Cast(), (Value(Binary("sub"), (codes, _)),)) if ranges(codes).within(0, 255):
            return "u8 codes"
    return "i8 codes"


def _dense(value: Value, reason: str) -> DotReport:
    a, b = value.args
    k = a.type.shape[-1]
    return DotReport(
        origin=value.origin,
        m=product(value.type.shape[:-1]),
        n=b.type.shape[-1],
        k=k,
        weights=b.type.dtype.name,
        reason=reason,
        zeros=None,
        activations=a.type.dtype.name,
    )


def _depthwise(value: Value, filters: Filters, ranges: Ranges) -> DotReport:
    w, x = filters.w, filters.x
    while isinstance(w.op, Reshape | Cast):
        w = w.args[0]
    lifted = isinstance(w.op, Lift)
    weights, reason = value.type.dtype.name, ""
    if lifted:
        weights = f"{w.type.dtype.name} {_granularity(w.args[1].type, filters.taps)}, depthwise"
    else:
        low = low_bit(filters)
        reason = low if isinstance(low, str) else "the activations have no 8-bit codes"
        reason = f"{reason} (a depthwise convolution)"
    return DotReport(
        origin=value.origin,
        m=product((value.type.shape[0], *value.type.shape[2:])),
        n=value.type.shape[1],
        k=filters.taps,
        weights=weights,
        reason=reason,
        zeros=zero_fraction(value_of(w)) if lifted else None,
        activations=_activations(x.args[0], ranges) if lifted else value.type.dtype.name,
    )
