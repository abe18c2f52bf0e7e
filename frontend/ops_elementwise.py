"""Elementwise operators: arithmetic, comparison, logic, selection, casts."""

from __future__ import annotations

from collections.abc import Mapping

from tbc.constants import value_of
from tbc.frontend.context import Context, Lowering, supported, valid
from tbc.frontend.nodes import Node
from tbc.frontend.tensors import dtype_of
from tbc.ir import Value
from tbc.ops import BitCast, has_bits
from tbc.types import DType


def unary(fn: str) -> Lowering:
    """The lowering to one function of the IR."""

    def lower(c: Context, node: Node, x: Value) -> Value:
        return c.unary(fn, x)

    return lower


def binary(fn: str) -> Lowering:
    """The lowering to one function of two arguments, or of the same types."""

    def lower(c: Context, node: Node, a: Value, b: Value) -> Value:
        return c.binary(fn, a, b)

    return lower


def variadic(fn: str) -> Lowering:
    """The lowering to a chain of functions of two arguments."""

    def lower(c: Context, node: Node, first: Value, *rest: Value) -> Value:
        for x in rest:
            first = c.binary(fn, first, x)
        return first

    return lower


def mean(c: Context, node: Node, *xs: Value) -> Value:
    """The sum divided by the number of arguments."""
    return c.div(variadic("add")(c, node, *xs), len(xs))  # type: ignore[arg-type]


def identity(c: Context, node: Node, x: Value) -> Value:
    """The argument."""
    return x


def reciprocal(c: Context, node: Node, x: Value) -> Value:
    """1 / x."""
    return c.div(1, x)


def bits(fn: str, kinds: str) -> Lowering:
    """And, or, xor of bools (kind "b") or, bit by bit, of integers (kinds "iu")."""

    def lower(c: Context, node: Node, a: Value, b: Value) -> Value:
        valid(a.type.dtype.kind in kinds, f"it does not take {a.type.dtype.name}")
        return c.binary(fn, a, b)

    return lower


def mod(c: Context, node: Node, a: Value, b: Value) -> Value:
    """The remainder with the divisor's sign, or with the dividend's where fmod is 1."""
    return c.binary("fmod" if node["fmod"] else "mod", a, b)


def power(c: Context, node: Node, x: Value, exponent: Value) -> Value:
    """x to a power of any type, in the type of x; an integer to a float's power by way of f64."""
    if x.type.dtype.is_int and exponent.type.dtype.is_float:
        result = c.binary("pow", c.cast(x, DType.f64), c.cast(exponent, DType.f64))
        return c.cast(result, x.type.dtype)
    if exponent.is_constant and exponent.type.rank == 0 and value_of(exponent).item() == 2:
        return c.mul(x, x)  # rounded once, as pow is not always
    return c.binary("pow", x, c.cast(exponent, x.type.dtype))


def bit_shift(c: Context, node: Node, x: Value, distance: Value) -> Value:
    """x shifted left or right."""
    shifts = {"LEFT": "shl", "RIGHT": "shr"}
    valid(node["direction"] in shifts, f"there is no direction '{node['direction']}'")
    return c.binary(shifts[node["direction"]], x, distance)


def clip(
    c: Context, node: Node, x: Value, low: Value | None = None, high: Value | None = None
) -> Value:
    """min(max(x, low), high); up to opset 10 the limits are attributes."""
    if node.opset < 11:
        return c.clip(x, node["min"], node["max"])
    if low is not None:
        x = c.binary("max", x, c.reshape(low, ()))
    return x if high is None else c.binary("min", x, c.reshape(high, ()))


def _wide(c: Context, x: Value) -> Value:
    """x in a type that has arithmetic."""
    return c.cast(x, DType.f32) if x.type.dtype.is_small_float else x


def is_nan(c: Context, node: Node, x: Value) -> Value:
    """Whether x is no number."""
    return c.unary("isnan", _wide(c, x))


def is_inf(c: Context, node: Node, x: Value) -> Value:
    """Whether x is infinite, of the signs asked for."""
    x = _wide(c, x)
    infinite = c.unary("isinf", x)
    if not node["detect_negative"]:
        infinite = c.binary("and", infinite, c.binary("gt", x, 0))
    if not node["detect_positive"]:
        infinite = c.binary("and", infinite, c.binary("lt", x, 0))
    return infinite


