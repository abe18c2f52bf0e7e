"""Sentences as numbers: the same rules as in `sentiment.c`."""

import re
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
MOST = 64
"""Tokens of a sentence that are read; what follows is left out."""
TOKEN = re.compile(r"[a-z]+(?:'[a-z]+)*|[!?]")


def tokens(text: str) -> list[str]:
    """Words in lower case, of letters with single apostrophes between, and the marks ! and ?."""
    return TOKEN.findall(re.sub("[A-Z]", lambda m: m[0].lower(), text))


def known_words() -> list[str]:
    """The words that the network knows, in order; number 0 stands for all others."""
    return re.findall(r'"(.*)",', (HERE / "words.inc").read_text())


def numbers(text: str, words: list[str]) -> np.ndarray:
    """int64 [1..64]: a number for each token, 0 for an unknown one; an empty text is one 0."""
    number = {word: i for i, word in enumerate(words)}
    found = [number.get(token, 0) for token in tokens(text)[:MOST]]
    return np.array(found or [0], np.int64)


def held_out() -> list[tuple[int, str]]:
    """The sentences that training has not seen, with 1 for those that say something good."""
    lines = (HERE / "held_out.tsv").read_text().splitlines()
    return [(int(line[0]), line[2:]) for line in lines]
