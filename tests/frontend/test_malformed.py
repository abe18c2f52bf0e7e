"""Malformed models: each is refused with the right error, that names the place, and quickly."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from malformed import product, refused
from onnx import TensorProto, helper
from onnx_models import (
    MICROSOFT,
    QONNX,
    by_tbc,
    check_against_onnxruntime,
    i64,
    model,
    nodes,
    normal,
    one_node,
    value_info,
)

from tbc import frontend
from tbc.errors import InternalError, InvalidModel, TbcError, Unsupported

X = normal(1, 3, 4)
Change = Callable[[onnx.ModelProto], None]


def set_(path: str, value: Any) -> Change:
    """A change that assigns to a field, as in "graph.node[0].op_type"."""
    return lambda m: exec(f"m.{path} = value", {"m": m, "value": value})


def run(code: str) -> Change:
    """A change that is a statement on the model m."""
    return lambda m: exec(code, {"m": m, "helper": helper, "TensorProto": TensorProto, "np": np})


def info(name: str, shape: list[Any], code: int = 1) -> onnx.ValueInfoProto:
    return value_info(name, code, shape)


MALFORMED: list[tuple[str, Change, type[TbcError], str]] = [
    # names and order
    ("dangling", set_("graph.node[0].input[0]", "z"), InvalidModel, "'mm': MatMul: .*'z' is not"),
    ("cycle", set_("graph.node[0].input[0]", "y"), InvalidModel, "'mm': MatMul: .*cycle"),
    ("self", set_("graph.node[1].input[0]", "y"), InvalidModel, "'act': Relu: .*cycle"),
    ("twice", set_("graph.node[1].output[0]", "a"), InvalidModel, "'act': .*defined already"),
    ("shadow", set_("graph.node[1].output[0]", "w"), InvalidModel, "'act': .*defined already"),
    ("output", set_("graph.output[0].name", "z"), InvalidModel, "output 'z' is not defined"),
    ("no outputs", run("del m.graph.output[:]"), InvalidModel, "no outputs"),
    ("two outputs", run("m.graph.output.add().name = 'y'"), InvalidModel, "two outputs"),
    ("two inputs", run("m.graph.input.append(m.graph.input[0])"), InvalidModel, "two inputs"),
    ("two tensors", run("m.graph.initializer.append(m.graph.initializer[0])"), InvalidModel, "two"),
    ("unnamed input", set_("graph.input[0].name", ""), InvalidModel, "is not defined"),
    # the header
    ("no graph", run("m.ClearField('graph')"), InvalidModel, "no graph"),
    ("no opset", run("del m.opset_import[:]"), InvalidModel, "opset_import"),
    ("new opset", set_("opset_import[0].version", 999), Unsupported, "999 is newer than"),
    ("old opset", set_("opset_import[0].version", 3), Unsupported, "3 is older than 7"),
    ("no such opset", set_("opset_import[0].version", -1), Unsupported, "-1 is older"),
    ("other opset", run("m.opset_import.add(domain='ai.onnx.preview').version = -(1 << 63)"),
     InvalidModel, "version -9223372036854775808 of the domain 'ai.onnx.preview'"),
    ("two opsets", run("m.opset_import.add().version = 9"), InvalidModel, "in two versions"),
    # operators, attributes, inputs
    ("operator", set_("graph.node[1].op_type", "Rely"), InvalidModel, "'act': Rely: .*no operator"),
    ("domain", set_("graph.node[1].domain", "com.me"), InvalidModel, "com.me::Relu: its domain"),
    ("supported", set_("graph.node[1].op_type", "Multinomial"), Unsupported, "Multi.* random"),
    ("few inputs", run("del m.graph.node[0].input[1]"), InvalidModel, "'mm': .*1 inputs instead"),
    ("inputs", run("m.graph.node[1].input.append('x')"), InvalidModel, "2 inputs instead of 1"),
    ("empty input", set_("graph.node[0].input[1]", ""), InvalidModel, "input 'B' is missing"),
    ("outputs", run("m.graph.node[1].output.append('z')"), InvalidModel, "2 outputs instead"),
    ("attribute",
     run("m.graph.node[1].attribute.append(helper.make_attribute('alpha', 1.0))"),
     InvalidModel, "'act': Relu: .*'alpha' does not exist"),
    # shapes and types
    ("shape", set_("graph.input[0].type.tensor_type.shape.dim[1].dim_value", 3),
     InvalidModel, "'mm': MatMul: .*3 is not 4"),
    ("huge", run("m.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1 << 62"),
     InvalidModel, "'x' has more elements"),
    ("element type", set_("graph.input[0].type.tensor_type.elem_type", 11),
     InvalidModel, "'mm': MatMul: its input 'B' is f32, another one is f64"),
    ("no such type", run("m.graph.node[1].op_type = 'And'; m.graph.node[1].input.append('a')"),
     InvalidModel, "'act': And: its input 'A' cannot be of type f32"),
    ("no type", set_("graph.input[0].type.tensor_type.elem_type", 0), InvalidModel, "'x' .*type 0"),
    ("unknown type", set_("graph.input[0].type.tensor_type.elem_type", 99), InvalidModel, "99"),
    ("text", set_("graph.input[0].type.tensor_type.elem_type", 8), Unsupported, "'x' .*STRING"),
    ("no shape", run("m.graph.input[0].type.tensor_type.ClearField('shape')"),
     Unsupported, "'x' has no shape"),
    ("sequence", run("m.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = 1"),
     Unsupported, "'x' is a sequence"),
    ("nothing", run("m.graph.input[0].ClearField('type')"), InvalidModel, "'x' has no type"),
    # tensors
    ("short", run("t = m.graph.initializer[0]; t.raw_data = t.raw_data[:-1]"),
     InvalidModel, "'w' holds 79 bytes .* needs 80"),
    ("long", run("t = m.graph.initializer[0]; t.raw_data = t.raw_data + b'0'"),
     InvalidModel, "'w' holds 81 bytes"),
    ("no data", run("m.graph.initializer[0].ClearField('raw_data')"),
     InvalidModel, "'w' holds 0 numbers in float_data"),
    ("wrong field", run("m.graph.initializer[0].ClearField('raw_data'); "
                        "m.graph.initializer[0].int32_data.extend(range(20))"),
     InvalidModel, "'w' holds 0 numbers in float_data"),
    ("negative dim", set_("graph.initializer[0].dims[0]", -4), InvalidModel, "'w' has a negative"),
    ("overflow", run("m.graph.initializer[0].dims[:] = [1 << 33, 1 << 31, 2]"),
     InvalidModel, "'w' has more elements"),
    ("zero overflow", run("m.graph.initializer[0].dims[:] = [1 << 62, 0, 8]"),
     InvalidModel, "'w' has more elements"),
    ("large", run("m.graph.initializer[0].dims[:] = [1 << 40, 1 << 18]"),
     InvalidModel, "'w' holds 80 bytes"),
    ("many axes", run("m.graph.initializer[0].dims[:] = [1] * 65"), InvalidModel, "65 axes"),
    ("text tensor", set_("graph.initializer[0].data_type", 8), Unsupported, "'w' .*STRING"),
    ("no tensor type", set_("graph.initializer[0].data_type", 0), InvalidModel, "'w' .*type 0"),
    ("two fields", run("m.graph.initializer[0].float_data.append(1)"),
     InvalidModel, "'w' holds data in raw_data and in float_data"),
    ("segment", run("m.graph.initializer[0].segment.begin = 0"), Unsupported, "'w' is a segment"),
    ("attribute twice",
     run("m.graph.node[0].attribute.extend([helper.make_attribute('a', 1)] * 2)"),
     InvalidModel, "'mm': MatMul: .*'a' is given twice"),
    ("attribute type",
     run("m.graph.node[1].op_type = 'Elu'; "
         "m.graph.node[1].attribute.append(helper.make_attribute('alpha', 1))"),
     InvalidModel, "'act': Elu: .*'alpha' is of type INT instead of FLOAT"),
    ("sparse", run("t = m.graph.sparse_initializer.add().values; "
                   "t.CopyFrom(m.graph.initializer.pop())"), InvalidModel, "a tensor has the elem"),
]  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED, ids=[c[0] for c in MALFORMED])
def test_malformed(case: tuple[str, Change, type[TbcError], str]) -> None:
    _, change, error, match = case
    proto = product()
    frontend.load(proto)
    change(proto)
    refused(proto, error, match)
    refused(proto.SerializeToString(), error, match)


def test_errors_say_where_what_and_why(tmp_path: Path) -> None:
    proto = product()
    proto.graph.node[0].input[0] = "z"
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    error = refused(path, InvalidModel)
    assert (error.file, error.node, error.op) == (str(path), "mm", "MatMul")
    assert str(error) == f"{path}: node 'mm': MatMul: its input 'z' is not defined"


def test_a_node_without_a_name_is_called_by_its_output() -> None:
    proto = product()
    proto.graph.node[0].name = ""
    proto.graph.node[0].op_type = "Rely"
    assert refused(proto, InvalidModel).node == "a"


@pytest.mark.parametrize("data", [b"", b"\0", b"not a model", bytes(range(256)) * 9])
def test_bytes_that_are_no_model(data: bytes, tmp_path: Path) -> None:
    refused(data, InvalidModel)
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    assert refused(path, InvalidModel).file == str(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    refused(tmp_path / "none.onnx", InvalidModel, "none.onnx: the file cannot be read: No such")
    refused(tmp_path, InvalidModel, "cannot be read")


def test_every_truncation_is_refused_or_harmless() -> None:
    data = product().SerializeToString()
    for size in range(len(data)):
        try:
            frontend.load(data[:size])
        except (InvalidModel, Unsupported):
            continue


def test_names_that_are_not_text_are_refused() -> None:
    data = product().SerializeToString().replace(b"act", b"\xff\xfe\xfd")
    refused(data, InvalidModel, "not UTF-8")


def test_unsorted_nodes_are_sorted() -> None:
    proto = product()
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(reversed(nodes))
    check_against_onnxruntime(proto, {"x": X})


def test_a_newer_ir_version_is_a_warning() -> None:
    proto = product()
    proto.ir_version = onnx.IR_VERSION + 1
    (warning,) = frontend.load(proto).warnings
    assert str(onnx.IR_VERSION + 1) in warning


def test_what_outputs_do_not_need_may_be_unsupported() -> None:
    proto = product()
    proto.graph.node.append(helper.make_node("Multinomial", ["a"], ["b"]))
    proto.graph.node.append(helper.make_node("Abs", ["b"], ["c"]))
    proto.graph.initializer.append(helper.make_tensor("s", TensorProto.STRING, [1], [b"text"]))
    check_against_onnxruntime(proto, {"x": X})


def test_a_wrong_value_info_is_ignored() -> None:
    proto = product()
    proto.graph.value_info.append(info("a", [9, 9], TensorProto.INT8))
    proto.graph.output[0].CopyFrom(info("y", ["n", 5]))
    assert frontend.load(proto).graph.outputs[0][1].type.rank == 2


def test_initializers_that_are_inputs_are_constants() -> None:
    proto = product()
    proto.graph.input.append(info("w", [4, 5]))
    imported = check_against_onnxruntime(proto, {"x": X})
    assert len(imported.graph.inputs) == 1
    assert "1 inputs have initializers" in imported.warnings[0]


def test_a_default_domain_operator_needs_its_opset() -> None:
    proto, _ = one_node("Gelu", [X], domain=MICROSOFT)
    proto.opset_import.remove(proto.opset_import[0])
    frontend.load(proto)
    proto.graph.node[0].domain = ""
    refused(proto, InvalidModel, "node 'it': Gelu: its domain '' is not in opset_import")


# -- nesting --------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [102, 20_000])
def test_graphs_in_graphs(depth: int) -> None:
    proto = product()
    graph = proto.graph
    for _ in range(depth):
        attribute = graph.node.add(op_type="If", input=["x"]).attribute.add(name="then_branch")
        graph = attribute.g
    refused(proto, Unsupported, "graphs nest deeper than 100")


def test_bytes_that_nest_deeper_than_protobuf_reads() -> None:
    def field(number: int, data: bytes) -> bytes:
        size = len(data)
        digits = [size >> 7 * i & 127 | 128 for i in range(3)]
        return bytes([number << 3 | 2, *digits, size >> 21]) + data

    node = b""
    for _ in range(5000):
        node = field(5, field(6, field(1, node)))  # its attribute, of that the graph, a node there
    refused(field(7, field(1, node)), InvalidModel, "this is not an ONNX model")


def test_a_long_name_that_is_no_text_is_not_shown_whole() -> None:
    proto = product()
    proto.graph.name = "a" * 5000
    data = proto.SerializeToString().replace(b"a" * 5000, b"\xff" * 5000)
    assert len(str(refused(data, InvalidModel, "not UTF-8"))) < 300


def test_functions_in_graphs_in_functions() -> None:
    functions = []
    for level in range(6):
        body = nodes("r = F(a, c)" if level else "r = Neg(a)")
        body[0].domain, body[0].op_type = ("d", f"F{level - 1}") if level else ("", "Neg")
        for _ in range(20):
            branch = helper.make_graph(body, "branch", [], [onnx.ValueInfoProto(name="r")])
            body = [helper.make_node("If", ["c"], ["r"], then_branch=branch, else_branch=branch)]
            del body[0].attribute[1].g.node[:]
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("d", 1)]
        functions.append(helper.make_function("d", f"F{level}", ["a", "c"], ["r"], body, opsets))
    call = helper.make_node("F5", ["x", "c"], ["y"], domain="d")
    inputs = {"x": (np.float32, [2]), "c": (np.bool_, [])}
    refused(
        model([call], inputs, functions=functions), Unsupported, "functions and graphs nest deeper"
    )


def test_functions_that_call_each_other() -> None:
    opsets = [helper.make_opsetid("d", 1)]
    functions = [
        helper.make_function("d", own, ["a"], ["r"],
                             [helper.make_node(other, ["a"], ["r"], domain="d")], opsets)
        for own, other in ("FG", "GF")
    ]  # fmt: skip
    call = helper.make_node("F", ["x"], ["y"], domain="d")
    proto = model([call], {"x": (np.float32, [2])}, functions=functions)
    refused(proto, InvalidModel, "the function 'F' calls itself")


# -- found by the fuzzer --------------------------------------------------------------------------


def fed(op: str, *args: Any, fixed: Sequence[int] = (), **given: Any) -> onnx.ModelProto:
    arrays = [None if a is None else np.asarray(a) for a in args]
    return one_node(op, arrays, constant=fixed, **given)[0]


FOUND = [
    ("points", fed("ScatterND", X, np.int64(0), X), "no points"),
    ("no diagonal", fed("Trilu", X, i64(), fixed=[1]), "the diagonal has 0 elements"),
    ("no axis", fed("DFT", normal(1, 2, 8, 1), i64(), fixed=[1]), "dft_length has 0 elements"),
    ("no size", fed("Resize", X, None, None, i64(0, 4), fixed=[3]), "3 cannot become one of 0"),
    ("bits", fed("Quant", X, *np.float32([1, 0, np.inf]), fixed=[1, 2, 3], domain=QONNX),
     "no number of bits"),
    ("old axis", fed("DequantizeLinear", np.uint8([1, 2]), np.float32([1, 2]), opset=11),
     "opset 11 takes one scale"),
    ("delta", fed("Range", np.int64(0), np.int64(9), np.float32(0.5), fixed=[0, 1, 2]), "another"),
    ("no last axis", fed("SkipLayerNormalization", *np.float32([1, 2, 3]), domain=MICROSOFT), "-1"),
    ("flat cache", fed("RotaryEmbedding", normal(1, 1, 1, 2, 2), i64(0), *np.float32([1, 2]),
                       domain=MICROSOFT), r"its inputs .*f32\[\] lack an axis"),
    ("nothing to repeat", fed("Pad", X[:0], i64(1, 0, 0, 0), fixed=[1], mode="wrap"),
     "the axis 0 has no elements"),
]  # fmt: skip


@pytest.mark.parametrize("case", FOUND, ids=[f[0] for f in FOUND])
def test_found(case: tuple[str, onnx.ModelProto, str]) -> None:
    _, proto, match = case
    refused(proto, InvalidModel, match)


@pytest.mark.parametrize("mode", ["edge", "reflect", "wrap"])
def test_padding_of_a_size_that_may_be_0_is_checked(mode: str) -> None:
    proto = model(
        nodes("y = Pad(x, p)", y={"mode": mode}),
        {"x": (np.float32, ["n", 4])},
        constants={"p": i64(1, 0, 1, 0)},
        opset=19,
    )
    imported = check_against_onnxruntime(proto, {"x": X})
    with pytest.raises(ValueError, match="cannot accept"):
        by_tbc(imported, {"x": X[:0]})


# -- at random ------------------------------------------------------------------------------------


def test_random_damage_ends_in_a_typed_error() -> None:
    rng = random.Random(1)
    data = product().SerializeToString()
    for _ in range(1500):
        damaged = bytearray(data)
        for _ in range(rng.choice([1, 1, 2, 4])):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            frontend.load(bytes(damaged))
        except InternalError:
            raise
        except TbcError:
            continue
