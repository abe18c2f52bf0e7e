"""What a shared ELF library has as tables: texts, symbols by their hash, and a note."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from tbc.codegen import elf


class Strings:
    """A string table that grows."""

    def __init__(self) -> None:
        self._at = {"": 0}
        self.content = b"\0"

    def add(self, text: str) -> int:
        """Where a text is."""
        if text not in self._at:
            self._at[text] = len(self.content)
            self.content += text.encode() + b"\0"
        return self._at[text]


NOTE_SIZE = 20


def checksum_note(order: str, checksum: int) -> bytes:
    """A note of the owner "tbc", of kind 1."""
    return struct.pack(f"{order}III4sI", 4, 4, 1, b"tbc", checksum)


def hash_table(names: Sequence[str], order: str) -> bytes:
    """A DT_HASH table of one bucket: all symbols in a row."""
    count = 1 + len(names)
    chain = [0, *range(2, count), 0]
    return struct.pack(f"{order}{3 + count}I", 1, count, 1, *chain)


def gnu_hash_table(names: Sequence[str], form: elf.Form) -> bytes:
    """A DT_GNU_HASH table of one bucket, with a Bloom filter of one word."""
    bits, shift = 8 * form.word, 26
    hashes = [_gnu_hash_of(name) for name in names]
    bloom = 0
    for value in hashes:
        bloom |= 1 << value % bits | 1 << (value >> shift) % bits
    chain = [value & ~1 for value in hashes]
    chain[-1] |= 1  # the end of the bucket
    head = struct.pack(f"{form.order}IIII", 1, 1, 1, shift)
    word = bloom.to_bytes(form.word, form.byteorder)
    return head + word + struct.pack(f"{form.order}I{len(chain)}I", 1, *chain)


def _gnu_hash_of(name: str) -> int:
    value = 5381
    for byte in name.encode():
        value = (value * 33 + byte) & 0xFFFFFFFF
    return value
