"""What a model is said to take of flash, RAM and stack, and the limits on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from digits import graph_of, write_digits
from toolchain import ROOT, STRICT, needs_cc, run

from tbc.budget import Budget, flash_of, parse_size, ram_of, sections_of
from tbc.codegen.host import host_target, resolve_target
from tbc.codegen.machine import Workers
from tbc.driver import Compiled, assemble, bound_batch, ignore, lower
from tbc.energy import energy
from tbc.errors import TooLarge, Unsupported, UsageError
from tbc.inspection import Layer, inspect
from tbc.program import crowded
from tbc.text import parse_graph
from tbc.variants import ordered, write_variants


def compiled(target: str, workers: Workers, embed: bool = True) -> Compiled:
    chosen = resolve_target(target)
    graph, _ = bound_batch(graph_of("digits_mlp"))
    return assemble(lower(graph, chosen), chosen, "net", workers, embed=embed)


@pytest.mark.parametrize(
    ("text", "size"),
    [("16384", 16384), ("16K", 16384), ("16kib", 16384), ("0.5M", 1 << 19), ("1GB", 1 << 30)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size("--ram-limit", text) == size
    assert parse_size("--ram-limit", "") is None


@pytest.mark.parametrize("text", ["x", "-1", "1T", "1 2", "K", "nan", "\u0661K"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match=f"--ram-limit {text} is no size"):
        parse_size("--ram-limit", text)


@pytest.mark.parametrize("target", ["cortex-m0plus", "cortex-m4", "armv8", "x86-64-v3", "s390x"])
@pytest.mark.parametrize("embed", [True, False])
def test_the_parts_make_up_the_whole(target: str, embed: bool, workers: Workers) -> None:
    made = compiled(target, workers, embed)
    flash, sections = flash_of(made), sections_of(made)
    assert flash is not None
    assert sections is not None
    assert all(size >= 0 for size in flash.values())
    assert sum(flash.values()) == sum(sections.values())
    assert sections["weights"] == made.program.weights_size
    assert 0 < sections["descriptions"] < 2048
    weights = sum(size for what, size in flash.items() if what.startswith("weights of"))
    assert weights == made.program.weights_size
    ram = made.program.arena_size + made.info.state_size + (made.stack or 0)
    assert sum(ram_of(made).values()) == ram


def test_a_limit_is_the_last_size_that_fits(workers: Workers) -> None:
    made = compiled("cortex-m4", workers)
    flash, ram = sum((flash_of(made) or {}).values()), sum(ram_of(made).values())
    Budget().check(made)
    Budget(flash, ram).check(made)
    with pytest.raises(TooLarge, match=f"takes {flash} bytes of flash, and {flash - 1}") as caught:
        Budget(flash - 1, ram).check(made)
    assert sum(caught.value.parts.values()) == flash
    sizes = list(caught.value.parts.values())
    assert sizes[:-1] == sorted(sizes[:-1])[::-1]
    with pytest.raises(TooLarge, match=f"takes {ram} bytes of RAM"):
        Budget(flash, ram - 1).check(made)


def test_a_model_without_constants(workers: Workers) -> None:
    graph = parse_graph('def f(x: f32[4]):\n    y: f32[4] = add(x, x)\n    return {"y": y}')
    target = resolve_target("cortex-m4")
    flash = flash_of(assemble(lower(graph, target), target, "net", workers)) or {}
    assert 0 < sum(flash.values()) < 2048
    assert not any(what.startswith("weights of") for what in flash)


@pytest.mark.parametrize("fast", [0, 300])
def test_a_library_of_variants(tmp_path: Path, workers: Workers, fast: int) -> None:
    graph, _ = bound_batch(graph_of("digits_cnn"))
    targets = [replace(resolve_target(name), fast_ram=fast) for name in ("armv8", "armv8.6")]
    observers = [ignore] * len(targets)
    made, _ = write_variants(graph, ordered(targets), "net", tmp_path, ("obj",), workers, observers)
    flash, sections, ram = flash_of(made.whole), sections_of(made.whole), ram_of(made.whole)
    assert flash is not None
    assert sections is not None
    assert sum(flash.values()) == sum(sections.values())
    assert flash["code of other variants"] > sections["code"] / 4
    info = made.whole.info
    assert (info.fast_size > 0) == (fast > 0)
    assert sum(ram.values()) == info.arena_size + info.fast_size + (made.whole.stack or 0)


def test_formats_that_do_not_tell(workers: Workers) -> None:
    made = compiled("wasm32", workers)
    assert sections_of(made) is None
    Budget(ram=1 << 20).check(made)
    with pytest.raises(Unsupported, match="wasm does not tell"):
        Budget(flash=1 << 20).check(made)
    source = compiled("c", workers)
    Budget().check(source)
    with pytest.raises(Unsupported, match="portable C does not tell how much flash"):
        Budget(flash=1 << 20).check(source)


def test_portable_c_takes_ram_beside_its_stack(workers: Workers) -> None:
    made = compiled("c", workers)
    assert made.stack is None
    size = made.info.arena_size
    assert size > 512  # the activations of the first layer
    assert sum(ram_of(made).values()) == size
    Budget(ram=size).check(made)
    words = (
        rf"{size} bytes of RAM \(stack not counted: it is the C compiler's\), and {size - 1} are"
    )
    with pytest.raises(TooLarge, match=words) as caught:
        Budget(ram=size - 1).check(made)
    assert sum(caught.value.parts.values()) == size
    assert "stack" not in caught.value.parts


@needs_cc
def test_the_stack_is_no_deeper_than_said(tmp_path: Path, workers: Workers) -> None:
    folder = write_digits(
        "digits_mlp", host_target(), tmp_path, "static", "header", workers=workers
    )
    program = tmp_path / "watermark"
    source = ROOT / "tests/c/watermark.c"
    library = folder / "libdigits_mlp.a"
    run("cc", *STRICT, "-std=c11", "-pthread", f"-I{folder}", "-o", program, source, library)
    idle, busy = map(int, run(program).stdout.split())
    bound = compiled("native", workers).stack or 0
    others = 128  # of the thread's own function, which `idle` may have done without
    assert bound // 4 < busy - idle <= bound + others, (idle, busy, bound)


def test_the_arena_cannot_be_smaller_than_what_lives_at_once(workers: Workers) -> None:
    program = compiled("armv8", workers).program
    assert 0 < program.arena_bound <= program.arena_size
    sizes = [block.size for block in crowded(program.blocks)]
    assert sizes == sorted(sizes, reverse=True)
    assert sum(sizes) == program.arena_bound


# -- energy ---------------------------------------------------------------------------------------


def layer(activations: str, additions: int, multiplications: int, dense: int) -> Layer:
    return Layer(
        "", 1, 1, dense, "trit", 1, "", 0.5, activations, "", "", "", 2.0, "",
        multiplications, additions, dense,
    )  # fmt: skip


def test_energy_is_counted_in_the_types_that_are_added() -> None:
    of_codes, seven = energy([layer("i8 codes", 1000, 10, 2000)])
    assert (of_codes.process_nm, seven.process_nm) == (45, 7)
    assert of_codes.picojoules == pytest.approx(1000 * 0.03 + 10 * 3.7)
    assert of_codes.f16_picojoules == pytest.approx(2000 * (0.4 + 1.1))
    assert seven.picojoules == pytest.approx(1000 * 0.007 + 10 * 1.31)
    of_floats, _ = energy([layer("f32", 1000, 10, 2000)])
    assert of_floats.picojoules == pytest.approx(1000 * 0.9 + 10 * 3.7)


def test_a_ternary_network_takes_less_energy_than_in_f16() -> None:
    graph, _ = bound_batch(graph_of("digits_cnn"))
    report = inspect(graph, resolve_target("cortex-m4"))
    assert all(e.picojoules < e.f16_picojoules / 5 for e in energy(report.layers))
