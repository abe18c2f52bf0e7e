"""Compiled models of other machines, run under qemu or by wasmtime.

The object is linked with `emulate.c` and nothing else: no C library, no compiler's helpers.
"""

from __future__ import annotations

import functools
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tbc import emulate_board, emulate_wasm
from tbc.api import is_native
from tbc.codegen.host import host_target
from tbc.codegen.project import header
from tbc.emulate_board import Board, board_of
from tbc.errors import InternalError, Unsupported
from tbc.reference import bind_symbols
from tbc.target import Target

if TYPE_CHECKING:
    from tbc.driver import Compiled

Array = npt.NDArray[Any]

_HERE = Path(__file__).parent
_FLAGS = (
    *("-std=gnu11", "-O1", "-static", "-nostdlib", "-ffreestanding", "-fno-builtin"),
    *("-fno-sanitize=all", "-fno-stack-protector", "-fomit-frame-pointer", "-fno-pic", "-w"),
)
_NO_EMULATION = frozenset({"avx512f", "avxvnni", "amx-tile"})
"""Features of x86 that qemu does not have."""
_WASMTIME = ("wasmtime",)
_BAD_VALUE = 7
"""TBC_ERROR_VALUE of tbc.h."""
_FAILED_TEST = 11
"""TBC_ERROR_SELF_TEST."""


@dataclass(frozen=True)
class _Machine:
    """How to link and run a program for a target.

    Attributes:
        emulator: the command, options included; `_WASMTIME` is a package.
        zig: what follows `zig cc -target`.
        gcc: names of cross compilers, any of which does.
        board: what is emulated, where that is no process of an operating system.
    """

    emulator: tuple[str, ...]
    zig: str
    gcc: tuple[str, ...] = ()
    board: Board | None = None


def method(target: Target) -> str:
    """How code for a target is tested.

    "native", "qemu-user", "qemu-system", "wasmtime" or "compiled only".
    """
    machine = _machine(target)
    if is_native(target) or (not isinstance(machine, str) and not machine.emulator):
        return "native"
    if isinstance(machine, str):
        return "compiled only"
    if machine.board is not None:
        return "qemu-system"
    return "wasmtime" if machine.emulator == _WASMTIME else "qemu-user"


def can_run(target: Target) -> str | None:
    """None if `run` works for the target on this machine, else what is missing."""
    machine = _machine(target)
    if isinstance(machine, str):
        return machine
    if machine.emulator == _WASMTIME:
        if not emulate_wasm.can_run():
            return "wasmtime is missing: pip install wasmtime"
    elif machine.emulator and shutil.which(machine.emulator[0]) is None:
        package = machine.emulator[0] if machine.board else "qemu-user"
        return f"{machine.emulator[0]} is missing: install {package}"
    if _compiler(machine) is None:
        return f"a linker for {target.name} is missing: pip install tbc[cross]"
    return None


def _machine(target: Target) -> _Machine | str:
    """How to link and run a target's programs, or why that cannot be done; C runs here."""
    if target.arch == "c":
        target = host_target()
    first, bits = target.triple.partition("-")[0], target.index_bits
    if target.arch == "wasm" and bits == 32 and target.os == "none":
        zig = "wasm32-freestanding -Wl,-z,stack-size=1048576"
        return _Machine(_WASMTIME, zig)
    if target.object_format != "elf" or target.os not in ("linux", "none"):
        return f"tbc has no emulator of {target.triple}"
    if is_native(target):
        return _Machine((), f"{first}-linux-musl", ("cc",))
    match target.arch:
        case "aarch64" if target.little_endian:
            cpu = "cortex-a53" if target.features <= {"neon", "fp-armv8"} else "max"
            gcc = ("aarch64-linux-gnu-gcc",)
            return _Machine(("qemu-aarch64", "-cpu", cpu), "aarch64-linux-musl", gcc)
        case "arm" if target.little_endian:
            return _arm(target)
        case "riscv":
            return _riscv(target)
        case "s390x":
            return _Machine(
                ("qemu-s390x", "-cpu", "max"), "s390x-linux-musl", ("s390x-linux-gnu-gcc",)
            )
        case "x86" if missing := sorted(target.features & _NO_EMULATION):
            return f"this machine lacks {', '.join(missing)}, and qemu does too"
        case "x86":
            name, zig = ("x86_64", "x86_64") if bits == 64 else ("i386", "x86")
            gcc = ("x86_64-linux-gnu-gcc" if bits == 64 else "i686-linux-gnu-gcc",)
            return _Machine((f"qemu-{name}", "-cpu", "max"), f"{zig}-linux-musl", gcc)
    return f"tbc has no emulator of {target.triple}"


