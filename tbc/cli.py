"""The command line: `tbc compile | run | verify | inspect | targets`.

Exit status: 0 fine, 1 an error of the model, the target or a file, or a verification that fails,
2 wrong usage, 3 a bug in tbc. Commands import what they need when they run, so that `--help` is
quick.
"""

from __future__ import annotations

import functools
import re
import sys
import traceback
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tbc import __version__
from tbc.errors import InternalError, InvalidModel, TbcError, Unsupported

if TYPE_CHECKING:
    import numpy as np

    from tbc.frontend import Imported
    from tbc.ir import Graph
    from tbc.program import Program

app = typer.Typer(
    help="Compile neural networks with ternary weights from ONNX to native code.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Activations(str, Enum):
    """How float activations meet low-bit weights."""

    float = "float"
    int8 = "int8"


class UsageError(TbcError):
    """The command line asks for what cannot be."""


Model = Annotated[Path, typer.Argument(help="An ONNX file.", metavar="MODEL.onnx")]
TargetOption = Annotated[str, typer.Option("--target", help="What to compile for: `tbc targets`.")]
Mcpu = Annotated[str, typer.Option("--mcpu", help="A CPU in LLVM's words.")]
Mattr = Annotated[str, typer.Option("--mattr", help="Features in LLVM's words: +a,-b.")]
Dims = Annotated[
    list[str] | None,
    typer.Option("--dim", help="A symbolic size: seq=128, or seq=1..512. May be repeated."),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option("--input", "--inputs", help="x.npy, name=x.npy or feeds.npz. May be repeated."),
]
Name = Annotated[str, typer.Option("--name", help="The name in C; by default the file's.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the traceback of an error.")]


def _command(body: Callable[..., None]) -> Callable[..., None]:
    """A command of the app whose errors are printed, with the exit status that they have."""

    @functools.wraps(body)
    def run(**arguments: Any) -> None:
        try:
            body(**arguments)
        except typer.Exit:
            raise
        except Exception as error:
            from tbc.console import print_error

            if arguments["verbose"]:
                traceback.print_exc()
            if not isinstance(error, TbcError):
                hint = "" if arguments["verbose"] else "-v shows where"
                error = InternalError(f"{type(error).__name__}: {error}", hint=hint)
            print_error(error)
            status = {InternalError: 3, UsageError: 2}.get(type(error), 1)
            raise typer.Exit(status) from None

    app.command()(run)
    return run


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print tbc's version.")] = False,
) -> None:
    if version:
        typer.echo(f"tbc {__version__}")
        raise typer.Exit


@_command
def compile(
    model: Model,
    target: TargetOption = "native",
    mcpu: Mcpu = "",
    mattr: Mattr = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A folder; by default NAME-TARGET.")
    ] = None,
    emit: Annotated[
        list[str] | None,
        typer.Option(help="shared, static, obj, header, asm, llvm, ir, project; with commas."),
    ] = None,
    name: Name = "",
    dim: Dims = None,
    linker: Annotated[str, typer.Option(help="The linker for shared libraries.")] = "",
    activations: Annotated[
        Activations, typer.Option(help="Whether float activations are quantised.")
    ] = Activations.float,
    print_ir_after: Annotated[
        list[str] | None, typer.Option(help="Print the graph after a pass. May be repeated.")
    ] = None,
    dump_dir: Annotated[
        Path | None, typer.Option(help="A folder for the graph after each pass, and the code.")
    ] = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Compile a model to a library, an object, a header and a C project."""
    from tbc.codegen.host import resolve_target
    from tbc.codegen.machine import Workers
    from tbc.console import print_compile, progress
    from tbc.driver import identifier, write
    from tbc.dump import STAGES, Dump
    from tbc.report import compile_report, to_json

    if activations is not Activations.float:
        raise Unsupported("--activations=int8 is not supported yet", hint="--activations=float")
    if "," in target:
        raise Unsupported("a library for several targets is not supported yet", hint="one target")
    if unknown := sorted({*(print_ir_after or ())} - {*STAGES}):
        raise UsageError(f"there is no pass {unknown[0]}", hint=f"one of {', '.join(STAGES)}")
    chosen = resolve_target(target, mcpu, mattr)
    kinds = tuple(k for text in emit or () for k in text.split(",") if k)
    with progress(json) as show, Workers(1) as workers:
        show("importing")
        imported, graph, batch = _import(model, dim)
        symbol = identifier(name or model.stem)
        dump = Dump(show, print_ir_after or [], dump_dir)
        compiled, written = write(
            graph,
            chosen,
            symbol,
            output or Path(f"{symbol}-{target}"),
            kinds,
            workers,
            dump,
            linker,
            dump.kinds,
        )
        dump.code(compiled.files)
    report = compile_report(compiled, written, batch, imported.warnings)
    folder = written[0].path.parent
    (folder / "report.json").write_text(to_json(report) + "\n", encoding="utf-8")
    if json:
        typer.echo(to_json(report))
    else:
        print_compile(report)


@_command
def run(
    model: Annotated[Path, typer.Argument(help="An ONNX file, or a library that tbc made.")],
    input: Inputs = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="An .npz file for the outputs.")
    ] = None,
    dim: Dims = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Run a model on this machine."""
    import tbc
    from tbc.console import print_arrays, progress
    from tbc.feeds import read_feeds
    from tbc.report import arrays_to_json

    with progress(json) as show:
        show("compiling")
        if model.suffix == ".onnx":
            dims = _dims(dim)
            loaded = _used(lambda: tbc.compile(model, dims=dims))
            names = tuple(str(v.op.name) for v in loaded.graph.inputs)
        else:
            loaded = tbc.load(model)
            names = tuple(tensor.name for tensor in loaded.inputs)
        feeds = read_feeds(input or (), names)
        outputs = _used(lambda: loaded.run(feeds))
    if output is not None:
        np.savez(output, **outputs)
