"""The trained networks of examples/digits for tests: their images, and what they should be."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnxruntime_oracle import session
from toolchain import ROOT

from tbc.codegen.machine import Workers
from tbc.driver import bound_batch, write
from tbc.frontend import load
from tbc.ir import Graph
from tbc.target import Target

DIGITS = ROOT / "examples/digits"
NETWORKS = {"digits_mlp": (64,), "digits_cnn": (1, 8, 8)}
"""Network -> the shape of one image."""
DEFINES = {"digits_mlp": (), "digits_cnn": ("-DDIGITS_CNN",)}
"""What classify.c needs to take a network."""


def graph_of(name: str) -> Graph:
    """A network as imported."""
    return load(DIGITS / f"{name}.onnx").graph


def images(name: str) -> npt.NDArray[np.float32]:
    """The held-out images as the network takes them."""
    pixels = np.load(DIGITS / "test_images.npy")
    return (pixels / np.float32(16)).reshape(-1, *NETWORKS[name])


def labels() -> npt.NDArray[Any]:
    """What the images are."""
    return np.asarray(np.load(DIGITS / "test_labels.npy"))


@cache
def expected_logits(name: str) -> npt.NDArray[np.float32]:
    """onnxruntime's, which takes the graph as it stands."""
    oracle = session(DIGITS / f"{name}.onnx")
    logits: npt.NDArray[np.float32] = oracle.run(["logits"], {"x": images(name)})[0]
    return logits


def expected_digits(name: str) -> npt.NDArray[Any]:
    """What onnxruntime takes the images for."""
    return np.asarray(expected_logits(name).argmax(axis=1))


def expected_text(name: str) -> str:
    """What classify.c prints if it agrees with onnxruntime."""
    digits = expected_digits(name)
    correct = np.count_nonzero(digits == labels())
    text = "".join(map(str, digits))
    return f"{text}\ntbc: {correct} of {len(digits)} images correct\n".replace("tbc", name)


def write_digits(
    name: str, target: Target, folder: Path, *kinds: str, workers: Workers | None = None
) -> Path:
    """Compile a network, one image a call, into a folder, and return that."""
    graph, _ = bound_batch(graph_of(name))
    with Workers(1) as own:
        write(graph, target, name, folder, kinds, workers or own)
    return folder
