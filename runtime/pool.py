"""Threads that share the runs of a model: each does a part of every phase, by `run_part`.

The caller's thread does part 0; the others wait in a queue for the next run. Inside a run they wait
in the model's own code, where no thread holds the interpreter's lock.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from tbc.errors import TbcError
from tbc.runtime import structs

LEAST_SECONDS = 100e-6
"""Runs that take less on one thread stay there: to wake others takes some tens of microseconds."""

_LINE = 64


class _Job:
    """One run, and which of its parts are done.

    An interrupt (Ctrl-C) may come between any two operations of Python, and a part that is never
    run would be waited for without end. So each part's call and the note that it is done are one
    operation, and `finish` can be called again.
    """

    def __init__(self, run_part: Callable[..., int], call: Any, parts: int, keep: object):
        self._run_part, self._call, self._parts, self._keep = run_part, call, parts, keep
        self._free = iter(range(1, parts))
        self._first: list[int] = []
        self._rest: list[int] = []
        self._bell: SimpleQueue[None] = SimpleQueue()

    def help(self) -> None:
        """Do one of the parts behind the first, if one is left."""
        for part in islice(self._free, 1):
            self._do(part, self._rest)
            if len(self._rest) == self._parts - 1:
                self._bell.put(None)

    def finish(self) -> int:
        """Do the first part, if it is not done, and wait for the others; the status of the run."""
        if not self._first:
            self._do(0, self._first)
        while not self.is_done:
            self._bell.get()
        return self._first[0]

    @property
    def is_done(self) -> bool:
        """Whether all parts are."""
        return len(self._first) + len(self._rest) == self._parts

    def _do(self, part: int, statuses: list[int]) -> None:
        statuses.extend(map(self._run_part, (self._call,), (part,), (self._parts,)))


class Pool:
    """Threads for the runs of models, one run at a time.

    They start with the first run, and end with the pool.

    Attributes:
        threads: how many work on a run, that of the caller among them.
        least_seconds: runs that take less on one thread are not worth sharing.
        sync: what `tbc_call.sync` of the runs points to.
    """

    def __init__(self, threads: int, least_seconds: float = LEAST_SECONDS):
        self.threads, self.least_seconds = threads, least_seconds
        self._memory = np.zeros(2 * _LINE, np.uint8)
        start = self._memory.ctypes.data
        self.sync = structs.Sync.from_address(start + -start % _LINE)
        setattr(self.sync, "yield", _system_yield())
        self._free = threading.Lock()
        self._todo: SimpleQueue[_Job | None] = SimpleQueue()
        self._process = 0

    def run(self, run_part: Callable[..., int], call: Any, keep: object) -> int | None:
        """The status of a run, or None at once if the pool is at work on another one.

        Args:
            run_part: of the model.
            call: its first argument.
            keep: what must live until the run has ended.

        Raises:
            TbcError: the system starts no more threads.
        """
        if not self._free.acquire(blocking=False):
            return None
        try:
            self._start()
            job = _Job(run_part, call, self.threads, keep)
            try:
                self._wake(job)
                return job.finish()
            except BaseException:
                while not job.is_done:
                    with suppress(KeyboardInterrupt):
                        self._wake(job)
                        job.finish()
                raise
        finally:
            self._free.release()

    def _start(self) -> None:
        """Start the threads, unless they are there; a process that was forked off has none."""
        if self._process == os.getpid():
            return
        self._todo = SimpleQueue()
        others = range(self.threads - 1)
        weakref.finalize(self, _stop, self._todo, len(others))
        try:
            for _ in others:
                threading.Thread(target=_work, args=(self._todo,), name="tbc", daemon=True).start()
        except RuntimeError as error:
            _stop(self._todo, len(others))
            reason = f"the system starts no {self.threads} threads"
            raise TbcError(reason, hint="fewer of them") from error
        self._process = os.getpid()

    def _wake(self, job: _Job) -> None:
        for _ in range(self.threads - 1):
            self._todo.put(job)


def _work(todo: SimpleQueue[_Job | None]) -> None:
    """What a thread of a pool does, which it must not keep alive."""
    while (job := todo.get()) is not None:
        job.help()
        del job


def _stop(todo: SimpleQueue[_Job | None], threads: int) -> None:
    for _ in range(threads):
        todo.put(None)


def _system_yield() -> int | None:
    """The address of the system's function that lets another thread run, if there is one."""
    try:
        if sys.platform == "win32":
            function: Any = ctypes.WinDLL("kernel32").SwitchToThread
        else:
            function = ctypes.CDLL(None).sched_yield
    except (OSError, AttributeError):
        return None
    return ctypes.cast(function, ctypes.c_void_p).value


def physical_cores() -> int:
    """How many cores this process may use; on Linux, those that share one count once."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    cores = set()
    for cpu in os.sched_getaffinity(0):
        try:
            text = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
            cores.add(text.read_text())
        except OSError:
            cores.add(str(cpu))
    return len(cores)
