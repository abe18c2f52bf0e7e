"""The command line: `tbc compile | run | verify | inspect | bench | targets`.

Exit status: 0 fine, 1 an error of the model, the target or a file, or a verification that fails,
2 wrong usage, 3 a bug in tbc. Commands import what they need when they run, so that `--help` is
quick.
"""

from __future__ import annotations

import functools
import io
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from tbc import __version__
from tbc.errors import InternalError, TbcError, Unbounded, Unsupported, UsageError
from tbc.options import (
    BLOB,
    LIBRARIES,
    TUNING,
    Activations,
    Dims,
    FastRam,
    Fixed,
    Goal,
    Inputs,
    Json,
    Mattr,
    Mcpu,
    Model,
    Name,
    Optimize,
    Project,
    Rounding,
    States,
    TargetOption,
    Threads,
    Verbose,
    given_inputs,
    held,
    kinds_asked,
    product_of,
    read_model,
    require_no,
    require_onnx,
    require_place,
    sizes_of,
    states_of,
    target_names,
    targets_of,
    tuned_here,
    usage,
    warned,
)

app = typer.Typer(
    help="Compile neural networks with ternary weights from ONNX to native code.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _status(error: TbcError) -> int:
    """The exit status of an error."""
    if isinstance(error, InternalError):
        return 3
    return 2 if isinstance(error, UsageError | Unbounded) else 1


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
            if isinstance(error, OSError):
                error = TbcError(error.strerror or str(error), file=str(error.filename or ""))
            if not isinstance(error, TbcError):
                hint = "" if arguments["verbose"] else "-v shows where"
                error = InternalError(f"{type(error).__name__}: {error}", hint=hint)
            print_error(error)
            raise typer.Exit(_status(error)) from None

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
    target: TargetOption = None,
    mcpu: Mcpu = "",
    mattr: Mattr = "",
    optimize: Optimize = Goal.balanced,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A folder; by default NAME-TARGET.")
    ] = None,
    emit: Annotated[
        list[str] | None,
        typer.Option(
            help="shared, static, obj, header, asm, llvm, ir, c, project, blob; with commas."
        ),
    ] = None,
    name: Name = "",
    dim: Dims = None,
    input: Fixed = None,
    state: States = None,
    linker: Annotated[str, typer.Option(help="The linker for shared libraries.")] = "",
    activations: Rounding = Activations.float,
    project: Annotated[
        Project, typer.Option(help="The build system of the project that is written.")
    ] = Project.cmake,
    tune: Annotated[
        bool, typer.Option("--tune", help="Measure which kernels are fastest on this machine.")
    ] = False,
    tuning: Annotated[
        Path | None, typer.Option(help="The tuning.json that --tune wrote, to be used again.")
    ] = None,
    self_test: Annotated[
        bool | None,
        typer.Option(help="Put a self-test in; by default in models that are computed quickly."),
    ] = None,
    flash_limit: Annotated[str, typer.Option(help="Fail if the model takes more flash: 64K.")] = "",
    ram_limit: Annotated[
        str,
        typer.Option(
            help="Fail if scratch memory, state and stack take more RAM: 16K. Of portable C the "
            "stack is not known, and not counted."
        ),
    ] = "",
    fast_ram: FastRam = "",
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
    from tbc.budget import Budget, parse_size
    from tbc.codegen.artifacts import Written
    from tbc.codegen.machine import Workers
    from tbc.console import print_compile, print_library, progress
    from tbc.driver import identifier, write
    from tbc.dump import STAGES, Dump
    from tbc.inspection import Stages
    from tbc.report import compile_report, library_report, provenance_of
    from tbc.tuning import tuned
    from tbc.variants import write_variants

    if unknown := sorted({*(print_ir_after or ())} - {*STAGES}):
        raise UsageError(f"there is no pass {unknown[0]}", hint=f"one of {', '.join(STAGES)}")
    require_place(dump_dir, is_folder=True)
    budget = Budget(parse_size("--flash-limit", flash_limit), parse_size("--ram-limit", ram_limit))
    kinds, names = kinds_asked(emit), target_names(target)
    fast = parse_size("--fast-ram", fast_ram) or 0
    targets = targets_of(names, mcpu, mattr, optimize, activations, kinds)
    chosen, *others = (replace(each, fast_ram=fast) for each in targets)
    if project is not Project.cmake:
        kinds = (*kinds, "project")
    options = {"target": [names], "mcpu": [mcpu], "mattr": [mattr], "emit": kinds, "name": [name]}
    if optimize is not Goal.balanced:
        options["optimize"] = [optimize]
    if activations is not Activations.float:
        options["activations"] = [activations]
    if fast:
        options["fast-ram"] = [str(fast)]
    if self_test is not None:
        options["self-test"] = [str(self_test)]
    options |= {"dim": dim or (), "input": input or (), "linker": [linker], "project": [project]}
    if state:
        options["state"] = state
    if tuning is not None:
        if tune:
            raise UsageError("--tune measures what --tuning gives", hint="one of them")
        if others:
            raise UsageError("--tuning is for one target, and there are several")
        chosen = tuned(chosen, tuning)
    with progress(json) as show, Workers(1) as workers:
        show("importing")
        imported, graph, batch = read_model(model, dim, input, state)
        symbol = identifier(name or model.stem)
        machine = chosen.name if chosen.arch == "c" else names
        folder = output or Path(f"{symbol}-{machine}")
        require_place(folder, is_folder=True)
        require_place(folder / "report.json" if folder.is_dir() else None)
        if tune:
            if others:
                raise UsageError("--tune is for one target, and there are several")
            chosen, tuning = tuned_here(graph, chosen, folder, show)
        provenance = provenance_of(model, options, tuning)
        dump = Dump(show, print_ir_after or [], dump_dir)
        stages = Stages(dump)
        if others:
            several = [stages, *(Stages() for _ in others)]
            made, written = write_variants(
                graph,
                (chosen, *others),
                symbol,
                folder,
                kinds,
                workers,
                several,
                linker,
                dump.kinds,
                budget.check,
                project,
                self_test,
            )
            compiled = made.whole
        else:
            compiled, written = write(
                graph,
                chosen,
                symbol,
                folder,
                kinds,
                workers,
                stages,
                linker,
                dump.kinds,
                budget.check,
                project,
                self_test,
            )
        dump.code(compiled.files)
        if tune:
            written = (*written, Written(folder / TUNING, "tuning"))
    about = written, batch, warned(imported.warnings, activations), provenance
    path = folder / "report.json"
    if others:
        library = library_report(made, several, *about)
        _report(library, path, json, lambda: print_library(library, path))
    else:
        report = compile_report(compiled, stages, *about)
        _report(report, path, json, lambda: print_compile(report, path))


