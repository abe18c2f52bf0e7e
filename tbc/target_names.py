"""The names of targets and features, the bits of tbc.h, and what a triple starts with."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from tbc.errors import BadTarget


@dataclass(frozen=True)
class NamedTarget:
    """A friendly name of `tbc targets`, and what it stands for in LLVM's words."""

    name: str
    triple: str
    cpu: str
    attrs: str
    description: str


_LINUX64, _ARM64 = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"
_DARWIN = "apple-macosx11.0.0"

TARGETS: tuple[NamedTarget, ...] = tuple(
    NamedTarget(*row)
    for row in (
        ("x86-64", _LINUX64, "x86-64", "", "any 64-bit PC (SSE2)"),
        ("x86-64-v2", _LINUX64, "x86-64-v2", "", "PCs since 2009 (SSE4.2)"),
        ("x86-64-v3", _LINUX64, "x86-64-v3", "", "PCs since 2013 (AVX2, FMA)"),
        ("x86-64-v4", _LINUX64, "x86-64-v4", "", "AVX-512; add +vnni and +vbmi where present"),
        ("sapphirerapids", _LINUX64, "sapphirerapids", "", "Xeon with AVX512-VNNI and AMX"),
        ("i686", "i686-unknown-linux-gnu", "pentium4", "", "32-bit PC with SSE2"),
        ("windows-x86-64", "x86_64-pc-windows-msvc", "x86-64", "", "64-bit Windows"),
        ("windows-arm64", "aarch64-pc-windows-msvc", "generic", "", "Windows on Arm"),
        ("macos-x86-64", f"x86_64-{_DARWIN}", "penryn", "", "Intel Mac (SSE4.1)"),
        ("apple-m1", f"arm64-{_DARWIN}", "apple-m1", "", "Apple silicon Mac"),
        ("armv8", _ARM64, "generic", "", "any 64-bit Arm: Raspberry Pi 3 and up"),
        ("armv8.2", _ARM64, "generic", "+v8.2a", "Armv8.2; add +dotprod, +fp16 where present"),
        ("armv8.4", _ARM64, "generic", "+v8.4a", "Armv8.4 (dot product)"),
        ("armv8.6", _ARM64, "generic", "+v8.6a", "Armv8.6 (dot product, i8mm)"),
        ("armv9", _ARM64, "generic", "+v9a,+sve2", "Armv9 (SVE2)"),
        ("aarch64-android", "aarch64-unknown-linux-android", "generic", "", "64-bit Android"),
        ("armv6", "armv6-unknown-linux-gnueabihf", "arm1176jzf-s", "", "Raspberry Pi 1 and Zero"),
        ("armv7", "armv7a-unknown-linux-gnueabihf", "generic", "-d32", "32-bit Armv7 with VFPv3"),
        ("cortex-m0", "thumbv6m-unknown-none-eabi", "cortex-m0", "", "Armv6-M"),
        ("cortex-m0plus", "thumbv6m-unknown-none-eabi", "cortex-m0plus", "", "Armv6-M: RP2040"),
        ("cortex-m3", "thumbv7m-unknown-none-eabi", "cortex-m3", "", "Armv7-M"),
        ("cortex-m4", "thumbv7em-unknown-none-eabi", "cortex-m4", "-fpregs", "without an FPU"),
        ("cortex-m4f", "thumbv7em-unknown-none-eabihf", "cortex-m4", "", "with an FPU"),
        ("cortex-m7", "thumbv7em-unknown-none-eabihf", "cortex-m7", "-fp64", "FPU; or +fp64"),
        ("cortex-m23", "thumbv8m.base-unknown-none-eabi", "cortex-m23", "", "Armv8-M baseline"),
        ("cortex-m33", "thumbv8m.main-unknown-none-eabihf", "cortex-m33", "", "FPU, DSP: RP2350"),
        ("cortex-m55", "thumbv8.1m.main-unknown-none-eabihf", "cortex-m55", "", "integer Helium"),
        ("cortex-m85", "thumbv8.1m.main-unknown-none-eabihf", "cortex-m85", "", "integer Helium"),
        ("rv32imc", "riscv32-unknown-none-elf", "generic-rv32", "+m,+c", "ESP32-C3 and the like"),
        ("rv32imac", "riscv32-unknown-none-elf", "generic-rv32", "+m,+a,+c", "with atomics"),
        ("rv64gc", "riscv64-unknown-linux-gnu", "generic-rv64", "+m,+a,+d,+c", "64-bit Linux"),
        ("rv64gcv", "riscv64-unknown-linux-gnu", "generic-rv64", "+m,+a,+d,+c,+v", "with vectors"),
        ("wasm32", "wasm32-unknown-unknown", "generic", "", "WebAssembly 2.0 without SIMD"),
        ("wasm32+simd128", "wasm32-unknown-unknown", "generic", "+simd128", "WebAssembly SIMD"),
        ("s390x", "s390x-unknown-linux-gnu", "generic", "", "IBM Z, big endian; z14 has vectors"),
    )
)  # fmt: skip
"""The friendly names, besides `native`; any `+feature` or `-feature` may follow one.

A CPU's LLVM name (`cortex-a76`, `znver4`, `z14`), a RISC-V string (`rv64gc_zba`) and an LLVM
triple are targets too.
"""

