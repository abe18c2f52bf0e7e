from __future__ import annotations

import dataclasses

import pytest
from graph_strategies import BATCH, MAKERS, N, graphs
from hypothesis import given, settings
from hypothesis import strategies as st

from tbc import ops
from tbc.dims import Dim, Expr, Symbol
from tbc.ir import Builder, Graph, Op
from tbc.layout import Layout
from tbc.types import DType, TensorType

F32, F16, I8, I4, I32, I64, U8, BOOL = (
    DType.f32, DType.f16, DType.i8, DType.i4, DType.i32, DType.i64, DType.u8, DType.bool,
)  # fmt: skip
TRIT, SIGN = DType.trit, DType.sign
B, n = Expr.of(BATCH), Expr.of(N)


def t(dtype: DType, *shape: Dim) -> TensorType:
    return TensorType(dtype, shape)


def test_every_operation_is_a_frozen_dataclass_and_can_be_drawn() -> None:
    assert {*MAKERS, ops.Input, ops.Const} == set(ops.OPS)
    for op in ops.OPS:
        assert dataclasses.is_dataclass(op)
        assert op.__hash__ is not None


def body(inputs: list[TensorType], results: list[int], to: DType | None = None) -> Graph:
    """A graph that hands on some of its inputs, perhaps in another type."""
    build = Builder()
    given = [build(ops.Input(f"x{i}", type)) for i, type in enumerate(inputs)]
    taken = (given[i] if to is None else build(ops.Cast(to), given[i]) for i in results)
    return Graph("body", tuple(given), tuple((f"y{i}", v) for i, v in enumerate(taken)))


