"""Branches, functions, and the names of outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_models import (
    Array,
    assert_close,
    by_tbc,
    check_against_onnxruntime,
    check_on,
    i64,
    model,
    nodes,
    normal,
    one_node,
    value_info,
)

from tbc import frontend, reference
from tbc.errors import InvalidModel, Unsupported

F = np.float32


def branch(name: str, *lines: str) -> onnx.GraphProto:
    return helper.make_graph(nodes(*lines), name, [], [onnx.ValueInfoProto(name="out")])


def chosen_by(condition: str, constants: dict[str, Array]) -> onnx.ModelProto:
    choice = helper.make_node(
        "If", [condition], ["y"], name="choice",
        then_branch=branch("yes", "t = Abs(x)", "out = Neg(t)"),
        else_branch=branch("no", "out = Exp(x)"),
    )  # fmt: skip
    lines = nodes("s = Size(x)", "many = Greater(s, limit)")
    return model(
        [*lines, choice], {"x": (F, [3]), "given": (np.bool_, [])}, ["y"],
        {"limit": i64(2)[0], **constants},
    )  # fmt: skip


@pytest.mark.parametrize("limit", [2, 5])
def test_a_condition_known_at_import_chooses(limit: int) -> None:
    proto = chosen_by("many", {"limit": i64(limit)[0]})
    imported = check_on(proto, {"x": normal(1, 3), "given": np.array(True)})
    assert any(v.origin.startswith("choice/") for v in imported.graph.values())


@pytest.mark.parametrize("given", [False, True])
def test_a_condition_from_data_selects(given: bool) -> None:
    check_on(chosen_by("given", {}), {"x": normal(1, 3), "given": np.array(given)})


def test_checks_in_a_branch_count_only_where_it_is_taken() -> None:
    lines = ("out = Gather(x, i)", "out = Identity(x)")
    choice = helper.make_node(
        "If", ["given"], ["y"],
        **{f"{w}_branch": branch(w, line) for w, line in zip(("then", "else"), lines, strict=True)},
    )  # fmt: skip
    inputs = {"x": (F, [2]), "i": (np.int64, [2]), "given": (np.bool_, [])}
    graph = frontend.load(model([choice], inputs)).graph
    feeds = {"x": normal(1, 2), "i": i64(0, 5)}
    for given in (False, True):
        (wrong,) = reference.run(graph.checks, {**feeds, "given": np.array(given)})
        assert wrong == given


def test_branches_of_different_shapes_need_a_known_condition() -> None:
    proto = chosen_by("given", {})
    proto.graph.node[2].attribute[0].g.node.append(nodes("rest = Size(out)")[0])
    proto.graph.node[2].attribute[0].g.output[0].name = "rest"
    with pytest.raises(Unsupported, match="node 'choice': If: the condition depends"):
        frontend.load(proto)


# -- loops ----------------------------------------------------------------------------------------


def rounds(*lines: str, inputs: Sequence[str], outputs: Sequence[str]) -> onnx.GraphProto:
    """The body of a loop; its inputs and outputs have no declared types."""
    made = [onnx.ValueInfoProto(name=n) for n in (*inputs, *outputs)]
    return helper.make_graph(nodes(*lines), "body", made[: len(inputs)], made[len(inputs) :])


def looping(trips: Array | None, go_on: str = "again = Identity(go)") -> onnx.ModelProto:
    body = rounds(
        go_on, "h1 = Mul(h, x)", "row = Add(h1, x)",
        inputs=["i", "go", "h"], outputs=["again", "h1", "row"],
    )  # fmt: skip
    names = ["" if trips is None else "trips", "", "x"]
    node = helper.make_node("Loop", names, ["y", "rows"], name="loop", body=body)
    constants = {"three": i64(3)[0]} | ({} if trips is None else {"trips": trips})
    return model([node], {"x": (F, [3])}, ["y", "rows"], constants)


@pytest.mark.parametrize("trips", [1, 4])
def test_a_loop_is_written_out(trips: int) -> None:
    x = {"x": normal(1, 3)}
    (y, rows) = by_tbc(frontend.load(looping(np.array(trips))), x)
    assert_close(y, x["x"] ** (trips + 1), 4)
    assert_close(rows, np.stack([x["x"] ** (i + 2) + x["x"] for i in range(trips)]), 4)


def test_a_loop_without_rounds_gives_empty_rows() -> None:
    x = {"x": normal(1, 3)}
    (y, rows) = by_tbc(frontend.load(looping(np.array(0))), x)
    assert_close(y, x["x"])
    assert rows.shape == (0, 3)


def test_a_loop_ends_by_a_condition_on_its_counter() -> None:
    x = {"x": normal(1, 3)}
    (y, rows) = by_tbc(frontend.load(looping(None, "again = Less(i, three)")), x)
    assert rows.shape == (4, 3)
    assert_close(y, x["x"] ** 5, 4)


def test_a_loop_that_data_ends_or_that_does_not_end_is_refused() -> None:
    by_data = looping(None, "again = Greater(h, x)")
    with pytest.raises(Unsupported, match="how often a loop runs depends on the data"):
        frontend.load(by_data)
    with pytest.raises(Unsupported, match="rounds, written out, are over"):
        frontend.load(looping(None))


def test_a_scan_backwards_over_two_axes() -> None:
    body = rounds(
        "s1 = Add(s, a)", "out = Mul(s1, b)", inputs=["s", "a", "b"], outputs=["s1", "out"]
    )
    node = helper.make_node(
        "Scan", ["s0", "a0", "b0"], ["y", "z"], body=body, num_scan_inputs=2,
        scan_input_axes=[0, 1], scan_input_directions=[1, 0], scan_output_axes=[1],
        scan_output_directions=[1],
    )  # fmt: skip
    shapes = {"s0": (3,), "a0": (4, 3), "b0": (3, 4)}
    feeds = {n: normal(i, *s) for i, (n, s) in enumerate(shapes.items())}
    inputs = {n: (F, list(a.shape)) for n, a in feeds.items()}
    proto = model([node], inputs, ["y", "z"])
    for graph in (proto.graph.node[0].attribute[0].g,):
        for value in (*graph.input, *graph.output):
            value.CopyFrom(value_info(value.name, TensorProto.FLOAT, [3]))
    check_on(proto, feeds)


# -- functions ------------------------------------------------------------------------------------


def twice_plus() -> onnx.FunctionProto:
    return helper.make_function(
        "my.domain", "TwicePlus", ["a", "b"], ["r"],
        [*nodes("d = Add(a, a)"), helper.make_node("LeakyRelu", ["d"], ["e"]),
         helper.make_node("Add", ["e", "b"], ["r"])],
        [helper.make_opsetid("", 17)], ["alpha"],
    )  # fmt: skip


def calling(function: onnx.FunctionProto, inputs: list[str]) -> onnx.ModelProto:
    reference_to_alpha = onnx.AttributeProto(
        name="alpha", ref_attr_name="alpha", type=onnx.AttributeProto.FLOAT
    )
    function.node[1].attribute.append(reference_to_alpha)
    call = helper.make_node(
        function.name, inputs, ["y"], domain=function.domain, name="call", alpha=0.25
    )
    return model([call], {"x": (F, ["n"])}, functions=[function])


def test_functions_of_the_model_are_inlined() -> None:
    imported = check_on(calling(twice_plus(), ["x", "x"]), {"x": normal(1, 5)})
    assert any(v.origin == "call/d" for v in imported.graph.values())


def test_errors_in_functions_name_the_call() -> None:
    function = twice_plus()
    function.node[2].op_type = "Conv"
    with pytest.raises(InvalidModel, match="node 'call/r': Conv"):
        frontend.load(calling(function, ["x", "x"]))


def test_an_input_that_a_function_lacks_is_missing_inside() -> None:
    with pytest.raises(InvalidModel, match="node 'call/r': Add: its input 'B' is missing"):
        frontend.load(calling(twice_plus(), ["x"]))


def test_functions_that_call_themselves_or_each_other_without_end_are_refused() -> None:
    function = twice_plus()
    function.node[0].op_type, function.node[0].domain = "TwicePlus", "my.domain"
    with pytest.raises(InvalidModel, match="calls itself"):
        frontend.load(calling(function, ["x", "x"]))
    tower = []
    for level in range(40):
        body = nodes("b = Abs(a)", "r = Abs(b)")
        for node in body if level else ():
            node.op_type, node.domain = f"F{level - 1}", "my.domain"
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.domain", 1)]
        tower.append(helper.make_function("my.domain", f"F{level}", ["a"], ["r"], body, opsets))
    call = helper.make_node("F39", ["x"], ["y"], domain="my.domain")
    with pytest.raises(Unsupported, match="its 81 nodes become 2199023255551"):
        frontend.load(model([call], {"x": (F, [3])}, functions=tower))


# -- outputs --------------------------------------------------------------------------------------


def test_outputs_may_be_inputs_and_constants() -> None:
    constants = {"c": normal(1, 2)}
    proto = model(nodes("y = Abs(x)"), {"x": (F, ["n"]), "unused": (F, [2])},
                  ["c", "x", "y"], constants)  # fmt: skip
    for output in proto.graph.output:
        output.CopyFrom(value_info(output.name, TensorProto.FLOAT, None))
    imported = frontend.load(proto)
    assert [name for name, _ in imported.graph.outputs] == ["c", "x", "y"]
    assert len(imported.graph.inputs) == 2
    feeds = {"x": normal(2, 3), "unused": normal(3, 2)}
    for got, expected in zip(
        by_tbc(imported, feeds), (constants["c"], feeds["x"], np.abs(feeds["x"])), strict=True
    ):
        assert_close(got, expected)


def test_the_graph_is_called_as_the_file(tmp_path: Any) -> None:
    proto, feeds = one_node("Abs", [normal(1, 3)])
    path = tmp_path / "my_model.onnx"
    path.write_bytes(proto.SerializeToString())
    assert frontend.load(path).graph.name == "my_model"
    assert frontend.load(proto).graph.name == "model"
    check_against_onnxruntime(proto, feeds)
