"""What takes a compiled model's flash and RAM, and whether that is more than there is."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from tbc.codegen import elf
from tbc.codegen.elf_object import ElfObject
from tbc.driver import Compiled
from tbc.errors import TooLarge, Unsupported, UsageError
from tbc.program import Program, crowded

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
UNKNOWN_STACK = "stack not counted: it is the C compiler's"
"""What is said of portable C beside the RAM that it takes."""
TOP = 12
"""Lines of a table; the rest is one more."""


@dataclass(frozen=True)
class Budget:
    """Bytes that a model may take; None is as many as it likes."""

    flash: int | None = None
    ram: int | None = None

    def check(self, compiled: Compiled) -> None:
        """Nothing if a model fits; of portable C the stack is not known, and not counted.

        Raises:
            TooLarge: it does not; the error has the table of what takes the space.
            Unsupported: the target's objects do not tell how much flash they take.
        """
        flash = flash_of(compiled) if self.flash is not None else {}
        if flash is None:
            is_c = compiled.target.arch == "c"
            kind = f"an object of the format {compiled.target.object_format}"
            raise Unsupported(
                f"{'portable C' if is_c else kind} does not tell how much flash it takes",
                file=compiled.info.name,
                hint="no --flash-limit" + (", but one of the linker's" if is_c else ""),
            )
        ram = ram_of(compiled)
        what = "RAM" if compiled.stack is not None else f"RAM ({UNKNOWN_STACK})"
        for name, limit, parts in (
            ("flash", self.flash, flash),
            (what, self.ram, ram),
        ):
            total = sum(parts.values())
            if limit is not None and total > limit:
                raise TooLarge(
                    f"the model takes {total} bytes of {name}, and {limit} are allowed",
                    file=compiled.info.name,
                    parts=_largest(parts),
                )


def parse_size(option: str, text: str) -> int | None:
    """Bytes that an option gives: 16384, 16K, 16KiB or 0.5M, in units of 1024; None for "".

    Raises:
        UsageError: it is no size.
    """
    if not text:
        return None
    match = re.fullmatch(
        r"(\d+(?:\.\d+)?)\s*([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE | re.ASCII
    )
    if match is None:
        raise UsageError(f"{option} {text} is no size", hint="bytes, or 64K, or 1.5M")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def sections_of(compiled: Compiled) -> dict[str, int] | None:
    """Bytes of flash by what they hold: "code", "weights", "descriptions"; None if not ELF.

    Descriptions are the constants of tbc.h, and whatever else the code reads.
    """
    obj = compiled.files.get("obj", b"")
    if obj[:4] != b"\x7fELF":
        return None
    loaded = [s for s in ElfObject(obj).sections if s.flags & elf.ALLOC]
    code = sum(len(s.data) for s in loaded if s.flags & elf.EXECUTE)
    weights = compiled.info.weights_size
    rest = sum(len(s.data) for s in loaded) - code - (weights if compiled.embedded else 0)
    return {"code": code, "weights": weights, "descriptions": rest}


def flash_of(compiled: Compiled) -> dict[str, int] | None:
    """Bytes of flash by what takes them, function by function and weight by weight.

    Of a library of variants these are of the one with the largest arena.
    """
    sections = sections_of(compiled)
    if sections is None:
        return None
    functions = chain.from_iterable(compiled.code.kernels)
    calls = zip(functions, compiled.program.steps, strict=True)
    owners = {function: step.root.origin for function, step in calls}
    parts: dict[str, int] = defaultdict(int)
    for symbol in ElfObject(compiled.files["obj"]).symbols:
        if symbol.name in owners and symbol.section:
            parts[f"code of {owners[symbol.name]}"] += symbol.size
    rest = sections["code"] - sum(parts.values())
    for what, size in _weights(compiled.program):
        parts[what] += size
    parts["code of other variants" if compiled.info.variants else "code that layers share"] += rest
    parts["descriptions"] += sections["descriptions"]
    return dict(parts)


def _weights(program: Program) -> Iterator[tuple[str, int]]:
    """Every constant, by the node that reads it; the last is as long as all that is behind it."""
    users = {value: step for step in program.all_steps for value in step.reads}
    constants = program.constants
    ends = chain((b.offset for b in constants[1:]), [program.weights_size])
    for buffer, end in zip(constants, ends, strict=False):  # without constants there is no end
        yield f"weights of {users[buffer.value].root.origin}", end - buffer.offset


def ram_of(compiled: Compiled) -> dict[str, int]:
    """Bytes of RAM by what takes them, when most of the arena, and of fast memory, is in use.

    Of portable C without the stack.
    """
    program, info = compiled.program, compiled.info
    parts: dict[str, int] = defaultdict(int)
    regions = {  # of variants, each as large as the one that needs the most of it
        "the arena": (info.arena_size, program.blocks),
        "fast memory": (info.fast_size, program.fast_blocks),
    }
    for region, (size, blocks) in regions.items():
        parts[f"gaps in {region}"] += size
        for block in crowded(blocks):
            parts[f"result of {block.origin}"] += block.size
            parts[f"gaps in {region}"] -= block.size
    parts["state"] += info.state_size
    parts["stack"] += compiled.stack or 0
    return {what: size for what, size in parts.items() if size}


def _largest(parts: Mapping[str, int]) -> dict[str, int]:
    """The parts by size; the smallest are one."""
    ordered = sorted(((w, s) for w, s in parts.items() if s), key=lambda part: -part[1])
    rest = sum(size for _, size in ordered[TOP:])
    return dict(ordered[:TOP]) | ({f"{len(ordered) - TOP} smaller ones": rest} if rest else {})