T = Symbol("t", 0, None, n)
MATRIX = [t(BOOL), t(F32, B, 4)]
STACK = ops.Repeat(body([t(F32, 4)], [0, 0]), 1, T)
WHILE = ops.Repeat(body(MATRIX, [0, 1]), 2, None, True)
I2, B1 = Layout("i2"), Layout("b1")
GROUPED = Layout("i2", 8)
ACCEPTED: list[tuple[Op, list[TensorType], TensorType]] = [
    (ops.Input("x", t(F32, B)), [], t(F32, B)),
    (ops.Dims((B, 2), (2, 1)), [], t(I64, 2, 1)),
    (ops.Iota(n), [], t(I64, n)),
    (ops.Unary("exp"), [t(F16, B)], t(F16, B)),
    (ops.Unary("isnan"), [t(F32, 2)], t(BOOL, 2)),
    (ops.Unary("neg"), [t(U8)], t(U8)),
    (ops.Binary("add"), [t(F32, B, 1, 4), t(F32, n, 1)], t(F32, B, n, 4)),
    (ops.Binary("lt"), [t(I4, 2), t(I4)], t(BOOL, 2)),
    (ops.Binary("xor"), [t(BOOL), t(BOOL)], t(BOOL)),
    (ops.Binary("max"), [t(BOOL), t(BOOL)], t(BOOL)),
    (ops.Binary("eq"), [t(TRIT), t(TRIT)], t(BOOL)),
    (ops.Where(), [t(BOOL, n), t(TRIT, 2, 1), t(TRIT)], t(TRIT, 2, n)),
    (ops.Cast(I4), [t(F32, B)], t(I4, B)),
    (ops.BitCast(I32), [t(F32, B)], t(I32, B)),
    (ops.Broadcast((B, n, 3)), [t(F32, n, 1)], t(F32, B, n, 3)),
    (ops.Reshape((n, B * 2)), [t(F32, 2, B, n)], t(F32, n, B * 2)),
    (ops.Transpose((2, 0, 1)), [t(F32, B, n, 3)], t(F32, 3, B, n)),
    (ops.Slice((1, n - 1), (2, -1), (2, n)), [t(F32, 4, n)], t(F32, 2, n)),
    (ops.Slice((0,), (1,), (0,)), [t(F32, 0)], t(F32, 0)),
    (ops.Concat(1), [t(F32, B, n), t(F32, B, 2), t(F32, B, n)], t(F32, B, n * 2 + 2)),
    (ops.Pad((1, 0), (B + 3, n)), [t(F32, B, n), t(F32)], t(F32, B + 3, n)),
    (
        ops.Windows((3, 2), (1, 2), (2, 1), (1, 0), (5, n)),
        [t(U8, B, 4, 7, n * 2), t(U8)],
        t(U8, B, 4, 5, n, 3, 2),
    ),
    (ops.Gather(1), [t(F32, B, 9, 2), t(I32, 3, n)], t(F32, B, 3, n, 2)),
    (ops.GatherND(1), [t(F32, B, 4, 5), t(I64, B, 7, 1)], t(F32, B, 7, 5)),
    (ops.GatherElements(1), [t(F32, B, 4, 5), t(I32, B, n, 3)], t(F32, B, n, 3)),
    (ops.ScatterElements(0, "max"), [t(I4, 4, B), t(I64, n, B), t(I4, n, B)], t(I4, 4, B)),
    (ops.ScatterND(), [t(F32, 4, B), t(I64, n, 1), t(F32, n, B)], t(F32, 4, B)),
    (ops.ScatterND("add"), [t(F32, 4, B), t(I64, n, 1), t(F32, n, B)], t(F32, 4, B)),
    (ops.ArgSort(1, n), [t(F32, B, n)], t(I64, B, n)),
    (ops.ArgSort(0, 1, True), [t(I4, n, 3)], t(I64, 1, 3)),
    (ops.Cumulate("prod", 1, True, True), [t(F16, B, n)], t(F16, B, n)),
    (ops.Reduce("sum", (0, 2)), [t(F32, B, n, 3)], t(F32, n)),
    (ops.Reduce("max", (1,), True), [t(BOOL, B, n)], t(BOOL, B, 1)),
    (ops.MatMul(), [t(F32, 1, B, 2, 5), t(F32, 7, 1, 5, n)], t(F32, 7, B, 2, n)),
    (ops.Dot(), [t(I8, B, n, 8), t(SIGN, 5, 8)], t(I32, B, n, 5)),
    (ops.Dot(), [t(F32, 8), t(TRIT, 5, 8)], t(F32, 5)),
    (ops.GroupedDot(), [t(I8, B, 8), t(TRIT, 5, 8), t(F32, 5, 4)], t(F32, B, 5)),
    (ops.GroupedDot(), [t(I8, B, 8), t(TRIT, 5, 8), t(F32, 5, 4), t(F32, B, 4)], t(F32, B, 5)),
    (ops.Lift(TRIT), [t(F32, 5, 8), t(F32, 1, 2)], t(TRIT, 5, 8)),
    (ops.Lift(SIGN), [t(F16, 5, 8), t(F32, 5, 1)], t(SIGN, 5, 8)),
    (ops.Pack(I2), [t(TRIT, 5, 8)], t(U8, 64)),
    (ops.Pack(GROUPED), [t(TRIT, 17, 16)], t(U8, 256)),
    (ops.PackedDot((), B1, 5, 8), [t(I8, B, 32), t(U8, 64)], t(I32, B, 5)),
    (ops.PackedDot((), I2, 5, 8), [t(F32, 16), t(U8, 64)], t(F32, 5)),
    (ops.CodedDot("+.-.-+", 3, 2), [t(I8, B, 2)], t(I32, B, 3)),
    (
        ops.PackedGroupedDot((), GROUPED, 5, 16),
        [t(I8, B, 32), t(U8, 128), t(F32, 1, 2, 16), t(I32, B, 2)],
        t(F32, B, 5),
    ),
    (
        ops.PackedGroupedDot((), GROUPED, 5, 16),
        [t(I8, B, 32), t(U8, 128), t(F32, 1, 2, 16), t(I32, B, 2), t(F32, B, 2)],
        t(F32, B, 5),
    ),
    (
        ops.PackedGroupedDot((), GROUPED, 5, 16),
        [t(F32, B, 32), t(U8, 128), t(F32, 1, 2, 16)],
        t(F32, B, 5),
    ),
    (STACK, [t(F32, 4)], t(F32, 4)),
    (dataclasses.replace(STACK, which=1), [t(F32, 4)], t(F32, n, 4)),
    (dataclasses.replace(STACK, which=2), [t(F32, 4)], t(BOOL)),
    (dataclasses.replace(WHILE, which=1), MATRIX, t(F32, B, 4)),
]


@pytest.mark.parametrize(("op", "args", "result"), ACCEPTED, ids=lambda x: str(x))
def test_the_type_of_a_result(op: Op, args: list[TensorType], result: TensorType) -> None:
    assert op.infer(*args) == result


