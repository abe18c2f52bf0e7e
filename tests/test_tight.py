"""Weights of 1.6 bits on small cores, where flash is scarce: `--optimize=size`."""

from __future__ import annotations

import numpy as np
import pytest
from embedded_nets import AUTOENCODER, MLP, Net, ternary

from tbc.codegen.host import resolve_target
from tbc.codegen.machine import Workers
from tbc.driver import assemble, lower
from tbc.emulate import Emulated, can_run
from tbc.frontend import load
from tbc.ops import PackedDot
from tbc.program import Program
from tbc.text import parse_graph

CORES = ("cortex-m0plus", "cortex-m4", "cortex-m55", "rv32imc")


def codes(program: Program) -> set[str]:
    """Those of the packed weights."""
    ops = (step.anchor.op for step in program.steps)
    return {op.layout.code for op in ops if isinstance(op, PackedDot)}


def lowered(net: Net, target: str, optimize: str) -> Program:
    graph = load(ternary(net).SerializeToString()).graph
    return lower(graph, resolve_target(target, optimize=optimize))


@pytest.mark.parametrize("core", CORES)
def test_large_networks_take_less_flash(core: str) -> None:
    usual, small = (lowered(AUTOENCODER, core, how) for how in ("balanced", "size"))
    assert codes(usual) == {"i2"}
    assert "f5" in codes(small)
    assert small.weights_size < 0.96 * usual.weights_size


@pytest.mark.parametrize(
    ("net", "target", "optimize"),
    [
        (MLP, "cortex-m4", "size"),  # what would be saved is less than the longer code
        (AUTOENCODER, "cortex-m4", "speed"),
        (AUTOENCODER, "x86-64-v3", "size"),
        (AUTOENCODER, "armv8", "size"),
    ],
)
def test_others_stay_with_two_bits(net: Net, target: str, optimize: str) -> None:
    assert codes(lowered(net, target, optimize)) == {"i2"}


@pytest.mark.parametrize("core", CORES)
def test_boards_compute_the_sums(core: str, workers: Workers) -> None:
    target = resolve_target(core, optimize="size")
    if missing := can_run(target):
        pytest.skip(missing)
    rng = np.random.default_rng(0)
    w = rng.integers(-1, 2, (64, 1290))
    graph = parse_graph(f"""
def f(u: u8[2, 1290], i: i8[2, 1290]):
    w: trit[64, 1290] = const({w.tolist()})
    y0: i32[2, 64] = dot(u, w)
    y1: i32[2, 64] = dot(i, w)
    return {{"y0": y0, "y1": y1}}
""")
    feeds = {
        "u": np.stack([np.full(1290, 255), rng.integers(0, 256, 1290)]).astype(np.uint8),
        "i": np.stack([np.full(1290, -128), rng.integers(-128, 128, 1290)]).astype(np.int8),
    }
    compiled = assemble(lower(graph, target), target, "tight", workers)
    assert codes(compiled.program) == {"f5"}
    with Emulated(compiled) as emulated:
        outputs = emulated.run(feeds)
    for name, x in zip(("y0", "y1"), feeds.values(), strict=True):
        np.testing.assert_array_equal(outputs[name], x.astype(np.int64) @ w.T)
