"""Models as portable C: strict compilers, sanitizers, threads, other machines, the same bits."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from compiled import STRICT_C, Native, object_of
from compiled import graph_of as graph_of_program
from corpus import CORPUS, io_sets
from digits import DEFINES, DIGITS, NETWORKS, expected_text, graph_of, images, write_digits
from strategies import Array, assert_same, random_array
from toolchain import (
    CPU_SOURCE,
    INCLUDE,
    POOL_SOURCE,
    ROOT,
    ZIG,
    needs_cc,
    needs_zig,
    run,
    run_check,
)

from tbc import reference
from tbc.bench.onnx_models import bit_linear, nbits
from tbc.codegen.artifacts import target_of
from tbc.codegen.builtins import builtins_text
from tbc.codegen.host import host_target, resolve_target
from tbc.codegen.machine import Job, Part, Workers
from tbc.codegen.objfile import undefined_symbols
from tbc.dims import static
from tbc.driver import Compiled, assemble, lower, write
from tbc.emulate import Emulated, can_run
from tbc.errors import Unsupported
from tbc.frontend import load
from tbc.ir import Graph, bind
from tbc.ops import Input
from tbc.target import PORTABLE, Target, parse
from tbc.text import parse_graph
from tbc.types import DType

C = parse(PORTABLE.name)
PARTS = (1, 2, 3, 7)
SANITIZED = ("-g", "-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all")

pytestmark = needs_cc


def compiled(graph: Graph, name: str, workers: Workers) -> Compiled:
    """A graph as C."""
    return assemble(lower(graph, C), C, name, workers)


SOME = 21


def some(name: str) -> dict[str, Array]:
    """Some images, as a network takes them."""
    return {"x": images(name)[:SOME]}


def batched(name: str) -> Graph:
    """A network for some images at once."""
    return bind(graph_of(name), {"batch": SOME})


def feeds_of(graph: Graph) -> dict[str, Array]:
    """Random inputs, of a graph whose sizes are numbers."""
    return {
        v.op.name: random_array(v.type.dtype, [static(d, "a size") for d in v.type.shape], number)
        for number, v in enumerate(graph.inputs)
        if isinstance(v.op, Input)
    }


# -- compilers ------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=NETWORKS)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C file of a network that takes one image a call."""
    name: str = request.param
    return write_digits(name, C, tmp_path_factory.mktemp(name)) / f"{name}.c"


COMPILERS = {
    "gcc": ("gcc", "-std=c99"),
    "g++": ("g++", "-std=c++11", "-x", "c++"),
    "clang": (ZIG or "", "cc", "-std=c99", "-fno-sanitize=all"),
    "clang++": (ZIG or "", "c++", "-std=c++11", "-x", "c++", "-fno-sanitize=all"),
    "msp430": (ZIG or "", "cc", "-target", "msp430-freestanding", "-fno-sanitize=all"),
    "avr-gcc": ("avr-gcc", "-mmcu=atmega1284p"),
}
"""Compilers, the last two of which have an int of 16 bits."""
RUN_TIME = re.compile(r"__(mspabi_\w+|\w*sf\w*|\w+[shd]i\d|do_copy_data|tablejump\w*)")
"""What compilers supply for CPUs without floats or wide integers."""


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("optimise", ["-O2", pytest.param("-Os", marks=pytest.mark.slow)])
def test_strict_compilers(compiler: str, optimise: str, written: Path, tmp_path: Path) -> None:
    command = COMPILERS[compiler]
    if shutil.which(command[0]) is None:
        pytest.skip(f"there is no {compiler}")
    flags = [f for f in STRICT_C if not f.startswith("-std")]
    run(*command, *flags, optimise, "-ffreestanding", "-c", written, "-o", tmp_path / "model.o")
    missing = run("nm", "-u", tmp_path / "model.o", check=False).stdout.split()
    assert [name for name in missing if name != "U" and not RUN_TIME.fullmatch(name)] == []


def test_the_example_prints_what_onnxruntime_says(written: Path, tmp_path: Path) -> None:
    name, program = written.stem, tmp_path / "classify"
    sources = (DIGITS / "classify.c", CPU_SOURCE, written)
    flags = (*STRICT_C, f"-I{DIGITS}", f"-I{written.parent}", *DEFINES[name])
    for options in (("-O2",), ("-O1", *SANITIZED)):
        run("cc", *flags, *options, *sources, "-o", program)
        assert run(program).stdout == expected_text(name)


