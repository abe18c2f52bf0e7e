"""What the command line's options are, and what their values mean."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tbc.errors import TbcError, UsageError

if TYPE_CHECKING:
    from tbc.bench.dots import Product, Sweep
    from tbc.feeds import Array, Declared
    from tbc.frontend import Imported
    from tbc.ir import Graph
    from tbc.runtime import Tensor
    from tbc.target import Target

BLOB = ".tbc"
TUNING = "tuning.json"
"""What --tune writes into the folder of the output."""
LIBRARIES = (".so", ".dylib", ".dll", BLOB)
"""How the names end of files that hold a compiled model."""


class Activations(StrEnum):
    """How float activations meet low-bit weights."""

    float = "float"
    int8 = "int8"


ROUNDED = (
    "float activations of low-bit layers are rounded to 8 bits, as --activations=int8 asks: "
    "results are not quite the model's"
)


class Goal(StrEnum):
    """What code is optimised for."""

    balanced = "balanced"
    speed = "speed"
    size = "size"


class Project(StrEnum):
    """The build system that a project is for."""

    cmake = "cmake"
    arduino = "arduino"
    zephyr = "zephyr"
    web = "web"


Model = Annotated[Path, typer.Argument(help="An ONNX file.", metavar="MODEL.onnx")]
TargetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        help="What to compile for: `tbc targets`; with commas, several. By default native.",
        show_default=False,
    ),
]
Optimize = Annotated[
    Goal, typer.Option(help="On microcontrollers: how much flash weights may take as code.")
]
Rounding = Annotated[
    Activations,
    typer.Option(help="int8 rounds the float activations of low-bit layers: other results."),
]
Mcpu = Annotated[str, typer.Option("--mcpu", help="A CPU in LLVM's words.")]
Mattr = Annotated[str, typer.Option("--mattr", help="Features in LLVM's words: +a,-b.")]
Dims = Annotated[
    list[str] | None,
    typer.Option("--dim", help="A symbolic size: seq=128, or seq=1..512. May be repeated."),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "--inputs",
        help="What inputs hold: x.npy, name=x.npy, name=1,2 or feeds.npz. May be repeated.",
    ),
]
Fixed = Annotated[
    list[str] | None,
    typer.Option("--input", help="Compile in what an input holds: name=1,2 or name=x.npy."),
]
States = Annotated[
    list[str] | None,
    typer.Option(
        "--state",
        help="Keep an output, and let it be an input of the next call: past=present. "
        "May be repeated.",
    ),
]
FastRam = Annotated[str, typer.Option(help="Keep what is used most in so much faster memory: 16K.")]
Name = Annotated[str, typer.Option("--name", help="The name in C; by default the file's.")]
Threads = Annotated[
    int, typer.Option(min=0, help="Threads that share a run; 0: one for every core, if it pays.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the traceback of an error.")]


def sizes_of(texts: list[str] | None) -> dict[str, int | tuple[int, int]]:
    """What `--dim` says, by symbol."""
    dims: dict[str, int | tuple[int, int]] = {}
    for text in texts or ():
        match = re.fullmatch(r"(.+)=(\d+)(?:\.\.(\d+))?", text)
        if match is None:
            raise UsageError(f"--dim {text} is no size", hint="--dim seq=128, or --dim seq=1..512")
        name, low, high = match.groups()
        if name in dims:
            raise UsageError(f"--dim {text}: {name} is given twice", hint="each size once")
        dims[name] = int(low) if high is None else (int(low), int(high))
    return dims


def states_of(texts: list[str] | None) -> dict[str, str]:
    """What `--state` says: by input, the output that it was in the call before."""
    states: dict[str, str] = {}
    for text in texts or ():
        name, _, output = text.partition("=")
        if not name or not output:
            raise UsageError(f"--state {text} is no pair", hint="--state INPUT=OUTPUT")
        if name in states:
            raise UsageError(
                f"--state {name}={output}: that input is {states[name]} already",
                hint="each input once",
            )
        states[name] = output
    return states


def product_of(option: str, text: str, form: str) -> Product | Sweep:
    """The product that `--gemv NxK` or `--gemm MxNxK` names, or the products from M to M."""
    from tbc.bench.dots import Product, Sweep

    number = r"([1-9]\d*)"
    most = "" if form == "NxK" else rf"(?:{number}\.\.)?{number}x"
    match = re.fullmatch(rf"{most}{number}x{number}", text)
    *rows, n, k = (int(part or 0) for part in match.groups()) if match else (1, 0, 0, 0)
    least, m = rows or (0, 1)
    if least > m:
        raise UsageError(f"{option} {text} is no product", hint=f"{option} {form}, in numbers")
    return Sweep(least, m, n, k) if least else Product(m, n, k)


def given_inputs(
    model: Path, texts: list[str] | None, states: Collection[str] = ()
) -> tuple[dict[str, Array], bool]:
    """What `--input` says, by input, and whether that is all inputs but the states."""
    from tbc.feeds import declared, read_feeds
    from tbc.frontend import signature

    if not texts:
        return {}, False
    inputs = declared(signature(model).inputs)
    given = read_feeds(texts, lambda: inputs)
    return given, given.keys() >= inputs.keys() - {*states}


def held(tensors: Iterable[Tensor]) -> Declared:
    """What the inputs of a compiled model hold."""
    return {tensor.name: (tensor.dtype, len(tensor.dims)) for tensor in tensors}


def read_model(
    model: Path, dim: list[str] | None, input: list[str] | None, state: list[str] | None
) -> tuple[Imported, Graph, str]:
    """The model, its graph with all sizes bounded, and the symbol that was set to 1 for that."""
    from tbc.driver import bound_batch
    from tbc.frontend import element_types, load
    from tbc.states import require_not_given, tied

    require_onnx(model)
    kept = states_of(state)
    with usage():
        values, _ = given_inputs(model, input)
        require_not_given(kept, values)
        imported = load(model, dims=sizes_of(dim), input_values=values)
    graph, batch = bound_batch(imported.graph)
    graph = tied(graph, kept, element_types(model))
    return imported, graph, batch.name if batch else ""


def require_place(path: Path | None, is_folder: bool = False) -> None:
    """Raise unless a file, or a folder, can be written there: before work is lost."""
    if path is None:
        return
    if is_folder:
        # mkdir makes what is missing.
        there = next((p for p in (path, *path.parents) if os.path.lexists(p)), Path())
        if not there.is_dir():
            raise TbcError("this is no folder, into which files could go", file=str(there))
    elif path.is_dir():
        raise TbcError("this is a folder", file=str(path), hint="the name of a file in it")
    elif not path.parent.is_dir():
        raise TbcError(f"there is no folder {path.parent}", file=str(path))


def warned(warnings: Sequence[str], activations: str) -> tuple[str, ...]:
    """What is unusual in a model, and what is done to it."""
    asked = () if activations == Activations.float else (ROUNDED,)
    return (*warnings, *asked)


def require_no(option: str, given: object) -> None:
    """Raise UsageError where an option is given that a compiled model leaves nothing to do."""
    if given:
        raise UsageError(f"{option} is for ONNX files; this has been compiled already")


def target_names(given: list[str] | None) -> str:
    """What `--target` says, with commas between several; `--target a --target b` is `a,b`."""
    if given is None:
        return "native"
    return ",".join(name.strip() for text in given for name in text.split(","))


def kinds_asked(given: list[str] | None) -> tuple[str, ...]:
    """What `--emit` says; () if it is not given."""
    kinds = tuple(k.strip() for text in given or () for k in text.split(",") if k.strip())
    if given and not kinds:
        raise UsageError("--emit names nothing", hint="--emit static,header")
    return kinds


def require_onnx(model: Path) -> None:
    """Raise UsageError for a file that tbc has made of a model."""
    if model.suffix in LIBRARIES:
        commands = "tbc run and inspect take" if model.suffix == BLOB else "tbc run takes"
        hint = f"the ONNX file that it was made of; {commands} this one"
        raise UsageError(f"{model} is compiled already", hint=hint)


def targets_of(
    target: str,
    mcpu: str,
    mattr: str,
    optimize: str,
    activations: str,
    kinds: tuple[str, ...] = (),
) -> list[Target]:
    """The target, or those of a library of variants, the most able first."""
    from tbc.codegen.artifacts import target_of
    from tbc.codegen.host import resolve_target
    from tbc.variants import ordered

    names = target.split(",")
    if len(names) == 1:
        return [target_of(kinds, resolve_target(target, mcpu, mattr, optimize, activations))]
    if mcpu or mattr:
        raise UsageError("--mcpu and --mattr are of one target", hint="--target=a+feature,b")
    how = {"optimize": optimize, "activations": activations}
    return list(ordered([resolve_target(name, **how) for name in names]))


def tuned_here(
    graph: Graph, target: Target, folder: Path, show: Callable[[str], None]
) -> tuple[Target, Path]:
    """The target with what was measured for a graph's dots, and the file that holds it."""
    from tbc.bench.tuner import ROUNDS, Tuner
    from tbc.tuning import tuned, write_tuning

    tuning = Tuner(target, ROUNDS, show).tune(graph)
    folder.mkdir(parents=True, exist_ok=True)
    write_tuning(folder / TUNING, tuning, target)
    return tuned(target, folder / TUNING), folder / TUNING


@contextmanager
def usage() -> Iterator[None]:
    """Within it, a ValueError says that the command's arguments do not fit the model."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error
