"""Verification: what it compares, what it accepts as flips, and that it notices what is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, parser

import tbc
from tbc import api, driver, emulate, runtime, verification
from tbc.codegen.machine import Workers
from tbc.constants import constant
from tbc.differences import Difference, difference
from tbc.dims import Expr, Symbol
from tbc.driver import assemble, bound_batch, lower
from tbc.errors import InternalError, Unsupported
from tbc.feeds import random_feeds
from tbc.flips import Flips, find_flips
from tbc.frontend import load
from tbc.ir import Builder, Graph, bind
from tbc.ops import Binary, Dot, GroupedDot, Input, PackedDot, PackedGroupedDot
from tbc.oracle import Formula, Result, oracle_of
from tbc.program import Program
from tbc.reference import run_graph
from tbc.self_test import SelfTest
from tbc.target import parse
from tbc.types import DType, TensorType

Array = npt.NDArray[Any]

DIGITS = Path(__file__).parent.parent / "examples/digits/digits_mlp.onnx"


def model(text: str, domain: str = "") -> onnx.ModelProto:
    """A model from the text of its graph."""
    more = f', "{domain}" : 1' if domain else ""
    return parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21{more}]>\n{text}')


LOOKUP = """
lookup (int64[n, 3] ids, int64[n, total] attention_mask) => (float[n, 3, 2] y)
<float[5, 2] table = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0}>
{
    rows = Gather(table, ids)
    mask = Cast<to = 1>(attention_mask)
    whole = ReduceMean<keepdims = 0>(mask)
    y = Mul(rows, whole)
}
"""
WEIGHTS = ", ".join(str(float(i % 3 - 1)) for i in range(48))
QUANTISED = f"""
quantised (float[4, 16] x) => (float[4, 3] y)
<float scale = {{0.1}}, float[16, 3] w = {{{WEIGHTS}}}>
{{
    scaled = Div(x, scale)
    codes = Round(scaled)
    sums = MatMul(codes, w)
    y = Mul(sums, scale)
}}
"""
QONNX = """
custom (float[2, 4] x) => (float[2, 4] y)
<float scale = {0.25}, float zero = {0.0}, float bits = {8.0}>
{
    q = qonnx.custom_op.general.Quant<signed = 1, narrow = 0, rounding_mode = "ROUND">
        (x, scale, zero, bits)
    y = Relu(q)
}
"""

# -- verify ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("type", ["INT4", "UINT2", "FLOAT8E5M2", "FLOAT4E2M1"])
def test_what_onnxruntime_has_no_arrays_for_is_compared_with_the_formula(type: str) -> None:
    code = TensorProto.DataType.Value(type)
    x, y = (helper.make_tensor_value_info(name, code, [2, 2]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Transpose", ["x"], ["y"])], "g", [x], [y])
    report = tbc.verify(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)]))
    assert report.ok
    assert "onnxruntime" in report.note


def test_the_shipped_network_is_right_here() -> None:
    report = tbc.verify(DIGITS, samples=2)
    (output,) = report.outputs
    assert report.ok
    assert (report.model, report.target, report.batch) == ("digits_mlp", "native", "batch")
    assert report.runner == "this machine"
    assert report.oracle.startswith("onnxruntime")
    assert output.code == Difference(elements=20)
    assert output.model.beyond == 0
    assert [s["x"] for s in report.samples] == [(1, 64), (1, 64)]


@pytest.mark.parametrize(
    "target",
    ["armv8", "cortex-m0", "cortex-m55", "rv32ic", "rv64ic", "s390x", "wasm32", "wasm32+simd128"],
)
def test_the_shipped_network_is_right_elsewhere(target: str) -> None:
    if missing := emulate.can_run(parse(target)):
        pytest.skip(missing)
    x = np.random.default_rng(1).standard_normal((3, 64)).astype(np.float32)
    report = tbc.verify(DIGITS, target=target, feeds={"x": x})
    assert report.ok
    assert report.runner.startswith("wasmtime" if target.startswith("wasm") else "qemu-")
    assert report.outputs[0].code.is_exact


def test_layers_are_the_nodes() -> None:
    report = tbc.verify(model(QUANTISED), layers=True, samples=1)
    assert [(layer.node, layer.op) for layer in report.layers] == [
        ("scaled", "Div"),
        ("codes", "Round"),
        ("sums", "MatMul"),
        ("y", "Mul"),
    ]
    assert all(layer.code.is_exact and not layer.model.beyond for layer in report.layers)


def test_what_onnxruntime_does_not_take_is_compared_with_the_formula() -> None:
    report = tbc.verify(model(QONNX, "qonnx.custom_op.general"), layers=True)
    assert report.ok
    assert report.oracle == "the model's formula"
    assert "onnxruntime does not take the model" in report.note
    assert [layer.op for layer in report.layers] == ["qonnx.custom_op.general::Quant", "Relu"]


def test_sizes_without_a_bound_are_asked_for() -> None:
    with pytest.raises(Unsupported, match=r"sizes n, total") as error:
        tbc.verify(model(LOOKUP))
    assert error.value.hint == "--dim n=1..512 --dim total=1..512"


def test_a_foreign_target_without_emulator_is_refused() -> None:
    with pytest.raises(Unsupported, match="no emulator"):
        tbc.verify(DIGITS, target="windows-arm64")


@pytest.mark.parametrize("wrong", ["a bit", "everything"])
def test_wrong_code_is_noticed(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = runtime.Model.run

    def broken(self: runtime.Model, *given: Any) -> dict[str, Array]:
        outputs = run(self, *given)
        y = outputs["y"]
        if wrong == "a bit":
            y.view(np.uint32)[0, 0] ^= 1
        else:
            y += 1
        return outputs

    monkeypatch.setattr(runtime.Model, "run", broken)
    report = tbc.verify(model(QUANTISED), samples=1)
    (output,) = report.outputs
    assert not report.ok
    assert output.code.max_ulp >= 1
    assert output.model.beyond == (0 if wrong == "a bit" else 12)


# -- emulation ------------------------------------------------------------------------------------


@contextmanager
def emulated(graph: Graph, target: str, embed: bool) -> Iterator[emulate.Emulated]:
    chosen = parse(target)
    if missing := emulate.can_run(chosen):
        pytest.skip(missing)
    with Workers(1) as workers:
        compiled = assemble(lower(graph, chosen), chosen, "net", workers, embed=embed)
    with emulate.Emulated(compiled) as machine:
        yield machine


def test_a_program_that_does_not_link_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    graph, _ = bound_batch(load(DIGITS).graph)
    with Workers(1) as workers:
        chosen = parse("c")
        compiled = assemble(lower(graph, chosen), chosen, "net", workers)
    broken = replace(compiled, files={**compiled.files, "c": b"no C"})
    with pytest.raises(InternalError):
        emulate.Emulated(broken)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("target", "embed"), [("armv7", True), ("s390x", False)])
def test_emulated_runs_with_sizes_and_checks(target: str, embed: bool) -> None:
    symbols = {name: Expr.of(Symbol(name, 0, 4)) for name in ("n", "total")}
    graph = bind(load(model(LOOKUP)).graph, symbols)
    with emulated(graph, target, embed) as machine:
        for n, total in ((1, 1), (3, 2), (0, 4)):
            ids = np.arange(3 * n).reshape(n, 3) % 5
            feeds = {"ids": ids, "attention_mask": np.ones((n, total), np.int64)}
            (y,) = machine.run(feeds).values()
            np.testing.assert_array_equal(y, run_graph(graph, feeds)["y"])
        with pytest.raises(ValueError, match="cannot accept"):
            machine.run({"ids": np.full((1, 3), 5), "attention_mask": np.ones((1, 1), np.int64)})
        with pytest.raises(ValueError, match="outside n"):
            machine.run({"ids": np.zeros((5, 3), np.int64), "attention_mask": np.ones((5, 1), int)})


@pytest.mark.parametrize("target", ["cortex-m55", "cortex-m4f"])
def test_powers_of_halves(target: str) -> None:
    """LLVM cannot select copysign of a widened half for Arm with half registers."""
    some = [0.0, -0.0, 1, -1, 0.5, -2.5, 3, -3, 6e4, 6e-8, -6e-8, np.inf, -np.inf, np.nan]
    a, b = (x.ravel().astype(np.float16) for x in np.meshgrid(some, some))
    shape = TensorType(DType.f16, a.shape)
    build = Builder()
    base, exponent = (build(Input(name, shape)) for name in ("a", "b"))
    graph = Graph("powers", (base, exponent), (("y", build(Binary("pow"), base, exponent)),))
    feeds = {"a": a, "b": b}
    with emulated(graph, target, True) as machine:
        (y,) = machine.run(feeds).values()
    expected = run_graph(graph, feeds)["y"]
    same = (y.view(np.uint16) == expected.view(np.uint16)) | (np.isnan(y) & np.isnan(expected))
    assert same.all()


@pytest.mark.parametrize("n", [112, 150])
def test_blocks_of_64_rows_end_where_the_weight_does(n: int) -> None:
    rng = np.random.default_rng(n)
    build = Builder()
    x = build(Input("x", TensorType(DType.i8, (3, 40))))
    w = constant(build, rng.integers(-1, 2, (n, 40)), DType.trit)
    s = constant(build, rng.standard_normal((n, 2)), DType.f32)
    outputs = (("sums", build(Dot(), x, w)), ("scaled", build(GroupedDot(), x, w, s)))
    graph = Graph("g", (x,), outputs)
    feeds = {"x": rng.integers(-128, 128, (3, 40)).astype(np.int8)}
    target = parse("rv64gc_zve32x_zvl128b")
    dots = [step.anchor.op for step in lower(graph, target).all_steps]
    rows = [op.layout.rows for op in dots if isinstance(op, PackedDot | PackedGroupedDot)]
    assert rows == [64, 64]
    with emulated(graph, target.name, embed=True) as machine:
        found = machine.run(feeds)
    for name, array in run_graph(graph, feeds).items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("apple-m1", "no emulator"),
        ("wasm32-wasi", "no emulator"),
    ],
)
def test_what_cannot_be_run(target: str, reason: str) -> None:
    assert reason in (emulate.can_run(parse(target)) or "")
    assert emulate.method(parse(target)) == "compiled only"


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    target = parse("armv8")
    if emulate.is_native(target):
        pytest.skip("this machine is an armv8")
    monkeypatch.setenv("PATH", "")
    assert "qemu-aarch64" in (emulate.can_run(target) or "")
    monkeypatch.setattr(emulate.shutil, "which", lambda name: name if "qemu" in name else None)
    monkeypatch.setattr(emulate.importlib.util, "find_spec", lambda name: None)
    assert "tbc[cross]" in (emulate.can_run(target) or "")


# -- flips ----------------------------------------------------------------------------------------


@dataclass
class Elsewhere:
    """An oracle that rounds some codes to another side."""

    formula: Formula
    changes: Array
    error: float = 0.0
    name: str = "elsewhere"
    note: str = ""

    def results(self) -> tuple[Graph, tuple[Result, ...]]:
        return self.formula.results()

    def run(self, feeds: Mapping[str, Array], names: Sequence[str] = ()) -> dict[str, Array]:
        graph, results = self.results()
        (rounded,) = (r for r in results if r.is_discrete)
        codes = self.formula.run(feeds, [rounded.name])[rounded.name] + self.changes
        known = {rounded.value: codes.astype(np.float32)}
        (y,) = verification_run(graph, feeds, known)
        return {"y": y + np.float32(self.error), rounded.name: known[rounded.value]}


def verification_run(graph: Graph, feeds: Mapping[str, Array], known: Any) -> list[Array]:
    from tbc.reference import run

    return run([v for _, v in graph.outputs], feeds, known)


def flips_of(changes: Array, error: float = 0.0) -> tuple[Flips, ...] | None:
    def importer(each: Any) -> Graph:
        return bound_batch(load(each).graph)[0]

    proto = model(QUANTISED)
    oracle = Elsewhere(Formula(proto, importer, ""), changes, error)
    feeds = {"x": np.random.default_rng(0).standard_normal((4, 16)).astype(np.float32)}
    front = lambda g: verification._front(g, parse("x86-64"))  # noqa: E731
    return find_flips(oracle, front, feeds, oracle.run(feeds), 1e-4)


def changed(*codes: tuple[int, int, int]) -> Array:
    changes = np.zeros((4, 16))
    for row, column, by in codes:
        changes[row, column] = by
    return changes


def test_a_few_codes_a_step_off_explain_outputs() -> None:
    found = flips_of(changed((0, 3, 1), (2, 7, -1)))
    assert found == (Flips("codes", "Round", 2, 64),)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        (changed((0, 3, 2)), 0.0),
        (np.ones((4, 16)), 0.0),
        (changed((0, 3, 1)), 0.5),
    ],
    ids=["two steps", "all codes", "outputs off"],
)
def test_other_differences_are_no_flips(changes: Array, error: float) -> None:
    assert flips_of(changes, error) is None


def test_results_name_what_rounds() -> None:
    def importer(each: Any) -> Graph:
        return load(each).graph

    oracle = oracle_of(model(QUANTISED), importer)
    _, results = oracle.results()
    assert [r.name for r in results if r.is_discrete] == ["codes"]
    x = np.full((4, 16), 0.26, np.float32)
    codes = oracle.run({"x": x}, ["codes"])["codes"]
    np.testing.assert_array_equal(codes, np.full((4, 16), 3))


# -- random inputs --------------------------------------------------------------------------------


def test_random_indices_fit_their_tables_and_masks_are_ones() -> None:
    bounds = {"n": Expr.of(Symbol("n", 0, 9)), "total": 4}
    graph = bind(load(model(LOOKUP)).graph, bounds)
    drawn = [random_feeds(graph, 0, i, lambda f: run_graph(graph, f)) for i in range(3)]
    assert drawn[0]["ids"].shape == (1, 3)
    assert all(feeds["ids"].max() < 5 for feeds in drawn)
    assert any(feeds["ids"].max() > 1 for feeds in drawn)
    assert all((feeds["attention_mask"] == 1).all() for feeds in drawn)
    again = random_feeds(graph, 0, 2, lambda f: run_graph(graph, f))
    np.testing.assert_array_equal(again["ids"], drawn[2]["ids"])


def test_sizes_are_drawn_until_the_model_accepts_them() -> None:
    bounds = {name: Expr.of(Symbol(name, 0, 8)) for name in ("n", "total")}
    graph = bind(load(model(LOOKUP)).graph, bounds)

    def accept(feeds: Mapping[str, Array]) -> None:
        rows, total = feeds["attention_mask"].shape
        if total < rows + 3:
            raise ValueError("the mask is too short")

    rows, total = random_feeds(graph, 0, 0, accept)["attention_mask"].shape
    assert total >= rows + 3
    with pytest.raises(ValueError, match="never"):
        random_feeds(graph, 0, 0, lambda _: (_ for _ in ()).throw(ValueError("never")))


# -- differences ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [DType.f16, DType.bf16, DType.f32, DType.f64])
def test_ulps_count_representable_numbers(dtype: DType) -> None:
    a = np.array([1, -1, 0, 2], dtype.numpy)
    b = np.array([1, -1, 0, 2], dtype.numpy)
    steps = b.view(f"i{b.itemsize}")
    steps += np.array([3, 1, 1, -1], steps.dtype)
    found = difference(b, a, dtype, 1.0)
    assert found.max_ulp == 3
    assert found.beyond == 0
    tiny = np.array([-1], steps.dtype) & steps[2:3]
    below_zero = -tiny.view(b.dtype)
    assert difference(below_zero, tiny.view(b.dtype), dtype, 1.0).max_ulp == 2


@given(st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True), min_size=1))
def test_equal_arrays_have_no_difference(numbers: list[float]) -> None:
    a = np.array(numbers, np.float32)
    assert difference(a, a.copy(), DType.f32, 0.0) == Difference(a.size)


@given(st.floats(0, 1e-3), st.floats(-1e3, 1e3).filter(lambda x: abs(x) > 1e-3))
def test_tolerance_of_one_number(error: float, number: float) -> None:
    """Alone, a number is its own root mean square: the tolerance is 2 rtol |number|."""
    got = np.array([number * (1 + error)])
    off = abs(got[0] - number)
    found = difference(got, np.array([number]), DType.f64, 1e-4)
    assert found.beyond == (off > 2e-4 * abs(number))
    assert found.max_abs == off


@pytest.mark.parametrize(
    ("got", "expected", "beyond"),
    [
        ([np.nan, 1], [np.nan, 1], 0),
        ([np.nan, 1], [1, 1], 1),
        ([np.inf, 1], [np.inf, 1], 0),
        ([np.inf, 1], [-np.inf, 1], 1),
        ([1e30, 1], [np.inf, 1], 1),
    ],
)
def test_numbers_that_are_not_finite(got: list[float], expected: list[float], beyond: int) -> None:
    found = difference(np.array(got), np.array(expected), DType.f64, 1e-3)
    assert found.beyond == beyond
    assert found.is_exact == (beyond == 0)


def test_numbers_whose_squares_are_not_finite() -> None:
    expected = np.array([1e200, -2e200, 0.0])
    assert difference(expected * (1 + 1e-9), expected, DType.f64, 1e-4).beyond == 0
    assert difference(expected * (1 + 1e-2), expected, DType.f64, 1e-4).beyond == 2


def test_integers_are_compared_exactly_and_shapes_too() -> None:
    big = np.array([2**62], np.int64)
    assert difference(big + 1, big, DType.i64, 1.0).beyond == 1
    assert difference(np.zeros(3), np.zeros(4), DType.f64, 1.0).beyond == 1
    both = Difference(2, 0.5, 0.1, 3, 1) | Difference(1, 0.1, 0.2, 5, 0)
    assert both == Difference(3, 0.5, 0.2, 5, 1)


# -- the self-test --------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["native", "c", "cortex-m4", "wasm32", "s390x"])
def test_the_self_test_counts(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing := target != "native" and emulate.can_run(parse(target)):
        pytest.skip(str(missing))
    report = verification.verify(DIGITS, target, samples=1)
    assert (report.self_test, report.ok) == (True, True)
    original = driver.self_test_of_program

    def wrong(program: Program) -> SelfTest:
        test = original(program)
        assert test is not None
        return replace(test, sum=test.sum ^ 1)

    for module in (verification, api):
        monkeypatch.setattr(module, "self_test_of_program", wrong)
    report = verification.verify(DIGITS, target, samples=1)
    assert (report.self_test, report.ok) == (False, False)
    assert all(output.ok for output in report.outputs)


def test_a_model_without_a_self_test() -> None:
    report = verification.verify(
        model("random (float[4] x) => (float[4] y) { y = Log(x) }"), samples=1
    )
    assert report.ok
