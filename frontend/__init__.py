"""The frontend: ONNX models to graphs of the IR."""

from __future__ import annotations

from tbc.frontend.load import Imported, load

__all__ = ["Imported", "load"]
