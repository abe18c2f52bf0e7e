"""The networks of the embedded benchmark, and the program that runs what others generate."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from digits import DIGITS
from onnx import numpy_helper
from toolchain import emulator, needs_zig

from tbc.codegen.host import resolve_target
from tbc.codegen.machine import Workers
from tests.embedded_bench import TARGETS, by_tbc, rows
from tests.embedded_nets import AUTOENCODER, CNN, KEYWORDS, MLP, NETS, Net, int8, ternary
from tests.embedded_peers import PEERS, Generated, built, emx, missing

DOUBLING = """
#include <stdint.h>
#include <string.h>
static const int8_t offsets[64] = {7};
void twice(uint8_t *arena, const int8_t *x, int8_t *y);
void twice(uint8_t *arena, const int8_t *x, int8_t *y) {
    memcpy(arena, x, 64);
    for (int i = 0; i < 10; i++) y[i] = (int8_t)(2 * arena[i] + offsets[x[i] & 63]);
}
"""


def run_onnx(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (y,) = session.run(None, {"x": x})
    return np.asarray(y)


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.name)
def test_both_forms_have_the_shapes(net: Net) -> None:
    x = np.random.default_rng(0).random((1, *net.shape), np.float32) * 4
    for model, sample in ((ternary(net), x), (int8(net), (x * 60 - 128).astype(np.int8))):
        onnx.checker.check_model(model)
        assert run_onnx(model, sample).shape == (1, *net.shapes[-1])
        arrays = [numpy_helper.to_array(i) for i in model.graph.initializer]
        sizes = sorted(a.size for a in arrays if a.ndim > 1)
        assert sizes == sorted(prod(shape) for shape in net.weights if shape)


def test_sizes_are_those_of_the_networks() -> None:
    for net, name in ((CNN, "digits_cnn"), (MLP, "digits_mlp")):
        model = onnx.load(DIGITS / f"{name}.onnx")
        arrays = [numpy_helper.to_array(i) for i in model.graph.initializer]
        weights = {a.shape for a in arrays if a.ndim > 1 and a.size > 100}
        assert weights == {shape for shape in net.weights if shape}
    assert sum(map(prod, filter(None, AUTOENCODER.weights))) == AUTOENCODER.macs == 264_192
    assert KEYWORDS.macs == 49 * 3 * 64 * (40 + 64 + 64) + 64 * 12


@needs_zig
@pytest.mark.parametrize("name", TARGETS)
def test_a_generated_function_is_run_counted_and_weighed(name: str, tmp_path: Path) -> None:
    emulator("qemu-system-arm")
    (tmp_path / "twice.c").write_text(DOUBLING)
    prototype = "void twice(uint8_t *, const int8_t *, int8_t *);"
    call = "twice(arena, input, output)"
    generated = Generated((tmp_path / "twice.c",), (), prototype, call, 64)
    program = built(generated, MLP, resolve_target(name), tmp_path)
    x = np.arange(-5, 59, dtype=np.int8)
    y, functions = program.run(x.tobytes())
    expected = 2 * x[:10] + np.where(x[:10] == 0, 7, 0)
    np.testing.assert_array_equal(np.frombuffer(y, np.int8), expected.astype(np.int8))
    assert functions.keys() <= {"twice", "memcpy", "__aeabi_memcpy"}
    assert 10 < functions["twice"] < 1000
    assert program.weights == 64
    assert 64 < program.flash < 1000


@needs_zig
def test_tbc_takes_part(tmp_path: Path) -> None:
    """Its outputs were compared with the reference; the table's ratios are by its figures."""
    emulator("qemu-system-arm")
    with Workers(1) as workers:
        own = by_tbc(MLP, resolve_target("cortex-m4f"), workers)
    assert 1.39 < own.instructions / MLP.macs < 3
    assert MLP.macs / 4 < own.weights < own.flash < MLP.macs
    (line,) = rows("cortex-m4f", MLP, [own])
    assert line.split("|")[5:9:3] == [" 1.00 ", " 1.00 "]


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.name)
def test_the_c_of_others_computes_the_network(net: Net, tmp_path: Path) -> None:
    """emx-onnx-cgen's, of the same ONNX file, is onnxruntime's result but for roundings."""
    (peer,) = (name for name, make in PEERS.items() if make is emx)
    if reason := missing(peer):
        pytest.skip(reason)
    program = built(emx(net, tmp_path), net, resolve_target("cortex-m4f"), tmp_path)
    x = np.random.default_rng(0).integers(-128, 128, (1, *net.shape)).astype(np.int8)
    y, _ = program.run(x.tobytes())
    expected = run_onnx(int8(net), x).reshape(-1).astype(np.int32)
    found = np.frombuffer(y, np.int8).astype(np.int32)
    assert (np.abs(found - expected) <= 1).mean() > 0.9
