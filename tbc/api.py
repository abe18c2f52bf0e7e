"""The Python API: compile a model into this process, run it, save it, load what was saved."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from tbc import runtime
from tbc.codegen.host import host_target, resolve_target
from tbc.codegen.jit import Loaded, jit_target
from tbc.codegen.machine import Workers
from tbc.codegen.model import aligned_weights
from tbc.codegen.modelinfo import symbol_of
from tbc.dims import Expr, Symbol
from tbc.driver import (
    Compiled,
    assemble,
    identifier,
    lower,
    self_test_of_program,
    write,
)
from tbc.errors import IncompatibleArtifact, Unfixed, Unsupported
from tbc.ir import Graph, Value
from tbc.ops import Input
from tbc.program import state_places
from tbc.specialise import Specialised, Specialiser
from tbc.target import ACTIVATIONS, OPTIMIZE, Target
from tbc.tuning import tuned

if TYPE_CHECKING:
    import onnx

VARIANTS = 8
"""Compiled variants of one model that are kept, for different sizes and values."""


class Model:
    """A model compiled for one target; made by `compile`.

    Sizes without a bound are bounded when the model runs: at the next power of two above the
    extent seen. It is compiled again only beyond that. Where that is not enough to compile it, what
    decides its shapes is compiled in, sizes first, then values of inputs: a variant for each.

    Attributes:
        target: what it is compiled for.
        name: its name in C.
        inputs: name, type and dimensions of each input, in order.
    """

    def __init__(
        self,
        specialiser: Specialiser,
        target: Target,
        name: str,
        pool: runtime.Pool | None = None,
    ):
        self.target, self.name, self._pool = target, name, pool
        self.inputs = tuple(
            runtime.Tensor.of(v.op.name, v.type)
            for v in specialiser.inputs
            if isinstance(v.op, Input)
        )
        self._specialiser = specialiser
        self._native = is_native(target)
        self._lock = threading.Lock()
        self._variants: list[_Variant] = []
        self._sources = tuple(_source(s, specialiser.inputs) for s in specialiser.symbols)
        specialiser.check_states()
        if self._native and specialiser.is_complete:
            self._variants.append(_Variant(specialiser.bounded(), target, name, pool))

    @property
    def graph(self) -> Graph:
        """The graph, with open sizes.

        Raises:
            Unfixed: tbc compiles the model only for given sizes or values; the error says which.
        """
        return self._specialiser.graph

    @property
    def state_size(self) -> int:
        """Bytes that are kept from call to call; 0 unless `compile` was given a `state`."""
        return state_places(self._specialiser.kept, self.target.alignment)[1]

    def new_state(self) -> npt.NDArray[Any]:
        """A fresh state for `run`, all zeros; for all sizes of the inputs the same."""
        return runtime.zeroed(self.state_size, self.target.alignment)

    def run(
        self, feeds: Mapping[str, npt.NDArray[Any]], state: npt.NDArray[Any] | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """The outputs for named inputs.

        C-contiguous arrays of the right type are read in place. Safe to call from several threads,
        on a state each.

        Args:
            feeds: the inputs.
            state: from `new_state`, read and written; needed where `state_size` is not 0.

        Raises:
            ValueError: an input is missing, unknown, or of the wrong type or shape, or holds a
                value that the model cannot accept, such as an index outside its axis; the state
                stays as it is. Or there is no state and should be one.
            Unsupported: tbc cannot compile the model for such inputs.
            IncompatibleArtifact: the model is compiled for another machine.
        """
        if not self._native:
            reason = f"{self.name} is compiled for {self.target.name}, not for this machine"
            raise IncompatibleArtifact(reason, hint="save it, or tbc.verify it in an emulator")
        return self._variant(feeds).run(feeds, state)

    def _extents(self, feeds: Mapping[str, npt.NDArray[Any]]) -> tuple[int, ...]:
        """The extents of the symbols without a bound, from the shapes of some inputs."""
        try:
            return tuple([feeds[name].shape[axis] for name, axis in self._sources])
        except (KeyError, IndexError, AttributeError):
            runtime.bind_symbols(self._specialiser.inputs, feeds)  # says what is wrong
            raise

    def save(self, folder: str | Path, kinds: tuple[str, ...] = ()) -> tuple[Path, ...]:
        """Write the model as `tbc compile` does, and return the files written.

        Raises:
            Unfixed: sizes other than a leading batch have no bound, or tbc compiles the model only
                for given sizes or values: the hint says which arguments `compile` needs.
        """
        try:
            graph = self._specialiser.bounded().graph
        except Unfixed as error:
            raise error.for_python() from None
        with Workers() as workers:
            _, written = write(graph, self.target, self.name, Path(folder), kinds, workers)
        return tuple(w.path for w in written)

    def _variant(self, feeds: Mapping[str, npt.NDArray[Any]]) -> _Variant:
        """A variant for the sizes and values that are fed: one there is, or a new one."""
        extents = self._extents(feeds)
        with self._lock:
            found = next((v for v in reversed(self._variants) if v.fits(extents, feeds)), None)
            if found is None:
                specialised = self._specialiser.specialise(feeds)
                found = _Variant(specialised, self.target, self.name, self._pool)
            elif found is self._variants[-1]:
                return found
            else:
                self._variants.remove(found)
            self._variants.append(found)
            del self._variants[:-VARIANTS]
            return found


def _source(symbol: Symbol, inputs: Iterable[Value]) -> tuple[str, int]:
    """The input, and its axis, whose size is the symbol.

    Raises:
        Unsupported: no input has it as an axis.
    """
    for value in inputs:
        if Expr.of(symbol) in value.type.shape and isinstance(value.op, Input):
            return value.op.name, value.type.shape.index(Expr.of(symbol))
    raise Unsupported(f"no input's shape tells the size {symbol.name}", hint="dims={...}")


def is_native(target: Target) -> bool:
    """Whether this machine can run code for a target."""
    host = host_target()
    return target.triple == host.triple and target.features <= host.features


class InProcess:
    """A graph in this process: its program, code and weights, and the loader's model on them."""

    def __init__(
        self,
        graph: Graph,
        target: Target,
        name: str,
        pool: runtime.Pool | None = None,
        merge: bool = True,
        self_test: bool = False,
    ):
        native = jit_target(target)
        program = lower(graph, native, merge=merge)
        test = self_test_of_program(program) if self_test else None
        with Workers(1) as workers:
            compiled: Compiled = assemble(program, native, name, workers, embed=False, test=test)
        symbol = symbol_of(name)
        self.program = compiled.program
        self.code = Loaded(compiled.files["obj"], native, [symbol])
        self.weights = aligned_weights(self.program)
        self.model = runtime.Model(
            self.code.address(symbol), host_target().cpu_bits, self.weights, self.code, pool
        )


