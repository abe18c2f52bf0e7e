"""Random ONNX models: compiled code, the exact reference and onnxruntime agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from compiled import Native
from hypothesis import HealthCheck, given, note, reject, settings
from onnx_drawing import BATCH, Drawn
from onnx_strategies import intermediate, models
from onnxruntime_oracle import session
from strategies import assert_same

from tbc import frontend, reference
from tbc.codegen.machine import Workers
from tbc.dims import Expr, Symbol
from tbc.ir import bind

Array = npt.NDArray[Any]

RELATIVE = 1e-4
"""The tolerance, relative to the largest number on the way."""


def by_onnxruntime(drawn: Drawn) -> tuple[list[Array], float]:
    """The outputs without graph optimisations, and the largest number that occurs in the model."""
    names = intermediate(drawn)
    proto = drawn.model()
    proto.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names)
    try:
        oracle = session(proto)
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        reject()  # it has no kernel for such a type
    inputs = {i.name for i in oracle.get_inputs()}
    feeds = {n: a for n, a in drawn.feeds.items() if n in inputs}
    results = oracle.run([t.name for t in drawn.results] + list(names), feeds)
    floats = [a for a in results if a.dtype.kind == "f" and a.size]
    return results[: len(drawn.results)], max((float(np.abs(a).max()) for a in floats), default=0.0)


def check(drawn: Drawn, workers: Workers) -> None:
    proto = drawn.model()
    note(onnx.printer.to_text(proto))
    expected, largest = by_onnxruntime(drawn)
    graph = bind(frontend.load(proto).graph, {BATCH: Expr.of(Symbol(BATCH, 1, 17))})
    model = Native(graph, workers)
    feeds = {i.op.name: drawn.feeds[i.op.name] for i in graph.inputs}  # type: ignore[attr-defined]
    exact = reference.run_graph(model.lowered, feeds)
    for parts in (1, 2):
        run = model.run(feeds, parts)
        assert run.status == 0
        for name, array in exact.items():
            assert_same(run.outputs[name], array)
    for term, array in zip(drawn.results, expected, strict=True):
        got = run.outputs[term.name]
        assert (got.dtype, got.shape) == (array.dtype, array.shape)
        if term.exact:
            np.testing.assert_array_equal(got, array)
        else:
            nearly = RELATIVE * (1 + largest)
            np.testing.assert_allclose(got, array, rtol=RELATIVE, atol=nearly)


_QUIET = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@settings(_QUIET, max_examples=60)
@given(models())
def test_models(workers: Workers, drawn: Drawn) -> None:
    check(drawn, workers)


@pytest.mark.slow
@settings(_QUIET, max_examples=1000)
@given(models(nodes=16))
def test_many_models(workers: Workers, drawn: Drawn) -> None:
    check(drawn, workers)
