"""Others that compute the same products, where they are installed: onnxruntime's MatMulNBits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle, repeat
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from tbc.bench.dots import Product
from tbc.bench.onnx_models import block_of, nbits
from tbc.bench.timing import Call

Array = npt.NDArray[Any]

SESSIONS = 512
"""More are not made in order to have cold weights."""


@dataclass(frozen=True)
class Peer:
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
        """Why it does not compute a product, or ""."""
        n, k = self.multiples
        if product.n % n or product.k % k:
            return f"{self.name} needs n in multiples of {n} and k in multiples of {k}"
        return ""

    def bytes(self, product: Product) -> int:
        """Bytes of the weights and their scales."""
        blocks = product.k // block_of(product.k)
        return product.n * (product.k * self.bits // 8 + 4 * blocks)


PEERS = (
    Peer("onnxruntime MatMulNBits 2 bits", 2),
    Peer("onnxruntime MatMulNBits 2 bits, LUT", 2, {"mlas.use_lut_gemm": "1"}, (128, 32)),
    Peer("onnxruntime MatMulNBits 4 bits", 4),
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


class Contest:
    """A peer on x[m, k] by scale * w[n, k].

    Attributes:
        peer: which.
        result: what it computes.
    """

    def __init__(
        self, peer: Peer, product: Product, w: npt.NDArray[np.int8], scale: float, x: Array
    ):
        self.peer, self._feeds = peer, {"x": x}
        self._bytes = peer.bytes(product)
        self._model = nbits(w, scale, product.m, peer.bits).SerializeToString()
        self._first = session(self._model, peer.options)
        self.result = np.asarray(self._first.run(None, self._feeds)[0])

    def hot(self) -> Iterator[Call]:
        """Calls on the same weights."""
        return repeat(runs(self._first, self._feeds))

    def cold(self, size: int) -> Iterator[Call] | None:
        """Calls on `size` bytes of weights in turn; None if that takes too many sessions."""
        count = max(1, -(-size // self._bytes))
        if count > SESSIONS:
            return None
        others = (session(self._model, self.peer.options) for _ in range(count - 1))
        return cycle([runs(each, self._feeds) for each in (self._first, *others)])
