"""Object code into this process."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import llvmlite.binding as llvm

from tbc.codegen.machine import machine_of
from tbc.codegen.worker import initialize, target_machine
from tbc.errors import InternalError
from tbc.target import Target


def jit_target(target: Target) -> Target:
    """The target to compile for in order to load here: on Windows LLVM can only load ELF."""
    if target.object_format != "coff":
        return target
    return replace(target, triple=target.triple + "-elf")


class Loaded:
    """An object file in memory, ready to run; it stays while this does.

    Args:
        obj: code for this machine, without undefined symbols.
        target: what it was compiled for.
        symbols: the names whose addresses are wanted.

    Raises:
        InternalError: the object cannot be loaded, or lacks one of the symbols.
    """

    def __init__(self, obj: bytes, target: Target, symbols: Iterable[str]):
        initialize()
        self._jit: Any = llvm.create_lljit_compiler(
            target_machine(machine_of(target)), suppress_errors=True
        )
        library = llvm.JITLibraryBuilder().add_object_img(obj)
        for symbol in symbols:
            library.export_symbol(symbol)
        try:
            self._code: Any = library.link(self._jit, "model")
        except RuntimeError as error:
            raise InternalError(f"cannot load the code of {target.name}: {error}") from error

    def address(self, symbol: str) -> int:
        """Where one of the symbols lies."""
        return int(self._code[symbol])
