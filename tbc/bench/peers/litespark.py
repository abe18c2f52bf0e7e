"""Litespark-Inference, for 2-bit ternary weights: activations are rounded, then multiplied."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tbc.bench.dots import Product
from tbc.bench.peers.contest import Array, Make, Peer
from tbc.bench.timing import Call


@dataclass(frozen=True)
class Litespark:
    """The path of its runtime that does without torch, one row of activations at a time."""

    kernel: Any
    name: str = "litespark 2 bits"

    def lacks(self, product: Product) -> str:
        """See `Peer`."""
        if product.m > 1 or product.k % 64:
            return f"{self.name}: one row, of a k that 64 divides"
        return ""

    def bytes(self, product: Product) -> int:
        """See `Peer`."""
        return product.n * product.k // 4

    def maker(self, product: Product, w: npt.NDArray[np.int8], scale: float, x: Array) -> Make:
        """See `Peer`."""
        from litespark_inference.torchless.pack import pack_ternary_4_per_byte

        kernel, packed, row = self.kernel, pack_ternary_4_per_byte(w), np.ascontiguousarray(x[0])

        def make() -> tuple[Call, Any]:
            weights = packed.copy()
            codes, out = np.empty(product.k, np.int8), np.empty(product.n, np.float32)

            def call() -> None:
                rounded = kernel.quantize_activation(row, codes)
                kernel.matmul_packed_m1(codes, weights, scale, rounded, out)

            return call, lambda: out[None]

        return make


def peers() -> Sequence[Peer]:
    """Its own kernel of a row, on one thread."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from litespark_inference.torchless import kernel

    kernel.has_omp()  # loads it, or says why it cannot
    return (Litespark(kernel),)
