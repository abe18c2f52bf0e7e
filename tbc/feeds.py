"""Inputs for a model: read from files, or made up so that the model accepts them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tbc.dims import evaluate
from tbc.errors import TbcError
from tbc.ir import Graph
from tbc.ops import Input
from tbc.types import DType

Array = npt.NDArray[Any]

_LIMITS = (1000, 64, 8, 2, 1)
"""What random indices are below, until the model accepts them."""
_LARGEST = 64
"""The greatest random size, unless a symbol's least is greater."""


def read_feeds(texts: Iterable[str], names: tuple[str, ...]) -> dict[str, Array]:
    """The arrays that `x.npy`, `name=x.npy` and `feeds.npz` stand for, by input name.

    Args:
        texts: what `--input` was given.
        names: the model's inputs; a plain .npy is for the only one.

    Raises:
        TbcError: a file cannot be read, or it is not clear which input it is for.
    """
    feeds: dict[str, Array] = {}
    for text in texts:
        name, equals, file = text.rpartition("=")
        data = _read(Path(file if equals else text))
        if isinstance(data, dict):
            feeds |= data
        elif equals or len(names) == 1:
            feeds[name if equals else names[0]] = data
        else:
            hint = " ".join(f"--input {n}=x.npy" for n in names)
            raise TbcError("the model has several inputs", file=file, hint=hint)
    return feeds


def _read(path: Path) -> Array | dict[str, Array]:
    try:
        data = np.load(path, allow_pickle=False)
        return data if isinstance(data, np.ndarray) else dict(data)
    except OSError as error:
        raise TbcError(f"cannot be read: {error.strerror or error}", file=str(path)) from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise TbcError("this is not an .npy or .npz file", file=str(path)) from error


def random_feeds(
    graph: Graph, seed: int, sample: int, accept: Callable[[Mapping[str, Array]], object]
) -> dict[str, Array]:
    """Random inputs that the model accepts; the same for the same seed and sample.

    Floats are normally distributed; integers of a byte take all values, wider ones are indices, as
    large as the model accepts, and 1 in masks. Sample 0 has the least sizes (but 1 for 0).

    Args:
        graph: whose symbols have bounds.
        seed: of the generator.
        sample: which of a series of inputs.
        accept: called with inputs; raises ValueError if they are no good.

    Raises:
        ValueError: `accept` refuses everything; its last reason.
    """
    generator = np.random.default_rng((seed, sample))
    dims = {}
    for symbol in graph.symbols():
        least = max(symbol.lo, 1)
        most = max(least, _LARGEST if symbol.hi is None else min(symbol.hi, _LARGEST))
        dims[symbol.name] = int(generator.integers(least, most, endpoint=True)) if sample else least
    inputs = [v.op for v in graph.inputs if isinstance(v.op, Input)]
    wide = any(_is_index(i.name, i.type.dtype) for i in inputs)
    refusal = ValueError("no inputs")
    for limit in _LIMITS if wide else _LIMITS[:1]:
        feeds = {
            i.name: _random(i, tuple(evaluate(d, dims) for d in i.type.shape), limit, generator)
            for i in inputs
        }
        try:
            accept(feeds)
        except ValueError as error:
            refusal = error
        else:
            return feeds
    raise refusal


def _is_index(name: str, dtype: DType) -> bool:
    return dtype.is_int and dtype.bits > 8 and "mask" not in name.lower()


def _random(
    tensor: Input, shape: tuple[int, ...], limit: int, generator: np.random.Generator
) -> Array:
    dtype = tensor.type.dtype
    if dtype.is_float:
        return generator.standard_normal(shape).astype(dtype.numpy)
    if _is_index(tensor.name, dtype):
        return generator.integers(0, limit, shape).astype(dtype.numpy)
    if dtype.is_int and dtype.bits > 8:
        return np.ones(shape, dtype.numpy)
    low, high = dtype.range
    return generator.integers(low, high, shape, endpoint=True).astype(dtype.numpy)
