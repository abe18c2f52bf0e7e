"""Compiled models in Python; beside it, as data, the C header and sources for everyone else."""

from tbc.runtime.dims import bind_symbols
from tbc.runtime.loader import Model, Tensor, load

__all__ = ["Model", "Tensor", "bind_symbols", "load"]
