"""Array functions of generated code, run in this process or under an emulator of the target.

A `Map` is a formula on scalars or lanes; its function applies it to arrays. Foreign code is linked
with a few lines of C and nothing else, no libc and no compiler-rt, so that what it lacks shows.
"""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tbc.codegen.builtins import builtins_text
from tbc.codegen.host import host_target
from tbc.codegen.jit import Loaded, jit_target
from tbc.codegen.llvm_text import Function, Module, Val, bits_of, vec
from tbc.codegen.machine import Job, Part, Workers
from tbc.codegen.objfile import undefined_symbols
from tbc.target import Target

Array = npt.NDArray[Any]

DTYPES = {"float": "f4", "double": "f8", "i8": "u1", "i16": "u2", "i32": "i4", "i64": "i8"}
_EMULATORS = {
    "arm": ("qemu-arm", "arm-linux-musleabi"),
    "armhf": ("qemu-arm", "arm-linux-musleabihf"),
    "aarch64": ("qemu-aarch64", "aarch64-linux-musl"),
    "riscv32": ("qemu-riscv32", "riscv32-freestanding -mcpu=generic_rv32+m+c"),
    "riscv64": ("qemu-riscv64", "riscv64-freestanding -mcpu=generic_rv64+m+c -mabi=lp64"),
    "riscv64d": ("qemu-riscv64", "riscv64-linux-musl"),
    "s390x": ("qemu-s390x", "s390x-linux-musl"),
    "i686": ("qemu-i386", "x86-linux-musl"),
}
"""The emulator of an architecture, and how zig is told of it."""
_MAIN = Path(__file__).with_name("emulator.c")


@dataclass(frozen=True)
class Map:
    """`ret(args…)` for every element of arrays; types are LLVM's scalars in `DTYPES`."""

    name: str
    args: tuple[str, ...]
    ret: str
    body: Callable[..., Val]


def maps_text(maps: Sequence[Map], triple: str, lanes: int = 1) -> str:
    """A module with `void name(args…, out, n)` for each map; n is a multiple of `lanes`."""
    module = Module(triple)
    for each in maps:
        arrays = [("ptr", f"a{i}") for i in range(len(each.args))]
        f = Function(module, each.name, [*arrays, ("ptr", "out"), ("i32", "n")], linkage="")
        *sources, out, n = f.args
        with f.loop(Val("i32", "0"), n, lanes) as loop:
            values = [
                f.load(vec(type, lanes), f.offset(source, loop.index, type), bits_of(type) // 8)
                for source, type in zip(sources, each.args, strict=True)
            ]
            result = each.body(f, *values)
            f.store(result, f.offset(out, loop.index, each.ret), bits_of(each.ret) // 8)
        f.finish()
    return module.text()


def closed_object(
    workers: Workers, text: str, target: Target, keep: Sequence[str], passes: bool
) -> tuple[bytes, set[str]]:
    """The object of `text` and of the builtins that it needs, and their names."""
    names: set[str] = set()
    while True:
        parts = [Part(text, passes)]
        if names:
            parts.append(Part(builtins_text(names, target.triple), passes))
        job = Job(target, tuple(parts), frozenset(keep), closed=False)
        obj = workers.compile(job)["obj"]
        missing = undefined_symbols(obj)
        if not missing:
            return obj, names
        assert not missing & names
        names |= missing


class Native:
    """Maps compiled for this machine, `more` LLVM text beside: call `native(name, *arrays)`."""

    def __init__(
        self,
        workers: Workers,
        maps: Sequence[Map],
        *,
        lanes: int = 1,
        passes: bool = True,
        more: str = "",
    ):
        target = jit_target(host_target())
        self._maps = {each.name: each for each in maps}
        text = maps_text(maps, target.triple, lanes) + more
        obj, _ = closed_object(workers, text, target, list(self._maps), passes)
        self._loaded = Loaded(obj, target, self._maps)

    def __call__(self, name: str, *arrays: Array) -> Array:
        each = self._maps[name]
        out = np.zeros(len(arrays[0]), DTYPES[each.ret])
        kinds = [*[ctypes.c_void_p] * (len(arrays) + 1), ctypes.c_int32]
        function = ctypes.CFUNCTYPE(None, *kinds)(self._loaded.address(name))
        kept = [np.ascontiguousarray(a, DTYPES[t]) for a, t in zip(arrays, each.args, strict=True)]
        function(*(a.ctypes.data for a in kept), out.ctypes.data, len(out))
        return out


def run_foreign(
    obj: bytes,
    target: Target,
    maps: Sequence[Map],
    inputs: Sequence[Sequence[Array]],
    folder: Path,
) -> list[Array]:
    """What each map makes of its inputs, on the target's emulator; skips where that is missing."""
    key = target.triple.split("-")[0]
    if target.arch == "arm":
        key = "armhf" if target.float_abi == "hard" else "arm"
    if target.arch == "riscv" and "d" in target.features:
        key += "d"
    emulator, system = _EMULATORS[key]
    if shutil.which(emulator) is None or importlib.util.find_spec("ziglang") is None:
        pytest.skip(f"{emulator} or ziglang is not installed")
    (folder / "code.o").write_bytes(obj)
    calls, stream = [], []
    order = "<" if target.little_endian else ">"
    for each, arrays in zip(maps, inputs, strict=True):
        n = len(arrays[0])
        for i, (a, t) in enumerate(zip(arrays, each.args, strict=True)):
            stream.append(a.astype(order + DTYPES[t]).tobytes())
            calls.append(f"get({i}, {len(stream[-1])});")
        buffers = ", ".join(f"in[{i}]" for i in range(len(arrays)))
        calls.append(f"{each.name}({buffers}, out, {n}); put({n * bits_of(each.ret) // 8});")
    protos = "".join(f"void {m.name}({'char *, ' * len(m.args)}char *, int);" for m in maps)
    defines = [f"-DPROTOTYPES={protos}", f"-DCALLS={''.join(calls)}"]
    flags = ["-O1", "-static", "-nostdlib", "-fno-sanitize=all", "-fno-stack-protector"]
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", *system.split(), *flags, *defines]
    program = folder / "program"
    subprocess.run([*zig, str(_MAIN), str(folder / "code.o"), "-o", str(program)], check=True)
    done = subprocess.run(
        [emulator, str(program)], input=b"".join(stream), capture_output=True, check=True
    )
    results: list[Array] = []
    at = 0
    for each, arrays in zip(maps, inputs, strict=True):
        result = np.frombuffer(done.stdout, order + DTYPES[each.ret], len(arrays[0]), at)
        results.append(result.astype(DTYPES[each.ret]))
        at += result.nbytes
    assert at == len(done.stdout)
    return results
