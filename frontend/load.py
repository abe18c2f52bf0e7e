"""`load`: a model file, checked as a whole and imported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnx

from tbc.dims import Dim
from tbc.errors import InvalidModel, TbcError, Unsupported
from tbc.feeds import converted
from tbc.frontend.control import Absent, Mismatch
from tbc.frontend.importer import Importer
from tbc.frontend.reader import Model, Source, read
from tbc.frontend.small_floats import elements_of
from tbc.frontend.structure import Body, functions_of, graph_body, refuse_free
from tbc.frontend.symbols import Range, Symbols
from tbc.frontend.tensors import check_sizes, dense, dtype_of, tensor
from tbc.ir import Builder, Graph, Value
from tbc.ops import Const, Input
from tbc.types import DType, TensorType

P = TypeVar("P")

NAMELESS = ("", "?", "-1", "None")
"""Texts of a size that are no name: where two of them stand, they are two sizes."""

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


@dataclass(frozen=True)
class _Interface:
    """What a model takes: by input, its element type, its sizes as in the file, and its value."""

    dtypes: Mapping[str, DType]
    sizes: Mapping[str, Sequence[int | str]]
    values: Mapping[str, npt.NDArray[Any]]
    symbols: Symbols
    warnings: tuple[str, ...]

    def types(self) -> dict[str, TensorType]:
        """The types of the inputs, with what is known of the symbols by now."""
        return {
            name: TensorType(
                dtype,
                tuple(s if isinstance(s, int) else self.symbols.dim(s) for s in self.sizes[name]),
            )
            for name, dtype in self.dtypes.items()
        }


@dataclass(frozen=True)
class Signature:
    """What a model takes.

    Attributes:
        inputs: the inputs as the file declares them, without those that have values.
        values: the values, of the inputs' types.
    """

    inputs: tuple[Value, ...]
    values: Mapping[str, npt.NDArray[Any]]


def load(
    model: Model,
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
        Unsupported: tbc cannot compile a part of it that its outputs need; Unfixed where it might
            with more sizes or values fixed.
        ValueError: `dims` or `input_values` names what the model does not have, or a value does
            not fit its input.
    """
    source = read(model)
    try:
        return _import(source, dims, input_values)
    except TbcError as error:
        error.at(file=source.file)
        raise


def signature(
    model: Model,
    *,
    dims: Mapping[str, Range] = _NOTHING,
    input_values: Mapping[str, npt.ArrayLike] = _NOTHING,
) -> Signature:
    """What a model takes besides given values; errors as `load`."""
    source = read(model)
    try:
        face = _interface(source, dims, input_values)
    except TbcError as error:
        raise error.at(file=source.file) from None
    builder = Builder()
    leaves = (Input(name, type) for name, type in face.types().items() if name not in face.values)
    return Signature(tuple(builder(leaf) for leaf in leaves), face.values)


def element_types(model: Model) -> dict[str, int]:
    """ONNX's number of the element type of each input and output; 0 where the file has none."""
    graph = read(model).model.graph
    return {i.name: i.type.tensor_type.elem_type for i in (*graph.input, *graph.output)}


def _import(
    source: Source, dims: Mapping[str, Range], input_values: Mapping[str, npt.ArrayLike]
) -> Imported:
    graph = source.model.graph
    functions = functions_of(source.model)
    body = _checked_body(graph)
    constants = dict(_initializers(source))
    face = _interface(source, dims, input_values)
    importer = Importer(source, functions, body, constants)
    while True:
        try:
            result, unusual = importer.graph(face.types(), face.values)
        except Mismatch as mismatch:
            if not face.symbols.equate(mismatch.a, mismatch.b):
                raise mismatch.error from None
        else:
            warnings = (
                *source.warnings,
                *face.warnings,
                *_default_inputs(graph, constants),
                *unusual,
            )
            return Imported(result, warnings, MappingProxyType(face.symbols.equalities))


