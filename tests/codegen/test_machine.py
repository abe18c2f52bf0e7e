"""Worker processes: linking of parts, hidden symbols, and LLVM's deaths as errors."""

import re
from dataclasses import replace

import llvmlite.binding as llvm
import pytest

from tbc.codegen import host
from tbc.codegen.host import from_features, host_target, linux_arm_features, resolve_target
from tbc.codegen.machine import Job, Part, Workers, compile_module
from tbc.codegen.objfile import undefined_symbols
from tbc.errors import InternalError
from tbc.kernels import choose
from tbc.target import TARGETS, parse
from tbc.types import DType

COPY = """
define void @copy(ptr noalias %d, ptr noalias %s, i64 %n) nounwind {
entry:
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %j, %body ]
  %c = icmp slt i64 %i, %n
  br i1 %c, label %body, label %done
body:
  %a = getelementptr i8, ptr %s, i64 %i
  %v = load i8, ptr %a
  %b = getelementptr i8, ptr %d, i64 %i
  store i8 %v, ptr %b
  %j = add i64 %i, 1
  br label %head
done:
  ret void
}
define void @unused() {
  ret void
}
"""
CALLER = """
@table = constant [2 x ptr] [ptr @run, ptr null]
declare void @copy(ptr, ptr, i64)
define i32 @run(ptr %d, ptr %s, i64 %n) nounwind {
  call void @copy(ptr %d, ptr %s, i64 %n)
  ret i32 0
}
"""
VNNI = """
declare <16 x i32> @llvm.x86.avx512.vpdpbusd.512(<16 x i32>, <64 x i8>, <64 x i8>)
define <16 x i32> @dot(<16 x i32> %a, <64 x i8> %b, <64 x i8> %c) nounwind {
  %r = call <16 x i32> @llvm.x86.avx512.vpdpbusd.512(<16 x i32> %a, <64 x i8> %b, <64 x i8> %c)
  ret <16 x i32> %r
}
"""
KINDS = frozenset({"obj", "asm", "llvm"})


@pytest.fixture(scope="module")
def workers():
    with Workers(1) as started:
        yield started


def job(target, *parts, keep=("run", "table"), **more):
    return Job(parse(target), parts, frozenset(keep), **{"kinds": KINDS, **more})


def test_parts_call_each_other_and_only_the_kept_symbols_stay_visible(workers):
    done = workers.compile(job("x86-64", Part(COPY, True), Part(CALLER, False)))
    asm = done["asm"].decode()
    assert set(re.findall(r"\.globl\s+(\w+)", asm)) == {"run", "table"}
    assert "copy:" in asm
    assert "unused" not in asm
    assert "define internal void @copy" in done["llvm"].decode()


@pytest.mark.parametrize("passes", [False, True])
def test_a_copying_loop_does_not_become_a_call_of_memcpy(workers, passes):
    done = workers.compile(job("x86-64", Part(COPY, passes), keep=("copy",)))
    assert "memcpy" not in done["asm"].decode()
    assert undefined_symbols(done["obj"]) == set()


def test_without_the_attribute_it_would(workers):
    text = COPY.replace(" nounwind {", "\n  nounwind {")  # a head that the compiler does not find
    with pytest.raises(InternalError, match="needs memcpy"):
        workers.compile(job("x86-64", Part(text, True), keep=("copy",)))


def test_the_pass_pipeline_runs_where_it_is_asked_for(workers):
    text = "define i32 @f(i32 %x) {\n  %a = add i32 %x, 1\n  %b = add i32 %a, 1\n  ret i32 %b\n}"
    plain = workers.compile(job("armv8", Part(text, False), keep=("f",)))["llvm"].decode()
    tuned = workers.compile(job("armv8", Part(text, True), keep=("f",)))["llvm"].decode()
    assert plain.count("add i32") == 2
    assert tuned.count("add i32") == 1


def test_a_function_that_no_part_defines_is_an_error(workers):
    with pytest.raises(InternalError, match="nothing defines copy"):
        workers.compile(job("x86-64", Part(CALLER, False)))


