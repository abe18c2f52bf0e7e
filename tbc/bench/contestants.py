"""The limits, kernels, layers and others of a case, each with endless calls of it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import repeat
from typing import TypeAlias

import numpy as np

from tbc.bench.dots import Dot, Product, emit, load
from tbc.bench.layers import Layer
from tbc.bench.limits import STEP, STREAMS, Peak, Stream, isa_of, peaks
from tbc.bench.memory import Ring, Room
from tbc.bench.peers import Contest
from tbc.bench.report import Work
from tbc.bench.team import Team
from tbc.bench.timing import Call
from tbc.codegen.jit import Loaded
from tbc.codegen.llvm_text import Module
from tbc.codegen.machine import Workers
from tbc.kernels import Kernel
from tbc.layout import Layout
from tbc.runtime import structs
from tbc.target import Target
from tbc.types import DType

Contestant: TypeAlias = tuple[Work, Iterator[Call]]

READ = (1 << 15, 4 << 20)
"""Bytes, at least and at most, that a call of a reading loop takes."""
PEAK_ROUNDS = 20_000
"""Of the loop of a peak, a call."""


def code_of(product: Product, kernels: Sequence[Kernel], target: Target) -> Loaded:
    """The kernels for a product, and the loops of the limits."""
    module = Module(target.triple)
    for kernel in kernels:
        emit(module, kernel, product, target)
    loops: tuple[Stream | Peak, ...] = (*STREAMS, *peaks(target))
    for loop in loops:
        loop.emit(module, target)
    for stream in STREAMS:
        stream.emit_shared(module, target)
    with Workers(1) as workers:
        return load(module, target, workers)


class Limits:
    """The loops that read memory and that compute, with room for them."""

    def __init__(self, code: Loaded, target: Target):
        self._code, self._target = code, target
        self._hot = Ring(READ[1])
        self._x, self._out = Room.of(np.ones(16, np.float32)), Room(64 * 64)

    def _function(self, symbol: str) -> Callable[..., object]:
        kinds = (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_void_p)
        return ctypes.CFUNCTYPE(None, *kinds)(self._code.address(symbol))

    def streams(self, product: Product, ring: Ring | None) -> Iterator[Contestant]:
        """Loops that read as much as the product's trits take, from a ring if they are cold."""
        size = min(max(Layout("i2").size(product.n, product.k), READ[0]), READ[1])
        return (self._stream(stream, size, ring) for stream in STREAMS)

    def _stream(self, stream: Stream, size: int, ring: Ring | None) -> Contestant:
        each = size // stream.streams // STEP * STEP
        read, out = self._function(stream.symbol), self._out.address
        work = Work("stream", stream.name, bytes=each * stream.streams)
        if ring is None:
            return work, repeat(partial(read, self._hot.address, each, out))
        return work, iter(lambda: partial(read, ring.take(size), each, out), None)

    def shared_streams(
        self, product: Product, ring: Ring | None, team: Team
    ) -> Iterator[Contestant]:
        """The same loops on threads, which read a part each."""
        size = min(max(Layout("i2").size(product.n, product.k), READ[0]), READ[1])
        return (self._shared_stream(stream, size, ring, team) for stream in STREAMS)

    def _shared_stream(
        self, stream: Stream, size: int, ring: Ring | None, team: Team
    ) -> Contestant:
        each = size // (stream.streams * team.threads) // STEP * STEP
        whole = each * stream.streams * team.threads
        read = self._code.address(stream.shared)
        shares, out = (ctypes.c_size_t * 1)(each), (ctypes.c_void_p * 1)(self._out.address)
        first = structs.Call(outputs=out, dims=shares, arena=self._hot.address)
        runs = team.count(read, first)
        calls = [structs.Call(outputs=out, dims=shares) for _ in range(runs)]
        together = team.call(read, calls)

        def run() -> None:
            for call in calls:
                call.arena = self._hot.address if ring is None else ring.take(size)
            together()

        name = f"{stream.name}, {team.threads} threads"
        return Work("stream", name, float(runs), bytes=whole, threads=team.threads), repeat(run)

    def peaks(self) -> Iterator[Contestant]:
        """Loops of nothing but multiply-adds."""
        return (self._peak(peak) for peak in peaks(self._target))

    def _peak(self, peak: Peak) -> Contestant:
        run = self._function(peak.symbol)
        macs = peak.macs(self._target) * PEAK_ROUNDS
        work = Work(
            "peak",
            peak.name,
            macs=macs,
            is_float=peak.is_float,
            isa=peak.isa,
            instructions=macs / peak.each,
        )
        return work, repeat(partial(run, self._x.address, PEAK_ROUNDS, self._out.address))


def dot(dot: Dot, product: Product, ring: Ring | None) -> Contestant:
    """A kernel, on weights of a ring if they are cold."""
    work = Work(
        "dot",
        dot.kernel.name,
        dot.part,
        product.macs,
        dot.bytes,
        dot.kernel.activations is DType.f32,
        isa_of(dot.kernel),
        dot.kernel.rows_cost(product.m) * product.n * product.k,
    )
    return work, dot.hot() if ring is None else dot.cold(ring)


def layer(name: str, layer: Layer, product: Product, calls: Iterator[Call]) -> Contestant:
    """A compiled layer."""
    name = ", ".join([f"tbc {name}", *layer.kernels])
    return Work("layer", name, macs=product.macs, bytes=layer.weights.nbytes), calls


def shared(layer: Layer, work: Work, team: Team, cold: int) -> Contestant:
    """The runs of a layer or a model, shared by threads; on `cold` bytes of weights in turn."""
    calls, runs = layer.shared(team, cold)
    name = f"{work.name}, {team.threads} threads"
    return replace(work, name=name, part=float(runs), threads=team.threads), calls


def peer(contest: Contest, product: Product, calls: Iterator[Call]) -> Contestant:
    """Another's layer."""
    held = contest.peer.bytes(product)
    return Work("peer", contest.peer.name, macs=product.macs, bytes=held), calls
