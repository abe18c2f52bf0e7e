"""The errors that tbc raises; every one names what failed, where, why, and what to try."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from shlex import quote
from types import MappingProxyType

_NOTHING: Mapping[str, str] = MappingProxyType({})


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


class Unfixed(Unsupported):
    """What is compiled depends on sizes or values that are open; with them fixed, it may compile.

    Attributes:
        sizes: the symbols concerned, and what to try for each: "128", or "1..512".
        inputs: the inputs whose values are concerned, and the form of each: "VALUE,VALUE".
            Where both are empty, it is not known what to fix.
    """

    def __init__(
        self,
        reason: str,
        *,
        sizes: Mapping[str, str] = _NOTHING,
        inputs: Mapping[str, str] = _NOTHING,
        file: str = "",
        node: str = "",
        op: str = "",
        hint: str = "",
    ):
        self.sizes, self.inputs = dict(sizes), dict(inputs)
        options = [f"--dim {quote(f'{n}={size}')}" for n, size in self.sizes.items()]
        options += [f"--input {quote(f'{n}={form}')}" for n, form in self.inputs.items()]
        super().__init__(reason, file=file, node=node, op=op, hint=" ".join(options) or hint)

    def for_python(self) -> Unfixed:
        """The error with the arguments of `tbc.compile` as its hint."""
        error = copy(self)
        error.hint = self._arguments()
        return error

    def _arguments(self) -> str:
        dims = ", ".join(f'"{name}": {_number(size)}' for name, size in self.sizes.items())
        inputs = ", ".join(f'"{name}": …' for name in self.inputs)
        given = [f"{k}={{{text}}}" for k, text in (("dims", dims), ("inputs", inputs)) if text]
        return f"tbc.compile(…, {', '.join(given)})" if given else self.hint


def _number(size: str) -> str:
    """A size of the command line as Python has it."""
    low, dots, high = size.partition("..")
    return f"({low}, {high})" if dots else low


class Unbounded(Unfixed):
    """Sizes of the model have no upper bound: the caller must give one."""


class TooLarge(TbcError):
    """A compiled model takes more flash or RAM than it may.

    Attributes:
        parts: bytes by what takes them, largest first.
    """

    def __init__(self, reason: str, *, file: str, parts: Mapping[str, int]):
        super().__init__(reason, file=file)
        self.parts = dict(parts)


class BadTarget(TbcError):
    """The target's name, CPU or features are not known or do not fit each other."""


class IncompatibleArtifact(TbcError):
    """A compiled model does not fit this machine, this ABI, or its own weights."""


class LinkFailed(TbcError):
    """The linker refused: its words are the reason."""


class UsageError(TbcError):
    """The command line asks for what cannot be."""


class BadState(UsageError):
    """What is said to be kept from call to call does not fit the model."""


class InternalError(TbcError):
    """A bug in tbc or in LLVM, never the user's fault."""
