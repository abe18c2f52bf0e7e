"""Steps around a low-bit dot: the kernel's skeleton, and the epilogue on its accumulators."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tbc import ops
from tbc.codegen.dots import Epilogue, emit_dot, emit_grouped_dot, piece_of
from tbc.codegen.dots_code import emit_code
from tbc.codegen.expressions import Emitter, Memory
from tbc.codegen.llvm_text import Function, Val, const, lanes_of
from tbc.codegen.loops import Share
from tbc.codegen.patch_rows import gather_patch, row_sum, widen
from tbc.dims import Dim, Expr, Symbol, bounds
from tbc.ir import Value
from tbc.kernels import BY_NAME, Kernel
from tbc.patches import is_row_sum
from tbc.program import ByRows, Step, inside, reshapes, root_index
from tbc.straight import weights_of
from tbc.target import Target
from tbc.types import DType

_MOST_HALVES = 1024
"""Activations that may be widened on the stack, to 2 KiB."""

ROWS_TO_SPLIT = 64
"""From this many rows on, the parts of a phase divide the rows, below it the weight's blocks."""


def emit_dot_step(e: Emitter, step: Step, out: Memory, share: Share, target: Target) -> None:
    """A step whose anchor is a dot of low-bit weights."""
    op = step.anchor.op
    if isinstance(op, ops.CodedDot):
        _emit_coded(e, step, op, out, share, target)
        return
    assert isinstance(op, ops.PackedDot | ops.PackedGroupedDot)
    rows = step.anchor.type.shape[0]
    blocks = op.layout.blocks(op.n)
    if isinstance(op, ops.PackedDot) and op.by_row:
        _emit_by_row(e, step, op, out, share, target)
        return
    x, packed, *rest = (_pointer(e, a) for a in step.anchor.args)
    common: dict[str, Any] = {
        "target": target,
        "x": x,
        "x_stride": op.layout.padded_k(op.k),
        "packed": packed,
        "epilogue": _epilogue(e, step, out, piece_of(target)),
        "index": e.index_type,
    }
    all_blocks = const(e.index_type, 0), e.index(blocks)
    for kernel, low, high in _by_rows(e, op, rows):
        divides = isinstance(step.division, ByRows) or high >= ROWS_TO_SPLIT
        common["rows"] = (0 if divides else low, high)
        if isinstance(step.division, ByRows):
            (m_lo, m_hi), (b_lo, b_hi) = share.of(e, rows, step.division.multiple), all_blocks
        else:
            (m_lo, m_hi), (b_lo, b_hi) = share.of_product(
                e, (rows, 1), (blocks, kernel.nr), ROWS_TO_SPLIT
            )
        common |= {"m_lo": m_lo, "m_hi": m_hi, "block_lo": b_lo, "block_hi": b_hi}
        if isinstance(op, ops.PackedDot):
            unsigned = step.anchor.args[0].type.dtype is DType.u8
            emit_dot(e.f, kernel, op.layout, op.k, unsigned=unsigned, **common)
        else:
            scales, xsum, x_scales = (*rest, None, None)[:3]
            common |= {"scales": scales, "xsum": xsum, "x_scales": x_scales}
            emit_grouped_dot(e.f, kernel, op.layout, op.k, **common)


def _emit_by_row(
    e: Emitter, step: Step, op: ops.PackedDot, out: Memory, share: Share, target: Target
) -> None:
    """The dot row by row: a patch is brought together on the stack; summed, and multiplied."""
    f, (x, weights) = e.f, step.anchor.args
    sums = [value for value in inside(step) if is_row_sum(value, x)]
    epilogue = _epilogue(e, step, out, piece_of(target))
    zero, one = const(e.index_type, 0), const(e.index_type, 1)
    width, unsigned = op.layout.padded_k(op.k), x.type.dtype is DType.u8
    kernel = BY_NAME[op.kernels[0]]
    halves = _wants_halves(kernel, op)
    room = _room(e, x, width * (2 if halves else 1), always=halves)
    gathered = f.offset(room, const(e.index_type, width)) if halves else room
    with _each_row(e, x, op.k, gathered, width, share, target) as (number, row):
        if halves:
            total = widen(f, row, room, width, unsigned, e.index_type)
            row = room
        elif sums:
            total = row_sum(f, row, width, unsigned, target, e.index_type)
        for value in sums:
            e.bind(value, total)

        def store(f: Function, _: Val, first: Val, acc: Val) -> None:
            epilogue(f, number, first, acc)

        emit_dot(
            f,
            kernel,
            op.layout,
            op.k,
            target=target,
            x=row,
            x_stride=width,
            packed=_pointer(e, weights),
            m_lo=zero,
            m_hi=one,
            rows=(1, 1),
            block_lo=zero,
            block_hi=e.index(op.layout.blocks(op.n)),
            epilogue=store,
            index=e.index_type,
            unsigned=unsigned,
            halves=halves,
        )


def _wants_halves(kernel: Kernel, op: ops.PackedDot) -> bool:
    """Whether a row is widened once for all blocks of weights: where there are several."""
    is_digits = op.layout.coding.is_fraction
    few = op.layout.padded_k(op.k) <= _MOST_HALVES
    return kernel.dot.name == "smlad" and not is_digits and few and op.layout.blocks(op.n) > 1


