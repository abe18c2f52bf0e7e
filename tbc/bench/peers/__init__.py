"""Others that compute the same products, where they are installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

from tbc.bench.peers import ggml, litespark, onnx, torch
from tbc.bench.peers.contest import Contest, Peer

__all__ = ["Contest", "Peer", "peers"]

_KINDS: Sequence[tuple[str, Callable[[], Sequence[Peer]]]] = (
    ("onnxruntime", onnx.peers),
    ("llama_cpp", ggml.peers),
    ("torch", torch.peers),
    ("litespark_inference", litespark.peers),
)
"""What must be there to import, and what it has."""


def peers() -> tuple[list[Peer], list[str]]:
    """All that are installed, and of each of the others why it is missing."""
    found: list[Peer] = []
    missing: list[str] = []
    for module, kind in _KINDS:
        if find_spec(module) is None:
            missing.append(f"{module} is not installed (`make bench` does)")
            continue
        try:
            found += kind()
        except Exception as error:  # whatever keeps another's package from loading
            missing.append(f"{module} does not load: {str(error).splitlines()[0]}")
    return found, missing
