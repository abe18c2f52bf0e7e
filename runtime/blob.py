"""Blobs: read, checked, and loaded into this process. docs/blob.md describes every byte.

Reading works on blobs of any machine; loading wants one of this machine's kind. Everything in the
file is checked before it is used, as in `tbc_blob.c`, and both refuse the same files.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import re
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np

from tbc.errors import IncompatibleArtifact
from tbc.runtime import structs

MAGIC, VERSION = 0x1A434254, 2
_HEADER = "IIIIHBBIQQQQQQQQQIIIIIIIIIIIIIIII"
_MOST = 1 << 26
"""Of anything that there is a table of."""
HEADER_SIZE, _TENSOR_SIZE, _SYMBOL_SIZE = 160, 32, 24
FUNCTIONS = ("run", "run_phase", "output_shape", "run_part")
_MACHINES = {
    3: "x86",
    62: "x86-64",
    40: "arm",
    183: "aarch64",
    243: "riscv",
    22: "s390x",
    258: "loongarch64",
}
"""e_machine of ELF."""


@dataclass(frozen=True)
class BlobTensor:
    """An input or output, as `tbc_tensor`."""

    name: str
    dtype: int
    shape: tuple[int, ...]
    dims: str
    bytes: int


@dataclass(frozen=True)
class Blob:
    """What a blob says of itself; sizes are in bytes, places are offsets into the file.

    Attributes:
        machine: "x86-64", "arm" and the like.
        bits: of its addresses.
        little_endian: whether it is of a little-endian machine.
        thumb: whether it is of an Arm that runs only Thumb code.
        functions: where each of `FUNCTIONS` begins; 0 for a `run_part` that there is not.
    """

    abi: int
    machine: str
    bits: int
    little_endian: bool
    thumb: bool
    length: int
    cpu_bits: int
    code: int
    code_size: int
    weights: int
    weights_size: int
    weights_sum: int
    arena_size: int
    fast_size: int
    state_size: int
    align: int
    phases: int
    functions: tuple[int, ...]
    name: str
    version: str
    target: str
    inputs: tuple[BlobTensor, ...]
    outputs: tuple[BlobTensor, ...]
    symbols: tuple[tuple[str, int, int], ...]
    self_test: tuple[int, ...]


def is_blob(path: Path) -> bool:
    """Whether a file begins like a blob."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError:
        return False
    return int.from_bytes(start, "little") == MAGIC or int.from_bytes(start, "big") == MAGIC


def read_blob(path: Path) -> Blob:
    """What a blob says of itself, whatever machine it is for.

    Raises:
        IncompatibleArtifact: it is not a blob, or damaged.
    """
    with _mapped(path) as data, memoryview(data) as view:
        return parse_blob(view, str(path))


def parse_blob(data: memoryview, file: str = "") -> Blob:
    """As `read_blob`, of bytes; `file` is for the error."""
    try:
        return _Reader(data).blob()
    except IncompatibleArtifact as error:
        raise error.at(file=file) from None


