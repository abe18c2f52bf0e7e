"""The models that the fuzzer starts from."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.corpus import CASES, CORPUS

LARGEST = 5000
"""Bytes of a seed: changes of small models are quick, and more often meet what matters."""
FLOAT = TensorProto.FLOAT


def seeds() -> list[bytes]:
    """Small models of every kind there is, without repetitions."""
    found = (*generated(), *of_onnx(), *of_corpus())
    return list(dict.fromkeys(data for data in found if len(data) <= LARGEST))


def generated() -> Iterator[bytes]:
    """Models made here, at least one of each way to write a tensor, a size, a graph or a body."""
    x = helper.make_tensor_value_info("x", FLOAT, ["n", 4])
    w = np.sign(np.arange(-8, 8, dtype=np.float32)).reshape(4, 4)
    image = helper.make_tensor_value_info("x", FLOAT, [1, 2, "h", "w"])
    kernel = np.ones((2, 2, 3, 3), np.float32)
    yield _model([_node("MatMul", "x w", "a"), _node("Relu", "a", "y")], x, w=w)
    yield _model([_node("Gemm", "x w b", "y", transB=1, alpha=0.5)], x, w=w, b=w[0])
    yield _model([_node("Conv", "x k", "y", strides=[2, 2], pads=[1, 1, 1, 1])], image, k=kernel)
    yield _model(
        [
            _node("QuantizeLinear", "x s z", "q"),
            _node("DequantizeLinear", "q s z", "d"),
            _node("DequantizeLinear", "c t", "e", axis=1),
            _node("MatMul", "d e", "y"),
        ],
        x,
        s=np.float32(0.1),
        z=np.uint8(7),
        c=w.astype(np.int8),
        t=np.full(4, 0.5, np.float32),
    )
    yield _model(
        [
            _node("Shape", "x", "s"),
            _node("Gather", "s zero", "n"),
            _node("Concat", "n minus", "t", axis=0),
            _node("Reshape", "x t", "r"),
            _node("Slice", "r zero n minus", "y"),
        ],
        x,
        zero=np.array([0]),
        minus=np.array([-1]),
    )
    yield _nested(x)
    yield _with_function(x, w)
    for code, field in _WIDTHS.items():
        yield _narrow(x, code, field)


_WIDTHS = {
    TensorProto.INT2: "raw_data",
    TensorProto.UINT4: "int32_data",
    TensorProto.INT8: "int32_data",
    TensorProto.BFLOAT16: "int32_data",
    TensorProto.DOUBLE: "double_data",
    TensorProto.UINT64: "uint64_data",
}


def _node(op: str, inputs: str, outputs: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def _model(
    nodes: list[onnx.NodeProto],
    x: onnx.ValueInfoProto,
    functions: tuple[onnx.FunctionProto, ...] = (),
    **constants: np.ndarray | np.generic | onnx.TensorProto,
) -> bytes:
    tensors = [
        c if isinstance(c, onnx.TensorProto) else numpy_helper.from_array(np.asarray(c), name)
        for name, c in constants.items()
    ]
    graph = helper.make_graph(nodes, "seed", [x], [onnx.ValueInfoProto(name="y")], tensors)
    opsets = [helper.make_opsetid("", 25), helper.make_opsetid("own", 1)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=functions)
    data: bytes = proto.SerializeToString()
    return data


def _narrow(x: onnx.ValueInfoProto, code: int, field: str) -> bytes:
    """A tensor of a type of its own, added to the input."""
    tensor = TensorProto(name="c", data_type=code, dims=[4])
    if field == "raw_data":
        tensor.raw_data = b"\xe4"
    else:
        getattr(tensor, field).extend([1, 2] if code == TensorProto.UINT4 else [1, 2, 3, 4])
    return _model([_node("Cast", "c", "f", to=FLOAT), _node("Add", "x f", "y")], x, c=tensor)


def _nested(x: onnx.ValueInfoProto) -> bytes:
    """A loop with a branch in it."""
    info = helper.make_tensor_value_info
    branches = {
        f"{name}_branch": helper.make_graph([_node(op, "a", name)], name, [], [info(name, 1, None)])
        for name, op in (("then", "Neg"), ("else", "Abs"))
    }
    body = helper.make_graph(
        [_node("Less", "i one", "early"), _node("If", "early", "b", **branches)],
        "body",
        [info("i", 7, []), info("going", 9, []), info("a", 1, None)],
        [info("going", 9, []), info("b", 1, None), info("a", 1, None)],
    )
    loop = helper.make_node("Loop", ["m", "", "x"], ["y", "rows"], body=body)
    return _model([loop], x, m=np.array(3), one=np.array(1))


def _with_function(x: onnx.ValueInfoProto, w: np.ndarray) -> bytes:
    """A call of a function with an attribute."""
    leaky = _node("LeakyRelu", "c", "r")
    leaky.attribute.append(
        onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    )
    function = helper.make_function(
        "own", "Act", ["a", "b"], ["r"], [_node("MatMul", "a b", "c"), leaky],
        [helper.make_opsetid("", 25)], ["slope"],
    )  # fmt: skip
    call = helper.make_node("Act", ["x", "w"], ["y"], domain="own", slope=0.1)
    return _model([call], x, (function,), w=w)


def of_onnx() -> Iterator[bytes]:
    """The models of ONNX's node tests; those with integer inputs also with these as constants."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = load_model_tests(kind="node")
    for case in cases:
        yield case.model.SerializeToString()
        if case.data_sets:
            yield _with_constants(case.model, case.data_sets[0][0])


def _with_constants(model: onnx.ModelProto, feeds: list[object]) -> bytes:
    """The model with its integer inputs as initializers."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model)
    for given, feed in zip(model.graph.input, feeds, strict=False):
        array = numpy_helper.to_array(feed) if isinstance(feed, TensorProto) else feed
        if isinstance(array, np.ndarray) and array.dtype.kind in "iub" and array.size < LARGEST:
            proto.graph.initializer.append(numpy_helper.from_array(array, given.name))
    data: bytes = proto.SerializeToString()
    return data


def of_corpus() -> Iterator[bytes]:
    """The files of the corpus beside the checkout, if it is there."""
    for name in CASES:
        path = CORPUS / name / "model.onnx"
        if path.stat().st_size <= LARGEST:
            yield path.read_bytes()
