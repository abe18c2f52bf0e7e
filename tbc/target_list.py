"""What `tbc targets` lists."""

from __future__ import annotations

from dataclasses import dataclass

from tbc.codegen.host import host_target
from tbc.emulate import method
from tbc.kernels import SMALLEST, choose, is_code_of
from tbc.layout import CODES
from tbc.target import PORTABLE, TARGETS, Target, parse
from tbc.types import DType


@dataclass(frozen=True)
class TargetRow:
    """A target that has a name.

    Attributes:
        name: for `--target`; `+feature` and `-feature` may follow.
        triple: in LLVM's words.
        description: in ours.
        kernels: the dots (`kernels.Dot`) of the low-bit kernels that are chosen there.
        tested: "native", "qemu-user", "wasmtime" or "compiled only".
    """

    name: str
    triple: str
    description: str
    kernels: tuple[str, ...]
    tested: str


def target_rows() -> list[TargetRow]:
    """All of them, this machine first."""
    native = host_target()
    named = [(parse(named.name), named.description) for named in (*TARGETS, PORTABLE)]
    return [_row(target, text) for target, text in [(native, "this machine"), *named]]


def _row(target: Target, description: str) -> TargetRow:
    chosen = dict.fromkeys(
        kernel.dot.name
        for activations in (DType.i8, DType.f32)
        for code in CODES
        if code != SMALLEST and is_code_of(target, code, activations)
        for m in (1, 64)
        for kernel in choose(target, code, activations, m, 1024)
    )
    return TargetRow(target.name, target.triple, description, tuple(chosen), method(target))
