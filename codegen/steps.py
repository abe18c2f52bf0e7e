"""A step as one LLVM function: `(out, reads…, dims, part, parts)`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from tbc import ops
from tbc.codegen.dot_steps import emit_dot_step
from tbc.codegen.dots import is_routine
from tbc.codegen.expressions import Emitter, Memory
from tbc.codegen.llvm_text import Function, Module, Val, const
from tbc.codegen.loops import Share, emit_loops
from tbc.codegen.matmul import emit_matmul
from tbc.codegen.reductions import emit_reduction
from tbc.codegen.scans import emit_scan
from tbc.codegen.scatters import emit_scatter
from tbc.codegen.sorts import emit_sort
from tbc.constants import value_of
from tbc.dims import Symbol
from tbc.ir import Value
from tbc.program import Buffer, ByRows, Step, inside, outline
from tbc.target import Target
from tbc.tiles import side_by_side

ATTRIBUTES = 'nounwind "no-builtins"'


def is_hand_shaped(step: Step) -> bool:
    """Whether a step's code is already scheduled, so that LLVM's pass pipeline would only harm."""
    op = step.anchor.op
    if step.copy_to is not None or not isinstance(op, ops.PackedDot | ops.PackedGroupedDot):
        return False
    return not all(is_routine(name) for name in op.kernels)


def emit_step(
    module: Module,
    name: str,
    step: Step,
    buffers: Mapping[Value, Buffer],
    out: Buffer,
    symbols: Sequence[Symbol],
    target: Target,
    shared: bool,
) -> None:
    """Add the function `name` that does a part of a step, or of several where it is `shared`.

    Its arguments: the output, what the step reads in order, the call's dims, part and parts.
    """
    index = f"i{target.index_bits}"
    shares = step.in_place or isinstance(step.anchor.op, ops.SCATTERS)
    alone = "" if shares else "noalias "
    reads = [(f"ptr {alone}readonly", f"r{i}") for i in range(len(step.reads))]
    args = [(f"ptr {alone}".strip(), "out"), *reads, ("ptr readonly", "dims"), (index, "part")]
    attributes = f"noinline {ATTRIBUTES}" if shared else ATTRIBUTES
    f = Function(module, name, [*args, (index, "parts")], linkage="hidden", attributes=attributes)
    pointer, *read_pointers, dims, part, parts = f.args
    memory = {
        value: Memory(read, buffers[value].order, buffers[value].panels)
        for value, read in zip(step.reads, read_pointers, strict=True)
    }
    e = Emitter(f, index, memory)
    for number, symbol in enumerate(symbols):
        place = f.offset(dims, const(index, number), target.size_type)
        size = f.load(target.size_type, place, target.index_bits // 8)
        e.bind_symbol(symbol.name, f.cast("trunc", size, index))
    destination = Memory(pointer, out.order)
    lanes = max(target.vector_bytes // 4, 1)
    share = Share(part, parts)
    with chosen(f, step, read_pointers):
        _emit(e, step, destination, share, lanes, target)
    f.finish()


@contextmanager
def chosen(f: Function, step: Step, reads: Sequence[Val]) -> Iterator[None]:
    """A region that runs only where a step's guards hold; `reads` are where its reads lie."""
    with ExitStack() as stack:
        for condition, holds in step.guards:
            flag = f.load("i8", reads[step.reads.index(condition)], 1)
            test = f.icmp("ne" if holds else "eq", flag, const("i8", 0))
            stack.enter_context(f.when(test))
        yield


def _emit(
    e: Emitter, step: Step, destination: Memory, share: Share, lanes: int, target: Target
) -> None:
    match step.anchor.op:
        case _ if step.root.type.size == 0:
            pass
        case _ if step.copy_to is not None:
            emit_loops(e, step, destination, share, lanes, target)
        case ops.PackedDot() | ops.PackedGroupedDot() | ops.CodedDot():
            emit_dot_step(e, step, destination, share, target)
        case ops.MatMul():
            emit_matmul(e, step, destination, share, target)
        case ops.Reduce():
            emit_reduction(e, step, destination, share, lanes, target.is_small)
        case ops.Cumulate():
            emit_scan(e, step, destination, share, lanes)
        case ops.ScatterElements() | ops.ScatterND():
            emit_scatter(e, step, destination, share, lanes)
        case ops.ArgSort():
            emit_sort(e, step, destination, share)
        case _:
            wide = lanes * side_by_side(inside(step), target)
            emit_loops(e, step, destination, share, wide, target)


def signature(
    step: Step, buffers: Mapping[Value, Buffer], out: Buffer, symbols: Sequence[Symbol]
) -> str:
    """A text that is equal for steps whose code is equal, whatever they read and write."""
    what = outline(step)
    orders = [out.order, *((buffers[v].order, buffers[v].panels) for v in step.reads)]
    scalars = [value_of(s).tobytes().hex() for s in what.scalars]
    bound = [(s.name, str(s.below)) for s in symbols]
    guards = [(step.reads.index(c), holds) for c, holds in step.guards]
    rows = step.division if isinstance(step.division, ByRows) else None
    found = [what.text, orders, scalars, bound, guards, rows, step.in_place]
    return "\n".join(map(str, found))
