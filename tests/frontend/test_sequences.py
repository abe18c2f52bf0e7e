"""Sequences of tensors, optional values and sparse tensors, which no code knows of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper, parser
from onnx_models import Array, by_tbc, check_against_onnxruntime, i64, model, normal

from tbc import frontend
from tbc.errors import InvalidModel, TbcError, Unfixed, Unsupported
from tbc.inspection import inspect
from tbc.target import parse

X = normal(1, 3, 7, 4)


def of(text: str, constants: Mapping[str, Array] | None = None, opset: int = 18) -> onnx.ModelProto:
    """A model of x, from its nodes as text."""
    return model(written(text), {"x": (np.float32, X.shape)}, constants=constants, opset=opset)


def written(text: str) -> Sequence[onnx.NodeProto]:
    return parser.parse_graph(f"text () => () {{ {text} }}").node


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([11, 18, 24]), st.integers(-3, 2), st.booleans(), st.data())
def test_splits(opset: int, axis: int, keeps: bool, data: st.DataObject) -> None:
    """By single elements, by a size with a smaller last part, by sizes; one part is taken."""
    extent = X.shape[axis]
    kind = data.draw(st.sampled_from(["one", "size", "sizes"]))
    constants: dict[str, Array] = {}
    if kind == "size":
        size = data.draw(st.integers(1, extent + 1))
        constants["sizes"], count = np.array(size), -(-extent // size)
    elif kind == "sizes":
        cuts = sorted(data.draw(st.lists(st.integers(0, extent), max_size=3)))
        sizes = np.diff([0, *cuts, extent])
        constants["sizes"], count = sizes.astype(np.int64), len(sizes)
    else:
        count = extent
    constants["at"] = np.array(data.draw(st.integers(-count, count - 1)))
    # ONNX ignores keepdims beside sizes; onnxruntime 1.32 does not.
    given, keeps = ("", keeps) if kind == "one" else (", sizes", True)
    split = f"SplitToSequence<axis = {axis}, keepdims = {int(keeps)}>(x{given})"
    made = of(f"s = {split} y = SequenceAt(s, at)", constants, opset)
    check_against_onnxruntime(made, {"x": X})


def test_parts_of_given_sizes_keep_their_axis() -> None:
    text = "s = SplitToSequence<axis = 1, keepdims = 0>(x, size) y = SequenceAt(s, at)"
    made = of(text, {"size": np.array(1), "at": np.array(2)})
    np.testing.assert_array_equal(by_tbc(frontend.load(made), {"x": X})[0], X[:, 2:3])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(-4, 4)), max_size=6), st.integers(0, 3))
def test_lists(steps: Sequence[tuple[bool, int]], axis: int) -> None:
    """Tensors inserted and erased anywhere, then stacked; their number is an output too."""
    lines, count, constants = ["a = Neg(x)", "s0 = SequenceConstruct(x, a)"], 2, {}
    for i, (grows, place) in enumerate(steps):
        grows = grows or count == 1
        place = place % (count + 1) if grows else place % count
        constants[f"p{i}"] = np.array(place)
        if grows:
            lines += [f"x{i} = Mul(x, k{i})", f"s{i + 1} = SequenceInsert(s{i}, x{i}, p{i})"]
            constants[f"k{i}"] = np.array(i + 2, np.float32)
        else:
            lines.append(f"s{i + 1} = SequenceErase(s{i}, p{i})")
        count += 1 if grows else -1
    last = f"s{len(steps)}"
    lines += [f"y = ConcatFromSequence<axis = {axis}, new_axis = 1>({last})"]
    lines += [f"n = SequenceLength({last})"]
    made = of("\n".join(lines), constants)
    made.graph.output.add().name = "n"
    check_against_onnxruntime(made, {"x": X})
    assert by_tbc(frontend.load(made), {"x": X})[1] == count


def test_an_empty_list_grows() -> None:
    made = of("""
        e = SequenceEmpty()
        one = SequenceInsert(e, x)
        two = SequenceInsert(one, x)
        less = SequenceErase(two)
        y = ConcatFromSequence<axis = -1>(less)
    """)
    check_against_onnxruntime(made, {"x": X})


def test_in_functions_branches_and_loops() -> None:
    """A sequence is handed into a function, chosen by data, and read in a loop's body."""
    function = parser.parse_function("""
        <opset_import: ["" : 18], domain: "own">
        last (s) => (y) {
            at = Constant<value_int = -1>()
            y = SequenceAt(s, at)
        }
    """)
    made = parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 18, "own" : 1]>
        chosen (float[3, 7, 4] x) => (float[3, 7, 4] y, float[3, 7, 4] z)
        <int64 rounds = {3}, int64 first = {0}>
        {
            sum = ReduceSum<keepdims = 0>(x)
            zero = Constant<value_float = 0.0>()
            positive = Greater(sum, zero)
            minus = Neg(x)
            s = If(positive) <
                then_branch = yes () => (seq(float[3, 7, 4]) a) { a = SequenceConstruct(x, minus) },
                else_branch = no () => (seq(float[3, 7, 4]) b) { b = SequenceConstruct(minus, x) }
            >
            y = own.last(s)
            going = Constant<value = bool {1}>()
            z = Loop(rounds, going, x) <
                body = round (int64 i, bool on, float[3, 7, 4] t) => (bool still, float[3, 7, 4] u)
                { still = Identity(on) head = SequenceAt(s, first) u = Add(t, head) }
            >
        }
    """)
    made.functions.append(function)
    for x in (np.abs(X), -np.abs(X)):
        check_against_onnxruntime(made, {"x": x})


SCRIPTED = """
    none = SequenceEmpty()
    going = Constant<value = bool {1}>()
    last, list = Loop(rounds, going, x, none) <
        body = round (int64 i, bool on, float[3, 7, 4] t, seq(float[3, 7, 4]) s)
            => (bool still, float[3, 7, 4] u, seq(float[3, 7, 4]) r)
        { u = Add(t, x) still = LESS r = SequenceInsert(s, u) }
    >
    y = ConcatFromSequence<axis = 0, new_axis = 1>(list)
