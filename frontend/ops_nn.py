"""Activation functions and normalisations, by the formulas of their specifications."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tbc.dims import product
from tbc.frontend.context import Context, Lowering, axis_of, supported, valid
from tbc.frontend.nodes import Node
from tbc.frontend.tensors import dtype_of
from tbc.ir import Value
from tbc.ops import Windows, require_equal

# -- activations ----------------------------------------------------------------------------------


def relu(c: Context, node: Node, x: Value) -> Value:
    """max(x, 0)."""
    return c.binary("max", x, 0)


def negative_part(c: Context, x: Value, otherwise: Value) -> Value:
    """x where it is not negative."""
    return c.where(c.binary("lt", x, 0), otherwise, x)


def leaky_relu(c: Context, node: Node, x: Value) -> Value:
    """alpha * x where x < 0."""
    return negative_part(c, x, c.mul(x, node["alpha"]))


def prelu(c: Context, node: Node, x: Value, slope: Value) -> Value:
    """slope * x where x < 0."""
    return negative_part(c, x, c.mul(slope, x))


def elu(c: Context, node: Node, x: Value) -> Value:
    """alpha * (exp(x) - 1) where x < 0."""
    return negative_part(c, x, c.mul(c.sub(c.unary("exp", x), 1), node["alpha"]))


def selu(c: Context, node: Node, x: Value) -> Value:
    """gamma * (alpha * exp(x) - alpha) where x <= 0, else gamma * x."""
    alpha, gamma = node["alpha"], node["gamma"]
    curve = c.sub(c.mul(c.unary("exp", x), alpha), alpha)
    return c.mul(c.where(c.binary("gt", x, 0), x, curve), gamma)


def hard_sigmoid(c: Context, node: Node, x: Value) -> Value:
    """max(0, min(1, alpha * x + beta))."""
    return hard(c, x, node["alpha"], node["beta"])


def hard(c: Context, x: Value, alpha: float, beta: float) -> Value:
    """max(0, min(1, alpha * x + beta))."""
    return c.binary("max", c.binary("min", c.add(c.mul(x, alpha), beta), 1), 0)


def hard_swish(c: Context, node: Node, x: Value) -> Value:
    """x * max(0, min(1, x / 6 + 0.5))."""
    return c.mul(x, hard(c, x, 1 / 6, 0.5))


def softplus(c: Context, node: Node, x: Value) -> Value:
    """log(1 + exp(x))."""
    return softplus_of(c, x)


def softplus_of(c: Context, x: Value) -> Value:
    """log(1 + exp(x)), written so that it does not overflow."""
    small = c.unary("exp", c.unary("neg", c.unary("abs", x)))
    return c.add(c.binary("max", x, 0), c.unary("log", c.add(small, 1)))


def softsign(c: Context, node: Node, x: Value) -> Value:
    """x / (1 + |x|)."""
    return c.div(x, c.add(c.unary("abs", x), 1))


def mish(c: Context, node: Node, x: Value) -> Value:
    """x * tanh(softplus(x))."""
    return c.mul(x, c.unary("tanh", softplus_of(c, x)))


def gelu(c: Context, node: Node, x: Value) -> Value:
    """0.5 * x * (1 + erf(x / sqrt(2))), or its approximation by tanh."""
    how = node["approximate"]
    valid(how in ("none", "tanh"), f"it knows no approximation '{how}'")
    return gelu_by_tanh(c, x) if how == "tanh" else gelu_by_erf(c, x)


def gelu_by_erf(c: Context, x: Value) -> Value:
    """0.5 * x * (1 + erf(x / sqrt(2)))."""
    return c.mul(c.mul(x, 0.5), c.add(c.unary("erf", c.div(x, math.sqrt(2))), 1))


def gelu_by_tanh(c: Context, x: Value) -> Value:
    """0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))."""
    cubic = c.add(x, c.mul(c.mul(c.mul(x, x), x), 0.044715))
    curve = c.unary("tanh", c.mul(cubic, math.sqrt(2 / math.pi)))
    return c.mul(c.mul(x, 0.5), c.add(curve, 1))


# -- normalisations -------------------------------------------------------------------------------


def batch_normalization(
    c: Context, node: Node, x: Value, scale: Value, bias: Value, mean: Value, var: Value
) -> Value:
    """(x - mean) / sqrt(var + epsilon) * scale + bias, by channel, as x * factor + shift."""
    supported(not node["training_mode"], "training is not supported", "export for inference")
    if node["spatial"] != 0:
        channels = x.type.shape[1] if x.type.rank > 1 else 1
        for p in (scale, bias, mean, var):
            valid(p.type.rank == 1, f"its parameters must be vectors, not {p.type}")
            require_equal(p.type.shape[0], channels, "parameters and channels")
        rank = max(x.type.rank, 2)
        scale, bias, mean, var = (c.along(p, 1, rank) for p in (scale, bias, mean, var))
    widest = max((v.type.dtype for v in (x, scale, mean)), key=lambda d: d.bits)
    wide, scale, bias, mean, var = (c.cast(v, widest) for v in (x, scale, bias, mean, var))
    factor = c.div(scale, c.unary("sqrt", c.add(var, node["epsilon"])))
    shift = c.sub(bias, c.mul(mean, factor))
    y = c.cast(c.add(c.mul(wide, factor), shift), x.type.dtype)
    return c.reshape(y, x.type.shape)


def standardized(
    c: Context, x: Value, axes: Sequence[int], epsilon: float
) -> tuple[Value, Value, Value]:
    """(x - mean) * inverse, the mean, and the inverse 1 / sqrt(variance + epsilon), over axes."""
    mean = c.mean(x, axes, keepdims=True)
    distance = c.sub(x, mean)
    variance = c.mean(c.mul(distance, distance), axes, keepdims=True)
    inverse = c.div(1, c.unary("sqrt", c.add(variance, epsilon)))
    return c.mul(distance, inverse), mean, inverse


def _stage(c: Context, node: Node, x: Value) -> tuple[Value, Sequence[int]]:
    """x in the type of the first stage, and the normalised axes."""
    axis = axis_of(node["axis"], x.type.rank)
    return c.cast(x, dtype_of(node["stash_type"], "stash_type")), range(axis, x.type.rank)


def layer_normalization(
    c: Context, node: Node, x: Value, scale: Value, bias: Value | None = None
) -> tuple[Value, ...]:
    """The normalised x * scale + bias, the mean and the inverse deviation."""
    wide, axes = _stage(c, node, x)
    normal, mean, inverse = standardized(c, wide, axes, node["epsilon"])
    return scaled_and_shifted(c, c.cast(normal, x.type.dtype), scale, bias), mean, inverse


def scaled_and_shifted(c: Context, x: Value, scale: Value, shift: Value | None) -> Value:
    """x * scale + shift."""
    y = c.mul(x, scale)
    return y if shift is None else c.add(y, shift)


def rms_normalization(c: Context, node: Node, x: Value, scale: Value) -> Value:
    """x / sqrt(mean(x^2) + epsilon) * scale."""
    wide, axes = _stage(c, node, x)
    normal = c.div(wide, root_mean_square(c, wide, axes, node["epsilon"]))
    return c.mul(c.cast(c.cast(normal, x.type.dtype), scale.type.dtype), scale)


def mean_variance_normalization(c: Context, node: Node, x: Value) -> Value:
    """(x - mean) / (deviation + 1e-9) over the axes."""
    axes = [axis_of(a, x.type.rank) for a in node["axes"]]
    wide = c.wide(x)
    distance = c.sub(wide, c.mean(wide, axes, keepdims=True))
    variance = c.mean(c.mul(distance, distance), axes, keepdims=True)
    return c.cast(c.div(distance, c.add(c.unary("sqrt", variance), 1e-9)), x.type.dtype)


def root_mean_square(c: Context, x: Value, axes: Sequence[int], epsilon: float) -> Value:
    """sqrt(mean(x^2) + epsilon)."""
    return c.unary("sqrt", c.add(c.mean(c.mul(x, x), axes, keepdims=True), epsilon))


def simplified_layer_normalization(
    c: Context, node: Node, x: Value, scale: Value
) -> tuple[Value, ...]:
    """onnxruntime's x * inverse * scale, and the inverse 1 / sqrt(mean(x^2) + epsilon)."""
    wide, axes = _stage(c, node, x)
    inverse = c.div(1, root_mean_square(c, wide, axes, node["epsilon"]))
    return c.mul(c.cast(c.mul(wide, inverse), scale.type.dtype), scale), inverse


