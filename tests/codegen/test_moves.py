"""Bytes that boards move by words, at odd places and of odd lengths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tbc.codegen.machine import Workers
from tbc.driver import assemble, lower
from tbc.emulate import Emulated, can_run
from tbc.reference import run_graph
from tbc.target import parse
from tbc.text import parse_graph

BOARDS = ("cortex-m0plus", "cortex-m4", "cortex-m55", "rv32imc")
TABLE = np.arange(21) * 6
size = st.integers(1, 37)
margin = st.integers(0, 19)


@pytest.mark.parametrize("target", BOARDS)
@settings(max_examples=12, deadline=None)
@given(st.tuples(st.integers(1, 3), st.integers(1, 4), size), st.tuples(*[margin] * 4), st.data())
def test_paddings_and_concatenations(
    target: str, shape: tuple[int, int, int], margins: tuple[int, ...], data: st.DataObject
) -> None:
    """Every byte is where the reference has it, for rows of any length at any address."""
    if missing := can_run(parse(target)):
        pytest.skip(missing)
    c, h, w = shape
    top, left, bottom, right = margins
    dtype, fill = data.draw(st.sampled_from([("u8", 255), ("u8", 0), ("i8", -128), ("i8", 7)]))
    taller, wider = h + top + bottom, w + left + right
    text = f"""
def f(x: {dtype}[{c}, {h}, {w}], z: {dtype}[{c}, {h}, {left + 1}]):
    v: {dtype} = const({fill})
    p: {dtype}[{c}, {taller}, {wider}] = pad(x, v, before=(0, {top}, {left}), shape=({c}, {taller}, {wider}))
    y: {dtype}[{c}, {h}, {w + left + 1}] = concat(z, x, axis=2)
    t: {dtype}[{w}, {c}, {h}] = transpose(x, perm=(2, 0, 1))
    k: {dtype}[{c}, {h}, {len(TABLE)}] = const({np.broadcast_to(TABLE, (c, h, len(TABLE))).tolist()})
    j: {dtype}[{c}, {h}, {w + len(TABLE)}] = concat(x, k, axis=2)
    q: {dtype}[{w + left}, {c}, {h}] = pad(t, v, before=({left}, 0, 0), shape=({w + left}, {c}, {h}))
    return {{"p": p, "y": y, "j": j, "q": q}}
"""  # noqa: E501
    graph = parse_graph(text)
    low, high = (0, 256) if dtype == "u8" else (-128, 128)
    random = np.random.default_rng(c * h * w)
    kind = np.uint8 if dtype == "u8" else np.int8
    feeds = {
        name: random.integers(low, high, (c, h, n)).astype(kind)
        for name, n in (("x", w), ("z", left + 1))
    }
    with Workers(1) as workers:
        compiled = assemble(lower(graph, parse(target)), parse(target), "moves", workers)
    with Emulated(compiled) as emulated:
        outputs = emulated.run(feeds)
    for name, expected in run_graph(graph, feeds).items():
        np.testing.assert_array_equal(outputs[name], expected)
