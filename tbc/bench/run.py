"""What `tbc bench` does, case by case."""

from __future__ import annotations

import itertools
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from tbc import __version__
from tbc.bench import contestants
from tbc.bench.contestants import READ, Contestant, Limits, code_of
from tbc.bench.dots import Dot, Product, Sweep, kernels_of
from tbc.bench.layers import Layer
from tbc.bench.memory import Ring, physical_memory
from tbc.bench.onnx_models import bit_linear, block_of, nbits
from tbc.bench.peers import Contest, Peer, peers
from tbc.bench.peers.onnx import runs, session
from tbc.bench.report import BenchReport, Case, Work, growing, rows
from tbc.bench.steps import profile
from tbc.bench.team import Team
from tbc.bench.timing import CLOCK, WALL, Clock, in_turns
from tbc.errors import InternalError, Unsupported
from tbc.feeds import named, random_feeds
from tbc.frontend import load
from tbc.ir import Graph
from tbc.kernels import BY_NAME, choose
from tbc.passes.select import by_cost
from tbc.reference import zero_states
from tbc.target import Target
from tbc.tuning import DotShape
from tbc.types import DType

SCALE = 0.02
"""Of the weights."""
TOLERANCE = 0.02
"""How far results may lie apart whose activations are rounded, relative to the largest."""
COPIES = 4096
"""More of a layer's weights are not made in order to have them cold."""
OVERSUBSCRIBED = 2
"""More threads for each processor are refused: they wait for each other without yielding, so that
each time they meet takes as many slices of the scheduler's as there are threads too many."""
HELD = 8
"""Bytes of memory for each byte of cold weights, of all contestants together."""


