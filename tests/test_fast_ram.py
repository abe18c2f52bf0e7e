"""Scratch memory in two regions, of which one is small and fast."""

from __future__ import annotations

import ctypes
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from compiled import Native, native_target
from digits import DIGITS, expected_logits, graph_of, images
from graph_strategies import feeds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from phase_check import check_phases
from strategies import assert_same
from test_steps_property import (
    as_bytes,
    check,
    compilable,
    tame,
    wide_bindings,
    wide_graphs,
)
from toolchain import STRICT, needs_cc, run
from typer.testing import CliRunner

import tbc
from tbc.budget import Budget, ram_of
from tbc.cli import app
from tbc.codegen.host import resolve_target
from tbc.codegen.machine import Workers
from tbc.driver import Compiled, assemble, bound_batch, lower
from tbc.emulate import Emulated, can_run
from tbc.errors import TooLarge
from tbc.ir import Graph, bind
from tbc.passes.scratch import Region, arena, regions
from tbc.program import Block, Program
from tbc.runtime import structs
from tbc.self_test import SelfTest

# -- planning -------------------------------------------------------------------------------------

BLOCKS = st.lists(
    st.tuples(*[st.integers(0, 9)] * 3, st.integers(0, 500)),
    max_size=12,
)
"""Sizes, births, lives and accesses."""


def apart(blocks: dict[int, Block], region: Region[int]) -> bool:
    """Whether what lives together has bytes of its own, all within the region."""
    at = region.offsets
    spans = {n: range(at[n], at[n] + blocks[n].size) for n in at}
    return all(span.stop <= region.size for span in spans.values()) and not any(
        max(spans[a].start, spans[b].start) < min(spans[a].stop, spans[b].stop)
        for a, one in blocks.items()
        for b, other in blocks.items()
        if a < b and {a, b} <= at.keys() and one.born <= other.dies and other.born <= one.dies
    )


@given(BLOCKS, st.integers(0, 40))
def test_every_block_has_a_place_in_one_of_two_regions(
    drawn: list[tuple[int, int, int, int]], limit: int
) -> None:
    blocks = {n: Block(s, born, born + more, n, "") for n, (s, born, more, _) in enumerate(drawn)}
    uses = {n: used for n, (*_, used) in enumerate(drawn)}
    fast, slow = regions(blocks, uses, limit)
    assert fast.size <= limit
    assert fast.offsets.keys() | slow.offsets.keys() == blocks.keys()
    assert fast.offsets.keys().isdisjoint(slow.offsets.keys())
    assert apart(blocks, fast)
    assert apart(blocks, slow)


def test_no_limit_and_none() -> None:
    blocks = {n: Block(8 * n + 8, n, n + 1, n, "") for n in range(5)}
    uses = dict.fromkeys(blocks, 1)
    nothing, all_ = Region({}, 0), arena(blocks)
    assert regions(blocks, uses, 0) == (nothing, all_)
    assert regions(blocks, uses, 1 << 20) == (all_, nothing)


def test_what_is_used_most_for_its_size_is_fast() -> None:
    sizes, uses = (64, 64, 128, 64), {0: 64, 1: 6400, 2: 12000, 3: 640}
    blocks = {n: Block(size, 0, 1, n, "") for n, size in enumerate(sizes)}
    assert regions(blocks, uses, 64)[0].offsets.keys() == {1}
    assert regions(blocks, uses, 160)[0].offsets.keys() == {1, 3}  # 2 has no room beside 1
    assert regions(blocks, uses, 192)[0].offsets.keys() == {1, 2}


def places(program: Program) -> set[str]:
    return {buffer.place for buffer in program.buffers.values()}


# -- what is computed -----------------------------------------------------------------------------

LIMITS = st.sampled_from([64, 192, 1024, 1 << 20])


@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(wide_graphs(), wide_bindings(), st.integers(0, 99), LIMITS)
def test_results_do_not_depend_on_where_things_lie(
    workers: Workers, graph: Graph, dims: dict[str, int], seed: int, limit: int
) -> None:
    target = replace(native_target(), fast_ram=limit)
    graph, arrays = compilable(graph, target), as_bytes(feeds(graph, dims, seed))
    check(graph, arrays, workers, target)
    check_phases(Native(graph, workers, target), {n: tame(a) for n, a in arrays.items()}, 3)


def digits_on(target: str, limit: int, workers: Workers, test: SelfTest | None = None) -> Compiled:
    chosen = replace(resolve_target(target), fast_ram=limit)
    graph = bind(graph_of("digits_cnn"), {"batch": 2})
    return assemble(lower(graph, chosen), chosen, "digits", workers, test=test)


