"""Object files of this machine, loaded into this process."""

import ctypes
import gc

import pytest

from tbc.codegen.host import host_target
from tbc.codegen.jit import Loaded, jit_target
from tbc.codegen.llvm_text import Module
from tbc.codegen.machine import compile_module
from tbc.errors import InternalError
from tbc.target import parse

HOST = jit_target(host_target())
CALL = ctypes.CFUNCTYPE(ctypes.c_void_p)


def compiled(data):
    """`f` returns the address of `data`, as `table[1]` does; `table[0]` is `f`."""
    module = Module(HOST.triple)
    module.constant("data", data, align=64)
    module.functions["f"] = "define internal ptr @f() nounwind {\n  ret ptr @data\n}"
    module.globals["table"] = "@table = constant [2 x ptr] [ptr @f, ptr @data]"
    keep = {"table"}
    return compile_module(module.text(), HOST, passes=True, kinds={"obj"}, keep=keep)["obj"]


@pytest.mark.parametrize("size", [1, 1 << 20])
def test_code_and_data_find_each_other(size):
    data = bytes(i * i % 251 for i in range(size))
    loaded = Loaded(compiled(data), HOST, ["table"])
    function, address = (ctypes.c_void_p * 2).from_address(loaded.address("table"))
    assert CALL(function)() == address
    assert address % 64 == 0
    assert ctypes.string_at(address, size) == data


def test_objects_are_independent_and_can_go():
    objects = [compiled(bytes([i])) for i in range(3)]
    loaded = [Loaded(obj, HOST, ["table"]) for obj in objects for _ in range(5)]
    del loaded[::2]
    gc.collect()
    for i, each in enumerate(loaded):
        _, address = (ctypes.c_void_p * 2).from_address(each.address("table"))
        assert ctypes.string_at(address, 1) == bytes([(2 * i + 1) // 5])


def test_what_cannot_be_loaded_is_an_error():
    with pytest.raises(InternalError, match="nothing_like_it"):
        Loaded(compiled(b"x"), HOST, ["nothing_like_it"])
    with pytest.raises(InternalError, match="cannot load"):
        Loaded(b"no object" * 10, HOST, ["table"])


def test_windows_loads_elf():
    windows = jit_target(parse("windows-x86-64"))
    assert windows.triple == "x86_64-pc-windows-msvc-elf"
    data = compile_module(
        "define void @f() nounwind {\n  ret void\n}",
        windows,
        passes=False,
        kinds={"obj"},
        keep={"f"},
    )
    assert data["obj"].startswith(b"\x7fELF")
    linux = parse("x86-64")
    assert jit_target(linux) is linux
