"""What the network hears: 20 bands of a mel spectrum every 20 ms, in integers.

`features.c` computes the same numbers, bit for bit; `python features.py` writes its tables. A frame
is 512 samples of 16 kHz under a Hann window, each 320 behind the one before. A band's feature is
4 log2(energy) - 96, where the logarithm's fraction is linear in between powers of two.
"""

from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
RATE, WINDOW, HOP, BANDS = 16000, 512, 320, 20
LOWEST, HIGHEST = 100.0, 7600.0
"""Hz at the outer edges of the bands."""
GUARD, FLOOR = 6, 96


def hann() -> np.ndarray:
    """The window, in 1/32767."""
    return np.rint(32767 * np.sin(np.pi * np.arange(WINDOW) / WINDOW) ** 2).astype(np.int64)


def turns() -> tuple[np.ndarray, np.ndarray]:
    """cos and -sin of 2 pi i / 512, for half a turn, in 1/32767."""
    angles = 2 * np.pi * np.arange(WINDOW // 2) / WINDOW
    return tuple(np.rint(32767 * f).astype(np.int64) for f in (np.cos(angles), -np.sin(angles)))


def triangles() -> list[tuple[int, np.ndarray]]:
    """By band the first bin of the spectrum in it, and how much of each bin, in 1/255."""
    ends = 2595 * np.log10(1 + np.array([LOWEST, HIGHEST]) / 700)
    edges = 700 * (10 ** (np.linspace(*ends, BANDS + 2) / 2595) - 1) * WINDOW / RATE
    bins = np.arange(WINDOW // 2)
    found = []
    for low, middle, high in zip(edges, edges[1:], edges[2:], strict=False):
        slopes = np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle))
        weights = np.rint(255 * slopes.clip(0)).astype(np.int64)
        (inside,) = np.nonzero(weights)
        found.append((int(inside[0]), weights[inside[0] : inside[-1] + 1]))
    return found


def spectrum(frames: np.ndarray) -> np.ndarray:
    """The power of the first 256 bins, i64 [n, 256], of samples i16 [n, 512].

    A Fourier transform of radix 2 in fixed point, halved after each of its nine stages.
    """
    bits = WINDOW.bit_length() - 1
    reverse = [int(f"{i:0{bits}b}"[::-1], 2) for i in range(WINDOW)]
    real = (frames.astype(np.int64) * hann() >> 1)[:, reverse]
    imaginary = np.zeros_like(real)
    cos, sin = turns()
    for half in 1 << np.arange(bits):
        c, s = cos[:: WINDOW // 2 // half], sin[:: WINDOW // 2 // half]
        re, im = (part.reshape(len(frames), -1, 2, half) for part in (real, imaginary))
        a, b, x, y = re[:, :, 0], im[:, :, 0], re[:, :, 1], im[:, :, 1]
        u, v = (x * c - y * s) >> 15, (x * s + y * c) >> 15
        real = np.stack([(a + u) >> 1, (a - u) >> 1], 2).reshape(real.shape)
        imaginary = np.stack([(b + v) >> 1, (b - v) >> 1], 2).reshape(real.shape)
    half = WINDOW // 2
    return (real[:, :half] >> GUARD) ** 2 + (imaginary[:, :half] >> GUARD) ** 2


def features(samples: np.ndarray) -> np.ndarray:
    """i8 [frames, 20] of samples i16 [n]."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    power = spectrum(frames)
    energy = np.stack([power[:, at : at + len(w)] @ w >> 8 for at, w in triangles()], 1) + 1
    whole = np.frexp(energy.astype(np.float64))[1] - 1  # exact: energy is below 2^53
    fraction = np.where(whole < 2, energy << 2 >> whole, energy >> np.maximum(whole - 2, 0)) & 3
    return (4 * whole + fraction - FLOOR).clip(-128, 127).astype(np.int8)


def tables() -> str:
    """The tables of features.c."""

    def array(type: str, name: str, values: np.ndarray) -> str:
        rows = (values[i : i + 16] for i in range(0, len(values), 16))
        lines = ("    " + ", ".join(map(str, row)) + ",\n" for row in rows)
        return f"static const {type} {name}[] = {{\n{''.join(lines)}}};\n"

    bands = triangles()
    first, count = (np.array(v) for v in ([at for at, _ in bands], [len(w) for _, w in bands]))
    cos, sin = turns()
    return "".join(
        [
            "/* Written by features.py; do not edit. */\n",
            array("int16_t", "hann", hann()),
            array("int16_t", "turn_cos", cos),
            array("int16_t", "turn_sin", sin),
            array("uint8_t", "band_first", first),
            array("uint8_t", "band_count", count),
            array("uint8_t", "band_weights", np.concatenate([w for _, w in bands])),
        ]
    )


if __name__ == "__main__":
    (HERE / "tables.inc").write_text(tables())
