"""Dense products and convolutions of all shapes of tiles: exact here and in emulators."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import Native, native_target
from drawing import Drawing
from strategies import Array, assert_same, random_array

from tbc import ops
from tbc.codegen.host import resolve_target
from tbc.codegen.machine import Workers
from tbc.constants import constant
from tbc.dims import Expr, Symbol, product
from tbc.driver import assemble, lower
from tbc.emulate import Emulated, can_run
from tbc.ir import Graph, Value
from tbc.reference import run_graph
from tbc.tiles import Panels, dense_tile
from tbc.types import DType

BATCH = Expr.of(Symbol("batch", 1, 40))
LENGTH = Expr.of(Symbol("length", 1, 70))


class Products(Drawing):
    """A graph of products, each an output that is named after its shape."""

    def output(self, name: str, value: Value) -> None:
        """`value`, and an epilogue, as an output."""
        zero = constant(self.build, 0, value.type.dtype)
        self.outputs[name] = self.build(ops.Binary("max"), value, zero)

    def product(self, a: Value, b: Value) -> None:
        """a @ b as an output."""
        self.output(f"{a.type} {b.type} {b.is_constant}", self.build(ops.MatMul(), a, b))

    def convolution(self, channels: int, m: int, kernel: tuple[int, int], stride: int) -> None:
        """A convolution as an output: a product of windows of the input."""
        build, (h, w) = self.build, (9, 11)
        x = self.input(DType.f32, 1, channels, h, w)
        out = ((h - kernel[0]) // stride + 1, (w - kernel[1]) // stride + 1)
        zero = constant(build, 0, DType.f32)
        windows = build(ops.Windows(kernel, (stride,) * 2, (1, 1), (0, 0), out), x, zero)
        k = channels * kernel[0] * kernel[1]
        rows = build(ops.Transpose((0, 2, 3, 4, 5, 1)), windows)
        rows = build(ops.Reshape((1, out[0] * out[1], k)), rows)
        y = build(ops.MatMul(), rows, self.constant(DType.f32, k, m))
        image = build(ops.Reshape((1, m, *out)), build(ops.Transpose((0, 2, 1)), y))
        self.output(f"conv {channels} {m} {kernel} {stride}", image)


def products() -> Graph:
    """Every kind of tail, along m and along n, with packed and plain operands."""
    d = Products()
    for m, k, n in [(1, 7, 300), (2, 5, 77), (3, 1, 16), (5, 9, 1), (8, 3, 40), (17, 4, 33),
                    (31, 6, 10), (40, 2, 2)]:  # fmt: skip
        d.product(d.input(DType.f32, m, k), d.constant(DType.f32, k, n))
        d.product(d.input(DType.f32, m, k), d.input(DType.f32, k, n))
    d.product(d.input(DType.f32, BATCH, 12), d.constant(DType.f32, 12, 45))
    d.product(d.input(DType.f32, 3, BATCH, 5), d.input(DType.f32, 1, 5, LENGTH))
    d.product(d.input(DType.f32, 2, 1, 6, 4), d.constant(DType.f32, 3, 4, 37))
    for dtype in (DType.f16, DType.f64, DType.i8, DType.i32):
        d.product(d.input(dtype, 11, 3), d.constant(dtype, 3, 21))
        d.product(d.input(dtype, 11, 3), d.input(dtype, 3, 21))
    half = d.build(ops.Cast(DType.f32), d.constant(DType.f16, 6, 21))
    d.product(d.input(DType.f32, 4, 6), half)
    both = d.constant(DType.f32, 16, 16)
    d.output(
        "both",
        d.build(ops.MatMul(), d.build(ops.Binary("add"), d.input(DType.f32, 16, 16), both), both),
    )
    d.convolution(3, 8, (3, 3), 2)
    d.convolution(16, 24, (1, 5), 1)
    d.convolution(4, 5, (2, 3), 3)
    return d.graph()


def feeds(graph: Graph, batch: int, length: int) -> dict[str, Array]:
    sizes = {"batch": batch, "length": length}
    result = {}
    for seed, value in enumerate(graph.inputs):
        shape = tuple(d if isinstance(d, int) else sizes[str(d)] for d in value.type.shape)
        result[f"x{seed}"] = random_array(value.type.dtype, shape, seed)
    return result


@pytest.mark.parametrize("name", ["native", "x86-64-v3", "x86-64"])
def test_products(workers: Workers, name: str) -> None:
    target = native_target() if name == "native" else resolve_target(name)
    if not target.features <= native_target().features or target.arch != native_target().arch:
        pytest.skip("this machine is another one")
    graph = products()
    model = Native(graph, workers, target)
    for batch, length in ((1, 1), (2, 70), (23, 47), (40, 16)):
        arrays = feeds(graph, batch, length)
        expected = run_graph(model.lowered, arrays)
        for parts in (1, 3):
            run = model.run(arrays, parts)
            for output, array in expected.items():
                assert_same(run.outputs[output], array)


@pytest.mark.parametrize("name", ["armv8", "armv7", "rv64gc", "s390x", "i686"])
def test_emulated(workers: Workers, name: str) -> None:
    target = resolve_target(name)
    if missing := can_run(target):
        pytest.skip(missing)
    graph = products()
    arrays = feeds(graph, 23, 47)
    with Emulated(assemble(lower(graph, target), target, "m", workers)) as model:
        results = model.run(arrays)
    for output, array in run_graph(graph, arrays).items():
        assert_same(results[output], array)


def test_windows_are_read_in_place_and_weights_lie_in_panels(workers: Workers) -> None:
    d = Products()
    d.convolution(16, 24, (3, 3), 1)
    program = lower(d.graph(), native_target())
    assert [step.anchor.op for step in program.steps] == [ops.MatMul()]
    (weight,) = program.constants
    assert weight.panels is not None


@pytest.mark.parametrize("n", [1, 7, 16, 40, 64, 70])
def test_panels_hold_every_element_where_they_say(n: int) -> None:
    panels = Panels(width=32, lanes=8)
    shape = (2, 3, n)
    elements = np.arange(1, product(shape) + 1).reshape(shape)
    packed = panels.pack(elements)
    assert packed.size == panels.elements(shape)
    places = {panels.address(shape, index): elements[index] for index in np.ndindex(shape)}
    assert all(packed[place] == element for place, element in places.items())
    assert np.count_nonzero(packed) == len(places) == elements.size


@pytest.mark.parametrize("fields", [1, 2])
@pytest.mark.parametrize("shape", [(0, 2), (0, 70), (3, 0), (0, 0)])
def test_empty_panels(shape: tuple[int, int], fields: int) -> None:
    panels = Panels(width=32, lanes=8, fields=fields)
    assert panels.pack(np.zeros(shape, np.uint8)).size == panels.elements(shape) == 0


@pytest.mark.parametrize("name", ["x86-64-v4", "x86-64-v3", "i686", "armv8", "cortex-m0"])
@pytest.mark.parametrize("m", [1, 2, 3, 8, 100])
def test_tiles_leave_registers_for_operands(name: str, m: int) -> None:
    target = resolve_target(name)
    tile = dense_tile(target, DType.f32, m, 1000)
    assert tile.rows <= m
    assert tile.rows * tile.vectors <= target.vector_registers // 2
    assert tile.lanes * 4 == target.vector_bytes
