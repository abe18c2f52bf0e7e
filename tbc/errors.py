"""The errors that tbc raises; every one names what failed, where, why, and what to try."""

from __future__ import annotations


class TbcError(Exception):
    """Base of tbc's errors.

    Attributes:
        file: the file concerned, or "".
        node: the name of the graph node concerned, or "".
        op: its operator (with domain where that is not ONNX's own), or "".
        reason: what is wrong, one sentence.
        hint: what to do about it, or "".
    """

    def __init__(
        self, reason: str, *, file: str = "", node: str = "", op: str = "", hint: str = ""
    ):
        super().__init__(reason)
        self.reason, self.file, self.node, self.op, self.hint = reason, file, node, op, hint

    def __str__(self) -> str:
        where = ": ".join(
            part
            for part in (self.file, f"node '{self.node}'" if self.node else "", self.op)
            if part
        )
        text = f"{where}: {self.reason}" if where else self.reason
        return f"{text}\n  try: {self.hint}" if self.hint else text

    def at(self, *, file: str = "", node: str = "", op: str = "") -> TbcError:
        """This error with the places filled in that it did not know yet."""
        self.file, self.node, self.op = self.file or file, self.node or node, self.op or op
        return self


class InvalidModel(TbcError):
    """The model breaks ONNX's rules: it means nothing, whatever the compiler."""


class Unsupported(TbcError):
    """The model is valid, but tbc cannot compile this part of it."""


class Unbounded(Unsupported):
    """Sizes of the model have no upper bound: the caller must give one."""


class BadTarget(TbcError):
    """The target's name, CPU or features are not known or do not fit each other."""


class IncompatibleArtifact(TbcError):
    """A compiled model does not fit this machine, this ABI, or its own weights."""


class LinkFailed(TbcError):
    """The linker refused: its words are the reason."""


class InternalError(TbcError):
    """A bug in tbc or in LLVM, never the user's fault."""
