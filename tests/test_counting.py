"""Counters of instructions agree with each other."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from counting import AROUND, FUEL, PLUGIN, STEPS, CannotCount, counted

from tbc.bench.onnx_models import bit_linear
from tbc.codegen.host import resolve_target
from tbc.codegen.machine import Workers
from tbc.driver import Compiled, assemble, lower
from tbc.emulate import Emulated, can_run
from tbc.errors import InternalError
from tbc.frontend import load


def layer(target: str, k: int) -> Compiled:
    trits = np.random.default_rng(0).choice([-1, 0, 1], (48, k)).astype(np.int8)
    graph = load(bit_linear(trits, 0.5, 1).SerializeToString()).graph
    with Workers(1) as workers:
        chosen = resolve_target(target)
        return assemble(lower(graph, chosen), chosen, "layer", workers)


def feeds(k: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).normal(size=(1, k)).astype(np.float32)}


def test_single_steps_and_the_plugin_count_the_same() -> None:
    """x86-64 code runs natively and in qemu; both counters saw every instruction once."""
    if can_run(resolve_target("x86-64")) or not shutil.which("qemu-x86_64"):
        pytest.skip("x86-64 code does not run here in both ways")
    with Emulated(layer("x86-64", 96)) as emulated:
        if emulated.emulator:
            pytest.skip("this machine is no x86-64")
        try:
            outputs, natively = counted(emulated, feeds(96))
        except CannotCount as error:
            pytest.skip(str(error))
        emulated.emulator = ("qemu-x86_64", "-cpu", "max")
        same, in_qemu = counted(emulated, feeds(96))
    assert (natively.counter, in_qemu.counter) == (STEPS, PLUGIN)
    assert natively.total == in_qemu.total > 48 * 96 / 4
    np.testing.assert_array_equal(outputs["y"], same["y"])
    assert in_qemu.functions.keys().isdisjoint(AROUND)


@pytest.mark.parametrize(
    ("target", "counter"), [("wasm32", FUEL), ("cortex-m3", PLUGIN), ("armv8", PLUGIN)]
)
def test_more_weights_are_more_instructions(target: str, counter: str) -> None:
    """Counting changes no result, and finds the same twice."""
    if reason := can_run(resolve_target(target)):
        pytest.skip(reason)
    totals = []
    for k in (64, 128):
        with Emulated(layer(target, k)) as emulated:
            outputs, count = counted(emulated, feeds(k))
            again, twice = counted(emulated, feeds(k))
            plain = emulated.run(feeds(k))
        assert count.counter == counter
        assert count == twice
        assert outputs["y"].tobytes() == again["y"].tobytes() == plain["y"].tobytes()
        totals.append(count.total)
    assert totals[0] * 1.2 < totals[1] < totals[0] * 2.5


def test_a_program_that_fails_while_it_is_counted_says_so() -> None:
    if reason := can_run(resolve_target("armv8")):
        pytest.skip(reason)
    with Emulated(layer("armv8", 64)) as emulated:
        before = emulated.execute
        emulated.emulator = ("qemu-aarch64", "-cpu", "no-such-cpu")
        with pytest.raises(InternalError, match="no-such-cpu"):
            counted(emulated, feeds(64))
        assert emulated.execute is before
