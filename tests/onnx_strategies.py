"""Hypothesis strategies for ONNX models of many operators, with inputs for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx_maps
from hypothesis import strategies as st
from onnx_drawing import (
    BOOL,
    F32,
    F64,
    FLOATS,
    I8,
    I32,
    I64,
    SIZES,
    U8,
    WHOLE,
    Draw,
    Drawn,
    Maker,
    Term,
    bounded,
)

# -- sums -----------------------------------------------------------------------------------------


def _reduction(d: Drawn) -> None:
    x = d.term(lambda t: t.dtype in (*FLOATS, *WHOLE) and len(t.free) > 0)
    sums = ["ReduceMean", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceLogSumExp"]
    op = d.choose(["ReduceSum", "ReduceMax", "ReduceMin", *(sums if x.dtype == F32 else [])])
    axes = sorted(d.draw(st.sets(st.sampled_from(list(x.free)), min_size=1)))
    keep = d.integer(0, 1)
    sizes = tuple(1 if a in axes else s for a, s in enumerate(x.shape) if keep or a not in axes)
    exact = x.exact and (op in ("ReduceMax", "ReduceMin") or x.dtype in WHOLE)
    reduced = replace(x, shape=sizes, exact=exact)
    d.add(reduced, op, [x.name, d.constant(axes)], keepdims=keep)


def _arg_extremum(d: Drawn) -> None:
    x = d.term(lambda t: t.dtype == F32 and t.exact and len(t.free) > 0)
    axis = d.choose(x.free)
    sizes = (*x.shape[:axis], *x.shape[axis + 1 :])
    op = d.choose(["ArgMax", "ArgMin"])
    d.add(replace(x, dtype=I64, shape=sizes), op, [x.name], axis=axis, keepdims=0)


def _softmax(d: Drawn) -> None:
    x = d.term(lambda t: t.dtype == F32 and len(t.free) > 0)
    op = d.choose(["Softmax", "LogSoftmax"])
    d.add(replace(x, exact=False), op, [x.name], axis=d.choose(x.free))


def _normalization(d: Drawn) -> None:
    x = d.term(lambda t: t.dtype == F32 and len(t.free) > 0 and t.rank > 1)
    if d.draw(st.booleans()):
        scale, bias = (d.constant(d.random(F32, x.shape[-1:]), F32) for _ in range(2))
        d.add(replace(x, exact=False), "LayerNormalization", [x.name, scale, bias], epsilon=0.1)
    else:
        numbers = [d.random(F32, x.shape[1:2]) for _ in range(3)]
        numbers.append(np.abs(d.random(F32, x.shape[1:2])) + np.float32(0.5))
        names = [d.constant(a, F32) for a in numbers]
        d.add(replace(x, exact=False), "BatchNormalization", [x.name, *names])


def _weight(d: Drawn, shape: tuple[int, ...]) -> str:
    """A dense weight, a ternary one, or one of signs, as a float initializer."""
    rng = np.random.default_rng(d.integer(0, 99))
    match d.choose(["dense", "trits", "rows", "signs"]):
        case "dense":
            w = rng.standard_normal(shape)
        case "trits":
            w = rng.integers(-1, 2, shape) * 0.37
        case "rows":
            w = rng.integers(-1, 2, shape) * rng.uniform(0.1, 2, shape[-1])
        case _:
            w = rng.choice([-0.25, 0.25], shape)
    return d.constant(w, F32)


def _product(d: Drawn) -> None:
    x = d.term(lambda t: t.dtype == F32 and t.rank > 1 and t.rank - 1 in t.free)
    k, n = x.shape[-1], d.choose(SIZES)
    result = replace(x, shape=(*x.shape[:-1], n), exact=False)
    if x.rank == 2 and d.draw(st.booleans()):
        bias = d.constant(d.random(F32, (n,)), F32)
        d.add(result, "Gemm", [x.name, _weight(d, (n, k)), bias], transB=1, alpha=0.5)
    else:
        d.add(result, "MatMul", [x.name, _weight(d, (k, n))])


def _product_of_terms(d: Drawn) -> None:
    a = d.term(lambda t: t.dtype == F32 and t.rank > 1 and t.rank - 1 in t.free)

    def fits(t: Term) -> bool:
        is_matrix = t.dtype == F32 and t.rank == 2 and not t.batched
        return is_matrix and t.shape[0] == a.shape[-1]

    b = d.term(fits)
    sizes = (*a.shape[:-1], b.shape[1])
    d.add(replace(a, shape=sizes, exact=False), "MatMul", [a.name, b.name])


def _attention(d: Drawn) -> None:
    """Every row's mean of all rows, weighted by how like they are: n by n products."""
    x = d.term(lambda t: t.dtype == F32 and t.rank == 2 and t.batched)
    (small,) = d.node("Tanh", [x.name])
    (turned,) = d.node("Transpose", [small], perm=[1, 0])
    (alike,) = d.node("MatMul", [small, turned])
    (weights,) = d.node("Softmax", [alike], axis=1)
    d.add(replace(x, exact=False), "MatMul", [weights, x.name])


