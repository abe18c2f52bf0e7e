"""The project around a compiled model: its header, an example program, and the build file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import jinja2

import tbc
from tbc.codegen.modelinfo import ModelInfo, TensorInfo
from tbc.errors import Unsupported
from tbc.target import Target

_DTYPES: dict[int, tuple[str, str, str, str]] = {
    1: ("float32", "float", "double", "%g"),
    2: ("uint8", "uint8_t", "unsigned", "%u"),
    3: ("int8", "int8_t", "int", "%d"),
    4: ("uint16", "uint16_t", "unsigned", "%u"),
    5: ("int16", "int16_t", "int", "%d"),
    6: ("int32", "int32_t", "long", "%ld"),
    7: ("int64", "int64_t", "long long", "%lld"),
    9: ("bool", "uint8_t", "unsigned", "%u"),
    10: ("float16", "uint16_t", "unsigned", "0x%04x"),
    11: ("float64", "double", "double", "%g"),
    12: ("uint32", "uint32_t", "unsigned long", "%lu"),
    13: ("uint64", "uint64_t", "unsigned long long", "%llu"),
    16: ("bfloat16", "uint16_t", "unsigned", "0x%04x"),
}
"""Value of `enum tbc_dtype` -> name, C type, the type it is printed as, and printf's format."""


_SUFFIXES = ("", "_COUNT", "_BYTES", "_IN_PLACE_OF")
"""Of the macros of an input or output."""


@dataclass(frozen=True)
class _Port:
    """An input or output, as the templates need it."""

    index: int
    tensor: TensorInfo
    macro: str

    @property
    def dtype(self) -> str:
        return _DTYPES[self.tensor.dtype_code][0]

    @property
    def ctype(self) -> str:
        return _DTYPES[self.tensor.dtype_code][1]

    @property
    def promoted(self) -> str:
        return _DTYPES[self.tensor.dtype_code][2]

    @property
    def format(self) -> str:
        return _DTYPES[self.tensor.dtype_code][3]


def header(info: ModelInfo) -> str:
    """`<name>.h`: the declaration of the model, and its sizes as macros."""
    return render("model.h.j2", info)


class Project(NamedTuple):
    """How a build system wants its folders.

    Attributes:
        headers: the folder of the headers.
        library: that of the static library; {cpu} is LLVM's name of the CPU.
        sources: that of the C sources of tbc.
        texts: file -> template of everything else; {name} is the model's.
        language: "c", or "js" for a WebAssembly module and tbc.mjs instead of those.
        format: the format of the objects that it links; any if empty.
        machines: the architectures that it links, with their bits; any if empty.
        kind: what targets it is for, in words.
        instead: the targets to try, as a hint.
    """

    headers: str
    library: str
    sources: str
    texts: Mapping[str, str]
    language: str = "c"
    format: str = ""
    machines: Sequence[str] = ()
    kind: str = ""
    instead: str = ""


PROJECTS: Mapping[str, Project] = {
    "cmake": Project(
        ".",
        ".",
        ".",
        {
            "CMakeLists.txt": "cmake/CMakeLists.txt.j2",
            "{name}Config.cmake": "cmake/Config.cmake.j2",
            "{name}.pc": "cmake/pkgconfig.pc.j2",
            "main.c": "cmake/main.c.j2",
        },
    ),
    # https://docs.arduino.cc/arduino-cli/library-specification; PlatformIO reads the same.
    "arduino": Project(
        "src",
        "src/{cpu}",
        "src",
        {
            "library.properties": "arduino/library.properties.j2",
            "examples/{name}/{name}.ino": "arduino/example.ino.j2",
        },
        format="elf",
        # Of boards from the Uno's successors to those that run Linux on Arm or an Intel Quark.
        machines=("arm-32", "aarch64-64", "riscv-32", "riscv-64", "mips-32", "x86-32"),
        kind="CPUs of Arduino boards",
        instead="the board's CPU, as --target=cortex-m4f, or --target=c",
    ),
    # https://docs.zephyrproject.org/latest/develop/modules.html
    "zephyr": Project(
        "include",
        "lib",
        "src",
        {
            "zephyr/module.yml": "zephyr/module.yml.j2",
            "zephyr/Kconfig": "zephyr/Kconfig.j2",
            "zephyr/CMakeLists.txt": "zephyr/CMakeLists.txt.j2",
        },
        format="elf",  # of any machine: native_sim is a program of the one that builds
        kind="targets with ELF objects",
        instead="the board's CPU, as --target=cortex-m4f, x86-64 for native_sim, or --target=c",
    ),
    "web": Project(
        ".",
        ".",
        ".",
        {"index.html": "web/index.html.j2"},
        "js",
        format="wasm",
        machines=("wasm-32",),
        kind="WebAssembly of 32 bits",
        instead="--target=wasm32+simd128",
    ),
}
"""What `--project` takes."""


