"""Nodes as the lowerings see them: checked against a signature, with the defaults filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, TypeAlias

import onnx
from onnx import defs

from tbc.errors import InvalidModel, Unsupported
from tbc.frontend.reader import plain_domain
from tbc.types import DType

_KINDS = onnx.AttributeProto
_READERS: Mapping[int, Any] = {
    _KINDS.INT: lambda a: a.i,
    _KINDS.FLOAT: lambda a: a.f,
    _KINDS.STRING: lambda a: a.s.decode(),
    _KINDS.INTS: lambda a: tuple(a.ints),
    _KINDS.FLOATS: lambda a: tuple(a.floats),
    _KINDS.STRINGS: lambda a: tuple(s.decode() for s in a.strings),
    _KINDS.TENSOR: lambda a: a.t,
    _KINDS.SPARSE_TENSOR: lambda a: a.sparse_tensor,
    _KINDS.GRAPH: lambda a: a.g,
}


class Floats(tuple[float, ...]):
    """The value of an attribute that is a list of floats; a plain tuple is one of integers."""


class Strings(tuple[str, ...]):
    """The value of an attribute that is a list of texts."""


_PYTHON_KINDS: Mapping[type, int] = {
    int: _KINDS.INT,
    float: _KINDS.FLOAT,
    str: _KINDS.STRING,
    tuple: _KINDS.INTS,
    Floats: _KINDS.FLOATS,
    Strings: _KINDS.STRINGS,
}


SEQUENCE: Literal["sequence"] = "sequence"
Kind: TypeAlias = DType | Literal["sequence"]
"""What an input is: the element type of a tensor, or a sequence of tensors."""

FLOATS = (DType.f16, DType.bf16, DType.f32, DType.f64)


@dataclass(frozen=True)
class Signature:
    """What an operator takes.

    Attributes:
        required: leading inputs that must be there.
        inputs: most inputs.
        outputs: most outputs.
        attributes: each one's default, or its type where it must be given.
        optional: positions among the required ones that may be left empty.
        dtypes: what its first input may hold.
        limits: what of it is not supported, for people.
    """

    required: int
    inputs: int
    outputs: int = 1
    attributes: Mapping[str, Any] = field(default_factory=dict)
    optional: tuple[int, ...] = ()
    dtypes: tuple[DType, ...] = FLOATS
    limits: str = ""


@dataclass(frozen=True)
class Node:
    """A node with its attributes decoded and completed by the defaults.

    Attributes:
        opset: the version of the operator set in force for its domain.
    """

    name: str
    op_type: str
    domain: str
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    @property
    def op(self) -> str:
        """The operator, with its domain where that is not ONNX's own."""
        return f"{self.domain}::{self.op_type}" if self.domain else self.op_type

    def __getitem__(self, attribute: str) -> Any:
        """An attribute's value; None where it is absent and has no default."""
        return self.attributes.get(attribute)

    def has_output(self, index: int) -> bool:
        """Whether the node names its output number `index`."""
        return index < len(self.outputs) and self.outputs[index] != ""


def name_of(proto: onnx.NodeProto) -> str:
    """The node's name, else that of its first output."""
    return proto.name or next((o for o in proto.output if o), proto.op_type)


def op_of(proto: onnx.NodeProto) -> str:
    """The operator as text, with its domain where that is not ONNX's own."""
    domain = plain_domain(proto.domain)
    return f"{domain}::{proto.op_type}" if domain else proto.op_type


def read_attributes(
    proto: onnx.NodeProto, bound: Mapping[str, onnx.AttributeProto]
) -> dict[str, onnx.AttributeProto]:
    """The node's attributes, those that refer to the enclosing function's replaced by their values.

    Raises:
        InvalidModel: one is given twice.
    """
    found: dict[str, onnx.AttributeProto] = {}
    for attribute in proto.attribute:
        if attribute.name in found:
            raise InvalidModel(f"the attribute '{attribute.name}' is given twice")
        if not attribute.ref_attr_name:
            found[attribute.name] = attribute
        elif attribute.ref_attr_name in bound:
            found[attribute.name] = bound[attribute.ref_attr_name]
    return found


ONNX_DOMAINS = ("", "ai.onnx.preview")
"""The domains of ONNX's own that have operators for inference on tensors."""


AHEAD: Mapping[str, int] = {"LayerNormalization": 17}
"""Operators that onnxruntime has in all of ONNX's operator sets, with the one that ONNX got them
in: its optimiser puts them into models of earlier ones."""


def schema_of(op_type: str, opset: int, domain: str = "") -> Any:
    """The schema of one of ONNX's own operators in an operator set.

    Raises:
        InvalidModel: there is no such operator in it.
    """
    least = AHEAD.get(op_type, 0) if domain == "" else 0
    try:
        schema = defs.get_schema(op_type, max_inclusive_version=max(opset, least), domain=domain)
    except defs.SchemaError:
        raise InvalidModel(f"opset {opset} has no operator {op_type}") from None
    if schema.deprecated:
        raise InvalidModel(f"opset {opset} no longer has the operator {op_type}")
    return schema


def decode(
    proto: onnx.NodeProto,
    opset: int,
    attributes: Mapping[str, onnx.AttributeProto],
    signature: Signature | None,
    given: Sequence[Kind | None],
) -> Node:
    """The node, checked against a signature, or against ONNX's schema where that is None.

    `given` says what the inputs are, None of those that are not there.

    Raises:
        InvalidModel: an input, an output or an attribute is missing, unknown or of a wrong type.
    """
    if signature is None:
        schema = schema_of(proto.op_type, opset, plain_domain(proto.domain))
        values = _check_schema(proto, attributes, schema, given)
    else:
        values = _check_signature(proto, attributes, signature, given)
    return Node(
        name_of(proto),
        proto.op_type,
        plain_domain(proto.domain),
        opset,
        tuple(proto.input),
        tuple(proto.output),
        values,
    )


