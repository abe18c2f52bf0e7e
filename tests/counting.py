"""How many instructions a compiled model executes, counted while it runs.

Three counters, none of which changes what the program does. `tests/c/count.c` is a plugin of qemu,
for processes and boards: it adds up every function's instructions as they are executed. wasmtime
takes one unit of fuel for an instruction of WebAssembly. What runs on an x86 of this machine, as
AVX-512 does that qemu lacks, is executed in single steps by `tests/c/steps.c`.
"""

from __future__ import annotations

import functools
import platform
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from tbc import emulate_wasm
from tbc.emulate import Emulated, execute

Array = npt.NDArray[Any]

SOURCES = Path(__file__).with_name("c")
AROUND = frozenset(
    ("_start", "ask", "fault", "get", "open_file", "put", "reset", "room", "run", "system_call")
)
"""The functions of tbc/emulate.c and tbc/board.c."""
PLUGIN, FUEL, STEPS = "qemu plugin", "wasmtime's fuel", "single steps"


class CannotCount(Exception):
    """No counter works for this program here; the message says what is missing."""


@dataclass(frozen=True)
class Count:
    """The instructions of one run.

    Attributes:
        counter: `PLUGIN`, `FUEL` or `STEPS`.
        total: those of the model's functions.
        functions: by function, the same; empty where the counter does not tell.
    """

    counter: str
    total: int
    functions: Mapping[str, int]


def counted(emulated: Emulated, feeds: Mapping[str, Array]) -> tuple[dict[str, Array], Count]:
    """The outputs of one run of a model, and its instructions.

    Raises:
        CannotCount: what would count is missing.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "counts"
        command, before = emulated.emulator, emulated.execute
        calls: list[tuple[int, int]] = []
        if command == ("wasmtime",):
            emulated.execute = functools.partial(
                emulate_wasm.execute, called=lambda number, used: calls.append((number, used))
            )
        elif command:
            emulated.execute = functools.partial(execute, (command[0], *plugin(out), *command[1:]))
        else:
            emulated.execute = functools.partial(_in_steps, out)
        try:
            outputs = emulated.run(feeds)
        finally:
            emulated.execute = before
        if calls:
            return outputs, Count(FUEL, _between(calls), {})
        if command:
            return outputs, _of_model(functions_in(out))
        return outputs, Count(STEPS, int(out.read_text()), {})


def plugin(out: Path) -> tuple[str, ...]:
    """Options of a qemu that let it write its counts to a file."""
    return ("-plugin", f"file={_built('count.c', '-shared', '-fPIC')},out={out}")


def functions_in(out: Path) -> Counter[str]:
    """What the plugin has written."""
    counts: Counter[str] = Counter()
    for line in out.read_text().splitlines():
        count, _, name = line.partition(" ")
        counts[name] += int(count)
    return counts


def _of_model(functions: Counter[str]) -> Count:
    """Without what surrounds the model, which is what calls it, reads and writes."""
    own = {
        name: count
        for name, count in functions.items()
        if count and name not in AROUND and not name.endswith("_output_shape")
    }
    return Count(PLUGIN, sum(own.values()), own)


def _between(calls: Sequence[tuple[int, int]]) -> int:
    """What was used from the last input, which is read before a run, to the status behind it."""
    end = next(i for i, (number, _) in enumerate(calls) if number == emulate_wasm.WRITE)
    return calls[end][1] - calls[end - 1][1]


def _in_steps(out: Path, program: Path, data: bytes) -> tuple[int, bytes, str]:
    """Run a program of this machine; the count of its model's `run` goes to `out`."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise CannotCount("only x86-64 Linux executes programs in steps")
    found = re.search(r"^([0-9a-f]+) t tbc_\w+_run$", _symbols(program), re.MULTILINE)
    if found is None:
        raise CannotCount("there is no function `run` among the program's symbols")
    done = execute((str(_built("steps.c")), str(out), found[1]), program, data)
    if done[0] and not out.exists():
        raise CannotCount("this system does not let a program be executed in steps")
    return done


def _symbols(program: Path) -> str:
    if shutil.which("nm") is None:
        raise CannotCount("nm is missing: install binutils")
    return subprocess.run(["nm", program], capture_output=True, text=True, check=True).stdout


@functools.cache
def _built(source: str, *options: str) -> Path:
    """A C file of tests/c compiled for this machine, once a process."""
    if shutil.which("cc") is None:
        raise CannotCount("a C compiler is missing")
    folder = tempfile.mkdtemp()
    path = Path(folder) / source.partition(".")[0]
    subprocess.run(["cc", "-O1", *options, "-o", path, SOURCES / source], check=True)
    return path
