"""Networks of others, compiled for this machine: what they compute is what onnxruntime computes.

Outputs may be off by 1e-4 of the largest magnitude of the output. That is not taken by element:
most of the numbers are probabilities near 0 and states around 0, where relative errors say nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from real_models import ABSENT, IS_THERE, REAL_MODELS, Array, F, page, speech, text_bytes

import tbc
from tbc import frontend
from tbc.differences import difference
from tbc.errors import Unfixed
from tbc.types import DType

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not IS_THERE, reason=ABSENT)]

RTOL = 1e-4
WINDOWS = 8
NEXT = {"state": "stateN", "h": "hn", "c": "cn"}
"""By input of a stream, the output that becomes it in the next window."""


def assert_close(got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    assert list(got) == list(expected)
    for name, wanted in expected.items():
        assert (got[name].shape, got[name].dtype) == (wanted.shape, wanted.dtype), name
        assert np.abs(got[name] - wanted).max() <= RTOL * np.abs(wanted).max(), name


class Both:
    """A network by tbc, open to all sizes and values, and by onnxruntime."""

    def __init__(self, name: str):
        self.model = tbc.compile(REAL_MODELS[name].path)
        self.session = REAL_MODELS[name].session()
        self.outputs = [output.name for output in self.session.get_outputs()]

    def run(self, feeds: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
        """Both results for the same inputs."""
        return self.model.run(feeds), self.reference(feeds)

    def reference(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """onnxruntime's results."""
        return dict(zip(self.outputs, self.session.run(None, dict(feeds)), strict=True))


def stream(both: Both, windows: Array, start: Mapping[str, Array], rate: int | None) -> None:
    """Compare window after window of [window, batch, sample], each side fed its own state."""
    constant = {} if rate is None else {"sr": np.array(rate)}
    ours = theirs = dict(start)
    for window in windows:
        got = both.model.run({"input": window, **ours, **constant})
        expected = both.reference({"input": window, **theirs, **constant})
        assert_close(got, expected)
        ours = {name: got[NEXT[name]] for name in start}
        theirs = {name: expected[NEXT[name]] for name in start}


def windows_of(rate: int, batch: int) -> Array:
    """Windows of 32 ms, each with the last 4 ms of the one before."""
    size, context = (512, 64) if rate == 16000 else (256, 32)
    signal = speech(WINDOWS * size + context, rate, batch)
    return np.stack([signal[:, i * size : (i + 1) * size + context] for i in range(WINDOWS)])


@pytest.mark.parametrize(
    ("name", "rates", "batches"),
    [
        ("silero_vad", (16000, 8000), (1, 3)),
        ("silero_vad_op18_ifless", (16000, 8000), (1, 3)),
        ("silero_vad_16k_op15", (16000,), (1, 3)),
        ("silero_vad_half", (None,), (1, 3)),
        ("silero_vad_openvino_16k", (None,), (1,)),
    ],
)
def test_voices_window_by_window(
    name: str, rates: tuple[int | None, ...], batches: tuple[int, ...]
) -> None:
    both = Both(name)
    for rate in rates:
        for batch in batches:
            start = {"state": np.zeros((2, batch, 128), F)}
            stream(both, windows_of(rate or 16000, batch), start, rate)


def test_voices_by_the_sequence() -> None:
    both = Both("silero_vad_16k_sequence")
    start = {name: np.zeros((1, 1, 128), F) for name in "hc"}
    windows = windows_of(16000, 1)[:, 0]
    for length in (1, 4, WINDOWS):
        stream(both, windows.reshape(-1, length, windows.shape[-1]), start, None)


def test_kinds_of_files() -> None:
    both = Both("magika")
    for batch in (1, 3, 4):
        feeds = {"bytes": text_bytes(batch)}
        feeds["bytes"][-1, 700:] = 256  # a short file is filled up
        assert_close(*both.run(feeds))


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("ocr_direction", [(1, 48, 192), (2, 48, 100), (3, 64, 320)]),
        ("ocr_detection", [(1, 128, 160), (2, 64, 96)]),
        ("ocr_recognition", [(1, 48, 160), (2, 48, 130), (1, 48, 96)]),
    ],
)
def test_texts_in_images(name: str, shapes: list[tuple[int, int, int]]) -> None:
    both = Both(name)
    for shape in shapes:
        assert_close(*both.run({"x": page(*shape)}))


def test_sizes_that_the_network_cannot_take() -> None:
    both = Both("ocr_detection")
    feeds = {"x": page(1, 100, 96)}
    with pytest.raises(ValueError, match=r"p2o_DynamicDimension_1 = 100.* 7 is not 8"):
        both.model.run(feeds)
    with pytest.raises(Exception, match=r"axis == 1 \|\| axis == largest"):
        both.reference(feeds)


@pytest.mark.parametrize("name", REAL_MODELS)
def test_code_equals_the_exact_reference(name: str) -> None:
    network = REAL_MODELS[name]
    report = tbc.verify(network.path, feeds=network.feeds)
    assert report.oracle.startswith("onnxruntime")
    assert all(output.code.is_exact for output in report.outputs)
    got = tbc.compile(network.path).run(network.feeds)
    fixed = {n: network.feeds[n] for n in network.fixed}
    others = {n: a for n, a in network.feeds.items() if n not in fixed}
    compiled_in = tbc.compile(network.path, inputs=fixed).run(others)
    for output, array in compiled_in.items():
        assert difference(array, got[output], DType.f32, 0.0).is_exact


@pytest.mark.parametrize("name", REAL_MODELS)
def test_the_hints_lead_to_a_graph(name: str) -> None:
    """Each error names what to fix next, until nothing more is asked for."""
    network = REAL_MODELS[name]
    dims: dict[str, int | tuple[int, int]] = {}
    values: dict[str, Array] = {}
    for _ in range(4):
        try:
            frontend.load(network.path, dims=dims, input_values=values)
        except Unfixed as error:
            for symbol, size in error.sizes.items():
                low, _, high = size.partition("..")
                dims[symbol] = (int(low), int(high)) if high else int(low)
            values |= {name: network.feeds[name] for name in error.inputs}
    assert frontend.load(network.path, dims=dims, input_values=values).graph.outputs
