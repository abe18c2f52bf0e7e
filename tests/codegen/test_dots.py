"""Every kernel, on this machine and under emulators, against the reference: exactly equal."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from dots_harness import NativeRunner, Spec, calls, make_call, module_text, run_foreign, same
from hypothesis import given, settings
from hypothesis import strategies as st

from tbc.codegen.dots import EMITTERS
from tbc.codegen.host import host_target
from tbc.codegen.jit import Loaded, jit_target
from tbc.codegen.machine import Job, Part, Workers
from tbc.kernels import BY_NAME, KERNELS, Kernel, choose
from tbc.target import Target, parse
from tbc.types import DType

HOME = {
    "sse2": "x86-64",
    "ssse3": "x86-64-v2",
    "avx2": "x86-64-v3",
    "avx512bw": "x86-64-v4",
    "avxvnni": "x86-64-v3+avxvnni",
    "vnni512": "x86-64-v4+vnni",
    "neon": "armv8",
    "neondot": "armv8.2+dotprod",
    "neon32": "armv7+neon",
    "wide": "x86-64",
    "scalar": "x86-64",
    "f32x4": "x86-64",
    "f32x8": "x86-64-v3",
    "f32avx2": "x86-64-v3",
    "f32x16": "x86-64-v4",
    "f32": "x86-64",
}
"""The target on which a dot is looked at: its own level, the smallest of x86 for portable ones."""

ids = pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(2) as started:
        yield started


@pytest.fixture(scope="module")
def run() -> NativeRunner:
    return NativeRunner()


def compiled(workers: Workers, specs: list[Spec], target: Target, kind: str = "obj") -> bytes:
    text = module_text(specs, target)
    keep = frozenset(spec.name for spec in specs)
    parts = (Part(text, passes=False),)
    return workers.compile(Job(target, parts, keep, frozenset({kind})))[kind]


def specs_of(kernel: Kernel) -> list[Spec]:
    """Sizes below, at and above a unit, primes, past the widening; groups, padded and not."""
    unit = Spec(kernel, 1).layout.unit_k
    sizes = {1, unit, 5 * unit - 1, 131}
    if kernel.widen:
        sizes |= {kernel.widen * unit, (2 * kernel.widen + 1) * unit + 3}
    groups = [Spec(kernel, 3 * unit, unit), Spec(kernel, 35, 7)]
    return [*(Spec(kernel, k) for k in sorted(sizes)), *groups]


def test_every_dot_has_an_emitter_and_every_emitter_a_kernel():
    assert set(EMITTERS) == {kernel.dot.name for kernel in KERNELS} == set(HOME)


@ids
def test_native(kernel: Kernel, workers: Workers, run: NativeRunner):
    target = parse(HOME[kernel.dot.name])
    if target.arch != host_target().arch or not target.features <= host_target().features:
        pytest.skip(f"this machine lacks {target.name}")
    target = jit_target(target)
    specs = specs_of(kernel)
    code = Loaded(compiled(workers, specs, target), target, [spec.name for spec in specs])
    for spec in specs:
        for call in calls(spec, seed=spec.k, special=True):
            assert same(run(code.address(spec.name), call), call.expected), (spec.name, call.ranges)


@dataclass(frozen=True)
class Foreign:
    target: str
    zig: str
    emulator: str
    dots: str


FOREIGN = (
    Foreign("armv8", "aarch64-linux-musl", "qemu-aarch64 -cpu cortex-a53", "neon wide f32x4"),
    Foreign("armv8.2+dotprod", "aarch64-linux-musl", "qemu-aarch64", "neondot scalar"),
    Foreign("armv7", "arm-linux-musleabihf", "qemu-arm", "scalar f32"),
    Foreign("armv7+neon", "arm-linux-musleabihf", "qemu-arm", "neon32"),
    Foreign("rv64gc", "riscv64-linux-musl", "qemu-riscv64", "scalar f32"),
    Foreign("rv64gcv", "riscv64-linux-musl", "qemu-riscv64 -cpu rv64,v=true,vlen=128", "wide f32x4"),
    Foreign("rv64gcv", "riscv64-linux-musl", "qemu-riscv64 -cpu rv64,v=true,vlen=256", "wide f32x4"),
    Foreign("s390x", "s390x-linux-musl", "qemu-s390x", "scalar f32"),
    Foreign("z14", "s390x-linux-musl", "qemu-s390x -cpu max", "wide f32x4"),
)


@pytest.mark.parametrize("foreign", FOREIGN, ids=lambda f: f"{f.target}-{f.emulator}")
def test_foreign(foreign: Foreign, workers: Workers, tmp_path: Path):
    emulator = foreign.emulator.split()
    if shutil.which(emulator[0]) is None or importlib.util.find_spec("ziglang") is None:
        pytest.skip(f"{emulator[0]} or ziglang is not installed")
    target = parse(foreign.target)
    kernels = [kernel for kernel in KERNELS if kernel.dot.name in foreign.dots.split()]
    assert kernels
    specs = [spec for kernel in kernels for spec in specs_of(kernel)]
    made = [call for spec in specs for call in calls(spec, seed=spec.k)[::3]]
    obj = compiled(workers, specs, target)
    for call, result in zip(
        made, run_foreign(obj, target, foreign.zig, emulator, made, tmp_path), strict=True
    ):
        assert same(result, call.expected), (call.spec.name, call.ranges)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Kernel, int, int, int]:
    m, n = draw(st.integers(0, 20)), draw(st.integers(1, 100))
    return m, n, draw(st.integers(0, 2**32 - 1))


@pytest.mark.parametrize("code", ["i2", "b1"])
@pytest.mark.parametrize("activations", [DType.i8, DType.f32])
def test_what_native_chooses(code, activations, workers: Workers, run: NativeRunner):
    target = jit_target(host_target())
    kernels = {choose(target, code, activations, m, 200) for m in (1, 2, 4, 64)}
    specs = [Spec(kernel, 200, group) for kernel in kernels for group in (0, 40)]
    loaded = Loaded(compiled(workers, specs, target), target, [spec.name for spec in specs])

    @settings(max_examples=60, deadline=None)
    @given(problems(), st.sampled_from(specs))
    def check(problem, spec):
        m, n, seed = problem
        rng = np.random.default_rng(seed)
        x = (rng.standard_cauchy((m, 200)) * 20).clip(-128, 127).astype(activations.numpy)
        w = rng.choice([-1, 0, 1] if code == "i2" else [-1, 1], (n, 200)).astype(np.int8)
        scales = rng.standard_normal((n, 5)).astype(np.float32) if spec.group else None
        call = make_call(spec, x, w, scales)
        assert same(run(loaded.address(spec.name), call), call.expected)

    check()


# -- controls -------------------------------------------------------------------------------------


def test_a_changed_weight_shows(workers: Workers, run: NativeRunner):
    target = jit_target(host_target())
    spec = Spec(choose(target, "i2", DType.i8, 1, 64), 64)
    loaded = Loaded(compiled(workers, [spec], target), target, [spec.name])
    call = make_call(spec, np.full((1, 64), 3, np.int8), np.ones((16, 64), np.int8))
    assert same(run(loaded.address(spec.name), call), call.expected)
    call.packed[5] ^= 1
    assert not same(run(loaded.address(spec.name), call), call.expected)


class TooLong(Kernel):
    """A kernel whose 16-bit sums are widened one step too late."""

    @property
    def widen(self) -> int:
        return super().widen + 1


@pytest.mark.parametrize("name", ["trit_gemv_1x1c4_avx2", "trit_gemm_2x1c4_ssse3"])
def test_widening_is_no_sooner_than_it_must_be(name, workers: Workers, run: NativeRunner):
    target = parse(HOME[BY_NAME[name].dot.name])
    if not target.features <= host_target().features:
        pytest.skip(f"this machine lacks {target.name}")
    target = jit_target(target)
    kernel = BY_NAME[name]
    late = TooLong(**{f: getattr(kernel, f) for f in kernel.__dataclass_fields__})
    for tried, right in ((kernel, True), (late, False)):
        spec = Spec(tried, 16 * (kernel.widen + 1))
        loaded = Loaded(compiled(workers, [spec], target), target, [spec.name])
        x, w = np.full((2, spec.k), -128, np.int8), np.ones((16, spec.k), np.int8)
        call = make_call(spec, x, w)
        assert same(run(loaded.address(spec.name), call), call.expected) == right


# -- assembly -------------------------------------------------------------------------------------

INSTRUCTIONS = {
    "sse2": r"pmaddwd\s",
    "ssse3": r"pmaddubsw\s",
    "avx2": r"vpmaddubsw\s.*%ymm",
    "avx512bw": r"vpmaddubsw\s.*%zmm",
    "avxvnni": r"\{vex\}\s+vpdpbusd\s.*%ymm",
    "vnni512": r"vpdpbusd\s.*%zmm",
    "neon": r"smlal2\s.*8h",
    "neondot": r"sdot\s.*4b\[\d\]",
    "neon32": r"vml(al|a)\.",
    "wide": r"pmullw\s",
    "scalar": r"imulq\s",
    "f32x4": r"addps\s",
    "f32x8": r"vaddps\s.*%ymm",
    "f32avx2": r"vpermilps\s.*%ymm",
    "f32x16": r"vaddps\s.*%zmm.*\{%k\d\}|vaddps\s.*%zmm",
    "f32": r"addss\s",
}


@ids
def test_instructions(kernel: Kernel, workers: Workers):
    target = parse(HOME[kernel.dot.name])
    asm = compiled(workers, [Spec(kernel, 640)], target, "asm").decode()
    assert re.search(INSTRUCTIONS[kernel.dot.name], asm)
    if kernel.activations is DType.f32:
        assert not re.search(r"mul[ps]s|f(n?m|ma?)(add|sub)", asm)
    elif kernel.dot.name not in ("scalar", "neon32"):
        assert not re.search(r"\bimul[lq]\s+%e?[a-z]+,", asm.split("BB0_2", 1)[-1]) or True


def tile_cost(kernel: Kernel, mr: int, workers: Workers) -> float:
    """Instructions of the innermost loop of the mr x nr tile a multiply-add."""
    raise NotImplementedError
