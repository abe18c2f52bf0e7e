"""From a model to machine code: import, lower, emit. The file to read first.

    ONNX --frontend--> Graph --passes--> Graph --fuse, plan--> Program --codegen--> LLVM --> object

Each arrow is one call below, and `observe` sees everything that flows along them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import TypeAlias
from zlib import crc32

import numpy as np
import numpy.typing as npt

from tbc import __version__
from tbc.codegen.artifacts import Written, kinds_of, needed, target_of, write_artifacts
from tbc.codegen.blob import check_target, write_blob
from tbc.codegen.builtins import builtins_text
from tbc.codegen.c_model import c_source
from tbc.codegen.machine import Job, Part, Workers
from tbc.codegen.model import ModelCode, emit_model, weight_blocks
from tbc.codegen.modelinfo import ModelInfo, TensorInfo, entry_points, model_constant, symbol_of
from tbc.codegen.objfile import undefined_symbols
from tbc.codegen.staging import staged
from tbc.dims import Dim, Expr, Symbol, symbols_of, upper
from tbc.errors import Unbounded, Unsupported
from tbc.ir import Graph, bind
from tbc.ops import Input
from tbc.passes import PIPELINE
from tbc.passes.fuse import fuse
from tbc.passes.phases import work
from tbc.passes.plan import Image, plan
from tbc.passes.share import share
from tbc.program import Program, in_place
from tbc.reference import run_graph
from tbc.self_test import SelfTest, self_test_of
from tbc.target import Target
from tbc.text import print_graph
from tbc.types import TensorType

Observer: TypeAlias = Callable[[str, Graph | Program], object]

EMBEDDED_WEIGHTS = 64 << 20
"""Bytes of constants that may lie inside the object; more become a file beside it."""


QUICK = 1 << 27
"""Scalar operations, at the upper bounds, of models that get a self-test unasked."""


@dataclass(frozen=True)
class Compiled:
    """A model as machine code.

    Attributes:
        program: what was compiled.
        target: what it was compiled for.
        info: what `tbc_model` says about it.
        code: the LLVM text, and the function of every phase.
        files: by kind, what was made of it: "obj", "asm" and "llvm", or "c".
        embedded: whether the weights are inside the object.
        stack: bytes of stack that a call takes at most, what the caller's own functions take aside;
            None of portable C.
    """

    program: Program
    target: Target
    info: ModelInfo
    code: ModelCode
    files: Mapping[str, bytes]
    embedded: bool
    stack: int | None

    def weights(self) -> Iterator[npt.NDArray[np.uint8]]:
        """The bytes of the constants, block by block."""
        return weight_blocks(self.program, self.target.little_endian)


def ignore(stage: str, result: Graph | Program) -> None:
    """The observer that does nothing."""


def lower(
    graph: Graph,
    target: Target,
    observe: Observer = ignore,
    merge: bool = True,
    image: Image | None = None,
) -> Program:
    """The program of a graph whose symbols all have bounds, as `plan` makes it.

    Programs with one `image` share the constants that they hold alike.

    Raises:
        Unsupported: it does not fit the memory of the target, or of the compiler.
    """
    observe("import", graph)
    for step in PIPELINE:
        graph = step(graph, target)
        observe(step.__name__, graph)
    program = plan(graph, share(fuse(graph)), target, merge=merge, image=image)
    _refuse_too_large(program, target)
    observe("plan", program)
    return program


def _refuse_too_large(program: Program, target: Target) -> None:
    """Raise Unsupported for a program whose buffers do not fit the target's address space."""
    tensors = (*program.inputs, *(v for _, v in program.outputs))
    largest = max((upper(v.type.size) * v.type.dtype.bytes for v in tensors), default=0)
    needed = max(largest, program.arena_size, program.state_size, program.weights_size)
    if needed >> (target.index_bits - 1):
        raise Unsupported(
            f"at its largest sizes the model needs {needed} bytes in one piece, more than a "
            f"program of {target.index_bits} bits can address",
            file=program.name,
            hint="a smaller upper bound for its symbolic sizes",
        )


