"""Branches, functions, and the names of outputs."""

from __future__ import annotations

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

from tbc import frontend
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


def test_a_condition_from_data_is_refused() -> None:
    with pytest.raises(Unsupported, match="node 'choice': If: the condition depends"):
        frontend.load(chosen_by("given", {}))


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
    with pytest.raises(Unsupported, match="over 1048576 nodes"):
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
