"""Quantised operators of com.microsoft: what onnxruntime's quantiser writes besides ONNX's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

from tbc.frontend.context import Context, Lowering, axis_of, valid
from tbc.frontend.nodes import Floats, Node, Signature, Strings
from tbc.frontend.ops_conv import average_pool, max_pool
from tbc.frontend.ops_matmul import centered, product, scaled, swapped
from tbc.frontend.ops_nn import negative_part
from tbc.frontend.ops_quant import (
    dequantize_linear,
    dynamic_quantize_linear,
    qlinear_conv,
    quantize_linear,
    requantized,
    rounded,
    scalar,
)
from tbc.frontend.ops_recurrent import LSTM, Cell, State, lstm_step
from tbc.frontend.ops_reduce import softmax
from tbc.ir import Value
from tbc.ops import Concat
from tbc.types import DType

Change: TypeAlias = Callable[[Context, Node, Value], Value]


def real(c: Context, x: Value, scale: Value, zero_point: Value | None) -> Value:
    """(x - zero_point) * scale in f32."""
    codes = c.cast(x, DType.i32)
    if zero_point is not None:
        codes = c.sub(codes, c.cast(scalar(c, zero_point), DType.i32))
    return c.mul(c.cast(codes, DType.f32), scalar(c, scale))


def coded(c: Context, y: Value, scale: Value, zero_point: Value | None, dtype: DType) -> Value:
    """saturate(round(y / scale) + zero_point), in the type of the zero point if there is one."""
    zero = None if zero_point is None else scalar(c, zero_point)
    return rounded(c, c.div(y, scalar(c, scale)), zero, dtype)


def channels_last(c: Context, x: Value, change: Callable[[Value], Value]) -> Value:
    """change(x) with the channels as axis 1, which are the last axis of x and of the result."""
    last = x.type.rank - 1
    y = change(c.transpose(x, [0, last, *range(1, last)]))
    return c.transpose(y, [0, *range(2, last + 1), 1])


# -- elementwise and pooling ----------------------------------------------------------------------


def added(
    c: Context, node: Node, a: Value, a_scale: Value, a_zero: Value | None, b: Value,
    b_scale: Value, b_zero: Value | None, y_scale: Value, y_zero: Value | None = None,
) -> Value:  # fmt: skip
    """The sum of the dequantised arguments, quantised."""
    total = c.add(real(c, a, a_scale, a_zero), real(c, b, b_scale, b_zero))
    return coded(c, total, y_scale, y_zero, a.type.dtype)


def multiplied(
    c: Context, node: Node, a: Value, a_scale: Value, a_zero: Value | None, b: Value,
    b_scale: Value, b_zero: Value | None, y_scale: Value, y_zero: Value | None = None,
) -> Value:  # fmt: skip
    """The product of the dequantised arguments, quantised; exact up to the scale."""
    total = c.mul(centered(c, a, a_zero), centered(c, b, b_zero))
    return requantized(c, total, a_scale, b_scale, y_scale, y_zero, a.type.dtype)


def unary(change: Change) -> Lowering:
    """The lowering to a function of the dequantised argument, quantised."""

    def lower(
        c: Context, node: Node, x: Value, x_scale: Value, x_zero: Value | None, y_scale: Value,
        y_zero: Value | None = None,
    ) -> Value:  # fmt: skip
        y = change(c, node, real(c, x, x_scale, x_zero))
        return coded(c, y, y_scale, y_zero, x.type.dtype)

    return lower


def sigmoid(c: Context, node: Node, x: Value) -> Value:
    """1 / (1 + exp(-x))."""
    return c.unary("sigmoid", x)


def leaky_relu(c: Context, node: Node, x: Value) -> Value:
    """alpha * x where x < 0."""
    return negative_part(c, x, c.mul(x, node["alpha"]))


def average(
    c: Context, node: Node, x: Value, x_scale: Value, x_zero: Value | None, y_scale: Value,
    y_zero: Value | None = None,
) -> Value:  # fmt: skip
    """The mean of each window of the dequantised argument, quantised."""
    codes = c.cast(centered(c, x, x_zero), DType.f32)
    if node["channels_last"]:
        mean = channels_last(c, codes, lambda first: average_pool(c, node, first))
    else:
        mean = average_pool(c, node, codes)
    return requantized(c, mean, x_scale, None, y_scale, y_zero, x.type.dtype)


def probabilities(c: Context, node: Node, x: Value) -> Value:
    """The softmax as the operator set in the attribute defines it."""
    return softmax(c, replace(node, opset=node["opset"]), x)


def global_average(
    c: Context, node: Node, x: Value, x_scale: Value, x_zero: Value, y_scale: Value, y_zero: Value
) -> Value:
    """The mean over the spatial axes of the dequantised argument, quantised."""
    rank = x.type.rank
    axes = range(1, rank - 1) if node["channels_last"] else range(2, rank)
    mean = c.mean(c.cast(centered(c, x, x_zero), DType.f32), axes, keepdims=True)
    return requantized(c, mean, x_scale, None, y_scale, y_zero, x.type.dtype)


def nhwc_max_pool(c: Context, node: Node, x: Value) -> Value:
    """The greatest element of each window of x[N, *S, C]."""

    def pool(first: Value) -> Value:
        y = max_pool(c, node, first)
        assert isinstance(y, Value)
        return y

    return channels_last(c, x, pool)


def concat(c: Context, node: Node, scale: Value, zero_point: Value, *triples: Value) -> Value:
    """The dequantised arguments one behind the other, quantised."""
    valid(len(triples) % 3 == 0, f"{len(triples)} inputs are no triples")
    parts = [
        coded(c, real(c, *triples[i : i + 3]), scale, zero_point, zero_point.type.dtype)
        for i in range(0, len(triples), 3)
    ]
    return c(Concat(axis_of(node["axis"], parts[0].type.rank)), *parts)


def where(
    c: Context, node: Node, condition: Value, x: Value, x_scale: Value, x_zero: Value, y: Value,
    y_scale: Value, y_zero: Value, z_scale: Value, z_zero: Value,
) -> Value:  # fmt: skip
    """x where the condition holds, else y, dequantised and quantised anew."""
    a, b = (
        coded(c, real(c, *given), z_scale, z_zero, z_zero.type.dtype)
        for given in ((x, x_scale, x_zero), (y, y_scale, y_zero))
    )
    return c.where(condition, a, b)


# -- products -------------------------------------------------------------------------------------


def convolution(c: Context, node: Node, x: Value, *rest: Value) -> Value:
    """ONNX's QLinearConv, of x[N, *S, C] where channels_last is set."""
    if node["channels_last"]:
        return channels_last(c, x, lambda first: qlinear_conv(c, node, first, *rest))
    return qlinear_conv(c, node, x, *rest)


