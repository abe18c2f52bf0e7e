from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tbc.constants import constant
from tbc.ir import Builder, Graph, Value
from tbc.ops import Gather, Input, MatMul, Transpose
from tbc.passes import FRONT
from tbc.passes.explain import DotReport, explain
from tbc.target import parse
from tbc.text import parse_graph
from tbc.types import DType, TensorType

Array = npt.NDArray[Any]
TERNARY = "const([[0.5, 0.0], [-0.5, 0.5], [0.0, 0.0], [0.5, -0.5]])"


def front(graph: Graph) -> list[DotReport]:
    for step in FRONT:
        graph = step(graph, parse("x86-64"))
    return explain(graph)


def reports(text: str) -> list[DotReport]:
    return front(parse_graph(text))


def only(text: str) -> DotReport:
    (report,) = reports(text)
    return report


def test_a_float_product() -> None:
    report = only(f"""
m = dim(0)
def f(x: f32[2, m, 4]):
    b: f32[4, 2] = {TERNARY}
    y: f32[2, m, 2] = matmul(x, b)
    return {{"y": y}}
""")
    assert (str(report.m), report.n, report.k) == ("m*2", 2, 4)
    assert (report.weights, report.reason, report.activations) == ("trit per tensor", "", "f32")
    assert report.zeros == pytest.approx(3 / 8)


@pytest.mark.parametrize("code", ["i8", "u8"])
def test_products_of_codes(code: str) -> None:
    report = only(f"""
def f(x: {code}[3, 4]):
    b: f32[4, 2] = const([[1.0, -2.0], [-1.0, -2.0], [1.0, 2.0], [1.0, -2.0]])
    a: f32[3, 4] = cast(x, dtype=f32)
    y: f32[3, 2] = matmul(a, b)
    return {{"y": y}}
""")
    assert (report.weights, report.zeros) == ("sign per row", 0)
    assert report.activations == f"{code} codes"


def test_groups() -> None:
    rows = [[0.5, 1.0]] * 16 + [[-1.5, 2.0]] * 16
    report = only(f"""
def f(x: f32[3, 32]):
    b: f32[32, 2] = const({rows})
    y: f32[3, 2] = matmul(x, b)
    return {{"y": y}}
""")
    assert report.weights == "sign groups of 16"


def test_what_is_not_lifted_says_why() -> None:
    dense, computed, grouped, left = reports("""
def f(x: f32[3, 2], u: f32[2, 5], z: f32[1, 2, 3, 2]):
    b: f32[2, 2] = const([[0.1, 0.2], [0.3, 0.4]])
    y: f32[3, 2] = matmul(x, b)
    v: f32[3, 5] = matmul(x, u)
    c: f32[2, 2, 2] = const([[[1.0, 0.0], [-1.0, 1.0]], [[1.0, 0.0], [0.0, -1.0]]])
    w: f32[1, 2, 3, 2] = matmul(z, c)
    t: f32[2, 2, 5] = matmul(c, u)
    return {"y": y, "v": v, "w": w, "t": t}
""")
    assert (dense.m, dense.n, dense.k, dense.weights) == (3, 2, 2, "f32")
    assert dense.zeros is None
    assert dense.reason == "row 0 has 2 different values among 2: it is dense"
    assert "train it ternary" in dense.remedy
    assert "both operands are computed at run time" in computed.reason
    assert computed.remedy == ""
    assert "a grouped convolution: 2 filters a group would take 128 bits" in grouped.reason
    assert grouped.m == 6
    assert left.reason == grouped.reason


def test_integer_products() -> None:
    dense, lifted = reports("""
def f(x: i8[3, 2], y: i16[3, 2]):
    b: i32[2, 2] = const([[127, 0], [-127, 127]])
    a: i32[3, 2] = cast(x, dtype=i32)
    c: i32[3, 2] = matmul(a, b)
    d: i32[3, 2] = cast(y, dtype=i32)
    e: i32[3, 2] = matmul(d, b)
    return {"c": c, "e": e}
""")
    assert (lifted.weights, lifted.activations) == ("trit per tensor", "i8 codes")
    assert dense.reason == "integer activations from -32768 to 32767 do not fit 8 bits"
    assert dense.remedy == "clip them to 8 bits in the model"


def test_a_depthwise_convolution() -> None:
    report = only("""
def f(x: f32[2, 3, 5]):
    zero: f32 = const(0.0)
    w: f32[3, 1, 2] = const([[[1.0, 0.0]], [[-1.0, 1.0]], [[0.0, 0.0]]])
    p: f32[2, 3, 4, 2] = windows(
        x, zero, kernel=(2,), strides=(1,), dilations=(1,), before=(0,), out=(4,)
    )
    q: f32[2, 3, 4, 2] = mul(p, w)
    y: f32[2, 3, 4] = reduce(q, kind="sum", axes=(3,))
    return {"y": y}
""")
    assert (report.m, report.n, report.k) == (8, 3, 2)
    assert "depthwise" in report.reason
    assert "the input 'x' gives floats that nothing rounds" in report.reason


