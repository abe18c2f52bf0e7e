"""Kernels that were measured: what is taken of them, what they leave the same, and their file."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import tbc
from tbc.bench.dots import Product
from tbc.bench.onnx_models import bit_linear, nbits
from tbc.bench.tuner import ROWS, Tuner, fastest, rows_between
from tbc.cli import app
from tbc.codegen.host import host_target
from tbc.errors import IncompatibleArtifact, Unsupported
from tbc.frontend import load
from tbc.inspection import inspect
from tbc.kernels import BY_NAME, WORTH, kernels_for
from tbc.passes.select import by_cost
from tbc.target import parse
from tbc.tuning import Choice, DotShape, Tuning, read_tuning, write_tuning
from tbc.types import DType

DIGITS = Path(__file__).parent.parent / "examples/digits/digits_cnn.onnx"
HOST = host_target()
SHAPE = DotShape("trit", "i8", 1, 16, 48, 64, 0, False)
V4 = parse("x86-64-v4+vnni+vbmi")
FEW, MANY = "trit_gemv_1x4c4_vnni512", "trit_panel_8x3c4_vnni512"


def tbc_cli(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments])


# -- what is measured -----------------------------------------------------------------------------


@given(st.integers(1, 200), st.integers(0, 200))
def test_some_numbers_of_rows_stand_for_all(least: int, more: int) -> None:
    rows = rows_between(least, least + more)
    assert list(rows) == sorted({*rows})
    assert rows[0] == min(least, ROWS[-1])
    assert rows[-1] == min(least + more, ROWS[-1])


TRITS = [k.name for k in kernels_for(V4, "i2", DType.i8)] + [
    k.name for k in kernels_for(V4, "x5", DType.i8)
]


@given(st.data())
def test_the_fastest_are_taken_in_one_layout(data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(1, 64), min_size=1, max_size=5, unique=True).map(sorted))
    times = {m: {k: data.draw(st.floats(1, 2)) for k in TRITS} for m in rows}
    expected = data.draw(st.sampled_from(TRITS))
    names, starts = fastest(times, expected)
    assert len(starts) == len(names) - 1
    layouts = {BY_NAME[name].layout() for name in names}
    assert len(layouts) == 1
    assert names[0] == expected or times[rows[0]][names[0]] < WORTH * times[rows[0]][expected]
    for m in rows:
        taken = [name for name, start in zip(names, (0, *starts), strict=True) if start <= m][-1]
        rivals = [t for k, t in times[m].items() if BY_NAME[k].layout() in layouts]
        assert times[m][taken] <= min(rivals) / WORTH


def test_tuning_measures_every_kernel_of_every_dot() -> None:
    told: list[str] = []
    graph = load(bit_linear(Product(3, 48, 64).weights(DType.trit), 0.02, 3)).graph
    (choice,) = Tuner(HOST, 1, told.append, cold=1 << 20).tune(graph).choices
    assert choice.shape == replace(SHAPE, least=3, most=3)
    names = {k.name for code in ("i2", "x5") for k in kernels_for(HOST, code, DType.i8, 64)}
    assert choice.microseconds.keys() == names
    assert {m for times in choice.microseconds.values() for m in times} == {3}
    assert all(t > 0 for times in choice.microseconds.values() for t in times.values())
    assert set(choice.kernels) <= names
    assert told == [f"tuning 3x48x64: {len(names)} kernels"]


@pytest.mark.parametrize(("k", "codes"), [(64, ["q4", "w8", "s8"]), (256, ["q4"])])
def test_weights_of_4_bits_are_tried_in_8_unless_in_blocks(k: int, codes: list[str]) -> None:
    product = Product(3, 48, k)
    graph = load(nbits(product.weights(DType.i4), 0.02, 3, 4)).graph
    (choice,) = Tuner(HOST, 1, lambda _: None).tune(graph).choices
    group = choice.shape.group
    names = {x.name for code in codes for x in kernels_for(HOST, code, DType.i8, k, group)}
    assert (choice.shape.weights, group) == ("i4", 128 if k == 256 else 0)
    assert choice.microseconds.keys() == names


def test_streamed_weights_are_measured_cold() -> None:
    tuner = Tuner(HOST, 1, lambda _: None, cold=1 << 20)
    shape = replace(SHAPE, most=1, is_streamed=True)
    times = tuner.times([BY_NAME[by_cost(shape, HOST)[0][0].name]], shape, 1)
    assert all(t > 0 for t in times.values())


def test_other_machines_are_not_measured() -> None:
    graph = load(bit_linear(Product(1, 16, 16).weights(DType.trit), 0.02, 1)).graph
    foreign = parse("armv8" if HOST.arch != "aarch64" else "x86-64")
    with pytest.raises(Unsupported, match="cannot run code"):
        Tuner(foreign, 1, lambda _: None).tune(graph)


# -- what is compiled -----------------------------------------------------------------------------


@pytest.mark.skipif(HOST.arch != "x86", reason="the kernels are those of x86")
def test_kernels_that_were_measured_are_taken(tmp_path: Path) -> None:
    model = bit_linear(Product(16, 48, 64).weights(DType.trit), 0.02, "rows")
    target = parse("x86-64")
    names = ("trit_gemm_2x1c4_sse2", "trit_gemv_1x1c4_wide", "trit_gemv_1x1c4_sse2")
    starts = (3, 11)
    path = tmp_path / "tuning.json"
    write_tuning(path, Tuning((Choice(SHAPE, names, starts),)), target)
    arguments = {"target": "x86-64", "dims": {"rows": (1, 16)}}
    plain, tuned = tbc.compile(model, **arguments), tbc.compile(model, tuning=path, **arguments)
    report = inspect(load(model, dims={"rows": (1, 16)}).graph, tuned.target)
    assert report.layers[0].kernel.split() == list(names)
    rng = np.random.default_rng(0)
    for rows in (1, 2, 3, 10, 11, 16):
        x = rng.standard_normal((rows, 64), np.float32)
        (a,), (b,) = plain.run({"x": x}).values(), tuned.run({"x": x}).values()
        np.testing.assert_array_equal(a, b)


def test_the_command_tunes_and_takes_its_file_again(tmp_path: Path) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    done = tbc_cli("compile", DIGITS, "-o", first, "--tune", "--emit", "obj", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["tuned"], report["untuned"]) == (4, 0)
    assert any(file["kind"] == "tuning" for file in report["files"])
    tuning = first / "tuning.json"
    done = tbc_cli("compile", DIGITS, "-o", again, "--tuning", tuning, "--emit", "obj")
    assert done.exit_code == 0, done.output
    assert "of 4 of the 4 shapes" in done.stdout
    assert (again / "digits_cnn.o").read_bytes() == (first / "digits_cnn.o").read_bytes()
    done = tbc_cli("compile", DIGITS, "--tune", "--tuning", tuning)
    assert done.exit_code == 2
    assert tbc.verify(DIGITS).ok


# -- the file -------------------------------------------------------------------------------------

GOOD = Choice(SHAPE, (FEW, MANY), (9,), {FEW: {1: 0.5}})


def test_the_file_gives_back_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "tuning.json"
    write_tuning(path, Tuning((GOOD,)), V4)
    tuning = read_tuning(path, V4)
    assert tuning == Tuning((GOOD,))
    assert tuning.find(SHAPE) == ((BY_NAME[FEW], BY_NAME[MANY]), (9,))
    assert tuning.find(replace(SHAPE, n=47)) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernels": ["trit_gemv_9x9c9_none"], "starts": []}, "no kernel trit_gemv_9x9c9_none"),
        ({"starts": []}, "do not share 1 to 16 rows"),
        ({"starts": [1]}, "do not share"),
        ({"starts": [17]}, "do not share"),
        ({"kernels": [FEW, "trit5_gemv_1x4c4_vbmi512"]}, "no kernel for this layout"),
        ({"kernels": [FEW, "sign_gemv_1x4c4_vnni512"]}, "no kernel for this layout"),
        ({"kernels": [FEW, "trit_gemv_1x1c16_helium"]}, "no kernel for this layout"),
        ({"kernels": [FEW, "trit_gemv_1x4c1_f32x16"]}, "no kernel for this layout"),
        ({"kernels": [FEW, "trit_gemv_1x1c4_neon"]}, "has no trit_gemv_1x1c4_neon"),
        ({"kernels": [FEW, 1]}, "kernels are"),
        ({"kernels": None}, "NoneType"),
        ({"starts": ["9"]}, "starts are"),
        ({"shape": {}}, "weights"),
        ({"shape": asdict(replace(SHAPE, n=True))}, "n is True"),
        ({"shape": asdict(replace(SHAPE, k=1 << 24))}, "has no"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "tuning.json"
    dot = json.loads(json.dumps(asdict(GOOD))) | change
    about = {"target": V4.name, "features": sorted(V4.features)}
    path.write_text(json.dumps({**about, "dots": [dot]}))
    with pytest.raises(IncompatibleArtifact, match=message) as raised:
        read_tuning(path, V4)
    assert raised.value.file == str(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"dots": 1}', '{"dots": [[]]}', "\x00", "null"])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tuning.json"
    path.write_text(text)
    with pytest.raises(IncompatibleArtifact, match="not what tbc compile --tune writes"):
        read_tuning(path, V4)


def test_a_lesser_target_refuses_the_file(tmp_path: Path) -> None:
    path = tmp_path / "tuning.json"
    write_tuning(path, Tuning((GOOD,)), V4)
    with pytest.raises(IncompatibleArtifact, match="x86-64-v3 has no trit_gemv_1x4c4_vnni512"):
        read_tuning(path, parse("x86-64-v3"))


def test_an_abler_target_refuses_the_file(tmp_path: Path) -> None:
    """Kernels that were never measured may be faster than those that were."""
    path, able, lesser = tmp_path / "tuning.json", parse("x86-64-v3"), parse("x86-64-v2")
    write_tuning(path, Tuning(), lesser)
    assert read_tuning(path, lesser) == Tuning()
    with pytest.raises(IncompatibleArtifact, match=r"for x86-64-v2, and x86-64-v3 has .*avx2"):
        read_tuning(path, able)
