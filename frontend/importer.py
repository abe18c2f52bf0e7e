"""The walk over the nodes: names to values, calls to function bodies, mismatches to equalities."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import cast

import onnx

from tbc.errors import InternalError, InvalidModel, TbcError, Unfixed, Unsupported
from tbc.frontend.context import Array, Context
from tbc.frontend.control import (
    Absent,
    Control,
    Entry,
    Given,
    Mismatch,
    Nested,
    branch,
    each_by,
    given,
    present,
)
from tbc.frontend.expansion import body_of_schema
from tbc.frontend.loops import loop
from tbc.frontend.nodes import (
    ONNX_DOMAINS,
    SEQUENCE,
    Kind,
    Node,
    Signature,
    decode,
    name_of,
    op_of,
    read_attributes,
)
from tbc.frontend.operators import ONNX, OTHERS, REFUSED, REFUSED_DOMAINS
from tbc.frontend.reader import Source, opsets, plain_domain
from tbc.frontend.scans import scan
from tbc.frontend.small_floats import as_stored, elements_of, from_stored, stored_type
from tbc.frontend.structure import (
    Body,
    Function,
    FunctionKey,
    function_key,
    function_of,
    graph_body,
    refuse_free,
)
from tbc.frontend.tensors import dense, tensor
from tbc.frontend.unfixed import undecided, unequal, with_sizes
from tbc.ir import Builder, Graph, Value
from tbc.ops import Const, DimMismatch, Dims, Input
from tbc.types import DType, TensorType

DECIDING: Mapping[str, int] = MappingProxyType({"If": 1, "Loop": 2})
"""How many of an operator's inputs decide which of its nodes run, and how often."""

_NOTHING: Mapping[str, int] = MappingProxyType({})

CONTROL: Mapping[str, Control] = {"If": branch, "Loop": loop, "Scan": scan}
"""How operators with nested graphs become values."""


@dataclass(frozen=True)
class Scope:
    """Where nodes stand: what names mean there.

    Attributes:
        attributes: the attributes that the nodes of a function's body may refer to.
        prefix: what goes before the names of the nodes.
    """

    env: MutableMapping[str, Entry]
    opsets: Mapping[str, int]
    attributes: Mapping[str, onnx.AttributeProto] = field(default_factory=dict)
    prefix: str = ""


