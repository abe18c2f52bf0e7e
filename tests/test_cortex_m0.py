"""examples/cortex_m0: the whole program fits a small Cortex-M0+, and runs in an emulator."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from digits import DEFINES, DIGITS, expected_digits, write_digits
from toolchain import BARE, ROOT, STRICT, ZIG, needs_zig, run

from tbc.codegen.host import resolve_target

EXAMPLE = ROOT / "examples/cortex_m0"
FITTING = ("digits_mlp",)
"""The networks that fit."""
FLASH, RAM = 16 << 10, 4 << 10
RAM_START = 0x20000000
EMULATOR = ("qemu-system-arm", "-M", "microbit", "-display", "none", "-serial", "none")
EMULATOR += ("-monitor", "none", "-semihosting-config", "enable=on,target=native", "-kernel")

pytestmark = [
    needs_zig,
    pytest.mark.skipif(
        shutil.which(EMULATOR[0]) is None, reason="qemu-system-arm is not installed"
    ),
]


@pytest.fixture(scope="module", params=FITTING)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a network's library and headers, which has its name."""
    folder = tmp_path_factory.mktemp("cortex_m0") / request.param
    target = resolve_target("cortex-m0plus")
    return write_digits(request.param, target, folder, "static", "header")


def build(network: Path, *options: str) -> Path:
    """The program, as the README says, with warnings as errors."""
    program = network / "program"
    flags = ("-target", "thumb-freestanding-eabi", "-mcpu=cortex_m0plus", *STRICT, "-Os")
    flags += ("-ffreestanding", "-fno-builtin", *BARE, f"-I{network}", *DEFINES[network.name])
    sources = (EXAMPLE / "main.c", EXAMPLE / "start.c", network / f"lib{network.name}.a")
    script = f"-Wl,-T,{EXAMPLE / 'board.ld'}"
    run(ZIG, "cc", *flags, *options, *sources, script, "-o", program)
    return program


def execute(program: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*EMULATOR, str(program)], capture_output=True, text=True, timeout=60)


def used(program: Path, flash: int = 0, ram: int = RAM_START) -> tuple[int, int]:
    """The bytes that a program's segments take from where flash and RAM begin, stack included."""
    data = program.read_bytes()
    (at,), (count,) = struct.unpack_from("<I", data, 28), struct.unpack_from("<H", data, 44)
    ends = {flash: flash, ram: ram}
    for i in range(count):
        kind, _, address, load, _, size, _, _ = struct.unpack_from("<8I", data, at + 32 * i)
        if kind == 1 and size:
            assert load == address
            start = ram if address >= ram else flash
            ends[start] = max(ends[start], address + size)
    return ends[flash] - flash, ends[ram] - ram


def test_it_fits_and_is_right(network: Path) -> None:
    program = build(network)
    flash, ram = used(program)
    assert 8 << 10 < flash <= FLASH
    assert 1 << 10 < ram <= RAM
    done = execute(program)
    digits = "".join(map(str, expected_digits(network.name)[: len(images())]))
    assert (done.returncode, done.stdout + done.stderr) == (0, f"{digits}\n")


def test_a_small_stack_faults(network: Path) -> None:
    """So that the emulator's larger RAM hides no overflow."""
    assert execute(build(network, "-DSTACK=256")).returncode != 0


def images() -> list[list[int]]:
    """Those in images.h."""
    rows = re.findall(r"^    \{([\d,]+)\}", (EXAMPLE / "images.h").read_text(), re.M)
    return [[int(pixel) for pixel in row.split(",")] for row in rows]


def test_images_are_the_first_held_out_ones() -> None:
    held_out = np.load(DIGITS / "test_images.npy")
    np.testing.assert_array_equal(images(), held_out[: len(images())])
    text = (EXAMPLE / "images.h").read_text()
    assert f"#define IMAGES {len(images())}\n" in text
