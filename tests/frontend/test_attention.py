"""onnxruntime's attention operators against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnx_models import (
    MICROSOFT,
    Array,
    assert_close,
    by_onnxruntime,
    by_tbc,
    check_against_onnxruntime,
    check_on,
    integers,
    model,
    normal,
    one_node,
)
from onnxruntime_oracle import LARGEST_WEIGHT

from tbc import frontend
from tbc.errors import Unsupported

F = np.float32
HEADS, KV, SIZE = 4, 2, 16
ANGLES = normal(9, 16, SIZE // 2)


def i32(*numbers: int) -> Array:
    return np.array(numbers, np.int32)


def grouped(
    steps: int, past: int | None, lengths: Array, *, packed: bool = False, room: int | None = None,
    **attributes: Any,
) -> tuple[Any, dict[str, Array]]:  # fmt: skip
    batch = len(lengths)
    q, k, v = (normal(i, batch, steps, n * SIZE) for i, n in enumerate((HEADS, KV, KV)))
    old = [None, None] if past is None else [normal(i, batch, KV, past, SIZE) for i in (4, 5)]
    total = np.array(room or (past or 0) + steps, np.int32)
    args = [np.concatenate([q, k, v], 2), None, None] if packed else [q, k, v]
    rotary = [np.cos(ANGLES), np.sin(ANGLES)] if attributes.get("do_rotary") else []
    return one_node(
        "GroupQueryAttention", [*args, *old, lengths - i32(1), total, *rotary], constant=(6,),
        outputs=3, domain=MICROSOFT, num_heads=HEADS, kv_num_heads=KV, **attributes,
    )  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [{}, {"packed": True}, {"do_rotary": 1}, {"do_rotary": 1, "rotary_interleaved": 1},
     {"local_window_size": 2}, {"softcap": 5.0}, {"scale": 0.5}, {"smooth_softmax": 1}],
)  # fmt: skip
@pytest.mark.parametrize(("steps", "past", "lengths"), [(4, None, (4, 4)), (1, 5, (6, 6))])
def test_group_query_attention(
    options: dict[str, Any], steps: int, past: int | None, lengths: tuple[int, int]
) -> None:
    check_against_onnxruntime(*grouped(steps, past, i32(*lengths), **options), scale=2)


def test_rows_of_a_batch_may_differ_in_length() -> None:
    proto, feeds = grouped(1, 7, i32(4, 7), room=7, do_rotary=1)
    expected = by_onnxruntime(proto, feeds)
    got = by_tbc(frontend.load(proto), feeds)
    assert_close(got[0], expected[0], 2)
    for cache, wanted in zip(got[1:], expected[1:], strict=True):
        for row, length in enumerate((4, 7)):
            assert_close(cache[row, :, :length], wanted[row, :, :length], 2)


def test_the_length_of_the_cache_may_be_a_symbol() -> None:
    lines = [
        helper.make_node("Shape", ["mask"], ["sizes"]),
        helper.make_node("Gather", ["sizes", "one"], ["all"]),
        helper.make_node("Cast", ["all"], ["total"], to=6),
        helper.make_node("ReduceSum", ["mask", "axis"], ["counts"], keepdims=0),
        helper.make_node("Sub", ["counts", "one"], ["last"]),
        helper.make_node("Cast", ["last"], ["lengths"], to=6),
        helper.make_node(
            "GroupQueryAttention", ["q", "k", "v", "past_k", "past_v", "lengths", "total"],
            ["y", "new_k", "new_v"], domain=MICROSOFT, num_heads=HEADS, kv_num_heads=KV,
        ),
    ]  # fmt: skip
    inputs: dict[str, Any] = {
        "q": (F, ["b", "s", HEADS * SIZE]), "k": (F, ["b", "s", KV * SIZE]),
        "v": (F, ["b", "s", KV * SIZE]), "past_k": (F, ["b", KV, "p", SIZE]),
        "past_v": (F, ["b", KV, "p", SIZE]), "mask": (np.int64, ["b", "t"]),
    }  # fmt: skip
    constants = {"one": np.array(1), "axis": np.array([1])}
    proto = model(lines, inputs, ["y", "new_k", "new_v"], constants)
    feeds = []
    for steps, past in ((3, 0), (1, 4)):
        sizes = {"b": 2, "s": steps, "p": past, "t": steps + past}
        shapes = {n: [sizes.get(str(d), d) for d in s] for n, (_, s) in inputs.items()}
        arrays = {n: normal(i, *s) for i, (n, s) in enumerate(shapes.items())}
        feeds.append({**arrays, "mask": np.ones(shapes["mask"], np.int64)})
    check_on(proto, *feeds)


QKV = [normal(i, 2, 3, HEADS * SIZE) for i in range(3)]
MASK = np.array([[1, 1, 0], [1, 1, 1]], np.int32)
PAST = [normal(i, 2, HEADS, 4, SIZE) for i in (5, 6)]
BY_HEADS = [normal(i, 2, HEADS, 5, SIZE) for i in (7, 8)]


@pytest.mark.parametrize(
    ("args", "options"),
    [
        (QKV, {}),
        (QKV, {"scale": 0.3, "unidirectional": 1}),
        ([*QKV, normal(4, 3 * HEADS * SIZE)], {}),
        ([*QKV, None, MASK], {}),
        ([*QKV, None, i32(2, 3)], {}),
        ([*QKV, None, None, normal(4, 1, HEADS, 3, 3)], {}),
        ([*QKV, None, None, None, *PAST], {}),
        ([QKV[0], *BY_HEADS], {}),
    ],
)
def test_multi_head_attention(args: list[Array | None], options: dict[str, Any]) -> None:
    count = 3 if len(args) > 6 else 1  # onnxruntime reads the past only where it is added to
    proto, feeds = one_node(
        "MultiHeadAttention", args, outputs=count, domain=MICROSOFT, num_heads=HEADS, **options
    )
    check_against_onnxruntime(proto, feeds, scale=2)


def by_import(*args: Array) -> Array:
    proto, feeds = one_node("MultiHeadAttention", list(args), domain=MICROSOFT, num_heads=HEADS)
    return by_tbc(frontend.load(proto), feeds)[0]


def test_packed_projections_are_taken_apart() -> None:
    q, k, v = (x.reshape(2, 3, HEADS, SIZE) for x in QKV)
    expected = by_import(*QKV)
    assert_close(by_import(np.stack([q, k, v], 3)), expected)
    assert_close(by_import(QKV[0], np.stack([k, v], 3)), expected)


# -- with projections ------------------------------------------------------------------------------

HIDDEN, WIDTH = 24, HEADS * SIZE
TOKENS = normal(1, 2, 3, HIDDEN)
WEIGHTS = [normal(2, HIDDEN, 3 * WIDTH), normal(3, 3 * WIDTH)]
LAST_TWO = np.tril(np.ones((2, 3, 3), np.int32)) - np.tril(np.ones((2, 3, 3), np.int32), -2)


@pytest.mark.parametrize(
    ("args", "options"),
    [
        (WEIGHTS, {}),
        ([WEIGHTS[0], None], {"scale": 0.3}),
        (WEIGHTS, {"unidirectional": 1}),
        ([*WEIGHTS, MASK], {}),
        ([*WEIGHTS, i32(2, 3)], {"mask_filter_value": -3.0}),
        ([*WEIGHTS, i32(2, 3, 1, 0)], {}),
        ([*WEIGHTS, LAST_TWO], {}),
        ([*WEIGHTS, None, normal(4, 2, 2, HEADS, 4, SIZE)], {}),
        ([*WEIGHTS, None, None, normal(4, 1, HEADS, 3, 3)], {}),
        ([*WEIGHTS], {"qkv_hidden_sizes": [WIDTH // 2, WIDTH // 2, 2 * WIDTH]}),
    ],
)
def test_attention_with_projections(args: list[Array | None], options: dict[str, Any]) -> None:
    proto, feeds = one_node(
        "Attention", [TOKENS, *args], constant=(1,), outputs=2 if len(args) == 4 else 1,
        domain=MICROSOFT, num_heads=HEADS, **options,
    )  # fmt: skip
    check_against_onnxruntime(proto, feeds, scale=5)


@pytest.mark.parametrize("by_column", [False, True])
def test_quantised_attention(by_column: bool) -> None:
    weight = integers(2, -LARGEST_WEIGHT, LARGEST_WEIGHT, HIDDEN, 3 * WIDTH, dtype=np.int8)
    scale = np.abs(normal(3, 3 * WIDTH if by_column else 1)) * F(0.01)
    args = [
        integers(1, 0, 255, 2, 3, HIDDEN, dtype=np.uint8), weight, WEIGHTS[1], np.array(F(0.03)),
        scale, MASK, np.array(120, np.uint8), np.array(0, np.int8),
    ]  # fmt: skip
    proto, feeds = one_node(
        "QAttention", args, constant=(1, 3, 4, 6, 7), domain=MICROSOFT, num_heads=HEADS
    )
    check_against_onnxruntime(proto, feeds, scale=5)


def test_what_attention_with_projections_lacks_is_refused() -> None:
    proto, _ = one_node(
        "Attention", [TOKENS, *WEIGHTS], domain=MICROSOFT, num_heads=HEADS, do_rotary=1
    )
    with pytest.raises(Unsupported, match="do_rotary is not supported"):
        frontend.load(proto)


@pytest.mark.parametrize("segments", [True, False])
@pytest.mark.parametrize("places", [None, i32(2, 0, 1).reshape(1, 3)])
def test_embeddings_and_their_normalisation(segments: bool, places: Array | None) -> None:
    ids = integers(1, 0, 9, 2, 3, dtype=np.int32)
    tables = [normal(2, 10, HIDDEN), normal(3, 5, HIDDEN), normal(4, 2, HIDDEN)]
    kinds = [i32(0, 1, 1, 0, 0, 1).reshape(2, 3), tables[2]] if segments else [None, None]
    args = [
        ids,
        kinds[0],
        *tables[:2],
        kinds[1],
        normal(5, HIDDEN),
        normal(6, HIDDEN),
        MASK,
        places,
    ]
    proto, feeds = one_node(
        "EmbedLayerNormalization", args[: 8 if places is None else 9], constant=(2, 3),
        outputs=3, domain=MICROSOFT, epsilon=1e-3,
    )  # fmt: skip
    check_against_onnxruntime(proto, feeds)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("segments", [True, False])
def test_quantised_embeddings(dtype: type[np.integer[Any]], segments: bool) -> None:
    ids = integers(1, 0, 9, 2, 3, dtype=np.int32)
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    words, places, kinds, scale, shift = (
        integers(i, int(low), int(high), *shape, dtype=dtype)
        for i, shape in enumerate([(10, HIDDEN), (5, HIDDEN), (2, HIDDEN), (HIDDEN,), (HIDDEN,)])
    )
    scales = [np.array(F(0.01 * (i + 1))) for i in range(5)]
    zeros = [np.array(100 + i, dtype) for i in range(5)]
    args: list[Array | None] = [
        ids, i32(0, 1, 1, 0, 0, 1).reshape(2, 3), words, places, kinds, scale, shift, MASK,
        *scales, *zeros,
    ]  # fmt: skip
    if not segments:
        for i in (1, 4, 10, 15):
            args[i] = None
    constant = [i for i in range(2, 18) if i != 7]
    proto, feeds = one_node(
        "QEmbedLayerNormalization", args, constant=constant, outputs=2, domain=MICROSOFT
    )
    check_against_onnxruntime(proto, feeds)
