"""The trained networks give onnxruntime's answers, here and on other machines."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from compiled import Native
from digits import (
    DEFINES,
    DIGITS,
    NETWORKS,
    expected_digits,
    expected_logits,
    expected_text,
    graph_of,
    images,
    labels,
    write_digits,
)
from strategies import assert_same
from toolchain import CPU_SOURCE, INCLUDE, ROOT, ZIG, emulator, needs_zig, run

import tbc
from tbc import reference
from tbc.budget import Budget
from tbc.codegen.host import resolve_target
from tbc.codegen.machine import Workers
from tbc.driver import Compiled, assemble, lower
from tbc.emulate import Emulated, can_run, method
from tbc.ir import Graph, Value, bind
from tbc.ops import Binary, Dot, Reduce
from tbc.passes import FRONT
from tbc.target import Target
from tbc.types import DType

Array = npt.NDArray[Any]

ACCURACY = {"digits_mlp": 356, "digits_cnn": 354}
"""Network -> how many of the 360 held-out images it gets right."""
SUMS = {"digits_mlp": 3, "digits_cnn": 5}
"""Network -> how many layers with low-bit weights it has."""


# -- labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_labels(name: str) -> None:
    logits = tbc.compile(DIGITS / f"{name}.onnx").run({"x": images(name)})["logits"]
    digits = logits.argmax(axis=1)
    np.testing.assert_array_equal(digits, expected_digits(name))
    assert np.count_nonzero(digits == labels()) == ACCURACY[name]
    np.testing.assert_allclose(logits, expected_logits(name), rtol=1e-4, atol=1e-4)


@needs_zig
@pytest.mark.parametrize("name", NETWORKS)
def test_labels_on_armv8(name: str, tmp_path: Path, workers: Workers) -> None:
    qemu = emulator("qemu-aarch64")
    target = resolve_target("armv8")
    assert "dotprod" not in target.features
    write_digits(name, target, tmp_path, "static", "header", workers=workers)
    options = ("-target", "aarch64-linux-musl", "-static", "-O1", f"-I{INCLUDE}", f"-I{tmp_path}")
    sources = (DIGITS / "classify.c", CPU_SOURCE, tmp_path / f"lib{name}.a")
    program = tmp_path / "classify"
    run(ZIG, "cc", *options, *DEFINES[name], *sources, "-o", program)
    assert run(qemu, "-cpu", "cortex-a53", program).stdout == expected_text(name)


# -- accumulators ---------------------------------------------------------------------------------


def is_sum(value: Value) -> bool:
    """Whether a value is the exact sum of a low-bit layer: a dot, or a depthwise window's."""
    match value:
        case Value(op=Dot()):
            return value.type.dtype is DType.i32
        case Value(op=Reduce("sum"), args=(Value(op=Binary("mul")),)):
            return value.type.dtype is DType.i32 and not value.is_constant
    return False


def with_sums(graph: Graph) -> Graph:
    """The graph after the passes that find low-bit weights, with every layer's sum as an output."""
    for step in FRONT:
        graph = step(graph, resolve_target("native"))
    sums = tuple((f"sum{v.number}", v) for v in graph.values() if is_sum(v))
    return replace(graph, outputs=(*graph.outputs, *sums))


def numpy_sum(value: Value, known: dict[Value, Array]) -> Array:
    """The sum in NumPy's 64-bit integers, from the codes and weights that it is of."""
    factors = value.args if isinstance(value.op, Dot) else value.args[0].args
    a, b = (known[v].astype(np.int64) for v in factors)
    if isinstance(value.op, Dot):
        return np.einsum("...k,nk->...n", a, b)
    assert isinstance(value.op, Reduce)
    return (a * b).sum(axis=value.op.axes)


@pytest.fixture(scope="module", params=NETWORKS)
def summed(request: pytest.FixtureRequest) -> tuple[str, Graph, dict[str, Array]]:
    """A network of all images at once with its sums as outputs, and what the reference says."""
    name = request.param
    graph = with_sums(bind(graph_of(name), {"batch": len(images(name))}))
    known: dict[Value, Array] = {}
    expected = reference.run_graph(graph, {"x": images(name)}, known.__setitem__)
    sums = [(n, v) for n, v in graph.outputs if is_sum(v)]
    assert len(sums) == SUMS[name]
    for output, value in sums:
        np.testing.assert_array_equal(expected[output], numpy_sum(value, known))
        assert np.ptp(expected[output]) > 20
    return name, graph, expected


def test_sums(summed: tuple[str, Graph, dict[str, Array]], workers: Workers) -> None:
    name, graph, expected = summed
    model = Native(graph, workers)
    for parts in (1, 3):
        outputs = model.run({"x": images(name)}, parts).outputs
        for output, array in expected.items():
            assert_same(outputs[output], array)


