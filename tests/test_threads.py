"""Runs shared by several threads: the same bits at any number of them, from any callers."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from compiled import Native, native_target
from corpus import CORPUS, io_sets
from digits import DIGITS, images
from phase_check import check_phases, divided_finely
from strategies import Array, assert_same

import tbc
from tbc.api import InProcess, _pool
from tbc.codegen.llvm_text import const
from tbc.codegen.machine import Workers
from tbc.constants import constant
from tbc.dims import Expr, Symbol
from tbc.errors import TbcError
from tbc.frontend import load
from tbc.ir import Builder, Graph
from tbc.ops import Gather, Input, Unary
from tbc.program import ByRows
from tbc.runtime import Pool, physical_cores
from tbc.runtime.loader import TRIALS
from tbc.target import parse
from tbc.text import parse_graph
from tbc.tiles import most_rows
from tbc.types import DType, TensorType

PARTS = (1, 2, 3, 7)
BITNET = CORPUS / "a01_hf_bitnet_autobit_online_dynamo/model.onnx"


# Of up to 100 rows, 67 are divided among parts, and of 3 the weights.
@pytest.fixture(scope="module", params=["digits_mlp 67", "digits_mlp 3", "digits_cnn 9", "bitnet"])
def model(request: pytest.FixtureRequest, workers: Workers) -> tuple[Native, dict[str, Array]]:
    """A model in this process, and what to feed it."""
    name, _, rows = request.param.partition(" ")
    if rows:
        graph = load(DIGITS / f"{name}.onnx", dims={"batch": (1, 100)}).graph
        return Native(graph, workers), {"x": images(name)[: int(rows)]}
    if not BITNET.exists():
        pytest.skip(f"the corpus is not at {CORPUS}")
    feeds, _ = max(
        io_sets(BITNET.parent.name), key=lambda pair: sum(map(np.size, pair[0].values()))
    )
    dims = {
        str(dim): (1, size)
        for v in load(BITNET).graph.inputs
        for dim, size in zip(v.type.shape, feeds[v.op.name].shape, strict=True)  # type: ignore[attr-defined]
        if not isinstance(dim, int)
    }
    return Native(load(BITNET, dims=dims).graph, workers), feeds


def test_the_number_of_threads_changes_no_bit(model: tuple[Native, dict[str, Array]]) -> None:
    native, feeds = model
    expected = native.run(feeds)
    assert expected.status == 0
    for parts in PARTS:
        for at_once in (False, True):
            run = native.run(feeds, parts, at_once)
            assert run.status == 0
            for name, array in expected.outputs.items():
                assert_same(run.outputs[name], array)


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_parts_have_nothing_to_do_with_each_other(
    model: tuple[Native, dict[str, Array]], parts: int
) -> None:
    assert check_phases(*model, parts) >= 2


CHAIN = """
def g(x: f32[96, 40], w: f32[40, 48], u: f32[48, 96]):
    biased: f32[96, 40] = exp(x)
    most: f32[96, 1] = reduce(biased, kind="max", axes=(1,), keepdims=True)
    most40: f32[96, 40] = broadcast(most, shape=(96, 40))
    scaled: f32[96, 40] = div(biased, most40)
    y: f32[96, 48] = matmul(scaled, w)
    z: f32[48, 48] = matmul(u, y)
    return {"z": z}