@dataclass(frozen=True)
class Bench:
    """Measures products and models, each in turns of short samples.

    Attributes:
        target: what is compiled for; this machine can run it.
        rounds: samples of each contestant.
        cold: bytes of weights that are read in turn, so that none are in a cache; 0 for hot weights
            only.
        every: whether to run every kernel, not only those that are chosen, and to compare these
            with the fastest.
        steps: whether to time the steps of models too.
        progress: told what is being done.
        threads: layers and models run on so many threads too, if they are more than one.

    Raises:
        ValueError: this machine has not the processors, or not the memory.
    """

    target: Target
    rounds: int
    cold: int
    every: bool
    steps: bool
    progress: Callable[[str], None]
    threads: int = 1
    _notes: dict[str, None] = field(default_factory=dict)
    _peers: list[Peer] = field(default_factory=list)

    def __post_init__(self) -> None:
        cpus = os.cpu_count() or 1
        most = max(OVERSUBSCRIBED * cpus, 4)
        if self.threads > most:
            reason = f"{self.threads} threads have no processors here: there are {cpus}"
            raise ValueError(f"{reason}, for {most} threads at most")
        memory = physical_memory()
        if memory is not None and self.cold * HELD > memory:
            needed, there = (f"{size / 2**30:.1f} GiB" for size in (self.cold * HELD, memory))
            reason = f"{self.cold >> 20} MiB of cold weights take some {needed} of memory"
            raise ValueError(f"{reason}, and this machine has {there}")

    def report(
        self, products: Sequence[Product | Sweep], models: Mapping[Path, Graph]
    ) -> BenchReport:
        """All of them; the models' graphs have bounds for all sizes, and run at the least.

        Raises:
            InternalError: a kernel or layer computes something wrong.
            Unsupported: a model cannot be fed.
        """
        found, missing = peers()
        self._peers.extend(found)
        self._notes.update(dict.fromkeys(missing))
        busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        cases: list[Case] = []
        for product in products:
            if isinstance(product, Sweep):
                cases += self._sweep(product)
            else:
                cases += self._product(product)
        for path, graph in models.items():
            cases += self._model(path, graph)
        return BenchReport(
            target=self.target.name,
            triple=self.target.triple,
            features=tuple(sorted(self.target.features)),
            system=platform.platform(),
            clock="thread" if self._clock is not WALL else "wall",
            threads=self.threads,
            load=busy,
            versions={"tbc": __version__, "onnxruntime": onnxruntime.__version__},
            notes=tuple(self._notes),
            cold_bytes=self.cold,
            rounds=self.rounds,
            cases=tuple(cases),
        )

    @property
    def _clock(self) -> Clock:
        """The time of a thread leaves out in what time others help it."""
        return CLOCK if self.threads == 1 else WALL

    @cached_property
    def _team(self) -> Team | None:
        return Team(self.threads, self.target) if self.threads > 1 else None

    def _with_team(self, layer: Layer, alone: Contestant, cold: int = 0) -> list[Contestant]:
        """A layer or model on one thread, and on several if that is wanted."""
        team = [contestants.shared(layer, alone[0], self._team, cold)] if self._team else []
        return [alone, *team]

    def _note(self, text: str) -> None:
        self._notes[text] = None

    def _case(self, name: str, weights: str, found: Sequence[Contestant]) -> Case:
        """The contestants, timed."""
        self.progress(f"timing {name}, {weights} weights")
        calls = {str(i): calls for i, (_, calls) in enumerate(found)}
        times = in_turns(calls, self.rounds, clock=self._clock)
        works = (work for work, _ in found)
        return Case(name, weights, rows(list(zip(works, times.values(), strict=True))))

    # -- products ---------------------------------------------------------------------------------

    def _product(self, product: Product) -> Iterator[Case]:
        """A product with cold weights, if wanted, and with hot ones."""
        self.progress(f"compiling {product.name}")
        kernels = kernels_of(self.target, product, self.every)
        code = code_of(product, kernels, self.target)
        limits = Limits(code, self.target)
        dots = [Dot(kernel, product, code) for kernel in kernels]
        layers, contests = self._layers(product)
        if self.cold:
            ring = Ring(max(self.cold, READ[1], *(dot.bytes for dot in dots)))
            found = [*self._limits(limits, product, ring)]
            found += [contestants.dot(dot, product, ring) for dot in dots]
            found += self._cold_layers(product, layers, contests)
            yield self._judged(self._case(product.name, "cold", found), product)
        found = [*self._limits(limits, product, None)]
        found += [contestants.dot(dot, product, None) for dot in dots]
        for name, layer in layers.items():
            alone = contestants.layer(name, layer, product, layer.hot())
            found += self._with_team(layer, alone)
        found += [contestants.peer(each, product, each.hot()) for each in contests]
        yield self._judged(self._case(product.name, "hot", found), product)

    def _limits(self, limits: Limits, product: Product, ring: Ring | None) -> Iterator[Contestant]:
        """What this machine can do, on several threads too if layers run on them."""
        yield from limits.streams(product, ring)
        if self._team:
            yield from limits.shared_streams(product, ring, self._team)
        yield from limits.peaks()

    def _judged(self, case: Case, product: Product) -> Case:
        """With the verdicts on the kernels that are chosen, if all kernels are there."""
        if not self.every:
            return case
        return replace(case, verdicts=tuple(verdicts(case, product, self.target)))

    def _sweep(self, sweep: Sweep) -> Iterator[Case]:
        """The kernels chosen for trits and 8-bit activations, by their number of rows."""
        self.progress(f"compiling {sweep.name}")
        dots, code = [], None
        for product in sweep.products:
            kernel, *_ = choose(self.target, "i2", DType.i8, product.m, product.k)
            code = code_of(product, [kernel], self.target)
            dots.append((product, Dot(kernel, product, code)))
        assert code is not None
        limits = Limits(code, self.target)
        rings = [Ring(max(self.cold, READ[1], dots[0][1].bytes))] if self.cold else []
        for ring in [*rings, None]:
            found = [*limits.streams(dots[0][0], ring), *limits.peaks()]
            for product, dot in dots:
                work, calls = contestants.dot(dot, product, ring)
                found.append((replace(work, name=f"{product.m} rows, {work.name}"), calls))
            case = self._case(sweep.name, "hot" if ring is None else "cold", found)
            yield replace(case, rows=growing(case.rows))

    def _layers(self, product: Product) -> tuple[dict[str, Layer], list[Contest]]:
        """The compiled layers by name, and those of others that compute the same as the first."""
        x, w = product.x(DType.f32), product.weights(DType.trit)
        expected = _product_of(x, w)
        layers = {"BitLinear": self._layer(product, bit_linear(w, SCALE, product.m), w)}
        if block_of(product.k):
            dense = product.weights(DType.i4)
            model = nbits(dense, SCALE, product.m, 4)
            layers["MatMulNBits 4 bits"] = self._layer(product, model, dense)
        contests = []
        for peer in self._peers:
            if lack := peer.lacks(product):
                self._note(lack)
                continue
            contest = Contest(peer, product, w, SCALE, x)
            if reason := _differs(contest.result, expected):
                self._note(f"{peer.name} of {product.name} {reason}")
                continue
            contests.append(contest)
        return layers, contests

    def _layer(self, product: Product, model: onnx.ModelProto, w: npt.NDArray[np.int8]) -> Layer:
        """A model of the product by the weights w, compiled."""
        layer = Layer(load(model).graph, self.target)
        x = product.x(DType.f32)
        (result,) = layer.feed({"x": x}).values()
        if reason := _differs(result, _product_of(x, w)):
            raise InternalError(f"the compiled layer of {product.name} {reason}")
        return layer

    def _cold_layers(
        self, product: Product, layers: Mapping[str, Layer], contests: Sequence[Contest]
    ) -> Iterator[Contestant]:
        """The layers on ever other copies of their weights, if these are not too many."""
        for name, layer in layers.items():
            if layer.weights.nbytes * COPIES < self.cold:
                self._note(f"a layer of {product.name} is too small to have cold weights")
            else:
                alone = contestants.layer(name, layer, product, layer.cold(self.cold))
                yield from self._with_team(layer, alone, self.cold)
        for contest in contests:
            self.progress(f"preparing {contest.peer.name}")
            calls = contest.cold(self.cold)
            if calls is None:
                name = contest.peer.name
                self._note(f"{name}: {product.name} is too small to have cold weights")
            else:
                yield contestants.peer(contest, product, calls)

    # -- models -----------------------------------------------------------------------------------

    def _model(self, path: Path, graph: Graph) -> Iterator[Case]:
        """A model for random inputs, beside onnxruntime if it takes the model."""
        self.progress(f"compiling {path.name}")
        layer = Layer(graph, self.target)
        try:
            feeds = random_feeds(graph, 0, 0, layer.feed)
        except ValueError as error:
            raise Unsupported(f"no random inputs suit the model: {error}", file=str(path)) from None
        layer.feed(feeds)
        found = self._with_team(layer, (Work("model", f"tbc, {path.name}"), layer.hot()))
        try:
            other = repeat(runs(session(path), {**feeds, **named(zero_states(graph))}))
            found.append((Work("model", f"onnxruntime, {path.name}"), other))
        except Exception as error:  # what onnxruntime raises has no common class
            self._note(f"onnxruntime does not take {path.name}: {str(error).splitlines()[0]}")
        yield self._case(path.name, "hot", found)
        if self.steps:
            alone = Layer(graph, self.target, merge=False)
            alone.feed(feeds)
            yield profile(path.name, alone, self.rounds)


