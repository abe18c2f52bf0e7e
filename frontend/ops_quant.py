"""ONNX's quantisation operators, and QONNX's."""

from __future__ import annotations

from collections.abc import Mapping

from tbc.dims import ceil_div
from tbc.frontend.context import (
    Context,
    Lowering,
    axis_of,
    numpy_scalar,
    supported,
    valid,
)
from tbc.frontend.nodes import Node, Signature
from tbc.frontend.ops_conv import integer_convolution
from tbc.frontend.ops_index import part
from tbc.frontend.ops_matmul import by_row, centered, product
from tbc.frontend.small_floats import codes_type
from tbc.frontend.tensors import dtype_of
from tbc.ir import Value
from tbc.ops import BitCast, require_equal
from tbc.types import DType

# -- scales and zero points -----------------------------------------------------------------------


def spread(c: Context, node: Node, p: Value, x: Value) -> Value:
    """A scale or zero point made to broadcast with x: of the tensor, of an axis, or of blocks."""
    if p.type.rank < 2 and p.type.size == 1:
        return c.reshape(p, ())
    valid(
        node["axis"] is not None, f"opset {node.opset} takes one scale and zero point, not {p.type}"
    )
    axis = axis_of(node["axis"], x.type.rank)
    if not node["block_size"]:
        valid(p.type.rank == 1, f"{p.type} is neither of {x.type} nor of its axis {axis}")
        require_equal(p.type.size, x.type.shape[axis], "a scale or zero point and its axis")
        return c.along(p, axis, x.type.rank)
    return by_blocks(c, p, axis, node["block_size"], x)


def by_blocks(c: Context, p: Value, axis: int, block: int, x: Value) -> Value:
    """Each element of p repeated `block` times along an axis, the last block cut to fit x."""
    shape = p.type.shape
    valid(block > 0 and p.type.rank == x.type.rank, f"blocks of {block} of {p.type} on {x.type}")
    size = x.type.shape[axis]
    require_equal(shape[axis], ceil_div(size, block), "a scale or zero point and its blocks")
    apart = [*shape[: axis + 1], 1, *shape[axis + 1 :]]
    wide = [*shape[: axis + 1], block, *shape[axis + 1 :]]
    joined = [*shape[:axis], shape[axis] * block, *shape[axis + 1 :]]
    repeated = c.reshape(c.broadcast(c.reshape(p, apart), wide), joined)
    fitting = [*shape[:axis], size, *shape[axis + 1 :]]
    return part(c, repeated, [0] * len(shape), fitting, [1] * len(shape))


def _no_shift(c: Context, zero_point: Value | None) -> None:
    """Raise InvalidModel, or check when the model runs, unless small floats' zero point is 0."""
    if zero_point is None:
        return
    bits = c(BitCast(codes_type(zero_point.type.dtype)), zero_point)
    wrong = c.binary("ne", bits, 0)
    known = c.known.array(wrong)
    valid(known is None or not known.any(), "a zero point of floats is not 0")
    if known is None:
        c.checks.append(c.reduce("max", wrong, range(wrong.type.rank)))


def rounded(c: Context, x: Value, zero_point: Value | None, dtype: DType) -> Value:
    """saturate(round(x) + zero_point) as integers; a zero point known to be 0 is left out."""
    y = c.cast(c.unary("round", x), DType.f32)
    if zero_point is not None:
        known = c.known.array(zero_point)
        if known is None or known.any():
            y = c.add(y, c.cast(zero_point, DType.f32))
    return c.cast(y, dtype)


# -- ONNX -----------------------------------------------------------------------------------------