def _arm(target: Target) -> _Machine | str:
    """32-bit Arm: Cortex-M on a board; all but Armv8.1-M also as processes of Linux."""
    hard = "hf" if target.float_abi == "hard" else ""
    emulator = ("qemu-arm", "-cpu", "max")
    board = board_of(target)
    if board is None:
        return _Machine(emulator, f"arm-linux-musleabi{hard}", (f"arm-linux-gnueabi{hard}-gcc",))
    zig = f"thumb-freestanding-eabi{hard} -mcpu={board.cpu.replace('-', '_')}"
    if shutil.which(emulate_board.EMULATOR) or target.triple.startswith("thumbv8.1m"):
        return _Machine(board.command, zig, board=board)
    return _Machine(emulator, zig)


def _riscv(target: Target) -> _Machine | str:
    bits = target.index_bits
    letters = "".join(f"+{f}" for f in "mafd" if f in target.features)
    zig = f"riscv{bits}-freestanding -mcpu=generic_rv{bits}{letters} -mabi={target.abi}"
    emulator, options = f"qemu-riscv{bits}", [f"rv{bits}", "zba=true", "zbb=true"]
    if "zve32x" in target.features:
        if "zve32f" in target.features and () < _version(emulator) < (8, 1):
            return f"{emulator} before 8.1 aborts on vector conversions (its issue 1441)"
        lengths = (n for n in (512, 256, 128) if f"zvl{n}b" in target.features)
        options += ["v=true", "vext_spec=v1.0", f"vlen={next(lengths, 128)}"]
    return _Machine((emulator, "-cpu", ",".join(options)), zig)


def _version(emulator: str) -> tuple[int, ...]:
    """The version of an emulator; () if it is not there."""
    path = shutil.which(emulator)
    done = path and subprocess.run([path, "--version"], capture_output=True, text=True)
    found = re.search(r"version (\d+)\.(\d+)", done.stdout) if done else None
    return tuple(map(int, found.groups())) if found else ()


def _compiler(machine: _Machine) -> tuple[str, ...] | None:
    """The command of a compiler that links for a machine, if there is one."""
    if importlib.util.find_spec("ziglang"):
        return (sys.executable, "-m", "ziglang", "cc", "-target", *machine.zig.split())
    found = next(filter(None, map(shutil.which, machine.gcc)), None)
    return (found,) if found else None


def execute(emulator: Sequence[str], program: Path, data: bytes) -> tuple[int, bytes, str]:
    """The status of a program that reads `data`, what it writes, and what it complains of."""
    if tuple(emulator) == _WASMTIME:
        return emulate_wasm.execute(program, data)
    done = subprocess.run([*emulator, str(program)], input=data, capture_output=True)
    return done.returncode, done.stdout, done.stderr.decode(errors="replace").strip()


