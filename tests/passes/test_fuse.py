"""Steps and plans: every step reads what is there, and nothing that lives overlaps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from graph_strategies import graphs
from hypothesis import given, settings

from tbc import ops
from tbc.dims import bounds, evaluate, upper
from tbc.ir import Graph, Value, bind
from tbc.passes.fuse import ANCHORS, fuse
from tbc.passes.pad import pad
from tbc.passes.plan import plan
from tbc.passes.select import select
from tbc.program import Program, root_index, strides
from tbc.target import parse
from tbc.text import parse_graph

TARGET = parse("x86-64-v3")
GOLDEN = Path(__file__).parent.parent / "golden" / "fuse"


def program_of(graph: Graph) -> Program:
    graph = select(pad(graph, TARGET), TARGET)
    return plan(graph, fuse(graph), TARGET)


@given(graph=graphs())
@settings(max_examples=150, deadline=None)
def test_programs_hold_together(graph: Graph) -> None:
    program = program_of(bind(graph, {s.name: 3 for s in graph.symbols()}))
    there = {v for v, b in program.buffers.items() if b.place in ("input", "weights")}
    for step in program.steps:
        assert set(step.reads) <= there | set(step.results), step
        there.update(step.results)
    assert set(program.checks) | {v for _, v in program.outputs} <= there
    live_buffers_are_disjoint(program)


def live_buffers_are_disjoint(program: Program) -> None:
    last: dict[Value, int] = {}
    for number, step in enumerate(program.steps):
        for value in (*step.reads, *step.results):
            last[value] = number
    for check in program.checks:
        last[check] = len(program.steps)
    live: list[tuple[int, int, Value]] = []
    for number, step in enumerate(program.steps):
        live = [entry for entry in live if last[entry[2]] >= number]
        for result in step.results:
            buffer = program.buffers[result]
            if buffer.place != "arena":
                continue
            start = buffer.offset
            end = start + upper(result.type.size) * result.type.dtype.bytes
            assert start % program.alignment == 0
            assert end <= program.arena_size
            for other_start, other_end, other in live:
                assert end <= other_start or other_end <= start, (result, other)
            live.append((start, end, result))


@given(graph=graphs())
@settings(max_examples=50, deadline=None)
def test_a_step_has_one_anchor(graph: Graph) -> None:
    graph = select(pad(graph, TARGET), TARGET)
    for step in fuse(graph):
        if step.copy_to is not None:
            continue
        inside, todo = [], [step.root]
        while todo:
            value = todo.pop()
            if value in step.reads or value.is_constant:
                continue
            inside.append(value)
            todo += value.args
        anchors = {v for v in inside if isinstance(v.op, ANCHORS)}
        assert anchors <= {step.anchor}


def test_strides_follow_the_order() -> None:
    assert strides((2, 3, 4), (0, 1, 2)) == (12, 4, 1)
    assert strides((2, 3, 4), (0, 2, 1)) == (12, 1, 3)
    assert strides((), ()) == ()


def test_an_epilogue_stores_every_element_once() -> None:
    graph = parse_graph(
        """
def g(x: f32[2, 6, 5], w: f32[5, 3]):
    v2: f32[2, 6, 3] = matmul(x, w)
    v3: f32[2, 3, 6] = transpose(v2, perm=(0, 2, 1))
    v4: f32[2, 3, 2, 3] = reshape(v3, shape=(2, 3, 2, 3))
    v5: f32[2, 3, 2, 3] = neg(v4)
    return {"y": v5}
"""
    )
    (step,) = fuse(graph)
    assert isinstance(step.anchor.op, ops.MatMul)
    places = {
        tuple(evaluate(i, {}) for i in root_index(step, (b, m, n)))
        for b in range(2)
        for m in range(6)
        for n in range(3)
    }
    assert len(places) == 36
    assert max(p[3] for p in places) == bounds(step.root.type.shape[3])[1] - 1


def test_values_lie_as_what_they_are_computed_from() -> None:
    graph = parse_graph(
        """
def g(x: f32[8, 20], w: f32[20, 30], u: f32[8, 4]):
    v3: f32[8, 30] = matmul(x, w)
    v4: f32[8, 1] = reduce(v3, kind="max", axes=(1,), keepdims=True)
    v5: f32[8, 30] = sub(v3, v4)
    v6: f32[30, 8] = transpose(v5, perm=(1, 0))
    v7: f32 = const(0.0)
    v8: f32[31, 8] = pad(v6, v7, before=(0, 0), shape=(31, 8))
    v9: f32[31, 4] = matmul(v8, u)
    return {"y": v9}
"""
    )
    program = program_of(graph)
    (padded,) = (b for v, b in program.buffers.items() if isinstance(v.op, ops.Pad))
    assert padded.order == (1, 0)


def lines_of(program: Program) -> str:
    """A plan as text: a line a step, a line a buffer."""
    named = {v: f"v{i}" for i, v in enumerate(program.buffers)}
    lines = []
    for step in program.steps:
        reads = ", ".join(named[r] for r in step.reads)
        what = type(step.anchor.op).__name__
        lines.append(f"{named[step.root]} = {what}({reads}) as {type(step.root.op).__name__}")
    for value, buffer in program.buffers.items():
        where = f"{buffer.place} {buffer.index or buffer.offset}"
        lines.append(f"{named[value]}: {value.type} {buffer.order} in {where}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.ir")), ids=lambda p: p.stem)
def test_golden_plans(path: Path, golden: Callable[[Path, str], None]) -> None:
    golden(path.with_suffix(".txt"), lines_of(program_of(parse_graph(path.read_text()))))
