"""Symbolic sizes: shape arithmetic, equalities, run-time checks of indices."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser
from onnx_models import (
    assert_close,
    by_onnxruntime,
    by_tbc,
    check_on,
    i64,
    model,
    nodes,
    normal,
    one_node,
    shape_of,
)

from tbc import frontend
from tbc.dims import Expr, Symbol
from tbc.errors import InvalidModel, Unfixed, Unsupported
from tbc.ops import Dims, Iota

F = np.float32


# -- shape arithmetic -----------------------------------------------------------------------------


def test_heads_are_split_and_merged() -> None:
    proto = model(
        nodes(
            "s = Shape(x)", "b = Gather(s, zero)", "t = Gather(s, one)",
            "b1 = Unsqueeze(b, axes)", "t1 = Unsqueeze(t, axes)",
            "to = Concat(b1, t1, heads)", "h = Reshape(x, to)", "p = Transpose(h)",
            "q = Transpose(p)", "back = Concat(b1, t1, rest)", "y = Reshape(q, back)",
            to={"axis": 0}, back={"axis": 0},
            p={"perm": [0, 2, 1, 3]}, q={"perm": [0, 2, 1, 3]},
        ),
        {"x": (F, ["batch", "seq", 12])},
        ["y", "p"],
        {"zero": i64(0)[0], "one": i64(1)[0], "axes": i64(0), "heads": i64(3, 4), "rest": i64(-1)},
    )  # fmt: skip
    imported = check_on(proto, {"x": normal(1, 2, 5, 12)}, {"x": normal(1, 1, 1, 12)})
    assert shape_of(imported) == ["batch", "seq", "12"]
    assert shape_of(imported, 1) == ["batch", "3", "seq", "4"]
    assert not any(isinstance(v.op, Dims) for v in imported.graph.values())


def test_a_causal_mask_is_made_of_iota() -> None:
    proto = model(
        nodes(
            "s = Shape(x)", "n = Squeeze(s)", "r = Range(zero, n, one)",
            "row = Unsqueeze(r, last)", "le = LessOrEqual(r, row)", "y = Where(le, a, b)",
            s={"start": 0, "end": 1},
        ),
        {"x": (F, ["seq"])},
        ["y"],
        {"zero": i64(0)[0], "one": i64(1)[0], "last": i64(1), "a": F(0), "b": F(-np.inf)},
    )  # fmt: skip
    imported = check_on(proto, {"x": normal(1, 6)}, {"x": normal(1, 1)})
    assert shape_of(imported) == ["seq", "seq"]
    assert {v.op for v in imported.graph.values() if isinstance(v.op, Iota)} == {
        Iota(Expr.of(Symbol("seq")))
    }


SLICES = [(0, 3), (2, 2**31 - 1), (-3, 2**63 - 1), (1, -1), (-4, -2), (3, 100), (9, 2)]


@pytest.mark.parametrize(("start", "end"), SLICES)
@pytest.mark.parametrize("step", [1, 2, -1, -2])
def test_slices_of_symbolic_axes(start: int, end: int, step: int) -> None:
    if step < 0:
        start, end = end, -(2**63) if start == 0 else start
    constants = {"s": i64(start), "e": i64(end), "a": i64(0), "d": i64(step)}
    proto = model(nodes("y = Slice(x, s, e, a, d)"), {"x": (F, ["n", 2])}, ["y"], constants)
    check_on(proto, *({"x": normal(1, n, 2)} for n in (0, 1, 2, 3, 4, 5, 8)))


def test_the_last_token_has_a_size_without_arithmetic() -> None:
    constants = {"s": i64(-1), "e": i64(2**63 - 1), "a": i64(1)}
    proto = model(nodes("y = Slice(x, s, e, a)"), {"x": (F, [1, "seq"])}, ["y"], constants)
    imported = check_on(proto, {"x": normal(1, 1, 4)}, dims={"seq": (1, 9)})
    assert shape_of(imported) == ["1", "1"]


def test_sizes_are_computed_with() -> None:
    proto = model(
        nodes(
            "s = Shape(x)", "n = Gather(s, zero)", "twice = Mul(n, two)", "more = Add(twice, two)",
            "half = Div(more, two)", "to = Unsqueeze(half, axes)", "y = ConstantOfShape(to)",
            "m = Mod(twice, two)", "z = Add(m, n)", "b = Equal(n, minus)", "w = Where(b, two, n)",
        ),
        {"x": (F, ["n", 3])},
        ["y", "z", "w"],
        {"zero": i64(0)[0], "two": i64(2)[0], "minus": i64(-1)[0], "axes": i64(0)},
    )  # fmt: skip
    imported = check_on(proto, {"x": normal(1, 4, 3)}, {"x": normal(1, 0, 3)})
    assert shape_of(imported) == ["n + 1"]
    n = Expr.of(Symbol("n"))
    assert [v.op for _, v in imported.graph.outputs[1:]] == [Dims((n,), ()), Dims((n,), ())]


def test_a_division_that_may_be_by_zero_stays_defined() -> None:
    proto = model(
        nodes(
            "s = Shape(x)", "n, m = Split(s)", "q = Div(n, m)", "y = Identity(q)",
            n={"axis": 0},
        ),
        {"x": (F, ["n", "m"])},
        opset=13,
    )  # fmt: skip
    imported = frontend.load(proto)
    for size, by in ((7, 2), (5, 0)):
        (got,) = by_tbc(imported, {"x": normal(1, size, by)})
        assert got.tolist() == [size // max(by, 1)]


RESHAPE = model(nodes("y = Reshape(x, s)"), {"x": (F, [6]), "s": (np.int64, ["axes"])}, ["y"])


def test_a_shape_from_data_is_refused_with_a_hint() -> None:
    proto = model(nodes("y = Reshape(x, s)"), {"x": (F, [6]), "s": (np.int64, [2])}, ["y"])
    with pytest.raises(Unfixed, match="node 'y': Reshape: the new shape depends on") as caught:
        frontend.load(proto)
    assert caught.value.hint == "--input s=VALUE,VALUE"
    assert caught.value.for_python().hint == 'tbc.compile(…, inputs={"s": …})'


def test_a_branch_that_data_decides_on_asks_for_the_data_and_the_sizes() -> None:
    proto = parser.parse_model("""<ir_version: 10, opset_import: ["" : 21]>
    g (float[n, 2] x, bool c) => (float[m, 4] y) {
        y = If (c) <
            then_branch = a () => (float[m, 4] p) <int64[2] to = {-1, 4}> { p = Reshape(x, to) },
            else_branch = b () => (float[m, 4] q) <int64[2] to = {8, 4}> { q = Reshape(x, to) }
        >
    }""")
    with pytest.raises(Unfixed, match=r"'y': If: in a branch .* n is not ") as caught:
        frontend.load(proto)
    assert caught.value.hint == "--dim n=128 --input c=VALUE"
    assert frontend.load(proto, dims={"n": 16}).graph.outputs
    (warning,) = frontend.load(proto, dims={"n": 128}).warnings
    assert "a call must not take it" in warning
    assert "256 is not 32" in warning
    assert frontend.load(proto, dims={"n": 128}, input_values={"c": True}).graph.outputs
    with pytest.raises(InvalidModel, match="256 is not 32"):
        frontend.load(proto, dims={"n": 128}, input_values={"c": False})


def test_long_sizes_are_said_briefly() -> None:
    lines = ["s = Shape(x)", *(f"{b} = {op}({a}, {c})" for a, op, c, b in (
        ("s", "Mul", "s", "p"), ("p", "Div", "three", "q"), ("q", "Mul", "s", "r"),
        ("r", "Div", "five", "t"), ("t", "Mul", "q", "u"), ("u", "Div", "seven", "v"),
        ("v", "Mul", "t", "w"), ("w", "Add", "v", "k"), ("k", "Div", "three", "l"),
        ("l", "Mul", "k", "to")))]  # fmt: skip
    numbers = {n: i64(v) for n, v in (("three", 3), ("five", 5), ("seven", 7))}
    proto = model(nodes(*lines, "y = Reshape(x, to)"), {"x": (F, ["n"])}, ["y"], numbers)
    with pytest.raises(Unfixed, match=" … ") as caught:
        frontend.load(proto)
    assert len(caught.value.reason) < 400


def test_a_value_of_an_input_is_a_constant_and_decides_sizes() -> None:
    imported = frontend.load(RESHAPE, input_values={"s": [2, 3]})
    assert shape_of(imported) == ["2", "3"]
    assert len(imported.graph.inputs) == 1
    proto = add(["n", 4], ["n", 4])
    assert shape_of(frontend.load(proto, input_values={"b": np.ones((3, 4))})) == ["3", "4"]
    signature = frontend.signature(proto, input_values={"b": np.ones((3, 4))})
    assert [str(v.type) for v in signature.inputs] == ["f32[3, 4]"]
    assert signature.values["b"].dtype == np.float32


@pytest.mark.parametrize(
    ("proto", "values", "words"),
    [
        (RESHAPE, {"t": [1]}, "no input t"),
        (RESHAPE, {"s": [1.5, 2]}, "'s' is of int64, which cannot hold"),
        (RESHAPE, {"s": ["a"]}, "'s' is of int64, which cannot hold"),
        (RESHAPE, {"s": 6}, "'s' has rank 0, not 1"),
        (RESHAPE, {"x": np.ones(5)}, "'x' has 5 along axis 0, not 6"),
        (model(nodes("y = Add(a, b)"), {"a": (F, ["n"]), "b": (F, ["n"])}),
         {"a": np.ones(2), "b": np.ones(3)}, "'b' has 3 along axis 0, not 2"),
    ],
)  # fmt: skip
def test_values_that_do_not_fit_an_input(
    proto: onnx.ModelProto, values: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        frontend.load(proto, input_values=values)


def test_arithmetic_without_end_is_given_up() -> None:
    lines = ["s = Shape(x)", *(f"s{i + 1} = Mul({a}, {a})" for i, a in enumerate(
        ["s", *(f"s{i}" for i in range(1, 40))]))]  # fmt: skip
    proto = model(nodes(*lines, "y = ConstantOfShape(s40)"), {"x": (F, ["n"])}, ["y"])
    with pytest.raises(Unsupported, match="'y'"):
        frontend.load(proto)


def test_torchscript_floor_division_of_a_size_is_seen_through() -> None:
    proto = model(
        nodes(
            "s = Shape(x)", "n = Squeeze(s)", "q = Div(n, three)", "r = Mod(n, three)",
            "exact = Equal(r, zero)", "inexact = Not(exact)",
            "a = Less(n, zero)", "b = Less(three, zero)", "differ = Xor(a, b)",
            "fix = And(differ, inexact)", "less = Sub(q, one)", "f = Where(fix, less, q)",
            "to = Unsqueeze(f, axes)", "y = ConstantOfShape(to)",
        ),
        {"x": (F, ["n"])},
        ["y"],
        {"zero": i64(0)[0], "one": i64(1)[0], "three": i64(3)[0], "axes": i64(0)},
    )  # fmt: skip
    imported = check_on(proto, {"x": normal(1, 7)}, {"x": normal(1, 2)})
    assert shape_of(imported) == ["n // 3"]


# -- symbols --------------------------------------------------------------------------------------


def add(a: list[Any], b: list[Any]) -> onnx.ModelProto:
    return model(nodes("y = Add(a, b)"), {"a": (F, a), "b": (F, b)})


def test_symbols_that_meet_are_equal() -> None:
    imported = frontend.load(add(["n", 4], ["m", 4]))
    n = Expr.of(Symbol("n"))
    assert dict(imported.equalities) == {"m": n}
    assert imported.graph.inputs[1].type.shape == (n, 4)


def test_symbols_with_the_same_factor_are_equal() -> None:
    proto = model(
        nodes("r = Reshape(a, to)", "y = Add(r, b)"), {"a": (F, ["n", 4]), "b": (F, ["m", 2])},
        ["y"], {"to": i64(-1, 2)},
    )  # fmt: skip
    imported = frontend.load(proto, dims={})
    assert {n: str(d) for n, d in imported.equalities.items()} == {"m": "n*2"}


def test_a_symbol_that_meets_a_number_is_it() -> None:
    imported = frontend.load(add(["n", "k"], [3, 4]))
    assert dict(imported.equalities) == {"n": 3, "k": 4}


def test_the_ranges_of_equal_symbols_are_both_kept() -> None:
    imported = frontend.load(add(["n", 4], ["m", 4]), dims={"n": (2, None), "m": (0, 7)})
    assert imported.graph.symbols() == (Symbol("n", 2, 7),)


def test_a_total_is_the_sum_of_its_parts() -> None:
    proto = model(
        nodes("k = Concat(past, new)", "y = Add(k, mask)", k={"axis": 0}),
        {"past": (F, ["past"]), "new": (F, ["seq"]), "mask": (F, ["total"])},
    )
    imported = frontend.load(proto)
    assert {n: str(d) for n, d in imported.equalities.items()} == {"total": "past + seq"}
    feeds = {"past": normal(1, 3), "new": normal(2, 2), "mask": normal(3, 5)}
    assert_close(by_tbc(imported, feeds)[0], by_onnxruntime(proto, feeds)[0])
    with pytest.raises(ValueError, match="mask"):
        by_tbc(imported, {**feeds, "mask": normal(3, 4)})


def test_sizes_written_as_arithmetic_are_understood() -> None:
    proto = model(
        nodes("k = Concat(past, new)", "y = Add(k, mask)", k={"axis": 0}),
        {"mask": (F, ["past + seq"]), "past": (F, ["past"]), "new": (F, ["seq"])},
    )
    imported = frontend.load(proto)
    assert not imported.equalities
    assert str(imported.graph.inputs[0].type) == "f32[past + seq]"


@pytest.mark.parametrize("name", ["seq len", "2x", "", "a-b", "if", "n//0", "é", "((", "a" * 999])
def test_odd_names_of_symbols(name: str) -> None:
    proto, _ = one_node("Abs", [normal(1, 3)])
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = name
    (symbol,) = frontend.load(proto).graph.symbols()
    assert symbol.name.isidentifier()
    assert symbol.name.isascii()


def test_sizes_without_a_name_get_one() -> None:
    proto = model(nodes("y = Abs(x)"), {"x": (F, [None, None])})
    assert [s.name for s in frontend.load(proto).graph.symbols()] == ["x_0", "x_1"]


@pytest.mark.parametrize("text", ["?", "None", "-1"])
def test_texts_that_name_nothing_are_different_sizes(text: str) -> None:
    imported = frontend.load(model(nodes("y = Abs(x)"), {"x": (F, [text, 3, text])}))
    assert shape_of(imported) == ["x_0", "3", "x_2"]


def test_a_negative_size_of_an_input_is_a_symbol() -> None:
    proto = model(nodes("y = Abs(x)"), {"x": (F, [-1, 3, -4])})
    imported = check_on(proto, {"x": normal(1, 2, 3, 5)})
    assert shape_of(imported) == ["x_0", "3", "x_2"]
    assert [w for w in imported.warnings if "'x' has the size -1 along axis 0" in w]
    assert len(imported.warnings) == 2


def test_given_sizes_are_used() -> None:
    proto = add(["n", "m"], ["n", "m"])
    imported = frontend.load(proto, dims={"n": 3, "m": (1, 8)})
    assert imported.graph.inputs[0].type.shape == (3, Expr.of(Symbol("m", 1, 8)))
    with pytest.raises(ValueError, match=r"no symbol k \(it has: n, m\)"):
        frontend.load(proto, dims={"k": 3})
    with pytest.raises(ValueError, match="not a range"):
        frontend.load(proto, dims={"n": (3, 2)})


def test_sizes_that_cannot_be_equal_are_refused() -> None:
    with pytest.raises(InvalidModel, match=r"node 'y': Add: .*3 is not 4"):
        frontend.load(add([3], [4]))
    with pytest.raises(InvalidModel, match=r"node 'y': Add: .*3 is not 4"):
        frontend.load(add(["n"], [4]), dims={"n": 3})
    proto = model(
        nodes("k = Concat(a, a)", "y = Add(k, b)", k={"axis": 0}),
        {"a": (F, ["n"]), "b": (F, [5])},
    )
    with pytest.raises(Unsupported, match="cannot see that they are equal"):
        frontend.load(proto)


# -- indices --------------------------------------------------------------------------------------


def test_indices_from_an_input_are_checked_at_run_time() -> None:
    table = normal(1, 5, 2)
    proto = model(nodes("y = Gather(t, i)"), {"i": (np.int64, ["n"])}, ["y"], {"t": table})
    imported = check_on(proto, {"i": i64(0, 4, -5)}, {"i": i64()})
    assert len(imported.graph.checks) == 1
    for wrong in (5, -6):
        with pytest.raises(ValueError, match="cannot accept"):
            by_tbc(imported, {"i": i64(0, wrong)})


def test_indices_that_cannot_leave_the_axis_are_not_checked() -> None:
    proto = model(
        nodes(
            "s = Shape(x)", "n = Squeeze(s)", "r = Range(zero, n, one)", "y = Gather(x, r)",
            s={"start": 0, "end": 1},
        ),
        {"x": (F, ["n", 2])},
        ["y"],
        {"zero": i64(0)[0], "one": i64(1)[0]},
    )  # fmt: skip
    assert not check_on(proto, {"x": normal(1, 3, 2)}).graph.checks


def test_a_table_shorter_than_a_sequence_is_checked() -> None:
    proto = model(
        nodes(
            "s = Shape(x)", "n = Squeeze(s)", "r = Range(zero, n, one)", "y = Gather(t, r)",
            s={"start": 0, "end": 1},
        ),
        {"x": (F, ["n"])},
        ["y"],
        {"zero": i64(0)[0], "one": i64(1)[0], "t": normal(1, 4)},
    )  # fmt: skip
    imported = check_on(proto, {"x": normal(1, 4)})
    with pytest.raises(ValueError, match="cannot accept"):
        by_tbc(imported, {"x": normal(1, 5)})
    assert not frontend.load(proto, dims={"n": (0, 4)}).graph.checks


def test_a_constant_index_outside_the_axis_is_refused() -> None:
    proto, _ = one_node("Gather", [normal(1, 3), i64(3)], constant=(1,))
    with pytest.raises(InvalidModel, match=r"node 'it': Gather: .*outside an axis of 3"):
        frontend.load(proto)
