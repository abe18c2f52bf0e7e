"""memcpy, memmove and memset: whole words where the addresses allow it, then bytes."""

from __future__ import annotations

from dataclasses import dataclass

from tbc.arith import Num, where
from tbc.codegen.llvm_text import Function, Val, bits_of
from tbc.codegen.math import num, raw
from tbc.target_names import arch_of


@dataclass(frozen=True)
class Words:
    """The integer that memory is copied by, as wide as a size, and whether it may lie anywhere."""

    type: str
    unaligned: bool

    @staticmethod
    def of(triple: str) -> Words:
        """What suits the architecture of an LLVM triple."""
        arch = arch_of(triple)
        return Words(f"i{arch.bits}", arch.family in ("x86", "aarch64", "s390x", "wasm"))

    @property
    def bytes(self) -> int:
        """The bytes of a word."""
        return bits_of(self.type) // 8

    @property
    def shift(self) -> int:
        """log2 of the bytes."""
        return self.bytes.bit_length() - 1

    @property
    def align(self) -> int:
        """What the address of a word is a multiple of."""
        return 1 if self.unaligned else self.bytes


def _transfer(f: Function, type: str, align: int, to: Val, source: Val, index: Num) -> None:
    """to[index] = source[index]."""
    value = f.load(type, f.offset(source, raw(index), type), align)
    f.store(value, f.offset(to, raw(index), type), align)


def _count(f: Function, words: Words, size: Num, *pointers: Val) -> Num:
    """The words to go by: none where they should be aligned and are not."""
    count = size >> words.shift
    if words.unaligned:
        return count
    low_bits = size.const(0)
    for pointer in pointers:
        low_bits = low_bits | num(f, f.cast("ptrtoint", pointer, size.type))
    return where((low_bits & (words.bytes - 1)).eq(0), count, 0)


def copy(f: Function, words: Words, to: Val, source: Val, size: Val) -> None:
    """memcpy; ascending, so that it also moves memory down."""
    count = _count(f, words, num(f, size), to, source)
    with f.loop(Val(size.type, "0"), raw(count)) as loop:
        _transfer(f, words.type, words.align, to, source, num(f, loop.index))
    with f.loop(raw(count << words.shift), size) as loop:
        _transfer(f, "i8", 1, to, source, num(f, loop.index))


def _copy_descending(f: Function, words: Words, to: Val, source: Val, size: Val) -> None:
    end = num(f, size)
    count = _count(f, words, end, to, source)
    with f.loop(raw(count << words.shift), size) as loop:
        _transfer(f, "i8", 1, to, source, end - 1 - num(f, loop.index) + (count << words.shift))
    with f.loop(Val(size.type, "0"), raw(count)) as loop:
        _transfer(f, words.type, words.align, to, source, count - 1 - num(f, loop.index))


def move(f: Function, words: Words, to: Val, source: Val, size: Val) -> None:
    """memmove."""
    distance = num(f, f.cast("ptrtoint", to, size.type)) - num(
        f, f.cast("ptrtoint", source, size.type)
    )
    overlaps = distance.ult(num(f, size))
    with f.when(raw(~overlaps)):
        copy(f, words, to, source, size)
    with f.when(raw(overlaps)):
        _copy_descending(f, words, to, source, size)


def fill(f: Function, words: Words, to: Val, byte: Num, size: Val) -> None:
    """memset; of `byte`, the low eight bits."""
    low = byte.cast("trunc", "i8")
    word = low.cast("zext", words.type)
    for doubling in range(3, words.shift + 3):
        word = word | (word << (1 << doubling))
    count = _count(f, words, num(f, size), to)
    with f.loop(Val(size.type, "0"), raw(count)) as loop:
        f.store(raw(word), f.offset(to, loop.index, words.type), words.align)
    with f.loop(raw(count << words.shift), size) as loop:
        f.store(raw(low), f.offset(to, loop.index), 1)
