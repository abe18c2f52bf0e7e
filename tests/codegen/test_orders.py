"""Scatters, sorts and scans of many elements: exact here, and code for every target."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import Native
from strategies import Array, assert_same

from tbc.codegen.machine import Workers
from tbc.codegen.objfile import undefined_symbols
from tbc.driver import assemble, lower
from tbc.emulate import Emulated, can_run
from tbc.reference import run_graph
from tbc.target import TARGETS, parse
from tbc.text import parse_graph

TEXT = """
n = dim(40, 700)
def g(x: f32[n, 33], z: i8[5, n], at: i64[9, 33], row: i32[n, 2], points: i64[7, 1],
      h: f16[3, 700]):
    order: i64[40, 33] = arg_sort(x, axis=0, count=40, descending=True)
    best: f32[40, 33] = gather_elements(x, order, axis=0)
    whole: i64[5, n] = arg_sort(z, axis=1, count=n)
    first: i64[3, 1] = arg_sort(h, axis=1, count=1)
    some: f32[9, 33] = gather_elements(x, at, axis=0)
    twice: f32[9, 33] = add(some, some)
    placed: f32[n, 33] = scatter_elements(x, at, twice, axis=0, reduction="add")
    narrow: f32[n, 2] = gather_elements(x, row, axis=1)
    least: f32[n, 33] = scatter_elements(placed, row, narrow, axis=1, reduction="min")
    rows: f32[7, 33] = slice(least, starts=(3, 0), steps=(2, 1), shape=(7, 33))
    last: f32[n, 33] = scatter_nd(least, points, rows)
    sums: f32[n, 33] = cumulate(last, kind="sum", axis=0)
    along: f32[n, 33] = cumulate(x, kind="prod", axis=1, exclusive=True, reverse=True)
    both: f32[n, 33] = mul(sums, along)
    halves: f16[3, 700] = cumulate(h, kind="sum", axis=1, reverse=True)
    return {"best": best, "order": order, "whole": whole, "first": first, "both": both,
            "halves": halves}
"""


def arrays(n: int) -> dict[str, Array]:
    rng = np.random.default_rng(n)
    x = np.round(rng.standard_normal((n, 33)) * 4) / 4
    x[rng.random((n, 33)) < 0.02] = np.nan
    return {
        "x": x.astype(np.float32),
        "z": rng.integers(-9, 9, (5, n), np.int8),
        "at": rng.integers(-20, 20, (9, 33)),
        "row": rng.integers(-33, 33, (n, 2), np.int32),
        "points": rng.integers(-n, n, (7, 1)),
        "h": np.round(rng.standard_normal((3, 700)) * 50).astype(np.float16),
    }


@pytest.fixture(scope="module")
def native(workers: Workers) -> Native:
    return Native(parse_graph(TEXT), workers)


@pytest.mark.parametrize("n", [40, 41, 97, 700])
def test_results(native: Native, n: int) -> None:
    feeds = arrays(n)
    expected = run_graph(native.lowered, feeds)
    for parts in (1, 3):
        run = native.run(feeds, parts)
        assert run.status == 0
        for name, array in expected.items():
            assert_same(run.outputs[name], array)


@pytest.mark.parametrize("name", ["at", "row", "points"])
def test_a_place_outside_is_reported(native: Native, name: str) -> None:
    for wrong in (-701, 700, 1 << 31 if name != "row" else 1 << 30):
        feeds = arrays(97)
        feeds[name].flat[-1] = wrong
        assert native.run(feeds, 3).status == 7


def test_sorting_needs_no_check(native: Native) -> None:
    """Of the gathers and scatters only those by an input are checked."""
    assert len(native.program.checks) == 3


@pytest.mark.parametrize("name", [target.name for target in TARGETS])
def test_every_target(workers: Workers, name: str) -> None:
    target = parse(name)
    compiled = assemble(lower(parse_graph(TEXT), target), target, "m", workers)
    assert not undefined_symbols(compiled.files["obj"])


@pytest.mark.parametrize("name", ["armv7", "rv64gc", "s390x"])
def test_emulated(workers: Workers, name: str) -> None:
    target = parse(name)
    if missing := can_run(target):
        pytest.skip(missing)
    program = lower(parse_graph(TEXT), target)
    feeds = arrays(61)
    with Emulated(assemble(program, target, "m", workers)) as model:
        results = model.run(feeds)
    for output, array in run_graph(parse_graph(TEXT), feeds).items():
        assert_same(results[output], array)
