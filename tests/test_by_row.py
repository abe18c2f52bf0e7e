"""Little memory on microcontrollers: the same bits as without, on random networks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import pytest
from compiled import Native
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from strategies import assert_same
from toolchain import ROOT
from typer.testing import CliRunner

import tbc
from tbc.cli import app
from tbc.codegen.host import resolve_target
from tbc.codegen.machine import Workers
from tbc.driver import lower
from tbc.emulate import can_run
from tbc.frontend import load
from tbc.ops import PackedDot
from tbc.passes.scratch import arena
from tbc.program import Block
from tbc.reference import run_graph
from tbc.target import Target, parse
from tbc.text import parse_graph

DIGITS = ROOT / "examples/digits/digits_cnn.onnx"
SMALL = resolve_target("cortex-m0plus", optimize="size")


@contextmanager
def short_of_memory() -> Iterator[None]:
    """Within it, models for this machine take as little memory as those for microcontrollers."""
    with mock.patch.object(Target, "is_short_of_memory", property(lambda _: True)):
        yield


class Net:
    """A network of quantised ternary convolutions, made layer by layer from random choices."""

    def __init__(self, seed: int, batch: int, channels: int, size: tuple[int, int]):
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.shape = (batch, channels, *size)
        self.input = self.shape
        self.last = "x"

    def op(self, op: str, *args: str | np.ndarray, **attributes: object) -> str:
        names = []
        for arg in args:
            if isinstance(arg, np.ndarray):
                name = f"c{len(self.constants)}"
                self.constants.append(numpy_helper.from_array(arg, name))
                names.append(name)
            else:
                names.append(arg)
        result = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, names, [result], **attributes))
        return result

    def quantised(self) -> None:
        """QuantizeLinear and DequantizeLinear to unsigned 8 bits."""
        scale, zero = np.array(0.02, np.float32), np.array(self.rng.integers(0, 20), np.uint8)
        codes = self.op("QuantizeLinear", self.last, scale, zero)
        self.last = self.op("DequantizeLinear", codes, scale, zero)

    def convolved(self, filters: int, kernel: int, stride: int, pad: int) -> None:
        n, c, h, w = self.shape
        trits = self.rng.integers(-1, 2, (filters, c, kernel, kernel)).astype(np.float32)
        kwargs = {"strides": [stride] * 2, "pads": [pad] * 4}
        y = self.op("Conv", self.last, trits * np.float32(0.05), **kwargs)
        bias = self.rng.standard_normal((1, filters, 1, 1)).astype(np.float32)
        self.last = self.op("Relu", self.op("Add", y, bias))
        sizes = ((d + 2 * pad - kernel) // stride + 1 for d in (h, w))
        self.shape = (n, filters, *sizes)

    def pooled(self, size: int, stride: int) -> None:
        n, c, h, w = self.shape
        self.last = self.op("MaxPool", self.last, kernel_shape=[size] * 2, strides=[stride] * 2)
        self.shape = (n, c, (h - size) // stride + 1, (w - size) // stride + 1)

    def model(self) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.input)],
            [helper.make_tensor_value_info(self.last, TensorProto.FLOAT, None)],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_random_networks(data: st.DataObject) -> None:
    number = lambda least, most: data.draw(st.integers(least, most))  # noqa: E731
    net = Net(number(0, 1 << 30), number(1, 2), number(1, 5), (number(5, 9), number(5, 9)))
    for _ in range(number(1, 3)):
        if number(0, 3):
            net.quantised()
        net.convolved(number(1, 20), number(1, 3), number(1, 2), number(0, 1))
        if min(net.shape[2:]) >= 2 and number(0, 1):
            net.pooled(2, number(1, 2))
        if min(net.shape[2:]) < 3:
            break
    net.quantised()
    model, x = net.model(), net.rng.standard_normal(net.input).astype(np.float32)
    (expected,) = tbc.compile(model).run({"x": x}).values()
    with short_of_memory():
        (y,) = tbc.compile(model).run({"x": x}).values()
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("coded", [False, True])
@pytest.mark.parametrize("kept", [(6, 20), (120,), (3, 2, 20), (2, 60)])
def test_rows_of_what_is_kept(kept: tuple[int, ...], coded: bool, workers: Workers) -> None:
    """A reshape of an input is a result too: the step sees only that, not the input behind it."""
    w = np.random.default_rng(0).integers(-1, 2, (5, 20)).tolist()
    graph = parse_graph(f"""
