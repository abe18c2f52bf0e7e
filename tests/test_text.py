from __future__ import annotations

import ast
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_strategies import bindings, feeds, graphs
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import SYMBOLS, Formula, assert_same, formulas, symbol_values

from tbc import ops
from tbc.constants import constant, file_constant
from tbc.dims import Expr, Symbol
from tbc.ir import Builder, Graph, Op, Value
from tbc.layout import Layout
from tbc.reference import run_graph
from tbc.text import PRINTED, dump_constants, parse_graph, print_graph
from tbc.text_parser import _MAKERS
from tbc.types import DType, TensorType


def structure(graph: Graph) -> tuple[Any, ...]:
    """The graph with values as positions, to compare graphs of two builders."""
    values = [*graph.inputs, *(v for v in graph.values() if v not in graph.inputs)]
    numbers: dict[Value, int] = {}
    todo = [*graph.inputs, *graph.results][::-1]
    while todo:  # in an order that depends on nothing but the graph
        value = todo[-1]
        missing = [a for a in value.args if a not in numbers]
        todo.extend(missing[::-1])
        if not missing:
            numbers.setdefault(todo.pop(), len(numbers))
    assert len(numbers) == len(values)
    lines = [(_plain(v.op), v.type, [numbers[a] for a in v.args]) for v in numbers]
    outputs = [(name, numbers[v]) for name, v in graph.outputs]
    return graph.name, len(graph.inputs), lines, outputs, [numbers[c] for c in graph.checks]


def _plain(op: Op) -> Any:
    """The operation, or what a loop holds, its body by its structure."""
    if not isinstance(op, ops.Repeat):
        return op
    return op.states, op.index, op.conditional, op.which, structure(op.body)


def all_constants(graph: Graph) -> dict[str, np.ndarray[Any, Any]]:
    values = [v for part in graph.graphs() for v in part.values()]
    return {v.op.digest: v.op.data.read() for v in values if isinstance(v.op, ops.Const)}


@given(graphs())
def test_a_graph_is_parsed_as_it_was_printed(graph: Graph) -> None:
    text = print_graph(graph)
    parsed = parse_graph(text, all_constants(graph))
    assert structure(parsed) == structure(graph)
    assert print_graph(parsed) == text


@given(graphs(), bindings(), st.integers(0, 99))
@settings(max_examples=30)
def test_a_parsed_graph_computes_the_same(graph: Graph, dims: dict[str, int], seed: int) -> None:
    parsed = parse_graph(print_graph(graph), all_constants(graph))
    arrays = feeds(graph, dims, seed)
    expected, results = run_graph(graph, arrays), run_graph(parsed, arrays)
    for name, array in expected.items():
        assert_same(results[name], array)


def test_every_operation_has_a_name_of_its_own() -> None:
    classes = [op for op in ops.OPS if op not in (ops.Input, ops.Const, ops.Unary, ops.Binary)]
    assert len(_MAKERS) == len(classes) + len(ops.UNARY) + len(ops.BINARY) + 1  # and layout
    for name in _MAKERS:
        ast.parse(f"{name}()")
    assert set(PRINTED) <= {*ops.UNARY, *ops.BINARY, *(op.__name__ for op in classes)}


TEXT = """\
batch = dim(1, 512)
def example(x: f32[batch, 64], mask: bool[batch, 64]):
    v2: trit[2, 64] = const("{digest}")
    v3: f32[batch, 2] = dot(x, v2)
    v4: f32[2] = const([0.1, -inf])
    v5: f32[batch, 2] = add(v3, v4)
    v6: i8[batch, 2] = cast(v5, dtype=i8)
    v7: u8[256] = pack(v2, layout=layout(code="i2"))
    v8: i64[2] = dims(dims=(batch*2, (batch + 3) // 4), shape=(2,))
    v9: bool[batch, 64] = logical_not(mask)
    v10: bool[batch, 64] = bit_or(v9, mask)
    v11: bool = reduce(v10, kind="max", axes=(0, 1))
    check(v11)
    return {{"y": v6, "packed": v7, "sizes": v8}}
"""