def run(compiled: Compiled, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs of one run; see `Emulated`."""
    with Emulated(compiled) as emulated:
        return emulated.run(feeds)


class Emulated:
    """A program that runs a compiled model, under the emulator of its target if it is foreign.

    A context manager. Portable C runs on this machine.

    Attributes:
        emulator: the command that runs the program; empty on this machine.
        execute: runs the program at a path on what it reads, as the function of that name does.

    Raises:
        Unsupported: there is no emulator or no linker; the reason says which.
        InternalError: the object does not link.
    """

    def __init__(self, compiled: Compiled):
        on = host_target() if compiled.target.arch == "c" else compiled.target
        machine, missing = _machine(on), can_run(on)
        if isinstance(machine, str) or missing:
            raise Unsupported(f"cannot run {compiled.target.name} here: {missing}")
        self._compiled = compiled
        self._folder = tempfile.TemporaryDirectory()
        self._machine, self._program = machine, Path(self._folder.name) / "program"
        self._order = "<" if on.little_endian else ">"
        self._size = np.dtype(f"{self._order}u{on.index_bits // 8}")
        self.emulator = machine.emulator
        self.execute: Callable[[Path, bytes], tuple[int, bytes, str]] = functools.partial(
            execute, self.emulator
        )
        try:
            self._link(self._program)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Emulated:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the program."""
        self._folder.cleanup()

    def _link(self, program: Path, *more: str) -> None:
        """Link the program; `more` are further arguments of the compiler."""
        machine, info, files = self._machine, self._compiled.info, self._compiled.files
        model = program.with_suffix(".c" if "c" in files else ".o")
        model.write_bytes(files["c"] if "c" in files else files["obj"])
        model.with_name(f"{info.name}.h").write_text(header(info))
        tensors = (*info.inputs, *info.outputs)
        blocks = [info.arena_size, info.fast_size, info.state_size, *(t.bytes for t in tensors)]
        blocks += [] if self._compiled.embedded else [info.weights_size]
        counts = [
            len(info.symbols),
            len(info.inputs),
            len(info.outputs),
            *(t.rank for t in tensors),
        ]
        defines = [
            f"-DMODEL={info.symbol}",
            f"-DPOOL={sum(size + 64 for size in blocks)}",
            f"-DGREATEST={max(1, *counts)}",
        ]
        command = [*(_compiler(machine) or ()), *_FLAGS, *defines, f"-I{_HERE / 'runtime/include'}"]
        command += [*more, str(_HERE / "emulate.c"), str(model), "-o", str(program)]
        command += machine.board.link(model.parent) if machine.board else []
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if done.returncode:
            said = "; ".join(done.stderr.strip().splitlines()[:3])
            raise InternalError(f"the code of {info.name} does not link for {info.target}: {said}")

    def self_test(self) -> bool | None:
        """Whether the model's self-test passes, in C; None where it has none.

        Raises:
            InternalError: the program crashed.
        """
        if self._compiled.info.self_test is None:
            return None
        program = self._program.with_name("self_test")
        self._link(program, "-DSELF_TEST", str(_HERE / "runtime/src/tbc_self_test.c"))
        weights = () if self._compiled.embedded else self._compiled.weights()
        status, _, said = self.execute(program, b"".join(block.tobytes() for block in weights))
        if status not in (0, _FAILED_TEST):
            name = self._compiled.info.name
            raise InternalError(f"the self-test of {name} ended with {status} {said}".strip())
        return status == 0

    def new_state(self) -> npt.NDArray[np.uint8]:
        """The state before a first call."""
        return np.zeros(self._compiled.info.state_size, np.uint8)

    def run(
        self, feeds: Mapping[str, Array], state: npt.NDArray[np.uint8] | None = None
    ) -> dict[str, Array]:
        """The outputs for named inputs.

        `state` is as for a model's `run`, in the byte order of the target; by default a new one.

        Raises:
            ValueError: an input is missing, of a wrong type or shape, or holds a value that the
                model cannot accept.
            InternalError: the program crashed.
        """
        program = self._compiled.program
        dims = bind_symbols(program.inputs, feeds)
        state = self.new_state() if state is None else state
        sent = b"".join(self._sent(feeds, dims, state))
        status, written, said = self.execute(self._program, sent)
        if status:
            name = (*self.emulator, str(self._program))[0]
            reason = f"{name} ended with {status} {said}".strip()
            raise InternalError(f"{reason} running {program.name} for {self._compiled.target.name}")
        return self._received(written, state)

    def _sent(
        self, feeds: Mapping[str, Array], dims: Mapping[str, int], state: npt.NDArray[np.uint8]
    ) -> Iterator[bytes]:
        if not self._compiled.embedded:
            yield from (block.tobytes() for block in self._compiled.weights())
        yield np.array([dims[s.name] for s in self._compiled.program.symbols], self._size).tobytes()
        yield state.tobytes()
        for tensor in self._compiled.info.inputs:
            array = np.ascontiguousarray(feeds[tensor.name])
            yield np.array(array.nbytes, self._size).tobytes()
            yield self._swapped(array.view(np.uint8) if array.ndim == 0 else array).tobytes()

    def _received(self, data: bytes, state: npt.NDArray[np.uint8]) -> dict[str, Array]:
        at = self._size.itemsize + state.size
        status = int(np.frombuffer(data, self._size, 1)[0])
        state[:] = np.frombuffer(data, np.uint8, state.size, self._size.itemsize)
        if status:
            reason = "an input holds a value that the model cannot accept"
            raise ValueError(reason) if status == _BAD_VALUE else InternalError(f"status {status}")
        outputs = {}
        for tensor, (name, value) in zip(
            self._compiled.info.outputs, self._compiled.program.outputs, strict=True
        ):
            shape = tuple(map(int, np.frombuffer(data, self._size, tensor.rank, at)))
            at += tensor.rank * self._size.itemsize
            raw = np.frombuffer(data, np.uint8, tensor.bytes, at)
            at += tensor.bytes
            elements = raw.view(value.type.dtype.numpy)[: int(np.prod(shape))]
            outputs[name] = self._swapped(elements).reshape(shape)
        return outputs

    def in_order(self, kept: Array) -> Array:
        """The elements of an array in the target's byte order, in this machine's."""
        return self._swapped(kept)

    def _swapped(self, array: Array) -> Array:
        """The array with its bytes in the target's order, or back."""
        native = sys.byteorder == ("little" if self._order == "<" else "big")
        if native:
            return array
        return array.view(f"u{array.itemsize}").byteswap().view(array.dtype)
