"""Shared libraries: what they export, what they need, and what is said when there is no linker."""

import ctypes
import re
import shutil
from pathlib import Path

import adder
import pytest
from toolchain import ZIG, emulator, needs_zig, run, zig_cc

from tbc.codegen import link
from tbc.codegen.host import host_target
from tbc.codegen.link import can_link, find_linker, link_shared, suffix
from tbc.codegen.modelinfo import exported
from tbc.errors import LinkFailed, Unsupported
from tbc.runtime import structs
from tbc.target import parse

EXPORTS = ("tbc_adder", "tbc_models")


def linked(tmp_path, target, linker=""):
    model = adder.info(target)
    path = tmp_path / f"libadder{suffix(target)}"
    return link_shared(adder.compiled(target, model), target, path, exported(model), linker)


def linkers():
    """The linkers for this machine that there are."""
    return [
        pytest.param(name, marks=pytest.mark.skipif(not there, reason=f"no {name}"))
        for name, there in (
            ("", can_link(host_target())),
            ("cc", shutil.which("cc")),
            (f"{ZIG} ld.lld", ZIG),
            ("ld", shutil.which("ld")),
        )
    ]


@pytest.mark.parametrize("linker", linkers())
def test_this_machine_loads_what_is_linked(tmp_path, linker):
    made = linked(tmp_path, host_target(), linker)
    if linker or host_target().object_format == "elf":
        assert made.linker == linker
    library = ctypes.CDLL(str(made.path))
    table = ctypes.c_void_p.in_dll(library, "tbc_models").value
    assert table == ctypes.addressof(ctypes.c_char.in_dll(library, "tbc_adder"))
    with pytest.raises(AttributeError):
        library.run


@pytest.mark.parametrize("linker", ["", pytest.param(f"{ZIG} ld.lld", marks=needs_zig)])
@pytest.mark.parametrize(
    "name", ["x86-64", "i686", "armv8", "aarch64-android", "armv7", "rv64gc", "rv64gcv", "s390x"]
)
def test_an_elf_library_exports_the_model_and_needs_nothing(tmp_path, name, linker):
    made = linked(tmp_path, parse(name), linker)
    assert made.linker == linker
    if shutil.which("readelf") is None:
        pytest.skip("binutils are not installed")
    symbols = run("readelf", "--dyn-syms", "-W", made.path).stdout
    rows = [line.split() for line in symbols.splitlines() if re.match(r"\s+\d+:", line)]
    assert {row[7] for row in rows if len(row) > 7 and row[6] != "UND"} == set(EXPORTS)
    assert not [row for row in rows if len(row) > 7 and row[6] == "UND"]
    dynamic = run("readelf", "-dW", made.path).stdout
    assert "soname: [libadder.so]" in dynamic
    assert "NEEDED" not in dynamic
    assert "TEXTREL" not in dynamic


@needs_zig
@pytest.mark.parametrize("name", ["windows-x86-64", "windows-arm64", "i686-pc-windows-msvc"])
def test_a_dll_comes_with_an_import_library(tmp_path, name):
    made = linked(tmp_path, parse(name))
    assert made.path.read_bytes()[:2] == b"MZ"
    listed = run(ZIG, "ar", "t", f"{made.path}.lib").stdout
    assert "libadder.dll" in listed
    before = made.path.read_bytes()
    made.path.unlink()
    assert linked(tmp_path, parse(name)).path.read_bytes() == before


@needs_zig
def test_a_program_links_to_the_dll(tmp_path):
    made = linked(tmp_path, parse("windows-x86-64"))
    (tmp_path / "main.c").write_text(
        '#include "tbc.h"\n__declspec(dllimport) extern const tbc_model tbc_adder;\n'
        "int start(void);\nint start(void) { return (int)tbc_adder.align; }\n"
    )
    zig_cc("x86_64-windows-gnu", tmp_path / "main.obj", "-c", tmp_path / "main.c")
    flags = ["/subsystem:console", "/nodefaultlib", "/entry:start", f"/out:{tmp_path / 'a.exe'}"]
    run(ZIG, "lld-link", *flags, tmp_path / "main.obj", f"{made.path}.lib")


@needs_zig
@pytest.mark.parametrize("name", ["apple-m1", "macos-x86-64"])
def test_a_dylib_has_a_name_relative_to_its_user(tmp_path, name):
    data = linked(tmp_path, parse(name)).path.read_bytes()
    assert data[:4] == b"\xcf\xfa\xed\xfe"
    assert b"@rpath/libadder.dylib\0" in data
    assert b"\0_tbc_adder\0" in data


