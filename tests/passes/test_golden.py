"""Every pass: text in, text out, and the same numbers from both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tbc.dims import evaluate, symbols_of
from tbc.ir import Graph
from tbc.passes.bodies import everywhere
from tbc.passes.canonicalize import RANGE_RULES, RULES, canonicalize
from tbc.passes.dense import dense
from tbc.passes.depthwise import depthwise
from tbc.passes.fold import fold, small_constant
from tbc.passes.guard import guard
from tbc.passes.hoist import hoist
from tbc.passes.integers import integers
from tbc.passes.lift import lift
from tbc.passes.narrow import narrow
from tbc.passes.pad import pad
from tbc.passes.quantize import quantize
from tbc.passes.requantize import requantize
from tbc.passes.select import select
from tbc.reference import run_graph
from tbc.reference_elementwise import FLOATS
from tbc.target import Target, parse
from tbc.text import parse_graph, print_graph
from tbc.types import DType, TensorType

GOLDEN = Path(__file__).parent.parent / "golden"
PASSES = {
    "integers": integers,
    "fold": fold,
    "hoist": everywhere(hoist),
    "lift": lift,
    "quantize": quantize,
    "depthwise": depthwise,
    "canonicalize": canonicalize,
    "narrow": narrow,
    "requantize": requantize,
    "guard": guard,
    "pad": pad,
    "dense": dense,
    "select": select,
}
CASES = [
    path
    for name in PASSES
    for path in sorted((GOLDEN / name).glob("*.ir"))
    if not path.name.endswith(".out.ir")
]
EXACT = {"fold", "hoist", "canonicalize", "narrow", "requantize", "guard", "pad", "dense", "select"}

SMALL_FLOATS = tuple(d.numpy for d in DType if d.is_small_float)
INDICES = (DType.i32, DType.i64)
"""Types whose values may index an axis: they stay small."""

SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, np.inf, -np.inf, np.nan, 1e-40, 2.5, -127.5, 300.0]


def draw(rng: np.random.Generator, type: TensorType, exact: bool) -> npt.NDArray[Any]:
    """An array for an input: any value of an integer type; floats with odd ones if `exact`."""
    sizes = {s.name: 3 for d in type.shape for s in symbols_of(d)}
    shape = [evaluate(d, sizes) for d in type.shape]
    if type.dtype is DType.bool:
        return rng.integers(0, 2, shape).astype(bool)
    if type.dtype.is_int:
        low, high = (-2, 1) if type.dtype in INDICES else type.dtype.range
        return rng.integers(low, high, shape, type.dtype.numpy, endpoint=True)
    array = rng.normal(size=shape) * 3
    if exact:
        array = np.where(rng.random(shape) < 0.3, rng.choice(SPECIAL, shape), array)
    return np.asarray(array.astype(type.dtype.numpy))


def same_bits(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    """Whether two arrays are equal to the sign of zeros; nans are equal."""
    if a.dtype in SMALL_FLOATS:
        a, b = a.view(np.uint8), b.view(np.uint8)
    if a.dtype in FLOATS:
        a, b = a.astype(np.float64), b.astype(np.float64)
        same_number = np.array_equal(a, b, equal_nan=True)
        number = ~np.isnan(a)
        return same_number and np.array_equal(np.signbit(a[number]), np.signbit(b[number]))
    return np.array_equal(a, b)


def assert_same_meaning(before: Graph, after: Graph, exact: bool) -> None:
    rng = np.random.default_rng(0)
    for _ in range(4):
        feeds = {i.op.name: draw(rng, i.type, exact) for i in before.inputs}  # type: ignore[attr-defined]
        expected, actual = run_graph(before, feeds), run_graph(after, feeds)
        for name, e in expected.items():
            a = actual[name]
            assert e.dtype == a.dtype
            assert e.shape == a.shape
            if exact or e.dtype.kind in "iub":
                assert same_bits(e, a), (name, e, a)
            else:
                rtol = 2e-3 if e.dtype == np.float16 else 1e-5
                scale = float(np.abs(e[np.isfinite(e)]).max(initial=0))
                np.testing.assert_allclose(a, e, rtol=rtol, atol=rtol * scale)


@pytest.fixture(scope="module")
def target() -> Target:
    return parse("x86-64-v3")


@pytest.mark.parametrize("path", CASES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_golden(path: Path, golden: Callable[[Path, str], None], target: Target) -> None:
    name = path.parent.name
    before = parse_graph(path.read_text())
    small = name in ("narrow", "requantize")
    after = PASSES[name](before, parse("cortex-m0") if small else target)
    assert_same_meaning(before, after, exact=name in EXACT)
    golden(path.with_suffix(".out.ir"), print_graph(after))


def test_every_rule_has_a_golden() -> None:
    rules = {r.__name__ for r in (*RULES, *RANGE_RULES)} - {small_constant.__name__}
    assert rules == {p.stem for p in CASES if p.parent.name == "canonicalize"} & rules


def test_bits_are_compared() -> None:
    assert not same_bits(np.array([0.0]), np.array([-0.0]))
    assert same_bits(np.array([np.nan]), np.array([np.nan]))
