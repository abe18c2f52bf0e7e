"""examples/embed_c: built with CMake as a user would, it prints what onnxruntime says."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from onnxruntime_oracle import session
from toolchain import ROOT, ZIG, emulator, needs_cc, needs_zig, run

import tbc

EXAMPLE = ROOT / "examples/embed_c"
DIGITS = ROOT / "examples/digits"

pytestmark = pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")


def build(folder: Path, target: str, *options: str) -> Path:
    """The program with the model compiled for a target; warnings are errors."""
    model = tbc.compile(DIGITS / "digits_mlp.onnx", target=target)
    model.save(folder / "digits_mlp", ("project",))
    run("cmake", "-S", EXAMPLE, "-B", folder, "-DCMAKE_C_FLAGS=-Werror", *options)
    run("cmake", "--build", folder)
    return folder / "embed"


def answers(command: list[str], text: str) -> tuple[int, str, str]:
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def held_out() -> tuple[str, str]:
    """Every test image as text, and the digits that onnxruntime takes them for."""
    pixels = np.load(DIGITS / "test_images.npy")
    (logits,) = session(DIGITS / "digits_mlp.onnx").run(["logits"], {"x": pixels / np.float32(16)})
    images = "\n".join(" ".join(map(str, image)) for image in pixels)
    return images, "".join(f"{digit}\n" for digit in logits.argmax(1))


@needs_cc
def test_native(tmp_path: Path) -> None:
    program = [str(build(tmp_path, "native"))]
    images, digits = held_out()
    assert answers(program, images) == (0, digits, "")
    assert answers(program, (EXAMPLE / "digits.txt").read_text()) == (0, "4\n2\n", "")
    for wrong in ("1 2 3", images + " 17", "a"):
        code, _, said = answers(program, wrong)
        assert (code, said) == (1, "an image is 64 numbers from 0 to 16\n")


@needs_zig
def test_armv8(tmp_path: Path) -> None:
    qemu = emulator("qemu-aarch64")
    compiler = tmp_path / "cc"
    compiler.write_text(f'#!/bin/sh\nexec "{ZIG}" cc -target aarch64-linux-musl "$@"\n')
    compiler.chmod(0o755)
    options = ("-DCMAKE_SYSTEM_NAME=Linux", f"-DCMAKE_C_COMPILER={compiler}")
    program = build(tmp_path, "armv8", *options)
    images, digits = held_out()
    assert answers([qemu, "-cpu", "cortex-a53", str(program)], images) == (0, digits, "")


def test_says_what_is_missing(tmp_path: Path) -> None:
    done = run("cmake", "-S", EXAMPLE, "-B", tmp_path, check=False)
    assert done.returncode != 0
    assert "tbc compile" in done.stderr.replace("\n  ", " ")
