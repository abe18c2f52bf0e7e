"""Memory that weights lie in: so much of it that no cache holds what comes round again."""

from __future__ import annotations

import mmap
import os
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Bytes: TypeAlias = npt.NDArray[np.uint8]

PAGE = 4096
_HUGE = 2 << 20
_PATTERN = 4 << 20


def physical_memory() -> int | None:
    """Bytes of memory that this machine has; None where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # there is no sysconf on Windows
        return None


class Room:
    """`size` bytes of zeros at a page, in huge pages where the system has them."""

    def __init__(self, size: int):
        self._map = mmap.mmap(-1, size + _HUGE)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self._map.madvise(mmap.MADV_HUGEPAGE)
        whole = np.frombuffer(self._map, np.uint8)
        start = -whole.ctypes.data % _HUGE
        self.bytes: Bytes = whole[start : start + size]
        self.address = int(self.bytes.ctypes.data)

    @staticmethod
    def of(array: npt.NDArray[np.generic]) -> Room:
        """Room that holds an array's bytes."""
        room = Room(array.nbytes)
        room.bytes[:] = array.reshape(-1).view(np.uint8)
        return room


class Ring:
    """Random bytes, taken piece after piece; all others come by before a byte comes again."""

    def __init__(self, size: int):
        self._room, self._size, self._next = Room(size), size, 0
        self.address = self._room.address
        pattern = np.random.default_rng(0).integers(0, 256, min(size, _PATTERN), np.uint8)
        for start in range(0, size, _PATTERN):
            part = self._room.bytes[start : start + _PATTERN]
            part[:] = pattern[: part.size]

    def take(self, size: int) -> int:
        """The address of the next `size` bytes, at a page; what lies behind may be read too."""
        if size > self._size:
            raise ValueError(f"a ring of {self._size} bytes has no {size}")
        start = self._next if self._next + size <= self._size else 0
        self._next = -(-(start + size) // PAGE) * PAGE
        return self._room.address + start


class Copies:
    """An image again and again, until there are `size` bytes of it; at least once."""

    def __init__(self, image: Bytes, size: int):
        step = -(-image.nbytes // PAGE) * PAGE
        count = max(1, -(-size // max(image.nbytes, 1)))
        self._room = Room(step * count)
        for number in range(count):
            self._room.bytes[number * step :][: image.nbytes] = image
        self.addresses = tuple(self._room.address + number * step for number in range(count))
        """Where they lie."""
