"""What draws elementwise operators, and those that move elements, into an ONNX model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st
from onnx import helper
from onnx_drawing import (
    BOOL,
    F32,
    F64,
    FLOATS,
    I32,
    I64,
    SIZES,
    WHOLE,
    Drawn,
    Maker,
    Term,
    away_from_zero,
    bounded,
    fits,
    joined,
    pair,
)

# -- elementwise ----------------------------------------------------------------------------------

_EXACT = ("Abs", "Neg", "Relu", "LeakyRelu", "Identity")
_JUMPS = ("Floor", "Ceil", "Round", "Sign")
_SMOOTH = ("Sigmoid", "Tanh", "Erf", "Softplus", "Softsign", "Elu", "Selu", "Gelu", "Mish",
           "HardSigmoid", "HardSwish", "Sin", "Cos", "Atan", "Asinh")  # fmt: skip


def _unary(d: Drawn) -> None:
    x = d.term()
    op = d.choose((*_EXACT, *_SMOOTH, *(_JUMPS if x.exact else ())))
    d.add(replace(x, exact=x.exact and op not in _SMOOTH), op, [x.name])


def _of_positive(d: Drawn) -> None:
    x = d.term()
    op = d.choose(["Sqrt", "Log", "Reciprocal"])
    d.add(replace(x, exact=x.exact and op != "Log"), op, [away_from_zero(d, x)])


def _clipped(d: Drawn) -> None:
    x = d.term()
    if d.draw(st.booleans()):
        d.add(replace(x, exact=False), "Exp", [bounded(d, x, 5)])
    else:
        d.keep(replace(x, name=bounded(d, x, d.choose([0.5, 1, 6]))))


def _binary(d: Drawn) -> None:
    a, b = pair(d, lambda t: t.dtype in (*FLOATS, *WHOLE))
    op = d.choose(["Add", "Sub", "Mul", "Min", "Max"])
    d.add(joined(a, b), op, [a.name, b.name])


def _division(d: Drawn) -> None:
    a, b = pair(d, lambda t: t.dtype in FLOATS)
    d.add(joined(a, b), "Div", [a.name, away_from_zero(d, b)])


def _power(d: Drawn) -> None:
    x = d.term()
    exponent = d.constant(d.choose([0.5, 2, 3, -1]), x.dtype)
    d.add(replace(x, exact=False), "Pow", [away_from_zero(d, x), exponent])


def _modulo(d: Drawn) -> None:
    x = d.term(lambda t: t.dtype in WHOLE)
    d.add(x, "Mod", [x.name, d.constant(d.choose([2, 7, -3]), x.dtype)])


def _comparison(d: Drawn) -> None:
    a, b = pair(d, lambda t: t.exact and t.dtype in (*FLOATS, *WHOLE))
    if b.exact:
        op = d.choose(["Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"])
        d.add(replace(joined(a, b), dtype=BOOL), op, [a.name, b.name])


def _logic(d: Drawn) -> None:
    a, b = pair(d, lambda t: t.dtype == BOOL)
    if d.draw(st.booleans()):
        d.add(a, "Not", [a.name])
    else:
        d.add(joined(a, b), d.choose(["And", "Or", "Xor"]), [a.name, b.name])


def _where(d: Drawn) -> None:
    condition = d.term(lambda t: t.dtype == BOOL)
    a, b = pair(d, lambda t: t.dtype in (*FLOATS, I64) and fits(condition, t))
    both = joined(a, b)
    if fits(condition, both):
        chosen = replace(joined(condition, both), dtype=a.dtype, exact=both.exact)
        d.add(chosen, "Where", [condition.name, a.name, b.name])


def _cast(d: Drawn) -> None:
    x = d.term(lambda t: True)
    to = d.choose([F32, F64, *((I32, I64, BOOL) if x.exact else ())])
    code = helper.np_dtype_to_tensor_dtype(to)
    narrow = to in WHOLE and x.dtype in FLOATS
    source = bounded(d, x, 1000) if narrow else x.name
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


def _flat_and_back(d: Drawn) -> None:
    """All elements in one axis, halved there, and in their own shape again."""
    x = d.term(lambda t: t.dtype in FLOATS and t.rank > 0)
    (flat,) = d.node("Reshape", [x.name, d.constant([-1])])
    (half,) = d.node("Mul", [flat, d.constant(0.5, x.dtype)])
    (shape,) = d.node("Shape", [x.name])
    d.add(x, "Reshape", [half, shape])


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


MAKERS: tuple[Maker, ...] = (
    _unary, _unary, _of_positive, _clipped, _binary, _binary, _division, _power, _modulo,
    _comparison, _logic, _where, _cast,
    _reshape, _reshape_by_shape, _flat_and_back, _transpose, _squeeze, _concat, _slice, _split,
    _gather, _gather_by_data, _pad, _expand,
)  # fmt: skip
"""Each adds a term; raises LookupError where nothing fits."""