@pytest.mark.parametrize("options", [(), ("-g", "-fsanitize=thread")], ids=["plain", "sanitized"])
def test_a_pool_of_threads(options: tuple[str, ...], written: Path, tmp_path: Path) -> None:
    program = tmp_path / "pooled"
    sources = (ROOT / "tests/c/pooled.c", POOL_SOURCE, written, "-pthread")
    define = f"-DMODEL=tbc_{written.stem}"
    run("cc", *STRICT_C, "-O1", *options, define, *sources, "-o", program)
    done = run(program)
    assert (done.stdout, done.stderr) == ("the same bits\n", "")


MULTIPLY_ADD = """
def f(x: f32[999], y: f32[999], z: f32[999]):
    v: f32[999] = mul(x, y)
    w: f32[999] = add(v, z)
    return {"w": w}
"""


@pytest.mark.skipif("fma" not in host_target().features, reason="this CPU has no multiply-add")
def test_compilers_that_may_contract_do_not(workers: Workers) -> None:
    source = compiled(parse_graph(MULTIPLY_ADD), "m", workers)
    contracting = ("gcc", "-std=gnu99", "-mfma", "-ffp-contract=fast")
    if shutil.which("objdump") is None or shutil.which("gcc") is None:
        pytest.skip("there is no gcc, or no objdump")
    assert not has_multiply_add(object_of(source, contracting))
    careless = source.files["c"].replace(b"#pragma GCC", b"// #pragma GCC")
    assert has_multiply_add(object_of(with_source(source, careless), contracting))


def with_source(model: Compiled, source: bytes) -> Compiled:
    """The model with other C."""
    return replace(model, files={"c": source})


def has_multiply_add(obj: bytes) -> bool:
    """Whether the code has an instruction that rounds once for a product and a sum."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(obj)
        file.flush()
        return "vfmadd" in run("objdump", "-d", file.name).stdout


# -- the same bits --------------------------------------------------------------------------------


def check(graph: Graph, feeds: Mapping[str, Array], workers: Workers, target: Target = C) -> None:
    """Compare with the reference, at several numbers of parts."""
    native = Native(graph, workers, target)
    expected = reference.run_graph(native.lowered, feeds)
    for parts in PARTS:
        done = native.run(feeds, parts)
        assert done.status == 0
        for name, array in expected.items():
            assert_same(done.outputs[name], array)


@pytest.mark.parametrize("name", NETWORKS)
def test_digits(name: str, workers: Workers) -> None:
    check(batched(name), some(name), workers)


@pytest.mark.parametrize("form", [bit_linear, nbits])
def test_layers_of_low_bit_weights(
    form: Callable[[Array, float, int], onnx.ModelProto], workers: Workers
) -> None:
    w = np.random.default_rng(3).integers(-1, 2, (50, 96)).astype(np.int8)
    graph = load(form(w, 0.25, 5)).graph
    check(graph, feeds_of(graph), workers)


@pytest.mark.slow
def test_a_transformer(workers: Workers) -> None:
    path = CORPUS / "a01_hf_bitnet_autobit_online_dynamo/model.onnx"
    if not path.exists():
        pytest.skip(f"the corpus is not at {CORPUS}")
    feeds, _ = next(iter(io_sets(path.parent.name)))
    dims = {
        str(dim): size
        for v in load(path).graph.inputs
        for dim, size in zip(v.type.shape, feeds[v.op.name].shape, strict=True)  # type: ignore[attr-defined]
        if not isinstance(dim, int)
    }
    check(bind(load(path).graph, dims), feeds, workers)


def test_a_wrong_weight_is_seen(workers: Workers) -> None:
    model = compiled(batched("digits_mlp"), "digits_mlp", workers)
    source = model.files["c"]
    found = list(re.finditer(rb"0x([0-9a-f]{8})u, 0x", source))[100]
    other = b"%08x" % (int(found[1], 16) ^ 0x02020202)
    wrong = source[: found.start(1)] + other + source[found.end(1) :]
    right, changed = (logits_of(with_source(model, text)) for text in (source, wrong))
    with pytest.raises(AssertionError):
        assert_same(changed, right)


def logits_of(model: Compiled) -> Array:
    """What a network in C says of some images, on this machine."""
    with Emulated(model) as emulated:
        return emulated.run(some("digits_mlp"))["logits"]


# -- other machines -------------------------------------------------------------------------------


MACHINES = {
    "s390x": "s390x-linux-musl",
    "armv7": "arm-linux-musleabihf",
    "cortex-m0plus": "thumb-freestanding-eabi -mcpu=cortex_m0plus",
    "i686": "x86-linux-musl",
    "rv64gc": "riscv64-linux-musl",
}
"""Target -> how zig is told of it."""


def elsewhere(model: Compiled, machine: str, workers: Workers) -> Compiled:
    """A model in C as an object for another machine, with what its compiler calls beside it."""
    target = parse(machine)
    if missing := can_run(target):
        pytest.skip(missing)
    zig = (ZIG or "", "cc", "-target", *MACHINES[machine].split())
    obj = object_of(model, (*zig, "-ffreestanding", "-fno-sanitize=all", "-fno-unwind-tables"))
    names: set[str] = set()
    while missing_names := undefined_symbols(obj) - names:
        names |= missing_names
        text = builtins_text(names, target.triple).replace("define internal ", "define ")
        job = Job(target, (Part(text, False),), frozenset(names), closed=False)
        own = workers.compile(job)["obj"]
        if undefined_symbols(own) <= names:
            obj = linked(obj, own)
    return replace(model, target=target, files={"obj": obj})


def linked(*objects: bytes) -> bytes:
    """Objects as one."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.o" for i in range(len(objects))]
        for path, obj in zip(paths, objects, strict=True):
            path.write_bytes(obj)
        run(ZIG or "", "ld.lld", "-r", *paths, "-o", Path(folder) / "all.o")
        return (Path(folder) / "all.o").read_bytes()


