"""Blobs: both loaders, damaged ones, what is refused, and what is said of them."""

from __future__ import annotations

import ctypes
import json
import re
import struct
from pathlib import Path
from zlib import crc32

import adder
import blobs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toolchain import CPU_SOURCE, INCLUDE, ROOT, STRICT, needs_cc, run
from typer.testing import CliRunner

import tbc
from tbc import driver
from tbc.cli import app
from tbc.codegen.blob import HEADER
from tbc.codegen.host import host_target
from tbc.codegen.machine import Workers
from tbc.errors import IncompatibleArtifact, Unsupported
from tbc.runtime import structs
from tbc.runtime.blob import HEADER_SIZE, parse_blob, read_blob
from tbc.target import parse

SOURCES = [ROOT / "runtime/src" / name for name in ("tbc_blob.c", "tbc_map.c")]
REFUSED = (structs.ERROR_ABI, structs.ERROR_CPU, structs.ERROR_BLOB)
FUNCTIONS = 108
"""Where the header says where `run` begins."""

pytestmark = pytest.mark.skipif(
    host_target().object_format != "elf", reason="this system has no blobs"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("blobs")


@pytest.fixture(scope="module")
def path(folder: Path, workers: Workers) -> Path:
    """A blob of this machine."""
    made = folder / "adder.tbc"
    blobs.write(made, host_target(), workers)
    return made


@pytest.fixture(scope="module")
def small(folder: Path, workers: Workers) -> bytes:
    """One that has no pages, of some hundred bytes."""
    return blobs.write(folder / "small.tbc", host_target(), workers, paged=False)


class Library:
    """tbc_blob.c and tbc_map.c, called from Python."""

    def __init__(self, folder: Path):
        path = folder / "libblob.so"
        run("cc", *STRICT, "-shared", "-fPIC", *SOURCES, "-o", path)
        library = ctypes.CDLL(str(path))
        self._open, self._map, self._close = library.tbc_open, library.tbc_map, library.tbc_close
        self._bytes = library.tbc_blob_bytes
        self._bytes.restype = ctypes.c_size_t

    def open(self, data: bytes, offset: int = 0, cpu_bits: int = 2**64 - 1) -> int:
        """The status of `tbc_open` of a copy at a multiple of 4096, plus an offset."""
        room = ctypes.create_string_buffer(len(data) + 4096 + offset)
        at = ctypes.addressof(room) + -ctypes.addressof(room) % 4096 + offset
        ctypes.memmove(at, bytes(data), len(data))
        size = self._bytes(ctypes.c_void_p(at), ctypes.c_size_t(len(data)))
        memory = (ctypes.c_uint64 * (size // 8 + 1))()
        model = ctypes.c_void_p(1)
        status = self._open(
            *(ctypes.c_void_p(at), ctypes.c_size_t(len(data)), ctypes.c_uint64(cpu_bits)),
            *(memory, ctypes.c_size_t(size), ctypes.byref(model)),
        )
        assert (status == structs.OK) == bool(model.value)
        return int(status)

    def map(self, path: Path) -> int:
        """The status of `tbc_map`, of which nothing stays behind."""
        mapping = (ctypes.c_void_p * 5)()
        bits = ctypes.c_uint64(2**64 - 1)
        status = self._map(ctypes.c_char_p(str(path).encode()), bits, mapping)
        assert (status == structs.OK) == all(mapping)
        self._close(mapping)
        assert not any(mapping)
        return int(status)


@pytest.fixture(scope="module")
def library(folder: Path) -> Library:
    return Library(folder)


def in_python(data: bytes) -> bool:
    """Whether Python takes it for a blob, as far as `parse_blob` sees."""
    try:
        parse_blob(memoryview(data))
    except IncompatibleArtifact:
        return False
    return True


def summed(data: bytes) -> bytes:
    """The blob with its checksum put right."""
    return data[:4] + struct.pack("=I", crc32(data[8:])) + data[8:]


# -- what is right ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 4])
def test_python_runs_a_blob(path: Path, n: int) -> None:
    model = tbc.load(path)
    x = np.arange(3 * n, dtype=np.float32).reshape(n, 3)
    expected = 11 * x + np.float32(adder.WEIGHTS)
    np.testing.assert_array_equal(model.run({"x": x, "y.1": 10 * x})["sum"], expected)
    assert (model.name, model.symbols) == ("adder", (("n", 0, 4),))
    assert [t.name for t in (*model.inputs, *model.outputs)] == ["x", "y.1", "sum"]
    with pytest.raises(ValueError, match="outside"):
        model.run({"x": np.zeros((5, 3), np.float32), "y.1": np.zeros((5, 3), np.float32)})


def test_a_blob_shares_its_runs_among_threads(path: Path) -> None:
    x = np.ones((4, 3), np.float32)
    found = tbc.load(path, threads=2).run({"x": x, "y.1": x})["sum"]
    np.testing.assert_array_equal(found, 2 * x + np.float32(adder.WEIGHTS))


def test_code_may_run_and_nothing_may_be_written(path: Path) -> None:
    model = tbc.load(path)
    blob = read_blob(path)
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("there is no /proc/self/maps")
    lines = [line.split() for line in maps.read_text().splitlines() if str(path) in line]
    modes = {int(words[2], 16): words[1][:3] for words in lines}
    assert modes[0] == "r--"
    assert modes[blob.code] == "r-x"
    assert modes[blob.code + blob.code_size] == "r--"
    assert model.name == "adder"


def test_large_weights_are_in_the_blob_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that would be a file beside a library."""
    monkeypatch.setattr(driver, "EMBEDDED_WEIGHTS", 0)
    model = tbc.compile(ROOT / "examples/digits/digits_mlp.onnx")
    (path,) = model.save(tmp_path, ("blob",))
    assert list(tmp_path.iterdir()) == [path]
    x = {"x": np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 64)}
    np.testing.assert_array_equal(tbc.load(path).run(x)["logits"], model.run(x)["logits"])


def test_equal_models_make_equal_bytes(path: Path, folder: Path, workers: Workers) -> None:
    assert blobs.write(folder / "again.tbc", host_target(), workers) == path.read_bytes()


@needs_cc
def test_c_runs_a_blob_in_memory_and_mapped(path: Path, tmp_path: Path) -> None:
    flags = (*STRICT, "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    source = ROOT / "tests/c/blob.c"
    run("cc", *flags, source, *SOURCES, CPU_SOURCE, "-o", tmp_path / "program")
    printed = run(tmp_path / "program", path).stdout
    rows = [2 * i + adder.WEIGHTS[i % 3] for i in range(12)]
    assert printed.split() == [f"{row:g}" for row in rows] * 2


@needs_cc
@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.name)
def test_the_loader_is_also_cpp_and_small(source: Path, tmp_path: Path) -> None:
    warnings = ("-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Werror")
    run("cc", "-std=c99", *warnings, f"-I{INCLUDE}", "-c", source, "-o", tmp_path / "a.o")
    run(
        "c++",
        "-std=c++11",
        "-xc++",
        *warnings[:3],
        f"-I{INCLUDE}",
        "-c",
        source,
        "-o",
        tmp_path / "b.o",
    )


# -- what is not -----------------------------------------------------------------------------------


@needs_cc
def test_any_changed_byte_is_refused(small: bytes, library: Library) -> None:
    data = bytearray(small)
    assert library.open(data) == structs.OK
    assert in_python(data)
    for at in range(len(data)):
        for change in (1, 0x80, 0xFF):
            data[at] ^= change
            assert library.open(bytes(data)) in REFUSED, at
            assert not in_python(data), at
            data[at] ^= change
    assert library.open(data) == structs.OK


@needs_cc
def test_any_length_but_its_own_is_refused(small: bytes, library: Library, tmp_path: Path) -> None:
    for size in (*range(0, len(small), 7), len(small) - 1):
        assert library.open(small[:size]) == structs.ERROR_BLOB
        assert not in_python(small[:size])
    assert not in_python(small + b"\0")
    assert library.open(small + b"\0") == structs.OK  # in flash, other things may follow
    for name, data in {"long": small + b"\0", "short": small[:-1], "empty": b""}.items():
        (tmp_path / name).write_bytes(data)
        expected = structs.ERROR_BLOB if data else structs.ERROR_FILE
        assert library.map(tmp_path / name) == expected


@needs_cc
def test_files_that_cannot_be_mapped(path: Path, library: Library, tmp_path: Path) -> None:
    assert library.map(path) == structs.OK
    assert library.map(tmp_path / "absent") == structs.ERROR_FILE
    assert library.map(tmp_path) == structs.ERROR_FILE
    with pytest.raises(IncompatibleArtifact, match="cannot be read"):
        tbc.load(tmp_path / "absent.tbc")


@needs_cc
def test_blobs_without_pages_are_opened_but_not_mapped(
    small: bytes, library: Library, tmp_path: Path
) -> None:
    (tmp_path / "small.tbc").write_bytes(small)
    assert library.open(small) == structs.OK
    assert library.map(tmp_path / "small.tbc") == structs.ERROR_ALIGN
    with pytest.raises(IncompatibleArtifact, match="whole pages"):
        tbc.load(tmp_path / "small.tbc")


@needs_cc
def test_the_caller_must_have_room_and_the_cpu(small: bytes, library: Library) -> None:
    assert library.open(small, offset=8) == structs.ERROR_ALIGN
    assert library.open(small[:32] + struct.pack("=Q", 1 << 63) + small[40:]) == structs.ERROR_BLOB
    other = summed(small[:32] + struct.pack("=Q", 1 << 63) + small[40:])
    assert library.open(other) == structs.OK
    assert library.open(other, cpu_bits=0) == structs.ERROR_CPU


@needs_cc
@pytest.mark.parametrize(
    ("at", "form", "value", "status"),
    [
        (8, "I", 3, structs.ERROR_ABI),
        (12, "I", 99, structs.ERROR_ABI),
        (16, "H", 21, structs.ERROR_CPU),
        (18, "B", 5, structs.ERROR_CPU),
        (19, "B", 1, structs.ERROR_CPU),
        (20, "I", 48, structs.ERROR_BLOB),
        (40, "Q", 1 << 40, structs.ERROR_BLOB),
        (48, "Q", 2**64 - 1, structs.ERROR_BLOB),
        (56, "Q", 2**64 - 64, structs.ERROR_BLOB),
        (64, "Q", 2**64 - 1, structs.ERROR_BLOB),
        (100, "I", 0, structs.ERROR_BLOB),
        (FUNCTIONS, "I", 0, structs.ERROR_BLOB),
        (FUNCTIONS + 4, "I", 2**32 - 1, structs.ERROR_BLOB),
        (124, "I", 4, structs.ERROR_BLOB),
        (132, "I", 2**32 - 1, structs.ERROR_BLOB),
        (136, "I", 2**32 - 1, structs.ERROR_BLOB),
        (140, "I", 2**31, structs.ERROR_BLOB),
        (144, "I", 2**32 - 1, structs.ERROR_BLOB),
        (148, "I", 161, structs.ERROR_BLOB),
        (152, "I", 0, structs.ERROR_BLOB),
        (156, "I", 1, structs.ERROR_BLOB),
        (HEADER_SIZE, "I", 0, structs.ERROR_BLOB),
        (HEADER_SIZE + 4, "I", 8, structs.ERROR_BLOB),
        (HEADER_SIZE + 8, "I", 2**32 - 1, structs.ERROR_BLOB),
        (HEADER_SIZE + 12, "I", 2**32 - 8, structs.ERROR_BLOB),
        (HEADER_SIZE + 3 * 32 + 8, "Q", 5, structs.ERROR_BLOB),
    ],
)
def test_what_is_wrong_in_itself_is_refused(
    small: bytes, library: Library, at: int, form: str, value: int, status: int
) -> None:
    """With a checksum that is right."""
    field = struct.pack("=" + form, value)
    changed = summed(small[:at] + field + small[at + len(field) :])
    assert library.open(changed) == status
    if at not in (12, 16, 18, 19):  # which Python looks at when it loads
        assert not in_python(changed)


@st.composite
def changes(draw: st.DrawFn) -> list[tuple[int, bytes]]:
    """Fields of the header and of the tables, and what to write there."""
    numbers = st.one_of(
        st.integers(0, 2000),
        st.integers(0, 2**64 - 1),
        st.sampled_from([2**31, 2**32 - 1, 2**64 - 1]),
    )
    places = st.integers(2, (HEADER_SIZE + 200) // 4).map(lambda i: 4 * i)
    forms = st.sampled_from(["I", "Q"])
    found = draw(st.lists(st.tuples(places, forms, numbers), min_size=1, max_size=3))
    return [(at, struct.pack("=" + f, n % 2 ** (32 if f == "I" else 64))) for at, f, n in found]


@needs_cc
@given(changed=changes())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_both_loaders_refuse_the_same(
    small: bytes, library: Library, changed: list[tuple[int, bytes]]
) -> None:
    data = bytearray(small)
    for at, field in changed:
        data[at : at + len(field)] = field
    blob = summed(bytes(data))
    # The machine, the ABI and the place in memory are looked at in Python when it is loaded.
    outside = (structs.ERROR_ABI, structs.ERROR_CPU, structs.ERROR_ALIGN)
    status = library.open(blob)
    if status not in outside:
        assert in_python(blob) == (status == structs.OK)


def test_a_blob_of_another_machine_is_described_and_not_loaded(
    tmp_path: Path, workers: Workers
) -> None:
    path = tmp_path / "adder.tbc"
    blobs.write(path, parse("s390x"), workers)
    blob = read_blob(path)
    assert (blob.machine, blob.bits, blob.little_endian) == ("s390x", 64, False)
    assert path.read_bytes()[:4] == b"\x1aCBT"
    assert [t.name for t in blob.inputs] == ["x", "y.1"]
    with pytest.raises(IncompatibleArtifact, match="compiled for s390x"):
        tbc.load(path)


@pytest.mark.parametrize(
    ("target", "reason"),
    [("wasm32", "WebAssembly"), ("windows-x86-64", "only ELF"), ("apple-m1", "only ELF")],
)
def test_targets_without_blobs_say_so(tmp_path: Path, target: str, reason: str) -> None:
    model = tbc.compile(ROOT / "examples/digits/digits_mlp.onnx", target=target)
    with pytest.raises(Unsupported, match=reason) as error:
        model.save(tmp_path, ("blob",))
    assert "shared" in error.value.hint


# -- what is said of them --------------------------------------------------------------------------


def test_the_command_line_describes_and_runs_a_blob(path: Path, tmp_path: Path) -> None:
    def cli(*arguments: object) -> str:
        done = CliRunner().invoke(app, [str(a) for a in arguments])
        assert done.exit_code == 0, done.output
        return done.stdout

    printed = cli("inspect", path)
    assert re.search(r"y\.1 +input +float32 +\[n,3\] +48 B", printed)
    assert "n from 0 to 4" in printed
    assert "ABI 4" in printed
    blob = json.loads(cli("inspect", path, "--json"))
    assert blob["length"] == path.stat().st_size
    assert [s[0] for s in blob["symbols"]] == ["n"]
    result = json.loads(
        cli("run", path, "--input", "x=[[1,2,3]]", "--input", "y.1=[[4,5,6]]", "--json")
    )
    assert result["sum"]["values"] == [[5.5, 6.0, 13.0]]
    (tmp_path / "bad.tbc").write_bytes(path.read_bytes()[:-1])
    done = CliRunner().invoke(app, ["inspect", str(tmp_path / "bad.tbc")])
    assert done.exit_code == 1
    assert "it is damaged" in done.stderr


def test_emitting_a_blob_is_said(tmp_path: Path) -> None:
    model = ROOT / "examples/digits/digits_mlp.onnx"
    arguments = (
        "compile",
        model,
        "--emit",
        "blob",
        "--target",
        "cortex-m4",
        "-o",
        tmp_path,
        "--json",
    )
    report = json.loads(CliRunner().invoke(app, [str(a) for a in arguments]).stdout)
    (file,) = report["files"]
    assert Path(file["path"]) == tmp_path / "digits_mlp.tbc"
    assert file["kind"] == "blob"
    blob = read_blob(tmp_path / "digits_mlp.tbc")
    assert (blob.machine, blob.bits, blob.thumb, blob.target) == ("arm", 32, True, "cortex-m4")
    assert blob.length == file["bytes"] < 32 << 10


def test_the_documented_fields_are_those_of_the_header() -> None:
    text = (ROOT / "docs/blob.md").read_text().partition("### The header")[2].partition("###")[0]
    rows = [tuple(map(int, row)) for row in re.findall(r"(?m)^\| (\d+) \| (\d+) \|", text)]
    offsets, at = [], 0
    for form in HEADER:
        size = struct.calcsize("=" + form)
        offsets.append((at, size))
        at += size
    assert rows == offsets
    assert at == HEADER_SIZE
