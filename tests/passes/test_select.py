"""Which packing `select` takes for trits: five in a byte or four."""

from __future__ import annotations

import pytest

from tbc import ops
from tbc.ir import Builder, Graph
from tbc.passes.select import CACHED, select
from tbc.target import parse
from tbc.types import DType, TensorType


def codes(target: str, m: int, n: int, k: int, groups: int = 0) -> set[str]:
    """The codes in which x[m, k] and w[n, k] are multiplied, k in a number of groups or as one."""
    b = Builder()
    x = b(ops.Input("x", TensorType(DType.i8, (m, k))))
    w = b(ops.Input("w", TensorType(DType.trit, (n, k))))
    s = b(ops.Input("s", TensorType(DType.f32, (n, groups)))) if groups else None
    y = b(ops.Dot(), x, w) if s is None else b(ops.GroupedDot(), x, w, s)
    selected = select(Graph("f", (x, w), (("y", y),)), parse(target))
    return {v.op.layout.code for v in selected.values() if isinstance(v.op, ops.Pack)}


LARGE = (4096, 2560)


@pytest.mark.parametrize(
    ("target", "m", "code"),
    [
        ("x86-64-v4+vnni+vbmi", 1, "x5"),
        ("x86-64-v4+vnni+vbmi", 8, "i2"),  # unpacking takes longer than reading
        ("x86-64-v4+vnni+vbmi", 128, "x5"),  # unpacking is shared
        ("x86-64-v4+vnni", 1, "i2"),  # no permutation of bytes
        ("x86-64-v3", 1, "i2"),
        ("armv8.6", 1, "x5"),
        ("armv8.6", 4, "i2"),
        ("armv8.6", 128, "x5"),
        ("armv9+i8mm", 1, "x5"),
        ("armv8.2+dotprod", 1, "x5"),
        ("armv8", 1, "i2"),  # unpacking takes longer than reading, on any number of cores
        ("rv64gcv", 1, "i2"),
    ],
)
def test_large_weights_take_fewer_bytes_where_reading_takes_the_time(target, m, code):
    assert codes(target, m, *LARGE) == {code}


@pytest.mark.parametrize("target", ["x86-64-v4+vnni+vbmi", "armv8.6"])
def test_small_weights_take_fewer_instructions(target):
    n, k = CACHED // 2560, 2560
    assert codes(target, 1, n, k) == {"i2"}


def test_groups_are_padded_to_whole_units():
    assert codes("armv8.6", 1, *LARGE, groups=1) == {"x5"}
    assert codes("armv8.6", 1, *LARGE, groups=2560 // 128) == {"x5"}  # 1.75 bits
    assert codes("armv8.6", 1, *LARGE, groups=2560 // 32) == {"i2"}  # 2 bits in both codes
