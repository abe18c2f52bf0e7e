"""Changes of ONNX models at random: any field of any message, and some that keep models valid."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, defs, helper, numpy_helper

from tbc.frontend.operators import ONNX, OTHERS
from tests.fuzz.fields import FLOATS, I64, MOST_BYTES, any_field, damaged, graft, integer, messages

Random: TypeAlias = random.Random
Change: TypeAlias = Callable[[onnx.ModelProto, Random], None]

_IMPOSSIBLE = (ValueError, TypeError, KeyError, NotImplementedError, DecodeError)
"""How changes fail on models that are broken already, or in types that NumPy does not have."""
_VERSIONS = (7, 9, 11, 13, 17, 18, 21, 23, 25, defs.onnx_opset_version())
SCHEMAS = sorted({s.name for s in defs.get_all_schemas() if s.domain == ""})
OPERATORS = sorted({("", name) for name in (*SCHEMAS, *ONNX)} | set(OTHERS))


def mutated(model: onnx.ModelProto, rng: Random, others: Sequence[onnx.ModelProto] = ()) -> bytes:
    """The bytes of the model after a few changes; parts of `others` may come in."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5))):
        try:
            if others and rng.random() < 0.1:
                graft(proto, rng.choice(others), rng)
            else:
                rng.choices(CHANGES, WEIGHTS)[0](proto, rng)
        except _IMPOSSIBLE:
            continue
    data: bytes = proto.SerializePartialToString()
    return damaged(data, rng) if rng.random() < 0.05 else data


def mutated_bytes(data: bytes, rng: Random, others: Sequence[onnx.ModelProto] = ()) -> bytes:
    """The bytes changed: as a model where they are one, otherwise byte by byte."""
    try:
        return mutated(onnx.ModelProto.FromString(data), rng, others)
    except DecodeError:
        return damaged(data, rng)


# -- changes that keep much of the meaning --------------------------------------------------------


