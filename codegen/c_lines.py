"""Lines of a C function under construction: indented, wrapped, and in braces."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

from tbc.codegen.c_expressions import Ex

WIDTH = 100


class Lines:
    """The body of a function.

    Attributes:
        text: the lines so far.
        top: declarations that stand in front of them.
    """

    def __init__(self) -> None:
        self.text: list[str] = []
        self.top: list[str] = []
        self.indent = 1

    def add(self, text: str) -> None:
        """A statement."""
        self.text += wrapped(text, "    " * self.indent)

    @contextmanager
    def braces(self, head: str, indent: int = 1) -> Iterator[None]:
        """A block behind a head such as `if (…)`."""
        self.add(f"{head} {{")
        self.indent += indent
        yield
        self.indent -= indent
        self.add("}")

    def each_lane(self, lanes: int, body: list[str]) -> None:
        """A loop over the lanes of vectors."""
        with self.braces(f"for (int lane = 0; lane < {lanes}; lane++)"):
            for line in body:
                self.add(line)


def wrapped(text: str, indent: str = "") -> list[str]:
    """The lines of a text that may be longer than one."""
    lines = textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=f"{indent}        ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace("\0", " ") for line in lines]


def unbroken(text: str) -> str:
    """The text, which `wrapped` will leave on one line."""
    return text.replace(" ", "\0")


def declared(type: str, name: str) -> str:
    """The declaration of a variable of a type."""
    return f"{type}{'' if type.endswith('*') else ' '}{name}"


def constant(type: str, name: str) -> str:
    """The declaration of what will not change."""
    return f"{type}const {name}" if type.endswith("*") else f"const {type} {name}"


def assigned(name: str, ex: Ex) -> str:
    """`name = ex;`, or `name += …` and the like."""
    first, operator = ex.left
    if first != name or operator not in ("+", "-", "*", "&", "|", "^", "<<", ">>"):
        return f"{name} = {ex.text};"
    rest = ex.text.removeprefix(f"{name} {operator} ")
    return f"{name} {operator}= {_bare(rest)};"


def _bare(text: str) -> str:
    """The text without parentheses around all of it."""
    depth = 0
    for at, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0 and at < len(text) - 1:
            return text
    return text[1:-1] if text.startswith("(") else text


def mentions(ex: Ex, name: str) -> bool:
    """Whether an expression has a variable in it."""
    return re.search(rf"\b{name}\b", ex.text) is not None
