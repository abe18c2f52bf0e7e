"""Layers that differ in their constants only call one kernel."""

from __future__ import annotations

from tbc import reference
from tbc.ir import Value
from tbc.passes.fuse import fuse
from tbc.passes.plan import plan
from tbc.passes.share import share
from tbc.program import outline
from tbc.target import parse
from tbc.text import parse_graph

TARGET = parse("x86-64-v3")

LAYERS = """
def g(x: f32[1, 32], a: f32[32, 32], b: f32[32, 32]):
    v1: f32[1, 32] = matmul(x, a)
    v2: f32 = const({first})
    v3: f32[1, 32] = mul(v1, v2)
    v4: f32 = const(1.0)
    v5: f32[1, 32] = add(v3, v4)
    v6: f32[1, 32] = matmul(v5, b)
    v7: f32 = const({second})
    v8: f32[1, 32] = mul(v6, v7)
    v9: f32[1, 32] = add(v8, v4)
    return {{"y": v9}}
"""


def shared(first: float, second: float) -> list[list[Value]]:
    graph = parse_graph(LAYERS.format(first=first, second=second))
    steps = share(fuse(graph))
    plan(graph, steps, TARGET)
    assert len({outline(s).text for s in steps}) == 1
    return [[v for v in s.reads if v.is_constant] for s in steps]


def test_constants_that_differ_are_read_from_memory() -> None:
    (first,), (second,) = shared(0.5, 0.25)
    assert reference.run([first, second], {}) == [0.5, 0.25]


def test_equal_constants_stay_in_the_code() -> None:
    assert shared(0.5, 0.5) == [[], []]