def weight(w: Array) -> DotReport:
    """The report on x @ w.T."""
    build = Builder()
    x = build(Input("x", TensorType(DType.f32, (2, w.shape[1]))))
    y = build(MatMul(), x, constant(build, w.T, DType.f32))
    (report,) = front(Graph("f", (x,), (("y", y),)))
    return report


def test_a_weight_that_was_changed_after_it_was_quantised() -> None:
    w = np.random.default_rng(0).choice([-0.5, 0, 0.5], (6, 64))
    w[3, 7] = 0.49995
    report = weight(w)
    assert report.reason == (
        "row 3 has magnitudes 0.49995 and 0.5, off by 0.0001 of the scale; at most 1e-05 is noise"
    )
    assert "export the quantised weight" in report.remedy
    w[3, 7] = 1e-3
    assert "row 3 has magnitudes 0.001 and 0.5, off by 0.002 of the scale" in weight(w).reason


def test_groups_that_were_changed() -> None:
    rng = np.random.default_rng(1)
    w = rng.choice([-1, 1], (3, 64)) * np.repeat(rng.uniform(1, 2, (3, 4)), 16, 1)
    w[1, 20] *= 1.0002
    assert weight(w).reason.startswith("row 1 from column 16 on has magnitudes")


def test_weights_of_more_levels_than_planes_make() -> None:
    rng = np.random.default_rng(2)
    report = weight(rng.integers(-8, 8, (4, 96)) * 0.1)
    assert "levels among 96 weights" in report.reason
    assert "more than 8 levels" in report.reason
    assert "of at most 8 levels" in report.remedy


def test_weights_that_are_no_numbers() -> None:
    w = np.ones((3, 32))
    w[1, 5] = np.nan
    assert weight(w).reason == "not all weights are finite: row 1, column 5 is nan"


def test_planes_are_one_product() -> None:
    w = np.random.default_rng(3).choice([-3, -1, 1, 3], (5, 64)) * 0.1
    report = weight(w)
    assert (report.weights, report.planes) == ("2 planes of sign per tensor", 2)
    assert (report.m, report.n, report.k) == (2, 5, 64)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("a: f32[3, 4] = exp(x)", "exp gives floats that nothing rounds"),
        ("a: f32[3, 4] = round(x)", "round gives integers from -inf to inf"),
        (
            """c: f32[3, 4] = round(x)
    lo: f32 = const(-128.0)
    hi: f32 = const(127.0)
    d: f32[3, 4] = max(c, lo)
    e: f32[3, 4] = min(d, hi)
    s: f32[4] = const([0.5, 1.0, 2.0, 3.0])
    a: f32[3, 4] = mul(e, s)""",
            "min gives 8-bit codes, but their scale or offset changes along k",
        ),
    ],
)
def test_why_activations_stay_floats(lines: str, reason: str) -> None:
    report = only(f"""
def f(x: f32[3, 4]):
    b: f32[4, 2] = {TERNARY}
    {lines}
    y: f32[3, 2] = matmul(a, b)
    return {{"y": y}}
""")
    assert reason in report.float_reason
    assert report.remedy


def test_a_zero_point_of_activations_beside_groups() -> None:
    rows = [[0.5, 1.0]] * 16 + [[-1.5, 2.0]] * 16
    report = only(f"""
def f(x: u8[3, 32], z: u8):
    b: f32[32, 2] = const({rows})
    w: i32[3, 32] = cast(x, dtype=i32)
    o: i32 = cast(z, dtype=i32)
    c: i32[3, 32] = sub(w, o)
    a: f32[3, 32] = cast(c, dtype=f32)
    y: f32[3, 2] = matmul(a, b)
    return {{"y": y}}
""")
    assert "scales of groups, and the activations a zero point" in report.float_reason


def test_a_tied_embedding_is_called_one() -> None:
    build = Builder()
    x = build(Input("x", TensorType(DType.f32, (2, 64))))
    index = build(Input("i", TensorType(DType.i64, (5,))))
    table = constant(build, np.random.default_rng(4).normal(size=(100, 64)), DType.f32)
    y = build(MatMul(), x, build(Transpose((1, 0)), table))
    rows = build(Gather(0), table, index)
    (report,) = front(Graph("f", (x, index), (("y", y), ("rows", rows))))
    assert report.reason.startswith("the weight is an embedding table too; row 0 has 64 different")


def test_origins_are_kept() -> None:
    build = Builder()
    plain = parse_graph(f"""
def f(x: i8[3, 4]):
    b: f32[4, 2] = {TERNARY}
    a: f32[3, 4] = cast(x, dtype=f32)
    y: f32[3, 2] = matmul(a, b)
    return {{"y": y}}
""")
    named: dict[Value, Value] = {}
    for value in plain.values():
        with build.origin(f"node of {type(value.op).__name__}"):
            named[value] = build(value.op, *(named[a] for a in value.args))
    inputs = tuple(named[i] for i in plain.inputs)
    (report,) = front(Graph("f", inputs, (("y", named[plain.results[0]]),)))
    assert report.origin == "node of MatMul"
