"""RNN, GRU and LSTM, as loops over the sequence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from tbc.dims import Dim
from tbc.frontend.context import Context, Lowering, fixed, supported, valid
from tbc.frontend.nodes import Node
from tbc.frontend.ops_index import part
from tbc.frontend.ops_nn import hard, negative_part, softplus_of
from tbc.frontend.rounds import SHORT, Rounds, flipped, item, stacked
from tbc.ir import Value
from tbc.ops import Concat, MatMul, require_equal

Function: TypeAlias = Callable[[Context, Value], Value]
State: TypeAlias = tuple[Value, ...]
"""The hidden state, and of an LSTM the cell state."""

# -- activation functions -------------------------------------------------------------------------

_DEFAULTS: Mapping[str, tuple[float, float]] = {
    "affine": (1.0, 0.0), "leakyrelu": (0.01, 0.0), "thresholdedrelu": (1.0, 0.0),
    "scaledtanh": (1.0, 1.0), "hardsigmoid": (0.2, 0.5), "elu": (1.0, 0.0),
}  # fmt: skip
"""The activations that take alpha and beta, with what these are unless given."""

_PLAIN: Mapping[str, Function] = {
    "relu": lambda c, x: c.binary("max", x, 0),
    "tanh": lambda c, x: c.unary("tanh", x),
    "sigmoid": lambda c, x: c.unary("sigmoid", x),
    "softsign": lambda c, x: c.div(x, c.add(c.unary("abs", x), 1)),
    "softplus": lambda c, x: softplus_of(c, x),
}


def _with_parameters(name: str, alpha: float, beta: float) -> Function:
    match name:
        case "affine":
            return lambda c, x: c.add(c.mul(x, alpha), beta)
        case "leakyrelu":
            return lambda c, x: negative_part(c, x, c.mul(x, alpha))
        case "thresholdedrelu":
            return lambda c, x: c.where(c.binary("ge", x, alpha), x, 0)
        case "scaledtanh":
            return lambda c, x: c.mul(c.unary("tanh", c.mul(x, beta)), alpha)
        case "hardsigmoid":
            return lambda c, x: hard(c, x, alpha, beta)
    return lambda c, x: negative_part(c, x, c.mul(c.sub(c.unary("exp", x), 1), alpha))


def activations(node: Node, count: int, directions: int) -> list[list[Function]]:
    """The activation functions of each direction; alphas and betas go to those that take them."""
    default = {1: ["Tanh"], 2: ["Sigmoid", "Tanh"], 3: ["Sigmoid", "Tanh", "Tanh"]}[count]
    names = [n.lower() for n in node["activations"] or default * directions]
    valid(len(names) >= count * directions, f"{len(names)} activations")
    alphas, betas = list(node["activation_alpha"] or []), list(node["activation_beta"] or [])
    found = []
    for name in names[: count * directions]:
        if name in _PLAIN:
            found.append(_PLAIN[name])
            continue
        supported(name in _DEFAULTS, f"the activation '{name}' is not supported")
        alpha, beta = _DEFAULTS[name]
        alpha = alphas.pop(0) if alphas else alpha
        if name in ("affine", "scaledtanh", "hardsigmoid"):
            beta = betas.pop(0) if betas else beta
        found.append(_with_parameters(name, alpha, beta))
    return [found[i * count : (i + 1) * count] for i in range(directions)]


# -- one direction --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """The parameters of one direction.

    Attributes:
        r: the recurrence weight [gates * hidden, hidden].
        rb: its bias [gates * hidden], where it stays apart from the input's.
        p: the peephole weights [3 * hidden].
        f: the activation functions.
    """

    node: Node
    hidden: int
    r: Value
    rb: Value | None
    p: Value | None
    f: Sequence[Function]

    def gate(self, c: Context, x: Value, index: int, count: int = 1) -> Value:
        """Some gates' columns of x[…, gates * hidden]."""
        lead = x.type.shape[:-1]
        starts = [0] * len(lead) + [index * self.hidden]
        return part(c, x, starts, [*lead, count * self.hidden], [1] * x.type.rank)

    def recurrent(self, c: Context, h: Value, first: int, count: int) -> Value:
        """h times some gates' rows of the recurrence weight."""
        shape = [count * self.hidden, self.hidden]
        rows = part(c, self.r, [first * self.hidden, 0], shape, [1, 1])
        return c(MatMul(), h, c.transpose(rows, (1, 0)))

    def apply(self, c: Context, index: int, x: Value) -> Value:
        """An activation function of x, clipped first where the node says so."""
        limit = self.node["clip"]
        return self.f[index](c, c.clip(x, -limit, limit) if limit else x)


