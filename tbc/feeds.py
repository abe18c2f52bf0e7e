"""Inputs for a model: read from files, or made up so that the model accepts them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tbc.dims import Symbol, evaluate
from tbc.errors import TbcError, UsageError
from tbc.ir import Graph, Value
from tbc.ops import Input

Array: TypeAlias = npt.NDArray[Any]
Declared: TypeAlias = Mapping[str, tuple[np.dtype[Any], int]]
"""By name of an input, its element type and its rank."""

_LIMITS = (1024, 256, 64, 16, 4, 2)
"""What random indices are below, until the model accepts them."""
_LARGEST = 64
"""The greatest random size, unless a symbol's least is greater."""
_ATTEMPTS = 50
"""How many times sizes are drawn until the model accepts them: some depend on each other."""


def declared(inputs: Iterable[Value]) -> Declared:
    """What a graph's inputs hold."""
    leaves = ((v.op.name, v.type) for v in inputs if isinstance(v.op, Input))
    return {name: (type.dtype.numpy, type.rank) for name, type in leaves}


def named(arrays: Mapping[Value, Array]) -> dict[str, Array]:
    """The arrays of inputs by the names of these."""
    return {v.op.name: array for v, array in arrays.items() if isinstance(v.op, Input)}


def read_feeds(texts: Iterable[str], inputs: Callable[[], Declared]) -> dict[str, Array]:
    """The arrays that `x.npy`, `name=x.npy`, `name=1,2` and `feeds.npz` stand for, by input name.

    Args:
        texts: what `--input` was given; after a name, numbers with commas between them or a list
            of JSON, else a file.
        inputs: the model's inputs; asked for numbers, and for a plain .npy, which is for the only
            input.

    Raises:
        TbcError: a file cannot be read, it is not clear which input it is for, or an input is
            given twice.
        ValueError: an input cannot hold the numbers.
    """
    feeds: dict[str, Array] = {}

    def give(name: str, array: Array) -> None:
        if name in feeds:
            raise UsageError(f"--input gives '{name}' twice", hint="each input once")
        feeds[name] = array

    for text in texts:
        name, equals, rest = text.rpartition("=")
        if equals and (numbers := _numbers(rest)) is not None:
            dtype, rank = inputs().get(name, (numbers.dtype, numbers.ndim))
            shape = numbers.shape or (1,) * rank
            give(name, converted(numbers.reshape(shape), dtype, name))
            continue
        if not rest:
            hint = f"--input {text or 'NAME='}1,2, or a file"
            raise TbcError(f"--input {text or repr(text)} gives nothing", hint=hint)
        data = _read(Path(rest if equals else text))
        if isinstance(data, dict):
            for each, array in data.items():
                give(each, array)
        elif equals:
            give(name, data)
        elif len(known := list(inputs())) == 1:
            give(known[0], data)
        else:
            hint = " ".join(f"--input {n}=x.npy" for n in known)
            raise TbcError(f"the model has {len(known)} inputs", file=rest, hint=hint)
    return feeds


def require_no_rows(feeds: Mapping[str, Array], inputs: Declared) -> None:
    """Raise UsageError where an array has rows, as for calls in turn, and there is one call."""
    for name, array in feeds.items():
        rank = inputs[name][1] if name in inputs else array.ndim
        if array.ndim == rank + 1 and len(array):
            reason = f"input '{name}' has rank {array.ndim}, not {rank}: {array.shape}"
            raise UsageError(reason, hint=f"--calls {len(array)} makes a call of each row")


def in_turn(
    feeds: Mapping[str, Array], inputs: Declared, calls: int
) -> Iterator[Mapping[str, Array]]:
    """What each of some calls is fed: a row of the arrays that have an axis more than their input.

    Raises:
        UsageError: there are more or fewer rows than calls.
    """
    rows = {n for n, array in feeds.items() if n in inputs and array.ndim == inputs[n][1] + 1}
    for name in sorted(rows):
        if (count := len(feeds[name])) != calls:
            reason = f"the input '{name}' has {count} rows, and there are {calls} calls"
            raise UsageError(reason, hint=f"--calls {count}")
    for call in range(calls):
        yield {name: a[call, ...] if name in rows else a for name, a in feeds.items()}


def stacked(results: Iterable[Mapping[str, Array]]) -> dict[str, Array]:
    """The outputs of calls in turn, a row of each array for each call; UsageError if sizes vary."""
    all_ = list(results)
    for name, first in all_[0].items():
        for call, outputs in enumerate(all_):
            if outputs[name].shape != first.shape:
                sizes = f"{list(first.shape)} in call 0 and {list(outputs[name].shape)} in {call}"
                reason = f"the output '{name}' is {sizes}: they are no rows of one array"
                raise UsageError(reason, hint="a call of tbc run for each")
    return {name: np.stack([outputs[name] for outputs in all_]) for name in all_[0]}


