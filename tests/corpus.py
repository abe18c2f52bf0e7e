"""The third-party files beside the checkout, and the rule by which their outputs are judged."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

CORPUS = Path(__file__).parents[2] / "shared" / "corpus"
CASES = sorted(p.parent.name for p in CORPUS.glob("*/meta.json"))


def meta_of(name: str) -> dict[str, Any]:
    """How a case was made, what is expected of it, and its tolerance."""
    return dict(json.loads((CORPUS / name / "meta.json").read_text()))


def io_sets(name: str) -> Iterator[tuple[dict[str, Array], dict[str, Array]]]:
    """The inputs and the expected outputs of a case, set by set."""
    for path in sorted((CORPUS / name).glob("inputs_*.npz")):
        with np.load(path) as inputs, np.load(path.with_name(f"out{path.name[2:]}")) as outputs:
            yield dict(inputs), dict(outputs)


def is_within(got: Array, expected: Array, tolerance: Mapping[str, Any]) -> bool:
    """The corpus's rule: close everywhere, or as far off as one flipped code makes it."""
    y, e = got.astype(np.float64), expected.astype(np.float64)
    with np.errstate(invalid="ignore"):
        error = np.where((y == e) | (np.isnan(y) & np.isnan(e)), 0.0, np.abs(y - e))
        if np.all(error <= tolerance["atol"] + tolerance["rtol"] * np.nan_to_num(np.abs(e))):
            return True
    if tolerance.get("flip_atol") is None:
        return False
    relative = np.linalg.norm(error) / np.linalg.norm(e)
    return bool(error.max() <= tolerance["flip_atol"] and relative <= tolerance["flip_rel_l2"])
