"""A model of 2 GB compiles in the memory of its largest tensor, not in its own."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

import tbc
from tbc.codegen.host import host_target
from tbc.codegen.link import can_link

N = 2048
MEMORY = 600 << 20

pytestmark = pytest.mark.slow


def trits(layer: int) -> np.ndarray:
    return np.random.default_rng(layer).integers(-1, 2, (N, N), dtype=np.int8)


def scale(layer: int) -> np.float32:
    return np.float32(2.0**-5 * (1 + layer % 3))


def write_model(folder: Path, layers: int) -> Path:
    """Ternary layers with a Relu each, their weights in one file beside the model."""
    weights, nodes = [], []
    with (folder / "weights.bin").open("wb") as file:
        for layer in range(layers):
            (trits(layer) * scale(layer)).astype(np.float32).tofile(file)
            tensor = TensorProto(name=f"w{layer}", data_type=TensorProto.FLOAT, dims=[N, N])
            tensor.data_location = TensorProto.EXTERNAL
            place = {"location": "weights.bin", "offset": layer * N * N * 4, "length": N * N * 4}
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))
            weights.append(tensor)
            nodes.append(helper.make_node("MatMul", [f"x{layer}", f"w{layer}"], [f"y{layer}"]))
            nodes.append(helper.make_node("Relu", [f"y{layer}"], [f"x{layer + 1}"]))
    ends = [helper.make_tensor_value_info(n, 1, [1, N]) for n in ("x0", f"x{layers}")]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "large.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_two_gigabytes(tmp_path: Path) -> None:
    layers = 128
    model = write_model(tmp_path, layers)
    assert (tmp_path / "weights.bin").stat().st_size == 2 << 30
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    command = [sys.executable, "-m", "tbc", "compile", str(model), "-o", str(tmp_path / "out")]
    subprocess.run(command, check=True)
    peak = max(before, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) << 10
    assert peak < MEMORY
    size = (tmp_path / "out" / "large.weights").stat().st_size
    assert 0 <= size - layers * N * N // 4 < 64 * (layers + 1)  # 2 bits a weight, and the scales
    if not can_link(host_target()):
        pytest.skip("no linker at hand: compiled, not run")
    x = np.random.default_rng(1).normal(size=(1, N)).astype(np.float32)
    y = tbc.load(tmp_path / "out" / "liblarge.so").run({"x0": x})[f"x{layers}"]
    expected = x.astype(np.float64)
    for layer in range(layers):
        expected = np.maximum(expected @ (trits(layer) * np.float64(scale(layer))), 0)
    np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
