"""How fast compiled models run beside onnxruntime, on one thread: `python -m tests.bench`.

Each case is timed as a Python program sees it: one call, arrays in, arrays out. The contestants of
a case take turns in short samples, so that whatever else the machine does meets all of them;
reported are the median and the quartiles of the samples. Weights stay in the cache from call to
call. onnxruntime runs at its default level of graph optimisations, the fastest.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

from tbc.api import compile
from tbc.codegen.host import host_target

Array = npt.NDArray[Any]
Call = Callable[[], Array]

DIGITS = Path(__file__).parent.parent / "examples/digits"
NAMES = {"digits_mlp": (64,), "digits_cnn": (1, 8, 8)}
WIDTH = 2560
BLOCK = 128
SAMPLE = 2e-3
"""Seconds that a sample takes at least."""


@dataclass(frozen=True)
class Case:
    """Calls that compute the same, or nearly.

    Attributes:
        name: what is computed.
        macs: multiplications by a weight, each with its addition, a call.
        calls: by contestant.
        tolerance: how far results may lie apart, relative to the largest element.
    """

    name: str
    macs: int
    calls: dict[str, Call]
    tolerance: float


@dataclass(frozen=True)
class Timing:
    """Microseconds a call: the median and the quartiles of the samples."""

    case: str
    contestant: str
    median_us: float
    lower_us: float
    upper_us: float
    gmac_per_s: float


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


def by_onnxruntime(model: Path | onnx.ModelProto, x: Array) -> Call:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    source = model if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])

    def call() -> Array:
        (y,) = session.run(None, {"x": x})
        return np.asarray(y)

    return call


def digits_case(name: str, batch: int) -> Case:
    path, images = DIGITS / f"{name}.onnx", np.load(DIGITS / "test_images.npy")
    x = (images[:batch] / np.float32(16)).reshape(batch, *NAMES[name])
    calls = {"tbc": by_tbc(path, x), "onnxruntime": by_onnxruntime(path, x)}
    return Case(f"{name}, {batch} image{'s' if batch > 1 else ''}", 0, calls, 0.1)


def linear_case(m: int, rng: np.random.Generator) -> Case:
    w, scale = trits(rng), 0.02
    x = rng.standard_normal((m, WIDTH), np.float32)
    rounding, plain = bit_linear(w, scale, m), nbits(w, scale, m)
    calls = {
        "tbc, BitLinear": by_tbc(rounding, x),
        "onnxruntime, BitLinear": by_onnxruntime(rounding, x),
        "onnxruntime, MatMulNBits": by_onnxruntime(plain, x),
        "tbc, MatMulNBits": by_tbc(plain, x),
    }
    return Case(f"{WIDTH} x {WIDTH} trits, M={m}", m * WIDTH * WIDTH, calls, 0.02)


def cases() -> Iterator[Case]:
    """Every case, made when its turn comes."""
    rng = np.random.default_rng(0)
    for name in NAMES:
        for batch in (1, 360):
            yield digits_case(name, batch)
    for m in (1, 128):
        yield linear_case(m, rng)


# -- timing ---------------------------------------------------------------------------------------


def check(case: Case) -> None:
    """Nothing if the contestants agree: what is wrong need not be fast."""
    results = {name: call() for name, call in case.calls.items()}
    expected, *others = results.values()
    for other in others:
        error = np.abs(other - expected).max() / np.abs(expected).max()
        if not error <= case.tolerance:
            raise SystemExit(f"{case.name}: {', '.join(results)} differ by {error:.2g}")


def sample(call: Call, calls: int) -> float:
    """Seconds a call."""
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def timings(case: Case, rounds: int) -> list[Timing]:
    """Every contestant of a case, in turns."""
    check(case)
    counts = {name: max(1, round(SAMPLE / sample(call, 3))) for name, call in case.calls.items()}
    seconds: dict[str, list[float]] = {name: [] for name in case.calls}
    for _ in range(rounds):
        for name, call in case.calls.items():
            seconds[name].append(sample(call, counts[name]))
    return [timing(case, name, found) for name, found in seconds.items()]


def timing(case: Case, contestant: str, seconds: list[float]) -> Timing:
    lower, median, upper = (float(q) for q in np.quantile(seconds, (0.25, 0.5, 0.75)))
    speed = case.macs / median / 1e9
    return Timing(case.name, contestant, median * 1e6, lower * 1e6, upper * 1e6, speed)


def machine() -> dict[str, str]:
    """What the numbers are about."""
    target = host_target()
    return {
        "cpu": target.cpu,
        "features": " ".join(sorted(target.features)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
    }


def show(console: Console, results: list[Timing]) -> None:
    """The results of one case as a table; ratios are to its first contestant."""
    table = Table(title=results[0].case, title_justify="left", box=None, pad_edge=False)
    table.add_column(no_wrap=True, min_width=24)
    for heading in ("median µs", "quartiles µs", "GMAC/s", "ratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    for r in results:
        table.add_row(
            r.contestant,
            f"{r.median_us:.1f}",
            f"{r.lower_us:.1f} .. {r.upper_us:.1f}",
            f"{r.gmac_per_s:.1f}" if r.gmac_per_s else "",
            f"{r.median_us / results[0].median_us:.2f}",
        )
    console.print(table, "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="the results as JSON")
    parser.add_argument("--rounds", type=int, default=40, help="samples of each contestant")
    arguments = parser.parse_args()
    console = Console(stderr=arguments.json)
    about = machine()
    title = f"{about['cpu']}, {about['system']}, onnxruntime {about['onnxruntime']}, one thread"
    console.print(title, "", highlight=False, soft_wrap=True)
    results = []
    for case in cases():
        found = timings(case, arguments.rounds)
        show(console, found)
        results += found
    if arguments.json:
        json.dump({"machine": about, "results": [asdict(r) for r in results]}, sys.stdout, indent=2)
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
