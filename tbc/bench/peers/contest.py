"""What a peer is: something that computes y = x by scale * w, for x[m, k] and w[n, k]."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle, repeat
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tbc.bench.dots import Product
from tbc.bench.timing import Call

Array = npt.NDArray[Any]
Make = Callable[[], tuple[Call, Callable[[], Array]]]
"""Makes a copy of the weights: a call of the product with it, and what gets the last result."""

COPIES = 512
"""More are not made in order to have cold weights."""


class Peer(Protocol):
    """Another's way to multiply by low-bit weights, on one thread."""

    @property
    def name(self) -> str:
        """For people."""

    def lacks(self, product: Product) -> str:
        """Why it does not compute a product, or ""."""

    def bytes(self, product: Product) -> int:
        """Bytes of the weights and their scales."""

    def maker(self, product: Product, w: npt.NDArray[np.int8], scale: float, x: Array) -> Make:
        """What makes copies of the weights, to multiply the f32 x[m, k]."""


class Contest:
    """A peer on a product.

    Attributes:
        peer: which.
        result: f32[m, n] that it computes.
    """

    def __init__(
        self, peer: Peer, product: Product, w: npt.NDArray[np.int8], scale: float, x: Array
    ):
        self.peer = peer
        self._bytes = peer.bytes(product)
        self._make = peer.maker(product, w, scale, x)
        self._first, result = self._make()
        self._first()
        self.result = np.asarray(result(), np.float32)

    def hot(self) -> Iterator[Call]:
        """Calls on the same weights."""
        return repeat(self._first)

    def cold(self, size: int) -> Iterator[Call] | None:
        """Calls on `size` bytes of weights in turn; None if that takes too many copies."""
        count = max(1, -(-size // self._bytes))
        if count > COPIES:
            return None
        return cycle([self._first, *(self._make()[0] for _ in range(count - 1))])