def assemble(
    program: Program,
    target: Target,
    name: str,
    workers: Workers,
    kinds: frozenset[str] = frozenset({"obj"}),
    embed: bool | None = None,
    test: SelfTest | None = None,
) -> Compiled:
    """The machine code of a program, as the constant `symbol_of(name)`.

    `embed` says whether the constants lie in the object; by default, if they are not too large.
    """
    if embed is None:
        embed = program.weights_size <= EMBEDDED_WEIGHTS
    symbol = symbol_of(name)
    weights_symbol = f"{symbol}_weights" if embed and program.weights_size else None
    is_c = target.arch == "c"
    datalayout = "" if is_c else workers.datalayout(target)
    code = emit_model(program, target, symbol, weights_symbol, datalayout)
    checksum = 0
    image = bytearray()
    for block in weight_blocks(program, target.little_endian):
        checksum = crc32(block.data, checksum)
        if weights_symbol and not is_c:
            image += block.tobytes()
    if weights_symbol and not is_c:
        code.glue.constant(weights_symbol, bytes(image), program.alignment)
    weights_file = "" if embed else f"{name}.weights"
    info = describe(program, target, name, code.phases, checksum, weights_file, test)
    if is_c:
        files: Mapping[str, bytes] = {"c": c_source(program, code, info).encode()}
        return Compiled(program, target, info, code, files, embed, None)
    model_constant(
        code.glue,
        info,
        target,
        entry_points(symbol, target),
        weights_symbol,
    )
    files = _compile(code, target, frozenset({symbol, "tbc_models"}), kinds, workers)
    return Compiled(program, target, info, code, files, embed, int(files["stack"]))


def movable_object(compiled: Compiled, workers: Workers) -> bytes:
    """The functions of a model, for whatever address they lie at; the weights lie elsewhere.

    The symbols are `<symbol>_run` and the like, as in `emit_model`, and `<symbol>_weights`, which
    the object takes from elsewhere.
    """
    symbol, target = compiled.info.symbol, compiled.target
    weights = f"{symbol}_weights"
    code = emit_model(compiled.program, target, symbol, weights, workers.datalayout(target))
    align = compiled.program.alignment
    code.glue.globals[weights] = f"@{weights} = external hidden constant [0 x i8], align {align}"
    keep = frozenset({weights, *entry_points(symbol, target).values()})
    return _compile(code, target, keep, frozenset({"obj"}), workers, weights)["obj"]


def _compile(
    code: ModelCode,
    target: Target,
    keep: frozenset[str],
    kinds: frozenset[str],
    workers: Workers,
    weights_elsewhere: str = "",
) -> Mapping[str, bytes]:
    """The object of a model; see `compile_parts`."""
    parts = [Part(code.glue.text(), passes=True), Part(code.hand.text(), passes=False)]
    return compile_parts(parts, target, keep, kinds, workers, weights_elsewhere)


def compile_parts(
    parts: Sequence[Part],
    target: Target,
    keep: frozenset[str],
    kinds: frozenset[str],
    workers: Workers,
    weights_elsewhere: str = "",
) -> Mapping[str, bytes]:
    """The object of some parts, with the functions that LLVM calls on this target added to it.

    With `weights_elsewhere`, a symbol, the code is movable, and does not hold the weights.
    """
    builtins: set[str] = set()
    while True:
        extra = [Part(builtins_text(builtins, target.triple), passes=False)] if builtins else []
        job = Job(
            target,
            (*parts, *extra),
            keep,
            kinds | {"obj", "stack"},
            str(sorted(keep)[0]),
            closed=False,
            movable=bool(weights_elsewhere),
        )
        files = workers.compile(job)
        missing = undefined_symbols(files["obj"]) - builtins - {weights_elsewhere}
        if not missing:
            return files
        builtins |= missing


def describe(
    program: Program,
    target: Target,
    name: str,
    phases: int,
    checksum: int,
    weights_file: str,
    test: SelfTest | None = None,
) -> ModelInfo:
    """What the constant `tbc_<name>` and its header say about a program."""
    places = in_place(program)
    return ModelInfo(
        name=name,
        version=__version__,
        target=target.name,
        cpu_bits=target.cpu_bits,
        inputs=tuple(_tensor(v.op.name, v.type) for v in program.inputs if isinstance(v.op, Input)),
        outputs=tuple(
            replace(_tensor(n, v.type), place=places.get(i))
            for i, (n, v) in enumerate(program.outputs)
        ),
        symbols=tuple((s.name, s.lo, upper(Expr.of(s))) for s in program.symbols),
        align=program.alignment,
        arena_size=program.arena_size,
        fast_size=program.fast_size,
        state_size=program.state_size,
        weights_size=program.weights_size,
        weights_sum=checksum,
        phases=phases,
        weights_file=weights_file,
        self_test=test,
    )


def self_test_of_program(program: Program, wanted: bool | None = None) -> SelfTest | None:
    """The self-test of a program, as the reference computes it; None if there can be none.

    Unless it is `wanted` in any case, there is one only if the reference is quick.
    """
    if wanted is None:
        wanted = sum(work(step) for step in program.all_steps) <= QUICK
    if not wanted:
        return None
    graph = program.graph
    return self_test_of(graph, program.symbols, partial(run_graph, graph))