def test_a_library_call_made_by_llvm_is_an_error(workers):
    text = """
    declare float @llvm.roundeven.f32(float)
    define float @f(float %x) nounwind {
      %r = call float @llvm.roundeven.f32(float %x)
      ret float %r
    }
    """
    workers.compile(job("x86-64-v2", Part(text, False), keep=("f",)))
    with pytest.raises(InternalError, match=r"of f for x86-64 needs roundevenf"):
        workers.compile(job("x86-64", Part(text, False), keep=("f",)))
    assert workers.compile(job("x86-64", Part(text, False), keep=("f",), closed=False))["obj"]


def test_a_part_can_define_what_llvm_calls(workers):
    round_half_even = """
    @llvm.compiler.used = appending global [1 x ptr] [ptr @roundevenf], section "llvm.metadata"
    define float @roundevenf(float %x) nounwind {
      ret float %x
    }
    """
    user = """
    declare float @llvm.roundeven.f32(float)
    define float @f(float %x) nounwind {
      %r = call float @llvm.roundeven.f32(float %x)
      ret float %r
    }
    """
    parts = (Part(user, True), Part(round_half_even, True))
    done = workers.compile(job("x86-64", *parts, keep=("f",)))
    assert undefined_symbols(done["obj"]) == set()
    assert re.findall(r"\.globl\s+(\w+)", done["asm"].decode()) == ["f"]


def test_bad_text_is_an_error(workers):
    with pytest.raises(InternalError, match="refuses the code of my_kernel"):
        workers.compile(job("x86-64", Part("define void @f() {\n", False), about="my_kernel"))


UNSELECTED = """
define void @framed() nounwind {
  %p = alloca [256 x i8]
  store volatile i8 1, ptr %p
  ret void
}
declare void @llvm.set.rounding(i32)
define void @f(i32 %x) nounwind {
  call void @llvm.set.rounding(i32 %x)
  ret void
}
"""


@pytest.mark.parametrize("kinds", [KINDS, frozenset({"obj"})], ids=["with_asm", "object_alone"])
def test_llvm_dying_is_an_error_that_says_why(workers, kinds):
    """Its error and the function, neither the nodes between them nor the frames before them."""
    keep = ("f", "framed")
    assert workers.compile(job("x86-64", Part(UNSELECTED, False), keep=keep, kinds=kinds))
    with pytest.raises(InternalError) as caught:
        workers.compile(job("s390x", Part(UNSELECTED, False), keep=keep, kinds=kinds))
    said = r"LLVM ERROR: Cannot select: [^;]*set_rounding[^;]*; In function: f"
    assert re.fullmatch(rf"LLVM died compiling framed, f for s390x: {said}", caught.value.reason)


def test_a_worker_that_died_is_replaced(workers):
    with pytest.raises(InternalError, match="died compiling dot for x86-64-v3: LLVM ERROR: "):
        workers.compile(job("x86-64-v3", Part(VNNI, False), keep=("dot",)))
    done = workers.compile(job("x86-64-v4+vnni", Part(VNNI, False), keep=("dot",)))
    assert "vpdpbusd" in done["asm"].decode()


def test_compile_all_keeps_the_order():
    names = [f"f{i}" for i in range(6)]
    jobs = [
        job("armv8", Part(f"define void @{n}() nounwind {{\n  ret void\n}}", True), keep=(n,))
        for n in names
    ]
    with Workers(2) as workers:
        for name, done in zip(names, workers.compile_all(jobs), strict=True):
            assert f"{name}:" in done["asm"].decode()


def test_compiling_twice_gives_the_same_bytes(workers):
    one = job("cortex-m4", Part(COPY.replace("i64", "i32"), True), keep=("copy",))
    assert workers.compile(one) == workers.compile(one)


@pytest.mark.parametrize("name", [target.name for target in TARGETS])
def test_every_named_target_compiles_and_its_layout_fits(workers, name):
    target = parse(name)
    layout = workers.datalayout(target)
    assert layout.startswith("e" if target.little_endian else "E")
    assert ("p:32:32" in layout) == (target.index_bits == 32)
    text = COPY.replace("i64", f"i{target.index_bits}")
    obj = workers.compile(job(name, Part(text, True), keep=("copy",)))["obj"]
    magic = {"elf": b"\x7fELF", "macho": b"\xcf\xfa\xed\xfe", "wasm": b"\0asm"}
    assert obj.startswith(magic.get(target.object_format, obj[:2]))


