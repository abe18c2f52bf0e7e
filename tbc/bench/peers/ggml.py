"""ggml's ternary matrices TQ1_0 and TQ2_0, from the libraries that llama-cpp-python brings."""

from __future__ import annotations

import ctypes
import sys
import weakref
from collections.abc import Sequence
from ctypes import c_bool, c_float, c_int, c_int64, c_size_t, c_uint8, c_void_p
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tbc.bench.dots import Product
from tbc.bench.peers.contest import Array, Make, Peer
from tbc.bench.timing import Call
from tbc.errors import Unsupported

BLOCK = 256
"""Weights of a scale."""
F32 = 0
"""ggml's number of the type."""
SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")


class _Memory(ctypes.Structure):
    """`ggml_init_params`."""

    _fields_ = (("size", c_size_t), ("buffer", c_void_p), ("no_alloc", c_bool))


class _Plan(ctypes.Structure):
    """`ggml_cplan`, with room for what later versions add."""

    _fields_ = (("work_size", c_size_t), ("work_data", c_void_p), ("rest", c_uint8 * 112))
    room: npt.NDArray[np.uint8]
    """What `work_data` points into."""


class Library:
    """The functions that a product needs."""

    def __init__(self) -> None:
        spec = find_spec("llama_cpp")
        if spec is None or spec.origin is None:
            raise Unsupported("llama_cpp is not installed")
        folder = Path(spec.origin).parent / "lib"
        found = {
            name: ctypes.CDLL(str(folder / f"lib{name}{SUFFIX}"), ctypes.RTLD_GLOBAL)
            for name in ("ggml-base", "ggml-cpu")
        }
        base, cpu = found["ggml-base"], found["ggml-cpu"]

        def function(library: Any, name: str, result: Any, *arguments: Any) -> Any:
            it = getattr(library, f"ggml_{name}")
            it.restype, it.argtypes = result, arguments
            return it

        pointers = (c_void_p, c_void_p)
        self.init = function(base, "init", c_void_p, _Memory)
        self.free = function(base, "free", None, c_void_p)
        self.matrix = function(base, "new_tensor_2d", c_void_p, c_void_p, c_int, c_int64, c_int64)
        self.data = function(base, "get_data", *pointers)
        self.multiply = function(base, "mul_mat", c_void_p, *pointers, c_void_p)
        self.graph = function(base, "new_graph_custom", *pointers, c_size_t, c_bool)
        self.add = function(base, "build_forward_expand", None, *pointers)
        self.bytes = function(base, "row_size", c_size_t, c_int, c_int64)
        self.quantise = function(
            base, "quantize_chunk", c_size_t, c_int, c_void_p, c_void_p, *(c_int64,) * 3, c_void_p
        )
        self.plan = function(cpu, "graph_plan", _Plan, c_void_p, c_int, c_void_p)
        self.compute = function(cpu, "graph_compute", c_int, c_void_p, ctypes.POINTER(_Plan))
        function(cpu, "cpu_init", None)()


@dataclass(frozen=True)
class Ternary:
    """A type of ggml's, by the number it has there."""

    library: Library
    name: str
    number: int

    def lacks(self, product: Product) -> str:
        """See `Peer`."""
        return f"{self.name} needs k in multiples of {BLOCK}" if product.k % BLOCK else ""

    def bytes(self, product: Product) -> int:
        """See `Peer`."""
        return product.n * int(self.library.bytes(self.number, product.k))

    def maker(self, product: Product, w: npt.NDArray[np.int8], scale: float, x: Array) -> Make:
        """See `Peer`: each copy is a graph of one product in memory of its own."""
        library, held = self.library, self.bytes(product)
        packed = np.empty(held, np.uint8)
        floats = np.ascontiguousarray(w * np.float32(scale))
        library.quantise(
            self.number, floats.ctypes.data, packed.ctypes.data, 0, product.n, product.k, None
        )

        def make() -> tuple[Call, Any]:
            others = 4 * product.m * (product.k + product.n)
            memory = library.init(_Memory(held + others + (1 << 16), None, False))
            weights = library.matrix(memory, self.number, product.k, product.n)
            given = library.matrix(memory, F32, product.k, product.m)
            result = library.multiply(memory, weights, given)
            graph = library.graph(memory, 8, False)
            library.add(graph, result)
            ctypes.memmove(library.data(weights), packed.ctypes.data, held)
            ctypes.memmove(library.data(given), x.ctypes.data, x.nbytes)
            plan = library.plan(graph, 1, None)
            plan.room = np.empty(plan.work_size + 64, np.uint8)
            plan.work_data = plan.room.ctypes.data + -plan.room.ctypes.data % 64
            weakref.finalize(plan, library.free, memory)

            def output() -> Array:
                found = (c_float * (product.m * product.n)).from_address(library.data(result))
                return np.array(found, np.float32).reshape(product.m, product.n)

            return partial(library.compute, graph, plan), output

        return make


def peers() -> Sequence[Peer]:
    """Both ternary types."""
    library = Library()
    return (Ternary(library, "ggml TQ1_0", 34), Ternary(library, "ggml TQ2_0", 35))
