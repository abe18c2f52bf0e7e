"""Models of other people's exporters and quantisers: right results, or the expected refusal."""

from __future__ import annotations

import time

import onnx
import pytest
from corpus import CASES, CORPUS, io_sets, is_within, meta_of
from onnx_models import by_tbc

from tbc import frontend
from tbc.errors import InvalidModel, Unsupported
from tbc.passes import FRONT
from tbc.passes.explain import explain
from tbc.target import parse

SECONDS = 20

if not CASES:
    pytest.skip(f"the corpus is not at {CORPUS}", allow_module_level=True)


@pytest.mark.parametrize("name", CASES)
def test_corpus(name: str) -> None:
    folder = CORPUS / name
    meta = meta_of(name)
    start = time.perf_counter()
    if meta["expect"] == "reject":
        with pytest.raises((InvalidModel, Unsupported)):
            frontend.load(folder / "model.onnx")
        assert time.perf_counter() - start < 2
        return
    imported = frontend.load(folder / "model.onnx")
    for number, (inputs, outputs) in enumerate(io_sets(name)):
        results = by_tbc(imported, inputs)
        for (output, _), got in zip(imported.graph.outputs, results, strict=True):
            expected = outputs[output]
            assert got.shape == expected.shape
            assert got.dtype == expected.dtype
            assert is_within(got, expected, meta["tolerance"]), f"set {number}: {output}"
    assert time.perf_counter() - start < SECONDS


CENSUS = [n for n in CASES if meta_of(n).get("constant_weight_census")]
"""The cases whose `meta.json` classes the weights of products by their values."""


@pytest.mark.parametrize("name", CENSUS)
def test_what_is_low_bit_lifts(name: str) -> None:
    path = CORPUS / name / "model.onnx"
    graph = frontend.load(path).graph
    for step in FRONT:
        graph = step(graph, parse("x86-64-v3"))
    reasons = {r.origin: r.reason for r in explain(graph)}
    nodes = onnx.load(path, load_external_data=False).graph.node
    for entry in meta_of(name)["constant_weight_census"]:
        low_bit = entry.get("class", "ternary").startswith(("ternary", "binary"))
        users = [n.name or n.output[0] for n in nodes if entry["weight"] in n.input]
        assert users, entry["weight"]
        for user in users if low_bit else ():
            assert reasons[user] == "", user
