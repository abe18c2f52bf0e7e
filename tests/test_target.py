"""Target names, and the tables of CPUs and features held against LLVM itself."""

import re
from contextlib import suppress
from pathlib import Path

import probe_llvm
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbc import target as targets
from tbc.cpus import CPUS, IMPLIES, RELEVANT, implied
from tbc.errors import BadTarget
from tbc.target import CPU_FEATURES, TARGETS, adjust, parse

HEADER = Path(__file__).parent.parent / "runtime/include/tbc.h"

PROBES = {
    "i686": "i686-unknown-linux-gnu",
    "x86_64": "i686-unknown-linux-gnu",
    "aarch64": "aarch64-unknown-linux-gnu",
    "arm": "thumb-unknown-none-eabi",
    "riscv32": "riscv32-unknown-elf",
    "riscv64": "riscv64-unknown-elf",
    "wasm": "wasm32-unknown-unknown",
    "s390x": "s390x-unknown-linux-gnu",
    "powerpc": "powerpc64le-unknown-linux-gnu",
    "loongarch": "loongarch64-unknown-linux-gnu",
    "mips": "mips64-unknown-linux-gnuabi64",
    "sparc": "sparcv9-unknown-linux-gnu",
}
TUNING_ONLY = {"andes-45-series", "generic-ooo", "rocket", "sifive-7-series"}


def arch_of(family):
    return {"i686": "x86", "x86_64": "x86", "riscv32": "riscv", "riscv64": "riscv"}.get(
        family, family
    )


def base(feature):
    """LLVM refuses a vector length without vectors."""
    return "+zve32x" if feature.startswith("zvl") else ""


def closure(arch, names):
    return set().union(*(implied(arch, name) for name in names.split()))


@pytest.mark.parametrize("family", list(PROBES))
def test_the_cpus_are_those_that_llvm_knows(family):
    cpus, features = probe_llvm.names(PROBES[family])
    assert set(CPUS[family]) <= set(cpus)
    assert set(IMPLIES[arch_of(family)]) <= set(features)
    if family in ("aarch64", "arm", "wasm", "s390x"):
        assert set(CPUS[family]) == set(cpus)
    both = {"x86_64": "i686", "i686": "x86_64", "riscv32": "riscv64", "riscv64": "riscv32"}
    if family in both:
        known = set(CPUS[family]) | set(CPUS[both[family]]) | TUNING_ONLY | {"generic"}
        assert {cpu for cpu in cpus if "_" not in cpu} <= known


@pytest.mark.parametrize("family", ["i686", "x86_64", "aarch64", "arm", "riscv64", "wasm", "s390x"])
def test_a_cpu_has_the_features_that_llvm_says(family):
    arch = arch_of(family)
    claims = {
        (cpu, base(feature), feature): feature in closure(arch, names)
        or feature == base(feature)[1:]
        for cpu, names in CPUS[family].items()
        for feature in sorted(RELEVANT[arch])
    }
    answers = dict(zip(claims, probe_llvm.has(PROBES[family], list(claims)), strict=True))
    assert claims == answers


def test_a_32_bit_riscv_cpu_has_the_features_that_llvm_says():
    # Asked about what it has not, such a CPU may make LLVM abort: extensions exclude each other.
    claims = [
        (cpu, "", feature)
        for cpu, names in CPUS["riscv32"].items()
        for feature in closure("riscv", names)
    ]
    assert all(probe_llvm.has(PROBES["riscv32"], claims))
    lacks = [
        (cpu, "", feature)
        for cpu, names in CPUS["riscv32"].items()
        for feature in {"m", "a", "f"} - closure("riscv", names)
    ]
    assert not any(probe_llvm.has(PROBES["riscv32"], lacks))


