"""Explain: what became of every matrix product and convolution, for `tbc inspect`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tbc.constants import value_of
from tbc.dims import Dim, product
from tbc.ir import Graph, Value
from tbc.ops import INDEX_MAPS, Binary, Cast, Dot, Gather, GroupedDot, Lift, MatMul, Reduce, Reshape
from tbc.passes.activations import why_float
from tbc.passes.depthwise import Filters, filters_of, low_bit
from tbc.passes.diagnose import diagnose
from tbc.passes.lift import Lifter
from tbc.passes.ranges import Ranges
from tbc.passes.refusal import Refusal
from tbc.passes.trits import zero_fraction
from tbc.types import DType, TensorType


@dataclass(frozen=True)
class DotReport:
    """One matrix product or convolution, y[m, n] = x[m, k] · w[n, k].

    Products of one node that are alike (steps of a recurrence, groups of a convolution) are one.

    Attributes:
        origin: the model's node that it comes from.
        m: the rows of x: batch, positions, steps and groups together.
        n: the rows of w.
        k: the elements summed.
        weights: "trit per row", "sign per tensor", "2 planes of sign groups of 128", …, or the
            type of weights that were not lifted.
        planes: how many low-bit weights stand for one; 1 where it was not lifted.
        reason: why the weights were not lifted, or "".
        zeros: the fraction of lifted weights that are 0, or None.
        activations: "i8 codes", "u8 codes", or the type in which they are multiplied.
        float_reason: why those of lifted weights have no codes, or "".
        remedy: what would make it low-bit, or integer; "" where nothing would.
    """

    origin: str
    m: Dim
    n: Dim
    k: Dim
    weights: str
    planes: int
    reason: str
    zeros: float | None
    activations: str
    float_reason: str
    remedy: str


def explain(graph: Graph) -> list[DotReport]:
    """A report on each product in the graph, arguments before users.

    The graph is one that has been lifted; quantising it first tells activations' codes. Weights
    are evaluated again, one at a time.
    """
    lifter, ranges, tables = Lifter(), Ranges(), _tables(graph)
    found: dict[DotReport, list[tuple[int, DotReport]]] = {}
    for value in (v for part in graph.graphs() for v in part.values()):
        if value.is_constant:
            continue
        plane = 0
        if isinstance(value.op, Dot | GroupedDot):
            report = _lifted(value, ranges)
            weight = value.args[1].op
            plane = weight.plane if isinstance(weight, Lift) else 0
        elif isinstance(value.op, MatMul):
            report = _dense(value, lifter, tables)
        elif (filters := filters_of(value)) is not None:
            report = _depthwise(value, filters, ranges)
        else:
            continue
        found.setdefault(replace(report, m=0, zeros=None), []).append((plane, report))
    return [_together(reports) for reports in found.values()]


def _together(reports: list[tuple[int, DotReport]]) -> DotReport:
    """One report on products that are alike, planes of the same product among them."""
    first, report = reports[0]
    planes = {plane for plane, _ in reports}
    zeros = [r.zeros for _, r in reports if r.zeros is not None]
    m: Dim = 0
    for plane, one in reports:
        m = m + one.m if plane == first else m
    weights = report.weights
    return replace(
        report,
        m=m,
        planes=len(planes),
        weights=weights if len(planes) == 1 else f"{len(planes)} planes of {weights}",
        zeros=sum(zeros) / len(zeros) if zeros else None,
    )


def _tables(graph: Graph) -> set[Value]:
    """The constants that rows are gathered of: embeddings."""
    gathers = (v for v in graph.values() if isinstance(v.op, Gather) and not v.is_constant)
    return {_source(v.args[0]) for v in gathers}


def _source(weight: Value) -> Value:
    """The constant that a weight is, but for its shape and type."""
    while isinstance(weight.op, (*INDEX_MAPS, Cast)):
        weight = weight.args[0]
    return weight


def _lifted(value: Value, ranges: Ranges) -> DotReport:
    x, w = value.args[:2]
    n, k = w.type.shape
    weights = w.type.dtype.name
    if isinstance(w.op, Lift):
        weights += f" {_granularity(w.args[1].type, k)}"
    if w.type.dtype.is_int:
        return _integers(value)
    is_float = x.type.dtype is DType.f32
    why = why_float(x, isinstance(value.op, GroupedDot), ranges) if is_float else Refusal("")
    return DotReport(
        origin=value.origin,
        m=product(x.type.shape[:-1]),
        n=n,
        k=k,
        weights=weights,
        planes=1,
        reason="",
        zeros=zero_fraction(value_of(w)),
        activations=_activations(x, ranges),
        float_reason=why.reason,
        remedy=why.remedy,
    )


def _integers(value: Value) -> DotReport:
    """Of a grouped dot with weights of more levels, which was found to be one of integers."""
    x, w, s = value.args[:3]
    n, k = w.type.shape
    return DotReport(
        origin=value.origin,
        m=product(x.type.shape[:-1]),
        n=n,
        k=k,
        weights=f"{w.type.dtype.name} {_granularity(s.type, k)}",
        planes=1,
        reason=f"weights of {w.type.dtype.bits} bits are multiplied, as integers",
        zeros=None,
        activations="i8 codes",
        float_reason="",
        remedy="",
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
        return "u8 codes" if x.type.dtype is DType.u8 else x.type.dtype.name
    while isinstance(x.op, (*INDEX_MAPS, Reduce)):
        x = x.args[0]
    match x:
        case Value(Cast(), (Value(Binary("sub"), (codes, _)),)) if ranges(codes).within(0, 255):
            return "u8 codes"
    return "i8 codes"


def _dense(value: Value, lifter: Lifter, tables: set[Value]) -> DotReport:
    a, b = value.args
    k = a.type.shape[-1]
    lifted = lifter(value)
    why = lifted if isinstance(lifted, Refusal) else Refusal("only later passes made it liftable")
    if why.weight is not None:
        diagnosed = diagnose(value_of(why.weight).T)
        reason = diagnosed.reason
        if _source(b if b.is_constant else a) in tables:
            reason = f"the weight is an embedding table too; {reason}"
        why = Refusal(f"{why.reason}{reason}", diagnosed.remedy)
    return DotReport(
        origin=value.origin,
        m=product(value.type.shape[:-1]),
        n=b.type.shape[-1],
        k=k,
        weights=b.type.dtype.name,
        planes=1,
        reason=why.reason,
        zeros=None,
        activations=a.type.dtype.name,
        float_reason="",
        remedy=why.remedy,
    )


def _depthwise(value: Value, filters: Filters, ranges: Ranges) -> DotReport:
    w, x = filters.w, filters.x
    while isinstance(w.op, Reshape | Cast):
        w = w.args[0]
    lifted = isinstance(w.op, Lift)
    weights, why = value.type.dtype.name, Refusal("")
    if lifted:
        weights = f"{w.type.dtype.name} {_granularity(w.args[1].type, filters.taps)}, depthwise"
    elif isinstance(low_bit(filters), str):
        why = diagnose(value_of(filters.matrix))
        why = why._replace(reason=f"a depthwise convolution: {why.reason}")
    else:
        why = why_float(x, False, ranges)
        why = why._replace(reason=f"a depthwise convolution of no 8-bit codes: {why.reason}")
    return DotReport(
        origin=value.origin,
        m=product((value.type.shape[0], *value.type.shape[2:])),
        n=value.type.shape[1],
        k=filters.taps,
        weights=weights,
        planes=1,
        reason=why.reason,
        zeros=zero_fraction(value_of(w)) if lifted else None,
        activations=_activations(x.args[0], ranges) if lifted else value.type.dtype.name,
        float_reason="",
        remedy=why.remedy,
    )
