"""Codes in integers: the same for every sum, or floats."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbc.constants import constant
from tbc.ir import Builder, Graph, Value
from tbc.ops import Binary, Cast, Input, Unary
from tbc.passes.ranges import Ranges
from tbc.passes.requantize import Chain, Line, chain_of, line_of, requantize
from tbc.reference import run_graph
from tbc.target import parse
from tbc.types import DType, TensorType

SMALL = parse("cortex-m4")

FLOATS = st.floats(-8, 8, width=32)
KINDS = ((0, 255, DType.u8), (-128, 127, DType.i8), (-127, 127, DType.i8), (0, 15, DType.u8))
"""The least and the greatest code, and their type."""
SCALES = st.one_of(st.floats(2.0**-12, 2, width=32), st.sampled_from([0.5, 0.25, 2.0**-7, 1.0]))


def network(
    limit: int,
    scales: npt.NDArray[np.float32],
    offsets: npt.NDArray[np.float32],
    step: float,
    clips: tuple[float, float],
    dtype: DType,
) -> Graph:
    """Codes of x i32 [points, rows], within the limit: of (x * scales + offsets) / step."""
    build = Builder()
    x = build(Input("x", TensorType(DType.i32, (5, len(scales)))))
    bounded = build(Binary("max"), x, constant(build, -limit, DType.i32))
    bounded = build(Binary("min"), bounded, constant(build, limit, DType.i32))
    value = build(Cast(DType.f32), bounded)

    def then(fn: str, value: Value, other: float | npt.NDArray[np.float32]) -> Value:
        return build(Binary(fn), value, constant(build, other, DType.f32))

    value = then("add", then("mul", value, scales), offsets)
    value = build(Unary("round"), then("div", value, step))
    value = then("min", then("max", value, clips[0]), clips[1])
    return Graph("net", (x,), (("y", build(Cast(dtype), value)),))


def parts(graph: Graph) -> tuple[Chain, int, DType]:
    ((_, codes),) = graph.outputs
    chain = chain_of(codes, graph.uses())
    assert chain is not None
    return chain, int(Ranges()(chain.sums).hi), codes.type.dtype


def by_line(line: Line, sums: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The codes as 32-bit code computes them; sums are [rows, points]."""
    shifted = sums << line.before
    assert max(np.abs(shifted).max(), np.abs(line.multipliers).max()) < 1 << 31
    high = (shifted * line.multipliers >> 32) + line.offsets
    assert np.abs(high).max() < 1 << 31
    return np.clip(high >> line.after, line.least, line.most)


@given(
    st.integers(1, 3000),
    st.lists(st.tuples(SCALES, FLOATS, st.booleans()), min_size=1, max_size=4),
    st.floats(2.0**-6, 2, width=32),
    st.sampled_from(KINDS),
)
def test_a_line_has_the_codes_of_every_sum(
    limit: int,
    rows: list[tuple[float, float, bool]],
    step: float,
    kind: tuple[int, int, DType],
) -> None:
    scales = np.array([-s if falls else s for s, _, falls in rows], np.float32)
    offsets = np.array([o for _, o, _ in rows], np.float32)
    graph = network(limit, scales, offsets, step, kind[:2], kind[2])
    chain, bound, dtype = parts(graph)
    assert bound == limit
    line = line_of(chain, bound, dtype)
    sums = np.broadcast_to(np.arange(-limit, limit + 1), (len(rows), 2 * limit + 1))
    if line is not None:
        assert (by_line(line, sums) == chain.codes(sums)).all()
    made = requantize(graph, SMALL)
    x = np.random.default_rng(0).integers(-2 * limit, 2 * limit, (5, len(rows)), np.int32)
    feeds = {"x": x}
    assert (run_graph(made, feeds)["y"] == run_graph(graph, feeds)["y"]).all()


def is_float(graph: Graph) -> bool:
    """Whether the codes of a graph are rounded from floats."""
    todo, seen = [value for _, value in graph.outputs], set()
    while todo:
        value = todo.pop()
        if value not in seen:
            seen.add(value)
            todo += value.args
    return any(value.op == Unary("round") for value in seen)


@pytest.mark.parametrize("seed", range(8))
def test_scales_as_training_leaves_them_have_lines(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scales = rng.uniform(0.01, 0.2, 64).astype(np.float32) * rng.choice([-1, 1], 64)
    offsets = rng.normal(size=64).astype(np.float32)
    graph = network(20000, scales.astype(np.float32), offsets, 0.137, (0, 255), DType.u8)
    assert is_float(graph)
    assert not is_float(requantize(graph, SMALL))


def test_large_machines_keep_floats() -> None:
    one = np.float32([0.137])
    graph = network(100, one, one, 0.5, (0, 255), DType.u8)
    assert requantize(graph, parse("x86-64-v3")) is graph
    assert is_float(requantize(graph, parse("armv8")))


def test_a_row_without_a_line_keeps_all_in_floats() -> None:
    """Ties go to even codes, on either side of what a line would do."""
    scales, offsets = np.float32([0.137, 0.5]), np.float32([0.0, 0.0])
    graph = network(1000, scales, offsets, 1.0, (0, 255), DType.u8)
    chain, bound, dtype = parts(graph)
    assert line_of(chain, bound, dtype) is None
    assert is_float(requantize(graph, SMALL))


def test_scales_of_zero_and_of_no_number() -> None:
    for scale in (0.0, np.inf, np.nan):
        scales, offsets = np.float32([0.137, scale]), np.float32([1.0, 3.0])
        graph = network(50, scales, offsets, 0.7, (0, 255), DType.u8)
        made = requantize(graph, SMALL)
        feeds = {"x": np.array([[-60, 60], [0, 0], [1, 1], [-1, -1], [30, 7]], np.int32)}
        assert (run_graph(made, feeds)["y"] == run_graph(graph, feeds)["y"]).all()
        assert is_float(made) == (not np.isfinite(scale))
