"""The target that is this machine."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import llvmlite.binding as llvm

from tbc.errors import BadTarget
from tbc.target import ACTIVATIONS, OPTIMIZE, Target, adjust, make, parse

_LEVELS = {
    "x86-64-v2": "cx16 popcnt sse3 sse4.1 sse4.2 ssse3",
    "x86-64-v3": "avx avx2 bmi bmi2 f16c fma lzcnt movbe",
    "x86-64-v4": "avx512f avx512bw avx512cd avx512dq avx512vl",
}
"""x86-64 level -> what it adds to the one before."""

_EXTRAS = {
    "x86-64-v4": "avxvnni avx512vnni avx512vbmi amx-int8",
    "x86-64-v3": "avxvnni",
    "aarch64": "dotprod fullfp16 i8mm sve sve2",
    "riscv": "m a f d c v zfh zfhmin zvfh",
    "s390x": "vector vector-enhancements-1",
    "loongarch": "lasx",
}
"""x86-64 level or architecture -> the features beyond it that tbc can use."""

_LINUX_ARM = {
    "asimddp": "dotprod",
    "asimdhp": "fullfp16",
    "i8mm": "i8mm",
    "sve": "sve",
    "sve2": "sve2",
}
"""Linux's names of features in /proc/cpuinfo, of which LLVM reads only some."""


def resolve_target(
    name: str,
    mcpu: str = "",
    mattr: str = "",
    optimize: str = OPTIMIZE[0],
    activations: str = ACTIVATIONS[0],
) -> Target:
    """`tbc.target.parse`, and `native` with any `+feature` or `-feature` behind it.

    Raises:
        BadTarget: there is no such target, `optimize` is none of `OPTIMIZE` or `activations` none
            of `ACTIVATIONS`.
    """
    if optimize not in OPTIMIZE:
        raise BadTarget(f"code is not optimised for {optimize}", hint=", ".join(OPTIMIZE))
    if activations not in ACTIVATIONS:
        raise BadTarget(f"activations cannot be {activations}", hint=", ".join(ACTIVATIONS))
    return replace(_resolved(name, mcpu, mattr), optimize=optimize, activations=activations)


def _resolved(name: str, mcpu: str, mattr: str) -> Target:
    if not re.match(r"native([+-]|$)", name):
        return parse(name, mcpu, mattr)
    target = host_target()
    if mcpu:
        target = make(name, target.triple, mcpu, [])
    for text in (name.removeprefix("native"), mattr):
        target = adjust(target, text, name)
    return target


def host_target() -> Target:
    """This machine, by the features that it reports: virtual machines garble the CPU's name.

    So the name decides nothing but what is a matter of speed.
    """
    triple = re.sub(r"-darwin[\d.]*$", "-macosx11.0.0", llvm.get_process_triple())
    if triple.startswith("armv"):
        # 32-bit systems name themselves after their kernel; what counts is where floats can be.
        return replace(parse("armv6" if triple.startswith("armv6") else "armv7"), name="native")
    reported = {name for name, on in llvm.get_host_cpu_features().items() if on}
    if "amx-int8" in reported and not may_use_tiles():
        reported.remove("amx-int8")
    cpuinfo = Path("/proc/cpuinfo")
    if triple.startswith("aarch64") and cpuinfo.exists():
        reported |= linux_arm_features(cpuinfo.read_text())
    if not reported and "-apple-" in triple:
        # There LLVM knows the name only, and it is right: Macs are few.
        return make("native", triple, llvm.get_host_cpu_name(), [])
    return replace(from_features(triple, reported), core=llvm.get_host_cpu_name())


def may_use_tiles() -> bool:
    """Whether this process may use the tile registers of AMX, which Linux grants on request."""
    if not sys.platform.startswith("linux"):
        return True
    # arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)
    return bool(ctypes.CDLL(None).syscall(158, 0x1023, 18) == 0)


def from_features(triple: str, reported: Iterable[str]) -> Target:
    """The target `native` of a machine with these LLVM features; more of them are ignored.

    Only what the bits of tbc.h stand for is used, so that `tbc_check` is right about the code.
    """
    on = set(reported)
    base = parse(triple)
    key, cpu = base.arch, base.cpu
    if triple.startswith("x86_64"):
        key = "x86-64"
        for level, adds in _LEVELS.items():
            if not on.issuperset(adds.split()):
                break
            key = level
        cpu = key
    elif key == "riscv" and not on:
        on = {"m", "a", "d", "c"}  # an old kernel does not tell; every distribution needs these
    extras = _EXTRAS.get(key, "").split()
    return make("native", base.triple, cpu, [f"+{feature}" for feature in extras if feature in on])


def linux_arm_features(cpuinfo: str) -> set[str]:
    """The LLVM features that all cores in the text of /proc/cpuinfo have."""
    cores = [set(line.split()) for line in re.findall(r"(?m)^Features\s*:(.*)$", cpuinfo)]
    shared = set.intersection(*cores) if cores else set()
    return {_LINUX_ARM[name] for name in shared & _LINUX_ARM.keys()}
