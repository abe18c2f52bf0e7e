"""The stages of a compilation as text: printed, and written to a folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from tbc.ir import Graph
from tbc.passes import PIPELINE
from tbc.program import Program
from tbc.program_text import program_text
from tbc.text import dump_constants, print_graph

STAGES = tuple(dict.fromkeys(["import", *(step.__name__ for step in PIPELINE), "plan"]))
"""What `--print-ir-after` takes."""


class Dump:
    """An observer of the driver that keeps what it is asked to keep.

    In the folder every stage is a file, `00-import.ir` to `NN-plan.txt`, the constants that a
    graph's text does not hold are beside it as .npz, and LLVM's part is `model.ll` and `model.s`.
    """

    def __init__(self, show: Callable[[str], None], after: Collection[str], folder: Path | None):
        self._show, self._after, self._folder = show, after, folder
        self._count = 0
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def kinds(self) -> frozenset[str]:
        """What LLVM has to make for the folder."""
        return frozenset() if self._folder is None else frozenset({"asm", "llvm"})

    def __call__(self, stage: str, result: Graph | Program) -> None:
        """See a stage."""
        self._show("compiling" if stage == "plan" else f"{stage} done")
        is_graph = isinstance(result, Graph)
        if stage in self._after:
            print(f"# after {stage}\n{_text(result)}", file=sys.stderr)
        if self._folder is not None:
            path = self._folder / f"{self._count:02}-{stage}.{'ir' if is_graph else 'txt'}"
            path.write_text(_text(result), encoding="utf-8")
            if isinstance(result, Graph):
                dump_constants(result, path.with_suffix(".npz"))
        self._count += 1

    def code(self, files: Mapping[str, bytes]) -> None:
        """See what LLVM made."""
        if self._folder is not None:
            for kind, ending in (("llvm", "ll"), ("asm", "s"), ("c", "c")):
                if kind in files:
                    (self._folder / f"model.{ending}").write_bytes(files[kind])


def _text(result: Graph | Program) -> str:
    return print_graph(result) if isinstance(result, Graph) else program_text(result)