def _check_schema(
    proto: onnx.NodeProto,
    attributes: Mapping[str, onnx.AttributeProto],
    schema: Any,
    given: Sequence[Kind | None],
) -> dict[str, Any]:
    _check_counts(proto, schema.min_input, schema.max_input, schema.max_output)
    formals = schema.inputs
    for i in range(max(len(given), schema.min_input)):
        formal = formals[min(i, len(formals) - 1)]
        optional = formal.option == defs.OpSchema.FormalParameterOption.Optional
        if not optional and (i >= len(given) or given[i] is None):
            raise InvalidModel(f"its input '{formal.name}' is missing")
    _check_types(schema, given)
    values: dict[str, Any] = {}
    for name, formal in schema.attributes.items():
        if formal.required and name not in attributes:
            raise InvalidModel(f"its attribute '{name}' is missing")
        if formal.default_value.type:
            values[name] = _read(formal.default_value)
    for name, attribute in attributes.items():
        if name not in schema.attributes:
            raise InvalidModel(
                f"its attribute '{name}' does not exist in the version of opset "
                f"{schema.since_version}"
            )
        _check_kind(attribute, int(schema.attributes[name].type.value))
        values[name] = _read(attribute)
    return values


_SEQUENCES = ("seq(", "optional(seq(")
"""How the types begin that ONNX's schemas have for sequences."""


@dataclass(frozen=True)
class _Formal:
    """An input of an operator: which element types it takes, and with which others they agree."""

    name: str
    kind: str
    alike: bool
    types: frozenset[str]


@cache
def _formals(op_type: str, version: int, domain: str) -> tuple[_Formal, ...]:
    """The inputs of an operator; kept, since asking onnx takes longer than all else at a node.

    Their types are also those of the newest version: exporters use types before ONNX allows them,
    as bfloat16 in `Round` of opset 20.
    """
    inputs = defs.get_schema(op_type, max_inclusive_version=version, domain=domain).inputs
    newest = {i.name: i.types for i in defs.get_schema(op_type, domain=domain).inputs}
    return tuple(
        _Formal(
            i.name,
            i.type_str,
            i.is_homogeneous,
            frozenset(map(str, (*i.types, *newest.get(i.name, ())))),
        )
        for i in inputs
    )


def _check_types(schema: Any, given: Sequence[Kind | None]) -> None:
    """Raise InvalidModel for element types that an operator does not take, or does not mix."""
    formals = _formals(schema.name, schema.since_version, schema.domain)
    bound: dict[str, DType] = {}
    for i, dtype in enumerate(given):
        if dtype is None:
            continue
        formal = formals[min(i, len(formals) - 1)]
        if dtype == SEQUENCE:
            if not any(type.startswith(_SEQUENCES) for type in formal.types):
                raise InvalidModel(f"its input '{formal.name}' cannot be a sequence")
            continue
        if f"tensor({onnx.TensorProto.DataType.Name(dtype.onnx).lower()})" not in formal.types:
            raise InvalidModel(
                f"its input '{formal.name}' cannot be of type {dtype.name} in the version of opset "
                f"{schema.since_version}"
            )
        if formal.alike and bound.setdefault(formal.kind, dtype) is not dtype:
            other = bound[formal.kind].name
            raise InvalidModel(f"its input '{formal.name}' is {dtype.name}, another one is {other}")


def _check_signature(
    proto: onnx.NodeProto,
    attributes: Mapping[str, onnx.AttributeProto],
    signature: Signature,
    given: Sequence[Kind | None],
) -> dict[str, Any]:
    _check_counts(proto, signature.required, signature.inputs, signature.outputs)
    for i, there in enumerate(given[: signature.required]):
        if there is None and i not in signature.optional:
            raise InvalidModel(f"its input number {i} is missing")
    if SEQUENCE in given:
        raise InvalidModel(f"its input number {list(given).index(SEQUENCE)} is a sequence")
    values = dict(signature.attributes)
    for name, attribute in attributes.items():
        if name not in values:
            raise InvalidModel(f"its attribute '{name}' does not exist")
        default = values[name]
        kind = default if isinstance(default, type) else type(default)
        _check_kind(attribute, _PYTHON_KINDS[kind])
        values[name] = _read(attribute)
    for name, value in values.items():
        if isinstance(value, type):
            raise InvalidModel(f"its attribute '{name}' is missing")
    return values


def _check_counts(proto: onnx.NodeProto, least: int, most: int, outputs: int) -> None:
    count = len(proto.input)
    if not least <= count <= most:
        expected = f"{least}" if least == most else f"{least} to {most}"
        raise InvalidModel(f"it has {count} inputs instead of {expected}")
    if len(proto.output) > outputs:
        raise InvalidModel(f"it has {len(proto.output)} outputs instead of at most {outputs}")


def _check_kind(attribute: onnx.AttributeProto, kind: int) -> None:
    if attribute.type != kind:
        names = {v: k for k, v in _KINDS.AttributeType.items()}
        raise InvalidModel(
            f"its attribute '{attribute.name}' is of type {names.get(attribute.type)} "
            f"instead of {names[kind]}"
        )


def _read(attribute: onnx.AttributeProto) -> Any:
    try:
        reader = _READERS[attribute.type]
    except KeyError:
        raise Unsupported(
            f"its attribute '{attribute.name}' has a type tbc does not have"
        ) from None
    try:
        return reader(attribute)
    except UnicodeDecodeError:
        raise InvalidModel(f"its attribute '{attribute.name}' is not text") from None
