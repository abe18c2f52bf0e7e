"""What is told about a compiled model: the fields of `report.json`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from tbc import __version__
from tbc.budget import sections_of
from tbc.codegen.artifacts import Written
from tbc.codegen.machine import llvm_version
from tbc.dims import upper
from tbc.driver import Compiled
from tbc.energy import Energy, energy
from tbc.inspection import Stages
from tbc.ir import Value
from tbc.ops import CodedDot, Input, MatMul, PackedDot, PackedGroupedDot, Reduce
from tbc.passes.select import dot_shapes
from tbc.program import Program
from tbc.straight import NAME
from tbc.variants import Variants

_Packed: TypeAlias = PackedDot | PackedGroupedDot


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
class Provenance:
    """What a model was compiled from and with: the same gives the same bytes, on every host.

    Attributes:
        sha256: of the model's file, without the files of its external data.
        tuning_sha256: of the file of the measured kernels; "" where there is none.
        llvm: LLVM's version.
        options: what of the command line decides the result, by option.
    """

    sha256: str
    tuning_sha256: str
    llvm: str
    options: Mapping[str, tuple[str, ...]]


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
        arena_bound: what no arena can do without, as the steps are ordered.
        fast: scratch memory of one call in the fast RAM of `--fast-ram`, beside the arena.
        state: memory kept from call to call.
        stack: what a call takes of the stack at most, the caller's own functions aside; None
            of portable C.
        weights: the constants.
        code: the machine code; None of objects that are not ELF.
        flash: code, weights and descriptions, which is what the model takes of a device's flash;
            None of objects that are not ELF.
        sections: what `flash` is the sum of: "code", "weights" and "descriptions"; or empty.
        self_test: whether the model has one.
        phases: of `run_phase`.
        kernels: of each low-bit dot kernel, how many steps run it.
        tuned: of the shapes of low-bit dots, for how many the kernels were measured.
        untuned: the other shapes, whose kernels are those that cost least.
        additions: of the matrix products and convolutions at the upper bounds of all sizes, with
            subtractions.
        multiplications: the same; those of low-bit layers are by their scales.
        weights_read: bytes of the constants that products and convolutions read.
        energy: an estimate for the arithmetic of these.
        warnings: what is unusual in the model's file.
        provenance: what the files were made of.
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
    arena_bound: int
    fast: int
    state: int
    stack: int | None
    weights: int
    code: int | None
    flash: int | None
    sections: Mapping[str, int]
    self_test: bool
    phases: int
    kernels: Mapping[str, int]
    tuned: int
    untuned: int
    additions: int
    multiplications: int
    weights_read: int
    energy: tuple[Energy, ...]
    warnings: tuple[str, ...]
    provenance: Provenance
    files: tuple[File, ...]


@dataclass(frozen=True)
class LibraryReport:
    """The fields of `report.json` of a library for several targets; sizes are in bytes.

    Attributes:
        whole: of the library: its files, its flash, and the largest sizes; the rest is that of the
            variant with the largest arena.
        variants: of each variant, the most able first; without files and flash.
        shared: of the weights, what more than one variant reads.
    """

    whole: CompileReport
    variants: tuple[CompileReport, ...]
    shared: int


def kernel_counts(program: Program) -> dict[str, int]:
    """Of each low-bit dot kernel, how many steps run it."""
    kernels: dict[str, int] = {}
    for step in program.all_steps:
        if isinstance(step.anchor.op, _Packed):
            for name in step.anchor.op.kernels:
                kernels[name] = kernels.get(name, 0) + 1
        elif isinstance(step.anchor.op, CodedDot):
            kernels[NAME] = kernels.get(NAME, 0) + 1
    return kernels


def compile_report(
    compiled: Compiled,
    stages: Stages,
    written: Sequence[Written],
    batch: str,
    warnings: Sequence[str],
    provenance: Provenance,
) -> CompileReport:
    """The report on a compiled model, whose stages were seen, and its files."""
    layers, shapes = stages.layers(), dot_shapes(stages.unselected)
    measured = [shape for shape in shapes if compiled.target.tuning.find(shape)]
    info, target, program = compiled.info, compiled.target, compiled.program
    sections = sections_of(compiled) or {}
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
        arena_bound=program.arena_bound,
        fast=info.fast_size,
        state=info.state_size,
        stack=compiled.stack,
        weights=info.weights_size,
        code=sections.get("code"),
        flash=sum(sections.values()) if sections else None,
        sections=sections,
        self_test=info.self_test is not None,
        phases=info.phases,
        kernels=kernel_counts(program),
        tuned=len(measured),
        untuned=len(shapes) - len(measured),
        additions=sum(layer.additions for layer in layers),
        multiplications=sum(layer.multiplications for layer in layers),
        weights_read=_weights_read(program),
        energy=energy(layers),
        warnings=tuple(warnings),
        provenance=provenance,
        files=tuple(File(str(w.path), w.kind, w.path.stat().st_size, w.tool) for w in written),
    )


def library_report(
    made: Variants,
    stages: Sequence[Stages],
    written: Sequence[Written],
    batch: str,
    warnings: Sequence[str],
    provenance: Provenance,
) -> LibraryReport:
    """The report on a library for several targets, the stages of each of which were seen."""
    about = batch, warnings, provenance
    found = (
        compile_report(each, seen, (), *about) for each, seen in zip(made.all, stages, strict=True)
    )
    return LibraryReport(
        compile_report(made.whole, stages[-1], written, *about), tuple(found), made.shared
    )


def _weights_read(program: Program) -> int:
    steps = [s for s in program.all_steps if isinstance(s.anchor.op, _Packed | MatMul | Reduce)]
    read = {v for s in steps for v in s.reads if v.is_constant}
    return sum(upper(v.type.size) * v.type.dtype.bytes for v in read)


def _input_name(value: Value) -> str:
    assert isinstance(value.op, Input)
    return value.op.name


def provenance_of(
    model: Path, options: Mapping[str, Sequence[str]], tuning: Path | None = None
) -> Provenance:
    """The provenance of a model's file compiled with options; those without a value are left out.

    Raises:
        OSError: a file cannot be read.
    """
    given = {name: tuple(values) for name, values in options.items() if any(values)}
    measured = "" if tuning is None else _sha256(tuning)
    return Provenance(_sha256(model), measured, ".".join(map(str, llvm_version())), given)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
