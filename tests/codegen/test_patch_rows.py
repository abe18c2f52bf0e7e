"""Sums of rows of activations, at the extremes of their types, and patches copied by words."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from boards import boards, check
from hypothesis import given, settings
from hypothesis import strategies as st

from tbc.codegen.host import host_target
from tbc.codegen.jit import Loaded, jit_target
from tbc.codegen.llvm_text import Function, Module
from tbc.codegen.machine import Job, Part, Workers
from tbc.codegen.patch_rows import HALVES, row_sum
from tbc.target import parse
from tbc.text import parse_graph

WIDTHS = (4, 64, 4 * HALVES, 4 * HALVES + 4, 12 * HALVES)
DTYPES = {"u8": np.uint8, "i8": np.int8}


@pytest.fixture(scope="module")
def sums(workers: Workers) -> Loaded:
    """i32 u8_<width>(ptr) and i8_<width>(ptr), as on a core without vectors."""
    target = jit_target(host_target())
    module = Module(target.triple)
    for dtype in DTYPES:
        for width in WIDTHS:
            f = Function(module, f"{dtype}_{width}", [("ptr", "row")], "i32", linkage="")
            total = row_sum(f, f.args[0], width, dtype == "u8", parse("rv32imc"), "i64")
            f.do(f"ret {total}")
            f.finish()
    names = list(module.functions)
    job = Job(target, (Part(module.text(), passes=False),), frozenset(names))
    return Loaded(workers.compile(job)["obj"], target, names)


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(WIDTHS),
    st.sampled_from(sorted(DTYPES)),
    st.sampled_from([0, 127, 128, 255, -1]),
)
def test_sums_of_halves(sums: Loaded, width: int, dtype: str, byte: int) -> None:
    bits = np.random.default_rng(width).integers(0, 256, width, np.uint8)
    if byte >= 0:
        bits[:] = byte
    row = bits.view(DTYPES[dtype])
    function = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)(sums.address(f"{dtype}_{width}"))
    assert function(row.ctypes.data) == row.sum(dtype=np.int64)


WINDOWS = "kernel=(3, 3), strides=(1, 1), dilations=(1, 1), before=(0, 0), out=(2, 5)"


@boards
def test_boards_sum_rows_and_copy_patches(target: str, workers: Workers) -> None:
    """1100 activations of either type, and patches whose rows lie at odd places."""
    rng = np.random.default_rng(0)
    long, patch = (rng.integers(-1, 2, shape).tolist() for shape in ((3, 1100), (5, 45)))
    graph = parse_graph(f"""
def f(u: u8[2, 1100], i: i8[2, 1100], x: u8[1, 5, 4, 7]):
    long: trit[3, 1100] = const({long})
    patch: trit[5, 45] = const({patch})
    y0: i32[2, 3] = dot(u, long)
    y1: i32[2, 3] = dot(i, long)
    zero: u8 = const(0)
    w: u8[1, 5, 2, 5, 3, 3] = windows(x, zero, {WINDOWS})
    t: u8[1, 2, 5, 5, 3, 3] = transpose(w, perm=(0, 2, 3, 1, 4, 5))
    rows: u8[10, 45] = reshape(t, shape=(10, 45))
    y2: i32[10, 5] = dot(rows, patch)
    return {{"y0": y0, "y1": y1, "y2": y2}}
""")
    feeds = {
        "u": np.stack([np.full(1100, 255), rng.integers(0, 256, 1100)]).astype(np.uint8),
        "i": np.stack([np.full(1100, -128), rng.integers(-128, 128, 1100)]).astype(np.int8),
        "x": rng.integers(0, 256, (1, 5, 4, 7)).astype(np.uint8),
    }
    check(target, graph, feeds, workers)


@boards
def test_rows_and_patches_of_floats(target: str, workers: Workers) -> None:
    rng = np.random.default_rng(0)
    w = rng.integers(-1, 2, (6, 45)).tolist()
    graph = parse_graph(f"""
def f(one: f32[1, 45], three: f32[3, 45], x: f32[1, 5, 4, 7]):
    w: trit[6, 45] = const({w})
    y0: f32[1, 6] = dot(one, w)
    y1: f32[3, 6] = dot(three, w)
    zero: f32 = const(0.0)
    p: f32[1, 5, 2, 5, 3, 3] = windows(x, zero, {WINDOWS})
    t: f32[1, 2, 5, 5, 3, 3] = transpose(p, perm=(0, 2, 3, 1, 4, 5))
    rows: f32[10, 45] = reshape(t, shape=(10, 45))
    y2: f32[10, 6] = dot(rows, w)
    return {{"y0": y0, "y1": y1, "y2": y2}}
""")
    shapes = {"one": (1, 45), "three": (3, 45), "x": (1, 5, 4, 7)}
    feeds = {name: rng.standard_normal(s).astype(np.float32) for name, s in shapes.items()}
    check(target, graph, feeds, workers)
