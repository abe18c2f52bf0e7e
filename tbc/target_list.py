"""What `tbc targets` lists."""

from __future__ import annotations

from dataclasses import dataclass

from tbc.codegen.host import host_target
from tbc.emulate import method
from tbc.kernels import KERNELS
from tbc.target import TARGETS, Target, parse


@dataclass(frozen=True)
class TargetRow:
    """A target that has a name.

    Attributes:
        name: for `--target`; `+feature` and `-feature` may follow.
        triple: in LLVM's words.
        description: in ours.
        kernels: the dot instructions that its low-bit kernels may use, the best first.
        tested: "native", "qemu-user" or "compiled only".
    """

    name: str
    triple: str
    description: str
    kernels: tuple[str, ...]
    tested: str


def target_rows() -> list[TargetRow]:
    """All of them, this machine first."""
    native = host_target()
    named = [(parse(named.name), named.description) for named in TARGETS]
    return [_row(target, text) for target, text in [(native, "this machine"), *named]]


def _row(target: Target, description: str) -> TargetRow:
    dots = dict.fromkeys(kernel.dot for kernel in KERNELS if kernel.dot.runs_on(target))
    names = tuple(dot.name for dot in dots)
    return TargetRow(target.name, target.triple, description, names, method(target))