def _mapped(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise IncompatibleArtifact(f"cannot be read: {why}", file=str(path)) from error


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise IncompatibleArtifact(f"this is not a blob, or it is damaged: {what}")


class _Reader:
    def __init__(self, data: memoryview):
        self.data = data
        _require(len(data) >= HEADER_SIZE, "it is too short")
        little = int.from_bytes(data[:4], "little") == MAGIC
        _require(little or int.from_bytes(data[:4], "big") == MAGIC, "how it begins")
        self.order = "<" if little else ">"
        self.fields = struct.unpack_from(self.order + _HEADER, data)

    def blob(self) -> Blob:
        """All of it, checked."""
        (_, checksum, version, abi, machine, word, thumb, align, *sizes) = self.fields
        length, cpu_bits, code, code_size, weights, weights_size, *sizes = sizes
        arena, fast, state, *rest = sizes
        weights_sum, model_align, phases, *rest = rest
        functions, (name, text, target), rest = rest[:4], rest[4:7], rest[7:]
        n_inputs, n_outputs, n_symbols, tensors, symbols, test = rest
        _require(length == len(self.data), f"its length is {len(self.data)}, not {length}")
        _require(crc32(self.data[8:]) == checksum, "its checksum")
        if version != VERSION:
            raise IncompatibleArtifact(f"the blob has version {version}; this tbc has {VERSION}")
        _require(machine in _MACHINES and word in (4, 8) and thumb in (0, 1), "its machine")
        self.word, self.end = word, code
        for each in (align, model_align):
            _require(each >= word and each & (each - 1) == 0, "its alignment")
        _require(model_align <= align and weights % model_align == 0, "its alignment")
        _require(HEADER_SIZE <= code <= code + code_size <= weights, "where its code is")
        _require(code + code_size < 1 << 31, "where its code is")
        _require(weights + weights_size == length, "where its weights are")
        limit = 1 << 8 * word
        _require(all(n < limit for n in (length, arena, fast, state)), "its sizes")
        for function in functions if functions[3] else functions[:3]:
            inside = code <= function < code + code_size
            _require(inside and function & 1 == thumb, "its functions")
        count = n_inputs + n_outputs
        self._range(tensors, _TENSOR_SIZE, count, 8)
        self._range(symbols, _SYMBOL_SIZE, n_symbols, 8)
        words = 1 + n_symbols + 2 * n_inputs if test else 0
        if test:
            self._range(test, 4, words, 4)
        described = [self._tensor(tensors + _TENSOR_SIZE * i) for i in range(count)]
        return Blob(
            abi=abi,
            machine=_MACHINES[machine],
            bits=8 * word,
            little_endian=self.order == "<",
            thumb=bool(thumb),
            length=length,
            cpu_bits=cpu_bits,
            code=code,
            code_size=code_size,
            weights=weights,
            weights_size=weights_size,
            weights_sum=weights_sum,
            arena_size=arena,
            fast_size=fast,
            state_size=state,
            align=model_align,
            phases=phases,
            functions=tuple(functions),
            name=self._text(name),
            version=self._text(text),
            target=self._text(target),
            inputs=tuple(described[:n_inputs]),
            outputs=tuple(described[n_inputs:]),
            symbols=tuple(self._symbol(symbols + _SYMBOL_SIZE * i) for i in range(n_symbols)),
            self_test=struct.unpack_from(f"{self.order}{words}I", self.data, test),
        )

    def _range(self, at: int, size: int, count: int, align: int) -> None:
        """Require that `count` items of a size lie between the header and the code."""
        inside = at >= HEADER_SIZE and at % align == 0 and at + size * count <= self.end
        _require(inside and count <= _MOST, "where its tables are")

    def _text(self, at: int) -> str:
        self._range(at, 1, 1, 1)
        end = self._zero(at)
        return bytes(self.data[at:end]).decode(errors="replace")

    def _zero(self, at: int) -> int:
        """Where the text at `at` ends, which must be before the code."""
        step = 256
        for start in range(at, self.end, step):
            found = bytes(self.data[start : min(start + step, self.end)]).find(0)
            if found >= 0:
                return start + found
        _require(False, "where its texts end")
        raise AssertionError

    def _tensor(self, at: int) -> BlobTensor:
        fields = struct.unpack_from(self.order + "IIIIIIQ", self.data, at)
        name, dtype, rank, shape, dims, zero, size = fields
        _require(dtype in structs.DTYPES and zero == 0 and size < 1 << 8 * self.word, "its tensors")
        self._range(shape, self.word, rank, self.word)
        form = f"{self.order}{rank}{'Q' if self.word == 8 else 'I'}"
        extents = struct.unpack_from(form, self.data, shape)
        return BlobTensor(self._text(name), dtype, extents, self._text(dims), size)

    def _symbol(self, at: int) -> tuple[str, int, int]:
        name, zero, low, high = struct.unpack_from(self.order + "IIQQ", self.data, at)
        _require(zero == 0 and low <= high < 1 << 8 * self.word, "its symbols")
        return self._text(name), low, high


class Opened:
    """A blob in this process: its code executable, everything read-only.

    Attributes:
        address: of its `tbc_model`.

    Raises:
        IncompatibleArtifact: it is not a blob, damaged, or of another kind of machine.
    """

    def __init__(self, path: Path):
        self._data = np.frombuffer(_mapped(path), np.uint8)
        self._start = int(self._data.__array_interface__["data"][0])
        self.blob = parse_blob(self._data.data, str(path))
        try:
            self._check_machine()
            self._execute()
        except IncompatibleArtifact as error:
            raise error.at(file=str(path)) from None
        self._model = self._filled()
        self.address = ctypes.addressof(self._model)

    def _check_machine(self) -> None:
        blob = self.blob
        bits, little = 8 * ctypes.sizeof(ctypes.c_void_p), sys.byteorder == "little"
        native = (_this_machine(bits), bits, little, False)
        if (blob.machine, blob.bits, blob.little_endian, blob.thumb) != native:
            reason = f"compiled for {blob.target}, which this machine is not"
            raise IncompatibleArtifact(reason)

    def _execute(self) -> None:
        """Let the code run, which the rest never may."""
        start, size = self._start + self.blob.code, self.blob.code_size
        if start % mmap.PAGESIZE or size % mmap.PAGESIZE:
            raise IncompatibleArtifact("its code does not fill whole pages of this system")
        mprotect = ctypes.CDLL(None, use_errno=True).mprotect
        mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        if mprotect(start, size, mmap.PROT_READ | mmap.PROT_EXEC):
            reason = f"the system does not let its code run: {os.strerror(ctypes.get_errno())}"
            raise IncompatibleArtifact(reason)

    def _filled(self) -> structs.Model:
        blob, model = self.blob, structs.Model()
        inputs, outputs = (
            (structs.Tensor * len(tensors))(*map(self._tensor, tensors))
            for tensors in (blob.inputs, blob.outputs)
        )
        symbols = [structs.Symbol(name.encode(), lo, hi) for name, lo, hi in blob.symbols]
        model.inputs, model.outputs = inputs, outputs
        model.symbols = (structs.Symbol * len(symbols))(*symbols)
        model.n_inputs, model.n_outputs, model.n_symbols = len(inputs), len(outputs), len(symbols)
        for field in ("name", "version", "target"):
            setattr(model, field, getattr(blob, field).encode())
        sizes = ("arena_size", "fast_size", "state_size")
        for field in ("abi", "phases", "cpu_bits", "align", *sizes):
            setattr(model, field, getattr(blob, field))
        model.weights_size, model.weights_sum = blob.weights_size, blob.weights_sum
        model.weights = self._start + blob.weights if blob.weights_size else None
        if blob.self_test:
            model.self_test = (ctypes.c_uint32 * len(blob.self_test))(*blob.self_test)
        for field, function in zip(FUNCTIONS, blob.functions, strict=True):
            setattr(model, field, self._start + function if function else None)
        return model

    def _tensor(self, tensor: BlobTensor) -> structs.Tensor:
        shape = (ctypes.c_size_t * len(tensor.shape))(*tensor.shape)
        texts = tensor.name.encode(), tensor.dims.encode()
        return structs.Tensor(texts[0], tensor.dtype, len(shape), shape, texts[1], tensor.bytes)


def _this_machine(bits: int) -> str:
    """This machine's name in `_MACHINES`."""
    name = platform.machine().lower()
    for pattern, machine in (
        ("x86_64|amd64|i[3-6]86", "x86-64" if bits == 64 else "x86"),
        ("aarch64|arm64|arm.*", "aarch64" if bits == 64 else "arm"),
        ("riscv.*", "riscv"),
    ):
        if re.fullmatch(pattern, name):
            return machine
    return name