@dataclass(frozen=True)
class Importer:
    """Makes the graph of a model whose names are checked.

    Attributes:
        constants: the initializers.
    """

    source: Source
    functions: Mapping[FunctionKey, Function]
    body: Body
    constants: Mapping[str, Const | Absent]

    def graph(
        self, inputs: Mapping[str, TensorType], values: Mapping[str, Array]
    ) -> tuple[Graph, Sequence[str]]:
        """The graph for inputs of these types, those with values taken as constants; and warnings.

        Raises:
            Mismatch: sizes must be equal that are not known to be.
        """
        c = Context(Builder(), self.source.folder)
        scope = Scope({}, opsets(self.source.model.opset_import))
        leaves = []
        for name, type in inputs.items():
            if name in values:
                scope.env[name] = c.constant(elements_of(values[name], type.dtype), type.dtype)
            else:
                leaves.append(c(Input(name, TensorType(stored_type(type.dtype), type.shape))))
                scope.env[name] = from_stored(c, leaves[-1], type.dtype)
        for name, constant in self.constants.items():
            scope.env[name] = constant if isinstance(constant, Absent) else c(constant)
        self._walk(c, self.body.nodes, scope)
        names = [o.name for o in self.source.model.graph.output]
        for name in names:
            if isinstance(scope.env[name], tuple):
                hint = "let its tensors be outputs of their own"
                raise Unsupported(f"the output '{name}' is a sequence of tensors", hint=hint)
        found = ((n, present(e)) for n in names if (e := scope.env[n]) is not None)
        outputs = tuple((n, as_stored(c, v)) for n, v in found)
        checks = tuple(dict.fromkeys(c.checks))
        return Graph(self.source.name, tuple(leaves), outputs, checks), c.warnings

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
                raise Mismatch(error.a, error.b, unequal(error).at(node=name, op=op)) from None
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
        inputs = [given(e) for e in entries]
        attributes = read_attributes(proto, scope.attributes)
        key = function_key(proto)
        if key in self.functions:
            return self._call(c, self.functions[key], inputs, attributes, name)
        node = self._decoded(proto, scope, attributes, [_kind(x) for x in inputs])
        values = [x if isinstance(x, Value) else None for x in inputs]
        if node.domain == "" and node.op_type in CONTROL:
            return self._control(c, node, inputs, scope, name)
        lower = ONNX.get(node.op_type) if node.domain == "" else None
        if entry := OTHERS.get((node.domain, node.op_type)):
            lower = entry[0]
            _check_type(values[0], entry[1])
        if reason := REFUSED.get((node.domain, node.op_type)):
            raise Unsupported(f"it is not supported: {reason}")
        if lower is None:
            expanded = body_of_schema(proto, node.opset, attributes, values)
            if expanded is None:
                raise Unsupported("it is not supported")
            proto_of_body, bound = expanded
            return self._call(c, function_of(proto_of_body), inputs, bound, name, scope.opsets)
        try:
            results = lower(c, node, *inputs)
        except Unfixed as error:
            raise with_sizes(error, values) from None
        except IndexError as error:  # of a shape that has no such axis, or of no elements
            types = ", ".join(str(x.type) for x in values if x is not None)
            raise InvalidModel(f"its inputs {types} lack an axis or an element") from error
        return [
            _settled(c, r) if isinstance(r, Value) else r
            for r in (results if isinstance(results, tuple) else (results,))
        ]

    def _decoded(
        self,
        proto: onnx.NodeProto,
        scope: Scope,
        attributes: Mapping[str, onnx.AttributeProto],
        kinds: Sequence[Kind | None],
    ) -> Node:
        domain = plain_domain(proto.domain)
        if domain not in scope.opsets:
            raise InvalidModel(f"its domain '{domain}' is not in opset_import")
        entry = OTHERS.get((domain, proto.op_type))
        if domain not in ONNX_DOMAINS and entry is None:
            reason = REFUSED_DOMAINS.get(domain, "tbc does not know this operator of the domain")
            raise Unsupported(f"it is not supported: {reason}")
        return decode(proto, scope.opsets[domain], attributes, entry and entry[1], kinds)

    # -- nested bodies ----------------------------------------------------------------------------

    def _call(
        self,
        c: Context,
        function: Function,
        inputs: Sequence[Given],
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

    def _control(
        self, c: Context, node: Node, inputs: Sequence[Given], scope: Scope, name: str
    ) -> Sequence[Entry]:
        """The outputs of an operator with nested graphs.

        Raises:
            Unfixed: in place of other errors of these graphs, where data decides what is run.
        """
        errors: list[Exception] = []

        def open_graph(graph: onnx.GraphProto) -> Nested:
            return self._nested(c, graph, scope, name, errors)

        deciding = [present(x) for x in inputs[: DECIDING.get(node.op_type, 0)] if x is not None]
        if all(c.known.array(x) is not None for x in deciding):
            return CONTROL[node.op_type](c, node, inputs, open_graph)
        try:
            entries = CONTROL[node.op_type](c, node, inputs, open_graph)
        except (InvalidModel, Unsupported) as error:
            if isinstance(error, InvalidModel) and error not in errors:
                raise
            sizes = [(e.a, e.b) for e in errors if isinstance(e, Mismatch)]
            raise undecided(error, deciding, sizes) from None
        return [
            Absent(undecided(e.error, deciding)) if isinstance(e, Absent) else e for e in entries
        ]

    def _nested(
        self,
        c: Context,
        graph: onnx.GraphProto,
        scope: Scope,
        name: str,
        errors: list[Exception],
    ) -> Nested:
        """A graph in an attribute; it sees the names around it.

        The errors of its nodes are added to `errors`.
        """
        body = graph_body(graph)
        own = {proto.name: tensor(proto, c.folder) for proto in graph.initializer}
        own |= {proto.values.name: dense(proto, c.folder) for proto in graph.sparse_initializer}
        inputs = [i.name for i in graph.input if i.name not in own]
        refuse_free(body, {*scope.env, *own, *inputs})

        def run(c: Context, around: Mapping[str, Entry], values: Sequence[Given]) -> list[Entry]:
            if len(values) != len(inputs):
                raise InvalidModel(f"its graph has {len(inputs)} inputs instead of {len(values)}")
            here: dict[str, Entry] = {n: c(constant) for n, constant in own.items()}
            here.update(zip(inputs, values, strict=True))
            inner = ChainMap(here, cast(MutableMapping[str, Entry], around))
            try:
                self._walk(c, body.nodes, Scope(inner, scope.opsets, scope.attributes, f"{name}/"))
            except (Mismatch, TbcError) as error:
                errors.append(error)
                raise
            if missing := [o.name for o in graph.output if o.name not in inner]:
                raise InvalidModel(f"its graph does not define its output '{missing[0]}'")
            return [inner[o.name] for o in graph.output]

        return Nested(
            graph,
            partial(run, c, scope.env),
            lambda rounds: partial(run, rounds.inside, _Outside(scope.env, rounds.take)),
        )


@dataclass(frozen=True)
class _Outside(Mapping[str, Entry]):
    """The names around a loop's body; a value that is looked up is taken into it."""

    around: Mapping[str, Entry]
    take: Callable[[Value], Value]

    def __getitem__(self, name: str) -> Entry:
        return each_by(self.take, self.around[name])

    def __contains__(self, name: object) -> bool:
        return name in self.around

    def __iter__(self) -> Iterator[str]:
        return iter(self.around)

    def __len__(self) -> int:
        return len(self.around)


def _kind(x: Given) -> Kind | None:
    if isinstance(x, Value):
        return x.type.dtype
    return None if x is None else SEQUENCE


def _check_type(x: Value | None, signature: Signature) -> None:
    """Raise Unsupported unless an operator takes what its first input holds."""
    if x is not None and x.type.dtype not in signature.dtypes:
        names = ", ".join(d.name for d in signature.dtypes)
        raise Unsupported(f"its first input is {x.type}, but it is supported for {names} only")


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
