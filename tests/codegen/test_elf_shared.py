"""tbc's own ELF libraries: read by other tools, run by the real dynamic loaders."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import adder
import numpy as np
import pytest
from digits import graph_of, images
from hypothesis import given
from hypothesis import strategies as st
from toolchain import BARE, INCLUDE, ROOT, ZIG, emulator, needs_zig, run

import tbc
from tbc import reference
from tbc.codegen.elf_object import ElfObject
from tbc.codegen.elf_relocations import _KINDS, Kind
from tbc.codegen.elf_shared import write_shared
from tbc.codegen.host import host_target, resolve_target
from tbc.codegen.machine import Job, Part, Workers
from tbc.codegen.modelinfo import exported
from tbc.driver import Compiled, assemble, bound_batch, lower
from tbc.errors import LinkFailed
from tbc.ir import Graph
from tbc.passes import PIPELINE
from tbc.target import TARGETS, parse

TRIPLES = {t.triple: t.name for t in reversed(TARGETS)}
WRITTEN = [
    *(n for n in TRIPLES.values() if parse(n).object_format == "elf" and parse(n).os != "none"),
    *("aarch64_be-unknown-linux-gnu", "loongarch64-unknown-linux-gnu", "x86_64-unknown-freebsd"),
]
"""A target for each triple."""
DYNAMIC = {
    "i686": ("x86-linux-gnu", "qemu-i386", "i686-linux-gnu", "ld-linux.so.2"),
    "armv8": ("aarch64-linux-gnu", "qemu-aarch64", "aarch64-linux-gnu", "ld-linux-aarch64.so.1"),
    "armv7": ("arm-linux-gnueabihf", "qemu-arm", "arm-linux-gnueabihf", "ld-linux-armhf.so.3"),
    "rv64gc": (
        *("riscv64-linux-gnu", "qemu-riscv64", "riscv64-linux-gnu"),
        "ld-linux-riscv64-lp64d.so.1",
    ),
    "s390x": ("s390x-linux-gnu", "qemu-s390x", "s390x-linux-gnu", "ld64.so.1"),
}  # fmt: skip
"""Target -> zig's triple, the emulator, the folder of Debian's libc6-*-cross, its loader."""


def adder_of(name: str, workers: Workers) -> tuple[bytes, tuple[str, str]]:
    """The object of the adder, and what its library exports."""
    target = resolve_target(name)
    model = adder.info(target)
    exports = exported(model)
    job = Job(
        target, (Part(adder.text(target, model), passes=True),), frozenset(exports), closed=False
    )
    return workers.compile(job)["obj"], exports


@pytest.mark.parametrize("name", WRITTEN)
def test_readers_have_nothing_to_say(tmp_path: Path, name: str, workers: Workers) -> None:
    obj, exports = adder_of(name, workers)
    data = write_shared(obj, "libadder.so", exports)
    assert write_shared(obj, "libadder.so", exports) == data
    path = tmp_path / "libadder.so"
    path.write_bytes(data)
    readers = [r for r in ("readelf", "llvm-readelf") if shutil.which(r)]
    for reader in readers:
        done = run(reader, "-a", "-W", path)
        assert done.stderr == ""
        assert "libadder.so" in done.stdout
        assert re.search(r"GNU_STACK.* RW ", done.stdout)
        assert re.search(r"LOAD.* R E ", done.stdout)
        assert not re.search(r"LOAD.* (RWE|W E) ", done.stdout)
    if shutil.which("eu-elflint") and "loongarch" not in name:  # which it does not know yet
        done = run("eu-elflint", "--gnu-ld", path, check=False)
        said = [line for line in (done.stdout + done.stderr).splitlines() if line != "No errors"]
        assert [line for line in said if "note type 1 with owner name 'tbc'" not in line] == []
    if not readers:
        pytest.skip("there is no reader of ELF files")


@pytest.mark.skipif(host_target().object_format != "elf", reason="ELF is not this system's")
@pytest.mark.skipif(shutil.which("strip") is None, reason="binutils are not installed")
def test_a_stripped_library_still_runs(tmp_path: Path, workers: Workers) -> None:
    path = tmp_path / "libadder.so"
    obj, exports = adder_of("native", workers)
    path.write_bytes(write_shared(obj, path.name, exports))
    assert run("ldd", path).stdout.strip() == "statically linked"
    before = path.stat().st_size
    run("strip", path)
    assert path.stat().st_size < before
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    found = tbc.load(path).run({"x": x, "y.1": x})["sum"]
    np.testing.assert_array_equal(found, 2 * x + np.float32(adder.WEIGHTS))


def compiled(name: str, network: str, workers: Workers) -> tuple[Graph, Compiled]:
    """A network as machine code, and the graph that the reference evaluates like that."""
    target, seen = parse(name), {}
    graph, _ = bound_batch(graph_of(network))
    program = lower(graph, target, seen.__setitem__)
    return seen[PIPELINE[-1].__name__], assemble(program, target, network, workers)


@needs_zig
@pytest.mark.parametrize("name", DYNAMIC)
def test_the_loader_of_another_machine_runs_it(tmp_path: Path, name: str, workers: Workers) -> None:
    """glibc's loader under qemu: the result is that of the reference, bit for bit."""
    triple, qemu, folder, loader = DYNAMIC[name]
    system = Path("/usr") / folder
    if not (system / "lib/libc.so.6").exists():
        pytest.skip(f"{system}/lib has no C library: Debian has it in libc6-*-cross")
    graph, made = compiled(name, "digits_cnn", workers)
    library = tmp_path / "libdigits_cnn.so"
    data = write_shared(made.files["obj"], library.name, exported(made.info))
    library.write_bytes(data)
    flags = ["-target", triple, "-O1", "-fno-pie", *BARE, f"-I{INCLUDE}"]
    program = tmp_path / "program"
    linking = [f"-Wl,--dynamic-linker=/lib/{loader}", system / "lib/libc.so.6", "-o", program]
    source = ROOT / "tests/c/dynamic.c"
    run(ZIG, "cc", *flags, f'-DLIBRARY="{library}"', source, *linking)
    order = "<" if made.target.little_endian else ">"
    x = images("digits_cnn")[:1]
    done = subprocess.run(
        [emulator(qemu), "-L", system, program],
        input=x.astype(order + "f4").tobytes(),
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
    expected = reference.run_graph(graph, {"x": x})["logits"]
    found = np.frombuffer(done.stdout, order + "f4").astype(np.float32)
    np.testing.assert_array_equal(found.view(np.int32), expected.reshape(-1).view(np.int32))


# -- relocations ----------------------------------------------------------------------------------


@st.composite
def kinds(draw: st.DrawFn) -> Kind:
    return draw(st.sampled_from([kind for table in _KINDS.values() for kind in table.values()]))


@given(kinds(), st.integers(0, 2**64 - 1), st.data())
def test_a_field_reads_what_was_written(kind: Kind, whole: int, data: st.DataObject) -> None:
    field = kind.field
    whole &= (1 << 8 * field.size) - 1
    low, high = -(1 << (field.bits - 1)), (1 << (field.bits - 1)) - 1
    number = data.draw(st.integers(low, high)) << field.shift
    written = field.write(whole, number)
    assert field.read(written) == number
    mask = sum(((1 << n) - 1) << at for _, n, at in field.pieces)
    assert (written ^ whole) & ~mask == 0
    for outside in (high + 1, low - 1):
        if field.checked:
            with pytest.raises(ValueError, match="reach"):
                field.write(whole, outside << field.shift)
    if field.shift:
        with pytest.raises(ValueError, match="reach"):
            field.write(whole, number + 1)


def renumbered(obj: bytes, kind: int) -> bytes:
    """The object with its first relocation of code made another kind."""
    read = ElfObject(obj)
    table = next(s for s in read.sections if s.name in (".rela.text", ".rel.text"))
    at = obj.index(bytes(table.data))
    offset, info = read.form.relocation.unpack_from(obj, at)
    symbol, _ = read.form.reference(info)
    changed = read.form.relocation.pack(offset, symbol << (32 if read.form.is_64 else 8) | kind)
    return obj[:at] + changed + obj[at + len(changed) :]


@pytest.mark.parametrize("name", ["x86-64", "armv7", "armv8", "rv64gc", "s390x"])
def test_unknown_relocations_are_named(name: str, workers: Workers) -> None:
    obj, exports = adder_of(name, workers)
    with pytest.raises(LinkFailed, match=r"relocation 251 of ELF machine \d+ at \.text\+0x") as e:
        write_shared(renumbered(obj, 251), "lib.so", exports)
    assert "--linker" in e.value.hint


@pytest.mark.parametrize("name", ["cortex-m0", "cortex-m4", "rv32imc"])
def test_code_for_fixed_addresses_is_refused(name: str, workers: Workers) -> None:
    obj, exports = adder_of(name, workers)
    with pytest.raises(LinkFailed, match=r"position-independent|relocation \d+ of"):
        write_shared(obj, "lib.so", exports)


def test_what_is_missing_or_changes_is_refused(workers: Workers) -> None:
    with pytest.raises(LinkFailed, match="does not define 'absent'"):
        write_shared(adder_of("x86-64", workers)[0], "lib.so", ["absent"])
    for text, reason in (
        ("@data = global i32 7", "data that changes"),
        ("@data = global ptr @elsewhere\n@elsewhere = external global i32", "data that changes"),
        ("@data = constant ptr @elsewhere\n@elsewhere = external global i32", "lies nowhere"),
    ):
        obj = object_of(text)
        with pytest.raises(LinkFailed, match=reason):
            write_shared(obj, "lib.so", ["data"])


def object_of(text: str) -> bytes:
    """The object of LLVM text for x86-64, undefined symbols and all."""
    import llvmlite.binding as llvm

    from tbc.codegen.machine import machine_of
    from tbc.codegen.worker import initialize, target_machine

    initialize()
    machine = target_machine(machine_of(parse("x86-64")))
    module = llvm.parse_assembly(text)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    return bytes(machine.emit_object(module))