"""


@pytest.mark.parametrize("rounds", [1, 3, 200])
@pytest.mark.parametrize("less", ["Identity(on)", "Less(i, end)"])
def test_loops_make_lists_longer(rounds: int, less: str) -> None:
    """As scripts do that append to a list; the condition is known in each round."""
    constants = {"rounds": np.array(rounds), "end": np.array(5)}
    check_against_onnxruntime(of(SCRIPTED.replace("LESS", less), constants), {"x": X})


def test_lists_that_loops_hand_on() -> None:
    """A list that all rounds read, and none changes."""
    made = of(
        """
        some = SequenceConstruct(x, x)
        going = Constant<value = bool {1}>()
        y, same = Loop(rounds, going, x, some) <
            body = round (int64 i, bool on, float[3, 7, 4] t, seq(float[3, 7, 4]) s)
                => (bool still, float[3, 7, 4] u, seq(float[3, 7, 4]) r)
            { head = SequenceAt(s, first) u = Add(t, head) still = Identity(on) r = Identity(s) }
        >
        z = SequenceAt(same, first)
        """,
        {"rounds": np.array(100), "first": np.array(0)},
    )
    made.graph.output.add().name = "z"
    check_against_onnxruntime(made, {"x": X})


def test_the_number_of_rounds_is_known() -> None:
    rounds: dict[str, tuple[Any, Sequence[int | str]]] = {"rounds": (np.int64, ())}
    text = SCRIPTED.replace("LESS", "Identity(on)")
    made = model(written(text), {"x": (np.float32, X.shape)} | rounds, opset=18)
    with pytest.raises(Unsupported, match=r"a sequence goes|how often a loop"):
        frontend.load(made)
    known = frontend.load(made, input_values={"rounds": np.array(2)}).graph
    assert known.outputs[0][1].type.shape == (2, *X.shape)


def test_optional_values() -> None:
    made = of(
        """
        o = Optional(x)
        there = OptionalHasElement(o)
        y = OptionalGetElement(o)
        s = SequenceConstruct(x)
        p = Optional(s)
        list = OptionalGetElement(p)
        z = SequenceAt(list, at)
        """,
        {"at": np.array(0)},
    )
    for name in ("there", "z"):
        made.graph.output.add().name = name
    check_against_onnxruntime(made, {"x": X})


def test_weights_that_a_split_makes_lift() -> None:
    """Of one tensor with all layers' weights, as a fused projection has it."""
    w = np.random.default_rng(0).integers(-1, 2, (4, 30)).astype(np.float32)
    made = of(
        "s = SplitToSequence<axis = 1>(w, size) q = SequenceAt(s, at) y = MatMul(x, q)",
        {"w": w, "size": np.array(10), "at": np.array(1)},
    )
    check_against_onnxruntime(made, {"x": X})
    (layer,) = inspect(frontend.load(made).graph, parse("armv8")).layers
    assert layer.weights.startswith("trit")


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        ("s = SequenceConstruct(x) y = Relu(s)", InvalidModel, "'y': Relu: .*cannot be a sequence"),
        ("y = SequenceLength(x)", InvalidModel, "'y': SequenceLength: .*cannot be of type f32"),
        ("s = SequenceConstruct(x) y = SequenceAt(s, far)", InvalidModel, "of 1 has no position 5"),
        ("s = SequenceEmpty() y = ConcatFromSequence<axis = 0>(s)", InvalidModel, "is empty"),
        ("s = SequenceEmpty() t = SequenceErase(s) y = SequenceAt(t, far)", InvalidModel, "empty"),
        ("s = SequenceConstruct(x) y = SequenceInsert(s, far)", InvalidModel, "does not go with"),
        ("s = SplitToSequence(x, none) y = SequenceAt(s, none)", InvalidModel, "have the size 0"),
        (
            "s = SplitToSequence(x, wrong) y = SequenceAt(s, none)",
            InvalidModel,
            "parts of 5 in all",
        ),
        ("y = SequenceConstruct(x)", Unsupported, "the output 'y' is a sequence of tensors"),
        ("s = SequenceConstruct(x) y = com.microsoft.Gelu(s)", InvalidModel, "0 is a sequence"),
    ],
)
def test_what_cannot_be(text: str, error: type[TbcError], match: str) -> None:
    made = of(text, {"far": np.array(5), "none": np.array(0), "wrong": i64(2, 3)})
    with pytest.raises(error, match=match):
        frontend.load(made)


