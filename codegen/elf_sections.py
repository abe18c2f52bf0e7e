"""Sections of an ELF file that is written: where they lie, and their headers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tbc.codegen import elf
from tbc.codegen.elf_object import Section
from tbc.codegen.elf_tables import Strings


@dataclass
class Part:
    """A section of the library, and where it lies in memory and in the file."""

    name: str
    type: int
    flags: int
    align: int
    size: int
    link: str = ""
    info: int = 0
    entry: int = 0
    content: bytes | bytearray | memoryview = b""
    address: int = field(default=0, init=False)
    offset: int = field(default=0, init=False)

    @property
    def end(self) -> int:
        """Where it ends in memory."""
        return self.address + self.size


def placed(section: Section) -> Part:
    """The place of an object's section in the library."""
    flags = section.flags & (elf.WRITE | elf.ALLOC | elf.EXECUTE)
    return Part(section.name, section.type, flags, section.align, len(section.data))


def append_sections(image: bytearray, parts: Sequence[Part], form: elf.Form) -> tuple[int, int]:
    """Append to a file the sections that are not loaded, the names of all, and their headers.

    Returns:
        Where the headers begin, and how many there are. The first is of no section, the last of
        the names.
    """
    names = Strings()
    starts = [names.add(part.name) for part in parts]
    starts.append(names.add(".shstrtab"))
    size = len(names.content)
    parts = [*parts, Part(".shstrtab", elf.STRTAB, 0, 1, size, content=names.content)]
    numbers = {part.name: 1 + i for i, part in enumerate(parts)}
    for part in parts:
        if not part.flags & elf.ALLOC:  # the others are there
            image += bytes(-len(image) % part.align)
            part.offset = len(image)
            image += part.content
    image += bytes(-len(image) % form.word)
    table = len(image)
    row = form.section
    image += bytes(row.size)
    for start, part in zip(starts, parts, strict=True):
        image += row.pack(
            *(start, part.type, part.flags, part.address, part.offset, part.size),
            *(numbers.get(part.link, 0), part.info, part.align, part.entry),
        )
    return table, 1 + len(parts)
