"""The undefined symbols of objects in every format, word size and byte order."""

import pytest

from tbc.codegen.machine import machine_of
from tbc.codegen.objfile import undefined_symbols
from tbc.codegen.worker import initialize, target_machine
from tbc.errors import InternalError
from tbc.target import parse

MODULE = """
@table = external global [4 x i32]
@own = global i32 7
@shared = common global i32 0
declare i32 @outside_with_a_long_name(i32)
declare i32 @near(i32)
declare i32 @unused(i32)
define internal i32 @local(i32 %x) noinline nounwind {
  %y = call i32 @outside_with_a_long_name(i32 %x)
  ret i32 %y
}
define i32 @entry(i32 %x) nounwind {
  %p = getelementptr i32, ptr @table, i32 %x
  %a = load i32, ptr %p
  %b = load i32, ptr @own
  %c = call i32 @local(i32 %a)
  %d = call i32 @near(i32 %b)
  %e = load i32, ptr @shared
  %f = add i32 %c, %d
  %g = add i32 %e, %f
  ret i32 %g
}
"""


@pytest.mark.parametrize(
    "name",
    [
        "x86-64",
        "i686",
        "armv7",
        "armv8",
        "s390x",
        "mips-unknown-linux-gnu",
        "wasm32",
        "windows-x86-64",
        "windows-arm64",
        "i686-pc-windows-msvc",
        "macos-x86-64",
        "apple-m1",
    ],
)
def test_undefined_symbols(name):
    import llvmlite.binding as llvm

    initialize()
    machine = target_machine(machine_of(parse(name)))
    text = MODULE
    if name == "wasm32":  # it has no common storage
        text = text.replace("common global", "global")
    module = llvm.parse_assembly(text)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    needed = {"table", "outside_with_a_long_name", "near"}
    # `gp` is where MIPS code expects its constants.
    assert undefined_symbols(machine.emit_object(module)) - {"_gp_disp"} == needed


def test_unknown_format():
    with pytest.raises(InternalError, match="unknown format"):
        undefined_symbols(b"#!/bin/sh\n")
