"""`activations="int8"`: float activations of low-bit layers are rounded, and only those."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from digits import images
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from toolchain import ROOT
from typer.testing import CliRunner

import tbc
from tbc import verification
from tbc.cli import app
from tbc.codegen.host import resolve_target
from tbc.codegen.machine import Workers
from tbc.driver import assemble, lower
from tbc.emulate import Emulated, can_run
from tbc.errors import BadTarget
from tbc.frontend import load
from tbc.inspection import inspect
from tbc.target import parse

Array = npt.NDArray[Any]
F32 = np.float32
SCALE = F32(0.05)


def model_of(op: str, w: Array, x: list[Any], **attributes: Any) -> onnx.ModelProto:
    """x -> y by scaled trits w."""
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "w"], ["y"], **attributes)],
        "rounded",
        [helper.make_tensor_value_info("x", 1, x)],
        [helper.make_tensor_value_info("y", 1, [None] * len(x))],
        [numpy_helper.from_array(w * SCALE, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def trits(rng: np.random.Generator, *shape: int) -> Array:
    return rng.integers(-1, 2, shape).astype(F32)


def codes(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    scale = F32(127) / np.maximum(np.abs(x).max(axes, keepdims=True), F32(1e-5))
    return np.clip(np.rint(x * scale), -127, 127), scale


@settings(max_examples=20, deadline=None)
@given(*(st.integers(1, top) for top in (6, 200, 40)), st.integers(-6, 6), st.integers(0, 99))
def test_rows(m: int, k: int, n: int, power: int, seed: int) -> None:
    """The sums are exact; a row of zeros stays one."""
    rng = np.random.default_rng(seed)
    w, x = trits(rng, k, n), rng.standard_normal((m, k)).astype(F32) * F32(10.0**power)
    x[rng.integers(m)] *= rng.integers(2)
    (y,) = tbc.compile(model_of("MatMul", w, [m, k]), activations="int8").run({"x": x}).values()
    q, scale = codes(x, (1,))
    np.testing.assert_array_equal(y, (q @ w).astype(F32) / scale * SCALE)


def test_patches_have_a_scale_a_sample() -> None:
    rng = np.random.default_rng(0)
    w, x = trits(rng, 8, 3, 3, 3), rng.standard_normal((2, 3, 9, 7)).astype(F32)
    model = tbc.compile(model_of("Conv", w, ["n", 3, 9, 7], pads=[1] * 4), activations="int8")
    (y,) = model.run({"x": x}).values()
    q, scale = codes(x, (1, 2, 3))
    wide = np.pad(q, ((0, 0), (0, 0), (1, 1), (1, 1)))
    patches = np.lib.stride_tricks.sliding_window_view(wide, (3, 3), (2, 3))
    sums = np.einsum("ncyxij,ocij->noyx", patches, w).astype(F32)
    np.testing.assert_array_equal(y, sums / scale * SCALE)
    (alone,) = model.run({"x": x[1:]}).values()
    np.testing.assert_array_equal(alone, y[1:])


def test_what_the_model_rounds_stays_as_it_is() -> None:
    x = images("digits_cnn")[:4]
    path = ROOT / "examples/digits/digits_cnn.onnx"
    as_it_is, asked = (tbc.compile(path, activations=a).run({"x": x}) for a in ("float", "int8"))
    np.testing.assert_array_equal(asked["logits"], as_it_is["logits"])


@pytest.mark.parametrize("target", ["x86-64-v3", "cortex-m4", "c"])
def test_layers_take_integers(target: str) -> None:
    graph = load(model_of("MatMul", trits(np.random.default_rng(0), 64, 32), [1, 64])).graph
    for asked, expected in (("float", "f32"), ("int8", "i8 codes")):
        (layer,) = inspect(graph, resolve_target(target, activations=asked)).layers
        assert layer.activations == expected


@pytest.mark.parametrize("name", ["cortex-m4", "s390x"])
def test_elsewhere_the_bits_are_the_same(name: str) -> None:
    if missing := can_run(parse(name)):
        pytest.skip(missing)
    rng = np.random.default_rng(0)
    model, x = model_of("MatMul", trits(rng, 70, 20), [2, 70]), rng.standard_normal((2, 70))
    feeds = {"x": x.astype(F32)}
    target = resolve_target(name, activations="int8")
    with Workers(1) as workers:
        compiled = assemble(lower(load(model).graph, target), target, "rounded", workers)
    with Emulated(compiled) as emulated:
        found = emulated.run(feeds)
    np.testing.assert_array_equal(
        found["y"], tbc.compile(model, activations="int8").run(feeds)["y"]
    )


def test_the_report_says_so(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(
        model_of("MatMul", trits(np.random.default_rng(0), 64, 32), [1, 64]).SerializeToString()
    )
    arguments = ["compile", str(path), "-o", str(tmp_path), "--emit=obj", "--json"]
    for asked in ("float", "int8"):
        done = CliRunner().invoke(app, [*arguments, "--activations", asked])
        assert done.exit_code == 0, done.output
        report = json.loads(done.stdout)
        assert any("rounded to 8 bits" in text for text in report["warnings"]) == (asked == "int8")


@pytest.mark.parametrize("target", ["native", "cortex-m4,c"])
def test_verify_judges_the_code_and_shows_what_rounding_costs(tmp_path: Path, target: str) -> None:
    """The same model without the option agrees with onnxruntime; both are exact."""
    path = tmp_path / "net.onnx"
    made = model_of("MatMul", trits(np.random.default_rng(0), 64, 32), [1, 64])
    path.write_bytes(made.SerializeToString())
    if missing := next(filter(None, (can_run(resolve_target(t)) for t in target.split(","))), ""):
        pytest.skip(missing)
    for asked in ("float", "int8"):
        command = ["verify", str(path), "--target", target, "--activations", asked]
        done = CliRunner().invoke(app, [*command, "--json"])
        assert done.exit_code == 0, done.output
        reports = json.loads(done.stdout)
        for report in reports if isinstance(reports, list) else [reports]:
            (output,) = report["outputs"]
            assert (report["activations"], report["flips"]) == (asked, [])
            assert output["code"]["max_ulp"] == 0
            assert (output["model"]["beyond"] > 0) == (asked == "int8")
            assert output["model"]["max_abs"] < 0.05 * 64 * 4 / 127
        told = CliRunner().invoke(app, command)
        assert ("what that costs is no failure" in told.stdout) == (asked == "int8")


def test_verify_notices_code_that_is_not_the_rounded_graphs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = model_of("MatMul", trits(np.random.default_rng(0), 64, 32), [1, 64])
    run = verification.run_graph
    monkeypatch.setattr(
        verification, "run_graph", lambda *a: {n: y + F32(1) for n, y in run(*a).items()}
    )
    assert not tbc.verify(made, activations="int8").ok


def test_what_activations_cannot_be() -> None:
    with pytest.raises(BadTarget, match="activations cannot be int4"):
        tbc.compile(model_of("MatMul", np.ones((4, 4), F32), [1, 4]), activations="int4")