Step: TypeAlias = Callable[[Context, Cell, Value, State], State]


def rnn_step(c: Context, cell: Cell, x: Value, state: State) -> State:
    """f(x + R h)."""
    return (cell.apply(c, 0, c.add(x, cell.recurrent(c, state[0], 0, 1))),)


def gru_step(c: Context, cell: Cell, x: Value, state: State) -> State:
    """(1 - z) * h~ + z * h, with gates z, r and the candidate h~ in this order."""
    (h,) = state
    both = c.add(cell.gate(c, x, 0, 2), cell.recurrent(c, h, 0, 2))
    z, r = (cell.apply(c, 0, cell.gate(c, both, i)) for i in range(2))
    if cell.node["linear_before_reset"]:
        inner = cell.recurrent(c, h, 2, 1)
        inner = inner if cell.rb is None else c.add(inner, cell.gate(c, cell.rb, 2))
        inner = c.mul(r, inner)
    else:
        inner = cell.recurrent(c, c.mul(r, h), 2, 1)
    candidate = cell.apply(c, 1, c.add(cell.gate(c, x, 2), inner))
    return (c.add(c.mul(c.sub(1, z), candidate), c.mul(z, h)),)


def lstm_step(c: Context, cell: Cell, x: Value, state: State) -> State:
    """o * h(C) and C = f * C + i * c, with the gates i, o, f, c in this order."""
    h, memory = state
    gates = c.add(x, cell.recurrent(c, h, 0, 4))
    i, o, f, candidate = (cell.gate(c, gates, g) for g in range(4))
    if cell.p is not None:
        i = c.add(i, c.mul(cell.gate(c, cell.p, 0), memory))
        f = c.add(f, c.mul(cell.gate(c, cell.p, 2), memory))
    i = cell.apply(c, 0, i)
    f = c.sub(1, i) if cell.node["input_forget"] else cell.apply(c, 0, f)
    memory = c.add(c.mul(f, memory), c.mul(i, cell.apply(c, 1, candidate)))
    if cell.p is not None:
        o = c.add(o, c.mul(cell.gate(c, cell.p, 1), memory))
    return c.mul(cell.apply(c, 0, o), cell.f[2](c, memory)), memory


def _one_way(
    c: Context, cell: Cell, step: Step, x: Value, state: State, lengths: Value | None,
    backward: bool,
) -> tuple[Value, State]:  # fmt: skip
    """All hidden states [T, B, hidden] and the last state, for x[T, B, gates * hidden].

    A row that is at its end keeps its state and gives zeros.
    """
    steps = x.type.shape[0]
    if steps == 0:
        return c.broadcast(c.constant(0, x.type.dtype), [0, *state[0].type.shape]), state
    if isinstance(steps, int) and steps <= SHORT:
        rows: list[Value] = []
        for turn in range(steps):
            t = steps - 1 - turn if backward else turn
            state, row = _masked(c, cell, step, item(c, x, t), state, lengths, t)
            rows.append(row)
        return stacked(c, rows[::-1] if backward else rows), state
    rounds = Rounds(c, state, steps)
    inside, position = rounds.inside, steps - 1 - rounds.turn if backward else rounds.turn
    r, rb, p = (v if v is None else rounds.take(v) for v in (cell.r, cell.rb, cell.p))
    assert r is not None
    cell = replace(cell, r=r, rb=rb, p=p)
    lengths = lengths and rounds.take(lengths)
    here = item(inside, rounds.take(x), position)
    state, row = _masked(inside, cell, step, here, tuple(rounds.states), lengths, position)
    last, (y,) = rounds.finish(state, [row])
    return flipped(c, y) if backward else y, tuple(last)


