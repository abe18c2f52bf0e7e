"""Blobs run where they lie on other machines: under qemu's user emulation, and out of flash."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from _pytest.mark import ParameterSet
from digits import graph_of, images
from toolchain import BARE, EMULATED, INCLUDE, ROOT, ZIG, emulator, needs_zig, run, run_check

from tbc import reference
from tbc.codegen.blob import write_blob
from tbc.codegen.machine import Workers
from tbc.driver import assemble, bound_batch, lower, movable_object, self_test_of_program
from tbc.passes import PIPELINE
from tbc.target import parse

BOARDS = {
    "cortex-m0": ("microbit", 0x0, 0x20000000),
    "cortex-m3": ("mps2-an385", 0x0, 0x20000000),
    "cortex-m4": ("mps2-an386", 0x0, 0x20000000),
    "cortex-m4f": ("mps2-an386", 0x0, 0x20000000),
    "cortex-m7": ("mps2-an500", 0x0, 0x20000000),
    "cortex-m33": ("mps2-an505", 0x10000000, 0x38000000),
    "cortex-m55": ("mps3-an547", 0x10000000, 0x30000000),
}
"""Target -> qemu's board, where its flash begins, and its RAM."""
SOURCES = (
    ROOT / "tests/c/blob_check.c",
    ROOT / "runtime/src/tbc_blob.c",
    ROOT / "runtime/src/tbc_self_test.c",
)
DATA = """
.section .blob, "ax", %progbits
.balign 4096
.globl blob, blob_end
blob: .incbin "{folder}/digits_mlp.tbc"
blob_end:
.section .rodata, "a", %progbits
.balign 64
.globl input, expected, expected_end
input: .incbin "{folder}/input"
.balign 64
expected: .incbin "{folder}/expected"
expected_end:
"""
LINKED = """
SECTIONS {{
  . = {flash};
  .text : {{ KEEP(*(.vectors)) *(.text*) *(.blob) *(.rodata*) }}
  /DISCARD/ : {{ *(.ARM.*) }}
  . = {ram};
  .bss : {{ bss = .; *(.bss* .data* COMMON) . = ALIGN(8); bss_end = .; . += 2048; stack_end = .; }}
}}
"""
"""RAM holds nothing that would have to be copied there."""


def write(name: str, folder: Path, workers: Workers) -> Path:
    """Write a network's blob, an input, and what the reference says, and return the assembly that
    includes them."""
    target, seen = parse(name), {}
    program = lower(bound_batch(graph_of("digits_mlp"))[0], target, seen.__setitem__)
    made = assemble(program, target, "digits_mlp", workers, test=self_test_of_program(program))
    blob = folder / "digits_mlp.tbc"
    write_blob(blob, movable_object(made, workers), made.info, target, made.weights())
    x = images("digits_mlp")[:1]
    logits = reference.run_graph(seen[PIPELINE[-1].__name__], {"x": x})["logits"]
    order = "<f4" if target.little_endian else ">f4"
    (folder / "input").write_bytes(x.astype(order).tobytes())
    (folder / "expected").write_bytes(np.asarray(logits).astype(order).tobytes())
    source = folder / "data.S"
    source.write_text(DATA.format(folder=folder))
    return source


def some(names: Iterable[str], quick: set[str]) -> list[ParameterSet]:
    """The names, those that are not quick marked as slow: each takes seconds."""
    return [pytest.param(n, marks=() if n in quick else pytest.mark.slow) for n in names]


@needs_zig
@pytest.mark.parametrize("name", some(EMULATED, {"armv8", "s390x"}))
def test_a_blob_runs_in_memory(name: str, tmp_path: Path, workers: Workers) -> None:
    assert run_check(name, tmp_path, write(name, tmp_path, workers), *SOURCES) == 0


@needs_zig
@pytest.mark.parametrize("name", some(BOARDS, {"cortex-m4"}))
def test_a_blob_runs_out_of_flash(name: str, tmp_path: Path, workers: Workers) -> None:
    board, flash, ram = BOARDS[name]
    qemu = emulator("qemu-system-arm")
    source = write(name, tmp_path, workers)
    script = tmp_path / "flash.ld"
    script.write_text(LINKED.format(flash=flash, ram=ram))
    hard = "hf" if parse(name).float_abi == "hard" else ""
    cpu = parse(name).cpu.replace("-", "_")
    flags = ["-target", f"thumb-freestanding-eabi{hard}", f"-mcpu={cpu}", "-Os", *BARE]
    flags += [f"-I{INCLUDE}", f"-Wl,-T,{script}", *(["-DFPU"] if hard else [])]
    program = tmp_path / "program"
    run(ZIG, "cc", *flags, ROOT / "tests/c/flash.c", source, *SOURCES, "-o", program)
    options = ("-machine", board, "-nographic", "-semihosting", "-kernel", program)
    assert run(qemu, *options, check=False).returncode == 0