def _interface(
    source: Source, dims: Mapping[str, Range], input_values: Mapping[str, npt.ArrayLike]
) -> _Interface:
    graph = source.model.graph
    constants = {t.name for t in graph.initializer}
    constants |= {t.values.name for t in graph.sparse_initializer}
    protos = {i.name: i for i in graph.input if i.name not in constants}
    if unknown := sorted(set(input_values) - protos.keys()):
        raise ValueError(f"the model has no input {', '.join(unknown)}")
    dtypes = {name: _dtype(proto) for name, proto in protos.items()}
    values = {
        n: elements_of(np.asarray(v), dtypes[n])
        if dtypes[n].is_small_float
        else converted(v, dtypes[n].numpy, n)
        for n, v in input_values.items()
    }
    sizes, known = {}, dict(dims)
    for name, proto in protos.items():
        shape = values[name].shape if name in values else None
        sizes[name] = _sizes(proto, shape)
        if shape is not None:
            known |= _agreed(name, sizes[name], shape, known)
    symbols = Symbols((s for shape in sizes.values() for s in shape if isinstance(s, str)), known)
    warnings = tuple(w for proto in protos.values() for w in _negative_sizes(proto))
    return _Interface(dtypes, sizes, values, symbols, warnings)


def _agreed(
    name: str, sizes: Sequence[int | str], shape: tuple[int, ...], dims: Mapping[str, Range]
) -> dict[str, Range]:
    """The symbols that the shape of an input's value decides; ValueError if it does not fit."""
    found: dict[str, Range] = {}
    for axis, (size, extent) in enumerate(zip(sizes, shape, strict=True)):
        wanted = size if isinstance(size, int) else dims.get(size, extent)
        if isinstance(wanted, int) and wanted != extent:
            raise ValueError(f"the value of '{name}' has {extent} along axis {axis}, not {wanted}")
        if isinstance(size, str):
            found[size] = extent
    return found


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
        yield proto.name, _or_absent(tensor, proto, source)
    for sparse in source.model.graph.sparse_initializer:
        yield sparse.values.name, _or_absent(dense, sparse, source)


def _or_absent(read: Callable[[P, Path | None], Const], proto: P, source: Source) -> Const | Absent:
    try:
        return read(proto, source.folder)
    except Unsupported as error:
        return Absent(error)


def _dtype(proto: onnx.ValueInfoProto) -> DType:
    """The element type of an input."""
    what = f"the input '{proto.name}'"
    if not proto.name:
        raise InvalidModel("an input has no name")
    kind = proto.type.WhichOneof("value")
    if kind is None:
        raise InvalidModel(f"{what} has no type")
    if kind != "tensor_type":
        raise Unsupported(f"{what} is a {kind.removesuffix('_type')}, not a tensor")
    return dtype_of(proto.type.tensor_type.elem_type, what)


def _sizes(proto: onnx.ValueInfoProto, shape: tuple[int, ...] | None) -> list[int | str]:
    """The sizes of an input, whose value has the shape: numbers, and the texts of symbols."""
    what = f"the input '{proto.name}'"
    if not proto.type.tensor_type.HasField("shape"):
        if shape is None:
            raise Unsupported(f"{what} has no shape", hint="give it one, of symbols where need be")
        return list(shape)
    sizes: list[int | str] = []
    for axis, dim in enumerate(proto.type.tensor_type.shape.dim):
        if dim.WhichOneof("value") == "dim_value" and dim.dim_value >= 0:
            sizes.append(dim.dim_value)
        else:
            named = dim.dim_param not in NAMELESS
            sizes.append(dim.dim_param if named else f"{proto.name}_{axis}")
    check_sizes([s for s in sizes if isinstance(s, int)], what)
    if shape is not None and len(shape) != len(sizes):
        raise ValueError(f"the value of '{proto.name}' has rank {len(shape)}, not {len(sizes)}")
    return sizes


def _negative_sizes(proto: onnx.ValueInfoProto) -> Iterable[str]:
    """A warning for each size that is negative: some exporters write that where none is known."""
    for axis, dim in enumerate(proto.type.tensor_type.shape.dim):
        if dim.dim_value < 0:
            yield (
                f"the input '{proto.name}' has the size {dim.dim_value} along axis {axis}, "
                f"which is taken as the symbol {proto.name}_{axis}"
            )


def _default_inputs(graph: onnx.GraphProto, constants: Mapping[str, Any]) -> Iterable[str]:
    """A warning where inputs could be overridden that are taken as constants."""
    names = [i.name for i in graph.input if i.name in constants]
    if names:
        few = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        yield f"{len(names)} inputs have initializers and are constants: {few}"
