from __future__ import annotations

import weakref

import numpy as np
import pytest
from graph_strategies import bindings, feeds, graphs
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import Array, assert_same

from tbc import ops
from tbc.constants import constant
from tbc.dims import Dim, Expr, Symbol
from tbc.ir import Builder, Graph, Value
from tbc.reference import MEANING, bind_symbols, evaluate, run, run_graph
from tbc.types import DType, TensorType

B = Expr.of(Symbol("batch", 1, 8))
S = Expr.of(Symbol("seq"))
NEG, EXP, ADD = ops.Unary("neg"), ops.Unary("exp"), ops.Binary("add")


def inputs(b: Builder, **shapes: tuple[Dim, ...]) -> list[Value]:
    return [b(ops.Input(n, TensorType(DType.f32, shape))) for n, shape in shapes.items()]


def zeros(*shape: int) -> Array:
    return np.zeros(shape, np.float32)


def test_every_operation_has_a_meaning() -> None:
    assert {*MEANING, ops.Input, ops.Repeat} == set(ops.OPS)


@given(graphs(steps=14), bindings(), st.integers(0, 99))
@settings(max_examples=150)
def test_results_have_the_inferred_types(graph: Graph, dims: dict[str, int], seed: int) -> None:
    types: list[bool] = []

    def watch(value: Value, array: Array) -> None:
        types.append(array.dtype == value.type.dtype.numpy and array.ndim == value.type.rank)

    results = run_graph(graph, feeds(graph, dims, seed), watch)
    assert all(types)
    assert len(types) == len(graph.values())
    assert list(results) == [name for name, _ in graph.outputs]


@given(graphs(), bindings(), st.integers(0, 99))
def test_a_value_alone_is_what_it_is_in_the_graph(
    graph: Graph, dims: dict[str, int], seed: int
) -> None:
    arrays = feeds(graph, dims, seed)
    watched: dict[Value, Array] = {}
    expected = run_graph(graph, arrays, lambda value, array: watched.update({value: array}))
    last_name, last = graph.outputs[-1]
    assert_same(watched[last], expected[last_name])
    others = {v: a for v, a in watched.items() if v is not last}
    for known in ({}, others):
        results = run(graph.results, arrays, known, dims)
        assert_same(results[-1], expected[last_name])


# -- symbols --------------------------------------------------------------------------------------


def test_symbols_are_bound_by_plain_sizes_and_derived_ones_are_checked() -> None:
    b = Builder()
    values = inputs(b, total=(B, B + S), past=(S, 4), x=(B,))
    arrays = {"total": zeros(2, 5), "past": zeros(3, 4), "x": zeros(2)}
    assert bind_symbols(values, arrays) == {"batch": 2, "seq": 3}


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("total", zeros(2, 6), "axis 1 of input total is 6, not 5 = batch + seq"),
        ("past", zeros(3, 5), "axis 1 of input past is 5, not 4"),
        ("x", zeros(4), "axis 0 of input x is 4, but batch is 2"),
        ("x", zeros(2, 1), "input x is float32[2, 1], not f32[batch]"),
        ("x", np.zeros(2), "input x is float64[2], not f32[batch]"),
    ],
)
def test_arrays_that_do_not_fit(name: str, array: Array, message: str) -> None:
    b = Builder()
    values = inputs(b, total=(B, B + S), past=(S, 4), x=(B,))
    arrays = {"total": zeros(2, 5), "past": zeros(3, 4), "x": zeros(2)} | {name: array}
    with pytest.raises(ValueError, match=r".") as caught:
        bind_symbols(values, arrays)
    assert str(caught.value) == message


def test_other_ways_not_to_fit() -> None:
    b = Builder()
    x, product = inputs(b, x=(B,), y=(S * 2,))
    with pytest.raises(ValueError, match=r"axis 0 of input x is 9, outside batch = 1\.\.8"):
        bind_symbols([x], {"x": zeros(9)})
    with pytest.raises(ValueError, match="no array for input x"):
        bind_symbols([x], {})
    with pytest.raises(ValueError, match=r"axis 0 of input y is seq\*2: no value for seq"):
        bind_symbols([product], {"y": zeros(4)})
    with pytest.raises(ValueError, match="no input is called z"):
        run_graph(Graph("g", (x,), (("x", x),)), {"x": zeros(1), "z": zeros(1)})
    with pytest.raises(ValueError, match="no value for seq"):
        run([b(ops.Broadcast((S, B)), x)], {"x": zeros(1)})


