"""What is told about a compiled model: the fields of `report.json`, and of `tbc inspect`."""

from __future__ import annotations

import dataclasses
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from tbc import __version__
from tbc.codegen.artifacts import Written
from tbc.dims import Dim, upper
from tbc.driver import Compiled, lower
from tbc.ir import Graph, Value
from tbc.layout import Layout
from tbc.ops import Input, PackedDot, PackedGroupedDot
from tbc.passes import FRONT
from tbc.passes.explain import DotReport, explain
from tbc.program import Program
from tbc.target import Target
from tbc.types import DType


@dataclass(frozen=True)
class File:
    """A file that was written.

    Attributes:
        path: where.
        kind: as in `--emit`.
        bytes: its size.
        tool: the program that made it, or "" for tbc itself.
    """

    path: str
    kind: str
    bytes: int
    tool: str


@dataclass(frozen=True)
class Tensor:
    """An input or output: its name and type, as in f32[batch, 64]."""

    name: str
    type: str


@dataclass(frozen=True)
class CompileReport:
    """The fields of `report.json`; sizes are in bytes.

    Attributes:
        model: the name in C, `tbc_<model>`.
        version: of tbc.
        target: as the user wrote it.
        triple: the same in LLVM's words.
        cpu: the CPU or level in LLVM's words.
        features: the CPU features that the code uses, of those that tbc knows.
        cpu_bits: the bits of tbc.h that `tbc_check` wants.
        inputs: the inputs, in order.
        outputs: the outputs, in order.
        symbols: by name of a size that the caller chooses, its least and greatest value.
        batch: the symbol that was set to 1 because it had no bound, or "".
        arena: scratch memory of one call.
        state: memory kept from call to call.
        weights: the constants.
        code: the machine code; None of objects that are not ELF.
        flash: code, weights and descriptions, which is what the model takes of a device's flash;
            None of objects that are not ELF.
        phases: steps of `run_phase`.
        kernels: of each low-bit dot kernel, how many phases run it.
        warnings: what is unusual in the model's file.
        files: what was written.
    """

    model: str
    version: str
    target: str
    triple: str
    cpu: str
    features: tuple[str, ...]
    cpu_bits: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    symbols: Mapping[str, tuple[int, int]]
    batch: str
    arena: int
    state: int
    weights: int
    code: int | None
    flash: int | None
    phases: int
    kernels: Mapping[str, int]
    warnings: tuple[str, ...]
    files: tuple[File, ...]


def kernel_counts(program: Program) -> dict[str, int]:
    """Of each low-bit dot kernel, how many steps run it."""
    kernels: dict[str, int] = {}
    for step in program.all_steps:
        if isinstance(step.anchor.op, _Packed):
            for name in step.anchor.op.kernels:
                kernels[name] = kernels.get(name, 0) + 1
    return kernels


def compile_report(
    compiled: Compiled, written: Sequence[Written], batch: str, warnings: Sequence[str]
) -> CompileReport:
    """The report on a compiled model and its files."""
    info, target, program = compiled.info, compiled.target, compiled.program
    code, flash = _sections(compiled.files.get("obj", b"")) or (None, None)
    if flash is not None and not compiled.embedded:
        flash += info.weights_size
    return CompileReport(
        model=info.name,
        version=__version__,
        target=target.name,
        triple=target.triple,
        cpu=target.cpu,
        features=tuple(sorted(target.features)),
        cpu_bits=info.cpu_bits,
        inputs=tuple(Tensor(_input_name(v), str(v.type)) for v in program.inputs),
        outputs=tuple(Tensor(n, str(v.type)) for n, v in program.outputs),
        symbols={name: (low, high) for name, low, high in info.symbols},
        batch=batch,
        arena=info.arena_size,
        state=info.state_size,
        weights=info.weights_size,
        code=code,
        flash=flash,
        phases=info.phases,
        kernels=kernel_counts(program),
        warnings=tuple(warnings),
        files=tuple(File(str(w.path), w.kind, w.path.stat().st_size, w.tool) for w in written),
    )


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
    multiplications: int
    additions: int
    warnings: tuple[str, ...]


