"""Shared libraries from object files: ELF by tbc itself, the rest with a linker that is at hand."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tbc.codegen.elf_shared import ARCHES, write_shared
from tbc.errors import LinkFailed, Unsupported
from tbc.target import Target


@dataclass(frozen=True)
class Linked:
    """A shared library, and the linker that made it, for the report; "" is tbc itself."""

    path: Path
    linker: str


@dataclass(frozen=True)
class Linker:
    """How to run a linker: the command, whether it is a compiler driver, and its display name."""

    command: tuple[str, ...]
    driver: bool
    name: str


def suffix(target: Target) -> str:
    """The file name ending of shared libraries: ".so", ".dll", ".dylib" or ".wasm"."""
    return {"elf": ".so", "coff": ".dll", "macho": ".dylib", "wasm": ".wasm"}[target.object_format]


def link_shared(
    obj: bytes, target: Target, path: Path, exports: Sequence[str], linker: str = ""
) -> Linked:
    """A shared library at `path` that needs no other and exports just `exports`.

    A DLL's import library is written too, as `<path>.lib`.

    Args:
        obj: an object file without undefined symbols.
        target: what it was compiled for.
        path: the file to write; its name becomes the library's soname.
        exports: symbols as in LLVM IR, without an object format's underscore.
        linker: a linker or compiler to use instead of tbc's own, or the one that tbc finds.

    Raises:
        Unsupported: no linker is at hand, or the target has no shared libraries.
        LinkFailed: the linker says so.
    """
    chosen = linker_for(target, linker)
    if chosen is None:
        library = write_shared(obj, path.name, exports)
        path.unlink(missing_ok=True)  # a process that has mapped the last one keeps it
        path.write_bytes(library)
        return Linked(path, "")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "model.o"
        source.write_bytes(obj)
        flags = _FLAGS[target.object_format](target, path, exports, Path(folder), chosen.driver)
        command = [*chosen.command, *flags, str(source)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        except OSError as error:
            why = error.strerror or error
            raise LinkFailed(f"cannot run {chosen.name}: {why}", hint="--linker") from error
    if done.returncode != 0 or not path.exists():
        said = (done.stderr or done.stdout).strip() or f"exit status {done.returncode}"
        raise LinkFailed(f"{chosen.name} failed: {said}", file=path.name)
    return Linked(path, chosen.name)


def linker_for(target: Target, linker: str = "") -> Linker | None:
    """What makes shared libraries for a target: the linker if one is named; None is tbc itself.

    Raises:
        Unsupported: no linker is at hand, or the target has no shared libraries.
        LinkFailed: the name is empty.
    """
    if target.object_format == "elf" and target.os == "none":
        reason = f"{target.name} has no operating system to load a shared library"
        raise Unsupported(reason, hint="--emit static,header")
    if linker:
        return _named(linker)
    if _writes(target):
        return None
    if found := find_linker(target):
        return found
    hint = "pip install tbc[cross], or --linker=PATH, or --emit static,header"
    raise Unsupported(f"no linker for {target.name} is at hand", hint=hint)


def can_link(target: Target, linker: str = "") -> bool:
    """Whether `link_shared` makes a library for a target, by the linker if one is named."""
    if target.object_format == "elf" and target.os == "none":
        return False
    return bool(linker) or _writes(target) or find_linker(target) is not None


def _writes(target: Target) -> bool:
    return target.object_format == "elf" and target.arch in ARCHES


def find_linker(target: Target) -> Linker | None:
    """The linker for a target that is at hand, or None."""
    tool = {"elf": "ld.lld", "coff": "lld-link", "wasm": "wasm-ld"}.get(target.object_format)
    if tool and (found := shutil.which(tool)):
        return Linker((found,), False, tool)
    native = _is_native(target)
    if target.object_format == "macho" and native and (found := shutil.which("cc")):
        return Linker((found,), True, "cc")
    if zig := _zig():
        if tool:
            return Linker((zig, tool), False, f"zig {tool}")
        arch = "aarch64" if target.arch == "aarch64" else "x86_64"
        return Linker((zig, "cc", "-target", f"{arch}-{target.os}"), True, "zig cc")
    if target.object_format == "elf" and native and (found := shutil.which("cc")):
        return Linker((found,), True, "cc")
    return None


def _named(linker: str) -> Linker:
    """What `--linker` names: by its name, a linker proper (…ld, ld.lld, lld-link) or a compiler."""
    words = linker.split() if shutil.which(linker) is None else [linker]
    if not words:
        raise LinkFailed("no linker is named", hint="--linker=PATH")
    name = Path(words[-1]).name.lower().removesuffix(".exe")
    proper = name.startswith(("ld", "lld")) or name.endswith(("ld", "link")) or ".lld" in name
    return Linker(tuple(words), not proper, linker)


def _zig() -> str | None:
    """The compiler in the ziglang wheel, if that is installed."""
    spec = importlib.util.find_spec("ziglang")
    folders = spec.submodule_search_locations if spec else None
    return shutil.which("zig", path=folders[0]) if folders else None


def _is_native(target: Target) -> bool:
    """Whether this machine's own compiler makes code for the target's architecture and system."""
    machine = platform.machine().lower()
    names = {"amd64": "x86_64", "arm64": "aarch64"}
    first = target.triple.partition("-")[0]
    system = {"darwin": "macos"}.get(platform.system().lower(), platform.system().lower())
    return names.get(first, first) == names.get(machine, machine) and target.os == system


def _elf(
    target: Target, path: Path, exports: Sequence[str], folder: Path, driver: bool
) -> list[str]:
    script = folder / "exports.map"
    script.write_text(f"{{ global: {'; '.join(exports)}; local: *; }};\n")
    own = [f"-soname={path.name}", f"--version-script={script}", "--no-undefined"]
    own += ["-Bsymbolic", "--build-id=none", "--hash-style=gnu", "-znoexecstack", "-znow"]
    flags = ["-shared", "-o", str(path)]
    return [*flags, "-nostdlib", *(f"-Wl,{flag}" for flag in own)] if driver else [*flags, *own]


def _coff(
    target: Target, path: Path, exports: Sequence[str], folder: Path, driver: bool
) -> list[str]:
    if driver:
        raise Unsupported("a DLL needs lld-link or link.exe", hint="--linker=lld-link")
    # With no C library behind it, `_fltused` (which says that code has floats) can be anything.
    return [
        "/dll",
        "/noentry",
        "/nodefaultlib",
        "/brepro",
        "/nologo",
        f"/out:{path}",
        f"/implib:{path}.lib",
        f"/alternatename:_fltused={exports[0]}",
        *(f"/export:{name},DATA" for name in exports),
    ]


def _macho(
    target: Target, path: Path, exports: Sequence[str], folder: Path, driver: bool
) -> list[str]:
    if not driver:
        arch = "arm64" if target.arch == "aarch64" else "x86_64"
        return [
            *("-dylib", "-arch", arch, "-platform_version", "macos", "11.0.0", "11.0.0"),
            *("-install_name", f"@rpath/{path.name}", "-o", str(path)),
        ]
    return ["-shared", "-nostdlib", f"-Wl,-install_name,@rpath/{path.name}", "-o", str(path)]


def _wasm(
    target: Target, path: Path, exports: Sequence[str], folder: Path, driver: bool
) -> list[str]:
    own = ["--no-entry", "--export-table", *(f"--export={name}" for name in exports)]
    if driver:
        return ["-nostdlib", *(f"-Wl,{flag}" for flag in own), "-o", str(path)]
    return [*own, "-o", str(path)]


_FLAGS = {"elf": _elf, "coff": _coff, "macho": _macho, "wasm": _wasm}
