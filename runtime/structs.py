"""The structures and numbers of tbc.h, for ctypes."""

from __future__ import annotations

import ctypes
from typing import Any

import ml_dtypes
import numpy as np

ABI = 4

OK, ERROR_ABI, ERROR_CPU, ERROR_NULL, ERROR_ALIGN, ERROR_DIM, ERROR_WEIGHTS, ERROR_VALUE = range(8)
ERROR_BLOB, ERROR_MEMORY, ERROR_FILE, ERROR_SELF_TEST, ERROR_NO_TEST = range(8, 13)
"""enum tbc_status."""

DTYPES: dict[int, np.dtype[Any]] = {
    code: np.dtype(kind)
    for code, kind in {
        1: np.float32,
        2: np.uint8,
        3: np.int8,
        4: np.uint16,
        5: np.int16,
        6: np.int32,
        7: np.int64,
        9: np.bool_,
        10: np.float16,
        11: np.float64,
        12: np.uint32,
        13: np.uint64,
        16: ml_dtypes.bfloat16,
    }.items()
}
"""enum tbc_dtype."""

_SIZES = ctypes.POINTER(ctypes.c_size_t)


class Tensor(ctypes.Structure):
    """tbc_tensor."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("dtype", ctypes.c_uint32),
        ("rank", ctypes.c_uint32),
        ("shape", _SIZES),
        ("dims", ctypes.c_char_p),
        ("bytes", ctypes.c_size_t),
    )


class Symbol(ctypes.Structure):
    """tbc_symbol."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("lo", ctypes.c_size_t),
        ("hi", ctypes.c_size_t),
    )


class Sync(ctypes.Structure):
    """tbc_sync."""

    _fields_ = (
        ("arrived", ctypes.c_uint32),
        ("yield", ctypes.c_void_p),
        ("context", ctypes.c_void_p),
    )


class Call(ctypes.Structure):
    """tbc_call."""

    _fields_ = (
        ("inputs", ctypes.POINTER(ctypes.c_void_p)),
        ("outputs", ctypes.POINTER(ctypes.c_void_p)),
        ("arena", ctypes.c_void_p),
        ("state", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("dims", _SIZES),
        ("sync", ctypes.POINTER(Sync)),
        ("fast", ctypes.c_void_p),
    )


class Model(ctypes.Structure):
    """tbc_model."""

    _fields_ = (
        ("abi", ctypes.c_uint32),
        ("phases", ctypes.c_uint32),
        ("name", ctypes.c_char_p),
        ("version", ctypes.c_char_p),
        ("target", ctypes.c_char_p),
        ("cpu_bits", ctypes.c_uint64),
        ("inputs", ctypes.POINTER(Tensor)),
        ("outputs", ctypes.POINTER(Tensor)),
        ("symbols", ctypes.POINTER(Symbol)),
        ("n_inputs", ctypes.c_uint32),
        ("n_outputs", ctypes.c_uint32),
        ("n_symbols", ctypes.c_uint32),
        ("align", ctypes.c_uint32),
        ("arena_size", ctypes.c_size_t),
        ("fast_size", ctypes.c_size_t),
        ("state_size", ctypes.c_size_t),
        ("weights_size", ctypes.c_size_t),
        ("weights_sum", ctypes.c_uint32),
        ("weights", ctypes.c_void_p),
        ("run", ctypes.c_void_p),
        ("run_phase", ctypes.c_void_p),
        ("output_shape", ctypes.c_void_p),
        ("run_part", ctypes.c_void_p),
        ("self_test", ctypes.POINTER(ctypes.c_uint32)),
    )


RUN = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.POINTER(Call))
RUN_PHASE = ctypes.CFUNCTYPE(
    ctypes.c_int32, ctypes.POINTER(Call), ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint32
)
RUN_PART = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.POINTER(Call), ctypes.c_uint32, ctypes.c_uint32)
OUTPUT_SHAPE = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.POINTER(Call), ctypes.c_uint32, _SIZES)
