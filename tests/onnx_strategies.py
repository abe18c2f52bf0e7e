"""Hypothesis strategies for ONNX models of many operators, with inputs for them.

`models()` draws a `Drawn`. Its terms know whether every implementation must compute the same bits
(`exact`): such terms alone are rounded, compared or cast to integers, so that a difference in the
last bit elsewhere cannot become a large one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from hypothesis import strategies as st
from onnx import helper, numpy_helper

Array = npt.NDArray[Any]
Draw = Callable[..., Any]
Maker = Callable[["Drawn"], None]

OPSET = 21
BATCH = "n"
SIZES = (1, 2, 3, 5, 7, 8, 13, 16, 17)
F32, F64, I32, I64, U8, I8, BOOL = map(np.dtype, ("f4", "f8", "i4", "i8", "u1", "i1", "?"))
FLOATS, WHOLE = (F32, F64), (I32, I64)
_LARGEST = 4000


@dataclass(frozen=True)
class Term:
    """A value of the model.

    Attributes:
        shape: its sizes in the run that is drawn.
        batched: whether axis 0 is the symbol `n`.
        exact: whether its bits do not depend on who computes it.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    batched: bool
    exact: bool

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def free(self) -> range:
        """The axes whose sizes are numbers in the model."""
        return range(1 if self.batched else 0, self.rank)


@dataclass
class Drawn:
    """A model being drawn, and the arrays to run it with."""

    draw: Draw
    n: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    feeds: dict[str, Array] = field(default_factory=dict)
    terms: list[Term] = field(default_factory=list)
    results: list[Term] = field(default_factory=list)

    # -- drawing ----------------------------------------------------------------------------------

    def choose(self, options: Sequence[Any]) -> Any:
        if not options:
            raise LookupError
        return self.draw(st.sampled_from(list(options)))

    def integer(self, low: int, high: int) -> int:
        number: int = self.draw(st.integers(low, high))
        return number

    def random(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        """Elements of moderate size."""
        rng = np.random.default_rng(self.integer(0, 99))
        if dtype == BOOL:
            return rng.random(shape) < 0.5
        if dtype in (U8, I8):
            return rng.integers(
                0 if dtype == U8 else -128, 256 if dtype == U8 else 128, shape, dtype
            )
        if dtype in WHOLE:
            return rng.integers(-9, 10, shape).astype(dtype)
        return (rng.standard_normal(shape) * 2).astype(dtype)

    def term(self, wanted: Callable[[Term], bool] = lambda t: t.dtype in FLOATS) -> Term:
        term: Term = self.choose([t for t in self.terms if wanted(t)])
        return term

    # -- building ---------------------------------------------------------------------------------

    def constant(self, array: Any, dtype: np.dtype[Any] = I64) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(array, dtype)
        return name

    def node(
        self, op: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any
    ) -> list[str]:
        names = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, **attributes))
        return names

    def add(self, like: Term, op: str, inputs: Sequence[str], **attributes: Any) -> Term:
        """The result of one more node, with what `like` says of it."""
        (name,) = self.node(op, inputs, **attributes)
        return self.keep(replace(like, name=name))

    def keep(self, term: Term) -> Term:
        if 0 < np.prod(term.shape) <= _LARGEST:
            self.terms.append(term)
        return term

    def model(self) -> onnx.ModelProto:
        """The model; its outputs have no declared types."""
        inputs = [t for t in self.terms if t.name in self.feeds]
        graph = helper.make_graph(
            self.nodes,
            "drawn",
            [
                helper.make_tensor_value_info(
                    t.name,
                    helper.np_dtype_to_tensor_dtype(t.dtype),
                    [BATCH if t.batched and a == 0 else d for a, d in enumerate(t.shape)],
                )
                for t in inputs
            ],
            [onnx.ValueInfoProto(name=t.name) for t in self.results],
            [numpy_helper.from_array(a, name) for name, a in self.constants.items()],
        )
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=10)