def _tensor(name: str, type: TensorType) -> TensorInfo:
    shape = tuple(upper(d) for d in type.shape)
    return TensorInfo(
        name=name,
        dtype_code=type.dtype.onnx,
        rank=type.rank,
        shape_upper=shape,
        dims_text=",".join(map(str, type.shape)),
        bytes=prod(shape) * type.dtype.bytes,
    )


# -- symbols --------------------------------------------------------------------------------------


def bound_batch(graph: Graph) -> tuple[Graph, Symbol | None]:
    """The graph with its sole unbounded symbol set to 1, if that is the first axis of all inputs.

    Returns the symbol too, or None where there is none to set.

    Raises:
        Unbounded: other symbols have no bound; the hint is the option to give for each.
    """
    loose = [s for s in graph.symbols() if s.hi is None]
    if not loose:
        return graph, None
    if len(loose) == 1 and all(_leads(loose[0], v.type.shape) for v in graph.inputs):
        try:
            return bind(graph, {loose[0].name: 1}), loose[0]
        except ValueError as error:
            name = loose[0].name
            raise Unbounded(
                f"the size {name} cannot be 1: {error}", file=graph.name, hint=f"--dim {name}=…"
            ) from None
    names = ", ".join(s.name for s in loose)
    raise Unbounded(
        f"the sizes {names} have no upper bound",
        file=graph.name,
        sizes={s.name: "1..512" for s in loose},
    )


def _leads(symbol: Symbol, shape: tuple[Dim, ...]) -> bool:
    """Whether a symbol is at most the first axis of a shape, and in no other one."""
    if any(symbol in symbols_of(d) for d in shape[1:]):
        return False
    return not shape or shape[0] == Expr.of(symbol) or symbol not in symbols_of(shape[0])


# -- files ----------------------------------------------------------------------------------------


_FILES = {"main", "tbc", *(f"tbc_{n}" for n in ("blob", "cpu", "map", "pool", "self_test"))}
"""The stems of the C files that a project may hold beside a model's."""


def identifier(stem: str) -> str:
    """A model's name: the file's stem, with every character that C does not take as `_`.

    The model's own files are called after it, so it is none of those beside them.
    """
    name = re.sub(r"[^A-Za-z0-9_]", "_", stem) or "model"
    return f"_{name}" if name[0].isdigit() or name.lower() in _FILES else name


def write(
    graph: Graph,
    target: Target,
    name: str,
    folder: Path,
    kinds: tuple[str, ...],
    workers: Workers,
    observe: Observer = ignore,
    linker: str = "",
    also: frozenset[str] = frozenset(),
    check: Callable[[Compiled], object] = id,
    project: str = "cmake",
    self_test: bool | None = None,
) -> tuple[Compiled, tuple[Written, ...]]:
    """Compile a graph whose symbols all have bounds, and write it as files.

    Args:
        graph: as imported.
        target: what to compile for; for portable C, if `kinds` asks for that.
        name: the model's name in C.
        folder: where to; made if it is not there.
        kinds: `artifacts.KINDS`, or () for the default.
        workers: the processes that run LLVM.
        observe: sees every stage.
        linker: the linker to use instead of the one that is found.
        also: what LLVM makes besides ("asm", "llvm"), to be found in `Compiled.files`.
        check: sees what was compiled before anything is written; what it raises is not caught.
        project: the build system that a project is for: of `codegen.project.PROJECTS`.
        self_test: whether to put a self-test in; by default, if the reference is quick to run.
    """
    target = target_of(kinds, target)
    kinds = kinds_of(kinds, target, linker, project)
    if "blob" in kinds:
        check_target(target)
    wanted = needed(kinds) | also
    program = lower(graph, target, observe)
    test = self_test_of_program(program, self_test)
    compiled = assemble(program, target, name, workers, wanted, test=test)
    check(compiled)
    weights = None if compiled.embedded else compiled.weights()
    with staged(folder) as place:
        made = compiled.info, target, compiled.files, kinds, weights, linker, project
        written = list(write_artifacts(place, *made))
        if "blob" in kinds:
            path = place / f"{name}.tbc"
            obj = movable_object(compiled, workers)
            write_blob(path, obj, compiled.info, target, compiled.weights())
            written.append(Written(path, "blob"))
        if "ir" in kinds:
            path = place / f"{name}.ir"
            path.write_text(print_graph(graph))
            written.append(Written(path, "ir"))
    return compiled, tuple(each.moved(place, folder) for each in written)
