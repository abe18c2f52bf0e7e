"""What the command line prints: tables for people, errors with what to try."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import markup
from rich.console import Console
from rich.table import Table

from tbc.errors import InternalError, TbcError, TooLarge
from tbc.runtime.structs import DTYPES
from tbc.target import ACTIVATIONS

if TYPE_CHECKING:
    import numpy.typing as npt

    from tbc.bench.report import BenchReport, Case
    from tbc.differences import Difference
    from tbc.inspection import InspectReport, VariantsReport
    from tbc.report import CompileReport, LibraryReport
    from tbc.runtime.blob import Blob
    from tbc.target_list import TargetRow
    from tbc.verification import VerifyReport

_WIDE = 200
"""Columns of what is not a terminal, so that nothing is cut."""


def escape(text: str) -> str:
    """Text of others as text: neither markup nor what steers a terminal."""
    plain = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda m: f"\\x{ord(m[0]):02x}", text)
    return markup.escape(plain)


def console(stderr: bool = False) -> Console:
    """Where to print: colours and the terminal's width only on a terminal."""
    found = Console(stderr=stderr, highlight=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=_WIDE)


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[str], None]]:
    """Shows what is being done, if there is a terminal to show it on."""
    screen = console(stderr=True)
    if quiet or not screen.is_terminal:
        yield lambda _: None
        return
    with screen.status("") as status:
        yield lambda text: status.update(escape(text))


def print_error(error: TbcError) -> None:
    """File, node, operator, reason and hint, on stderr."""
    screen = console(stderr=True)
    kind = "bug in tbc" if isinstance(error, InternalError) else "error"
    node = f"node '{error.node}'" if error.node else ""
    where = ": ".join(part for part in (error.file, node, error.op) if part)
    text = f"{where}: {error.reason}" if where else error.reason
    screen.print(f"[bold red]{kind}[/]: {escape(text)}", soft_wrap=True)
    if isinstance(error, TooLarge):
        table = _table("what", "size", right=("size",))
        for what, size in error.parts.items():
            table.add_row(escape(what), _bytes(size))
        screen.print(table)
    if error.hint:
        screen.print(f"[bold]try[/]: {escape(error.hint)}", soft_wrap=True)


