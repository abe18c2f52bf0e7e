"""The self-test that a compiled model has in it: inputs made by a rule, and a sum of the outputs.

`runtime/src/tbc_self_test.c` makes the same inputs and sums the same bytes. The numbers are those
of a linear congruential generator (Knuth and Lewis; Numerical Recipes, 2nd ed., section 7.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias
from zlib import crc32

import numpy as np
import numpy.typing as npt

from tbc.dims import Symbol, evaluate
from tbc.ir import Graph
from tbc.ops import Input
from tbc.types import DType

Array: TypeAlias = npt.NDArray[Any]

MOST = 16
"""Symbols of a model, and axes of an output: tbc_self_test has room for so many."""
_MULTIPLIER, _INCREMENT = np.uint32(1664525), np.uint32(1013904223)
_PART = 1 << 20
"""Elements that are made at a time."""
_SPANS = (256, 16, 2, 1)
"""Below what wide integers lie, which may be indices, until the model accepts them."""


class Rule(NamedTuple):
    """What an input holds: whole numbers from `low` on, up to 65536 of them.

    f32 and f64 are 2^-14 of that, so that products of two are rounded; shorter floats are 2^-6.
    """

    low: int
    span: int


@dataclass(frozen=True)
class SelfTest:
    """What `tbc_model.self_test` points to.

    Attributes:
        sum: the CRC-32 of the outputs' bytes, the lowest byte of each element first.
        dims: a value for each symbol.
        rules: one for each input.
    """

    sum: int
    dims: tuple[int, ...]
    rules: tuple[Rule, ...]

    @property
    def words(self) -> tuple[int, ...]:
        """As they lie in memory, each a number of 32 bits without a sign."""
        rules = (number & 0xFFFFFFFF for rule in self.rules for number in rule)
        return (self.sum, *self.dims, *rules)


def read_words(words: Iterable[int], symbols: int, inputs: int) -> SelfTest:
    """The test of a model of so many symbols and inputs, from its words."""
    rest = iter(words)
    total, dims = next(rest), tuple(next(rest) for _ in range(symbols))
    rules = (Rule((next(rest) ^ 1 << 31) - (1 << 31), next(rest)) for _ in range(inputs))
    return SelfTest(total, dims, tuple(rules))


def elements(number: int, rule: Rule, dtype: np.dtype[Any], count: int) -> Array:
    """The first elements of an input, which is counted from 0 on."""
    found = np.empty(count, dtype)
    state = np.uint32(number + 1)
    powers = np.cumprod(np.full(min(count, _PART), _MULTIPLIER), dtype=np.uint32)
    sums = np.cumsum(np.concatenate([np.ones(1, np.uint32), powers[:-1]]), dtype=np.uint32)
    for start in range(0, count, _PART):
        part = found[start : start + _PART]
        states = state * powers[: part.size] + _INCREMENT * sums[: part.size]
        state = states[-1]
        numbers = (states >> 16).astype(np.int64) * rule.span >> 16
        part[:] = ((numbers + rule.low) * unit(dtype)).astype(dtype)
    return found


def unit(dtype: np.dtype[Any]) -> float:
    """What the numbers of an input are multiples of."""
    if np.array(0.5).astype(dtype) != 0.5:
        return 1.0
    return 2.0**-14 if dtype.itemsize >= 4 else 2.0**-6


def checksum(outputs: Iterable[Array]) -> int:
    """The CRC-32 of the bytes of arrays, the lowest byte of each element first."""
    total = 0
    for array in outputs:
        size = array.dtype.itemsize
        flat = np.ascontiguousarray(array).reshape(-1).view(f"u{size}")
        total = crc32(flat.astype(f"<u{size}").tobytes(), total)
    return total


def self_test_of(
    graph: Graph,
    symbols: Sequence[Symbol],
    run: Callable[[Mapping[str, Array]], Mapping[str, Array]],
) -> SelfTest | None:
    """A test of a graph whose symbols have bounds, at the least sizes, but 1 for 0.

    None where nothing that is tried is accepted and gives numbers, or C has no room for it.

    Args:
        graph: the model.
        symbols: its symbols, in the order of the test's values.
        run: what it computes of named inputs; ValueError if it does not accept them.
    """
    inputs = [v.op for v in graph.inputs if isinstance(v.op, Input)]
    if len(symbols) > MOST or any(v.type.rank > MOST for _, v in graph.outputs):
        return None
    dims = {s.name: max(s.lo, min(1, s.lo if s.hi is None else s.hi)) for s in symbols}
    for rules in dict.fromkeys(tuple(_rule(i, span) for i in inputs) for span in _SPANS):
        feeds = dict(_feeds(inputs, rules, dims))
        try:
            outputs = run(feeds)
        except ValueError:
            continue
        arrays = [outputs[name] for name, _ in graph.outputs]
        if not any((a != a).any() for a in arrays):
            return SelfTest(checksum(arrays), tuple(dims.values()), rules)
    return None


def _feeds(
    inputs: Iterable[Input], rules: Iterable[Rule], dims: Mapping[str, int]
) -> Iterator[tuple[str, Array]]:
    for number, (tensor, rule) in enumerate(zip(inputs, rules, strict=True)):
        shape = tuple(evaluate(d, dims) for d in tensor.type.shape)
        made = elements(number, rule, tensor.type.dtype.numpy, math.prod(shape))
        yield tensor.name, made.reshape(shape)


def _rule(tensor: Input, span: int) -> Rule:
    """What to try for an input; `span` is for those that may hold indices."""
    dtype = tensor.type.dtype
    if dtype.is_float:
        return Rule(-32768, 65536) if dtype.bits >= 32 else Rule(-128, 256)
    if dtype is DType.bool or dtype.bits <= 8:
        low, high = dtype.range
        return Rule(low, high - low + 1)
    if "mask" in tensor.name.lower():
        return Rule(1, 1)
    return Rule(0, span)