def inspect(
    graph: Graph, target: Target, batch: str = "", warnings: Sequence[str] = ()
) -> InspectReport:
    """The report on a graph whose symbols have bounds, lowered for a target."""
    stages: list[Graph] = []

    def observe(stage: str, result: Graph | Program) -> None:
        if isinstance(result, Graph):
            stages.append(result)

    program = lower(graph, target, observe)
    lifted = stages[len(FRONT)]
    packed = _packed(stages[-1])
    layers = []
    for dot in explain(lifted):
        ops = packed.get((dot.origin, dot.n, dot.k), [])
        layers.append(_layer(dot, ops[0] if ops and not dot.reason else None))
    return InspectReport(
        model=graph.name,
        target=target.name,
        batch=batch,
        layers=tuple(layers),
        parameters=_parameters(lifted),
        weights=program.weights_size,
        arena=program.arena_size,
        multiplications=sum(layer.multiplications for layer in layers),
        additions=sum(layer.additions for layer in layers),
        warnings=tuple(warnings),
    )


_Packed: TypeAlias = PackedDot | PackedGroupedDot
_Key: TypeAlias = tuple[str, Dim, Dim]


def _packed(graph: Graph) -> dict[_Key, list[_Packed]]:
    """The packed dots of each node and size, in order."""
    found: dict[_Key, list[_Packed]] = {}
    for value in (v for part in graph.graphs() for v in part.values()):
        if isinstance(value.op, _Packed):
            found.setdefault((value.origin, value.op.n, value.op.k), []).append(value.op)
    return found


def _layer(dot: DotReport, op: _Packed | None) -> Layer:
    lifted = dot.zeros is not None
    m, n, k = (upper(d) for d in (dot.m, dot.n, dot.k))
    groups = k // op.layout.group if op is not None and op.layout.group else 1
    dense = next((d.bits for d in DType if d.name == dot.weights), 8)
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
        layout="" if op is None else _layout_text(op.layout),
        bits=dense if op is None else dot.planes * _bits(op),
        kernel="" if op is None else " ".join(op.kernels),
        multiplications=m * n * (groups * dot.planes if lifted else k),
        additions=dot.planes * (m * n * k - round(m * n * k * (dot.zeros or 0))),
    )


def _bits(op: _Packed) -> float:
    """Bits in memory a weight."""
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


def _input_name(value: Value) -> str:
    assert isinstance(value.op, Input)
    return value.op.name


def _sections(obj: bytes) -> tuple[int, int] | None:
    """Bytes of machine code, and of all that is loaded, in an ELF object; None of another format.

    The latter is what takes flash on a device: code, weights and descriptions.
    """
    if obj[:4] != b"\x7fELF":
        return None
    wide, order = obj[4] == 2, "<" if obj[5] == 1 else ">"
    (at,) = struct.unpack_from(order + ("Q" if wide else "I"), obj, 40 if wide else 32)
    size, count = struct.unpack_from(order + "HH", obj, 58 if wide else 46)
    header = struct.Struct(order + ("IIQQQQ" if wide else "IIIIII"))
    code = loaded = 0
    for i in range(count):
        _, kind, flags, _, _, length = header.unpack_from(obj, at + size * i)
        code += length if flags & 4 else 0  # SHF_EXECINSTR
        loaded += length if flags & 2 and kind != 8 else 0  # SHF_ALLOC, not SHT_NOBITS
    return code, loaded


def to_json(report: object) -> str:
    """A report, or anything of mappings and sequences, as JSON; numbers not finite are text."""

    def plain(item: Any) -> Any:
        if dataclasses.is_dataclass(item):
            own = {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}
            return plain({"ok": item.ok, **own} if hasattr(item, "ok") else own)
        if isinstance(item, Mapping):
            return {str(key): plain(value) for key, value in item.items()}
        if isinstance(item, list | tuple):
            return [plain(i) for i in item]
        return str(item) if isinstance(item, float) and not math.isfinite(item) else item

    return json.dumps(plain(report), indent=2)
