"""The Python API: compile a model into this process, run it, save it, load what was saved."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
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
from tbc.driver import Compiled, assemble, bound_batch, identifier, lower, write
from tbc.errors import IncompatibleArtifact, Unsupported
from tbc.frontend import load as import_model
from tbc.ir import Graph, bind
from tbc.ops import Input
from tbc.target import Target

if TYPE_CHECKING:
    import onnx

VARIANTS = 8
"""Compiled variants of one model that are kept, for different bounds of its symbols."""


class Model:
    """A model compiled for one target; made by `compile`.

    Symbols without a bound are bounded when the model runs: at the next power of two above the
    extent seen. It is compiled again only beyond that.
    """

    def __init__(self, graph: Graph, target: Target, name: str):
        self.graph, self.target, self.name = graph, target, name
        self._native = is_native(target)
        self._lock = threading.Lock()
        self._variants: OrderedDict[tuple[int, ...], _Jitted] = OrderedDict()
        self._loose = tuple(s for s in graph.symbols() if s.hi is None)
        self._sources = tuple(_source(s, graph) for s in self._loose)
        if not self._loose and self._native:
            self._variant(())

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """The outputs for named inputs.

        C-contiguous arrays of the right type are read in place. Safe to call from several threads.

        Raises:
            ValueError: an input is missing, unknown, or of the wrong type or shape, or holds a
                value that the model cannot accept, such as an index outside its axis.
            IncompatibleArtifact: the model is compiled for another machine.
        """
        if not self._native:
            reason = f"{self.name} is compiled for {self.target.name}, not for this machine"
            raise IncompatibleArtifact(reason, hint="save it, or tbc.verify it in an emulator")
        return self._variant(self._extents(feeds)).model.run(feeds)

    def _extents(self, feeds: Mapping[str, npt.NDArray[Any]]) -> tuple[int, ...]:
        """The extents of the symbols without a bound, from the shapes of some inputs."""
        try:
            return tuple(feeds[name].shape[axis] for name, axis in self._sources)
        except (KeyError, IndexError, AttributeError):
            runtime.bind_symbols(self.graph.inputs, feeds)  # says what is wrong
            raise

    def save(self, folder: str | Path, kinds: tuple[str, ...] = ()) -> tuple[Path, ...]:
        """Write the model as `tbc compile` does, and return the files written.

        Raises:
            Unsupported: a symbol other than a leading batch has no bound.
        """
        graph, _ = bound_batch(self.graph)
        with Workers() as workers:
            _, written = write(graph, self.target, self.name, Path(folder), kinds, workers)
        return tuple(w.path for w in written)

    def _variant(self, seen: tuple[int, ...]) -> _Jitted:
        """A variant whose bounds hold the extents seen: one there is, or a new one."""
        with self._lock:
            fits = (k for k in self._variants if all(e <= b for e, b in zip(seen, k, strict=True)))
            bounds = min(fits, default=None)
            if bounds is None:
                bounds = tuple(1 << max(e - 1, 0).bit_length() for e in seen)
                self._variants[bounds] = self._compile(bounds)
            self._variants.move_to_end(bounds)
            while len(self._variants) > VARIANTS:
                self._variants.popitem(last=False)
            return self._variants[bounds]

    def _compile(self, bounds: tuple[int, ...]) -> _Jitted:
        bounded = {
            s.name: Expr.of(Symbol(s.name, s.lo, max(bound, s.lo)))
            for s, bound in zip(self._loose, bounds, strict=True)
        }
        return _Jitted(bind(self.graph, bounded), self.target, self.name)


def _source(symbol: Symbol, graph: Graph) -> tuple[str, int]:
    """The input, and its axis, whose size is the symbol.

    Raises:
        Unsupported: no input has it as an axis.
    """
    for value in graph.inputs:
        if Expr.of(symbol) in value.type.shape and isinstance(value.op, Input):
            return value.op.name, value.type.shape.index(Expr.of(symbol))
    raise Unsupported(f"no input's shape tells the size {symbol.name}", hint="dims={...}")


def is_native(target: Target) -> bool:
    """Whether this machine can run code for a target."""
    host = host_target()
    return target.triple == host.triple and target.features <= host.features


class _Jitted:
    """One variant in this process: its code, its weights, and the loader's model on them."""

    def __init__(self, graph: Graph, target: Target, name: str):
        native = jit_target(target)
        with Workers(1) as workers:
            compiled: Compiled = assemble(lower(graph, native), native, name, workers, embed=False)
        symbol = symbol_of(name)
        self.code = Loaded(compiled.files["obj"], native, [symbol])
        self.weights = aligned_weights(compiled.program)
        self.model = runtime.Model(
            self.code.address(symbol), host_target().cpu_bits, weights=self.weights, keep=self.code
        )


def compile(
    model: str | Path | bytes | onnx.ModelProto,
    *,
    target: str = "native",
    mcpu: str = "",
    mattr: str = "",
    threads: int = 1,
    dims: Mapping[str, int | tuple[int, int]] | None = None,
    name: str = "",
) -> Model:
    """A model compiled for a target.

    Args:
        model: a path, the bytes of an ONNX file, or a parsed model.
        target: a name from `tbc targets`, or an LLVM triple.
        mcpu: a CPU in LLVM's words.
        mattr: features in LLVM's words.
        threads: threads that a run uses; 1 is what there is.
        dims: for symbolic sizes by name, a number or (least, greatest).
        name: the name in C; by default the file's, or the graph's.

    Raises:
        InvalidModel: the model breaks ONNX's rules.
        Unsupported: tbc cannot compile a part of it.
        BadTarget: the target is not known.
    """
    if threads != 1:
        raise Unsupported(f"{threads} threads: a run uses one thread", hint="threads=1")
    chosen = resolve_target(target, mcpu, mattr)
    imported = import_model(model, dims=dims or {})
    stem = Path(model).stem if isinstance(model, str | Path) else imported.graph.name
    return Model(imported.graph, chosen, identifier(name or stem))


def load(path: str | Path) -> runtime.Model:
    """The model in a shared library that tbc made for this kind of machine.

    Weights in a `.weights` file beside it are mapped.

    Raises:
        IncompatibleArtifact: it is for another machine, another tbc, or not tbc's at all.
    """
    return runtime.load(Path(path), host_target().cpu_bits)
