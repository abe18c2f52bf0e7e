"""tbc.h and tbc_cpu.c: strict C everywhere, and the layout that Python's mirror of them has."""

import ctypes
import re
import zlib

import pytest
from digits import graph_of
from hypothesis import given
from hypothesis import strategies as st
from toolchain import (
    CPU_SOURCE,
    EMULATED,
    INCLUDE,
    POOL_SOURCE,
    STRICT,
    ZIG,
    emulator,
    needs_cc,
    needs_zig,
    run,
)

from tbc.codegen import modelinfo
from tbc.codegen.elf_object import ElfObject
from tbc.codegen.host import host_target
from tbc.codegen.machine import Workers
from tbc.codegen.objfile import undefined_symbols
from tbc.driver import assemble, bound_batch, lower
from tbc.runtime import structs
from tbc.target import CPU_FEATURES, parse

HEADER = (INCLUDE / "tbc.h").read_text()
STRUCTURES = {
    "tbc_tensor": structs.Tensor,
    "tbc_symbol": structs.Symbol,
    "tbc_sync": structs.Sync,
    "tbc_call": structs.Call,
    "tbc_model": structs.Model,
}
ZIG_TRIPLES = (
    "x86_64-linux-gnu",
    "x86-linux-gnu",
    "aarch64-linux-musl",
    "arm-linux-musleabihf",
    "riscv64-linux-musl",
    "s390x-linux-musl",
    "x86_64-windows-gnu",
    "aarch64-windows-gnu",
    "aarch64-macos",
    "x86_64-macos",
    "thumb-freestanding-eabi",
    "wasm32-wasi",
)


@needs_cc
def test_the_python_structures_have_the_layout_of_the_header(tmp_path):
    tests = ["#include <stdio.h>", '#include "tbc.h"', "int main(void) {"]
    expected = []
    for name, mirror in STRUCTURES.items():
        tests.append(f'printf("%d\\n", (int)sizeof({name}));')
        expected.append(ctypes.sizeof(mirror))
        for field, *_ in mirror._fields_:
            tests.append(f'printf("%d\\n", (int)offsetof({name}, {field}));')
            expected.append(getattr(mirror, field).offset)
    (tmp_path / "main.c").write_text("\n".join([*tests, "return 0;", "}"]))
    run("cc", *STRICT, "-o", tmp_path / "main", tmp_path / "main.c")
    assert list(map(int, run(tmp_path / "main").stdout.split())) == expected


def test_no_field_of_the_header_is_missing():
    for name, mirror in STRUCTURES.items():
        body = re.search(rf"typedef struct {name} {{(.*?)\n}} {name};", HEADER, re.DOTALL)[1]
        body = re.sub(r"/\*.*?\*/", "", body, flags=re.DOTALL)
        names = re.findall(r"\(\*(\w+)\)\(|(\w+)(?=[,;])", re.sub(r"\)\([^)]*\)", ")(", body))
        assert [a or b for a, b in names] == [field for field, *_ in mirror._fields_]


def test_numbers_are_those_of_the_header():
    assert int(re.search(r"#define TBC_ABI (\d+)u", HEADER)[1]) == structs.ABI == modelinfo.ABI
    statuses = re.findall(r"TBC_(OK|ERROR_\w+) = (\d+)", HEADER)
    assert len(statuses) == 13
    assert all(getattr(structs, name) == int(number) for name, number in statuses)
    dtypes = re.findall(
        r"TBC_([A-Z]+)(\d*) = (\d+)", re.search(r"enum tbc_dtype {(.*?)}", HEADER, re.DOTALL)[1]
    )
    kinds = {"F": "float", "I": "int", "U": "uint", "BF": "bfloat", "BOOL": "bool"}
    assert {int(code): kinds[kind] + bits for kind, bits, code in dtypes} == {
        code: dtype.name for code, dtype in structs.DTYPES.items()
    }


@needs_cc
@pytest.mark.parametrize("standard", ["c99", "c11", "c++11"])
def test_the_sources_are_strict(standard):
    flags = ["-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only", f"-std={standard}"]
    language = ["-x", "c++" if "+" in standard else "c"]
    for header in ("tbc.h", "tbc_pool.h", "tbc_blob.h"):
        run("cc", *flags, *language, INCLUDE / header)
    if language[1] == "c":
        run("cc", *flags, f"-I{INCLUDE}", CPU_SOURCE)
        run("cc", *flags, f"-I{INCLUDE}", POOL_SOURCE)
        run("cc", *flags, f"-I{INCLUDE}", CPU_SOURCE.with_name("tbc_self_test.c"))


