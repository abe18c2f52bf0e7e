"""tbc: compiles neural networks with ternary weights from ONNX to native add/subtract kernels."""

from typing import TYPE_CHECKING

from tbc.errors import (
    BadState,
    BadTarget,
    IncompatibleArtifact,
    InternalError,
    InvalidModel,
    LinkFailed,
    TbcError,
    Unsupported,
)

if TYPE_CHECKING:
    from tbc.api import Model, compile, load
    from tbc.verification import verify

__version__ = "0.1.0"

__all__ = [
    "BadState",
    "BadTarget",
    "IncompatibleArtifact",
    "InternalError",
    "InvalidModel",
    "LinkFailed",
    "Model",
    "TbcError",
    "Unsupported",
    "__version__",
    "compile",
    "load",
    "verify",
]

_LAZY = {
    "Model": "tbc.api",
    "compile": "tbc.api",
    "load": "tbc.api",
    "verify": "tbc.verification",
}
"""Name -> its module, which must not have the same name: an imported module hides what it has."""


def __getattr__(name: str) -> object:
    """Import what needs onnx and LLVM when it is first used, so that `import tbc` is quick."""
    import importlib

    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'tbc' has no attribute {name!r}")