def f(x: i8[2, 3, 20]):
    kept: i8[{", ".join(map(str, kept))}] = reshape(x, shape={kept})
    rows: i8[6, 20] = reshape(kept, shape=(6, 20))
    w: trit[5, 20] = const({w})
    y: i32[6, 5] = dot(rows, w)
    return {{"kept": kept, "y": y}}
""")
    choice = {"may_be": lambda *_: coded, "is_worth_it": lambda *_: coded}
    with short_of_memory(), mock.patch.multiple("tbc.straight", **choice):
        native = Native(graph, workers)
    feeds = {"x": np.random.default_rng(1).integers(-128, 128, (2, 3, 20)).astype(np.int8)}
    done = native.run(feeds, 1)
    for name, array in run_graph(graph, feeds).items():
        assert_same(done.outputs[name], array)


def test_patches_are_in_memory_nowhere() -> None:
    program = lower(load(DIGITS, dims={"batch": 1}).graph, SMALL)
    dots = [step for step in program.steps if isinstance(step.anchor.op, PackedDot)]
    assert [dot.anchor.op.by_row for dot in dots] == [True] * 4
    largest = max(block.size for block in program.blocks)
    assert (
        largest == 2048
    )  # i8 [1, 32, 8, 8], in front of the pooling; and the last f32 [1, 32, 4, 4]


@pytest.mark.parametrize("target", ["cortex-m0plus", "cortex-m4", "cortex-m55", "rv32imc"])
def test_the_digits_fit_in_4_kilobytes(tmp_path: Path, target: str) -> None:
    limits = ("--flash-limit", "16K", "--ram-limit", "4K")
    arguments = ("compile", DIGITS, "-o", tmp_path, "--target", target, "--emit", "obj", *limits)
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    "target", ["cortex-m0plus", pytest.param("cortex-m55", marks=pytest.mark.slow)]
)
def test_boards_compute_the_same(target: str) -> None:
    if missing := can_run(parse(target)):
        pytest.skip(missing)
    assert tbc.verify(DIGITS, target=target, samples=1).ok


# -- the arena ------------------------------------------------------------------------------------

BLOCKS = st.lists(
    st.builds(lambda size, born, more: (size, born, born + more), *[st.integers(1, 9)] * 3),
    max_size=12,
)


@given(BLOCKS)
def test_blocks_that_live_together_lie_apart(drawn: list[tuple[int, int, int]]) -> None:
    blocks = {i: Block(size, born, dies, i, "") for i, (size, born, dies) in enumerate(drawn)}
    region = arena(blocks)
    offsets, total = region.offsets, region.size
    for a, one in blocks.items():
        assert 0 <= offsets[a] <= total - one.size
        for b, other in blocks.items():
            if a < b and one.born <= other.dies and other.born <= one.dies:
                apart = offsets[a] + one.size <= offsets[b] or offsets[b] + other.size <= offsets[a]
                assert apart, (a, b)
    times = range(20)
    alive = [sum(b.size for b in blocks.values() if b.born <= t <= b.dies) for t in times]
    assert max(accumulate(alive, max), default=0) <= total


def test_gaps_are_closed_by_trying_again() -> None:
    sizes = {"a": (8, 0, 1), "b": (4, 0, 0), "c": (4, 1, 2), "d": (6, 2, 3), "e": (6, 3, 3)}
    blocks = {name: Block(*block, i, name) for i, (name, block) in enumerate(sizes.items())}
    assert arena(blocks).size == 12
