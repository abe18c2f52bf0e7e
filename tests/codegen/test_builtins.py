"""Builtins against NumPy and libm: by name in this process, and as LLVM calls them elsewhere."""

from __future__ import annotations

import ctypes
import re

import numpy as np
import pytest
from emulator import Map, Native, closed_object, maps_text, run_foreign
from hypothesis import given, settings
from hypothesis import strategies as st
from operations import EXTREMES, OPERATIONS, equal, values

from tbc.codegen.builtins import builtins_text
from tbc.codegen.host import host_target
from tbc.codegen.jit import Loaded, jit_target
from tbc.codegen.machine import Workers, compile_module
from tbc.errors import InternalError
from tbc.target import parse

BY_NAME = {operation.name: operation for operation in (*OPERATIONS, *EXTREMES)}


@pytest.fixture(scope="module")
def workers():
    with Workers(2) as started:
        yield started


def symbol(operation):
    return "test_" + operation.name.replace(".", "_")


def results(operation, data):
    """(arguments, wanted) of an operation for random bytes."""
    share = len(data) // len(operation.args)
    parts = [data[i * share : (i + 1) * share] for i in range(len(operation.args))]
    arrays = [values(type, part) for type, part in zip(operation.args, parts, strict=True)]
    with np.errstate(all="ignore"):
        arrays = operation.domain(*arrays)
        return arrays, np.asarray(operation.meaning(*arrays))


@pytest.fixture(scope="module")
def native(workers):
    maps = [Map(symbol(o), o.args, o.ret, o.builtin) for o in BY_NAME.values()]
    triple = host_target().triple
    names = set(re.findall(r"call \w+ @([a-z_]\w+)\(", maps_text(maps, triple)))
    return Native(workers, maps, more=builtins_text(names, triple))


@pytest.mark.parametrize("name", BY_NAME)
@settings(max_examples=8, deadline=None)
@given(data=st.binary(min_size=9 * 3, max_size=9 * 600))
def test_meaning(native, name, data):
    arrays, want = results(BY_NAME[name], data)
    got = native(symbol(BY_NAME[name]), *arrays)
    same = equal(got, want)
    assert same.all(), [a[~same][0] for a in (*arrays, got, want)]


def test_comparison_can_fail(native):
    ones = np.ones(3, np.float32)
    assert not equal(native("test_add_float", ones, ones), ones).any()
    assert not equal(np.float32([0.0]), np.float32([-0.0])).any()


def compilable(target):
    """The operations that LLVM can compile: it has no bfloat for some targets, and dies of it."""
    without_bfloat = target.arch in ("wasm", "s390x")
    return [o for o in OPERATIONS if not (without_bfloat and "bfloat" in o.name)]


@pytest.mark.parametrize(
    ("name", "passes"),
    [
        ("cortex-m0plus", False),
        ("cortex-m0plus", True),
        ("cortex-m3", False),
        ("cortex-m4f", False),
        ("armv7", False),
        ("rv32imc", True),
        ("rv64gc", False),
        pytest.param("rv32ic", False, marks=pytest.mark.slow),
        pytest.param("rv64ic", True, marks=pytest.mark.slow),
        ("s390x", True),
        ("i686", False),
    ],
)
def test_under_emulator(workers, tmp_path, name, passes):
    target = parse(name)
    chosen = compilable(target)
    maps = [Map(symbol(o), o.args, o.ret, o.instruction) for o in chosen]
    text = maps_text(maps, target.triple)
    obj, _ = closed_object(workers, text, target, [m.name for m in maps], passes)
    rng = np.random.default_rng(7)
    pairs = [results(o, rng.bytes(9 * 200 * len(o.args))) for o in chosen]
    outputs = run_foreign(obj, target, maps, [arrays for arrays, _ in pairs], tmp_path)
    for operation, (arrays, want), got in zip(chosen, pairs, outputs, strict=True):
        same = equal(got, want)
        assert same.all(), (operation.name, [a[~same][0] for a in (*arrays, got, want)])


@pytest.mark.parametrize(
    "name",
    [
        "x86-64",
        "armv8",
        "cortex-m4",
        "cortex-m55",
        "rv64gcv",
        "wasm32",
        "windows-x86-64",
        "apple-m1",
    ],
)
def test_closed(workers, name):
    target = parse(name)
    maps = [Map(symbol(o), o.args, o.ret, o.instruction) for o in compilable(target)]
    text = maps_text(maps, target.triple)
    closed_object(workers, text, target, [m.name for m in maps], passes=True)


MEMORY = """
define void @copy(ptr %a, ptr %b, i64 %n) {
  %r = call ptr @memcpy(ptr %a, ptr %b, i64 %n)
  ret void
}
define void @move(ptr %a, ptr %b, i64 %n) {
  %r = call ptr @memmove(ptr %a, ptr %b, i64 %n)
  ret void
}
define void @fill(ptr %a, i32 %b, i64 %n) {
  %r = call ptr @memset(ptr %a, i32 %b, i64 %n)
  ret void
}
"""


@pytest.fixture(scope="module", params=["x86_64-unknown-linux-gnu", "riscv64-unknown-linux-gnu"])
def memory(request):
    """memcpy, memmove and memset of machines with and without unaligned words, on this one."""
    target = jit_target(host_target())
    text = MEMORY + builtins_text(["memcpy", "memmove", "memset"], request.param)
    keep = ["copy", "move", "fill"]
    obj = compile_module(text, target, passes=True, kinds=["obj"], keep=keep)["obj"]
    loaded = Loaded(obj, target, keep)

    def call(name, to, second, size):
        kind = ctypes.c_int32 if name == "fill" else ctypes.c_void_p
        prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, kind, ctypes.c_int64)
        prototype(loaded.address(name))(to, second, size)

    return call


@settings(max_examples=80, deadline=None)
@given(
    name=st.sampled_from(["copy", "move", "fill"]),
    size=st.integers(0, 40),
    to=st.integers(0, 40),
    source=st.integers(0, 40),
)
def test_memory(memory, name, size, to, source):
    if name == "copy" and abs(to - source) < size:
        source = to + size
    data = bytearray(range(1, 129))
    buffer = (ctypes.c_char * 128).from_buffer_copy(data)
    base = ctypes.addressof(buffer)
    memory(name, base + to, 0x1234 + source if name == "fill" else base + source, size)
    new = bytes([(0x34 + source) & 255]) * size if name == "fill" else data[source : source + size]
    data[to : to + size] = new
    assert bytes(buffer) == bytes(data)


def test_unknown_name():
    with pytest.raises(InternalError, match="LLVM calls __strange for x86_64"):
        builtins_text(["__strange"], "x86_64-unknown-linux-gnu")
