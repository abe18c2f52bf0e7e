"""Weights as code: exact for any weights, and taken where that is worth its flash."""

from __future__ import annotations

import ctypes
import json
import re
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_by_row import Net, short_of_memory
from toolchain import ROOT
from typer.testing import CliRunner

import tbc
from tbc.cli import app
from tbc.codegen.dots_code import MOST_COLUMNS, emit_code
from tbc.codegen.host import host_target, resolve_target
from tbc.codegen.jit import Loaded, jit_target
from tbc.codegen.llvm_text import Function, Module
from tbc.codegen.machine import Job, Part, Workers
from tbc.emulate import can_run
from tbc.errors import BadTarget
from tbc.kernels import BY_NAME
from tbc.straight import (
    Core,
    Trits,
    core_of,
    instructions,
    is_worth_it,
    pairs,
    text_of,
    weights_of,
)
from tbc.target import Target, parse

DIGITS = ROOT / "examples/digits/digits_cnn.onnx"
HOST = host_target()
CORES = [core_of(parse(name)) for name in ("cortex-m0plus", "cortex-m4", "rv32imc")]


def trits(seed: int, n: int, k: int, zeros: float) -> Trits:
    p = [(1 - zeros) / 2, zeros, (1 - zeros) / 2]
    return np.random.default_rng(seed).choice([-1, 0, 1], (n, k), p=p).astype(np.int8)


WEIGHTS = st.builds(
    trits,
    st.integers(0, 1 << 30),
    st.integers(1, 40),
    st.integers(1, 70),
    st.sampled_from([0.0, 0.3, 0.9, 1.0]),
)


@given(WEIGHTS)
def test_the_text_is_the_weights(w: Trits) -> None:
    np.testing.assert_array_equal(weights_of(text_of(w), len(w)), w)


@given(WEIGHTS, st.integers(0, 1 << 30))
def test_pairs_are_the_product(w: Trits, seed: int) -> None:
    x = np.random.default_rng(seed).integers(-128, 128, w.shape[1] + 1)
    sums = np.zeros(len(w), np.int64)
    for pair in pairs(w):
        a, b = x[pair.column], x[pair.column + 1]
        values = {"a": a, "b": b, "s": a + b, "d": a - b}
        for term in pair.terms:
            sums[term.row] += term.sign * values[term.of]
        assert 1 <= pair.loads <= 2
        assert pair.additions >= len(pair.terms)
    np.testing.assert_array_equal(sums, w @ x[:-1])


def code_of(w: Trits, target: Target, workers: Workers, kind: str, extends: str = "sext") -> bytes:
    """What LLVM makes of `void top(i8 *x, i32 *out)`, or of a u8 *x if that `extends` by zeros."""
    module = Module(target.triple)
    f = Function(module, "top", [("ptr", "x"), ("ptr", "out")], linkage="")
    emit_code(f, w, *f.args, target, extends)
    f.finish()
    parts = (Part(module.text(), passes=False),)
    job = Job(target, parts, frozenset({"top"}), frozenset({kind}))
    return workers.compile(job)[kind]


@settings(max_examples=30, deadline=None)
@given(WEIGHTS, st.sampled_from(CORES), st.sampled_from(["i1", "u1"]), st.integers(0, 1 << 30))
def test_code_is_exact(workers: Workers, w: Trits, core: Core, dtype: str, seed: int) -> None:
    bits = np.random.default_rng(seed).integers(0, 256, w.shape[1], np.uint8)
    check_code(workers, w, core, bits.view(dtype))


@pytest.mark.parametrize("k", [MOST_COLUMNS, MOST_COLUMNS + 1, 2 * MOST_COLUMNS + 3])
def test_long_rows_are_done_in_parts(workers: Workers, k: int) -> None:
    check_code(workers, trits(k, 9, k, 0.3), CORES[1], np.full(k, -128, np.int8))


def check_code(workers: Workers, w: Trits, core: Core, x: Any) -> None:
    target, extends = jit_target(HOST), "zext" if x.dtype == np.uint8 else "sext"
    with mock.patch("tbc.codegen.dots_code.core_of", return_value=core):
        code = Loaded(code_of(w, target, workers, "obj", extends), target, ["top"])
    out = np.full(len(w) + 1, 7, np.int32)
    top = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(code.address("top"))
    top(x.ctypes.data, out.ctypes.data)
    np.testing.assert_array_equal(out[:-1], w.astype(np.int32) @ x.astype(np.int32))
    assert out[-1] == 7