def verdicts(case: Case, product: Product, target: Target) -> Iterator[str]:
    """For each type of weights and activations: the kernel that is chosen, and the fastest."""
    times = {row.name: row.median_us for row in case.rows if row.kind == "dot"}
    for weights, activations in itertools.product(("trit", "sign"), ("i8", "f32")):
        shape = DotShape(
            *(weights, activations, product.m, product.m, product.n, product.k, 0),
            is_streamed=case.weights == "cold",
        )
        (chosen, *_), _ = by_cost(shape, target)
        rivals = {
            name: time
            for name, time in times.items()
            if BY_NAME[name].activations is chosen.activations
            and BY_NAME[name].layout().dtype.name == weights
        }
        fastest = min(rivals, key=rivals.__getitem__)
        ratio = rivals[chosen.name] / rivals[fastest]
        than = "is the fastest" if fastest == chosen.name else f"takes {ratio:.2f} x {fastest}"
        yield f"{weights} by {activations}: the choice, {chosen.name}, {than}"


def _product_of(x: npt.NDArray[np.float32], w: npt.NDArray[np.int8]) -> npt.NDArray[np.float32]:
    """The product by the scaled weights, whatever the order of its sums."""
    return np.asarray(x @ w.T.astype(np.float32) * np.float32(SCALE))


def _differs(result: npt.NDArray[Any], expected: npt.NDArray[np.float32]) -> str:
    """How a result differs from what is expected, if it does so by too much."""
    error = np.abs(result - expected).max() / max(np.abs(expected).max(), 1e-9)
    return "" if error <= TOLERANCE else f"is wrong by {error:.2g} of the largest element"
