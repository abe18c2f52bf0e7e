"""The benchmarks run, and what they time computes what it should."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import sys
import time
from importlib.util import find_spec
from itertools import islice, pairwise, repeat
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from toolchain import ROOT, run
from typer.testing import CliRunner, Result

from tbc.api import is_native
from tbc.bench import dots, limits
from tbc.bench.contestants import code_of
from tbc.bench.dots import Dot, Product, kernels_of
from tbc.bench.layers import Layer
from tbc.bench.memory import PAGE, Copies, Ring
from tbc.bench.onnx_models import bit_linear
from tbc.bench.peers import Contest, Peer, peers
from tbc.bench.plot import COLORS, SIZE
from tbc.bench.report import KINDS, BenchReport, Case, Row, Work, rows
from tbc.bench.team import Team
from tbc.bench.timing import IS_THREADS, Quartiles, in_turns, quartiles, sample
from tbc.cli import app
from tbc.codegen.host import host_target, resolve_target
from tbc.codegen.llvm_text import Module
from tbc.codegen.machine import Workers
from tbc.errors import InternalError
from tbc.frontend import load
from tbc.layout import Layout
from tbc.runtime import structs
from tbc.types import DType

LESSER = ("native", "x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4")


def bench(*arguments: object) -> Result:
    options = [str(argument) for argument in ("bench", "--rounds", 1, *arguments)]
    return CliRunner().invoke(app, options)


def report(*arguments: object) -> Any:
    done = bench(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def fields(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


HOST = host_target()
RUNNABLE = [name for name in LESSER if is_native(resolve_target(name))]
"""Targets whose code this machine can run."""


INSTALLED, _ = peers()


@pytest.mark.parametrize("peer", INSTALLED, ids=lambda peer: peer.name)
@pytest.mark.parametrize("m", [1, 3])
def test_a_peer_multiplies_by_the_same_weights(peer: Peer, m: int) -> None:
    product = Product(m, 128, 512)
    if lack := peer.lacks(product):
        pytest.skip(lack)
    x, w = product.x(DType.f32), product.weights(DType.trit)
    contest = Contest(peer, product, w, 0.02, x)
    expected = x @ w.T.astype(np.float32) * np.float32(0.02)
    assert contest.result.shape == (m, 128)
    assert np.abs(contest.result - expected).max() < 0.02 * np.abs(expected).max()
    calls = contest.cold(2 * peer.bytes(product))
    assert calls is not None
    for call in islice(calls, 3):
        call()


# -- the command ----------------------------------------------------------------------------------


def test_json() -> None:
    found = report("--gemv", "128x160", "--gemm", "3x160x160", "--cold-mib", 1)
    assert found.keys() == fields(BenchReport)
    cases = [(case["name"], case["weights"]) for case in found["cases"]]
    names = ("1x128x160", "3x160x160")
    assert cases == [(name, weights) for name in names for weights in ("cold", "hot")]
    for case in found["cases"]:
        assert case.keys() == fields(Case)
        for row in case["rows"]:
            assert row.keys() == fields(Row)
            assert row["kind"] in KINDS
            assert 0 < row["lower_us"] <= row["median_us"] <= row["upper_us"]
            assert all(row[n] is None or row[n] > 0 for n in ("gb_per_s", "gmac_per_s", "of_limit"))
            assert (row["limit"] == "") == (row["of_limit"] is None)
        kinds = {row["kind"] for row in case["rows"]}
        assert kinds == {"stream", "peak", "dot", "layer", "peer"}
    assert any("LUT needs n in multiples of 128" in note for note in found["notes"])
    missing = [m for m in ("llama_cpp", "torch", "litespark_inference") if find_spec(m) is None]
    assert [n.split()[0] for n in found["notes"] if "is not installed" in n] == missing


def test_explained() -> None:
    target = "x86-64-v3" if "x86-64-v3" in RUNNABLE else "native"
    arguments = ("--gemm", "3x160x160", "--cold-mib", 1, "--target", target, "--explain")
    for case in report(*arguments)["cases"]:
        dots = {row["name"]: row for row in case["rows"] if row["kind"] == "dot"}
        assert dots.keys() == {
            k.name for k in kernels_of(resolve_target(target), Product(3, 160, 160), True)
        }
        assert all(row["predicted_us"] for name, row in dots.items() if "avx2" in name)
        assert len(case["verdicts"]) == 4
        assert all("the choice, " in verdict for verdict in case["verdicts"])
    shown = bench(*arguments).output
    assert "of predicted" in shown
    assert "trit by i8: the choice, " in shown


def test_predictions() -> None:
    q = Quartiles(1e-6, 2e-6, 3e-6)
    peak = Work("peak", "p", macs=6400, isa="one", instructions=100)
    stream = Work("stream", "s", bytes=1000)
    timed = [(peak, q), (stream, q)]
    for instructions, size, expected in ((500, 1000, 10), (100, 4000, 8), (1, 1, 0.02)):
        dot = Work("dot", "d", macs=1, bytes=size, isa="one", instructions=instructions)
        assert rows([*timed, (dot, q)])[-1].predicted_us == pytest.approx(expected)
    assert rows([*timed, (dataclasses.replace(dot, isa="other"), q)])[-1].predicted_us is None


def test_threads() -> None:
    found = report("--gemv", "128x160", "--cold-mib", 0, "--threads", 3)
    assert (found["threads"], found["clock"]) == (3, "wall")
    (case,) = found["cases"]
    names = [row["name"] for row in case["rows"] if row["kind"] == "layer"]
    found = [name.split(",")[0] for name in names[::2]]
    assert found == ["tbc BitLinear", "tbc MatMulNBits 4 bits"]
    assert names[1::2] == [f"{name}, 3 threads" for name in names[::2]]


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--threads", 1000, "1000 threads have no processors here: there are "),
        ("--cold-mib", 1 << 40, "1099511627776 MiB of cold weights take some "),
    ],
)
def test_what_this_machine_has_not(option: str, value: int, expected: str) -> None:
    done = bench("--gemv", "128x160", option, value)
    assert done.exit_code == 2
    assert expected in " ".join(done.stderr.split())


def test_a_team_computes_what_one_thread_does() -> None:
    graph = load(bit_linear(Product(3, 160, 96).weights(DType.trit), 0.02, 3)).graph
    layer = Layer(graph, HOST)
    x = Product(3, 160, 96).x(DType.f32)
    (expected,) = layer.feed({"x": x}).values()
    calls, _ = layer.shared(Team(2, HOST), 0)
    for call in islice(calls, 3):
        layer.results[0].bytes[:] = 0
        call()
        assert layer.results[0].bytes.tobytes() == expected.tobytes()


def test_steps_of_a_model() -> None:
    path = ROOT / "examples/digits/digits_mlp.onnx"
    whole, steps = report("--model", path, "--steps", "--rounds", 3)["cases"]
    assert [row["kind"] for row in whole["rows"]] == ["model", "model"]
    assert {row["kind"] for row in steps["rows"]} == {"step"}
    assert sum(row["share"] for row in steps["rows"]) == pytest.approx(1)
    times = [row["median_us"] for row in steps["rows"]]
    assert times == sorted(times, reverse=True)
    assert any("PackedDot" in row["name"] for row in steps["rows"])
    shown = bench("--model", path, "--steps")
    assert shown.exit_code == 0
    assert "share" in shown.output
    assert bench("--steps").exit_code == 2


def test_text_and_models() -> None:
    done = bench("--model", ROOT / "examples/digits/digits_mlp.onnx")
    assert done.exit_code == 0, done.output
    assert "onnxruntime, digits_mlp.onnx" in done.stdout
    assert "median µs" in done.stdout


def test_plot(tmp_path: Path) -> None:
    path = tmp_path / "roofs.svg"
    found = report("--gemv", "64x64", "--cold-mib", 1, "--plot", path)
    root = ElementTree.parse(path).getroot()
    svg = "{http://www.w3.org/2000/svg}"
    panels = root.findall(f"{svg}g")
    assert [panel.find(f"{svg}text").text for panel in panels] == [  # type: ignore[union-attr]
        f"{case['name']}, weights {case['weights']}" for case in found["cases"]
    ]
    for panel, case in zip(panels, found["cases"], strict=True):
        marked = [row for row in case["rows"] if row["kind"] in COLORS]
        marks = panel.findall(f"{svg}circle")
        assert len(marks) == len(marked) > 0
        for mark in marks:
            assert SIZE["left"] <= float(mark.get("cx", "")) <= SIZE["right"]
            assert SIZE["top"] <= float(mark.get("cy", "")) <= SIZE["bottom"]
        assert len(panel.findall(f"{svg}polyline")) == 2


def test_plot_of_no_product() -> None:
    done = bench("--model", ROOT / "examples/digits/digits_mlp.onnx", "--plot", "roofs.svg")
    assert done.exit_code == 2
    assert "--plot shows products" in done.stderr


def test_only_hot_weights() -> None:
    found = report("--gemv", "32x32", "--cold-mib", 0)
    assert [case["weights"] for case in found["cases"]] == ["hot"]


def test_sweep() -> None:
    found = report("--gemm", "2..4x32x64", "--cold-mib", 1)
    assert [case["weights"] for case in found["cases"]] == ["cold", "hot"]
    for case in found["cases"]:
        assert case["name"] == "2..4x32x64"
        dots = [row for row in case["rows"] if row["kind"] == "dot"]
        assert [row["name"][:6] for row in dots] == ["2 rows", "3 rows", "4 rows"]
        medians = [row["median_us"] for row in dots]
        growth = [after / before for before, after in pairwise(medians)]
        assert [row["growth"] for row in dots] == [None, *map(pytest.approx, growth)]
    assert "growth" in bench("--gemm", "1..2x16x16", "--cold-mib", 0).output


def test_products_too_small_to_be_cold() -> None:
    found = report("--gemv", "16x16", "--cold-mib", 4)
    assert {row["kind"] for row in found["cases"][0]["rows"]} == {"stream", "peak", "dot"}
    assert any("too small" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("option", "text"),
    [
        *(("--gemv", text) for text in ("64", "64x", "0x64", "1x64x64", "axb", "64x-1", "")),
        *(
            ("--gemm", text)
            for text in ("64x64", "1x2x3x4", "8 x 64 x 64", "8x0x64", "2..1x64x64", "1..x8x8")
        ),
    ],
)
def test_unknown_size(option: str, text: str) -> None:
    done = bench(option, text)
    assert done.exit_code == 2
    assert "is no product" in done.stderr


def test_foreign_target() -> None:
    done = bench("--gemv", "64x64", "--target", "s390x")
    assert done.exit_code == 1
    assert "this machine cannot run" in done.stderr


# -- what is timed --------------------------------------------------------------------------------


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("product", [Product(1, 100, 97), Product(9, 65, 640)], ids=str)
def test_every_kernel(target: str, product: Product) -> None:
    """A `Dot` compares its sums with NumPy's; its slices make up the product, or parts of it."""
    chosen = resolve_target(target)
    kernels = kernels_of(chosen, product, True)
    code = code_of(product, kernels, chosen)
    ring = Ring(1 << 20)
    for kernel in kernels:
        dot = Dot(kernel, product, code)
        assert 0 < dot.part <= 1
        for call in (*islice(dot.hot(), 2), *islice(dot.cold(ring), 2)):
            call()
    assert set(kernels_of(chosen, product, False)) <= set(kernels)


