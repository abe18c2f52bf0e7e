"""The CPUs and instruction sets of LLVM 22, as far as they decide what tbc emits.

LLVM only warns of a CPU or a feature that it does not know, so tbc looks names up here first.
A test derives every row from LLVM itself. Names with an underscore, which LLVM keeps for a
compiler's cpu_dispatch, and tuning models without an instruction set of their own are left out.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

RELEVANT: dict[str, frozenset[str]] = {
    arch: frozenset(names.split())
    for arch, names in {
        "x86": "sse2 ssse3 sse4.1 avx avx2 fma f16c bmi2 avxvnni avx512f avx512cd avx512bw "
        "avx512dq avx512vl avx512vnni avx512vbmi amx-tile amx-int8",
        "aarch64": "fp-armv8 neon fullfp16 dotprod i8mm sve sve2",
        "arm": "hwdiv dsp fpregs vfp2sp fp16 vfp4d16sp fp-armv8d16sp fp64 neon fullfp16 dotprod "
        "i8mm mve mve.fp",
        "riscv": "m a f d c zfh zfhmin zve32x zve32f zve64x zve64f zve64d v zvl128b zvl256b "
        "zvl512b zvfh",
        "wasm": "simd128 relaxed-simd nontrapping-fptoint bulk-memory",
        "s390x": "vector vector-enhancements-1",
        "powerpc": "altivec vsx",
        "loongarch": "f d lsx lasx",
    }.items()
}
"""The features that emitters ask for, by architecture: what `Target.features` is made of."""


def _edges(text: str) -> dict[str, tuple[str, ...]]:
    """`a b=a c=a+b` -> {a: (), b: (a,), c: (a, b)}."""
    pairs = (word.partition("=") for word in text.split())
    return {name: tuple(implied.split("+")) if implied else () for name, _, implied in pairs}


IMPLIES: dict[str, dict[str, tuple[str, ...]]] = {
    "x86": _edges(
        "adx aes=sse2 amx-bf16=amx-tile amx-int8=amx-tile amx-tile avx=sse4.2 avx10.1=avx512bf16+"
        "avx512bitalg+avx512cd+avx512dq+avx512fp16+avx512ifma+avx512vbmi+avx512vbmi2+avx512vl+"
        "avx512vnni+avx512vpopcntdq avx10.2=avx10.1 avx2=avx avx512bf16=avx512bw "
        "avx512bitalg=avx512bw avx512bw=avx512f avx512cd=avx512f avx512dq=avx512f "
        "avx512f=avx2+f16c+fma avx512fp16=avx512bw avx512ifma=avx512f avx512vbmi=avx512bw "
        "avx512vbmi2=avx512bw avx512vl=avx512f avx512vnni=avx512f avx512vpopcntdq=avx512f "
        "avxifma=avx2 avxneconvert=avx2 avxvnni=avx2 avxvnniint16=avx2 avxvnniint8=avx2 bmi bmi2 "
        "cmov crc32 f16c=avx fma=avx fma4=avx+sse4a gfni=sse2 lzcnt movbe pclmul=sse2 popcnt "
        "prfchw sha=sse2 sse sse2=sse sse3=sse2 sse4.1=ssse3 sse4.2=sse4.1 sse4a=sse3 ssse3=sse3 "
        "vaes=aes+avx2 vpclmulqdq=avx+pclmul xop=fma4"
    ),
    "aarch64": _edges(
        "v8a v8.1a=crc+lse+rdm+v8a v8.2a=v8.1a v8.3a=complxnum+jsconv+rcpc+v8.2a "
        "v8.4a=dotprod+lse2+rcpc-immo+v8.3a v8.5a=fptoint+v8.4a v8.6a=bf16+i8mm+v8.5a v8.7a=v8.6a "
        "v8.8a=v8.7a v8.9a=v8.8a v9a=v8.5a v9.1a=v8.6a+v9a v9.2a=v8.7a+v9.1a v9.3a=v8.8a+v9.2a "
        "v9.4a=v8.9a+v9.3a v9.5a=v9.4a v9.6a=v9.5a v9.7a=sve2p2+v9.6a aes=neon bf16=neon "
        "complxnum=neon crc crypto=aes+sha2 dotprod=neon f32mm=sve f64mm=sve fp-armv8 "
        "fp16fml=fullfp16+neon fptoint=fp-armv8 fullfp16=fp-armv8 i8mm=neon jsconv=fp-armv8 lse "
        "lse2 neon=fp-armv8 rcpc rcpc-immo=rcpc rcpc3=rcpc-immo rdm=neon sha2=neon sha3=sha2 "
        "sm4=neon sme=bf16+fullfp16 sme2=sme strict-align sve=fullfp16 sve-aes=aes sve-bitperm "
        "sve2=sve sve2-aes=sve-aes+sve2 sve2-bitperm=sve-bitperm+sve2 sve2p1=sve2 sve2p2=sve2p1"
    ),
    "arm": _edges(
        "bf16=neon crc crypto=neon d32 dotprod=neon dsp fp-armv8=fp-armv8d16+fp-armv8sp+vfp4 "
        "fp-armv8d16=fp-armv8d16sp+vfp4d16 fp-armv8d16sp=vfp4d16sp "
        "fp-armv8sp=fp-armv8d16sp+vfp4sp fp16 fp16fml=fullfp16 fp64=fpregs64 fpregs "
        "fpregs16=fpregs fpregs64=fpregs fullfp16=fp-armv8d16sp+fpregs16 hwdiv hwdiv-arm "
        "i8mm=neon lob mve=dsp+fpregs16+fpregs64 mve.fp=fullfp16+mve neon=vfp3 sb strict-align "
        "vfp2=fp64+vfp2sp vfp2sp=fpregs vfp3=vfp3d16+vfp3sp vfp3d16=vfp2+vfp3d16sp "
        "vfp3d16sp=vfp2sp vfp3sp=d32+vfp3d16sp vfp4=vfp3+vfp4d16+vfp4sp vfp4d16=vfp3d16+vfp4d16sp "
        "vfp4d16sp=fp16+vfp3d16sp vfp4sp=vfp3sp+vfp4d16sp"
    ),
    "riscv": _edges(
        "a=zaamo+zalrsc b=zba+zbb+zbs c=zca d=f f=zicsr m=zmmul v=zve64d+zvl128b zaamo zalrsc zba "
        "zbb zbc zbkb zbkc zbkx zbs zca zcb=zca zcd=d+zca zfa=f zfbfmin=f zfh=zfhmin zfhmin=f "
        "zicbop zicond zicsr zifencei zihintntl zihintpause zmmul zvbb=zvkb zve32f=f+zve32x "
        "zve32x=zicsr+zvl32b zve64d=d+zve64f zve64f=zve32f+zve64x zve64x=zve32x+zvl64b "
        "zvfbfmin=zve32f zvfbfwma=zfbfmin+zvfbfmin zvfh=zfhmin+zvfhmin zvfhmin=zve32f zvkb=zve32x "
        "zvl32b zvl64b=zvl32b zvl128b=zvl64b zvl256b=zvl128b zvl512b=zvl256b zvl1024b=zvl512b "
        "rva20u64=a+c+d+m rva22u64=a+b+c+d+m+zfhmin+zicbop+zihintpause "
        "rva23u64=a+b+c+m+v+zcb+zfa+zfhmin+zicbop+zicond+zihintntl+zihintpause+zvbb+zvfhmin "
        "unaligned-scalar-mem unaligned-vector-mem"
    ),
    # LLVM keeps the two SIMD levels as a number: the relaxed one has all of simd128.
    "wasm": _edges(
        "atomics bulk-memory=bulk-memory-opt bulk-memory-opt extended-const fp16 multivalue "
        "mutable-globals nontrapping-fptoint reference-types relaxed-simd=simd128 sign-ext "
        "simd128 tail-call wide-arithmetic"
    ),
    "s390x": _edges(
        "distinct-ops fp-extension high-word load-store-on-cond load-store-on-cond-2 "
        "miscellaneous-extensions miscellaneous-extensions-2 miscellaneous-extensions-3 "
        "miscellaneous-extensions-4 nnp-assist population-count vector vector-enhancements-1 "
        "vector-enhancements-2 vector-enhancements-3"
    ),
    "powerpc": _edges("altivec vsx=altivec"),
    "loongarch": _edges("f d=f lsx=d lasx=lsx ual"),
    "mips": {},
    "sparc": {},
}
"""Architecture -> instruction-set feature -> the features that it implies directly."""


def _cpus(rows: dict[str, str]) -> dict[str, str]:
    """{features: CPUs} -> {CPU: features}."""
    return {cpu: features for features, cpus in rows.items() for cpu in cpus.split()}


CPUS: dict[str, dict[str, str]] = {
    "i686": _cpus(
        {
            "": "athlon athlon-4 athlon-mp athlon-tbird athlon-xp c3 c3-2 geode i386 i486 i586 "
            "i686 k6 k6-2 k6-3 lakemont pentium pentium-mmx pentium2 pentium3 pentium3m "
            "pentiumpro winchip-c6 winchip2",
            "sse2": "pentium-m pentium4 pentium4m prescott yonah",
        }
    ),
    "x86_64": _cpus(
        {
            "sse2": "amdfam10 athlon-fx athlon64 athlon64-sse3 barcelona k8 k8-sse3 nocona "
            "opteron opteron-sse3 x86-64",
            "ssse3": "atom bonnell btver1 core2",
            "sse4.1": "corei7 goldmont goldmont-plus nehalem penryn silvermont slm tremont "
            "westmere x86-64-v2",
            "avx": "bdver1 corei7-avx sandybridge",
            "f16c": "btver2 core-avx-i ivybridge",
            "fma f16c": "bdver2 bdver3",
            "avx2 fma f16c bmi2": "bdver4 broadwell core-avx2 haswell skylake x86-64-v3 znver1 "
            "znver2 znver3",
            "fma f16c bmi2 avxvnni": "alderlake arrowlake arrowlake-s clearwaterforest gracemont "
            "grandridge lunarlake meteorlake pantherlake raptorlake sierraforest wildcatlake",
            "bmi2 avx512cd": "knl knm",
            "bmi2 avx512cd avx512bw avx512dq avx512vl": "skx skylake-avx512 x86-64-v4",
            "bmi2 avx512cd avx512dq avx512vl avx512vbmi": "cannonlake",
            "bmi2 avx512cd avx512bw avx512dq avx512vl avx512vnni": "cascadelake cooperlake",
            "bmi2 avx512cd avx512dq avx512vl avx512vnni avx512vbmi": "icelake-client "
            "icelake-server rocketlake tigerlake znver4",
            "bmi2 avxvnni avx512cd avx512dq avx512vl avx512vnni avx512vbmi": "novalake znver5",
            "bmi2 avxvnni avx512cd avx512dq avx512vl avx512vnni avx512vbmi amx-int8": ""
            "diamondrapids emeraldrapids graniterapids graniterapids-d sapphirerapids",
        }
    ),
    "aarch64": _cpus(
        {
            "neon": "apple-a10 apple-a7 apple-a8 apple-a9 cortex-a34 cortex-a35 cortex-a53 "
            "cortex-a57 cortex-a72 cortex-a73 cyclone exynos-m3 falkor generic kryo thunderx "
            "thunderx2t99 thunderx3t110 thunderxt81 thunderxt83 thunderxt88",
            "neon fullfp16": "apple-a11 apple-a12 apple-s4 apple-s5 carmel",
            "neon sve": "a64fx",
            "dotprod": "saphira",
            "fullfp16 dotprod": "apple-a13 apple-a14 apple-m1 apple-s6 apple-s7 apple-s8 "
            "cortex-a55 cortex-a65 cortex-a65ae cortex-a75 cortex-a76 cortex-a76ae cortex-a77 "
            "cortex-a78 cortex-a78ae cortex-a78c cortex-r82 cortex-r82ae cortex-x1 cortex-x1c "
            "exynos-m4 exynos-m5 neoverse-e1 neoverse-n1 tsv110",
            "fullfp16 dotprod i8mm": "ampere1 ampere1a ampere1b apple-a15 apple-a16 apple-a17 "
            "apple-a18 apple-a19 apple-m2 apple-m3 apple-m4 apple-m5 apple-s10 apple-s9 oryon-1",
            "dotprod i8mm sve": "neoverse-512tvb neoverse-v1",
            "dotprod i8mm sve2": "ampere1c c1-nano c1-premium c1-pro c1-ultra cobalt-100 "
            "cortex-a320 cortex-a510 cortex-a520 cortex-a520ae cortex-a710 cortex-a715 "
            "cortex-a720 cortex-a720ae cortex-a725 cortex-x2 cortex-x3 cortex-x4 cortex-x925 "
            "fujitsu-monaka gb10 grace neoverse-n2 neoverse-n3 neoverse-v2 neoverse-v3 "
            "neoverse-v3ae olympus",
        }
    ),
    "arm": _cpus(
        {
            "": "arm1020e arm1020t arm1022e arm10e arm10tdmi arm1176jz-s arm710t arm720t "
            "arm7tdmi arm7tdmi-s arm8 arm810 arm9 arm920 arm920t arm922t arm926ej-s arm940t "
            "arm946e-s arm966e-s arm968e-s arm9e arm9tdmi cortex-m0 cortex-m0plus cortex-m1 "
            "ep9312 generic iwmmxt mpcorenovfp sc000 strongarm strongarm110 strongarm1100 "
            "strongarm1110 xscale",
            "dsp": "arm1136j-s arm1156t2-s",
            "hwdiv": "cortex-m23 cortex-m3 sc300",
            "hwdiv dsp": "cortex-r4",
            "vfp2sp fp64": "arm1176jzf-s mpcore",
            "dsp vfp2sp fp64": "arm1136jf-s arm1156t2f-s",
            "hwdiv dsp vfp2sp fp64": "cortex-r4f cortex-r5",
            "hwdiv dsp vfp2sp fp16 fp64": "cortex-r7 cortex-r8",
            "hwdiv dsp vfp4d16sp": "cortex-m4",
            "hwdiv dsp fp-armv8d16sp": "cortex-m33 cortex-m35p star-mc1",
            "hwdiv dsp fp-armv8d16sp fp64": "cortex-m7",
            "hwdiv fp64 mve.fp": "cortex-m52 cortex-m55 cortex-m85 star-mc3",
            "dsp neon": "cortex-a8",
            "dsp fp16 neon": "cortex-a9",
            "dsp vfp4d16sp neon": "cortex-a5",
            "hwdiv dsp vfp4d16sp neon": "cortex-a12 cortex-a15 cortex-a17 cortex-a7 krait swift",
            "hwdiv dsp fp-armv8d16sp neon": "cortex-a32 cortex-a35 cortex-a53 cortex-a57 "
            "cortex-a72 cortex-a73 cortex-r52 cortex-r52plus cyclone exynos-m3 kryo",
            "hwdiv dsp fp-armv8d16sp dotprod": "cortex-a55 cortex-a75 neoverse-n1",
            "hwdiv dsp fullfp16 dotprod": "cortex-a76 cortex-a76ae cortex-a77 cortex-a78 "
            "cortex-a78ae cortex-a78c cortex-x1 cortex-x1c exynos-m4 exynos-m5",
            "hwdiv dsp fullfp16 dotprod i8mm": "cortex-a510 cortex-a710 neoverse-n2 neoverse-v1",
        }
    ),
    "riscv32": _cpus(
        {
            "": "generic-rv32 rocket-rv32",
            "c": "syntacore-scr1-base",
            "m c": "sifive-e20 syntacore-scr1-max syntacore-scr3-rv32",
            "m a c": "rp2350-hazard3 sifive-e21 sifive-e31",
            "m a f c": "sifive-e24 sifive-e34 sifive-e76",
            "m d c": "syntacore-scr4-rv32",
            "m a d c": "andes-a25 andes-a45 andes-n45 syntacore-scr5-rv32",
        }
    ),
    "riscv64": _cpus(
        {
            "": "generic-rv64 rocket-rv64",
            "m a c": "sifive-s21 sifive-s51 syntacore-scr3-rv64",
            "m a d c": "andes-ax25 andes-ax45 andes-nx45 mips-p8700 sifive-p550 sifive-s54 "
            "sifive-s76 sifive-u54 sifive-u74 syntacore-scr4-rv64 syntacore-scr5-rv64 veyron-v1 "
            "xiangshan-nanhu",
            "m a d c zfhmin": "sifive-p450",
            "m a c v": "andes-ax45mpv syntacore-scr7",
            "m a c zfhmin v": "sifive-p470 sifive-p670",
            "m a c zfh v zvfh": "sifive-p870 xiangshan-kunminghu",
            "m a c zfh v zvl256b zvfh": "spacemit-x60 tt-ascalon-d8",
            "m a c zfh v zvl512b zvfh": "sifive-x280 sifive-x390",
        }
    ),
    "wasm": _cpus(
        {
            "": "mvp",
            "nontrapping-fptoint": "lime1",
            "nontrapping-fptoint bulk-memory": "generic",
            "relaxed-simd nontrapping-fptoint bulk-memory": "bleeding-edge",
        }
    ),
    "s390x": _cpus(
        {
            "": "arch10 arch8 arch9 generic z10 z196 zEC12",
            "vector": "arch11 z13",
            "vector vector-enhancements-1": "arch12 arch13 arch14 arch15 z14 z15 z16 z17",
        }
    ),
    "powerpc": _cpus({"": "ppc64", "vsx": "ppc64le pwr7 pwr8 pwr9 pwr10 pwr11"}),
    "loongarch": _cpus({"lsx": "generic-la64 loongarch64", "lasx": "la464 la664"}),
    "mips": _cpus({"": "mips32r2 mips32r6 mips64r2 mips64r6"}),
    "sparc": _cpus({"": "v9"}),
}
"""Instruction-set family -> CPU -> its features (those in `RELEVANT`; implied ones left out)."""


@functools.cache
def implied(arch: str, feature: str) -> frozenset[str]:
    """The feature and all that it implies."""
    edges = IMPLIES[arch]
    found, todo = {feature}, [feature]
    while todo:
        new = set(edges.get(todo.pop(), ())) - found
        found |= new
        todo += new
    return frozenset(found)


def apply(arch: str, own: Iterable[str], changes: Iterable[str]) -> frozenset[str]:
    """The relevant features that are on after changes `+f` and `-f` to a CPU's own, as in LLVM."""
    on = set(own)
    for change in changes:
        feature = change[1:]
        if change[0] == "+":
            on |= implied(arch, feature)
        else:
            on -= {other for other in on if feature in implied(arch, other)}
    return frozenset(on & RELEVANT.get(arch, frozenset()))
