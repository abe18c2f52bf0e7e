"""The frontend: ONNX models to graphs of the IR."""

from __future__ import annotations

from tbc.frontend.load import Imported, element_types, load, signature
from tbc.frontend.reader import Model, read

__all__ = ["Imported", "Model", "element_types", "load", "read", "signature"]
