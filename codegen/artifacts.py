"""A compiled model as files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tbc.codegen.archive import Member, symbol_name, write_archive
from tbc.codegen.link import can_link, link_shared, suffix
from tbc.codegen.modelinfo import ModelInfo, exported
from tbc.codegen.project import header, project_files, runtime_file
from tbc.errors import Unsupported
from tbc.target import Target

KINDS = ("shared", "static", "obj", "header", "asm", "llvm", "ir", "project", "blob")


@dataclass(frozen=True)
class Written:
    """A file that was written, and with which tool if that was not tbc itself."""

    path: Path
    kind: str
    tool: str = ""


def default_kinds(target: Target) -> tuple[str, ...]:
    """What is written where nothing is asked for: a project, with a shared library if possible."""
    return ("static", "header", *(("shared",) if can_link(target) else ()), "project")


def static_name(name: str, target: Target) -> str:
    """The file name of a model's static library."""
    return f"{name}.lib" if target.object_format == "coff" else f"lib{name}.a"


def needed(kinds: Iterable[str]) -> frozenset[str]:
    """What LLVM must make for the kinds of artifacts.

    Raises:
        Unsupported: a kind is not known, or not there yet.
    """
    for kind in kinds:
        if kind not in KINDS:
            known = f"one of {', '.join(KINDS)}"
            raise Unsupported(f"--emit={kind} is not supported", hint=known)
    return frozenset({"obj", *(k for k in kinds if k in ("asm", "llvm"))})


def write_artifacts(
    folder: Path,
    info: ModelInfo,
    target: Target,
    made: Mapping[str, bytes],
    kinds: Iterable[str],
    weights: Iterator[npt.NDArray[np.uint8]] | None,
    linker: str = "",
) -> Iterator[Written]:
    """Write a model's artifacts into a folder, which is made if it is not there.

    Args:
        folder: where to.
        info: what the model says of itself.
        target: what it is compiled for.
        made: by kind, what LLVM made of it.
        kinds: which of `KINDS` to write; "ir" and "blob" are the caller's.
        weights: the constants, if they are a file of their own.
        linker: see `link_shared`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name, obj = info.name, made["obj"]
    kinds = set(kinds)
    if "project" in kinds:
        kinds |= {"header", "static"}
    if "obj" in kinds:
        yield _write(folder / f"{name}.o", obj, "obj")
    if "static" in kinds:
        symbols = tuple(
            symbol_name(s, target.object_format, target.arch, target.index_bits)
            for s in exported(info)
        )
        archive = write_archive([Member(f"{name}.o", obj, symbols)], target.object_format)
        yield _write(folder / static_name(name, target), archive, "static")
    shared = ""
    if "shared" in kinds:
        prefix = "" if target.object_format == "coff" else "lib"
        shared = f"{prefix}{name}{suffix(target)}"
        linked = link_shared(obj, target, folder / shared, exported(info), linker)
        yield Written(linked.path, "shared", linked.linker)
    if "header" in kinds:
        yield _write(folder / f"{name}.h", header(info).encode(), "header")
        yield _write(folder / "tbc.h", runtime_file("include/tbc.h").encode(), "header")
    for kind, ending in (("asm", "s"), ("llvm", "ll")):
        if kind in kinds:
            yield _write(folder / f"{name}.{ending}", made[kind], kind)
    if weights is not None and kinds - {"blob", "ir"}:  # a blob holds its own
        yield _write_weights(folder / f"{name}.weights", weights)
    if "project" in kinds:
        for file, text in project_files(info, shared, static_name(name, target)).items():
            if file not in (f"{name}.h", "tbc.h"):
                yield _write(folder / file, text.encode(), "project")


def _write(path: Path, data: bytes, kind: str) -> Written:
    path.write_bytes(data)
    return Written(path, kind)


def _write_weights(path: Path, blocks: Iterator[npt.NDArray[np.uint8]]) -> Written:
    with path.open("wb") as file:
        for block in blocks:
            block.tofile(file)
    return Written(path, "weights")
