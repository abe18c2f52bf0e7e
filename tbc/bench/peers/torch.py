"""PyTorch's linear layers: bf16 weights, and int8 ones for activations quantised on the way."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from tbc.bench.dots import Product
from tbc.bench.peers.contest import Array, Make, Peer
from tbc.bench.timing import Call


@dataclass(frozen=True)
class BFloat16:
    """`torch.nn.functional.linear` in bf16, activations too."""

    name: str = "torch bf16"

    def lacks(self, product: Product) -> str:
        """See `Peer`."""
        return ""

    def bytes(self, product: Product) -> int:
        """See `Peer`."""
        return 2 * product.n * product.k

    def maker(self, product: Product, w: npt.NDArray[np.int8], scale: float, x: Array) -> Make:
        """See `Peer`: the weights are trits, and the result is scaled where nobody times it."""
        import torch

        given = torch.from_numpy(x).to(torch.bfloat16)
        trits = torch.from_numpy(w).to(torch.bfloat16)

        def make() -> tuple[Call, Any]:
            multiply = partial(torch.nn.functional.linear, given, trits.clone())
            return multiply, lambda: multiply().float().numpy() * scale

        return make


@dataclass(frozen=True)
class DynamicInt8:
    """The dynamically quantised linear layer: 8-bit activations of one scale a call."""

    name: str = "torch int8, dynamic"

    def lacks(self, product: Product) -> str:
        """See `Peer`."""
        return ""

    def bytes(self, product: Product) -> int:
        """See `Peer`."""
        return product.n * product.k

    def maker(self, product: Product, w: npt.NDArray[np.int8], scale: float, x: Array) -> Make:
        """See `Peer`."""
        import torch

        given = torch.from_numpy(x)
        trits = torch.from_numpy(w).float() * scale
        with warnings.catch_warnings(action="ignore"):  # it is deprecated, for nothing as fast yet
            quantised = torch.quantize_per_tensor(trits, scale, 0, torch.qint8)
        ops = torch.ops.quantized

        def make() -> tuple[Call, Any]:
            multiply = partial(ops.linear_dynamic, given, ops.linear_prepack(quantised, None))
            return multiply, lambda: multiply().numpy()

        return make


def peers() -> Sequence[Peer]:
    """Both, on one thread."""
    import torch

    torch.set_num_threads(1)
    return (BFloat16(), DynamicInt8())
