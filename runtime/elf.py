"""What can be seen of a damaged ELF library without running any of it.

The system's loader maps what the file says and trusts it: a file that is cut short, or that has
holes of zeros, ends the process. So before it is asked, the tables that it follows are looked at,
and the checksum in the note of libraries that tbc wrote.
"""

from __future__ import annotations

import mmap
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

_LOAD, _DYNAMIC = 1, 2
_STRINGS, _SYMBOLS, _HASHES = 5, 6, {4, 0x6FFFFEF5}
_OWNER = struct.pack("=III4s", 4, 4, 1, b"tbc")
"""How the note begins that tbc puts behind the program headers: two sizes, the kind, the owner."""


def damage(path: Path) -> str:
    """What is wrong with a library of this machine's word size and byte order, or "".

    Files of another kind are left to the system's loader.
    """
    with path.open("rb") as file:
        if file.read(6) != b"\x7fELF" + bytes([_CLASS, 1 + (sys.byteorder == "big")]):
            return ""
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            view = memoryview(data)
            try:
                return _damage(view)
            except struct.error:
                return "the file is truncated"
            finally:
                view.release()


_WIDE = sys.maxsize > 1 << 32
_CLASS = 2 if _WIDE else 1
_ADDRESS = "Q" if _WIDE else "I"
_SEGMENT = struct.Struct("=" + ("IIQQQQQQ" if _WIDE else "8I"))
_ENTRY = struct.Struct("=2" + _ADDRESS)


def _damage(data: memoryview) -> str:
    (start,) = struct.unpack_from("=" + _ADDRESS, data, 32 if _WIDE else 28)
    size, count = struct.unpack_from("=HH", data, 54 if _WIDE else 42)
    if size != _SEGMENT.size or start + size * count > len(data):
        return "the file is truncated"
    segments = [_segment(data, start + size * i) for i in range(count)]
    if any(offset + held > len(data) for _, offset, _, held, _ in segments):
        return "the file is truncated"
    loads = [s for s in segments if s[0] == _LOAD]
    dynamic = [s for s in segments if s[0] == _DYNAMIC]
    if not loads or len(dynamic) != 1 or not _is_linked(data, loads, dynamic[0]):
        return "the file is damaged"
    headers, note = data[start : start + size * count], start + size * count
    end = note + len(_OWNER) + 4
    if bytes(data[note : end - 4]) == _OWNER:
        last = max(offset + held for _, offset, _, held, _ in loads)
        found = struct.pack("=I", crc32(data[end:last], crc32(headers)))
        return "" if data[end - 4 : end] == found else "the file is damaged"
    return ""


def _segment(data: memoryview, at: int) -> tuple[int, int, int, int, int]:
    """The kind of a segment, its offset, address, and size in the file and in memory."""
    fields = _SEGMENT.unpack_from(data, at)
    kind, offset, address, held, size = (
        (fields[0], *(fields[i] for i in (2, 3, 5, 6)))
        if _WIDE
        else (fields[0], *(fields[i] for i in (1, 2, 4, 5)))
    )
    return kind, offset, address, held, size


def _is_linked(
    data: memoryview,
    loads: list[tuple[int, int, int, int, int]],
    dynamic: tuple[int, int, int, int, int],
) -> bool:
    """Whether the dynamic section says where symbols are, and that is in the file."""
    _, offset, _, held, _ = dynamic
    entries = dict(_entries(data[offset : offset + held]))
    tables = [entries.get(tag) for tag in (_STRINGS, _SYMBOLS)]
    tables += [entries[tag] for tag in _HASHES & entries.keys()] or [None]
    return all(
        table is not None and any(at <= table < at + held for _, _, at, held, _ in loads)
        for table in tables
    )


def _entries(table: memoryview) -> Iterator[tuple[int, int]]:
    for tag, value in _ENTRY.iter_unpack(table[: len(table) // _ENTRY.size * _ENTRY.size]):
        if tag == 0:
            return
        yield tag, value