def _masked(
    c: Context, cell: Cell, step: Step, x: Value, state: State, lengths: Value | None, t: Dim
) -> tuple[State, Value]:
    """The next state and the hidden state at position t, of rows that are not at their end."""
    new = step(c, cell, x, state)
    if lengths is None:
        return new, new[0]
    here = c.cast(c.sizes(t), lengths.type.dtype)
    active = c.reshape(c.binary("gt", lengths, here), [lengths.type.shape[0], 1])
    kept = tuple(c.where(active, a, b) for a, b in zip(new, state, strict=True))
    return kept, c.where(active, new[0], 0)


# -- operators ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A recurrent operator: its numbers of gates, states and activation functions, and its step."""

    gates: int
    states: int
    functions: int
    step: Step

    def lower(
        self, c: Context, node: Node, x: Value, w: Value, r: Value, b: Value | None = None,
        lengths: Value | None = None, *rest: Value | None,
    ) -> tuple[Value, ...]:  # fmt: skip
        """Y[T, directions, B, hidden] and the last states [directions, B, hidden]."""
        initial = [*rest[: self.states], *[None] * (self.states - len(rest))]
        p = rest[self.states] if len(rest) > self.states else None
        by_batch = bool(node["layout"])
        if by_batch:
            x = c.transpose(x, (1, 0, 2))
            initial = [None if s is None else c.transpose(s, (1, 0, 2)) for s in initial]
        how = node["direction"]
        valid(how in ("forward", "reverse", "bidirectional"), f"there is no direction '{how}'")
        count = 2 if how == "bidirectional" else 1
        hidden = self._check(x, w, r, count)
        valid(node["hidden_size"] in (None, hidden), f"hidden_size is not {hidden}")
        functions = activations(node, self.functions, count)
        batch = x.type.shape[1]
        zero = c.broadcast(c.constant(0, x.type.dtype), [count, batch, hidden])
        starts = [zero if s is None else s for s in initial]
        ys, lasts = [], []
        for d in range(count):
            bias = None if b is None else item(c, b, d)
            cell = Cell(
                node, hidden, item(c, r, d), None, None if p is None else item(c, p, d),
                functions[d],
            )  # fmt: skip
            inputs, cell = self._inputs(c, cell, x, item(c, w, d), bias)
            state = tuple(item(c, s, d) for s in starts)
            backward = how == "reverse" or d == 1
            y, last = _one_way(c, cell, self.step, inputs, state, lengths, backward)
            ys.append(y)
            lasts.append(last)
        axis = 0 if not by_batch else 1
        y = stacked(c, ys, 1)
        y = c.transpose(y, (2, 0, 1, 3)) if by_batch else y
        return y, *(stacked(c, column, axis) for column in zip(*lasts, strict=True))

    def _check(self, x: Value, w: Value, r: Value, count: int) -> int:
        """The hidden size; raises where the weights do not fit."""
        valid(x.type.rank == w.type.rank == r.type.rank == 3, f"{x.type}, {w.type}, {r.type}")
        hidden = fixed(r.type.shape[2], "the hidden size")
        rows = self.gates * hidden
        for weight in (w, r):
            for got, expected in zip(weight.type.shape[:2], (count, rows), strict=True):
                require_equal(got, expected, "the sizes of a weight")
        require_equal(x.type.shape[2], w.type.shape[2], "the sizes of x and of its weight")
        return hidden

    def _inputs(
        self, c: Context, cell: Cell, x: Value, w: Value, bias: Value | None
    ) -> tuple[Value, Cell]:
        """The part of all gates that x and the biases make, [T, B, gates * hidden]."""
        y = c(MatMul(), x, c.transpose(w, (1, 0)))
        if bias is None:
            return y, cell
        size = self.gates * cell.hidden
        wb, rb = (part(c, bias, [i * size], [size], [1]) for i in range(2))
        if self.gates == 3 and cell.node["linear_before_reset"]:
            cell = replace(cell, rb=rb)
            kept = part(c, rb, [0], [2 * cell.hidden], [1])
            none = c.constant([0] * cell.hidden, bias.type.dtype)
            rb = c(Concat(0), kept, none)
        return c.add(y, c.add(wb, rb)), cell


RNN, GRU, LSTM = Kind(1, 1, 1, rnn_step), Kind(3, 1, 2, gru_step), Kind(4, 2, 3, lstm_step)
OPERATORS: Mapping[str, Lowering] = {"RNN": RNN.lower, "GRU": GRU.lower, "LSTM": LSTM.lower}