def instance_normalization(c: Context, node: Node, x: Value, scale: Value, bias: Value) -> Value:
    """The normalised x * scale + bias, by channel of each instance."""
    valid(x.type.rank >= 3, f"it needs [N, C, …], not {x.type}")
    wide = c.wide(x)
    normal, _, _ = standardized(c, wide, range(2, x.type.rank), node["epsilon"])
    rank = x.type.rank
    normal = c.cast(normal, x.type.dtype)
    return scaled_and_shifted(c, normal, c.along(scale, 1, rank), c.along(bias, 1, rank))


def local_response_normalization(c: Context, node: Node, x: Value) -> Value:
    """x / (bias + alpha / size * sum of x^2 over `size` neighbouring channels)^beta."""
    valid(x.type.rank >= 2 and node["size"] > 0, f"{node['size']} channels of {x.type}")
    batch, channels, *spatial = x.type.shape
    flat = c.reshape(c.mul(x, x), [batch, 1, channels, product(tuple(spatial))])
    before, size = (node["size"] - 1) // 2, node["size"]
    windows = Windows((size, 1), (1, 1), (1, 1), (before, 0), flat.type.shape[2:])
    near = c.reduce("sum", c(windows, flat, c.constant(0, x.type.dtype)), [4, 5])
    base = c.add(c.mul(c.reshape(near, x.type.shape), node["alpha"] / size), node["bias"])
    return c.div(x, c.binary("pow", base, node["beta"]))


OPERATORS: Mapping[str, Lowering] = {
    "Relu": relu,
    "LeakyRelu": leaky_relu,
    "PRelu": prelu,
    "Elu": elu,
    "Selu": selu,
    "HardSigmoid": hard_sigmoid,
    "HardSwish": hard_swish,
    "Softplus": softplus,
    "Softsign": softsign,
    "Mish": mish,
    "Gelu": gelu,
    "BatchNormalization": batch_normalization,
    "LayerNormalization": layer_normalization,
    "RMSNormalization": rms_normalization,
    "MeanVarianceNormalization": mean_variance_normalization,
    "InstanceNormalization": instance_normalization,
    "LRN": local_response_normalization,
}

LIMITS: Mapping[str, str] = {
    "BatchNormalization": "inference only: training_mode is 0",
}
