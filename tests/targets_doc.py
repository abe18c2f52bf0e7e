"""docs/targets.md: what the networks of the demo take on every target, counted while they run.

`python -m tests.targets_doc` writes it. Rows are measured, not computed: a model is compiled for
the target, run by what runs it here, its outputs compared with the reference bit by bit, and its
instructions counted (`tests/counting.py`).
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tbc import __version__
from tbc.bench.onnx_models import bit_linear
from tbc.budget import sections_of
from tbc.codegen.host import resolve_target
from tbc.codegen.machine import Workers, llvm_version
from tbc.driver import assemble, bound_batch, lower
from tbc.emulate import Emulated, can_run
from tbc.frontend import load
from tbc.ir import Graph
from tbc.kernels import BY_NAME
from tbc.passes import FRONT
from tbc.reference import run_graph
from tbc.report import kernel_counts
from tests.counting import FUEL, PLUGIN, STEPS, CannotCount, counted

Array = npt.NDArray[Any]

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs/targets.md"
DIGITS = ROOT / "examples/digits"
TARGETS = (
    *("x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v3+avxvnni", "x86-64-v4", "x86-64-v4+vnni"),
    *("x86-64-v4+vnni+vbmi", "i686"),
    *("armv8", "armv8.2+dotprod", "armv8.6", "armv8.2+sve", "armv9"),
    *("armv7", "armv7+neon"),
    *("cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m4f", "cortex-m7", "cortex-m33"),
    *("cortex-m55", "cortex-m85"),
    *("rv32imc", "rv32imac", "rv32imac_zve32x_zvl128b", "rv64gc", "rv64gc_zve32x_zvl128b"),
    *("rv64gcv", "wasm32", "wasm32+simd128", "wasm32+relaxed", "s390x", "z14", "c"),
)
SAMPLES = 3
LAYER = 256
HEAD = """# Targets

Two networks of the demo (`examples/digits`) and a layer of 256x256 trits with activations rounded
to 8 bits (`bit_linear`), one sample a call, compiled for every kind of target and run.
`make targets` writes this file, here with tbc {version} and LLVM {llvm}; a test repeats its rows.

- **kernels**: of the low-bit layers. **inner loop**: instructions a weight of their innermost loop,
  as a test counts them in the assembly, without loads and moves where those have ports of their own
  ([kernels.md](kernels.md) shows the loops); of `scalar` on rv32imc, of `pairs` on Cortex-M3.
- **flash**: code, constants and descriptions of the object, in bytes; of WebAssembly, the object
  file. What C takes is for its compiler to say. **arena**: the memory of a call.
- **instructions**: of one run, counted by a plugin of qemu (*p*), as fuel by wasmtime (*f*: those
  of WebAssembly, not of the machine), or in single steps on the machine itself (*s*). Nothing is
  estimated: every instruction that the model's functions execute is one. Those of SVE are by
  vectors of 512 bits, qemu's default. C is compiled with -O1 for the machine that made this file.
- **wrong**: results of {samples} samples whose bits are not those of the integer reference.
- **outputs**: the first digits of the SHA-256 of these results.

