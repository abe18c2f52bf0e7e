"""The kernels of low-bit dots by themselves: integer sums of activations, stored as they are."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt

from tbc.bench.memory import Ring, Room
from tbc.bench.timing import SAMPLE, Call, shortest
from tbc.codegen.dots import emit_dot
from tbc.codegen.jit import Loaded, jit_target
from tbc.codegen.llvm_text import Function, Module, Val
from tbc.codegen.machine import Job, Part, Workers
from tbc.errors import InternalError
from tbc.kernels import KERNELS, SMALLEST, Kernel, choose, is_code_of
from tbc.layout import CODES
from tbc.target import Target
from tbc.types import DType

FLOAT_TOLERANCE = 1e-4
"""Of f32 sums, whose order is not NumPy's, relative to the largest."""


@dataclass(frozen=True)
class Product:
    """y[m, n] = x[m, k] by w[n, k]."""

    m: int
    n: int
    k: int

    @property
    def name(self) -> str:
        """MxNxK."""
        return f"{self.m}x{self.n}x{self.k}"

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        return self.m * self.n * self.k

    def x(self, dtype: DType) -> npt.NDArray[Any]:
        """Random activations."""
        rng = np.random.default_rng(1)
        if dtype is DType.f32:
            return rng.standard_normal((self.m, self.k), np.float32)
        return rng.integers(-128, 128, (self.m, self.k)).astype(np.int8)

    def weights(self, dtype: DType) -> npt.NDArray[np.int8]:
        """Random trits, signs or integers."""
        rng = np.random.default_rng(2)
        if dtype.is_int:
            least, most = dtype.range
            return rng.integers(least, most + 1, (self.n, self.k)).astype(np.int8)
        trits = rng.integers(-1, 2, (self.n, self.k), np.int8)
        return trits if dtype is DType.trit else np.where(trits < 0, -1, 1).astype(np.int8)


@dataclass(frozen=True)
class Sweep:
    """Products of the same weights by every number of activation rows from `least` to `most`."""

    least: int
    most: int
    n: int
    k: int

    @property
    def name(self) -> str:
        """M..MxNxK."""
        return f"{self.least}..{self.most}x{self.n}x{self.k}"

    @property
    def products(self) -> tuple[Product, ...]:
        """In order."""
        return tuple(Product(m, self.n, self.k) for m in range(self.least, self.most + 1))


def kernels_of(target: Target, product: Product, all_of_them: bool) -> tuple[Kernel, ...]:
    """Those that a target has for a product: the chosen one of each code, or all."""
    if all_of_them:
        return tuple(
            kernel for kernel in KERNELS if kernel.dot.runs_on(target) and product.k <= kernel.max_k
        )
    return tuple(
        choose(target, code, activations, product.m, product.k, product.n)[0]
        for activations in (DType.i8, DType.f32)
        for code in CODES
        if code != SMALLEST and is_code_of(target, code, activations)
    )


def emit(module: Module, kernel: Kernel, product: Product, target: Target) -> None:
    """void name(x, packed, out, ldo, block_lo, block_hi): sums of all activation rows."""
    index, layout = f"i{target.index_bits}", kernel.layout()
    pointers = [("ptr noalias", name) for name in ("x", "packed", "out")]
    sizes = [(index, name) for name in ("ldo", "block_lo", "block_hi")]
    f = Function(module, kernel.name, [*pointers, *sizes], linkage="")
    x, packed, out, ldo, block_lo, block_hi = f.args

    def store(f: Function, m: Val, n: Val, sums: Val) -> None:
        place = f.op("add", f.op("mul", m, ldo), n)
        f.store(sums, f.offset(out, place, "i32"), 4)

    emit_dot(
        f,
        kernel,
        layout,
        product.k,
        target=target,
        x=x,
        x_stride=layout.padded_k(product.k),
        packed=packed,
        m_lo=Val(index, "0"),
        m_hi=Val(index, str(product.m)),
        rows=(product.m, product.m),
        block_lo=block_lo,
        block_hi=block_hi,
        epilogue=store,
        index=index,
    )
    f.finish()


def load(module: Module, target: Target, workers: Workers, names: tuple[str, ...] = ()) -> Loaded:
    """Functions of a module in this process; by default all of them."""
    native, names = jit_target(target), names or tuple(module.functions)
    job = Job(native, (Part(module.text(), passes=False),), frozenset(names))
    return Loaded(workers.compile(job)["obj"], native, names)


class Dot:
    """A kernel on a product, ready to run, in slices of rows of weights if it takes long.

    Raises:
        InternalError: its sums are wrong.
    """

    def __init__(self, kernel: Kernel, product: Product, code: Loaded):
        self.kernel, self.layout, self._code = kernel, kernel.layout(), code
        self._blocks = self.layout.blocks(product.n)
        self._block_bytes = self.layout.block_bytes(product.k)
        x, w = product.x(kernel.activations), product.weights(self.layout.dtype)
        padded = np.zeros((product.m, self.layout.padded_k(product.k)), x.dtype)
        padded[:, : product.k] = x
        self._columns = self._blocks * self.layout.rows
        self._x, self._w = Room.of(padded), Room.of(self.layout.pack(w))
        self._out = Room(product.m * self._columns * 4)
        kinds = [*[ctypes.c_void_p] * 3, *[ctypes.c_ssize_t] * 3]
        self._function = ctypes.CFUNCTYPE(None, *kinds)(code.address(kernel.name))
        self._check(x, w)
        self._slice = self._sliced()

    def _call(self, packed: int, low: int, high: int) -> Call:
        x, out, columns = self._x.address, self._out.address, self._columns
        return partial(self._function, x, packed, out, columns, low, high)

    def _check(self, x: npt.NDArray[Any], w: npt.NDArray[np.int8]) -> None:
        """Nothing if the sums over the stored codes, or the f32 weights, are right."""
        self._call(self._w.address, 0, self._blocks)()
        is_float = self.kernel.activations is DType.f32
        codes = w if is_float else self.layout.coding.codes_of(w)
        expected = x.astype(np.float64) @ codes.astype(np.float64).T
        held = self._out.bytes.view(np.float32 if is_float else np.int32)
        error = np.abs(held.reshape(len(x), -1)[:, : len(w)] - expected).max()
        if not error <= (FLOAT_TOLERANCE * np.abs(expected).max() if is_float else 0):
            raise InternalError(f"the sums of {self.kernel.name} are wrong by {error:.3g}")

    def _sliced(self) -> int:
        """Blocks of a call that takes about as long as a sample."""
        tiles = min(self.kernel.nr, self._blocks)
        seconds = shortest(cycle([self._call(self._w.address, 0, tiles)]))
        fitting = int(2 * SAMPLE / max(seconds, 1e-9)) * tiles
        return min(max(fitting, tiles), self._blocks)

    @property
    def part(self) -> float:
        """What part of the product a call is."""
        return self._slice / self._blocks

    @property
    def bytes(self) -> int:
        """Bytes of the weights of the product."""
        return self._blocks * self._block_bytes

    def hot(self) -> Iterator[Call]:
        """Calls on the same weights, slice after slice."""
        starts: Sequence[int] = range(0, self._blocks - self._slice + 1, self._slice)
        return cycle([self._call(self._w.address, low, low + self._slice) for low in starts])

    def cold(self, ring: Ring) -> Iterator[Call]:
        """Calls on ever other weights."""
        while True:
            yield self._call(ring.take(self._slice * self._block_bytes), 0, self._slice)
