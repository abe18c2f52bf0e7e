"""Every kernel, on this machine and under emulators, against the reference: exactly equal."""

from __future__ import annotations

import importlib.util
import itertools
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest
from dots_harness import NativeRunner, Spec, calls, make_call, module_text, run_foreign, same
from emulator import closed_object
from hypothesis import given, settings
from hypothesis import strategies as st
from x86_intrinsics import emulated

from tbc import emulate_wasm
from tbc.codegen.dots import EMITTERS
from tbc.codegen.dots_f32 import GROUP
from tbc.codegen.dots_scalar import Pairs
from tbc.codegen.dots_thumb import Helium, Smlad
from tbc.codegen.dots_tile import Tile
from tbc.codegen.host import host_target
from tbc.codegen.jit import Loaded, jit_target
from tbc.codegen.llvm_text import Function, Module
from tbc.codegen.machine import Job, Part, Workers
from tbc.emulate_board import board_of
from tbc.kernels import BY_NAME, KERNELS, Kernel, choose
from tbc.target import TARGETS, Target, parse
from tbc.types import DType

HOME = {
    "sse2": "x86-64",
    "ssse3": "x86-64-v2",
    "avx2": "x86-64-v3",
    "maddwd256": "x86-64-v3",
    "maddwd512": "x86-64-v4",
    "avx512bw": "x86-64-v4",
    "avxvnni": "x86-64-v3+avxvnni",
    "vnni512": "x86-64-v4+vnni",
    "vbmi512": "x86-64-v4+vnni+vbmi",
    "amx": "x86-64-v4+amx",
    "amxvbmi": "x86-64-v4+vbmi+amx",
    "neon": "armv8",
    "neondot": "armv8.2+dotprod",
    "i8mm": "armv8.6",
    "sve": "armv8.2+sve",
    "svei8mm": "armv9+i8mm",
    "neon32": "armv7+neon",
    "rvv": "rv64gcv",
    "rvvx": "rv64gcv",
    "rvvx256": "rv64gcv+zvl256b",
    "simd128": "wasm32+simd128",
    "neon32add": "armv7+neon",
    "wasmadd": "wasm32+simd128",
    "relaxed": "wasm32+relaxed",
    "helium": "cortex-m55",
    "smlad": "cortex-m4",
    "wide": "x86-64",
    "pairs": "cortex-m3",
    "scalar": "rv32imc",
    "lookup": "rv32ic",
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


def job(specs: list[Spec], target: Target) -> Job:
    parts = (Part(module_text(specs, target), passes=False),)
    return Job(target, parts, frozenset(spec.name for spec in specs))


def loaded(workers: Workers, specs: list[Spec], target: Target, plain: bool = False) -> Loaded:
    """The functions; `plain`: with intrinsics of x86 that this machine may lack as functions."""
    made = job(specs, target)
    if plain:
        parts = tuple(replace(part, text=emulated(part.text)) for part in made.parts)
        made = replace(made, target=host_target(), parts=parts)
    made = replace(made, target=jit_target(made.target))
    names = [spec.name for spec in specs]
    return Loaded(workers.compile(made)["obj"], made.target, names)


def level(kernel: Kernel) -> Target:
    """The kernel's home, or this machine for a portable one of others; skips if it is no such."""
    target = parse(HOME[kernel.dot.name])
    if kernel.dot.arch is None and target.arch != host_target().arch:
        target = host_target()
        if not kernel.dot.runs_on(target):
            pytest.skip(f"{target.name} has no {kernel.dot.name}")
    if target.arch != host_target().arch or not target.features <= host_target().features:
        pytest.skip(f"this machine is no {target.name}")
    return target


def specs_of(kernel: Kernel) -> list[Spec]:
    """Sizes beside whole units, past the widening, and padded groups; with one row, more of them.

    What only the loops over k can get wrong is tried with one row: they are the same for all tiles.
    """
    unit = kernel.layout().unit_k
    chunk = kernel.widen * unit
    odd = 2 * unit - 3
    specs = [Spec(kernel, 5 * unit - 1), Spec(kernel, 2 * chunk + unit + 3)]
    if kernel.dot.unsigned:
        specs += [Spec(kernel, 2 * chunk + unit + 3, unsigned=True)]
    if kernel.has_tiles:  # whole steps of 64, the last one of a panel shorter, several panels
        return [*specs, *(Spec(kernel, k) for k in (64, 640, 652, 1300))]
    if kernel.panel:
        specs.append(Spec(kernel, kernel.panel + 5 * unit - 1))
    if kernel.mr == 1:
        specs += [Spec(kernel, k) for k in (1, unit, chunk or 131)]
    elif kernel.dot.name == "i8mm" and not kernel.panel:  # with a loop of its own
        specs.append(Spec(kernel, 1))
    if kernel.dot.scalable or not kernel.does_groups(odd):
        return specs
    specs.append(Spec(kernel, 3 * odd, odd))
    if kernel.activations is DType.i8:
        specs.append(Spec(kernel, 4 * unit, 2 * unit, scaled=True))
    if kernel.mr == 1:
        specs += [Spec(kernel, 35, 7), Spec(kernel, 4 * unit, 2 * unit)]
    return specs


def test_every_dot_has_an_emitter_and_every_emitter_a_kernel():
    assert {kernel.dot.name for kernel in KERNELS} == set(HOME)
    assert set(EMITTERS) == {kernel.dot.name for kernel in KERNELS if not kernel.has_tiles}


@ids
def test_native(kernel: Kernel, workers: Workers, run: NativeRunner):
    specs = specs_of(kernel)
    code = loaded(workers, specs, level(kernel))
    for spec in specs:
        for call in calls(spec, seed=spec.k, special=True):
            assert same(run(code.address(spec.name), call), call.expected), (spec.name, call.ranges)


SCARCE = {"avxvnni", "maddwd512", "avx512bw", "vnni512", "vbmi512", "amx", "amxvbmi"}
"""Dots whose instructions many machines lack: they are also tried as plain functions."""

on_x86 = pytest.mark.skipif(host_target().arch != "x86", reason="calls are passed as on x86")
scarce = [kernel for kernel in KERNELS if kernel.dot.name in SCARCE]


def check_plain(
    kernel: Kernel, specs: list[Spec], target: Target, workers: Workers, run: NativeRunner
) -> None:
    code = loaded(workers, specs, target, plain=True)
    for spec in specs:
        for call in calls(spec, seed=spec.k):
            assert same(run(code.address(spec.name), call), call.expected), (spec.name, call.ranges)


@on_x86
@pytest.mark.parametrize("kernel", [k for k in scarce if k.code != "b1"], ids=lambda k: k.name)
def test_intrinsics_as_functions(kernel: Kernel, workers: Workers, run: NativeRunner):
    check_plain(kernel, specs_of(kernel)[:1], parse(HOME[kernel.dot.name]), workers, run)


@pytest.mark.slow
@on_x86
@pytest.mark.parametrize("kernel", scarce, ids=lambda k: k.name)
def test_intrinsics_as_functions_fully(kernel: Kernel, workers: Workers, run: NativeRunner):
    check_plain(kernel, specs_of(kernel), parse(HOME[kernel.dot.name]), workers, run)


TWO_STREAMS = parse("znver4")
narrower = [k for k in KERNELS if k.dot.runs_on(TWO_STREAMS) and k.suited(TWO_STREAMS) != k]


@on_x86
@pytest.mark.parametrize("kernel", narrower, ids=lambda k: k.name)
def test_tiles_of_fewer_blocks(kernel: Kernel, workers: Workers, run: NativeRunner):
    if kernel.dot.name not in SCARCE:
        level(kernel)
    specs = specs_of(kernel)[:3]
    texts = [module_text(specs[:1], target) for target in (parse("sapphirerapids"), TWO_STREAMS)]
    four, two = (text.count("call void @llvm.prefetch") for text in texts)
    assert four - two == 2 * (four // (kernel.nr + 1))
    check_plain(kernel, specs, TWO_STREAMS, workers, run)


@dataclass(frozen=True)
class Foreign:
    target: str
    zig: str
    emulator: str
    dots: str
    slow: bool = False


def rvv(bits: int, vlen: int) -> tuple[str, str]:
    """Zig's target, and an emulator with vectors of `vlen` bits."""
    small = "riscv32-freestanding -mcpu=generic_rv32+m+a+f+c -mabi=ilp32f"
    zig = "riscv64-linux-musl" if bits == 64 else small
    return zig, f"qemu-riscv{bits} -cpu rv{bits},v=true,vlen={vlen}"


BOARD = "qemu-system-arm"
SOFT_M55 = "thumbv8.1m.main-unknown-none-eabi+mve"
"""Helium without registers for floats."""


def board(cpu: str, hard: str = "") -> tuple[str, str]:
    """Zig's target, and the emulator of a board with a Cortex-M."""
    return f"thumb-freestanding-eabi{hard} -mcpu={cpu}", BOARD


FOREIGN = (
    Foreign("armv8", "aarch64-linux-musl", "qemu-aarch64 -cpu cortex-a53", "neon wide f32x4"),
    Foreign("armv8.2+dotprod", "aarch64-linux-musl", "qemu-aarch64", "neondot"),
    Foreign("armv8.6", "aarch64-linux-musl", "qemu-aarch64 -cpu max", "i8mm"),
    *(
        Foreign(
            "armv9+i8mm", "aarch64-linux-musl", f"qemu-aarch64 -cpu max,{length}", "sve svei8mm"
        )
        for length in (
            *("sve128=on", "sve256=on", "sve512=on"),
            "sve2048=on,sve-default-vector-length=256",
        )
    ),
    Foreign("i686", "x86-linux-musl", "qemu-i386", "sse2 f32x4"),
    Foreign("armv7", "arm-linux-musleabihf", "qemu-arm", "smlad pairs lookup f32"),
    Foreign("armv7+neon", "arm-linux-musleabihf", "qemu-arm", "neon32 neon32add"),
    Foreign("rv64gc", "riscv64-linux-musl", "qemu-riscv64", "scalar lookup f32"),
    Foreign("rv64gcv", *rvv(64, 128), "rvv rvvx f32x4"),
    Foreign("rv64gcv", *rvv(64, 256), "rvv rvvx f32x4"),
    Foreign("rv64gcv", *rvv(64, 512), "rvv rvvx", slow=True),
    Foreign("rv64gcv+zvl256b", *rvv(64, 256), "rvvx256"),
    Foreign("rv64gcv+zvl256b", *rvv(64, 512), "rvvx256", slow=True),
    Foreign("rv32imafc_zve32x_zvl128b", *rvv(32, 128), "rvv rvvx", slow=True),
    Foreign("wasm32", "wasm32-freestanding", "wasmtime", "scalar lookup f32", slow=True),
    Foreign("wasm32+simd128", "wasm32-freestanding", "wasmtime", "simd128 wasmadd"),
    Foreign("wasm32+relaxed", "wasm32-freestanding", "wasmtime", "relaxed f32x4"),
    Foreign("s390x", "s390x-linux-musl", "qemu-s390x", "scalar lookup f32"),
    Foreign("z14", "s390x-linux-musl", "qemu-s390x -cpu max", "wide f32x4"),
    Foreign("rv32imc", "riscv32-freestanding -mcpu=generic_rv32+m+c", "qemu-riscv32", "scalar"),
    Foreign("cortex-m0plus", *board("cortex_m0plus"), "pairs"),
    Foreign("cortex-m3", *board("cortex_m3"), "pairs", slow=True),
    Foreign("cortex-m4", *board("cortex_m4"), "smlad"),
    Foreign("cortex-m4f", *board("cortex_m4", "hf"), "smlad", slow=True),
    Foreign("cortex-m7", *board("cortex_m7", "hf"), "smlad", slow=True),
    Foreign("cortex-m33", *board("cortex_m33", "hf"), "smlad", slow=True),
    Foreign("cortex-m55", *board("cortex_m55", "hf"), "helium"),
    Foreign("cortex-m55", *board("cortex_m55", "hf"), "smlad", slow=True),
    Foreign(SOFT_M55, *board("cortex_m55"), "helium smlad", slow=True),
    Foreign("cortex-m85", *board("cortex_m85", "hf"), "helium smlad", slow=True),
)


@pytest.mark.parametrize(
    "foreign",
    [pytest.param(f, marks=[pytest.mark.slow] if f.slow else []) for f in FOREIGN],
    ids=lambda f: f"{f.target}-{f.emulator}-{f.dots}",
)
def test_foreign(foreign: Foreign, workers: Workers, tmp_path: Path):
    emulator = foreign.emulator.split()
    found = emulate_wasm.can_run() if foreign.emulator == "wasmtime" else shutil.which(emulator[0])
    if not found or importlib.util.find_spec("ziglang") is None:
        pytest.skip(f"{emulator[0]} or ziglang is not installed")
    target = parse(foreign.target)
    kernels = [kernel for kernel in KERNELS if kernel.dot.name in foreign.dots.split()]
    specs = [specs_of(kernel) for kernel in kernels]
    texts = [(module_text(part, target), [spec.name for spec in part]) for part in specs]
    objects = [closed_object(workers, text, target, names, False)[0] for text, names in texts]
    made = [c for part in specs for spec in part for c in calls(spec, seed=spec.k, every=4)]
    zig = foreign.zig.split()
    if foreign.emulator == BOARD:
        found = board_of(target)
        assert found
        emulator, zig = list(found.command), [*zig, *found.link(tmp_path)]
    results = run_foreign(objects, target, zig, emulator, made, tmp_path)
    for call, result in zip(made, results, strict=True):
        assert same(result, call.expected), (call.spec.name, call.ranges)


PROBLEMS = st.tuples(st.integers(0, 20), st.integers(1, 100), st.integers(0, 2**32 - 1))
"""Rows of activations, rows of weights, a seed."""


@pytest.mark.parametrize("weights", ["i2", "b1"])
@pytest.mark.parametrize("activations", [DType.i8, DType.f32])
def test_what_native_chooses(weights: str, activations: DType, workers: Workers, run: NativeRunner):
    target = host_target()
    kernels = {k for m in (1, 2, 4, 64) for k in choose(target, weights, activations, m, 200)}
    specs = [Spec(kernel, 200, group) for kernel in kernels for group in (0, 40)]
    code = loaded(workers, specs, target)

    @settings(max_examples=60, deadline=None)
    @given(PROBLEMS, st.sampled_from(specs))
    def check(problem, spec):
        m, n, seed = problem
        rng = np.random.default_rng(seed)
        x = (rng.standard_cauchy((m, 200)) * 20).clip(-128, 127).astype(activations.numpy)
        w = rng.choice([-1, 0, 1] if weights == "i2" else [-1, 1], (n, 200)).astype(np.int8)
        scales = rng.standard_normal((n, 5)).astype(np.float32) if spec.group else None
        call = make_call(spec, x, w, scales)
        assert same(run(code.address(spec.name), call), call.expected)

    check()


def test_every_target_compiles_what_it_chooses(workers: Workers):
    """Integer dots need nothing from elsewhere; float ones may, where the CPU has no floats."""
    jobs = []
    for target in (parse(named.name) for named in TARGETS):
        for dtype in (DType.i8, DType.f32):
            chosen = {k for m in (1, 64) for k in choose(target, "i2", dtype, m, 64)}
            specs = [Spec(kernel, 64) for kernel in KERNELS if kernel in chosen]
            jobs.append(replace(job(specs, target), closed=dtype is DType.i8))
    workers.compile_all(jobs)


# -- controls -------------------------------------------------------------------------------------


def test_a_changed_weight_shows(workers: Workers, run: NativeRunner):
    spec = Spec(*choose(host_target(), "i2", DType.i8, 1, 64), 64)
    code = loaded(workers, [spec], host_target())
    address = code.address(spec.name)
    call = make_call(spec, np.full((1, 64), 3, np.int8), np.ones((16, 64), np.int8))
    assert same(run(address, call), call.expected)
    call.packed[5] ^= 1
    assert not same(run(address, call), call.expected)


class TooLong(Kernel):
    """A kernel whose 16-bit sums are widened one step too late."""

    @property
    def widen(self) -> int:
        return super().widen + 1


@pytest.mark.parametrize("name", ["trit_gemm_2x1c4_ssse3", "sign_gemv_1x1c4_wide"])
def test_sums_are_widened_as_late_as_can_be(name: str, workers: Workers, run: NativeRunner):
    kernel = BY_NAME[name]
    late = TooLong(**{f.name: getattr(kernel, f.name) for f in fields(kernel)})
    for tried, right in ((kernel, True), (late, False)):
        spec = Spec(tried, kernel.layout().unit_k * (kernel.widen + 1))
        code = loaded(workers, [spec], level(kernel))
        x, w = np.full((2, spec.k), -128, np.int8), np.ones((16, spec.k), np.int8)
        call = make_call(spec, x, w)
        assert same(run(code.address(spec.name), call), call.expected) == right


# -- assembly -------------------------------------------------------------------------------------

INSTRUCTIONS = {
    "sse2": r"pmaddwd\s",
    "ssse3": r"pmaddubsw\s",
    "avx2": r"vpmaddubsw\s.*%ymm",
    "maddwd256": r"vpmaddwd\s.*%ymm",
    "maddwd512": r"vpmaddwd\s.*%zmm",
    "avx512bw": r"vpmaddubsw\s.*%zmm",
    "avxvnni": r"\{vex\}\s+vpdpbusd\s.*%ymm",
    "vnni512": r"vpdpbusd\s.*%zmm",
    "vbmi512": r"vpermb\s.*%zmm",
    "neon": r"smlal2\s.*8h",
    "neondot": r"sdot\s.*4b\[\d\]",
    "i8mm": r"usmmla\s|usdot\s.*4b\[\d\]",
    "sve": r"\tsdot\tz",
    "svei8mm": r"\tusdot\tz",
    "neon32": r"vml(al|a)\.",
    "rvv": r"vwmaccsu\.vv\s",
    "rvvx": r"vwmaccsu\.vx\s",
    "rvvx256": r"vwmaccsu\.vx\s",
    "neon32add": r"vpaddl\.s8\s",
    "wasmadd": r"i16x8\.extadd_pairwise_i8x16_s",
    "simd128": r"i16x8\.mul",
    "relaxed": r"relaxed_dot_i8x16_i7x16_add_s",
    "helium": r"vmlava\.s8\s",
    "smlad": r"smlad\s",
    "wide": r"pmullw\s",
    "pairs": r"mla\s",
    "scalar": r"\tmul\s",
    "lookup": r"\tlh\s",
    "f32x4": r"addps\s",
    "f32x8": r"vaddps\s.*%ymm",
    "f32avx2": r"vpermilps\s.*%ymm",
    "f32x16": r"vaddps\s.*%zmm.*\{%k\d\}|vaddps\s.*%zmm",
    "f32": r"addss\s",
}

ON_BYTES = {"vbmi512": "vnni512"}
"""Whose instruction goes over a panel, where that is another one than unpacks it."""


def tile_asm(kernel: Kernel, mr: int, workers: Workers) -> str:
    """The assembly of one mr x nr tile."""
    kernel = kernel.on_bytes if kernel.panel else kernel
    target, layout = parse(HOME[kernel.dot.name]), kernel.layout()
    steps, index = 40, f"i{target.index_bits}"
    x_stride = steps * layout.unit_k * kernel.activations.bytes
    tile = Tile(kernel, layout, target, mr, kernel.nr, steps, x_stride, index)
    module = Module(target.triple)
    f = Function(module, "tile", [("ptr", "x"), ("ptr", "w"), ("ptr", "out")], linkage="")
    x, w, out = f.args
    blocks = tuple(tile.at(f, w, n, steps * layout.unit_bytes) for n in range(kernel.nr))
    for number, acc in enumerate(itertools.chain(*EMITTERS[kernel.dot.name](f, tile, x, blocks))):
        f.store(acc, tile.at(f, out, number, 4 * layout.rows), 4)
    f.finish()
    job = Job(target, (Part(module.text(), False),), frozenset({"tile"}), frozenset({"asm"}))
    return workers.compile(job)["asm"].decode()


IN_LOOP = {"f32": GROUP, "smlad": Smlad.rows, "helium": Helium.rows}
IN_LOOP |= dict.fromkeys(("scalar", "pairs"), Pairs.rows)
"""Rows of weights that a loop sums, where those are not all of a tile."""

NOT_COUNTED = re.compile(
    r"\t(v?mov|vp?broadcast|prefetch|ld|l[bw]\s|vle|mv"
    r"|local\.|\w+\.(const|load)|block|(end_)?loop|end_block)"
)
"""Loads, moves and prefetches of x86, loads of Arm and RISC-V, WebAssembly's operands and loads."""
NOTHING = re.compile("(?!)")
SCALAR = ("scalar", "pairs", "smlad", "helium", "lookup")
"""Where loads and moves count like all other instructions."""


def loops_of(asm: str, dot: str, left_out: re.Pattern[str]) -> list[tuple[int, int]]:
    """The loops around dots as ranges of instructions, the innermost and longest first.

    The widening of sums, which LLVM may place before the loop that it follows, looks like one too.
    """
    labels: dict[str, int] = {}
    loops, dots, open_, count = [], [], [], 0
    for line in asm.splitlines():
        if re.search(dot, line):
            dots.append(count)
        if label := re.match(r"(\.LBB\w+):", line):
            labels[label[1]] = count
        elif line.startswith("\tloop"):
            open_.append(count)
        elif line.startswith("\tend_loop"):
            loops.append((open_.pop(), count))
        elif re.match(r"\t[a-z{]", line):
            count += not left_out.match(line)
            if (to := re.search(r"(\.LBB\w+)$", line)) and to[1] in labels:
                loops.append((labels[to[1]], count))

    def inside(a: tuple[int, int]) -> int:
        return sum(a != b and a[0] <= b[0] <= b[1] <= a[1] for b in loops)

    found = [(a, b) for a, b in loops if any(a <= at < b for at in dots)]
    return sorted(found, key=lambda loop: (inside(loop), loop[0] - loop[1]))


def instructions(kernel: Kernel, asm: str, dot: str) -> int:
    """Those of the innermost loop; of a unit of weights where its rows are that loop."""
    first, *around = loops_of(asm, dot, NOTHING if kernel.dot.name in SCALAR else NOT_COUNTED)
    inner = first[1] - first[0]
    if kernel.dot.name != "lookup":
        return inner
    unit = next(b - a for a, b in around if a <= first[0] and first[1] <= b)
    return unit + (kernel.dot.rows - 1) * inner


STEPS = dict.fromkeys(("neon", "neondot", "i8mm", "sse2", "maddwd256", "maddwd512"), 16)
"""Weights of a row that a step takes at least, where that is more than a short unit has."""


def units_of_a_step(kernel: Kernel, mr: int) -> int:
    """How many units along k the innermost loop takes at a time."""
    if kernel.panel and kernel.arch == "aarch64":
        return 4
    if kernel.dot.scalable:
        return 2 if mr == 1 else 1
    if kernel.dot.name == "i8mm" and mr > 1 and kernel.code != "b1":
        return 2
    return max(STEPS.get(kernel.dot.name, 0) // kernel.layout().unit_k, 1)


@pytest.mark.parametrize("code", ["i2", "b1", "x5"])
def test_a_step_of_tiles_is_loads_and_products(code: str, workers: Workers):
    (kernel,) = (k for k in KERNELS if k.code == code and k.has_tiles)
    target = parse(HOME[kernel.dot.name])
    asm = workers.compile(replace(job([Spec(kernel, 2560)], target), kinds=frozenset({"asm"})))
    bodies = re.split(r"\.LBB\w+:", asm["asm"].decode())
    steps = [body for body in bodies if "\ttdpbsud" in body]
    counts = {
        tuple(len(re.findall(rf"\t{name}", body)) for name in ("tdpbsud", "tileload", r"[a-z]"))
        for body in steps
    }
    products = {count: (loads, total) for count, loads, total in counts}
    assert products.keys() == {1, 2, 4}  # a tile of rows or two, by a block or two
    assert products[4][0] == products[2][0] + 1 == 4
    assert products[4][1] <= 16


counted = pytest.mark.parametrize(
    "kernel", [k for k in KERNELS if not k.has_tiles], ids=lambda kernel: kernel.name
)


@counted
def test_instructions_and_their_number(kernel: Kernel, workers: Workers):
    layout = (kernel.on_bytes if kernel.panel else kernel).layout()
    name = kernel.dot.name
    k = layout.lanes_k if kernel.activations is DType.f32 else layout.unit_k
    for mr, cost, error in ((kernel.mr, kernel.cost, 0.1), (1, kernel.row_cost, 0.3)):
        asm = tile_asm(kernel, mr, workers)
        instruction = INSTRUCTIONS[ON_BYTES.get(name, name) if kernel.panel else name]
        assert re.search(instruction, asm)
        if kernel.activations is DType.f32:
            assert not re.search(r"mul[ps]s|fn?m(add|sub)", asm)
        rows = IN_LOOP.get(name, layout.rows * mr * kernel.nr)
        units = units_of_a_step(kernel, mr)
        count = instructions(kernel, asm, instruction)
        assert count / (rows * k * units) == pytest.approx(cost, rel=error)
        if kernel.mr == 1:
            break
