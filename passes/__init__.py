"""The passes: functions from a graph to a graph, and the order in which a model takes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from tbc.ir import Graph
from tbc.passes.canonicalize import canonicalize
from tbc.passes.depthwise import depthwise
from tbc.passes.fold import fold
from tbc.passes.guard import guard
from tbc.passes.lift import lift
from tbc.passes.pad import pad
from tbc.passes.quantize import quantize
from tbc.passes.select import select

if TYPE_CHECKING:
    from tbc.target import Target

Pass: TypeAlias = "Callable[[Graph, Target], Graph]"

FRONT: tuple[Pass, ...] = (fold, lift, quantize, depthwise, canonicalize)
"""What makes of an imported graph one of low-bit dots, on any target."""

PIPELINE: tuple[Pass, ...] = (*FRONT, guard, pad, select, fold)
"""All graph passes; `fuse` and `plan` make a program of what they leave."""
