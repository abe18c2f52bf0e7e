"""`verify`: a compiled model against the exact reference, and against onnxruntime.

Two comparisons. The compiled code must equal, bit for bit, `tbc.reference` on the graph of low-bit
dots that the target-independent passes make; that is the contract of code generation, on every
target. And its outputs must be those of the oracle (`tbc.oracle`) up to float rounding and what
follows of it (`tbc.flips`), unless activations are to be rounded: then it is shown how far off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tbc.api import InProcess, is_native
from tbc.codegen.host import resolve_target
from tbc.codegen.machine import Workers
from tbc.differences import Difference, difference
from tbc.dims import evaluate
from tbc.driver import assemble, identifier, lower, self_test_of_program
from tbc.emulate import Emulated
from tbc.errors import InternalError, Unsupported
from tbc.feeds import named, random_feeds
from tbc.flips import Flips, find_flips
from tbc.ir import Graph, State
from tbc.ops import Input
from tbc.oracle import Feeds, Model, Oracle, oracle_of
from tbc.passes import FRONT
from tbc.program import Program
from tbc.reference import run_graph, zero_states
from tbc.runtime import Model as RuntimeModel
from tbc.runtime import Pool
from tbc.specialise import Specialiser
from tbc.target import ACTIVATIONS, OPTIMIZE, Target

Array = npt.NDArray[Any]
Progress = Callable[[str], None]
Fed: TypeAlias = Callable[[Callable[[Feeds], object]], Feeds]
"""Makes inputs, given what raises ValueError if some are no good."""

RTOL = 1e-4
"""The relative tolerance against the oracle."""


@dataclass(frozen=True)
class OutputReport:
    """An output, all samples together.

    Attributes:
        name: its name.
        type: its type.
        code: compiled code against the exact reference.
        model: compiled code against the oracle.
        flips: of the elements beyond the tolerance, those that flipped codes explain.
        is_rounded: whether activations were rounded on request, so that the code need not compute
            what the oracle does; how far off it is says what the rounding costs.
    """

    name: str
    type: str
    code: Difference = field(default_factory=Difference)
    model: Difference = field(default_factory=Difference)
    flips: int = 0
    is_rounded: bool = False

    @property
    def ok(self) -> bool:
        """Whether the code is exact, and nothing beyond the tolerance is unexplained."""
        return self.code.is_exact and (self.is_rounded or self.model.beyond <= self.flips)


@dataclass(frozen=True)
class LayerReport:
    """A node's result for the first sample; `code` and `model` as in `OutputReport`."""

    node: str
    op: str
    type: str
    code: Difference
    model: Difference


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found.

    Attributes:
        model: its name.
        target: the target's name.
        activations: as for `compile`; with "int8", differences from the oracle are no failures.
        runner: what ran the code: "this machine", or an emulator.
        oracle: what the outputs were compared with.
        note: why that is not onnxruntime, or "".
        batch: the symbol that was set to 1, or "".
        samples: of each set of inputs, the shapes by name.
        outputs: a report on each output.
        flips: the nodes whose codes flipped.
        layers: where asked for, the results of the nodes.
        self_test: whether the model's self-test passes; None where it has none.
    """

    model: str
    target: str
    activations: str
    runner: str
    oracle: str
    note: str
    batch: str
    samples: tuple[dict[str, tuple[int, ...]], ...]
    outputs: tuple[OutputReport, ...]
    flips: tuple[Flips, ...]
    layers: tuple[LayerReport, ...]
    self_test: bool | None

    @property
    def ok(self) -> bool:
        """Whether every output is, and the self-test does not fail."""
        return self.self_test is not False and all(output.ok for output in self.outputs)


def verify(
    model: Model,
    target: str = "native",
    *,
    mcpu: str = "",
    mattr: str = "",
    optimize: str = OPTIMIZE[0],
    activations: str = ACTIVATIONS[0],
    dims: Mapping[str, int | tuple[int, int]] | None = None,
    inputs: Mapping[str, npt.ArrayLike] | None = None,
    state: Mapping[str, str] | None = None,
    feeds: Feeds | None = None,
    samples: int = 3,
    seed: int = 0,
    layers: bool = False,
    rtol: float = RTOL,
    threads: int = 1,
    fast_ram: int = 0,
    progress: Progress = lambda _: None,
) -> VerifyReport:
    """Whether a model, compiled, computes what it should; foreign code runs in an emulator.

    Args:
        model: a path, the bytes of an ONNX file, or a parsed model.
        target: as for `compile`, and so `mcpu`, `mattr`, `optimize`, `activations`, `dims`,
            `inputs`, `state`.
        feeds: the other inputs by name; by default `samples` sets of random ones. With a `state`
            there are `samples` calls in turn in any case, the first on a state of zeros; it is
            compared after each.
        seed: of the random inputs.
        layers: also compare the result of every node.
        rtol: see `differences.difference`.
        threads: threads that share each run on this machine.
        fast_ram: bytes of scratch memory that lie in fast memory, at most.
        progress: told what is being done.

    Raises:
        BadState: `state` does not fit the model.
        Unsupported: tbc cannot compile it, or cannot run it (no emulator or no linker is there),
            or cannot make up inputs for it.
        ValueError: the inputs do not fit the model, or `rtol` is negative or no number.
    """
    if not 0 <= rtol < math.inf:
        raise ValueError(f"a relative tolerance of {rtol}: a number from 0 on")
    chosen = resolve_target(target, mcpu, mattr, optimize, activations)
    chosen = replace(chosen, fast_ram=fast_ram)
    progress("importing")
    specialiser = Specialiser(model, dims or {}, inputs or {}, state or {})
    special = specialiser.bounded() if feeds is None else specialiser.specialise(feeds)
    graph = special.graph

    def importer(each: Model) -> Graph:
        return specialiser.bound(each, special)

    oracle = oracle_of(model, importer, {**specialiser.values, **special.values})
    check = _Check(chosen, identifier(specialiser.name), oracle, rtol, progress, threads)
    if feeds is not None:
        given = {n: a for n, a in feeds.items() if n not in special.values}
        sets = check.calls(graph, [lambda _: given] * (samples if graph.states else 1))
    else:

        def random(i: int, accept: Callable[[Feeds], object]) -> Feeds:
            return random_feeds(graph, seed, i, accept)

        try:
            sets = check.calls(graph, [partial(random, i) for i in range(samples)])
        except ValueError as error:
            raise Unsupported(
                f"no random inputs suit the model: {error}", hint="give some"
            ) from None
    outputs, flips = check.outputs(graph, sets)
    return VerifyReport(
        model=check.name,
        target=chosen.name,
        activations=activations,
        runner=check.runner,
        oracle=oracle.name,
        note=oracle.note,
        batch=special.batch,
        samples=tuple({n: a.shape for n, a in each.items()} for each in sets),
        outputs=outputs,
        flips=flips,
        layers=check.layers(sets[-1] if graph.states else sets[0]) if layers else (),
        self_test=check.self_test,
    )


def _front(graph: Graph, target: Target) -> Graph:
    """The graph that the compiled code must equal, bit for bit."""
    for step in FRONT:
        graph = step(graph, target)
    return graph


class _Check:
    """Compares one model, compiled for one target, with reference and oracle."""

    def __init__(
        self,
        target: Target,
        name: str,
        oracle: Oracle,
        rtol: float,
        progress: Progress,
        threads: int,
    ):
        self.target, self.name, self.oracle = target, name, oracle
        self.rtol, self.progress = rtol, progress
        self.pool = Pool(threads, 0) if threads > 1 else None
        self.self_test: bool | None = None
        self.runner = "this machine" + (f", {threads} threads" if threads > 1 else "")

    def calls(self, graph: Graph, sets: Sequence[Fed]) -> list[dict[str, Array]]:
        """Inputs of calls in turn, those included that are states.

        Each set is made by a function that is told whether the oracle takes what it tries.
        """
        exact, states = _front(graph, self.target).untied, named(zero_states(graph))
        found = []
        for number, fed in enumerate(sets, 1):
            feeds = fed(partial(_accepts, self.oracle, states))
            found.append({**feeds, **states})
            if states and number < len(sets):
                results = run_graph(exact, found[-1])
                states = {n: results[s.name] for n, s in _states(graph).items()}
        return found

    def outputs(
        self, graph: Graph, inputs: list[dict[str, Array]]
    ) -> tuple[tuple[OutputReport, ...], tuple[Flips, ...]]:
        """A report on each output for all inputs, and the flips that explain differences.

        Next states count as outputs. What the code has of them it keeps from call to call, while
        the reference and the oracle are given them.
        """
        exact, kept = _front(graph, self.target).untied, _states(graph)
        untied = graph.untied
        rounded = self.target.activations != ACTIVATIONS[0]
        reports = {n: OutputReport(n, str(v.type), is_rounded=rounded) for n, v in untied.outputs}
        flips: dict[str, Flips] = {}
        with self._machine(graph, self_test=True) as machine:
            for number, feeds in enumerate(inputs, 1):
                self.progress(f"running sample {number} of {len(inputs)}")
                wanted = self.oracle.run(feeds)
                got = machine({n: a for n, a in feeds.items() if n not in kept})
                found = self._compare(untied, got, run_graph(exact, feeds), wanted)
                explained = None
                if not rounded and any(model.beyond for _, model in found.values()):
                    explained = self._flips(feeds, wanted)
                for flip in explained or ():
                    flips[flip.node] = flips[flip.node] | flip if flip.node in flips else flip
                for name, (code, model) in found.items():
                    old = reports[name]
                    reports[name] = replace(
                        old,
                        code=old.code | code,
                        model=old.model | model,
                        flips=old.flips + (0 if explained is None else model.beyond),
                    )
        return tuple(reports.values()), tuple(flips.values())

    def layers(self, feeds: Feeds) -> tuple[LayerReport, ...]:
        """A report on the result of every node, which the code keeps for the purpose."""
        self.progress("comparing layers")
        graph, results = self.oracle.results()
        whole = [r for r in results if r.is_whole]
        wanted = self.oracle.run(feeds, [r.name for r in whole])
        graph = replace(graph, outputs=tuple((r.name, r.value) for r in whole))
        with self._machine(graph) as machine:
            expected = run_graph(_front(graph, self.target), feeds)
            found = self._compare(graph, machine(feeds), expected, wanted)
        return tuple(LayerReport(r.node, r.op, str(r.value.type), *found[r.name]) for r in whole)

    def _compare(
        self,
        graph: Graph,
        got: Mapping[str, Array],
        expected: Mapping[str, Array],
        wanted: Mapping[str, Array],
    ) -> dict[str, tuple[Difference, Difference]]:
        """By output, what was computed against the reference, and against the oracle."""
        return {
            name: (
                difference(got[name], expected[name], value.type.dtype, 0.0),
                difference(got[name], wanted[name], value.type.dtype, self.rtol),
            )
            for name, value in graph.outputs
        }

    def _flips(self, feeds: Feeds, wanted: Mapping[str, Array]) -> tuple[Flips, ...] | None:
        self.progress("looking for flipped codes")
        return find_flips(self.oracle, lambda g: _front(g, self.target), feeds, wanted, self.rtol)

    @contextmanager
    def _machine(
        self, graph: Graph, self_test: bool = False
    ) -> Iterator[Callable[[Feeds], Mapping[str, Array]]]:
        """Runs the graph's compiled code, call after call; next states are among the outputs."""
        self.progress(f"compiling for {self.target.name}")
        if is_native(self.target):
            ready = InProcess(graph, self.target, self.name, self.pool, self_test=self_test)
            if self_test:
                self.self_test = _passes(ready.model)
            run, state = ready.model.run, ready.model.new_state()
            yield partial(_call, run, np.asarray, ready.program, state)
            return
        program = lower(graph, self.target)
        test = self_test_of_program(program) if self_test else None
        with Workers(1) as workers:
            compiled = assemble(program, self.target, self.name, workers, test=test)
        with Emulated(compiled) as emulated:
            self.runner = " ".join(emulated.emulator) or "this machine"
            if self_test:
                self.self_test = emulated.self_test()
            run, state = emulated.run, emulated.new_state()
            yield partial(_call, run, emulated.in_order, compiled.program, state)