def _report(report: object, path: Path, json: bool, show: Callable[[], None]) -> None:
    """Write a report to its file, and print it."""
    from tbc.report import to_json

    path.write_text(to_json(report) + "\n", encoding="utf-8")
    if json:
        typer.echo(to_json(report))
    else:
        show()


@_command
def run(
    model: Annotated[
        Path,
        typer.Argument(help="An ONNX file, or a library or blob that tbc made.", metavar="MODEL"),
    ],
    input: Inputs = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="An .npz file for the outputs.")
    ] = None,
    dim: Dims = None,
    state: States = None,
    calls: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Calls in turn, each on the state that the last one left. Arrays with one axis "
            "more than their input have a row for each call, and so have the outputs.",
        ),
    ] = None,
    threads: Threads = 0,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Run a model on this machine: once, or --calls times, from a state of zeros if it has one."""
    from tbc import api, runtime
    from tbc.console import print_arrays, progress
    from tbc.feeds import in_turn, read_feeds, require_no_rows, stacked, write_arrays
    from tbc.report import to_json

    require_place(output)
    shared = runtime.Pool(threads, 0) if threads > 1 else threads
    with progress(json) as show, usage():
        show("compiling")
        if model.suffix in LIBRARIES:
            for option, given in (("--state", state), ("--dim", dim)):
                require_no(option, given)
            ready: api.Model | runtime.Model = api.load(model, threads=shared)
        else:
            kept = states_of(state)
            ready = api.compile(model, dims=sizes_of(dim), state=kept, threads=shared)
        inputs, memory = held(ready.inputs), ready.new_state()
        feeds = read_feeds(input or (), lambda: inputs)
        if calls is None:
            require_no_rows(feeds, inputs)
            outputs = ready.run(feeds, memory)
        else:
            each = in_turn(feeds, inputs, calls)
            outputs = stacked(ready.run(fed, memory) for fed in each)
    if output is not None:
        write_arrays(output, outputs)
    if json:
        arrays = {n: {"type": f"{a.dtype}", "values": a.tolist()} for n, a in outputs.items()}
        typer.echo(to_json(arrays))
    else:
        print_arrays(outputs, output)


@_command
def verify(
    model: Model,
    target: TargetOption = None,
    mcpu: Mcpu = "",
    mattr: Mattr = "",
    optimize: Optimize = Goal.balanced,
    activations: Rounding = Activations.float,
    dim: Dims = None,
    input: Inputs = None,
    state: States = None,
    samples: Annotated[
        int, typer.Option(min=1, help="Sets of random inputs; with --state, calls in turn.")
    ] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Of the random inputs.")] = 0,
    rtol: Annotated[float, typer.Option(help="The relative tolerance.")] = 1e-4,
    layers: Annotated[bool, typer.Option("--layers", help="Compare every node's result.")] = False,
    threads: Annotated[
        int, typer.Option(min=1, help="Threads that share each run on this machine.")
    ] = 1,
    fast_ram: FastRam = "",
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Compare a model's code with onnxruntime and with the exact reference.

    Code for another machine runs in an emulator. What --input gives is compiled in, as by `tbc
    compile`, and the other inputs are random; if it gives all inputs, they are what the code runs
    on. Several targets, with commas between them, are each compared. With --activations=int8 the
    code must be exact; how far it is from onnxruntime is shown, and is no failure.
    """
    from tbc.budget import parse_size
    from tbc.codegen.host import resolve_target
    from tbc.console import print_verify, progress
    from tbc.report import to_json
    from tbc.verification import verify as check

    fast = parse_size("--fast-ram", fast_ram) or 0

    require_onnx(model)
    names = list(dict.fromkeys(target_names(target).split(",")))
    for name in names:  # before the first of them has run for long
        resolve_target(name, mcpu, mattr, optimize)
    with progress(json) as show, usage():
        kept = states_of(state)
        given, is_all = given_inputs(model, input, kept)
        reports = [
            check(
                model,
                name,
                mcpu=mcpu,
                mattr=mattr,
                optimize=optimize,
                activations=activations,
                dims=sizes_of(dim),
                state=kept,
                inputs=None if is_all else given,
                feeds=given if is_all else None,
                samples=samples,
                seed=seed,
                layers=layers,
                rtol=rtol,
                threads=threads,
                fast_ram=fast,
                progress=show,
            )
            for name in names
        ]
    if json:
        typer.echo(to_json(reports if len(reports) > 1 else reports[0]))
    for report in () if json else reports:
        print_verify(report)
    if not all(report.ok for report in reports):
        raise typer.Exit(1)


