"""Targets: what `--target`, `--mcpu` and `--mattr` mean, as data that emitters can ask.

Nothing here needs LLVM. `native` is resolved by `codegen.host`, which can ask the CPU.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from tbc.cpus import CPUS, IMPLIES, apply, implied
from tbc.errors import BadTarget
from tbc.target_names import (
    ALIASES,
    CPU_FEATURES,
    PORTABLE,
    TARGETS,
    NamedTarget,
    arch_of,
    canonical,
    is_triple,
    likely,
)
from tbc.tuning import UNTUNED, Tuning

__all__ = [
    "CPU_FEATURES",
    "PORTABLE",
    "TARGETS",
    "NamedTarget",
    "Target",
    "adjust",
    "make",
    "parse",
]


OPTIMIZE = ("balanced", "speed", "size")
"""What code may be optimised for."""
ACTIVATIONS = ("float", "int8")
"""What float activations of low-bit layers may become; "int8" rounds them."""


@dataclass(frozen=True)
class Target:
    """What code is compiled for; made by `parse`, `adjust` and `make` only."""

    name: str
    """As the user wrote it."""
    triple: str
    cpu: str
    """LLVM's name of the CPU or level."""
    features: frozenset[str]
    """The features in `tbc.cpus.RELEVANT` that are on, with those they imply."""
    attrs: str
    """LLVM's feature string, relative to `cpu`."""
    float_abi: str
    """How floats are passed: "soft" or "hard" where the architecture has both, else ""."""
    tuning: Tuning = UNTUNED
    """What was measured of its kernels, which goes before their costs."""
    optimize: str = "balanced"
    """What code for it is to be: of `OPTIMIZE`."""
    activations: str = "float"
    """What float activations of low-bit layers become: of `ACTIVATIONS`."""
    fast_ram: int = 0
    """Bytes of scratch memory that are faster than the arena, at most."""
    core: str = ""
    """LLVM's name of the CPU that it runs on, where that is known and `cpu` is a level."""

    @property
    def arch(self) -> str:
        """The architecture family: "x86", "aarch64", "arm", "riscv", "wasm", "s390x", …."""
        return arch_of(self.triple).family

    @property
    def index_bits(self) -> int:
        """The bits of a pointer and of `size_t`."""
        return arch_of(self.triple).bits

    @property
    def size_type(self) -> str:
        """LLVM's type of `size_t`; in portable C, where it is not known, that name itself."""
        return "size_t" if self.arch == "c" else f"i{self.index_bits}"

    @property
    def alignment(self) -> int:
        """Bytes to which buffers are aligned: a cache line, and the widest vector.

        Portable C has neither, and often little memory: there it is the largest element. So have
        microcontrollers, whose vectors are Helium's of 16 bytes.
        """
        if self.arch == "c":
            return 8
        return 16 if self.is_small and "zve32x" not in self.features else 64

    @property
    def little_endian(self) -> bool:
        """Whether the first byte of an integer is its lowest."""
        return arch_of(self.triple).little

    @property
    def os(self) -> str:
        """The operating system; "none" on bare metal and in a plain wasm module."""
        system = re.match(r"[a-z]*", self.triple.split("-")[2])
        name = system[0] if system else ""
        bare = dict.fromkeys(("", "elf", "unknown"), "none")
        return {**bare, "macosx": "macos", "darwin": "macos", "win": "windows"}.get(name, name)

    @property
    def object_format(self) -> str:
        """The format of object files: "elf", "coff", "macho" or "wasm"."""
        if self.arch == "wasm":
            return "wasm"
        return {"windows": "coff", "macos": "macho", "ios": "macho"}.get(self.os, "elf")

    @property
    def vector_bytes(self) -> int:
        """The width of IEEE float32 vectors in bytes; 4 means scalar.

        Scalar on all 32-bit Arm: the float vectors of its NEON and its MVE flush denormals.
        """
        widths = {
            "x86": {"avx512f": 64, "avx": 32, "sse2": 16},
            "aarch64": {"neon": 16},
            "riscv": {"zvl512b": 64, "zvl256b": 32, "zvl128b": 16},
            "wasm": {"simd128": 16},
            "s390x": {"vector-enhancements-1": 16},
            "powerpc": {"vsx": 16},
            "loongarch": {"lasx": 32, "lsx": 16},
        }.get(self.arch, {})
        if self.arch == "riscv" and "zve32f" not in self.features:
            return 4
        return next((width for feature, width in widths.items() if feature in self.features), 4)

    @property
    def streams(self) -> int:
        """How many runs of memory a core reads faster together than one after the other.

        Measured: four on a Sapphire Rapids and a Zen 5. A Zen 4 reads one or two at the speed of
        its memory, and four, which come from as many pages, a fifth slower.
        """
        return 2 if re.fullmatch(r"znver[1-4]", self.core or self.cpu) else 4

    @property
    def vector_registers(self) -> int:
        """How many registers hold float32 vectors: 8, 16 or 32 (of more, 32); 16 of scalars."""
        if self.vector_bytes == 4:
            return 16
        if self.arch == "x86":
            return 8 if self.index_bits == 32 else 32 if self.vector_bytes == 64 else 16
        return 16 if self.arch == "wasm" else 32

    @property
    def is_small(self) -> bool:
        """Whether it is a microcontroller, on which code should take few bytes."""
        return self.os == "none" and self.arch in ("arm", "riscv")

    @property
    def is_short_of_memory(self) -> bool:
        """Whether a few kilobytes of memory count for more than a little time."""
        return self.is_small

    @property
    def floats_are_dear(self) -> bool:
        """Whether some integer operations are better than a few of floats.

        They are on microcontrollers, one number at a time; and portable C is mostly for such.
        """
        return self.is_small or self.arch == "c"

    @property
    def is_thumb1(self) -> bool:
        """Whether integers are computed in Thumb-1: in 8 registers, by two-operand instructions."""
        return re.match(r"thumb(eb)?v(4t|5te?|6|6s?m|8m\.base)-", self.triple) is not None

    @property
    def float_bits(self) -> int:
        """The widest float that the hardware computes with: 64, 32, or 0 for none."""
        widest, single = {"arm": ("fp64", "vfp2sp"), "riscv": ("d", "f")}.get(self.arch, ("", ""))
        if not widest or widest in self.features:
            return 64
        return 32 if single in self.features else 0

    @property
    def multiplies(self) -> bool:
        """Whether an instruction multiplies integers; else every product is a call."""
        return self.arch != "riscv" or "m" in self.features

    @property
    def rounds(self) -> bool:
        """Whether floats of all widths and vectors of them are rounded to whole numbers at once."""
        return self.arch in ("aarch64", "wasm") or "sse4.1" in self.features

    @property
    def rounds_to_int(self) -> str:
        """What rounds an f32 to an integer, saturated, better than float arithmetic does.

        "vcvtr" is Arm's instruction; "bits" is integer arithmetic, where all floats are; or "".
        """
        if self.float_bits == 0:
            return "bits"
        return "vcvtr" if self.arch == "arm" else ""

    @property
    def has_threads(self) -> bool:
        """Whether code may wait for other threads: there is a system, and atomics without calls."""
        if self.os == "none" or self.arch == "wasm":
            return False
        if self.arch == "arm":  # ldrex, which all of Armv7 has
            known = self.cpu == "generic" and re.match(r"(arm|thumb)(eb)?v[7-9]", self.triple)
            return bool(known) or not self.features.isdisjoint({"hwdiv", "neon"})
        return self.arch != "riscv" or "a" in self.features

    @property
    def abi(self) -> str:
        """The name of the calling convention where the triple does not decide it, else ""."""
        if self.arch != "riscv":
            return ""
        base = "lp64" if self.index_bits == 64 else "ilp32"
        return base + ("d" if "d" in self.features else "f" if "f" in self.features else "")

    @property
    def cpu_bits(self) -> int:
        """The bits of tbc.h that code for this target needs, and that such a CPU has."""
        rows = CPU_FEATURES.get("arm" if self.arch == "aarch64" else self.arch, ())
        return sum(1 << bit for _, bit, features in rows if features[0] in self.features)


