"""Sequences of tensors, whose number is known at import: they are tuples of values, and no code.

Exporters make them of splits, stacks and lists; what is optional they wrap and unwrap.
"""

from __future__ import annotations

from collections.abc import Mapping

from tbc.errors import InvalidModel
from tbc.frontend.context import Context, Items, Lowering, axis_of, fixed, valid
from tbc.frontend.nodes import Node
from tbc.frontend.ops_index import parts_along
from tbc.frontend.rounds import item, stacked
from tbc.ir import Value
from tbc.ops import Concat
from tbc.types import DType


def construct(c: Context, node: Node, *items: Value) -> tuple[Items]:
    """The sequence of the arguments."""
    return (items,)


def empty(c: Context, node: Node) -> tuple[Items]:
    """The sequence of no tensors; what it could hold is not kept."""
    return ((),)


def at(c: Context, node: Node, items: Items, position: Value) -> Value:
    """One of the items, counted from the end where the position is negative."""
    return items[_place(c, position, len(items))]


def insert(
    c: Context, node: Node, items: Items, x: Value, position: Value | None = None
) -> tuple[Items]:
    """The items with x in front of the one at a position, or at the end."""
    if items and items[0].type.dtype is not x.type.dtype:
        raise InvalidModel(f"{x.type} does not go with items of {items[0].type}")
    place = len(items) if position is None else _place(c, position, len(items), 1)
    return ((*items[:place], x, *items[place:]),)


def erase(c: Context, node: Node, items: Items, position: Value | None = None) -> tuple[Items]:
    """The items without the one at a position, or the last."""
    valid(len(items) > 0, "the sequence is empty")
    place = len(items) - 1 if position is None else _place(c, position, len(items))
    return ((*items[:place], *items[place + 1 :]),)


def _place(c: Context, position: Value, count: int, more: int = 0) -> int:
    """A position in a sequence, counted from its start; up to `more` places behind the last."""
    place = c.integer(position, "the position in a sequence")
    valid(-count <= place < count + more, f"a sequence of {count} has no position {place}")
    return place % count if place < 0 else place


def length(c: Context, node: Node, items: Items) -> Value:
    """The number of items."""
    return c.constant(len(items), DType.i64)


def concat(c: Context, node: Node, items: Items) -> Value:
    """The items one behind the other along an axis, or stacked along a new one."""
    valid(len(items) > 0, "the sequence is empty")
    if node["new_axis"]:
        return stacked(c, items, node["axis"])
    return c(Concat(axis_of(node["axis"], items[0].type.rank)), *items)


def split(c: Context, node: Node, x: Value, sizes: Value | None = None) -> tuple[Items]:
    """Parts of x along an axis, of given sizes, of one size with a smaller last one, or of 1."""
    axis = axis_of(node["axis"], x.type.rank)
    extent = fixed(x.type.shape[axis], "the size of the axis that is split")
    if sizes is not None and sizes.type.rank:
        each = c.integers(sizes, "the sizes of the parts")
        valid(min(each, default=0) >= 0, "a part has a negative size")
        valid(sum(each) == extent, f"parts of {sum(each)} in all do not make an axis of {extent}")
    else:
        most = 1 if sizes is None else c.integer(sizes, "the size of the parts")
        valid(most > 0, f"parts have the size {most}")
        each = [min(most, extent - start) for start in range(0, extent, most)]
    c.spend(len(each), "the parts of a split")
    if sizes is None and not node["keepdims"]:
        return (tuple(item(c, x, index, axis) for index in range(extent)),)
    return (parts_along(c, x, axis, each),)


# -- optional values ------------------------------------------------------------------------------


def wrapped(c: Context, node: Node, x: Value | Items) -> tuple[Value | Items]:
    """The value: that it could be missing makes no difference where it is not."""
    return (x,)


def has_element(c: Context, node: Node, x: Value | Items | None = None) -> Value:
    """Whether there is one."""
    return c.constant(x is not None, DType.bool)


OPERATORS: Mapping[str, Lowering] = {
    "SequenceConstruct": construct,
    "SequenceEmpty": empty,
    "SequenceAt": at,
    "SequenceInsert": insert,
    "SequenceErase": erase,
    "SequenceLength": length,
    "ConcatFromSequence": concat,
    "SplitToSequence": split,
    "Optional": wrapped,
    "OptionalGetElement": wrapped,
    "OptionalHasElement": has_element,
}

_POSITION = "the position is a constant or computed from shapes"
LIMITS: Mapping[str, str] = {
    "SequenceAt": _POSITION,
    "SequenceErase": _POSITION,
    "SequenceInsert": _POSITION,
    "SplitToSequence": "the axis has a size that is a number",
    "Optional": "with a value",
}