@pytest.mark.parametrize(
    ("family", "cpu", "without"),
    [
        ("i686", "generic", ""),
        ("aarch64", "generic", "-neon,-fp-armv8"),
        ("arm", "generic", ""),
        ("riscv64", "generic-rv64", ""),
        ("s390x", "generic", ""),
    ],
)
def test_a_feature_implies_what_llvm_says(family, cpu, without):
    arch = arch_of(family)
    claims = {}
    for feature in IMPLIES[arch]:
        for other in sorted(RELEVANT[arch] - {feature}):
            if feature.startswith("zvl") and not other.startswith("zvl"):
                continue
            on = ",".join(filter(None, (without, base(other), "+" + feature)))
            claims[cpu, on, other] = other in implied(arch, feature)
    answers = dict(zip(claims, probe_llvm.has(PROBES[family], list(claims)), strict=True))
    wrong = {question for question in claims if claims[question] != answers[question]}
    assert not wrong


@given(st.data())
def test_switching_features_works_as_in_llvm(data):
    """The last word on a feature counts; what implies a feature goes when it goes."""
    feature = st.sampled_from(sorted(RELEVANT["x86"] - {"sse2"}))
    words = data.draw(st.lists(st.tuples(st.sampled_from("+-"), feature), max_size=5))
    target = adjust(parse("x86-64-v4"), "".join(sign + name for sign, name in words))
    for name in target.features:
        assert implied("x86", name) & RELEVANT["x86"] <= target.features
    if words:
        sign, name = words[-1]
        assert (name in target.features) == (sign == "+")


def test_switching_features_off_is_what_llvm_does():
    texts = ["-avx2", "-sse4.2", "-f16c+avx512vnni", "+avx10.1-avx512bw", "-avx512f+avxvnni"]
    claims = {}
    for text in texts:
        target = adjust(parse("x86-64-v4"), text)
        for feature in RELEVANT["x86"]:
            claims["x86-64-v4", target.attrs, feature] = feature in target.features
    answers = probe_llvm.has("x86_64-unknown-linux-gnu", list(claims))
    assert list(claims.values()) == answers


def test_the_cpu_bits_are_those_of_the_header():
    defined = dict(
        re.findall(r"#define (TBC_[A-Z0-9_]+) \(UINT64_C\(1\) << (\d+)\)", HEADER.read_text())
    )
    ours = {name: str(bit) for rows in CPU_FEATURES.values() for name, bit, _ in rows}
    assert ours == defined
    for arch, rows in CPU_FEATURES.items():
        needed = {feature for _, _, features in rows for feature in features}
        assert needed <= RELEVANT[arch] | (RELEVANT["aarch64"] if arch == "arm" else set())


def test_target_names_are_distinct():
    assert len({target.name for target in TARGETS}) == len(TARGETS)


@pytest.mark.parametrize("named", TARGETS, ids=lambda named: named.name)
def test_every_named_target_parses(named):
    target = parse(named.name)
    assert (target.name, target.cpu) == (named.name, named.cpu)
    assert named.description


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("x86-64", "sse2"),
        ("x86-64-v2", "sse4.1"),
        ("x86-64-v3", "avx2 fma f16c bmi2"),
        ("x86-64-v3+avxvnni", "avx2 fma f16c bmi2 avxvnni"),
        ("x86-64-v4+vnni", "avx2 fma f16c bmi2 avx512cd avx512bw avx512dq avx512vl avx512vnni"),
        ("armv8", "neon"),
        ("armv8.2+dotprod", "neon dotprod"),
        ("armv8.2+dotprod+fp16", "neon dotprod fullfp16"),
        ("armv8.6+i8mm", "neon dotprod i8mm"),
        ("armv9", "dotprod sve2"),
        ("cortex-a53", "neon"),
        ("cortex-a72", "neon"),
        ("cortex-a76", "neon dotprod fullfp16"),
        ("neoverse-n1", "neon dotprod fullfp16"),
        ("neoverse-v1", "dotprod i8mm sve"),
        ("neoverse-n2", "dotprod i8mm sve2"),
        ("apple-m1", "neon dotprod fullfp16"),
        ("armv7", "dsp vfp2sp fp64"),
        ("cortex-m0", ""),
        ("cortex-m3", "hwdiv"),
        ("cortex-m4f", "hwdiv dsp vfp4d16sp"),
        ("cortex-m55", "hwdiv dsp mve fullfp16 fp64"),
        ("rv32imc", "m c"),
        ("rv32imac", "m a c"),
        ("rv64gc", "m a d c"),
        ("rv64gcv", "m a d c v"),
        ("rv64gc_zve32x_zvl256b", "m a d c zve32x zvl256b"),
        ("wasm32", "nontrapping-fptoint bulk-memory"),
        ("wasm32+simd128", "nontrapping-fptoint bulk-memory simd128"),
        ("s390x", ""),
        ("z14", "vector vector-enhancements-1"),
    ],
)
def test_features_of_a_target(name, expected):
    target = parse(name)
    assert target.features == closure(target.arch, expected) & RELEVANT[target.arch]


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("x86-64", 0),
        ("x86-64-v3", 0b11),
        ("x86-64-v3+avxvnni", 0b111),
        ("x86-64-v4+vnni+vbmi", 0b111011),
        ("sapphirerapids", 0b1111111),
        ("armv8", 1),
        ("armv8.2+dotprod", 0b11),
        ("armv9", 0b10011011),
        ("cortex-m55", 0b11100000),
        ("rv64gcv", 1),
        ("wasm32+simd128", 0),
    ],
)
def test_bits_of_the_header_that_a_target_needs(name, bits):
    assert parse(name).cpu_bits == bits


