"""onnxruntime's MatMulNBits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from tbc.bench.dots import Product
from tbc.bench.onnx_models import block_of, nbits
from tbc.bench.peers.contest import Array, Make, Peer
from tbc.bench.timing import Call


@dataclass(frozen=True)
class MatMulNBits:
    """A way of onnxruntime to multiply by low-bit weights.

    Attributes:
        name: for people.
        bits: of a weight.
        options: of the session.
        multiples: n and k must be multiples of these.
    """

    name: str
    bits: int
    options: Mapping[str, str] = field(default_factory=dict)
    multiples: tuple[int, int] = (1, 16)

    def lacks(self, product: Product) -> str:
        """See `Peer`."""
        n, k = self.multiples
        if product.n % n or product.k % k:
            return f"{self.name} needs n in multiples of {n} and k in multiples of {k}"
        return ""

    def bytes(self, product: Product) -> int:
        """See `Peer`."""
        blocks = product.k // block_of(product.k)
        return product.n * (product.k * self.bits // 8 + 4 * blocks)

    def maker(self, product: Product, w: npt.NDArray[np.int8], scale: float, x: Array) -> Make:
        """See `Peer`: every session has weights of its own."""
        model = nbits(w, scale, product.m, self.bits).SerializeToString()
        feeds = {"x": x}

        def make() -> tuple[Call, Any]:
            made = session(model, self.options)
            return runs(made, feeds), lambda: made.run(None, feeds)[0]

        return make


def peers() -> Sequence[Peer]:
    """Of 2 bits, plain and by look-up tables, and of 4."""
    return (
        MatMulNBits("onnxruntime MatMulNBits 2 bits", 2),
        MatMulNBits(
            "onnxruntime MatMulNBits 2 bits, LUT", 2, {"mlas.use_lut_gemm": "1"}, (128, 32)
        ),
        MatMulNBits("onnxruntime MatMulNBits 4 bits", 4),
    )


def session(
    model: Path | onnx.ModelProto | bytes, options: Mapping[str, str] = MappingProxyType({})
) -> Any:
    """A session on one thread, at onnxruntime's default level of optimisations, the fastest."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    for name, value in options.items():
        settings.add_session_config_entry(name, value)
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
    return onnxruntime.InferenceSession(source, settings, providers=["CPUExecutionProvider"])


def runs(session: Any, feeds: Mapping[str, Array]) -> Call:
    """A run that reads its inputs where they are, and writes where it wrote before."""
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_cpu_input(name, array)
    for output in session.get_outputs():
        binding.bind_output(output.name)
    return partial(session.run_with_iobinding, binding)