def _over_batch(d: Drawn) -> None:
    """A reduction of the axis whose size is known at run time only."""
    x = d.term(lambda t: t.dtype == F32 and t.batched)
    op = d.choose(["ReduceSum", "ReduceMean", "ReduceMax"])
    reduced = replace(x, shape=x.shape[1:], batched=False, exact=x.exact and op == "ReduceMax")
    d.add(reduced, op, [x.name, d.constant([0])], keepdims=0)


def _bit_linear(d: Drawn) -> None:
    """Activations quantised to 8 bits by their largest, times ternary weights."""
    x = d.term(lambda t: t.dtype == F32 and t.exact and t.rank > 1 and t.rank - 1 in t.free)
    k, n = x.shape[-1], d.choose(SIZES)
    (size,) = d.node("Abs", [x.name])
    (most,) = d.node("ReduceMax", [size, d.constant([-1])], keepdims=1)
    (safe,) = d.node("Clip", [most, d.constant(1e-5, F32)])
    (scale,) = d.node("Div", [d.constant(127, F32), safe])
    (scaled,) = d.node("Mul", [x.name, scale])
    (rounded,) = d.node("Round", [scaled])
    codes = bounded(d, Term(rounded, F32, x.shape, x.batched, True), 127)
    rng = np.random.default_rng(d.integer(0, 99))
    (y,) = d.node("MatMul", [codes, d.constant(rng.integers(-1, 2, (k, n)), F32)])
    d.add(replace(x, shape=(*x.shape[:-1], n)), "Div", [y, scale])


def _quantized(d: Drawn) -> None:
    """QuantizeLinear, an integer product by ternary weights, and the scale."""
    x = d.term(lambda t: t.dtype == F32 and t.exact and t.rank > 1 and t.rank - 1 in t.free)
    k, n = x.shape[-1], d.choose(SIZES)
    rng = np.random.default_rng(d.integer(0, 99))
    w = d.constant(rng.integers(-1, 2, (k, n)), I8)
    if d.draw(st.booleans()):
        codes, scale, zero = d.node("DynamicQuantizeLinear", [x.name], 3)
    else:
        kind = d.choose([U8, I8])
        scale, zero = d.constant(0.0625, F32), d.constant(3, kind)
        (codes,) = d.node("QuantizeLinear", [x.name, scale, zero])
    (sums,) = d.node("MatMulInteger", [codes, w, zero])
    (y,) = d.node("Cast", [sums], to=onnx.TensorProto.FLOAT)
    d.add(replace(x, shape=(*x.shape[:-1], n)), "Mul", [y, scale])


# -- windows --------------------------------------------------------------------------------------


def _is_image(t: Term) -> bool:
    return t.dtype == F32 and t.rank in (3, 4) and 1 in t.free


