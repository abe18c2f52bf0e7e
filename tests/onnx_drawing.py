"""An ONNX model while it is being drawn: its terms, and the nodes that compute them.

Terms know whether every implementation must compute the same bits (`exact`): such terms alone are
rounded, compared or cast to integers, so that a difference in the last bit elsewhere cannot become
a large one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from hypothesis import strategies as st
from onnx import helper, numpy_helper

Array = npt.NDArray[Any]
Draw = Callable[..., Any]
Maker = Callable[["Drawn"], None]

OPSET = 21
BATCH = "n"
SIZES = (1, 2, 3, 5, 7, 8, 13, 16, 17)
F32, F64, I32, I64, U8, I8, BOOL = map(np.dtype, ("f4", "f8", "i4", "i8", "u1", "i1", "?"))
FLOATS, WHOLE = (F32, F64), (I32, I64)
_LARGEST = 4000


@dataclass(frozen=True)
class Term:
    """A value of the model.

    Attributes:
        shape: its sizes in the run that is drawn.
        batched: whether axis 0 is the symbol `n`.
        exact: whether its bits do not depend on who computes it.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    batched: bool
    exact: bool

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def free(self) -> range:
        """The axes whose sizes are numbers in the model."""
        return range(1 if self.batched else 0, self.rank)


@dataclass
class Drawn:
    """A model being drawn, and the arrays to run it with."""

    draw: Draw
    n: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    feeds: dict[str, Array] = field(default_factory=dict)
    terms: list[Term] = field(default_factory=list)
    results: list[Term] = field(default_factory=list)

    # -- drawing ----------------------------------------------------------------------------------

    def choose(self, options: Sequence[Any]) -> Any:
        if not options:
            raise LookupError
        return self.draw(st.sampled_from(list(options)))

    def integer(self, low: int, high: int) -> int:
        number: int = self.draw(st.integers(low, high))
        return number

    def random(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        """Elements of moderate size."""
        rng = np.random.default_rng(self.integer(0, 99))
        if dtype == BOOL:
            return rng.random(shape) < 0.5
        if dtype in (U8, I8):
            return rng.integers(
                0 if dtype == U8 else -128, 256 if dtype == U8 else 128, shape, dtype
            )
        if dtype in WHOLE:
            return rng.integers(-9, 10, shape).astype(dtype)
        return (rng.standard_normal(shape) * 2).astype(dtype)

    def term(self, wanted: Callable[[Term], bool] = lambda t: t.dtype in FLOATS) -> Term:
        term: Term = self.choose([t for t in self.terms if wanted(t)])
        return term

    # -- building ---------------------------------------------------------------------------------

    def constant(self, array: Any, dtype: np.dtype[Any] = I64) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(array, dtype)
        return name

    def node(
        self, op: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any
    ) -> list[str]:
        names = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, **attributes))
        return names

    def add(self, like: Term, op: str, inputs: Sequence[str], **attributes: Any) -> Term:
        """The result of one more node, with what `like` says of it."""
        (name,) = self.node(op, inputs, **attributes)
        return self.keep(replace(like, name=name))

    def keep(self, term: Term) -> Term:
        if 0 < np.prod(term.shape) <= _LARGEST:
            self.terms.append(term)
        return term

    def model(self) -> onnx.ModelProto:
        """The model; its outputs have no declared types."""
        inputs = [t for t in self.terms if t.name in self.feeds]
        graph = helper.make_graph(
            self.nodes,
            "drawn",
            [
                helper.make_tensor_value_info(
                    t.name,
                    helper.np_dtype_to_tensor_dtype(t.dtype),
                    [BATCH if t.batched and a == 0 else d for a, d in enumerate(t.shape)],
                )
                for t in inputs
            ],
            [onnx.ValueInfoProto(name=t.name) for t in self.results],
            [numpy_helper.from_array(a, name) for name, a in self.constants.items()],
        )
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=10)


# -- terms -----------------------------------------------------------------------------------


def away_from_zero(d: Drawn, x: Term) -> str:
    """|x| + 1/2."""
    (size,) = d.node("Abs", [x.name])
    return d.node("Add", [size, d.constant(0.5, x.dtype)])[0]


def bounded(d: Drawn, x: Term, limit: float) -> str:
    ends = [d.constant(e, x.dtype) for e in (-limit, limit)]
    return d.node("Clip", [x.name, *ends])[0]


def fits(a: Term, b: Term) -> bool:
    """Whether two terms broadcast, whatever n is."""
    if a.rank < b.rank:
        a, b = b, a
    pairs = list(zip(a.shape[a.rank - b.rank :], b.shape, strict=True))
    if not all(x == y or 1 in (x, y) for x, y in pairs):
        return False
    if b.batched:
        return a.batched and a.rank == b.rank
    return not (a.batched and a.rank == b.rank) or b.shape[0] == 1


def joined(a: Term, b: Term) -> Term:
    shape = np.broadcast_shapes(a.shape, b.shape)
    return Term("", a.dtype, shape, a.batched or b.batched, a.exact and b.exact)


def pair(d: Drawn, wanted: Callable[[Term], bool]) -> tuple[Term, Term]:
    a = d.term(wanted)
    return a, d.term(lambda t: t.dtype == a.dtype and fits(a, t))
