"""Static libraries: the archive format, in the dialects that linkers want.

Every dialect starts with an index of symbols, so no `ranlib` is needed, and holds no times or user
numbers, so equal objects make equal archives.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_MAGIC = b"!<arch>\n"


@dataclass(frozen=True)
class Member:
    """An object file, and the symbols that others may link to, as they are in its symbol table."""

    name: str
    data: bytes
    symbols: tuple[str, ...]


def write_archive(members: Sequence[Member], object_format: str) -> bytes:
    """The static library of `members` for "elf", "coff", "macho" or "wasm" object files."""
    return _bsd(members) if object_format == "macho" else _gnu(members, object_format == "coff")


def symbol_name(name: str, object_format: str, arch: str, index_bits: int) -> str:
    """A symbol of LLVM IR as object files have it: some formats put an underscore first."""
    i686_coff = (object_format, arch, index_bits) == ("coff", "x86", 32)
    return "_" + name if i686_coff or object_format == "macho" else name


def _entry(name: bytes, data: bytes, mode: int = 0o644) -> bytes:
    """A header and its data, padded to an even length."""
    head = b"%-16s%-12d%-6d%-6d%-8o%-10d`\n" % (name, 0, 0, 0, mode, len(data))
    return head + data + b"\n" * (len(data) % 2)


def _offsets(first: int, entries: Sequence[bytes]) -> Iterator[int]:
    for entry in entries:
        yield first
        first += len(entry)


def _gnu(members: Sequence[Member], coff: bool) -> bytes:
    """System V's archive with a big-endian index; for COFF also Microsoft's sorted index."""
    long_names = b""
    entries = []
    for member in members:
        name = member.name.encode()
        if len(name) > 15:
            at, name = len(long_names), name + (b"\0" if coff else b"/\n")
            long_names += name
            field = b"/%d" % at
        else:
            field = name + b"/"
        entries.append(_entry(field, member.data))
    names = _entry(b"//", long_names, 0) if long_names else b""
    pairs = [(s, i) for i, member in enumerate(members) for s in member.symbols]
    # The indices hold offsets of what follows them, but their own size does not depend on those.
    before = len(_MAGIC + _index(pairs, entries, 0) + names)
    if coff:
        before += len(_sorted_index(pairs, entries, 0))
    index = _index(pairs, entries, before)
    if coff:
        index += _sorted_index(pairs, entries, before)
    return b"".join((_MAGIC, index, names, *entries))


def _index(pairs: Sequence[tuple[str, int]], entries: Sequence[bytes], first: int) -> bytes:
    at = list(_offsets(first, entries))
    offsets = [at[i] for _, i in pairs]
    strings = b"".join(symbol.encode() + b"\0" for symbol, _ in pairs)
    return _entry(b"/", struct.pack(f">{len(pairs) + 1}I", len(pairs), *offsets) + strings, 0)


def _sorted_index(pairs: Sequence[tuple[str, int]], entries: Sequence[bytes], first: int) -> bytes:
    """Microsoft's second linker member: offsets of the members, and the symbols in order."""
    by_name = sorted((symbol.encode(), i + 1) for symbol, i in pairs)
    data = struct.pack(f"<{len(entries) + 1}I", len(entries), *_offsets(first, entries))
    data += struct.pack(f"<I{len(by_name)}H", len(by_name), *(i for _, i in by_name))
    return _entry(b"/", data + b"".join(symbol + b"\0" for symbol, _ in by_name), 0)


def _bsd(members: Sequence[Member]) -> bytes:
    """Darwin's archive: long names in front of the data, everything at multiples of 8."""
    entries = [_bsd_entry(member.name, member.data) for member in members]
    pairs = sorted((s, i) for i, member in enumerate(members) for s in member.symbols)
    strings = b"".join(symbol.encode() + b"\0" for symbol, _ in pairs)
    strings += b"\0" * (-len(strings) % 8)

    def index(first: int) -> bytes:
        at = list(_offsets(first, entries))
        words, name = [], 0
        for symbol, i in pairs:
            words += [name, at[i]]
            name += len(symbol.encode()) + 1
        table = struct.pack(f"<I{len(words)}I", 4 * len(words), *words)
        return _bsd_entry("__.SYMDEF SORTED", table + struct.pack("<I", len(strings)) + strings)

    return b"".join((_MAGIC, index(len(_MAGIC) + len(index(0))), *entries))


def _bsd_entry(name: str, data: bytes) -> bytes:
    """A member whose data start at a multiple of 8, as Apple's linker wants them."""
    # Headers have 60 bytes and follow a multiple of 8, so names fill 4 bytes modulo 8.
    text = name.encode()
    text += b"\0" * (1 + (3 - len(text)) % 8)
    data += b"\0" * (-len(data) % 8)
    return _entry(b"#1/%d" % len(text), text + data)
