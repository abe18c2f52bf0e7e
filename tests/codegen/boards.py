"""Graphs on microcontrollers that are emulated, against the reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tbc.codegen.machine import Workers
from tbc.driver import assemble, lower
from tbc.emulate import Emulated, can_run
from tbc.ir import Graph
from tbc.reference import run_graph
from tbc.target import parse

boards = pytest.mark.parametrize("target", ["cortex-m0plus", "cortex-m4", "cortex-m55", "rv32imc"])


def check(
    target: str, graph: Graph, feeds: Mapping[str, npt.NDArray[Any]], workers: Workers
) -> None:
    """The board computes what the reference does."""
    if missing := can_run(parse(target)):
        pytest.skip(missing)
    compiled = assemble(lower(graph, parse(target)), parse(target), "rows", workers)
    with Emulated(compiled) as emulated:
        outputs = emulated.run(feeds)
    for name, expected in run_graph(graph, feeds).items():
        np.testing.assert_array_equal(outputs[name], expected)
