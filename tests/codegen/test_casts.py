"""Floats cast to integers of every width: saturated, truncated, nan to 0, here and in emulators."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import Native, native_target
from strategies import Array, assert_same

from tbc import ops
from tbc.codegen.host import resolve_target
from tbc.codegen.machine import Workers
from tbc.driver import assemble, lower
from tbc.emulate import Emulated, can_run
from tbc.ir import Builder, Graph
from tbc.reference import run_graph
from tbc.types import DType, TensorType

FLOATS = (DType.f16, DType.bf16, DType.f32, DType.f64)
INTEGERS = (DType.i8, DType.u8, DType.i16, DType.u16, DType.i32, DType.u32, DType.i64, DType.u64)
COUNT = 1021


def casts() -> Graph:
    """Every float as every integer."""
    build = Builder()
    inputs = [build(ops.Input(d.name, TensorType(d, (COUNT,)))) for d in FLOATS]
    outputs = [
        (f"{x.type.dtype.name}_{to.name}", build(ops.Cast(to), x))
        for x in inputs
        for to in INTEGERS
    ]
    return Graph("g", tuple(inputs), tuple(outputs))


def numbers() -> dict[str, Array]:
    """Numbers on both sides of every limit, of every size, infinite, and not numbers."""
    limits = np.array([0.0, *(limit for to in INTEGERS for limit in to.range)])
    near = (limits[:, None] + np.array([-1.5, -1, -0.5, 0, 0.5, 1, 1.5])).reshape(-1)
    rng = np.random.default_rng(3)
    wide = rng.standard_normal(COUNT) * np.exp2(rng.uniform(-4, 70, COUNT))
    wide[: near.size] = near
    wide[near.size : near.size + 4] = [np.inf, -np.inf, np.nan, -0.0]
    with np.errstate(all="ignore"):
        return {d.name: rng.permutation(wide).astype(d.numpy) for d in FLOATS}


@pytest.mark.parametrize("name", ["native", "x86-64-v3", "x86-64"])
def test_here(workers: Workers, name: str) -> None:
    target = native_target() if name == "native" else resolve_target(name)
    if not target.features <= native_target().features or target.arch != native_target().arch:
        pytest.skip("this machine is another one")
    arrays = numbers()
    run = Native(casts(), workers, target).run(arrays)
    for output, array in run_graph(casts(), arrays).items():
        assert_same(run.outputs[output], array)


@pytest.mark.parametrize("name", ["armv8", "armv7", "cortex-m3", "rv64gc", "s390x", "i686"])
def test_emulated(workers: Workers, name: str) -> None:
    target = resolve_target(name)
    if missing := can_run(target):
        pytest.skip(missing)
    arrays = numbers()
    with Emulated(assemble(lower(casts(), target), target, "m", workers)) as model:
        results = model.run(arrays)
    for output, array in run_graph(casts(), arrays).items():
        assert_same(results[output], array)
