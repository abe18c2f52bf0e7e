"""What the documents say is so: paths, commands, the order of the passes, and their programs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main
from toolchain import ROOT, STRICT, needs_cc, run

import tbc
from tbc.api import compile
from tbc.cli import app
from tbc.passes import PIPELINE

DOCUMENTS = sorted(
    path for pattern in ("*.md", "docs/*.md", "examples/*/*.md") for path in ROOT.glob(pattern)
)
FOLDERS = "tbc|frontend|passes|codegen|runtime|docs|examples|tests"

documents = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))


def blocks(path: Path, language: str) -> list[str]:
    """The fenced code of a document."""
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.M | re.S)


@documents
def test_links_and_paths(path: Path) -> None:
    text = path.read_text()
    links = [path.parent / link for link in re.findall(r"\]\((?!http)([^)#]+)", text)]
    named = re.findall(rf"`((?:{FOLDERS})/[\w./*]+)`", text)
    assert [str(link) for link in links if not link.exists()] == []
    assert [name for name in named if not any(ROOT.glob(name.rstrip("/")))] == []


@documents
def test_commands(path: Path) -> None:
    """Every `tbc` command line names a command and options that there are."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for name, rest in re.findall(r"(?:^    |`)tbc ([a-z]+)([^`\n#]*)", path.read_text(), re.M):
        known = {word for p in commands[name].params for word in getattr(p, "opts", ())}
        used = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", rest))
        assert used <= known, (name, used - known)


def test_order_of_passes() -> None:
    line = re.search(r"passes/ {2,}(.*)", (ROOT / "docs/architecture.md").read_text())
    assert line is not None
    assert line[1].split() == [step.__name__ for step in PIPELINE]


def test_python(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    (program,) = blocks(ROOT / "README.md", "python")
    exec(program, {})
    assert re.fullmatch(r"\[\d( \d){9}\]\n", capsys.readouterr().out)


@needs_cc
def test_c(tmp_path: Path) -> None:
    """The first program of c-api.md, and the one that tbc generates."""
    compile(ROOT / "examples/digits/digits_mlp.onnx").save(tmp_path, ("project",))
    source = tmp_path / "call.c"
    source.write_text(blocks(ROOT / "docs/c-api.md", "c")[0])
    for main, said in ((source, "no error; logits"), (tmp_path / "main.c", "logits: ")):
        libraries = (tmp_path / "libdigits_mlp.a", *tmp_path.glob("tbc_*.c"))
        run("cc", *STRICT, f"-I{tmp_path}", main, *libraries, "-o", tmp_path / "program")
        assert run(tmp_path / "program").stdout.startswith(said)


def test_version() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{tbc.__version__}"' in text
