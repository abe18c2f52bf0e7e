"""Compiled models in Python; beside it, as data, the C header and sources for everyone else."""

from tbc.runtime.dims import bind_symbols
from tbc.runtime.loader import Model, Tensor, load, zeroed
from tbc.runtime.pool import Pool, physical_cores

__all__ = ["Model", "Pool", "Tensor", "bind_symbols", "load", "physical_cores", "zeroed"]
