"""Canonicalize: rules that always help and never change a bit of a result."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from tbc.ir import Graph, Rule, Value, rewrite
from tbc.passes.elementwise_rules import ELEMENTWISE_RANGE_RULES, ELEMENTWISE_RULES
from tbc.passes.fold import small_constant
from tbc.passes.index_rules import INDEX_RULES
from tbc.passes.product_rules import PRODUCT_RULES
from tbc.passes.ranges import Ranges

if TYPE_CHECKING:
    from tbc.target import Target

RangeRule: TypeAlias = Callable[[Value, Ranges], Value | None]

RULES: tuple[Rule, ...] = (small_constant, *ELEMENTWISE_RULES, *INDEX_RULES, *PRODUCT_RULES)
RANGE_RULES: tuple[RangeRule, ...] = ELEMENTWISE_RANGE_RULES


def canonicalize(graph: Graph, target: Target) -> Graph:
    """The graph after `RULES` and `RANGE_RULES` wherever they match, until none does."""
    ranges = Ranges()

    def knowing(rule: RangeRule) -> Rule:
        return lambda value, uses: rule(value, ranges)

    return rewrite(graph, (*RULES, *map(knowing, RANGE_RULES)))
