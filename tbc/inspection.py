"""What becomes of a model's matrix products and convolutions: the fields of `tbc inspect`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from tbc.dims import Dim, upper
from tbc.driver import Observer, ignore, lower
from tbc.ir import Graph
from tbc.layout import Layout
from tbc.ops import CodedDot, PackedDot, PackedGroupedDot
from tbc.passes import FRONT, UNSELECTED
from tbc.passes.explain import DotReport, explain
from tbc.passes.plan import Image
from tbc.program import Program
from tbc.straight import NAME
from tbc.target import Target
from tbc.types import DType
from tbc.variants import shared_bytes


@dataclass(frozen=True)
class Layer:
    """A matrix product or convolution of the model, y[m, n] = x[m, k] · w[n, k].

    Attributes:
        node: the model's node.
        m: the rows of x (batch, positions and groups together), or their formula.
        n: the rows of w, or their formula.
        k: the elements summed, or their formula.
        weights: what they were lifted as, or their type.
        planes: how many low-bit weights stand for one.
        reason: why they were not lifted, or "".
        zeros: the fraction of the lifted weights that are 0; None of others.
        activations: the type that they are multiplied with.
        float_reason: why those of lifted weights are no integer codes, or "".
        remedy: what would make the layer low-bit, or integer; "" where nothing would.
        layout: how the weights are packed, or "".
        bits: bits in memory a weight, padding included.
        kernel: the kernel that runs, or "" for loops.
        multiplications: at the upper bounds; a lifted layer multiplies by its scales only.
        additions: at the upper bounds, with the subtractions; none for a weight of 0.
        dense: the multiply-adds that the layer takes at the upper bounds with weights of any value.
    """

    node: str
    m: int | str
    n: int | str
    k: int | str
    weights: str
    planes: int
    reason: str
    zeros: float | None
    activations: str
    float_reason: str
    remedy: str
    layout: str
    bits: float
    kernel: str
    multiplications: int
    additions: int
    dense: int


@dataclass(frozen=True)
class InspectReport:
    """What `tbc inspect` prints; sizes are in bytes.

    Attributes:
        model: its name.
        target: the target's name.
        batch: the symbol that was set to 1 because it had no bound, or "".
        layers: the matrix products and convolutions.
        parameters: elements of the constants that the model computes with, scalars aside.
        weights: the constants in memory.
        arena: scratch memory of one call.
        state: memory kept from call to call.
        steps: calls of kernels.
        phases: what they are grouped in; threads that share a call meet behind each.
        multiplications: of all layers.
        additions: of all layers.
        warnings: what is unusual in the model's file.
    """

    model: str
    target: str
    batch: str
    layers: tuple[Layer, ...]
    parameters: int
    weights: int
    arena: int
    state: int
    steps: int
    phases: int
    multiplications: int
    additions: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class VariantsReport:
    """What `tbc inspect` prints of several targets, for one library; sizes are in bytes.

    Attributes:
        variants: a report on each, in the order in which a CPU tries them.
        weights: the constants of all of them in memory.
        shared: of these, what more than one variant reads.
    """

    variants: tuple[InspectReport, ...]
    weights: int
    shared: int


@dataclass
class Stages:
    """An observer of the driver that keeps the graphs which tell of the layers.

    Attributes:
        also: sees every stage too.
        graphs: as they come.
    """

    also: Observer = ignore
    graphs: list[Graph] = field(default_factory=list)

    def __call__(self, stage: str, result: Graph | Program) -> None:
        """See a stage."""
        self.also(stage, result)
        if isinstance(result, Graph):
            self.graphs.append(result)

    @property
    def lifted(self) -> Graph:
        """The graph of low-bit dots that is the same on all targets."""
        return self.graphs[len(FRONT)]

    @property
    def unselected(self) -> Graph:
        """The graph whose dots have no kernels yet."""
        return self.graphs[len(UNSELECTED)]

    def layers(self) -> tuple[Layer, ...]:
        """The layers, once all passes have run."""
        packed = _packed(self.graphs[-1])
        return tuple(_layer(dot, _op_of(dot, packed)) for dot in explain(self.lifted))


def inspect(
    graph: Graph, target: Target, batch: str = "", warnings: Sequence[str] = ()
) -> InspectReport:
    """The report on a graph whose symbols have bounds, lowered for a target."""
    stages = Stages()
    program = lower(graph, target, stages)
    return _report(graph, target, stages, program, batch, warnings)


def inspect_variants(
    graph: Graph, targets: Sequence[Target], batch: str = "", warnings: Sequence[str] = ()
) -> VariantsReport:
    """The report on a graph whose symbols have bounds, lowered for the targets of one library."""
    image, programs, reports = Image(), [], []
    for target in targets:
        stages = Stages()
        programs.append(lower(graph, target, stages, image=image))
        report = _report(graph, target, stages, programs[-1], batch, warnings)
        own = sum(buffer.bytes for buffer in programs[-1].constants)
        reports.append(replace(report, weights=own))
    return VariantsReport(tuple(reports), image.size, shared_bytes(programs))


def _report(
    graph: Graph,
    target: Target,
    stages: Stages,
    program: Program,
    batch: str,
    warnings: Sequence[str],
) -> InspectReport:
    layers = stages.layers()
    return InspectReport(
        model=graph.name,
        target=target.name,
        batch=batch,
        layers=layers,
        parameters=_parameters(stages.lifted),
        weights=program.weights_size,
        arena=program.arena_size,
        state=program.state_size,
        steps=len(program.steps),
        phases=len(program.phases),
        multiplications=sum(layer.multiplications for layer in layers),
        additions=sum(layer.additions for layer in layers),
        warnings=tuple(warnings),
    )


_Packed: TypeAlias = PackedDot | PackedGroupedDot | CodedDot
_Key: TypeAlias = tuple[str, Dim, Dim]


def _packed(graph: Graph) -> dict[_Key, list[_Packed]]:
    """The packed dots of each node and size, in order."""
    found: dict[_Key, list[_Packed]] = {}
    for value in (v for part in graph.graphs() for v in part.values()):
        if isinstance(value.op, _Packed):
            found.setdefault((value.origin, value.op.n, value.op.k), []).append(value.op)
    return found


def _op_of(dot: DotReport, packed: Mapping[_Key, Sequence[_Packed]]) -> _Packed | None:
    """The packed dot that a product became; the filters of a dense one may be its left operand."""
    if not dot.reason:
        return next(iter(packed.get((dot.origin, dot.n, dot.k), ())), None)
    sides = (packed.get((dot.origin, n, dot.k), ()) for n in (dot.n, dot.m))
    found = (op for ops in sides for op in ops if not isinstance(op, CodedDot))
    return next((op for op in found if op.layout.dtype.is_int), None)


def _layer(dot: DotReport, op: _Packed | None) -> Layer:
    lifted = dot.zeros is not None
    m, n, k = (upper(d) for d in (dot.m, dot.n, dot.k))
    layout = None if op is None or isinstance(op, CodedDot) else op.layout
    groups = k // layout.group if layout and layout.group else 1
    dense = next((d.bits for d in DType if d.name == dot.weights.split()[0]), 8)
    return Layer(
        node=dot.origin,
        m=_size(dot.m),
        n=_size(dot.n),
        k=_size(dot.k),
        weights=dot.weights,
        planes=dot.planes,
        reason=dot.reason,
        zeros=dot.zeros,
        activations=dot.activations,
        float_reason=dot.float_reason,
        remedy=dot.remedy,
        layout="" if layout is None else _layout_text(layout),
        bits=dense if op is None else dot.planes * _bits(op),
        kernel="" if op is None else NAME if isinstance(op, CodedDot) else " ".join(op.kernels),
        multiplications=m * n * (groups * dot.planes if lifted else k),
        additions=dot.planes * (m * n * k - round(m * n * k * (dot.zeros or 0))),
        dense=m * n * k,
    )


def _bits(op: _Packed) -> float:
    """Bits in memory a weight; none of those that are code."""
    if isinstance(op, CodedDot):
        return 0.0
    return 8 * op.layout.size(op.n, op.k) / max(op.n * op.k, 1)


def _size(dim: Dim) -> int | str:
    return dim if isinstance(dim, int) else str(dim)


def _layout_text(layout: Layout) -> str:
    """The layout in short: rows by lanes along k, code, and the group if there is one."""
    group = f" g{layout.group}" if layout.group else ""
    return f"{layout.rows}x{layout.lanes_k} {layout.code}{group}"


def _parameters(graph: Graph) -> int:
    """The elements of the constants that a graph's steps read, scalars aside."""
    values = [v for part in graph.graphs() for v in part.values() if not v.is_constant]
    read = {a for v in values for a in v.args if a.is_constant}
    return sum(upper(v.type.size) for v in read if v.type.rank)