def _passes(model: RuntimeModel) -> bool | None:
    """Whether a model's self-test does; None where it has none."""
    try:
        model.self_test()
    except Unsupported:
        return None
    except InternalError:
        return False
    return True


def _call(
    run: Callable[[Feeds, npt.NDArray[np.uint8]], dict[str, Array]],
    in_order: Callable[[Array], Array],
    program: Program,
    state: npt.NDArray[np.uint8],
    feeds: Feeds,
) -> dict[str, Array]:
    """The outputs of a call, and the next states, whose elements `in_order` brings into ours."""
    outputs = run(feeds, state)
    for kept in program.states:
        buffer = program.buffers[kept.old]
        raw = state[buffer.offset :][: buffer.bytes].view(buffer.type.dtype.numpy)
        shape = [evaluate(d, {}) for d in buffer.type.shape]
        outputs[kept.name] = in_order(raw.reshape(shape)).copy()
    return outputs


def _states(graph: Graph) -> dict[str, State]:
    """The states by the names of the inputs that they were."""
    return {s.old.op.name: s for s in graph.states if isinstance(s.old.op, Input)}


def _accepts(oracle: Oracle, states: Feeds, feeds: Feeds) -> object:
    """Raise ValueError unless the oracle takes the inputs, in these states."""
    return oracle.run({**feeds, **states})
