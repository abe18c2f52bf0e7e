"""Numbers behind `elementary`: polynomial coefficients, ascending, and constants in parts.

The polynomials are minimax in the relative error of the function (Remez exchange at 50 digits,
then rounded to the format), so they serve only the stated interval. π and ln 2 come from their
series in exact integers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from tbc.arith import DOUBLE, SINGLE, Format


@dataclass(frozen=True)
class Polynomials:
    """One polynomial a function, of one format."""

    exp: tuple[float, ...]
    """e^r = 1 + r + r² exp(r), |r| <= ln(2)/2."""
    atanh: tuple[float, ...]
    """atanh(s) = s (1 + z (1/3 + z atanh(z))), z = s², |s| <= 3 - sqrt(8)."""
    sin: tuple[float, ...]
    """sin(r) = r + r z sin(z), z = r², |r| <= π/4."""
    cos: tuple[float, ...]
    """cos(r) = 1 - z/2 + z² cos(z), z = r², |r| <= π/4."""
    atan: tuple[float, ...]
    """atan(t) = t + t z atan(z), z = t², |t| <= tan(π/8)."""
    asin: tuple[float, ...]
    """asin(t) = t + t z asin(z), z = t², |t| <= 1/2."""
    tanh: tuple[float, ...]
    """tanh(x) = x + x z tanh(z), z = x², |x| <= 5/8."""
    sinh: tuple[float, ...]
    """sinh(x) = x + x z sinh(z), z = x², |x| <= 1."""
    erf: tuple[float, ...]
    """erf(x) = x + x erf(x²), |x| <= 1."""
    erfc: tuple[float, ...]
    """erf(x) = 1 - e^-erfc(x - 1), 1 <= x <= 4 (single) or 6 (double)."""


_SINGLE = Polynomials(
    exp=(0.49999994, 0.16666521, 0.04166839, 0.008368717, 0.0013814627),
    atanh=(0.19999999, 0.14285986, 0.11089865, 0.09778172),
    sin=(-0.16666655, 0.008332191, -1.95186e-04),
    cos=(0.041666646, -0.0013887301, 2.4430674e-05),
    atan=(-0.33333316, 0.19998531, -0.14244469, 0.105997965, -0.060916677),
    asin=(0.16666754, 0.07495249, 0.04547664, 0.02414829, 0.042219456),
    tanh=(-0.33333284, 0.13331491, -0.0537435, 0.020650592, -0.005717048),
    sinh=(0.16666667, 0.0083333505, 0.00019836066, 2.8174384e-06),
    erf=(
        0.12837917,
        -0.37612626,
        0.112835854,
        -0.026853813,
        0.0051883277,
        -8.0101914e-04,
        7.853852e-05,
    ),
    erfc=(1.8496056, 2.6389668, 0.8431176, 0.041503485, -0.009895443, 0.00182937, -1.8637527e-04),
)
_DOUBLE = Polynomials(
    exp=(
        0.5000000000000011,
        0.16666666666666413,
        0.041666666666530155,
        0.008333333333494399,
        0.0013888888943631085,
        0.00019841269506688846,
        2.4801493097828538e-05,
        2.755758629088442e-06,
        2.763024879588082e-07,
        2.500008442577437e-08,
    ),
    atanh=(
        0.1999999999999999,
        0.14285714285721923,
        0.11111111108893744,
        0.09090909422173502,
        0.07692279200244168,
        0.06668132845673369,
        0.05837877367239295,
        0.05990990676646343,
    ),
    sin=(
        -0.16666666666666632,
        0.008333333333322486,
        -0.0001984126982985331,
        2.75573137050333e-06,
        -2.505075988277494e-08,
        1.5896885906629676e-10,
    ),
    cos=(
        0.0416666666666666,
        -0.001388888888887447,
        2.4801587289666817e-05,
        -2.7557314399202873e-07,
        2.0875728980490877e-09,
        -1.1359916373617125e-11,
    ),
    atan=(
        -0.333333333333332,
        0.1999999999995382,
        -0.1428571428022098,
        0.11111110784704369,
        -0.09090897793751132,
        0.07692060853694961,
        -0.06663111228942392,
        0.05847940616691847,
        -0.05039530659104661,
        0.03807015145297275,
        -0.01791315638581869,
    ),
    asin=(
        0.16666666666665375,
        0.07500000000344947,
        0.04464285682185234,
        0.03038195940069027,
        0.02237175180968802,
        0.017359797627347937,
        0.013884330260192089,
        0.012175078996022246,
        0.006502911994993994,
        0.019596045129410152,
        -0.01632940863765182,
        0.031983561870642684,
    ),
    tanh=(
        -0.33333333333332876,
        0.13333333333264913,
        -0.05396825393248161,
        0.02186948760195882,
        -0.008863221319250577,
        0.003591991570902765,
        -0.0014549704780048574,
        0.0005863524923592149,
        -0.000228633259939452,
        7.721920161456381e-05,
        -1.610755703947479e-05,
    ),
    sinh=(
        0.16666666666666669,
        0.008333333333333139,
        0.00019841269841437692,
        2.7557319155333173e-06,
        2.5052123399172768e-08,
        1.6057240292666125e-10,
        7.759313669355194e-13,
    ),
    erf=(
        0.1283791670955126,
        -0.3761263890318375,
        0.11283791670954857,
        -0.026866170645072893,
        0.005223977624780847,
        -0.000854832697874111,
        0.0001205533103686416,
        -1.492559350617927e-05,
        1.6460972808054213e-06,
        -1.6350025153021074e-07,
        1.4657879535077905e-08,
        -1.1365665342945215e-09,
        5.945261559044363e-11,
    ),
    erfc=(
        1.8496055099332482,
        2.6389675142347775,
        0.8431072563593306,
        0.041561098026678414,
        -0.010033825195117217,
        0.0019779013107156873,
        -0.00023731679797074227,
        -2.629538143457448e-05,
        2.7197238564149576e-05,
        -9.669084982790394e-06,
        2.1297281674527877e-06,
        -2.032466311625181e-07,
        -5.882091168376362e-08,
        3.369259580143081e-08,
        -8.597248574711159e-09,
        1.3326386547078917e-09,
        -1.2071222723171117e-10,
        4.928734739489915e-12,
    ),
)


def _arc(n: int, sign: int, scale: int) -> int:
    """scale * arctan(1/n) for sign -1, scale * artanh(1/n) for sign 1, a little truncated."""
    term, total, k = scale // n, 0, 1
    while term:
        total += term // k
        term, k = sign * term // (n * n), k + 2
    return total


_SCALE = 1 << 1300
PI = Fraction(16 * _arc(5, -1, _SCALE) - 4 * _arc(239, -1, _SCALE), _SCALE)
LN2 = Fraction(
    18 * _arc(26, 1, _SCALE) - 2 * _arc(4801, 1, _SCALE) + 8 * _arc(8749, 1, _SCALE), _SCALE
)


def _split(value: Fraction, format: Format, spare: int = 0) -> tuple[float, float]:
    """`(high, low)`: `value` cut to the format's precision less `spare` bits, and what remains."""
    unit = Fraction(2) ** (math.floor(math.log2(value)) - format.fraction + spare)
    high = value // unit * unit
    return float(high), float(value - high)


