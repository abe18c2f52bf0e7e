"""The command line asked for odd things: what it refuses, when, and what it leaves behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser
from streams import STATE, by_numpy, frames, stream
from test_cli import DIGITS, ROOT, needs_linker, succeeded, tbc_cli

from tbc.codegen.host import host_target
from tbc.codegen.link import suffix

KEPT = [word for pair in STATE.items() for word in ("--state", "=".join(pair))]


def saved(folder: Path, text: str) -> Path:
    """The file of a model in ONNX's text form."""
    path = folder / "model.onnx"
    onnx.save(parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]>\n{text}'), path)
    return path


@pytest.fixture
def counter(tmp_path: Path) -> Path:
    """A model whose only input is kept."""
    text = "count (float[2] old) => (float[2] y, float[2] new) <float[2] one = {1, 1}>"
    return saved(tmp_path, text + "{ new = Add(one, old) y = Mul(new, new) }")


@pytest.fixture
def relu(tmp_path: Path) -> Path:
    return saved(tmp_path, "relu (float[m, n] x) => (float[m, n] y) { y = Relu(x) }")


# -- calls in turn --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["onnx", pytest.param("library", marks=needs_linker), "blob"])
def test_calls_in_turn_keep_the_state(form: str, tmp_path: Path) -> None:
    model, inputs = tmp_path / "stream.onnx", frames(5)
    onnx.save(stream(), model)
    np.save(tmp_path / "x.npy", np.stack(inputs))
    given = ["--input", tmp_path / "x.npy", "--calls", 5, "-o", tmp_path / "y.npz"]
    if form == "onnx":
        given += KEPT
    else:
        kind = "shared" if form == "library" else "blob"
        assert tbc_cli("compile", model, *KEPT, "-o", tmp_path, "--emit", kind).exit_code == 0
        name = f"libstream{suffix(host_target())}" if form == "library" else "stream.tbc"
        model = tmp_path / name
    assert tbc_cli("run", model, *given).exit_code == 0
    with np.load(tmp_path / "y.npz") as outputs:
        assert list(outputs) == ["y"]
        np.testing.assert_array_equal(outputs["y"], np.stack([y for y, _ in by_numpy(inputs)]))


def test_calls_of_a_model_without_inputs_count(counter: Path) -> None:
    printed = succeeded("run", counter, "--state", "old=new", "--calls", 3)
    assert printed == {"y": {"type": "float32", "values": [[1, 1], [4, 4], [9, 9]]}}


def test_an_array_of_the_inputs_rank_is_for_all_calls(tmp_path: Path) -> None:
    text = "sums (float[2] a, float b) => (float[2] y) { y = Add(a, b) }"
    given = ("--input", "a=[[1, 2], [3, 4]]", "--input", "b=10", "--calls", 2)
    printed = succeeded("run", saved(tmp_path, text), *given)
    assert printed["y"]["values"] == [[11, 12], [13, 14]]
    given = ("--input", "a=1,2", "--input", "b=[10, 20, 30]", "--calls", 3)
    printed = succeeded("run", tmp_path / "model.onnx", *given)
    assert printed["y"]["values"] == [[11, 12], [21, 22], [31, 32]]


def test_rows_and_calls_must_agree(relu: Path) -> None:
    rows = ("run", relu, "--input", "x=[[[1]], [[2]]]")
    result = tbc_cli(*rows)
    assert (result.exit_code, "--calls 2 makes a call of each row" in result.stderr) == (2, True)
    result = tbc_cli(*rows, "--calls", 3)
    assert (result.exit_code, "has 2 rows, and there are 3 calls" in result.stderr) == (2, True)
    assert "try: --calls 2\n" in result.stderr
    assert tbc_cli(*rows, "--calls", 2).exit_code == 0