@needs_zig
@pytest.mark.parametrize(
    "machine",
    [m if m in ("s390x", "armv7") else pytest.param(m, marks=pytest.mark.slow) for m in MACHINES],
)
@pytest.mark.parametrize("name", NETWORKS)
def test_digits_elsewhere(name: str, machine: str, workers: Workers) -> None:
    model = compiled(batched(name), name, workers)
    expected = reference.run_graph(graph_of_program(model.program), some(name))
    with Emulated(elsewhere(model, machine, workers)) as emulated:
        assert_same(emulated.run(some(name))["logits"], expected["logits"])


def test_an_8_bit_machine(tmp_path: Path, workers: Workers) -> None:
    if shutil.which("avr-gcc") is None or shutil.which("simavr") is None:
        pytest.skip("avr-gcc or simavr is not installed")
    write_digits("digits_mlp", C, tmp_path, workers=workers)
    (arena,) = re.findall(r"ARENA_SIZE (\d+)", (tmp_path / "digits_mlp.h").read_text())
    sizes = {"MODEL": "tbc_digits_mlp", "ARENA": arena, "INPUTS": 64, "OUTPUTS": 10}
    defines = [f"-D{name}={value}" for name, value in sizes.items()]
    sources = (ROOT / "tests/c/avr.c", tmp_path / "digits_mlp.c")
    program = tmp_path / "avr.elf"
    flags = ("-mmcu=atmega1284p", *STRICT_C, "-Os", f"-I{tmp_path}")
    run("avr-gcc", *flags, *defines, *sources, "-o", program)
    printed = run("simavr", "-m", "atmega1284p", "-f", "16000000", program)
    found = re.search("=([0-9a-f]{80})", printed.stdout + printed.stderr)
    assert found is not None
    x = (np.arange(64) * 7 % 17).astype(np.float32).reshape(1, 64) / np.float32(16)
    graph = graph_of_program(lower(bind(graph_of("digits_mlp"), {"batch": 1}), C))
    logits = reference.run_graph(graph, {"x": x})["logits"]
    assert found[1] == logits.astype(">f4").tobytes().hex()


# -- files ----------------------------------------------------------------------------------------


