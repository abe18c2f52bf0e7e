"""The generated C project: compiled strictly, run, and built by CMake."""

import shutil
from dataclasses import replace

import adder
import pytest
from toolchain import CPU_SOURCE, INCLUDE, STRICT, needs_cc, run

from tbc.codegen.archive import Member, symbol_name, write_archive
from tbc.codegen.host import host_target
from tbc.codegen.modelinfo import TensorInfo
from tbc.codegen.project import header, project_files, runtime_file
from tbc.target import parse

OUTPUT = "sum: 0.5 -1 4 0.5 -1 4 0.5 -1 4 0.5 ...\n"
"""What the example prints: the adder adds its weights to zeros."""

CODES = (1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 16)
"""All of enum tbc_dtype."""


def write_project(folder, model):
    """The whole project of the adder for this machine, with its static library."""
    target = host_target()
    for name, text in project_files(model).items():
        (folder / name).write_text(text)
    symbol = symbol_name("tbc_adder", target.object_format, target.arch, target.index_bits)
    member = Member("adder.o", adder.compiled(target, model), (symbol,))
    archive = write_archive([member], target.object_format)
    (folder / "libadder.a").write_bytes(archive)


def build(folder):
    """The example program, compiled as strictly as may be."""
    sources = [folder / name for name in ("main.c", "tbc_cpu.c", "libadder.a")]
    run("cc", *STRICT, f"-I{folder}", "-o", folder / "example", *sources)
    return folder / "example"


def test_the_header_has_sizes_and_indices_as_macros():
    lines = header(adder.info(parse("x86-64"), state_size=7)).splitlines()
    for line in (
        "#define TBC_ADDER_ARENA_SIZE 64",
        "#define TBC_ADDER_ARENA_ALIGN 64",
        "#define TBC_ADDER_STATE_SIZE 7",
        "#define TBC_ADDER_WEIGHTS_SIZE 12",
        "#define TBC_ADDER_INPUTS 2",
        "#define TBC_ADDER_OUTPUTS 1",
        '/* input 1, "y.1": float32[n,3] */',
        "#define TBC_ADDER_INPUT_X 0",
        "#define TBC_ADDER_INPUT_Y_1 1",
        "#define TBC_ADDER_INPUT_Y_1_COUNT 12",
        "#define TBC_ADDER_INPUT_Y_1_BYTES 48",
        "#define TBC_ADDER_OUTPUT_SUM 0",
        '#define TBC_ADDER_DIM_N 0 /* "n": 0 .. 4 */',
        "extern const tbc_model tbc_adder;",
    ):
        assert line in lines


@needs_cc
def test_the_example_compiles_strictly_and_runs(tmp_path):
    write_project(tmp_path, adder.info(host_target()))
    assert run(build(tmp_path)).stdout == OUTPUT


@needs_cc
def test_the_example_reads_a_weights_file(tmp_path):
    write_project(tmp_path, adder.info(host_target(), weights_file="adder.weights"))
    program = build(tmp_path)
    weights = tmp_path / "elsewhere"
    weights.write_bytes(adder.weights(host_target()))
    assert run(program, weights).stdout == OUTPUT
    weights.write_bytes(bytes(12))
    failed = run(program, weights, check=False)
    assert failed.returncode == 1
    assert "weights" in failed.stderr
    assert run(program, tmp_path / "absent", check=False).returncode == 1


@needs_cc
def test_the_example_says_that_the_cpu_does_not_fit(tmp_path):
    write_project(tmp_path, adder.info(host_target(), cpu_bits=1 << 63))
    failed = run(build(tmp_path), check=False)
    assert failed.returncode == 1
    assert "instructions" in failed.stderr


@needs_cc
@pytest.mark.parametrize("language", [["c", "c99"], ["c++", "c++11"]])
def test_any_name_makes_a_valid_header_and_program(tmp_path, language):
    names = ["", "*/ int", 'a"b\\', "line\nbreak", "%d ??/", "x", "X", "x_count", "ünï", *"abcd"]
    ports = tuple(TensorInfo(n, code, 0, (), "", 8) for n, code in zip(names, CODES, strict=True))
    model = replace(
        adder.info(host_target()),
        inputs=ports,
        outputs=ports,
        symbols=tuple((name, 1, 2) for name in names),
    )
    (tmp_path / "adder.h").write_text(header(model))
    (tmp_path / "main.c").write_text(project_files(model)["main.c"])
    strict = [f"-std={language[1]}", "-Wall", "-Wextra", "-pedantic", "-Werror"]
    for source in ("adder.h", "main.c") if language[0] == "c" else ("adder.h",):
        flags = [*strict, f"-I{INCLUDE}", f"-I{tmp_path}", "-fsyntax-only", "-x", language[0]]
        run("cc", *flags, tmp_path / source)


@needs_cc
def test_cmake_builds_the_project(tmp_path):
    if shutil.which("cmake") is None:
        pytest.skip("CMake is not installed")
    write_project(tmp_path, adder.info(host_target()))
    run("cmake", "-S", tmp_path, "-B", tmp_path / "build")
    run("cmake", "--build", tmp_path / "build")
    assert run(tmp_path / "build/adder_example").stdout == OUTPUT


def test_the_shared_library_is_a_target_of_its_own():
    model = adder.info(parse("x86-64"))
    assert "SHARED" not in project_files(model)["CMakeLists.txt"]
    text = project_files(model, "adder.dll", "adder.lib")["CMakeLists.txt"]
    for part in ("/adder.dll", "/adder.dll.lib", "/adder.lib", "TBC_ADDER_SHARED"):
        assert part in text


def test_the_runtime_comes_along():
    files = project_files(adder.info(parse("x86-64")))
    assert files["tbc.h"] == (INCLUDE / "tbc.h").read_text()
    assert files["tbc_cpu.c"] == CPU_SOURCE.read_text() == runtime_file("src/tbc_cpu.c")
