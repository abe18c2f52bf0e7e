"""Compiled models in C programs: strict C, all libraries, memory that traps, wrong calls."""

from __future__ import annotations

import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from digits import (
    DEFINES,
    DIGITS,
    NETWORKS,
    expected_digits,
    expected_text,
    graph_of,
    images,
    write_digits,
)
from toolchain import CPU_SOURCE, POOL_SOURCE, ROOT, STRICT, needs_cc, run

from tbc import reference
from tbc.codegen.host import host_target, resolve_target
from tbc.codegen.link import can_link
from tbc.codegen.machine import Workers
from tbc.constants import constant
from tbc.dims import Expr, Symbol
from tbc.driver import lower, write
from tbc.ir import Builder, Graph, bind
from tbc.ops import Gather, Input
from tbc.text import parse_graph
from tbc.types import DType, TensorType

C = ROOT / "tests/c"
SANITIZED = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")

pytestmark = needs_cc


@pytest.fixture(scope="module", params=NETWORKS)
def built(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, workers: Workers
) -> tuple[str, Path]:
    """A network, and the folder with its libraries and headers for this machine."""
    name: str = request.param
    kinds = ["static", "header", *(["shared"] if can_link(host_target()) else [])]
    folder = tmp_path_factory.mktemp(name)
    return name, write_digits(name, host_target(), folder, *kinds, workers=workers)


def _compile(output: Path, folder: Path, *args: str | Path) -> Path:
    run("cc", *STRICT, f"-I{folder}", f"-I{DIGITS}", "-o", output, *args)
    return output


def _classify(name: str, folder: Path, *options: str) -> Path:
    """examples/digits/classify.c, linked with the static library."""
    sources = (DIGITS / "classify.c", CPU_SOURCE, folder / f"lib{name}.a")
    return _compile(folder / "classify", folder, *options, *DEFINES[name], *sources)


def _needs_sanitizers(folder: Path, options: tuple[str, ...] = SANITIZED) -> None:
    """Skip where the compiler has no run-time libraries for them."""
    probe = folder / "probe.c"
    probe.write_text("int main(void) { return 0; }\n")
    done = run("cc", *options, probe, "-o", folder / "sanitized", check=False)
    if done.returncode or run(folder / "sanitized", check=False).returncode:
        pytest.skip("the C compiler has no sanitizers")


# -- the example ----------------------------------------------------------------------------------


def test_static_library(built: tuple[str, Path]) -> None:
    name, folder = built
    assert run(_classify(name, folder)).stdout == expected_text(name)


def test_shared_library(built: tuple[str, Path]) -> None:
    name, folder = built
    libraries = [p for p in folder.glob(f"lib{name}.*") if p.suffix in (".so", ".dylib")]
    if not libraries:
        pytest.skip("there is no linker")
    sources = (C / "classify_shared.c", CPU_SOURCE)
    program = _compile(folder / "classify_shared", folder, *sources, "-ldl")
    assert run(program, libraries[0]).stdout == expected_text(name)


def test_sanitizers(built: tuple[str, Path], tmp_path: Path) -> None:
    name, folder = built
    _needs_sanitizers(tmp_path)
    assert run(_classify(name, folder, *SANITIZED)).stdout == expected_text(name)


@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")
def test_cxx11(built: tuple[str, Path]) -> None:
    name, folder = built
    flags = [f for f in STRICT if not f.startswith("-std")]
    cpu = folder / "tbc_cpu.o"
    run("cc", *STRICT, "-c", CPU_SOURCE, "-o", cpu)
    flags += ["-std=c++11", f"-I{folder}", f"-I{DIGITS}", f"-DMODEL=tbc_{name}"]
    sources = (C / "first_digit.cpp", cpu, folder / f"lib{name}.a")
    program = folder / "first_digit"
    run("c++", *flags, f'-DHEADER="{name}.h"', *sources, "-o", program)
    assert run(program).stdout == f"{expected_digits(name)[0]}\n"


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="this is no x86-64")
@pytest.mark.parametrize("name", NETWORKS)
def test_valgrind(name: str, tmp_path: Path, workers: Workers) -> None:
    target = resolve_target("x86-64-v3")  # valgrind knows no AVX-512
    if not target.features <= host_target().features:
        pytest.skip("this machine lacks AVX2")
    write_digits(name, target, tmp_path, "static", "header", workers=workers)
    program = _classify(name, tmp_path, "-g")
    done = run("valgrind", "-q", "--error-exitcode=9", "--leak-check=full", program)
    assert done.stdout == expected_text(name)
    assert done.stderr == ""


@pytest.mark.parametrize("options", [(), ("-g", "-fsanitize=thread")], ids=["plain", "sanitized"])
def test_a_pool_of_threads(
    built: tuple[str, Path], options: tuple[str, ...], tmp_path: Path
) -> None:
    name, folder = built
    if options:
        _needs_sanitizers(tmp_path, options)
    sources = (C / "pooled.c", POOL_SOURCE, folder / f"lib{name}.a", "-pthread")
    program = tmp_path / "pooled"
    done = run(_compile(program, folder, *options, f"-DMODEL=tbc_{name}", *sources))
    assert (done.stdout, done.stderr) == ("the same bits\n", "")