def check_project(name: str, target: Target) -> None:
    """Raise Unsupported for a target whose code no build of a project of that name can link."""
    project = PROJECTS[name]
    if target.arch == "c" and project.language == "c":
        return
    machine = f"{target.arch}-{target.index_bits}"
    is_linked = project.format in ("", target.object_format)
    if not is_linked or (project.machines and machine not in project.machines):
        raise Unsupported(
            f"a project of {name} is for {project.kind}, and {target.name} is none",
            hint=project.instead,
        )


SOURCES = ("tbc_cpu.c", "tbc_self_test.c")
"""C sources of tbc that a project has beside the model."""


def project_files(
    info: ModelInfo, shared: str = "", model: str = "", project: Project = PROJECTS["cmake"]
) -> dict[str, str]:
    """File -> text of everything that a program needs besides the library itself.

    Args:
        info: the model.
        shared: the file name of the shared library that lies beside, or "".
        model: that of the static library or C source; by default lib<name>.a.
        project: the build system's folders.
    """
    model = model or f"lib{info.name}.a"
    texts = {
        file.format(name=info.name): render(template, info, shared=shared, model=model)
        for file, template in project.texts.items()
    }
    if project.language == "js":
        return texts | {"tbc.mjs": runtime_file("src/tbc.mjs")}
    headers, sources = PurePosixPath(project.headers), PurePosixPath(project.sources)
    return texts | {
        str(headers / f"{info.name}.h"): header(info),
        str(headers / "tbc.h"): runtime_file("include/tbc.h"),
        **{str(sources / name): runtime_file(f"src/{name}") for name in SOURCES},
    }


def runtime_file(name: str) -> str:
    """The text of a file that tbc ships: "include/tbc.h" or one of "src/"."""
    return (Path(tbc.__file__).parent / "runtime" / name).read_text(encoding="utf-8")


def render(template: str, info: ModelInfo, **more: object) -> str:
    """A template's text for a model."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"comment": comment, "cstring": _cstring}
    ports = [(k, p) for k in ("input", "output") for p in _ports(getattr(info, k + "s"))]
    return environment.get_template(template).render(
        info=info,
        NAME=info.name.upper(),
        ports=ports,
        dims=_macros(name for name, _, _ in info.symbols),
        rank=max([1, *(tensor.rank for tensor in info.outputs)]),
        **more,
    )


def _ports(tensors: tuple[TensorInfo, ...]) -> Iterator[_Port]:
    for i, macro in enumerate(_macros(tensor.name for tensor in tensors)):
        yield _Port(i, tensors[i], macro)


def _macros(names: Iterable[str]) -> list[str]:
    """The names as parts of C macros: upper case, and with their number where they would clash."""
    macros: list[str] = []
    taken: set[str] = set()
    for i, name in enumerate(names):
        macro = re.sub(r"[^A-Z0-9]+", "_", name.upper()).strip("_") or str(i)
        while taken & (own := {macro + suffix for suffix in _SUFFIXES}):
            macro += f"_{i}"
        macros.append(macro)
        taken |= own
    return macros


def comment(text: str) -> str:
    """The text without anything that would end a C comment or a line."""
    return (
        re.sub(r"[^ -~]", "?", text).replace("*/", "* /").replace("/*", "/ *").replace("??", "? ?")
    )


def _cstring(text: str) -> str:
    """The text as the inside of a C string literal."""
    escaped = (
        chr(b) if 32 <= b < 127 and b not in b'"\\?' else f"\\{b:03o}" for b in text.encode()
    )
    return "".join(escaped)
