"""Reductions of every length and direction, and filters: exact here and in emulators."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import Native, native_target
from strategies import Array, assert_same, random_array

from tbc import ops
from tbc.codegen.host import resolve_target
from tbc.codegen.machine import Workers
from tbc.constants import constant
from tbc.dims import Dim, Expr, Symbol
from tbc.driver import assemble, lower
from tbc.emulate import Emulated, can_run
from tbc.ir import Builder, Graph, Value
from tbc.reference import run_graph
from tbc.types import DType, TensorType

LENGTH = Expr.of(Symbol("length", 1, 100))
COUNTS: tuple[Dim, ...] = (1, 3, 15, 16, 17, 33, 64, 65, 80, 97, LENGTH)
KINDS = ("sum", "prod", "max", "min")


def depthwise(build: Builder, x: Value, kernel: tuple[int, int]) -> Value:
    """The sums of windows of x[1, c, h, w], with a filter a channel."""
    _, c, h, w = (d for d in x.type.shape if isinstance(d, int))
    out = (h - kernel[0] + 1, w - kernel[1] + 1)
    zero = constant(build, 0, x.type.dtype)
    windows = build(ops.Windows(kernel, (1, 1), (1, 1), (0, 0), out), x, zero)
    taps = constant(build, random_array(x.type.dtype, (c, 1, 1, *kernel), 7), x.type.dtype)
    return build(ops.Reduce("sum", (4, 5)), build(ops.Binary("mul"), windows, taps))


def reductions() -> Graph:
    """Along the last axis, along the first, and along both, in several types."""
    build = Builder()
    inputs: list[Value] = []
    outputs: list[tuple[str, Value]] = []

    def source(dtype: DType, *shape: Dim) -> Value:
        inputs.append(build(ops.Input(f"x{len(inputs)}", TensorType(dtype, shape))))
        return inputs[-1]

    for number, count in enumerate(COUNTS):
        kind = KINDS[number % len(KINDS)]
        for dtype in (DType.f32, DType.i32):
            last, first = source(dtype, 5, count), source(dtype, count, 37)
            outputs.append((f"last{len(inputs)}", build(ops.Reduce(kind, (1,)), last)))
            outputs.append((f"first{len(inputs)}", build(ops.Reduce(kind, (0,)), first)))
    for dtype in (DType.f16, DType.f64):
        both = source(dtype, 3, 7, 9)
        outputs.append((f"both{len(inputs)}", build(ops.Reduce("sum", (0, 2)), both)))
    image = source(DType.f32, 1, 37, 9, 8)
    for kernel in ((3, 3), (5, 5), (9, 8)):
        outputs.append((f"filter{kernel}", depthwise(build, image, kernel)))
    lying = build(ops.Transpose((0, 3, 1, 2)), source(DType.f32, 1, 9, 8, 37))
    apart = build(ops.Unary("exp"), lying)
    outputs.append(("apart", depthwise(build, apart, (3, 3))))
    return Graph("g", tuple(inputs), tuple(outputs))


def feeds(graph: Graph, length: int) -> dict[str, Array]:
    result = {}
    for seed, value in enumerate(graph.inputs):
        shape = tuple(d if isinstance(d, int) else length for d in value.type.shape)
        result[f"x{seed}"] = random_array(value.type.dtype, shape, seed)
    return result


@pytest.mark.parametrize("name", ["native", "x86-64-v3", "x86-64"])
def test_here(workers: Workers, name: str) -> None:
    target = native_target() if name == "native" else resolve_target(name)
    if not target.features <= native_target().features or target.arch != native_target().arch:
        pytest.skip("this machine is another one")
    graph = reductions()
    model = Native(graph, workers, target)
    for length in (1, 16, 47, 100):
        arrays = feeds(graph, length)
        expected = run_graph(model.lowered, arrays)
        for parts in (1, 3):
            run = model.run(arrays, parts)
            for output, array in expected.items():
                assert_same(run.outputs[output], array)


@pytest.mark.parametrize("name", ["armv8", "armv7", "rv64gc", "s390x", "rv32imc"])
def test_emulated(workers: Workers, name: str) -> None:
    target = resolve_target(name)
    if missing := can_run(target):
        pytest.skip(missing)
    graph = reductions()
    arrays = feeds(graph, 47)
    with Emulated(assemble(lower(graph, target), target, "m", workers)) as model:
        results = model.run(arrays)
    for output, array in run_graph(graph, arrays).items():
        assert_same(results[output], array)


def test_a_sum_of_negative_zeros_is_zero(workers: Workers) -> None:
    graph = reductions()
    arrays = {name: np.full_like(x, -0.0) for name, x in feeds(graph, 17).items()}
    run = Native(graph, workers).run(arrays)
    sums = [array for name, array in run.outputs.items() if name.startswith(("both", "filter"))]
    assert all(not np.signbit(array[array == 0]).any() for array in sums)
    for output, array in run_graph(graph, arrays).items():
        assert_same(run.outputs[output], array)
