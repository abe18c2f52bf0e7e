from __future__ import annotations

import pytest

from tbc.ir import Builder, Graph, Value
from tbc.passes import FRONT
from tbc.passes.explain import DotReport, explain
from tbc.target import parse
from tbc.text import parse_graph

TERNARY = "const([[0.5, 0.0], [-0.5, 0.5], [0.0, 0.0], [0.5, -0.5]])"


def reports(text: str) -> list[DotReport]:
    graph = parse_graph(text)
    for step in FRONT:
        graph = step(graph, parse("x86-64"))
    return explain(graph)


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
    assert "2 weights of one row have magnitudes from 0.1 to 0.3" in dense.reason
    assert computed.reason == "both operands are computed at run time"
    assert "a grouped convolution" in grouped.reason
    assert grouped.m == 6
    assert left.reason == "a batch of weights is the left operand"


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
    graph = Graph("f", inputs, (("y", named[plain.results[0]]),))
    for step in FRONT:
        graph = step(graph, parse("x86-64"))
    (report,) = explain(graph)
    assert report.origin == "node of MatMul"