def test_wrong_sums_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    product, target = Product(1, 32, 64), HOST
    (kernel, *_) = kernels_of(target, product, False)
    code = code_of(product, [kernel], target)
    monkeypatch.setattr(Layout, "pack", lambda layout, w: np.zeros(layout.size(*w.shape), "u1"))
    with pytest.raises(InternalError, match=f"the sums of {kernel.name} are wrong"):
        Dot(kernel, product, code)


@pytest.mark.parametrize("target", RUNNABLE)
def test_reading_loops_read_everything(target: str) -> None:
    """The lanes of what they leave are the exclusive or of all words, lane by lane."""
    chosen = resolve_target(target)
    module = Module(chosen.triple)
    for stream in limits.STREAMS:
        stream.emit(module, chosen)
    with Workers(1) as workers:
        code = dots.load(module, chosen, workers)
    each = 3 * limits.STEP
    words = np.random.default_rng(0).integers(0, 1 << 32, 8 * each // 4 + 16, np.uint32)
    start = -words.ctypes.data % 64 // 4
    words = words[start : start + 8 * each // 4]
    for stream in limits.STREAMS:
        out = np.zeros(16, np.uint32)
        kinds = (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_void_p)
        read = ctypes.CFUNCTYPE(None, *kinds)(code.address(stream.symbol))
        read(words.ctypes.data, each, out.ctypes.data)
        expected = np.bitwise_xor.reduce(words[: stream.streams * each // 4])
        assert np.bitwise_xor.reduce(out) == expected, stream.name


@pytest.mark.parametrize("parts", [1, 3])
def test_parts_of_reading_loops_read_everything(parts: int) -> None:
    module = Module(HOST.triple)
    for stream in limits.STREAMS:
        stream.emit(module, HOST)
        stream.emit_shared(module, HOST)
    with Workers(1) as workers:
        code = dots.load(module, HOST, workers)
    each = 2 * limits.STEP
    words = np.random.default_rng(0).integers(0, 1 << 32, 8 * parts * each // 4 + 16, np.uint32)
    words = words[-words.ctypes.data % 64 // 4 :]
    for stream in limits.STREAMS:
        out = np.zeros(16 * parts, np.uint32)
        shares, outputs = (ctypes.c_size_t * 1)(each), (ctypes.c_void_p * 1)(out.ctypes.data)
        call = structs.Call(outputs=outputs, dims=shares, arena=words.ctypes.data)
        kinds = (ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32)
        read = ctypes.CFUNCTYPE(ctypes.c_int32, *kinds)(code.address(stream.shared))
        assert [read(ctypes.addressof(call), part, parts) for part in range(parts)] == [0] * parts
        expected = np.bitwise_xor.reduce(words[: stream.streams * parts * each // 4])
        assert np.bitwise_xor.reduce(out) == expected, stream.name


def test_every_peak_is_of_a_dot() -> None:
    named = {peak.dot for peak in limits.INTEGER_PEAKS}
    assert named <= {kernel.dot.name for kernel in dots.KERNELS}
    assert all(peak.macs(HOST) > 0 for peak in limits.peaks(HOST))


# -- time and memory ------------------------------------------------------------------------------


def test_turns_are_taken() -> None:
    order: list[str] = []
    calls = {name: repeat(lambda name=name: order.append(name)) for name in "ab"}
    times = in_turns(calls, 3, least=0.0)
    assert "".join(order) == "aaabbb" + "ab" * 3
    in_turns(calls, 2, least=1e-9)
    assert "".join(order[12:]).startswith("aaabbb")
    assert all(0 < q.lower <= q.median <= q.upper for q in times.values())


@pytest.mark.skipif(not IS_THREADS, reason="the system does not tell the time of a thread")
def test_time_stands_still_while_others_run() -> None:
    assert sample([lambda: time.sleep(0.1)]) < 0.1


def test_quartiles() -> None:
    assert quartiles([4.0, 1.0, 2.0, 3.0, 5.0]) == Quartiles(2.0, 3.0, 4.0)


def test_rows_are_measured_against_the_limits() -> None:
    second = Quartiles(1.0, 1.0, 1.0)
    works = [
        Work("stream", "slow", bytes=10),
        Work("stream", "fast", bytes=100),
        Work("peak", "integers", macs=1000),
        Work("peak", "floats", macs=10, is_float=True),
        Work("dot", "reads", macs=100, bytes=50),
        Work("dot", "computes", 0.5, macs=1000, bytes=50),
        Work("dot", "floats", macs=8, bytes=50, is_float=True),
        Work("stream", "of two", 3.0, bytes=50, threads=2),
        Work("layer", "of two", bytes=75, threads=2),
    ]
    found = rows([(work, second) for work in works])
    assert [(row.of_limit, row.limit) for row in found[:4]] == [(None, "")] * 4
    assert [(row.of_limit, row.limit) for row in found[4:7]] == [
        (0.5, "reading"),
        (0.5, "arithmetic"),
        (0.8, "arithmetic"),
    ]
    assert found[5].median_us == 2e6
    assert (found[8].of_limit, found[8].limit) == (0.5, "reading")


def test_a_ring_goes_round() -> None:
    ring = Ring(4 * PAGE)
    places = [ring.take(PAGE + 1) - ring.address for _ in range(4)]
    assert places == [0, 2 * PAGE, 0, 2 * PAGE]
    with pytest.raises(ValueError, match="has no"):
        ring.take(4 * PAGE + 1)


def test_copies_are_whole() -> None:
    image = np.arange(PAGE + 5).astype(np.uint8)
    copies = Copies(image, 3 * PAGE)
    assert len(copies.addresses) == 3
    for address in copies.addresses:
        held = (ctypes.c_uint8 * image.size).from_address(address)
        assert np.array_equal(np.frombuffer(held, np.uint8), image)


@pytest.mark.slow
def test_models_beside_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    done = run(sys.executable, "-m", "tests.bench", "--rounds", "1", "--json")
    results = json.loads(done.stdout)["results"]
    assert {r["contestant"] for r in results} >= {"tbc", "onnxruntime"}
    assert all(r["median_us"] > 0 for r in results)
