"""Every form of a low-bit weight lifts, and the lifted model is right."""

from __future__ import annotations

import numpy as np
import pytest
from forms import Form, trits
from lifting_forms import FORMS
from onnx_models import Array, assert_close, by_onnxruntime

import tbc
from tbc import frontend, reference
from tbc.ir import Graph
from tbc.passes import FRONT
from tbc.passes.explain import explain
from tbc.target import parse


def lifted(form: Form) -> Graph:
    graph = frontend.load(form.proto).graph
    for step in FRONT:
        graph = step(graph, parse("x86-64"))
    return graph


def expected(form: Form) -> list[Array]:
    if form.expected is not None:
        return [form.expected]
    return by_onnxruntime(form.proto, form.feeds)


@pytest.mark.parametrize("name", FORMS)
def test_form(name: str) -> None:
    form = FORMS[name]()
    graph = lifted(form)
    reports = explain(graph)
    assert {r.weights for r in reports} == set(form.weights), [r.reason for r in reports]
    assert len(reports) >= len(form.weights)
    assert {r.activations for r in reports} == {form.activations}
    assert all(not r.reason for r in reports)
    results = reference.run_graph(graph, form.feeds)
    for (output, _), wanted in zip(graph.outputs, expected(form), strict=True):
        assert_close(results[output], wanted, form.scale)


COMPILED = (
    "MatMulNBits, level 4",
    "MatMulNBits, level 4, all codes",
    "3 bits",
    "BiLLM, codes",
    "MatMulInteger, u8",
    "grouped Conv",
    "LSTM, bidirectional",
    "gain of a norm and scales of rows",
    "DequantizeLinear along k, codes",
    "grouped Conv, scales of input channels",
)


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_form(name: str) -> None:
    form = FORMS[name]()
    compiled = tbc.compile(form.proto)
    results = compiled.run(form.feeds)
    exact = reference.run_graph(compiled.graph, form.feeds)
    for (output, _), wanted in zip(compiled.graph.outputs, expected(form), strict=True):
        assert_close(results[output], wanted, form.scale)
        assert_close(exact[output], wanted, form.scale)


def test_weights_that_are_nearly_ternary_stay() -> None:
    form = FORMS["weight through Reshape and Cast"]()
    assert not explain(lifted(form))[0].reason
    dense = FORMS["Gemm, transA=0 transB=0"]()
    w = trits(2, 64, 24) * np.float32(0.5)
    w[3, 3] = 0.50005
    for tensor in dense.proto.graph.initializer:
        if tensor.name == "w":
            tensor.raw_data = w.tobytes()
    (report,) = explain(lifted(dense))
    assert "off by 0.0001 of the scale" in report.reason


@pytest.mark.parametrize(
    "name", ["DequantizeLinear along k, codes", "DynamicQuantizeLinear and gains"]
)
def test_codes_and_scales_of_columns_are_multiplied_as_floats(name: str) -> None:
    (report,) = explain(lifted(FORMS[name]()))
    assert "each column, or each of the weight's, has a scale of its own" in report.float_reason