def quantize_linear(
    c: Context, node: Node, x: Value, scale: Value, zero_point: Value | None = None
) -> Value:
    """saturate(round(x / scale) + zero_point)."""
    code = node["output_dtype"]
    dtype = DType.u8 if not code else dtype_of(code, "output_dtype")
    if zero_point is not None:
        valid(not code or zero_point.type.dtype is dtype, f"output_dtype is not {zero_point.type}")
        dtype = zero_point.type.dtype
        zero_point = spread(c, node, zero_point, x)
    precision = dtype_of(node["precision"], "precision") if node["precision"] else scale.type.dtype
    scale = c.cast(spread(c, node, scale, x), precision)
    quotient = c.div(c.cast(x, precision), scale)
    if dtype.is_small_float:
        _no_shift(c, zero_point)
        return c.cast(quotient, dtype, saturate=node["saturate"] != 0)
    return rounded(c, quotient, zero_point, dtype)


def dequantize_linear(
    c: Context, node: Node, x: Value, scale: Value, zero_point: Value | None = None
) -> Value:
    """(x - zero_point) * scale, multiplied in the result's type."""
    code = node["output_dtype"]
    dtype = dtype_of(code, "output_dtype") if code else scale.type.dtype
    if x.type.dtype.is_small_float:
        _no_shift(c, zero_point)
        codes = c.cast(x, dtype)
    else:
        zero_point = None if zero_point is None else spread(c, node, zero_point, x)
        codes = c.cast(centered(c, x, zero_point), dtype)
    return c.mul(codes, c.cast(spread(c, node, scale, x), dtype))


def dynamic_quantize_linear(c: Context, node: Node, x: Value) -> tuple[Value, ...]:
    """x in u8, with the scale and zero point that its range, 0 included, has.

    Where x is all 0 the scale is 1, as in onnxruntime.
    """
    axes = range(x.type.rank)
    high = c.binary("max", c.reduce("max", x, axes), 0)
    low = c.binary("min", c.reduce("min", x, axes), 0)
    span = c.sub(high, low)
    scale = c.where(c.binary("eq", span, 0), 1, c.div(span, 255))
    zero_point = c.cast(c.unary("round", c.clip(c.sub(0, c.div(low, scale)), 0, 255)), DType.u8)
    return rounded(c, c.div(x, scale), zero_point, DType.u8), scale, zero_point


def qlinear_matmul(
    c: Context, node: Node, a: Value, a_scale: Value, a_zero: Value, b: Value, b_scale: Value,
    b_zero: Value, y_scale: Value, y_zero: Value,
) -> Value:  # fmt: skip
    """The product of the dequantised matrices, quantised."""
    total = product(c, centered(c, a, by_row(c, a_zero)), centered(c, b, b_zero))
    return requantized(c, total, by_row(c, a_scale), b_scale, y_scale, y_zero, y_zero.type.dtype)


def requantized(
    c: Context, total: Value, x_scale: Value, w_scale: Value | None, y_scale: Value,
    y_zero: Value | None, dtype: DType,
) -> Value:  # fmt: skip
    """A sum quantised: saturate(round(total * (sx * sw / sy)) + y_zero), in the type of y_zero."""
    factor, sy = (scalar(c, c.cast(s, DType.f32)) for s in (x_scale, y_scale))
    if w_scale is not None:
        factor = c.mul(factor, scalar(c, c.cast(w_scale, DType.f32)))
    scaled = c.mul(c.cast(total, DType.f32), c.div(factor, sy))
    if y_zero is None:
        return rounded(c, scaled, None, dtype)
    return rounded(c, scaled, scalar(c, y_zero), y_zero.type.dtype)


def scalar(c: Context, p: Value) -> Value:
    """A parameter of one element as a scalar; others as they are."""
    return c.reshape(p, ()) if p.type.size == 1 else p


def qlinear_conv(
    c: Context, node: Node, x: Value, x_scale: Value, x_zero: Value, w: Value, w_scale: Value,
    w_zero: Value, y_scale: Value, y_zero: Value, bias: Value | None = None,
) -> Value:  # fmt: skip
    """The convolution of the dequantised tensors, quantised; the bias is i32 of their scale."""
    total = integer_convolution(c, node, x, w, x_zero, w_zero)
    if bias is not None:
        total = c.add(total, c.along(bias, 1, x.type.rank))
    if w_scale.type.size != 1:
        w_scale = c.along(w_scale, 1, x.type.rank)
    return requantized(c, total, x_scale, w_scale, y_scale, y_zero, y_zero.type.dtype)


