"""The forms in which exporters and quantisers write low-bit weights, as small models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx_models import MICROSOFT, QONNX, Array, i64, model, nodes, normal

N, K = 24, 64


@dataclass(frozen=True)
class Form:
    """A model and what is to become of its products.

    Attributes:
        proto: the model.
        feeds: an input.
        weights: what the products' weights are lifted as, in the words of `explain`.
        activations: what they are multiplied with.
        expected: the outputs, where onnxruntime does not run the model.
        scale: how many times the usual tolerance.
    """

    proto: onnx.ModelProto
    feeds: dict[str, Array]
    weights: Sequence[str]
    activations: str = "f32"
    expected: Array | None = None
    scale: float = 1.0


def trits(seed: int, *shape: int) -> Array:
    """Random numbers of -1, 0 and 1."""
    return np.random.default_rng(seed).integers(-1, 2, shape).astype(np.float32)


def signs(seed: int, *shape: int) -> Array:
    """Random numbers of -1 and 1."""
    return np.random.default_rng(seed).choice(np.array([-1, 1], np.float32), shape)


def chosen(seed: int, levels: Sequence[float], *shape: int) -> Array:
    """Random numbers of some levels."""
    return np.random.default_rng(seed).choice(np.array(levels, np.float32), shape)


X = normal(1, 5, K)
PLAIN: Mapping[str, tuple[Any, Sequence[int]]] = {"x": (np.float32, (5, K))}

QUANTISED = (
    "xa = Abs(x)", "xm = ReduceMax(xa)", "xl = Max(xm, least)", "xr = Reciprocal(xl)",
    "xs = Mul(xr, top)", "xp = Mul(x, xs)", "xn = Round(xp)", "xc = Clip(xn, low, top)",
)  # fmt: skip
"""The activation quantiser of exported BitNets, one scale a row."""
NUMBERS = {
    "least": np.float32(1e-5), "top": np.float32(127), "low": np.float32(-128),
    "minus": np.float32(-1), "one": np.float32(1), "zero": np.float32(0),
}  # fmt: skip
BY_ROW = {"xm": {"axes": [-1], "keepdims": 1}}
ABSMEAN = (
    "wa = Abs(w)", "wm = ReduceMean(wa)", "wl = Max(wm, least)", "wr = Reciprocal(wl)",
    "wp = Mul(w, wr)", "wn = Round(wp)", "wc = Clip(wn, minus, one)", "wq = Div(wc, wr)",
)  # fmt: skip
"""The weight quantiser of an online BitNet."""


def lines(
    *text: str,
    constants: Mapping[str, Array | onnx.TensorProto] | None = None,
    opset: int = 17,
    inputs: Mapping[str, tuple[Any, Any]] = PLAIN,
    outputs: Sequence[str] = ("y",),
    **attributes: Any,
) -> onnx.ModelProto:
    """A model of lines."""
    given = {**NUMBERS, **(constants or {})}
    used = {name for line in text for name in _arguments(line)}
    made = nodes(*text, **{**BY_ROW, "wm": {"keepdims": 0}, **attributes})
    return model(made, inputs, outputs, {n: a for n, a in given.items() if n in used}, opset)


def _arguments(line: str) -> list[str]:
    return line.split("(")[1].rstrip(")").split(", ")


# -- BitNet and BitLinear -------------------------------------------------------------------------


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


def integer_matmul() -> Form:
    proto = lines(
        *QUANTISED, "x8 = Cast(xc)", "xi = Cast(x8)", "wi = Cast(w)", "p = MatMul(xi, wi)",
        "f = Cast(p)", "y = Div(f, xs)",
        constants={"w": trits(2, K, N).astype(np.int8)}, x8={"to": TensorProto.INT8},
        xi={"to": TensorProto.INT32}, wi={"to": TensorProto.INT32}, f={"to": TensorProto.FLOAT},
    )  # fmt: skip
    return Form(proto, {"x": X}, ["trit per tensor"], "i8 codes")


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


# -- convolutions and recurrences -----------------------------------------------------------------


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


# -- quantisers' operators ------------------------------------------------------------------------


def qcdq_torchscript() -> Form:
    proto = lines(
        "q = QuantizeLinear(x, xscale, z)", "d = DequantizeLinear(q, xscale, z)",
        "c = Clip(w, lo, hi)", "f = DequantizeLinear(c, ws, z)", "y = Gemm(d, f, b)",
        constants={
            "w": trits(2, N, K).astype(np.int8), "lo": np.int8(-1), "hi": np.int8(1),
            "z": np.int8(0), "xscale": np.float32(0.03), "ws": np.float32(0.7), "b": normal(3, N),
        },
        y={"transB": 1},
    )  # fmt: skip
    return Form(proto, {"x": X}, ["trit per tensor"], "i8 codes")


def qcdq_dynamo() -> Form:
    """The weight is a float, quantised to 8 bits and clipped to two."""
    proto = lines(
        "q = QuantizeLinear(x, xscale, z)", "d = DequantizeLinear(q, xscale, z)",
        "wq = QuantizeLinear(w, ws, wz)", "c = Clip(wq, lo, hi)",
        "f = DequantizeLinear(c, ws, wz)", "y = Gemm(d, f)",
        constants={
            "w": normal(2, N, K), "lo": np.int8(-1), "hi": np.int8(1), "z": np.uint8(120),
            "xscale": np.float32(0.03), "ws": np.float32(0.7), "wz": np.int8(0),
        },
        opset=18, y={"transB": 1},
    )  # fmt: skip
    return Form(proto, {"x": X}, ["trit per tensor"], "u8 codes")


def qonnx_ternary() -> Form:
    """Quant of 2 bits, narrow; the activations have 8."""
    w, numbers = normal(2, K, N), {"two": np.float32(2), "eight": np.float32(8)}
    constants = {
        **numbers, "w": w, "ws": np.float32(0.8), "zero": np.float32(0), "xscale": np.float32(0.03)
    }  # fmt: skip
    quant = {"signed": 1, "rounding_mode": "ROUND"}
    made = [
        helper.make_node(
            "Quant", [x, scale, "zero", bits], [y], domain=QONNX, narrow=narrow, **quant
        )
        for x, scale, bits, y, narrow in (
            ("x", "xscale", "eight", "q", 0),
            ("w", "ws", "two", "f", 1),
        )
    ]
    made += nodes("y = MatMul(q, f)")
    codes = np.clip(np.rint(X / np.float32(0.03)), -128, 127) * np.float32(0.03)
    ternary = np.clip(np.rint(w / np.float32(0.8)), -1, 1) * np.float32(0.8)
    proto = model(made, PLAIN, ["y"], constants)
    return Form(proto, {"x": X}, ["trit per tensor"], "i8 codes", codes @ ternary)


def qonnx_binary() -> Form:
    w = normal(2, K, N)
    node = helper.make_node("BipolarQuant", ["w", "ws"], ["f"], domain=QONNX)
    constants = {"w": w, "ws": np.float32(0.8)}
    expected = X @ np.where(w >= 0, np.float32(0.8), np.float32(-0.8))
    proto = model([node, *nodes("y = MatMul(x, f)")], PLAIN, ["y"], constants)
    return Form(proto, {"x": X}, ["sign per tensor"], "f32", expected)


def dynamic_quantisation(levels: Sequence[int], zero: int, dtype: Any, weights: str) -> Form:
    w = np.random.default_rng(2).choice(np.array(levels), (K, N)).astype(dtype)
    proto = lines(
        "q, s, z = DynamicQuantizeLinear(x)", "p = MatMulInteger(q, w, z, wz)", "f = Cast(p)",
        "y = Mul(f, s)",
        constants={"w": w, "wz": dtype(zero)}, f={"to": TensorProto.FLOAT},
    )  # fmt: skip
    return Form(proto, {"x": X}, [weights], "u8 codes")


def qlinear_matmul() -> Form:
    constants = {
        "w": (127 * trits(2, K, N)).astype(np.int8), "s": np.float32(0.03), "z": np.uint8(128),
        "ws": np.float32(0.01), "wz": np.int8(0), "ys": np.float32(0.2), "yz": np.uint8(128),
    }  # fmt: skip
    proto = lines(
        "q = QuantizeLinear(x, s, z)", "p = QLinearMatMul(q, s, z, w, ws, wz, ys, yz)",
        "y = DequantizeLinear(p, ys, yz)",
        constants=constants,
    )  # fmt: skip
    return Form(proto, {"x": X}, ["trit per tensor"], "u8 codes")


def qdq_per_channel() -> Form:
    constants = {
        "w": (127 * trits(2, K, N)).astype(np.int8), "s": np.float32(0.03), "z": np.int8(0),
        "ws": np.abs(normal(3, N)) + np.float32(0.1), "wz": np.zeros(N, np.int8),
    }  # fmt: skip
    proto = lines(
        "q = QuantizeLinear(x, s, z)", "d = DequantizeLinear(q, s, z)",
        "f = DequantizeLinear(w, ws, wz)", "y = MatMul(d, f)",
        constants=constants, f={"axis": 1},
    )  # fmt: skip
    return Form(proto, {"x": X}, ["trit per row"], "i8 codes")


def qlinear_conv() -> Form:
    constants = {
        "w": trits(2, 8, 4, 3, 3).astype(np.int8), "s": np.float32(0.03), "z": np.uint8(128),
        "ws": np.abs(normal(3, 8)) + np.float32(0.1), "wz": np.zeros(8, np.int8),
        "ys": np.float32(0.2), "yz": np.uint8(100), "b": np.arange(8, dtype=np.int32),
    }  # fmt: skip
    proto = lines(
        "q = QuantizeLinear(x, s, z)", "p = QLinearConv(q, s, z, w, ws, wz, ys, yz, b)",
        "y = DequantizeLinear(p, ys, yz)",
        constants=constants, inputs={"x": (np.float32, (1, 4, 6, 6))},
    )  # fmt: skip
    return Form(proto, {"x": normal(4, 1, 4, 6, 6)}, ["trit per tensor"], "u8 codes")


def int2(blocked: bool, zero: bool) -> Form:
    """DequantizeLinear of a 2-bit initializer, which onnxruntime is given as 8 bits to compare."""
    codes = trits(2, K, N)
    stored = codes + 1 if zero else codes
    kind = TensorProto.UINT2 if zero else TensorProto.INT2
    dtype = ml_dtypes.uint2 if zero else ml_dtypes.int2
    raw = np.zeros((stored.size + 3) // 4, np.uint8)
    fields = stored.astype(np.int8).reshape(-1, 4) & 3
    for i in range(4):
        raw |= (fields[:, i] << 2 * i).astype(np.uint8)
    w = helper.make_tensor("w", kind, (K, N), raw.tobytes(), raw=True)
    scales = np.abs(normal(3, K // 32, N)) + np.float32(0.1) if blocked else np.float32(0.3)
    attributes = {"axis": 0, "block_size": 32} if blocked else {}
    point = np.full(np.shape(scales), 1 if zero else 0, dtype)
    zeros = helper.make_tensor(
        "z", kind, point.shape, bytes([0b01010101] * -(-point.size // 4)) if zero
        else bytes(-(-point.size // 4)), raw=True,
    )  # fmt: skip
    proto = lines(
        "f = DequantizeLinear(w, s, z)", "y = MatMul(x, f)", opset=25,
        constants={"w": w, "s": scales, "z": zeros}, f=attributes,
    )  # fmt: skip
    expected = X @ (codes * (np.repeat(scales, 32, 0) if blocked else scales))
    return Form(
        proto, {"x": X}, ["trit groups of 32" if blocked else "trit per tensor"], "f32", expected
    )


def nbits(
    codes: Sequence[int], zero: int | None, weights: str, *, bits: int = 2, accuracy: int = 0,
    one_scale: bool = False,
) -> Form:  # fmt: skip
    """MatMulNBits of random codes, in blocks of 32."""
    rng, per_byte, blocks = np.random.default_rng(2), 8 // bits, K // 32
    fields = rng.choice(np.array(codes, np.uint8), (N, blocks, 32 // per_byte, per_byte))
    packed = np.bitwise_or.reduce(fields << (bits * np.arange(per_byte)).astype(np.uint8), -1)
    scales = np.full((N, blocks), 0.3) if one_scale else rng.uniform(0.1, 0.5, (N, blocks))
    args = ["x", "b", "s"]
    constants: dict[str, Array] = {"b": packed.astype(np.uint8), "s": scales.astype(np.float32)}
    if zero is not None:
        filled = sum(zero << bits * i for i in range(per_byte))
        constants["z"] = np.full((N, -(-blocks // per_byte)), filled, np.uint8)
        args.append("z")
    node = helper.make_node(
        "MatMulNBits", args, ["y"], domain=MICROSOFT, name="y", N=N, K=K, bits=bits, block_size=32,
        accuracy_level=accuracy,
    )  # fmt: skip
    activations = "i8 codes" if accuracy == 4 else "f32"
    return Form(model([node], PLAIN, ["y"], constants), {"x": X}, [weights], activations, scale=5)


# -- sums of planes -------------------------------------------------------------------------------


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


# -- ways to a weight -----------------------------------------------------------------------------


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


THREE = (-3.0, -1.0, 1.0, 3.0)
FORMS: Mapping[str, Callable[[], Form]] = {
    "bitnet online": bitnet_online,
    "bitnet offline": bitnet_offline,
    "bitnet packed": bitnet_packed,
    "BitLinear, straight-through": ste_mlp,
    "BitLinear, inference": inference_gemm,
    "BitLinear, int32 MatMul": integer_matmul,
    "OneBit": onebit,
    "binary BitLinear": binary_bitlinear,
    "half-precision weight": half,
    "Conv": lambda: convolution(0.5 * trits(2, 16, 4, 3, 3), 1, 2, True, "trit per tensor"),
    "Conv of floats": lambda: convolution(
        0.5 * trits(2, 16, 4, 3, 3), 1, 2, False, "trit per tensor"
    ),
    "Conv, scales of channels": lambda: convolution(
        trits(2, 16, 4, 3, 3) * np.linspace(1, 2, 16, dtype=np.float32).reshape(-1, 1, 1, 1),
        1,
        2,
        True,
        "trit per row",
    ),
    "depthwise Conv": lambda: convolution(
        0.5 * trits(2, 16, 1, 3, 3), 16, 2, True, "trit per tensor, depthwise"
    ),
    "Conv1d": lambda: convolution(0.5 * trits(2, 16, 4, 3), 1, 1, True, "trit per tensor"),
    "depthwise Conv1d": lambda: convolution(
        0.5 * trits(2, 16, 1, 3), 16, 1, True, "trit per tensor, depthwise"
    ),
    "grouped Conv": lambda: convolution(
        0.5 * trits(2, 32, 16, 3, 3), 2, 2, True, "trit per tensor"
    ),
    "grouped Conv of floats": lambda: convolution(
        0.5 * signs(2, 16, 8, 3, 3), 2, 2, False, "sign per tensor"
    ),
    "grouped Conv1d": lambda: convolution(0.5 * trits(2, 32, 16, 3), 2, 1, True, "trit per tensor"),
    "Conv of 2 bits": lambda: convolution(
        chosen(2, THREE, 16, 4, 3, 3), 1, 2, True, "2 planes of sign per tensor"
    ),
    "ConvInteger": conv_integer,
    **{
        f"{op}, {way}": partial(recurrent, op, way)
        for op in ("RNN", "GRU", "LSTM")
        for way in ("forward", "bidirectional")
    },
    "Brevitas QCDQ, TorchScript": qcdq_torchscript,
    "Brevitas QCDQ, dynamo": qcdq_dynamo,
    "QONNX Quant": qonnx_ternary,
    "QONNX BipolarQuant": qonnx_binary,
    "MatMulInteger, i8": lambda: dynamic_quantisation(
        (-127, 0, 127), 0, np.int8, "trit per tensor"
    ),
    "MatMulInteger, u8": lambda: dynamic_quantisation(
        (0, 128, 255), 128, np.uint8, "2 planes of sign per tensor"
    ),
    "MatMulInteger, 2 bits": lambda: dynamic_quantisation(
        (-2, -1, 0, 1), 0, np.int8, "2 planes of sign per tensor"
    ),
    "QLinearMatMul": qlinear_matmul,
    "QDQ, scales of channels": qdq_per_channel,
    "QLinearConv": qlinear_conv,
    "INT2": lambda: int2(False, False),
    "INT2, blocks": lambda: int2(True, False),
    "UINT2, blocks and zero point": lambda: int2(True, True),
    "MatMulNBits, ternary": lambda: nbits((0, 1, 2), 1, "trit groups of 32"),
    "MatMulNBits, default zero point": lambda: nbits((1, 2, 3), None, "trit groups of 32"),
    "MatMulNBits, all codes": lambda: nbits((0, 1, 2, 3), None, "2 planes of sign groups of 32"),
    "MatMulNBits, three codes": lambda: nbits((0, 2, 3), None, "2 planes of sign groups of 32"),
    "MatMulNBits, 4 bits of which few": lambda: nbits(
        (0, 8, 15), None, "2 planes of sign per tensor", bits=4, one_scale=True
    ),
    "MatMulNBits, level 4": lambda: nbits((0, 1, 2), 1, "trit groups of 32", accuracy=4),
    "MatMulNBits, level 4, one scale": lambda: nbits(
        (0, 1, 2), 1, "trit per tensor", accuracy=4, one_scale=True
    ),
    "MatMulNBits, level 4, all codes": lambda: nbits(
        (0, 1, 2, 3), None, "2 planes of sign groups of 32", accuracy=4
    ),
    "2 bits": lambda: product(chosen(2, THREE, N, K), "2 planes of sign per tensor"),
    "2 bits, codes": lambda: product(
        chosen(2, (-2, -1, 0, 1), N, K), "2 planes of sign per tensor", quantised=True
    ),
    "3 bits": lambda: product(
        chosen(2, range(8), N, K) - 3, "3 planes of sign per tensor", quantised=True
    ),
    "ternary with a zero point": lambda: product(
        chosen(2, (-2, -1, 0), N, K), "trit per tensor", quantised=True
    ),
    "binary of any levels": lambda: product(chosen(2, (0.2, 0.7), N, K), "sign per tensor"),
    "BiLLM": lambda: product(
        billm(), "2 planes of sign groups of 128", "2 planes of sign groups of 16"
    ),
    "BiLLM, codes": lambda: product(
        billm(), "2 planes of sign groups of 128", "2 planes of sign groups of 16", quantised=True
    ),
    "fused QKV, weight sliced": fused_qkv_weight,
    "fused QKV, product sliced": fused_qkv_product,
    "shared weight": shared_weight,
    **{f"Gemm, transA={a} transB={b}": partial(gemm, a, b) for a in (0, 1) for b in (0, 1)},
    "weight on the left": weight_on_the_left,
    "weight through Reshape and Cast": reshaped_weight,
    "batch of weights": batch_of_weights,
    "Einsum": einsum,
}
