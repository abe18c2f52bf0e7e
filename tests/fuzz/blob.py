"""Fuzzes the loader of blobs in C, with sanitizers: `python -m tests.fuzz.blob --seconds 3600`."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import blobs  # noqa: E402

from tbc.codegen.host import host_target  # noqa: E402
from tbc.codegen.machine import Workers  # noqa: E402

SANITIZED = ("-g", "-O2", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def build(folder: Path) -> Path:
    """The fuzzer, compiled for this machine."""
    program = folder / "fuzz"
    sources = (ROOT / "tests/fuzz/blob.c", ROOT / "runtime/src/tbc_blob.c")
    flags = ("-std=gnu99", *SANITIZED, f"-I{ROOT / 'runtime/include'}")
    subprocess.run(["cc", *flags, *sources, "-o", program], check=True)
    return program


def seeds(folder: Path) -> list[Path]:
    """Blobs of this machine, with and without pages."""
    paths = [folder / "paged.tbc", folder / "small.tbc"]
    with Workers(1) as workers:
        for path in paths:
            blobs.write(path, host_target(), workers, paged=path.stem == "paged")
    return paths


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [build(folder), str(args.seconds), str(args.seed), *seeds(folder)]
        return subprocess.run(command).returncode


if __name__ == "__main__":
    sys.exit(main())