def _window(d: Drawn, x: Term) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Attributes of a convolution or pooling, and the sizes that come out of it."""
    kernel, strides, before, after, sizes = [], [], [], [], []
    for size in x.shape[2:]:
        kernel.append(d.integer(1, min(3, size)))
        strides.append(d.integer(1, 2))
        before.append(d.integer(0, kernel[-1] - 1))
        after.append(d.integer(0, kernel[-1] - 1))
        sizes.append((size + before[-1] + after[-1] - kernel[-1]) // strides[-1] + 1)
    attributes = {"kernel_shape": kernel, "strides": strides, "pads": before + after}
    return attributes, tuple(sizes)


def _convolution(d: Drawn) -> None:
    x = d.term(_is_image)
    channels = x.shape[1]
    groups = d.choose(sorted({1, channels}))
    out = groups * d.integer(1, 4)
    attributes, sizes = _window(d, x)
    w = _weight(d, (out, channels // groups, *attributes["kernel_shape"]))
    bias = d.constant(d.random(F32, (out,)), F32)
    result = replace(x, shape=(x.shape[0], out, *sizes), exact=False)
    d.add(result, "Conv", [x.name, w, bias], group=groups, **attributes)


def _pooling(d: Drawn) -> None:
    x = d.term(_is_image)
    attributes, sizes = _window(d, x)
    result = replace(x, shape=(*x.shape[:2], *sizes))
    if d.draw(st.booleans()):
        d.add(result, "MaxPool", [x.name], **attributes)
    else:
        whole = d.integer(0, 1)
        averages = replace(result, exact=False)
        d.add(averages, "AveragePool", [x.name], count_include_pad=whole, **attributes)


def _global_pooling(d: Drawn) -> None:
    x = d.term(_is_image)
    result = replace(x, shape=(*x.shape[:2], *[1] * (x.rank - 2)), exact=False)
    d.add(result, "GlobalAveragePool", [x.name])


# -- models ---------------------------------------------------------------------------------------

MAKERS: tuple[Maker, ...] = (
    *onnx_maps.MAKERS,
    _reduction, _over_batch, _arg_extremum, _softmax, _normalization,
    _product, _product, _product_of_terms, _attention, _bit_linear, _bit_linear, _quantized,
    _convolution, _convolution, _pooling, _global_pooling,
)  # fmt: skip


def _input(d: Drawn, dtype: np.dtype[Any], shape: tuple[int, ...], batched: bool) -> None:
    name = f"x{len(d.feeds)}"
    d.feeds[name] = d.random(dtype, shape)
    d.terms.append(Term(name, dtype, shape, batched, exact=True))


@st.composite
def models(draw: Draw, nodes: int = 8) -> Drawn:
    """A model of up to about `nodes` operators, and inputs for it."""
    d = Drawn(draw, draw(st.sampled_from([1, 2, 3, 5, 16, 17])))
    m, k, c, h = (d.choose(SIZES) for _ in range(4))
    _input(d, F32, (d.n, k), batched=True)
    _input(d, F32, (d.n, min(c, 5), min(h, 8), 3), batched=True)
    _input(d, d.choose([F32, F32, F64]), (m, k), batched=False)
    _input(d, d.choose([I32, I64, BOOL]), (k,), batched=False)
    first = len(d.terms)
    for maker in d.draw(st.lists(st.sampled_from(MAKERS), min_size=2, max_size=nodes)):
        try:
            maker(d)
        except LookupError:
            continue
    made = d.terms[first:] or [d.add(d.terms[0], "Identity", [d.terms[0].name])]
    picked = d.draw(st.lists(st.sampled_from(made), min_size=1, max_size=3))
    d.results = list(dict.fromkeys((*picked, made[-1])))
    return d


def intermediate(d: Drawn) -> Mapping[str, Term]:
    """The terms that nodes compute, by name."""
    return {t.name: t for t in d.terms if t.name not in d.feeds}
