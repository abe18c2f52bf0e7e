"""LLVM text in, machine code out, by worker processes that may die of it."""

from __future__ import annotations

import os
import pickle
import queue
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import llvmlite.binding as llvm

from tbc.codegen import worker
from tbc.codegen.objfile import undefined_symbols
from tbc.errors import InternalError
from tbc.target import Target


def machine_of(target: Target, movable: bool = False) -> dict[str, str]:
    """What LLVM is told of a target: see `worker.target_machine`.

    `movable` code runs at whatever address it lies; else that is so where a system has libraries.
    """
    # Without an operating system nothing relocates the code, and constants must stay in flash.
    static = (target.os == "none" and not movable) or target.arch == "wasm"
    far = static and target.triple.startswith("riscv64")
    return {
        "triple": target.triple,
        "cpu": target.cpu,
        "features": target.attrs,
        "abi": target.abi,
        "reloc": "static" if static else "pic",
        "code_model": "medium" if far else "small",
        "attributes": "optsize" if target.is_small else "",
    }


def variant_attributes(target: Target) -> str:
    """The attributes of functions that are for a target, in a module of a lesser one."""
    features = f'"target-features"="{target.attrs}"' if target.attrs else ""
    return f'"target-cpu"="{target.cpu}" {features}'


def llvm_version() -> tuple[int, ...]:
    """Of the LLVM that makes the code."""
    version: tuple[int, ...] = llvm.llvm_version_info
    return version


@dataclass(frozen=True)
class Part:
    """LLVM text, and whether LLVM's pass pipeline runs on it before the parts are linked.

    `attributes` are of all its functions: those of `variant_attributes`, say.
    """

    text: str
    passes: bool
    attributes: str = ""


@dataclass(frozen=True)
class Job:
    """One object file to be: parts that may call each other's external functions.

    Attributes:
        target: what it is compiled for.
        parts: at least one.
        keep: the symbols that stay visible, as weak ones do; all others become internal. What
            of them is only declared is defined elsewhere.
        kinds: what is wanted: see `worker.compile_parts`.
        about: the kernel or model, for messages; by default the functions in the text.
        closed: whether a symbol that the object needs from elsewhere is an error.
        movable: see `machine_of`.
    """

    target: Target
    parts: tuple[Part, ...]
    keep: frozenset[str]
    kinds: frozenset[str] = frozenset({"obj"})
    about: str = ""
    closed: bool = True
    movable: bool = False

    def __str__(self) -> str:
        names = (re.findall(r"(?m)^\s*define [^@\n]*@([\w.$]+)", p.text)[:4] for p in self.parts)
        return (
            f"{self.about or ', '.join(n for part in names for n in part)} for {self.target.name}"
        )


class _Process:
    """One worker: started when made, dead after `close` or a crash."""

    def __init__(self) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-P", worker.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )

    def ask(self, request: dict[str, Any]) -> tuple[bool, Any]:
        """The reply; EOFError if the worker died of the request."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            pickle.dump(request, stdin)
            stdin.flush()
            ok, value = pickle.load(stdout)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
            raise EOFError from error
        return ok, value

    def last_words(self) -> str:
        """Why LLVM died, as it printed that: without warnings of frames and the stack trace."""
        self._process.wait()
        self._log.seek(0)
        text = worker.FRAME.sub("", self._log.read().decode(errors="replace"))
        text = re.split(r"(?m)^(?:PLEASE submit|Stack dump|#\d)", text)[0]
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        errors = [i for i, line in enumerate(lines) if "LLVM ERROR" in line]
        # Behind what it cannot select are the operands, and at last the function.
        first, *rest = lines[errors[-1] :] if errors else lines[-3:] or [""]
        said = "; ".join([first, *(rest[-1:] if errors else rest)])
        return said or f"exit status {self._process.returncode}"

    def close(self) -> None:
        """End the process and wait for it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
        self._log.close()


_GIVEN = frozenset({"_fltused"})
"""What a C runtime defines: Windows' mark of floats."""


class Workers:
    """Up to `count` worker processes, started when needed and kept until `close`.

    A context manager; safe to use from several threads.
    """

    def __init__(self, count: int | None = None):
        self._count = count or os.cpu_count() or 1
        self._slots: queue.LifoQueue[_Process | None] = queue.LifoQueue()
        for _ in range(self._count):
            self._slots.put(None)

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all workers."""
        for process in [self._slots.get() for _ in range(self._count)]:
            if process is not None:
                process.close()
            self._slots.put(None)

    def compile(self, job: Job) -> dict[str, bytes]:
        """The kinds that the job asks for; InternalError if LLVM fails or symbols are missing."""
        request = {
            "machine": machine_of(job.target, job.movable),
            "parts": [(part.text, part.passes, part.attributes) for part in job.parts],
            "keep": sorted(job.keep),
            "kinds": sorted(job.kinds | ({"obj"} if job.closed else set())),
        }
        done = self._ask(request, job)
        if job.closed and (missing := undefined_symbols(done["obj"]) - _GIVEN):
            raise InternalError(f"the code of {job} needs {', '.join(sorted(missing))}")
        return {kind: done[kind] for kind in job.kinds}

    def compile_all(self, jobs: Sequence[Job]) -> list[dict[str, bytes]]:
        """`compile` of every job, as many at a time as there are workers."""
        with ThreadPoolExecutor(self._count) as threads:
            return list(threads.map(self.compile, jobs))

    def datalayout(self, target: Target) -> str:
        """LLVM's data layout string of a target."""
        machine = machine_of(target)
        request = {"machine": machine, "parts": [], "keep": [], "kinds": ["datalayout"]}
        return str(self._ask(request, target.name)["datalayout"], "ascii")

    def _ask(self, request: dict[str, Any], about: object) -> dict[str, bytes]:
        """The worker's answer; InternalError about `about` if there is none."""
        process = self._slots.get()
        try:
            process = process or _Process()
            ok, value = process.ask(request)
        except EOFError:
            assert process is not None
            said = process.last_words()
            process.close()
            process = None
            raise InternalError(f"LLVM died compiling {about}: {said}") from None
        finally:
            self._slots.put(process)
        if not ok:
            raise InternalError(f"LLVM refuses the code of {about}: {value}")
        result: dict[str, bytes] = value
        return result


def compile_modules(jobs: Sequence[Job]) -> list[dict[str, bytes]]:
    """`Workers.compile_all` with workers that live for this call."""
    with Workers(min(len(jobs), os.cpu_count() or 1)) as workers:
        return workers.compile_all(jobs)


def compile_module(
    text: str, target: Target, *, passes: bool, kinds: Iterable[str], keep: Iterable[str]
) -> dict[str, bytes]:
    """The kinds ("obj", "asm", "llvm") of one module, compiled by a worker of its own."""
    job = Job(target, (Part(text, passes),), frozenset(keep), frozenset(kinds))
    return compile_modules([job])[0]