def matmul_integer_to_float(
    c: Context, node: Node, a: Value, b: Value, a_scale: Value, b_scale: Value,
    a_zero: Value | None = None, b_zero: Value | None = None, bias: Value | None = None,
) -> Value:  # fmt: skip
    """The product of the dequantised matrices, summed in integers, plus a bias."""
    total = product(c, centered(c, a, a_zero), centered(c, b, b_zero))
    factor = c.mul(scalar(c, a_scale), scalar(c, b_scale))
    y = c.mul(c.cast(total, a_scale.type.dtype), factor)
    return y if bias is None else c.add(y, bias)


def dynamic_quantize_matmul(
    c: Context, node: Node, a: Value, b: Value, b_scale: Value, b_zero: Value | None = None,
    bias: Value | None = None,
) -> Value:  # fmt: skip
    """The product of a, quantised as DynamicQuantizeLinear does, and b dequantised."""
    codes, scale, zero = dynamic_quantize_linear(c, node, a)
    return matmul_integer_to_float(c, node, codes, b, scale, b_scale, zero, b_zero, bias)


def gemm(
    c: Context, node: Node, a: Value, a_scale: Value, a_zero: Value, b: Value, b_scale: Value,
    b_zero: Value, bias: Value | None = None, y_scale: Value | None = None,
    y_zero: Value | None = None,
) -> Value:  # fmt: skip
    """alpha * A @ B + bias of the dequantised matrices: in f32, or quantised with y_scale."""
    a = swapped(c, a) if node["transA"] else a
    b = swapped(c, b) if node["transB"] else b
    total = product(c, centered(c, a, scalar(c, a_zero)), centered(c, b, scalar(c, b_zero)))
    total = total if bias is None else c.add(total, bias)
    factor = scaled(c, c.mul(scalar(c, a_scale), scalar(c, b_scale)), node["alpha"])
    if y_scale is None:
        return c.mul(c.cast(total, DType.f32), factor)
    return requantized(c, total, factor, None, y_scale, y_zero, a.type.dtype)


# -- DynamicQuantizeLSTM --------------------------------------------------------------------------


def rounded_by_range(c: Context, node: Node, x: Value) -> Value:
    """x as the 8-bit codes of DynamicQuantizeLinear hold it."""
    return real(c, *dynamic_quantize_linear(c, node, x))


def quantized_step(c: Context, cell: Cell, x: Value, state: State) -> State:
    """An LSTM's step from a hidden state that is rounded to 8 bits."""
    return lstm_step(c, cell, x, (rounded_by_range(c, cell.node, state[0]), state[1]))