# -- elementwise ----------------------------------------------------------------------------------

_EXACT = ("Abs", "Neg", "Relu", "LeakyRelu", "Identity")
_JUMPS = ("Floor", "Ceil", "Round", "Sign")
_SMOOTH = ("Sigmoid", "Tanh", "Erf", "Softplus", "Softsign", "Elu", "Selu", "Gelu", "Mish",
           "HardSigmoid", "HardSwish", "Sin", "Cos", "Atan", "Asinh")  # fmt: skip


def _unary(d: Drawn) -> None:
    x = d.term()
    op = d.choose((*_EXACT, *_SMOOTH, *(_JUMPS if x.exact else ())))
    d.add(replace(x, exact=x.exact and op not in _SMOOTH), op, [x.name])


def _away_from_zero(d: Drawn, x: Term) -> str:
    """|x| + 1/2."""
    (size,) = d.node("Abs", [x.name])
    return d.node("Add", [size, d.constant(0.5, x.dtype)])[0]


def _of_positive(d: Drawn) -> None:
    x = d.term()
    op = d.choose(["Sqrt", "Log", "Reciprocal"])
    d.add(replace(x, exact=x.exact and op != "Log"), op, [_away_from_zero(d, x)])


def _bounded(d: Drawn, x: Term, limit: float) -> str:
    ends = [d.constant(e, x.dtype) for e in (-limit, limit)]
    return d.node("Clip", [x.name, *ends])[0]


def _clipped(d: Drawn) -> None:
    x = d.term()
    if d.draw(st.booleans()):
        d.add(replace(x, exact=False), "Exp", [_bounded(d, x, 5)])
    else:
        d.keep(replace(x, name=_bounded(d, x, d.choose([0.5, 1, 6]))))


def _fits(a: Term, b: Term) -> bool:
    """Whether two terms broadcast, whatever n is."""
    if a.rank < b.rank:
        a, b = b, a
    pairs = list(zip(a.shape[a.rank - b.rank :], b.shape, strict=True))
    if not all(x == y or 1 in (x, y) for x, y in pairs):
        return False
    if b.batched:
        return a.batched and a.rank == b.rank
    return not (a.batched and a.rank == b.rank) or b.shape[0] == 1


def _joined(a: Term, b: Term) -> Term:
    shape = np.broadcast_shapes(a.shape, b.shape)
    return Term("", a.dtype, shape, a.batched or b.batched, a.exact and b.exact)


def _pair(d: Drawn, wanted: Callable[[Term], bool]) -> tuple[Term, Term]:
    a = d.term(wanted)
    return a, d.term(lambda t: t.dtype == a.dtype and _fits(a, t))


def _binary(d: Drawn) -> None:
    a, b = _pair(d, lambda t: t.dtype in (*FLOATS, *WHOLE))
    op = d.choose(["Add", "Sub", "Mul", "Min", "Max"])
    d.add(_joined(a, b), op, [a.name, b.name])


def _division(d: Drawn) -> None:
    a, b = _pair(d, lambda t: t.dtype in FLOATS)
    d.add(_joined(a, b), "Div", [a.name, _away_from_zero(d, b)])


def _power(d: Drawn) -> None:
    x = d.term()
    exponent = d.constant(d.choose([0.5, 2, 3, -1]), x.dtype)
    d.add(replace(x, exact=False), "Pow", [_away_from_zero(d, x), exponent])


def _modulo(d: Drawn) -> None:
    x = d.term(lambda t: t.dtype in WHOLE)
    d.add(x, "Mod", [x.name, d.constant(d.choose([2, 7, -3]), x.dtype)])


def _comparison(d: Drawn) -> None:
    a, b = _pair(d, lambda t: t.exact and t.dtype in (*FLOATS, *WHOLE))
    if b.exact:
        op = d.choose(["Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"])
        d.add(replace(_joined(a, b), dtype=BOOL), op, [a.name, b.name])


