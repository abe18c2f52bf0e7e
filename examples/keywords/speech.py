"""Spoken words, made by eSpeak NG: many voices, several accents, any pace and pitch.

No recording of a person is in it, so what is learned from it says little of real speech. A clip is
a word that ends 80 to 300 ms before the clip does, in noise.
"""

import subprocess

import numpy as np
from features import HOP, RATE, WINDOW

WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
CLASSES = (*WORDS, "unknown", "silence")
OTHERS = (
    *("cat", "dog", "house", "bird", "tree", "happy", "bed", "one", "two", "three", "four", "five"),
    *("six", "seven", "eight", "nine", "zero", "visual", "learn", "follow", "window", "table"),
)
"""What "unknown" is trained on."""
UNHEARD = ("forward", "backward", "marvin", "paper", "music", "garden", "seventy", "coffee")
"""Words that no network was trained on."""
ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-029")
FRAMES = 50
SAMPLES = (FRAMES - 1) * HOP + WINDOW


def voices() -> list[str]:
    """The names of eSpeak NG's variants of a voice, but those that are effects."""
    listed = subprocess.run(["espeak-ng", "--voices=variant"], capture_output=True, text=True)
    files = sorted(
        line.split("!v/")[1].split("  ")[0].strip() for line in listed.stdout.splitlines()[1:]
    )
    effects = ("whisper", "robo", "Demonic", "announcer", "fast", "UniRobot", "Storm", "croak")
    return [file for file in files if not any(e in file for e in effects)]


def spoken(word: str, voice: str, rng: np.random.Generator) -> np.ndarray:
    """A word at 16 kHz, its largest sample 1, without the silence around it."""
    accent, pace, pitch = rng.choice(ACCENTS), rng.integers(110, 220), rng.integers(15, 85)
    options = ["-v", f"{accent}+{voice}", "-s", str(pace), "-p", str(pitch), "--stdout", word]
    wave = subprocess.run(["espeak-ng", *options], capture_output=True, check=True).stdout
    x = np.frombuffer(wave[44:], "<i2").astype(np.float64)
    rate = int.from_bytes(wave[24:28], "little")
    bins, length = np.fft.rfft(x), len(x) * RATE // rate
    x = np.fft.irfft(bins[: length // 2 + 1], length)
    (loud,) = np.nonzero(np.abs(x) > 0.02 * np.abs(x).max())
    x = x[loud[0] : loud[-1] + 1]
    return x / np.abs(x).max()


def noise(rng: np.random.Generator) -> np.ndarray:
    """A clip of noise of a random colour, from white to brown; its mean square is 1."""
    bins = rng.standard_normal((2, SAMPLES // 2 + 1)).T @ np.array([1, 1j])
    bins /= np.maximum(np.arange(len(bins)), 20) ** rng.uniform(0, 1)
    x = np.fft.irfft(bins, SAMPLES)
    return x / np.sqrt((x**2).mean())


def clip(word: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """Samples i16 [16192] of a word, or of none, in noise 5 to 35 dB below it."""
    x = np.zeros(SAMPLES)
    level = 1.0
    if word is not None:
        end = SAMPLES - rng.integers(RATE * 80 // 1000, RATE * 300 // 1000)
        heard = word[-end:]
        x[end - len(heard) : end] = heard
        level = np.sqrt((heard**2).mean())
    x += noise(rng) * level * 10 ** (-rng.uniform(5, 35) / 20)
    loudness = 10 ** rng.uniform(-1.3, 0) * (1 if word is not None else 0.3)
    return np.rint(x / max(1, np.abs(x).max()) * loudness * 32000).astype(np.int16)


def ulaw(samples: np.ndarray) -> np.ndarray:
    """8 bits a sample, as main.c takes them apart: G.711's mu-law, with no bit turned over."""
    size = np.minimum(np.abs(samples.astype(np.int64)), 32635) + 132
    exponent = np.frexp(size.astype(np.float64))[1] - 8
    code = exponent << 4 | (size >> (exponent + 3) & 15)
    return (code | np.where(samples < 0, 128, 0)).astype(np.uint8)


def from_ulaw(codes: np.ndarray) -> np.ndarray:
    """The samples i16 that codes stand for."""
    wide = codes.astype(np.int64)
    size = ((((wide & 15) << 3) + 132) << (wide >> 4 & 7)) - 132
    return np.where(wide & 128, -size, size).astype(np.int16)
