"""Chains of index maps, scales and zero points between integer codes and a dot."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from test_golden import assert_same_meaning

from tbc.constants import constant
from tbc.dims import static
from tbc.ir import Builder, Graph, Value
from tbc.ops import (
    Binary,
    Broadcast,
    Cast,
    Dot,
    Gather,
    Input,
    Pad,
    Reduce,
    Reshape,
    Slice,
    Transpose,
    Windows,
)
from tbc.passes.quantize import quantize
from tbc.target import parse
from tbc.types import DType, TensorType

Draw = Callable[[st.SearchStrategy[Any]], Any]


def shape_of(x: Value) -> tuple[int, ...]:
    return tuple(static(d, "a size") for d in x.type.shape)


def number(x: Value, value: float) -> Value:
    return constant(x.builder, value, x.type.dtype)


def transposed(x: Value, draw: Draw) -> Value:
    return x.builder(Transpose(tuple(draw(st.permutations(range(x.type.rank))))), x)


def reshaped(x: Value, draw: Draw) -> Value:
    """Two axes merged, or one split, or a 1 put in."""
    shape = shape_of(x)
    at = draw(st.integers(0, len(shape) - 1))
    choices = [(*shape[:at], 1, *shape[at:])]
    if shape[at] % 2 == 0:
        choices.append((*shape[:at], 2, shape[at] // 2, *shape[at + 1 :]))
    if at + 1 < len(shape):
        choices.append((*shape[:at], shape[at] * shape[at + 1], *shape[at + 2 :]))
    return x.builder(Reshape(draw(st.sampled_from(choices))), x)


def stretched(x: Value, draw: Draw) -> Value:
    shape = tuple(3 if d == 1 else d for d in shape_of(x))
    return x.builder(Broadcast((draw(st.sampled_from([1, 2])), *shape)), x)


def sliced(x: Value, draw: Draw) -> Value:
    starts = [draw(st.integers(0, d - 1)) for d in shape_of(x)]
    sizes = tuple(
        draw(st.integers(1, d - start)) for d, start in zip(shape_of(x), starts, strict=True)
    )
    return x.builder(Slice(tuple(starts), (1,) * len(starts), sizes), x)


def gathered(x: Value, draw: Draw) -> Value:
    axis = draw(st.integers(0, x.type.rank - 1))
    indices = draw(st.lists(st.integers(0, shape_of(x)[axis] - 1), min_size=1, max_size=3))
    return x.builder(Gather(axis), x, constant(x.builder, indices, DType.i64))


def padded(x: Value, draw: Draw) -> Value:
    before = tuple(draw(st.integers(0, 1)) for _ in shape_of(x))
    shape = tuple(d + b + draw(st.integers(0, 1)) for d, b in zip(shape_of(x), before, strict=True))
    return x.builder(Pad(before, shape), x, number(x, 0))


def windows(x: Value, draw: Draw, padding: float = 0) -> Value:
    if x.type.rank < 3:
        return x
    sizes = shape_of(x)[2:]
    kernel = tuple(draw(st.integers(1, 2)) for _ in sizes)
    before = tuple(draw(st.integers(0, 1)) for _ in sizes)
    ones = (1,) * len(sizes)
    return x.builder(Windows(kernel, ones, ones, before, sizes), x, number(x, padding))


def pooled(x: Value, draw: Draw) -> Value:
    inside = windows(x, draw, -math.inf)
    axes = tuple(range(x.type.rank, inside.type.rank))
    return x.builder(Reduce("max", axes), inside) if axes else x


def operand(x: Value, draw: Draw, low: float, high: float) -> Value:
    """A constant with elements along some of x's axes."""
    shape = [d if draw(st.booleans()) else 1 for d in shape_of(x)]
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    numbers = rng.uniform(low, high, draw(st.sampled_from([(), shape])))
    return constant(x.builder, numbers if high < 2 else np.rint(numbers), x.type.dtype)


def scaled(x: Value, draw: Draw) -> Value:
    s = operand(x, draw, 0.5, 1.5)
    if draw(st.booleans()):
        return x.builder(Binary("div"), x, s)
    return x.builder(Binary("mul"), *draw(st.permutations([x, s])))


def shifted(x: Value, draw: Draw) -> Value:
    return x.builder(Binary(draw(st.sampled_from(["add", "sub"]))), x, operand(x, draw, -50, 50))


MAPS = (transposed, reshaped, stretched, sliced, gathered, padded, windows, pooled)


@st.composite
def dots_of_codes(draw: Any) -> Graph:
    """A dot of integer codes after offsets, then scales, with index maps between them."""
    build = Builder()
    dtype = draw(st.sampled_from([DType.i8, DType.u8]))
    shape = draw(st.sampled_from([(4, 6), (2, 2, 4), (2, 3, 3, 2)]))
    x = codes = build(Input("x", TensorType(dtype, shape)))
    x = build(Cast(DType.f32), x)
    for change in (shifted, scaled):
        for step in draw(st.lists(st.sampled_from((*MAPS, change)), max_size=3)):
            if math.prod(shape_of(x)) < 500:
                x = step(x, draw)
    k = shape_of(x)[-1]
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    w = constant(build, rng.integers(-1, 2, (3, k)), DType.trit)
    return Graph("drawn", (codes,), (("y", build(Dot(), x, w)),))


@given(dots_of_codes())
@settings(max_examples=200)
def test_a_dot_of_codes_keeps_its_meaning(graph: Graph) -> None:
    after = quantize(graph, parse("x86-64"))
    assert_same_meaning(graph, after, exact=False)


@given(dots_of_codes())
@settings(max_examples=200)
def test_a_dot_of_codes_with_one_scale_is_one_of_integers(graph: Graph) -> None:
    for value in graph.values():
        match value.op:
            case Binary("add" | "sub") | Reduce():  # what is padded may be no code of 8 bits
                return
            case Binary() if all(a.type.rank for a in value.args):
                return
    (y,) = quantize(graph, parse("x86-64")).results
    dots = [v for v in Graph("after", graph.inputs, (("y", y),)).values() if v.op == Dot()]
    assert [d.args[0].type.dtype for d in dots] == [DType.i8]