@pytest.mark.parametrize(
    ("name", "relocated"), [("cortex-m4f", False), ("rv32imc", False), ("armv8", True)]
)
def test_without_an_operating_system_tables_of_pointers_stay_in_flash(workers, name, relocated):
    text = "@table = constant [1 x ptr] [ptr @f]\ndefine void @f() nounwind {\n  ret void\n}"
    asm = workers.compile(job(name, Part(text, True), keep=("table",)))["asm"].decode()
    assert (".data.rel.ro" in asm) == relocated


def test_compile_module_is_one_call():
    done = compile_module(COPY, parse("rv64gc"), passes=True, kinds={"asm"}, keep={"copy"})
    assert list(done) == ["asm"]


V3 = "cx16 popcnt sse3 sse4.1 sse4.2 ssse3 avx avx2 bmi bmi2 f16c fma lzcnt movbe"
V4 = V3 + " avx512f avx512bw avx512cd avx512dq avx512vl"


@pytest.mark.parametrize(
    ("reported", "cpu", "attrs"),
    [
        ("sse2", "x86-64", ""),
        ("sse2 cx16 popcnt sse3 sse4.1 sse4.2 ssse3 avx", "x86-64-v2", ""),
        (V3 + " gfni", "x86-64-v3", ""),
        (V3 + " avxvnni", "x86-64-v3", "+avxvnni"),
        (V3.replace(" f16c", ""), "x86-64-v2", ""),
        (V3 + " avx512f avx512cd", "x86-64-v3", ""),
        (V4 + " avx512vnni amx-int8", "x86-64-v4", "+avx512vnni,+amx-int8"),
    ],
)
def test_native_is_a_level_and_what_the_machine_reports(reported, cpu, attrs):
    target = from_features("x86_64-unknown-linux-gnu", reported.split())
    assert (target.cpu, target.attrs) == (cpu, attrs)


@pytest.mark.parametrize("granted", [True, False])
def test_native_has_tiles_where_the_system_grants_them(monkeypatch, granted):
    features = dict.fromkeys(f"{V4} amx-int8 amx-tile".split(), True)
    monkeypatch.setattr(llvm, "get_host_cpu_features", lambda: features)
    monkeypatch.setattr(llvm, "get_process_triple", lambda: "x86_64-unknown-linux-gnu")
    monkeypatch.setattr(host, "may_use_tiles", lambda: granted)
    (kernel,) = choose(host.host_target(), "i2", DType.i8, 512, 2560)
    assert kernel.has_tiles == granted


def test_native_takes_what_every_core_of_an_arm_system_has():
    little = "processor : 0\nFeatures\t: fp asimd asimddp asimdhp\n"
    big = "processor : 1\nFeatures\t: fp asimd asimddp asimdhp i8mm sve\n"
    features = linux_arm_features(little + big)
    assert features == {"dotprod", "fullfp16"}
    target = from_features("aarch64-unknown-linux-gnu", features | {"neon", "crc"})
    assert target.attrs == "+dotprod,+fullfp16"


@pytest.mark.parametrize(
    ("triple", "name"),
    [
        ("armv6l-unknown-linux-gnueabihf", "armv6"),
        ("armv7l-unknown-linux-gnueabihf", "armv7"),
        ("armv8l-unknown-linux-gnueabihf", "armv7"),
    ],
)
def test_native_on_32_bit_arm_is_one_of_two(monkeypatch, triple, name):
    monkeypatch.setattr(host.llvm, "get_process_triple", lambda: triple)
    assert host_target() == replace(parse(name), name="native")


def test_native_on_a_mac_takes_the_name(monkeypatch):
    monkeypatch.setattr(host.llvm, "get_process_triple", lambda: "arm64-apple-darwin23.1.0")
    monkeypatch.setattr(host.llvm, "get_host_cpu_features", dict)
    monkeypatch.setattr(host.llvm, "get_host_cpu_name", lambda: "apple-m2")
    target = host_target()
    assert (target.cpu, target.triple) == ("apple-m2", "arm64-apple-macosx11.0.0")


def test_native_may_be_adjusted():
    own = host_target()
    assert resolve_target("native") == own
    if "avx2" in own.features:
        less = resolve_target("native-avx2")
        assert less.name == "native-avx2"
        assert own.features - less.features >= {"avx2"}
