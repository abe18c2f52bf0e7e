"""The benchmark runs, and its contestants agree on what they compute."""

import json
import sys

import pytest
from toolchain import ROOT, run


@pytest.mark.slow
def test_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    done = run(sys.executable, "-m", "tests.bench", "--rounds", "1", "--json")
    results = json.loads(done.stdout)["results"]
    assert {r["contestant"] for r in results} >= {"tbc", "onnxruntime"}
    assert all(r["median_us"] > 0 for r in results)
