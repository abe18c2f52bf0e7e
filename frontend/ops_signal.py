"""Fourier transforms as matrix products, and the mel filter bank."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tbc.dims import Dim, floor_div
from tbc.frontend.context import Context, Lowering, axis_of, fixed, numpy_scalar, supported, valid
from tbc.frontend.nodes import Node
from tbc.frontend.ops_index import padded
from tbc.frontend.tensors import dtype_of
from tbc.ir import Value
from tbc.ops import Gather, Iota, MatMul, require_equal

_MOST_ELEMENTS = 1 << 24
"""Of the matrix of a transform: a longer one takes too much memory."""


def fourier(n: int, parts: int, bins: int, inverse: bool) -> npt.NDArray[np.float64]:
    """[n * parts, bins * 2]: (real, imaginary) inputs, or real ones, to such outputs."""
    size = n * parts * bins * 2
    supported(size <= _MOST_ELEMENTS, f"a transform of length {n}, a matrix of {size} elements")
    turns = (np.arange(n)[:, None] * np.arange(bins)) % n / n
    angles = (2 if inverse else -2) * np.pi * turns
    matrix = np.empty((n, parts, bins, 2))
    np.cos(angles, out=matrix[:, 0, :, 0])
    np.sin(angles, out=matrix[:, 0, :, 1])
    if parts == 2:
        matrix[:, 1, :, 0] = -matrix[:, 0, :, 1]
        matrix[:, 1, :, 1] = matrix[:, 0, :, 0]
    if inverse:
        matrix /= n
    return matrix.reshape(n * parts, bins * 2)


def inverse_of_half(n: int, bins: int) -> npt.NDArray[np.float64]:
    """[bins * 2, n]: the inverse transform of the first bins of a real signal's transform."""
    whole = fourier(n, 2, n, True).reshape(n, 2, n, 2)[..., 0]
    half = whole[:bins].copy()
    for k in range(bins, n):
        half[n - k] += whole[k] * np.array([1.0, -1.0])[:, None]
    return half.reshape(bins * 2, n)


def transformed(c: Context, x: Value, inverse: bool, onesided: bool) -> Value:
    """The transform of x[…, n, 1 or 2] as [..., bins, 2]; onesided keeps n // 2 + 1 bins."""
    *lead, size, parts = x.type.shape
    n, parts = fixed(size, "the length of a transform"), fixed(parts, "the last size")
    valid(parts in (1, 2), f"the last size of {x.type} must be 1 or 2")
    valid(not (onesided and parts == 2), "a onesided transform needs real numbers")
    bins = n // 2 + 1 if onesided else n
    matrix = c.constant(fourier(n, parts, bins, inverse), x.type.dtype)
    return _applied(c, x, lead, matrix, [bins, 2])


def _applied(c: Context, x: Value, lead: Sequence[Dim], matrix: Value, last: list[int]) -> Value:
    depth = matrix.type.shape[0]
    flat = c.reshape(x, [*lead, depth] if lead else [1, depth])
    return c.reshape(c(MatMul(), flat, matrix), [*lead, *last])


def fitted(c: Context, x: Value, axis: int, n: int) -> Value:
    """x cut, or filled with zeros, to n elements along an axis."""
    after = [n - fixed(d, "the transformed axis") if a == axis else 0
             for a, d in enumerate(x.type.shape)]  # fmt: skip
    return padded(c, x, [0] * x.type.rank, after, c.constant(0, x.type.dtype))


