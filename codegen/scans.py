"""Running sums and products: serial along their axis, lanes along others where memory runs."""

from __future__ import annotations

from collections.abc import Iterator

from tbc import ops
from tbc.codegen.elements import element_constant, emit_binary, narrow_float, widen_float
from tbc.codegen.expressions import Emitter, Memory
from tbc.codegen.llvm_text import const, lanes_of
from tbc.codegen.loops import Share, accesses, irregular, nest
from tbc.dims import Dim, Expr, Symbol
from tbc.indices import Index
from tbc.program import Step, loop_order, root_index
from tbc.types import DType


def emit_scan(e: Emitter, step: Step, out: Memory, share: Share, lanes: int) -> None:
    """A step whose anchor is a Cumulate."""
    anchor, op, f = step.anchor, step.anchor.op, e.f
    assert isinstance(op, ops.Cumulate)
    (x,) = anchor.args
    source, shape = x.type.dtype, anchor.type.shape
    dtype = DType.f32 if source in (DType.f16, DType.bf16) else source
    fn, identity = ("add", 0) if op.kind == "sum" else ("mul", 1)
    size = shape[op.axis]
    axes = tuple(a for a in loop_order(step, out.order) if a != op.axis)
    domain = tuple(shape[a] for a in axes)

    def at(index: Index, position: Dim) -> Index:
        result: list[Dim] = [position] * len(shape)
        for axis, i in zip(axes, index, strict=True):
            result[axis] = i
        return tuple(result)

    def visit(index: Index) -> None:
        r = Symbol(f.fresh("r"), 0, None, size)
        start = f.splat(element_constant(dtype, identity), e.lanes)
        with (
            f.loop(const(e.index_type, 0), e.index(size), carried=[start]) as loop,
            e.scope(**{r.name: loop.index}),
        ):
            here = at(index, size - 1 - Expr.of(r) if op.reverse else Expr.of(r))
            term = widen_float(f, source, e.element(x, here))
            term = f.splat(term, e.lanes) if lanes_of(term.type) == 1 else term
            (before,) = loop.carried
            after = emit_binary(f, fn, dtype, before, term)
            e.bind(anchor, narrow_float(f, source, before if op.exclusive else after))
            place = root_index(step, here)
            e.store(out, step.root, place, e.element(step.root, place))
            loop.yield_(after)

    def probe(index: Index) -> Iterator[Dim | None]:
        here = at(index, Expr.of(Symbol("position", 0, None, size)))
        place = root_index(step, here)
        yield out.address(step.root, place)
        yield from accesses(e, step.root, place, anchor)
        yield from accesses(e, x, here)

    lane = Symbol("probe", 0, None, domain[-1] if domain else 1)
    inner = tuple(Expr.of(lane) if a == axes[-1] else 0 for a in axes)
    even = not any(irregular(position, lane) for position in probe(inner))
    nest(e, domain, share, probe, visit, lanes if even else 1)
