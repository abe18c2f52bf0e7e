"""Steps without a contraction as pieces: domains over which no element has to choose its source."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from tbc import ops
from tbc.dims import Dim
from tbc.indices import Index, reshape_index
from tbc.ir import Value
from tbc.program import Step

Map: TypeAlias = Callable[[Index], Index]
Source: TypeAlias = Callable[[Index], tuple[Value, Index]]


def pieces(step: Step) -> Iterator[tuple[tuple[Dim, ...], Map, Source]]:
    """A step as (domain, where an index of the domain is stored, what is stored there).

    Paddings and concatenations are cut at their seams, so that no piece has to choose. A reshape
    at the top is run through in the shape before it, whose axes are the finer or plainer ones.
    """
    root = step.root
    match root.op:
        case _ if root in step.reads:
            yield root.type.shape, _shifted({}), _same(root)
        case ops.Concat(axis):
            start: Dim = 0
            for arg in root.args:
                yield _unreshaped(step, arg, _shifted({axis: start}))
                start = start + arg.type.shape[axis]
        case ops.Pad(before, shape, "constant"):
            x, fill = root.args
            yield _unreshaped(step, x, _shifted(dict(enumerate(before))))
            for axis, (b, d, size) in enumerate(zip(before, x.type.shape, shape, strict=True)):
                inner = (*x.type.shape[:axis], 0, *shape[axis + 1 :])
                shift = dict(enumerate(before[:axis]))
                for length, offset in ((b, 0), (size - b - d, b + d)):
                    if length != 0:
                        domain = (*inner[:axis], length, *inner[axis + 1 :])
                        yield domain, _shifted({**shift, axis: offset}), _scalar(fill)
        case _:
            yield _unreshaped(step, root, _shifted({}))


def _unreshaped(step: Step, value: Value, place: Map) -> tuple[tuple[Dim, ...], Map, Source]:
    """A piece that holds `value`, its reshapes taken into the place where it is stored."""
    while isinstance(value.op, ops.Reshape) and value not in step.reads and value.args:
        inner, outer = value.args[0].type.shape, value.type.shape
        place = _reshaped(inner, outer, place)
        value = value.args[0]
    return value.type.shape, place, _same(value)


def _reshaped(inner: tuple[Dim, ...], outer: tuple[Dim, ...], place: Map) -> Map:
    return lambda index: place(reshape_index(inner, outer, index))


def _shifted(offsets: dict[int, Dim]) -> Map:
    return lambda index: tuple(i + offsets.get(a, 0) for a, i in enumerate(index))


def _same(value: Value) -> Source:
    return lambda index: (value, index)


def _scalar(value: Value) -> Source:
    return lambda index: (value, ())
