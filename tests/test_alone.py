"""What tbc makes without any tool but itself, and that others' tools accept it.

`tbc compile` runs in a process in which no program can be found and the packages of the `cross`
extra cannot be imported; that it starts no other program is checked as well. What it wrote is then
linked by the linkers of those packages, and read by binutils.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from digits import DIGITS, graph_of, images
from toolchain import ROOT, ZIG, run

import tbc
from tbc.codegen.artifacts import KINDS, static_name
from tbc.codegen.host import host_target
from tbc.codegen.link import suffix
from tbc.codegen.objfile import undefined_symbols
from tbc.driver import bound_batch
from tbc.passes import FRONT
from tbc.reference import run_graph
from tbc.runtime.blob import MAGIC
from tbc.target import PORTABLE, TARGETS, Target, parse

MODEL = DIGITS / "digits_mlp.onnx"
NAMES = (
    *(named.name for named in TARGETS),
    *("x86-64-v3+avxvnni", "x86-64-v4+vnni", "armv8.2+dotprod", "armv8.2+sve", "armv7+neon"),
    *("rv32imac_zve32x_zvl128b", "wasm32+relaxed", "z14"),
)
QUICK = ("armv8", "cortex-m4f", "windows-x86-64", "apple-m1", "wasm32+simd128", "rv64gc")
EVERYWHERE = ("static", "obj", "header", "asm", "llvm", "ir", "project")
ALONE = """
import json, sys

for package in ("ziglang", "wasmtime"):
    sys.modules[package] = None

def seen(event, arguments):
    started = event in ("os.exec", "os.posix_spawn", "os.system", "subprocess.Popen")
    if started and arguments[0] != sys.executable:
        raise RuntimeError(f"{arguments[0]} was started")

sys.addaudithook(seen)
from tbc.cli import main
sys.argv[:] = ["tbc", *json.loads(sys.argv[1])]
main()
"""


def alone(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`tbc` in a process that finds nothing else."""
    environment = {**os.environ, "PATH": "", "PYTHONPATH": str(ROOT)}
    words = json.dumps([str(a) for a in arguments])
    command = [sys.executable, "-c", ALONE, words]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def compiled(folder: Path, target: str, kinds: Sequence[str]) -> dict[str, list[Path]]:
    """The files that were made, by kind."""
    options = ["compile", MODEL, "--target", target, "-o", folder, "--json"]
    done = alone(*options, *(f"--emit={kind}" for kind in kinds))
    assert done.returncode == 0, done.stderr
    files: dict[str, list[Path]] = {}
    for file in json.loads(done.stdout)["files"]:
        assert file["tool"] == ""
        files.setdefault(file["kind"], []).append(Path(file["path"]))
    return files


def is_shared(target: Target) -> bool:
    return target.object_format == "elf" and target.os != "none"


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NAMES]
)
def test_every_kind_is_made_without_tools(name: str, tmp_path: Path) -> None:
    target = parse(name)
    kinds = [*EVERYWHERE]
    kinds += ["shared"] if is_shared(target) else []
    kinds += ["blob"] if target.object_format == "elf" else []
    files = compiled(tmp_path / "out", name, kinds)
    assert files.keys() == set(kinds)
    (obj,), (library,) = files["obj"], files["static"]
    assert library.name == static_name("digits_mlp", target)
    assert undefined_symbols(obj.read_bytes()) <= {"_fltused"}
    if "blob" in files:
        order = "little" if target.little_endian else "big"
        assert int.from_bytes(files["blob"][0].read_bytes()[:4], order) == MAGIC
    if ZIG:
        for path in (obj, library):
            link(target, path, tmp_path / f"linked-{path.name}")
    if "shared" in files:
        assert files["shared"][0].suffix == suffix(target)
        assert_needs_nothing(files["shared"][0])


