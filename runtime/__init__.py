"""Compiled models in Python; beside it, as data, the C header and sources for everyone else."""

from tbc.runtime.loader import Model, load

__all__ = ["Model", "load"]
