"""Elements of values as LLVM code: the elementwise operations and the index maps of a step.

`Emitter.element(value, index)` computes one element of a value, or a vector of neighbouring ones
when the index moves with the lanes. Index maps cost nothing: they rewrite the index. Values that
lie in memory are loaded, all others are computed in place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tbc import ops
from tbc.codegen.elements import (
    element_constant,
    emit_binary,
    emit_bit_cast,
    emit_cast,
    emit_unary,
    load_element,
    register_type,
    store_element,
)
from tbc.codegen.index_arithmetic import IndexEmitter
from tbc.codegen.llvm_text import Function, Val, const, lanes_of
from tbc.codegen.rounding import codes_of, emit_codes
from tbc.constants import value_of
from tbc.dims import Dim, bounds, static
from tbc.errors import Unsupported
from tbc.indices import Index, broadcast_index, clamp, mapped_index, surely_below, windows_index
from tbc.ir import Value
from tbc.program import strides
from tbc.tiles import Panels
from tbc.types import DType


@dataclass(frozen=True)
class Memory:
    """A value's elements at an address, its axes lying in an order or in panels."""

    pointer: Val
    order: tuple[int, ...]
    panels: Panels | None = None

    def address(self, value: Value, index: Index) -> Dim:
        """The element's position, counted in elements."""
        if self.panels is not None:
            return self.panels.address(*self._ordered(value, index))
        steps = strides(value.type.shape, self.order)
        return sum((i * s for i, s in zip(index, steps, strict=True)), start=0)

    def field(self, value: Value, index: Index) -> Dim | None:
        """Which field of the byte at its address an element is; None where it is no part of one."""
        if self.panels is None or self.panels.fields == 1:
            return None
        return self.panels.field(*self._ordered(value, index))

    def _ordered(self, value: Value, index: Index) -> tuple[tuple[Dim, ...], Index]:
        """The sizes and the index of the axes as they lie in memory."""
        shape = value.type.shape
        return tuple(shape[a] for a in self.order), tuple(index[a] for a in self.order)