def _nodes(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [m for m in messages(proto) if isinstance(m, onnx.NodeProto)]


def _tensors(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    return [m for m in messages(proto) if isinstance(m, onnx.TensorProto)]


def _operator(proto: onnx.ModelProto, rng: Random) -> None:
    """Another operator for a node, with its attributes or without."""
    if nodes := _nodes(proto):
        node = rng.choice(nodes)
        node.domain, node.op_type = rng.choice(OPERATORS)
        if node.domain and rng.random() < 0.9:
            proto.opset_import.add(domain=node.domain, version=1)
        if rng.random() < 0.5:
            del node.attribute[:]


def _attribute(proto: onnx.ModelProto, rng: Random) -> None:
    """An attribute that the operator has, with a value of the right type."""
    nodes = [n for n in _nodes(proto) if n.domain == "" and n.op_type in SCHEMAS]
    if not nodes:
        return
    node = rng.choice(nodes)
    attributes = defs.get_schema(node.op_type).attributes
    if not attributes:
        return
    name = rng.choice(sorted(attributes))
    value = _attribute_value(attributes[name], rng)
    if value is not None:
        kept = [a for a in node.attribute if a.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, value])


def _attribute_value(formal: Any, rng: Random) -> onnx.AttributeProto | None:
    kind = int(formal.type.value)
    made = onnx.AttributeProto(name=formal.name, type=kind)
    count = rng.choice((0, 1, 2, 2, 3, 4, 4, 6))
    low, high = I64
    integers = [max(low, min(high, integer(1, rng))) for _ in range(count + 1)]
    match kind:
        case onnx.AttributeProto.INT:
            made.i = integers[0]
        case onnx.AttributeProto.INTS:
            made.ints.extend(integers[:count])
        case onnx.AttributeProto.FLOAT:
            made.f = rng.choice(FLOATS)
        case onnx.AttributeProto.FLOATS:
            made.floats.extend(rng.choice(FLOATS) for _ in range(count))
        case onnx.AttributeProto.STRING:
            made.s = rng.choice(_WORDS)
        case _:
            return None
    return made


_WORDS = (
    b"NOTSET", b"SAME_UPPER", b"SAME_LOWER", b"VALID", b"constant", b"reflect", b"edge", b"wrap",
    b"linear", b"nearest", b"cubic", b"align_corners", b"half_pixel", b"tf_crop_and_resize",
    b"floor", b"add", b"mul", b"max", b"DCR", b"CRD", b"forward", b"bidirectional", b"avg",
    b"ij,jk->ik", b"ii->i", b"...i->...", b"i->ij", b"not_larger", b"tanh", b"none", b"\xff",
)  # fmt: skip


def _elements(proto: onnx.ModelProto, rng: Random) -> None:
    """Other elements in a tensor, in other sizes or the same."""
    tensors = [t for t in _tensors(proto) if t.data_location != TensorProto.EXTERNAL]
    if not tensors:
        return
    tensor = rng.choice(tensors)
    dims = list(tensor.dims)
    if dims and rng.random() < 0.4:
        dims[rng.randrange(len(dims))] = rng.choice((0, 1, 2, 3, 5))
    elif rng.random() < 0.1:
        dims = [rng.choice((0, 1, 2, 3)) for _ in range(rng.randrange(6))]
    old = numpy_helper.to_array(tensor)
    array = np.resize(old, dims) if old.size else np.zeros(dims, old.dtype)
    if array.size > MOST_BYTES:
        return
    flat = array.reshape(-1)
    if flat.size and flat.dtype.kind in "iufb":
        with np.errstate(all="ignore"):
            for _ in range(rng.choice((0, 1, 1, 2, flat.size))):
                flat[rng.randrange(flat.size)] = _element(flat.dtype, rng)
    if flat.dtype.kind in "iufb":
        tensor.CopyFrom(numpy_helper.from_array(flat.reshape(dims), tensor.name))


def _element(dtype: Any, rng: Random) -> Any:
    if dtype.kind == "f":
        return np.float64(rng.choice(FLOATS)).astype(dtype)
    if dtype.kind == "b":
        return rng.random() < 0.5
    limits = np.iinfo(dtype)
    return max(int(limits.min), min(int(limits.max), integer(1, rng)))


def _size(proto: onnx.ModelProto, rng: Random) -> None:
    """Another size of an input, or another rank."""
    if not proto.graph.input:
        return
    shape = rng.choice(proto.graph.input).type.tensor_type.shape
    if not shape.dim or rng.random() < 0.2:
        shape.dim.add()
    elif rng.random() < 0.2:
        del shape.dim[rng.randrange(len(shape.dim))]
    if shape.dim:
        dim = rng.choice(shape.dim)
        if rng.random() < 0.3:
            dim.dim_param = rng.choice(("n", "m", "n + 1", "2*n", "n//2"))
        else:
            dim.dim_value = rng.choice((0, 1, 2, 3, 4, 5, 8)) if rng.random() < 0.7 else (
                max(I64[0], min(I64[1], integer(1, rng)))
            )  # fmt: skip


def _element_type(proto: onnx.ModelProto, rng: Random) -> None:
    """Another element type of an input."""
    if proto.graph.input:
        type = rng.choice(proto.graph.input).type.tensor_type
        type.elem_type = rng.randrange(27)


def _opset(proto: onnx.ModelProto, rng: Random) -> None:
    """Another version of ONNX's operator set."""
    for item in proto.opset_import:
        if item.domain == "":
            item.version = rng.choice(_VERSIONS)


def _new_node(proto: onnx.ModelProto, rng: Random) -> None:
    """A node more, on values that there are; its output may become the graph's."""
    names = [n for node in proto.graph.node for n in node.output if n]
    names += [i.name for i in (*proto.graph.input, *proto.graph.initializer)]
    if not names:
        return
    op = rng.choice(SCHEMAS)
    schema = defs.get_schema(op)
    count = rng.randint(schema.min_input, max(schema.min_input, min(schema.max_input, 4)))
    output = f"new{len(proto.graph.node)}"
    node = helper.make_node(op, [rng.choice(names) for _ in range(count)], [output])
    proto.graph.node.append(node)
    if rng.random() < 0.5 and proto.graph.output:
        rng.choice(proto.graph.output).name = output
    else:
        proto.graph.output.add(name=output)


def _constant_input(proto: onnx.ModelProto, rng: Random) -> None:
    """An input that becomes an initializer, of small integers."""
    graph = proto.graph
    if not graph.input:
        return
    given = rng.choice(graph.input)
    dims = [d.dim_value if 0 <= d.dim_value < 20 else 1 for d in given.type.tensor_type.shape.dim]
    if len(dims) > 6 or np.prod(dims) > MOST_BYTES:
        return
    dtype = helper.tensor_dtype_to_np_dtype(given.type.tensor_type.elem_type)
    elements = np.array([rng.randint(-2, 5) for _ in range(int(np.prod(dims)))])
    array = elements.astype(dtype).reshape(dims)
    graph.initializer.append(numpy_helper.from_array(array, given.name))


CHANGES: tuple[Change, ...] = (
    any_field, _operator, _attribute, _elements, _size, _element_type, _opset, _new_node,
    _constant_input,
)  # fmt: skip
WEIGHTS = (8, 3, 5, 5, 3, 1, 1, 4, 2)
