"""Einsum against NumPy; transforms, picking and placing against NumPy and onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from onnx_models import (
    Array,
    assert_close,
    by_tbc,
    check_against_onnxruntime,
    i64,
    integers,
    model,
    normal,
    one_node,
)

from tbc import frontend
from tbc.errors import InvalidModel, Unsupported

SIZES = {"a": 2, "b": 3, "c": 4, "d": 1}


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_einsum(data: st.DataObject) -> None:
    terms = data.draw(st.lists(st.text("abcd", max_size=3), min_size=1, max_size=3))
    used = sorted(set("".join(terms)))
    out = "".join(data.draw(st.permutations(data.draw(st.lists(st.sampled_from(used), unique=True)))
                            if used else st.just([])))  # fmt: skip
    wide = data.draw(st.booleans())
    dots, lead = ("...", (5,)) if wide else ("", ())
    arrays = [
        normal(i, *(lead if i == 0 else ()), *(SIZES[x] for x in term))
        for i, term in enumerate(terms)
    ]
    left = ",".join((dots if i == 0 else "") + term for i, term in enumerate(terms))
    equation = f"{left}->{dots}{out}" if data.draw(st.booleans()) else left
    proto, feeds = one_node("Einsum", list(arrays), equation=equation)
    (got,) = by_tbc(frontend.load(proto), feeds)
    assert_close(got, np.asarray(np.einsum(equation, *arrays)), 4)


def test_einsum_of_symbolic_sizes_is_a_product() -> None:
    node = helper.make_node("Einsum", ["q", "k"], ["y"], equation="bhid, bhjd -> bhij")
    inputs = {n: (np.float32, ["b", 2, s, 4]) for n, s in (("q", "s"), ("k", "t"))}
    imported = frontend.load(model([node], inputs, ["y"]))
    feeds = {"q": normal(1, 3, 2, 5, 4), "k": normal(2, 3, 2, 6, 4)}
    (got,) = by_tbc(imported, feeds)
    assert_close(got, np.asarray(feeds["q"] @ feeds["k"].swapaxes(2, 3)))


@pytest.mark.parametrize("equation", ["ab->abc", "a->a", "ab,c->a", "ab->aa", "a.b->a", "ab->a->b"])
def test_a_wrong_equation_is_refused(equation: str) -> None:
    proto, _ = one_node("Einsum", [normal(1, 2, 3)], equation=equation)
    with pytest.raises(InvalidModel, match="node 'it': Einsum"):
        frontend.load(proto)


@pytest.mark.parametrize("n", [None, 5, 16])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize(("inverse", "onesided"), [(0, 0), (0, 1), (1, 0)])
def test_dft(n: int | None, parts: int, inverse: int, onesided: int) -> None:
    if parts == 2 and onesided:
        pytest.skip("only real numbers have half a transform")
    x = normal(1, 3, 10, 2, parts)
    args: list[Array | None] = [x, None if n is None else np.array(n), np.array(1)]
    proto, feeds = one_node(
        "DFT", args, constant=(1, 2), opset=20, inverse=inverse, onesided=onesided
    )
    numbers = x[..., 0] + (1j * x[..., 1] if parts == 2 else 0)
    transform: Any = np.fft.ifft if inverse else np.fft.rfft if onesided else np.fft.fft
    y = transform(numbers, n, axis=1)
    (got,) = by_tbc(frontend.load(proto), feeds)
    assert_close(got, np.stack([y.real, y.imag], -1).astype(np.float32), 4)


def test_half_a_transform_inverted_is_real() -> None:
    y = np.fft.rfft(normal(1, 2, 9), axis=1)
    x = np.stack([y.real, y.imag], -1).astype(np.float32)
    proto, feeds = one_node(
        "DFT", [x, np.array(9), np.array(1)], constant=(1, 2), opset=20, inverse=1, onesided=1
    )
    (got,) = by_tbc(frontend.load(proto), feeds)
    assert_close(got[..., 0], np.fft.irfft(y, 9, axis=1).astype(np.float32), 4)


CASES: list[tuple[str, int, list[Any], tuple[int, ...], dict[str, Any]]] = [
    ("STFT", 17, [normal(1, 2, 40, 1), i64(5)[0], np.abs(normal(2, 16))], (1,), {}),
    ("STFT", 17, [normal(1, 2, 40, 1), i64(7)[0], None, i64(12)[0]], (1, 3), {"onesided": 0}),
    ("ReverseSequence", 10, [normal(1, 4, 3, 2), i64(4, 1, 2)], (), {}),
    ("ReverseSequence", 10, [normal(1, 3, 4, 2), i64(4, 1, 2)], (),
     {"batch_axis": 0, "time_axis": 1}),
    ("Det", 11, [normal(1, 2, 4, 4)], (), {}),
    ("LRN", 13, [normal(1, 2, 7, 3, 4)], (), {"size": 5, "alpha": 0.3, "beta": 0.6, "bias": 2.0}),
    ("Compress", 11, [normal(1, 3, 4), np.array([True, False, True])], (1,), {"axis": 1}),
    ("Compress", 11, [normal(1, 3, 4), np.array([True, False, True])], (1,), {}),
    ("NonZero", 13, [integers(1, -1, 1, 3, 4)], (0,), {}),
    ("Col2Im", 18, [normal(1, 2, 12, 15), i64(6, 7), i64(2, 2)], (1, 2),
     {"dilations": [2, 1], "pads": [1, 0, 0, 0], "strides": [1, 2]}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[f"{c[0]}-{i}" for i, c in enumerate(CASES)])
def test_operator(case: tuple[str, int, list[Any], tuple[int, ...], dict[str, Any]]) -> None:
    op, opset, args, constant, attributes = case
    proto, feeds = one_node(op, args, constant=constant, opset=opset, **attributes)
    check_against_onnxruntime(proto, feeds, scale=4)


@pytest.mark.parametrize("op", ["NonZero", "Unique"])
def test_a_size_that_data_decides_is_refused(op: str) -> None:
    proto, feeds = one_node(op, [integers(1, -1, 1, 3, 4)])
    with pytest.raises(Unsupported, match=f"node 'it': {op}: the value, which decides"):
        frontend.load(proto)
    frontend.load(proto, input_values=feeds)
