"""examples/machine_sounds: faults are heard, and a Cortex-M55 computes the reference's bits."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import numpy as np
import pytest
from onnxruntime_oracle import session
from strategies import Array
from test_cortex_m0 import used
from toolchain import BARE, ROOT, STRICT, ZIG, needs_zig, run

import tbc
from tbc.codegen.host import resolve_target
from tbc.driver import lower
from tbc.frontend import load
from tbc.ops import MatMul, PackedDot
from tbc.passes import FRONT
from tbc.reference import run_graph

EXAMPLE = ROOT / "examples/machine_sounds"
MODEL = EXAMPLE / "machine_sounds.onnx"
CORE = "cortex-m55"
FLASH, RAM = 160 << 10, 8 << 10
HEARD = ["normal", "unusual", "normal", "unusual", "unusual"]
"""The second fault is not."""
EMULATOR = ("qemu-system-arm", "-M", "mps3-an547", "-display", "none", "-serial", "none")
EMULATOR += ("-monitor", "none", "-semihosting-config", "enable=on,target=native", "-kernel")


@cache
def sounds() -> ModuleType:
    """The example's module, which does not stay among those of the tests."""
    with patch.dict(sys.modules), patch.object(sys, "path", [str(EXAMPLE), *sys.path]):
        return importlib.import_module("sounds")


def clips() -> Array:
    """Codes u8 [5, frames, 128]: machine 0 as it should be, and with each fault."""
    return np.fromfile(EXAMPLE / "clips.bin", np.uint8).reshape(len(HEARD), -1, sounds().BANDS)


def made(machine: int, seed: int, fault: str) -> Array:
    """Codes u8 [frames, 128] of a clip, from its waveform on."""
    mean, deviation = np.load(EXAMPLE / "bands.npy")
    bands = sounds().log_mel(sounds().clip(machine, seed, fault))
    codes: Array = sounds().codes(bands, mean, deviation)
    return codes


def scored(model: tbc.Model, codes: Array) -> float:
    """A clip's score: the mean of its windows'."""
    return float(np.mean([model.run({"codes": w[None]})["score"] for w in sounds().windows(codes)]))


def test_clips_are_what_the_generator_makes() -> None:
    """But for codes at a tie, since the functions of floats differ from machine to machine."""
    for shown, fault in zip(clips(), ("", *sounds().FAULTS), strict=True):
        apart = np.abs(made(0, 1000, fault).astype(int) - shown)
        assert apart.max() <= 1
        assert np.count_nonzero(apart) < 10


def test_faults_are_heard() -> None:
    """README.md has the figures of more clips."""
    model = tbc.compile(MODEL)
    kinds = ("", *sounds().FAULTS)
    found = {
        fault: np.array(
            [
                scored(model, made(machine, seed, fault))
                for machine in range(4)
                for seed in range(1000, 1005)
            ]
        )
        for fault in kinds
    }
    each = {fault: sounds().auc(found[""], found[fault]) for fault in kinds[1:]}
    assert min(each.values()) > 0.75, each
    assert np.mean(list(each.values())) > 0.85, each


def test_every_layer_is_ternary() -> None:
    program = lower(load(MODEL).graph, resolve_target(CORE))
    anchors = [type(step.anchor.op) for step in program.steps]
    assert (anchors.count(PackedDot), anchors.count(MatMul)) == (10, 0)


def test_onnxruntime_agrees() -> None:
    model, other = tbc.compile(MODEL), session(MODEL)
    for codes in clips():
        windows = sounds().windows(codes)[:, None]
        expected = np.concatenate([other.run(None, {"codes": w})[0] for w in windows])
        found = np.concatenate([model.run({"codes": w})["score"] for w in windows])
        np.testing.assert_allclose(found, expected, rtol=1e-3)


@needs_zig
@pytest.mark.skipif(shutil.which(EMULATOR[0]) is None, reason="qemu-system-arm is not installed")
def test_the_board(tmp_path: Path) -> None:
    tbc.compile(MODEL, target=CORE).save(tmp_path)
    flags = ("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m55+fp_armv8d16sp", *STRICT)
    flags += ("-Os", "-ffreestanding", "-fno-builtin", "-ffp-contract=off", *BARE, f"-I{tmp_path}")
    flags += (f'-DCLIPS="{EXAMPLE / "clips.bin"}"', f"-Wl,-T,{EXAMPLE / 'board.ld'}")
    sources = (EXAMPLE / "main.c", ROOT / "examples/cortex_m0/start.c")
    program = tmp_path / "listen"
    run(ZIG, "cc", *flags, *sources, tmp_path / "libmachine_sounds.a", "-o", program)
    flash, ram = used(program, 0x10000000, 0x30000000)
    assert 100 << 10 < flash <= FLASH
    assert 3 << 10 < ram <= RAM

    exact = load(MODEL).graph
    for step in FRONT:
        exact = step(exact, resolve_target(CORE))
    lines = []
    for codes, heard in zip(clips(), HEARD, strict=True):
        total = np.float32(0)
        for window in sounds().windows(codes):
            total += run_graph(exact, {"codes": window[None]})["score"][0]
        lines.append(f"{heard} {total.view(np.uint32):08x}")
    done = subprocess.run([*EMULATOR, program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, (done.stdout + done.stderr).splitlines()) == (0, lines)