def test_an_input_that_only_gives_a_symbol() -> None:
    b = Builder()
    x, y = inputs(b, x=(B,), y=(S,))
    graph = Graph("g", (x, y), (("z", b(ops.Broadcast((S, B)), x)),))
    assert run_graph(graph, {"x": zeros(2), "y": zeros(3)})["z"].shape == (3, 2)


def test_a_size_that_the_type_does_not_promise() -> None:
    b = Builder()
    (x,) = inputs(b, x=(B,))
    part = b(ops.Slice((0,), (1,), (B - 2,)), x)
    assert run([part], {"x": zeros(5)})[0].shape == (3,)
    with pytest.raises(ValueError, match=r"v1: f32\[batch - 2\] = Slice"):
        run([part], {"x": zeros(1)})


# -- graphs ---------------------------------------------------------------------------------------


def test_a_check_that_fails() -> None:
    b = Builder()
    (x,) = inputs(b, x=(B,))
    is_nan = b(ops.Reduce("max", (0,)), b(ops.Unary("isnan"), x))
    graph = Graph("g", (x,), (("y", b(NEG, x)),), (is_nan,))
    assert_same(run_graph(graph, {"x": zeros(2)})["y"], -zeros(2))
    with pytest.raises(ValueError, match="cannot accept"):
        run_graph(graph, {"x": np.full(2, np.nan, np.float32)})


def test_a_check_guards_what_it_is_for() -> None:
    b = Builder()
    index = b(ops.Input("i", TensorType(DType.i64)))
    table = constant(b, np.arange(4), DType.f32)
    past_end = b(ops.Binary("ge"), index, constant(b, 4, DType.i64))
    graph = Graph("g", (index,), (("y", b(ops.Gather(0), table, index)),), (past_end,))
    assert run_graph(graph, {"i": np.array(3)})["y"] == 3
    with pytest.raises(ValueError, match="cannot accept"):
        run_graph(graph, {"i": np.array(4)})


def test_an_error_names_the_value() -> None:
    b = Builder()
    index = b(ops.Input("i", TensorType(DType.i64)))
    y = b(ops.Gather(0), constant(b, np.arange(4), DType.f32), index)
    with pytest.raises(ValueError, match=r"Gather\(axis=0\)\(v1, v0\): .* out of bounds"):
        run([y], {"i": np.array(4)})


def test_known_values_are_not_computed() -> None:
    b = Builder()
    (x,) = inputs(b, x=(B, 2))
    middle = b(EXP, x)
    top = b(ADD, middle, middle)
    array = np.ones((3, 2), np.float32)
    assert_same(run([top], {}, known={middle: array})[0], array * 2)
    with pytest.raises(ValueError, match="input v1 is"):
        run([top], {}, known={middle: array[0]})


def test_values_are_freed_after_their_last_use() -> None:
    b = Builder()
    (x,) = inputs(b, x=(B, 2))
    value = x
    for _ in range(20):
        value = b(EXP, b(NEG, value))
    alive: list[weakref.ref[Array]] = []
    most = 0

    def watch(value: Value, array: Array) -> None:
        nonlocal most
        alive.append(weakref.ref(array))
        most = max(most, sum(ref() is not None for ref in alive))

    run([value], {"x": zeros(1, 2)}, watch=watch)
    assert len(alive) == 41
    assert most <= 4


def test_arguments_are_left_alone() -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    x.setflags(write=False)
    for op in (NEG, ops.Reduce("sum", (0,)), ops.Transpose((1, 0)), ops.Cast(DType.bf16)):
        evaluate(op, [x])
    evaluate(ops.MatMul(), [x, x.T])


def test_floating_point_exceptions_are_silent() -> None:
    x = np.array([1e38, -1, 0], np.float32)
    with np.errstate(all="raise"):
        evaluate(ops.Unary("log"), [x])
        evaluate(ops.Binary("mul"), [x, x])
        evaluate(ops.Binary("div"), [x, x * 0])
        evaluate(ops.Cast(DType.f16), [x])


def test_a_graph_ten_thousand_deep() -> None:
    b = Builder()
    (x,) = inputs(b, x=(B,))
    value = x
    for step in range(10_000):
        value = b(ADD, value, x) if step % 2 else b(NEG, value)
    (result,) = run([value], {"x": np.ones(2, np.float32)})
    expected = 1
    for step in range(10_000):
        expected = expected + 1 if step % 2 else -expected
    assert_same(result, np.full(2, expected, np.float32))