"""
"""A chain of rows up to y; z needs all of its rows."""


def test_a_chain_of_rows_is_one_phase(workers: Workers) -> None:
    with divided_finely():
        native = Native(parse_graph(CHAIN), workers)
    first, second = native.program.phases
    assert [type(s.anchor.op).__name__ for s in second] == ["MatMul"]
    assert len(first) >= 3
    assert {s.division for s in first} == {ByRows(0, most_rows(native.target))}
    x, w, u = (
        np.random.default_rng(n).standard_normal(shape, np.float32)
        for n, shape in enumerate([(96, 40), (40, 48), (48, 96)])
    )
    feeds = {"x": x, "w": w, "u": u}
    for parts in (2, 3, 7):
        assert check_phases(native, feeds, parts) == parts
        assert_same(native.run(feeds, parts).outputs["z"], native.run(feeds).outputs["z"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"_Shape.keeps_rows": lambda *_: True},
        {"_Shape.keeps_places": lambda *_: True, "_Shape.rows": lambda *_: ()},
    ],
    ids=["other rows", "other places"],
)
def test_parts_that_read_each_others_results_are_found(
    workers: Workers, wrong: dict[str, Any]
) -> None:
    with divided_finely(), ExitStack() as stack:
        for name, value in wrong.items():
            stack.enter_context(patch(f"tbc.passes.phases.{name}", value))
        native = Native(parse_graph(CHAIN), workers)
    assert len(native.program.phases) == 1
    feeds = {
        n: np.ones(s, np.float32) for n, s in (("x", (96, 40)), ("w", (40, 48)), ("u", (48, 96)))
    }
    with pytest.raises(AssertionError, match="reads what it may not"):
        check_phases(native, feeds, 2)


def test_parts_that_write_the_same_byte_are_found(workers: Workers) -> None:
    with patch(
        "tbc.codegen.loops.Share.of",
        lambda self, e, count, _=1: (const(e.index_type, 0), e.index(count)),
    ):
        native = Native(rows_of_a_table(), workers)
    with pytest.raises(AssertionError, match="two parts write the same byte"):
        check_phases(native, {"at": np.zeros(1000, np.int32)}, 2)


def rows_of_a_table() -> Graph:
    """Exponentials of rows of a table, by indices that are data."""
    build = Builder()
    n = Expr.of(Symbol("n", 1, 4000))
    at = build(Input("at", TensorType(DType.i32, (n,))))
    table = constant(build, np.arange(500, dtype=np.float32).reshape(5, 100) / 500, DType.f32)
    y = build(Unary("exp"), build(Gather(0), table, at))
    return Graph("rows", (at,), (("y", y),))


def test_a_wrong_value_is_an_error_in_all_parts_and_nothing_is_left_behind() -> None:
    pool = Pool(3, 0)
    model = InProcess(rows_of_a_table(), native_target(), "rows", pool).model
    right = np.arange(3000, dtype=np.int32) % 5
    wrong = right.copy()
    wrong[1234] = 5
    expected = model.run({"at": right})["y"]
    for _ in range(20):
        with pytest.raises(ValueError, match="holds a value it cannot accept"):
            model.run({"at": wrong})
        assert pool.sync.arrived == 0
        assert_same(model.run({"at": right})["y"], expected)


def test_calls_from_many_threads() -> None:
    pool = Pool(2, 0)
    model = InProcess(rows_of_a_table(), native_target(), "rows", pool).model
    alone = InProcess(rows_of_a_table(), native_target(), "rows").model

    def feeds(number: int) -> dict[str, Array]:
        return {"at": np.full(10 * number + 1, number % 5, np.int32)}

    with ThreadPoolExecutor(6) as threads:
        results = list(threads.map(lambda number: model.run(feeds(number)), range(200)))
    for number, result in enumerate(results):
        assert_same(result["y"], alone.run(feeds(number))["y"])


def test_a_system_that_starts_no_more_threads() -> None:
    pool = Pool(4, 0)
    model = InProcess(rows_of_a_table(), native_target(), "rows", pool).model
    feeds = {"at": np.arange(4000, dtype=np.int32) % 5}
    before, start = threading.active_count(), threading.Thread.start
    refused = [start, start, RuntimeError("can't start new thread")]

    def limited(thread: threading.Thread) -> None:
        match refused.pop(0):
            case RuntimeError() as error:
                raise error
            case started:
                started(thread)

    with (
        patch("threading.Thread.start", limited),
        pytest.raises(TbcError, match="starts no 4 threads"),
    ):
        model.run(feeds)
    until = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() == before  # those that had started have ended
    alone = InProcess(rows_of_a_table(), native_target(), "rows").model
    assert_same(model.run(feeds)["y"], alone.run(feeds)["y"])


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here")
def test_an_interrupt_at_any_time_leaves_no_part_behind() -> None:
    pool = Pool(3, 0)
    model = InProcess(rows_of_a_table(), native_target(), "rows", pool).model
    feeds = {"at": np.arange(4000, dtype=np.int32) % 5}
    expected = model.run(feeds)["y"]
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    interrupts = 0
    try:
        for delay in np.linspace(20e-6, 2e-3, 150):
            try:
                signal.setitimer(signal.ITIMER_REAL, delay)
                for _ in range(100):
                    model.run(feeds)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupts += 1
            assert pool.sync.arrived == 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupts > 0
    assert_same(model.run(feeds)["y"], expected)


def test_compile_takes_a_number_of_threads() -> None:
    path, x = DIGITS / "digits_mlp.onnx", {"x": images("digits_mlp")}
    one, two = tbc.compile(path), tbc.compile(path, threads=2)
    for _ in range(4):
        assert_same(two.run(x)["logits"], one.run(x)["logits"])
    with pytest.raises(ValueError, match="-1 threads: 1 or more"):
        tbc.compile(path, threads=-1)


def test_no_threads_are_one_for_every_core() -> None:
    pool, cores = _pool(0), physical_cores()
    assert (1 if pool is None else pool.threads) == cores
    assert _pool(1) is None


def test_short_runs_stay_on_one_thread() -> None:
    pool = Pool(2, 3600.0)
    model = InProcess(rows_of_a_table(), native_target(), "rows", pool).model
    for _ in range(4):
        model.run({"at": np.zeros(5, np.int32)})
    assert pool._process == 0
    pool.least_seconds = 1e-9
    model.run({"at": np.zeros(5, np.int32)})
    assert pool._process != 0


def test_runs_that_threads_make_slower_go_back_to_one() -> None:
    shared = []

    class Slow(Pool):
        def run(self, *arguments: Any) -> int | None:
            shared.append(time.sleep(0.02))
            return super().run(*arguments)

    model = InProcess(rows_of_a_table(), native_target(), "rows", Slow(2, 1e-9)).model
    feeds = {"at": np.arange(4000, dtype=np.int32) % 5}
    expected = model.run(feeds)["y"]
    for _ in range(2 * TRIALS + 2):
        assert_same(model.run(feeds)["y"], expected)
    assert len(shared) == TRIALS


def test_models_share_a_pool() -> None:
    pool = Pool(3, 0)
    models = [tbc.compile(DIGITS / f"{n}.onnx", threads=pool) for n in ("digits_mlp", "digits_cnn")]
    for _ in range(2):
        for model, name in zip(models, ("digits_mlp", "digits_cnn"), strict=True):
            x = {"x": images(name)}
            alone = tbc.compile(DIGITS / f"{name}.onnx", threads=1).run(x)
            assert_same(model.run(x)["logits"], alone["logits"])


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        *(("x86-64", True), ("armv8", True), ("armv7", True), ("rv64gc", True), ("s390x", True)),
        *(("armv6", False), ("cortex-m4f", False), ("rv32imac", False), ("wasm32", False)),
        *(("windows-x86-64", True), ("apple-m1", True), ("i686", True), ("rv64imc", False)),
    ],
)
def test_code_waits_where_there_are_threads_and_atomics(target: str, expected: bool) -> None:
    assert parse(target).has_threads == expected
