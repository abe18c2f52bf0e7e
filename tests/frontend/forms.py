"""What models of low-bit weights are made of: lines of nodes, and the quantisers of exports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx_models import Array, model, nodes, normal

N, K = 24, 64


@dataclass(frozen=True)
class Form:
    """A model and what is to become of its products.

    Attributes:
        proto: the model.
        feeds: an input.
        weights: what the products' weights are lifted as, in the words of `explain`.
        activations: what they are multiplied with.
        expected: the outputs, where onnxruntime does not run the model.
        scale: how many times the usual tolerance.
    """

    proto: onnx.ModelProto
    feeds: dict[str, Array]
    weights: Sequence[str]
    activations: str = "f32"
    expected: Array | None = None
    scale: float = 1.0


def trits(seed: int, *shape: int) -> Array:
    """Random numbers of -1, 0 and 1."""
    return np.random.default_rng(seed).integers(-1, 2, shape).astype(np.float32)


def signs(seed: int, *shape: int) -> Array:
    """Random numbers of -1 and 1."""
    return np.random.default_rng(seed).choice(np.array([-1, 1], np.float32), shape)


def chosen(seed: int, levels: Sequence[float], *shape: int) -> Array:
    """Random numbers of some levels."""
    return np.random.default_rng(seed).choice(np.array(levels, np.float32), shape)


X = normal(1, 5, K)
PLAIN: Mapping[str, tuple[Any, Sequence[int]]] = {"x": (np.float32, (5, K))}

QUANTISED = (
    "xa = Abs(x)", "xm = ReduceMax(xa)", "xl = Max(xm, least)", "xr = Reciprocal(xl)",
    "xs = Mul(xr, top)", "xp = Mul(x, xs)", "xn = Round(xp)", "xc = Clip(xn, low, top)",
)  # fmt: skip
"""The activation quantiser of exported BitNets, one scale a row."""
NUMBERS = {
    "least": np.float32(1e-5), "top": np.float32(127), "low": np.float32(-128),
    "minus": np.float32(-1), "one": np.float32(1), "zero": np.float32(0),
}  # fmt: skip
BY_ROW = {"xm": {"axes": [-1], "keepdims": 1}}
ABSMEAN = (
    "wa = Abs(w)", "wm = ReduceMean(wa)", "wl = Max(wm, least)", "wr = Reciprocal(wl)",
    "wp = Mul(w, wr)", "wn = Round(wp)", "wc = Clip(wn, minus, one)", "wq = Div(wc, wr)",
)  # fmt: skip
"""The weight quantiser of an online BitNet."""


def lines(
    *text: str,
    constants: Mapping[str, Array | onnx.TensorProto] | None = None,
    opset: int = 17,
    inputs: Mapping[str, tuple[Any, Any]] = PLAIN,
    outputs: Sequence[str] = ("y",),
    **attributes: Any,
) -> onnx.ModelProto:
    """A model of lines."""
    given = {**NUMBERS, **(constants or {})}
    used = {name for line in text for name in _arguments(line)}
    made = nodes(*text, **{**BY_ROW, "wm": {"keepdims": 0}, **attributes})
    return model(made, inputs, outputs, {n: a for n, a in given.items() if n in used}, opset)


def _arguments(line: str) -> list[str]:
    return line.split("(")[1].rstrip(")").split(", ")