@dataclass(frozen=True)
class Constants:
    """What the formulas need in one format; pairs are `(high, low)` of `_split`."""

    polynomials: Polynomials
    ln2: tuple[float, float]
    """`high` leaves room for a product with any exponent to be exact."""
    half_pi: tuple[float, float]
    third: tuple[float, float]
    exp_range: tuple[float, float]
    """e^x rounds to 0 below the first and e^x / 2 overflows above the second."""
    one_after: float
    """e^-2x vanishes beside 1 beyond."""
    erf_max: float
    """erf rounds to 1 beyond."""
    digit: int
    """Bits of the digits in which a reduced argument becomes a float."""
    limbs: int
    """32-bit limbs of 2/π that a reduced argument takes."""


def _constants(
    format: Format,
    polynomials: Polynomials,
    exp_range: tuple[float, float],
    one_after: float,
    erf_max: float,
) -> Constants:
    return Constants(
        polynomials,
        ln2=_split(LN2, format, spare=(2 * format.bias).bit_length()),
        half_pi=_split(PI / 2, format),
        third=_split(Fraction(1, 3), format),
        exp_range=exp_range,
        one_after=one_after,
        erf_max=erf_max,
        digit=format.bits // 2,
        limbs=format.bits * 3 // 32,
    )


CONSTANTS = {
    SINGLE.name: _constants(SINGLE, _SINGLE, (-105, 91), one_after=10, erf_max=4),
    DOUBLE.name: _constants(DOUBLE, _DOUBLE, (-746, 711), one_after=20, erf_max=6),
}

TWO_OVER_PI_PAD = 64
"""Zero bits in front of `TWO_OVER_PI`, for arguments below 1."""

_TWO_OVER_PI = int(2 / PI * 2**1184)
TWO_OVER_PI = (0,) * (TWO_OVER_PI_PAD // 32) + tuple(
    _TWO_OVER_PI >> shift & 0xFFFFFFFF for shift in range(1184 - 32, -1, -32)
)
"""2/π in 32-bit limbs, the most significant first."""