def test_positions_and_numbers_are_known() -> None:
    text = "s = SplitToSequence<axis = 0>(x) y = SequenceAt(s, at)"
    at: dict[str, tuple[Any, Sequence[int | str]]] = {"at": (np.int64, ())}
    made = model(written(text), {"x": (np.float32, X.shape)} | at, opset=18)
    with pytest.raises(Unfixed, match="the position in a sequence"):
        frontend.load(made)
    known = model(written(text), {"x": (np.float32, ("n", 4))}, constants={"at": np.array(1)})
    with pytest.raises(Unfixed, match="the size of the axis that is split"):
        frontend.load(known)
    assert frontend.load(known, dims={"n": 3}).graph.outputs[0][1].type.shape == (1, 4)


# -- sparse tensors -------------------------------------------------------------------------------


def sparse(values: Array, places: Array, sizes: Sequence[int]) -> onnx.SparseTensorProto:
    value, place = numpy_helper.from_array(values, "w"), numpy_helper.from_array(places)
    return helper.make_sparse_tensor(value, place, list(sizes))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=12, max_size=12), st.booleans())
def test_sparse_weights(trits: Sequence[float], by_axes: bool) -> None:
    """Ternary weights of a product, as an initializer and as a node."""
    w = np.array(trits, np.float32).reshape(4, 3)
    places = np.argwhere(w) if by_axes else np.flatnonzero(w)
    tensor = sparse(w[w != 0], places.astype(np.int64), w.shape)
    made = of("y = MatMul(x, w)")
    made.graph.sparse_initializer.append(tensor)
    constant = of("w = Constant() y = MatMul(x, w)")
    constant.graph.node[0].attribute.append(helper.make_attribute("sparse_value", tensor))
    for each in (made, constant):
        np.testing.assert_allclose(
            by_tbc(frontend.load(each), {"x": X})[0], X @ w, rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize(
    ("places", "sizes", "match"),
    [
        (i64(0, 0), (4, 3), "do not ascend"),
        (i64(3, 1), (4, 3), "do not ascend"),
        (i64(3, 12), (4, 3), "do not ascend"),
        (i64(-1, 3), (4, 3), "do not ascend"),
        (np.array([[0, 0], [1, 3]]), (4, 3), "outside of"),
        (np.array([[0, 0], [-1, 2]]), (4, 3), "outside of"),
        (i64(0, 1, 2), (4, 3), "for indices"),
        (i64(0, 1).astype(np.int32), (4, 3), "of type i32"),
        (i64(0, 1), (1 << 20, 1 << 20), "with its zeros"),
    ],
)
def test_sparse_tensors_that_are_none(places: Array, sizes: Sequence[int], match: str) -> None:
    made = of("y = MatMul(x, w)")
    made.graph.sparse_initializer.append(sparse(np.ones(2, np.float32), places, sizes))
    with pytest.raises(TbcError, match=rf"sparse tensor 'w'.*{match}"):
        frontend.load(made)
