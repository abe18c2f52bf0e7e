"""What an object file needs from elsewhere (ELF, COFF, Mach-O, WebAssembly), and holds (ELF)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from tbc.codegen.elf_object import ElfObject
from tbc.errors import InternalError


def undefined_symbols(obj: bytes) -> set[str]:
    """The functions and data that `obj` refers to and does not define, by their names in LLVM IR.

    That is without the underscore that Mach-O and 32-bit x86 COFF put before every name. Not listed
    is what a linker itself makes: `_GLOBAL_OFFSET_TABLE_`, PowerPC's `.TOC.`, MIPS's `_gp_disp`,
    WebAssembly's globals and tables.
    Raises `InternalError` if it is none of the four formats.
    """
    for is_format, read in _READERS:
        if is_format(obj):
            return set(read(obj)) - {"", "_GLOBAL_OFFSET_TABLE_", ".TOC.", "_gp_disp"}
    raise InternalError("an object file of an unknown format")


def _string(data: bytes, at: int) -> str:
    return data[at : data.index(0, at)].decode()


def _elf(obj: bytes) -> Iterator[str]:
    return (symbol.name for symbol in ElfObject(obj).symbols if symbol.section == 0)


def _coff(obj: bytes) -> Iterator[str]:
    machine, _, _, at, count, _, _ = struct.unpack_from("<HHIIIHH", obj)
    names = at + 18 * count
    skip = 0
    for name, value, section, _, storage, extra in struct.iter_unpack("<8sIhHBB", obj[at:names]):
        if skip:
            skip -= 1
            continue
        skip = extra
        # External and in no section; with a value it would be common storage.
        if section == 0 and value == 0 and storage == 2:
            zeros, offset = struct.unpack("<II", name)
            text = name.rstrip(b"\0").decode() if zeros else _string(obj, names + offset)
            yield text.removeprefix("_") if machine == 0x14C else text


def _macho(obj: bytes) -> Iterator[str]:
    is_64 = obj[0] & 1 == 1
    symbol = struct.Struct("<IBBHQ" if is_64 else "<IBBHI")
    at = 32 if is_64 else 28
    for _ in range(struct.unpack_from("<I", obj, 16)[0]):
        command, size = struct.unpack_from("<II", obj, at)
        if command == 2:  # LC_SYMTAB
            symbols, count, names, _ = struct.unpack_from("<IIII", obj, at + 8)
            table = obj[symbols : symbols + count * symbol.size]
            for name, kind, _, _, value in symbol.iter_unpack(table):
                if kind & 0xEF == 1 and value == 0:  # external, of no section, not common
                    yield _string(obj, names + name).removeprefix("_")
        at += size


class _Wasm:
    """A reader of WebAssembly's encoding."""

    def __init__(self, data: bytes, at: int = 0):
        self.data, self.at = data, at

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def number(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def bytes(self) -> bytes:
        size = self.number()
        self.at += size
        return self.data[self.at - size : self.at]

    def name(self) -> str:
        return self.bytes().decode()

    def sections(self) -> Iterator[tuple[int, _Wasm]]:
        """Each section's (or subsection's) number and content, to the end."""
        while self.at < len(self.data):
            yield self.byte(), _Wasm(self.bytes())


def _wasm(obj: bytes) -> Iterator[str]:
    imported: list[str] = []
    for kind, section in _Wasm(obj, 8).sections():
        if kind == 2:
            imported = list(_wasm_imported_functions(section))
        elif kind == 0 and section.name() == "linking":
            section.number()  # version
            for sub_kind, table in section.sections():
                if sub_kind == 8:  # WASM_SYMBOL_TABLE
                    yield from _wasm_undefined(table, imported)


def _wasm_imported_functions(section: _Wasm) -> Iterator[str]:
    for _ in range(section.number()):
        section.name()
        field = section.name()
        kind = section.byte()
        if kind == 0:
            yield field
            section.number()
        elif kind == 3:  # a global: its type and whether it changes
            section.at += 2
        else:  # a table (behind its element's type), a memory or a tag
            if kind == 1:
                section.byte()
            flags = section.number()
            section.number()
            if kind != 4 and flags & 1:
                section.number()


def _wasm_undefined(table: _Wasm, imported: list[str]) -> Iterator[str]:
    for _ in range(table.number()):
        kind, flags = table.byte(), table.number()
        undefined, named = flags & 0x10, flags & 0x40
        if kind == 1:  # data: where it is follows if it is anywhere
            name = table.name()
            if undefined:
                yield name
            else:
                for _ in range(3):
                    table.number()
        elif kind == 3:  # a section
            table.number()
        else:  # a function, global, tag or table; an import has its name there
            index = table.number()
            name = table.name() if named or not undefined else ""
            if kind == 0 and undefined:
                yield name or imported[index]


_READERS: tuple[tuple[Callable[[bytes], bool], Callable[[bytes], Iterator[str]]], ...] = (
    (lambda o: o[:4] == b"\x7fELF", _elf),
    (lambda o: o[:4] in (b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe"), _macho),
    (lambda o: o[:4] == b"\0asm", _wasm),
    (lambda o: o[:2] in (b"\x64\x86", b"\x64\xaa", b"\x4c\x01", b"\xc4\x01"), _coff),
)
