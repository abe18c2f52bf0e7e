"""Decoder blocks: bit-equal to the reference, close to onnxruntime, caches where they lie."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from compiled import Native
from decoders import Array, Decoder
from onnxruntime_oracle import LARGEST_WEIGHT, session
from strategies import assert_same

from tbc import frontend, ops
from tbc.codegen.machine import Workers
from tbc.driver import lower
from tbc.program import in_place
from tbc.reference import run_graph
from tbc.target import parse

SMALL = Decoder(hidden=48, heads=4, shared=2, size=12, inner=80, vocabulary=70, past=7,
                longest=64, head="qdq", largest=LARGEST_WEIGHT)  # fmt: skip
FUSED = replace(SMALL, style="fused", size=16)
CASES = {
    "halves": replace(SMALL, cache="f16", head="f16", table="f32"),
    "bfloats, one head of keys": replace(SMALL, cache="bf16", head="", shared=1, size=10),
    "int8 cache, no past": replace(SMALL, cache="int8", head="int8", table="int8", past=0),
    "many at once": replace(SMALL, new=9, past=21, head="nbits4", gate="silu"),
    "grouped query attention": replace(FUSED, room=11, head="nbits8"),
    "grouped query attention of many": replace(FUSED, new=9, past=0, room=9, head=""),
}


def by_onnxruntime(decoder: Decoder, feeds: dict[str, Array]) -> dict[str, Array]:
    ready = session(decoder.model())
    names = [output.name for output in ready.get_outputs()]
    return dict(zip(names, ready.run(None, feeds), strict=True))


def assert_close(actual: Array, expected: Array) -> None:
    """Within what rounding of activations and caches to 8 bits leaves."""
    a, e = actual.astype(np.float32), expected.astype(np.float32)
    assert np.abs(a - e).max(initial=0) <= 0.02 * np.abs(e).max(initial=0) + 1e-5


@pytest.mark.parametrize("name", CASES)
def test_decoders(workers: Workers, name: str) -> None:
    decoder = CASES[name]
    feeds = decoder.feeds()
    graph = frontend.load(decoder.model()).graph
    native = Native(graph, workers)
    run, reference = native.run(feeds, parts=2), run_graph(native.lowered, feeds)
    assert run.status == 0
    for output, expected in reference.items():
        assert_same(run.outputs[output], expected)
    if decoder.cache != "bf16":  # NumPy gives onnxruntime no bf16
        for output, expected in by_onnxruntime(decoder, feeds).items():
            assert_close(run.outputs[output], expected)


def test_the_past_may_have_any_length(workers: Workers) -> None:
    decoder = replace(SMALL, past=None, head="")
    graph = frontend.load(decoder.model(), dims={"past": (0, 40)}).graph
    native = Native(graph, workers)
    for past in (0, 1, 19, 40):
        feeds = decoder.feeds(past)
        outputs = native.run(feeds).outputs
        for output, expected in run_graph(native.lowered, feeds).items():
            assert_same(outputs[output], expected)
        for output, expected in by_onnxruntime(decoder, feeds).items():
            assert_close(outputs[output], expected)


@pytest.mark.parametrize("cache", ["f32", "f16", "int8"])
def test_no_cache_is_transposed_or_converted(cache: str) -> None:
    decoder = replace(SMALL, cache=cache, past=30)
    program = lower(frontend.load(decoder.model()).graph, parse("x86-64-v3"))
    held = decoder.total * decoder.size * decoder.shared
    large = [step.root.op for step in program.steps if step.root.type.size == held]
    assert large == [ops.Concat(2)] * 2


def test_caches_are_overwritten_where_they_lie(workers: Workers) -> None:
    decoder = replace(FUSED, room=40, head="")
    graph = frontend.load(decoder.model()).graph
    native = Native(graph, workers)
    names = [name for name, _ in graph.outputs]
    inputs = [str(value.op.name) for value in graph.inputs if isinstance(value.op, ops.Input)]
    shared = in_place(native.program)
    pairs = {names[output]: inputs[number] for output, number in shared.items()}
    assert pairs == {"present_k": "past_k", "present_v": "past_v"}
    feeds = decoder.feeds()
    apart = native.run(feeds).outputs
    for parts in (1, 3):
        together = native.run(feeds, parts, shared=shared).outputs
        for name, expected in apart.items():
            assert_same(together[name], expected)
    changed = (apart["present_k"] != feeds["past_k"]).any(axis=(0, 1, 3))
    assert changed.nonzero()[0].tolist() == [decoder.past]


def test_positions_behind_a_cache_are_refused(workers: Workers) -> None:
    decoder = replace(FUSED, room=8, head="")
    native = Native(frontend.load(decoder.model()).graph, workers)
    assert native.run(decoder.feeds(7)).status == 0
    assert native.run(decoder.feeds(7) | {"lengths": np.array([[8]], np.int32)}).status != 0
