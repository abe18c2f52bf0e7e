"""The generated C project: compiled strictly, run, and built by CMake."""

import shutil
from dataclasses import replace

import adder
import onnx
import pytest
from digits import DIGITS
from streams import STATE, stream
from toolchain import CPU_SOURCE, INCLUDE, STRICT, needs_cc, run
from typer.testing import CliRunner

from tbc.cli import app
from tbc.codegen.archive import Member, symbol_name, write_archive
from tbc.codegen.host import host_target
from tbc.codegen.modelinfo import TensorInfo
from tbc.codegen.project import PROJECTS, check_project, header, project_files, runtime_file
from tbc.errors import Unsupported
from tbc.self_test import Rule, SelfTest
from tbc.target import parse

OUTPUT = "sum: 0.5 -1 4 0.5 -1 4 0.5 -1 4 0.5 ...\n"
"""What the example prints: the adder adds its weights to zeros."""

CODES = (1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 16)
"""All of enum tbc_dtype."""


def write_project(folder, model, kind="cmake"):
    """The whole project of the adder for this machine, with its static library."""
    target, project = host_target(), PROJECTS[kind]
    for name, text in project_files(model, project=project).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    symbol = symbol_name("tbc_adder", target.object_format, target.arch, target.index_bits)
    member = Member("adder.o", adder.compiled(target, model), (symbol,))
    archive = write_archive([member], target.object_format)
    library = folder / project.library.format(cpu=target.cpu) / "libadder.a"
    library.parent.mkdir(parents=True, exist_ok=True)
    library.write_bytes(archive)
    return library


def build(folder):
    """The example program, compiled as strictly as may be."""
    sources = [folder / name for name in ("main.c", "tbc_cpu.c", "libadder.a")]
    run("cc", *STRICT, f"-I{folder}", "-o", folder / "example", *sources)
    return folder / "example"