REJECTED: list[tuple[Op, list[TensorType]]] = [
    (ops.Dims((1, 2), (3,)), []),
    (ops.Unary("exq"), [t(F32)]),
    (ops.Unary("exp"), [t(I8)]),
    (ops.Unary("not"), [t(I8)]),
    (ops.Unary("invert"), [t(BOOL)]),
    (ops.Unary("invert"), [t(F32)]),
    (ops.Unary("neg"), [t(I4)]),
    (ops.Unary("neg"), [t(BOOL)]),
    (ops.Unary("neg"), [t(TRIT)]),
    (ops.Binary("plus"), [t(F32), t(F32)]),
    (ops.Binary("add"), [t(F32), t(F16)]),
    (ops.Binary("add"), [t(F32, 2), t(F32, 3)]),
    (ops.Binary("add"), [t(F32, B), t(F32, n)]),
    (ops.Binary("add"), [t(F32, B), t(F32, 2)]),
    (ops.Binary("add"), [t(I4), t(I4)]),
    (ops.Binary("add"), [t(TRIT), t(TRIT)]),
    (ops.Binary("add"), [t(BOOL), t(BOOL)]),
    (ops.Binary("lt"), [t(BOOL), t(BOOL)]),
    (ops.Binary("and"), [t(F32), t(F32)]),
    (ops.Binary("shl"), [t(BOOL), t(BOOL)]),
    (ops.Where(), [t(I8), t(F32), t(F32)]),
    (ops.Where(), [t(BOOL), t(F32), t(F16)]),
    (ops.Where(), [t(BOOL, 2), t(F32, 3), t(F32)]),
    (ops.BitCast(I32), [t(I64)]),
    (ops.BitCast(BOOL), [t(U8)]),
    (ops.Cast(DType.f8e5m2), [t(F32)]),
    (ops.Cast(F32), [t(DType.f4e2m1)]),
    (ops.Binary("eq"), [t(DType.f8e5m2)] * 2),
    (ops.BitCast(I4), [t(TRIT)]),
    (ops.Broadcast((3,)), [t(F32, 2)]),
    (ops.Broadcast((3,)), [t(F32, 1, 3)]),
    (ops.Broadcast((1,)), [t(F32, 3)]),
    (ops.Reshape((3,)), [t(F32, 2, 2)]),
    (ops.Reshape((B, n)), [t(F32, B)]),
    (ops.Transpose((0, 0)), [t(F32, 2, 3)]),
    (ops.Transpose((0,)), [t(F32, 2, 3)]),
    (ops.Slice((0,), (1,), (2,)), [t(F32, 2, 2)]),
    (ops.Slice((0,), (0,), (2,)), [t(F32, 2)]),
    (ops.Slice((-1,), (1,), (2,)), [t(F32, 2)]),
    (ops.Slice((1,), (1,), (2,)), [t(F32, 2)]),
    (ops.Slice((1,), (-1,), (3,)), [t(F32, 2)]),
    (ops.Concat(0), []),
    (ops.Concat(1), [t(F32, 2), t(F32, 2)]),
    (ops.Concat(-1), [t(F32, 2), t(F32, 2)]),
    (ops.Concat(0), [t(F32, 2), t(F16, 2)]),
    (ops.Concat(0), [t(F32, 2), t(F32, 2, 2)]),
    (ops.Concat(0), [t(F32, 2, 3), t(F32, 2, 2)]),
    (ops.Pad((0,), (3,)), [t(F32, 2), t(F32, 1)]),
    (ops.Pad((0,), (3,)), [t(F32, 2), t(F16)]),
    (ops.Pad((-1,), (3,)), [t(F32, 2), t(F32)]),
    (ops.Pad((2,), (3,)), [t(F32, 2), t(F32)]),
    (ops.Pad((0,), (3,), "mirror"), [t(F32, 2), t(F32)]),
    (ops.Windows((1,), (1,), (1,), (0,), (1,)), [t(F32, 2, 2), t(F32)]),
    (ops.Windows((), (), (), (), ()), [t(F32, 2), t(F32)]),
    (ops.Windows((0,), (1,), (1,), (0,), (1,)), [t(F32, 2, 2, 2), t(F32)]),
    (ops.Gather(1), [t(F32, 2), t(I64)]),
    (ops.Gather(0), [t(F32, 2), t(I8)]),
    (ops.GatherND(0), [t(F32, 2), t(I64)]),
    (ops.GatherND(0), [t(F32, 2), t(I64, 0)]),
    (ops.GatherND(0), [t(F32, 2), t(I64, 2)]),
    (ops.GatherND(0), [t(F32, 2), t(I64, B)]),
    (ops.GatherND(1), [t(F32, 3, 2), t(I64, 2, 1)]),
    (ops.GatherND(-1), [t(F32, 3, 2), t(I64, 2, 1)]),
    (ops.GatherElements(0), [t(F32, 2), t(I8, 2)]),
    (ops.GatherElements(0), [t(F32, 2), t(I64, 2, 1)]),
    (ops.GatherElements(1), [t(F32, 2), t(I64, 2)]),
    (ops.GatherElements(0), [t(F32, 2, 3), t(I64, 2, 4)]),
    (ops.GatherElements(0), [t(F32, 2, B), t(I64, 2, n)]),
    (ops.ScatterElements(0), [t(F32, 2), t(I64, 3), t(F32, 2)]),
    (ops.ScatterElements(0), [t(F32, 2), t(I64, 3), t(F16, 3)]),
    (ops.ScatterElements(0, "sub"), [t(F32, 2), t(I64, 3), t(F32, 3)]),
    (ops.ScatterElements(0, "add"), [t(I4, 2), t(I64, 3), t(I4, 3)]),
    (ops.ScatterND("mul"), [t(BOOL, 2), t(I64, 1, 1), t(BOOL, 1)]),
    (ops.ArgSort(1, 1), [t(F32, 2)]),
    (ops.ArgSort(0, 3), [t(F32, 2)]),
    (ops.ArgSort(0, -1), [t(F32, 2)]),
    (ops.ArgSort(0, 2), [t(F32, n)]),
    (ops.ArgSort(0, 2), [t(BOOL, 2)]),
    (ops.Cumulate("max", 0), [t(F32, 2)]),
    (ops.Cumulate("sum", 1), [t(F32, 2)]),
    (ops.Cumulate("sum", 0), [t(BOOL, 2)]),
    (ops.ScatterND(), [t(F32, 2), t(I64), t(F32)]),
    (ops.ScatterND(), [t(F32, 2), t(I64, 1, 1), t(F16, 1)]),
    (ops.ScatterND(), [t(F32, 2), t(I64, 1, 1), t(F32, 2)]),
    (ops.ScatterND(), [t(F32, 2), t(I64, 1, 2), t(F32, 1)]),
    (ops.ScatterND(), [t(F32, 2), t(I64, 1, 1), t(F32, 1, 1)]),
    (ops.Reduce("mean", (0,)), [t(F32, 2)]),
    (ops.Reduce("sum", (-1,)), [t(F32, 2)]),
    (ops.Reduce("sum", (1, 0)), [t(F32, 2, 2)]),
    (ops.Reduce("sum", (0, 0)), [t(F32, 2)]),
    (ops.Reduce("sum", (1,)), [t(F32, 2)]),
    (ops.Reduce("sum", (0,)), [t(BOOL, 2)]),
    (ops.Reduce("max", (0,)), [t(I4, 2)]),
    (ops.MatMul(), [t(F32, 2), t(F32, 2, 2)]),
    (ops.MatMul(), [t(F32, 2, 3), t(F32, 2, 3)]),
    (ops.MatMul(), [t(F32, 2, 2), t(F16, 2, 2)]),
    (ops.MatMul(), [t(TRIT, 2, 2), t(TRIT, 2, 2)]),
    (ops.MatMul(), [t(F32, 2, 2, 2), t(F32, 3, 2, 2)]),
    (ops.Dot(), [t(F32), t(TRIT, 2, 2)]),
    (ops.Dot(), [t(F16, 2), t(TRIT, 2, 2)]),
    (ops.Dot(), [t(F32, 2), t(F32, 2, 2)]),
    (ops.Dot(), [t(F32, 3), t(TRIT, 3, 2)]),
    (ops.GroupedDot(), [t(F32, 4), t(TRIT, 2, 4), t(F32)]),
    (ops.GroupedDot(), [t(F32, 4), t(TRIT, 2, 4), t(F32, 1, 1)]),
    (ops.GroupedDot(), [t(F32, 4), t(TRIT, 2, 4), t(F32, 2, 3)]),
    (ops.GroupedDot(), [t(F32, 4), t(TRIT, 2, 4), t(F32, 2, 0)]),
    (ops.GroupedDot(), [t(F32, 4), t(TRIT, 2, 4), t(F16, 2, 1)]),
    (ops.Lift(I8), [t(F32, 2, 4), t(F32, 1, 1)]),
    (ops.Lift(TRIT), [t(F32, 2, 4), t(F32, 3, 1)]),
    (ops.Lift(TRIT), [t(I8, 2, 4), t(F32, 1, 1)]),
    (ops.Pack(I2), [t(SIGN, 2, 4)]),
    (ops.Pack(I2), [t(TRIT, 4)]),
    (ops.Pack(I2), [t(TRIT, 2, 0)]),
    (ops.Pack(I2), [t(TRIT, n, 4)]),
    (ops.Pack(GROUPED), [t(TRIT, 2, 12)]),
    (ops.CodedDot("+.-.-+", 3, 2), [t(I8, 3)]),
    (ops.CodedDot("+.-.-+", 3, 2), [t(F32, 2)]),
    (ops.CodedDot("+.-.-", 3, 2), [t(I8, 2)]),
    (ops.CodedDot("+.-.-0", 3, 2), [t(I8, 2)]),
    (ops.PackedDot((), I2, 5, 8), [t(I8, 8), t(U8, 64)]),
    (ops.PackedDot((), I2, 5, 8), [t(I8), t(U8, 64)]),
    (ops.PackedDot((), I2, 5, 8), [t(I8, 16), t(U8, 63)]),
    (ops.PackedDot((), I2, 5, 8), [t(I8, 16), t(I8, 64)]),
    (ops.PackedGroupedDot((), I2, 5, 8), [t(I8, 16), t(U8, 64), t(F32, 1, 1, 16)]),
    (ops.PackedGroupedDot((), I2, 5, 8), [t(F32, 16), t(U8, 64), t(F32, 1, 1, 16), t(I32, 1)]),
    (ops.PackedGroupedDot((), I2, 5, 8), [t(F32, 16), t(U8, 64), t(F32, 5, 1)]),
    (ops.PackedGroupedDot((), I2, 5, 8), [t(I8, 16), t(U8, 64), t(F32, 1, 1, 16), t(I32)]),
    (ops.GroupedDot(), [t(F32, B, 8), t(TRIT, 5, 8), t(F32, 5, 4), t(F32, B, 4)]),
    (ops.GroupedDot(), [t(I8, B, 8), t(TRIT, 5, 8), t(F32, 5, 4), t(F32, B, 2)]),
    (
        ops.PackedGroupedDot((), GROUPED, 5, 16),
        [t(I8, 32), t(U8, 128), t(F32, 1, 2, 16), t(I32, 2), t(F16, 2)],
    ),
    (ops.PackedGroupedDot((), GROUPED, 5, 0), [t(F32, 0), t(U8, 0), t(F32, 1, 0, 16)]),
    (STACK, []),
    (STACK, [t(F32, 5)]),
    (STACK, [t(F16, 4)]),
    (dataclasses.replace(STACK, states=2), [t(F32, 4)]),
    (dataclasses.replace(STACK, which=3), [t(F32, 4)]),
    (dataclasses.replace(STACK, index=None), [t(F32, 4)]),
    (dataclasses.replace(STACK, index=Symbol("t")), [t(F32, 4)]),
    (dataclasses.replace(STACK, conditional=True), [t(F32, 4)]),
    (dataclasses.replace(WHILE, states=1, index=T), MATRIX),
    (ops.Repeat(body([t(F32, 4)], [0], F16), 1, T), [t(F32, 4)]),
    (ops.Repeat(body([t(F32, Expr.of(T))], [0]), 0, T), [t(F32, Expr.of(T))]),
]