PORTABLE = NamedTarget("c", "c-unknown-none", "generic", "", "C99 for any compiler")
"""No machine: code for it is C, with indices of 32 bits, in no byte order."""

CPU_FEATURES: dict[str, tuple[tuple[str, int, tuple[str, ...]], ...]] = {
    "x86": (
        ("TBC_X86_SSE41", 0, ("sse4.1",)),
        ("TBC_X86_AVX2", 1, ("avx2", "fma", "bmi2", "f16c")),
        ("TBC_X86_AVXVNNI", 2, ("avxvnni",)),
        ("TBC_X86_AVX512", 3, ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")),
        ("TBC_X86_AVX512VNNI", 4, ("avx512vnni",)),
        ("TBC_X86_AVX512VBMI", 5, ("avx512vbmi",)),
        ("TBC_X86_AMXINT8", 6, ("amx-int8",)),
    ),
    "arm": (
        ("TBC_ARM_NEON", 0, ("neon",)),
        ("TBC_ARM_DOTPROD", 1, ("dotprod",)),
        ("TBC_ARM_I8MM", 2, ("i8mm",)),
        ("TBC_ARM_SVE", 3, ("sve",)),
        ("TBC_ARM_SVE2", 4, ("sve2",)),
        ("TBC_ARM_DSP", 5, ("dsp",)),
        ("TBC_ARM_MVE", 6, ("mve",)),
        ("TBC_ARM_FP16", 7, ("fullfp16",)),
    ),
    "riscv": (("TBC_RISCV_V", 0, ("v",)),),
}
"""CPU family -> (name in tbc.h, bit, LLVM features), the feature that stands for the set first."""

ALIASES: dict[str, dict[str, str]] = {
    "x86": {
        "avx512": "avx512cd avx512bw avx512dq avx512vl",
        "vnni": "avx512vnni",
        "vbmi": "avx512vbmi",
        "amx": "amx-int8",
    },
    "aarch64": {"fp16": "fullfp16"},
    "arm": {"fpu": "fpregs"},
    "wasm": {"simd": "simd128", "relaxed": "relaxed-simd"},
}
"""Architecture -> short name -> LLVM features."""


@dataclass(frozen=True)
class Arch:
    """What the first part of a triple says."""

    family: str
    bits: int
    little: bool
    cpu: str
    """What to compile for when nothing else is said."""


_ARCHES: dict[str, Arch] = {
    r"x86_64|amd64": Arch("x86", 64, True, "x86-64"),
    r"i[3-6]86": Arch("x86", 32, True, "pentium4"),
    r"aarch64|arm64": Arch("aarch64", 64, True, "generic"),
    r"aarch64_be": Arch("aarch64", 64, False, "generic"),
    r"(arm|thumb)(v[\w.]+?)?": Arch("arm", 32, True, "generic"),
    r"(arm|thumb)(eb(v[\w.]+)?|v[\w.]+eb)": Arch("arm", 32, False, "generic"),
    r"riscv32": Arch("riscv", 32, True, "generic-rv32"),
    r"riscv64": Arch("riscv", 64, True, "generic-rv64"),
    r"wasm32": Arch("wasm", 32, True, "generic"),
    r"wasm64": Arch("wasm", 64, True, "generic"),
    r"s390x": Arch("s390x", 64, False, "generic"),
    r"(powerpc|ppc)64le": Arch("powerpc", 64, True, "ppc64le"),
    r"(powerpc|ppc)64": Arch("powerpc", 64, False, "ppc64"),
    r"loongarch64": Arch("loongarch", 64, True, "generic-la64"),
    r"mips": Arch("mips", 32, False, "mips32r2"),
    r"mipsel": Arch("mips", 32, True, "mips32r2"),
    r"mips64": Arch("mips", 64, False, "mips64r2"),
    r"mips64el": Arch("mips", 64, True, "mips64r2"),
    r"sparcv9|sparc64": Arch("sparc", 64, False, "v9"),
    r"c": Arch("c", 32, True, "generic"),
}


@functools.cache
def arch_of(triple: str) -> Arch:
    """The architecture of an LLVM triple; BadTarget if tbc knows none of that name."""
    first, _, rest = triple.partition("-")
    found = [arch for name, arch in _ARCHES.items() if re.fullmatch(name, first)]
    if not found or not rest:
        raise BadTarget(f"'{triple}' does not start with an architecture that tbc knows")
    if re.search(r"x32$|ilp32|abin32", rest):
        raise BadTarget(f"'{triple}' has 32-bit pointers on a 64-bit CPU, which tbc cannot compile")
    return found[0]


_SYSTEMS = "linux|windows|win32|macos|darwin|ios|freebsd|netbsd|openbsd|none|wasi|elf"


def canonical(triple: str) -> str:
    """The triple with all its parts in their places: arch-vendor-system[-environment].

    LLVM reads the parts by position, so `thumbv7em-none-eabihf` as it stands has no hard floats.
    """
    parts = triple.replace("-mingw32", "-windows-gnu").split("-")
    if len(parts) == 2 or (len(parts) == 3 and re.match(_SYSTEMS, parts[1])):
        parts.insert(1, "unknown")
    return "-".join(parts)


def is_triple(name: str) -> bool:
    """Whether a target's name is meant as an LLVM triple."""
    first, *rest = name.split("-")
    known = any(re.fullmatch(arch, first) for arch in _ARCHES)
    return known and (len(rest) > 1 or any(re.match(_SYSTEMS, part) for part in rest))


_WITHOUT_LLVM = r"avr|atmega|attiny|xtensa|esp\d|msp430|pic\d|8051|stm8"
"""How names of CPUs and chips begin that have none of the architectures."""


def likely(word: str) -> list[str]:
    """The friendly names of what a word means that is none: an architecture, a board, a chip."""
    word = word.lower()
    plain = re.sub(r"[^a-z0-9]", "", word)
    arches = {arch for pattern, arch in _ARCHES.items() if re.fullmatch(pattern, word)}
    described = {
        target.name: re.sub(r"[^a-z0-9]", "", target.description.lower()) for target in TARGETS
    }
    found = [PORTABLE.name] if re.match(_WITHOUT_LLVM, plain) else []
    found += [name for name, text in described.items() if len(plain) > 3 and plain in text]
    same = [target for target in TARGETS if arch_of(target.triple) in arches]
    found += [
        t.name for t in sorted(same, key=lambda t: "windows" in t.name or "apple" in t.triple)
    ]
    return list(dict.fromkeys(found))[:4]
