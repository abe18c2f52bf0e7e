"""The exact meaning of every operation and graph: what compiled code must compute, bit for bit.

Constant folding, the tests of passes and kernels, and `tbc verify` evaluate with it. Arrays have
the NumPy type of their `DType`. f32 is IEEE in the order of the operations; NaNs are equal whatever
their payload.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tbc import ops
from tbc import reference_arrays as arrays
from tbc import reference_elementwise as elementwise
from tbc import reference_order as orders
from tbc import reference_sums as sums
from tbc.dims import Dim, Expr, Symbol
from tbc.dims import evaluate as evaluate_dim
from tbc.ir import Graph, Op, Value, substitute_op, topological

Array: TypeAlias = npt.NDArray[Any]
Watch: TypeAlias = Callable[[Value, Array], None]
Loops: TypeAlias = dict[tuple[Any, ...], list[Array]]
"""All results of the loops that have run, by the loop and its arguments."""

_NONE: Mapping[Any, Any] = MappingProxyType({})

MEANING: Mapping[type, Callable[..., Array]] = {
    ops.Const: lambda op: op.data.read(),
    ops.Dims: arrays.sizes,
    ops.Iota: arrays.iota,
    ops.Unary: elementwise.unary,
    ops.Binary: elementwise.binary,
    ops.Where: elementwise.where,
    ops.Cast: elementwise.cast,
    ops.BitCast: elementwise.bit_cast,
    ops.Broadcast: arrays.broadcast,
    ops.Reshape: arrays.reshape,
    ops.Transpose: arrays.transpose,
    ops.Slice: arrays.strided,
    ops.Concat: arrays.concat,
    ops.Pad: arrays.pad,
    ops.Windows: arrays.windows,
    ops.Gather: arrays.gather,
    ops.GatherND: arrays.gather_nd,
    ops.GatherElements: arrays.gather_elements,
    ops.ScatterElements: orders.scatter_elements,
    ops.ScatterND: orders.scatter_nd,
    ops.ArgSort: orders.argsort,
    ops.Reduce: sums.reduce,
    ops.Cumulate: sums.cumulate,
    ops.MatMul: sums.matmul,
    ops.Dot: sums.dot,
    ops.GroupedDot: sums.grouped_dot,
    ops.Lift: sums.lift,
    ops.Pack: sums.pack,
    ops.PackedDot: sums.packed_dot,
    ops.CodedDot: sums.coded_dot,
    ops.PackedGroupedDot: sums.packed_grouped_dot,
}
"""What each operation computes from its arguments, once its sizes are numbers.

But for `Input`, which is given, and `Repeat`, which runs a graph.
"""


def evaluate(op: Op, args: Sequence[Array], dims: Mapping[str, int] = _NONE) -> Array:
    """The result of one operation but `Repeat`; `dims` are the symbols' values.

    Raises:
        ValueError: a symbol has no value, or a size or index does not fit at these values.
    """
    with np.errstate(all="ignore"):
        try:
            return np.asarray(MEANING[type(op)](substitute_op(op, dims), *args))
        except IndexError as error:
            raise ValueError(str(error)) from error


# -- symbols --------------------------------------------------------------------------------------


def bind_symbols(inputs: Iterable[Value], feeds: Mapping[str, Array]) -> dict[str, int]:
    """The symbols' values, by name, from the shapes of the inputs' arrays.

    Raises:
        ValueError: an input is missing, has another element type or rank, or a size that does not
            fit its symbol's range, another axis or a number; the message names input and axis.
    """
    return _bind(_fed(inputs, feeds), _NONE)


def _fed(inputs: Iterable[Value], feeds: Mapping[str, Array]) -> dict[Value, Array]:
    """The inputs' arrays."""
    arrays = {i: feeds.get(_name(i)) for i in inputs}
    if missing := [_name(i) for i, array in arrays.items() if array is None]:
        raise ValueError(f"no array for input {', '.join(missing)}")
    return {i: array for i, array in arrays.items() if array is not None}


