"""The self-test: the same inputs in C and in Python, passed where all is right, and only there."""

from __future__ import annotations

import ctypes
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from graph_strategies import graphs
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from toolchain import INCLUDE, ROOT, STRICT, needs_cc, run
from typer.testing import CliRunner

import tbc
from tbc.cli import app
from tbc.codegen.host import host_target
from tbc.codegen.link import can_link
from tbc.driver import lower
from tbc.driver import self_test_of_program as program_test
from tbc.frontend import load
from tbc.ir import bind
from tbc.reference import run_graph
from tbc.runtime.structs import DTYPES
from tbc.self_test import Rule, SelfTest, checksum, elements, read_words, self_test_of, unit
from tbc.target import parse

SOURCE = ROOT / "runtime/src/tbc_self_test.c"
DIGITS = ROOT / "examples/digits/digits_cnn.onnx"
MAIN = """
#include "net.h"
#include <stdio.h>
static unsigned char arena[TBC_NET_ARENA_SIZE + 2 * TBC_NET_ARENA_ALIGN];
static double x[4096], y[4096];
int main(void) {
    const void *inputs[] = {x};
    void *outputs[] = {y};
    tbc_call call = {inputs, outputs, NULL, NULL, NULL, NULL, NULL, NULL};
    call.arena = arena + TBC_NET_ARENA_ALIGN - (uintptr_t)arena % TBC_NET_ARENA_ALIGN;
    printf("%d", (int)tbc_self_test(&tbc_net, &call));
    return 0;
}
"""

needs_linker = pytest.mark.skipif(not can_link(host_target()), reason="no linker is installed")


def tbc_cli(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments])


# -- inputs ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fill(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`fill` of tbc_self_test.c: (dtype, first, span, input's number, elements) -> their bytes."""
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("fill")
    text = f"""#include "{SOURCE}"
    void filled(uint32_t dtype, uint32_t low, uint32_t span, uint32_t n, size_t size, void *at) {{
        const tbc_tensor tensor = {{"", dtype, 0, NULL, "", size}};
        const uint32_t rule[] = {{low, span}};
        fill(&tensor, (unsigned char *)at, n + 1, rule);
    }}"""
    (folder / "fill.c").write_text(text)
    run("cc", *STRICT, "-shared", "-fPIC", folder / "fill.c", "-o", folder / "fill.so")
    function = ctypes.CDLL(str(folder / "fill.so")).filled
    function.argtypes = [*[ctypes.c_uint32] * 4, ctypes.c_size_t, ctypes.c_void_p]

    def call(code: int, rule: Rule, number: int, count: int) -> npt.NDArray[Any]:
        made = np.zeros(count, DTYPES[code])
        function(code, rule.low & 0xFFFFFFFF, rule.span, number, made.nbytes, made.ctypes.data)
        return made

    return call


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(sorted(DTYPES)),
    st.integers(-128, 100),
    st.integers(1, 256),
    st.integers(0, 40),
    st.integers(1, 300),
)
def test_c_and_python_make_the_same_inputs(
    fill: Any, code: int, low: int, span: int, number: int, count: int
) -> None:
    dtype = DTYPES[code]
    if dtype == np.bool_:
        low, span = 0, 2
    elif dtype.kind == "u":
        low = abs(low)
    if dtype.itemsize == 1 or dtype.kind == "V" or dtype == np.float16:
        low = min(low, 0) if dtype.kind != "u" else 0
        span = min(span, 128)
    made = elements(number, Rule(low, span), dtype, count)
    assert made.tobytes() == fill(code, Rule(low, span), number, count).tobytes()
    wide = made.astype(np.float64) / unit(dtype)
    assert ((low <= wide) & (wide < low + span) & (wide == np.rint(wide))).all()


def test_long_inputs_are_made_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = elements(3, Rule(-128, 256), np.dtype(np.float32), 1000)
    monkeypatch.setattr("tbc.self_test._PART", 64)
    np.testing.assert_array_equal(elements(3, Rule(-128, 256), np.dtype(np.float32), 1000), whole)
    assert len(np.unique(whole)) > 200


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(0, 2**31), max_size=3),
    st.lists(st.builds(Rule, st.integers(-(2**31), 2**31 - 1), st.integers(1, 65536)), max_size=3),
)
def test_words_tell_all(total: int, dims: list[int], rules: list[Rule]) -> None:
    test = SelfTest(total, tuple(dims), tuple(rules))
    assert all(0 <= word < 1 << 32 for word in test.words)
    assert read_words(test.words, len(dims), len(rules)) == test


@given(graph=graphs())
@settings(max_examples=40, deadline=None)
def test_random_graphs(graph: Any) -> None:
    """A test is of inputs that the model takes, and there mostly is one."""
    graph = bind(graph, {s.name: 3 for s in graph.symbols()})
    test = self_test_of(graph, (), lambda feeds: run_graph(graph, feeds))
    if test is None:
        return
    names = [v.op.name for v in graph.inputs]
    feeds = {}
    for number, (value, rule) in enumerate(zip(graph.inputs, test.rules, strict=True)):
        count = math.prod(value.type.shape)
        made = elements(number, rule, value.type.dtype.numpy, count)
        feeds[names[number]] = made.reshape(value.type.shape)
    assert checksum(run_graph(graph, feeds)[name] for name, _ in graph.outputs) == test.sum


