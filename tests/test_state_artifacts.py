"""A streaming network in every form that tbc writes: ten calls in turn, compared with NumPy."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime_oracle import session
from streams import CHANNELS, FILTERS, STATE, by_numpy, frames, stream
from test_c_program import SANITIZED, C, _needs_sanitizers
from test_web import call, decoded, in_node
from toolchain import STRICT, needs_cc, needs_zig, run
from typer.testing import CliRunner

import tbc
from tbc import verification
from tbc.cli import app
from tbc.codegen.host import host_target
from tbc.codegen.link import can_link
from tbc.emulate import can_run
from tbc.errors import BadState
from tbc.reference import run_calls
from tbc.specialise import Specialiser
from tbc.target import parse
from tbc.verification import verify

OPTIONS = [word for pair in STATE.items() for word in ("--state", "=".join(pair))]
FRAMES = frames(10)
EXPECTED = list(by_numpy(FRAMES))

needs_linker = pytest.mark.skipif(not can_link(host_target()), reason="no linker is installed")


def tbc_cli(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stream") / "stream.onnx"
    onnx.save(stream("batch"), path)
    return path


def compiled(model: Path, folder: Path, *more: str) -> Any:
    """The report on what the command writes."""
    done = tbc_cli("compile", model, *OPTIONS, "-o", folder, "--json", *more)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def check_in_turn(model: Any) -> None:
    """Assert that a model in Python gives what NumPy does, and again from a new state."""
    for _ in range(2):
        state = model.new_state()
        for x, (y, _) in zip(FRAMES, EXPECTED, strict=True):
            found = model.run({"x": x}, state)
            assert found.keys() == {"y"}
            np.testing.assert_array_equal(found["y"], y)


# -- Python ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_python(threads: int) -> None:
    model = tbc.compile(stream(), state=STATE, threads=threads)
    assert [t.name for t in model.inputs] == ["x"]
    check_in_turn(model)
    with pytest.raises(ValueError, match=r"needs a state of 128 bytes.*new_state"):
        model.run({"x": FRAMES[0]})
    with pytest.raises(ValueError, match="needs a state"):
        model.run({"x": FRAMES[0]}, model.new_state()[1:])


def test_states_are_of_their_own() -> None:
    model = tbc.compile(stream(), state=STATE)
    states = [model.new_state(), model.new_state()]
    for x, (y, _) in zip(FRAMES, EXPECTED, strict=True):
        np.testing.assert_array_equal(model.run({"x": x}, states[0])["y"], y)
        model.run({"x": x + 1}, states[1])
    assert (states[0] != states[1]).any()


def test_open_sizes_beside_a_state() -> None:
    """What is kept outlives the code for other sizes: a running sum over rows."""
    graph = helper.make_graph(
        [
            helper.make_node("ReduceSum", ["x", "axes"], ["part"], keepdims=1),
            helper.make_node("Add", ["old", "part"], ["new"]),
            helper.make_node("Mul", ["x", "new"], ["y"]),
        ],
        "rows",
        [helper.make_tensor_value_info(n, 1, s) for n, s in (("x", ["n", 3]), ("old", [1, 3]))],
        [helper.make_tensor_value_info(n, 1, s) for n, s in (("y", ["n", 3]), ("new", [1, 3]))],
        [onnx.numpy_helper.from_array(np.array([0]), "axes")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    model = tbc.compile(proto, state={"old": "new"})
    state, total = model.new_state(), np.zeros(3, np.float32)
    for rows in (1, 9, 3, 70, 2):
        x = np.full((rows, 3), 0.5, np.float32)
        total = total + x.sum(axis=0)
        np.testing.assert_array_equal(model.run({"x": x}, state)["y"], x * total)


def test_reference() -> None:
    graph = Specialiser(stream(), states=STATE).graph
    for (outputs, kept), (y, total) in zip(
        run_calls(graph, [{"x": x} for x in FRAMES]), EXPECTED, strict=True
    ):
        np.testing.assert_array_equal(outputs["y"], y)
        np.testing.assert_array_equal(kept["total"], total)


def recurrent(steps: int) -> onnx.ModelProto:
    """An LSTM over `steps` of x[steps, 2, 4] from h and c, each [1, 2, 5]."""
    rng = np.random.default_rng(0)
    sizes = {"w": (1, 20, 4), "r": (1, 20, 5), "b": (1, 40)}
    constants = [
        onnx.numpy_helper.from_array(rng.standard_normal(size).astype(np.float32), name)
        for name, size in sizes.items()
    ]
    names = ["x", "w", "r", "b", "", "h", "c"], ["y", "next_h", "next_c"]
    nodes = [helper.make_node("LSTM", *names, hidden_size=5)]
    shapes = {"x": (steps, 2, 4), "h": (1, 2, 5), "c": (1, 2, 5), "y": (steps, 1, 2, 5)}
    shapes |= {"next_h": (1, 2, 5), "next_c": (1, 2, 5)}
    infos = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()}
    inputs, outputs = ([infos[n] for n in part] for part in (("x", "h", "c"), names[1]))
    graph = helper.make_graph(nodes, "recurrent", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_recurrent_layer_in_pieces(steps: int) -> None:
    """What onnxruntime computes of a whole sequence; a loop reads the states of some steps."""
    count = 3
    x = np.random.default_rng(1).standard_normal((count * steps, 2, 4)).astype(np.float32)
    zeros = np.zeros((1, 2, 5), np.float32)
    feeds = {"x": x, "h": zeros, "c": zeros}
    (expected,) = session(recurrent(count * steps)).run(["y"], feeds)
    pairs = {"h": "next_h", "c": "next_c"}
    model = tbc.compile(recurrent(steps), state=pairs)
    state = model.new_state()
    found = [model.run({"x": part}, state)["y"] for part in np.split(x, count)]
    np.testing.assert_allclose(np.concatenate(found), expected, rtol=1e-5, atol=1e-6)
    assert verify(recurrent(steps), "c", state=pairs).ok


# -- C and files ----------------------------------------------------------------------------------


@needs_cc
@pytest.mark.parametrize("form", ["machine code", "c"])
def test_ten_calls_from_c(form: str, model: Path, tmp_path: Path) -> None:
    """With an inaccessible page around all memory, and under the sanitizers."""
    _needs_sanitizers(tmp_path)
    kinds = ("--emit", "c,header") if form == "c" else ("--emit", "static,header")
    report = compiled(model, tmp_path, *kinds)
    assert report["state"] > 0
    assert f"STREAM_STATE_SIZE {report['state']}\n" in (tmp_path / "stream.h").read_text()
    source = tmp_path / ("stream.c" if form == "c" else "libstream.a")
    program, define = tmp_path / "guarded", "-DMODEL=tbc_stream"
    files = (C / "guarded.c", source, f"-I{tmp_path}", "-o", program)
    run("cc", *STRICT, *SANITIZED, define, *files)
    sent = b"".join(np.array(x.nbytes, np.uintp).tobytes() + x.tobytes() for x in FRAMES)
    for place in ("start", "end"):
        done = subprocess.run([program, place, "1"], input=sent, capture_output=True)
        assert done.returncode == 0, done.stderr
        found = np.frombuffer(done.stdout, np.float32).reshape(len(FRAMES), 1, FILTERS, 1)
        np.testing.assert_array_equal(found, [y for y, _ in EXPECTED])


@needs_linker
@pytest.mark.parametrize("kind", ["shared", "blob"])
def test_files_in_python(kind: str, model: Path, tmp_path: Path) -> None:
    compiled(model, tmp_path, "--emit", kind)
    (path,) = (p for p in tmp_path.iterdir() if p.suffix != ".json")
    loaded = tbc.load(path)
    check_in_turn(loaded)
    loaded.self_test()
    x, y = tmp_path / "x.npy", tmp_path / "y.npz"
    np.save(x, FRAMES[0])
    done = tbc_cli("run", path, "--input", x, "-o", y)
    assert done.exit_code == 0, done.output
    np.testing.assert_array_equal(np.load(y)["y"], EXPECTED[0][0])
    done = tbc_cli("run", path, "--input", x, *OPTIONS)
    assert done.exit_code == 2
    assert "compiled already" in done.output


@needs_linker
def test_variants_have_one_state(model: Path, tmp_path: Path) -> None:
    is_x86 = host_target().arch == "x86"
    names = ["x86-64", "x86-64-v3"] if is_x86 else ["armv8", "armv8.2+dotprod"]
    report = compiled(model, tmp_path, "--emit", "shared", "--target", ",".join(names))
    (library,) = tmp_path.glob("libstream.*")
    loaded = tbc.load(library)
    sizes = [each["state"] for each in report["variants"]]
    assert report["whole"]["state"] == max(sizes)
    assert loaded.state_size in sizes
    check_in_turn(loaded)
    loaded.self_test()


def test_the_state_is_ram(model: Path, tmp_path: Path) -> None:
    done = tbc_cli(
        "compile", model, *OPTIONS, "-o", tmp_path, "--target=cortex-m4", "--ram-limit=64"
    )
    assert done.exit_code == 1
    assert re.search(r"state\s+\d+ B", done.output)


def test_inspect_tells_the_state(model: Path, tmp_path: Path) -> None:
    done = tbc_cli("inspect", model, *OPTIONS, "--json")
    assert json.loads(done.stdout)["state"] == 128
    compiled(model, tmp_path, "--emit", "blob", "--target=armv8")
    done = tbc_cli("inspect", tmp_path / "stream.tbc")
    assert "state 128 B" in " ".join(done.output.split())


@needs_zig
@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_javascript(model: Path, tmp_path: Path) -> None:
    compiled(model, tmp_path, "--emit", "shared", "--target=wasm32", "--dim", "batch=1")
    steps = [{"load": "net", "file": "libstream.wasm"}, {"test": "net"}, {"reset": "net"}]
    steps += [call("net", {"x": x}) for x in FRAMES[:3]]
    answers = in_node(tmp_path, *steps, {"reset": "net"}, call("net", {"x": FRAMES[0]}))
    found = [decoded(a["outputs"]["y"], np.dtype(np.float32)) for a in answers if "outputs" in a]
    for y, expected in zip(found, (0, 1, 2, 0), strict=True):
        np.testing.assert_array_equal(y, EXPECTED[expected][0])


# -- verify ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["native", "c", "cortex-m4", "s390x", "armv8"])
def test_verify(target: str) -> None:
    """On five calls in turn, on a big-endian machine too."""
    if missing := target != "native" and can_run(parse(target)):
        pytest.skip(str(missing))
    report = verify(stream("batch"), target, state=STATE, samples=5, layers=target == "native")
    assert report.ok
    assert [o.name for o in report.outputs] == ["y", "present", "total"]
    assert all(o.code.is_exact for o in report.outputs)
    assert len(report.samples) == 5


def test_verify_notices_a_wrong_state(monkeypatch: pytest.MonkeyPatch) -> None:
    call = verification._call

    def forgetful(run: Any, in_order: Any, program: Any, state: Any, feeds: Any) -> Any:
        state[:] = 0
        return call(run, in_order, program, state, feeds)

    monkeypatch.setattr(verification, "_call", forgetful)
    assert not verify(stream(), state=STATE, samples=2).ok
    assert verify(stream(), state=STATE, samples=1).ok  # the first state is zeros


def test_verify_with_given_inputs(model: Path, tmp_path: Path) -> None:
    x = tmp_path / "x.npy"
    np.save(x, FRAMES[0])
    done = tbc_cli("verify", model, *OPTIONS, "--input", f"x={x}", "--json")
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout)["samples"]) == 3


# -- what does not fit ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ({"pst": "present"}, r"no input 'pst'.*\n.*x, past, sum"),
        ({"past": "presnt"}, r"no output 'presnt'.*\n.*y, present, total"),
        ({"past": "y"}, r"input is f32\[1, 5, 2\], the output f32\[1, 9, 1\].*\n.*cache"),
        ({"past": "present", "sum": "present"}, r"sum=present: the input is f32\[1, 9, 1\]"),
    ],
)
def test_pairs_that_do_not_fit(pairs: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(BadState, match=said):
        tbc.compile(stream(), state=pairs)
    with pytest.raises(BadState, match=said):
        verify(stream(), state=pairs)
    path = tmp_path / "stream.onnx"
    onnx.save(stream(), path)
    options = [word for pair in pairs.items() for word in ("--state", "=".join(pair))]
    for command in ("compile", "inspect", "verify"):
        done = tbc_cli(command, path, *options)
        assert done.exit_code == 2, done.output


def test_sizes_that_a_call_could_change() -> None:
    with pytest.raises(BadState, match=r"f32\[batch, 5, 2\].*same size in all calls\n.*batch"):
        tbc.compile(stream("batch"), state=STATE)
    check_in_turn(tbc.compile(stream("batch"), dims={"batch": 1}, state=STATE))


def test_a_value_is_no_state() -> None:
    past = np.zeros((1, CHANNELS, 2), np.float32)
    with pytest.raises(BadState, match="past=present: a value is compiled in"):
        tbc.compile(stream(), inputs={"past": past}, state=STATE)


def test_an_output_must_be_left() -> None:
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in ("a", "b")]
    graph = helper.make_graph([helper.make_node("Neg", ["a"], ["b"])], "g", *([v] for v in value))
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    with pytest.raises(BadState, match=r"no output would be left.*\n.*Identity"):
        tbc.compile(proto, state={"a": "b"})


def test_element_types_that_are_stored_alike() -> None:
    """An int4 is stored as an int8, but it is none."""
    types = [("x", TensorProto.FLOAT), ("a", TensorProto.INT4)]
    inputs = [helper.make_tensor_value_info(n, t, [2]) for n, t in types]
    outputs = [helper.make_tensor_value_info(n, t, [2]) for n, t in (("y", 1), ("b", 3))]
    nodes = [
        helper.make_node("Cast", ["a"], ["y"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["x"], ["b"], to=TensorProto.INT8),
    ]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    with pytest.raises(BadState, match="a=b: the file has the input in another element type"):
        tbc.compile(proto, state={"a": "b"})


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["past"], "--state past is no pair"),
        (["=present"], "is no pair"),
        (["past=present", "past=total"], "past=total: that input is present already"),
    ],
)
def test_options_that_are_none(texts: list[str], said: str, model: Path) -> None:
    done = tbc_cli("compile", model, *(f"--state={text}" for text in texts))
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())


def test_value_and_state_on_the_command_line(model: Path) -> None:
    options = ("--input", "past=[[[0,0],[0,0],[0,0],[0,0],[0,0]]]", *OPTIONS)
    done = tbc_cli("compile", model, *options)
    assert done.exit_code == 2
    assert "a value is compiled in" in " ".join(done.output.split())


def test_bench_runs_on_a_state(model: Path) -> None:
    done = tbc_cli("bench", "--model", model, *OPTIONS, "--rounds=1", "--cold-mib=0", "--json")
    assert done.exit_code == 0, done.output
