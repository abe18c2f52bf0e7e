"""Right operands of products that are read as they lie: transposed, or in fewer bits."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import Native, native_target
from drawing import Drawing
from strategies import Array, assert_same, random_array

from tbc import ops
from tbc.codegen.host import resolve_target
from tbc.codegen.llvm_text import Function, Module, Val
from tbc.codegen.machine import Workers
from tbc.codegen.strips import transposed
from tbc.constants import constant
from tbc.dims import Expr, Symbol
from tbc.driver import assemble, lower
from tbc.emulate import Emulated, can_run
from tbc.ir import Graph, Value
from tbc.reference import run_graph
from tbc.tiles import Panels
from tbc.types import DType

ROWS = Expr.of(Symbol("rows", 0, 12))
LENGTH = Expr.of(Symbol("length", 0, 50))
SIZES = ((1, 1), (11, 33), (0, 5), (3, 0))
EMULATED = ["armv8", *(pytest.param(name, marks=pytest.mark.slow) for name in ("s390x", "i686"))]
NATIVE = ["native", pytest.param("x86-64", marks=pytest.mark.slow)]


class Operands(Drawing):
    """A graph of products, each an output."""

    def wide(self, x: Value) -> Value:
        """x in f32."""
        return x if x.type.dtype is DType.f32 else self.build(ops.Cast(DType.f32), x)

    def swapped(self, x: Value) -> Value:
        """x with its last two axes exchanged."""
        rank = x.type.rank
        return self.build(ops.Transpose((*range(rank - 2), rank - 1, rank - 2)), x)

    def scaled(self, x: Value, *scales: Value) -> Value:
        """(x - scales[1]) * scales[0] in f32."""
        y = self.wide(x)
        for fn, s in zip(("sub", "mul"), reversed(scales), strict=True):
            y = self.build(ops.Binary(fn), y, s)
        return y

    def product(self, a: Value, b: Value) -> None:
        """a @ b as an output."""
        self.outputs[f"y{len(self.outputs)}"] = self.build(ops.MatMul(), a, b)


def attention(types: tuple[DType, ...], sizes: tuple[int, ...]) -> Graph:
    """Keys by rows and values, both in caches of several types, and heads of several sizes."""
    d = Operands()
    for dtype in types:
        for size in sizes:
            cache = d.input(dtype, 2, LENGTH, size)
            quarter = constant(d.build, 0.25, DType.f32)
            held = d.wide(cache)
            held = d.build(ops.Binary("mul"), held, quarter) if dtype.is_int else held
            d.product(d.input(DType.f32, 2, ROWS, size), d.swapped(held))
            d.product(d.input(DType.f32, 2, ROWS, LENGTH), held)
    return d.graph()


def stored() -> Graph:
    """Constants of fewer bits than what they are multiplied as: every tail of k and of columns."""
    d = Operands()
    for m, k, n in ((1, 6, 70), (3, 9, 33), (40, 4, 5)):
        for dtype in (DType.i8, DType.f16, DType.bf16, DType.u4, DType.i4, DType.u2):
            w, scale = d.constant(dtype, k, n), d.constant(DType.f32, n)
            d.product(d.input(DType.f32, m, k), d.scaled(w, scale, d.constant(DType.f32, 1, n)))
        rows = d.constant(DType.f16, n, k)
        d.product(d.input(DType.f32, m, k), d.swapped(d.wide(rows)))
        integers = d.build(ops.Cast(DType.i32), d.constant(DType.i8, k, n))
        d.product(d.input(DType.i32, m, k), integers)
    for n, groups, size in ((70, 3, 8), (9, 2, 5)):
        w, scale = d.constant(DType.u4, n, groups, size), d.constant(DType.f32, n, groups, 1)
        rows = d.scaled(w, scale, constant(d.build, 8.0, DType.f32))
        rows = d.build(ops.Reshape((n, groups * size)), rows)
        d.product(d.input(DType.f32, 1, groups * size), d.swapped(rows))
    return d.graph()


def feeds(graph: Graph, rows: int, length: int) -> dict[str, Array]:
    sizes = {"rows": rows, "length": length}
    result = {}
    for seed, value in enumerate(graph.inputs):
        shape = tuple(d if isinstance(d, int) else sizes[str(d)] for d in value.type.shape)
        result[f"x{seed}"] = random_array(value.type.dtype, shape, seed)
    return result


@pytest.mark.parametrize("name", NATIVE)
def test_caches_are_read_in_place(workers: Workers, name: str) -> None:
    target = native_target() if name == "native" else resolve_target(name)
    if not target.features <= native_target().features or target.arch != native_target().arch:
        pytest.skip("this machine is another one")
    graph = attention((DType.f32, DType.f16, DType.bf16, DType.i8), (12, 33))
    model = Native(graph, workers, target)
    assert {type(step.root.op) for step in model.program.steps} <= {ops.MatMul, ops.Reshape}
    for rows, length in SIZES:
        arrays = feeds(graph, rows, length)
        expected = run_graph(graph, arrays)
        for parts in (1, 3):
            run = model.run(arrays, parts)
            for output, array in expected.items():
                assert_same(run.outputs[output], array)


@pytest.mark.parametrize("name", NATIVE)
def test_constants_keep_their_bits(workers: Workers, name: str) -> None:
    target = native_target() if name == "native" else resolve_target(name)
    if not target.features <= native_target().features or target.arch != native_target().arch:
        pytest.skip("this machine is another one")
    graph = stored()
    model = Native(graph, workers, target)
    arrays = feeds(graph, 1, 1)
    for parts in (1, 3):
        run = model.run(arrays, parts)
        for output, array in run_graph(graph, arrays).items():
            assert_same(run.outputs[output], array)


@pytest.mark.parametrize(
    "name", ["armv8", *(pytest.param(n, marks=pytest.mark.slow) for n in ("s390x", "i686"))]
)
def test_emulated(workers: Workers, name: str) -> None:
    target = resolve_target(name)
    if missing := can_run(target):
        pytest.skip(missing)
    for graph in (attention((DType.f32, DType.i8), (9,)), stored()):
        arrays = feeds(graph, 7, 21)
        with Emulated(assemble(lower(graph, target), target, "m", workers)) as model:
            results = model.run(arrays)
        for output, array in run_graph(graph, arrays).items():
            assert_same(results[output], array)


def test_what_constants_take() -> None:
    d = Operands()
    n, k = 1024, 512
    d.product(d.input(DType.f32, 1, k), d.scaled(
        d.constant(DType.i4, k, n), d.constant(DType.f32, n), d.constant(DType.f32, 1)
    ))  # fmt: skip
    d.product(d.input(DType.f32, 1, k), d.swapped(d.wide(d.constant(DType.bf16, n, k))))
    held = [b.panels for b in lower(d.graph(), native_target()).constants if b.type.size == n * k]
    assert all(held)
    size = lower(d.graph(), native_target()).weights_size
    assert size < n * k * (0.5 + 2) + 4 * n + 256


def test_tables_keep_their_bits() -> None:
    d = Operands()
    table = d.scaled(d.constant(DType.i8, 1000, 64), d.constant(DType.f32, 1000, 1),
                     constant(d.build, 0.0, DType.f32))  # fmt: skip
    rows = d.build(ops.Gather(0), table, d.input(DType.i64, 3))
    d.outputs["y"] = rows
    program = lower(d.graph(), native_target())
    assert program.weights_size < 1000 * 64 + 4 * 1000 + 256
    assert [step.root.op for step in program.steps if step.root.type.size == 64000] == []


@pytest.mark.parametrize("dtype", [DType.u4, DType.i4, DType.u2, DType.i2])
@pytest.mark.parametrize(("rows", "n"), [(1, 7), (6, 16), (9, 40)])
def test_fields_hold_every_element_where_they_say(dtype: DType, rows: int, n: int) -> None:
    panels = Panels(width=16, lanes=4, fields=8 // dtype.bits)
    elements = random_array(dtype, (rows, n), 1)
    packed = panels.pack(elements)
    assert packed.size == panels.elements(elements.shape)
    for index in np.ndindex(elements.shape):
        place, field = (f(elements.shape, index) for f in (panels.address, panels.field))
        assert isinstance(place, int)
        assert isinstance(field, int)
        code = int(packed[place]) >> (field * dtype.bits) & ((1 << dtype.bits) - 1)
        assert code == int(elements[index]) & ((1 << dtype.bits) - 1)


@pytest.mark.parametrize("lanes", [1, 2, 4, 8, 16])
def test_transposing_exchanges_rows_and_columns(lanes: int) -> None:
    """By the masks of the shuffles, followed lane by lane."""

    class Traced(Function):
        def shuffle(self, a: Val, b: Val, lanes: object) -> Val:
            both = (*a.text.split(), *b.text.split())
            return Val(a.type, " ".join(both[i] for i in lanes))  # type: ignore[attr-defined]

    f = Traced(Module("x86_64-none-elf"), "f", [("i64", "x")])
    names = [[f"{r},{c}" for c in range(lanes)] for r in range(lanes)]
    rows = [Val(f"<{lanes} x i32>", " ".join(row)) for row in names]
    columns = [column.text.split() for column in transposed(f, rows)]
    assert columns == [list(column) for column in zip(*names, strict=True)]
