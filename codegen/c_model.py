"""A model as one C file: its functions by way of their LLVM text, and its constants as arrays."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt

from tbc.codegen.builtins import builtins_module
from tbc.codegen.c_expressions import floating, integer
from tbc.codegen.c_function import c_function
from tbc.codegen.c_helpers import BUILTINS, HELPERS, helpers_text
from tbc.codegen.c_values import Names
from tbc.codegen.llvm_text import Module
from tbc.codegen.llvm_tree import parse
from tbc.codegen.model import ModelCode, constant_bytes
from tbc.codegen.modelinfo import ABI, ModelInfo
from tbc.codegen.project import comment, render
from tbc.ir import Value
from tbc.ops import PackedDot, PackedGroupedDot
from tbc.program import Buffer, Program, Step, outline, unreshaped
from tbc.target import PORTABLE
from tbc.types import DType

WIDTH = 100
_UNPACKED = {DType.f32: ("float", "<f4"), DType.f64: ("double", "<f8")}


@dataclass(frozen=True)
class _Array:
    """A constant, or the gap in front of one, as a member of the structure of the weights."""

    type: str
    name: str
    elements: npt.NDArray[Any]
    about: str


def c_source(program: Program, code: ModelCode, info: ModelInfo) -> str:
    """`<name>.c`: the constant `tbc_<name>` and all it needs, in C99 that is also C++11."""
    embedded = bool(program.weights_size) and not info.weights_file
    arrays = list(_arrays(program)) if embedded else []
    names = Names(info.symbol, {f"{info.symbol}_weights": f"&{info.symbol}_weights"})
    functions = list(c_functions(names, code.hand, code.glue, steps=dict(code.steps)))
    big = 0
    for array in arrays:
        big = crc32(array.elements.byteswap().tobytes(), big)
    return render(
        "model.c.j2",
        info,
        ABI=ABI,
        weights=_weights_text(arrays, info.symbol) if embedded else "",
        functions="\n\n".join(functions),
        big_endian_sum=big,
        doubles="double" in " ".join([*functions, *(a.type for a in arrays)]),
    )


def c_functions(
    names: Names, *modules: Module, steps: dict[str, Step] | None = None
) -> Iterator[str]:
    """The functions of modules in C, those that they call before them."""
    own = [
        _commented(c_function(parse(text), names), (steps or {}).get(name))
        for module in modules
        for name, text in module.functions.items()
    ]
    asked = set(names.helpers)
    wanted = sorted(BUILTINS[name] for name in asked if name in BUILTINS)
    renamed = {builtin: name for name, builtin in BUILTINS.items()}
    builtins = []
    for name, text in builtins_module(wanted, PORTABLE.triple).functions.items():
        tree = replace(parse(text), name=f"{names.symbol}_{renamed[name]}")
        builtins.append(c_function(tree, names))
    if needed := set(names.helpers) & HELPERS.keys():
        yield helpers_text(needed, names.symbol)
    yield from builtins
    yield from own


def _commented(text: str, step: Step | None) -> str:
    """A function with what it computes in front of it."""
    if step is None:
        return text
    lines = [f" * {comment(line)}" for line in outline(step).text.splitlines()[:-1]]
    return "\n".join(["/*", *lines, " */", text])


# -- weights --------------------------------------------------------------------------------------


def _arrays(program: Program) -> Iterator[_Array]:
    """The weights in order, every byte of them."""
    packed = set(_packed(program))
    end = 0
    for number, buffer in enumerate(program.constants):
        data = constant_bytes(buffer, little_endian=True)
        if not data.size:
            continue
        if buffer.offset > end:
            yield _gap(number, buffer.offset - end)
        type, elements = _elements(buffer, data, buffer.value in packed)
        yield _Array(type, f"w{number}", elements, str(buffer.type))
        end = buffer.offset + data.size
    if program.weights_size > end:
        yield _gap(len(program.constants), program.weights_size - end)


def _gap(number: int, size: int) -> _Array:
    return _Array("uint8_t", f"gap{number}", np.zeros(size, np.uint8), "")


def _packed(program: Program) -> Iterator[Value]:
    """The constants that code reads in words of 32 bits, though they are bytes."""
    for step in program.all_steps:
        if isinstance(step.anchor.op, PackedDot | PackedGroupedDot):
            yield from {step.anchor.args[1], unreshaped(step.anchor.args[1])}


def _elements(
    buffer: Buffer, data: npt.NDArray[np.uint8], is_packed: bool
) -> tuple[str, npt.NDArray[Any]]:
    """The C type of a constant's elements, and these."""
    dtype = buffer.type.dtype
    if is_packed:
        return "uint32_t", data.view("<u4")
    if dtype in _UNPACKED:
        type, view = _UNPACKED[dtype]
        return type, data.view(view)
    sign = "i" if dtype.kind == "i" else "u"
    return f"{'' if sign == 'i' else 'u'}int{dtype.bytes * 8}_t", data.view(f"<{sign}{dtype.bytes}")


def _weights_text(arrays: list[_Array], symbol: str) -> str:
    """The definition of the weights."""
    abouts = (f" /* {comment(a.about)} */" if a.about else "" for a in arrays)
    members = [
        f"    {a.type} {a.name}[{a.elements.size}];{about}"
        for a, about in zip(arrays, abouts, strict=True)
    ]
    values = ",\n".join(f"    {{\n{_numbers(array)}\n    }}" for array in arrays)
    return "\n".join(["static const struct {", *members, f"}} {symbol}_weights = {{", values, "};"])


def _numbers(array: _Array) -> str:
    if array.type in ("float", "double"):
        words = [floating(v, array.type).text for v in array.elements]
    elif array.type == "uint32_t":
        words = [f"0x{v:08x}u" for v in array.elements]
    elif not array.elements.any():
        words = ["0"]
    else:
        words = [integer(int(v), array.type).text for v in array.elements]
    indent = " " * 8
    text = ", ".join(words)
    return textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent)