@pytest.mark.parametrize(
    ("name", "triple", "float_abi", "abi"),
    [
        ("cortex-m4", "thumbv7em-unknown-none-eabi", "soft", ""),
        ("cortex-m4f", "thumbv7em-unknown-none-eabihf", "hard", ""),
        ("cortex-m33", "thumbv8m.main-unknown-none-eabihf", "hard", ""),
        ("cortex-m33-fpu", "thumbv8m.main-unknown-none-eabi", "soft", ""),
        ("armv7", "armv7a-unknown-linux-gnueabihf", "hard", ""),
        ("cortex-a7", "armv7a-unknown-linux-gnueabihf", "hard", ""),
        ("rv32imc", "riscv32-unknown-none-elf", "soft", "ilp32"),
        ("rv32imafc", "riscv32-unknown-none-elf", "hard", "ilp32f"),
        ("rv64imac", "riscv64-unknown-none-elf", "soft", "lp64"),
        ("rv64gc", "riscv64-unknown-linux-gnu", "hard", "lp64d"),
        ("sifive-x280", "riscv64-unknown-linux-gnu", "hard", "lp64d"),
        ("aarch64-linux-gnu", "aarch64-unknown-linux-gnu", "", ""),
        ("riscv64-linux-gnu+m+a+d+c", "riscv64-unknown-linux-gnu", "hard", "lp64d"),
        ("wasm32-wasi", "wasm32-unknown-wasi", "", ""),
        ("x86_64-w64-mingw32", "x86_64-w64-windows-gnu", "", ""),
        ("arm64-apple-macos", "arm64-apple-macos", "", ""),
        ("s390x-ibm-linux-gnu", "s390x-ibm-linux-gnu", "", ""),
    ],
)
def test_triple_and_abi(name, triple, float_abi, abi):
    target = parse(name)
    assert (target.triple, target.float_abi, target.abi) == (triple, float_abi, abi)


