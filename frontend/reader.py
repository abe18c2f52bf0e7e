"""From a path, bytes or a message to a parsed ONNX model whose header is understood."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from tbc.errors import InvalidModel, Unsupported

OLDEST_OPSET = 7
MOST_NESTING = 100
"""Of graphs in attributes, and of functions: deeper ones would end Python's stack."""
_MOST_BYTES = 1 << 31  # protobuf's own limit of a message


@dataclass(frozen=True)
class Source:
    """A parsed model and where it comes from.

    Attributes:
        model: the message.
        file: the path as text, or "".
        folder: the folder that external data must lie in; None where the model is no file.
        warnings: what is unusual but harmless.
    """

    model: onnx.ModelProto
    file: str
    folder: Path | None
    warnings: tuple[str, ...]

    @property
    def name(self) -> str:
        """The file's stem, else the graph's name."""
        return Path(self.file).stem if self.file else self.model.graph.name or "model"


Model: TypeAlias = Path | str | bytes | onnx.ModelProto | Source
"""A path, the bytes of a file, a parsed model, or one with its place."""


def read(model: Model) -> Source:
    """The parsed model; a source is returned as it is.

    Raises:
        InvalidModel: it cannot be parsed, or lacks a graph or operator sets.
        Unsupported: its operator sets are too old, too new, or not known.
    """
    if isinstance(model, Source):
        return model
    if isinstance(model, onnx.ModelProto):
        proto, file, folder = model, "", None
    elif isinstance(model, bytes):
        proto, file, folder = _parse(model), "", None
    else:
        path = Path(model)
        file, folder = str(path), path.parent
        try:
            proto = _parse(_bytes_of(path))
        except InvalidModel as error:
            raise error.at(file=file) from None
    try:
        return Source(proto, file, folder, tuple(_check_header(proto)))
    except (InvalidModel, Unsupported) as error:
        raise error.at(file=file) from None


def _bytes_of(path: Path) -> bytes:
    try:
        if path.stat().st_size >= _MOST_BYTES:
            raise InvalidModel(
                "the file is larger than 2 GiB, more than an ONNX file can be",
                hint="save the weights as external data",
            )
        return path.read_bytes()
    except OSError as error:
        raise InvalidModel(f"the file cannot be read: {error.strerror}") from None


def _parse(data: bytes) -> onnx.ModelProto:
    if not data:
        raise InvalidModel("the file is empty")
    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(data)
        return model
    except DecodeError:
        raise InvalidModel(
            "this is not an ONNX model: the data is truncated or of another format"
        ) from None


def _check_header(model: onnx.ModelProto) -> Iterable[str]:
    """Raise where the header is not understood; yields warnings."""
    if not model.HasField("graph"):
        raise InvalidModel("the model has no graph")
    _refuse_bad_text(_names_of_graph(model.graph))
    for function in model.functions:
        _refuse_bad_text(_names_of_function(function))
    _refuse_bad_text(item.domain for item in model.opset_import)
    opsets(model.opset_import)
    if model.ir_version > onnx.IR_VERSION:
        yield (
            f"the file's IR version {model.ir_version} is newer than {onnx.IR_VERSION}, the newest "
            "that this onnx package knows; all its operator sets are known"
        )


def _refuse_bad_text(texts: Iterable[object]) -> None:
    """Raise InvalidModel where a name is not UTF-8: protobuf gives it as bytes."""
    for text in texts:
        if not isinstance(text, str):
            raise InvalidModel(f"a name in the file is not UTF-8 text: {text!r:.60}")


def _names_of_graph(graph: onnx.GraphProto, depth: int = 0) -> Iterator[object]:
    """Every text in a graph that has a meaning; Unsupported where graphs nest too deep."""
    if depth > MOST_NESTING:
        raise Unsupported(f"graphs nest deeper than {MOST_NESTING}")
    yield graph.name
    for value in (*graph.input, *graph.output):
        yield value.name
        for dim in value.type.tensor_type.shape.dim:
            yield dim.dim_param
    sparse = (t for s in graph.sparse_initializer for t in (s.values, s.indices))
    for tensor in (*graph.initializer, *sparse):
        yield tensor.name
        for entry in tensor.external_data:
            yield entry.value
    yield from _names_of_nodes(graph.node, depth)


def _names_of_nodes(nodes: Iterable[onnx.NodeProto], depth: int = 0) -> Iterator[object]:
    for node in nodes:
        yield from (node.name, node.op_type, node.domain, node.overload)
        yield from (*node.input, *node.output)
        for attribute in node.attribute:
            yield from (attribute.name, attribute.ref_attr_name)
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _names_of_graph(graph, depth + 1)


def _names_of_function(function: onnx.FunctionProto) -> Iterator[object]:
    yield from (function.name, function.domain, function.overload)
    yield from (*function.input, *function.output, *function.attribute)
    yield from (a.name for a in function.attribute_proto)
    yield from _names_of_nodes(function.node)


def opsets(imports: Iterable[onnx.OperatorSetIdProto]) -> Mapping[str, int]:
    """The version of each imported domain; ONNX's own domain is "".

    Raises:
        InvalidModel: nothing is imported, or a domain in two versions or one that cannot be.
        Unsupported: ONNX's own operator set is too old or too new.
    """
    newest = onnx.defs.onnx_opset_version()
    versions: dict[str, int] = {}
    for item in imports:
        domain, version = plain_domain(item.domain), item.version
        if domain and not 0 <= version < 1 << 31:
            raise InvalidModel(f"opset_import names version {version} of the domain '{domain}'")
        if versions.setdefault(domain, version) != version:
            raise InvalidModel(f"opset_import names the domain '{domain}' in two versions")
        if domain == "" and version > newest:
            raise Unsupported(
                f"opset {version} is newer than {newest}, the newest that is known",
                hint=f"export the model with opset_version={newest} or less",
            )
        if domain == "" and version < OLDEST_OPSET:
            raise Unsupported(
                f"opset {version} is older than {OLDEST_OPSET}, the oldest that is supported",
                hint="convert the model with onnx.version_converter",
            )
    if not versions:
        raise InvalidModel("the model has no opset_import: its operators have no meaning")
    return versions


def plain_domain(domain: str) -> str:
    """The domain, with the long name of ONNX's own written as ""."""
    return "" if domain == "ai.onnx" else domain
