"""C compilers and emulators for tests; a test that lacks one is skipped, and says so.

Foreign programs have no C library: making one for a new target takes Zig minutes.
"""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
INCLUDE = ROOT / "runtime/include"
CPU_SOURCE = ROOT / "runtime/src/tbc_cpu.c"
POOL_SOURCE = ROOT / "runtime/src/tbc_pool.c"
STRICT = ("-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", "-O1", f"-I{INCLUDE}")
BARE = ("-nostdlib", "-fno-sanitize=all", "-fno-stack-protector")

_SPEC = importlib.util.find_spec("ziglang")
ZIG = shutil.which("zig", path=_SPEC.submodule_search_locations[0]) if _SPEC else None
"""The Zig compiler of the ziglang wheel."""

needs_zig = pytest.mark.skipif(ZIG is None, reason="the ziglang wheel is not installed")
needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")

EMULATED = {
    "i686": ("x86-linux-musl", "qemu-i386"),
    "armv8": ("aarch64-linux-musl", "qemu-aarch64"),
    "armv7": ("arm-linux-musleabihf", "qemu-arm"),
    "rv64gc": ("riscv64-linux-musl", "qemu-riscv64"),
    "s390x": ("s390x-linux-musl", "qemu-s390x"),
}
"""Target -> Zig's triple and the emulator."""


def run(*command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command; its output is part of the failure."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0 or not check, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def zig_cc(triple: str, output: Path, *args: str | Path) -> Path:
    """Compile C without a C library for one of Zig's triples."""
    run(ZIG, "cc", "-target", triple, *STRICT, *BARE, "-o", output, *args)
    return output


def run_check(name: str, folder: Path, *files: Path) -> int:
    """The result of `int check(void)` in the files, for a target in `EMULATED` and its emulator."""
    triple, qemu = EMULATED[name]
    defines = ["-DPROTOTYPES=int check(void);", "-DCALLS=system_call(EXIT, check(), 0, 0);"]
    start = ROOT / "tests/emulator.c"
    flags = ["-target", triple, "-O1", "-static", *BARE, f"-I{INCLUDE}", *defines]
    run(ZIG, "cc", *flags, start, *files, "-o", folder / "program")
    return run(emulator(qemu), folder / "program", check=False).returncode


def emulator(name: str) -> str:
    """The path of an emulator such as qemu-arm; skips the test if there is none."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found
