"""The walk over the nodes: names to values, calls to function bodies, mismatches to equalities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import onnx

from tbc.dims import bounds
from tbc.errors import InternalError, InvalidModel, TbcError, Unsupported
from tbc.frontend.context import Array, Context
from tbc.frontend.control import CONTROL, Absent, Entry, Mismatch, Run, present
from tbc.frontend.expansion import body_of_schema
from tbc.frontend.nodes import ONNX_DOMAINS, Node, decode, name_of, op_of, read_attributes
from tbc.frontend.operators import ONNX, OTHERS
from tbc.frontend.reader import Source, opsets, plain_domain
from tbc.frontend.structure import (
    Body,
    Function,
    FunctionKey,
    function_key,
    function_of,
    graph_body,
    refuse_free,
)
from tbc.frontend.tensors import tensor
from tbc.ir import Builder, Graph, Value
from tbc.ops import Const, DimMismatch, Dims, Input
from tbc.types import DType, TensorType

_NOTHING: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True)
class Scope:
    """Where nodes stand: what names mean there.

    Attributes:
        attributes: the attributes that the nodes of a function's body may refer to.
        prefix: what goes before the names of the nodes.
    """

    env: dict[str, Entry]
    opsets: Mapping[str, int]
    attributes: Mapping[str, onnx.AttributeProto] = field(default_factory=dict)
    prefix: str = ""


@dataclass(frozen=True)
class Importer:
    """Makes the graph of a model whose names are checked.

    Attributes:
        inputs: the type and the sizes' texts or numbers of each input, by name.
        constants: the initializers.
    """

    source: Source
    functions: Mapping[FunctionKey, Function]
    body: Body
    constants: Mapping[str, Const | Absent]

    def graph(self, inputs: Mapping[str, TensorType], values: Mapping[str, Array]) -> Graph:
        """The graph for inputs of these types, those with values taken as constants.

        Raises:
            Mismatch: sizes must be equal that are not known to be.
        """
        c = Context(Builder(), self.source.folder)
        scope = Scope({}, opsets(self.source.model.opset_import))
        leaves = []
        for name, type in inputs.items():
            if name in values:
                scope.env[name] = c.constant(values[name], type.dtype)
            else:
                leaves.append(c(Input(name, type)))
                scope.env[name] = leaves[-1]
        for name, constant in self.constants.items():
            scope.env[name] = constant if isinstance(constant, Absent) else c(constant)
        self._walk(c, self.body.nodes, scope)
        names = [o.name for o in self.source.model.graph.output]
        outputs = tuple((n, present(e)) for n in names if (e := scope.env[n]) is not None)
        return Graph(self.source.name, tuple(leaves), outputs, tuple(dict.fromkeys(c.checks)))

    # -- nodes ------------------------------------------------------------------------------------

    def _walk(self, c: Context, nodes: Iterable[onnx.NodeProto], scope: Scope) -> None:
        """Give the nodes' outputs their meaning in the scope."""
        for proto in nodes:
            name, op = scope.prefix + name_of(proto), op_of(proto)
            entries: Sequence[Entry]
            try:
                with c.builder.origin(name):
                    entries = self._results(c, proto, scope, name)
            except Unsupported as error:
                error.at(node=name, op=op)
                entries = [Absent(error)] * len(proto.output)
            except TbcError as error:
                error.at(node=name, op=op)
                raise
            except DimMismatch as error:
                raise Mismatch(error.a, error.b, _refusal(error).at(node=name, op=op)) from None
            except ValueError as error:
                raise InvalidModel(str(error), node=name, op=op) from None
            except Mismatch:
                raise
            except Exception as error:
                raise InternalError(f"{error!r}", node=name, op=op) from error
            lacking = Absent(Unsupported("this output is not supported", node=name, op=op))
            for i, output in enumerate(proto.output):
                entry = entries[i] if i < len(entries) else None
                if isinstance(entry, Absent):
                    entry.error.at(node=name, op=op)
                scope.env[output] = lacking if entry is None else entry

    def _results(
        self, c: Context, proto: onnx.NodeProto, scope: Scope, name: str
    ) -> Sequence[Entry]:
        """The values of a node's outputs; None for those that tbc does not have."""
        entries = [scope.env[n] if n else None for n in proto.input]
        inputs = [None if e is None else present(e) for e in entries]
        attributes = read_attributes(proto, scope.attributes)
        key = function_key(proto)
        if key in self.functions:
            return self._call(c, self.functions[key], inputs, attributes, name)
        node = self._decoded(
            proto, scope, attributes, [None if x is None else x.type.dtype for x in inputs]
        )
        if node.domain == "" and node.op_type in CONTROL:
            control = CONTROL[node.op_type]
            return control(c, node, inputs, lambda graph: self._nested(c, graph, scope, name))
        lower = ONNX.get(node.op_type) if node.domain == "" else None
        if entry := OTHERS.get((node.domain, node.op_type)):
            lower = entry[0]
        if lower is None:
            expanded = body_of_schema(proto, node.opset, attributes, inputs)
            if expanded is None:
                raise Unsupported(f"the operator {node.op} is not supported yet")
            proto_of_body, bound = expanded
            return self._call(c, function_of(proto_of_body), inputs, bound, name, scope.opsets)
        try:
            results = lower(c, node, *inputs)
        except IndexError as error:  # of a shape that has no such axis, or of no elements
            given = ", ".join(str(x.type) for x in inputs if x is not None)
            raise InvalidModel(f"its inputs {given} lack an axis or an element") from error
        return [
            None if r is None else _settled(c, r)
            for r in (results if isinstance(results, tuple) else (results,))
        ]

    def _decoded(
        self,
        proto: onnx.NodeProto,
        scope: Scope,
        attributes: Mapping[str, onnx.AttributeProto],
        given: Sequence[DType | None],
    ) -> Node:
        domain = plain_domain(proto.domain)
        if domain not in scope.opsets:
            raise InvalidModel(f"its domain '{domain}' is not in opset_import")
        entry = OTHERS.get((domain, proto.op_type))
        if domain not in ONNX_DOMAINS and entry is None:
            raise Unsupported(
                f"the operator {proto.op_type} of the domain '{domain}' is not supported"
            )
        return decode(proto, scope.opsets[domain], attributes, entry and entry[1], given)

    # -- nested bodies ----------------------------------------------------------------------------

    def _call(
        self,
        c: Context,
        function: Function,
        inputs: Sequence[Value | None],
        attributes: Mapping[str, onnx.AttributeProto],
        name: str,
        around: Mapping[str, int] = _NOTHING,
    ) -> Sequence[Entry]:
        """The outputs of a function's body; `around` are opsets that it need not import."""
        proto = function.proto
        if len(inputs) > len(proto.input):
            raise InvalidModel(f"it has {len(inputs)} inputs instead of {len(proto.input)}")
        defaults = {a.name: a for a in proto.attribute_proto}
        env: dict[str, Entry] = dict.fromkeys(proto.input)
        env.update(zip(proto.input, inputs, strict=False))
        imported = {**around, **opsets(proto.opset_import)}
        scope = Scope(env, imported, {**defaults, **attributes}, f"{name}/")
        self._walk(c, function.body.nodes, scope)
        return [env.get(o) for o in proto.output]

    def _nested(self, c: Context, graph: onnx.GraphProto, scope: Scope, name: str) -> Run:
        """A graph in an attribute, as a function of its inputs; it sees the names around it."""
        body = graph_body(graph)
        own = {proto.name: c(tensor(proto, c.folder)) for proto in graph.initializer}
        env = {**scope.env, **own}
        inputs = [i.name for i in graph.input if i.name not in own]
        refuse_free(body, {*env, *inputs})

        def run(values: Sequence[Value]) -> list[Entry]:
            if len(values) != len(inputs):
                raise InvalidModel(f"its graph has {len(inputs)} inputs instead of {len(values)}")
            inner: dict[str, Entry] = {**env, **dict(zip(inputs, values, strict=True))}
            self._walk(c, body.nodes, Scope(inner, scope.opsets, scope.attributes, f"{name}/"))
            if missing := [o.name for o in graph.output if o.name not in inner]:
                raise InvalidModel(f"its graph does not define its output '{missing[0]}'")
            return [inner[o.name] for o in graph.output]

        return run


def _refusal(error: DimMismatch) -> TbcError:
    """The error for sizes that must be equal and cannot be made so."""
    low, high = bounds(error.a - error.b)
    if low > 0 or high < 0:
        return InvalidModel(str(error))
    return Unsupported(f"{error}, and tbc cannot see that they are equal", hint="fix the symbols")


def _settled(c: Context, value: Value) -> Value:
    """The value, as sizes or numbers where shape arithmetic knows all of its elements."""
    dtype = value.type.dtype
    if value.is_constant or dtype not in (DType.i64, DType.i32, DType.bool):
        return value
    array = c.known.array(value)
    if array is None or isinstance(value.op, Dims):
        return value
    if array.dtype == object:
        return c.cast(c(Dims(tuple(array.reshape(-1).tolist()), array.shape)), dtype)
    return c.constant(array, dtype)
