"""Shared ELF libraries of one object, written without a linker.

The object is closed: it needs nothing from elsewhere, so what is left of linking is to place its
sections, to fill in addresses, and to tell the dynamic loader which words it must add the library's
own address to. In memory and in the file, in this order:

    read-only         headers, note, hash tables, dynamic symbols, relocations, constants
    executable        code
    made read-only    constants with addresses in them, and the dynamic section

The note holds a checksum, by which tbc's own loader knows a damaged file (`runtime/elf.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

from tbc.codegen import elf
from tbc.codegen.elf import align_up
from tbc.codegen.elf_object import ElfObject, Symbol
from tbc.codegen.elf_relocations import absolute_words, relocate
from tbc.codegen.elf_sections import Part, append_sections, placed
from tbc.codegen.elf_tables import NOTE_SIZE, Strings, checksum_note, gnu_hash_table, hash_table
from tbc.errors import LinkFailed

_RELATIVE = {
    elf.X86: 8,
    elf.X86_64: 8,
    elf.ARM: 23,
    elf.AARCH64: 1027,
    elf.RISCV: 3,
    elf.S390: 12,
    elf.LOONGARCH: 3,
}
"""The relocation that adds the address at which the library lies."""

_WITHOUT_ADDENDS = frozenset({elf.X86, elf.ARM})
"""Machines whose relocations find their addends in place."""

_LOAD, _DYNAMIC, _NOTE, _STACK, _RELRO, _EXIDX = 1, 2, 4, 0x6474E551, 0x6474E552, 0x70000001
_READ, _CODE, _DATA = 4, 5, 6
"""p_type and p_flags."""


ARCHES = frozenset({"x86", "arm", "aarch64", "riscv", "s390x", "loongarch"})
"""The architectures (`Target.arch`) that `write_shared` knows."""


def write_shared(data: bytes, soname: str, exports: Sequence[str]) -> bytes:
    """The library of an object without undefined symbols; equal for equal arguments.

    Args:
        data: the relocatable object, of one of `ARCHES`.
        soname: the name that users of the library ask for.
        exports: the symbols to show; all of them are in the object.

    Raises:
        LinkFailed: the object has a relocation that is not known, or data that changes.
    """
    return _Library(ElfObject(data), soname, exports).write()


@dataclass
class _Segment:
    """Sections that are mapped alike."""

    flags: int
    parts: list[Part]


class _Library:
    def __init__(self, obj: ElfObject, soname: str, exports: Sequence[str]):
        self.obj, self.form = obj, obj.form
        self.page = elf.page_size(obj.machine)
        self.exports = [self._exported(name) for name in exports]
        self.strings = Strings()
        self.soname = self.strings.add(soname)
        for symbol in self.exports:
            self.strings.add(symbol.name)
        self.held = {s.index: placed(s) for s in obj.sections if s.flags & elf.ALLOC and s.data}
        self.segments = self._segments()
        self.addresses: Mapping[int, int] = {}

    def _exported(self, name: str) -> Symbol:
        found = [s for s in self.obj.symbols if s.name == name and s.section]
        if not found:
            raise LinkFailed(f"the object does not define '{name}'")
        return found[0]

    def _segments(self) -> tuple[_Segment, ...]:
        words = {i: absolute_words(self.obj, self.obj.sections[i]) for i in self.held}
        for index, part in self.held.items():
            if part.flags & elf.WRITE and not part.name.startswith(".data.rel.ro"):
                raise LinkFailed(f"the object has data that changes, in {part.name}")
            if words[index] and not part.flags & elf.WRITE:
                raise LinkFailed(f"the code is not position-independent, in {part.name}")
        tables = self._read_only_tables(sum(words.values()))
        self.tables = {part.name.replace(".rela", ".rel"): part for part in tables}
        dynamic = Part(
            *(".dynamic", elf.DYNAMIC, elf.ALLOC | elf.WRITE, self.form.word, 0, ".dynstr"),
            entry=2 * self.form.word,
        )
        self.tables[dynamic.name] = dynamic
        dynamic.size = len(self._dynamic())
        # Pages are made read-only as a whole, so nothing else may lie on the last one.
        padding = Part(".padding", elf.NOBITS, elf.ALLOC | elf.WRITE, 1, 0)
        held = list(self.held.values())
        constant = [p for p in held if not p.flags & (elf.WRITE | elf.EXECUTE)]
        code = [p for p in held if p.flags & elf.EXECUTE]
        data = [*(p for p in held if p.flags & elf.WRITE), dynamic, padding]
        return _Segment(_READ, tables + constant), _Segment(_CODE, code), _Segment(_DATA, data)

    def _read_only_tables(self, relocations: int) -> list[Part]:
        """What is known before there are addresses has its content; the others have their size."""
        form, word = self.form, self.form.word
        with_addends = self.obj.machine not in _WITHOUT_ADDENDS
        row = form.relocation_with_addend if with_addends else form.relocation
        names = [symbol.name for symbol in self.exports]
        hashes, gnu = hash_table(names, form.order), gnu_hash_table(names, form)
        strings = self.strings.content
        symbols = form.symbol_size
        # On s390x this table alone has words of 8 bytes, which not all tools know.
        older = [
            Part(
                *(".hash", elf.HASH, elf.ALLOC, word, len(hashes), ".dynsym"),
                entry=4,
                content=hashes,
            )
        ]
        return [
            Part(".note.tbc", elf.NOTE, elf.ALLOC, 4, NOTE_SIZE),
            *(older if self.obj.machine != elf.S390 else ()),
            Part(
                *(".gnu.hash", elf.GNU_HASH, elf.ALLOC, word, len(gnu), ".dynsym"),
                entry=0 if form.is_64 else 4,
                content=gnu,
            ),
            Part(
                *(".dynsym", elf.DYNSYM, elf.ALLOC, word, symbols * (1 + len(names)), ".dynstr"),
                info=1,
                entry=symbols,
            ),
            Part(".dynstr", elf.STRTAB, elf.ALLOC, 1, len(strings), content=strings),
            Part(
                ".rela.dyn" if with_addends else ".rel.dyn",
                elf.RELA if with_addends else elf.REL,
                *(elf.ALLOC, word, relocations * row.size, ".dynsym"),
                entry=row.size,
            ),
        ]

    def write(self) -> bytes:
        """The whole file."""
        loaded = self._place()
        self._fill()
        image = bytearray(loaded)
        for part in self._parts():
            image[part.offset : part.offset + len(part.content)] = part.content
        start, size = self._headers_at, self.form.segment_size
        headers = b"".join(self._program_headers())
        assert len(headers) == self._segment_count * size
        image[start : start + len(headers)] = headers
        note = self.tables[".note.tbc"]
        image[note.offset : note.offset + note.size] = checksum_note(
            self.form.order, crc32(memoryview(image)[note.offset + note.size :], crc32(headers))
        )
        return self._with_sections(image)

    def _parts(self) -> Iterator[Part]:
        for segment in self.segments:
            yield from segment.parts

    @property
    def _headers_at(self) -> int:
        return elf.HEADER + self.form.header.size

    @property
    def _exidx(self) -> list[Part]:
        return [p for p in self.held.values() if p.type == elf.ARM_EXIDX]

    @property
    def _segment_count(self) -> int:
        return len(self.segments) + 4 + bool(self._exidx)

    def _place(self) -> int:
        """Give every part its address, and return how long the file is up to there.

        A segment begins in the file where the last one ends, and in memory a page further, so that
        a page of the file may be mapped twice and none is filled with zeros.
        """
        offset = self._headers_at + self._segment_count * self.form.segment_size
        for number, segment in enumerate(self.segments):
            for part in segment.parts:
                assert part.align <= self.page
                offset = align_up(offset, part.align)
                part.offset, part.address = offset, offset + number * self.page
                if part.type == elf.NOBITS:
                    part.size = -part.address % self.page
                else:
                    offset += part.size
        self.addresses = {index: part.address for index, part in self.held.items()}
        return offset

    def _fill(self) -> None:
        """The content of every part, now that there are addresses."""
        form = self.form
        words: list[tuple[int, int]] = []
        for index, part in self.held.items():
            section = self.obj.sections[index]
            # Nothing is in the global offset table, so it may be anywhere.
            got = self.tables[".dynamic"].address
            part.content, absolute = relocate(self.obj, section, self.addresses, {}, got)
            for address in absolute:
                at = address - part.address
                held = int.from_bytes(part.content[at : at + form.word], form.byteorder)
                words.append((address, held))
        kind = _RELATIVE[self.obj.machine]
        table = self.tables[".rel.dyn"]
        table.content = b"".join(
            form.relocation_with_addend.pack(address, kind, held)
            if table.type == elf.RELA
            else form.relocation.pack(address, kind)
            for address, held in sorted(words)
        )
        self.tables[".dynsym"].content = bytes(form.symbol_size) + b"".join(
            form.symbol(self.strings.add(s.name), s.info, 0, *self._at(s), s.size)
            for s in self.exports
        )
        self.tables[".dynamic"].content = self._dynamic()

    def _at(self, symbol: Symbol) -> tuple[int, int]:
        """The number of the section of a symbol, and its address."""
        part = self.held[symbol.section]
        number = 1 + next(i for i, p in enumerate(self._parts()) if p is part)
        return number, part.address + symbol.value

    def _dynamic(self) -> bytes:
        """The dynamic section."""
        tables, row = self.tables, self.form.dynamic
        relocations = tables[".rel.dyn"]
        kind = (7, 8, 9, 0x6FFFFFF9) if relocations.type == elf.RELA else (17, 18, 19, 0x6FFFFFFA)
        rows = [
            (14, self.soname),  # DT_SONAME
            *((4, t.address) for t in tables.values() if t.type == elf.HASH),
            (0x6FFFFEF5, tables[".gnu.hash"].address),
            (5, tables[".dynstr"].address),
            (6, tables[".dynsym"].address),
            (10, tables[".dynstr"].size),
            (11, self.form.symbol_size),
            (kind[0], relocations.address),
            (kind[1], relocations.size),
            (kind[2], relocations.entry),
            (kind[3], relocations.size // relocations.entry),
            (30, 8),  # DT_FLAGS: BIND_NOW
            (0x6FFFFFFB, 1),  # DT_FLAGS_1: NOW
            (0, 0),
        ]
        return b"".join(row.pack(*each) for each in rows)

    def _program_headers(self) -> Iterator[bytes]:
        segment = self.form.segment
        for each in self.segments:
            first, last = each.parts[0], each.parts[-1]
            start = 0 if each.flags == _READ else first.offset
            address = first.address - first.offset + start
            held = last.offset + len(last.content) - start
            size = last.end - address
            yield segment(_LOAD, each.flags, start, address, held, size, self.page)
        dynamic, note = self.tables[".dynamic"], self.tables[".note.tbc"]
        for kind, flags, part in ((_DYNAMIC, _DATA, dynamic), (_NOTE, _READ, note)):
            yield segment(kind, flags, part.offset, part.address, part.size, part.size, part.align)
        yield segment(_RELRO, _READ, start, address, held, size, 1)
        yield segment(_STACK, _DATA, 0, 0, 0, 0, 16)
        if table := self._exidx:
            first, last = table[0], table[-1]
            size = last.end - first.address
            yield segment(_EXIDX, _READ, first.offset, first.address, size, size, first.align)

    def _with_sections(self, image: bytearray) -> bytes:
        """The file with what the loader does not need: names of functions, and section headers."""
        parts = [*self._parts(), *self._attributes(), *self._symbols()]
        table, count = append_sections(image, parts, self.form)
        code = b"\x7fELF" + bytes([1 + self.form.is_64, 1 + (self.form.order == ">"), 1])
        image[: elf.HEADER] = (code + self.obj.system).ljust(elf.HEADER, b"\0")
        image[elf.HEADER : self._headers_at] = self.form.header.pack(
            *(3, self.obj.machine, 1, 0, self._headers_at, table, self.obj.flags),
            *(self._headers_at, self.form.segment_size, self._segment_count),
            *(self.form.section.size, count, count - 1),
        )
        return bytes(image)

    def _attributes(self) -> Iterator[Part]:
        """What disassemblers want to know of the code: .ARM.attributes, .riscv.attributes."""
        for section in self.obj.sections:
            if section.name.endswith(".attributes") and not section.flags & elf.ALLOC:
                part = placed(section)
                part.content = section.data
                yield part

    def _symbols(self) -> tuple[Part, Part]:
        """The names of all functions, for profilers and debuggers, and of what is exported."""
        shown = [
            s
            for s in self.obj.symbols
            if s.is_local and s.type == elf.FUNCTION and s.section in self.held
        ]
        strings = Strings()
        rows = [bytes(self.form.symbol_size)]
        for s in (*shown, *self.exports):
            rows.append(self.form.symbol(strings.add(s.name), s.info, 0, *self._at(s), s.size))
        content = b"".join(rows)
        table = Part(
            *(".symtab", elf.SYMTAB, 0, self.form.word, len(content), ".strtab"),
            info=1 + len(shown),
            entry=self.form.symbol_size,
            content=content,
        )
        names = strings.content
        return table, Part(".strtab", elf.STRTAB, 0, 1, len(names), content=names)
