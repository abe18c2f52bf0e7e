"""A model for tests of blobs: sum[n, 3] = x + y.1 + weights, for n from 0 to 4, as the adder's."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import adder
import numpy as np

from tbc.codegen import blob
from tbc.codegen.machine import Workers
from tbc.constants import constant
from tbc.dims import Expr, Symbol
from tbc.driver import Compiled, assemble, lower, movable_object
from tbc.ir import Builder, Graph
from tbc.ops import Binary, Broadcast, Input
from tbc.target import Target
from tbc.types import DType, TensorType


def graph() -> Graph:
    """The model."""
    build, n = Builder(), Expr.of(Symbol("n", 0, 4))
    type = TensorType(DType.f32, (n, 3))
    x, y = (build(Input(name, type)) for name in ("x", "y.1"))
    weights = constant(build, np.float32(adder.WEIGHTS), DType.f32)
    total = build(Binary("add"), build(Binary("add"), x, y), build(Broadcast((n, 3)), weights))
    return Graph("adder", (x, y), (("sum", total),))


def compiled(target: Target, workers: Workers) -> Compiled:
    """It as machine code."""
    return assemble(lower(graph(), target), target, "adder", workers)


def write(path: Path, target: Target, workers: Workers, *, paged: bool = True) -> bytes:
    """It as a blob: the bytes of the file. If not `paged`, of a few hundred bytes, as on a machine
    without pages, which no system can map."""
    made = compiled(target, workers)
    obj = movable_object(made, workers)
    page = blob.elf.page_size if paged else lambda machine: 1
    with mock.patch.object(blob.elf, "page_size", page):
        blob.write_blob(path, obj, made.info, target, made.weights())
    return path.read_bytes()