def _name(value: Value) -> str:
    return value.op.name if isinstance(value.op, ops.Input) else f"v{value.number}"


def _bind(leaves: Mapping[Value, Array], dims: Mapping[str, int]) -> dict[str, int]:
    found = dict(dims)
    derived: list[tuple[str, Dim, int]] = []
    for value, array in leaves.items():
        name, type = f"input {_name(value)}", value.type
        if array.dtype != type.dtype.numpy or array.ndim != type.rank:
            given = f"{array.dtype}[{', '.join(map(str, array.shape))}]"
            raise ValueError(f"{name} is {given}, not {type}")
        for axis, (dim, size) in enumerate(zip(type.shape, array.shape, strict=True)):
            where = f"axis {axis} of {name}"
            match dim:
                case Expr((((Symbol(symbol, lo, hi),), 1),)):
                    if found.setdefault(symbol, size) != size:
                        raise ValueError(f"{where} is {size}, but {symbol} is {found[symbol]}")
                    if size < lo or (hi is not None and size > hi):
                        most = "" if hi is None else hi
                        raise ValueError(f"{where} is {size}, outside {symbol} = {lo}..{most}")
                case _:
                    derived.append((where, dim, size))
    for where, dim, size in derived:
        try:
            expected = evaluate_dim(dim, found)
        except (KeyError, ZeroDivisionError) as error:
            raise ValueError(f"{where} is {dim}: {error.args[0]}") from error
        if expected != size:
            known = "" if isinstance(dim, int) else f" = {dim}"
            raise ValueError(f"{where} is {size}, not {expected}{known}")
    return found


# -- graphs ---------------------------------------------------------------------------------------


def run(
    values: Sequence[Value],
    feeds: Mapping[str, Array],
    known: Mapping[Value, Array] = _NONE,
    dims: Mapping[str, int] = _NONE,
    watch: Watch | None = None,
) -> list[Array]:
    """The values, from the arrays of the inputs (by name) that they need.

    Args:
        values: what to compute.
        feeds: the inputs by name.
        known: values that are given, and so are not computed from their arguments.
        dims: symbols' values, where these arrays do not tell them all.
        watch: called with every value that is needed and its array, arguments before users.

    Raises:
        ValueError: as `bind_symbols` and `evaluate` do.
    """
    order = topological(values, lambda v: v in known)
    inputs = [v for v in order if isinstance(v.op, ops.Input) and v not in known]
    given = _fed(inputs, feeds) | {v: known[v] for v in order if v in known}
    return _run(values, order, given, _bind(given, dims), watch)


def run_graph(
    graph: Graph, feeds: Mapping[str, Array], watch: Watch | None = None
) -> dict[str, Array]:
    """The outputs by name, of a first call; `watch` is called as by `run`.

    Raises:
        ValueError: as `run` does, or a check of the graph finds an input that it cannot accept.
    """
    return _call(graph, feeds, zero_states(graph), watch)[0]


def run_calls(
    graph: Graph, calls: Iterable[Mapping[str, Array]]
) -> Iterator[tuple[dict[str, Array], dict[str, Array]]]:
    """For calls one after the other, the outputs by name, and the next states by their outputs'.

    Raises:
        ValueError: as `run_graph`.
    """
    states = zero_states(graph)
    for feeds in calls:
        outputs, states = _call(graph, feeds, states, None)
        yield outputs, {s.name: states[s.old] for s in graph.states}


def zero_states(graph: Graph) -> dict[Value, Array]:
    """What the states hold before the first call."""
    types = {s.old: s.old.type for s in graph.states}
    return {
        old: np.zeros([evaluate_dim(d, _NONE) for d in t.shape], t.dtype.numpy)
        for old, t in types.items()
    }