class Emitter(IndexEmitter):
    """Emits elements into a function.

    Attributes:
        memory: the values that lie in memory.
    """

    def __init__(self, f: Function, index_type: str, memory: Mapping[Value, Memory]):
        super().__init__(f, index_type)
        self.memory = memory

    # -- memory ---------------------------------------------------------------------------------

    def load(self, memory: Memory, value: Value, index: Index) -> Val:
        """An element from memory, or one for each lane."""
        whole = self._load(memory, value, index)
        field = memory.field(value, index)
        return whole if field is None else self._field(value.type.dtype, whole, field)

    def _field(self, dtype: DType, byte: Val, field: Dim) -> Val:
        """An element of less than a byte, out of the byte of several that holds it."""
        f, top = self.f, const(byte.type, 8 - dtype.bits)
        unit = self.resized(self.index(field), "i8")
        shift = f.splat(f.op("mul", unit, const("i8", dtype.bits)), lanes_of(byte.type))
        low = f.op("lshr", byte, shift)
        if dtype.kind == "u":
            return f.op("and", low, const(byte.type, dtype.range[1]))
        return f.op("ashr", f.op("shl", low, top), top)

    def _load(self, memory: Memory, value: Value, index: Index) -> Val:
        dtype = value.type.dtype
        position = memory.address(value, index)
        step = self.lane_step(position)
        if step == 0:
            return load_element(self.f, dtype, self._pointer(memory, dtype, position))
        if step == 1:
            return load_element(self.f, dtype, self._pointer(memory, dtype, position), self.lanes)
        result = Val(register_type(dtype, self.lanes), "poison")
        for lane in range(self.lanes):
            one = load_element(self.f, dtype, self._pointer(memory, dtype, position, lane))
            result = self.f.insert(result, one, lane)
        return result

    def store(self, memory: Memory, value: Value, index: Index, element: Val) -> None:
        """Store an element, or one for each lane; `value` is whose elements the memory holds."""
        dtype = value.type.dtype
        position = memory.address(value, index)
        step = self.lane_step(position)
        if self.lanes == 1 or step == 1:
            element = self.f.splat(element, self.lanes) if lanes_of(element.type) == 1 else element
            store_element(self.f, dtype, element, self._pointer(memory, dtype, position))
            return
        for lane in range(self.lanes):
            one = self.f.extract(element, lane) if lanes_of(element.type) > 1 else element
            store_element(self.f, dtype, one, self._pointer(memory, dtype, position, lane))

    def address(self, memory: Memory, value: Value, index: Index) -> Val:
        """The address of an element."""
        return self._pointer(memory, value.type.dtype, memory.address(value, index))

    def _pointer(self, memory: Memory, dtype: DType, position: Dim, lane: int = 0) -> Val:
        step = self.lane_step(position) if lane else None
        elem = {1: "i8", 2: "i16", 4: "i32", 8: "i64"}[dtype.bytes]
        if step is not None:
            base = self.f.offset(memory.pointer, self.index(position), elem)
            return self.f.offset(base, const(self.index_type, lane * step), elem)
        return self.f.offset(memory.pointer, self.index(position, lane), elem)

    # -- elements -------------------------------------------------------------------------------

    def bind(self, value: Value, element: Val) -> None:
        """Within this scope, the element of `value` at whatever index is `element`."""
        self.keep(value, element)

    def element(self, value: Value, index: Index) -> Val:
        """The element of `value` at an index: a scalar, or a vector where the index varies."""
        bound = self.cached(value)
        if bound is not None:
            return bound
        key = (value, index)
        found = self.cached(key)
        if found is None:
            found = self._element(value, index)
            self.keep(key, found)
        return found

    def _element(self, value: Value, index: Index) -> Val:
        if (memory := self.memory.get(value)) is not None:
            return self.load(memory, value, index)
        if value.is_constant and value.type.size == 1:
            return element_constant(value.type.dtype, value_of(value).reshape(-1)[0])
        match value.op:
            case ops.Dims(dims, shape):
                return self._dims(dims, shape, index)
            case ops.Iota():
                return self.dim_element(index[0])
            case ops.Unary(fn):
                return emit_unary(self.f, fn, value.args[0].type.dtype, self._arg(value, 0, index))
            case ops.Cast(dtype):
                if (code := self._code(value, index)) is not None:
                    return code
                source = value.args[0]
                if isinstance(source.op, ops.Iota) and dtype.is_int:
                    return self.dim_element(index[0], dtype)
                return emit_cast(self.f, source.type.dtype, dtype, self._arg(value, 0, index))
            case ops.BitCast(dtype):
                bits = self._arg(value, 0, index)
                return emit_bit_cast(self.f, value.args[0].type.dtype, dtype, bits)
            case ops.Binary(fn):
                a, b = self._same_lanes(self._arg(value, 0, index), self._arg(value, 1, index))
                return emit_binary(self.f, fn, value.args[0].type.dtype, a, b)
            case ops.Where():
                if (one := self._chosen(value, index)) is not None:
                    return one
                args = (self._arg(value, i, index) for i in range(3))
                return self.f.select(*self._same_lanes(*args))
            case _ if isinstance(value.op, ops.GATHERS):
                return self.element(value.args[0], self._gathered(value, index))
            case ops.Concat(axis):
                return self._concat(value, axis, index)
            case ops.Pad() if value.op.mode == "constant":
                inner = tuple(i - b for i, b in zip(index, value.op.before, strict=True))
                return self._guarded(value, inner)
            case ops.Windows():
                inner = windows_index(value, index)
                if value.op.fits(value.args[0].type):
                    return self.element(value.args[0], inner)
                return self._guarded(value, inner)
            case _ if isinstance(value.op, ops.INDEX_MAPS):
                return self.element(value.args[0], mapped_index(value, index))
            case _:
                raise Unsupported(f"no code for {type(value.op).__name__}", node=value.origin)

    def _arg(self, value: Value, number: int, index: Index) -> Val:
        arg = value.args[number]
        return self.element(arg, broadcast_index(arg, index))

    def _code(self, value: Value, index: Index) -> Val | None:
        """A cast of a rounded value by integer arithmetic, where that takes less.

        What lies in memory is taken from there: constants too are others there, call by call.
        """
        codes = codes_of(value) if self.f.module.rounds_to_int else None
        if codes is None or any(self._is_at_hand(v) for v in codes.steps):
            return None
        x = self.element(codes.x, index)
        return None if lanes_of(x.type) > 1 else emit_codes(self.f, codes, x, value.type.dtype.bits)

    def _is_at_hand(self, value: Value) -> bool:
        return value in self.memory or self.cached(value) is not None

    def _chosen(self, value: Value, index: Index) -> Val | None:
        """The element of the side that one condition chooses, the only one that is read.

        None where the condition is an array, or a side does not lie in memory in such an order.
        """
        condition, *sides = value.args
        places = [self.memory.get(s) for s in sides]
        if condition.type.size != 1 or places[0] is None or places[1] is None:
            return None
        at = [broadcast_index(s, index) for s in sides]
        positions = [p.address(s, i) for p, s, i in zip(places, sides, at, strict=True) if p]
        steps = {self.lane_step(p) for p in positions}
        if steps not in ({0}, {1}):
            return None
        lanes = self.lanes if steps == {1} else 1
        yes, no = (self.address(p, s, i) for p, s, i in zip(places, sides, at, strict=True) if p)
        holds = self.element(condition, (0,) * condition.type.rank)
        return load_element(self.f, value.type.dtype, self.f.select(holds, yes, no), lanes)

    def _same_lanes(self, *elements: Val) -> tuple[Val, ...]:
        lanes = max(lanes_of(e.type) for e in elements)
        return tuple(self.f.splat(e, lanes) if lanes_of(e.type) == 1 else e for e in elements)

    def _dims(self, dims: Sequence[Dim], shape: tuple[int, ...], index: Index) -> Val:
        flat: Dim = 0
        for i, size in zip(index, shape, strict=True):
            flat = flat * size + i
        if isinstance(flat, int):
            return self.dim_element(dims[flat])
        where = self.dim_element(flat)
        result: Val | None = None
        for number, dim in enumerate(dims):
            one = self.f.splat(self.dim_element(dim), lanes_of(where.type))
            if result is None:
                result = one
            else:
                here = self.f.icmp("eq", where, const(where.type, number))
                result = self.f.select(here, one, result)
        assert result is not None
        return result

    def _concat(self, value: Value, axis: int, index: Index) -> Val:
        start: Dim = 0
        result: Val | None = None
        for arg in value.args:
            inner = (*index[:axis], index[axis] - start, *index[axis + 1 :])
            here = self._clamped(arg, inner, (axis,))
            if result is None:
                result = here
            else:
                position, first = self.dim_element(index[axis]), self.dim_element(start)
                inside = self.f.icmp("sge", *self._same_lanes(position, first))
                result = self.f.select(*self._same_lanes(inside, here, result))
            start = start + arg.type.shape[axis]
        assert result is not None
        return result

    def _guarded(self, value: Value, inner: Index) -> Val:
        """The first argument at `inner`, or the second, a scalar, where that lies outside."""
        x, fill = value.args
        axes = [
            a
            for a, (i, d) in enumerate(zip(inner, x.type.shape, strict=True))
            if bounds(i)[0] < 0 or not surely_below(i, d)
        ]
        element = self._clamped(x, inner, axes)
        for axis in axes:
            position, size = self.dim_element(inner[axis]), self.dim_element(x.type.shape[axis])
            # as unsigned numbers, negative positions lie behind the end too
            inside = self.f.icmp("ult", *self._same_lanes(position, size))
            element = self.f.select(*self._same_lanes(inside, element, self.element(fill, ())))
        return element

    def _clamped(self, x: Value, inner: Index, axes: Sequence[int]) -> Val:
        """An element with the index along some axes brought into range."""
        safe = list(inner)
        for axis in axes:
            safe[axis] = clamp(inner[axis], x.type.shape[axis])
        return self.element(x, tuple(safe))

    def _gathered(self, value: Value, index: Index) -> Index:
        """The index into the first argument, with what the indices say as new symbols."""
        x, indices = value.args
        if isinstance(value.op, ops.Gather):
            axis, rank = value.op.axis, indices.type.rank
            where = self.element(indices, index[axis : axis + rank])
            chosen = self.runtime_index(where, x.type.shape[axis])
            return (*index[:axis], chosen, *index[axis + rank :])
        if isinstance(value.op, ops.GatherElements):
            axis = value.op.axis
            chosen = self.runtime_index(self.element(indices, index), x.type.shape[axis])
            return (*index[:axis], chosen, *index[axis + 1 :])
        assert isinstance(value.op, ops.GatherND)
        batch, outer = value.op.batch_dims, index[: indices.type.rank - 1]
        axes = x.type.shape[batch:]
        return (*index[:batch], *self.point(indices, outer, axes), *index[len(outer) :])

    def point(self, points: Value, index: Index, sizes: Sequence[Dim]) -> Index:
        """The last axis of `points` at an index, as an index into leading axes of these sizes."""
        depth = static(points.type.shape[-1], "a depth of indices")
        return tuple(
            self.runtime_index(self.element(points, (*index, d)), sizes[d]) for d in range(depth)
        )
