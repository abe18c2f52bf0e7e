"""What is kept from call to call: compiled code does what feeding it by hand does, bit for bit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from compiled import Native, native_target
from graph_strategies import feeds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from phase_check import check_phases, divided_finely
from strategies import Array, assert_same, random_array
from test_steps_property import as_bytes, compilable, tame, wide_bindings, wide_graphs
from test_text import all_constants
from toolchain import needs_cc

from tbc import ops, reference
from tbc.codegen.host import resolve_target
from tbc.codegen.machine import Workers
from tbc.constants import constant
from tbc.driver import lower
from tbc.ir import Builder, Graph, State, Value, topological
from tbc.text import parse_graph, print_graph
from tbc.types import DType, TensorType

Draw = Callable[..., Any]
_BAD_VALUE = 7
"""TBC_ERROR_VALUE of tbc.h."""
CALLS = 4


# -- random graphs --------------------------------------------------------------------------------


@st.composite
def tied_graphs(draw: Draw) -> Graph:
    """Graphs some of whose inputs are kept from call to call, in all ways that there are."""
    graph = compilable(draw(wide_graphs(steps=6)), native_target())
    build = graph.builder
    values = [v for v in topological((*graph.inputs, *graph.results)) if _can_be_kept(v)]
    like = draw(st.sampled_from(values)).type if values else TensorType(DType.f32, (3,))
    lines = [build(ops.Input(f"line{i}", like)) for i in range(draw(st.integers(1, 3)))]
    able = [v for v in graph.inputs if v.type.is_static]
    olds = [*lines, *draw(st.lists(st.sampled_from(able), max_size=2, unique=True))]
    states, outputs = [], list(graph.outputs)
    for number, old in enumerate(olds):
        same = [v for v in (*values, *lines) if v.type == old.type]
        choices = [*lines, *lines] if old in lines else []
        next = draw(st.sampled_from([*choices, *same, *_made_of(old, same)]))
        values.append(next)
        states.append(State(old, f"next{number}", next))
        seen = draw(st.sampled_from([None, None, old, next]))
        outputs += [(f"seen{number}", seen)] if seen is not None else []
    left = tuple(v for v in graph.inputs if v not in olds)
    return replace(graph, inputs=left, outputs=tuple(outputs), states=tuple(states))


def _can_be_kept(value: Value) -> bool:
    type = value.type
    is_whole = type.dtype.bits >= 8 and not (type.dtype.is_weight or type.dtype.is_small_float)
    return type.is_static and is_whole


def _made_of(old: Value, same: Sequence[Value]) -> Iterator[Value]:
    """Next states of a state: a constant, a sum, a shift, a turn, an update in place."""
    build, shape, dtype = old.builder, old.type.shape, old.type.dtype
    size = [d for d in shape if isinstance(d, int)]
    yield constant(build, np.ones(size, dtype.numpy), dtype)
    if dtype is not DType.bool:
        yield build(ops.Binary("add"), old, same[-1])
    if not size or 0 in size:
        return
    zeros, ones = (0,) * len(size), (1,) * len(size)

    def part(x: Value, axis: int, start: int, extent: int) -> Value:
        starts = (*zeros[:axis], start, *zeros[axis + 1 :])
        return build(ops.Slice(starts, ones, (*size[:axis], extent, *size[axis + 1 :])), x)

    for axis, extent in enumerate(size):
        if extent > 1:
            rest, first = part(old, axis, 1, extent - 1), part(same[-1], axis, 0, 1)
            yield build(ops.Concat(axis), rest, first)
            yield build(ops.Concat(axis), first, part(old, axis, 0, extent - 1))
            if dtype is not DType.bool:
                mixed = build(ops.Binary("add"), rest, part(old, axis, 0, extent - 1))
                yield build(ops.Concat(axis), mixed, first)
            starts = (*zeros[:axis], extent - 1, *zeros[axis + 1 :])
            yield build(ops.Slice(starts, (*ones[:axis], -1, *ones[axis + 1 :]), shape), old)
    row = part(same[-1], 0, 0, 1)
    index = constant(build, np.full((1, 1), size[0] - 1, np.int64), DType.i64)
    yield build(ops.ScatterND("none"), old, index, row)


def by_hand(graph: Graph, feeds: Mapping[str, Array], states: Mapping[str, Array]) -> Any:
    """The outputs and the next states of a call; None if the model refuses what it is fed."""
    try:
        found = reference.run_graph(graph.untied, {**feeds, **states})
    except ValueError as error:
        if re.search("cannot accept|out of bounds", str(error)):
            return None
        raise
    kept = {s.old.op.name: found[s.name] for s in graph.states}  # type: ignore[attr-defined]
    return {name: found[name] for name, _ in graph.outputs}, kept


def check_calls(
    native: Native, sets: Sequence[Mapping[str, Array]], parts: int, at_once: bool = False
) -> None:
    """Assert that calls in turn give what feeding the states by hand does, whatever they are."""
    graph, states = native.lowered, {}
    for number, (state, held) in enumerate(zip(graph.states, native.kept().values(), strict=True)):
        held[...] = random_array(state.old.type.dtype, held.shape, number)
        states[state.old.op.name] = held.copy()  # type: ignore[attr-defined]
    for arrays in sets:
        expected = by_hand(graph, arrays, states)
        run = native.run(arrays, parts, at_once)
        assert run.status == (_BAD_VALUE if expected is None else 0)
        if expected is not None:
            outputs, states = expected
            for name, array in outputs.items():
                assert_same(run.outputs[name], array)
        kept = native.kept()
        for state in graph.states:
            assert_same(kept[state.name], states[state.old.op.name])  # type: ignore[attr-defined]


_QUIET = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def _in_turn(graph: Graph, dims: dict[str, int], seed: int, workers: Workers) -> None:
    native = Native(graph, workers)
    sets = [as_bytes(feeds(graph, dims, seed + number)) for number in range(CALLS)]
    for parts, at_once in ((1, False), (2, False), (3, False), (2, True)):
        check_calls(native, sets, parts, at_once)


@settings(_QUIET, max_examples=40)
@given(tied_graphs(), wide_bindings(), st.integers(0, 99))
def test_calls_in_turn(workers: Workers, graph: Graph, dims: dict[str, int], seed: int) -> None:
    _in_turn(graph, dims, seed, workers)


@pytest.mark.slow
@settings(_QUIET, max_examples=600)
@given(tied_graphs(), wide_bindings(), st.integers(0, 99))
def test_many_calls_in_turn(
    workers: Workers, graph: Graph, dims: dict[str, int], seed: int
) -> None:
    with divided_finely():
        _in_turn(graph, dims, seed, workers)


@st.composite
def moving_graphs(draw: Draw, shapes: st.SearchStrategy[tuple[int, ...]]) -> Graph:
    """Graphs with one state, of which most ways to change it read other places of it."""
    build, shape = Builder(), draw(shapes)
    type = TensorType(draw(st.sampled_from([DType.f32, DType.i8, DType.i64])), shape)
    x, old = (build(ops.Input(name, type)) for name in ("x", "old"))
    next = draw(st.sampled_from(list(_made_of(old, [x]))))
    y = build(ops.Binary("sub"), old, x) if draw(st.booleans()) else x
    return Graph("moving", (x,), (("y", y),), (), (State(old, "next", next),))


_SHAPES = st.lists(st.sampled_from([1, 2, 3, 8, 17, 64, 70]), min_size=1, max_size=3).map(tuple)
_DIVIDED = st.sampled_from([(300,), (70, 17), (3, 300), (64, 2, 8)])
"""Of some of them, parts do some elements each."""


@settings(_QUIET, max_examples=50)
@given(moving_graphs(_SHAPES), st.booleans(), st.integers(0, 99))
def test_what_moves(workers: Workers, graph: Graph, is_fine: bool, seed: int) -> None:
    with divided_finely() if is_fine else nullcontext():
        _in_turn(graph, {}, seed, workers)


@needs_cc
@settings(_QUIET, max_examples=25)
@given(moving_graphs(_DIVIDED), st.integers(0, 99))
def test_what_moves_without_threads(workers: Workers, graph: Graph, seed: int) -> None:
    """Where parts may share a step all the same."""
    native = Native(graph, workers, resolve_target("c"))
    for parts in (1, 3):
        check_calls(native, [feeds(graph, {}, seed + n) for n in range(CALLS)], parts)


@settings(_QUIET, max_examples=25)
@given(tied_graphs(), wide_bindings(), st.integers(0, 99))
def test_parts_do_not_meet(workers: Workers, graph: Graph, dims: dict[str, int], seed: int) -> None:
    with divided_finely():
        native = Native(graph, workers)
    arrays = {n: tame(a) for n, a in as_bytes(feeds(graph, dims, seed)).items()}
    check_calls(native, [arrays] * 2, 3)
    generator = np.random.default_rng(seed)
    native.state.array[...] = generator.integers(0, 2, native.state.array.shape)
    check_phases(native, arrays, (2, 3, 7)[seed % 3])


@settings(_QUIET, max_examples=50)
@given(tied_graphs())
def test_text_keeps_states(graph: Graph) -> None:
    text = print_graph(graph)
    again = parse_graph(text, all_constants(graph))
    assert print_graph(again) == text
    assert [s.name for s in again.states] == [s.name for s in graph.states]


# -- what is copied -------------------------------------------------------------------------------

CASES = {
    "a sum": ("v: f32[8] = add(a, x)\n    keep(a, 'n', v)", 0),
    "a product of rows": ("v: f32[8, 8] = matmul(b, b)\n    keep(b, 'n', v)", 1),
    "what nobody reads": ("v: f32[8] = exp(x)\n    keep(a, 'n', v)", 0),
    "what is read in other places": (
        "v: f32[8] = slice(a, starts=(7,), steps=(-1,), shape=(8,))\n    keep(a, 'n', v)",
        1,
    ),
    "what is read later": ("v: f32[8] = exp(x)\n    y: f32[8] = mul(v, a)\n    keep(a, 'n', v)", 1),
    "frames that shift": (
        "u: f32[7] = slice(a, starts=(1,), steps=(1,), shape=(7,))\n"
        "    w: f32[1] = slice(x, starts=(0,), steps=(1,), shape=(1,))\n"
        "    v: f32[8] = concat(u, w, axis=0)\n    keep(a, 'n', v)",
        0,
    ),
    "frames that shift up": (
        "u: f32[7] = slice(a, starts=(0,), steps=(1,), shape=(7,))\n"
        "    w: f32[1] = slice(x, starts=(0,), steps=(1,), shape=(1,))\n"
        "    v: f32[8] = concat(w, u, axis=0)\n    keep(a, 'n', v)",
        1,
    ),
    "a ring": (
        "u: f32[7] = slice(a, starts=(1,), steps=(1,), shape=(7,))\n"
        "    w: f32[1] = slice(a, starts=(0,), steps=(1,), shape=(1,))\n"
        "    v: f32[8] = concat(u, w, axis=0)\n    keep(a, 'n', v)",
        1,
    ),
    "itself": ("keep(a, 'n', a)", 0),
    "an input": ("keep(a, 'n', x)", 1),
    "a delay line": ("keep(c, 'm', a)\n    keep(a, 'n', x)", 2),
    "a swap": ("keep(a, 'n', c)\n    keep(c, 'm', a)", 2),
    "an update in place": (
        "i: i64[1, 1] = const([[3]])\n    u: f32[1] = slice(x, starts=(0,), steps=(1,), shape=(1,))"
        "\n    v: f32[8] = scatter_nd(a, i, u)\n    keep(a, 'n', v)",
        0,
    ),
}
"""What a state becomes -> the text of it, and how many copies of states that takes."""


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("target", ["native", "cortex-m0"])
def test_copies(case: str, target: str) -> None:
    text, copies = CASES[case]
    arguments = "x: f32[8], a: f32[8], b: f32[8, 8], c: f32[8]"
    result = "y" if "y:" in text else "x"
    rest = "".join(f"\n    keep({n}, 'old {n}', {n})" for n in "abc" if f"keep({n}," not in text)
    graph = parse_graph(f"def f({arguments}):\n    {text}{rest}\n    return {{'y': {result}}}\n")
    program = lower(graph, resolve_target(target))
    assert sum(isinstance(step.copy_to, Value) for step in program.steps) == copies


def test_a_refused_call_changes_nothing(workers: Workers) -> None:
    """The index is looked at before the sum is stored, though that comes first in the model."""
    graph = parse_graph(
        "def f(x: f32[8], i: i32[1], a: f32[8]):\n    v: f32[8] = add(a, x)\n"
        "    y: f32[1] = gather(v, i, axis=0)\n    keep(a, 'n', v)\n    return {'y': y}\n"
    )
    native, x = Native(graph, workers), np.ones(8, np.float32)
    for index, status, total in ((1, 0, 1), (8, _BAD_VALUE, 1), (0, 0, 2)):
        run = native.run({"x": x, "i": np.array([index], np.int32)})
        assert run.status == status
        np.testing.assert_array_equal(native.kept()["n"], x * total)
