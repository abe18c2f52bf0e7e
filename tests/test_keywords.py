"""examples/keywords: speech through features and network on a Cortex-M4, bit for bit."""

from __future__ import annotations

import ctypes
import importlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import pytest
from onnxruntime_oracle import session
from strategies import Array
from test_cortex_m0 import used
from toolchain import BARE, ROOT, STRICT, ZIG, needs_cc, needs_zig, run

import tbc
from tbc.codegen.host import resolve_target
from tbc.passes import FRONT
from tbc.reference import run_calls
from tbc.specialise import Specialiser

EXAMPLE = ROOT / "examples/keywords"
MODEL = EXAMPLE / "keywords.onnx"
MODULES = ("features", "speech", "streaming")
FLASH, RAM = 128 << 10, 16 << 10
RIGHT = 115
"""How many of the 120 held-out clips the network takes for what they are."""
HEARD = ["yes", "left", "stop", "right", "silence"]
"""The fourth is another word, which is taken for "right"."""
EMULATOR = ("qemu-system-arm", "-M", "mps2-an386", "-display", "none", "-serial", "none")
EMULATOR += ("-monitor", "none", "-semihosting-config", "enable=on,target=native", "-kernel")

needs_board = pytest.mark.skipif(
    shutil.which(EMULATOR[0]) is None, reason="qemu-system-arm is not installed"
)


@cache
def module(name: str) -> ModuleType:
    """A module of the example, none of which stays among those of the tests."""
    path = [str(EXAMPLE), *sys.path]
    with patch.dict(sys.modules), patch.object(sys, "path", path):
        for each in MODULES:
            sys.modules.pop(each, None)
        return importlib.import_module(name)


def speech() -> Array:
    """The samples of speech.ulaw."""
    found: Array = module("speech").from_ulaw(np.fromfile(EXAMPLE / "speech.ulaw", np.uint8))
    return found


@cache
def held_out() -> tuple[Array, Array]:
    """Features i8 [120, 20, 50] and classes."""
    with np.load(EXAMPLE / "held_out.npz") as data:
        return data["features"], data["labels"]


def streamed(clips: Array) -> Array:
    """Scores f32 [n, 12, frames] of clips, each from a new state."""
    model = tbc.compile(MODEL, state=module("streaming").STATES)

    def each(clip: Array) -> Iterator[Array]:
        state = model.new_state()
        for frame in clip.T:
            yield model.run({"features": frame[None, :, None]}, state)["scores"][0, :, 0]

    return np.stack([np.stack(list(each(clip)), 1) for clip in clips])


# -- features -------------------------------------------------------------------------------------


def test_tables_are_those_of_the_formula() -> None:
    assert (EXAMPLE / "tables.inc").read_text() == module("features").tables()


def test_the_spectrum_is_that_of_floats() -> None:
    samples = np.random.default_rng(0).integers(-20000, 20000, (9, 512)).astype(np.int16)
    window = np.sin(np.pi * np.arange(512) / 512) ** 2
    exact = np.abs(np.fft.rfft(samples * window)[:, :256]) ** 2 / 4
    np.testing.assert_allclose(module("features").spectrum(samples), exact, atol=exact.max() / 500)


