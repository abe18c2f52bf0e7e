"""Other generators of C for microcontrollers, and programs of what they write.

- emx-onnx-cgen turns an ONNX model of QLinear operators into C with all sizes as constants.
- BakeNN turns a quantised graph into C, with loops of its own (`portable`) or with calls of the
  kernels of CMSIS-NN that its wheel brings along, which are those of TensorFlow Lite Micro.

Neither is needed by anything but the benchmark; what is not installed is left out.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tbc.emulate_board import Board, board_of
from tbc.target import Target
from tests.counting import AROUND, functions_in, plugin
from tests.embedded_nets import SCALE, Conv, Dense, Mean, Net, Pool, int8

HERE = Path(__file__).parent / "c"
FEATURES = {"cortex-m4": "vfp4d16sp", "cortex-m55": "mve_fp+fp_armv8d16"}
"""By CPU, what zig must be told that it has: all that it has, for the C compiler to use."""
_OWN = ("arena", "input", "output", "vectors")
"""The data of tests/c/int8.c and tbc/board.c."""
_FLAGS = ("-fno-sanitize=all", "-ffunction-sections", "-fdata-sections", "-g0")


@dataclass(frozen=True)
class Generated:
    """C that a generator wrote.

    Attributes:
        sources: the files.
        includes: folders of headers.
        prototype: the declaration of the function.
        call: a call of it, with `arena`, `input` and `output`.
        arena: bytes of scratch memory.
    """

    sources: tuple[Path, ...]
    includes: tuple[Path, ...]
    prototype: str
    call: str
    arena: int


@dataclass(frozen=True)
class Program:
    """A program for a board, and what of its flash is the network.

    Attributes:
        path: the file.
        board: what runs it.
        flash: bytes of the network's code and constants, what it needs of a C library among them.
        weights: bytes of its constants.
    """

    path: Path
    board: Board
    flash: int
    weights: int

    def run(self, sample: bytes) -> tuple[bytes, Counter[str]]:
        """The outputs for a sample, and the network's instructions by function."""
        counts = self.path.with_suffix(".counts")
        emulator, *rest = self.board.command
        command = [emulator, *plugin(counts), *rest, str(self.path)]
        done = subprocess.run(command, input=sample, capture_output=True, check=True)
        if not done.stdout:
            raise RuntimeError(f"{self.path} stopped: {done.stderr.decode()}")
        functions = functions_in(counts)
        return done.stdout, Counter({n: c for n, c in functions.items() if c and n not in AROUND})


def emx(net: Net, folder: Path) -> Generated:
    """emx-onnx-cgen's C."""
    onnx.save(int8(net), folder / "net.onnx")
    tool = Path(sys.executable).with_name("emx-onnx-cgen")
    options = ["--large-temp-threshold", "0", "--large-weight-threshold", "0"]
    command = [tool, "compile", folder / "net.onnx", folder / "net.c", "--model-name", "net"]
    subprocess.run([*command, *options], check=True, capture_output=True)
    prototype = "void net(const int8_t *, int8_t *);"
    return Generated((folder / "net.c",), (), prototype, "net(input, output)", 0)


def bakenn(net: Net, folder: Path, kernels: str) -> Generated:
    """BakeNN's C, with "portable" loops or the kernels of "cmsis"."""
    core = importlib.import_module("bakenn")
    options = core.CBackendOptions()
    if kernels == "cmsis":
        options = core.CBackendOptions(
            kernel_policy=core.KernelPolicy.STATIC_PRIORITY,
            enable_cmsis_nn=True,
            target=core.CORTEX_M4,
        )
    core.compile(_quantised(core, net), folder, model_name=net.name, backend_options=options)
    header = (folder / f"bknn_{net.name}.h").read_text()
    arena = re.search(r"_ARENA_SIZE (\d+)u", header)
    assert arena is not None
    name = f"bknn_{net.name}_infer"
    third = folder / "third_party"
    return Generated(
        tuple(sorted(folder.rglob("*.c"))),
        (folder, third / "cmsis_nn/Include", third / "cmsis_core/Include"),
        f"void {name}(uint8_t *, const int8_t *, int8_t *);",
        f"{name}(arena, input, output)",
        int(arena[1]),
    )


