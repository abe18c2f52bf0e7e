"""Relocatable ELF objects, read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tbc.codegen import elf


@dataclass(frozen=True)
class Section:
    """A section of an object."""

    index: int
    name: str
    type: int
    flags: int
    data: memoryview
    link: int
    info: int
    align: int
    entry_size: int


@dataclass(frozen=True)
class Symbol:
    """A symbol of an object; `section` is 0 for one that is defined elsewhere."""

    name: str
    info: int
    section: int
    value: int
    size: int

    @property
    def type(self) -> int:
        """`elf.FUNCTION` and the like."""
        return self.info & 15

    @property
    def is_local(self) -> bool:
        """Whether only the object itself sees it."""
        return self.info >> 4 == 0


@dataclass(frozen=True)
class Relocation:
    """What is to be added at `offset` of a section; `addend` is None if it is there already."""

    offset: int
    kind: int
    symbol: Symbol
    addend: int | None


class ElfObject:
    """A relocatable object.

    Attributes:
        form: its word size and byte order.
        machine, flags, system: e_machine, e_flags, and the EI_OSABI byte with what follows it.
        sections: by index, the null section among them.
        symbols: by index, the null symbol among them.
    """

    def __init__(self, data: bytes):
        self.form = form = elf.Form(data[4] == 2, "<" if data[5] == 1 else ">")
        self.system = data[7:9]
        header = form.header.unpack_from(data, elf.HEADER)
        self.machine, at, self.flags = header[1], header[5], header[6]
        size, count, names = header[10:]
        if count == 0:  # too many for the field: then it is the first section's size
            count = form.section.unpack_from(data, at)[5]
        rows = [form.section.unpack_from(data, at + size * i) for i in range(count)]
        strings = rows[names][4]
        whole = memoryview(data)
        self.sections = tuple(
            Section(
                index,
                _string(data, strings + name),
                kind,
                flags,
                whole[offset : offset + length] if kind != elf.NOBITS else memoryview(b""),
                link,
                info,
                max(align, 1),
                entry,
            )
            for index, (
                name,
                kind,
                flags,
                _,
                offset,
                length,
                link,
                info,
                align,
                entry,
            ) in enumerate(rows)
        )
        self.symbols = tuple(
            Symbol(_string(data, rows[table.link][4] + name), info, section, value, length)
            for table in self.sections
            if table.type == elf.SYMTAB
            for name, info, _, section, value, length in form.symbols(table.data)
        )

    def relocations(self, section: Section) -> Iterator[Relocation]:
        """Those of a section."""
        for table in self.sections:
            if table.info != section.index or table.type not in (elf.REL, elf.RELA):
                continue
            explicit = table.type == elf.RELA
            row = self.form.relocation_with_addend if explicit else self.form.relocation
            for offset, info, *addend in row.iter_unpack(table.data):
                symbol, kind = self.form.reference(info)
                yield Relocation(offset, kind, self.symbols[symbol], *(addend or [None]))


def _string(data: bytes, at: int) -> str:
    return data[at : data.index(0, at)].decode()
