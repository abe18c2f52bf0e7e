"""What the machine can do: reading memory, and the instructions of the kernels by themselves."""

from __future__ import annotations

from dataclasses import dataclass

from tbc.codegen import dots_amx, dots_mmla, dots_neon, dots_x86
from tbc.codegen.llvm_text import Function, Module, Val, const, lanes_of, vec
from tbc.kernels import KERNELS, Kernel
from tbc.target import Target
from tbc.types import DType

LINE = 64
STEP = 4 * LINE
"""Bytes of a stream that one round of a reading loop takes."""


@dataclass(frozen=True)
class Stream:
    """A loop that reads memory in some places at once, and fetches some bytes ahead of each."""

    streams: int
    ahead: int

    @property
    def name(self) -> str:
        """For people."""
        plural = "s" if self.streams > 1 else ""
        fetch = f", {self.ahead} ahead" if self.ahead else ""
        return f"{self.streams} stream{plural}{fetch}"

    @property
    def symbol(self) -> str:
        """Of its function."""
        return f"read_{self.streams}_{self.ahead}"

    def emit(self, module: Module, target: Target) -> None:
        """void symbol(at, bytes of a stream: a multiple of STEP, out)."""
        index = f"i{target.index_bits}"
        args = [("ptr", "at"), (index, "each"), ("ptr", "out")]
        f = Function(module, self.symbol, args, linkage="")
        at, each, out = f.args
        lanes = max(target.vector_bytes, 4) // 4
        zero = const(vec("i32", lanes), 0)
        starts = [
            f.offset(at, f.op("mul", each, const(index, number))) for number in range(self.streams)
        ]
        with f.loop(const(index, 0), each, STEP, carried=[zero] * max(4, self.streams)) as loop:
            sums = list(loop.carried)
            for number, start in enumerate(starts):
                place = f.offset(start, loop.index)
                for line in range(0, STEP, LINE):
                    self._line(f, f.offset(place, const(index, line)), index, sums, number + line)
            loop.yield_(*sums)
        total = loop.results[0]
        for other in loop.results[1:]:
            total = f.op("xor", total, other)
        f.store(total, out, 4)
        f.finish()

    @property
    def shared(self) -> str:
        """The name of the function that does a part."""
        return f"{self.symbol}_shared"

    def emit_shared(self, module: Module, target: Target) -> None:
        """i32 shared(call, part, parts): read a part of a tbc_call's arena, in streams of dims[0].

        The out of a part is behind outputs[0], a line for each.
        """
        index, pointer = f"i{target.index_bits}", target.index_bits // 8
        args = [("ptr", "call"), ("i32", "part"), ("i32", "parts")]
        f = Function(module, self.shared, args, "i32", linkage="")
        call, part, _ = f.args

        def field(number: int) -> Val:
            return f.load("ptr", f.offset(call, const(index, number), "ptr"), pointer)

        part = f.cast("zext", part, index)
        each = f.load(index, field(5), pointer)
        whole = f.op("mul", each, const(index, self.streams))
        at = f.offset(field(2), f.op("mul", part, whole))
        out = f.offset(f.load("ptr", field(1), pointer), f.op("mul", part, const(index, LINE)))
        f.call("void", self.symbol, at, each, out)
        f.do("ret i32 0")
        f.finish()

    def _line(self, f: Function, at: Val, index: str, sums: list[Val], number: int) -> None:
        """Reads a line, every vector of it into another sum."""
        if self.ahead:
            ahead = f.offset(at, const(index, self.ahead))
            locality = (const("i32", 0), const("i32", 3), const("i32", 1))
            f.intrinsic("void", "llvm.prefetch.p0", ahead, *locality)
        width = 4 * lanes_of(sums[0].type)
        for part in range(0, LINE, width):
            loaded = f.load(sums[0].type, f.offset(at, const(index, part)), min(width, LINE))
            place = (number + number // LINE + part // width) % len(sums)
            sums[place] = f.op("xor", sums[place], loaded)


STREAMS = tuple(
    Stream(streams, ahead)
    for streams, fetch in ((1, 4096), (4, 4096), (8, 2048))
    for ahead in (0, fetch)
)


@dataclass(frozen=True)
class Peak:
    """A loop of nothing but multiply-adds in registers.

    Attributes:
        name: of the instructions.
        dot: of the dot in `tbc.kernels` that uses them; "" for floats.
        operand: the type of its operands; "tile" of tile registers.
        rows: rows of activations that an instruction multiplies with each byte of weights.
    """

    name: str
    dot: str
    operand: str
    rows: int = 1

    @property
    def symbol(self) -> str:
        """Of its function."""
        return f"peak_{self.isa}"

    @property
    def is_float(self) -> bool:
        """Whether it is about f32."""
        return not self.dot

    @property
    def has_tiles(self) -> bool:
        """Whether it is about tile registers."""
        return self.dot == "amx"

    @property
    def isa(self) -> str:
        """What `isa_of` calls its instructions."""
        return self.dot or "f32"

    @property
    def each(self) -> int:
        """Multiply-adds of an instruction."""
        return dots_amx.PEAK if self.has_tiles else lanes_of(self.operand) * self.rows

    def macs(self, target: Target) -> int:
        """Multiply-adds of a round of the loop."""
        return self.each if self.has_tiles else self.each * _chains(target)

    def emit(self, module: Module, target: Target) -> None:
        """void symbol(64 bytes, rounds, out).

        Every step takes its own sum as an operand, so that it cannot be moved out of the loop.
        """
        index = f"i{target.index_bits}"
        args = [("ptr", "at"), (index, "rounds"), ("ptr", "out")]
        f = Function(module, self.symbol, args, linkage="")
        at, rounds, out = f.args
        if self.has_tiles:
            dots_amx.peak(f, rounds)
            f.finish()
            return
        x = f.load(self.operand, at, 4)
        first = f.load(_ISAS[self.dot].sums[0] if self.dot else self.operand, at, 4)
        with f.loop(const(index, 0), rounds, carried=[first] * _chains(target)) as loop:
            loop.yield_(*(self._step(f, total, x) for total in loop.carried))
        for number, total in enumerate(loop.results):
            f.store(total, f.offset(out, const(index, LINE * number)), 4)
        f.finish()

    def _step(self, f: Function, total: Val, x: Val) -> Val:
        if self.dot:
            w = f.cast("bitcast", total, self.operand)
            return _ISAS[self.dot].dot(f, (total,), w, x)[0]
        if self.name == "fma":
            suffix = f"v{lanes_of(x.type)}f32" if lanes_of(x.type) > 1 else "f32"
            return f.intrinsic(x.type, f"llvm.fma.{suffix}", total, x, x)
        return f.op("fadd", f.op("fmul", total, x), x)


def isa_of(kernel: Kernel) -> str:
    """The peak whose rate is that of a kernel's instructions.

    What AMX costs is counted in vpdpbusd.
    """
    if kernel.activations is DType.f32:
        return "f32"
    same = {"vbmi512": "vnni512", "amx": "vnni512", "amxvbmi": "vnni512"}
    return same.get(kernel.dot.name, kernel.dot.name)


_ISAS = dots_x86.ISAS | dots_neon.ISAS | {"i8mm": dots_mmla.USMMLA}

CHAINS = {8: 4, 16: 12, 32: 24}
"""By vector registers, how many sums there are at once: more than an instruction takes cycles."""

INTEGER_PEAKS = (
    Peak("tdpbsud", "amx", "tile"),
    Peak("vpdpbusd 512", "vnni512", "<64 x i8>"),
    Peak("vpdpbusd 256", "avxvnni", "<32 x i8>"),
    Peak("pmaddubsw 512", "avx512bw", "<64 x i8>"),
    Peak("pmaddubsw 256", "avx2", "<32 x i8>"),
    Peak("pmaddubsw 128", "ssse3", "<16 x i8>"),
    Peak("pmaddwd 128", "sse2", "<8 x i16>"),
    Peak("sdot", "neondot", "<16 x i8>"),
    Peak("usmmla", "i8mm", "<16 x i8>", rows=2),
)


def _chains(target: Target) -> int:
    return CHAINS[target.vector_registers]


def peaks(target: Target) -> tuple[Peak, ...]:
    """Those that the target has, floats last."""
    dots = {kernel.dot.name for kernel in KERNELS if kernel.dot.runs_on(target)}
    fused = target.arch == "aarch64" or (target.arch == "x86" and target.vector_bytes >= 32)
    name = "fma" if fused else "mul+add"
    floats = Peak(name, "", vec("float", max(target.vector_bytes // 4, 1)))
    return (*(peak for peak in INTEGER_PEAKS if peak.dot in dots), floats)