@_command
def inspect(
    model: Annotated[
        Path, typer.Argument(help="An ONNX file, or a blob that tbc made.", metavar="MODEL")
    ],
    target: TargetOption = None,
    mcpu: Mcpu = "",
    mattr: Mattr = "",
    optimize: Optimize = Goal.balanced,
    activations: Rounding = Activations.float,
    dim: Dims = None,
    input: Fixed = None,
    state: States = None,
    why: Annotated[bool, typer.Option("--why", help="Say why layers are not low-bit.")] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show what becomes of each matrix product and convolution, and what the model needs."""
    from tbc.console import print_blob, print_inspect, print_inspect_variants, progress
    from tbc.inspection import inspect as examine
    from tbc.inspection import inspect_variants
    from tbc.report import to_json
    from tbc.runtime.blob import read_blob

    if model.suffix == BLOB:
        for option, given in (("--dim", dim), ("--input", input), ("--state", state)):
            require_no(option, given)
        blob = read_blob(model)
        if json:
            typer.echo(to_json(blob))
        else:
            print_blob(blob)
        return
    chosen, *others = targets_of(target_names(target), mcpu, mattr, optimize, activations)
    with progress(json) as show:
        show("importing")
        imported, graph, batch = read_model(model, dim, input, state)
        show("lowering")
        about = batch, warned(imported.warnings, activations)
        one = None if others else examine(graph, chosen, *about)
        several = inspect_variants(graph, (chosen, *others), *about) if others else None
    if json:
        typer.echo(to_json(one or several))
    elif one:
        print_inspect(one, why)
    elif several:
        print_inspect_variants(several, why)


@_command
def bench(
    gemv: Annotated[
        list[str] | None, typer.Option(help="A product of one row: NxK. May be repeated.")
    ] = None,
    gemm: Annotated[
        list[str] | None,
        typer.Option(help="A product of M rows: MxNxK, or 1..16xNxK. May be repeated."),
    ] = None,
    model: Annotated[list[Path] | None, typer.Option(help="An ONNX file. May be repeated.")] = None,
    target: TargetOption = None,
    mcpu: Mcpu = "",
    mattr: Mattr = "",
    dim: Dims = None,
    state: States = None,
    cold_mib: Annotated[
        int, typer.Option(min=0, help="MiB of weights read in turn; 0 for hot weights only.")
    ] = 512,
    rounds: Annotated[int, typer.Option(min=1, help="Samples of each contestant.")] = 100,
    all_kernels: Annotated[
        bool, typer.Option("--all-kernels", help="Not only the kernels that are chosen.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="All kernels, beside what the cost model predicts.")
    ] = False,
    steps: Annotated[
        bool, typer.Option("--steps", help="The time of each step of the models too.")
    ] = False,
    threads: Annotated[
        int, typer.Option(min=1, help="Run layers and models on so many threads too.")
    ] = 1,
    plot: Annotated[
        Path | None, typer.Option(help="An .svg file for the rooflines of the products.")
    ] = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Time kernels and layers beside what this machine can do, and beside onnxruntime.

    By default --gemv 2560x2560 and --gemm 128x2560x2560. See docs/benchmarks.md.
    """
    from tbc.api import is_native
    from tbc.bench.plot import roofline
    from tbc.bench.run import Bench
    from tbc.codegen.host import resolve_target
    from tbc.console import print_bench, progress
    from tbc.report import to_json

    products = [product_of("--gemv", text, "NxK") for text in gemv or ()]
    products += [product_of("--gemm", text, "MxNxK") for text in gemm or ()]
    if not products and not model:
        products = [product_of("--gemv", "2560x2560", "NxK")]
        products += [product_of("--gemm", "128x2560x2560", "MxNxK")]
    if steps and not model:
        raise UsageError("--steps shows models, and there are none", hint="--model net.onnx")
    for option, texts in (("--dim", dim), ("--state", state)):
        if texts and not model:
            raise UsageError(f"{option} is for models, and there are none", hint="--model net.onnx")
    if plot and not products:
        raise UsageError("--plot shows products, and there are none", hint="--gemv or --gemm")
    require_place(plot)
    chosen = resolve_target(target_names(target), mcpu, mattr)
    if not is_native(chosen):
        reason = f"this machine cannot run code for {chosen.name}"
        raise Unsupported(reason, hint="a target that it has the features of")
    with progress(json) as show:
        is_all = all_kernels or explain
        with usage():
            every = Bench(chosen, rounds, cold_mib << 20, is_all, steps, show, threads)
        graphs = {path: read_model(path, dim, None, state)[1] for path in model or ()}
        report = every.report(products, graphs)
    if plot:
        plot.write_text(roofline(report), encoding="utf-8")
    if json:
        typer.echo(to_json(report))
    else:
        print_bench(report, explain)


@_command
def targets(json: Json = False, verbose: Verbose = False) -> None:
    """List the targets that have names; CPUs and LLVM triples are targets too."""
    from tbc.console import print_targets
    from tbc.report import to_json
    from tbc.target_list import target_rows

    rows = target_rows()
    if json:
        typer.echo(to_json(rows))
    else:
        print_targets(rows)


def main() -> None:
    """Run the command line of this process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not every one knows all characters of names
            stream.reconfigure(errors="backslashreplace")
    app()
