"""Compiled models in Python; beside it, as data, the C header and sources for everyone else."""

from tbc.runtime.dims import bind_symbols
from tbc.runtime.loader import Model, load

__all__ = ["Model", "bind_symbols", "load"]