def test_integers_are_printed_whole(tmp_path: Path) -> None:
    text = "same (int64[2] x) => (int64[2] y) { y = Identity(x) }"
    result = tbc_cli("run", saved(tmp_path, text), "--input", "x=9007199254740993,-7")
    assert " 9007199254740993 -7" in result.stdout


def test_outputs_of_calls_that_differ_in_size(tmp_path: Path) -> None:
    text = "up (int64[1] n) => (float[k] y) <float one = {1}> { y = Expand(one, n) }"
    result = tbc_cli("run", saved(tmp_path, text), "--input", "n=[[2], [3]]", "--calls", 2)
    assert result.exit_code == 2
    assert "the output 'y' is [2] in call 0 and [3] in 1" in result.stderr


# -- given twice ----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["run", "verify", "compile", "inspect"])
def test_an_input_is_given_once(command: str, relu: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", x=np.ones((1, 2), np.float32))
    for first, second in (("x=[[1]]", "x=[[2]]"), (f"{tmp_path}/all.npz", "x=1")):
        result = tbc_cli(command, relu, "--input", first, "--input", second)
        assert (result.exit_code, "gives 'x' twice" in result.stderr) == (2, True), result.output


# -- before any work ------------------------------------------------------------------------------


@pytest.mark.parametrize(("place", "words"), [("no/x", "there is no folder"), ("", "is a folder")])
def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    place: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*_: object, **__: object) -> None:
        raise AssertionError("it began")

    monkeypatch.setattr("tbc.bench.run.Bench.report", work)
    monkeypatch.setattr("tbc.api.compile", work)
    for arguments in (["bench", "--plot"], ["run", DIGITS, "-o"]):
        result = tbc_cli(*arguments, tmp_path / place)
        assert (result.exit_code, words in result.stderr) == (1, True), result.output


# -- all files or none ----------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


FAILING = """#!/bin/sh
for word; do case $last in -o) echo partial > "$word";; esac; last=$word; done
echo no such luck >&2
exit 3
"""


@pytest.fixture
def failing_linker(tmp_path: Path) -> Path:
    """A linker that writes a part of its output before it fails."""
    path = tmp_path / "failing-ld"
    path.write_text(FAILING)
    path.chmod(0o755)
    return path