@needs_cc
def test_the_example_runs_the_self_test(tmp_path):
    """Here its sum is wrong."""
    test = SelfTest(1, (4,), (Rule(0, 1), Rule(0, 1)))
    write_project(tmp_path, adder.info(host_target(), self_test=test))
    sources = [tmp_path / n for n in ("main.c", "tbc_cpu.c", "tbc_self_test.c", "libadder.a")]
    run("cc", *STRICT, f"-I{tmp_path}", "-o", tmp_path / "example", *sources)
    done = run(tmp_path / "example", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "adder: the self-test does not give what it should\n"


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


needs_cmake = pytest.mark.skipif(shutil.which("cmake") is None, reason="CMake is not installed")


@needs_cc
@needs_cmake
def test_cmake_builds_the_project(tmp_path):
    write_project(tmp_path, adder.info(host_target()))
    run("cmake", "-S", tmp_path, "-B", tmp_path / "build")
    run("cmake", "--build", tmp_path / "build")
    assert run(tmp_path / "build/adder_example").stdout == OUTPUT


USER = """
cmake_minimum_required(VERSION 3.16)
project(user C)
find_package(adder REQUIRED PATHS "${MODEL_DIR}" NO_DEFAULT_PATH)
find_package(adder REQUIRED PATHS "${MODEL_DIR}" NO_DEFAULT_PATH)
add_executable(user "${MODEL_DIR}/main.c")
target_link_libraries(user PRIVATE adder adder_cpu)
"""


@needs_cc
@needs_cmake
def test_cmake_finds_the_package(tmp_path):
    write_project(tmp_path / "model", adder.info(host_target()))
    (tmp_path / "CMakeLists.txt").write_text(USER)
    run("cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DMODEL_DIR={tmp_path / 'model'}")
    run("cmake", "--build", tmp_path / "build")
    assert run(tmp_path / "build/user").stdout == OUTPUT


@needs_cc
@pytest.mark.skipif(shutil.which("pkg-config") is None, reason="pkg-config is not installed")
def test_pkg_config_tells_the_flags(tmp_path):
    write_project(tmp_path, adder.info(host_target()))
    words = run("pkg-config", "--cflags", "--libs", tmp_path / "adder.pc").stdout.split()
    sources = [tmp_path / "main.c", tmp_path / "tbc_cpu.c"]
    run("cc", "-std=c99", "-o", tmp_path / "example", *sources, *words)
    assert run(tmp_path / "example").stdout == OUTPUT


ARDUINO = """
#include <cstdio>
struct Port {
    void begin(long) {}
    void print(const char *text) { std::fputs(text, stdout); }
    void println(unsigned long number) { std::printf("%lu\\n", number); }
    void println(const char *text) { std::puts(text); }
};
static Port Serial;
static unsigned long micros() { return 7; }
static void delay(int) {}
"""


@needs_cc
@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")
@pytest.mark.parametrize("tested", [False, True])
def test_an_arduino_library_and_its_sketch(tmp_path, tested):
    """As the IDE does: a sketch becomes C++, and the library is the one in the CPU's folder."""
    test = SelfTest(0, (4,), (Rule(0, 1), Rule(0, 1))) if tested else None
    library = write_project(tmp_path, adder.info(host_target(), self_test=test), "arduino")
    lines = (tmp_path / "library.properties").read_text().splitlines()
    properties = dict(line.split("=", 1) for line in lines)
    required = {"name", "version", "author", "maintainer", "sentence", "paragraph", "category"}
    assert properties.keys() > {*required, "url", "architectures"}
    assert (properties["precompiled"], properties["ldflags"]) == ("true", "-ladder")
    sketch = tmp_path / "examples/adder/adder.ino"
    program = tmp_path / "sketch.cpp"
    calls = "int main() { setup(); loop(); }\n"
    program.write_text(ARDUINO + sketch.read_text() + calls)
    source = tmp_path / "src"
    objects = []
    for name in ("tbc_cpu", "tbc_self_test"):
        objects.append(tmp_path / f"{name}.o")
        run("cc", *STRICT, f"-I{source}", "-c", source / f"{name}.c", "-o", objects[-1])
    objects += [f"-I{source}", f"-L{library.parent}", "-ladder"]
    run("c++", "-std=c++11", "-Wall", "-Werror", "-o", tmp_path / "run", program, *objects)
    said = "self-test: the self-test does not give what it should\n" if tested else ""
    assert run(tmp_path / "run").stdout == f"{said}no error, microseconds: 0\n"


@needs_cc
@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")
def test_a_sketch_begins_on_a_state_of_zeros(tmp_path):
    """It does after the self-test, which leaves another one."""
    folder = tmp_path / "stream"
    onnx.save(stream(), tmp_path / "stream.onnx")
    pairs = [word for pair in STATE.items() for word in ("--state", "=".join(pair))]
    words = [str(tmp_path / "stream.onnx"), "--target", "c", "--project", "arduino", *pairs]
    done = CliRunner().invoke(app, ["compile", *words, "-o", str(folder)])
    assert done.exit_code == 0, done.output
    calls = """int main() {
        setup();
        for (unsigned char byte : state) if (byte != 0) return 1;
        loop();
        for (unsigned char byte : state) if (byte != 0) return 0;
        return 2;
    }"""
    sketch = (folder / "examples/stream/stream.ino").read_text()
    (tmp_path / "sketch.cpp").write_text(ARDUINO + sketch + calls)
    sources = [folder / "src" / f"{name}.c" for name in ("stream", "tbc_cpu", "tbc_self_test")]
    files = ["-x", "c++", tmp_path / "sketch.cpp", *sources, f"-I{folder}/src"]
    run("c++", "-std=c++11", "-Wall", "-Werror", "-o", tmp_path / "run", *files)
    done = run(tmp_path / "run")
    assert done.stdout.startswith("self-test: no error\nno error")


ZEPHYR = """
cmake_minimum_required(VERSION 3.16)
project(user C)
macro(zephyr_include_directories)
  include_directories(${ARGN})
endmacro()
macro(zephyr_library_named name)
  set(library ${name})
endmacro()
macro(zephyr_library_sources)
  add_library(${library} STATIC ${ARGN})
  list(APPEND libraries ${library})
  set(libraries ${libraries} PARENT_SCOPE)
endmacro()
macro(zephyr_library_import name path)
  add_library(${name} STATIC IMPORTED GLOBAL)
  set_target_properties(${name} PROPERTIES IMPORTED_LOCATION ${path})
  list(APPEND libraries ${name})
  set(libraries ${libraries} PARENT_SCOPE)
endmacro()
foreach(model ${MODELS})
  add_subdirectory(${model}/zephyr)
  include_directories(${model}/include)
endforeach()
if(libraries)
  add_executable(user main.c)
  target_link_libraries(user PRIVATE -Wl,--whole-archive ${libraries} -Wl,--no-whole-archive)
endif()
"""


@needs_cc
@needs_cmake
def test_a_zephyr_module(tmp_path):
    """With stand-ins for Zephyr's own functions of the same names."""
    model = adder.info(host_target())
    write_project(tmp_path / "model", model, "zephyr")
    module = (tmp_path / "model/zephyr/module.yml").read_text()
    assert module == "name: adder\nbuild:\n  cmake: zephyr\n  kconfig: zephyr/Kconfig\n"
    assert "config TBC_ADDER\n" in (tmp_path / "model/zephyr/Kconfig").read_text()
    (tmp_path / "CMakeLists.txt").write_text(ZEPHYR)
    (tmp_path / "main.c").write_text(project_files(model)["main.c"])
    for chosen in ("", "y"):
        build = tmp_path / f"build{chosen}"
        defines = (f"-DCONFIG_TBC_ADDER={chosen}", "-DMODELS=model")
        run("cmake", "-S", tmp_path, "-B", build, *defines)
        run("cmake", "--build", build)
    assert not (tmp_path / "build/user").exists()
    assert run(tmp_path / "buildy/user").stdout == OUTPUT


BOTH = """
#include <stdio.h>

#include "digits_cnn.h"
#include "digits_mlp.h"

int main(void) {
    puts(tbc_digits_cnn.name);
    puts(tbc_digits_mlp.name);
    return tbc_check(&tbc_digits_cnn, tbc_cpu_bits()) + tbc_check(&tbc_digits_mlp, tbc_cpu_bits());
}
"""


@needs_cc
@needs_cmake
@pytest.mark.parametrize("target", ["native", "c"])
def test_two_zephyr_modules(tmp_path, target):
    """In one firmware, into which Zephyr links all libraries whole."""
    for name in ("digits_cnn", "digits_mlp"):
        words = [str(DIGITS / f"{name}.onnx"), "--target", target, "--project", "zephyr"]
        done = CliRunner().invoke(app, ["compile", *words, "-o", str(tmp_path / name)])
        assert done.exit_code == 0, done.output
    (tmp_path / "CMakeLists.txt").write_text(ZEPHYR)
    (tmp_path / "main.c").write_text(BOTH)
    chosen = ("-DCONFIG_TBC_DIGITS_CNN=y", "-DCONFIG_TBC_DIGITS_MLP=y")
    models = "-DMODELS=digits_cnn;digits_mlp"
    run("cmake", "-S", tmp_path, "-B", tmp_path / "build", *chosen, models)
    run("cmake", "--build", tmp_path / "build")
    assert run(tmp_path / "build/user").stdout == "digits_cnn\ndigits_mlp\n"


def test_the_shared_library_is_a_target_of_its_own():
    model = adder.info(parse("x86-64"))
    assert "SHARED" not in project_files(model)["adderConfig.cmake"]
    text = project_files(model, "adder.dll", "adder.lib")["adderConfig.cmake"]
    for part in ("/adder.dll", "/adder.dll.lib", "/adder.lib", "TBC_ADDER_SHARED"):
        assert part in text


def test_the_runtime_comes_along():
    files = project_files(adder.info(parse("x86-64")))
    assert files["tbc.h"] == (INCLUDE / "tbc.h").read_text()
    assert files["tbc_cpu.c"] == CPU_SOURCE.read_text() == runtime_file("src/tbc_cpu.c")


# -- targets --------------------------------------------------------------------------------------

FOREIGN = ("windows-x86-64", "windows-arm64", "macos-x86-64", "apple-m1")
BOARDS = ("cortex-m0plus", "cortex-m55", "rv32imc", "armv7", "armv8", "i686", "c")


@pytest.mark.parametrize(
    ("project", "refused", "taken"),
    [
        ("zephyr", (*FOREIGN, "wasm32"), (*BOARDS, "x86-64-v3")),
        ("arduino", (*FOREIGN, "wasm32", "x86-64-v3", "s390x"), BOARDS),
        ("web", (*FOREIGN, *BOARDS, "x86-64", "wasm64-unknown-unknown"), ("wasm32+simd128",)),
        ("cmake", (), (*FOREIGN, *BOARDS, "wasm32", "x86-64", "s390x")),
    ],
)
def test_a_project_is_for_targets_whose_code_it_can_link(project, refused, taken):
    for name in taken:
        check_project(project, parse(name))
    for name in refused:
        with pytest.raises(Unsupported, match=rf"of {project} is for .*, and {name} is none") as e:
            check_project(project, parse(name))
        assert "--target=" in e.value.hint


@pytest.mark.parametrize(("project", "target"), [("arduino", "x86-64"), ("zephyr", "wasm32")])
def test_what_cannot_be_linked_is_not_compiled(project, target, tmp_path, monkeypatch):
    monkeypatch.setattr("tbc.driver.lower", None)
    words = [str(DIGITS / "digits_mlp.onnx"), "--target", target, "--project", project]
    done = CliRunner().invoke(app, ["compile", *words, "-o", str(tmp_path / "out")])
    assert (done.exit_code, f"project of {project}" in done.stderr) == (1, True), done.stderr
    assert not (tmp_path / "out").exists()
