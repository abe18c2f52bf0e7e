"""Why a product is not low-bit, and what would make it so."""

from __future__ import annotations

from typing import NamedTuple

from tbc.ir import Value


class Refusal(NamedTuple):
    """The condition that failed, with its numbers.

    Attributes:
        reason: what it is.
        remedy: what to do about it, or "" where there is nothing to do.
        weight: the weight[k, n] whose elements fail it, or None.
    """

    reason: str
    remedy: str = ""
    weight: Value | None = None