def _table(*columns: str, right: Sequence[str] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def _bytes(size: int) -> str:
    if size < 10_000:
        return f"{size} B"
    return f"{size / 1024:.1f} KiB" if size < 10 << 20 else f"{size / (1 << 20):.1f} MiB"


def _state(size: int) -> str:
    """What a list of sizes says of a state; nothing where there is none."""
    return f"state {_bytes(size)}, " if size else ""


def _batch(screen: Console, batch: str) -> None:
    if batch:
        screen.print(f"{escape(batch)} set to 1 (--dim {escape(batch)}=1..64 makes it variable)")


def _warnings(screen: Console, warnings: Sequence[str]) -> None:
    for warning in warnings:
        screen.print(f"[yellow]warning[/]: {escape(warning)}")


def print_compile(report: CompileReport, path: Path) -> None:
    """The files written, `path` for the report among them, and what the model needs."""
    screen = console()
    _warnings(screen, report.warnings)
    _batch(screen, report.batch)
    table = _table("file", "size", "made with", right=("size",))
    for file in report.files:
        table.add_row(escape(file.path), _bytes(file.bytes), escape(file.tool))
    table.add_row(escape(str(path)), _bytes(path.stat().st_size))
    screen.print(table)
    screen.print()
    table = _table(escape(report.model), f"for {report.target}", right=(f"for {report.target}",))
    for name, text in _needs(report):
        table.add_row(name, text)
    screen.print(table)


def print_library(report: LibraryReport, path: Path) -> None:
    """The library's files and sizes, and what its variants differ in."""
    print_compile(report.whole, path)
    screen = console()
    screen.print()
    right = ("arena", "weights read")
    table = _table("variant", "arena", "weights read", "kernels", right=right)
    for each in report.variants:
        sizes = _bytes(each.arena), _bytes(each.weights_read)
        table.add_row(escape(each.target), *sizes, escape(" ".join(each.kernels)))
    screen.print(table)
    screen.print(f"{_bytes(report.shared)} of the weights are of more than one variant")


def _needs(report: CompileReport) -> Iterator[tuple[str, str]]:
    """What a compiled model takes, name by name."""
    if report.flash is not None:
        parts = ", ".join(f"{name} {_bytes(size)}" for name, size in report.sections.items())
        yield "flash", f"{_bytes(report.flash)}: {parts}"
    else:
        yield "weights", _bytes(report.weights)
    yield "arena", f"{_bytes(report.arena)}, at least {_bytes(report.arena_bound)}"
    if report.fast:
        yield "fast RAM", _bytes(report.fast)
    if report.state:
        yield "state", _bytes(report.state)
    unknown = "not known: it is the C compiler's"
    yield "stack", unknown if report.stack is None else _bytes(report.stack)
    yield "layers", f"{report.additions:,} additions, {report.multiplications:,} multiplications"
    yield "weights read", _bytes(report.weights_read)
    if not report.self_test:
        yield "self-test", "none"
    if report.provenance.tuning_sha256:
        shapes = report.tuned + report.untuned
        yield "tuning", f"of {report.tuned} of the {shapes} shapes of low-bit dots"
    for each in report.energy:
        used, other = each.picojoules / 1e6, each.f16_picojoules / 1e6
        name = f"energy at {each.process_nm} nm"
        yield name, f"{used:.3g} µJ of arithmetic, {other:.3g} µJ in f16"


def print_inspect(report: InspectReport, why: bool) -> None:
    """The layers; with `why`, also why weights were not lifted or activations stayed floats."""
    screen = console()
    _warnings(screen, report.warnings)
    _batch(screen, report.batch)
    sizes = ("m", "n", "k", "bits", "zeros")
    columns = ("node", *sizes[:3], "weights", *sizes[3:], "activations", "packing", "kernel")
    table = _table(*columns, right=sizes)
    for layer in report.layers:
        zeros = "" if layer.zeros is None else f"{layer.zeros:.0%}"
        row = [layer.node, str(layer.m), str(layer.n), str(layer.k), layer.weights]
        row += [f"{layer.bits:.2f}", zeros, layer.activations, layer.layout, layer.kernel]
        table.add_row(*map(escape, row))
    screen.print(table)
    if why:
        _reasons(screen, report)
    screen.print(
        f"[bold]{escape(report.model)}[/] for {escape(report.target)}: "
        f"{report.parameters:,} parameters, weights {_bytes(report.weights)}, "
        f"arena {_bytes(report.arena)}, {_state(report.state)}"
        f"{report.steps} steps in {report.phases} phases"
    )
    screen.print(
        f"in these layers {report.multiplications:,} multiplications "
        f"and {report.additions:,} additions"
    )
    dense = sum(1 for layer in report.layers if layer.reason)
    if dense and not why:
        screen.print(f"{dense} of {len(report.layers)} are not low-bit: --why says why")


def print_inspect_variants(report: VariantsReport, why: bool) -> None:
    """The layers of each variant, and what is of all of them."""
    for variant in report.variants:
        print_inspect(variant, why)
        console().print()
    names = ", ".join(variant.target for variant in report.variants)
    console().print(
        f"one library: weights {_bytes(report.weights)}, of which {_bytes(report.shared)} are of "
        f"more than one variant; a CPU takes the first that it can run of {escape(names)}"
    )


def print_blob(blob: Blob) -> None:
    """What a blob says of itself: its tensors, and what lies where."""
    screen = console()
    table = _table("tensor", "", "type", "shape", "size", right=("size",))
    for kind, tensors in (("input", blob.inputs), ("output", blob.outputs)):
        for tensor in tensors:
            row = (tensor.name, kind, str(DTYPES[tensor.dtype]), f"[{tensor.dims}]")
            table.add_row(*map(escape, row), _bytes(tensor.bytes))
    screen.print(table)
    for name, low, high in blob.symbols:
        screen.print(f"{escape(name)} from {low} to {high}")
    order = "little" if blob.little_endian else "big"
    thumb = ", Thumb only" if blob.thumb else ""
    screen.print(
        f"[bold]{escape(blob.name)}[/] for {escape(blob.target)}: {blob.machine}, {blob.bits} "
        f"bits, {order}-endian{thumb}, CPU bits {blob.cpu_bits:#x}; by tbc {escape(blob.version)}, "
        f"ABI {blob.abi}"
    )
    screen.print(
        f"code {_bytes(blob.code_size)} at {blob.code:#x}, weights {_bytes(blob.weights_size)} "
        f"at {blob.weights:#x}, arena {_bytes(blob.arena_size)}, {_state(blob.state_size)}"
        f"file {_bytes(blob.length)}"
    )


def _reasons(screen: Console, report: InspectReport) -> None:
    """A line for every layer that is not low-bit, or not integer, and one with what to do."""
    for title, reasons in (
        ("why not low-bit", [(x.node, x.reason, x.remedy) for x in report.layers if x.reason]),
        (
            "why low-bit weights meet float activations",
            [(x.node, x.float_reason, x.remedy) for x in report.layers if x.float_reason],
        ),
    ):
        screen.print(f"[bold]{title}[/]" + ("" if reasons else ": nothing to say"))
        for node, reason, remedy in reasons:
            screen.print(f"  {escape(node)}: {escape(reason)}", soft_wrap=True)
            if remedy:
                screen.print(f"    [bold]try[/]: {escape(remedy)}", soft_wrap=True)


def print_verify(report: VerifyReport) -> None:
    """The outputs' differences, the flips and the layers."""
    screen = console()
    _batch(screen, report.batch)
    if report.note:
        screen.print(f"[yellow]{escape(report.note)}[/]")
    if report.activations != ACTIVATIONS[0]:
        text = f"activations are rounded to {report.activations}: what that costs is no failure"
        screen.print(f"[yellow]{text}[/]")
    columns = ("output", "type", "code", "max abs", "max rel", "max ulp", "beyond", "flips")
    table = _table(*columns, "", right=columns[3:])
    for output in report.outputs:
        table.add_row(
            escape(output.name),
            escape(output.type),
            _exactness(output.code),
            *_numbers(output.model),
            str(output.flips),
            "[green]ok[/]" if output.ok else "[bold red]FAILED[/]",
        )
    screen.print(table)
    for flip in report.flips:
        text = f"{flip.count} of {flip.elements} codes of {flip.node} ({flip.op}) are a step off"
        screen.print(escape(f"flips: {text}"))
    if report.layers:
        table = _table("node", "operator", "type", *columns[2:7], right=columns[3:])
        for layer in report.layers:
            names = (layer.node, layer.op, layer.type)
            numbers = _numbers(layer.model)
            table.add_row(*map(escape, names), _exactness(layer.code), *numbers)
        screen.print(table)
    tested = {True: "passed", False: "[bold red]FAILED[/]", None: "none"}
    screen.print(f"self-test: {tested[report.self_test]}")
    verdict = "[green]ok[/]" if report.ok else "[bold red]FAILED[/]"
    samples = f"{len(report.samples)} set{'s' * (len(report.samples) != 1)} of inputs"
    screen.print(
        f"[bold]{escape(report.model)}[/] for {escape(report.target)}: {verdict} "
        f"({samples}, run by {escape(report.runner)}, against {escape(report.oracle)})"
    )


def _exactness(code: Difference) -> str:
    return "bit-exact" if code.is_exact else f"[red]{code.max_ulp} ulp[/]"


def _numbers(model: Difference) -> tuple[str, str, str, str]:
    return f"{model.max_abs:.2g}", f"{model.max_rel:.2g}", str(model.max_ulp), str(model.beyond)


def print_targets(rows: Sequence[TargetRow]) -> None:
    """The targets that have names."""
    table = _table("target", "triple", "description", "kernels", "tested")
    for row in rows:
        table.add_row(row.name, row.triple, row.description, " ".join(row.kernels), row.tested)
    console().print(table)


def print_arrays(arrays: Mapping[str, npt.NDArray[Any]], path: Path | None) -> None:
    """The outputs' types and first elements, or where they were written."""
    screen = console()
    table = _table("output", "type", "elements" if path is None else "file")
    for name, array in arrays.items():
        first = array.reshape(-1)[:8].tolist()
        few = " ".join(f"{x:d}" if isinstance(x, int) else f"{x:.6g}" for x in first)
        text = few + (" …" if array.size > 8 else "") if path is None else str(path)
        table.add_row(escape(name), escape(f"{array.dtype}{list(array.shape)}"), escape(text))
    screen.print(table)


def print_bench(report: BenchReport, explain: bool) -> None:
    """A table for each case, and what was left out; with `explain`, what the cost model said."""
    screen = console()
    load = "" if report.load is None else f", load {report.load:.1f}"
    threads = "one thread" + (f" and {report.threads}" if report.threads > 1 else "")
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    screen.print(
        f"[bold]{escape(report.target)}[/]: {escape(report.system)}{load}; {escape(versions)}; "
        f"{threads}, {report.rounds} samples of each, {report.clock} time"
    )
    for case in report.cases:
        weights = case.weights
        if weights == "cold":
            weights = f"cold, {_bytes(report.cold_bytes)}"
        screen.print(f"\n[bold]{escape(case.name)}[/], weights {weights}")
        screen.print(_case_table(case, explain))
        for verdict in case.verdicts if explain else ():
            screen.print(escape(verdict))
    for note in report.notes:
        screen.print(f"left out: {escape(note)}")


def _case_table(case: Case, explain: bool) -> Table:
    if any(row.share is not None for row in case.rows):
        return _step_table(case)
    extra = ["growth"] if any(row.growth is not None for row in case.rows) else []
    extra += ["predicted µs", "of predicted"] if explain else []
    right = (*extra, "median µs", "quartiles µs", "GB/s", "GMAC/s", "of limit")
    table = _table("", "name", *right, "limit", right=right)
    for row in case.rows:
        expected = row.predicted_us
        texts = {
            "growth": "" if row.growth is None else f"{row.growth:.2f}",
            "predicted µs": "" if expected is None else f"{expected:.1f}",
            "of predicted": "" if expected is None else f"{row.median_us / expected:.2f}",
            "median µs": f"{row.median_us:.1f}",
            "quartiles µs": f"{row.lower_us:.1f} .. {row.upper_us:.1f}",
            "GB/s": "" if row.gb_per_s is None else f"{row.gb_per_s:.2f}",
            "GMAC/s": "" if row.gmac_per_s is None else f"{row.gmac_per_s:.1f}",
            "of limit": "" if row.of_limit is None else f"{row.of_limit:.0%}",
        }
        table.add_row(row.kind, escape(row.name), *(texts[name] for name in right), row.limit)
    return table


def _step_table(case: Case) -> Table:
    right = ("median µs", "quartiles µs", "share")
    table = _table(*right, "step", right=right)
    for row in case.rows:
        quartiles = f"{row.lower_us:.1f} .. {row.upper_us:.1f}"
        table.add_row(f"{row.median_us:.1f}", quartiles, f"{row.share:.1%}", escape(row.name))
    return table
