"""Einsum: diagonals and sums of single operands, then products of pairs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from tbc.dims import Dim, product
from tbc.frontend.context import Context, Lowering, fixed, valid
from tbc.frontend.nodes import Node
from tbc.frontend.ops_index import part
from tbc.ir import Value
from tbc.ops import MatMul, require_equal

Labels: TypeAlias = tuple[str, ...]
"""An axis each: a letter, or "...k" for the k-th axis from the right of the ellipsis."""


def parse(equation: str, ranks: Sequence[int]) -> tuple[list[Labels], Labels]:
    """The labels of each operand and of the result.

    Raises:
        InvalidModel: the equation is not one, or does not fit operands of these ranks.
    """
    text = equation.replace(" ", "")
    sides = text.split("->")
    terms = sides[0].split(",")
    well_formed = all(re.fullmatch(r"[A-Za-z]*(\.\.\.)?[A-Za-z]*", t) for t in (*terms, *sides[1:]))
    valid(len(sides) <= 2 and well_formed, f"'{equation}' is no equation")
    valid(len(terms) == len(ranks), f"'{equation}' has {len(terms)} terms for {len(ranks)} inputs")
    operands = [_expanded(term, rank) for term, rank in zip(terms, ranks, strict=True)]
    every = [label for labels in operands for label in labels]
    wide = sorted({x for x in every if "." in x}, key=lambda x: -int(x[3:]))
    if len(sides) == 1:
        single = sorted(x for x in set(every) if "." not in x and every.count(x) == 1)
        return operands, (*wide, *single)
    before, dots, after = sides[1].partition("...")
    result = (*before, *(wide if dots else ()), *after)
    valid(len(set(result)) == len(result), f"'{equation}' repeats an axis of its result")
    valid(set(result) <= set(every), f"'{equation}' has an axis that no input has")
    return operands, result


def _expanded(term: str, rank: int) -> Labels:
    before, dots, after = term.partition("...")
    wide = rank - len(before) - len(after)
    valid(wide == 0 or (bool(dots) and wide > 0), f"the term '{term}' does not fit rank {rank}")
    return (*before, *(f"...{k}" for k in reversed(range(wide))), *after)


def diagonal(c: Context, x: Value, labels: Labels) -> tuple[Value, Labels]:
    """x with the axes of a repeated label made one."""
    for label in labels:
        while labels.count(label) > 1:
            i = labels.index(label)
            j = labels.index(label, i + 1)
            others = [a for a in range(len(labels)) if a not in (i, j)]
            sizes = [x.type.shape[a] for a in others]
            size = fixed(x.type.shape[i], "an axis of a diagonal")
            require_equal(x.type.shape[j], size, f"the axes '{label}'")
            square = c.transpose(x, [*others, i, j])
            flat = c.reshape(square, [*sizes, size * size])
            ones = [1] * len(sizes)
            x = part(c, flat, [0] * (len(sizes) + 1), [*sizes, size], [*ones, size + 1])
            labels = (*(labels[a] for a in others), label)
    return x, labels


def summed(c: Context, x: Value, labels: Labels, kept: set[str]) -> tuple[Value, Labels]:
    """x summed over the axes that are not kept."""
    axes = [a for a, label in enumerate(labels) if label not in kept]
    if not axes:
        return x, labels
    return c.reduce("sum", x, axes), tuple(x for x in labels if x in kept)


def arranged(c: Context, x: Value, labels: Labels, order: Sequence[str]) -> Value:
    """x with its axes in an order, 1 in place of those that it lacks."""
    present = [label for label in order if label in labels]
    moved = c.transpose(x, [labels.index(label) for label in present])
    sizes = dict(zip(labels, x.type.shape, strict=True))
    return c.reshape(moved, [sizes.get(label, 1) for label in order])


def paired(
    c: Context, a: Value, of_a: Labels, b: Value, of_b: Labels, kept: set[str]
) -> tuple[Value, Labels]:
    """The product of two operands, summed over the axes that are not kept."""
    a, of_a = summed(c, a, of_a, kept | set(of_b))
    b, of_b = summed(c, b, of_b, kept | set(of_a))
    batch = [x for x in of_a if x in of_b and x in kept]
    inner = [x for x in of_a if x in of_b and x not in kept]
    rows, columns = [x for x in of_a if x not in of_b], [x for x in of_b if x not in of_a]
    if not inner:
        order = (*batch, *rows, *columns)
        return c.mul(arranged(c, a, of_a, order), arranged(c, b, of_b, order)), order
    left = arranged(c, a, of_a, [*batch, *rows, *inner])
    right = arranged(c, b, of_b, [*batch, *inner, *columns])
    n, m = len(batch), len(rows)
    i, k, j = left.type.shape[n : n + m], left.type.shape[n + m :], right.type.shape[n:]
    j, k_right = j[len(inner) :], j[: len(inner)]
    k = tuple(q if p == 1 else p for p, q in zip(k, k_right, strict=True))
    left = c.broadcast(left, [*left.type.shape[: n + m], *k])
    right = c.broadcast(right, [*right.type.shape[:n], *k, *j])
    depth: Dim = product(k)
    y = c(
        MatMul(),
        c.reshape(left, [*left.type.shape[:n], product(i), depth]),
        c.reshape(right, [*right.type.shape[:n], depth, product(j)]),
    )
    return c.reshape(y, [*y.type.shape[:n], *i, *j]), (*batch, *rows, *columns)


def einsum(c: Context, node: Node, *xs: Value) -> Value:
    """The sum over the axes that the equation's right side lacks, of the product of the inputs."""
    operands, result = parse(node["equation"], [x.type.rank for x in xs])
    parts = [diagonal(c, x, labels) for x, labels in zip(xs, operands, strict=True)]
    y, labels = parts[0]
    for i, (x, of_x) in enumerate(parts[1:], 2):
        later = {label for _, others in parts[i:] for label in others}
        y, labels = paired(c, y, labels, x, of_x, {*result, *later})
    y, labels = summed(c, y, labels, set(result))
    return arranged(c, y, labels, result)


OPERATORS: Mapping[str, Lowering] = {"Einsum": einsum}

LIMITS: Mapping[str, str] = {
    "Einsum": "the axes of a diagonal have sizes that are numbers",
}
