"""Low-bit weights in the operators of quantisers: Brevitas, QONNX, onnxruntime, INT2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
from forms import (
    PLAIN,
    Form,
    K,
    N,
    X,
    lines,
    trits,
)
from onnx import TensorProto, helper
from onnx_models import MICROSOFT, QONNX, Array, model, nodes, normal
from onnxruntime_oracle import LARGEST_WEIGHT


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
        "w": (LARGEST_WEIGHT * trits(2, K, N)).astype(np.int8), "s": np.float32(0.03),
        "z": np.uint8(128),
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
