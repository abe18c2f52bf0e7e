"""Libraries for several targets: what they share, which variant is taken, and what cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from digits import images
from toolchain import (
    BARE,
    EMULATED,
    POOL_SOURCE,
    ROOT,
    STRICT,
    ZIG,
    emulator,
    needs_cc,
    needs_zig,
    run,
)
from typer.testing import CliRunner

import tbc
from tbc import runtime
from tbc.api import is_native
from tbc.bench.dots import Product
from tbc.bench.onnx_models import bit_linear
from tbc.cli import app
from tbc.codegen.elf_object import ElfObject
from tbc.codegen.host import host_target
from tbc.codegen.link import can_link
from tbc.errors import BadTarget, IncompatibleArtifact
from tbc.target import parse
from tbc.types import DType
from tbc.variants import ordered

DIGITS = ROOT / "examples/digits/digits_cnn.onnx"
HOST = host_target()
LEVELS = [n for n in ("x86-64", "x86-64-v3", "x86-64-v4", "x86-64-v4+vnni") if is_native(parse(n))]
"""Targets of this machine, the least able first."""
ARMS = ("armv8", "armv8.2+dotprod", "armv8.6")

needs_levels = pytest.mark.skipif(len(LEVELS) < 2, reason="this machine has no levels of x86")
needs_linker = pytest.mark.skipif(not can_link(HOST), reason="no linker is installed")


def tbc_cli(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def compiled(model: Path, folder: Path, targets: tuple[str, ...] | list[str], *more: str) -> Any:
    """The report on a library that the command writes."""
    names = ("--name", "net", "-o", folder, "--target", ",".join(targets), "--json")
    done = tbc_cli("compile", model, *names, *more)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


# -- which is taken -------------------------------------------------------------------------------


@needs_levels
@needs_linker
def test_the_best_that_a_cpu_can_run_is_taken(tmp_path: Path) -> None:
    compiled(DIGITS, tmp_path, LEVELS, "--emit", "shared")
    (library,) = tmp_path.glob("libnet.*")
    x = images("digits_cnn")[:4]
    expected = tbc.compile(DIGITS).run({"x": x})["logits"]
    for name in LEVELS:
        model = runtime.load(library, parse(name).cpu_bits)
        assert model.target == name
        model.self_test()
        np.testing.assert_array_equal(model.run({"x": x[:1]})["logits"], expected[:1])
    assert tbc.load(library).target == LEVELS[-1]


@needs_levels
@needs_linker
def test_a_cpu_that_can_run_none(tmp_path: Path) -> None:
    compiled(DIGITS, tmp_path, LEVELS[1:] if len(LEVELS) > 2 else LEVELS, "--emit", "shared")
    (library,) = tmp_path.glob("libnet.*")
    if len(LEVELS) > 2:
        with pytest.raises(IncompatibleArtifact, match="instructions this CPU lacks"):
            runtime.load(library, 0)


@needs_cc
@needs_levels
@pytest.mark.parametrize("model", ["digits_cnn", "digits_mlp"])
def test_a_c_program(tmp_path: Path, model: str) -> None:
    compiled(DIGITS.with_stem(model), tmp_path, LEVELS, "--emit", "static,project")
    (tmp_path / "start.c").write_text("int check(void); int main(void) { return check(); }")
    sources = [tmp_path / "start.c", ROOT / "tests/c/variants.c", tmp_path / "tbc_self_test.c"]
    flags = [*STRICT, f"-I{tmp_path}", f"-DCOUNT={len(LEVELS)}"]
    run("cc", *flags, *sources, tmp_path / "libnet.a", "-o", tmp_path / "program")
    run(tmp_path / "program")
    main = [tmp_path / name for name in ("main.c", "tbc_cpu.c", "tbc_self_test.c", "libnet.a")]
    run("cc", *STRICT, f"-I{tmp_path}", *main, "-o", tmp_path / "main")
    assert run(tmp_path / "main").stdout.startswith("logits:")


@needs_cc
@needs_levels
@pytest.mark.parametrize("kind", ["static", "shared"])
def test_two_models_in_one_program(tmp_path: Path, kind: str) -> None:
    if kind == "shared" and not can_link(HOST):
        pytest.skip("no linker is installed")
    folders = {name: tmp_path / name for name in ("first", "second")}
    for (name, folder), model in zip(folders.items(), ("digits_cnn", "digits_mlp"), strict=True):
        more = ("--emit", f"{kind},project,header", "--name", name)
        compiled(DIGITS.with_stem(model), folder, LEVELS, *more)
    suffix = "a" if kind == "static" else "so"
    libraries = [folder / f"lib{name}.{suffix}" for name, folder in folders.items()]
    paths = [f"-Wl,-rpath,{folder}" for folder in folders.values()] if kind == "shared" else []
    flags = [*STRICT, *(f"-I{folder}" for folder in folders.values()), f"-DCOUNT={len(LEVELS)}"]
    own = [folders["first"] / name for name in ("tbc_cpu.c", "tbc_self_test.c")]
    sources = [ROOT / "tests/c/together.c", POOL_SOURCE, *own]
    run("cc", *flags, "-pthread", *sources, *libraries, *paths, "-o", tmp_path / "program")
    assert run(tmp_path / "program").stdout == "the same bits\n"


@needs_zig
def test_variants_of_arm(tmp_path: Path) -> None:
    report = compiled(DIGITS, tmp_path, ARMS, "--emit", "static,project")
    assert [v["target"] for v in report["variants"]] == [*reversed(ARMS)]
    assert "trit_gemv_1x1c4_i8mm" in report["variants"][0]["kernels"]
    assert "trit_gemv_1x1c4_neon" in report["variants"][2]["kernels"]
    triple, qemu = EMULATED["armv8"]
    defines = ["-DPROTOTYPES=int check(void);", "-DCALLS=system_call(EXIT, check(), 0, 0);"]
    flags = ["-target", triple, "-O1", "-static", *BARE, f"-I{tmp_path}", "-DCOUNT=3", *defines]
    sources = (ROOT / "tests/emulator.c", ROOT / "tests/c/variants.c", tmp_path / "tbc_self_test.c")
    run(ZIG, "cc", *flags, *sources, tmp_path / "libnet.a", "-o", tmp_path / "program")
    assert run(emulator(qemu), "-cpu", "max", tmp_path / "program", check=False).returncode == 0


# -- what is shared -------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", [("x86-64", "x86-64-v3", "x86-64-v4+vnni"), ARMS])
def test_equal_constants_are_there_once(tmp_path: Path, targets: tuple[str, ...]) -> None:
    report = compiled(DIGITS, tmp_path, targets, "--emit", "obj")
    whole, variants = report["whole"], report["variants"]
    assert all(v["weights_read"] == variants[0]["weights_read"] for v in variants)
    assert report["shared"] >= variants[0]["weights_read"]  # all of them have one layout
    assert whole["weights"] < 1.1 * variants[0]["weights_read"]
    obj = ElfObject((tmp_path / "net.o").read_bytes())
    (weights,) = (s for s in obj.symbols if s.name == "tbc_net_weights")
    assert weights.size == whole["weights"]
    assert whole["arena"] == max(v["arena"] for v in variants)
    assert whole["target"] == ", ".join(v["target"] for v in variants)


def test_other_layouts_are_there_beside(tmp_path: Path) -> None:
    report = compiled(DIGITS, tmp_path, ("rv64gc", "rv64gcv"), "--emit", "obj")
    assert 0 < report["shared"] < report["variants"][0]["weights_read"]
    own = [v["weights_read"] for v in report["variants"]]
    assert report["whole"]["weights"] >= sum(own) - report["shared"]


@needs_levels
@needs_linker
def test_large_weights_are_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tbc.variants.EMBEDDED_WEIGHTS", 0)
    model = tmp_path / "net.onnx"
    model.write_bytes(
        bit_linear(Product(3, 48, 64).weights(DType.trit), 0.02, 3).SerializeToString()
    )
    compiled(model, tmp_path / "out", LEVELS, "--emit", "shared")
    (library,) = (tmp_path / "out").glob("libnet.*")
    x = np.random.default_rng(0).standard_normal((3, 64), np.float32)
    (expected,) = tbc.compile(model).run({"x": x}).values()
    for name in LEVELS:
        (y,) = runtime.load(library, parse(name).cpu_bits).run({"x": x}).values()
        np.testing.assert_array_equal(y, expected)
    assert (tmp_path / "out/net.weights").stat().st_size > 0


# -- what cannot be -------------------------------------------------------------------------------


def test_the_most_able_come_first() -> None:
    names = ("armv8", "armv8.6", "armv8.2+dotprod")
    found = ordered([parse(name) for name in names])
    assert [t.name for t in found] == ["armv8.6", "armv8.2+dotprod", "armv8"]


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (("armv8", "x86-64"), "cannot be in one library"),
        (("armv8", "aarch64-apple-darwin"), "cannot be in one library"),
        (("cortex-m4", "cortex-m33"), "cannot be in one library"),
        (("armv8", "armv9", "armv8"), "armv8 is given twice"),
        (("armv8", "cortex-a53"), "always gets"),
        (("wasm32", "wasm32+simd128"), "nothing tells its CPUs apart"),
        (("c", "c"), "nothing tells its CPUs apart"),
    ],
)
def test_targets_that_do_not_go_together(targets: tuple[str, ...], message: str) -> None:
    with pytest.raises(BadTarget, match=message):
        ordered([parse(name) for name in targets])


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--target", "armv8,"), 1, "''"),
        (("--target", "armv8,armv9", "--emit", "blob"), 1, "--emit=blob is for one target"),
        (("--target", "armv8,armv9", "--emit", "c"), 1, "--emit=c is for one target"),
        (("--target", "armv8,armv9", "--project", "arduino"), 1, "--project=arduino is for one"),
        (("--target", "armv8,armv9", "--mattr", "+sve"), 2, "--mcpu and --mattr are of one"),
        (("--target", "armv8,armv9", "--tune"), 2, "--tune is for one target"),
        (("--target", "armv8,armv9", "--tuning", "x"), 2, "--tuning is for one target"),
        (("--target", "armv8,armv9", "--flash-limit", "1K"), 1, "1024 are allowed"),
    ],
)
def test_the_command_says_what_cannot_be(
    tmp_path: Path, arguments: tuple[str, ...], status: int, message: str
) -> None:
    done = tbc_cli("compile", DIGITS, "-o", tmp_path / "out", *arguments)
    assert message in done.stderr, done.output
    assert done.exit_code == status
    assert not (tmp_path / "out").exists()


def test_each_is_inspected() -> None:
    arguments = ("inspect", DIGITS, "--target", ",".join(ARMS))
    done = tbc_cli(*arguments)
    assert done.exit_code == 0, done.output
    last = " ".join(done.stdout.splitlines()[-2:])
    assert last.endswith("of armv8.6, armv8.2+dotprod, armv8")
    report = json.loads(tbc_cli(*arguments, "--json").stdout)
    found = {each["target"]: each for each in report["variants"]}
    assert list(found) == ["armv8.6", "armv8.2+dotprod", "armv8"]
    for name, each in found.items():
        alone = json.loads(tbc_cli("inspect", DIGITS, "--target", name, "--json").stdout)
        assert each["layers"] == alone["layers"]
        assert report["shared"] <= each["weights"] <= alone["weights"]
    assert max(e["weights"] for e in found.values()) <= report["weights"]


@needs_levels
def test_each_is_verified() -> None:
    done = tbc_cli("verify", DIGITS, "--target", ",".join(LEVELS), "--samples", 1, "--json")
    assert done.exit_code == 0, done.output
    assert [report["target"] for report in json.loads(done.stdout)] == LEVELS
