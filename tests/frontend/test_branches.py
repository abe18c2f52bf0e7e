"""Branches that data chooses: only the one that is taken runs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from compiled import Native
from onnx import helper
from onnx_models import Array, assert_close, by_onnxruntime, i64, model, nodes, normal
from strategies import assert_same

from tbc import frontend, ops, reference
from tbc.codegen.machine import Workers
from tbc.errors import InvalidModel
from tbc.program import Program

F = np.float32


def branch(*made: str | onnx.NodeProto) -> onnx.GraphProto:
    """A nested graph; the last node makes its output."""
    protos = [n for m in made for n in (nodes(m) if isinstance(m, str) else [m])]
    out = onnx.ValueInfoProto(name=protos[-1].output[0])
    return helper.make_graph(protos, "branch", [], [out])


def choice(
    condition: str, output: str, yes: onnx.GraphProto, no: onnx.GraphProto
) -> onnx.NodeProto:
    return helper.make_node("If", [condition], [output], then_branch=yes, else_branch=no)


def agree(proto: onnx.ModelProto, workers: Workers, *feeds: dict[str, Array]) -> Program:
    compiled = Native(frontend.load(proto, dims={"n": (1, 9)}).graph, workers)
    for given in feeds:
        exact = reference.run_graph(compiled.lowered, given)
        (wanted,) = by_onnxruntime(proto, given)
        for parts in (1, 3):
            run = compiled.run(given, parts)
            assert run.status == 0
            assert_same(run.outputs["y"], exact["y"])
        assert_close(exact["y"], wanted, 4)
    return compiled.program


def dot_guards(program: Program) -> list[list[bool]]:
    """For each matrix product, what the conditions must be on which it runs."""
    products = [s for s in program.all_steps if isinstance(s.anchor.op, ops.MatMul)]
    return [[holds for _, holds in s.guards] for s in products]


CONSTANTS = {n: normal(i, 16, 16) for i, n in enumerate("uvw")} | {"zero": np.array(0, F)}


def test_work_in_a_branch_is_guarded_also_by_the_branches_around_it(workers: Workers) -> None:
    inner = choice("d", "o", branch("p = MatMul(x, w)", "q = Relu(p)"),
                   branch("r = MatMul(x, v)", "s = Softmax(r)"))  # fmt: skip
    decide = nodes("m = ReduceMax(x)", "d = Greater(m, limit)", m={"keepdims": 0})
    otherwise = branch("a = MatMul(early, w)", "b = Tanh(a)")
    outer = choice("c", "z", branch(*decide, inner), otherwise)
    lines = nodes("early = MatMul(x, u)", "t = ReduceSum(x)", "c = Greater(t, zero)",
                  t={"keepdims": 0})  # fmt: skip
    inputs = {"x": (F, ["n", 16]), "limit": (F, [])}
    proto = model([*lines, outer, *nodes("y = Add(z, zero)")], inputs, ["y"], CONSTANTS)
    feeds = [
        {"x": F(sign) * np.abs(normal(n, n, 16)), "limit": np.array(limit, F)}
        for n, sign, limit in ((1, 1, 0), (5, 1, 99), (9, -1, 0), (3, -1, 99))
    ]
    found = dot_guards(agree(proto, workers, *feeds))
    assert sorted(found) == [[False], [False], [True, False], [True, True]]


def test_what_both_branches_need_always_runs(workers: Workers) -> None:
    node = choice("c", "z", branch("a = Abs(m)"), branch("b = Neg(m)"))
    lines = nodes("m = MatMul(x, w)")
    proto = model([*lines, node, *nodes("y = Add(z, zero)")],
                  {"x": (F, ["n", 16]), "c": (np.bool_, [])}, ["y"], CONSTANTS)  # fmt: skip
    feeds = [{"x": normal(3, 3, 16), "c": np.array(c)} for c in (False, True)]
    assert dot_guards(agree(proto, workers, *feeds)) == [[]]


def test_a_branch_is_skipped_in_each_round_of_a_loop(workers: Workers) -> None:
    node = choice("c", "k", branch("a = MatMul(h, w)", "b = Tanh(a)"), branch("e = Identity(h)"))
    body = helper.make_graph(
        [*nodes("at = Gather(flags, i)", "c = Cast(at)", c={"to": onnx.TensorProto.BOOL}), node,
         *nodes("again = Identity(go)")], "body",
        [helper.make_tensor_value_info("i", onnx.TensorProto.INT64, []),
         helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, []),
         helper.make_tensor_value_info("h", onnx.TensorProto.FLOAT, [1, 16])],
        [helper.make_tensor_value_info("again", onnx.TensorProto.BOOL, []),
         helper.make_tensor_value_info("k", onnx.TensorProto.FLOAT, [1, 16])],
    )  # fmt: skip
    loop = helper.make_node("Loop", ["most", "", "x"], ["y"], body=body)
    proto = model(
        [*nodes("s = Shape(flags)", "most = Squeeze(s, front)"), loop],
        {"x": (F, [1, 16]), "flags": (np.int64, ["n"])}, ["y"], {**CONSTANTS, "front": i64(0)},
    )  # fmt: skip
    feeds = [{"x": normal(3, 1, 16), "flags": i64(*flags)} for flags in ((0,), (1, 0, 1, 1, 0))]
    assert dot_guards(agree(proto, workers, *feeds)) == [[True]]


def test_a_branch_for_other_sizes_is_an_error_of_the_call_that_takes_it(workers: Workers) -> None:
    node = choice("c", "y", branch("a = MatMul(x, w)"), branch("b = MatMul(x, short)"))
    constants = {**CONSTANTS, "short": normal(4, 8, 16)}
    proto = model([node], {"x": (F, [2, 16]), "c": (np.bool_, [])}, ["y"], constants)
    imported = frontend.load(proto)
    (warning,) = imported.warnings
    assert "a call must not take it: node 'y/b': MatMul: " in warning
    compiled = Native(imported.graph, workers)
    feeds = {"x": normal(3, 2, 16), "c": np.array(True)}
    assert_close(compiled.run(feeds).outputs["y"], feeds["x"] @ CONSTANTS["w"], 4)
    assert compiled.run({**feeds, "c": np.array(False)}).status == 7  # TBC_ERROR_VALUE
    proto.graph.node[0].attribute[1].g.node[0].input[1] = "short"
    with pytest.raises(InvalidModel, match="node 'y/a': MatMul"):
        frontend.load(proto)
