"""Sums of planes, and the ways that lead to a weight."""

from __future__ import annotations

import numpy as np
from forms import (
    QUANTISED,
    Form,
    K,
    N,
    X,
    lines,
    signs,
    trits,
)
from onnx import TensorProto
from onnx_models import Array, i64, normal


def product(w: Array, *weights: str, quantised: bool = False) -> Form:
    """x, perhaps in codes, times a float weight w[n, k]."""
    proto = lines(
        *((*QUANTISED, "xq = Div(xc, xs)") if quantised else ("xq = Identity(x)",)),
        "y = Gemm(xq, w)",
        constants={"w": w}, inputs={"x": (np.float32, (5, w.shape[1]))}, y={"transB": 1},
    )  # fmt: skip
    feeds = {"x": normal(1, 5, w.shape[1])}
    return Form(proto, feeds, weights, "i8 codes" if quantised else "f32", scale=3)


def billm() -> Array:
    """Blocks of 128 columns, some salient and binarised twice, the others in two groups."""
    rng, blocks = np.random.default_rng(2), []
    for salient in (7, 12):
        dense, mask = rng.normal(size=(N, 128)), np.arange(128) < salient
        rng.shuffle(mask)
        a, b, inner, outer = (
            rng.uniform(lo, hi, (N, 1)) for lo, hi in ((2, 3), (0.3, 0.9), (0.3, 0.5), (1, 1.5))
        )
        twice = a * np.sign(dense) + b * rng.choice([-1, 1], dense.shape)
        once = np.where(np.abs(dense) < 0.8, inner, outer) * np.sign(dense)
        blocks.append(np.where(mask, twice, once))
    return np.concatenate(blocks, 1).astype(np.float32)


# -- ways to a weight ------------------------------------------------------------------------------


def fused_qkv_weight() -> Form:
    proto = lines(
        "q = Slice(w, s0, e0, ax)", "k = Slice(w, e0, e1, ax)", "yq = MatMul(x, q)",
        "yk = MatMul(x, k)", outputs=["yq", "yk"],
        constants={
            "w": trits(2, K, N) * np.repeat(np.float32([0.5, 2]), N // 2), "s0": i64(0),
            "e0": i64(N // 2), "e1": i64(N), "ax": i64(1),
        },
    )  # fmt: skip
    return Form(proto, {"x": X}, ["trit per tensor"] * 2)


def fused_qkv_product() -> Form:
    proto = lines(
        "p = MatMul(x, w)", "a, b, y = Split(p, sizes)",
        constants={"w": 0.5 * trits(2, K, N), "sizes": i64(8, 8, 8)}, a={"axis": 1},
    )  # fmt: skip
    return Form(proto, {"x": X}, ["trit per tensor"])


def shared_weight() -> Form:
    proto = lines(
        "a = MatMul(x, w)", "r = Relu(a)", "t = Transpose(w)", "b = MatMul(r, t)",
        "y = MatMul(b, w)", constants={"w": 0.5 * trits(2, K, N)},
    )  # fmt: skip
    return Form(proto, {"x": X}, ["trit per tensor"] * 3, scale=3)


def gemm(trans_a: int, trans_b: int) -> Form:
    w = 0.5 * trits(2, *((N, K) if trans_b else (K, N)))
    x = X.T.copy() if trans_a else X
    proto = lines(
        "y = Gemm(x, w, b)", constants={"w": w, "b": normal(3, N)},
        inputs={"x": (np.float32, x.shape)},
        y={"transA": trans_a, "transB": trans_b, "alpha": 0.5, "beta": 2.0},
    )  # fmt: skip
    return Form(proto, {"x": x}, ["trit per tensor"])


def weight_on_the_left() -> Form:
    x = normal(1, 2, K, 5)
    proto = lines(
        "y = MatMul(w, x)",
        constants={"w": 0.5 * trits(2, N, K)},
        inputs={"x": (np.float32, x.shape)},
    )
    return Form(proto, {"x": x}, ["trit per tensor"])


def reshaped_weight() -> Form:
    proto = lines(
        "a = Reshape(w, flat)", "c = Cast(a)", "t = Transpose(c)", "y = MatMul(x, t)",
        constants={"w": trits(2, N // 2, 2, K).astype(np.int8), "flat": i64(N, K)},
        c={"to": TensorProto.FLOAT},
    )  # fmt: skip
    return Form(proto, {"x": X}, ["trit per tensor"])


def batch_of_weights() -> Form:
    w = 0.5 * signs(2, 3, K, 16)
    proto = lines("y = MatMul(x, w)", constants={"w": w}, inputs={"x": (np.float32, (3, 5, K))})
    return Form(proto, {"x": normal(1, 3, 5, K)}, ["sign per tensor"])


def einsum() -> Form:
    proto = lines(
        "y = Einsum(x, w)", constants={"w": 0.5 * trits(2, N, K)}, y={"equation": "mk,nk->mn"}
    )
    return Form(proto, {"x": X}, ["trit per tensor"])


# -- scales of columns -----------------------------------------------------------------------------


def folded_norm(row_scales: bool) -> Form:
    """An RMSNorm whose gain an optimiser folded into the weight behind it."""
    w = trits(2, K, N) * np.abs(normal(3, K, 1) + np.float32(0.1))
    if row_scales:
        w = w * (np.abs(normal(4, N)) + np.float32(0.1))
    proto = lines(
        "p = Mul(x, x)", "m = ReduceMean(p)", "e = Add(m, least)", "r = Sqrt(e)",
        "n = Div(x, r)", "y = MatMul(n, w)",
        constants={"w": w}, m={"axes": [-1], "keepdims": 1},
    )  # fmt: skip
    return Form(proto, {"x": X}, ["trit per row" if row_scales else "trit per tensor"])


def dequantised_along_k(quantised: bool) -> Form:
    """DequantizeLinear with a scale for each input channel, perhaps of activations in codes."""
    constants = {
        "w": trits(2, K, N).astype(np.int8), "ws": np.abs(normal(3, K)) + np.float32(0.1),
        "s": np.float32(0.03), "z": np.int8(0),
    }  # fmt: skip
    codes = ("q = QuantizeLinear(x, s, z)", "d = DequantizeLinear(q, s, z)")
    proto = lines(
        *(codes if quantised else ("d = Identity(x)",)),
        "f = DequantizeLinear(w, ws)", "y = MatMul(d, f)",
        constants=constants, f={"axis": 0},
    )  # fmt: skip
    return Form(proto, {"x": X}, ["trit per tensor"])


def dynamic_codes_and_gains() -> Form:
    """Codes of a zero point, times a weight into which a gain was folded."""
    proto = lines(
        "q, s, z = DynamicQuantizeLinear(x)", "d = DequantizeLinear(q, s, z)", "y = MatMul(d, w)",
        constants={"w": trits(2, K, N) * np.linspace(0.5, 2, K, dtype=np.float32)[:, None]},
    )  # fmt: skip
    return Form(proto, {"x": X}, ["trit per tensor"])
