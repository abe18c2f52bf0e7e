"""What many tests need: a process that compiles, and golden files that are rewritten on request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tbc.codegen.machine import Workers

# Machines are shared: how long an example takes says nothing about the code.
settings.register_profile("tbc", deadline=None)
settings.load_profile("tbc")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update", action="store_true", help="rewrite the golden files")


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    """A process that compiles for all tests of a module."""
    with Workers(1) as started:
        yield started


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """golden(path, text) fails unless the file holds the text."""

    def compare(path: Path, text: str) -> None:
        if request.config.getoption("--update"):
            path.write_text(text)
        assert path.exists(), f"{path} is missing: run pytest with --update and read it"
        assert text == path.read_text()

    return compare
