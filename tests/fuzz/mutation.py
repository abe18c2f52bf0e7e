"""Changes of ONNX models at random: any field of any message, and some that keep models valid."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from onnx import TensorProto, defs, helper, numpy_helper

from tbc.frontend.operators import ONNX, OTHERS

Random: TypeAlias = random.Random
Change: TypeAlias = Callable[[onnx.ModelProto, Random], None]

_POWERS = (3, 6, 7, 8, 12, 15, 16, 20, 24, 30, 31, 32, 33, 40, 53, 62, 63, 64)
_SIZES = tuple(sorted({(1 << p) + d for p in _POWERS for d in (-1, 0, 1)}))
INTEGERS = (0, 1, 2, 3, 4, 5, 6, 10, 63, 65, 100, 1000, *_SIZES)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e-38, 1e10, 3.4e38, np.inf, -np.inf, np.nan)
_LIMITS = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, (1 << 64) - 1),
}
TEXTS = (
    "",
    "x",
    "y",
    "n",
    "ai.onnx",
    "com.microsoft",
    "../w.bin",
    "/etc/hostname",
    "-1",
    "n*n",
    "é",
)
_MOST_BYTES = 1 << 16
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
                _graft(proto, rng.choice(others), rng)
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


def damaged(data: bytes, rng: Random) -> bytes:
    """The bytes with a few of them replaced, inserted, removed or repeated."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        at = rng.randrange(len(changed) + 1)
        size = rng.choice((1, 1, 2, 4, 16))
        match rng.randrange(5):
            case 0:
                changed[at : at + size] = rng.randbytes(size)
            case 1:
                changed[at:at] = rng.randbytes(size)
            case 2:
                del changed[at : at + size]
            case 3:
                changed[at:at] = changed[at : at + size * 4]
            case 4:
                del changed[at:]
    return bytes(changed)


# -- any field ------------------------------------------------------------------------------------


def messages(root: Message) -> Iterator[Message]:
    """The message and every message in it."""
    todo = [root]
    while todo:
        message = todo.pop()
        yield message
        for field, value in message.ListFields():
            if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
                todo.extend(value if _is_repeated(field) else [value])


def _is_repeated(field: Any) -> bool:
    return bool(field.is_repeated)


def _any_field(proto: onnx.ModelProto, rng: Random) -> None:
    """Change a field that is set, or set one that is not."""
    message = rng.choice(list(messages(proto)))
    used = [field for field, _ in message.ListFields()]
    fields = used if used and rng.random() < 0.85 else list(message.DESCRIPTOR.fields)
    field = rng.choice(fields)
    if _is_repeated(field):
        _change_list(getattr(message, field.name), field, proto, rng)
    elif field in used and rng.random() < 0.1:
        message.ClearField(field.name)
    elif field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        _change_message(getattr(message, field.name), proto, rng)
    else:
        old = getattr(message, field.name)
        setattr(message, field.name, _scalar(field, old, proto, rng))


def _change_list(items: Any, field: Any, proto: onnx.ModelProto, rng: Random) -> None:
    """Remove, repeat, reorder, change or add elements of a repeated field."""
    kind = rng.randrange(6) if len(items) else 5
    at = rng.randrange(len(items)) if len(items) else 0
    if kind == 0:
        del items[at]
    elif kind == 1:
        order = list(items)
        rng.shuffle(order)
        copies = [type(o).FromString(o.SerializePartialToString()) for o in order] if (
            field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE
        ) else order  # fmt: skip
        del items[:]
        items.extend(copies)
    elif field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        if kind == 5 or not len(items):
            _change_message(items.add(), proto, rng)
        elif kind == 2:
            items.add().CopyFrom(items[at])
        else:
            _change_message(items[at], proto, rng)
    elif kind == 5 or not len(items):
        old = items[at] if len(items) else field.default_value or 0
        items.extend(_scalar(field, old, proto, rng) for _ in range(rng.choice((1, 1, 1, 2, 70))))
    else:
        items[at] = _scalar(field, items[at], proto, rng)


def _change_message(message: Message, proto: onnx.ModelProto, rng: Random) -> None:
    """Replace the message by another of its kind in the model, or clear it."""
    same = [m for m in messages(proto) if m.DESCRIPTOR is message.DESCRIPTOR]
    if rng.random() < 0.1 or not same:
        message.Clear()
        return
    data = rng.choice(same).SerializePartialToString()
    if len(data) < _MOST_BYTES:
        message.ParseFromString(data)


def _scalar(field: Any, old: Any, proto: onnx.ModelProto, rng: Random) -> Any:
    """Another value for a field that is a number, a text or bytes."""
    if field.cpp_type in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return rng.choice(FLOATS)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return damaged(old or b"", rng)
        return rng.choice(TEXTS if rng.random() < 0.3 else list(_names(proto)) or TEXTS)
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return rng.choice([v.number for v in field.enum_type.values])
    low, high = _LIMITS[field.cpp_type]
    return max(low, min(high, _integer(old or 0, rng)))


def _integer(old: int, rng: Random) -> int:
    """Another integer: near the old one, small, or at the border of a type."""
    if rng.random() < 0.3:
        return old + rng.choice((-2, -1, 1, 2))
    if rng.random() < 0.4:
        return rng.randint(-3, 9)
    return rng.choice(INTEGERS) * rng.choice((1, 1, -1))


def _names(proto: onnx.ModelProto) -> Iterator[str]:
    graph = proto.graph
    for item in (*graph.input, *graph.initializer, *graph.node):
        yield item.name
    for node in graph.node:
        yield from (*node.input, *node.output, node.op_type)


def _graft(proto: onnx.ModelProto, other: onnx.ModelProto, rng: Random) -> None:
    """Replace a message by one of its kind of another model."""
    theirs = list(messages(other))
    source = rng.choice(theirs)
    mine = [m for m in messages(proto) if m.DESCRIPTOR is source.DESCRIPTOR]
    data = source.SerializePartialToString()
    if mine and len(data) < _MOST_BYTES:
        rng.choice(mine).ParseFromString(data)


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
    low, high = _LIMITS[FieldDescriptor.CPPTYPE_INT64]
    integers = [max(low, min(high, _integer(1, rng))) for _ in range(count + 1)]
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
    if array.size > _MOST_BYTES:
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
    return max(int(limits.min), min(int(limits.max), _integer(1, rng)))


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
                max(-(1 << 63), min((1 << 63) - 1, _integer(1, rng)))
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
    if len(dims) > 6 or np.prod(dims) > _MOST_BYTES:
        return
    dtype = helper.tensor_dtype_to_np_dtype(given.type.tensor_type.elem_type)
    elements = np.array([rng.randint(-2, 5) for _ in range(int(np.prod(dims)))])
    array = elements.astype(dtype).reshape(dims)
    graph.initializer.append(numpy_helper.from_array(array, given.name))


CHANGES: tuple[Change, ...] = (
    _any_field, _operator, _attribute, _elements, _size, _element_type, _opset, _new_node,
    _constant_input,
)  # fmt: skip
WEIGHTS = (8, 3, 5, 5, 3, 1, 1, 4, 2)