@pytest.mark.parametrize(
    ("name", "bits", "little", "os", "form", "vector"),
    [
        ("x86-64", 64, True, "linux", "elf", 16),
        ("x86-64-v3", 64, True, "linux", "elf", 32),
        ("x86-64-v4", 64, True, "linux", "elf", 64),
        ("i686", 32, True, "linux", "elf", 16),
        ("windows-x86-64", 64, True, "windows", "coff", 16),
        ("apple-m1", 64, True, "macos", "macho", 16),
        ("x86_64-apple-darwin23.1.0", 64, True, "macos", "macho", 16),
        ("apple-a14", 64, True, "ios", "macho", 16),
        ("armv8", 64, True, "linux", "elf", 16),
        ("armv7", 32, True, "linux", "elf", 4),
        ("cortex-m4f", 32, True, "none", "elf", 4),
        ("cortex-m55", 32, True, "none", "elf", 4),
        ("rv32imc", 32, True, "none", "elf", 4),
        ("rv64gc", 64, True, "linux", "elf", 4),
        ("rv64gcv", 64, True, "linux", "elf", 16),
        ("spacemit-x60", 64, True, "linux", "elf", 32),
        ("rv64gc_zve32x_zvl256b", 64, True, "linux", "elf", 4),
        ("wasm32", 32, True, "none", "wasm", 4),
        ("wasm32+simd128", 32, True, "none", "wasm", 16),
        ("s390x", 64, False, "linux", "elf", 4),
        ("z14", 64, False, "linux", "elf", 16),
        ("powerpc64le-linux-gnu", 64, True, "linux", "elf", 16),
        ("mips-linux-gnu", 32, False, "linux", "elf", 4),
    ],
)
def test_properties(name, bits, little, os, form, vector):
    target = parse(name)
    assert (target.index_bits, target.little_endian, target.os) == (bits, little, os)
    assert (target.object_format, target.vector_bytes) == (form, vector)


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("x86-64", 64),
        ("armv7", 64),
        ("cortex-m0", 0),
        ("cortex-m4", 0),
        ("cortex-m4f", 32),
        ("cortex-m7", 32),
        ("cortex-m7+fp64", 64),
        ("cortex-m33-fpu", 0),
        ("cortex-m55", 64),
        ("rv32imc", 0),
        ("rv32imafc", 32),
        ("rv64gc", 64),
        ("wasm32", 64),
    ],
)
def test_the_widest_float_of_the_hardware(name, bits):
    assert parse(name).float_bits == bits


def test_neon_of_32_bit_arm_is_off_unless_asked_for():
    assert "neon" not in parse("cortex-a7").features
    assert "-neon" in parse("cortex-a7").attrs
    assert "neon" in parse("cortex-a7+neon").features
    assert "mve.fp" not in parse("cortex-m55").features
    assert "mve.fp" in parse("cortex-m55+mve.fp").features


def test_mcpu_and_mattr_are_llvms():
    target = parse("x86-64", mcpu="skylake-avx512", mattr="+avx512vnni,-avx512cd")
    assert target.cpu == "skylake-avx512"
    assert target.attrs == "+avx512vnni,-avx512cd"
    assert {"avx512vnni", "avx512bw"} <= target.features
    assert "avx512cd" not in target.features


@pytest.mark.parametrize(
    ("args", "reason", "hint"),
    [
        (("amv8",), "no target called 'amv8'", "armv8"),
        (("cortex-a7x",), "no target called", "cortex-a7"),
        (("qwertz",), "no target called", "`tbc targets` lists them"),
        (("generic",), "no target called", ""),
        (("x86-64-v5",), "no variant, called 'v5'", "v4"),
        (("x86-64-v3+avxvnny",), "called 'avxvnny'", "avxvnni"),
        (("armv8", "cortex-a76s"), "no CPU called 'cortex-a76s'", "cortex-a76"),
        (("armv8", "", "+dotprd"), "called 'dotprd'", "dotprod"),
        (("armv8", "", "dotprod"), "called", ""),
        (("x86-64-sse2",), "needs sse2", "sse2"),
        (("i686", "pentium3"), "needs sse2", "+sse2"),
        (("x86-64", "pentium4"), "x86_64 has no CPU", ""),
        (("armv8-neon",), "needs neon", "neon"),
        (("rv64gc+zvl256b",), "size of vectors", "+v"),
        (("x86_64-linux-gnux32",), "32-bit pointers", ""),
        (("thumbv7em-none-eabihf",), "passes floats in registers", "--mcpu"),
        (("avr-unknown-none",), "no target called", ""),
        (("",), "no target called", ""),
    ],
)
def test_a_bad_target_says_why_and_what_is_close(args, reason, hint):
    with pytest.raises(BadTarget) as caught:
        parse(*args)
    assert reason in caught.value.reason
    assert hint in caught.value.hint


@given(st.text(alphabet="abcdefvmrx0123456789+-._", max_size=20))
def test_any_name_is_a_target_or_a_bad_target(name):
    with suppress(BadTarget):
        assert parse(name).name == name


def test_the_module_names_what_it_offers():
    assert all(hasattr(targets, name) for name in targets.__all__)
