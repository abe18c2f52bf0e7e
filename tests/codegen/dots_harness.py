"""Low-bit dots as functions: their text, calls that try them, and what a call must leave behind."""

from __future__ import annotations

import ctypes
import itertools
import mmap
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tbc import reference
from tbc.codegen.dots import emit_dot, emit_grouped_dot, piece_of
from tbc.codegen.llvm_text import Function, Module, Val, const, vec
from tbc.emulate import execute
from tbc.kernels import PANEL_ROWS, Kernel
from tbc.layout import CODES, Layout
from tbc.ops import Dot, GroupedDot
from tbc.target import Target
from tbc.types import DType

Array = npt.NDArray[Any]
SENTINEL = 0x5A
"""The byte that fills the results before a call: what a kernel must not touch keeps it."""

SCALES = 1024
"""At most so many scales of activations in a call."""


@dataclass(frozen=True)
class Spec:
    """A function of `kernel` for one k, in groups of `group` if that is not 0.

    Groups of activations have scales too where `scaled`; activations are u8 where `unsigned`.
    """

    kernel: Kernel
    k: int
    group: int = 0
    scaled: bool = False
    unsigned: bool = False

    @property
    def name(self) -> str:
        return f"{self.kernel.name}_k{self.k}_g{self.group}{'s' * self.scaled}{'u' * self.unsigned}"

    @property
    def activations(self) -> npt.DTypeLike:
        return np.uint8 if self.unsigned else self.kernel.activations.numpy

    @property
    def layout(self) -> Layout:
        return self.kernel.layout(self.group)

    def emit(self, module: Module, target: Target) -> None:
        """void name(x, packed, scales, xsum, out, ldo, m_lo, m_hi, block_lo, block_hi)."""
        index = f"i{target.index_bits}"
        pointers = [("ptr noalias", n) for n in ("x", "packed", "scales", "xsum", "out")]
        sizes = [(index, n) for n in ("ldo", "m_lo", "m_hi", "block_lo", "block_hi")]
        f = Function(module, self.name, [*pointers, *sizes], linkage="")
        x, packed, scales, xsum, out, ldo, m_lo, m_hi, block_lo, block_hi = f.args

        is_float = self.group or self.kernel.activations is DType.f32

        def store(f: Function, m: Val, n: Val, acc: Val) -> None:
            assert acc.type == vec("float" if is_float else "i32", piece_of(target))
            place = f.op("add", f.op("mul", m, ldo), n)
            f.store(acc, f.offset(out, place, "i32"), 4)

        common: dict[str, Any] = {
            "target": target,
            "x": x,
            "x_stride": self.layout.padded_k(self.k),
            "packed": packed,
            "m_lo": m_lo,
            "m_hi": m_hi,
            "rows": (0, 1 << 16),
            "block_lo": block_lo,
            "block_hi": block_hi,
            "epilogue": store,
            "index": index,
        }
        if self.group:
            sums: Val | None = None if self.kernel.activations is DType.f32 else xsum
            x_scales = None
            if self.scaled:
                x_scales, sums = xsum, f.offset(xsum, const(index, SCALES), "i32")
            extra = {"scales": scales, "xsum": sums, "x_scales": x_scales}
            emit_grouped_dot(f, self.kernel, self.layout, self.k, **extra, **common)
        else:
            emit_dot(f, self.kernel, self.layout, self.k, unsigned=self.unsigned, **common)
        f.finish()


def module_text(specs: Sequence[Spec], target: Target) -> str:
    """All functions in one module."""
    module = Module(target.triple)
    for spec in specs:
        spec.emit(module, target)
    return module.text()


@dataclass(frozen=True)
class Call:
    """One call: its arrays, the ranges of rows and blocks, and the results' expected bytes."""

    spec: Spec
    x: Array
    packed: Array
    scales: Array
    xsum: Array
    ranges: tuple[int, int, int, int]
    expected: Array

    @property
    def arrays(self) -> tuple[Array, Array, Array, Array]:
        return self.x, self.packed, self.scales, self.xsum


def raw_sums(code: str, x: Array, w: Array) -> Array:
    """Sums over the stored codes for i8, over the weights for f32: what `emit_dot` yields."""
    if x.dtype == np.float32:
        return reference.evaluate(Dot(), [x, w])
    numbers = CODES[code].numbers(CODES[code].codes_of(w))
    return (x.astype(np.int64) @ numbers.astype(np.int64).T).astype(np.int32)


