"""Operators that ONNX itself defines by other operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from tbc.frontend.nodes import schema_of
from tbc.frontend.reader import plain_domain
from tbc.ir import Value


def body_of_schema(
    proto: onnx.NodeProto,
    opset: int,
    attributes: Mapping[str, onnx.AttributeProto],
    inputs: Sequence[Value | None],
) -> tuple[onnx.FunctionProto, Mapping[str, onnx.AttributeProto]] | None:
    """The function that defines one of ONNX's own operators, and its attributes' values.

    None where the operator is a primitive one.
    """
    schema = schema_of(proto.op_type, opset, plain_domain(proto.domain))
    defaults = {n: a.default_value for n, a in schema.attributes.items() if a.default_value.type}
    bound = {**defaults, **attributes}
    if schema.has_function:
        version = _nearest(schema.function_opset_versions, opset)
        data = schema.get_function_with_opset_version(version)
        return onnx.FunctionProto.FromString(data), bound
    if schema.has_context_dependent_function:
        version = _nearest(schema.context_dependent_function_opset_versions, opset)
        node = onnx.NodeProto()
        node.CopyFrom(proto)
        del node.attribute[:]
        node.attribute.extend(attributes.values())
        types = [_type_of(x).SerializeToString() for x in inputs]
        data = schema.get_context_dependent_function_with_opset_version(
            version, node.SerializeToString(), types
        )
        return (onnx.FunctionProto.FromString(data), bound) if data else None
    return None


def _nearest(versions: Sequence[int], opset: int) -> int:
    """The greatest version up to the operator set's, else the least."""
    return max((v for v in versions if v <= opset), default=min(versions))


def _type_of(value: Value | None) -> onnx.TypeProto:
    type = onnx.TypeProto()
    if value is not None:
        type.tensor_type.elem_type = value.type.dtype.onnx
        for dim in value.type.shape:
            size = type.tensor_type.shape.dim.add()
            if isinstance(dim, int):
                size.dim_value = dim
            else:
                size.dim_param = str(dim)
    return type