def dynamic_quantize_lstm(
    c: Context, node: Node, x: Value, w: Value, r: Value, bias: Value | None,
    lengths: Value | None, h: Value | None, memory: Value | None, p: Value | None,
    w_scale: Value, w_zero: Value, r_scale: Value, r_zero: Value,
) -> tuple[Value, ...]:  # fmt: skip
    """An LSTM of dequantised weights [directions, inputs, 4 * hidden] and rounded activations."""
    given = ((w, w_scale, w_zero), (r, r_scale, r_zero))
    weights = [swapped(c, _dequantised(c, *parts)) for parts in given]
    kind = replace(LSTM, step=quantized_step)
    return kind.lower(c, node, rounded_by_range(c, node, x), *weights, bias, lengths, h, memory, p)


def _dequantised(c: Context, w: Value, scale: Value, zero_point: Value) -> Value:
    """w[d, i, o] in f32, with a scale and a zero point of each d, or of each d and o."""
    valid(w.type.rank == 3, f"it needs weights of rank 3, not {w.type}")
    shape = [w.type.shape[0], 1, w.type.shape[2] if scale.type.rank == 2 else 1]
    scale, zero_point = (c.reshape(v, shape) for v in (scale, zero_point))
    return c.mul(c.cast(centered(c, w, zero_point), DType.f32), scale)


# -- the table ------------------------------------------------------------------------------------

_WINDOW = {
    "auto_pad": "NOTSET", "ceil_mode": 0, "dilations": (), "kernel_shape": tuple, "pads": (),
    "strides": (),
}  # fmt: skip
_CONV = {
    "auto_pad": "NOTSET", "dilations": (), "group": 1, "kernel_shape": (), "pads": (),
    "strides": (),
}  # fmt: skip
_MANY = 1 << 20
_BYTES = (DType.u8, DType.i8)
_CODES = (
    DType.i2, DType.u2, DType.i4, DType.u4, DType.i8, DType.u8, DType.i16, DType.u16, DType.i32,
)  # fmt: skip

QLINEAR: Mapping[str, tuple[Lowering, Signature]] = {
    "QuantizeLinear": (quantize_linear, Signature(2, 3, attributes={"axis": 1})),
    "DequantizeLinear": (dequantize_linear, Signature(2, 3, attributes={"axis": 1}, dtypes=_CODES)),
    "QLinearAdd": (added, Signature(7, 8, optional=(2, 5), dtypes=_BYTES)),
    "QLinearMul": (multiplied, Signature(7, 8, optional=(2, 5), dtypes=_BYTES)),
    "QLinearSigmoid": (unary(sigmoid), Signature(4, 5, optional=(2,), dtypes=_BYTES)),
    "QLinearLeakyRelu": (
        unary(leaky_relu), Signature(4, 5, attributes={"alpha": 0.01}, optional=(2,), dtypes=_BYTES)
    ),
    "QLinearSoftmax": (
        unary(probabilities),
        Signature(5, 5, attributes={"axis": -1, "opset": int}, optional=(2,), dtypes=_BYTES),
    ),
    "QLinearAveragePool": (
        average,
        Signature(
            4, 5, attributes={**_WINDOW, "channels_last": 0, "count_include_pad": 0},
            optional=(2,), dtypes=_BYTES,
        ),
    ),
    "QLinearGlobalAveragePool": (
        global_average, Signature(5, 5, attributes={"channels_last": 0}, dtypes=_BYTES)
    ),
    "NhwcMaxPool": (nhwc_max_pool, Signature(1, 1, attributes=_WINDOW, dtypes=_BYTES)),
    "QLinearConcat": (concat, Signature(5, _MANY, attributes={"axis": int})),
    "QLinearWhere": (where, Signature(9, 9, dtypes=(DType.bool,))),
    "QLinearConv": (
        convolution, Signature(8, 9, attributes={**_CONV, "channels_last": 0}, dtypes=_BYTES)
    ),
    "QGemm": (
        gemm, Signature(6, 9, attributes={"alpha": 1.0, "transA": 0, "transB": 0}, dtypes=_BYTES)
    ),
    "DynamicQuantizeMatMul": (dynamic_quantize_matmul, Signature(3, 5)),
    "MatMulIntegerToFloat": (matmul_integer_to_float, Signature(4, 7, dtypes=_BYTES)),
    "DynamicQuantizeLSTM": (
        dynamic_quantize_lstm,
        Signature(
            12, 12, 3,
            {"activation_alpha": Floats(), "activation_beta": Floats(), "activations": Strings(),
             "clip": 0.0, "direction": "forward", "hidden_size": int, "input_forget": 0},
            optional=(3, 4, 5, 6, 7),
            dtypes=(DType.f32,),
            limits="a batch's hidden states are rounded with one scale; the length is a number",
        ),
    ),
}  # fmt: skip
