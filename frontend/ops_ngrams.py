"""TfIdfVectorizer: how often the n-grams of a table stand in rows of integers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np

from tbc.frontend.context import Array, Context, Lowering, fixed, supported, valid
from tbc.frontend.nodes import Node
from tbc.frontend.ops_index import part
from tbc.ir import Value
from tbc.ops import Concat, Gather
from tbc.types import DType


def tf_idf_vectorizer(c: Context, node: Node, x: Value) -> Value:
    """f32[N, columns]: a count, or a weight, for each n-gram of the table, whatever its length."""
    supported(node["pool_strings"] is None, "n-grams of text are not supported")
    valid(node["mode"] in ("TF", "IDF", "TFIDF"), f"there is no mode '{node['mode']}'")
    valid(x.type.rank in (1, 2), f"it needs [N, C] or [C], not {x.type}")
    rows = c.reshape(x, [1, *x.type.shape]) if x.type.rank == 1 else x
    tables, kept = _tables(node)
    counts = [_counts(c, node, rows, table) for table in tables]
    found = c(Concat(1), *counts) if len(counts) > 1 else counts[0]
    columns = np.asarray(node["ngram_indexes"], np.int64)
    if node["mode"] != "TF":
        weights = np.ones(len(columns)) if node["weights"] is None else np.array(node["weights"])
        valid(len(weights) == len(columns), f"{len(weights)} weights of {len(columns)} n-grams")
        if node["mode"] == "IDF":
            found = c.cast(c.binary("gt", found, 0), DType.f32)
        found = c.mul(found, c.constant(weights[kept], DType.f32))
    y = _in_columns(c, found, columns[kept], int(columns.max()) + 1)
    return c.reshape(y, y.type.shape[1:]) if x.type.rank == 1 else y


def _tables(node: Node) -> tuple[list[Array], list[int]]:
    """The n-grams of each length as rows, and their numbers among those of all lengths."""
    pool, starts = node["pool_int64s"], [*node["ngram_counts"], len(node["pool_int64s"] or ())]
    valid(pool is not None, "it has no table of n-grams")
    valid(starts == sorted(starts) and starts[0] == 0, f"the table's parts begin at {starts}")
    tables: list[Array] = []
    kept: list[int] = []
    number = 0
    for length, (start, end) in enumerate(itertools.pairwise(starts), 1):
        count, rest = divmod(end - start, length)
        valid(rest == 0, f"{end - start} numbers are no n-grams of {length}")
        if count and node["min_gram_length"] <= length <= node["max_gram_length"]:
            tables.append(np.array(pool[start:end], np.int64).reshape(count, length))
            kept.extend(range(number, number + count))
        number += count
    valid(number == len(node["ngram_indexes"]) > 0, f"{number} n-grams have other indexes")
    supported(bool(tables), "a table without n-grams of the lengths asked for is not supported")
    return tables, kept


def _counts(c: Context, node: Node, rows: Value, table: Array) -> Value:
    """f32[N, n-grams]: how often each stands in a row, with gaps of up to max_skip_count."""
    batch, size = rows.type.shape[0], fixed(rows.type.shape[1], "the length of a row")
    count, length = table.shape
    total = c.broadcast(c.constant(0, DType.f32), [batch, count])
    for step in range(1, node["max_skip_count"] + 2 if length > 1 else 2):
        places = size - (length - 1) * step
        if places <= 0:
            break
        same = [
            c.binary("eq", _from(c, rows, i * step, places), c.constant(column, rows.type.dtype))
            for i, column in enumerate(table.T)
        ]
        found = same[0]
        for other in same[1:]:
            found = c.binary("and", found, other)
        total = c.add(total, c.reduce("sum", c.cast(found, DType.f32), [1]))
    return total


def _from(c: Context, rows: Value, start: int, places: int) -> Value:
    """[N, places, 1]: a part of the rows."""
    batch = rows.type.shape[0]
    return c.reshape(part(c, rows, [0, start], [batch, places], [1, 1]), [batch, places, 1])


def _in_columns(c: Context, found: Value, columns: Array, width: int) -> Value:
    """f32[N, width] with the columns of `found` at the given places, and 0 elsewhere."""
    unique = len(np.unique(columns)) == len(columns)
    valid(bool(columns.min() >= 0), f"its indexes are {columns.tolist()}")
    supported(unique, "n-grams that share an index are not supported")
    batch, count = found.type.shape
    zero = c.broadcast(c.constant(0, DType.f32), [batch, 1])
    source = np.full(width, count)
    source[columns] = np.arange(len(columns))
    return c(Gather(1), c(Concat(1), found, zero), c.constant(source, DType.i64))


OPERATORS: Mapping[str, Lowering] = {"TfIdfVectorizer": tf_idf_vectorizer}

LIMITS: Mapping[str, str] = {
    "TfIdfVectorizer": "of integers; every n-gram has an index of its own",
}
