"""The passes: functions from a graph to a graph, and the order in which a model takes them."""

from __future__ import annotations

from tbc.passes.approximate import approximate
from tbc.passes.bodies import Pass, everywhere
from tbc.passes.canonicalize import canonicalize
from tbc.passes.dense import dense
from tbc.passes.depthwise import depthwise
from tbc.passes.fold import fold
from tbc.passes.guard import guard
from tbc.passes.hoist import hoist
from tbc.passes.integers import integers
from tbc.passes.lift import lift
from tbc.passes.narrow import narrow
from tbc.passes.pad import pad
from tbc.passes.quantize import quantize
from tbc.passes.requantize import requantize
from tbc.passes.select import select

FRONT: tuple[Pass, ...] = tuple(
    map(
        everywhere,
        (integers, fold, hoist, lift, approximate, quantize, depthwise, canonicalize),
    )
)
"""What makes of an imported graph one of low-bit dots, on any target."""

UNSELECTED: tuple[Pass, ...] = (*FRONT, *map(everywhere, (narrow, requantize, guard, pad, dense)))
"""What leaves the graph whose dots `select` chooses kernels for."""

PIPELINE: tuple[Pass, ...] = (*UNSELECTED, *map(everywhere, (select, fold)))
"""All graph passes; `fuse` and `plan` make a program of what they leave."""