class _Variant:
    """A model in this process, for some sizes and values."""

    def __init__(
        self, specialised: Specialised, target: Target, name: str, pool: runtime.Pool | None
    ):
        self._ranges = tuple(specialised.ranges.values())
        self._values = specialised.values
        self._model = InProcess(specialised.graph, target, name, pool).model

    def fits(self, extents: tuple[int, ...], feeds: Mapping[str, npt.NDArray[Any]]) -> bool:
        """Whether it is compiled for extents of the open symbols, and for values of the inputs."""
        return all(
            low <= e <= high for e, (low, high) in zip(extents, self._ranges, strict=True)
        ) and all(_same(value, feeds.get(name)) for name, value in self._values.items())

    def run(
        self, feeds: Mapping[str, npt.NDArray[Any]], state: npt.NDArray[Any] | None
    ) -> dict[str, npt.NDArray[Any]]:
        """The outputs for all inputs, those included that are constants in it."""
        if self._values:
            feeds = {name: array for name, array in feeds.items() if name not in self._values}
        return self._model.run(feeds, state)


def _same(a: npt.NDArray[Any], b: npt.NDArray[Any] | None) -> bool:
    """Whether two arrays hold the same bytes."""
    if b is None or a.dtype != b.dtype or a.shape != b.shape:
        return False
    return a.tobytes() == b.tobytes()


def compile(
    model: str | Path | bytes | onnx.ModelProto,
    *,
    target: str = "native",
    mcpu: str = "",
    mattr: str = "",
    optimize: str = OPTIMIZE[0],
    activations: str = ACTIVATIONS[0],
    threads: int | runtime.Pool = 0,
    dims: Mapping[str, int | tuple[int, int]] | None = None,
    inputs: Mapping[str, npt.ArrayLike] | None = None,
    state: Mapping[str, str] | None = None,
    name: str = "",
    tuning: str | Path | None = None,
) -> Model:
    """A model compiled for a target.

    Args:
        model: a path, the bytes of an ONNX file, or a parsed model.
        target: a name from `tbc targets`, or an LLVM triple.
        mcpu: a CPU in LLVM's words.
        mattr: features in LLVM's words.
        optimize: "speed", "size" or "balanced", on microcontrollers: how much flash weights may
            take as code, which is faster.
        activations: "float", or "int8", which rounds the float activations of low-bit layers: they
            are faster, and the results are others.
        threads: threads that a run may use; 0 is one for every physical core. Runs of less than a
            tenth of a millisecond use one, as do those that take longer on several, and those that
            begin while another is shared. Or a pool, which any number of models may share.
        dims: for symbolic sizes by name, a number or (least, greatest).
        inputs: values of inputs that are to be constants; the model has those inputs no more.
        state: by input, the output that it was in the call before: both are kept in the memory
            that `Model.new_state` gives instead. They have one type, whose sizes are numbers.
        name: the name in C; by default the file's, or the graph's.
        tuning: the file that `tbc compile --tune` wrote on such a machine; dots of other shapes
            take the kernels that cost least.

    Raises:
        IncompatibleArtifact: `tuning` is no such file, or for another target.
        InvalidModel: the model breaks ONNX's rules.
        Unsupported: tbc cannot compile a part of it.
        BadTarget: the target is not known.
        BadState: `state` does not fit the model.
        ValueError: `dims` or `inputs` do not fit the model, or `threads` is negative.
    """
    pool = _pool(threads)
    chosen = resolve_target(target, mcpu, mattr, optimize, activations)
    if tuning is not None:
        chosen = tuned(chosen, Path(tuning))
    specialiser = Specialiser(model, dims or {}, inputs or {}, state or {})
    return Model(specialiser, chosen, identifier(name or specialiser.name), pool)


def load(path: str | Path, *, threads: int | runtime.Pool = 0) -> runtime.Model:
    """The model in a shared library that tbc made for this kind of machine.

    Weights in a `.weights` file beside it are mapped. `threads` is as for `compile`.

    Raises:
        IncompatibleArtifact: it is for another machine, another tbc, or not tbc's at all.
    """
    return runtime.load(Path(path), host_target().cpu_bits, pool=_pool(threads))


def _pool(threads: int | runtime.Pool) -> runtime.Pool | None:
    """What shares the runs of a model; None for one thread."""
    if isinstance(threads, runtime.Pool):
        return threads
    if threads < 0:
        raise ValueError(f"{threads} threads: 1 or more, or 0 for one a core")
    count = threads or runtime.physical_cores()
    return runtime.Pool(count) if count > 1 else None
