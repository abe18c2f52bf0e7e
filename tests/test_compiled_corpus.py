"""Files of other people's exporters and quantisers, compiled for this machine and run.

Each gives its expected outputs, within the tolerance of its `meta.json`, or is refused by name.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from compiled import Native
from corpus import CASES, CORPUS, Array, io_sets, is_within, meta_of
from phase_check import check_phases, divided_finely

import tbc
from tbc.codegen.machine import Workers
from tbc.dims import Expr, Symbol
from tbc.frontend import load
from tbc.specialise import Specialiser

MEMORY = 512 << 20
SECONDS = 2

if not CASES:
    pytest.skip(f"the corpus is not at {CORPUS}", allow_module_level=True)

REFUSED = [n for n in CASES if meta_of(n)["expect"] == "reject"]
COMPILED = [n for n in CASES if n not in REFUSED]


def bounds_for(model: Path, feeds: list[dict[str, Array]]) -> dict[str, tuple[int, int]]:
    """For each symbol, the range of its extents in the feeds: one artifact for all of them."""
    seen: dict[str, list[int]] = {}
    for value in load(model).graph.inputs:
        for axis, dim in enumerate(value.type.shape):
            symbol = dim.terms[0][0][0] if isinstance(dim, Expr) and dim.terms[0][0] else None
            if isinstance(symbol, Symbol) and dim == Expr.of(symbol):
                extents = [f[value.op.name].shape[axis] for f in feeds]  # type: ignore[attr-defined]
                seen.setdefault(symbol.name, []).extend(extents)
    return {name: (min(extents), max(extents)) for name, extents in seen.items() if extents}


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_models_are_right(name: str) -> None:
    model, meta = CORPUS / name / "model.onnx", meta_of(name)
    sets = list(io_sets(name))
    compiled = tbc.compile(model, dims=bounds_for(model, [feeds for feeds, _ in sets]))
    for feeds, expected in sets:
        results = compiled.run(feeds)
        assert set(results) == set(expected)
        for output, array in expected.items():
            got = results[output]
            assert (got.shape, got.dtype) == (array.shape, array.dtype)
            assert is_within(got, array, meta["tolerance"]), output


@pytest.mark.slow
@pytest.mark.parametrize("finely", [False, True], ids=["as planned", "finely"])
@pytest.mark.parametrize("name", [n for n in COMPILED if any(io_sets(n))])
def test_parts_have_nothing_to_do_with_each_other(name: str, finely: bool) -> None:
    model = CORPUS / name / "model.onnx"
    sets = [feeds for feeds, _ in io_sets(name)]
    feeds = max(sets, key=lambda feeds: sum(map(np.size, feeds.values())))
    special = Specialiser(model, bounds_for(model, sets), {}).specialise(feeds)
    inputs = {n: a for n, a in feeds.items() if n not in special.values}
    with Workers(1) as workers, divided_finely() if finely else nullcontext():
        native = Native(special.graph, workers)
    for parts in (2, 3, 7):
        check_phases(native, inputs, parts)


REFUSE = """
import os, resource, sys, time
import tbc.api
from tbc.errors import InvalidModel, Unsupported
for path in sys.argv[1:]:
    pid = os.fork()
    if pid == 0:
        start = time.perf_counter()
        try:
            tbc.api.compile(path)
            word = "compiled"
        except (InvalidModel, Unsupported) as error:
            word = "refused" if str(error).startswith(path) else "unplaced"
        except BaseException as error:
            word = repr(error)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(path, word, f"{time.perf_counter() - start:.3f}", peak, sep="\\t", flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_malformed_files_are_refused_quickly() -> None:
    files = [str(CORPUS / name / "model.onnx") for name in REFUSED]
    done = subprocess.run(
        [sys.executable, "-c", REFUSE, *files], capture_output=True, text=True, check=True
    )
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == files
    for path, word, seconds, peak in rows:
        assert word == "refused", (path, word)
        assert float(seconds) < SECONDS, path
        assert int(peak) << 10 < MEMORY, path