@pytest.mark.parametrize("sanitizer", ["", "thread", "address,undefined"])
def test_pool_without_a_compiled_model(sanitizer: str, tmp_path: Path) -> None:
    options = ("-g", "-O1", f"-fsanitize={sanitizer}") if sanitizer else ()
    if options:
        _needs_sanitizers(tmp_path, options)
    program = _compile(
        tmp_path / "threaded", tmp_path, *options, C / "threaded.c", POOL_SOURCE, "-pthread"
    )
    done = run(program, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("the same numbers\n", "", 0)


def test_the_thread_sanitizer_sees_parts_that_do_not_wait(tmp_path: Path) -> None:
    options = ("-g", "-O1", "-fsanitize=thread", "-DWAIT=0")
    _needs_sanitizers(tmp_path, options)
    sources = (C / "threaded.c", POOL_SOURCE, "-pthread")
    done = run(_compile(tmp_path / "threaded", tmp_path, *options, *sources), check=False)
    assert done.returncode != 0
    assert "data race" in done.stderr or "other numbers" in done.stderr  # the race seen, or lost


CHOOSE = """
def choose(x: f32[3, 16], c: bool):
    w: f32[16, 3] = transpose(x, perm=(1, 0))
    v3: f32[16, 16] = matmul(w, x)
    v4: f32[16, 16] = exp(v3)
    yes: f32[3, 16] = matmul(x, v4)
    v6: f32[16, 16] = tanh(v3)
    v7: f32[3, 16] = matmul(x, v6)
    no: f32[3, 16] = max(v7, x)
    v9: f32[3, 16] = where(c, yes, no)
    y: f32[3, 16] = neg(v9)
    return {"y": y}
"""


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="this is no x86-64")
def test_nothing_depends_on_the_branch_that_is_not_taken(tmp_path: Path, workers: Workers) -> None:
    target, graph = resolve_target("x86-64"), parse_graph(CHOOSE)
    compiled, _ = write(graph, target, "choose", tmp_path, ("static", "header"), workers)
    assert sum(bool(s.guards) for s in compiled.program.steps) >= 3
    program = tmp_path / "run"
    _compile(program, tmp_path, "-g", C / "choose.c", tmp_path / "libchoose.a")
    x = (np.arange(48, dtype=np.float32).reshape(3, 16) - 24) / 8
    expected = [
        int((reference.run_graph(graph, {"x": x, "c": np.array(c)})["y"] > 0).sum())
        for c in (False, True)
    ]
    done = run("valgrind", "-q", "--error-exitcode=9", "--leak-check=full", program)
    assert [int(line) for line in done.stdout.split()] == expected
    assert done.stderr == ""


# -- memory that traps ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Guarded:
    """tests/c/guarded.c with a network of 1 to 7 images a call."""

    name: str
    graph: Graph
    program: Path

    def run(self, x: npt.NDArray[Any], place: str, parts: int) -> bytes:
        data = np.array(x.nbytes, np.uintp).tobytes() + x.tobytes()
        command = [str(self.program), place, str(parts), str(len(x))]
        done = subprocess.run(command, input=data, capture_output=True)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout


@pytest.fixture(scope="module", params=NETWORKS)
def guarded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, workers: Workers
) -> Guarded:
    name: str = request.param
    folder = tmp_path_factory.mktemp(f"guarded_{name}")
    _needs_sanitizers(folder)
    graph = bind(graph_of(name), {"batch": Expr.of(Symbol("batch", 1, 7))})
    write(graph, host_target(), name, folder, ("static", "header"), workers)
    sources = (C / "guarded.c", folder / f"lib{name}.a")
    define = f"-DMODEL=tbc_{name}"
    return Guarded(name, graph, _compile(folder / "guarded", folder, *SANITIZED, define, *sources))


@pytest.mark.parametrize("batch", [1, 4, 7])
@pytest.mark.parametrize("place", ["start", "end"])
@pytest.mark.parametrize("parts", [1, 3])
def test_guard_pages(guarded: Guarded, batch: int, place: str, parts: int) -> None:
    x = images(guarded.name)[:batch]
    program = lower(guarded.graph, host_target())
    lowered = Graph(program.name, program.inputs, program.outputs)
    expected = reference.run_graph(lowered, {"x": x})["logits"]
    assert guarded.run(x, place, parts) == expected.tobytes()


def test_guard_pages_trap(guarded: Guarded) -> None:
    x = images(guarded.name)[:4]
    data = np.array(x.nbytes, np.uintp).tobytes() + x.tobytes()
    short = np.array(x.nbytes // 2, np.uintp).tobytes() + x[:2].tobytes()
    for stream, works in ((data, True), (short, False)):
        command = [str(guarded.program), "end", "1", "4"]
        done = subprocess.run(command, input=stream, capture_output=True)
        assert (done.returncode == 0) == works
    assert b"SEGV" in done.stderr


# -- wrong calls ----------------------------------------------------------------------------------


def _probe() -> Graph:
    """Rows of a table of 5 by 8 at the indices at[n, 3]; the table needs memory and an arena."""
    build = Builder()
    n = Expr.of(Symbol("n", 1, 4))
    at = build(Input("at", TensorType(DType.i32, (n, 3))))
    table = constant(build, np.arange(40).reshape(5, 8), DType.i32)
    return Graph("probe", (at,), (("rows", build(Gather(0), table, at)),))


@pytest.mark.parametrize("options", [(), SANITIZED], ids=["plain", "sanitized"])
def test_wrong_calls(options: tuple[str, ...], tmp_path: Path, workers: Workers) -> None:
    if options:
        _needs_sanitizers(tmp_path)
    _, files = write(_probe(), host_target(), "probe", tmp_path, ("static", "header"), workers)
    assert {f.path.name for f in files} == {"libprobe.a", "probe.h", "tbc.h"}
    sources = (C / "wrong_calls.c", CPU_SOURCE, tmp_path / "libprobe.a")
    program = _compile(tmp_path / "wrong_calls", tmp_path, *options, *sources)
    done = run(program, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
