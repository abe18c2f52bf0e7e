"""What is timed: the networks of the demo, and layers of random trits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from tbc.api import compile
from tbc.bench.onnx_models import bit_linear, nbits
from tbc.bench.peers.onnx import session

Array = npt.NDArray[Any]
Call = Callable[[], Array]

DIGITS = Path(__file__).parent.parent / "examples/digits"
NAMES = {"digits_mlp": (64,), "digits_cnn": (1, 8, 8)}
WIDTH = 2560


@dataclass(frozen=True)
class Case:
    """Calls that compute the same, or nearly.

    Attributes:
        name: what is computed.
        macs: multiplications by a weight, each with its addition, a call.
        calls: by contestant.
        tolerance: how far results may lie apart, relative to the largest element.
        steps: the slowest steps of tbc's code, in lines.
    """

    name: str
    macs: int
    calls: dict[str, Call]
    tolerance: float
    steps: Callable[[], list[str]] = list


# -- contestants ----------------------------------------------------------------------------------


def by_tbc(model: Path | onnx.ModelProto, x: Array) -> Call:
    compiled = compile(model, name="bench", threads=1)

    def call() -> Array:
        (y,) = compiled.run({"x": x}).values()
        return y

    return call


def by_onnxruntime(model: Path | onnx.ModelProto, feeds: Mapping[str, Array]) -> Call:
    ready = session(model)

    def call() -> Array:
        return np.asarray(ready.run(None, feeds)[0])

    return call


def digits_case(name: str, batch: int) -> Case:
    path, images = DIGITS / f"{name}.onnx", np.load(DIGITS / "test_images.npy")
    x = (images[:batch] / np.float32(16)).reshape(batch, *NAMES[name])
    calls = {"tbc": by_tbc(path, x), "onnxruntime": by_onnxruntime(path, {"x": x})}
    return Case(f"{name}, {batch} image{'s' if batch > 1 else ''}", 0, calls, 0.1)


def linear_case(m: int, rng: np.random.Generator) -> Case:
    w, scale = rng.integers(-1, 2, (WIDTH, WIDTH), np.int8), 0.02
    x = rng.standard_normal((m, WIDTH), np.float32)
    rounding, plain = bit_linear(w, scale, m), nbits(w, scale, m)
    calls = {
        "tbc, BitLinear": by_tbc(rounding, x),
        "onnxruntime, BitLinear": by_onnxruntime(rounding, {"x": x}),
        "onnxruntime, MatMulNBits": by_onnxruntime(plain, {"x": x}),
        "tbc, MatMulNBits": by_tbc(plain, x),
    }
    return Case(f"{WIDTH} x {WIDTH} trits, M={m}", m * WIDTH * WIDTH, calls, 0.02)


def digits() -> Iterator[Case]:
    """The networks of the demo, each case made when its turn comes."""
    return (digits_case(name, batch) for name in NAMES for batch in (1, 360))


def linear() -> Iterator[Case]:
    """A layer for one row of activations, and for many."""
    return (linear_case(m, np.random.default_rng(m)) for m in (1, 128))