def _logic(d: Drawn) -> None:
    a, b = _pair(d, lambda t: t.dtype == BOOL)
    if d.draw(st.booleans()):
        d.add(a, "Not", [a.name])
    else:
        d.add(_joined(a, b), d.choose(["And", "Or", "Xor"]), [a.name, b.name])


def _where(d: Drawn) -> None:
    condition = d.term(lambda t: t.dtype == BOOL)
    a, b = _pair(d, lambda t: t.dtype in (*FLOATS, I64) and _fits(condition, t))
    both = _joined(a, b)
    if _fits(condition, both):
        joined = replace(_joined(condition, both), dtype=a.dtype, exact=both.exact)
        d.add(joined, "Where", [condition.name, a.name, b.name])


def _cast(d: Drawn) -> None:
    x = d.term(lambda t: True)
    to = d.choose([F32, F64, *((I32, I64, BOOL) if x.exact else ())])
    code = helper.np_dtype_to_tensor_dtype(to)
    narrow = to in WHOLE and x.dtype in FLOATS
    source = _bounded(d, x, 1000) if narrow else x.name
    d.add(replace(x, dtype=to), "Cast", [source], to=code)


# -- movement -------------------------------------------------------------------------------------


def _reshape(d: Drawn) -> None:
    x = d.term(lambda t: True)
    inner = int(np.prod(x.shape[x.free.start :]))
    left = d.choose([k for k in range(1, inner + 1) if inner % k == 0])
    shape = [left, inner // left] if d.draw(st.booleans()) else [inner]
    head = [0] if x.batched else []
    sizes = (*x.shape[: x.free.start], *shape)
    d.add(replace(x, shape=sizes), "Reshape", [x.name, d.constant([*head, *shape])])


def _reshape_by_shape(d: Drawn) -> None:
    """Reshape to what Shape, Gather and Concat compute."""
    x = d.term(lambda t: t.rank > 0)
    (shape,) = d.node("Shape", [x.name])
    (first,) = d.node("Gather", [shape, d.constant([0])])
    (target,) = d.node("Concat", [first, d.constant([-1])], axis=0)
    sizes = (x.shape[0], int(np.prod(x.shape[1:])))
    d.add(replace(x, shape=sizes), "Reshape", [x.name, target])


def _transpose(d: Drawn) -> None:
    x = d.term(lambda t: t.rank > 1)
    perm = [*range(x.free.start), *d.draw(st.permutations(list(x.free)))]
    d.add(replace(x, shape=tuple(x.shape[p] for p in perm)), "Transpose", [x.name], perm=perm)


def _squeeze(d: Drawn) -> None:
    x = d.term(lambda t: True)
    axis = d.choose([*x.free, x.rank])
    if axis < x.rank and x.shape[axis] == 1:
        sizes = (*x.shape[:axis], *x.shape[axis + 1 :])
        d.add(replace(x, shape=sizes), "Squeeze", [x.name, d.constant([axis])])
    else:
        sizes = (*x.shape[:axis], 1, *x.shape[axis:])
        d.add(replace(x, shape=sizes), "Unsqueeze", [x.name, d.constant([axis])])


def _concat(d: Drawn) -> None:
    a = d.term(lambda t: len(t.free) > 0)
    axis = d.choose(a.free)
    rest = a.shape[:axis], a.shape[axis + 1 :]

    def alike(t: Term) -> bool:
        same = (t.dtype, t.rank, t.batched) == (a.dtype, a.rank, a.batched)
        return same and (t.shape[:axis], t.shape[axis + 1 :]) == rest

    b = d.term(alike)
    sizes = (*rest[0], a.shape[axis] + b.shape[axis], *rest[1])
    joined = replace(a, shape=sizes, exact=a.exact and b.exact)
    d.add(joined, "Concat", [a.name, b.name], axis=axis)


def _slice(d: Drawn) -> None:
    x = d.term(lambda t: len(t.free) > 0)
    axis = d.choose(x.free)
    size, step = x.shape[axis], d.choose([1, 1, 2, -1])
    first, last = sorted((d.integer(0, size - 1), d.integer(0, size - 1)))
    start, stop = (first, last + 1) if step > 0 else (last, first - 1 if first else -size - 1)
    length = len(range(last, first - 1, step) if step < 0 else range(first, last + 1, step))
    sizes = (*x.shape[:axis], length, *x.shape[axis + 1 :])
    ends = [d.constant([v]) for v in (start, stop, axis, step)]
    d.add(replace(x, shape=sizes), "Slice", [x.name, *ends])


def _split(d: Drawn) -> None:
    x = d.term(lambda t: any(t.shape[a] > 1 for a in t.free))
    axis = d.choose([a for a in x.free if x.shape[a] > 1])
    cut = d.integer(1, x.shape[axis] - 1)
    lengths = (cut, x.shape[axis] - cut)
    names = d.node("Split", [x.name, d.constant(lengths)], 2, axis=axis)
    for name, length in zip(names, lengths, strict=True):
        d.keep(replace(x, name=name, shape=(*x.shape[:axis], length, *x.shape[axis + 1 :])))


def _gather(d: Drawn) -> None:
    x = d.term(lambda t: len(t.free) > 0)
    axis = d.choose(x.free)
    size = x.shape[axis]
    rows = np.random.default_rng(d.integer(0, 9)).integers(-size, size, d.integer(1, 5))
    sizes = (*x.shape[:axis], len(rows), *x.shape[axis + 1 :])
    d.add(replace(x, shape=sizes), "Gather", [x.name, d.constant(rows)], axis=axis)


def _gather_by_data(d: Drawn) -> None:
    table = d.random(F32, (d.integer(1, 9), d.choose(SIZES)))
    at = d.term(lambda t: t.dtype in WHOLE and t.rank < 3)
    (index,) = d.node("Mod", [at.name, d.constant(len(table), at.dtype)])
    result = replace(at, dtype=F32, shape=(*at.shape, table.shape[1]))
    d.add(result, "Gather", [d.constant(table, F32), index])


def _pad(d: Drawn) -> None:
    x = d.term(lambda t: t.dtype in FLOATS and len(t.free) > 0)
    mode = d.choose(["constant", "edge", "reflect"])
    most = [0 if a not in x.free else min(3, s - 1 if mode == "reflect" else 3)
            for a, s in enumerate(x.shape)]  # fmt: skip
    before, after = ([d.integer(0, m) for m in most] for _ in range(2))
    sizes = tuple(s + b + a for s, b, a in zip(x.shape, before, after, strict=True))
    d.add(replace(x, shape=sizes), "Pad", [x.name, d.constant([*before, *after])], mode=mode)


def _expand(d: Drawn) -> None:
    x = d.term(lambda t: t.rank < 4 and not t.batched)
    sizes = tuple(d.integer(1, 3) if s == 1 else s for s in x.shape)
    sizes = (d.integer(1, 3), *sizes)
    d.add(replace(x, shape=sizes), "Expand", [x.name, d.constant(sizes)])


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
    codes = _bounded(d, Term(rounded, F32, x.shape, x.batched, True), 127)
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


MAKERS: tuple[Maker, ...] = (
    _unary, _unary, _of_positive, _clipped, _binary, _binary, _division, _power, _modulo,
    _comparison, _logic, _where, _cast,
    _reshape, _reshape_by_shape, _transpose, _squeeze, _concat, _slice, _split, _gather,
    _gather_by_data, _pad, _expand,
    _reduction, _arg_extremum, _softmax, _normalization,
    _product, _product, _product_of_terms, _bit_linear, _bit_linear, _quantized,
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
