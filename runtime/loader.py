"""Compiled models as Python objects: arrays in, arrays out."""

from __future__ import annotations

import ctypes
import math
import mmap
import threading
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from tbc.errors import IncompatibleArtifact, InternalError, Unsupported
from tbc.runtime import dims as shapes
from tbc.runtime import structs
from tbc.runtime.blob import Opened, is_blob
from tbc.runtime.elf import damage
from tbc.runtime.pool import Pool
from tbc.self_test import checksum, elements, read_words
from tbc.types import TensorType

TRIALS = 5
"""Runs that several threads share before their times decide whether they go on to."""


@dataclass(frozen=True)
class Tensor:
    """An input or output of a model: its name, element type, and dimensions as text."""

    name: str
    dtype: np.dtype[Any]
    dims: tuple[shapes.Dim, ...]

    @staticmethod
    def of(name: str, type: TensorType) -> Tensor:
        """The tensor of a name and a type."""
        return Tensor(name, type.dtype.numpy, tuple(shapes.Dim(str(dim)) for dim in type.shape))


@dataclass
class _Times:
    """How long runs take."""

    runs: int = 0
    quickest: float = float("inf")

    def note(self, seconds: float) -> None:
        """Take a run into account."""
        self.runs, self.quickest = self.runs + 1, min(self.quickest, seconds)


@dataclass(frozen=True)
class _Pace:
    """How long runs take on one thread, and shared by several."""

    alone: _Times = field(default_factory=_Times)
    shared: _Times = field(default_factory=_Times)

    def pays(self, least: float) -> bool:
        """Whether to share a run: if runs take so many seconds, and less when they are shared.

        The first run is slower than others, so it takes two to know, and some to know of threads.
        """
        if least == 0:
            return True
        if self.alone.runs < 2 or self.alone.quickest < least:
            return False
        return self.shared.runs < TRIALS or self.shared.quickest < self.alone.quickest


@dataclass(frozen=True)
class _Plan:
    """What a call needs besides memory: the symbols' values, and shape and dtype of each output."""

    dims: Any
    outputs: tuple[tuple[tuple[int, ...], np.dtype[Any]], ...]
    pace: _Pace = field(default_factory=_Pace)


class _Room:
    """What one call at a time needs: scratch memory, and the structure that says where all is."""

    def __init__(self, model: structs.Model, weights: int | None):
        self.arena = _aligned(int(model.arena_size), model.align)
        self.fast = _aligned(int(model.fast_size), model.align)
        self.inputs = (ctypes.c_void_p * model.n_inputs)()
        self.outputs = (ctypes.c_void_p * model.n_outputs)()
        self.call = structs.Call()
        self.call.inputs, self.call.outputs = self.inputs, self.outputs
        self.call.arena, self.call.fast = _address(self.arena), _address(self.fast)
        self.call.weights = weights
        self.address = ctypes.byref(self.call)


_PLANS = 64
"""Combinations of input shapes that a model remembers."""


