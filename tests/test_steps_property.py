"""Random graphs compiled for this machine compute what the reference says, bit for bit."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from compiled import Native, graph_of, native_target
from graph_strategies import BATCH, MAKERS, N, Pool, bindings, feeds, fits, graphs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from phase_check import check_phases, divided_finely
from strategies import Array, assert_same, random_array
from toolchain import needs_cc

from tbc import kernels, ops, reference
from tbc.codegen.host import resolve_target
from tbc.codegen.machine import Workers
from tbc.constants import constant
from tbc.dims import Dim, Expr, Symbol, product, static, upper
from tbc.driver import assemble, lower
from tbc.emulate import Emulated, can_run
from tbc.ir import Builder, Graph, Value, rebuilt, topological
from tbc.passes.bodies import with_bodies
from tbc.target import Target
from tbc.text import parse_graph
from tbc.types import DType, TensorType

Draw = Callable[..., Any]

ROWS, COLUMNS = Symbol("rows", 0, 70), Symbol("columns", 1, 40)
SIZES = (0, 1, 2, 3, 5, 7, 8, 13, 16, 17, 31, 32, 37, 64, 67, 97)
_SIZE_LIMIT = 30_000
_BAD_VALUE = 7
"""TBC_ERROR_VALUE of tbc.h."""


# -- graphs ---------------------------------------------------------------------------------------


def _of_inputs(p: Pool, wanted: Callable[[Value], bool], extent: int, dtype: DType) -> Value:
    """Indices that are data; where they are not reduced, some may lie outside."""
    whole = [v for v in p.values if v.type.dtype.is_int and not v.is_constant and wanted(v)]
    if not whole:
        raise LookupError
    wide = p.builder(ops.Cast(dtype), p.draw(st.sampled_from(whole)))
    if p.draw(st.integers(0, 3)):
        limit = constant(p.builder, extent, wide.type.dtype)
        wide = p.builder(ops.Binary(p.draw(st.sampled_from(["mod", "fmod"]))), wide, limit)
    return wide


_INDICES = st.sampled_from([DType.i32, DType.i64])


def _axis_of_one(p: Pool) -> tuple[Value, int, int]:
    """A value, one of its axes, and the number of elements along it."""
    x = p.pick(lambda t: t.rank > 0 and t.is_static and 0 not in t.shape)
    axis = p.integer(0, x.type.rank - 1)
    return x, axis, static(x.type.shape[axis], "a size")


def _gather_by_input(p: Pool) -> Value:
    x, axis, extent = _axis_of_one(p)
    indices = _of_inputs(p, lambda v: v.type.rank < 3, extent, p.draw(_INDICES))
    return p.builder(ops.Gather(axis), x, indices)


def _elements_by_input(p: Pool) -> Value:
    x, axis, extent = _axis_of_one(p)
    scatter = ops.ScatterElements(axis, p.draw(st.sampled_from(ops.UPDATES)))

    def updates(v: Value) -> list[Value]:
        return [u for u in p.values if fits(scatter, x.type, _as_index(v), u.type)]

    indices = _of_inputs(p, lambda v: bool(updates(v)), extent, p.draw(_INDICES))
    if p.draw(st.booleans()):
        return p.builder(ops.GatherElements(axis), x, indices)
    return p.builder(scatter, x, indices, p.draw(st.sampled_from(updates(indices))))


def _as_index(v: Value) -> TensorType:
    return TensorType(DType.i64, v.type.shape)


def _points_by_input(p: Pool) -> Value:
    x = p.pick(lambda t: t.rank > 0 and t.is_static and 0 not in t.shape)
    scatter = ops.ScatterND(p.draw(st.sampled_from(ops.UPDATES)))
    extent = min(d for d in x.type.shape if isinstance(d, int))

    def updates(v: Value) -> list[Value]:
        point = TensorType(DType.i64, (*v.type.shape, 1))
        return [u for u in p.values if fits(scatter, x.type, point, u.type)]

    indices = _of_inputs(p, lambda v: bool(updates(v)), extent, DType.i64)
    points = p.builder(ops.Reshape((*indices.type.shape, 1)), indices)
    return p.builder(scatter, x, points, p.draw(st.sampled_from(updates(indices))))


_BY_INPUT = (_gather_by_input, _elements_by_input, _points_by_input)
_WIDE_MAKERS = (*MAKERS.values(), *_BY_INPUT)


@st.composite
def wide_graphs(draw: Draw, steps: int = 8) -> Graph:
    """Graphs whose sizes vectors divide, or do not, or that are known only at run time."""
    pool = Pool(draw)
    sizes = st.sampled_from(SIZES)
    m: Dim = draw(sizes | st.just(Expr.of(ROWS)))
    k: Dim = draw(sizes | st.just(Expr.of(COLUMNS)))
    small = st.integers(1, 7)
    image = tuple(draw(st.tuples(st.integers(1, 2), small, small, small)))
    main = draw(st.sampled_from([DType.f32, DType.i8, *(d for d in DType if not d.is_weight)]))
    others = st.sampled_from([main, main, DType.bool, DType.f32, DType.i64])
    shapes: list[tuple[Dim, ...]] = [(m, k), (m, k), (k,), (m, 1), image]
    # inputs that give values to all symbols, those of `MAKERS` among them
    bound = [(Expr.of(ROWS), Expr.of(COLUMNS)), (Expr.of(BATCH), Expr.of(N))]
    for number, shape in enumerate([*shapes, *bound]):
        type = TensorType(main if number == 0 else draw(others), shape)
        pool.values.append(pool.builder(ops.Input(f"x{number}", type)))
    inputs = tuple(pool.values)
    for maker in draw(st.lists(st.sampled_from(_WIDE_MAKERS), min_size=2, max_size=steps)):
        try:
            value = maker(pool)
        except LookupError:
            continue
        if upper(value.type.size) <= _SIZE_LIMIT:
            pool.values.append(value)
    made = pool.values[len(inputs) :] or pool.values
    results = draw(st.lists(st.sampled_from(made), min_size=1, max_size=3))
    outputs = tuple((f"y{i}", v) for i, v in enumerate((*results, made[-1])))
    return Graph("drawn", inputs, outputs)


def wide_bindings() -> st.SearchStrategy[dict[str, int]]:
    """Values of the symbols of `wide_graphs()`."""
    own = {
        s.name: st.sampled_from([n for n in SIZES if s.lo <= n <= (s.hi or 0)])
        for s in (ROWS, COLUMNS)
    }
    both = st.tuples(bindings(), st.fixed_dictionaries(own))
    return both.map(lambda pair: {**pair[0], **pair[1]})


SMALL_FLOATS = tuple(d.numpy for d in DType if d.is_small_float)


def _stored(dtype: DType) -> DType:
    """The type in which elements of a type cross the border of a model: one of whole bytes."""
    if dtype.is_small_float:
        return DType.u8
    if dtype.bits >= 8 and not dtype.is_weight:
        return dtype
    return DType.u8 if dtype.kind == "u" else DType.i8


def _inside(x: Value, dtype: DType) -> Value:
    """What crossed the border, in the type that it has inside."""
    if not dtype.is_small_float:
        return x.builder(ops.Cast(dtype), x)
    codes = x.builder(ops.Cast(_codes(dtype)), x)
    return x.builder(ops.BitCast(dtype), codes)


def _outside(x: Value) -> Value:
    """A value in the type in which it crosses the border."""
    dtype = x.type.dtype
    codes = x.builder(ops.BitCast(_codes(dtype)), x) if dtype.is_small_float else x
    return x.builder(ops.Cast(_stored(dtype)), codes)


def _codes(dtype: DType) -> DType:
    return DType.u8 if dtype.bits == 8 else DType.u4


def compilable(graph: Graph, target: Target) -> Graph:
    """The graph with inputs and outputs that a caller can hold, and kernels for a target."""
    graph = _with_kernels(graph, target)
    build = graph.builder

    def change(value: Value, args: tuple[Value, ...]) -> Value:
        match value.op:
            case ops.Input(name, type) if _stored(type.dtype) is not type.dtype:
                whole = ops.Input(name, TensorType(_stored(type.dtype), type.shape))
                return _inside(build(whole), type.dtype)
        return rebuilt(value, args)

    made = graph.rebuild(change)
    inputs = (topological([i])[0] for i in made.inputs)
    outputs = ((name, _outside(v)) for name, v in made.outputs)
    return Graph(graph.name, tuple(inputs), tuple(outputs), made.checks)


def _with_kernels(graph: Graph, target: Target) -> Graph:
    """The graph with a kernel for each packed dot, also in the bodies of loops."""
    graph = with_bodies(graph, lambda body: _with_kernels(body, target))
    build = graph.builder

    def change(value: Value, args: tuple[Value, ...]) -> Value:
        if isinstance(op := value.op, ops.CodedDot):
            x, *rest = args
            flat = build(ops.Reshape((product(x.type.shape[:-1]), op.k)), x)
            return build(ops.Reshape(value.type.shape), build(op, flat, *rest))
        if not isinstance(op, ops.PackedDot | ops.PackedGroupedDot):
            return rebuilt(value, args)
        x, packed, *rest = args
        rows = product(x.type.shape[:-1])
        layout, dtype = op.layout, x.type.dtype
        shape = layout.rows, layout.lanes_k
        found = kernels.choose(target, layout.code, dtype, rows, op.k, op.n, layout.group, shape)
        names = tuple(kernel.name for kernel in found)
        flat, *sums = (build(ops.Reshape((rows, a.type.shape[-1])), a) for a in (x, *rest[1:]))
        starts = kernels.starts(found, rows)
        y = build(replace(op, kernels=names, starts=starts), flat, packed, *rest[:1], *sums)
        return build(ops.Reshape((*x.type.shape[:-1], op.n)), y)

    return graph.rebuild(change)


# -- tests ----------------------------------------------------------------------------------------


def _expected(graph: Graph, arrays: Mapping[str, Array]) -> dict[str, Array] | None:
    """What the reference says, or None if an index lies outside its axis."""
    try:
        return reference.run_graph(graph, arrays)
    except ValueError as error:
        if re.search("cannot accept|out of bounds", str(error)):
            return None
        raise


def check(
    graph: Graph, arrays: Mapping[str, Array], workers: Workers, target: Target | None = None
) -> None:
    """Compile the graph; compare runs in one part, in three and by threads with the reference."""
    model = Native(graph, workers, target)
    expected = _expected(model.lowered, arrays)
    by_threads = ((2, True),) if model.target.has_threads else ()
    for parts, at_once in ((1, False), (3, False), *by_threads):
        run = model.run(arrays, parts, at_once)
        assert run.status == (_BAD_VALUE if expected is None else 0)
        for name, array in (expected or {}).items():
            assert_same(run.outputs[name], array)


def _small(graph: Graph, dims: dict[str, int], seed: int, workers: Workers) -> None:
    check(compilable(graph, native_target()), as_bytes(feeds(graph, dims, seed)), workers)


def _in_parts(graph: Graph, dims: dict[str, int], seed: int, workers: Workers) -> None:
    """What `check` does, and `check_phases`, with all steps divided that can be."""
    arrays = as_bytes(feeds(graph, dims, seed))
    with divided_finely():
        compiled = compilable(graph, native_target())
        check(compiled, arrays, workers)
        numbers = {n: tame(a) for n, a in arrays.items()}
        check_phases(Native(compiled, workers), numbers, (2, 3, 7)[seed % 3])


def tame(array: Array) -> Array:
    """An array with no nan in it, nor what soon makes some: which nan results is not defined."""
    if array.dtype.kind in "iub":
        return array
    with np.errstate(invalid="ignore"):  # of signalling nans
        wide = np.nan_to_num(array.astype(np.float64), nan=1.5, posinf=2.5, neginf=-2.5)
    return np.clip(wide, -9, 9).astype(array.dtype)


def as_bytes(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays as they cross the border: small floats by their bits."""
    return {n: a.view(np.uint8) if a.dtype in SMALL_FLOATS else a for n, a in arrays.items()}


