"""The command line: what it writes and prints, and its exit status."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import parser
from typer.testing import CliRunner, Result

import tbc
from tbc import runtime
from tbc.cli import app
from tbc.codegen.artifacts import KINDS
from tbc.codegen.host import host_target
from tbc.codegen.link import can_link, suffix
from tbc.codegen.modelinfo import TAKEN, symbol_of
from tbc.driver import identifier
from tbc.dump import STAGES
from tbc.errors import InternalError
from tbc.inspection import InspectReport
from tbc.report import CompileReport, to_json
from tbc.target import PORTABLE, TARGETS
from tbc.text import parse_graph, print_graph

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / "examples/digits/digits_mlp.onnx"
TWO_SIZES = """
<ir_version: 10, opset_import: ["" : 21]>
two (float[rows, columns] x) => (float[rows, columns] y) { y = Relu(x) }
"""

needs_linker = pytest.mark.skipif(not can_link(host_target()), reason="no linker is installed")


def tbc_cli(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def succeeded(*arguments: object) -> Any:
    """What a command prints with --json."""
    result = tbc_cli(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def images() -> np.ndarray[Any, Any]:
    pixels = np.load(ROOT / "examples/digits/test_images.npy")[:3]
    return np.asarray(pixels / np.float32(16))


@pytest.fixture
def two_sizes(tmp_path: Path) -> Path:
    path = tmp_path / "two.sizes.onnx"
    path.write_bytes(parser.parse_model(TWO_SIZES).SerializeToString())
    return path


# -- compile --------------------------------------------------------------------------------------


def test_compile_writes_what_is_asked_for(tmp_path: Path) -> None:
    kinds = set(KINDS) - {"shared", "c"}
    arguments = ("--emit", "obj,asm", "--emit", ",".join(kinds - {"obj", "asm"}))
    report = succeeded("compile", DIGITS, "-o", tmp_path, "--name", "net", *arguments)
    assert {file["kind"] for file in report["files"]} == kinds
    names = {"net.o", "net.s", "net.ll", "net.ir", "net.h", "tbc.h", "main.c", "CMakeLists.txt"}
    assert names < {path.name for path in tmp_path.iterdir()}
    for file in report["files"]:
        assert Path(file["path"]).stat().st_size == file["bytes"] > 0
    assert json.loads((tmp_path / "report.json").read_text()) == report


def test_the_report_has_the_documented_fields(tmp_path: Path) -> None:
    report = succeeded("compile", DIGITS, "-o", tmp_path, "--emit", "obj", "--target", "armv8")
    fields = [field.name for field in dataclasses.fields(CompileReport)]
    assert list(report) == fields
    for name in fields:
        assert f"        {name}: " in (CompileReport.__doc__ or "")
    assert (report["target"], report["triple"]) == ("armv8", "aarch64-unknown-linux-gnu")
    assert report["inputs"] == [{"name": "x", "type": "f32[1, 64]"}]
    assert report["batch"] == "batch"
    assert sum(report["kernels"].values()) == 3
    assert 25_856 / 4 <= report["weights"] < report["weights"] + report["code"] <= report["flash"]


def test_compile_prints_files_sizes_and_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = tbc_cli("compile", DIGITS, "--target", "cortex-m4", "--emit", "static")
    assert result.exit_code == 0
    assert "digits_mlp-cortex-m4/libdigits_mlp.a" in result.stdout
    assert "batch set to 1" in result.stdout
    assert "arena" in result.stdout
    assert "\x1b" not in result.output
    assert result.stderr == ""


def test_portable_c_is_for_no_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    report = succeeded("compile", DIGITS, "--emit", "c,header", "--dump-dir", tmp_path / "dump")
    names = {path.name for path in (tmp_path / "digits_mlp-c").iterdir()}
    assert names == {"digits_mlp.c", "digits_mlp.h", "tbc.h", "report.json"}
    source = (tmp_path / "digits_mlp-c/digits_mlp.c").read_bytes()
    assert (tmp_path / "dump/model.c").read_bytes() == source
    assert (report["target"], report["code"], report["flash"]) == ("c", None, None)
    result = tbc_cli("compile", DIGITS, "--emit", "c,static")
    assert (result.exit_code, "--emit=static is for one" in result.stderr) == (1, True)


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_compile_says_which_linker_made_the_library(tmp_path: Path) -> None:
    arguments = ("compile", DIGITS, "-o", tmp_path, "--emit", "shared", "--json")
    by_default, by_cc = (
        json.loads(tbc_cli(*arguments, *more).stdout) for more in ((), ("--linker", "cc"))
    )
    assert [file["tool"] for file in by_cc["files"]] == ["cc"]
    if host_target().object_format == "elf":
        assert [file["tool"] for file in by_default["files"]] == [""]


def test_stages_are_printed_and_dumped(tmp_path: Path) -> None:
    out, dump = tmp_path / "out", tmp_path / "dump"
    arguments = ("--print-ir-after", "lift", "--dump-dir", dump, "--emit", "obj")
    result = tbc_cli("compile", DIGITS, "-o", out, *arguments)
    assert result.exit_code == 0
    header, text = result.stderr.split("\n", 1)
    assert header == "# after lift"
    assert "lift(" in text
    names = sorted(path.name for path in dump.iterdir())
    assert names[:2] == ["00-import.ir", "00-import.npz"]
    assert {name.split("-")[1].split(".")[0] for name in names if "-" in name} == {*STAGES}
    assert "trit_gemv" in next(dump.glob("*-plan.txt")).read_text()
    assert "define" in (dump / "model.ll").read_text()
    assert ".text" in (dump / "model.s").read_text()
    dumped = dump / "00-import.ir"
    with np.load(dump / "00-import.npz") as constants:
        graph = parse_graph(dumped.read_text(), dict(constants))
    assert print_graph(graph) == dumped.read_text()
    assert "model.s" not in {path.name for path in out.iterdir()}


def test_an_unbounded_size_ends_with_a_line_to_paste(two_sizes: Path, tmp_path: Path) -> None:
    result = tbc_cli("compile", two_sizes, "-o", tmp_path / "out")
    assert result.exit_code == 2
    options = result.stderr.splitlines()[1].removeprefix("try: ").split()
    assert options == ["--dim", "rows=1..512", "--dim", "columns=1..512"]
    report = succeeded("compile", two_sizes, "-o", tmp_path / "out", "--emit", "obj", *options)
    assert report["symbols"] == {"rows": [1, 512], "columns": [1, 512]}
    assert report["model"] == "two_sizes"
    assert succeeded("inspect", two_sizes, *options[:-1], "columns=7")["layers"] == []


RESHAPE = """
<ir_version: 10, opset_import: ["" : 21]>
shaped (float[n, 6] x, int64[2] shape) => (float[a, b] y) { y = Reshape(x, shape) }
"""


@pytest.fixture
def reshape(tmp_path: Path) -> Path:
    path = tmp_path / "reshape.onnx"
    path.write_bytes(parser.parse_model(RESHAPE).SerializeToString())
    return path


def test_an_input_that_decides_a_shape_ends_with_a_line_to_paste(
    reshape: Path, tmp_path: Path
) -> None:
    result = tbc_cli("compile", reshape, "-o", tmp_path / "out")
    assert result.exit_code == 1
    option, value = result.stderr.splitlines()[-1].removeprefix("try: ").split()
    assert (option, value) == ("--input", "shape=VALUE,VALUE")
    given = ("--input", value.replace("VALUE,VALUE", "-1,3"))
    report = succeeded("compile", reshape, "-o", tmp_path / "out", "--emit", "obj", *given)
    assert report["inputs"] == [{"name": "x", "type": "f32[1, 6]"}]
    assert report["outputs"] == [{"name": "y", "type": "f32[2, 3]"}]
    np.save(tmp_path / "shape.npy", np.array([3, 2]))
    for text in ("[3, 2]", "3,2", tmp_path / "shape.npy"):
        assert succeeded("inspect", reshape, "--input", f"shape={text}")["layers"] == []


def test_verify_compiles_in_some_inputs_or_runs_on_all(reshape: Path, tmp_path: Path) -> None:
    options = ("--dim", "n=1..4", "--samples", 2)
    assert tbc_cli("verify", reshape, *options).exit_code == 1
    report = succeeded("verify", reshape, *options, "--input", "shape=-1,3")
    assert [[*sample] for sample in report["samples"]] == [["x"], ["x"]]
    np.save(tmp_path / "x.npy", np.ones((3, 6), np.float32))
    given = ("--input", "shape=9,2", "--input", f"x={tmp_path / 'x.npy'}")
    report = succeeded("verify", reshape, *given)
    assert report["samples"] == [{"x": [3, 6]}]


def test_run_takes_numbers(reshape: Path) -> None:
    x = "x=[[1, 2, 3, 4, 5, 6]]"
    printed = succeeded("run", reshape, "--input", x, "--input", "shape=2,3")
    assert printed["y"] == {"type": "float32", "values": [[1, 2, 3], [4, 5, 6]]}


def test_a_name_of_the_header_is_not_taken_again() -> None:
    headers = "".join(p.read_text() for p in (ROOT / "runtime/include").glob("*.h"))
    words = set(re.findall(r"\btbc_([a-z_]+)\b(?!\.c)", headers)) - {"net"}  # the example's model
    assert words | {"models"} == TAKEN
    assert [identifier(stem) for stem in ("model", "7.net", "a-b", "")] == [
        *("model", "_7_net", "a_b", "model")
    ]
    assert [symbol_of(name) for name in ("model", "net")] == ["tbc_model_", "tbc_net"]


def test_a_file_of_the_project_is_not_written_twice() -> None:
    files = [*ROOT.glob("runtime/include/*.h"), *ROOT.glob("runtime/src/*.c"), Path("main.c")]
    for path in files:
        assert identifier(path.stem) == f"_{path.stem}"
    assert identifier("TBC") == "_TBC"  # some file systems do not tell cases apart


# -- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["compile", "/nowhere.onnx"], 1, ["/nowhere.onnx", "No such file"]),
        (["compile", DIGITS, "--emit", "hex"], 1, ["--emit=hex", "try: one of shared, static"]),
        (["compile", DIGITS, "--emit", "blob", "--target", "wasm32"], 1, ["wasm32 has no blobs"]),
        (["compile", DIGITS, "--target", "armv9000"], 1, ["armv9000", "try: "]),
        (["compile", DIGITS, "--target", "armv8,native"], 1, ["cannot be in one library"]),
        (["compile", DIGITS, "--activations", "int4"], 2, ["--activations", "int4"]),
        (["compile", DIGITS, "-o", "/dev/null/out"], 1, ["/dev/null"]),
        (["compile", DIGITS, "--print-ir-after", "pass"], 2, ["no pass pass", "import, integers"]),
        (["compile", DIGITS, "--dim", "seq=128"], 2, ["no symbol seq", "batch"]),
        (["compile", DIGITS, "--dim", "batch"], 2, ["--dim batch", "seq=1..512"]),
        (["compile", DIGITS, "--dim", "batch=9..2"], 2, ["9..2"]),
        (["compile", DIGITS, "--dim", "batch=1", "--dim", "batch=2"], 2, ["given twice"]),
        (
            ["compile", DIGITS, "--target", "armv8", "--mattr", "sve"],
            1,
            ["'sve'", "try: +sve"],
        ),
        (["compile", DIGITS, "--target", "c", "--mcpu", "z14"], 1, ["portable C has no CPU"]),
        (["inspect", DIGITS, "--target", "armv8, z14"], 1, ["armv8 (aarch64", "cannot be in one"]),
        (["compile", DIGITS, "--ram-limit", "-1"], 2, ["--ram-limit -1 is no size", "64K"]),
        (["compile", DIGITS, "--fast-ram", "much"], 2, ["--fast-ram much is no size"]),
        (["compile", DIGITS, "--wrong"], 2, ["--wrong"]),
        (["run", DIGITS], 2, ["input", "x"]),
        (["run", DIGITS, "--input", "/nowhere.npy"], 1, ["/nowhere.npy"]),
        (["run", DIGITS, "--input", DIGITS], 1, ["not an .npy or .npz"]),
        (["run", DIGITS, "--input", "x="], 1, ["--input x= gives nothing"]),
        (["run", "/nowhere.so"], 1, ["/nowhere.so: cannot be read: No such file or directory\n"]),
        (["run", "/nowhere.so", "--dim", "batch=2"], 2, ["--dim is for ONNX files"]),
        (["inspect", "/nowhere.tbc"], 1, ["/nowhere.tbc: cannot be read: No such file or dire"]),
        (["run", ROOT / "Makefile"], 1, ["not an ONNX model"]),
        (["verify", DIGITS, "--target", "apple-m1"], 1, ["no emulator"]),
        (["verify", DIGITS, "--target", "native,"], 1, ["no target called ''"]),
        (["verify", DIGITS, "--seed", -1], 2, ["--seed"]),
        (["verify", DIGITS, "--rtol", -1], 2, ["a relative tolerance of -1.0"]),
        (["verify", DIGITS, "--rtol", "nan"], 2, ["a relative tolerance of nan"]),
        (["inspect", DIGITS, "--target", "native", "--mattr", "+nothing"], 1, ["nothing"]),
        (["inspect", DIGITS, "--input", "y=1"], 2, ["no input y"]),
        (["inspect", DIGITS, "--input", "x=1,2"], 2, ["'x' has rank 1, not 2"]),
        (["inspect", DIGITS, "--input", "x=one"], 1, ["one: cannot be read"]),
        (["run", DIGITS, "--input", "x=[[1], [2, 3]]"], 1, ["cannot be read"]),
    ],
)
def test_errors(arguments: list[object], status: int, words: list[str]) -> None:
    result = tbc_cli(*arguments)
    assert result.exit_code == status
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr


def test_errors_name_file_node_and_operator(tmp_path: Path) -> None:
    text = TWO_SIZES.replace("Relu", "NonZero")
    path = tmp_path / "sized_by_data.onnx"
    path.write_bytes(parser.parse_model(text).SerializeToString())
    result = tbc_cli("inspect", path)
    assert result.exit_code == 1
    assert f"{path}: node 'y': NonZero: " in result.stderr


def test_bugs_exit_with_3_and_show_a_traceback_on_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for error in (InternalError("LLVM died"), RuntimeError("LLVM died")):

        def broken(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr("tbc.inspection.lower", broken)
        quiet, loud = tbc_cli("inspect", DIGITS), tbc_cli("inspect", DIGITS, "-v")
        assert quiet.exit_code == loud.exit_code == 3
        assert "bug in tbc" in quiet.stderr
        assert "LLVM died" in quiet.stderr
        assert "Traceback" not in quiet.stderr
        assert "Traceback" in loud.stderr


# -- run, verify, inspect, targets ----------------------------------------------------------------


def test_run_takes_every_form_of_input(images: np.ndarray[Any, Any], tmp_path: Path) -> None:
    expected = tbc.compile(DIGITS).run({"x": images})["logits"]
    plain, several, out = (tmp_path / n for n in ("x.npy", "feeds.npz", "out.npz"))
    np.save(plain, images)
    np.savez(several, x=images)
    for text in (plain, f"x={plain}", several):
        result = tbc_cli("run", DIGITS, "--input", text, "-o", out)
        assert result.exit_code == 0, result.output
        assert "float32[3, 10]" in result.stdout
        with np.load(out) as written:
            np.testing.assert_array_equal(written["logits"], expected)
    assert f"{expected[0, 0]:.6g}" in tbc_cli("run", DIGITS, "--input", plain).stdout


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_threads_change_no_bit(threads: int, images: np.ndarray[Any, Any], tmp_path: Path) -> None:
    expected = tbc.compile(DIGITS, threads=1).run({"x": images})["logits"]
    np.save(tmp_path / "x.npy", images)
    printed = succeeded("run", DIGITS, "--input", tmp_path / "x.npy", "--threads", threads)
    np.testing.assert_array_equal(np.float32(printed["logits"]["values"]), expected)


def test_verify_by_threads() -> None:
    report = succeeded("verify", DIGITS, "--samples", 1, "--threads", 3)
    assert report["ok"]
    assert report["runner"] == "this machine, 3 threads"


def test_inspect_counts_steps_and_phases() -> None:
    alone, threads = (
        succeeded("inspect", DIGITS, "--target", target) for target in ("cortex-m4f", "armv8")
    )
    assert alone["phases"] == alone["steps"]
    assert threads["phases"] < threads["steps"]
    text = tbc_cli("inspect", DIGITS, "--target", "armv8").stdout
    assert f"{threads['steps']} steps in {threads['phases']} phases" in " ".join(text.split())


@needs_linker
def test_run_takes_a_library(images: np.ndarray[Any, Any], tmp_path: Path) -> None:
    tbc_cli("compile", DIGITS, "-o", tmp_path, "--emit", "shared", "--dim", "batch=1..8")
    np.save(tmp_path / "x.npy", images)
    library = tmp_path / f"libdigits_mlp{suffix(host_target())}"
    printed = succeeded("run", library, "--input", tmp_path / "x.npy")
    assert printed["logits"]["type"] == "float32"
    expected = tbc.compile(DIGITS).run({"x": images})["logits"]
    np.testing.assert_array_equal(np.float32(printed["logits"]["values"]), expected)


def test_verify_prints_a_table(images: np.ndarray[Any, Any], tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", images)
    result = tbc_cli("verify", DIGITS, "--inputs", tmp_path / "x.npy", "--layers")
    assert result.exit_code == 0
    assert "bit-exact" in result.stdout
    assert "node_round_1" in result.stdout
    assert "1 set of inputs, run by this machine, against onnxruntime" in result.stdout
    report = succeeded("verify", DIGITS, "--samples", 1, "--seed", 7)
    assert report["ok"]
    assert report["outputs"][0]["code"]["max_ulp"] == 0


def test_verify_fails_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    run = runtime.Model.run
    monkeypatch.setattr(
        runtime.Model, "run", lambda self, *given: {n: a + 1 for n, a in run(self, *given).items()}
    )
    result = tbc_cli("verify", DIGITS, "--samples", 1)
    assert result.exit_code == 1
    assert "FAILED" in result.stdout


def test_inspect_counts_what_the_network_has() -> None:
    report = succeeded("inspect", DIGITS, "--target", "armv8")
    assert list(report) == [field.name for field in dataclasses.fields(InspectReport)]
    sizes = [(layer["n"], layer["k"]) for layer in report["layers"]]
    assert sizes == [(128, 64), (128, 128), (10, 128)]
    assert all(layer["kernel"].startswith("trit_gemv_1x") for layer in report["layers"])
    assert [layer["bits"] for layer in report["layers"]] == [2.0, 2.0, 2 * 16 / 10]
    assert report["multiplications"] == 128 + 128 + 10
    nonzero = sum(
        round(n * k * (1 - x["zeros"])) for (n, k), x in zip(sizes, report["layers"], strict=True)
    )
    assert report["additions"] == nonzero < 25_856
    assert report["parameters"] > 25_856
    table = tbc_cli("inspect", DIGITS, "--why")
    assert "why not low-bit: nothing to say" in table.stdout


def test_inspect_says_why_a_layer_is_dense(tmp_path: Path) -> None:
    weights = ", ".join(str(i / 7) for i in range(12))
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
    dense (float[2, 4] x) => (float[2, 3] y) <float[4, 3] w = {{{weights}}}> {{ y = MatMul(x, w) }}
    """
    path = tmp_path / "dense.onnx"
    path.write_bytes(parser.parse_model(text).SerializeToString())
    (layer,) = succeeded("inspect", path)["layers"]
    assert layer["reason"]
    assert (layer["bits"], layer["multiplications"], layer["additions"]) == (32, 24, 24)
    told = tbc_cli("inspect", path, "--why").stdout
    assert f"y: {layer['reason']}" in told
    assert f"try: {layer['remedy']}" in told
    assert "--why says why" in tbc_cli("inspect", path).stdout


