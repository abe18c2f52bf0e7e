"""Libraries for several targets: a variant for each, and constants that they hold alike once.

The variants are functions of one module, each with the CPU and the features of its own, and the
module is for the least of them. `tbc_choose` takes the first that a CPU can run.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from zlib import crc32

from tbc.codegen.artifacts import Written, kinds_of, needed, write_artifacts
from tbc.codegen.llvm_text import Module
from tbc.codegen.machine import Part, Workers, variant_attributes
from tbc.codegen.model import emit_model, shared_blocks
from tbc.codegen.modelinfo import (
    MODELS,
    ModelInfo,
    entry_points,
    exported,
    list_of_models,
    model_constant,
    symbol_of,
)
from tbc.codegen.staging import staged
from tbc.driver import (
    EMBEDDED_WEIGHTS,
    Compiled,
    Observer,
    compile_parts,
    describe,
    lower,
    self_test_of_program,
)
from tbc.errors import BadTarget, Unsupported
from tbc.ir import Graph
from tbc.passes.plan import Image
from tbc.program import Program
from tbc.target import Target

ALONE = ("blob", "c", "ir")
"""Kinds of artifacts that hold one variant."""


@dataclass(frozen=True)
class Variants:
    """A model for several targets.

    Attributes:
        all: the compiled variants, the most able first; none has files of its own.
        whole: what they are together: the least target, the files, the largest sizes, and the
            program with the largest arena.
        shared: bytes of the weights that more than one variant reads.
    """

    all: tuple[Compiled, ...]
    whole: Compiled
    shared: int


def ordered(targets: Sequence[Target]) -> tuple[Target, ...]:
    """The targets of one library, as they are tried: first those with the most bits of tbc.h.

    Of those with equally many, which come as given, none is in another one.

    Raises:
        BadTarget: they cannot be in one library, or one would never be chosen.
    """
    first, *others = targets
    for other in others:
        if (other.triple, other.float_abi) != (first.triple, first.float_abi):
            pair = " and ".join(f"{t.name} ({t.triple})" for t in (first, other))
            raise BadTarget(f"{pair} cannot be in one library", hint="a library for each")
    if first.arch in ("c", "wasm"):
        raise BadTarget(f"{first.name} cannot be one of several: nothing tells its CPUs apart")
    names = [target.name for target in targets]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise BadTarget(f"{twice} is given twice", hint="once")
    found = sorted(targets, key=lambda t: -t.cpu_bits.bit_count())
    for better, worse in combinations(found, 2):
        if better.cpu_bits & ~worse.cpu_bits == 0:
            reason = f"a CPU that can run {worse.name} always gets {better.name}"
            raise BadTarget(reason, hint="targets that tbc.h has different bits for")
    return tuple(found)


def write_variants(
    graph: Graph,
    targets: Sequence[Target],
    name: str,
    folder: Path,
    kinds: tuple[str, ...],
    workers: Workers,
    observers: Sequence[Observer],
    linker: str = "",
    also: frozenset[str] = frozenset(),
    check: Callable[[Compiled], object] = id,
    project: str = "cmake",
    self_test: bool | None = None,
) -> tuple[Variants, tuple[Written, ...]]:
    """Compile a graph for several targets, as `ordered`, and write it as one library.

    The arguments are those of `driver.write`, with an observer for each target.

    Raises:
        Unsupported: something is asked for that holds one variant.
    """
    least = targets[-1]
    if alone := sorted({*kinds} & {*ALONE}):
        reason = f"--emit={alone[0]} is for one target, and there are {len(targets)}"
        raise Unsupported(reason, hint="shared, static, obj, header, asm, llvm, project")
    if project != "cmake":
        raise Unsupported(f"--project={project} is for one target", hint="--project=cmake")
    kinds = kinds_of(kinds, least, linker)
    image = Image()
    programs = [
        lower(graph, target, observe, image=image)
        for target, observe in zip(targets, observers, strict=True)
    ]
    programs = [replace(program, weights_size=image.size) for program in programs]
    made = _assemble(programs, targets, name, needed(kinds) | also, workers, self_test)
    check(made.whole)
    weights = None if made.whole.embedded else shared_blocks(programs, least.little_endian)
    whole = made.whole
    with staged(folder) as place:
        found = whole.info, least, whole.files, kinds, weights, linker, project
        written = list(write_artifacts(place, *found))
    return made, tuple(each.moved(place, folder) for each in written)


def _assemble(
    programs: Sequence[Program],
    targets: Sequence[Target],
    name: str,
    kinds: frozenset[str],
    workers: Workers,
    self_test: bool | None,
) -> Variants:
    least, symbol = targets[-1], symbol_of(name)
    size, align = programs[0].weights_size, programs[0].alignment
    embed = size <= EMBEDDED_WEIGHTS
    weights = f"{symbol}_weights" if embed and size else None
    checksum, image = 0, bytearray()
    for block in shared_blocks(programs, least.little_endian):
        checksum = crc32(block.data, checksum)
        if weights:
            image += block.tobytes()
    file = "" if embed else f"{name}.weights"
    parts, all_ = [], []
    for target, program in zip(targets, programs, strict=True):
        end = re.sub(r"[^A-Za-z0-9]+", "_", target.name)
        own = f"{symbol}_{end}"
        code = emit_model(program, target, own, weights, workers.datalayout(least))
        test = self_test_of_program(program, self_test)
        info = describe(program, target, name, code.phases, checksum, file, test)
        info = replace(info, variant=end)
        functions = entry_points(own, target)
        model_constant(code.glue, info, target, functions, weights)
        if weights:
            declared = f"@{weights} = external hidden constant [{size} x i8], align {align}"
            code.glue.globals[weights] = declared
        part = partial(Part, attributes=variant_attributes(target))
        parts += [part(code.glue.text(), passes=True), part(code.hand.text(), passes=False)]
        all_.append(Compiled(program, target, info, code, {}, embed, None))
    whole = _whole([each.info for each in all_])
    parts.append(Part(_tables(whole, least, weights, bytes(image), align), passes=False))
    files = compile_parts(parts, least, frozenset(exported(whole)), kinds, workers)
    largest = max(all_, key=lambda each: each.info.arena_size)
    stack = int(files["stack"])
    together = replace(least, name=whole.target)
    compiled = replace(largest, target=together, info=whole, files=files, stack=stack)
    return Variants(tuple(all_), compiled, shared_bytes(programs))


def _whole(infos: Sequence[ModelInfo]) -> ModelInfo:
    """What a program that may run any of the variants has to know."""
    places = [[tensor.place for tensor in info.outputs] for info in infos]
    outputs = tuple(
        replace(tensor, place=tensor.place if len({*found}) == 1 else None)
        for tensor, found in zip(infos[0].outputs, zip(*places, strict=True), strict=True)
    )
    return replace(
        infos[-1],
        target=", ".join(info.target for info in infos),
        outputs=outputs,
        arena_size=max(info.arena_size for info in infos),
        fast_size=max(info.fast_size for info in infos),
        state_size=max(info.state_size for info in infos),
        align=max(info.align for info in infos),
        variant="",
        variants=tuple(info.variant for info in infos),
    )


def _tables(info: ModelInfo, least: Target, weights: str | None, image: bytes, align: int) -> str:
    """The module of the weights and of the lists of models."""
    module = Module(least.triple)
    if weights:
        module.constant(weights, image, align, "hidden")
    symbols = [f"{info.symbol}_{end}" for end in info.variants]
    for symbol in symbols:
        module.globals[symbol] = f"@{symbol} = external constant i8"
    list_of_models(module, info.table, symbols)
    list_of_models(module, MODELS, symbols, "weak ")
    return module.text()


def shared_bytes(programs: Sequence[Program]) -> int:
    """Bytes of constants that more than one program reads, padding aside."""
    readers = Counter((b.offset, b.bytes) for program in programs for b in program.constants)
    return sum(size for (_, size), count in readers.items() if count > 1)
