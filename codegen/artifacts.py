"""A compiled model as files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tbc.codegen.archive import Member, symbol_name, write_archive
from tbc.codegen.link import can_link, link_shared, linker_for, suffix
from tbc.codegen.modelinfo import ModelInfo, exported
from tbc.codegen.project import PROJECTS, check_project, header, project_files, runtime_file
from tbc.errors import Unsupported
from tbc.target import PORTABLE, Target, parse

KINDS = ("shared", "static", "obj", "header", "asm", "llvm", "ir", "c", "project", "blob")
C_KINDS = ("header", "ir", "c", "project")
"""Those that there are of portable C."""


@dataclass(frozen=True)
class Written:
    """A file that was written, and with which tool if that was not tbc itself."""

    path: Path
    kind: str
    tool: str = ""

    def moved(self, place: Path, folder: Path) -> Written:
        """The same, after what lies in one folder has moved to another."""
        return replace(self, path=folder / self.path.relative_to(place))


def kinds_of(
    kinds: tuple[str, ...], target: Target, linker: str = "", project: str = "cmake"
) -> tuple[str, ...]:
    """What is written: what is asked for, or a project, with a shared library if possible.

    Raises:
        Unsupported: the project cannot be for the target, no linker is at hand for a library, or
            one is given and has nothing to link.
    """
    if "project" in kinds:
        check_project(project, target)
    elif not kinds and target.arch == "c":
        kinds = ("c", "header", "project")
    elif not kinds:
        shared = can_link(target, linker)
        kinds = ("static", "header", *(("shared",) if shared else ()), "project")
    is_web = "project" in kinds and PROJECTS[project].language == "js"
    if "shared" in kinds or is_web:
        linker_for(target, linker)
    elif linker:
        reason = f"--linker={linker} is for shared libraries, and none is written"
        raise Unsupported(reason, hint="--emit=shared, or no linker")
    return kinds


def target_of(kinds: Iterable[str], target: Target) -> Target:
    """What to compile for: the target, or no machine where portable C is asked for.

    Raises:
        Unsupported: a kind is not known, or one is portable C and another machine code.
    """
    kinds = set(kinds)
    if unknown := sorted(kinds - set(KINDS)):
        known = f"one of {', '.join(KINDS)}"
        raise Unsupported(f"--emit={unknown[0]} is not supported", hint=known)
    if "c" not in kinds and target.arch != "c":
        return target
    if others := sorted(kinds - set(C_KINDS)):
        reason = f"portable C is for no machine, and --emit={others[0]} is for one"
        raise Unsupported(reason, hint="one call for each, in folders of their own")
    if target.arch == "c":
        return target
    return replace(
        parse(PORTABLE.name),
        optimize=target.optimize,
        activations=target.activations,
        fast_ram=target.fast_ram,
    )


def static_name(name: str, target: Target) -> str:
    """The file name of a model's static library."""
    return f"{name}.lib" if target.object_format == "coff" else f"lib{name}.a"


def needed(kinds: Iterable[str]) -> frozenset[str]:
    """What LLVM must make for the kinds of artifacts."""
    return frozenset({"obj", *(k for k in kinds if k in ("asm", "llvm"))})


def write_artifacts(
    folder: Path,
    info: ModelInfo,
    target: Target,
    made: Mapping[str, bytes],
    kinds: Iterable[str],
    weights: Iterator[npt.NDArray[np.uint8]] | None,
    linker: str = "",
    project: str = "cmake",
) -> Iterator[Written]:
    """Write a model's artifacts into a folder, which is made if it is not there; see `staged`.

    Args:
        folder: where to.
        info: what the model says of itself.
        target: what it is compiled for.
        made: by kind, what was made of it: by LLVM, or "c".
        kinds: which of `KINDS` to write; "ir" and "blob" are the caller's.
        weights: the constants, if they are a file of their own.
        linker: see `link_shared`.
        project: of `PROJECTS`, whose folders the files of a project go to.
    """
    name, obj = info.name, made.get("obj", b"")
    library = "c" if target.arch == "c" else "static"
    kinds = set(kinds)
    if weights is not None and project not in ("cmake", "web"):
        raise Unsupported(
            f"the weights are a file of their own, for which a project of {project} has no place",
            file=name,
            hint="--project=cmake",
        )
    place = PROJECTS[project if "project" in kinds else "cmake"]
    folder.mkdir(parents=True, exist_ok=True)
    if "project" in kinds:
        kinds |= {"header", library} if place.language == "c" else {"shared"}
    if "obj" in kinds:
        yield _write(folder / f"{name}.o", obj, "obj")
    if "static" in kinds:
        symbols = tuple(
            symbol_name(s, target.object_format, target.arch, target.index_bits)
            for s in exported(info)
        )
        archive = write_archive([Member(f"{name}.o", obj, symbols)], target.object_format)
        inside = place.library.format(cpu=target.cpu)
        yield _write(folder / inside / static_name(name, target), archive, "static")
    shared = ""
    if "shared" in kinds:
        prefix = "" if target.object_format == "coff" else "lib"
        shared = f"{prefix}{name}{suffix(target)}"
        linked = link_shared(obj, target, folder / shared, exported(info), linker)
        yield Written(linked.path, "shared", linked.linker)
    if "header" in kinds:
        headers = folder / place.headers
        yield _write(headers / f"{name}.h", header(info).encode(), "header")
        yield _write(headers / "tbc.h", runtime_file("include/tbc.h").encode(), "header")
    if "c" in kinds:
        yield _write(folder / place.sources / f"{name}.c", made["c"], "c")
    for kind, ending in (("asm", "s"), ("llvm", "ll")):
        if kind in kinds:
            yield _write(folder / f"{name}.{ending}", made[kind], kind)
    if weights is not None and kinds - {"blob", "ir"}:  # a blob holds its own
        yield _write_weights(folder / f"{name}.weights", weights)
    if "project" in kinds:
        model = f"{name}.c" if library == "c" else static_name(name, target)
        for file, text in project_files(info, shared, model, place).items():
            if Path(file).name not in (f"{name}.h", "tbc.h"):
                yield _write(folder / file, text.encode(), "project")


def _write(path: Path, data: bytes, kind: str) -> Written:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return Written(path, kind)


def _write_weights(path: Path, blocks: Iterator[npt.NDArray[np.uint8]]) -> Written:
    with path.open("wb") as file:
        for block in blocks:
            block.tofile(file)
    return Written(path, "weights")
