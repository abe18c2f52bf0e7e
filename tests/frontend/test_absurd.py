"""Small models of huge things: compiled or refused in little time and memory, never attempted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_models import MICROSOFT, QONNX, Array, i64, integers, model, nodes, normal, one_node

from tests.fuzz.target import check

OUTCOMES = ("compiled", "InvalidModel", "Unsupported")
HUGE = (1 << 27, 1 << 31, 1 << 40, (1 << 63) - 1)
X = {"x": (np.float32, [2, 3])}
IMAGE = {"x": (np.float32, [1, 1, 5, 5])}
W = normal(1, 1, 1, 3, 3)
SECONDS = 20
"""Ten times what it may take: machines are shared."""


def folded(*lines: str, **constants: Array) -> onnx.ModelProto:
    """A large constant r of small ones, whose greatest element is added to the input."""
    rest = nodes("m = ReduceMax(r)", "y = Add(x, m)", m={"keepdims": 0})
    return model([*nodes(*lines), *rest], X, constants=constants)


def node(op: str, args: list[Array], fixed: tuple[int, ...] = (), **given: Any) -> onnx.ModelProto:
    return one_node(op, args, constant=fixed, **given)[0]


def constants(n: int) -> Mapping[str, onnx.ModelProto]:
    """Constants of about n elements."""
    zero, one, size = np.array(0), np.array(1), np.array(n)
    return {
        "ConstantOfShape": folded("r = ConstantOfShape(s)", s=i64(n)),
        "Expand": folded("r = Expand(w, s)", w=normal(1, 1), s=i64(n)),
        "Tile": folded("r = Tile(w, s)", w=normal(1, 2), s=i64(n)),
        "Pad": folded("r = Pad(w, s)", w=normal(1, 2), s=i64(n, 0)),
        "Range": folded("i = Range(a, n, b)", "r = Cast(i)", a=zero, n=size, b=one),
        "Resize": folded("r = Resize(w, , , s)", w=normal(1, 1, 1, 2, 2), s=i64(1, 1, n, 2)),
        "weight": model(
            nodes("w = Expand(v, s)", "y = MatMul(x, w)"),
            X,
            constants={"v": normal(1, 3, 1), "s": i64(3, n)},
        ),
        "Mel": node(
            "MelWeightMatrix",
            [size, size, np.array(8000), np.float32(0), np.float32(4000)],
            (0, 1, 2, 3, 4),
        ),
        "DFT": node("DFT", [normal(1, 1, 8, 1), size], (1,), axis=1),
    }


def windows(n: int) -> Mapping[str, onnx.ModelProto]:
    """Kernels, strides, dilations, paddings and sizes of about n."""
    wide = {"kernel_shape": [n, 1], "pads": [n - 1, 0, n - 1, 0]}
    x = normal(1, 1, 1, 5, 5)
    return {
        **{
            f"{op} {name}": node(op, [x, W], (1,), **{name: value})
            for op in ("Conv", "ConvTranspose")
            for name, value in [("pads", [n, 0, n, 0]), ("dilations", [n, 1]), ("strides", [1, n])]
        },
        "far": node("Conv", [x, W], (1,), dilations=[n, 1], pads=[n, 0, n, 0]),
        "far const": node("Conv", [x, W], (0, 1), dilations=[n, 1], pads=[n, 0, n, 0]),
        "output_shape": node("ConvTranspose", [x, W], (1,), output_shape=[n, 1]),
        **{op: node(op, [x], **wide) for op in ("MaxPool", "AveragePool", "LpPool")},
        "kernel": node("MaxPool", [x], kernel_shape=[n, 1]),
        "antialias": model(
            nodes("y = Resize(x, , , s)", y={"mode": "linear", "antialias": 1}),
            {"x": (np.float32, [1, 1, n, 2])},
            constants={"s": i64(1, 1, 1, 2)},
            opset=18,
        ),
        "sampling": node(
            "RoiAlign",
            [normal(1, 1, 1, 4, 4), normal(1, 2, 4), i64(0, 0)],
            output_height=2,
            output_width=2,
            sampling_ratio=n,
        ),
    }


def attributes(n: int) -> Mapping[str, onnx.ModelProto]:
    """Numbers of things of about n."""
    packed = integers(1, 0, 255, 4, 1, 16, dtype=np.uint8)
    weights = [normal(1, 1, 32), packed, normal(1, 4)]
    bits = [normal(1, 2), np.float32(1), np.float32(0), np.array(n)]
    given = {"K": 32, "N": 4, "bits": 4, "block_size": 32}
    return {
        "k": node("TopK", [normal(1, 6), i64(n)], (1,), outputs=2),
        "num_outputs": node("Split", [normal(1, 6)], opset=18, num_outputs=n, outputs=2),
        "parts": node("Split", [normal(1, 6), i64(n, 6 - n)], (1,), outputs=2),
        "slice": node("Slice", [normal(1, 6), i64(-n - 1), i64(n), i64(0), i64(n)], (1, 2, 3, 4)),
        "back": node("Slice", [normal(1, 6), i64(n), i64(-n), i64(0), i64(-n - 1)], (1, 2, 3, 4)),
        "depth": node("OneHot", [i64(0, 1), np.array(n), normal(1, 2)], (1,)),
        "hidden": node(
            "LSTM", [normal(1, 3, 1, 2), normal(1, 1, 8, 2), normal(1, 1, 8, 2)], hidden_size=n
        ),
        "bit width": node("Quant", bits, (1, 2, 3), domain=QONNX),
        **{
            f"nbits {name}": node("MatMulNBits", weights, (1, 2), domain=MICROSOFT,
                                  **{**given, name: n})
            for name in given
        },
    }  # fmt: skip


@pytest.mark.parametrize("size", HUGE)
@pytest.mark.parametrize("cases", [constants, windows, attributes])
def test_huge_numbers(cases: Any, size: int) -> None:
    for name, proto in cases(size).items():
        assert check(proto.SerializeToString(), SECONDS) in OUTCOMES, name


def repeated(first: str, *lines: str, count: int, **constants: Array) -> onnx.ModelProto:
    """The lines many times, each time from a to z and on from there."""
    made: list[onnx.NodeProto] = []
    for i in range(count):
        for line in lines:
            names = {name: f"{name}{i}" for name in "bcdz"} | {"a": f"z{i - 1}" if i else first}
            target, call = line.split(" = ")
            op, args = call.rstrip(")").split("(")
            inputs = [names.get(a, a) for a in args.split(", ")]
            attributes = {"axis": i % 2} if op == "Concat" else {}
            made.append(helper.make_node(op, inputs, [names[target]], **attributes))
    return model(made, {first: (np.float32, ["n", "m"])}, [f"z{count - 1}"], constants)


@pytest.mark.parametrize("count", [20, 60, 100])
@pytest.mark.parametrize(
    "lines",
    [
        ["z = Concat(a, a)"],
        ["z = Add(a, a)"],
        ["b = Shape(a)", "c = Mul(b, b)", "d = Div(c, two)", "z = ConstantOfShape(d)"],
        ["b = Reshape(a, row)", "c = Reshape(a, column)", "z = Mul(b, c)"],
    ],
)
def test_what_doubles_with_every_node(lines: list[str], count: int) -> None:
    numbers = {"two": i64(2), "row": i64(1, -1), "column": i64(-1, 1)}
    data = repeated("x", *lines, count=count, **numbers).SerializeToString()
    assert check(data, SECONDS) in ("compiled", "Unsupported", "Unbounded")
