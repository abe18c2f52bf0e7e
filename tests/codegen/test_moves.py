"""Bytes that boards move by words, at odd places and of odd lengths."""

from __future__ import annotations

import numpy as np
from boards import boards, check
from hypothesis import given, settings
from hypothesis import strategies as st

from tbc.codegen.machine import Workers
from tbc.text import parse_graph

TABLE = np.arange(21) * 6
size = st.integers(1, 37)
margin = st.integers(0, 19)


@boards
@settings(max_examples=12, deadline=None)
@given(st.tuples(st.integers(1, 3), st.integers(1, 4), size), st.tuples(*[margin] * 4), st.data())
def test_paddings_and_concatenations(
    target: str,
    workers: Workers,
    shape: tuple[int, int, int],
    margins: tuple[int, ...],
    data: st.DataObject,
) -> None:
    """Every byte is where the reference has it, for rows of any length at any address."""
    c, h, w = shape
    top, left, bottom, right = margins
    dtype, fill = data.draw(st.sampled_from([("u8", 255), ("u8", 0), ("i8", -128), ("i8", 7)]))
    padded, turned = (c, h + top + bottom, w + left + right), (w + left, c, h)
    table = np.broadcast_to(TABLE, (c, h, len(TABLE))).tolist()
    graph = parse_graph(f"""
def f(x: {dtype}[{c}, {h}, {w}], z: {dtype}[{c}, {h}, {left + 1}]):
    v: {dtype} = const({fill})
    p: {dtype}{[*padded]} = pad(x, v, before=(0, {top}, {left}), shape={padded})
    y: {dtype}[{c}, {h}, {w + left + 1}] = concat(z, x, axis=2)
    t: {dtype}[{w}, {c}, {h}] = transpose(x, perm=(2, 0, 1))
    k: {dtype}[{c}, {h}, {len(TABLE)}] = const({table})
    j: {dtype}[{c}, {h}, {w + len(TABLE)}] = concat(x, k, axis=2)
    q: {dtype}{[*turned]} = pad(t, v, before=({left}, 0, 0), shape={turned})
    return {{"p": p, "y": y, "j": j, "q": q}}
""")
    low, high = (0, 256) if dtype == "u8" else (-128, 128)
    random = np.random.default_rng(c * h * w)
    kind = np.uint8 if dtype == "u8" else np.int8
    feeds = {
        name: random.integers(low, high, (c, h, n)).astype(kind)
        for name, n in (("x", w), ("z", left + 1))
    }
    check(target, graph, feeds, workers)
