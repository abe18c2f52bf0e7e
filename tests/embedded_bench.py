"""Instructions and flash of small networks on Cortex-M, beside int8 C of other generators.

`python -m tests.embedded_bench` prints two tables in Markdown: what every contestant takes for a
run of each network, and which functions take most of tbc's. All run on the same emulated boards,
and the same plugin counts their instructions (`tests/counting.py`); the C of others is compiled
with -O3 for all that the core has. What is not installed is named and left out.

tbc's networks have ternary weights, take and give floats, and are compared with the reference;
those of others are the same shapes in int8, in and out.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np

from tbc.budget import sections_of
from tbc.codegen.host import resolve_target
from tbc.codegen.machine import Workers
from tbc.driver import assemble, lower
from tbc.emulate import Emulated
from tbc.frontend import load
from tbc.passes import FRONT
from tbc.reference import run_graph
from tbc.target import Target
from tests.counting import counted
from tests.embedded_nets import NETS, Net, ternary
from tests.embedded_peers import PEERS, built, missing

TARGETS = ("cortex-m4f", "cortex-m55")
SHOWN = 3


@dataclass(frozen=True)
class Result:
    """What a contestant takes for a run of a network.

    Attributes:
        functions: instructions by function.
        flash: bytes of code and constants.
        weights: bytes of constants.
    """

    contestant: str
    functions: Mapping[str, int]
    flash: int
    weights: int

    @property
    def instructions(self) -> int:
        """Those of all functions."""
        return sum(self.functions.values())


def by_tbc(net: Net, target: Target, workers: Workers) -> Result:
    """tbc's, whose outputs must be those of the reference."""
    graph = load(ternary(net).SerializeToString()).graph
    compiled = assemble(lower(graph, target), target, net.name, workers)
    sections = sections_of(compiled)
    assert sections is not None
    x = np.random.default_rng(0).random((1, *net.shape), np.float32) * 4
    exact = graph
    for step in FRONT:
        exact = step(exact, target)
    with Emulated(compiled) as emulated:
        outputs, count = counted(emulated, {"x": x})
    for name, expected in run_graph(exact, {"x": x}).items():
        if outputs[name].tobytes() != expected.tobytes():
            raise SystemExit(f"{net.name} is wrong on {target.name}")
    by = "tbc" if target.optimize == "balanced" else f"tbc, --optimize={target.optimize}"
    return Result(by, count.functions, sum(sections.values()), sections["weights"])


def by_peer(peer: str, net: Net, target: Target) -> Result:
    """Another generator's."""
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as folder:
        program = built(PEERS[peer](net, Path(made)), net, target, Path(folder))
        sample = np.random.default_rng(0).integers(0, 256, prod(net.shape), np.uint8)
        _, functions = program.run(sample.tobytes())
    return Result(peer, functions, program.flash, program.weights)


def rows(target: str, net: Net, results: list[Result]) -> Iterator[str]:
    """A table's lines; ratios are how many times less tbc takes."""
    own = results[0]
    for each in results:
        cells = [
            f"{target}, {net.name}" if each is own else "",
            each.contestant,
            f"{each.instructions:,}",
            f"{each.instructions / net.macs:.2f}",
            f"{each.instructions / own.instructions:.2f}",
            f"{each.flash:,}",
            f"{each.weights:,}",
            f"{each.weights / own.weights:.2f}",
        ]
        yield f"| {' | '.join(cells)} |"


def profile(target: str, net: Net, own: Result) -> str:
    """The functions that take most of tbc's instructions."""
    largest = sorted(own.functions.items(), key=lambda item: -item[1])[:SHOWN]
    names = [name.removeprefix(f"tbc_{net.name}_") for name, _ in largest]
    shares = [f"{count / own.instructions:.0%}" for _, count in largest]
    cells = [f"{target}, {net.name}", *(f"{n} {s}" for n, s in zip(names, shares, strict=True))]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the tables."""
    peers = [peer for peer in PEERS if not missing(peer)]
    for peer in PEERS:
        if reason := missing(peer):
            print(f"without {peer}: {reason}", file=sys.stderr)
    print("| core, network | by | instructions | a MAC | times tbc's | flash | constants | times |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    profiles = []
    with Workers(1) as workers:
        for name in TARGETS:
            target = resolve_target(name)
            for net in NETS:
                own = by_tbc(net, target, workers)
                fast = by_tbc(net, replace(target, optimize="speed"), workers)
                others = [fast] if fast.functions != own.functions else []
                results = [own, *others, *(by_peer(peer, net, target) for peer in peers)]
                print(*rows(name, net, results), sep="\n", flush=True)
                profiles.append(profile(name, net, own))
    print("\n| core, network | most instructions | second | third |\n|---|---|---|---|")
    print(*profiles, sep="\n")


if __name__ == "__main__":
    main()