def make_call(
    spec: Spec,
    x: Array,
    w: Array,
    scales: Array | None = None,
    ranges: tuple[int, int, int, int] | None = None,
) -> Call:
    """The call for x[m, k] and w[n, k]; with `scales` f32 [n, groups] of a grouped one.

    Scales of activations stand before their sums, in room for `SCALES` of them.
    """
    (m, k), n, layout = x.shape, len(w), spec.layout
    group = layout.group or k
    blocks = layout.blocks(n)
    filler = -1 if layout.dtype is DType.sign else 0
    w_full = np.full((blocks * layout.rows, k), filler, np.int8)
    w_full[:n] = w
    padded = np.zeros((m, k // group, layout.padded_k(group)), x.dtype)
    padded[:, :, :group] = x.reshape(m, k // group, group)
    xsum = x.reshape(m, k // group, group).sum(-1, dtype=np.int32) if x.dtype == np.int8 else x[:0]
    xsum *= layout.coding.zero
    block_scales = np.zeros(0, np.float32)
    if scales is None:
        full = raw_sums(layout.code, x, w_full)
    else:
        s_full = np.zeros((blocks * layout.rows, k // group), np.float32)
        s_full[:n] = scales
        args = [x, w_full, s_full]
        if spec.scaled:
            args.append(np.random.default_rng(m).uniform(-1, 1, (m, k // group)).astype(np.float32))
            room = np.zeros(SCALES, np.int32)
            room[: args[3].size] = args[3].view(np.int32).reshape(-1)
            xsum = np.concatenate([room, xsum.reshape(-1)])
        full = reference.evaluate(GroupedDot(), args)
        block_scales = np.ascontiguousarray(
            s_full.reshape(blocks, layout.rows, -1).transpose(0, 2, 1)
        )
    ranges = ranges or (0, m, 0, blocks)
    expected = np.full(full.nbytes, SENTINEL, np.uint8).view(full.dtype).reshape(full.shape)
    part = slice(ranges[0], ranges[1]), slice(ranges[2] * layout.rows, ranges[3] * layout.rows)
    expected[part] = full[part]
    flat = padded.reshape(m, layout.padded_k(k))
    return Call(spec, flat, layout.pack(w), block_scales, xsum, ranges, expected)


# -- values ---------------------------------------------------------------------------------------


def fills(spec: Spec, rng: np.random.Generator, special: bool) -> Iterator[tuple[Any, Any]]:
    """Endless (activations, weights) as functions of a shape: random ones and extremes.

    `special` floats have infinities and NaNs among them.
    """
    of_types = {DType.trit: [-1, 0, 1], DType.sign: [-1, 1]}
    least, most = spec.layout.dtype.range
    values = of_types.get(spec.layout.dtype, [least, 0, most])

    def weights(shape: tuple[int, int]) -> Array:
        if spec.layout.dtype.is_int:
            return rng.integers(least, most + 1, shape).astype(np.int8)
        return rng.choice(values, shape).astype(np.int8)

    def const(value: int) -> Any:
        return lambda shape: np.full(shape, value, np.int8)

    def integers(shape: tuple[int, int]) -> Array:
        return rng.integers(-128, 128, shape).astype(np.int8)

    def extremes(shape: tuple[int, int]) -> Array:
        return rng.choice([-128, 127], shape).astype(np.int8)

    def floats(shape: tuple[int, int]) -> Array:
        x = rng.standard_normal(shape) * 10.0 ** rng.integers(-40, 20, shape)
        return np.where(rng.random(shape) < 0.1, -0.0, x).astype(np.float32)

    def specials(shape: tuple[int, int]) -> Array:
        odd = rng.choice([np.inf, -np.inf, np.nan, 1e-42, -0.0], shape)
        return np.where(rng.random(shape) < 0.02, odd, floats(shape)).astype(np.float32)

    if spec.kernel.activations is DType.f32:
        last = specials if special else floats
        pairs = [
            (floats, weights),
            (floats, const(-1)),
            (floats, const(values[1])),
            (last, weights),
        ]
    else:
        bounds = itertools.product((-128, 127), values)
        pairs = [
            (integers, weights),
            (extremes, weights),
            *((const(a), const(b)) for a, b in bounds),
        ]
    return itertools.cycle(pairs)


def calls(spec: Spec, seed: int, special: bool = False, every: int = 1) -> list[Call]:
    """Shapes around the kernel's tile, with every fill among them; parts of a range; nothing.

    Only one in `every` shapes is made.
    """
    kernel, rng = spec.kernel, np.random.default_rng(seed)
    rows = [*range(kernel.mr + 2), 2 * kernel.mr + 1]
    block = spec.layout.rows
    nr = 4 * kernel.nr if kernel.dot.scalable else kernel.nr
    tile = block * nr
    sizes = sorted({1, block - 1, block, block + 1, tile, tile + 1, 2 * tile + 19})
    shapes = [*itertools.product(rows[1:3], sizes), *itertools.product(rows, sizes[-2:])]
    made = []

    def add(m: int, n: int, ranges: tuple[int, int, int, int] | None = None) -> None:
        make_x, make_w = next(source)
        x, w = make_x((m, spec.k)), make_w((n, spec.k))
        if spec.unsigned:
            x = x + np.int16(128)
        x = x.astype(spec.activations)
        scales = None
        if spec.group:
            scales = rng.standard_normal((n, spec.k // spec.group)).astype(np.float32)
        made.append(make_call(spec, x, w, scales, ranges))

    source = fills(spec, rng, special)
    if kernel.panel:
        shapes.append((PANEL_ROWS + 3, 17))
    for m, n in shapes[::every]:
        add(m, n)
    m, n = kernel.mr + 3, block * (nr + 3)
    for ranges in ((1, m - 1, 1, nr + 2), (m, m, 0, 2), (0, m, 3, 3), (2, 3, 2, 3)):
        add(m, n, ranges)
    return made


# -- running --------------------------------------------------------------------------------------


class Guarded:
    """Memory that ends where a page begins which nobody may touch."""

    def __init__(self, size: int):
        page = mmap.PAGESIZE
        self._size = -(-size // page) * page
        self._map = mmap.mmap(-1, self._size + page)
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        libc = ctypes.CDLL(None)
        assert libc.mprotect(ctypes.c_void_p(self._start + self._size), page, 0) == 0

    def place(self, array: Array) -> int:
        """The address of a copy of the array that ends at the end."""
        at = self._size - array.nbytes
        self._map[at : self._size] = array.tobytes()
        return self._start + at

    def last(self, like: Array) -> Array:
        """An array of the last bytes."""
        count = like.size
        return np.frombuffer(
            self._map[self._size - like.nbytes : self._size], like.dtype, count
        ).reshape(like.shape)


class NativeRunner:
    """Runs calls in this process, every buffer before a guard page."""

    def __init__(self) -> None:
        self._buffers = [Guarded(1 << 20) for _ in range(5)]

    def __call__(self, address: int, call: Call) -> Array:
        """What the function leaves in the results."""
        kinds = [*[ctypes.c_void_p] * 5, *[ctypes.c_ssize_t] * 5]
        fresh = np.full(call.expected.nbytes, SENTINEL, np.uint8)
        places = [b.place(a) for b, a in zip(self._buffers, (*call.arrays, fresh), strict=True)]
        ctypes.CFUNCTYPE(None, *kinds)(address)(*places, call.expected.shape[1], *call.ranges)
        return self._buffers[-1].last(call.expected)


_MAIN = Path(__file__).parents[1] / "emulator.c"


_CALLS = """
typedef void f(char *, char *, char *, char *, char *, long, long, long, long, long);
#define PROTOTYPES
#define CALLS \\
    for (long i = 0; i < count; i++) { \\
        const long *n = calls[i].n; \\
        get(0, n[0]); get(1, n[1]); get(2, n[2]); transfer(READ, 0, out, n[3]); \\
        calls[i].run(in[0], in[1], in[2], in[2] + n[4], out, n[5], n[6], n[7], n[8], n[9]); \\
        put(n[3]); \\
    }
%s
static const struct call { f *run; long n[10]; } calls[] = {%s};
static const long count = sizeof calls / sizeof *calls;
"""
"""What emulator.c is told to do."""


def run_foreign(
    objects: Sequence[bytes],
    target: Target,
    zig: Sequence[str],
    emulator: Sequence[str],
    calls: Sequence[Call],
    tmp: Path,
) -> list[Array]:
    """What the functions leave in the results, in a program under an emulator."""
    order = "<" if target.little_endian else ">"
    stream, rows = [], []
    for call in calls:
        x, packed, scales, xsum = (
            a.astype(a.dtype.newbyteorder(order)).tobytes() for a in call.arrays
        )
        parts = [x, packed, scales + xsum, bytes([SENTINEL]) * call.expected.nbytes]
        numbers = [*map(len, parts), len(scales), call.expected.shape[1], *call.ranges]
        stream += parts
        rows.append(f"{{{call.spec.name}, {{{', '.join(map(str, numbers))}}}}}")
    names = dict.fromkeys(call.spec.name for call in calls)
    (tmp / "calls.h").write_text(_CALLS % ("".join(f"f {n};" for n in names), ",\n".join(rows)))
    code = [tmp / f"code{number}.o" for number in range(len(objects))]
    for path, obj in zip(code, objects, strict=True):
        path.write_bytes(obj)
    flags = ["-O1", "-static", "-nostdlib", "-fno-sanitize=all", "-fno-stack-protector"]
    files = ["-include", str(tmp / "calls.h"), str(_MAIN), *map(str, code)]
    compiler = [sys.executable, "-m", "ziglang", "cc", "-target", *zig]
    subprocess.run([*compiler, *flags, *files, "-o", str(tmp / "program")], check=True)
    status, written, said = execute(emulator, tmp / "program", b"".join(stream))
    assert status == 0, said
    results, at = [], 0
    for call in calls:
        dtype = call.expected.dtype.newbyteorder(order)
        result = np.frombuffer(written, dtype, call.expected.size, at)
        results.append(result.reshape(call.expected.shape).astype(call.expected.dtype))
        at += result.nbytes
    assert at == len(written)
    return results


def same(a: Array, b: Array) -> bool:
    """Equal bits, all NaNs alike."""
    if a.dtype == np.float32:
        nans = np.isnan(a) & np.isnan(b)
        return bool(np.array_equal(a.view(np.int32)[~nans], b.view(np.int32)[~nans]))
    return bool(np.array_equal(a, b))
