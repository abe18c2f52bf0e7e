"""ONNX's own tests of single operators: their models, inputs and outputs, and which tbc passes."""

from __future__ import annotations

import functools
import warnings
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

Array = npt.NDArray[Any]

LIST = Path(__file__).parent / "data" / "onnx_node_tests.txt"
"""The names of the cases that compiled code passes, one a line."""
LISTED = LIST.read_text().split() if LIST.exists() else []
LISTED_VERSION = "1.23"
"""The onnx package whose cases the list covers; those of others may have more or fewer."""


def is_covered() -> bool:
    """Whether the list covers the cases of the onnx package that is installed."""
    return onnx.__version__.startswith(f"{LISTED_VERSION}.")


@functools.cache
def cases() -> Mapping[str, Any]:
    """Every case by name. Making them takes seconds, so it waits until a test needs one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {case.name: case for case in load_model_tests(kind="node")}


def every(count: int, names: Sequence[str] = LISTED) -> list[str]:
    """One of `count` names, always the same ones."""
    return [name for name in names if zlib.crc32(name.encode()) % count == 0]


def as_given(data: Any) -> Any:
    """A tensor as an array; sequences and what is absent as they are."""
    if isinstance(data, onnx.TensorProto):
        return np.asarray(numpy_helper.to_array(data))
    return data if data is None or isinstance(data, list) else np.asarray(data)


def assert_right(case: Any, found: Sequence[Array], outputs: Sequence[Any]) -> None:
    """The outputs have the shapes and types of the case's, and its values within its tolerance."""
    assert len(found) == len(outputs)
    for got, expected in zip(found, outputs, strict=True):
        wanted = as_given(expected)
        assert got.shape == wanted.shape
        assert got.dtype == wanted.dtype
        # Halves are rounded at other places than in onnx's own computation.
        least = 0.0 if got.dtype.kind in "iub" else 1e-6 if got.dtype.itemsize > 2 else 2e-2
        np.testing.assert_allclose(
            got.astype(np.float64),
            wanted.astype(np.float64),
            rtol=max(case.rtol, 10 * least),
            atol=max(case.atol, least),
        )