@pytest.mark.parametrize(("op", "args"), REJECTED, ids=lambda x: str(x))
def test_ill_typed_operations_are_rejected(op: Op, args: list[TensorType]) -> None:
    with pytest.raises(ValueError, match=r"."):
        op.infer(*args)


def test_every_operation_with_arguments_is_both_accepted_and_rejected() -> None:
    with_arguments = set(ops.OPS) - {ops.Input, ops.Const, ops.Iota, ops.Dims}
    assert {type(op) for op, _, _ in ACCEPTED} >= with_arguments
    assert {type(op) for op, _ in REJECTED} >= with_arguments


def test_a_mismatch_says_which_sizes_should_be_equal() -> None:
    with pytest.raises(ops.DimMismatch) as caught:
        ops.Binary("add").infer(t(F32, B, 4), t(F32, n, 1))
    assert (caught.value.a, caught.value.b) == (B, n)
    assert "batch is not n" in str(caught.value)


SHAPES = st.lists(st.sampled_from([0, 1, 2, 4, B, n]), max_size=3).map(tuple)
TYPES = st.builds(TensorType, st.sampled_from([F32, I8, I64, TRIT, U8, BOOL]), SHAPES)


@given(graphs(steps=5), st.data())
@settings(max_examples=60)
def test_inference_raises_nothing_but_value_errors(graph: Graph, data: st.DataObject) -> None:
    for value in graph.values():
        types = [a.type for a in value.args]
        if types:
            types[data.draw(st.integers(0, len(types) - 1))] = data.draw(TYPES)
        try:
            result: object = value.op.infer(*types)
        except ValueError as error:
            result = error
        assert isinstance(result, TensorType | ValueError)