def _family(triple: str) -> str:
    """The key of `CPUS` for a triple."""
    arch = arch_of(triple)
    keys = {"x86": ("i686", "x86_64"), "riscv": ("riscv32", "riscv64")}.get(arch.family)
    return arch.family if keys is None else keys[arch.bits // 64]


def _cpu_features(triple: str, cpu: str) -> set[str]:
    """What a CPU has by itself; BadTarget if LLVM has no CPU of that name for the triple."""
    arch, family = arch_of(triple), _family(triple)
    known = CPUS["x86_64"] | CPUS["i686"] if family == "i686" else CPUS[family]
    if cpu not in known:
        raise BadTarget(f"{family} has no CPU called '{cpu}'", hint=_closest(cpu, known))
    names = known[cpu]
    if arch.family == "arm" and cpu == "generic":
        # LLVM adds what the architecture version in the triple has, but only to the generic CPU.
        version = re.sub(r"^(arm|thumb)(eb)?|eb$", "", triple.partition("-")[0])
        names = _ARM_VERSIONS.get(version, names)
    return set().union(*(implied(arch.family, name) for name in names.split()))


_ARM_VERSIONS = {
    "v6": "dsp",
    "v7": "dsp neon",
    "v7a": "dsp neon",
    "v7m": "hwdiv",
    "v7em": "hwdiv dsp",
    "v8": "hwdiv dsp fp-armv8d16sp neon",
    "v8a": "hwdiv dsp fp-armv8d16sp neon",
    "v8m.base": "hwdiv",
    "v8m.main": "hwdiv",
    "v8.1m.main": "hwdiv",
}


def _closest(word: str, known: Iterable[str]) -> str:
    """A hint with the names that look like `word`, or ""."""
    names = [name for name in dict.fromkeys(known) if name != word]
    return ", ".join(difflib.get_close_matches(word.lower(), names, n=4, cutoff=0.5))


def _changes(arch: str, text: str, what: str) -> list[str]:
    """`+a-b` or `+a,-b`, with short names spelled out; BadTarget if `what` has no such feature."""
    known = {**{name: name for name in IMPLIES[arch]}, **ALIASES.get(arch, {})}
    one = "|".join(re.escape(name) for name in sorted(known, key=len, reverse=True))
    changes: list[str] = []
    while text := text.lstrip(","):
        match = re.match(rf"([+-])({one or '(?!)'})(?=[-+,]|$)", text)
        if match is None:
            word = re.split(r"[+,]", text.lstrip("+-"))[0]
            names = [*known, *(n.name.removeprefix(f"{what}-") for n in TARGETS)]
            reason = f"{what} has no feature, and no variant, called '{word}'"
            raise BadTarget(reason, hint=f"+{word}" if word in known else _closest(word, names))
        changes += [match[1] + name for name in known[match[2]].split()]
        text = text[match.end() :]
    return changes


_OFF = {"arm": {"neon", "mve.fp"}}
"""Features that stay off unless asked for: their float32 arithmetic flushes denormals."""

_NEEDED = {"x86": "sse2", "aarch64": "neon"}
"""What the calling convention, or tbc's arithmetic, cannot do without."""


def make(name: str, triple: str, cpu: str, changes: list[str]) -> Target:
    """The target of a triple, a CPU and feature changes (`+f`, `-f`); BadTarget if they clash."""
    arch = arch_of(triple).family
    own = _cpu_features(triple, cpu)
    unwanted = apply(arch, own, changes) & _OFF.get(arch, set())
    changes = [f"-{f}" for f in sorted(unwanted) if f"+{f}" not in changes] + changes
    features = apply(arch, own, changes)
    needed = _NEEDED.get(arch, "")
    if needed and needed not in features:
        raise BadTarget(f"{name}: tbc needs {needed} on {arch}", hint=f"{name}+{needed}")
    vectors = [f[1:] for f in changes if f.startswith("+zvl")]
    if vectors and "zve32x" not in features:
        raise BadTarget(
            f"{name}: {vectors[-1]} is the size of vectors, and there are none", hint="+v"
        )
    if arch == "arm" and triple.endswith("hf") and "vfp2sp" not in features:
        if "vfp2sp" not in own:
            raise BadTarget(f"{name} passes floats in registers that {cpu} lacks", hint="--mcpu")
        triple = triple.removesuffix("hf")
    hard = {"arm": triple.endswith("hf"), "riscv": "f" in features}.get(arch)
    float_abi = "" if hard is None else "hard" if hard else "soft"
    return Target(name, triple, cpu, features, ",".join(changes), float_abi)


def adjust(target: Target, text: str, name: str = "") -> Target:
    """The target with features switched on and off: `+vnni-amx-int8`, or LLVM's `+a,-b`."""
    before = [change for change in target.attrs.split(",") if change]
    changes = before + _changes(target.arch, text, name or target.name)
    made = make(name or target.name + text, target.triple, target.cpu, changes)
    return replace(made, core=target.core)


def _of_cpu(cpu: str) -> NamedTarget | None:
    """The target that a CPU's own name stands for, if it is one that says which system it runs."""
    system = "unknown-linux-gnu"
    if cpu == "generic" or cpu.startswith("generic-"):
        return None
    if cpu in CPUS["x86_64"] or cpu in CPUS["s390x"]:
        arch = "x86_64" if cpu in CPUS["x86_64"] else "s390x"
    elif cpu in CPUS["aarch64"]:
        arch = "aarch64"
        system = {"apple-m": "apple-macosx11.0.0", "apple-a": "apple-ios14.0.0"}.get(
            cpu[:7], system
        )
    elif cpu in CPUS["arm"] and re.match(r"cortex-a\d", cpu):
        arch, system = "armv7a", "unknown-linux-gnueabihf"
    elif cpu in CPUS["riscv64"] or cpu in CPUS["riscv32"]:
        arch = "riscv64" if cpu in CPUS["riscv64"] else "riscv32"
        if "d" not in _cpu_features(f"{arch}-{system}", cpu):
            system = "unknown-none-elf"
    else:
        return None
    return NamedTarget(cpu, f"{arch}-{system}", cpu, "", "")


def _of_isa(name: str) -> NamedTarget | None:
    """The target of a RISC-V string such as rv32imac or rv64gc_zba_zbb."""
    match = re.fullmatch(r"rv(32|64)i?([a-z]*)((?:_z[a-z0-9]+)*)", name)
    if match is None:
        return None
    letters = match[2].replace("g", "mad")
    attrs = ",".join("+" + f for f in [*letters, *match[3].split("_")[1:]])
    system = "unknown-linux-gnu" if match[1] == "64" and "d" in letters else "unknown-none-elf"
    return NamedTarget(name, f"riscv{match[1]}-{system}", f"generic-rv{match[1]}", attrs, "")


def _base(name: str) -> tuple[NamedTarget, str]:
    """What the name starts with, and the `+feature-feature` that follow; BadTarget if unknown."""
    triple, plus, more = name.partition("+")
    if is_triple(triple) and all(name != named.name for named in TARGETS):
        triple = canonical(triple)
        return NamedTarget(name, triple, arch_of(triple).cpu, "", ""), plus + more
    cuts = [len(name), *(m.start() for m in reversed(list(re.finditer("[+-]", name))))]
    for cut in cuts:
        head = name[:cut]
        named = next((named for named in TARGETS if named.name == head), None)
        if found := named or _of_cpu(head) or _of_isa(head):
            return found, name[cut:]
    cpus = [cpu for cpus in CPUS.values() for cpu in cpus if _of_cpu(cpu)]
    known = ["native", PORTABLE.name, *(named.name for named in TARGETS), *cpus]
    hint = ", ".join(likely(name)) or _closest(name, known) or "`tbc targets` lists them"
    raise BadTarget(f"there is no target called '{name}'", hint=hint)


def parse(name: str, mcpu: str = "", mattr: str = "") -> Target:
    """The target that `--target`, `--mcpu` and `--mattr` describe.

    Args:
        name: a friendly name, a CPU, a RISC-V string or an LLVM triple; `+f` and `-f` may follow.
        mcpu: LLVM's name of a CPU, in place of the one that `name` implies.
        mattr: LLVM's features, as in `+dotprod,-sve`.

    Raises:
        BadTarget: a part of it is unknown (with close matches as the hint), or they do not fit.
    """
    if name == PORTABLE.name:
        if mcpu or mattr:
            raise BadTarget("portable C has no CPU and no features", hint="--target=c alone")
        return Target(name, PORTABLE.triple, PORTABLE.cpu, frozenset(), "", "")
    base, suffix = _base(name)
    arch = arch_of(base.triple).family
    text = [base.attrs, suffix, mattr]
    changes = [change for part in text for change in _changes(arch, part, base.name)]
    return make(name, base.triple, mcpu or base.cpu, changes)
