"""Every operation compiles for every kind of machine to an object that needs nothing else."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tbc import ops
from tbc.codegen.elf_shared import write_shared
from tbc.codegen.host import resolve_target
from tbc.codegen.link import can_link
from tbc.codegen.machine import Workers
from tbc.codegen.objfile import undefined_symbols
from tbc.constants import constant
from tbc.dims import Dim, Expr, Symbol
from tbc.driver import assemble, lower
from tbc.ir import Builder, Graph, Op, Value
from tbc.ops import Input
from tbc.types import DType, TensorType

TARGETS = ("x86-64", "armv8", "armv7", "cortex-m4", "rv64gc", "wasm32")
MORE = ("x86-64-v3", "x86-64-v4+vnni", "armv8.2+dotprod+fp16", "cortex-m0plus", "cortex-m4f")
MORE += ("cortex-m55", "rv32imc", "wasm32+simd128", "i686", "s390x", "z14", "windows-x86-64")
DTYPES = tuple(d for d in DType if d.bits >= 8 and not d.is_weight)
COMMON = (DType.f32, DType.i64)

M, N = Symbol("m", 1, 70), Symbol("n", 1, 70)
LENGTH = 5
"""Of which vectors of 4 do the most."""


class Made:
    """The graph of whatever operations take some values."""

    def __init__(self, *types: TensorType):
        self.build = Builder()
        self.inputs = tuple(self.build(Input(f"x{i}", t)) for i, t in enumerate(types))
        self.results: list[Value] = []

    def add(self, op: Op, *args: Value) -> None:
        """A result, if the operation takes such arguments."""
        try:
            op.infer(*(a.type for a in args))
        except ValueError:
            return
        self.results.append(self.build(op, *args))

    def scalar(self, dtype: DType) -> Value:
        return constant(self.build, 1, dtype)

    def graph(self) -> Graph:
        outputs = tuple((f"y{i}", v) for i, v in enumerate(self.results))
        return Graph("made", self.inputs, outputs)


def elementwise(dtype: DType) -> Graph:
    """Every function and every cast, on a vector and a single element."""
    vector = TensorType(dtype, (LENGTH,))
    made = Made(vector, vector, TensorType(DType.bool, vector.shape))
    x, y, condition = made.inputs
    for fn in ops.UNARY:
        made.add(ops.Unary(fn), x)
    for fn in ops.BINARY:
        made.add(ops.Binary(fn), x, y)
    for to in DTYPES:
        made.add(ops.Cast(to), x)
        made.add(ops.BitCast(to), x)
    made.add(ops.Where(), condition, x, y)
    return made.graph()


def arithmetic() -> Graph:
    """What calls run-time functions by type: a few functions and all casts of every type."""
    made = Made(*(TensorType(d, (LENGTH,)) for d in DTYPES))
    for x in made.inputs:
        for fn in ("add", "div", "mod", "lt", "max", "shr", "xor"):
            made.add(ops.Binary(fn), x, x)
        for fn in ("sqrt", "floor", "isnan", "not"):
            made.add(ops.Unary(fn), x)
        for to in DTYPES:
            made.add(ops.Cast(to), x)
    return made.graph()


def structural(dtype: DType) -> Graph:
    """Index maps, scatters, sorting, reductions and products."""
    m, n = Expr.of(M), Expr.of(N)
    image, block = TensorType(dtype, (1, 3, 6, 5)), TensorType(dtype, (4, 3, 2, n))
    indices = TensorType(DType.i32, (2, 3)), TensorType(DType.i64, (2, 3))
    made = Made(TensorType(dtype, (m, n)), TensorType(dtype, (n, m)), image, block, *indices)
    x, w, picture, tensor, narrow, wide = made.inputs
    for op in index_maps(m, n):
        made.add(op, x)
    made.add(ops.Concat(0), x, x)
    made.add(ops.Concat(1), x, x)
    for mode in ops.PAD_MODES:
        made.add(ops.Pad((0, 0, 1, 2), (1, 3, 9, 8), mode), picture, made.scalar(dtype))
    made.add(ops.Windows((3, 2), (1, 2), (1, 1), (1, 0), (6, 2)), picture, made.scalar(dtype))
    for at in (narrow, wide):
        made.add(ops.Gather(1), x, at)
        made.add(ops.GatherND(0), tensor, at)
        made.add(ops.GatherElements(1), constant(made.build, [[1] * 5] * 2, dtype), at)
    data, updates = (constant(made.build, [[1] * k] * 2, dtype) for k in (5, 3))
    for how in ops.UPDATES:
        made.add(ops.ScatterElements(1, how), data, wide, updates)
        points = made.build(ops.Slice((0, 0), (1, 1), (2, 1)), wide)
        made.add(ops.ScatterND(how), data, points, constant(made.build, [[1] * 5] * 2, dtype))
    made.add(ops.ArgSort(1, n), x)
    for kind in ops.REDUCTIONS:
        made.add(ops.Reduce(kind, (1,)), x)
        made.add(ops.Reduce(kind, (0,), keepdims=True), x)
        made.add(ops.Cumulate(kind, 1), x)
    made.add(ops.MatMul(), x, w)
    return made.graph()


def index_maps(m: Dim, n: Dim) -> tuple[Op, ...]:
    """Those of one argument, a matrix."""
    return (
        ops.Broadcast((2, m, n)),
        ops.Reshape((m * n,)),
        ops.Transpose((1, 0)),
        ops.Slice((m - 1, 0), (-1, 1), (m, n)),
        ops.Slice((0, 0), (1, 2), (m, (n + 1) // 2)),
    )


def low_bit() -> Graph:
    """Dots of one row and of many, with scales for groups and without, and what sizes are."""
    m, n, k = Expr.of(M), 33, 40
    kinds = [(rows, dtype) for rows in (1, m) for dtype in (DType.i8, DType.f32)]
    made = Made(*(TensorType(dtype, (rows, k)) for rows, dtype in kinds))
    numbers = [[(i * 7 + j) % 3 - 1 for j in range(k)] for i in range(n)]
    floats = constant(made.build, numbers, DType.f32)
    for dtype in (DType.trit, DType.sign):
        weight = made.build(ops.Lift(dtype), floats, constant(made.build, [[1]], DType.f32))
        scales = constant(made.build, [[0.5] * 5] * n, DType.f32)
        for x in made.inputs:
            made.add(ops.Dot(), x, weight)
            made.add(ops.GroupedDot(), x, weight, scales)
    made.add(ops.Dims((m, m * 2), (2,)))
    made.add(ops.Iota(m))
    return made.graph()


def loops() -> Graph:
    """A loop over a size whose rows are kept, and in each round one that data ends."""
    m, t = Expr.of(M), Symbol("t", 0, None, Expr.of(M))
    flag, vector = TensorType(DType.bool), TensorType(DType.f32, (LENGTH,))
    inner = Made(flag, vector)
    inner.add(ops.Reduce("max", (0,)), inner.build(ops.Binary("lt"), *inner.inputs[1:] * 2))
    inner.add(ops.Binary("add"), *inner.inputs[1:] * 2)
    outer = Made(vector, TensorType(DType.f32, (m, LENGTH)), flag)
    h, x, going = outer.inputs
    row = outer.build(ops.Slice((Expr.of(t), 0), (1, 1), (1, LENGTH)), x)
    again = outer.build(ops.Repeat(inner.graph(), 2, None, True, 1), going, h)
    outer.add(ops.Binary("add"), again, outer.build(ops.Reshape((LENGTH,)), row))
    outer.results.append(h)
    made = Made(*(i.type for i in outer.inputs))
    for which in range(3):
        made.add(ops.Repeat(outer.graph(), 1, t, False, which), *made.inputs)
    return made.graph()


def assert_closed(
    graph: Graph, name: str, workers: Workers, folder: Path, optimize: str = "balanced"
) -> None:
    target = resolve_target(name, optimize=optimize)
    code = assemble(lower(graph, target), target, "closed", workers).files["obj"]
    assert undefined_symbols(code) <= {"_fltused"}
    if can_link(target) and target.object_format == "elf":  # no relocation is unknown
        write_shared(code, "libclosed.so", ("tbc_closed", "tbc_models"))
    if target.object_format != "elf" or shutil.which("nm") is None:
        return
    path = folder / "closed.o"
    path.write_bytes(code)
    done = subprocess.run(["nm", "-u", path], capture_output=True, text=True)
    if done.returncode == 0:  # binutils may be those of one machine only
        assert set(done.stdout.split()) <= {"U", "_GLOBAL_OFFSET_TABLE_"}  # the linker's, on i686


def graphs(dtypes: Sequence[DType]) -> Iterator[Graph]:
    for dtype in dtypes:
        yield elementwise(dtype)
        yield structural(dtype)
    yield low_bit()
    yield loops()


@pytest.mark.parametrize("dtype", COMMON, ids=lambda d: d.name)
@pytest.mark.parametrize("target", TARGETS)
def test_common_types(target: str, dtype: DType, workers: Workers, tmp_path: Path) -> None:
    assert_closed(elementwise(dtype), target, workers, tmp_path)
    assert_closed(structural(dtype), target, workers, tmp_path)


@pytest.mark.parametrize("target", TARGETS)
def test_arithmetic(target: str, workers: Workers, tmp_path: Path) -> None:
    assert_closed(arithmetic(), target, workers, tmp_path)


@pytest.mark.parametrize("target", [*TARGETS, *MORE])
def test_low_bit_and_loops(target: str, workers: Workers, tmp_path: Path) -> None:
    for optimize in ("size", "speed"):
        assert_closed(low_bit(), target, workers, tmp_path, optimize)
    assert_closed(loops(), target, workers, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_other_types(target: str, workers: Workers, tmp_path: Path) -> None:
    for graph in graphs([d for d in DTYPES if d not in COMMON]):
        assert_closed(graph, target, workers, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("target", MORE)
def test_other_targets(target: str, workers: Workers, tmp_path: Path) -> None:
    for graph in graphs(DTYPES):
        assert_closed(graph, target, workers, tmp_path)


def test_every_operation_is_compiled() -> None:
    made = {type(v.op) for graph in graphs(DTYPES) for v in graph.values()}
    targets = [resolve_target(name, optimize="speed") for name in ("x86-64", "cortex-m4")]
    steps = [step for target in targets for step in lower(low_bit(), target).steps]
    packed = {type(step.anchor.op) for step in steps}
    assert made | packed | {ops.Pack} == set(ops.OPS)
    functions = {v.op.fn for graph in graphs(DTYPES) for v in graph.values() if hasattr(v.op, "fn")}
    assert functions == {*ops.UNARY, *ops.BINARY}
