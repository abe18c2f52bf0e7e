"""The kernels that were measured to be the fastest for a model's dots on a machine, and their file.

`tbc compile --tune` measures them (`tbc.bench.tuner`); the selection takes them instead of what the
cost model says. Results do not depend on them, only time does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tbc import __version__
from tbc.dims import Dim, Expr, Symbol
from tbc.errors import IncompatibleArtifact
from tbc.kernels import BY_NAME, Kernel

if TYPE_CHECKING:
    from tbc.target import Target


@dataclass(frozen=True)
class DotShape:
    """What the choice of a dot's kernels depends on: y[m, n] = x[m, k] · w[n, k].

    Attributes:
        weights: "trit", "sign", "i8" or "i4".
        activations: "i8", "u8" or "f32".
        least: the smallest m; 1 where it is 0.
        most: the largest m that matters.
        n: rows of weights.
        k: weights of a row.
        group: weights of one scale along k, 0 where a row has one scale.
        is_streamed: whether the model's weights come from memory in every call.
    """

    weights: str
    activations: str
    least: int
    most: int
    n: int
    k: int
    group: int
    is_streamed: bool

    @property
    def rows(self) -> Dim:
        """The number of rows, of which only the bounds are known."""
        return Expr.of(Symbol("m", self.least, self.most))


@dataclass(frozen=True)
class Choice:
    """The kernels of a dot, all of one layout.

    Attributes:
        shape: of the dot.
        kernels: their names; from `starts[i]` rows of activations on it is kernels[i + 1].
        starts: ascending.
        microseconds: by kernel and number of rows, the median time of the product: for people.
    """

    shape: DotShape
    kernels: tuple[str, ...]
    starts: tuple[int, ...]
    microseconds: Mapping[str, Mapping[int, float]] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Tuning:
    """What was measured; empty where nothing was."""

    choices: tuple[Choice, ...] = ()

    def find(self, shape: DotShape) -> tuple[tuple[Kernel, ...], tuple[int, ...]] | None:
        """The kernels for a shape and their starts; None of a shape that was not measured."""
        for choice in self.choices:
            if choice.shape == shape:
                return tuple(BY_NAME[name] for name in choice.kernels), choice.starts
        return None

    def check(self, target: Target, file: str = "") -> None:
        """Raise IncompatibleArtifact where a choice is none that the target has."""
        for choice in self.choices:
            if reason := _unfit(choice, target):
                raise IncompatibleArtifact(reason, file=file, hint="tbc compile --tune")


UNTUNED = Tuning()


def _unfit(choice: Choice, target: Target) -> str:
    """Why a target cannot take a choice; "" where it can."""
    shape, names = choice.shape, choice.kernels
    if unknown := [name for name in names if name not in BY_NAME]:
        return f"there is no kernel {unknown[0]}"
    kernels = [BY_NAME[name] for name in names]
    ends = (shape.least, *choice.starts, shape.most + 1)
    if len(ends) != len(kernels) + 1 or list(ends) != sorted({*ends}):
        return f"the kernels {', '.join(names)} do not share {shape.least} to {shape.most} rows"
    for kernel in kernels:
        kind = kernel.layout().dtype.name, kernel.activations.name
        if kernel.layout() != kernels[0].layout() or kind != (shape.weights, shape.activations):
            return f"{kernel.name} is no kernel for this layout and these types"
        if not kernel.fits(target, shape.k, shape.group):
            return f"{target.name} has no {kernel.name} for k = {shape.k}, group {shape.group}"
    return ""


# -- the file -------------------------------------------------------------------------------------


def write_tuning(path: Path, tuning: Tuning, target: Target) -> None:
    """Write it as JSON."""
    text = {
        "tbc": __version__,
        "target": target.name,
        "features": sorted(target.features),
        "dots": [asdict(choice) for choice in tuning.choices],
    }
    path.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")


def tuned(target: Target, path: Path) -> Target:
    """A target with what a file says of its kernels; raises what `read_tuning` does."""
    return replace(target, tuning=read_tuning(path, target))


def read_tuning(path: Path, target: Target) -> Tuning:
    """What `write_tuning` wrote, for use on a target.

    Raises:
        IncompatibleArtifact: the file is no such file, or is for another target: one that lacks a
            kernel of the file, or has one that was not measured.
        OSError: it cannot be read.
    """
    try:
        text = json.loads(path.read_text(encoding="utf-8"))
        tuning = Tuning(tuple(map(_choice, text["dots"])))
        measured, name = frozenset(text["features"]), text["target"]
    except (ValueError, KeyError, TypeError) as error:
        reason = f"this is not what tbc compile --tune writes: {error}"
        raise IncompatibleArtifact(reason, file=str(path)) from None
    tuning.check(target, str(path))
    for kernel in BY_NAME.values():
        if kernel.dot.runs_on(target) and not kernel.requires <= measured:
            reason = f"it was measured for {name}, and {target.name} has {kernel.name} beside those"
            raise IncompatibleArtifact(reason, file=str(path), hint="tbc compile --tune")
    return tuning


def _choice(dot: Mapping[str, Any]) -> Choice:
    """A choice from JSON.

    Raises:
        ValueError, KeyError, TypeError: it is none.
    """
    shape = {entry.name: dot["shape"][entry.name] for entry in fields(DotShape)}
    kinds = {"str": str, "int": int, "bool": bool}
    for entry in fields(DotShape):
        if type(shape[entry.name]) is not kinds[str(entry.type)]:
            raise TypeError(f"{entry.name} is {shape[entry.name]!r}")
    kernels, starts = tuple(dot["kernels"]), tuple(dot["starts"])
    if not all(type(name) is str for name in kernels):
        raise TypeError(f"kernels are {kernels!r}")
    if not all(type(start) is int for start in starts):
        raise TypeError(f"starts are {starts!r}")
    return Choice(DotShape(**shape), kernels, starts)