@pytest.mark.parametrize("target", ["cortex-m4f", "armv8", "s390x", "wasm32", "c"])
def test_on_other_machines(target: str, workers: Workers) -> None:
    if missing := can_run(resolve_target(target)):
        pytest.skip(missing)
    compiled = digits_on(target, 2048, workers)
    assert 0 < compiled.info.fast_size <= 2048
    assert places(compiled.program) >= {"arena", "fast"}
    with Emulated(compiled) as emulated:
        outputs = emulated.run({"x": images("digits_cnn")[:2]})
    expected = expected_logits("digits_cnn")[:2]
    assert (outputs["logits"].argmax(1) == expected.argmax(1)).all()
    with Emulated(digits_on(target, 0, workers)) as emulated:
        assert_same(emulated.run({"x": images("digits_cnn")[:2]})["logits"], outputs["logits"])


def test_missing_or_misaligned_fast_memory_is_refused(workers: Workers) -> None:
    native = Native(
        bound_batch(graph_of("digits_cnn"))[0], workers, replace(native_target(), fast_ram=512)
    )
    call, *kept = native.call({"x": images("digits_cnn")[:1]})
    assert kept  # the call points to them
    run_model, at = structs.RUN(native.raw.run), call.fast
    wanted = {at: structs.OK, None: structs.ERROR_NULL, at + 8: structs.ERROR_ALIGN}
    for call.fast, status in wanted.items():
        assert run_model(ctypes.byref(call)) == status


# -- what is told, and written --------------------------------------------------------------------


def test_limits_count_it(workers: Workers) -> None:
    made = digits_on("cortex-m4f", 1024, workers)
    info = made.info
    ram = info.arena_size + info.fast_size + (made.stack or 0)
    assert sum(ram_of(made).values()) == ram
    Budget(ram=ram).check(made)
    with pytest.raises(TooLarge, match=f"takes {ram} bytes of RAM"):
        Budget(ram=ram - 1).check(made)


def compile_digits(folder: Path, *more: str) -> dict[str, object]:
    arguments = ["compile", str(DIGITS / "digits_cnn.onnx"), "-o", str(folder), "--json", *more]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    report: dict[str, object] = json.loads(done.stdout)
    return report


def test_the_report_tells_it(tmp_path: Path) -> None:
    before = compile_digits(tmp_path / "a", "--target=cortex-m7")
    after = compile_digits(tmp_path / "b", "--target=cortex-m7", "--fast-ram=1M")
    assert (before["fast"], after["fast"]) == (0, before["arena"])
    assert after["arena"] == 0
    assert "#define TBC_DIGITS_CNN_ARENA_SIZE 0\n" in (tmp_path / "b/digits_cnn.h").read_text()


def test_verify_knows_it() -> None:
    model = str(DIGITS / "digits_cnn.onnx")
    done = CliRunner().invoke(app, ["verify", model, "--fast-ram=1K", "--samples=1"])
    assert done.exit_code == 0, done.output


def test_what_is_no_size_is_refused() -> None:
    model = str(DIGITS / "digits_cnn.onnx")
    done = CliRunner().invoke(app, ["compile", model, "--fast-ram=few"])
    assert done.exit_code == 2
    assert "--fast-ram few is no size" in done.output


@needs_cc
@pytest.mark.parametrize("kind", ["static", "c"])
def test_the_program_that_is_written_brings_it(kind: str, tmp_path: Path) -> None:
    compile_digits(tmp_path, f"--emit={kind},project", "--fast-ram=1K", "--self-test")
    sources = [*tmp_path.glob("*.c"), *tmp_path.glob("*.a")]
    run("cc", *STRICT, "-std=c99", f"-I{tmp_path}", *sources, "-o", tmp_path / "program")
    assert run(tmp_path / "program").stdout.startswith("logits: ")


@pytest.mark.parametrize("file", ["digits_cnn.tbc", "libdigits_cnn.so"])
def test_python_brings_it(file: str, tmp_path: Path) -> None:
    report = compile_digits(tmp_path, "--emit=blob,shared", "--fast-ram=2K")
    assert report["fast"]
    model = tbc.load(tmp_path / file)
    x = images("digits_cnn")[:1]
    expected = tbc.compile(DIGITS / "digits_cnn.onnx").run({"x": x})["logits"]
    assert_same(np.asarray(model.run({"x": x})["logits"]), expected)
