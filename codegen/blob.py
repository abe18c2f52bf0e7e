"""Blobs: a model in one position-independent file. docs/blob.md describes every byte.

    header, descriptions of tensors and symbols, their names and sizes
    code, with the constants that it reads           (whole pages where there is a system)
    weights

Everything is an offset into the file, and code refers to constants and weights by their distance,
so nothing is filled in when a blob is loaded, and it can run where it lies.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from zlib import crc32

import numpy as np
import numpy.typing as npt

from tbc.codegen import elf
from tbc.codegen.elf import align_up
from tbc.codegen.elf_object import ElfObject, Section
from tbc.codegen.elf_relocations import absolute_words, relocate
from tbc.codegen.modelinfo import ABI, FUNCTIONS, ModelInfo, TensorInfo, entry_points
from tbc.errors import LinkFailed, Unsupported
from tbc.target import Target

MAGIC, VERSION = 0x1A434254, 2
HEADER = "IIIIHBBIQQQQQQQQQIIIIIIIIIIIIIIII"
"""The fields of the header, as for `struct`."""

HEADER_SIZE, _TENSOR_SIZE, _SYMBOL_SIZE = 160, 32, 24
"""Bytes of the header, and of what describes a tensor and a symbol."""

_CHECKED_FROM = 8
"""Where that begins of which the second word is the checksum."""

_PAGE_RELATIVE = frozenset({elf.AARCH64, elf.LOONGARCH})
"""Machines whose code knows the low 12 bits of its own address."""


def check_target(target: Target) -> None:
    """Raise Unsupported for a target that has no blobs."""
    if target.arch == "wasm":
        raise Unsupported(
            f"{target.name} has no blobs: WebAssembly cannot run code out of memory",
            hint="--emit shared makes a module, which is one file too",
        )
    if target.object_format != "elf":
        raise Unsupported(
            f"{target.name} has no blobs yet: only ELF targets have", hint="--emit shared"
        )


def write_blob(
    path: Path,
    obj: bytes,
    info: ModelInfo,
    target: Target,
    weights: Iterable[npt.NDArray[np.uint8]],
) -> None:
    """Write a blob.

    Args:
        path: the file.
        obj: the model's functions as movable code, without weights; see `driver.movable_object`.
        info: what the model says of itself.
        target: what it is compiled for.
        weights: the constants, block by block.

    Raises:
        Unsupported: the target has no blobs.
        LinkFailed: the code cannot be moved, or has relocations that are not known.
    """
    check_target(target)
    head, length = _Blob(ElfObject(obj), info, target).head()
    path.unlink(missing_ok=True)  # a process that has mapped the last one keeps it
    with path.open("wb+") as file:
        file.write(head)
        checksum = crc32(head[_CHECKED_FROM:])
        for block in weights:
            checksum = crc32(block.data, checksum)
            block.tofile(file)
        assert file.tell() == length
        file.seek(4)
        file.write(struct.pack("<I" if target.little_endian else ">I", checksum))


class _Blob:
    def __init__(self, obj: ElfObject, info: ModelInfo, target: Target):
        self.obj, self.info, self.target = obj, info, target
        self.order = "<" if target.little_endian else ">"
        self.word = target.index_bits // 8
        # Thumb code has odd addresses, and is all that a microcontroller runs.
        self.thumb = target.triple.startswith("thumb")
        page = elf.page_size(obj.machine) if target.os != "none" else 1
        self.align = max(info.align, *(s.align for s in obj.sections), 64)
        self.page = max(page, self.align)
        self.symbols_at = HEADER_SIZE + _TENSOR_SIZE * (len(info.inputs) + len(info.outputs))
        if obj.machine in _PAGE_RELATIVE:
            self.align = max(self.align, 1 << 12)

    def head(self) -> tuple[bytes, int]:
        """The file up to the weights, without checksum, and how long all of it is."""
        info = self.info
        tables, texts, test = self._tables()
        start = align_up(len(tables), self.page)
        code = self._placed(start)
        size = align_up(max((a + len(s.data) for s, a in code), default=start) - start, self.page)
        weights = start + size
        addresses = {section.index: address for section, address in code}
        image = bytearray(start + size)
        for section, address in code:
            if absolute_words(self.obj, section):
                raise LinkFailed(f"the code is not position-independent, in {section.name}")
            defined = {f"{info.symbol}_weights": weights}
            # Nothing is in the global offset table, so it may be anywhere.
            content, _ = relocate(self.obj, section, addresses, defined, start)
            image[address : address + len(content)] = content
        length = weights + info.weights_size
        functions = self._functions(addresses)
        header = struct.pack(
            self.order + HEADER,
            *(MAGIC, 0, VERSION, ABI, self.obj.machine, self.word, self.thumb, self.align),
            *(length, info.cpu_bits, start, size, weights, info.weights_size),
            *(info.arena_size, info.fast_size, info.state_size),
            *(info.weights_sum, info.align, info.phases),
            *functions,
            *(texts[text] for text in (info.name, info.version, info.target)),
            *(len(info.inputs), len(info.outputs), len(info.symbols)),
            *(HEADER_SIZE, self.symbols_at, test),
        )
        image[: len(tables)] = header + tables[len(header) :]
        return bytes(image), length

    def _placed(self, start: int) -> list[tuple[Section, int]]:
        """Where the sections of the object lie that code needs: constants, then code."""
        held = [
            s
            for s in self.obj.sections
            # Nothing unwinds the stack of a model.
            if s.flags & elf.ALLOC and s.data and s.type != elf.ARM_EXIDX
        ]
        placed, at = [], start
        for section in sorted(held, key=lambda s: s.flags & elf.EXECUTE):
            if section.flags & elf.WRITE:
                raise LinkFailed(f"the code is not position-independent, in {section.name}")
            at = align_up(at, section.align)
            placed.append((section, at))
            at += len(section.data)
        return placed

    def _functions(self, addresses: dict[int, int]) -> Iterator[int]:
        """Where each of `FUNCTIONS` begins; 0 for one that there is not."""
        names = entry_points(self.info.symbol, self.target)
        symbols = {s.name: s for s in self.obj.symbols if s.section}
        for function in FUNCTIONS:
            symbol = symbols[names[function]] if function in names else None
            yield addresses[symbol.section] + symbol.value if symbol else 0

    def _tables(self) -> tuple[bytes, dict[str, int], int]:
        """Everything before the code, the header left empty; where its texts and its test are."""
        info, tensors = self.info, (*self.info.inputs, *self.info.outputs)
        at = self.symbols_at + _SYMBOL_SIZE * len(info.symbols)
        word = "Q" if self.word == 8 else "I"
        shapes = [self._pack(f"{len(t.shape_upper)}{word}", *t.shape_upper) for t in tensors]
        shapes_at = [at + sum(map(len, shapes[:i])) for i in range(len(shapes))]
        at += sum(map(len, shapes))
        words = info.test_words
        test = at if words else 0
        at += 4 * len(words)
        texts: dict[str, int] = {}
        strings = b""
        names = [info.name, info.version, info.target, *(name for name, _, _ in info.symbols)]
        for text in (*names, *(text for t in tensors for text in (t.name, t.dims_text))):
            if text not in texts:
                texts[text] = at + len(strings)
                strings += text.encode() + b"\0"
        rows = [self._tensor(t, texts, shape) for t, shape in zip(tensors, shapes_at, strict=True)]
        rows += [self._pack("IIQQ", texts[name], 0, lo, hi) for name, lo, hi in info.symbols]
        described = [*rows, *shapes, self._pack(f"{len(words)}I", *words), strings]
        return b"".join([bytes(HEADER_SIZE), *described]), texts, test

    def _tensor(self, tensor: TensorInfo, texts: Mapping[str, int], shape: int) -> bytes:
        name, dims = texts[tensor.name], texts[tensor.dims_text]
        fields = (name, tensor.dtype_code, tensor.rank, shape, dims, 0, tensor.bytes)
        return self._pack("IIIIIIQ", *fields)

    def _pack(self, fields: str, *values: int) -> bytes:
        return struct.pack(self.order + fields, *values)