@pytest.mark.parametrize(
    ("target", "most"), [("cortex-m0plus", 1.15), ("cortex-m3", 0.7), ("rv32imc", 0.8)]
)
def test_instructions_a_weight(workers: Workers, target: str, most: float) -> None:
    """An exact count, of code without loops; and what the choice goes by is not far from it."""
    w = trits(0, 64, 64, 1 / 3)
    text = code_of(w, parse(target), workers, "asm").decode()
    count = len(re.findall(r"^\t[a-z]", text, re.M))
    assert count / w.size < most
    assert instructions(w, parse(target)) == pytest.approx(count, rel=0.2)


# -- the choice -----------------------------------------------------------------------------------


def test_what_is_worth_its_flash() -> None:
    kernel = BY_NAME["trit_gemv_1x1c4_smlad"]
    small, large = trits(1, 16, 9, 0.3), trits(1, 64, 64, 0.3)

    def chosen(w: Trits, rows: int, optimize: str) -> bool:
        return is_worth_it(w, rows, kernel, resolve_target("cortex-m4", optimize=optimize))

    assert chosen(large, 1, "speed")
    assert not chosen(large, 1000, "balanced")
    assert not chosen(large, 1000, "size")
    assert chosen(small, 64, "balanced")
    assert not chosen(small, 1, "balanced")
    assert chosen(np.zeros((16, 64), np.int8), 1, "size")


def test_vectors_are_left_to_themselves() -> None:
    for target in ("cortex-m55", "armv8", "x86-64-v3"):
        model = tbc.compile(DIGITS, target=target, optimize="speed")
        program = tbc.driver.lower(tbc.driver.bound_batch(model.graph)[0], model.target)
        names = [type(step.anchor.op).__name__ for step in program.steps]
        assert "CodedDot" not in names


def test_no_such_optimisation() -> None:
    with pytest.raises(BadTarget, match="not optimised for beauty"):
        tbc.compile(DIGITS, optimize="beauty")


def test_the_command_takes_it(tmp_path: Path) -> None:
    sizes = {}
    for optimize in ("size", "balanced", "speed"):
        arguments = ("--target", "cortex-m4", "--optimize", optimize, "--emit", "obj", "--json")
        done = CliRunner().invoke(app, ["compile", str(DIGITS), "-o", str(tmp_path), *arguments])
        assert done.exit_code == 0, done.output
        report = json.loads(done.stdout)
        sizes[optimize] = report["flash"], report["weights"], report["kernels"].get("trit_code", 0)
    assert [count for _, _, count in sizes.values()] == [0, 1, 4]
    assert sizes["size"][0] < sizes["balanced"][0] < sizes["speed"][0]
    assert sizes["speed"][1] < sizes["balanced"][1] < sizes["size"][1]
    done = CliRunner().invoke(
        app, ["inspect", str(DIGITS), "--target", "cortex-m4", "--optimize", "speed"]
    )
    assert done.stdout.count("trit_code") == 4


# -- whole networks -------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(1, 5), st.integers(1, 20), st.booleans())
def test_random_networks(seed: int, channels: int, filters: int, is_pooled: bool) -> None:
    net = Net(seed, 1, channels, (7, 6))
    net.quantised()
    net.convolved(filters, 3, 1, 1)
    if is_pooled:
        net.pooled(2, 2)
    net.quantised()
    net.convolved(5, 2, 1, 0)
    model, x = net.model(), net.rng.standard_normal(net.input).astype(np.float32)
    (expected,) = tbc.compile(model).run({"x": x}).values()
    always = {"may_be": lambda *_: True, "is_worth_it": lambda *_: True}
    with short_of_memory(), mock.patch.multiple("tbc.straight", **always):
        (y,) = tbc.compile(model).run({"x": x}).values()
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize(
    "target",
    ["cortex-m4", *(pytest.param(t, marks=pytest.mark.slow) for t in ("cortex-m0plus", "rv32imc"))],
)
def test_boards_compute_the_same(target: str) -> None:
    if missing := can_run(parse(target)):
        pytest.skip(missing)
    assert tbc.verify(DIGITS, target=target, optimize="speed", samples=1).ok