@needs_cc
def test_features_in_c(tmp_path: Path) -> None:
    """At the extremes of samples too, and under the sanitizer of undefined behaviour."""
    library = tmp_path / "features.so"
    flags = ("-shared", "-fPIC", "-fsanitize=undefined", "-fno-sanitize-recover=all")
    run("cc", *STRICT, *flags, EXAMPLE / "features.c", "-o", library)
    code = ctypes.CDLL(str(library))
    rng = np.random.default_rng(0)
    frames = [rng.integers(-a - 1, a + 1, 512) for a in (0, 1, 30, 1000, 32767)]
    frames += [np.full(512, v) for v in (0, -32768, 32767)]
    frames += [32767 * rng.choice([-1, 1], 512), 32767 * (-1) ** (np.arange(512) // 8)]
    frames += list(np.lib.stride_tricks.sliding_window_view(speech(), 512)[::1600])
    for frame in np.stack(frames).astype(np.int16):
        found = np.empty(20, np.int8)
        code.features(frame.ctypes.data_as(ctypes.c_void_p), found.ctypes.data_as(ctypes.c_void_p))
        np.testing.assert_array_equal(found, module("features").features(frame)[0])


# -- the network ----------------------------------------------------------------------------------


def test_accuracy() -> None:
    clips, labels = held_out()
    found = streamed(clips)[:, :, -1].argmax(1)
    assert (len(labels), np.count_nonzero(found == labels)) == (120, RIGHT)


def test_frame_by_frame_is_the_whole_clip() -> None:
    """But for codes at a tie, which onnxruntime may round to the other side."""
    constants = module("streaming").constants_of(onnx.load(MODEL))
    whole = session(module("streaming").keywords(constants, 50))
    clips = held_out()[0][::5]
    expected = np.concatenate([whole.run(None, {"features": c[None]})[0] for c in clips])
    apart = np.abs(streamed(clips) - expected).max(1)
    assert np.quantile(apart, 0.98) < 1e-4
    assert apart.max() < 0.05


def test_the_file_is_what_its_constants_make() -> None:
    proto = onnx.load(MODEL)
    streaming = module("streaming")
    assert streaming.keywords(streaming.constants_of(proto)) == proto
    shapes = [[d.dim_value for d in i.type.tensor_type.shape.dim] for i in proto.graph.input]
    assert 1 + sum(shape[2] for shape in shapes[1:]) == streaming.REACH


# -- on the board ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the network's library and header."""
    folder = tmp_path_factory.mktemp("keywords")
    model = tbc.compile(MODEL, target="cortex-m4f", state=module("streaming").STATES)
    model.save(folder, ("static", "header"))
    return folder


def build(folder: Path, stack: int) -> Path:
    """The program, as the README says, with warnings as errors."""
    program = folder / f"program{stack}"
    flags = ("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m4", *STRICT, "-Os", *BARE)
    flags += ("-ffreestanding", "-fno-builtin", f"-I{folder}", f"-DSTACK={stack}")
    flags += (f'-DSPEECH="{EXAMPLE / "speech.ulaw"}"',)
    sources = [EXAMPLE / "main.c", EXAMPLE / "features.c", ROOT / "examples/cortex_m0/start.c"]
    library, script = folder / "libkeywords.a", f"-Wl,-T,{EXAMPLE / 'board.ld'}"
    run(ZIG, "cc", *flags, *sources, library, script, "-o", program)
    return program


def execute(program: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*EMULATOR, str(program)], capture_output=True, text=True, timeout=60)


def expected_lines() -> Iterator[str]:
    """What the program prints, by the reference."""
    target = resolve_target("cortex-m4f")
    graph = Specialiser(MODEL, states=module("streaming").STATES).graph
    for step in FRONT:
        graph = step(graph, target)
    frames = module("features").features(speech())
    feeds: Any = ({"features": frame[None, :, None]} for frame in frames)
    for number, (outputs, _) in enumerate(run_calls(graph, feeds)):
        if number % 50 == 48:
            scores = outputs["scores"].reshape(-1)
            word = module("speech").CLASSES[int(scores.argmax())]
            yield " ".join([word, *(f"{bits:08x}" for bits in scores.view(np.uint32))])


@needs_zig
@needs_board
def test_it_fits_and_is_right(built: Path) -> None:
    program = build(built, 1024)
    flash, ram = used(program)
    assert 90 << 10 < flash <= FLASH
    assert 8 << 10 < ram <= RAM
    done = execute(program)
    assert done.returncode == 0
    lines = (done.stdout + done.stderr).splitlines()
    assert lines == list(expected_lines())
    assert [line.split()[0] for line in lines] == HEARD


@needs_zig
@needs_board
def test_a_small_stack_is_noticed(built: Path) -> None:
    """There is no memory below it, so that the emulator's larger RAM hides no overflow."""
    done = execute(build(built, 256))
    assert (done.stdout + done.stderr).splitlines() != list(expected_lines())


def test_words_are_those_of_the_network() -> None:
    text = (EXAMPLE / "main.c").read_text()
    (listed,) = re.findall(r"words\[\w+\] = \{([^}]*)\}", text)
    assert tuple(re.findall(r'"(\w+)"', listed)) == module("speech").CLASSES