def test_sums_on_armv8(summed: tuple[str, Graph, dict[str, Array]], workers: Workers) -> None:
    name, graph, expected = summed
    target = resolve_target("armv8")
    if missing := can_run(target):
        pytest.skip(missing)
    compiled = assemble(lower(graph, target), target, name, workers)
    with Emulated(compiled) as emulated:
        assert emulated.emulator == ("qemu-aarch64", "-cpu", "cortex-a53")
        outputs = emulated.run({"x": images(name)})
    for output, array in expected.items():
        assert_same(outputs[output], array)


# -- other machines -------------------------------------------------------------------------------


FEW = 4
"""Images that an emulated board is given: it takes some milliseconds for each."""


def _compiled(name: str, target: Target, workers: Workers, batch: int = 0) -> Compiled:
    """A network for some images at once, all by default."""
    graph = bind(graph_of(name), {"batch": batch or len(images(name))})
    return assemble(lower(graph, target), target, name, workers)


@pytest.mark.parametrize(
    "target",
    [
        "armv8.2+dotprod",
        "armv7",
        "armv6",
        "cortex-m0plus",
        pytest.param("cortex-m3", marks=pytest.mark.slow),
        "cortex-m4",
        pytest.param("cortex-m4f", marks=pytest.mark.slow),
        pytest.param("cortex-m7", marks=pytest.mark.slow),
        pytest.param("cortex-m23", marks=pytest.mark.slow),
        pytest.param("cortex-m33", marks=pytest.mark.slow),
        "cortex-m55",
        pytest.param("cortex-m85", marks=pytest.mark.slow),
        "rv64gc",
        "rv32imc",
        "rv64gc_zve32x_zvl128b",
        "wasm32",
        "wasm32+relaxed",
        "s390x",
        "z14",
        "i686",
        "x86-64",
        "x86-64-v3",
    ],
)
def test_logits_elsewhere(
    target: str, summed: tuple[str, Graph, dict[str, Array]], workers: Workers
) -> None:
    name, _, expected = summed
    chosen = resolve_target(target)
    if missing := can_run(chosen):
        pytest.skip(missing)
    batch = FEW if method(chosen) == "qemu-system" else len(images(name))
    with Emulated(_compiled(name, chosen, workers, batch)) as emulated:
        outputs = emulated.run({"x": images(name)[:batch]})
        assert_same(outputs["logits"], expected["logits"][:batch])


@pytest.mark.parametrize(("name", "arena"), [("digits_mlp", 1 << 10), ("digits_cnn", 10 << 10)])
def test_they_fit_a_small_core(name: str, arena: int, workers: Workers) -> None:
    compiled = _compiled(name, resolve_target("cortex-m0plus"), workers, 1)
    Budget(flash=16 << 10).check(compiled)
    assert compiled.info.arena_size < arena


RUN_WASM = """
const fs = require("fs");
const module = new WebAssembly.Module(fs.readFileSync(process.argv[1]));
const {memory, input, output, run} = new WebAssembly.Instance(module).exports;
fs.readFileSync(0).copy(new Uint8Array(memory.buffer), input());
if (run() !== 0) process.exit(1);
process.stdout.write(new Uint8Array(memory.buffer, output(), Number(process.argv[2])));
"""


@needs_zig
@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize("target", ["wasm32", "wasm32+simd128"])
def test_logits_in_node(
    target: str, summed: tuple[str, Graph, dict[str, Array]], workers: Workers, tmp_path: Path
) -> None:
    name, _, expected = summed
    compiled = _compiled(name, resolve_target(target), workers)
    x, y = images(name), expected["logits"]
    (tmp_path / "model.o").write_bytes(compiled.files["obj"])
    sizes = {"INPUT": x.nbytes, "OUTPUT": y.nbytes, "ARENA": compiled.info.arena_size}
    defines = [f"-DMODEL=tbc_{name}", *(f"-D{n}_SIZE={size}" for n, size in sizes.items())]
    options = ("-target", "wasm32-freestanding", "-O1", "-nostdlib", "-fno-sanitize=all")
    options += ("-Wl,--no-entry", "-Wl,--export-memory", f"-I{INCLUDE}", *defines)
    module = tmp_path / "model.wasm"
    run(ZIG, "cc", *options, ROOT / "tests/c/exports.c", tmp_path / "model.o", "-o", module)
    command = ["node", "-e", RUN_WASM, str(module), str(y.nbytes)]
    done = subprocess.run(command, input=x.tobytes(), capture_output=True)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert_same(np.frombuffer(done.stdout, y.dtype).reshape(y.shape), y)
