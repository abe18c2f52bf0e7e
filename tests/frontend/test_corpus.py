"""Models of other people's exporters and quantisers: right results, or the expected refusal."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_models import Array, by_tbc

from tbc import frontend
from tbc.errors import InvalidModel, Unsupported

CORPUS = Path(__file__).parents[3] / "shared" / "corpus"
CASES = sorted(p.parent.name for p in CORPUS.glob("*/meta.json"))
SECONDS = 20

if not CASES:
    pytest.skip(f"the corpus is not at {CORPUS}", allow_module_level=True)


def is_within(got: Array, expected: Array, tolerance: dict[str, Any]) -> bool:
    """The corpus's rule: close everywhere, or as far off as one flipped code makes it."""
    y, e = got.astype(np.float64), expected.astype(np.float64)
    with np.errstate(invalid="ignore"):
        error = np.where((y == e) | (np.isnan(y) & np.isnan(e)), 0.0, np.abs(y - e))
        if np.all(error <= tolerance["atol"] + tolerance["rtol"] * np.nan_to_num(np.abs(e))):
            return True
    if tolerance.get("flip_atol") is None:
        return False
    relative = np.linalg.norm(error) / np.linalg.norm(e)
    return bool(error.max() <= tolerance["flip_atol"] and relative <= tolerance["flip_rel_l2"])


@pytest.mark.parametrize("name", CASES)
def test_corpus(name: str) -> None:
    folder = CORPUS / name
    meta = json.loads((folder / "meta.json").read_text())
    start = time.perf_counter()
    if meta["expect"] == "reject":
        with pytest.raises((InvalidModel, Unsupported)):
            frontend.load(folder / "model.onnx")
        assert time.perf_counter() - start < 2
        return
    imported = frontend.load(folder / "model.onnx")
    for path in sorted(folder.glob("inputs_*.npz")):
        with np.load(path) as inputs, np.load(path.with_name(f"out{path.name[2:]}")) as outputs:
            results = by_tbc(imported, dict(inputs))
            for (output, _), got in zip(imported.graph.outputs, results, strict=True):
                expected = outputs[output]
                assert got.shape == expected.shape
                assert got.dtype == expected.dtype
                assert is_within(got, expected, meta["tolerance"]), f"{path.stem}: {output}"
    assert time.perf_counter() - start < SECONDS
