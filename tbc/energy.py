"""An estimate of the energy that the arithmetic of a model's layers takes.

The picojoules of an operation are those of "BitNet: Scaling 1-bit Transformers for Large Language
Models" (arXiv 2310.11453, the table of ADD and MUL energy at 45 and 7 nm). Reading memory, which
takes more than the arithmetic, is not in it, nor is what lies between the layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tbc.inspection import Layer


class _Costs(NamedTuple):
    """Picojoules of an addition and of a multiplication."""

    add: float
    multiply: float


PICOJOULES = {
    45: {"int8": _Costs(0.03, 0.2), "f16": _Costs(0.4, 1.1), "f32": _Costs(0.9, 3.7)},
    7: {"int8": _Costs(0.007, 0.07), "f16": _Costs(0.16, 0.34), "f32": _Costs(0.38, 1.31)},
}
"""By nanometres of the process, and type."""


@dataclass(frozen=True)
class Energy:
    """Of one run at the upper bounds of its sizes.

    Attributes:
        process_nm: of the silicon.
        picojoules: of the layers as they are compiled: additions in the activations' type,
            multiplications, which are by scales, in f32.
        f16_picojoules: of the same layers with f16 weights and activations.
    """

    process_nm: int
    picojoules: float
    f16_picojoules: float


def energy(layers: Sequence[Layer]) -> tuple[Energy, ...]:
    """The estimate for each process."""
    return tuple(
        Energy(
            process_nm,
            round(sum(_picojoules(layer, costs) for layer in layers), 3),
            round(sum(sum(layer.dense * c for c in costs["f16"]) for layer in layers), 3),
        )
        for process_nm, costs in PICOJOULES.items()
    )


def _picojoules(layer: Layer, costs: dict[str, _Costs]) -> float:
    is_integer = layer.activations.split()[0] in ("i8", "u8")
    add = costs["int8" if is_integer else "f32"].add
    return layer.additions * add + layer.multiplications * costs["f32"].multiply