class Model:
    """A compiled model in this process. Safe to run from several threads at once.

    Attributes:
        name: the model's name.
        target: what it was compiled for, as the user wrote it.
        inputs, outputs: the tensors, in order.
        symbols: (name, lowest, highest) of every dimension that the shapes of the inputs decide.
        state_size: bytes of the state that `run` carries from call to call; mostly 0.
    """

    def __init__(
        self,
        address: int,
        cpu_bits: int,
        weights: object = None,
        keep: object = None,
        pool: Pool | None = None,
    ):
        """The model whose `tbc_model` lies at `address`.

        Args:
            address: of a structure as in tbc.h.
            cpu_bits: what this CPU can do, as in tbc.h.
            weights: the bytes of its weights file, if it has one; anything with a buffer.
            keep: lives as long as this object, because it holds the code.
            pool: threads that share runs of some length, if the model's code can wait for others.

        Raises:
            IncompatibleArtifact: made for another tbc.h, another CPU, or other weights.
        """
        # Of a structure of another ABI only the first field may be read.
        abi = ctypes.c_uint32.from_address(address).value
        if abi != structs.ABI:
            raise IncompatibleArtifact(f"the model has ABI {abi}; this tbc has {structs.ABI}")
        raw = structs.Model.from_address(address)
        self._keep, self._raw = keep, raw
        self.name = raw.name.decode()
        self.target = raw.target.decode()
        missing = raw.cpu_bits & ~cpu_bits
        if missing:
            reason = f"compiled for {self.target}, whose instructions this CPU lacks"
            raise IncompatibleArtifact(f"{reason} (bits {missing:#x} of tbc.h)")
        self.inputs = tuple(_tensor(raw.inputs[i]) for i in range(raw.n_inputs))
        self.outputs = tuple(_tensor(raw.outputs[i]) for i in range(raw.n_outputs))
        listed = (raw.symbols[i] for i in range(raw.n_symbols))
        self.symbols = tuple((s.name.decode(), int(s.lo), int(s.hi)) for s in listed)
        self.state_size = int(raw.state_size)
        self._run = structs.RUN(raw.run)
        self._run_part = structs.RUN_PART(raw.run_part) if raw.run_part else None
        self._pool = pool
        self._output_shape = structs.OUTPUT_SHAPE(raw.output_shape)
        self._weights = None if weights is None else self._checked(weights)
        if self._weights is None and raw.weights is None and raw.weights_size:
            raise IncompatibleArtifact(f"the weights of '{self.name}' are absent")
        self._weights_address = None if self._weights is None else _address(self._weights)
        self._plans: dict[tuple[tuple[int, ...], ...], _Plan] = {}
        self._rooms: list[_Room] = []
        self._lock = threading.Lock()

    def run(
        self,
        feeds: Mapping[str, np.ndarray[Any, Any]],
        state: np.ndarray[Any, np.dtype[np.uint8]] | None = None,
    ) -> dict[str, np.ndarray[Any, Any]]:
        """The outputs by name.

        Args:
            feeds: an array for every input name, of its dtype and with dimensions that fit;
                C-contiguous arrays are read where they are, others copied.
            state: from `new_state`, read and written; needed where `state_size` is not 0.

        Raises:
            ValueError: a name, dtype or shape is wrong, or a value is one the model cannot take.
        """
        arrays = self._arrays(feeds)
        room = self._take_room()
        try:
            plan = self._plan(tuple([array.shape for array in arrays]))
            outputs = self._fill(room, plan, arrays, state)
            self._check(self._status(room, plan, (arrays, outputs)))
        finally:
            self._give_back(room)
        return {tensor.name: array for tensor, array in zip(self.outputs, outputs, strict=True)}

    def phase_seconds(
        self,
        feeds: Mapping[str, np.ndarray[Any, Any]],
        state: np.ndarray[Any, np.dtype[np.uint8]] | None = None,
    ) -> list[float]:
        """How long each phase of one run takes, the call from Python included; errors as `run`."""
        arrays = self._arrays(feeds)
        run_phase = structs.RUN_PHASE(self._raw.run_phase)
        room = self._take_room()
        try:
            plan = self._plan(tuple([array.shape for array in arrays]))
            outputs = self._fill(room, plan, arrays, state)
            times = [time.perf_counter()]
            for phase in range(self._raw.phases):
                self._check(run_phase(room.address, phase, 0, 1))
                times.append(time.perf_counter())
        finally:
            self._give_back(room)
        assert len(outputs) == len(self.outputs)  # the arrays outlive the phases that write them
        return [after - before for before, after in pairwise(times)]

    def _status(self, room: _Room, plan: _Plan, keep: object) -> int:
        """Do a run, on one thread or several; `keep` is the memory that it works on."""
        if (pool := self._pool) is None or self._run_part is None:
            return int(self._run(room.address))
        start = time.perf_counter()
        if plan.pace.pays(pool.least_seconds):
            room.call.sync = ctypes.pointer(pool.sync)
            status = pool.run(self._run_part, room.address, (room, keep))
            if status is not None:
                plan.pace.shared.note(time.perf_counter() - start)
                return status
        status = self._run(room.address)
        plan.pace.alone.note(time.perf_counter() - start)
        return int(status)

    def _fill(
        self,
        room: _Room,
        plan: _Plan,
        arrays: list[np.ndarray[Any, Any]],
        state: np.ndarray[Any, np.dtype[np.uint8]] | None,
    ) -> list[np.ndarray[Any, Any]]:
        """Prepare a call on these inputs, which must outlive it; the arrays of its outputs."""
        outputs = [np.empty(shape, dtype) for shape, dtype in plan.outputs]
        room.inputs[:] = [_address(array) for array in arrays]
        room.outputs[:] = [_address(array) for array in outputs]
        room.call.dims = plan.dims
        if self.state_size:
            wanted, align = self.state_size, self._raw.align
            if state is None or state.nbytes != wanted or _address(state) % align:
                reason = f"'{self.name}' needs a state of {wanted} bytes, aligned"
                raise ValueError(f"{reason}: new_state() makes one")
            room.call.state = _address(state)
        return outputs

    def self_test(self) -> None:
        """Run the test that the model has in it, which needs nothing else.

        Raises:
            InternalError: the outputs are not what the compiler found that they should be.
            Unsupported: the model has no test.
        """
        raw = self._raw
        if not raw.self_test:
            raise Unsupported(f"'{self.name}' has no self-test", hint="tbc compile --self-test")
        count = 1 + raw.n_symbols + 2 * raw.n_inputs
        test = read_words(raw.self_test[:count], raw.n_symbols, raw.n_inputs)
        dims = {name: n for (name, *_), n in zip(self.symbols, test.dims, strict=True)}
        feeds = {}
        for number, (tensor, rule) in enumerate(zip(self.inputs, test.rules, strict=True)):
            shape = tuple(d.value(dims) for d in tensor.dims)
            made = elements(number, rule, tensor.dtype, math.prod(shape))
            feeds[tensor.name] = made.reshape(shape)
        state = self.new_state() if self.state_size else None
        if checksum(self.run(feeds, state).values()) != test.sum:
            raise InternalError(f"'{self.name}' does not pass its self-test")

    def new_state(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """A fresh state for `run`, all zeros, aligned as the model wants it."""
        return zeroed(self.state_size, self._raw.align)

    def _arrays(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        """The inputs in order, C-contiguous."""
        if len(feeds) != len(self.inputs) or any(t.name not in feeds for t in self.inputs):
            shapes.check_names([tensor.name for tensor in self.inputs], feeds)
        arrays = []
        for tensor in self.inputs:
            array = np.asarray(feeds[tensor.name])
            if array.dtype != tensor.dtype:
                message = f"input '{tensor.name}' has dtype {array.dtype}, not {tensor.dtype}"
                raise ValueError(message)
            flags = array.flags
            arrays.append(array if flags.c_contiguous and flags.aligned else array.copy("C"))
        return arrays

    def _plan(self, sizes: tuple[tuple[int, ...], ...]) -> _Plan:
        """What follows from the shapes of the inputs; kept for the shapes seen last."""
        if (plan := self._plans.get(sizes)) is not None:
            return plan
        named = [(t.name, t.dims, shape) for t, shape in zip(self.inputs, sizes, strict=True)]
        values = list(shapes.bind(self.symbols, named).values())
        dims = (ctypes.c_size_t * len(values))(*values) if values else None
        call = structs.Call()
        call.dims = dims
        outputs = []
        for index, tensor in enumerate(self.outputs):
            extents = (ctypes.c_size_t * max(len(tensor.dims), 1))()
            self._check(self._output_shape(ctypes.byref(call), index, extents))
            outputs.append((tuple(extents[: len(tensor.dims)]), tensor.dtype))
        if len(self._plans) >= _PLANS:
            self._plans.clear()
        return self._plans.setdefault(sizes, _Plan(dims, tuple(outputs)))

    def _give_back(self, room: _Room) -> None:
        """Return room to the pool."""
        with self._lock:
            self._rooms.append(room)

    def _take_room(self) -> _Room:
        """Room that no other call uses, until it is given back."""
        with self._lock:
            if self._rooms:
                return self._rooms.pop()
        return _Room(self._raw, self._weights_address)

    def _checked(self, weights: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The weights, if they are this model's, where the code may read them."""
        data = np.frombuffer(weights, np.uint8)
        if data.nbytes != self._raw.weights_size or zlib.crc32(data.data) != self._raw.weights_sum:
            raise IncompatibleArtifact(f"these are not the weights of '{self.name}'")
        if _address(data) % self._raw.align:
            copy = _aligned(data.nbytes, self._raw.align)
            copy[:] = data
            return copy
        return data

    def _check(self, status: int) -> None:
        """Nothing if the status is TBC_OK, else the error it stands for."""
        match status:
            case structs.OK:
                return
            case structs.ERROR_DIM:
                raise ValueError(f"'{self.name}' was not compiled for dimensions of this size")
            case structs.ERROR_VALUE:
                raise ValueError(f"an input of '{self.name}' holds a value it cannot accept")
            case structs.ERROR_ABI | structs.ERROR_CPU | structs.ERROR_WEIGHTS:
                raise IncompatibleArtifact(
                    f"'{self.name}' does not fit this machine or its weights"
                )
        raise InternalError(f"'{self.name}' returned status {status}")


def load(
    path: str | Path,
    cpu_bits: int,
    weights: str | Path | None = None,
    pool: Pool | None = None,
) -> Model:
    """The model in a shared library or blob, or the first of variants that this CPU can run.

    Args:
        path: a .so, .dylib, .dll or .tbc made by tbc for this system.
        cpu_bits: what this CPU can do, as in tbc.h.
        weights: the weights file; by default `<name>.weights` beside the library.
        pool: see `Model`.

    Raises:
        IncompatibleArtifact: not such a library, a damaged one, or nothing in it fits this
            machine.
    """
    path = Path(path).absolute()
    if is_blob(path) or path.suffix == ".tbc":
        opened = Opened(path)
        try:
            return Model(opened.address, cpu_bits, keep=opened, pool=pool)
        except IncompatibleArtifact as error:
            raise error.at(file=str(path)) from None
    try:
        if found_damage := damage(path):
            raise OSError(found_damage)
        library = ctypes.CDLL(str(path))
        table = ctypes.c_void_p.in_dll(library, "tbc_models")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise IncompatibleArtifact(f"cannot be read: {error.strerror}", file=str(path)) from error
    except (OSError, ValueError) as error:
        reason = f"this is not a model that this machine can load: {error}"
        raise IncompatibleArtifact(reason, file=str(path)) from error
    found: IncompatibleArtifact | None = None
    for address in _until_null(ctypes.addressof(table)):
        try:
            return Model(address, cpu_bits, _weights_file(address, path, weights), library, pool)
        except IncompatibleArtifact as error:
            found = found or error
    found = found or IncompatibleArtifact("the library holds no model")
    raise found.at(file=str(path))


def _until_null(address: int) -> list[int]:
    """The pointers at `address`, up to a NULL."""
    pointers = []
    while pointer := ctypes.c_void_p.from_address(address).value:
        pointers.append(pointer)
        address += ctypes.sizeof(ctypes.c_void_p)
    return pointers


def _weights_file(address: int, library: Path, weights: str | Path | None) -> object:
    """The weights file, mapped; None for a model that holds its weights, which are checked."""
    raw = structs.Model.from_address(address)
    if raw.abi != structs.ABI or raw.weights_size == 0:
        return None
    if raw.weights is not None:
        held = (ctypes.c_char * raw.weights_size).from_address(raw.weights)
        if zlib.crc32(held) != raw.weights_sum:
            raise IncompatibleArtifact(f"the weights of '{raw.name.decode()}' are damaged")
        return None
    path = Path(weights) if weights else library.parent / f"{raw.name.decode()}.weights"
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise IncompatibleArtifact(f"the weights cannot be read: {error}") from error


def _tensor(raw: structs.Tensor) -> Tensor:
    return Tensor(raw.name.decode(), structs.DTYPES[raw.dtype], shapes.split(raw.dims.decode()))


def zeroed(size: int, align: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """`size` bytes of zeros at a multiple of `align`."""
    memory = _aligned(size, align)
    memory[:] = 0
    return memory


def _aligned(size: int, align: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """`size` bytes at a multiple of `align`."""
    room = np.empty(size + align, np.uint8)
    start = -_address(room) % align
    return room[start : start + size]


_NOTHING = ctypes.c_char * 0


def _address(array: Any) -> int:
    """Where an array's elements are."""
    try:  # a sixth of the time of the other way, but for arrays that may be written only
        return ctypes.addressof(_NOTHING.from_buffer(array))
    except (TypeError, ValueError):
        return int(array.__array_interface__["data"][0])
