"""Sounds of machines that run well, or do not, and the features that the network is given.

A machine is a shaft with a fan of seven blades and a gear of 23 teeth: harmonics of a speed that
wanders, the gear's mesh with sidebands a rotation apart, noise of bearings that the rotation
modulates, and a room behind it all. Four machines differ in how loud each part is. Nothing here was
recorded: what makes a fault audible follows R. B. Randall, "Vibration-based Condition Monitoring"
(Wiley, 2011), chapters 2 and 5.

Features are those of MLPerf Tiny's anomaly detection: five frames of 128 log-mel bands, 64 ms each,
32 ms apart.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

RATE = 16000
SAMPLES = 2 * RATE
WINDOW = 1024
HOP = 512
BANDS = 128
FRAMES = 5
"""Frames that one input of the network holds."""
MACHINES = 4
BLADES, TEETH = 7, 23
STEP = 0.04
"""Standard deviations of a band that one step of an 8-bit code is."""


def rotation(random: np.random.Generator) -> Array:
    """The shaft's angle in turns: some 25 turns a second, that wander by a percent."""
    drift = np.cumsum(random.normal(size=SAMPLES // 400 + 1)) * 0.002
    wander = np.interp(np.arange(SAMPLES) / 400, np.arange(len(drift)), drift)
    return np.cumsum(random.uniform(23, 27) * (1 + wander)) / RATE


def noise(random: np.random.Generator, low: float, high: float) -> Array:
    """Noise between two frequencies in Hz, of unit variance."""
    spectrum = np.fft.rfft(random.normal(size=SAMPLES))
    at = np.fft.rfftfreq(SAMPLES, 1 / RATE)
    spectrum *= (at >= low) & (at <= high)
    found = np.fft.irfft(spectrum, SAMPLES)
    return found / found.std()


def rings(times: Array, loud: Array, frequency: float, decay: float) -> Array:
    """What rings at a frequency when it is struck at some times, in seconds."""
    t = np.arange(int(6 * decay * RATE)) / RATE
    ring = np.exp(-t / decay) * np.sin(2 * np.pi * frequency * t)
    struck = np.zeros(SAMPLES)
    at = (times * RATE).astype(int)
    inside = (at >= 0) & (at < SAMPLES)
    np.add.at(struck, at[inside], loud[inside])
    return np.convolve(struck, ring)[:SAMPLES]


def running(machine: int, turns: Array, random: np.random.Generator) -> Array:
    """A machine that runs well."""
    own = np.random.default_rng(1000 + machine)
    sound = np.zeros(SAMPLES)
    for harmonic in range(1, 31):
        loud = own.uniform(0.3, 1) / harmonic**0.6 * (2.5 if harmonic % BLADES == 0 else 1)
        loud *= 10 ** (random.normal() * 0.06)
        sound += loud * np.sin(2 * np.pi * (harmonic * turns + random.random()))
    for order in (1, 2, 3):
        depth = own.uniform(0.1, 0.3)
        mesh = own.uniform(0.4, 0.9) / order * 10 ** (random.normal() * 0.06)
        wave = 1 + depth * np.cos(2 * np.pi * (turns + random.random()))
        sound += mesh * wave * np.sin(2 * np.pi * (order * TEETH * turns + random.random()))
    bearing = own.uniform(0.3, 0.6) * (1 + 0.4 * np.sin(2 * np.pi * turns * own.uniform(2.5, 4.5)))
    low = own.uniform(1500, 2500)
    sound += bearing * noise(random, low, low + 2500)
    return sound


def chipped_tooth(turns: Array, random: np.random.Generator) -> Array:
    """A knock every turn."""
    times = np.flatnonzero(np.diff(np.floor(turns))) / RATE
    return rings(times, random.uniform(0.7, 1.3, len(times)), random.uniform(2400, 3400), 0.004)


def loose_gear(turns: Array, random: np.random.Generator) -> Array:
    """The mesh gets louder and softer some three times a turn, so it has new sidebands."""
    swing = np.sin(2 * np.pi * turns * random.uniform(2.2, 3.8))
    return 0.5 * swing * np.sin(2 * np.pi * TEETH * turns)


def friction(turns: Array, random: np.random.Generator) -> Array:
    """High noise that comes and goes."""
    envelope = np.zeros(SAMPLES)
    for start in random.uniform(0, SAMPLES, 5).astype(int):
        envelope[start : start + int(random.uniform(0.05, 0.25) * RATE)] = 1
    return 0.35 * envelope * noise(random, 5000, 7500)


def rattle(turns: Array, random: np.random.Generator) -> Array:
    """A part that is loose strikes another one, now and then."""
    times = random.uniform(0, SAMPLES / RATE, 30)
    return rings(times, random.uniform(0.5, 1.5, len(times)), random.uniform(700, 1300), 0.012)


FAULTS: dict[str, Callable[[Array, np.random.Generator], Array]] = {
    "chipped tooth": chipped_tooth,
    "loose gear": loose_gear,
    "friction": friction,
    "rattle": rattle,
}


def clip(machine: int, seed: int, fault: str = "") -> Array:
    """Two seconds of a machine, with a fault of some strength or none, before a noisy room."""
    random = np.random.default_rng([machine, seed, 1 + list(FAULTS).index(fault) if fault else 0])
    turns = rotation(random)
    sound = running(machine, turns, random)
    if fault:
        sound += random.uniform(0.5, 2) * FAULTS[fault](turns, random)
    sound += random.uniform(0.15, 0.4) * noise(random, 20, 7900)
    return sound * random.uniform(0.8, 1.2)


@cache
def mel_filters() -> Array:
    """f64[BANDS, WINDOW / 2 + 1]: triangles that are equally wide on O'Shaughnessy's mel scale."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, BANDS + 2) / 2595) - 1)
    at = np.fft.rfftfreq(WINDOW, 1 / RATE)
    rise = (at - corners[:-2, None]) / np.diff(corners)[:-1, None]
    fall = (corners[2:, None] - at) / np.diff(corners)[1:, None]
    return np.maximum(0, np.minimum(rise, fall))


def log_mel(sound: Array) -> Array:
    """f64[frames, BANDS]: the bands' energies in dB."""
    count = 1 + (len(sound) - WINDOW) // HOP
    frames = np.stack([sound[i * HOP : i * HOP + WINDOW] for i in range(count)])
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW))) ** 2
    return 10 * np.log10(power @ mel_filters().T + 1e-3)


def codes(bands: Array, mean: Array, deviation: Array) -> npt.NDArray[np.uint8]:
    """u8[frames, BANDS]: (bands - mean) / deviation in steps of `STEP`, around 128."""
    return np.clip(np.round((bands - mean) / deviation / STEP) + 128, 0, 255).astype(np.uint8)


def windows(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """u8[windows, FRAMES * BANDS]: what the network is given."""
    count = len(frames) - FRAMES + 1
    return np.stack([frames[i : i + FRAMES].reshape(-1) for i in range(count)])


def auc(normal: Array, faulty: Array) -> float:
    """The probability that a faulty clip's score is above a normal one's: Mann and Whitney's U."""
    above = (faulty[:, None] > normal).mean() + (faulty[:, None] == normal).mean() / 2
    return float(above)
