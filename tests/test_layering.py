"""The folders import the core and never each other; few modules put them together."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("frontend", "passes", "codegen", "runtime")
ASSEMBLED = {
    *("api", "backend", "bench", "cli", "console", "driver", "dump", "emulate", "flips", "oracle"),
    *(
        "report",
        "budget",
        "energy",
        "inspection",
        "options",
        "specialise",
        "target_list",
        "variants",
        "verification",
        "__init__",
        "__main__",
    ),
}
"""The modules and packages of tbc/ that put the folders together; the others are the core."""
ONLY_IN = {
    "llvmlite": {"codegen"},
    "onnx": {"frontend", "api", "backend", "bench", "oracle"},
    "onnxruntime": {"bench", "oracle"},
    "jinja2": {"bench", "codegen"},
    "networkx": {"passes"},
    "typer": {"cli", "options"},
    "rich": {"console"},
}


def imported(source: str) -> set[str]:
    """The modules that a source imports anywhere in it; tbc's as `tbc.<module or folder>`."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide what is imported"
            whole = node.module or ""
            names = [f"tbc.{a.name}" for a in node.names] if whole == "tbc" else [whole]
        for name in names:
            parts = name.split(".")
            found.add(".".join(parts[:2]) if parts[0] == "tbc" else parts[0])
    return found


def sources() -> dict[str, tuple[str, set[str]]]:
    """By path: the folder or core module that a source belongs to, and what it imports."""
    found = {}
    inner = [ROOT / folder for folder in (*FOLDERS, "tbc/bench", "tbc/elementary", "tbc/ops")]
    for path in [*(p for folder in inner for p in folder.rglob("*.py")), *ROOT.glob("tbc/*.py")]:
        relative = path.relative_to(ROOT)
        first, second, *_ = relative.parts
        unit = first if first in FOLDERS else second.removesuffix(".py")
        found[str(relative)] = unit, imported(path.read_text(encoding="utf-8"))
    return found


SOURCES = sources()


def test_every_folder_is_looked_at() -> None:
    assert {unit for unit, _ in SOURCES.values()} >= {*FOLDERS, *ASSEMBLED, "ir", "ops"}


@pytest.mark.parametrize("path", SOURCES)
def test_folders_and_core(path: str) -> None:
    unit, modules = SOURCES[path]
    above = {f"tbc.{name}" for name in ASSEMBLED}
    folders = {f"tbc.{name}" for name in FOLDERS}
    if unit in ASSEMBLED:
        return
    own = {f"tbc.{unit}"} if unit in FOLDERS else set()
    assert not modules & (above | folders - own)


@pytest.mark.parametrize("path", SOURCES)
def test_packages(path: str) -> None:
    unit, modules = SOURCES[path]
    assert not {package for package in modules & ONLY_IN.keys() if unit not in ONLY_IN[package]}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import tbc.passes.fold", {"tbc.passes"}),
        ("from tbc import runtime, errors", {"tbc.runtime", "tbc.errors"}),
        ("def f():\n    from tbc.codegen.link import x", {"tbc.codegen"}),
        ("import onnx.helper", {"onnx"}),
    ],
)
def test_imports_are_found(source: str, expected: set[str]) -> None:
    assert imported(source) == expected
