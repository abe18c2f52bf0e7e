"""Models of other people's exporters and quantisers: right results, or the expected refusal."""

from __future__ import annotations

import time

import pytest
from corpus import CASES, CORPUS, io_sets, is_within, meta_of
from onnx_models import by_tbc

from tbc import frontend
from tbc.errors import InvalidModel, Unsupported

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