def dft(
    c: Context, node: Node, x: Value, length: Value | None = None, axis: Value | None = None
) -> Value:
    """The discrete Fourier transform along an axis of x[…, 1 or 2]."""
    given = node["axis"] if node.opset < 20 else -2
    at = axis_of(given if axis is None else c.integer(axis, "the axis"), x.type.rank)
    valid(x.type.rank >= 2 and at < x.type.rank - 1, f"it cannot transform the axis {at}")
    inverse, onesided = bool(node["inverse"]), bool(node["onesided"])
    back_to_real = inverse and onesided
    n = fixed(x.type.shape[at], "the length of a transform")
    n = 2 * (n - 1) if back_to_real else n
    n = n if length is None else c.integer(length, "dft_length")
    valid(n > 0, f"dft_length is {n}")
    bins = n // 2 + 1
    x = fitted(c, x, at, bins if back_to_real else n)
    rank = x.type.rank
    perm = [*(a for a in range(rank) if a != at and a != rank - 1), at, rank - 1]
    moved = c.transpose(x, perm)
    if back_to_real:
        require_equal(moved.type.shape[-1], 2, "the last size of complex numbers")
        matrix = c.constant(inverse_of_half(n, bins), x.type.dtype)
        y = _applied(c, moved, moved.type.shape[:-2], matrix, [n, 1])
    else:
        y = transformed(c, moved, inverse, onesided)
    return c.transpose(y, [perm.index(a) for a in range(rank)])


def stft(
    c: Context, node: Node, x: Value, step: Value, window: Value | None = None,
    frame: Value | None = None,
) -> Value:  # fmt: skip
    """The transforms of windowed frames of x[B, L, 1 or 2]: [B, frames, bins, 2]."""
    valid(x.type.rank in (2, 3), f"it needs [B, L, 1 or 2], not {x.type}")
    x = x if x.type.rank == 3 else c.reshape(x, [*x.type.shape, 1])
    size = x.type.shape[1]
    if window is not None:
        n = fixed(window.type.size, "the size of the window")
    else:
        valid(frame is not None, "it needs a window or a frame_length")
        assert frame is not None
        n = c.integer(frame, "frame_length")
    hop = c.integer(step, "frame_step")
    valid(hop > 0 and n > 0, f"frames of {n} at a distance of {hop}")
    count = floor_div(size - n, hop) + 1
    first = c.mul(c.reshape(c(Iota(count)), [count, 1]), hop)
    frames = c(Gather(1), x, c.add(first, c(Iota(n))))
    if window is not None:
        frames = c.mul(frames, c.reshape(c.cast(window, x.type.dtype), [n, 1]))
    return transformed(c, frames, False, bool(node["onesided"]))


def mel_weight_matrix(
    c: Context, node: Node, bins: Value, length: Value, rate: Value, low: Value, high: Value
) -> Value:
    """[length // 2 + 1, bins]: triangles between neighbouring points of the mel scale."""
    count, n, sampled = (c.integer(v, "a parameter") for v in (bins, length, rate))
    lowest, highest = (numpy_scalar(c.numbers(v, "a frequency")) for v in (low, high))
    spectrum = n // 2 + 1
    valid(count > 0 and n > 1 and sampled > 0, f"{count} bands of a transform of length {n}")
    valid(lowest >= 0 and 0 <= highest < math.inf, f"the frequencies {lowest} to {highest}")
    supported((count + 2) * spectrum <= _MOST_ELEMENTS // 4, f"{count} bands of {spectrum} points")
    ends = 2595 * np.log10(1 + np.array([lowest, highest]) / 700)
    mels = np.arange(count + 2) * (ends[1] - ends[0]) / (count + 2) + ends[0]
    points = ((n + 1) * (700 * (10 ** (mels / 2595) - 1)) // sampled).astype(np.int64)
    valid(bool(np.all((points >= 0) & (points < spectrum))), "its frequencies exceed the spectrum")
    at = np.arange(spectrum)[:, None]
    left, middle, right = points[:-2], points[1:-1], points[2:]
    rising = (at - left) / np.maximum(middle - left, 1)
    falling = (right - at) / np.maximum(right - middle, 1)
    y = np.where((at >= left) & (at <= middle), np.where(middle == left, 1.0, rising), 0.0)
    y = np.where((at >= middle) & (at < right), falling, y)
    return c.constant(y, dtype_of(node["output_datatype"], "output_datatype"))


OPERATORS: Mapping[str, Lowering] = {
    "DFT": dft,
    "STFT": stft,
    "MelWeightMatrix": mel_weight_matrix,
}

LIMITS: Mapping[str, str] = {
    "DFT": "the length is a number of up to 8192",
    "STFT": "the frame's length is a number of up to 8192",
    "MelWeightMatrix": "all parameters are known at import",
}
