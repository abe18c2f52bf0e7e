"""Graphs for tests of code, put together value by value."""

from __future__ import annotations

from graph_strategies import random_array

from tbc import ops
from tbc.constants import constant
from tbc.dims import Dim
from tbc.ir import Builder, Graph, Value
from tbc.types import DType, TensorType


class Drawing:
    """A graph in the making: its inputs x0, x1, … and its outputs by name."""

    def __init__(self) -> None:
        self.build = Builder()
        self.inputs: list[Value] = []
        self.outputs: dict[str, Value] = {}

    def input(self, dtype: DType, *shape: Dim) -> Value:
        """A new input."""
        name = f"x{len(self.inputs)}"
        self.inputs.append(self.build(ops.Input(name, TensorType(dtype, shape))))
        return self.inputs[-1]

    def constant(self, dtype: DType, *shape: int) -> Value:
        """A new constant."""
        return constant(self.build, random_array(dtype, shape, len(self.outputs)), dtype)

    def graph(self) -> Graph:
        """The graph."""
        return Graph("g", tuple(self.inputs), tuple(self.outputs.items()))
