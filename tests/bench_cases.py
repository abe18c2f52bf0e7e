"""What is timed: the networks of the demo, and layers of random trits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from tbc.api import compile

Array = npt.NDArray[Any]
Call = Callable[[], Array]

DIGITS = Path(__file__).parent.parent / "examples/digits"
NAMES = {"digits_mlp": (64,), "digits_cnn": (1, 8, 8)}
WIDTH = 2560
BLOCK = 128


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


# -- models ---------------------------------------------------------------------------------------


def trits(rng: np.random.Generator) -> Array:
    """Random weights i8[WIDTH, WIDTH] in {-1, 0, 1}."""
    return rng.integers(-1, 2, (WIDTH, WIDTH), np.int8)


def model_of(nodes: list[onnx.NodeProto], constants: dict[str, Array], m: int) -> onnx.ModelProto:
    """The model f32 x[m, WIDTH] -> y[m, WIDTH]."""
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, (m, WIDTH)) for n in "xy")
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "bench", [x], [y], initializers)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def bit_linear(w: Array, scale: float, m: int) -> onnx.ModelProto:
    """Activations rounded to 8 bits by the largest of their row, as BitNet b1.58 does."""
    node = helper.make_node
    nodes = [
        node("Abs", ["x"], ["abs"]),
        node("ReduceMax", ["abs", "last"], ["top"], keepdims=1),
        node("Clip", ["top", "eps"], ["clipped"]),
        node("Div", ["most", "clipped"], ["s"]),
        node("Mul", ["x", "s"], ["scaled"]),
        node("Round", ["scaled"], ["rounded"]),
        node("Clip", ["rounded", "low", "most"], ["codes"]),
        node("Cast", ["w"], ["wf"], to=TensorProto.FLOAT),
        node("MatMul", ["codes", "wf"], ["sums"]),
        node("Div", ["sums", "s"], ["unscaled"]),
        node("Mul", ["unscaled", "ws"], ["y"]),
    ]
    numbers = {"eps": 1e-5, "most": 127.0, "low": -128.0, "ws": scale}
    constants: dict[str, Array] = {k: np.array(v, np.float32) for k, v in numbers.items()}
    constants |= {"last": np.array([-1]), "w": np.ascontiguousarray(w.T)}
    return model_of(nodes, constants, m)


def nbits(w: Array, scale: float, m: int) -> onnx.ModelProto:
    """The same weights in 2 bits, one scale for each 128; level 4 lets activations be rounded."""
    codes = (w + 2).astype(np.uint8).reshape(WIDTH, WIDTH // BLOCK, BLOCK // 4, 4)
    packed = np.bitwise_or.reduce(codes << np.arange(0, 8, 2, dtype=np.uint8), axis=-1)
    scales = np.full((WIDTH, WIDTH // BLOCK), scale, np.float32)
    sizes: dict[str, Any] = {
        "K": WIDTH,
        "N": WIDTH,
        "bits": 2,
        "block_size": BLOCK,
        "accuracy_level": 4,
    }
    inputs = ["x", "w", "s"]
    node = helper.make_node("MatMulNBits", inputs, ["y"], domain="com.microsoft", **sizes)
    return model_of([node], {"w": packed, "s": scales}, m)


# -- contestants ----------------------------------------------------------------------------------


def by_tbc(model: Path | onnx.ModelProto, x: Array) -> Call:
    compiled = compile(model, name="bench")

    def call() -> Array:
        (y,) = compiled.run({"x": x}).values()
        return y

    return call


def by_onnxruntime(model: Path | onnx.ModelProto, feeds: Mapping[str, Array]) -> Call:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    source = model if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])

    def call() -> Array:
        return np.asarray(session.run(None, feeds)[0])

    return call


def digits_case(name: str, batch: int) -> Case:
    path, images = DIGITS / f"{name}.onnx", np.load(DIGITS / "test_images.npy")
    x = (images[:batch] / np.float32(16)).reshape(batch, *NAMES[name])
    calls = {"tbc": by_tbc(path, x), "onnxruntime": by_onnxruntime(path, {"x": x})}
    return Case(f"{name}, {batch} image{'s' if batch > 1 else ''}", 0, calls, 0.1)


def linear_case(m: int, rng: np.random.Generator) -> Case:
    w, scale = trits(rng), 0.02
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
