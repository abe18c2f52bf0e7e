"""What a relocation writes: the kinds that LLVM uses in position-independent code without a linker.

A kind is a formula over addresses and a field of bits. Numbers, formulas and fields are those of
the processor supplements of the System V ABI (x86: gitlab.com/x86-psABIs, Arm: ARM-software/
abi-aa, RISC-V and LoongArch: their psABI documents, s390x: IBM/s390x-abi).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from tbc.codegen import elf
from tbc.codegen.elf_object import ElfObject, Relocation, Section
from tbc.errors import LinkFailed


@dataclass(frozen=True)
class Place:
    """What formulas are made of, by the names that the ABIs give them."""

    s: int
    """The symbol's address."""
    a: int
    """The addend."""
    p: int
    """The address that is written to."""
    got: int
    """_GLOBAL_OFFSET_TABLE_."""
    old: int
    """What the field held."""
    high: Mapping[int, int]
    """RISC-V: by address, what the upper halves at it are of."""


@dataclass(frozen=True)
class Field:
    """Bits of an instruction or a word that hold a number.

    Attributes:
        size: bytes of the whole.
        pieces: (lowest bit of the number, how many bits, lowest bit in the whole).
        shift: low bits of the number that are 0 and not stored.
        checked: whether a number that does not fit is an error; else it is cut off.
        code: whether the whole is an instruction of Arm, RISC-V or LoongArch, little-endian always.
    """

    size: int
    pieces: tuple[tuple[int, int, int], ...]
    shift: int = 0
    checked: bool = True
    code: bool = True

    @property
    def bits(self) -> int:
        """Of the number, without those that are not stored."""
        return sum(count for _, count, _ in self.pieces)

    def read(self, whole: int) -> int:
        """The number, as signed."""
        number = sum((whole >> at & ((1 << n) - 1)) << low for low, n, at in self.pieces)
        sign = 1 << (self.bits - 1)
        return ((number ^ sign) - sign) << self.shift

    def write(self, whole: int, number: int) -> int:
        """The whole with another number in it; ValueError if it does not fit."""
        number, lost = number >> self.shift, number & ((1 << self.shift) - 1)
        if lost or (self.checked and not -(1 << (self.bits - 1)) <= number < 1 << (self.bits - 1)):
            raise ValueError("out of reach")
        for low, n, at in self.pieces:
            mask = (1 << n) - 1
            whole = whole & ~(mask << at) | (number >> low & mask) << at
        return whole


@dataclass(frozen=True)
class Kind:
    """A kind of relocation: its name in the ABI, what it computes, and where that goes."""

    name: str
    formula: Callable[[Place], int]
    field: Field


def _word(size: int, *, checked: bool = True) -> Field:
    return Field(size, ((0, 8 * size, 0),), checked=checked, code=False)


def _absolute(x: Place) -> int:
    return x.s + x.a


def _relative(x: Place) -> int:
    return x.s + x.a - x.p


def _pages(x: Place) -> int:
    return ((x.s + x.a) >> 12) - (x.p >> 12)


def _low(x: Place) -> int:
    return (x.s + x.a) & 0xFFF


def _from_got(x: Place) -> int:
    return x.s + x.a - x.got


def _to_got(x: Place) -> int:
    return x.got + x.a - x.p


def _plus(x: Place) -> int:
    return x.old + x.s + x.a


def _minus(x: Place) -> int:
    return x.old - x.s - x.a


def _upper(x: Place) -> int:
    """What an auipc adds so that the signed 12 bits of the next instruction reach the rest."""
    return (x.s + x.a - x.p + 0x800) >> 12


def _rest(x: Place) -> int:
    """The low bits of what the auipc at the symbol began."""
    return x.high[x.s] & 0xFFF


def _pages_rounded(x: Place) -> int:
    return ((x.s + x.a + 0x800) >> 12) - (x.p >> 12)


_HALFWORDS = Field(4, ((0, 32, 0),), 1, code=False)
_ARM_BRANCH = Field(4, ((0, 24, 0),), 2)
_A64_PAGES = Field(4, ((0, 2, 29), (2, 19, 5)))
_A64_BRANCH = Field(4, ((0, 26, 0),), 2)
_RISCV_U = Field(4, ((0, 20, 12),))
_RISCV_I = Field(4, ((0, 12, 20),), checked=False)
_LOONG_HIGH = Field(4, ((0, 20, 5),))
_LOONG_LOW = Field(4, ((0, 12, 10),), checked=False)
_LOONG_BRANCH = Field(4, ((0, 16, 10), (16, 10, 0)), 2)


def _scaled(shift: int) -> Field:
    """The offset of a load or store of 1 << shift bytes."""
    return Field(4, ((0, 12 - shift, 10),), shift, checked=False)


def _kinds(
    prefix: str, rows: Iterable[tuple[int, str, Callable[[Place], int], Field]]
) -> Mapping[int, Kind]:
    return {
        number: Kind(f"R_{prefix}_{name}", formula, field) for number, name, formula, field in rows
    }