def link(target: Target, path: Path, out: Path) -> None:
    """Let a linker make a library, or a program where there are none, of an object or archive."""
    assert ZIG
    whole = path.suffix == ".a"
    match target.object_format:
        case "elf":
            place = ["-e", "0"] if target.os == "none" else ["-shared"]
            around = ["--whole-archive", path, "--no-whole-archive"] if whole else [path]
            run(ZIG, "ld.lld", *place, "--no-undefined", *around, "-o", out)
            text = run("readelf", "-sW", out).stdout if shutil.which("readelf") else ""
            assert not text or re.search(
                r"OBJECT +GLOBAL +DEFAULT +\d+ tbc_digits_mlp$", text, re.M
            )
        case "coff":
            export = ["/alternatename:_fltused=tbc_digits_mlp", "/export:tbc_digits_mlp,DATA"]
            flags = ["/dll", "/noentry", "/nodefaultlib", "/include:tbc_digits_mlp", *export]
            run(ZIG, "lld-link", *flags, path, f"/out:{out}")
            data = out.read_bytes()
            assert data[:2] == b"MZ"
            assert b"\0tbc_digits_mlp\0" in data
        case "macho":
            arch = "aarch64" if target.arch == "aarch64" else "x86_64"
            flags = ["-target", f"{arch}-macos", "-shared", "-nostdlib"]
            run(ZIG, "cc", *flags, f"-Wl,-force_load,{path}" if whole else path, "-o", out)
            data = out.read_bytes()
            assert data[:4] == b"\xcf\xfa\xed\xfe"
            assert b"\0_tbc_digits_mlp\0" in data
        case "wasm":
            around = ["--whole-archive", path] if whole else [path]
            run(ZIG, "wasm-ld", "--no-entry", "--export=tbc_digits_mlp", *around, "-o", out)
            assert out.read_bytes()[:4] == b"\0asm"


def assert_needs_nothing(library: Path) -> None:
    """A shared library, as readelf sees it."""
    if shutil.which("readelf") is None:
        return
    done = run("readelf", "-hdW", "--dyn-syms", library)
    assert done.stderr == ""
    assert "DYN (Shared object file)" in done.stdout
    assert not re.search(r"NEEDED|TEXTREL", done.stdout)
    symbols = re.findall(r"^ +\d+: .* (\w+) +(\S+)$", done.stdout, re.M)
    assert {name for _, name in symbols} == {"tbc_digits_mlp", "tbc_models"}
    assert "UND" not in {section for section, _ in symbols}


@pytest.mark.parametrize("kind", ["obj", "blob"])
@pytest.mark.parametrize("name", ["armv8", "cortex-m4f"])
def test_the_linkers_check_can_fail(name: str, kind: str, tmp_path: Path) -> None:
    """What is no object, or lacks a symbol, is not linked."""
    if not ZIG:
        pytest.skip("the ziglang wheel is not installed")
    source = tmp_path / "lacking.c"
    source.write_text("extern int absent; extern const int *tbc_digits_mlp; int *f(void);\n"
                      "int *f(void) { return &absent; }\n")  # fmt: skip
    path = tmp_path / "lacking.o"
    if kind == "obj":
        triple = "aarch64-linux-musl" if name == "armv8" else "thumb-freestanding-eabihf"
        run(ZIG, "cc", "-target", triple, "-c", source, "-o", path)
    else:
        path.write_bytes(b"no object")
    with pytest.raises(AssertionError):
        link(parse(name), path, tmp_path / "linked")


def test_portable_c_is_made_without_tools(tmp_path: Path) -> None:
    files = compiled(tmp_path, PORTABLE.name, ["c", "header", "ir", "project"])
    assert files.keys() == {"c", "header", "ir", "project"}
    assert {*EVERYWHERE, "c", "shared", "blob"} == set(KINDS)
    if shutil.which("cc"):
        flags = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", "-c"]
        run("cc", *flags, *files["c"], "-o", tmp_path / "net.o")


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("windows-x86-64", "shared", "no linker for windows-x86-64"),
        ("windows-x86-64", "blob", "only ELF targets"),
        ("wasm32", "blob", "WebAssembly cannot run code out of memory"),
        ("cortex-m4", "shared", "no operating system"),
    ],
)
def test_what_cannot_be_made_is_said(name: str, kind: str, reason: str, tmp_path: Path) -> None:
    done = alone("compile", MODEL, "--target", name, "--emit", kind, "-o", tmp_path)
    assert done.returncode == 1
    assert reason in " ".join(done.stderr.split())


@pytest.mark.parametrize("kind", ["shared", "blob"])
def test_this_machine_runs_what_was_made(kind: str, tmp_path: Path) -> None:
    """The system's loader, and tbc's own, give the bits of the reference."""
    target = host_target()
    if not is_shared(target):
        pytest.skip("this system has no ELF libraries")
    (path,) = compiled(tmp_path, "native", [kind])[kind]
    graph, _ = bound_batch(graph_of("digits_mlp"))
    for step in FRONT:
        graph = step(graph, target)
    x = images("digits_mlp")[:1]
    found = tbc.load(path).run({"x": x})["logits"]
    expected = run_graph(graph, {"x": x})["logits"]
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))