def _numbers(text: str) -> Array | None:
    """The array of a text such as `1`, `1,2` or `[[1, 2]]`; None where it is none."""
    is_list = text.startswith("[")
    try:
        array = np.array(json.loads(text if is_list else f"[{text}]"))
    except (ValueError, RecursionError):
        return None
    if array.dtype.kind not in "biuf" or not text:
        return None
    return array if is_list or array.size > 1 else array.reshape(())


def converted(value: npt.ArrayLike, dtype: np.dtype[Any], name: str) -> Array:
    """A value in an input's element type; ValueError where that loses more than a float's bits."""
    array = np.asarray(value)
    if array.dtype == dtype:
        return array
    if array.dtype.kind in "biuf":
        with np.errstate(all="ignore"):
            result = array.astype(dtype)
            has_fractions = bool(np.array(0.5).astype(dtype) == 0.5)
        if has_fractions or np.array_equal(result, array):
            return result
    raise ValueError(f"the input '{name}' is of {dtype}, which cannot hold {array}")


def _read(path: Path) -> Array | dict[str, Array]:
    try:
        with path.open("rb") as file:
            data = np.load(file, allow_pickle=False)
            return data if isinstance(data, np.ndarray) else dict(data)
    except OSError as error:
        raise TbcError(f"cannot be read: {error.strerror or error}", file=str(path)) from error
    except MemoryError as error:
        raise TbcError("its arrays do not fit into memory", file=str(path)) from error
    except Exception as error:  # NumPy's readers let through what they stumble over
        raise TbcError("this is not an .npy or .npz file", file=str(path)) from error


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays of any names to an .npz file; TbcError if it cannot be written."""
    try:
        with zipfile.ZipFile(path, "w") as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)
    except OSError as error:
        raise TbcError(f"cannot be written: {error.strerror}", file=str(path)) from error


def random_feeds(
    graph: Graph, seed: int, sample: int, accept: Callable[[Mapping[str, Array]], object]
) -> dict[str, Array]:
    """Random inputs that the model accepts; the same for the same seed and sample.

    Floats are normally distributed; integers of a byte take all values, wider ones are indices, as
    large as the model accepts, and 1 in masks. Sample 0 has the least sizes (but 1 for 0), if the
    model accepts them.

    Args:
        graph: whose symbols have bounds.
        seed: of the generator.
        sample: which of a series of inputs.
        accept: called with inputs; raises ValueError if they are no good.

    Raises:
        ValueError: `accept` refuses everything; its last reason.
    """
    generator = np.random.default_rng((seed, sample))
    inputs = [v.op for v in graph.inputs if isinstance(v.op, Input)]

    def draw(dims: Mapping[str, int], limit: int) -> dict[str, Array] | ValueError:
        feeds = {
            i.name: _random(i, tuple(evaluate(d, dims) for d in i.type.shape), limit, generator)
            for i in inputs
        }
        try:
            accept(feeds)
        except ValueError as error:
            return error
        return feeds

    refusal = ValueError("there are none")
    for attempt in range(_ATTEMPTS):
        dims = {s.name: _size(s, generator if sample + attempt else None) for s in graph.symbols()}
        zeros = draw(dims, 1)
        if isinstance(zeros, ValueError):
            refusal = zeros
            continue
        if not any(_is_index(i) for i in inputs):
            return zeros
        drawn = (draw(dims, limit) for limit in _LIMITS)
        return next((feeds for feeds in drawn if not isinstance(feeds, ValueError)), zeros)
    raise refusal


def _size(symbol: Symbol, generator: np.random.Generator | None) -> int:
    """A random size in the symbol's range; its least without a generator."""
    least = max(symbol.lo, 1)
    if generator is None:
        return least
    most = _LARGEST if symbol.hi is None else min(symbol.hi, _LARGEST)
    return int(generator.integers(least, max(least, most), endpoint=True))


def _is_index(tensor: Input) -> bool:
    dtype = tensor.type.dtype
    return dtype.is_int and dtype.bits > 8 and "mask" not in tensor.name.lower()


def _random(
    tensor: Input, shape: tuple[int, ...], limit: int, generator: np.random.Generator
) -> Array:
    dtype = tensor.type.dtype
    if dtype.is_float:
        return generator.standard_normal(shape).astype(dtype.numpy)
    if _is_index(tensor):
        return generator.integers(0, limit, shape).astype(dtype.numpy)
    if dtype.is_int and dtype.bits > 8:
        return np.ones(shape, dtype.numpy)
    low, high = dtype.range
    return generator.integers(low, high, shape, endpoint=True).astype(dtype.numpy)