def test_inspect_says_why_activations_are_floats(tmp_path: Path) -> None:
    weights = ", ".join(str(i % 4 - 1.5) for i in range(128))
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
    planes (float[2, 32] x) => (float[2, 4] y) <float[32, 4] w = {{{weights}}}> {{
        y = MatMul(x, w)
    }}
    """
    path = tmp_path / "planes.onnx"
    path.write_bytes(parser.parse_model(text).SerializeToString())
    (layer,) = succeeded("inspect", path)["layers"]
    assert (layer["reason"], layer["planes"]) == ("", 1)
    assert "the input 'x' gives floats that nothing rounds" in layer["float_reason"]
    told = tbc_cli("inspect", path, "--why").stdout
    assert "why low-bit weights meet float activations" in told
    assert layer["float_reason"] in told
    assert f"try: {layer['remedy']}" in told


def test_inspect_counts_planes(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).integers(0, 4, 16 * 64) - 1.5
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
    planes (float[3, 64] x) => (float[3, 16] y)
    <float[64, 16] w = {{{", ".join(map(str, numbers))}}}> {{ y = MatMul(x, w) }}
    """
    path = tmp_path / "planes.onnx"
    path.write_bytes(parser.parse_model(text).SerializeToString())
    (layer,) = succeeded("inspect", path)["layers"]
    assert (layer["weights"], layer["planes"]) == ("2 planes of sign per tensor", 2)
    assert (layer["bits"], layer["zeros"]) == (2, 0)
    assert (layer["multiplications"], layer["additions"]) == (3 * 16 * 2, 2 * 3 * 16 * 64)