_QUIET = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@settings(_QUIET, max_examples=100)
@given(graphs(), bindings(), st.integers(0, 99))
def test_small_graphs(workers: Workers, graph: Graph, dims: dict[str, int], seed: int) -> None:
    _small(graph, dims, seed, workers)


@settings(_QUIET, max_examples=120)
@given(wide_graphs(), wide_bindings(), st.integers(0, 99))
def test_wide_graphs(workers: Workers, graph: Graph, dims: dict[str, int], seed: int) -> None:
    _small(graph, dims, seed, workers)


@settings(_QUIET, max_examples=25)
@given(wide_graphs(), wide_bindings(), st.integers(0, 99))
def test_parts(workers: Workers, graph: Graph, dims: dict[str, int], seed: int) -> None:
    _in_parts(graph, dims, seed, workers)


@pytest.mark.slow
@settings(_QUIET, max_examples=700)
@given(wide_graphs(steps=14), wide_bindings(), st.integers(0, 99))
def test_many_parts(workers: Workers, graph: Graph, dims: dict[str, int], seed: int) -> None:
    _in_parts(graph, dims, seed, workers)


@pytest.mark.slow
@settings(_QUIET, max_examples=1500)
@given(graphs(), bindings(), st.integers(0, 99))
def test_many_small_graphs(workers: Workers, graph: Graph, dims: dict[str, int], seed: int) -> None:
    _small(graph, dims, seed, workers)