_KINDS: Mapping[int, Mapping[int, Kind]] = {
    elf.X86_64: _kinds(
        "X86_64",
        (
            (1, "64", _absolute, _word(8)),
            (2, "PC32", _relative, _word(4)),
            (4, "PLT32", _relative, _word(4)),
        ),
    ),
    elf.X86: _kinds(
        "386",
        (
            (1, "32", _absolute, _word(4, checked=False)),
            (2, "PC32", _relative, _word(4, checked=False)),
            (4, "PLT32", _relative, _word(4, checked=False)),
            (9, "GOTOFF", _from_got, _word(4, checked=False)),
            (10, "GOTPC", _to_got, _word(4, checked=False)),
        ),
    ),
    elf.ARM: _kinds(
        "ARM",
        (
            (2, "ABS32", _absolute, _word(4, checked=False)),
            (3, "REL32", _relative, _word(4, checked=False)),
            (28, "CALL", _relative, _ARM_BRANCH),
            (29, "JUMP24", _relative, _ARM_BRANCH),
            (42, "PREL31", _relative, Field(4, ((0, 31, 0),), code=False)),
        ),
    ),
    elf.AARCH64: _kinds(
        "AARCH64",
        (
            (257, "ABS64", _absolute, _word(8)),
            (275, "ADR_PREL_PG_HI21", _pages, _A64_PAGES),
            (277, "ADD_ABS_LO12_NC", _low, _scaled(0)),
            (278, "LDST8_ABS_LO12_NC", _low, _scaled(0)),
            (282, "JUMP26", _relative, _A64_BRANCH),
            (283, "CALL26", _relative, _A64_BRANCH),
            (284, "LDST16_ABS_LO12_NC", _low, _scaled(1)),
            (285, "LDST32_ABS_LO12_NC", _low, _scaled(2)),
            (286, "LDST64_ABS_LO12_NC", _low, _scaled(3)),
            (299, "LDST128_ABS_LO12_NC", _low, _scaled(4)),
        ),
    ),
    elf.RISCV: _kinds(
        "RISCV",
        (
            (1, "32", _absolute, _word(4, checked=False)),
            (2, "64", _absolute, _word(8)),
            (23, "PCREL_HI20", _upper, _RISCV_U),
            (24, "PCREL_LO12_I", _rest, _RISCV_I),
            (35, "ADD32", _plus, _word(4, checked=False)),
            (39, "SUB32", _minus, _word(4, checked=False)),
        ),
    ),
    elf.S390: _kinds(
        "390",
        (
            (5, "PC32", _relative, _word(4)),
            (19, "PC32DBL", _relative, _HALFWORDS),
            (20, "PLT32DBL", _relative, _HALFWORDS),
            (22, "64", _absolute, _word(8)),
        ),
    ),
    elf.LOONGARCH: _kinds(
        "LARCH",
        (
            (2, "64", _absolute, _word(8)),
            (66, "B26", _relative, _LOONG_BRANCH),
            (71, "PCALA_HI20", _pages_rounded, _LOONG_HIGH),
            (72, "PCALA_LO12", _low, _LOONG_LOW),
            (99, "32_PCREL", _relative, _word(4)),
        ),
    ),
}  # fmt: skip
"""Machine -> number of a kind -> the kind."""


def relocate(
    obj: ElfObject,
    section: Section,
    addresses: Mapping[int, int],
    defined: Mapping[str, int],
    got: int,
) -> tuple[bytearray | memoryview, list[int]]:
    """A section's bytes with all addresses filled in, and where absolute addresses are among them.

    Args:
        obj: the object.
        section: one of its sections.
        addresses: where each section lies.
        defined: addresses of symbols that the object takes from elsewhere.
        got: the address of _GLOBAL_OFFSET_TABLE_.

    Raises:
        LinkFailed: a relocation is not known here, or does not reach.
    """
    relocations = list(obj.relocations(section))
    if not relocations:
        return section.data, []
    code = bytearray(section.data)
    here, absolute = addresses[section.index], []
    high: dict[int, int] = {}
    # What takes the rest of an auipc comes behind all of these.
    for each in sorted(relocations, key=lambda r: _kind(obj, section, r).formula is _rest):
        kind = _kind(obj, section, each)
        field, at = kind.field, each.offset
        order = "little" if field.code else obj.form.byteorder
        whole = int.from_bytes(code[at : at + field.size], order)
        old = field.read(whole)
        place = Place(
            _address(each, addresses, defined, got),
            old if each.addend is None else each.addend,
            here + at,
            got,
            old,
            high,
        )
        if kind.formula is _upper:
            high[place.p] = place.s + place.a - place.p
        if kind.formula is _absolute:
            assert field.size == obj.form.word
            absolute.append(here + at)
        try:
            written = field.write(whole, kind.formula(place))
        except ValueError:
            where = f"{kind.name} at {section.name}+{at:#x}"
            raise LinkFailed(f"{where} does not reach '{each.symbol.name}'") from None
        code[at : at + field.size] = written.to_bytes(field.size, order)
    return code, absolute


def absolute_words(obj: ElfObject, section: Section) -> int:
    """How many absolute addresses a section holds; LinkFailed if a relocation is not known."""
    return sum(_kind(obj, section, r).formula is _absolute for r in obj.relocations(section))


def _kind(obj: ElfObject, section: Section, relocation: Relocation) -> Kind:
    kind = _KINDS.get(obj.machine, {}).get(relocation.kind)
    if kind is None:
        where = f"{section.name}+{relocation.offset:#x}, for '{relocation.symbol.name}'"
        raise LinkFailed(
            f"relocation {relocation.kind} of ELF machine {obj.machine} at {where}, is not known",
            hint="--linker=ld.lld",
        )
    return kind


def _address(
    relocation: Relocation, addresses: Mapping[int, int], defined: Mapping[str, int], got: int
) -> int:
    """The address of the symbol that a relocation refers to."""
    symbol = relocation.symbol
    if symbol.name == "_GLOBAL_OFFSET_TABLE_":
        return got
    if symbol.section == 0 and symbol.name in defined:
        return defined[symbol.name]
    if symbol.section not in addresses:
        raise LinkFailed(f"the code refers to '{symbol.name}', which lies nowhere")
    return addresses[symbol.section] + symbol.value