def test_the_weights_are_those_that_the_sum_is_of(written: Path, tmp_path: Path) -> None:
    source = tmp_path / "sum.c"
    source.write_text(
        f'#include "{written.stem}.h"\n'
        f"int main(void) {{ const tbc_model *m = &tbc_{written.stem};"
        " return tbc_sum(m->weights, m->weights_size) != m->weights_sum"
        " || tbc_check(m, 0) != TBC_OK || m->run_part != NULL; }\n"
    )
    program = tmp_path / "sum"
    run("cc", *STRICT_C, f"-I{written.parent}", source, written, "-o", program)
    run(program)
    if ZIG is not None and shutil.which("qemu-s390x"):
        (tmp_path / "tbc.h").write_text((INCLUDE / "tbc.h").read_text())
        (tmp_path / f"{written.stem}.h").write_text(written.with_suffix(".h").read_text())
        source.write_text(source.read_text().replace("int main(void)", "int check(void)"))
        assert run_check("s390x", tmp_path, source, written) == 0


def test_weights_in_a_file_of_their_own(tmp_path: Path, workers: Workers) -> None:
    program = lower(batched("digits_mlp"), C)
    model = assemble(program, C, "digits_mlp", workers, embed=False)
    assert b"is for little-endian machines" in model.files["c"]
    assert_same(logits_of(model), logits_of(compiled(batched("digits_mlp"), "m", workers)))


@pytest.mark.parametrize("target", ["c", "armv8"])
def test_weights_as_code_if_asked_for(target: str, workers: Workers) -> None:
    fast = target_of(("c",), resolve_target(target, optimize="speed"))
    model = assemble(lower(batched("digits_cnn"), fast), fast, "digits_cnn", workers)
    assert b"_trit_code(" in model.files["c"]
    check(batched("digits_cnn"), some("digits_cnn"), workers, target=fast)


def test_what_is_written(tmp_path: Path, workers: Workers) -> None:
    graph = batched("digits_cnn")
    model, files = write(graph, parse("armv8"), "net", tmp_path, ("c",), workers)
    assert model.target == C
    assert {f.path.name for f in files} == {"net.c"}
    _, files = write(graph, C, "net", tmp_path, (), workers)
    names = {"net.c", "net.h", "tbc.h", "tbc_cpu.c", "main.c", "CMakeLists.txt", "netConfig.cmake"}
    names |= {"net.pc", "tbc_self_test.c"}
    assert {f.path.name for f in files} == names
    assert target_of(("obj",), parse("armv8")).name == "armv8"
    for kinds, target in ((("c", "static"), "native"), (("obj",), "c")):
        with pytest.raises(Unsupported, match="portable C is for no machine, and --emit="):
            target_of(kinds, host_target() if target == "native" else C)


@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
def test_the_project_builds(tmp_path: Path, workers: Workers) -> None:
    write_digits("digits_mlp", C, tmp_path)
    run("cmake", "-S", tmp_path, "-B", tmp_path / "build", "-DCMAKE_C_FLAGS=-Werror -Wall -Wextra")
    run("cmake", "--build", tmp_path / "build")
    assert "logits" in run(tmp_path / "build/digits_mlp_example").stdout


def test_the_same_model_is_the_same_file(workers: Workers) -> None:
    texts = {compiled(batched("digits_cnn"), "net", workers).files["c"] for _ in range(2)}
    assert len(texts) == 1


GOLDEN = ROOT / "tests/golden/c"


def test_how_it_reads(golden: Callable[[Path, str], None], workers: Workers) -> None:
    graph = parse_graph((GOLDEN / "layer.ir").read_text())
    model = compiled(graph, "layer", workers)
    golden(GOLDEN / "layer.c", model.files["c"].decode())
    check(graph, feeds_of(graph), workers)


def test_floats_that_have_no_literal(workers: Workers) -> None:
    text = """
def f(x: f32[4], d: f64[4]):
    a: f32[4] = const([inf, -inf, nan, 1e-45])
    y: f32[4] = add(x, a)
    b: f64[4] = const([inf, -inf, nan, 5e-324])
    z: f64[4] = add(d, b)
    return {"y": y, "z": z}
"""
    graph = parse_graph(text)
    zeros = {"x": np.zeros(4, np.float32), "d": np.zeros(4)}
    check(graph, zeros, workers)
    assert DType.f64 in {v.type.dtype for v in graph.inputs}