"""


@dataclass(frozen=True)
class Model:
    """A model, and samples of its input."""

    name: str
    graph: Graph
    samples: tuple[Mapping[str, Array], ...]


@dataclass(frozen=True)
class Row:
    """What a model takes on a target.

    Attributes:
        target: its name.
        kernels: of the low-bit layers.
        inner: instructions a weight of each kernel's innermost loop; None of those without.
        flash: bytes; None where the object does not tell.
        arena: bytes.
        instructions: of a run; None where nothing runs or counts it here.
        counter: what counted.
        wrong: elements that differ from the reference.
        digest: of the outputs.
        runner: the emulator's command, "this machine", or why it was not run.
    """

    target: str
    kernels: tuple[str, ...]
    inner: tuple[float | None, ...]
    flash: int | None
    arena: int
    instructions: int | None = None
    counter: str = ""
    wrong: int | None = None
    digest: str = ""
    runner: str = ""

    def cells(self) -> tuple[str, ...]:
        """Those of the table."""
        letter = {PLUGIN: " *p*", FUEL: " *f*", STEPS: " *s*", "": ""}[self.counter]
        return (
            self.target,
            ", ".join(self.kernels),
            ", ".join("–" if cost is None else f"{cost:g}" for cost in self.inner),
            number(self.flash),
            number(self.arena),
            number(self.instructions) + letter,
            number(self.wrong),
            self.digest,
        )


def number(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def models() -> tuple[Model, ...]:
    """Those of the document."""
    pixels = np.load(DIGITS / "test_images.npy")[:SAMPLES] / np.float32(16)
    random = np.random.default_rng(0)
    trits = random.choice([-1, 0, 1], (LAYER, LAYER)).astype(np.int8)
    layer = load(bit_linear(trits, 0.25, 1).SerializeToString()).graph
    rows = random.normal(size=(SAMPLES, 1, LAYER)).astype(np.float32)
    return (
        _digits("digits_cnn", pixels.reshape(-1, 1, 1, 8, 8)),
        _digits("digits_mlp", pixels.reshape(-1, 1, 64)),
        Model("bit_linear", layer, tuple({"x": row} for row in rows)),
    )


def _digits(name: str, images: Array) -> Model:
    graph, _ = bound_batch(load(DIGITS / f"{name}.onnx").graph)
    return Model(name, graph, tuple({"x": image} for image in images))


def measured(model: Model, name: str, workers: Workers) -> Row:
    """A row, run if something here runs the target."""
    target = resolve_target(name)
    compiled = assemble(lower(model.graph, target), target, model.name, workers)
    kernels = tuple(kernel_counts(compiled.program))
    sections = sections_of(compiled)
    files = compiled.files
    flash = sum(sections.values()) if sections else len(files["obj"]) if "obj" in files else None
    inner = tuple(_cost(kernel) for kernel in kernels)
    row = Row(name, kernels, inner, flash, compiled.info.arena_size)
    if reason := can_run(target):
        return Row(*_static(row), runner=f"not run: {reason}")
    exact = model.graph
    for step in FRONT:
        exact = step(exact, target)
    wrong, digest, instructions, counter = 0, hashlib.sha256(), None, ""
    with Emulated(compiled) as emulated:
        for sample in model.samples:
            outputs, found = _counted(emulated, sample, instructions is None)
            if found:
                counter, instructions = found
            for output, expected in run_graph(exact, sample).items():
                bits = outputs[output].view(np.uint32), expected.view(np.uint32)
                wrong += int(np.count_nonzero(bits[0] != bits[1]))
                digest.update(bits[0].astype("<u4").tobytes())
        runner = " ".join(emulated.emulator).partition(" -display")[0] or "this machine"
    done = (instructions, counter, wrong, digest.hexdigest()[:12], runner)
    return Row(*_static(row), *done)


def _counted(
    emulated: Emulated, sample: Mapping[str, Array], first: bool
) -> tuple[dict[str, Array], tuple[str, int] | None]:
    """The outputs, and of the first run what counted and how many instructions."""
    if not first:
        return emulated.run(sample), None
    try:
        outputs, count = counted(emulated, sample)
    except CannotCount:
        return emulated.run(sample), None
    return outputs, (count.counter, count.total)


def _static(row: Row) -> tuple[Any, ...]:
    return row.target, row.kernels, row.inner, row.flash, row.arena


def _cost(kernel: str) -> float | None:
    """Instructions a multiply-add of the innermost loop; None of weights that are code."""
    known = BY_NAME.get(kernel)
    return None if known is None else known.row_cost if known.mr == 1 else known.cost


def table(model: Model, rows: list[Row]) -> Iterator[str]:
    """A model's part of the document."""
    yield f"## {model.name}"
    yield ""
    yield "| target | kernels | inner loop | flash | arena | instructions | wrong | outputs |"
    yield "|---|---|---|--:|--:|--:|--:|---|"
    for row in rows:
        yield f"| {' | '.join(row.cells())} |"
    yield ""
    digests = {row.digest for row in rows if row.digest}
    same = "All outputs are the same bits." if len(digests) == 1 else "The outputs differ."
    yield f"{same} Run on {sum(bool(r.digest) for r in rows)} of {len(rows)} targets."
    yield ""


def runners(rows: list[Row]) -> Iterator[str]:
    """How each target was run."""
    yield "## How they were run"
    yield ""
    yield "| target | by |"
    yield "|---|---|"
    for row in rows:
        yield f"| {row.target} | {row.runner} |"


def main() -> None:
    """Write the document."""
    llvm = ".".join(map(str, llvm_version()))
    head = HEAD.format(samples=SAMPLES, version=__version__, llvm=llvm)
    lines = [head.rstrip("\n"), ""]
    rows: list[Row] = []
    with Workers(1) as workers:
        for model in models():
            rows = []
            for name in TARGETS:
                rows.append(measured(model, name, workers))
                print(model.name, *rows[-1].cells(), file=sys.stderr)
            lines += table(model, rows)
    lines += runners(rows)
    DOCUMENT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
