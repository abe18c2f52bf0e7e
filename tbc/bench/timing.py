"""Time in short samples: the contestants take turns, so that a busy machine meets all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

import numpy as np

Call: TypeAlias = Callable[[], object]
Clock: TypeAlias = Callable[[], float]

SAMPLE = 2e-4
"""Seconds that a sample takes at least: long beside the clock, short beside a time slice."""


IS_THREADS = time.get_clock_info("thread_time").resolution <= 1e-6
"""Whether the system tells precisely how long a thread has run: on Linux and macOS, not Windows."""
WALL: Clock = time.perf_counter
CLOCK: Clock = time.thread_time if IS_THREADS else WALL
"""Where it can, it stands still while other processes have the processor."""

LONG = 10
"""Samples: a call that takes so many is not disturbed much by what was before."""


@dataclass(frozen=True)
class Quartiles:
    """Of the seconds that a call takes."""

    lower: float
    median: float
    upper: float


def quartiles(seconds: Sequence[float]) -> Quartiles:
    """The quartiles of samples."""
    return Quartiles(*(float(q) for q in np.quantile(seconds, (0.25, 0.5, 0.75))))


def sample(calls: Iterable[Call], clock: Clock = CLOCK) -> float:
    """Seconds a call; the calls are at hand before the clock starts."""
    ready = tuple(calls)
    start = clock()
    for call in ready:
        call()
    return (clock() - start) / len(ready)


def shortest(calls: Iterator[Call], clock: Clock = CLOCK) -> float:
    """The shortest of a few single calls: how long one takes if nothing comes between."""
    return min(sample(islice(calls, 1), clock) for _ in range(3))


def in_turns(
    contestants: Mapping[str, Iterator[Call]],
    rounds: int,
    least: float = SAMPLE,
    clock: Clock = CLOCK,
) -> dict[str, Quartiles]:
    """Seconds a call of each contestant, from one sample of it in each round.

    Before a sample of short calls stands one that is not counted: it brings back what the others
    have driven out of the caches, and the clock to what its instructions allow.

    Args:
        contestants: endless calls by name.
        rounds: samples of each.
        least: seconds that a sample takes at least, in as many calls as that needs.
        clock: what tells the seconds.
    """
    single = {name: max(shortest(calls, clock), 1e-9) for name, calls in contestants.items()}
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, calls in contestants.items():
            if single[name] < LONG * least:
                sample(islice(calls, 1), clock)
            count = max(1, round(least / single[name]))
            seconds[name].append(sample(islice(calls, count), clock))
    return {name: quartiles(found) for name, found in seconds.items()}
