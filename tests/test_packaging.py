"""The wheel and the source distribution: whole, and of use without the repository."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from toolchain import ROOT

DIGITS = ROOT / "examples/digits"
SHIPPED = {".py", ".c", ".h", ".mjs", ".j2", ".typed"}

pytestmark = pytest.mark.skipif(
    int(importlib.metadata.version("setuptools").split(".")[0]) < 77,
    reason="setuptools 77 or newer is not installed",
)

BUILD = """
import sys
from setuptools import build_meta
print(getattr(build_meta, "build_" + sys.argv[1])(sys.argv[2]))
"""
CLASSIFY = """
import sys
import numpy as np
import tbc
y = tbc.compile(sys.argv[1]).run({"x": np.load(sys.argv[2])})
np.save(sys.argv[3], y["logits"])
print(tbc.__file__)
"""


def command(*words: str | Path, cwd: Path) -> str:
    """What a command prints; it must not fail."""
    done = subprocess.run([str(w) for w in words], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def copy_of_source(folder: Path) -> Path:
    """What distributions are made of, links as links."""
    folder.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", "build")
    for name in ("tbc", "frontend", "passes", "codegen", "runtime", "docs", "examples", "tests"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
    for pattern in ("*.md", "*.toml", "*.in", "LICENSE", "Makefile"):
        for path in ROOT.glob(pattern):
            shutil.copy(path, folder)
    return folder


def build(source: Path, kind: str) -> Path:
    """The distribution of a source tree that its build backend makes."""
    name = command(sys.executable, "-c", BUILD, kind, "dist", cwd=source).splitlines()[-1]
    return source / "dist" / name


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if name.startswith("tbc/")}


def test_contents(tmp_path: Path) -> None:
    source = copy_of_source(tmp_path / "source")
    wheel, sdist = build(source, "wheel"), build(source, "sdist")
    # glob does not follow links, so each folder that is linked is looked at for itself
    folders = [source / "tbc", *(p for p in (source / "tbc").iterdir() if p.is_symlink())]
    files = {f"tbc/{p.relative_to(source / 'tbc')}" for f in folders for p in f.rglob("*")}
    assert names_in(wheel) == {name for name in files if Path(name).suffix in SHIPPED}
    assert "tbc/runtime/include/tbc.h" in names_in(wheel)

    with tarfile.open(sdist) as archive:
        assert not any(member.issym() for member in archive)
        assert not any("/tests/" in name for name in archive.getnames())
        archive.extractall(tmp_path, filter="data")
    again = build(tmp_path / sdist.name.removesuffix(".tar.gz"), "wheel")
    assert names_in(again) == names_in(wheel)


def installed(folder: Path, wheel: Path) -> Path:
    """The commands of a fresh environment with the wheel; what it needs is this one's."""
    venv.create(folder, with_pip=False)
    bin = folder / ("Scripts" if sys.platform == "win32" else "bin")
    python = bin / "python"
    flags = ("--python", python, "install", "--quiet", "--no-deps", "--no-index")
    command(sys.executable, "-m", "pip", *flags, wheel, cwd=folder)
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(command(python, "-c", where, cwd=folder).strip())
    # A path in a .pth file comes last, and the .pth files in there are not read: no tbc from there.
    (packages / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return bin


def test_installed(tmp_path: Path) -> None:
    wheel = build(copy_of_source(tmp_path / "source"), "wheel")
    bin = installed(tmp_path / "environment", wheel)
    work = tmp_path / "work"
    work.mkdir()
    shutil.copy(DIGITS / "digits_mlp.onnx", work / "net.onnx")
    x = np.load(DIGITS / "test_images.npy") / np.float32(16)
    np.save(work / "x.npy", x)

    where = command(bin / "python", "-c", CLASSIFY, "net.onnx", "x.npy", "y.npy", cwd=work)
    assert Path(where.strip()).is_relative_to(tmp_path / "environment")
    logits = np.load(work / "y.npy")
    assert (logits.argmax(1) == np.load(DIGITS / "test_labels.npy")).mean() > 0.98

    run = (bin / "tbc", "run", "net.onnx", "--input", "x=x.npy", "-o", "y.npz")
    command(*run, cwd=work)
    np.testing.assert_array_equal(np.load(work / "y.npz")["logits"], logits)
    command(bin / "tbc", "compile", "net.onnx", "--target=armv8", "-o", "out", cwd=work)
    assert {"libnet.a", "net.h", "tbc.h", "tbc_cpu.c", "main.c", "CMakeLists.txt"} <= {
        path.name for path in (work / "out").iterdir()
    }
    assert command(bin / "python", "-m", "tbc", "--version", cwd=work).startswith("tbc ")
