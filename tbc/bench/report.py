"""What `tbc bench` tells: the fields of its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tbc.bench.timing import Quartiles

KINDS = ("stream", "peak", "dot", "layer", "peer", "model", "step")
"""A loop that reads, one that multiplies and adds, a kernel, a compiled layer, another's, a whole
model, a step of one."""


@dataclass(frozen=True)
class Row:
    """A contestant.

    Attributes:
        kind: of `KINDS`.
        name: for people.
        median_us: microseconds of the whole product, though samples may be slices of it; of limits,
            of a sample.
        lower_us: the first quartile.
        upper_us: the third quartile.
        gb_per_s: bytes of weights (of streams, bytes read) by 1e9 seconds; None where there are
            none.
        gmac_per_s: multiply-adds by 1e9 seconds; None where there are none.
        of_limit: the least time that the limits of the case allow, as a part of the median; None of
            limits and of models.
        limit: what the least time comes from, "reading" or "arithmetic"; "" where there is none.
        is_float: whether its arithmetic is f32.
        growth: of sweeps, the median as a multiple of that of the row before, which has one
            activation row less; else None.
        share: of a step, its part of the time of all steps; else None.
        predicted_us: of a kernel, the median that the cost model expects: its instructions at the
            rate of the best peak of its kind, or the reading of its weights, if that takes longer.
            None where nothing tells the rate.
    """

    kind: str
    name: str
    median_us: float
    lower_us: float
    upper_us: float
    gb_per_s: float | None = None
    gmac_per_s: float | None = None
    of_limit: float | None = None
    limit: str = ""
    is_float: bool = False
    growth: float | None = None
    share: float | None = None
    predicted_us: float | None = None


@dataclass(frozen=True)
class Case:
    """Contestants that took turns.

    Attributes:
        name: MxNxK, or a model's file.
        weights: "cold" or "hot".
        rows: the contestants.
        verdicts: how the kernels that the cost model chooses compare with the fastest, where all
            kernels took part.
    """

    name: str
    weights: str
    rows: tuple[Row, ...]
    verdicts: tuple[str, ...] = ()


@dataclass(frozen=True)
class BenchReport:
    """Everything that was measured, and where.

    Attributes:
        target: as the user wrote it.
        triple: the same in LLVM's words.
        features: the CPU features that code for it uses, of those that tbc knows.
        system: the operating system.
        threads: on how many layers and models run besides one.
        clock: "thread", which stands still while other processes run, or "wall".
        load: processes that wanted to run, on average of the minute before; None if not known.
        versions: of tbc and of others that took part.
        notes: what was left out, and why.
        cold_bytes: bytes of weights that are read in turn where weights are cold.
        rounds: samples of each contestant.
        cases: in order.
    """

    target: str
    triple: str
    features: tuple[str, ...]
    system: str
    clock: str
    threads: int
    load: float | None
    versions: Mapping[str, str]
    notes: tuple[str, ...]
    cold_bytes: int
    rounds: int
    cases: tuple[Case, ...]


@dataclass(frozen=True)
class Work:
    """What a contestant does.

    Attributes:
        kind: of `KINDS`.
        name: for people.
        part: what part of the whole a call is.
        macs: multiply-adds of the whole; 0 where they are not known.
        bytes: of weights that the whole reads; 0 where there are none.
        is_float: whether its arithmetic is f32.
        isa: of a peak or a kernel, what tells the rate of its instructions: a peak's dot; "" of
            others.
        instructions: of a peak or a kernel, how many the whole takes, by the cost model.
        threads: how many do it together.
    """

    kind: str
    name: str
    part: float = 1.0
    macs: int = 0
    bytes: int = 0
    is_float: bool = False
    isa: str = ""
    instructions: float = 0.0
    threads: int = 1


def rows(timed: list[tuple[Work, Quartiles]]) -> tuple[Row, ...]:
    """The rows of a case, each measured against the limits among them."""
    streams = [(w.threads, w.bytes * w.part / q.median) for w, q in timed if w.kind == "stream"]
    reading = {n: max(rate for m, rate in streams if m == n) for n, _ in streams}
    arithmetic = {
        is_float: max(
            (w.macs / q.median for w, q in timed if w.kind == "peak" and w.is_float == is_float),
            default=0.0,
        )
        for is_float in (False, True)
    }
    rates = {w.isa: w.instructions / q.median for w, q in timed if w.kind == "peak"}
    return tuple(
        _row(
            work,
            q,
            reading.get(work.threads, 0.0),
            work.threads * arithmetic[work.is_float],
            rates.get(work.isa, 0.0),
        )
        for work, q in timed
    )


def growing(found: tuple[Row, ...]) -> tuple[Row, ...]:
    """The rows of a sweep, its dots in the order of their activation rows, with their growth."""
    before = (None, *found)
    return tuple(
        replace(row, growth=row.median_us / last.median_us)
        if last is not None and row.kind == last.kind == "dot"
        else row
        for last, row in zip(before, found, strict=False)
    )


def _row(work: Work, q: Quartiles, reading: float, arithmetic: float, rate: float) -> Row:
    """A row, by bytes, multiply-adds and its instructions a second; 0 where they are unknown."""
    median, lower, upper = (t / work.part for t in (q.median, q.lower, q.upper))
    part, limit = None, ""
    if work.kind in ("dot", "layer", "peer"):
        least = {
            "reading": work.bytes / reading if reading else 0.0,
            "arithmetic": work.macs / arithmetic if arithmetic else 0.0,
        }
        limit = max(least, key=lambda name: least[name])
        part = least[limit] / median
    predicted = None
    if work.kind == "dot" and rate and reading:
        predicted = max(work.instructions / rate, work.bytes / reading) * 1e6
    return Row(
        kind=work.kind,
        name=work.name,
        median_us=median * 1e6,
        lower_us=lower * 1e6,
        upper_us=upper * 1e6,
        gb_per_s=work.bytes / median / 1e9 if work.bytes else None,
        gmac_per_s=work.macs / median / 1e9 if work.macs else None,
        of_limit=part,
        limit=limit,
        is_float=work.is_float,
        predicted_us=predicted,
    )