def _call(
    graph: Graph, feeds: Mapping[str, Array], states: Mapping[Value, Array], watch: Watch | None
) -> tuple[dict[str, Array], dict[Value, Array]]:
    """The outputs by name, and the next states by what they are the next of."""
    given = _fed(graph.inputs, feeds)
    if unknown := sorted(set(feeds) - {_name(i) for i in given}):
        raise ValueError(f"no input is called {', '.join(unknown)}")
    dims = _bind(given, _NONE)
    given |= states
    if any(_run(graph.checks, topological(graph.checks), given, dims, None)):
        raise ValueError("an input holds a value that the model cannot accept")
    values = [*(v for _, v in graph.outputs), *(s.next for s in graph.states)]
    results = _run(values, topological(values), given, dims, watch)
    outputs = dict(zip((name for name, _ in graph.outputs), results, strict=False))
    olds = (s.old for s in graph.states)
    return outputs, dict(zip(olds, results[len(graph.outputs) :], strict=True))


def _run(
    values: Sequence[Value],
    order: Sequence[Value],
    given: Mapping[Value, Array],
    dims: Mapping[str, int],
    watch: Watch | None,
) -> list[Array]:
    """The values; `order` is what they need, and an array is dropped after its last use."""
    left = Counter(values)
    for value in order:
        if value not in given:
            left.update(value.args)
    env: dict[Value, Array] = {}
    loops: Loops = {}
    for value in order:
        env[value] = given[value] if value in given else _computed(value, env, dims, loops)
        if watch:
            watch(value, env[value])
        for arg in () if value in given else value.args:
            left[arg] -= 1
            if not left[arg]:
                del env[arg]
    return [env[v] for v in values]


def _computed(
    value: Value, env: Mapping[Value, Array], dims: Mapping[str, int], loops: Loops
) -> Array:
    args = [env[a] for a in value.args]
    try:
        shape = tuple(evaluate_dim(d, dims) for d in value.type.shape)
        if 0 in shape:
            return np.empty(shape, value.type.dtype.numpy)
        if isinstance(value.op, ops.Repeat):
            result = _of_loop(value.op, value.args, args, dims, loops)
        else:
            result = evaluate(value.op, args, dims)
    except (ValueError, KeyError, ZeroDivisionError) as error:
        raise ValueError(f"{value}: {error.args[0]}") from error
    if result.shape != shape or result.dtype != value.type.dtype.numpy:
        raise ValueError(f"{value}: the result is {result.dtype}{list(result.shape)}")
    return result


# -- loops ----------------------------------------------------------------------------------------


def _of_loop(
    op: ops.Repeat,
    args: tuple[Value, ...],
    arrays: Sequence[Array],
    dims: Mapping[str, int],
    loops: Loops,
) -> Array:
    """One result of a loop, whose rounds are computed once for all of its results."""
    key = (replace(op, which=0), *args)
    if key not in loops:
        loops[key] = repeat(op, arrays, dims)
    return loops[key][op.which]


def repeat(op: ops.Repeat, args: Sequence[Array], dims: Mapping[str, int]) -> list[Array]:
    """All results of a loop."""
    body = op.body
    rounds = count() if op.trip is None else range(evaluate_dim(op.trip, dims))
    order = topological(body.results)
    states, captured = list(args[: op.states]), args[op.states :]
    rows: list[list[Array]] = [[] for _ in range(op.rows)]
    wrong = False
    for turn in rounds:
        if op.conditional and not states[0]:
            break
        inner = dims if op.index is None else {**dims, op.index.name: turn}
        given = dict(zip(body.inputs, (*states, *captured), strict=True))
        results = _run(body.results, order, given, inner, None)
        wrong |= any(results[len(body.outputs) :])
        states = results[: op.states]
        for row, result in zip(rows, results[op.states : len(body.outputs)], strict=True):
            row.append(result)
    stacked = []
    for row, (_, value) in zip(rows, body.outputs[op.states :], strict=True):
        shape = (len(row), *(evaluate_dim(d, dims) for d in value.type.shape))
        stacked.append(np.array(row, value.type.dtype.numpy).reshape(shape))
    return [*states, *stacked, np.array(wrong)]