def test_text() -> None:
    b = Builder()
    batch = Expr.of(Symbol("batch", 1, 512))
    w = constant(b, np.arange(128).reshape(2, 64) % 3 - 1, DType.trit)
    x = b(ops.Input("x", TensorType(DType.f32, (batch, 64))))
    mask = b(ops.Input("mask", TensorType(DType.bool, (batch, 64))))
    dead = b(ops.Unary("neg"), x)
    y = b(ops.Binary("add"), b(ops.Dot(), x, w), constant(b, [0.1, -np.inf], DType.f32))
    either = b(ops.Binary("or"), b(ops.Unary("not"), mask), mask)
    graph = Graph(
        "example",
        (x, mask),
        (
            ("y", b(ops.Cast(DType.i8), y)),
            ("packed", b(ops.Pack(Layout("i2")), w)),
            ("sizes", b(ops.Dims((batch * 2, (batch + 3) // 4), (2,)))),
        ),
        (b(ops.Reduce("max", (0, 1)), either),),
    )
    assert dead not in graph.values()
    assert isinstance(w.op, ops.Const)
    text = TEXT.format(digest=w.op.digest)
    assert print_graph(graph) == text
    assert structure(parse_graph(text, all_constants(graph))) == structure(graph)


def test_names_that_are_no_identifiers() -> None:
    b = Builder()
    names = ["past.key", "v3", "past_key", "class", "0", "", 'q"\\\n', "é😀", "x"]
    size = Expr.of(Symbol("batch size", 1, 4)) * Expr.of(Symbol("f32", 0, None))
    inputs = tuple(b(ops.Input(n, TensorType(DType.f32, (size, 4)))) for n in names)
    outputs = tuple((name, b(ops.Unary("neg"), i)) for name, i in zip(names, inputs, strict=True))
    graph = Graph("torch-jit.export", inputs, outputs)
    text = print_graph(graph)
    assert 'batch_size = dim(1, 4, name="batch size")' in text
    assert structure(parse_graph(text)) == structure(graph)


def test_the_text_does_not_depend_on_the_builders_numbers() -> None:
    def graph(constant_first: bool) -> Graph:
        b = Builder()
        if constant_first:
            constant(b, 2.0, DType.f32)
        x = b(ops.Input("x", TensorType(DType.f32, (3,))))
        doubled = b(ops.Binary("mul"), x, constant(b, 2.0, DType.f32))
        return Graph("g", (x,), (("y", doubled),))

    assert print_graph(graph(True)) == print_graph(graph(False))


FLOATS = [0.1, 1e-45, 3.4028235e38, -0.0, 1e-5, float("inf"), float("nan"), 16777217.0, 1 / 3]


@pytest.mark.parametrize("dtype", [d for d in DType if d.is_float])
def test_floats_keep_their_bits(dtype: DType) -> None:
    b = Builder()
    with np.errstate(over="ignore"):
        array = np.array(FLOATS).astype(np.float32).astype(dtype.numpy)
    graph = Graph("g", (), (("y", constant(b, array, dtype)),))
    text = print_graph(graph)
    assert "const([" in text
    parsed = parse_graph(text).results[0]
    assert isinstance(parsed.op, ops.Const)
    assert parsed.op.data.read().tobytes() == array.tobytes()
    assert parsed.op == graph.results[0].op


@given(st.integers(0, 2**32 - 1))
def test_every_f32_is_short_and_exact(bits: int) -> None:
    array = np.array(bits, np.uint32).view(np.float32)
    graph = Graph("g", (), (("y", constant(Builder(), array, DType.f32)),))
    op = parse_graph(print_graph(graph), all_constants(graph)).results[0].op
    assert isinstance(op, ops.Const)
    assert op.data.read().tobytes() == array.tobytes()


def test_a_nan_with_a_payload_is_not_written_out() -> None:
    odd = np.array([0x7FC00001, 0xFFC00000], np.uint32).view(np.float32)
    for array in odd:
        graph = Graph("g", (), (("y", constant(Builder(), array, DType.f32)),))
        assert "nan" not in print_graph(graph)


@pytest.mark.parametrize("dtype", list(DType))
def test_constants_of_every_type_survive_a_dump(dtype: DType, tmp_path: Path) -> None:
    b = Builder()
    values = np.ones((5, 7)) if dtype is DType.sign else np.arange(35).reshape(5, 7) % 2
    large, small = constant(b, values, dtype), constant(b, values[:2], dtype)
    empty, scalar = constant(b, np.zeros((0, 3)), dtype), constant(b, 1, dtype)
    graph = Graph("g", (), tuple(zip("abcd", (large, small, empty, scalar), strict=True)))
    path = tmp_path / "constants.npz"
    dump_constants(graph, path)
    with np.load(path) as stored:
        assert len(stored) == 1
        parsed = parse_graph(print_graph(graph), stored)
    assert structure(parsed) == structure(graph)
    for old, new in zip(graph.results, parsed.results, strict=True):
        assert isinstance(old.op, ops.Const)
        assert isinstance(new.op, ops.Const)
        np.testing.assert_array_equal(new.op.data.read(), old.op.data.read())


def test_a_constant_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    np.arange(40, dtype=np.uint8).tofile(path)
    b = Builder()
    types = [TensorType(DType.i32, (2,)), TensorType(DType.u4, (5,)), TensorType(DType.u8, (40,))]
    values = [file_constant(b, path, 0, t) for t in types]
    graph = Graph("g", (), tuple(zip("abc", values, strict=True)))
    assert "v0: i32[2] = const([50462976, 117835012])" in print_graph(graph)
    parsed = parse_graph(print_graph(graph), all_constants(graph))
    assert structure(parsed) == structure(graph)


@given(formulas(), symbol_values())
def test_dims_are_python(formula: Formula, values: dict[str, int]) -> None:
    source = str(formula.dim)
    assert eval(source, {"min": min, "max": max}, values) == formula.value(values)
    header = "".join(
        f"{s.name} = dim({s.lo}{'' if s.hi is None else f', {s.hi}'})\n" for s in SYMBOLS
    )
    line = f"    v0: i64[1] = dims(dims=({source},), shape=(1,))"
    text = f'{header}def f():\n{line}\n    return {{"y": v0}}'
    assert parse_graph(text).results[0].op == ops.Dims((formula.dim,), (1,))


def test_two_symbols_of_one_name() -> None:
    b = Builder()
    types = [TensorType(DType.f32, (Expr.of(Symbol("n", 0, hi)),)) for hi in (3, 4)]
    inputs = tuple(b(ops.Input(f"x{i}", t)) for i, t in enumerate(types))
    with pytest.raises(ValueError, match="two symbols are called n"):
        print_graph(Graph("g", inputs, (("y", inputs[0]),)))


def test_an_input_that_is_not_listed() -> None:
    x = Builder()(ops.Input("x", TensorType(DType.f32)))
    with pytest.raises(ValueError, match="not listed"):
        print_graph(Graph("g", (), (("y", x),)))


def test_a_graph_ten_thousand_deep() -> None:
    b = Builder()
    x = value = b(ops.Input("x", TensorType(DType.f32, (2,))))
    one = constant(b, 1.0, DType.f32)
    for step in range(10_000):
        value = b(ops.Binary("add"), value, value if step % 50 == 0 else one)
    graph = Graph("deep", (x,), (("y", value),))
    text = print_graph(graph)
    assert print_graph(parse_graph(text)) == text


HEAD = "n = dim(1, 4)\ndef f(x: f32[n, 2], i: i64[3]):\n"
WRONG = [
    ("", 1, "must end in one function"),
    ("x = 1\n", 1, "must end in one function"),
    ("n = dim(1, 4", 1, "never closed"),
    ("n = 3\ndef f():\n    return {}", 1, "expected name = dim"),
    ("n = dim(4, 1)\ndef f():\n    return {}", 1, "needs its own dim"),
    ("n = dim(1, 2, 3)\ndef f():\n    return {}", 1, "needs its own dim"),
    ("n = dim(1, 2, 3, 4, 5)\ndef f():\n    return {}", 1, "positional arguments"),
    ("n = dim(1)\nn = dim(1)\ndef f():\n    return {}", 2, "needs its own dim"),
    ("n = dim(1.5)\ndef f():\n    return {}", 1, "needs its own dim"),
    ("n = dim(1, name=3)\ndef f():\n    return {}", 1, "needs its own dim"),
    ("def f(x):\n    return {}", 1, "has no type"),
    ("def f(x: f33[2]):\n    return {}", 1, "is not a type"),
    ("def f(x: f32[m]):\n    return {}", 1, "m means nothing"),
    ("def f(x: f32[-1]):\n    return {}", 1, "is not a type"),
    ("def f(x: f32[2.0]):\n    return {}", 1, "is not a type"),
    ("def f(x: f32 = 3):\n    return {}", 1, "is not a string"),
    ("def f(x: f32, y: f32 = 'x'):\n    return {}", 1, "a second input is called x"),
    ("def f(*x: f32):\n    return {}", 1, "parameters are"),
    (HEAD + "    y: f32 = neg(x)\n", 3, "the type is f32[n, 2], not f32"),
    (HEAD + "    y = neg(x)\n", 3, "expected v: type = op"),
    (HEAD + "    y: f32[n, 2] = foo(x)\n", 3, "no operation is called foo"),
    (HEAD + "    y: f32[n, 2] = neg(z)\n", 3, "z is no value"),
    (HEAD + "    y: f32[n, 2] = neg(neg(x))\n", 3, "neg(x) is no value"),
    (HEAD + "    y: f32[n, 2] = neg(x, x)\n", 3, "positional argument"),
    (HEAD + "    y: f32[n, 2] = neg()\n", 3, "missing"),
    (HEAD + "    y: f32[n, 2] = neg(x, fn='abs')\n", 3, "multiple values"),
    (HEAD + "    y: i64[3] = sqrt(i)\n", 3, "sqrt needs a float"),
    (HEAD + "    y: f32[2, n] = transpose(x, perm=(1, n))\n", 3, "perm cannot be"),
    (HEAD + "    y: f32[2, n] = transpose(x, perm=[1, 0])\n", 3, "means nothing here"),
    (HEAD + "    y: f32[2, n] = transpose(x)\n", 3, "missing"),
    (HEAD + "    y: f32[n, 2] = reshape(x, shape=(n // 0,))\n", 3, "n // 0"),
    (HEAD + "    y: f32[n, 2] = reshape(x, shape=('a' + 1,))\n", 3, "is not a size"),
    (HEAD + "    y: f32[n] = reduce(x, kind='sum', axes=(1,), keepdims=1)\n", 3, "cannot be 1"),
    (HEAD + "    y: f32[n, 2] = cast(x, dtype=n)\n", 3, "dtype cannot be n"),
    (HEAD + "    y: f32[n, 2] = cast(x, **n)\n", 3, "unexpected keyword"),
    (HEAD + "    x: f32[n, 2] = neg(x)\n", 3, "x is defined twice"),
    (HEAD + "    y: i8 = const(128)\n", 3, "128 is not a i8"),
    (HEAD + "    y: i8 = const(1.0)\n", 3, "1.0 is not a i8"),
    (HEAD + "    y: bool = const(1)\n", 3, "1 is not a bool"),
    (HEAD + "    y: f32 = const(True)\n", 3, "True is not a f32"),
    (HEAD + "    y: sign = const(0)\n", 3, "0 is not a sign"),
    (HEAD + "    y: i8[2, 2] = const([1, 2, 3, 4])\n", 3, "do not have the shape"),
    (HEAD + "    y: i8[2, 2] = const([[1, 2], [3]])\n", 3, "do not have the shape"),
    (HEAD + "    y: i8[n] = const([1])\n", 3, "do not have the shape"),
    (HEAD + "    y: i8[2] = const('abc')\n", 3, "no elements for constant abc"),
    (HEAD + "    y: i8[2] = const('given')\n", 3, "constant given is"),
    (HEAD + "    y: i8[2] = const(open('x'))\n", 3, "is not an element"),
    (HEAD + "    check(y)\n", 3, "y is no value"),
    (HEAD + "\n\n    return {'y': y}\n", 5, "y is no value"),
    (HEAD + "    return {1: x}\n", 3, "is not a string"),
    (HEAD + "    return x\n", 3, "expected v: type = op"),
    (HEAD + "    return {}\n    return {}\n", 3, "expected v: type = op"),
    (HEAD + "    'docstring'\n", 2, "does not end in return"),
    (
        HEAD + f"    y: f32[{reduce(lambda t, _: f'({t})*({t})', range(13), 'n')}] = exp(x)\n",
        3,
        "too complicated",
    ),
    (HEAD + "    y: f32 = cast(x, dtype=" + "-" * 5000 + "1)\n", 1, "does not parse"),
]


@pytest.mark.parametrize(("text", "line", "message"), WRONG)
def test_wrong_text(text: str, line: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"^line {line}: ") as caught:
        parse_graph(text, {"given": np.zeros(3, np.int8)})
    assert message in str(caught.value)


@given(graphs(steps=4), st.data())
@settings(max_examples=60)
def test_damaged_text_is_a_value_error_or_a_graph(graph: Graph, data: st.DataObject) -> None:
    text = print_graph(graph)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 12)))
    pieces = st.sampled_from(["", "0", "-1", "x0", "v9", "(", "()", ",", "n", "f32", "min(n, 2)"])
    damaged = text[:start] + data.draw(pieces) + text[end:]
    message = "line "
    try:
        parse_graph(damaged, all_constants(graph))
    except ValueError as error:
        message = str(error)
    assert message.startswith("line ")
