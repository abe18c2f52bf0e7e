"""examples/sentiment: in C, here and on armv8, the network gives the same bits as from Python."""

from __future__ import annotations

import importlib.util
import json
import random
import subprocess
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
from onnxruntime_oracle import session
from strategies import assert_same
from toolchain import CPU_SOURCE, ROOT, STRICT, ZIG, emulator, needs_cc, needs_zig, run
from typer.testing import CliRunner

import tbc
from tbc.cli import app

EXAMPLE = ROOT / "examples/sentiment"
RIGHT = 386
"""How many of the 500 held-out sentences the network takes for what they are."""
ODD = ("", "!", "?!", "''", "'good'", "good''bad", "don't", "DON''T", "a'b'c '", "42", "\tgood ")


@cache
def sentences() -> ModuleType:
    """examples/sentiment/sentences.py."""
    spec = importlib.util.spec_from_file_location("sentences", EXAMPLE / "sentences.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def numbers() -> list[npt.NDArray[np.int64]]:
    """The held-out sentences as the network takes them."""
    words = sentences().known_words()
    return [sentences().numbers(text, words) for _, text in sentences().held_out()]


@cache
def scores() -> npt.NDArray[np.float32]:
    """What the network compiled for this machine gives, f32 [500, 2]."""
    model = tbc.compile(EXAMPLE / "sentiment.onnx", dims={"tokens": (1, 64)})
    return np.concatenate([model.run({"tokens": tokens})["scores"] for tokens in numbers()])


def build(folder: Path, target: str, *compiler: str) -> Path:
    """sentiment.c with the network compiled for a target."""
    model = tbc.compile(EXAMPLE / "sentiment.onnx", target=target, dims={"tokens": (1, 64)})
    model.save(folder, ("static", "header"))
    sources = (EXAMPLE / "sentiment.c", folder / "libsentiment.a", CPU_SOURCE)
    program = folder / "sentiment"
    run(*compiler, *STRICT, f"-I{folder}", *sources, "-o", program)
    return program


def answers(command: tuple[str, ...], texts: list[str]) -> list[list[str]]:
    """The fields of the lines that the program prints for sentences."""
    given = "".join(f"{text}\n" for text in texts).encode("latin-1")
    done = subprocess.run(command, input=given, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    return [line.split("\t") for line in done.stdout.decode().splitlines()]


def check(command: tuple[str, ...], texts: list[str], expected: npt.NDArray[Any]) -> None:
    found = answers(command, texts)
    assert_same(np.array([line[1:] for line in found], np.float32), expected)
    tones = ["good" if good > bad else "bad" for bad, good in expected]
    assert [line[0] for line in found] == tones


def test_accuracy() -> None:
    labels = np.array([good for good, _ in sentences().held_out()])
    assert np.count_nonzero(labels) == len(labels) // 2 == 250
    assert np.count_nonzero(scores().argmax(1) == labels) == RIGHT


def test_onnxruntime_agrees() -> None:
    oracle = session(EXAMPLE / "sentiment.onnx")
    expected = [oracle.run(["scores"], {"tokens": tokens})[0] for tokens in numbers()]
    np.testing.assert_allclose(scores(), np.concatenate(expected), rtol=1e-5, atol=1e-5)


def test_every_layer_is_ternary() -> None:
    done = CliRunner().invoke(app, ["inspect", str(EXAMPLE / "sentiment.onnx"), "--json"])
    layers = json.loads(done.stdout)["layers"]
    assert [(layer["weights"], layer["activations"]) for layer in layers] == [
        ("trit per row", "i8 codes"),
        ("trit per row", "u8 codes"),
    ]


def test_it_is_small() -> None:
    files = [path for path in EXAMPLE.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 200_000


@needs_zig
def test_armv8(tmp_path: Path) -> None:
    """An object for Android, linked with a C library of Linux, whose calls qemu serves."""
    qemu = emulator("qemu-aarch64")
    compiler = (str(ZIG), "cc", "-target", "aarch64-linux-musl", "-static")
    program = build(tmp_path, "aarch64-linux-android", *compiler)
    texts = [text for _, text in sentences().held_out()]
    check((qemu, "-cpu", "cortex-a53", str(program)), texts, scores())


@needs_cc
def test_tokens(tmp_path: Path) -> None:
    """Odd and random lines are the same tokens in C as in Python."""
    program = build(tmp_path, "native", "cc")
    random_ = random.Random(0)
    pieces = ("good", "Bad", "not", "don't", "'", "''", " ", "!", "?", ",", "z" * 40, "\xe9", "\t")
    drawn = ["".join(random_.choices(pieces, k=random_.randrange(300))) for _ in range(200)]
    texts = [*ODD, *drawn]
    words = sentences().known_words()
    assert words == sorted(set(words))
    tokens = [sentences().numbers(text, words) for text in texts]
    assert {len(t) for t in tokens} >= {1, 64}
    model = tbc.compile(EXAMPLE / "sentiment.onnx", dims={"tokens": (1, 64)})
    expected = [model.run({"tokens": t})["scores"] for t in tokens]
    check((str(program),), texts, np.concatenate(expected))
