"""Networks of others as cases of the benchmark, and where tbc's code for them spends its time."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np

from tbc.api import InProcess
from tbc.bench.steps import described
from tbc.codegen.host import host_target
from tbc.codegen.jit import jit_target
from tbc.driver import lower
from tbc.frontend import signature
from tbc.ir import Graph
from tbc.reference import bind_symbols
from tbc.runtime import Model
from tbc.specialise import Specialiser
from tests.bench_cases import Array, Case, by_onnxruntime
from tests.real_models import ABSENT, IS_THERE, REAL_MODELS, RealModel

ROUNDS = 30
SHOWN = 10


def models() -> Iterator[Case]:
    """The networks, each case made when its turn comes; none where they are not there."""
    if not IS_THERE:
        print(ABSENT, file=sys.stderr)
        return iter(())
    return map(model_case, REAL_MODELS.values())


def model_case(network: RealModel) -> Case:
    """A network for inputs of just one size, as one would compile it for a device."""
    fixed = {name: network.feeds[name] for name in network.fixed}
    feeds = {name: array for name, array in network.feeds.items() if name not in fixed}
    inputs = signature(network.path, input_values=fixed).inputs
    sizes = bind_symbols(inputs, feeds)
    graph = Specialiser(network.path, sizes, fixed).bounded().graph
    model = InProcess(graph, host_target(), "bench").model
    calls = {
        "tbc": lambda: next(iter(model.run(feeds).values())),
        "onnxruntime": by_onnxruntime(network.path, network.feeds),
    }
    shapes = ", ".join(f"{n} {list(a.shape)}" for n, a in feeds.items())
    return Case(f"{network.name}, {shapes}", 0, calls, 1e-4, lambda: steps(graph, model, feeds))


def steps(graph: Graph, model: Model, feeds: dict[str, Array]) -> list[str]:
    """The slowest phases of a run: the median of their times, their share, and what they do."""
    program = lower(graph, jit_target(host_target()))
    samples = [model.phase_seconds(feeds) for _ in range(ROUNDS)]
    times = np.median(samples, axis=0)[: len(program.phases)]
    lines = [f"{times.sum() * 1e6:.1f} µs in {len(times)} phases, each with a call from Python"]
    for number in np.argsort(-times)[:SHOWN]:
        share = times[number] / times.sum()
        for i, step in enumerate(program.phases[number]):
            time = f"{times[number] * 1e6:8.1f} µs  {share:4.0%}" if i == 0 else " " * 17
            lines.append(f"  {time}  {described(step)}")
    return [*lines, ""]
