"""Weights as code: a small ternary layer as additions and subtractions, without a loop.

A zero costs nothing then, and the sum and the difference of two neighbouring activations are
computed once for all rows of a block that add or subtract both: the elimination of common
subexpressions of two terms (Hosangadi, Fallah and Kastner, "Reducing hardware complexity of linear
DSP systems by iteratively eliminating two-term common subexpressions", ASP-DAC 2005), of fixed
pairs, so that little is alive at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tbc.kernels import Kernel
    from tbc.target import Target

Trits = npt.NDArray[np.int8]

NAME = "trit_code"
"""Of such layers, where others have a kernel."""
MOST_WEIGHTS = 1 << 14
"""Of a layer that becomes code: more take too long to compile, and too much flash."""
WORTH = 16
"""Instructions of a run that a byte of flash has to save, unless speed alone counts."""
LITTLE = 1024
"""Bytes of flash that a layer may take more, unless speed alone counts."""
DOTS = ("pairs", "smlad", "scalar", "lookup")
"""What takes the more instructions; vectors take fewer."""

_SIGNS = ".+-"
"""Of the weights 0, 1 and -1."""


class Term(NamedTuple):
    """sum[row] += sign * of, where `of` is an activation, or a + b or a - b of two.

    Attributes:
        row: of the block.
        sign: 1 or -1.
        of: "a" or "b", the pair's activations, "s" their sum or "d" their difference.
    """

    row: int
    sign: int
    of: str


class Pair(NamedTuple):
    """What is done with two neighbouring activations, the first of which is `column`."""

    column: int
    terms: tuple[Term, ...]

    @property
    def used(self) -> frozenset[str]:
        """What of a, b, s and d the terms take."""
        return frozenset(term.of for term in self.terms)

    @property
    def loads(self) -> int:
        """How many activations are loaded."""
        of = self.used
        return sum(bool(of & {x, "s", "d"}) for x in "ab")

    @property
    def additions(self) -> int:
        """Additions and subtractions, shared ones included."""
        return len(self.terms) + len(self.used & {"s", "d"})


def text_of(w: Trits) -> str:
    """The weights, row by row, as a text."""
    return "".join(_SIGNS[value] for value in w.reshape(-1))


def weights_of(text: str, n: int) -> Trits:
    """w[n, k] from its text."""
    values = {sign: value for value, sign in zip((0, 1, -1), _SIGNS, strict=True)}
    return np.array([values[sign] for sign in text], np.int8).reshape(n, -1)


@dataclass(frozen=True)
class Core:
    """What suits a family of cores; costs are counts of LLVM's code for random trits.

    Attributes:
        rows: rows of a function.
        chunk: pairs of activations between two branches that are never taken, across which LLVM
            moves nothing; 0 for none. Else it loads more than the registers hold.
        load: instructions of loading an activation.
        addition: instructions of an addition, with what it brings from memory and back.
        bytes: of an instruction.
    """

    rows: int
    chunk: int
    load: float
    addition: float
    bytes: float


def core_of(target: Target) -> Core:
    """What suits a target."""
    if target.is_thumb1:
        return Core(rows=32, chunk=16, load=2, addition=2, bytes=2)
    if target.arch == "riscv":
        return Core(rows=20, chunk=1, load=1, addition=1.4, bytes=3)
    return Core(rows=8, chunk=0, load=1, addition=1, bytes=3.1)


def pairs(w: Trits) -> Iterator[Pair]:
    """What a block w[rows, k] does, two activations after the other."""
    k = w.shape[1]
    for column in range(0, k, 2):
        left = w[:, column]
        right = w[:, column + 1] if column + 1 < k else np.zeros_like(left)
        terms = [
            term
            for row, (a, b) in enumerate(zip(left.tolist(), right.tolist(), strict=True))
            if (term := _term(row, a, b)) is not None
        ]
        if terms:
            yield Pair(column, tuple(terms))


def _term(row: int, a: int, b: int) -> Term | None:
    match a, b:
        case 0, 0:
            return None
        case _, 0:
            return Term(row, a, "a")
        case 0, _:
            return Term(row, b, "b")
    return Term(row, a, "s" if a == b else "d")


def instructions(w: Trits, target: Target) -> float:
    """How many a row of activations takes, about: loads, additions, and a call of each block."""
    core = core_of(target)
    total = 0.0
    for start in range(0, len(w), core.rows):
        block = w[start : start + core.rows]
        found = list(pairs(block))
        total += sum(core.load * p.loads + core.addition * p.additions for p in found)
        total += 2 * len(block) + 12
    return total


def may_be(kernel: Kernel, weights: int) -> bool:
    """Whether so many weights, whose kernel this is, are looked at."""
    return kernel.dot.name in DOTS and 0 < weights <= MOST_WEIGHTS


def is_worth_it(w: Trits, rows: int, kernel: Kernel, target: Target) -> bool:
    """Whether w[n, k], for so many rows of activations, rather becomes code than data.

    In portable C only if asked for: what an instruction takes is not known there.
    """
    layout = kernel.layout()
    size = layout.size(*w.shape)
    packed = kernel.rows_cost(1) * size * layout.fields
    count = instructions(w, target)
    more = core_of(target).bytes * count - size
    saved = rows * (packed - count)
    match target.optimize:
        case "speed":
            return saved > 0
        case "size":
            return more <= 0
    if target.arch == "c":
        return False
    return more <= LITTLE and saved > max(more, 0) * WORTH