def _emit_coded(
    e: Emitter, step: Step, op: ops.CodedDot, out: Memory, share: Share, target: Target
) -> None:
    """The dot with weights that are code, row by row, its sums on the stack."""
    f, (x,) = e.f, step.anchor.args
    extends = "zext" if x.type.dtype is DType.u8 else "sext"
    sums = f.alloca("i32", op.n, 4)
    m, n = step.anchor.type.shape
    row, column = (Symbol(e.f.fresh(name), 0, None, size) for name, size in (("m", m), ("n", n)))
    end = const(e.index_type, op.n)
    with _each_row(e, x, op.k, _room(e, x, op.k), op.k, share, target) as (number, start):
        emit_code(f, weights_of(op.weights, op.n), start, sums, target, extends)
        with (
            f.loop(const(e.index_type, 0), end) as loop,
            e.scope(**{row.name: number, column.name: loop.index}),
        ):
            e.bind(step.anchor, f.load("i32", f.offset(sums, loop.index, "i32"), 4))
            index = root_index(step, (0 if m == 1 else Expr.of(row), Expr.of(column)))
            e.store(out, step.root, index, e.element(step.root, index))


def _is_held(e: Emitter, x: Value) -> bool:
    """Whether x is in memory, row behind row."""
    return any(value in e.memory for value in reshapes(x))


def _room(e: Emitter, x: Value, size: int, always: bool = False) -> Val:
    """Bytes on the stack for a row of x; where x is in memory, only if they are needed `always`."""
    return _pointer(e, x) if _is_held(e, x) and not always else e.f.alloca("i8", size, 16)


@contextmanager
def _each_row(
    e: Emitter, x: Value, k: int, room: Val, width: int, share: Share, target: Target
) -> Iterator[tuple[Val, Val]]:
    """A loop over this part's rows of x: the row's number, and where its bytes lie.

    Where x is in memory nowhere, they are put into `room`, with zeros behind them up to the width.
    """
    f = e.f
    held = _is_held(e, x)
    with f.loop(*share.of(e, x.type.shape[0])) as loop, e.scope():
        if held:
            place = f.op("mul", loop.index, const(e.index_type, width))
            yield loop.index, f.offset(_pointer(e, x), place)
            return
        gather_patch(e, x, loop.index, room, target)
        for at in range(k, width):
            f.store(const("i8", 0), f.offset(room, const(e.index_type, at)), 1)
        yield loop.index, room


_MOST_ROWS = 1 << 30


def _by_rows(
    e: Emitter, op: ops.PackedDot | ops.PackedGroupedDot, rows: Dim
) -> Iterator[tuple[Kernel, int, int]]:
    """Each kernel, with the least and the greatest number of rows that it is for.

    What is emitted after a kernel is yielded runs only for those.
    """
    f = e.f
    least, most = (int(min(b, _MOST_ROWS)) for b in bounds(rows))
    spans = zip((least, *op.starts), (*op.starts, most + 1), strict=True)
    for name, (low, end) in zip(op.kernels, spans, strict=True):
        kernel = BY_NAME[name]
        if not op.starts:
            yield kernel, low, end - 1
            continue
        number = e.index(rows)
        above = f.icmp("sge", number, const(number.type, 0 if low == least else low))
        below = f.icmp("slt", number, const(number.type, end))
        with f.when(f.op("and", above, below)):
            yield kernel, low, end - 1


def _pointer(e: Emitter, value: Value) -> Val:
    """Where an operand lies, which may be named by a reshape of it."""
    while value not in e.memory and isinstance(value.op, ops.Reshape):
        value = value.args[0]
    if value in e.memory:
        return e.memory[value].pointer
    element = e.element(value, (0,) * value.type.rank)  # a constant of one element has no buffer
    place = e.f.alloca(element.type, align=4)
    e.f.store(element, place, 4)
    return place


def _epilogue(e: Emitter, step: Step, out: Memory, piece: int) -> Epilogue:
    """What becomes of the accumulators of a piece: the step's root, computed and stored."""
    op = step.anchor.op
    assert isinstance(op, ops.PackedDot | ops.PackedGroupedDot)
    m, n = step.anchor.type.shape
    row = Symbol(e.f.fresh("m"), 0, None, m)
    column = Symbol(e.f.fresh("n"), 0, None, n)
    rest = op.n % piece

    def store(first: Val, acc: Val) -> None:
        with e.lanes_along(column, first, lanes_of(acc.type)):
            e.bind(step.anchor, acc)
            index = root_index(step, (0 if m == 1 else Expr.of(row), Expr.of(column)))
            e.store(out, step.root, index, e.element(step.root, index))

    def tail(first: Val, acc: Val) -> None:
        """The rows that the last block really has, in ever narrower vectors."""
        done, width = 0, piece
        while done < rest:
            width //= 2
            if done + width <= rest:
                lanes = list(range(done, done + width))
                part = e.f.shuffle(acc, acc, lanes) if width > 1 else e.f.extract(acc, done)
                store(e.f.op("add", first, const(first.type, done)), part)
                done += width

    def epilogue(f: Function, m_index: Val, first: Val, acc: Val) -> None:
        with e.scope(**{row.name: m_index}):
            if op.n % op.layout.rows == 0:
                store(first, acc)
                return
            last = const(first.type, op.n - rest)
            with f.when(f.icmp("slt", first, last)):
                store(first, acc)
            if rest:
                with f.when(f.icmp("eq", first, last)):
                    tail(first, acc)

    return epilogue