@needs_zig
@pytest.mark.parametrize("name", ["wasm32", "wasm32+simd128"])
def test_a_wasm_module_runs_in_node(tmp_path, name):
    made = linked(tmp_path, parse(name))
    # run is the 18th of the 32-bit words of tbc_model, behind an 8-byte field at 24.
    script = """
    const module = new WebAssembly.Module(require('fs').readFileSync(process.argv[1]));
    console.log(JSON.stringify(WebAssembly.Module.imports(module)));
    const e = new WebAssembly.Instance(module).exports;
    const words = new Uint32Array(e.memory.buffer), floats = new Float32Array(e.memory.buffer);
    const model = e.tbc_adder.value / 4, free = 4096, run = words[model + 21];
    console.log(words[e.tbc_models.value / 4] / 4 === model, words[model], words[model + 15]);
    floats.set([1, 2, 3], free + 100);
    floats.set([10, 20, 30], free + 200);
    words.set([4 * (free + 100), 4 * (free + 200), 4 * (free + 300), 1], free);
    words.set([4 * free, 4 * (free + 2), 4 * (free + 512), 0, 0, 4 * (free + 3)], free + 10);
    const f = e.__indirect_function_table.get(run);
    console.log(f(4 * (free + 10)), ...floats.slice(free + 300, free + 303));
    """
    output = run(emulator("node"), "-e", script, made.path).stdout
    assert output.splitlines() == ["[]", f"true {structs.ABI} 64", "0 11.5 21 37"]


def test_bare_metal_has_no_shared_libraries(tmp_path):
    with pytest.raises(Unsupported, match="no operating system"):
        linked(tmp_path, parse("cortex-m4f"))


def test_a_failing_linker_is_quoted(tmp_path):
    script = tmp_path / "ld.bad"
    script.write_text("#!/bin/sh\necho 'no such luck' >&2\nexit 3\n")
    script.chmod(0o755)
    with pytest.raises(LinkFailed, match="no such luck"):
        linked(tmp_path, host_target(), str(script))
    with pytest.raises(LinkFailed, match=r"cannot run \S+: No such file or directory\n"):
        linked(tmp_path, host_target(), str(tmp_path / "absent"))


def test_without_a_linker_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(link.shutil, "which", lambda *args, **kwargs: None)
    for name in ("windows-arm64", "powerpc64le-linux-gnu"):
        assert not can_link(parse(name))
        with pytest.raises(Unsupported) as caught:
            linked(tmp_path, parse(name))
        assert "pip install tbc[cross]" in caught.value.hint


def test_elf_libraries_need_no_linker(tmp_path, monkeypatch):
    monkeypatch.setattr(link.shutil, "which", lambda *args, **kwargs: None)
    assert can_link(parse("armv8"))
    assert linked(tmp_path, parse("armv8")).linker == ""


@pytest.mark.parametrize(
    ("present", "target", "expected"),
    [
        ({"ld.lld", "zig", "cc"}, "armv8", "ld.lld"),
        ({"zig", "cc"}, "armv8", "zig ld.lld"),
        ({"cc"}, "armv8", None),
        ({"lld-link", "zig"}, "windows-x86-64", "lld-link"),
        ({"zig"}, "windows-x86-64", "zig lld-link"),
        ({"zig"}, "apple-m1", "zig cc"),
        ({"cc"}, "apple-m1", None),
        ({"wasm-ld"}, "wasm32", "wasm-ld"),
        ({"zig"}, "wasm32", "zig wasm-ld"),
    ],
)
def test_the_order_in_which_linkers_are_tried(monkeypatch, present, target, expected):
    def which(tool, path=None):
        return tool if tool in present and (path is None) == (tool != "zig") else None

    monkeypatch.setattr(link.shutil, "which", which)
    monkeypatch.setattr(link.platform, "machine", lambda: "riscv64")
    monkeypatch.setattr(link, "_zig", lambda: "zig" if "zig" in present else None)
    found = find_linker(parse(target))
    assert (found.name if found else None) == expected


def test_the_system_compiler_links_for_this_machine_only(monkeypatch):
    monkeypatch.setattr(
        link.shutil, "which", lambda tool, path=None: tool if tool == "cc" else None
    )
    monkeypatch.setattr(link.platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(link.platform, "system", lambda: "Linux")
    assert find_linker(parse("armv8")).name == "cc"
    assert find_linker(parse("x86-64")) is None
    monkeypatch.setattr(link.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(link.platform, "machine", lambda: "arm64")
    assert find_linker(parse("apple-m1")).name == "cc"
    assert find_linker(parse("armv8")) is None


def test_paths_are_those_asked_for(tmp_path):
    if not can_link(host_target()):
        pytest.skip("no linker")
    assert (
        linked(tmp_path, host_target()).path == Path(tmp_path) / f"libadder{suffix(host_target())}"
    )