RUNTIME = ("tbc_blob.c", "tbc_self_test.c", "tbc_cpu.c")
"""What a microcontroller may have of tbc besides a model."""


@needs_zig
@pytest.mark.parametrize("cpu", ["cortex_m0", "cortex_m4"])
def test_the_runtime_is_small_and_needs_no_library(tmp_path, cpu):
    """With a model's entry points it is 4 KiB of Thumb; its phases are the calls of its kernels."""
    flags = ["-target", "thumb-freestanding-eabi", f"-mcpu={cpu}", "-Oz", "-ffreestanding"]
    sizes, wanted = [], set()
    for name in RUNTIME:
        path = tmp_path / f"{name}.o"
        source = CPU_SOURCE.with_name(name)
        run(ZIG, "cc", *flags, "-fno-unwind-tables", f"-I{INCLUDE}", "-c", "-o", path, source)
        obj = ElfObject(path.read_bytes())
        held = (s for s in obj.sections if s.name.startswith((".text", ".rodata")))
        sizes.append(sum(len(section.data) for section in held))
        wanted |= undefined_symbols(path.read_bytes())
    assert wanted <= {"__aeabi_unwind_cpp_pr0"}  # in the table of what unwinds the stack
    with Workers(1) as workers:
        program = lower(bound_batch(graph_of("digits_mlp"))[0], parse(cpu.replace("_", "-")))
        model = assemble(program, parse(cpu.replace("_", "-")), "net", workers)
    functions = ElfObject(model.files["obj"]).symbols
    glue = {"check", "run", "run_phase", "output_shape"}
    sizes += [s.size for s in functions if s.name.removeprefix("tbc_net_") in glue]
    assert len(sizes) == len(RUNTIME) + len(glue)
    assert sum(sizes) <= 4096


@needs_zig
@pytest.mark.parametrize("triple", ZIG_TRIPLES)
def test_the_cpu_source_compiles_everywhere(tmp_path, triple):
    run(ZIG, "cc", "-target", triple, *STRICT, "-c", "-o", tmp_path / "cpu.o", CPU_SOURCE)


def write_main(folder):
    path = folder / "main.c"
    path.write_text(
        '#include "tbc.h"\n#include <stdio.h>\n'
        'int main(void) { printf("%lx", (unsigned long)tbc_cpu_bits()); return 0; }\n'
    )
    return path


@needs_cc
def test_c_and_python_find_the_same_in_this_cpu(tmp_path):
    run("cc", *STRICT, "-o", tmp_path / "main", write_main(tmp_path), CPU_SOURCE)
    assert int(run(tmp_path / "main").stdout, 16) == host_target().cpu_bits


@pytest.mark.slow
@needs_zig
@pytest.mark.parametrize(
    ("target", "cpu", "names"),
    [
        ("armv8", "cortex-a53", "NEON"),
        ("armv8", "neoverse-n1", "NEON DOTPROD FP16"),
        ("armv8", "max", "NEON DOTPROD FP16 I8MM SVE SVE2"),
        ("armv7", "cortex-a7", "NEON DSP"),
        ("rv64gc", "rv64", ""),
        ("rv64gc", "rv64,v=true,vext_spec=v1.0", "V"),
        ("i686", "pentium3", ""),
        ("i686", "Nehalem", "SSE41"),
        ("i686", "max", "SSE41 AVX2"),
    ],
)
def test_the_bits_of_emulated_cpus(tmp_path, target, cpu, names):
    triple, qemu = EMULATED[target]
    program = tmp_path / "main"
    flags = ["-target", triple, *STRICT, "-o", program]
    run(ZIG, "cc", *flags, write_main(tmp_path), CPU_SOURCE)
    found = int(run(emulator(qemu), "-cpu", cpu, program).stdout, 16)
    bits = {name.split("_")[2]: 1 << bit for rows in CPU_FEATURES.values() for name, bit, _ in rows}
    assert found == sum(bits[name] for name in names.split())


@needs_cc
def test_the_checksum_is_zlibs(tmp_path):
    (tmp_path / "sum.c").write_text(
        '#include "tbc.h"\nuint32_t sum(const void *, size_t);\n'
        "uint32_t sum(const void *data, size_t size) { return tbc_sum(data, size); }\n"
    )
    run("cc", *STRICT, "-shared", "-fPIC", "-o", tmp_path / "sum.so", tmp_path / "sum.c")
    function = ctypes.CDLL(str(tmp_path / "sum.so")).sum
    function.argtypes, function.restype = (ctypes.c_char_p, ctypes.c_size_t), ctypes.c_uint32

    @given(st.binary(max_size=300))
    def check(data):
        assert function(data, len(data)) == zlib.crc32(data)

    check()
