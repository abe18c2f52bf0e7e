"""Elementary functions as formulas over `Num`: one source for NumPy and for every machine.

Only IEEE operations that round correctly, integer operations and selections: no fused multiply-add,
no branch, no table look-up. So a result has the same bits at every vector width and on every target
(NaNs aside). Measured errors are in `MAX_ULP`. Infinities, NaNs, signed zeros and gradual underflow
follow C99 annex F. The reductions and the forms of log, sinh, atan, … are those of Tang and of
fdlibm; the argument reduction of sin is Payne and Hanek's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tbc.arith import Num, NumpyArith
from tbc.elementary import circular, exponential, rounding

FUNCTIONS: dict[str, Callable[..., Num]] = {
    "exp": exponential.exp,
    "log": exponential.log,
    "pow": exponential.pow,
    "sigmoid": exponential.sigmoid,
    "erf": exponential.erf,
    "tanh": exponential.tanh,
    "sinh": exponential.sinh,
    "cosh": exponential.cosh,
    "asinh": exponential.asinh,
    "acosh": exponential.acosh,
    "atanh": exponential.atanh,
    "sin": circular.sin,
    "cos": circular.cos,
    "tan": circular.tan,
    "asin": circular.asin,
    "acos": circular.acos,
    "atan": circular.atan,
    "floor": rounding.floor,
    "ceil": rounding.ceil,
    "round": rounding.round_even,
    "trunc": rounding.trunc,
}
"""By ONNX's name in lower case; `pow` takes two arguments, the others one."""

MAX_ULP = {
    "exp": 0.85,
    "log": 0.9,
    "pow": 0.85,
    "sigmoid": 2.0,
    "erf": 1.3,
    "tanh": 1.4,
    "sinh": 1.7,
    "cosh": 1.3,
    "asinh": 1.8,
    "acosh": 2.3,
    "atanh": 2.1,
    "sin": 0.85,
    "cos": 0.85,
    "tan": 2.3,
    "asin": 2.1,
    "acos": 1.2,
    "atan": 2.0,
}
"""Bounds on the error, in units of the exact result's last place; the others are exact.

They are a little above the largest errors among 10^7 floats; doubles have smaller ones.
"""


_BLOCK = 1 << 14
"""Elements at a time, so that intermediate results stay in the cache."""


def evaluate(name: str, *arrays: NDArray[Any]) -> NDArray[Any]:
    """`FUNCTIONS[name]` of float32 or float64 arrays of one dtype, broadcast against each other."""
    dtype = arrays[0].dtype.newbyteorder("=")
    type = {"float32": "float", "float64": "double"}[dtype.name]
    broadcast = np.broadcast_arrays(*arrays)
    flat = [a.astype(dtype, copy=False).reshape(-1) for a in broadcast]
    result = np.empty(flat[0].size, dtype)
    with np.errstate(all="ignore"):
        for start in range(0, result.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            args = [Num(NumpyArith(), type, a[block]) for a in flat]
            result[block] = FUNCTIONS[name](*args).raw
    return result.reshape(broadcast[0].shape)
