"""Every instruction by way of C, against NumPy and libm; and what has no C."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from compiled import STRICT_C
from emulator import LoadedMaps, Map, maps_module
from operations import OPERATIONS, equal
from test_builtins import results, symbol
from toolchain import needs_cc, run

from tbc.codegen.c_function import c_function
from tbc.codegen.c_model import c_functions
from tbc.codegen.c_values import Names
from tbc.codegen.llvm_text import Function, Module, Val, const, lanes_const
from tbc.codegen.llvm_tree import parse
from tbc.errors import InternalError
from tbc.target import PORTABLE

HAVE_NO_C = re.compile(r"clz|memmove|memset|memclr|bfloat")
"""What emitters for portable C never ask LLVM for."""

CHOSEN = [o for o in OPERATIONS if not HAVE_NO_C.search(o.name)]


def source_of(*modules: Module) -> str:
    """A C file with the functions of modules; those called `test_…` are visible."""
    functions = "\n\n".join(c_functions(Names("m"), *modules))
    head = "#include <stddef.h>\n#include <stdint.h>\n#define TBC_RESTRICT restrict\n\n"
    visible = re.sub(r"(?m)^static (void test_\w+)(\([^{]*\)) \{", r"\1\2;\n\1\2 {", functions)
    return head + visible + "\n"


@needs_cc
@pytest.mark.parametrize("optimise", ["-O0", "-O2"])
def test_instructions(optimise: str, tmp_path: Path) -> None:
    maps = [Map(symbol(o), o.args, o.ret, o.instruction) for o in CHOSEN]
    source, obj = tmp_path / "maps.c", tmp_path / "maps.o"
    source.write_text(source_of(maps_module(maps, PORTABLE.triple)))
    run("cc", *STRICT_C, optimise, "-ffp-contract=off", "-fPIC", "-c", source, "-o", obj)
    native = LoadedMaps(obj.read_bytes(), maps)
    rng = np.random.default_rng(5)
    for operation in CHOSEN:
        arrays, want = results(operation, rng.bytes(9 * 300 * len(operation.args)))
        same = equal(native(symbol(operation), *arrays), want)
        assert same.all(), (operation.name, [a[~same][0] for a in (*arrays, want)])


# -- vectors, loops and what is refused -----------------------------------------------------------


def function_of(text: str) -> str:
    """C for LLVM text whose first line is the head of a function."""
    return c_function(parse(text), Names("m"))


def built(fill: Callable[[Function], None]) -> str:
    """C for a function of pointers p and q."""
    module = Module(PORTABLE.triple)
    f = Function(module, "f", [("ptr noalias", "p"), ("ptr readonly", "q"), ("i32", "n")])
    fill(f)
    f.finish()
    return function_of(module.functions["f"])


def test_neighbouring_operations_on_vectors_are_one_loop() -> None:
    def fill(f: Function) -> None:
        p, q, _ = f.args
        x = f.load("<8 x float>", q, 4)
        y = f.op("fmul", x, x)
        f.store(f.op("fadd", y, const("<8 x float>", 0.5)), p, 4)

    text = built(fill)
    assert "p[lane] = v1[lane]" not in text
    assert text.count("for (int lane = 0; lane < 8; lane++)") == 1
    assert "v1 * v1 + 0.5f" in text


def test_a_vector_that_is_read_elsewhere_is_an_array() -> None:
    def fill(f: Function) -> None:
        p, q, _ = f.args
        x = f.load("<4 x float>", q, 4)
        f.store(f.shuffle(x, x, [2, 3]), p, 4)
        f.store(f.extract(x, 3), f.offset(p, const("i32", 2), "i32"), 4)

    text = built(fill)
    assert "float v1[4];" in text
    assert "= v1[lane + 2];" in text
    assert "p[2] = v1[3];" in text


def test_what_a_loop_may_overwrite_is_read_before() -> None:
    def fill(f: Function) -> None:
        p, _, _ = f.args
        x = f.load("<4 x i32>", p, 4)
        f.store(x, f.offset(p, const("i32", 1), "i32"), 4)

    text = built(fill)
    assert text.count("for (int lane") == 2
    assert text.index("v1[lane] = ") < text.index("[1 + lane] = v1[lane];")


def test_a_load_stays_in_front_of_a_store() -> None:
    def fill(f: Function) -> None:
        p, _, _ = f.args
        before = f.load("i32", p, 4)
        f.store(const("i32", 7), p, 4)
        f.store(before, f.offset(p, const("i32", 1), "i32"), 4)

    assert re.search(r"v1 = \*p;.*\*p = 7u;.*p\[1\] = v1;", built(fill), re.DOTALL)


def test_variables_of_a_loop_change_all_at_once() -> None:
    def fill(f: Function) -> None:
        p, _, n = f.args
        start = [const("i32", 1), const("i32", 2)]
        with f.loop(const("i32", 0), n, carried=start) as loop:
            a, b = loop.carried
            loop.yield_(b, a)
        for number, value in enumerate(loop.results):
            f.store(value, f.offset(p, const("i32", number), "i32"), 4)

    text = built(fill)
    kept = re.search(r"const uint32_t next_(c\d+) = (c\d+);", text)
    assert kept is not None
    a, b = kept.groups()
    places = [
        text.index(f"{line};") for line in (f"next_{a} = {b}", f"{b} = {a}", f"{a} = next_{a}")
    ]
    assert places == sorted(places)


def test_memory_of_two_types_is_an_error() -> None:
    def fill(f: Function) -> None:
        p, q, _ = f.args
        f.store(f.load("i32", q, 4), p, 4)
        f.store(f.load("float", q, 4), f.offset(p, const("i32", 1), "i32"), 4)

    with pytest.raises(InternalError, match="f reads %p as float and i32"):
        built(fill)


@pytest.mark.parametrize(
    ("fill", "what"),
    [
        (lambda f: f.do("fence seq_cst"), "no C for the instruction fence"),
        (lambda f: _stored(f, lanes_const("i32", [1, 2, 4])), "no C for the constant"),
        (lambda f: _stored(f, f.shuffle(*_loaded(f), [0, 2, 1])), "no C for the constant"),
    ],
)
def test_what_has_no_c_is_an_error(fill: Callable[[Function], None], what: str) -> None:
    with pytest.raises(InternalError, match=what):
        built(fill)


def _stored(f: Function, value: Val) -> None:
    f.store(value, f.args[0], 4)


def _loaded(f: Function) -> tuple[Val, Val]:
    x = f.load("<3 x i32>", f.args[1], 4)
    return x, x
