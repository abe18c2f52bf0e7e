"""Static libraries, read back by other people's tools and linked by their linkers."""

import shutil
import struct

import adder
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toolchain import EMULATED, INCLUDE, ZIG, needs_cc, needs_zig, run, run_check, zig_cc

from tbc.codegen.archive import Member, symbol_name, write_archive
from tbc.codegen.host import host_target
from tbc.target import parse

MAIN = """
#include "tbc.h"
extern const tbc_model tbc_adder;
int main(void);
int main(void) { return (int)tbc_adder.align - 64; }
"""
FORMATS = ("elf", "coff", "macho", "wasm")


def library(target, name="adder", member="adder.o"):
    """An archive of the adder, behind a member that nothing needs."""
    obj = adder.compiled(target, adder.info(target, name))
    symbol = symbol_name(f"tbc_{name}", target.object_format, target.arch, target.index_bits)
    other = Member("other.o", adder.compiled(target, adder.info(target, "other")), ())
    return write_archive([other, Member(member, obj, (symbol,))], target.object_format)


@needs_cc
def test_ar_and_nm_read_it(tmp_path):
    path = tmp_path / "libadder.a"
    path.write_bytes(library(host_target(), member="a_name_of_more_than_16_bytes.o"))
    if shutil.which("ar") is None or shutil.which("nm") is None:
        pytest.skip("binutils are not installed")
    assert run("ar", "t", path).stdout.split() == ["other.o", "a_name_of_more_than_16_bytes.o"]
    assert "tbc_adder in a_name_of_more_than_16_bytes.o" in run("nm", "-s", path).stdout
    run("ar", "x", path, "--output", tmp_path)
    again = adder.compiled(host_target(), adder.info(host_target()))
    assert (tmp_path / "a_name_of_more_than_16_bytes.o").read_bytes() == again


@needs_cc
def test_the_linker_of_this_machine_takes_it(tmp_path):
    (tmp_path / "libadder.a").write_bytes(library(host_target()))
    (tmp_path / "main.c").write_text(MAIN)
    run("cc", f"-I{INCLUDE}", "-o", tmp_path / "main", tmp_path / "main.c", tmp_path / "libadder.a")
    run(tmp_path / "main")


@needs_cc
def test_two_models_fit_in_one_program(tmp_path):
    target = host_target()
    (tmp_path / "libadder.a").write_bytes(library(target))
    (tmp_path / "libsecond.a").write_bytes(library(target, "second", "second.o"))
    (tmp_path / "main.c").write_text(
        "extern const char tbc_adder, tbc_second;\n"
        "int main(void) { return &tbc_adder == &tbc_second; }\n"
    )
    files = [tmp_path / name for name in ("main.c", "libadder.a", "libsecond.a")]
    run("cc", "-o", tmp_path / "main", *files)
    run(tmp_path / "main")


@needs_zig
@pytest.mark.parametrize("name", EMULATED)
def test_other_linkers_take_it(tmp_path, name):
    (tmp_path / "libadder.a").write_bytes(library(parse(name)))
    (tmp_path / "check.c").write_text(MAIN.replace("main", "check"))
    assert run_check(name, tmp_path, tmp_path / "check.c", tmp_path / "libadder.a") == 0


@needs_zig
@pytest.mark.parametrize(
    ("name", "triple", "flags"),
    [
        ("apple-m1", "aarch64-macos", ["-shared"]),
        ("macos-x86-64", "x86_64-macos", ["-shared"]),
        ("wasm32", "wasm32-freestanding", ["-Wl,--no-entry", "-Wl,--export=start"]),
    ],
)
def test_linkers_of_other_formats_take_it(tmp_path, name, triple, flags):
    (tmp_path / "libadder.a").write_bytes(library(parse(name)))
    (tmp_path / "main.c").write_text(MAIN.replace("main", "start"))
    zig_cc(triple, tmp_path / "out", *flags, tmp_path / "main.c", tmp_path / "libadder.a")
    listed = run(ZIG, "ar", "t", tmp_path / "libadder.a").stdout.split()
    assert listed == ["other.o", "adder.o"]


@needs_zig
@pytest.mark.parametrize(
    ("name", "triple"),
    [
        ("windows-x86-64", "x86_64-windows-gnu"),
        ("windows-arm64", "aarch64-windows-gnu"),
        ("i686-pc-windows-msvc", "x86-windows-gnu"),
    ],
)
def test_the_windows_linker_takes_it(tmp_path, name, triple):
    (tmp_path / "adder.lib").write_bytes(library(parse(name)))
    (tmp_path / "main.c").write_text(MAIN.replace("main", "start"))
    zig_cc(triple, tmp_path / "main.obj", "-c", tmp_path / "main.c")
    flags = ["/subsystem:console", "/nodefaultlib", "/entry:start", f"/out:{tmp_path / 'a.exe'}"]
    run(ZIG, "lld-link", *flags, tmp_path / "main.obj", tmp_path / "adder.lib")


NAMES = st.text("abcdefghij_.", min_size=1, max_size=40)


def read(archive):
    """The members of an archive as (name, data), by the format's own rules."""
    assert archive[:8] == b"!<arch>\n"
    at, members = 8, []
    while at < len(archive):
        head = archive[at : at + 60]
        assert head[58:] == b"`\n"
        assert head[16:28] == b"0           "
        size = int(head[48:58])
        data = archive[at + 60 : at + 60 + size]
        assert len(data) == size
        members.append((at, head[:16].rstrip().decode(), data))
        at += 60 + size + size % 2
    return members


@given(
    st.sampled_from(FORMATS),
    st.dictionaries(NAMES, st.tuples(st.binary(max_size=40), st.lists(NAMES)), min_size=1),
)
def test_the_index_finds_every_symbol(form, contents):
    members = [Member(name, data, tuple(s)) for name, (data, s) in contents.items()]
    archive = write_archive(members, form)
    assert archive == write_archive(members, form)
    parts = read(archive)
    at_of = {at: data for at, _, data in parts}
    wanted = sorted((s, m.data) for m in members for s in m.symbols)
    index = parts[0][2]
    if form == "macho":
        length = int(parts[0][1].removeprefix("#1/"))
        index = index[length:]
        words = struct.unpack_from("<I", index)[0] // 4
        pairs = struct.unpack_from(f"<{words}I", index, 4)
        strings = index[8 + 4 * words :]
        offsets = pairs[1::2]
        found = [strings[i : strings.index(0, i)].decode() for i in pairs[::2]]
        assert all((at + 60 + int(name.removeprefix("#1/"))) % 8 == 0 for at, name, _ in parts)
        held = [at_of[o][int(head_length(archive, o)) :] for o in offsets]
    else:
        count = struct.unpack_from(">I", index)[0]
        offsets = struct.unpack_from(f">{count}I", index, 4)
        found = [s.decode() for s in index[4 + 4 * count :].split(b"\0")[:count]]
        held = [at_of[o] for o in offsets]
    got = sorted(
        (symbol, data.rstrip(b"\0") if form == "macho" else data)
        for symbol, data in zip(found, held, strict=True)
    )
    if form == "macho":
        wanted = sorted((symbol, data.rstrip(b"\0")) for symbol, data in wanted)
    assert got == wanted


def head_length(archive, at):
    """The length of a name that stands in front of its data."""
    return archive[at : at + 16].rstrip().decode().removeprefix("#1/")
