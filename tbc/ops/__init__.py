"""The operations of the IR: what each one is, and the type of its result.

Few primitives: elementwise functions, index maps, reductions, contractions, and the low-bit dots
with their packing. Their exact meaning on arrays is `tbc.reference`. `OPS` lists them all.
"""

from __future__ import annotations

from tbc.ops.checks import DimMismatch, broadcast_shapes, has_bits, require_equal
from tbc.ops.dots import (
    ACTIVATIONS,
    CodedDot,
    Dot,
    GroupedDot,
    Lift,
    Pack,
    PackedDot,
    PackedGroupedDot,
)
from tbc.ops.elementwise import (
    BINARY,
    COMPARE,
    FLOAT_UNARY,
    UNARY,
    Binary,
    BitCast,
    Cast,
    Unary,
    Where,
)
from tbc.ops.index_maps import (
    PAD_MODES,
    Broadcast,
    Concat,
    Gather,
    GatherElements,
    GatherND,
    Pad,
    Reshape,
    Slice,
    Transpose,
    Windows,
)
from tbc.ops.leaves import Const, Dims, Input, Iota
from tbc.ops.loops import Repeat
from tbc.ops.order import UPDATES, ArgSort, ScatterElements, ScatterND
from tbc.ops.sums import REDUCTIONS, Cumulate, MatMul, Reduce

__all__ = [
    "ACTIVATIONS",
    "BINARY",
    "COMPARE",
    "ELEMENTWISE",
    "FLOAT_UNARY",
    "GATHERS",
    "INDEX_MAPS",
    "OPS",
    "PAD_MODES",
    "REDUCTIONS",
    "SCATTERS",
    "UNARY",
    "UPDATES",
    "ArgSort",
    "Binary",
    "BitCast",
    "Broadcast",
    "Cast",
    "CodedDot",
    "Concat",
    "Const",
    "Cumulate",
    "DimMismatch",
    "Dims",
    "Dot",
    "Gather",
    "GatherElements",
    "GatherND",
    "GroupedDot",
    "Input",
    "Iota",
    "Lift",
    "MatMul",
    "Pack",
    "PackedDot",
    "PackedGroupedDot",
    "Pad",
    "Reduce",
    "Repeat",
    "Reshape",
    "ScatterElements",
    "ScatterND",
    "Slice",
    "Transpose",
    "Unary",
    "Where",
    "Windows",
    "broadcast_shapes",
    "has_bits",
    "require_equal",
]

OPS = (
    Input, Const, Dims, Iota,
    Unary, Binary, Where, Cast, BitCast,
    Broadcast, Reshape, Transpose, Slice, Concat, Pad, Windows, Gather, GatherND, GatherElements,
    ScatterElements, ScatterND, ArgSort,
    Reduce, Cumulate, MatMul, Dot, GroupedDot, Lift,
    Pack, PackedDot, CodedDot, PackedGroupedDot,
    Repeat,
)  # fmt: skip

ELEMENTWISE = (Unary, Binary, Where, Cast, BitCast)
GATHERS = (Gather, GatherND, GatherElements)
"""Index maps whose place is data."""
INDEX_MAPS = (Broadcast, Reshape, Transpose, Slice, Concat, Pad, Windows, *GATHERS)
SCATTERS = (ScatterElements, ScatterND)
