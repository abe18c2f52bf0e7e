"""What the fuzzer asks of any bytes: a program or a typed error, within time and memory."""

from __future__ import annotations

import resource
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tbc.codegen.host import resolve_target
from tbc.driver import lower
from tbc.errors import InternalError, TbcError
from tbc.frontend import load
from tbc.ir import Graph

SECONDS = 2.0
"""Processor time for an input."""
MEMORY = 512 << 20
"""Bytes that an input may take, beyond what the process has already."""
TARGET = resolve_target("x86-64-v3")


class TooSlow(BaseException):
    """The time is over. Not an Exception, so that nothing in between makes another error of it."""


def check(data: bytes, seconds: float = SECONDS) -> str:
    """How the bytes end as a model: "compiled", or the name of the error that they are refused by.

    Raises:
        TooSlow: it took more than so many seconds of processor time.
        Exception: anything that is not a typed error, warnings and `MemoryError` included.
    """
    with _time_limit(seconds), _memory_limit(MEMORY), warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            lower(_graph(data), TARGET)
        except InternalError:
            raise
        except TbcError as error:
            str(error)
            return type(error).__name__
    return "compiled"


def _graph(data: bytes) -> Graph:
    """The imported graph, with a small bound for each symbol that has none."""
    graph = load(data).graph
    loose = {s.name: (s.lo, s.lo + 3) for s in graph.symbols() if s.hi is None}
    return load(data, dims=loose).graph if loose else graph


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Within it, TooSlow is raised once the process has worked for so long."""

    def stop(*_: object) -> None:
        raise TooSlow(f"more than {seconds:g} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextmanager
def _memory_limit(size: int) -> Iterator[None]:
    """Within it, the process can grow by so many bytes."""
    status = Path("/proc/self/statm")
    if not status.exists():  # only Linux says what the process holds, and keeps to the limit
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    held = int(status.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
