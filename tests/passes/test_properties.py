"""What holds of passes and analyses on any graph."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from graph_strategies import bindings, feeds, graphs
from hypothesis import given, settings
from hypothesis import strategies as st
from test_golden import same_bits

from tbc import ops
from tbc.ir import Graph, Value
from tbc.passes import FRONT
from tbc.passes.canonicalize import canonicalize
from tbc.passes.fold import fold
from tbc.passes.ranges import Ranges
from tbc.reference import run_graph
from tbc.target import parse

LATER = (ops.Input, ops.Const, ops.Pack, ops.PackedDot, ops.PackedGroupedDot)
FRONT_OPS = tuple(op for op in ops.OPS if op not in LATER)
NUMERIC = (
    ops.Unary, ops.Binary, ops.Where, ops.Cast, ops.BitCast, ops.Broadcast, ops.Reshape,
    ops.Transpose, ops.Slice, ops.Concat, ops.Pad, ops.Windows, ops.Reduce,
)  # fmt: skip
seeds = st.integers(0, 999)


@given(graphs(ops=FRONT_OPS, steps=14), bindings(), seeds)
@settings(max_examples=150)
def test_canonicalizing_keeps_every_bit(graph: Graph, dims: dict[str, int], seed: int) -> None:
    arrays = feeds(graph, dims, seed)
    after = canonicalize(fold(graph, parse("x86-64")), parse("x86-64"))
    results = run_graph(after, arrays)
    for name, expected in run_graph(graph, arrays).items():
        assert same_bits(expected, results[name])


@given(graphs(ops=NUMERIC, steps=14), bindings(), seeds)
@settings(max_examples=150)
def test_ranges_hold(graph: Graph, dims: dict[str, int], seed: int) -> None:
    ranges = Ranges()
    broken: list[str] = []

    def check(value: Value, array: np.ndarray[Any, Any]) -> None:
        known = ranges(value)
        with np.errstate(invalid="ignore"):  # of signalling nans
            numbers = array.astype(np.float64)
        numbers = numbers[~np.isnan(numbers)]
        inside = (known.lo <= numbers) & (numbers <= known.hi)
        whole = np.isinf(numbers) | (numbers == np.rint(numbers))
        if not (inside.all() and (whole.all() or not known.integer)):
            broken.append(f"{value} is {array}, not in {known}")

    run_graph(graph, feeds(graph, dims, seed), watch=check)
    assert not broken


@given(graphs(ops=FRONT_OPS, steps=10), bindings(), seeds)
@settings(max_examples=50)
def test_the_front_passes_take_any_graph(graph: Graph, dims: dict[str, int], seed: int) -> None:
    after, target = graph, parse("x86-64")
    for step in FRONT:
        after = step(after, target)
    after = replace(after, checks=())  # those of bodies among them, which may well hold
    results = run_graph(after, feeds(graph, dims, seed))
    assert {n: v.dtype for n, v in results.items()} == {
        n: v.type.dtype.numpy for n, v in graph.outputs
    }
