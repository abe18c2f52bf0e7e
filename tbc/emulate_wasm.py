"""WebAssembly programs, run by wasmtime in this process.

Such a program exports `_start` and imports one function, `tbc.call(number, file, at, size)`: `READ`
and `WRITE` are those of Unix for the files 0 and 1, `EXIT` ends the program with the status `file`.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable
from pathlib import Path

READ, WRITE, EXIT = range(3)
_FUEL = 1 << 62
"""Which an instruction takes one of."""


def can_run() -> bool:
    """Whether wasmtime is there."""
    return importlib.util.find_spec("wasmtime") is not None


class _Exit(Exception):
    """The program has ended."""

    def __init__(self, status: int):
        super().__init__(status)
        self.status = status


def execute(
    program: Path, data: bytes, called: Callable[[int, int], object] | None = None
) -> tuple[int, bytes, str]:
    """The status, what was written, and what wasmtime said, of a program that reads `data`.

    Each call of the program is told to `called`: its number, and how many instructions of
    WebAssembly were executed until then.
    """
    import wasmtime

    config = wasmtime.Config()
    config.wasm_relaxed_simd = True
    config.consume_fuel = called is not None
    store = wasmtime.Store(wasmtime.Engine(config))
    if called:
        store.set_fuel(_FUEL)
    source, written = io.BytesIO(data), bytearray()

    def call(caller: wasmtime.Caller, number: int, file: int, at: int, size: int) -> int:
        if called:
            called(number, _FUEL - store.get_fuel())
        memory = caller["memory"]
        assert isinstance(memory, wasmtime.Memory)
        if number == EXIT:
            raise _Exit(file)
        start, count = at & 0xFFFFFFFF, size & 0xFFFFFFFF
        if number == READ:
            return memory.write(caller, source.read(count), start)
        written.extend(memory.read(caller, start, start + count))
        return count

    i32 = wasmtime.ValType.i32()
    linker = wasmtime.Linker(store.engine)
    kind = wasmtime.FuncType([i32] * 4, [i32])
    linker.define_func("tbc", "call", kind, call, access_caller=True)
    instance = linker.instantiate(store, wasmtime.Module.from_file(store.engine, str(program)))
    start = instance.exports(store)["_start"]
    assert isinstance(start, wasmtime.Func)
    try:
        start(store)
    except _Exit as end:
        return end.status, bytes(written), ""
    except wasmtime.Trap as trap:
        return 1, bytes(written), trap.message
    return 0, bytes(written), ""