# -- models ---------------------------------------------------------------------------------------


def gathered(limit: int) -> Any:
    """Rows of a table, by indices that a table of so many rows takes, of a symbolic number."""
    table = np.arange(limit * 3, dtype=np.float32).reshape(limit, 3) / 7
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "tokens"], ["rows"])],
        "net",
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(table, "table")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])


@pytest.mark.parametrize(("limit", "span"), [(300, 256), (20, 16), (3, 2)])
def test_indices_are_as_large_as_the_model_takes(limit: int, span: int) -> None:
    graph = load(gathered(limit), dims={"n": (2, 5)}).graph
    test = program_test(lower(graph, parse("armv8")))
    assert test is not None
    assert (test.rules, test.dims) == ((Rule(0, span),), (2,))


@needs_linker
def test_libraries_and_blobs_pass_in_python(tmp_path: Path) -> None:
    model = tbc.compile(gathered(20), dims={"n": (2, 5)}, name="net")
    model.save(tmp_path, ("shared", "blob"))
    for path in (tmp_path / "libnet.so", tmp_path / "net.tbc"):
        if path.exists():
            tbc.load(path).self_test()
    assert any(tmp_path.glob("libnet.*"))


PASSED, FAILED, ABSENT = 0, 11, 12


def built(folder: Path, name: str, *flags: str, compiler: str = "cc") -> int:
    """What tbc_self_test returns in a program of a model's file in a folder."""
    (folder / "main.c").write_text(MAIN)
    language = ("-x", "c++", "-std=c++11") if compiler == "c++" else ("-std=c99",)
    sources = [folder / "main.c", SOURCE] + ([folder / name] if name.endswith(".c") else [])
    objects = [] if name.endswith(".c") else ["-x", "none", folder / name]
    command = [compiler, *language, "-Wall", f"-I{folder}", f"-I{INCLUDE}", *flags, *sources]
    run(*command, *objects, "-o", folder / "program")
    return int(run(folder / "program").stdout)


@needs_cc
def test_a_c_program_passes_it(tmp_path: Path) -> None:
    tbc.compile(DIGITS, name="net").save(tmp_path, ("static", "header"))
    (library,) = tmp_path.glob("*net.a")
    assert built(tmp_path, library.name) == PASSED


def multiply_add() -> Any:
    """x * x + 0.1, which a compiler may contract."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "x"], ["v"]), helper.make_node("Add", ["v", "c"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [999])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [999])],
        [numpy_helper.from_array(np.array(0.1, np.float32), "c")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])


@needs_cc
def test_portable_c_passes_it_unless_it_is_contracted(tmp_path: Path) -> None:
    tbc.compile(multiply_add(), target="c", name="net").save(tmp_path, ("c", "header"))
    for flags in (("-O0",), ("-O2",), ("-O3",)):
        assert built(tmp_path, "net.c", *flags) == PASSED
    if shutil.which("c++"):
        assert built(tmp_path, "net.c", "-O2", compiler="c++") == PASSED
    if "fma" not in host_target().features:
        pytest.skip("this machine does not fuse multiplications and additions")
    careless = (tmp_path / "net.c").read_text().replace("#pragma GCC", "// #pragma GCC")
    (tmp_path / "net.c").write_text(careless)
    assert built(tmp_path, "net.c", "-std=gnu99", "-O2", "-mfma", "-ffp-contract=fast") == FAILED


@needs_cc
def test_a_changed_weight_shows(tmp_path: Path) -> None:
    tbc.compile(DIGITS, target="c", name="net").save(tmp_path, ("c", "header"))
    text = (tmp_path / "net.c").read_text()
    assert built(tmp_path, "net.c") == PASSED
    start = text.index("{", text.index("tbc_net_weights = {") + 30)
    number = re.search(r"\b\d+\b", text[start:])
    assert number is not None
    changed = str(int(number[0]) // 2 ^ 1)  # not only the last bit, which may not count
    at = start + number.start()
    (tmp_path / "net.c").write_text(text[:at] + changed + text[start + number.end() :])
    assert built(tmp_path, "net.c") == FAILED


# -- the command ----------------------------------------------------------------------------------


@needs_cc
def test_it_can_be_left_out(tmp_path: Path) -> None:
    arguments = ("--name", "net", "--emit", "c,header", "-o", tmp_path, "--json")
    done = tbc_cli("compile", DIGITS, *arguments, "--no-self-test")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["self_test"] is False
    assert built(tmp_path, "net.c") == ABSENT
    done = tbc_cli("compile", DIGITS, *arguments)
    assert json.loads(done.stdout)["self_test"] is True
    assert built(tmp_path, "net.c") == PASSED


def test_large_models_get_none_unless_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tbc.driver.QUICK", 1000)
    arguments = ("compile", DIGITS, "-o", tmp_path, "--emit", "obj")
    done = tbc_cli(*arguments)
    assert re.search(r"self-test +none", done.stdout)
    assert "self-test" not in tbc_cli(*arguments, "--self-test").stdout