OPERATORS: Mapping[str, Lowering] = {
    "QuantizeLinear": quantize_linear,
    "DequantizeLinear": dequantize_linear,
    "DynamicQuantizeLinear": dynamic_quantize_linear,
    "QLinearMatMul": qlinear_matmul,
    "QLinearConv": qlinear_conv,
}

# -- QONNX ----------------------------------------------------------------------------------------

_ROUNDING = {"ROUND": "round", "CEIL": "ceil", "FLOOR": "floor"}


def quant(
    c: Context, node: Node, x: Value, scale: Value, zero_point: Value, bit_width: Value
) -> Value:
    """(clip(round(x / scale + zero_point)) - zero_point) * scale, clipped to bit_width bits."""
    bits = numpy_scalar(c.numbers(bit_width, "the bit width"))
    valid(1 <= bits <= 64 and bits == int(bits), f"the bit width {bits} is no number of bits")
    known = c.known.array(zero_point)
    shifts = known is None or bool(known.any())
    codes = c.div(x, scale)
    codes = c.add(codes, zero_point) if shifts else codes
    if bits == 1 and node["signed"]:
        codes = c.where(c.binary("ge", codes, 0), c.constant(1, x.type.dtype), -1)
    else:
        how, narrow = node["rounding_mode"].upper(), int(bool(node["narrow"]))
        supported(how in _ROUNDING, f"the rounding mode {how} is not supported")
        if node["signed"]:
            low, high = -(2 ** (bits - 1)) + narrow, 2 ** (bits - 1) - 1
        else:
            low, high = 0, 2**bits - 1 - narrow
        codes = c.clip(c.unary(_ROUNDING[how], codes), low, high)
    return c.mul(c.sub(codes, zero_point) if shifts else codes, scale)


def bipolar_quant(c: Context, node: Node, x: Value, scale: Value) -> Value:
    """scale where x >= 0, else -scale."""
    sign = c.where(c.binary("ge", x, 0), c.constant(1, x.type.dtype), -1)
    return c.mul(sign, scale)


def trunc(
    c: Context, node: Node, x: Value, scale: Value, zero_point: Value, in_bits: Value,
    out_bits: Value, *later: Value,
) -> Value:  # fmt: skip
    """(rounded((round(x / scale + zero_point)) / 2^(in_bits - out_bits)) - zero_point) * scale."""
    supported(not later, "Trunc with an output scale is not supported")
    how = node["rounding_mode"].upper()
    supported(how in _ROUNDING, f"the rounding mode {how} is not supported")
    bits = [numpy_scalar(c.numbers(b, "the bit width")) for b in (in_bits, out_bits)]
    lost = bits[0] - bits[1]
    valid(0 <= lost < 64 and lost == int(lost), f"{bits[0]} bits cannot become {bits[1]}")
    codes = c.unary("round", c.add(c.div(x, scale), zero_point))
    codes = c.unary(_ROUNDING[how], c.div(codes, 2.0**lost))
    return c.mul(c.sub(codes, zero_point), scale)


_MODES = f"the rounding modes {', '.join(_ROUNDING)}; bit widths are known at import"
_QUANT = Signature(
    4, 4, attributes={"signed": 1, "narrow": 0, "rounding_mode": "ROUND"}, limits=_MODES
)

QONNX: Mapping[str, tuple[Lowering, Signature]] = {
    "Quant": (quant, _QUANT),
    "IntQuant": (quant, _QUANT),
    "BipolarQuant": (bipolar_quant, Signature(2, 2)),
    "Trunc": (
        trunc,
        Signature(
            5,
            7,
            attributes={"rounding_mode": "FLOOR", "signed": 1, "narrow": 0},
            limits=f"{_MODES}; no output scale",
        ),
    ),
}