@pytest.mark.slow
@settings(_QUIET, max_examples=1500)
@given(wide_graphs(steps=14), wide_bindings(), st.integers(0, 99))
def test_many_wide_graphs(workers: Workers, graph: Graph, dims: dict[str, int], seed: int) -> None:
    _small(graph, dims, seed, workers)


@pytest.mark.slow
@needs_cc
@settings(_QUIET, max_examples=300)
@given(graphs(), bindings(), wide_graphs(), wide_bindings(), st.integers(0, 99))
def test_graphs_in_portable_c(
    workers: Workers,
    small: Graph,
    few: dict[str, int],
    wide: Graph,
    many: dict[str, int],
    seed: int,
) -> None:
    target = resolve_target("c")
    for graph, dims in ((small, few), (wide, many)):
        check(compilable(graph, target), as_bytes(feeds(graph, dims, seed)), workers, target)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["armv8", "armv7", "cortex-m0plus", "rv64gc", "s390x", "i686"])
def test_wide_graphs_elsewhere(workers: Workers, name: str) -> None:
    target = resolve_target(name)
    if missing := can_run(target):
        pytest.skip(missing)

    @settings(_QUIET, max_examples=60)
    @given(wide_graphs(), wide_bindings(), st.integers(0, 99))
    def emulated(graph: Graph, dims: dict[str, int], seed: int) -> None:
        arrays = as_bytes(feeds(graph, dims, seed))
        program = lower(compilable(graph, target), target)
        expected = _expected(graph_of(program), arrays)
        with Emulated(assemble(program, target, "m", workers)) as model:
            try:
                outputs = model.run(arrays)
            except ValueError:
                assert expected is None
                return
        assert expected is not None
        for output, array in expected.items():
            assert_same(outputs[output], array)

    emulated()


def test_the_comparison_can_fail(workers: Workers) -> None:
    build = Builder()
    x = build(ops.Input("x", TensorType(DType.f32, (17,))))
    model = Native(Graph("g", (x,), (("y", build(ops.Unary("exp"), x)),)), workers)
    array = np.abs(random_array(DType.f32, (17,), 0))
    array[0] = 1.0
    wrong = reference.run_graph(model.lowered, {"x": np.nextafter(array, np.float32(9))})
    with pytest.raises(AssertionError):
        assert_same(model.run({"x": array}).outputs["y"], wrong["y"])


ONE_SCALE = """
def one_scale(x: i8[1, 4]):
    w: trit[2, 4] = const([[1, 0, -1, 1], [1, 1, 1, 1]])
    s: f32[2, 1] = const([[0.5], [2.0]])
    xs: f32[1, 1] = const([[0.25]])
    y: f32[1, 2] = grouped_dot(x, w, s, xs)
    return {"y": y}
"""


def test_a_constant_scale_of_one_row_of_activations(workers: Workers) -> None:
    graph = compilable(parse_graph(ONE_SCALE), native_target())
    check(graph, {"x": np.array([[-128, 5, 127, 3]], np.int8)}, workers)