def test_a_failing_linker_leaves_nothing(failing_linker: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new/out"
    result = tbc_cli("compile", DIGITS, "-o", folder, "--linker", failing_linker)
    assert result.exit_code == 1
    assert "libdigits_mlp" in result.stderr
    assert "no such luck" in result.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("targets", ["armv8", "armv8.6,armv8"])
def test_a_failing_linker_leaves_what_was_there(
    targets: str, failing_linker: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    assert tbc_cli("compile", DIGITS, "-o", folder, "--target", "x86-64").exit_code == 0
    (folder / "notes.txt").write_text("mine")
    before = contents(folder)
    wanted = ("--target", targets, "--linker", failing_linker)
    assert tbc_cli("compile", DIGITS, "-o", folder, *wanted).exit_code == 1
    assert contents(folder) == before
    assert tbc_cli("compile", DIGITS, "-o", folder, "--target", targets).exit_code == 0
    after = contents(folder)
    assert after.keys() == before.keys()
    assert after["libdigits_mlp.a"] != before["libdigits_mlp.a"]
    assert after["notes.txt"] == b"mine"


def test_a_folder_in_the_way_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "digits_mlp.s").mkdir()
    result = tbc_cli("compile", DIGITS, "-o", tmp_path, "--emit", "obj,asm,header")
    assert (result.exit_code, "digits_mlp.s: Is a directory" in result.stderr) == (1, True)
    assert contents(tmp_path) == {}
    assert [path.name for path in tmp_path.iterdir()] == ["digits_mlp.s"]


def test_a_folder_in_the_way_of_the_report(tmp_path: Path) -> None:
    (tmp_path / "report.json").mkdir()
    result = tbc_cli("compile", DIGITS, "-o", tmp_path, "--emit", "obj")
    assert (result.exit_code, "report.json: this is a folder" in result.stderr) == (1, True)
    assert contents(tmp_path) == {}


def test_a_library_that_is_loaded_is_replaced_not_changed(relu: Path, tmp_path: Path) -> None:
    (tmp_path / "relu.o").write_bytes(b"old")
    with (tmp_path / "relu.o").open("rb") as old:
        arguments = ("-o", tmp_path, "--name", "relu", "--emit", "obj", "--dim", "n=4")
        assert tbc_cli("compile", relu, *arguments, "--dim", "m=2").exit_code == 0
        assert old.read() == b"old"
    assert (tmp_path / "relu.o").stat().st_size > 100


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--emit", "obj", "--linker", "ld"), "is for shared libraries, and none is written"),
        (("--target", "cortex-m4", "--linker", "ld"), "for shared libraries, and none"),
        (("--target", "c", "--linker", "ld"), "for shared libraries, and none"),
        (("--linker", " "), "no linker is named"),
        (("--target", "cortex-m4", "--emit", "shared"), "no operating system to load"),
    ],
)
def test_a_linker_without_work_and_work_without_a_linker(
    arguments: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused before anything is compiled."""
    monkeypatch.setattr("tbc.driver.lower", None)
    result = tbc_cli("compile", DIGITS, "-o", tmp_path / "out", *arguments)
    assert (result.exit_code, words in result.stderr) == (1, True), result.stderr
    assert not (tmp_path / "out").exists()


# -- limits ---------------------------------------------------------------------------------------


def test_the_ram_of_portable_c_is_limited_without_its_stack(tmp_path: Path) -> None:
    wanted = ("compile", DIGITS, "--target", "c", "-o", tmp_path / "out")
    result = tbc_cli(*wanted, "--ram-limit", 100)
    assert result.exit_code == 1
    assert "stack not counted: it is the C compiler's" in result.stderr
    assert "result of node_" in result.stderr
    assert not (tmp_path / "out").exists()
    report = succeeded(*wanted, "--ram-limit", "64K")
    assert report["stack"] is None
    text = tbc_cli(*wanted, "--ram-limit", report["arena"]).stdout
    assert "stack" in text
    assert "not known: it is the C compiler's" in text


# -- several targets, and none --------------------------------------------------------------------


def test_targets_given_one_by_one_are_those_with_commas(tmp_path: Path) -> None:
    wanted = ("compile", DIGITS, "-o", tmp_path, "--emit", "obj")
    targets = ("--target", "armv8", "--target", "armv8.6")
    one_by_one, at_once = (
        succeeded(*wanted, *words) for words in (targets, ("--target", "armv8,armv8.6"))
    )
    assert one_by_one == at_once
    assert one_by_one["variants"][0]["target"] == "armv8.6"
    result = tbc_cli("bench", *targets)
    assert (result.exit_code, "no target called 'armv8,armv8.6'" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("arm64", "armv8"),
        ("amd64", "x86-64"),
        ("riscv32", "rv32imc"),
        ("RP2040", "cortex-m0plus"),
        ("Cortex-M7", "cortex-m7"),
        ("attiny85", "c"),
    ],
)
def test_what_a_target_is_called_elsewhere(name: str, meant: str) -> None:
    result = tbc_cli("inspect", DIGITS, "--target", name)
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.search(rf"no target called '{name}'\ntry: {meant}(,|$)", result.stderr, re.MULTILINE)


# -- what is no place, no list and no model -------------------------------------------------------


@pytest.mark.parametrize("option", ["--output", "--dump-dir"])
def test_a_file_in_the_place_of_a_folder(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tbc.driver.lower", None)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for place, blocked in (("file", "file"), ("file/in", "file"), ("dangling/in", "dangling")):
        result = tbc_cli("compile", DIGITS, option, tmp_path / place)
        assert result.exit_code == 1
        assert f"{tmp_path / blocked}: this is no folder" in result.stderr
    assert (tmp_path / "file").read_text() == "mine"


def test_kinds_may_have_spaces_but_must_be_some(tmp_path: Path) -> None:
    report = succeeded("compile", DIGITS, "-o", tmp_path, "--emit", " obj, header ")
    assert {file["kind"] for file in report["files"]} == {"obj", "header"}
    result = tbc_cli("compile", DIGITS, "-o", tmp_path, "--emit", ",")
    assert (result.exit_code, "--emit names nothing" in result.stderr) == (2, True)


def test_a_compiled_model_is_told_from_onnx(counter: Path, tmp_path: Path) -> None:
    options = ("-o", tmp_path, "--emit", "blob,shared", "--target", "x86-64")
    assert tbc_cli("compile", counter, *options).exit_code == 0
    for name, takes in (
        ("model.tbc", "tbc run and inspect take"),
        ("libmodel.so", "tbc run takes"),
    ):
        for command in (("compile",), ("verify",), ("inspect",), ("bench", "--model")):
            if (command, name) == (("inspect",), "model.tbc"):
                continue
            result = tbc_cli(*command, tmp_path / name)
            assert (result.exit_code, f"{takes} this one" in result.stderr) == (2, True)
    for option in ("--dim", "--input", "--state"):
        result = tbc_cli("inspect", tmp_path / "model.tbc", option, "x=1")
        assert (result.exit_code, f"{option} is for ONNX files" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("x.tbc", b"junk" * 99, "x.tbc: this is not a blob"),
        ("x.tbc", b"", "x.tbc: cannot be read"),
        ("x.so", b"junk" * 99, "x.so: this is not a model that this machine can load"),
        ("x.tbc", None, "x.tbc: cannot be read: Is a directory"),
        ("x.so", None, "x.so: cannot be read: Is a directory"),
        ("x.onnx", None, "x.onnx: the file cannot be read: Is a directory"),
    ],
)
def test_what_cannot_be_run(name: str, data: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.mkdir() if data is None else path.write_bytes(data)
    result = tbc_cli("run", path)
    assert (result.exit_code, words in result.stderr) == (1, True), result.stderr


@pytest.mark.parametrize("option", ["--dim", "--state"])
def test_bench_needs_models_for_what_is_of_models(option: str) -> None:
    result = tbc_cli("bench", "--gemv", "64x64", option, "a=1")
    assert (result.exit_code, f"{option} is for models" in result.stderr) == (2, True)


def test_names_do_not_steer_the_terminal(tmp_path: Path) -> None:
    model = onnx.load(saved(tmp_path, "odd (float[2] x) => (float[2] y) { y = Relu(x) }"))
    name = "[bold]\x1b[31mred\x07"
    model.graph.input[0].name = model.graph.node[0].input[0] = f"in{name}"
    model.graph.output[0].name = model.graph.node[0].output[0] = f"out{name}"
    onnx.save(model, tmp_path / "model.onnx")
    refused = tbc_cli("run", tmp_path / "model.onnx")
    ran = tbc_cli("run", tmp_path / "model.onnx", "--input", f"in{name}=1,2")
    for text, kind in ((refused.stderr, "in"), (ran.stdout, "out")):
        assert rf"{kind}[bold]\x1b[31mred\x07" in text
        assert not {"\x1b", "\x07"} & {*text}


def test_characters_that_a_terminal_lacks_are_escaped(tmp_path: Path) -> None:
    text = "odd (float[2] x) => (float[2] y) { y = Relu(x) }"
    model = onnx.load(saved(tmp_path, text))
    model.graph.output[0].name = model.graph.node[0].output[0] = "größe ☃"
    onnx.save(model, tmp_path / "model.onnx")
    command = [sys.executable, "-m", "tbc", "run", tmp_path / "model.onnx", "--input", "x=1,2"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert r"gr\xf6\xdfe \u2603" in done.stdout
