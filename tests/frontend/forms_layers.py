"""Low-bit layers as exporters write them: BitNet, BitLinear, convolutions, recurrences."""

from __future__ import annotations

import numpy as np
from forms import (
    ABSMEAN,
    QUANTISED,
    Form,
    K,
    N,
    X,
    lines,
    trits,
)
from onnx import TensorProto
from onnx_models import Array, i64, normal


def bitnet_online() -> Form:
    proto = lines(
        *QUANTISED, "xq = Div(xc, xs)", *ABSMEAN, "wt = Transpose(wq)", "y = MatMul(xq, wt)",
        constants={"w": normal(2, N, K)},
    )  # fmt: skip
    return Form(proto, {"x": X}, ["trit per tensor"], "i8 codes")


def bitnet_offline() -> Form:
    proto = lines(
        *QUANTISED, "xq = Div(xc, xs)", "p = MatMul(xq, w)", "y = Mul(p, s)",
        constants={"w": trits(2, K, N), "s": np.array([0.37], np.float32)},
    )  # fmt: skip
    return Form(proto, {"x": X}, ["trit per tensor"], "i8 codes")


def bitnet_packed() -> Form:
    """Rows i * N/4 + r of the weight in bits 2i of row r of the packed one."""
    packed = np.random.default_rng(3).choice(np.array([0, 1, 2], np.uint8), (4, N // 4, K))
    shifts = np.arange(0, 8, 2, dtype=np.uint8)
    bytes_ = np.bitwise_or.reduce(packed << shifts[:, None, None], 0)
    proto = lines(
        *QUANTISED, "xi = Cast(xc)", "xf = Cast(xi)",
        "m0 = BitShift(bytes, shifts)", "m1 = BitwiseAnd(m0, mask)", "m2 = Reshape(m1, shape)",
        "u = ScatterND(zeros, rows, m2)", "f = Cast(u)", "w = Sub(f, one)", "wt = Transpose(w)",
        "p = MatMul(xf, wt)", "d = Mul(s, xs)", "y = Div(p, d)",
        constants={
            "bytes": bytes_[None], "shifts": shifts[:, None, None], "mask": np.uint8(3),
            "shape": i64(N, K), "zeros": np.zeros((N, K), np.uint8),
            "rows": np.arange(N, dtype=np.int64)[:, None], "s": np.float32(1.7),
        },
        opset=18, xm={"keepdims": 1}, m0={"direction": "RIGHT"}, xi={"to": TensorProto.INT8},
        xf={"to": TensorProto.FLOAT}, f={"to": TensorProto.FLOAT},
    )  # fmt: skip
    return Form(proto, {"x": X}, ["trit per tensor"], "i8 codes")


def ste_mlp() -> Form:
    """Training form: straight-through estimators around both quantisers, then Gemm."""
    proto = lines(
        *QUANTISED, "xq = Div(xc, xs)", "xd = Sub(xq, x)", "xe = Add(x, xd)",
        *ABSMEAN, "wd = Sub(wq, w)", "we = Add(w, wd)", "y = Gemm(xe, we, b)",
        constants={"w": normal(2, N, K), "b": normal(3, N)}, y={"transB": 1},
    )  # fmt: skip
    return Form(proto, {"x": X}, ["trit per tensor"], "i8 codes")


def inference_gemm() -> Form:
    proto = lines(
        *QUANTISED, "f = Cast(w)", "g = Gemm(xc, f)", "h = Div(g, s)", "i = Div(h, xs)",
        "y = Add(i, b)",
        constants={"w": trits(2, N, K).astype(np.int8), "s": np.float32(3), "b": normal(3, N)},
        g={"transB": 1}, f={"to": TensorProto.FLOAT},
    )  # fmt: skip
    return Form(proto, {"x": X}, ["trit per tensor"], "i8 codes")


def integer_matmul(w: Array, weights: str) -> Form:
    """Codes times integers w[k, n]."""
    proto = lines(
        *QUANTISED, "x8 = Cast(xc)", "xi = Cast(x8)", "wi = Cast(w)", "p = MatMul(xi, wi)",
        "f = Cast(p)", "y = Div(f, xs)",
        constants={"w": w.astype(np.int8)}, x8={"to": TensorProto.INT8},
        xi={"to": TensorProto.INT32}, wi={"to": TensorProto.INT32}, f={"to": TensorProto.FLOAT},
    )  # fmt: skip
    return Form(proto, {"x": X}, [weights], "i8 codes")


def onebit() -> Form:
    proto = lines(
        "a = Mul(x, g)", "c = GreaterOrEqual(w, zero)", "b = Where(c, one, minus)",
        "t = Transpose(b)", "p = MatMul(a, t)", "y = Mul(p, h)",
        constants={"w": normal(2, N, K), "g": normal(3, K), "h": normal(4, N)},
    )  # fmt: skip
    return Form(proto, {"x": X}, ["sign per tensor"])


def binary_bitlinear() -> Form:
    """Sign(W - mean) * absmean with straight-through noise."""
    proto = lines(
        "m = ReduceMean(w)", "c = Sub(w, m)", "n = Sign(c)", "wa = Abs(w)", "wm = ReduceMean(wa)",
        "q = Mul(n, wm)", "d = Sub(q, w)", "e = Add(w, d)", "y = Gemm(x, e)",
        constants={"w": normal(2, N, K)}, y={"transB": 1}, m={"keepdims": 0},
    )  # fmt: skip
    return Form(proto, {"x": X}, ["sign per tensor"])


def half() -> Form:
    constants = {"w": (0.25 * trits(2, K, N)).astype(np.float16)}
    proto = lines(
        "c = Cast(w)", "y = MatMul(x, c)", constants=constants, c={"to": TensorProto.FLOAT}
    )
    return Form(proto, {"x": X}, ["trit per tensor"])


# -- convolutions and recurrences ------------------------------------------------------------------


def convolution(w: Array, group: int, spatial: int, quantised: bool, expected: str) -> Form:
    """A convolution of 3 taps an axis, padded, of floats or of codes with one scale a sample."""
    shape = (2, w.shape[1] * group, *[7] * spatial)
    axes = {"xm": {"axes": list(range(1, 2 + spatial)), "keepdims": 1}}
    proto = lines(
        *((*QUANTISED, "xq = Div(xc, xs)") if quantised else ("xq = Identity(x)",)),
        "y = Conv(xq, w, b)",
        constants={"w": w, "b": normal(3, len(w))}, inputs={"x": (np.float32, shape)},
        y={"group": group, "pads": [1] * (2 * spatial)}, **axes,
    )  # fmt: skip
    activations = "i8 codes" if quantised else "f32"
    return Form(proto, {"x": normal(4, *shape)}, [expected], activations)


def conv_integer() -> Form:
    w = (127 * trits(2, 16, 4, 3, 3)).astype(np.int8)
    proto = lines(
        "q, s, z = DynamicQuantizeLinear(x)", "c = ConvInteger(q, w, z)", "f = Cast(c)",
        "y = Mul(f, s)",
        constants={"w": w}, inputs={"x": (np.float32, (1, 4, 6, 6))}, f={"to": TensorProto.FLOAT},
    )  # fmt: skip
    return Form(proto, {"x": normal(4, 1, 4, 6, 6)}, ["trit per tensor"], "u8 codes")


def recurrent(op: str, direction: str) -> Form:
    """A layer with ternary W and R, which are one product or several."""
    gates, hidden, size, steps = {"RNN": 1, "GRU": 3, "LSTM": 4}[op], 16, 24, 4
    ways = 2 if direction == "bidirectional" else 1
    rows = gates * hidden
    constants = {
        "w": 0.125 * trits(2, ways, rows, size), "r": 0.25 * trits(3, ways, rows, hidden),
        "b": normal(4, ways, 2 * rows),
    }  # fmt: skip
    attributes = {"hidden_size": hidden, "direction": direction}
    shape = (steps, 2, size)
    proto = lines(
        f"y = {op}(x, w, r, b)",
        constants=constants,
        inputs={"x": (np.float32, shape)},
        y=attributes,
    )
    return Form(proto, {"x": normal(5, *shape)}, ["trit per tensor"] * 2, scale=5)
