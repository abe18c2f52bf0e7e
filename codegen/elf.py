"""ELF as it is read and written here: the layout of its tables in both word sizes and byte orders.

Structures and numbers are those of the System V ABI (gabi.xinuos.com) and its processor
supplements.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

X86, X86_64, ARM, AARCH64, RISCV, S390, LOONGARCH = 3, 62, 40, 183, 243, 22, 258
"""e_machine."""

SYMTAB, STRTAB, RELA, HASH, DYNAMIC, NOTE, NOBITS, REL, DYNSYM = 2, 3, 4, 5, 6, 7, 8, 9, 11
GNU_HASH, ARM_EXIDX = 0x6FFFFFF6, 0x70000001
"""sh_type."""

WRITE, ALLOC, EXECUTE = 1, 2, 4
"""sh_flags."""

FUNCTION = 2
"""STT_FUNC, a type of symbols."""


@dataclass(frozen=True)
class Form:
    """The tables of files of a word size and byte order, as `struct.Struct`s.

    Fields come in the order of 64-bit files: see `symbol_fields` and `segment_fields`.
    """

    is_64: bool
    order: str

    def _struct(self, wide: str, narrow: str) -> struct.Struct:
        return struct.Struct(self.order + (wide if self.is_64 else narrow))

    @cached_property
    def header(self) -> struct.Struct:
        """What follows e_ident: type, machine, version, entry, phoff, shoff, flags, six sizes."""
        return self._struct("HHIQQQI6H", "HHIIIII6H")

    @cached_property
    def section(self) -> struct.Struct:
        """name, type, flags, addr, offset, size, link, info, addralign, entsize."""
        return self._struct("IIQQQQIIQQ", "10I")

    @cached_property
    def relocation(self) -> struct.Struct:
        """offset, info."""
        return self._struct("QQ", "II")

    @cached_property
    def relocation_with_addend(self) -> struct.Struct:
        """offset, info, addend."""
        return self._struct("QQq", "IIi")

    @cached_property
    def dynamic(self) -> struct.Struct:
        """tag, value."""
        return self._struct("QQ", "II")

    @cached_property
    def _symbol(self) -> struct.Struct:
        return self._struct("IBBHQQ", "IIIBBH")

    @cached_property
    def _segment(self) -> struct.Struct:
        return self._struct("IIQQQQQQ", "8I")

    @property
    def byteorder(self) -> Literal["little", "big"]:
        """The order as `int.from_bytes` takes it."""
        return "little" if self.order == "<" else "big"

    @property
    def word(self) -> int:
        """Bytes of an address."""
        return 8 if self.is_64 else 4

    @property
    def symbol_size(self) -> int:
        """Bytes of a symbol."""
        return self._symbol.size

    @property
    def segment_size(self) -> int:
        """Bytes of a program header."""
        return self._segment.size

    def symbols(self, table: bytes | memoryview) -> Iterator[tuple[int, ...]]:
        """(name, info, other, section, value, size) of each symbol."""
        for fields in self._symbol.iter_unpack(table):
            if self.is_64:
                yield fields
            else:
                name, value, size, info, other, section = fields
                yield name, info, other, section, value, size

    def symbol(
        self, name: int, info: int, other: int, section: int, value: int, size: int
    ) -> bytes:
        """A symbol."""
        if self.is_64:
            return self._symbol.pack(name, info, other, section, value, size)
        return self._symbol.pack(name, value, size, info, other, section)

    def segment(
        self, kind: int, flags: int, offset: int, address: int, held: int, size: int, align: int
    ) -> bytes:
        """A program header; `held` is what of `size` bytes is in the file."""
        if self.is_64:
            return self._segment.pack(kind, flags, offset, address, address, held, size, align)
        return self._segment.pack(kind, offset, address, address, held, size, flags, align)

    def reference(self, info: int) -> tuple[int, int]:
        """The symbol and the kind of a relocation's info."""
        return divmod(info, 1 << (32 if self.is_64 else 8))


def page_size(machine: int) -> int:
    """The largest pages that a machine's systems may have."""
    return 1 << (16 if machine in (ARM, AARCH64, LOONGARCH) else 12)


HEADER = 16
"""Bytes of e_ident, which the header follows."""


def align_up(number: int, align: int) -> int:
    """The least multiple of `align` that is not below `number`."""
    return -(-number // align) * align