def where(c: Context, node: Node, cond: Value, a: Value, b: Value) -> Value:
    """a where cond, else b."""
    return c.where(cond, a, b)


def converted(c: Context, node: Node, x: Value, dtype: DType) -> Value:
    """x in another type; a float in an integer of less than a byte keeps its low bits."""
    if not x.type.dtype.is_int and dtype.is_int and dtype.bits < 8:
        x = c.cast(x, DType.i32)
    return c.cast(x, dtype, saturate=node["saturate"] != 0)


def cast(c: Context, node: Node, x: Value) -> Value:
    """x in another type."""
    return converted(c, node, x, dtype_of(node["to"], "the attribute 'to'"))


def cast_like(c: Context, node: Node, x: Value, like: Value) -> Value:
    """x in the type of another value."""
    return converted(c, node, x, like.type.dtype)


def bit_cast(c: Context, node: Node, x: Value) -> Value:
    """x's bits as another type of the same width."""
    old, new = x.type.dtype, dtype_of(node["to"], "the attribute 'to'")
    valid(old.bits == new.bits, f"{old.name} and {new.name} differ in width")
    if old is new:
        return x
    if has_bits(old) and has_bits(new):
        return c(BitCast(new), x)
    supported(new is not DType.bool, f"{old.name} as the bits of bool is not supported")
    x = c.cast(x, DType.u4) if old is DType.i4 else x
    x = c(BitCast(DType.u4), x) if old.is_small_float else x
    x = c.cast(x, DType.u4) if new.is_small_float else x
    # Now a bool is a byte of 0 or 1, and narrow integers wrap.
    return c(BitCast(new), x) if new.is_small_float else c.cast(x, new)


def dropout(
    c: Context,
    node: Node,
    x: Value,
    ratio: Value | None = None,
    training: Value | None = None,
) -> tuple[Value, ...]:
    """The identity, as it is when nothing is trained, and a mask of ones."""
    if training is not None and c.integers(training, "training_mode") != [0]:
        supported(False, "training is not supported", "export the model for inference")
    mask = DType.bool if node.opset >= 10 else x.type.dtype
    return (x, c.broadcast(c.constant(1, mask), x.type.shape))


OPERATORS: Mapping[str, Lowering] = {
    "Abs": unary("abs"), "Acos": unary("acos"), "Acosh": unary("acosh"), "Asin": unary("asin"),
    "Asinh": unary("asinh"), "Atan": unary("atan"), "Atanh": unary("atanh"),
    "BitwiseNot": unary("invert"), "Ceil": unary("ceil"), "Cos": unary("cos"),
    "Cosh": unary("cosh"), "Erf": unary("erf"), "Exp": unary("exp"), "Floor": unary("floor"),
    "IsNaN": is_nan, "Log": unary("log"), "Neg": unary("neg"), "Not": unary("not"),
    "Round": unary("round"), "Sigmoid": unary("sigmoid"), "Sign": unary("sign"),
    "Sin": unary("sin"), "Sinh": unary("sinh"), "Sqrt": unary("sqrt"), "Tan": unary("tan"),
    "Tanh": unary("tanh"), "Reciprocal": reciprocal,
    "Add": binary("add"), "Sub": binary("sub"), "Mul": binary("mul"), "Div": binary("div"),
    "Equal": binary("eq"), "Greater": binary("gt"), "GreaterOrEqual": binary("ge"),
    "Less": binary("lt"), "LessOrEqual": binary("le"),
    "And": bits("and", "b"), "Or": bits("or", "b"), "Xor": bits("xor", "b"),
    "BitwiseAnd": bits("and", "iu"), "BitwiseOr": bits("or", "iu"), "BitwiseXor": bits("xor", "iu"),
    "Max": variadic("max"), "Min": variadic("min"), "Sum": variadic("add"), "Mean": mean,
    "Mod": mod, "Pow": power, "BitShift": bit_shift, "Clip": clip, "IsInf": is_inf,
    "Where": where, "Cast": cast, "CastLike": cast_like, "BitCast": bit_cast, "Identity": identity,
    "Dropout": dropout,
}  # fmt: skip

LIMITS: Mapping[str, str] = {
    "BitCast": "a nan has the bits of the quiet one; nothing becomes a bool",
    "Dropout": "the identity, as in inference; training_mode is 0",
}
