"""Make padding explicit, so that windows only read inside their argument."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tbc import ops
from tbc.dims import Dim, dim_max
from tbc.ir import Graph, Uses, Value, rewrite

if TYPE_CHECKING:
    from tbc.target import Target


def pad(graph: Graph, target: Target) -> Graph:
    """Windows that reach over their argument's border become windows of a padded argument."""
    return rewrite(graph, [pad_windows])


def pad_windows(value: Value, uses: Uses) -> Value | None:
    """windows(x, fill, before) -> windows(pad(x, fill), fill, before=0)"""
    match value:
        case Value(op=ops.Windows() as op, args=(x, fill)):
            shape: list[Dim] = list(x.type.shape[:2])
            for d, o, k, s, t, b in zip(
                x.type.shape[2:],
                op.out,
                op.kernel,
                op.strides,
                op.dilations,
                op.before,
                strict=True,
            ):
                reach = (o - 1) * s + (k - 1) * t + 1
                shape.append(dim_max(reach, d + b))
            if tuple(shape) == x.type.shape:
                return None
            b = value.builder
            padded = b(ops.Pad((0, 0, *op.before), tuple(shape)), x, fill)
            none = (0,) * len(op.before)
            moved = ops.Windows(op.kernel, op.strides, op.dilations, none, op.out)
            return b(moved, padded, fill)
    return None
