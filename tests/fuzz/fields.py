"""Changes of any field of any message of an ONNX model, and of bytes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

Random: TypeAlias = random.Random

_POWERS = (3, 6, 7, 8, 12, 15, 16, 20, 24, 30, 31, 32, 33, 40, 53, 62, 63, 64)
_SIZES = tuple(sorted({(1 << p) + d for p in _POWERS for d in (-1, 0, 1)}))
INTEGERS = (0, 1, 2, 3, 4, 5, 6, 10, 63, 65, 100, 1000, *_SIZES)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e-38, 1e10, 3.4e38, np.inf, -np.inf, np.nan)
I64 = (-(1 << 63), (1 << 63) - 1)
_LIMITS = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_INT64: I64,
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
MOST_BYTES = 1 << 16
"""Of a message that is copied, and elements of a tensor that is made."""


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


def messages(root: Message) -> Iterator[Message]:
    """The message and every message in it."""
    todo = [root]
    while todo:
        message = todo.pop()
        yield message
        for field, value in message.ListFields():
            if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
                todo.extend(value if _is_list(value) else [value])


def _is_list(value: Any) -> bool:
    """Whether the value is a repeated field's; how fields say it differs between protobufs."""
    return hasattr(value, "extend")


def any_field(proto: onnx.ModelProto, rng: Random) -> None:
    """Change a field that is set, or set one that is not."""
    message = rng.choice(list(messages(proto)))
    used = [field for field, _ in message.ListFields()]
    fields = used if used and rng.random() < 0.85 else list(message.DESCRIPTOR.fields)
    field = rng.choice(fields)
    if _is_list(getattr(message, field.name)):
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
    if len(data) < MOST_BYTES:
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
    return max(low, min(high, integer(old or 0, rng)))


def integer(old: int, rng: Random) -> int:
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


def graft(proto: onnx.ModelProto, other: onnx.ModelProto, rng: Random) -> None:
    """Replace a message by one of its kind of another model."""
    theirs = list(messages(other))
    source = rng.choice(theirs)
    mine = [m for m in messages(proto) if m.DESCRIPTOR is source.DESCRIPTOR]
    data = source.SerializePartialToString()
    if mine and len(data) < MOST_BYTES:
        rng.choice(mine).ParseFromString(data)
