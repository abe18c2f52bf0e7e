"""`load`: a model file, checked as a whole and imported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from tbc.dims import Dim
from tbc.errors import InvalidModel, TbcError, Unsupported
from tbc.frontend.control import Absent, Mismatch
from tbc.frontend.importer import Importer
from tbc.frontend.reader import Source, read
from tbc.frontend.structure import Body, functions_of, graph_body, refuse_free
from tbc.frontend.symbols import Range, Symbols
from tbc.frontend.tensors import check_sizes, dtype_of, tensor
from tbc.ir import Graph
from tbc.ops import Const
from tbc.types import TensorType

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Imported:
    """A model as a graph.

    Attributes:
        graph: the graph; its inputs are the model's, without those that have initializers.
        warnings: what is unusual in the file, a sentence each.
        equalities: symbolic sizes of the file that had to be other sizes, with those.
    """

    graph: Graph
    warnings: tuple[str, ...]
    equalities: Mapping[str, Dim]


def load(
    model: Path | str | bytes | onnx.ModelProto,
    *,
    dims: Mapping[str, Range] = _NOTHING,
    input_values: Mapping[str, npt.ArrayLike] = _NOTHING,
) -> Imported:
    """The graph of an ONNX model.

    Args:
        model: a path, the bytes of a file, or a parsed model; external data needs a path.
        dims: for symbolic sizes by name, a number or a least and a greatest number (None for no
            bound); others are at least 0.
        input_values: inputs that become constants, such as a shape that an operator reads.

    Raises:
        InvalidModel: the model breaks ONNX's rules.
        Unsupported: tbc cannot compile a part of it that its outputs need.
        ValueError: `dims` or `input_values` names what the model does not have.
    """
    source = read(model)
    try:
        return _import(source, dims, input_values)
    except TbcError as error:
        error.at(file=source.file)
        raise


def _import(
    source: Source, dims: Mapping[str, Range], input_values: Mapping[str, npt.ArrayLike]
) -> Imported:
    graph = source.model.graph
    functions = functions_of(source.model)
    body = _checked_body(graph)
    constants = dict(_initializers(source))
    protos = [i for i in graph.input if i.name not in constants]
    if unknown := sorted(set(input_values) - {i.name for i in protos}):
        raise ValueError(f"the model has no input {', '.join(unknown)}")
    values = {name: np.asarray(value) for name, value in input_values.items()}
    sizes = {i.name: _sizes(i, values.get(i.name)) for i in protos}
    symbols = Symbols((s for shape in sizes.values() for s in shape if isinstance(s, str)), dims)
    importer = Importer(source, functions, body, constants)
    while True:
        types = {
            i.name: TensorType(
                dtype_of(i.type.tensor_type.elem_type, f"the input '{i.name}'"),
                tuple(s if isinstance(s, int) else symbols.dim(s) for s in sizes[i.name]),
            )
            for i in protos
        }
        try:
            result = importer.graph(types, values)
        except Mismatch as mismatch:
            if not symbols.equate(mismatch.a, mismatch.b):
                raise mismatch.error from None
        else:
            warnings = (*source.warnings, *_default_inputs(graph, constants))
            return Imported(result, warnings, MappingProxyType(symbols.equalities))


def _checked_body(graph: onnx.GraphProto) -> Body:
    """The graph's nodes, after a check of all names."""
    body = graph_body(graph)
    refuse_free(body, ())
    defined = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    defined |= {t.values.name for t in graph.sparse_initializer}
    defined |= {name for node in body.nodes for name in node.output}
    names = [o.name for o in graph.output]
    if not names:
        raise InvalidModel("the graph has no outputs")
    for name in names:
        if not name or name not in defined:
            raise InvalidModel(f"the graph's output '{name}' is not defined")
        if names.count(name) > 1:
            raise InvalidModel(f"two outputs are called '{name}'")
    return body


def _initializers(source: Source) -> Iterable[tuple[str, Const | Absent]]:
    for proto in source.model.graph.initializer:
        try:
            yield proto.name, tensor(proto, source.folder)
        except Unsupported as error:
            yield proto.name, Absent(error)
    for sparse in source.model.graph.sparse_initializer:
        name = sparse.values.name
        yield name, Absent(Unsupported(f"the tensor '{name}' is sparse, which tbc does not have"))


def _sizes(proto: onnx.ValueInfoProto, value: npt.NDArray[Any] | None) -> list[int | str]:
    """The sizes of an input: numbers, and the texts of symbols."""
    what = f"the input '{proto.name}'"
    if not proto.name:
        raise InvalidModel("an input has no name")
    kind = proto.type.WhichOneof("value")
    if kind is None:
        raise InvalidModel(f"{what} has no type")
    if kind != "tensor_type":
        raise Unsupported(f"{what} is a {kind.removesuffix('_type')}, not a tensor")
    dtype_of(proto.type.tensor_type.elem_type, what)
    if value is not None:
        return list(value.shape)
    if not proto.type.tensor_type.HasField("shape"):
        raise Unsupported(f"{what} has no shape", hint="give it one, of symbols where need be")
    sizes: list[int | str] = []
    for axis, dim in enumerate(proto.type.tensor_type.shape.dim):
        if dim.WhichOneof("value") == "dim_value":
            sizes.append(dim.dim_value)
        else:
            sizes.append(dim.dim_param or f"{proto.name}_{axis}")
    check_sizes([s for s in sizes if isinstance(s, int)], what)
    return sizes


def _default_inputs(graph: onnx.GraphProto, constants: Mapping[str, Any]) -> Iterable[str]:
    """A warning where inputs could be overridden that are taken as constants."""
    names = [i.name for i in graph.input if i.name in constants]
    if names:
        few = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        yield f"{len(names)} inputs have initializers and are constants: {few}"
