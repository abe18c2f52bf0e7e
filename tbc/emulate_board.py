"""Boards with a Cortex-M that qemu-system-arm emulates, and how programs for them are linked.

A program reads and writes through the debugger's calls (`board.c`); its memory map is qemu's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tbc.target import Target

EMULATOR = "qemu-system-arm"
_OPTIONS = (
    *("-display", "none", "-serial", "none", "-monitor", "none"),
    *("-semihosting-config", "enable=on,target=native"),
)
_SOURCE = Path(__file__).with_name("board.c")
_DATA_BYTES = 16 << 20
_SCRIPT = """
ENTRY(_start)
SECTIONS {{
    . = {code:#x};
    .text : {{ KEEP(*(.vectors)) *(.text*) *(.rodata*) }}
    .ARM.exidx : {{ *(.ARM.exidx*) }}
    . = {data:#x};
    .data : {{ *(.data*) }}
    .bss : {{ *(.bss*) *(COMMON) }}
    stack_top = {end:#x};
}}
"""


@dataclass(frozen=True)
class Board:
    """A machine of the emulator.

    Attributes:
        name: as the emulator calls it.
        cpu: the core that it has.
        code: where the vector table, code and constants lie.
        data: where its largest memory begins.
    """

    name: str
    cpu: str
    code: int
    data: int

    @property
    def command(self) -> tuple[str, ...]:
        """The command that runs the program named behind it."""
        return (EMULATOR, "-M", self.name, *_OPTIONS, "-kernel")

    def link(self, folder: Path) -> list[str]:
        """Arguments of the compiler that make a program for the board; the folder gets a file."""
        script = folder / "board.ld"
        end = self.data + _DATA_BYTES
        script.write_text(_SCRIPT.format(code=self.code, data=self.data, end=end))
        return ["-DBOARD", f"-Wl,-T,{script}", str(_SOURCE)]


_M3 = Board("mps2-an385", "cortex-m3", 0, 0x21000000)
_M4 = Board("mps2-an386", "cortex-m4", 0, 0x21000000)
_M7 = Board("mps2-an500", "cortex-m7", 0, 0x60000000)
_M33 = Board("mps2-an505", "cortex-m33", 0x10000000, 0x80000000)
_M55 = Board("mps3-an547", "cortex-m55", 0x10000000, 0x60000000)
_BOARDS = {
    **dict.fromkeys(("cortex-m0", "cortex-m0plus", "cortex-m1", "cortex-m3"), _M3),
    **dict.fromkeys(("thumbv6m", "thumbv7m"), _M3),
    **dict.fromkeys(("cortex-m4", "thumbv7em"), _M4),
    "cortex-m7": _M7,
    **dict.fromkeys(
        ("cortex-m23", "cortex-m33", "cortex-m35p", "thumbv8m.base", "thumbv8m.main"), _M33
    ),
    **dict.fromkeys(("cortex-m52", "cortex-m55", "cortex-m85", "thumbv8.1m.main"), _M55),
}
"""CPU or architecture -> the board with it, or with one that has all of its instructions."""


def board_of(target: Target) -> Board | None:
    """The board that runs a target's code, if there is one."""
    if target.arch != "arm" or not target.little_endian:
        return None
    name = target.triple.split("-")[0] if target.cpu == "generic" else target.cpu
    return _BOARDS.get(name)
