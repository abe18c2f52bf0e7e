"""Matrix products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tbc.frontend.context import Context, Lowering, fixed, supported, valid
from tbc.frontend.nodes import Node
from tbc.frontend.ops_index import part
from tbc.ir import Value
from tbc.ops import MatMul, require_equal
from tbc.types import DType


def product(c: Context, a: Value, b: Value) -> Value:
    """numpy.matmul(a, b): a vector is a row on the left and a column on the right."""
    valid(a.type.rank > 0 and b.type.rank > 0, f"a product of {a.type} and {b.type}")
    rows, columns = a.type.rank == 1, b.type.rank == 1
    left = c.reshape(a, [1, *a.type.shape]) if rows else a
    right = c.reshape(b, [*b.type.shape, 1]) if columns else b
    y = c(MatMul(), left, right)
    shape = y.type.shape
    kept = [*shape[:-2], *([] if rows else shape[-2:-1]), *([] if columns else shape[-1:])]
    return c.reshape(y, kept)


def matmul(c: Context, node: Node, a: Value, b: Value) -> Value:
    """a @ b."""
    return product(c, a, b)


def swapped(c: Context, x: Value) -> Value:
    """x with its last two axes exchanged."""
    rank = x.type.rank
    return c.transpose(x, [*range(rank - 2), rank - 1, rank - 2])


def scaled(c: Context, x: Value, factor: float) -> Value:
    """x * factor; x itself for 1."""
    if factor == 1:
        return x
    valid(x.type.dtype.is_float or factor == int(factor), f"integers times {factor}")
    return c.mul(x, factor)


def gemm(c: Context, node: Node, a: Value, b: Value, bias: Value | None = None) -> Value:
    """alpha * A @ B + beta * bias, with A and B transposed where asked for."""
    valid(a.type.rank == b.type.rank == 2, f"it needs matrices, not {a.type} and {b.type}")
    a = swapped(c, a) if node["transA"] else a
    b = swapped(c, b) if node["transB"] else b
    y = scaled(c, c(MatMul(), a, b), node["alpha"])
    return y if bias is None else c.add(y, scaled(c, bias, node["beta"]))


def centered(c: Context, x: Value, zero_point: Value | None) -> Value:
    """x - zero_point in i32; a zero point that is known to be 0 is left out."""
    wide = c.cast(x, DType.i32)
    if zero_point is None:
        return wide
    valid(zero_point.type.dtype is x.type.dtype, f"{x.type} has the zero point {zero_point.type}")
    known = c.known.array(zero_point)
    if known is not None and not known.any():
        return wide
    return c.sub(wide, c.cast(zero_point, DType.i32))


def by_row(c: Context, p: Value) -> Value:
    """A parameter of each row of a matrix, made to broadcast: a vector becomes a column."""
    if p.type.rank != 1:
        return p
    return c.reshape(p, () if p.type.size == 1 else (p.type.size, 1))


def matmul_integer(
    c: Context, node: Node, a: Value, b: Value, a_zero: Value | None = None,
    b_zero: Value | None = None,
) -> Value:  # fmt: skip
    """(a - a_zero) @ (b - b_zero) in i32; zero points are of each row of a and column of b."""
    rows = None if a_zero is None else by_row(c, a_zero)
    return product(c, centered(c, a, rows), centered(c, b, b_zero))


def determinant(c: Context, node: Node, x: Value) -> Value:
    """The determinant of small square matrices, by cofactors of their first rows."""
    valid(x.type.rank >= 2, f"it needs matrices, not {x.type}")
    size = fixed(x.type.shape[-1], "the size of a matrix")
    require_equal(x.type.shape[-2], size, "rows and columns")
    supported(0 < size <= _LARGEST, f"the determinant of {size}x{size} matrices is not supported")
    rows = [[_entry(c, x, i, j) for j in range(size)] for i in range(size)]
    return _by_cofactors(c, rows)


_LARGEST = 4


def _entry(c: Context, x: Value, i: int, j: int) -> Value:
    *lead, _, _ = x.type.shape
    starts, shape = [*[0] * len(lead), i, j], [*lead, 1, 1]
    return c.reshape(part(c, x, starts, shape, [1] * x.type.rank), lead)


def _by_cofactors(c: Context, rows: Sequence[Sequence[Value]]) -> Value:
    if len(rows) == 1:
        return rows[0][0]
    total: Value | None = None
    for j, factor in enumerate(rows[0]):
        minor = [[*row[:j], *row[j + 1 :]] for row in rows[1:]]
        term = c.mul(factor, _by_cofactors(c, minor))
        total = term if total is None else c.binary("sub" if j % 2 else "add", total, term)
    assert total is not None
    return total


OPERATORS: Mapping[str, Lowering] = {
    "MatMul": matmul,
    "Gemm": gemm,
    "MatMulInteger": matmul_integer,
    "Det": determinant,
}

LIMITS: Mapping[str, str] = {
    "Det": "matrices of up to 4x4",
}
