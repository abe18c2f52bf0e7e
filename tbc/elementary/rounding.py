"""Rounding to whole numbers, exact for every argument."""

from __future__ import annotations

from collections.abc import Callable

from tbc.arith import Num, where
from tbc.elementary.common import with_sign_of


def _rounding(adjust: Callable[[Num, Num], Num]) -> Callable[[Num], Num]:
    """Round half to even by the magic sum, then `adjust(rounded, x)`; exact for every x."""

    def rounded(x: Num) -> Num:
        whole = 2.0**x.format.fraction
        a = x.abs()
        near = adjust(with_sign_of((a + whole) - whole, x), x)
        # x's sign comes last: choosing between a value that has it and x itself is what LLVM 22
        # gets wrong with AVX-512 (its issue 157929)
        return with_sign_of(where(a < whole, near.abs(), a), x)

    return rounded


round_even = _rounding(lambda r, _: r)
floor = _rounding(lambda r, x: where(r > x, r - 1, r))
ceil = _rounding(lambda r, x: where(r < x, r + 1, r))
trunc = _rounding(lambda r, x: where(r.abs() > x.abs(), r.abs() - 1, r))