def test_targets_lists_every_name() -> None:
    rows = {row["name"]: row for row in succeeded("targets")}
    assert list(rows) == ["native", *(named.name for named in (*TARGETS, PORTABLE))]
    assert rows["native"]["tested"] == "native"
    assert rows["armv8"]["kernels"] == ["neon", "f32x4"]
    assert rows["apple-m1"]["tested"] == "compiled only"
    assert "Raspberry Pi 3" in tbc_cli("targets").stdout


# -- the process ----------------------------------------------------------------------------------


def test_numbers_that_json_lacks_are_text() -> None:
    assert json.loads(to_json({"a": [float("inf"), 1.5]})) == {"a": ["inf", 1.5]}


def test_help_needs_nothing_heavy() -> None:
    code = (
        "import sys, tbc.cli; print([m for m in ('onnx', 'numpy', 'llvmlite') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[]\n"


def test_python_m_tbc() -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tbc", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)

    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"tbc {tbc.__version__}\n")
    done = run("inspect", "/nowhere.onnx")
    assert (done.returncode, done.stdout) == (1, "")
    assert "/nowhere.onnx" in done.stderr
    done = run("--help")
    assert all(name in done.stdout for name in ("compile", "run", "verify", "inspect", "targets"))


def test_the_demo_needs_no_tools(tmp_path: Path) -> None:
    """Without linker, compiler and emulator it compiles, runs and says what it could not do."""
    demo = ROOT / "examples/demo.py"
    code = (
        "import runpy, sys; sys.modules['ziglang'] = None; "
        f"sys.argv = ['demo.py', {str(tmp_path)!r}]; "
        f"runpy.run_path({str(demo)!r}, run_name='__main__')"
    )
    command = [sys.executable, "-c", code]
    environment = {"PATH": "", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "356 of 360 held-out images right (98.89%)" in done.stdout
    assert ("no shared library" in done.stdout) == (host_target().object_format != "elf")
    assert "armv8: compiled, not run" in done.stdout
    assert "native: run by this machine: bit-exact, agrees with onnxruntime" in done.stdout
    assert "one image, one thread" in done.stdout
