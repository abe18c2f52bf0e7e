"""What a model should compute: by onnxruntime where it can, else by the model's own formula.

Both give the outputs and, besides, the results of the model's nodes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx.external_data_helper import load_external_data_for_model

from tbc.errors import Unsupported
from tbc.frontend.nodes import name_of, op_of
from tbc.frontend.reader import read
from tbc.ir import Graph, Value
from tbc.ops import Input, Unary
from tbc.reference import run_graph

Array: TypeAlias = npt.NDArray[Any]
Feeds: TypeAlias = Mapping[str, Array]
Model: TypeAlias = str | Path | bytes | onnx.ModelProto
Importer: TypeAlias = Callable[[Model], Graph]


@dataclass(frozen=True)
class Result:
    """A node's result.

    Attributes:
        name: what the oracle calls it.
        node: the node's name.
        op: its operator.
        value: the same in a graph.
        is_whole: whether it is the node's result, and not a value on the way to it.
    """

    name: str
    node: str
    op: str
    value: Value
    is_whole: bool

    @property
    def is_discrete(self) -> bool:
        """Whether it is rounded, so that a tiny error before may be a whole step after."""
        op = self.value.op
        rounds = isinstance(op, Unary) and op.fn in ("round", "floor", "ceil", "sign")
        return rounds or not self.value.type.dtype.is_float


class Oracle(Protocol):
    """Says what a model should compute."""

    @property
    def name(self) -> str:
        """Who says so."""

    @property
    def note(self) -> str:
        """Why it is not onnxruntime, or ""."""

    def run(self, feeds: Feeds, names: Sequence[str] = ()) -> Mapping[str, Array]:
        """The outputs, and the results of these names; ValueError if the inputs are no good."""

    def results(self) -> tuple[Graph, tuple[Result, ...]]:
        """The model's graph, and in it the results that outputs depend on."""


def oracle_of(model: Model, importer: Importer, values: Feeds | None = None) -> Oracle:
    """onnxruntime if it takes the model, else the formula of the graph that `importer` makes.

    `values` are inputs that the graph does not have, because they are constants in it.
    """
    try:
        return OnnxRuntime(model, importer, values or {})
    except Unsupported as error:
        return Formula(model, importer, error.reason)


class OnnxRuntime:
    """onnxruntime on one thread, its graph optimisations off, fed `values` in every run.

    Raises:
        Unsupported: it does not take the model.
    """

    def __init__(self, model: Model, importer: Importer, values: Feeds):
        import onnxruntime

        self.name = f"onnxruntime {onnxruntime.__version__}"
        self.note = ""
        self._model, self._importer, self._values = model, importer, values
        session = _session(model)
        for tensor in (*session.get_inputs(), *session.get_outputs()):
            if re.search(r"int[24]\b|float[48]", tensor.type.lower()):
                raise Unsupported(
                    f"onnxruntime has no arrays for the {tensor.type} '{tensor.name}'"
                )
        self._sessions: dict[tuple[str, ...], Any] = {(): session}

    def run(self, feeds: Feeds, names: Sequence[str] = ()) -> Mapping[str, Array]:
        """See `Oracle`."""
        key = tuple(names)
        if key not in self._sessions:
            self._sessions[key] = _session(_with_outputs(self._model, key))
        session = self._sessions[key]
        try:
            arrays = session.run(None, {**feeds, **self._values})
        except Exception as error:
            raise ValueError(f"{self.name}: {_first_line(error)}") from error
        outputs = (output.name for output in session.get_outputs())
        return {name: np.asarray(a) for name, a in zip(outputs, arrays, strict=True)}

    def results(self) -> tuple[Graph, tuple[Result, ...]]:
        """See `Oracle`."""
        proto = _whole(self._model)
        alive = set(_origins(self._importer(self._model).values()))
        outputs = {output.name for output in proto.graph.output}
        needed = outputs | {name for node in proto.graph.node for name in node.input}
        nodes = {
            output: node
            for node in proto.graph.node
            if name_of(node) in alive
            for output in node.output
            if output in needed
        }
        graph = self._importer(_with_outputs(proto, nodes))
        values = dict(graph.outputs)
        found = (Result(n, name_of(p), op_of(p), values[n], True) for n, p in nodes.items())
        graph = replace(graph, outputs=tuple((n, v) for n, v in graph.outputs if n in outputs))
        return graph, tuple(r for r in found if _depends_on_inputs(r.value))


class Formula:
    """The model's graph as it is imported, evaluated by `tbc.reference`."""

    name = "the model's formula"

    def __init__(self, model: Model, importer: Importer, note: str):
        self._model, self.note = model, note
        self._graph = importer(model)

    def run(self, feeds: Feeds, names: Sequence[str] = ()) -> Mapping[str, Array]:
        """See `Oracle`."""
        wanted = [(r.name, r.value) for r in self.results()[1] if r.name in set(names)]
        return run_graph(replace(self._graph, outputs=(*self._graph.outputs, *wanted)), feeds)

    def results(self) -> tuple[Graph, tuple[Result, ...]]:
        """See `Oracle`."""
        ops = {name_of(node): op_of(node) for node in read(self._model).model.graph.node}
        values = [v for v in self._graph.values() if _depends_on_inputs(v)]
        last = {v.origin: v for v in values if v.origin in ops}
        return self._graph, tuple(
            Result(f"v{v.number}", v.origin, ops.get(v.origin, ""), v, last.get(v.origin) is v)
            for v in values
        )


def _depends_on_inputs(value: Value) -> bool:
    return not value.is_constant and not isinstance(value.op, Input)


def _session(model: Model) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    source = str(model) if isinstance(model, Path) else model
    try:
        if isinstance(source, onnx.ModelProto):
            source = source.SerializeToString()
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        reason = f"onnxruntime does not take the model: {_first_line(error)}"
        raise Unsupported(reason) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


def _whole(model: Model) -> onnx.ModelProto:
    """A copy of the model that holds all of its data."""
    source = read(model)
    proto = onnx.ModelProto()
    proto.CopyFrom(source.model)
    if source.folder is not None:
        load_external_data_for_model(proto, str(source.folder))
    return proto


def _with_outputs(model: Model, names: Iterable[str]) -> onnx.ModelProto:
    """A copy of the model that has more of its values as outputs."""
    proto = _whole(model)
    there = {output.name for output in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in there)
    return proto


def _origins(values: Iterable[Value]) -> Iterator[str]:
    """The nodes that values come from, and those whose function bodies hold them."""
    for value in values:
        parts = value.origin.split("/")
        yield from ("/".join(parts[: i + 1]) for i in range(len(parts)))