def _quantised(core: Any, net: Net, seed: int = 0) -> Any:
    """A network as BakeNN's graph."""
    ir = importlib.import_module("bakenn.ir")
    random = np.random.default_rng(seed)
    act = ir.PerTensorQParams(SCALE, -128)

    def tensor(shape: tuple[int, ...]) -> Any:
        if len(shape) == 1:
            return ir.TensorType((1, *shape), ir.DType.INT8, ir.Layout.NC, act)
        c, h, w = shape
        return ir.TensorType((1, h, w, c), ir.DType.INT8, ir.Layout.NHWC, act)

    values, constants, operations = {"x": tensor(net.shape)}, {}, []

    def add(operation: Any, layout: Any, weight: Any, axis: int, out: str, **more: Any) -> None:
        rows = weight.shape[axis]
        names = f"{out}_w", f"{out}_b"
        for name, array, kind, place, scale, along in (
            (names[0], weight.astype(np.int8), ir.DType.INT8, layout, 0.01, axis),
            (names[1], random.integers(-99, 99, rows), ir.DType.INT32, ir.Layout.C, SCALE / 100, 0),
        ):
            scales = ir.PerAxisQParams((scale,) * rows, (0,) * rows, along)
            values[name] = ir.TensorType(array.shape, kind, place, scales)
            constants[name] = array.astype(np.int8 if kind is ir.DType.INT8 else np.int32)
        operations.append(operation(out, source, *names, out, **more))

    value = "x"
    for number, (layer, shape) in enumerate(zip(net.layers, net.weights, strict=True)):
        source, value = value, f"v{number}"
        values[value] = tensor(net.shapes[number + 1])
        weight = random.integers(-127, 128, shape) if shape else None
        match layer:
            case Conv(groups=groups):
                tall, wide = (k // 2 for k in layer.kernel)
                padding = {"padding": (tall, tall, wide, wide)}
                if groups == 1:
                    w = weight.transpose(0, 2, 3, 1)
                    add(ir.Conv2DOp, ir.Layout.OHWI, w, 0, value, **padding)
                else:
                    w = weight[:, 0].transpose(1, 2, 0)
                    add(ir.DepthwiseConv2DOp, ir.Layout.HWO, w, 2, value, **padding)
            case Dense():
                add(ir.LinearOp, ir.Layout.OI, weight, 0, value)
            case Pool():
                operations.append(ir.MaxPool2DOp(value, source, value, (2, 2), (2, 2)))
            case Mean():
                c, *size = net.shapes[number]
                values[f"{value}_m"] = tensor((c, 1, 1))
                mean = f"{value}_m", source, f"{value}_m", tuple(size), tuple(size)
                operations.append(ir.AveragePool2DOp(*mean))
                operations.append(ir.FlattenOp(value, f"{value}_m", value))
    return ir.QuantizedGraph(net.name, values, constants, tuple(operations), ("x",), (value,))


PEERS: dict[str, Callable[[Net, Path], Generated]] = {
    "emx-onnx-cgen": emx,
    "BakeNN": functools.partial(bakenn, kernels="portable"),
    "BakeNN, CMSIS-NN": functools.partial(bakenn, kernels="cmsis"),
}


def missing(peer: str) -> str | None:
    """None if a peer can be used, else what is not installed."""
    package = "bakenn" if peer.startswith("BakeNN") else "emx_onnx_cgen"
    for needed in (package, "ziglang"):
        if importlib.util.find_spec(needed) is None:
            return f"{needed.replace('_', '-')} is not installed"
    found = shutil.which("readelf") and shutil.which("qemu-system-arm")
    return None if found else "readelf or qemu-system-arm is missing"


def built(generated: Generated, net: Net, target: Target, folder: Path) -> Program:
    """A program of generated C, as -O3 makes it for the target's core and all that this has."""
    board = board_of(target)
    assert board is not None
    cpu = f"{target.cpu.replace('-', '_')}+{FEATURES[target.cpu]}"
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", "thumb-freestanding-eabihf"]
    common = [*zig, f"-mcpu={cpu}", *_FLAGS, f"-I{HERE / 'freestanding'}"]
    includes = [f"-I{path}" for path in generated.includes]
    objects = []
    for number, source in enumerate(generated.sources):
        objects.append(folder / f"{number}.o")
        flags = ["-O3", "-fhosted", "-fbuiltin", "-w", *includes, "-c"]
        subprocess.run([*common, *flags, source, "-o", objects[-1]], check=True)
    bare = _linked(common, board, folder / "bare", "", "", net, 0, [])
    full = _linked(
        common,
        board,
        folder / "program",
        generated.prototype,
        generated.call,
        net,
        generated.arena,
        objects,
    )
    return Program(full, board, _flash(full) - _flash(bare), _constants(full))


def _linked(
    common: list[str],
    board: Board,
    path: Path,
    prototype: str,
    call: str,
    net: Net,
    arena: int,
    objects: list[Path],
) -> Path:
    sizes = [f"-DARENA={arena}", f"-DINPUT={prod(net.shape)}", f"-DOUTPUT={prod(net.shapes[-1])}"]
    own = [f"-DPROTOTYPE={prototype}", f"-DCALL={call}", *sizes, "-O2", "-fno-builtin"]
    harness = path.with_suffix(".main.o")
    subprocess.run([*common, *own, "-c", HERE / "int8.c", "-o", harness], check=True)
    link = ["-nostartfiles", "-Wl,--gc-sections", *board.link(path.parent)]
    subprocess.run([*common, *link, "-fno-builtin", harness, *objects, "-o", path], check=True)
    return path


def _flash(program: Path) -> int:
    """Bytes of what is loaded from the file."""
    sections = _rows("-SW", program)
    return sum(int(row[-6], 16) for row in sections if "A" in row[-4] and "NOBITS" not in row)


def _constants(program: Path) -> int:
    """Bytes of constants with a name, but for the vector table."""
    symbols = [row for row in _rows("-sW", program) if len(row) == 8 and row[3] == "OBJECT"]
    return sum(int(row[2], 0) for row in symbols if row[7] not in _OWN)


def _rows(option: str, program: Path) -> list[list[str]]:
    done = subprocess.run(["readelf", option, program], capture_output=True, text=True, check=True)
    lines = (line.replace("[", " ").replace("]", " ").split() for line in done.stdout.splitlines())
    return [row for row in lines if row and row[0].rstrip(":").isdigit()]
