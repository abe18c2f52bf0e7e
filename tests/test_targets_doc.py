"""docs/targets.md holds: its rows, measured again, are the same, and so are all outputs."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pytest
import targets_doc
from targets_doc import DOCUMENT, SAMPLES, TARGETS, Array, measured, models

from tbc.codegen.host import resolve_target
from tbc.codegen.machine import Workers
from tbc.emulate import can_run
from tbc.ir import Graph
from tbc.reference import run_graph

QUICK = ("armv8", "cortex-m4f", "cortex-m55", "wasm32+relaxed")
SLACK = 1.1
"""Figures of the document may be so much larger or smaller than those of now."""


def documented() -> dict[str, dict[str, list[str]]]:
    """The cells of every row, by model and target; those of "How they were run" too."""
    parts = re.split(r"^## (.+)$", DOCUMENT.read_text(), flags=re.MULTILINE)
    found: dict[str, dict[str, list[str]]] = {}
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        lines = [line for line in body.splitlines() if line.startswith("|")][2:]
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        found[title] = {row[0]: row for row in rows}
    return found


MODELS = {model.name: model for model in models()}


def test_every_target_has_a_row() -> None:
    found = documented()
    assert list(found) == [*MODELS, "How they were run"]
    for rows in found.values():
        assert tuple(rows) == TARGETS


@pytest.mark.parametrize("name", MODELS)
def test_all_targets_give_the_same_bits(name: str) -> None:
    rows = documented()[name].values()
    run = [row for row in rows if row[7]]
    assert {row[6] for row in run} == {"0"}
    assert len({row[7] for row in run}) == 1
    assert all(re.fullmatch(r"[\d,]+ \*[pfs]\*", row[5]) for row in run)
    how = documented()["How they were run"]
    assert {row[0] for row in rows if not row[7]} == {
        target for target, (_, by) in how.items() if by.startswith("not run")
    }


CASES = [
    pytest.param(name, target, marks=() if name == "digits_mlp" and target in QUICK else slow)
    for slow in [pytest.mark.slow]
    for name in MODELS
    for target in TARGETS
]


@pytest.mark.parametrize(("name", "target"), CASES)
def test_a_row_is_as_measured(name: str, target: str, workers: Workers) -> None:
    if reason := can_run(resolve_target(target)):
        pytest.skip(reason)
    now, then = measured(MODELS[name], target, workers), documented()[name][target]
    if not then[7]:
        pytest.skip("the document was made where nothing runs this target")
    cells = now.cells()
    assert [cells[i] for i in (0, 1, 2, 4, 6, 7)] == [then[i] for i in (0, 1, 2, 4, 6, 7)]
    for column in (3, 5):
        if "–" not in (cells[column][0], then[column][0]):
            new, old = (int(re.sub(r"\D", "", text)) for text in (cells[column], then[column]))
            assert old / SLACK <= new <= old * SLACK, cells


def test_wrong_outputs_are_counted(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """One element of each sample, by a bit, if the reference were another."""

    def other(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
        found = {name: array.copy() for name, array in run_graph(graph, feeds).items()}
        for array in found.values():
            array.view(np.uint32).reshape(-1)[3] ^= 1
        return found

    if reason := can_run(resolve_target("armv8")):
        pytest.skip(reason)
    monkeypatch.setattr(targets_doc, "run_graph", other)
    assert measured(MODELS["digits_mlp"], "armv8", workers).wrong == SAMPLES
