"""Loops whose length is known only when the model runs, compiled, against onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from compiled import Native
from onnx import TensorProto, helper, numpy_helper
from onnx_models import (
    Array,
    assert_close,
    by_onnxruntime,
    i64,
    model,
    nodes,
    normal,
    value_info,
)
from strategies import assert_same

from tbc import frontend, ops, reference
from tbc.codegen.host import resolve_target
from tbc.codegen.machine import Workers
from tbc.driver import assemble, lower
from tbc.emulate import Emulated, can_run
from tbc.errors import Unsupported
from tbc.program import Program

F = np.float32
HIDDEN, SIZE = 16, 8
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
DIMS = {"t": (0, 70), "n": (1, 3)}
_BAD_VALUE = 7
"""TBC_ERROR_VALUE of tbc.h."""


def agree(
    proto: onnx.ModelProto, workers: Workers, *feeds: dict[str, Array], **dims: Any
) -> Program:
    """Compiled in one artifact, in one part and in three: the reference's bits, onnxruntime's
    numbers."""
    compiled = Native(frontend.load(proto, dims=dims).graph, workers)
    for given in feeds:
        exact = reference.run_graph(compiled.lowered, given)
        wanted = by_onnxruntime(proto, given)
        for parts in (1, 3):
            run = compiled.run(given, parts)
            assert run.status == 0
            for name, array in exact.items():
                assert_same(run.outputs[name], array)
        for array, expected in zip(exact.values(), wanted, strict=True):
            assert_close(array, expected, 4)
    return compiled.program


def loops_of(program: Program) -> list[Program]:
    """The bodies of all loops."""
    return [s.rounds.program for s in program.all_steps if s.rounds is not None]


# -- recurrent layers -----------------------------------------------------------------------------


def weights(ternary: bool, seed: int, *shape: int) -> Array:
    drawn = normal(seed, *shape) * F(0.3)
    return (np.rint(drawn * 2) / 4).clip(-0.25, 0.25).astype(F) if ternary else drawn


def layer(op: str, direction: str, ternary: bool = False) -> onnx.ModelProto:
    ways, rows = 2 if direction == "bidirectional" else 1, GATES[op] * HIDDEN
    node = helper.make_node(
        op, ["x", "w", "r", "b"], ["y", "last"], hidden_size=HIDDEN, direction=direction
    )
    constants = {
        "w": weights(ternary, 2, ways, rows, SIZE), "r": weights(ternary, 3, ways, rows, HIDDEN),
        "b": normal(4, ways, 2 * rows),
    }  # fmt: skip
    return model([node], {"x": (F, ["t", "n", SIZE])}, ["y", "last"], constants)


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_a_layer_of_any_length_is_one_loop_a_direction(
    op: str, direction: str, workers: Workers
) -> None:
    feeds = [{"x": normal(t, t, 2, SIZE)} for t in (1, 2, 33)]
    program = agree(layer(op, direction), workers, *feeds, **DIMS)
    assert len(loops_of(program)) == (2 if direction == "bidirectional" else 1)


@pytest.mark.parametrize("steps", [(0, 9), 0])
def test_a_layer_of_no_steps_keeps_its_state(steps: Any, workers: Workers) -> None:
    dims = {**DIMS, "t": steps}
    compiled = Native(frontend.load(layer("GRU", "reverse"), dims=dims).graph, workers)
    run = compiled.run({"x": normal(1, 0, 2, SIZE)})
    assert run.status == 0
    assert run.outputs["y"].shape == (0, 1, 2, HIDDEN)
    assert_same(run.outputs["last"], np.zeros((1, 2, HIDDEN), F))


@pytest.mark.parametrize("op", GATES)
def test_ternary_weights_are_packed_inside_the_loop(op: str, workers: Workers) -> None:
    feeds = [{"x": normal(t, t, 1, SIZE)} for t in (1, 40)]
    program = agree(layer(op, "forward", ternary=True), workers, *feeds, **DIMS)
    (body,) = loops_of(program)
    anchors = [type(s.anchor.op) for s in body.steps]
    assert ops.PackedDot in anchors
    assert ops.MatMul not in anchors
    assert any(isinstance(s.anchor.op, ops.PackedDot) for s in program.steps)


def test_weights_that_are_inputs_are_transposed_before_the_loop(workers: Workers) -> None:
    proto = layer("GRU", "forward")
    feeds = [{"x": normal(1, 7, 1, SIZE)}]
    for name in ("w", "r"):
        tensor = next(t for t in proto.graph.initializer if t.name == name)
        feeds[0][name] = numpy_helper.to_array(tensor)
        proto.graph.initializer.remove(tensor)
        proto.graph.input.append(value_info(name, F, feeds[0][name].shape))
    (body,) = loops_of(agree(proto, workers, *feeds, **DIMS))
    assert not any(isinstance(s.root.op, ops.Transpose) for s in body.steps)


def test_equal_layers_share_their_code(workers: Workers) -> None:
    names = ["w1", "r1", "w2", "r2"]
    first, second = (
        helper.make_node("LSTM", [x, w, r], [y], hidden_size=SIZE)
        for x, w, r, y in (("x", *names[:2], "a"), ("b", *names[2:], "y"))
    )
    constants = {n: normal(i, 1, 4 * SIZE, SIZE) for i, n in enumerate(names)}
    lines = nodes("b = Squeeze(a, one)")
    proto = model(
        [first, *lines, second], {"x": (F, ["t", 1, SIZE])}, ["y"], {**constants, "one": i64(1)}
    )
    target = resolve_target("x86-64")
    program = lower(frontend.load(proto, dims={"t": (1, 9)}).graph, target)
    code = assemble(program, target, "m", workers).code
    made = [n for n in (*code.glue.functions, *code.hand.functions) if "_step" in n]
    assert len(made) < len({id(s) for s in program.all_steps if s.rounds is None})


@pytest.mark.parametrize("name", ["armv8", "armv7"])
def test_a_layer_elsewhere(name: str, workers: Workers) -> None:
    target = resolve_target(name)
    if missing := can_run(target):
        pytest.skip(missing)
    program = lower(frontend.load(layer("LSTM", "forward", True), dims=DIMS).graph, target)
    with Emulated(assemble(program, target, "m", workers)) as emulated:
        graph = frontend.load(layer("LSTM", "forward", True), dims=DIMS).graph
        for steps in (0, 5):
            feeds = {"x": normal(1, steps, 2, SIZE)}
            expected = reference.run_graph(Native(graph, workers).lowered, feeds)
            for output, array in emulated.run(feeds).items():
                assert_same(array, expected[output])


# -- bodies ---------------------------------------------------------------------------------------


def typed(name: str, dtype: Any, *shape: int | str) -> onnx.ValueInfoProto:
    return value_info(name, dtype, shape)


def body(
    made: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
) -> onnx.GraphProto:
    return helper.make_graph(list(made), "body", list(inputs), list(outputs))


COUNTER = typed("i", np.int64), typed("go", np.bool_)


def looping(
    lines: Sequence[str | onnx.NodeProto], trips: str = "", going: str = "", rows: bool = True,
    before: Sequence[str] = (), constants: dict[str, Array] | None = None, **more: Any,
) -> onnx.ModelProto:  # fmt: skip
    """A Loop that carries h[3] from x[t, 3]'s sum on; the body's lines make again, h1 and row."""
    made = [n for line in lines for n in (nodes(line) if isinstance(line, str) else [line])]
    row = [typed("row", F, 3)] if rows else []
    inner = body(
        made, [*COUNTER, typed("h", F, 3)], [typed("again", np.bool_), typed("h1", F, 3), *row]
    )
    node = helper.make_node(
        "Loop", [trips, going, "h0"], ["y", "rows"] if rows else ["y"], name="loop", body=inner
    )
    start = nodes("h0 = ReduceSum(x, zeroth)", h0={"keepdims": 0})
    inputs = {"x": (F, ["t", 3]), **more}
    given = {"zeroth": i64(0), "half": np.array(0.5, F), "one": i64(1)[0], **(constants or {})}
    return model(
        [*start, *nodes(*before), node], inputs, ["y", "rows"] if rows else ["y"], given, opset=18
    )


LENGTH = ("s = Shape(x)", "trips = Gather(s, zeroth)", "most = Squeeze(trips)")
STEP = ("xi = Gather(x, i)", "g = Mul(h, half)", "h1 = Add(g, xi)", "again = Identity(go)")


def test_a_loop_over_a_symbolic_length(workers: Workers) -> None:
    proto = looping([*STEP, "row = Mul(h1, h)"], "most", before=LENGTH)
    feeds = [{"x": normal(t, t, 3)} for t in (0, 1, 2, 17)]
    program = agree(proto, workers, *feeds, t=(0, 20))
    assert len(loops_of(program)) == 1
    assert not program.checks


def test_a_loop_that_data_ends(workers: Workers) -> None:
    lines = ["g = Mul(h, half)", "h1 = Add(g, half)", "m = ReduceMax(h1)",
             "m0 = Reshape(m, scalar)", "again = Greater(m0, limit)"]  # fmt: skip
    constants = {"scalar": np.zeros(0, np.int64), "limit": np.array(1.25, F)}
    for trips, before in (("", ()), ("most", LENGTH)):
        proto = looping(lines, trips, rows=False, before=before, constants=constants)
        proto.graph.node[-1].attribute[0].g.node[2].attribute.append(
            helper.make_attribute("keepdims", 0)
        )
        feeds = [{"x": F(s) * np.abs(normal(t, t, 3))} for t, s in ((1, 0), (3, 9), (7, 900))]
        agree(proto, workers, *feeds, t=(0, 20))


@pytest.mark.parametrize("going", ["", "start"])
def test_a_number_of_rounds_that_is_data(going: str, workers: Workers) -> None:
    lines = ["f = Cast(i)", "g = Mul(h, half)", "h1 = Add(g, f)", "again = Identity(go)"]
    proto = looping(
        lines, "most", going, rows=False, most=(np.int64, []),
        **({"start": (np.bool_, [])} if going else {}),
    )  # fmt: skip
    proto.graph.node[-1].attribute[0].g.node[0].attribute.append(
        helper.make_attribute("to", TensorProto.FLOAT)
    )
    feeds: list[dict[str, Array]] = [
        {"x": normal(3, 2, 3), "most": np.array(m)} for m in (-1, 0, 1, 6)
    ]
    for number, given in enumerate(feeds):
        if going:
            given["start"] = np.array(number != 3)
    agree(proto, workers, *feeds, t=(1, 4))


def test_loops_within_loops(workers: Workers) -> None:
    inner = body(
        nodes(
            "k1 = Abs(k)",
            "both = Mul(xi, k1)",
            "k2 = Add(k, both)",
            "kept = Sub(k2, k)",
            "more = Identity(on)",
        ),
        [typed("j", np.int64), typed("on", np.bool_), typed("k", F, 3)],
        [typed("more", np.bool_), typed("k2", F, 3), typed("kept", F, 3)],
    )
    nested = helper.make_node("Loop", ["most", "", "h"], ["h2", "all"], body=inner)
    total = helper.make_node("ReduceSum", ["all", "zeroth"], ["sum"], keepdims=0)
    lines = ["xj = Gather(x, i)", "xi = Mul(xj, tenth)", nested, total, "h1 = Mul(h2, half)",
             "row = Add(sum, xi)", "again = Identity(go)"]  # fmt: skip
    proto = looping(lines, "most", before=LENGTH, constants={"tenth": np.array(0.1, F)})
    program = agree(proto, workers, *({"x": normal(t, t, 3)} for t in (0, 1, 6)), t=(0, 9))
    outer, inside = loops_of(program)
    assert [s.rounds is not None for s in outer.steps].count(True) == 1
    assert not loops_of(inside)


def test_a_wrong_index_in_a_round_ends_the_call(workers: Workers) -> None:
    lines = ["at = Gather(indices, i)", "xi = Gather(x, at)", *STEP[1:], "row = Identity(h1)"]
    proto = looping(lines, "most", before=LENGTH, indices=(np.int64, ["t"]))
    x = normal(1, 5, 3)
    agree(proto, workers, {"x": x, "indices": i64(4, 0, -5, 1, 1)}, t=(0, 9))
    compiled = Native(frontend.load(proto, dims={"t": (0, 9)}).graph, workers)
    for wrong in (i64(5, 0, 0, 0, 0), i64(0, 0, 0, 0, -6)):
        assert compiled.run({"x": x, "indices": wrong}).status == _BAD_VALUE


def test_what_a_loop_cannot_do_is_named() -> None:
    by_data = [*STEP[1:3], "m = ReduceMax(h1)", "z = Sub(m, half)", "again = Cast(z)",
               "row = Identity(h)"]  # fmt: skip
    lines = ["xi = Abs(h)", *by_data]
    proto = looping(lines)
    inner = proto.graph.node[-1].attribute[0].g.node
    inner[-2].attribute.append(helper.make_attribute("to", TensorProto.BOOL))
    with pytest.raises(Unsupported, match=r"node 'loop': Loop: .*number of its scan outputs"):
        frontend.load(proto)
    endless = looping(["h1 = Abs(h)", "again = Identity(go)"], rows=False)
    with pytest.raises(Unsupported, match="node 'loop': Loop: its rounds, written out"):
        frontend.load(endless)
    growing = looping(["h1 = Concat(h, h)", "again = Identity(go)"], "most", rows=False,
                      before=LENGTH)  # fmt: skip
    growing.graph.node[-1].attribute[0].g.node[0].attribute.append(helper.make_attribute("axis", 0))
    with pytest.raises(Unsupported, match=r"a loop turns a value of type f32\[3\] into"):
        frontend.load(growing, dims={"t": (0, 9)})


def test_a_loop_whose_value_grows_is_written_out(workers: Workers) -> None:
    inner = body(
        nodes("again = Identity(go)", "h1 = Concat(h, x)", h1={"axis": 0}),
        [*COUNTER, typed("h", F, "m", 3)],
        [typed("again", np.bool_), typed("h1", F, "k", 3)],
    )
    node = helper.make_node("Loop", ["six", "", "x"], ["y"], body=inner)
    proto = model([node], {"x": (F, ["t", 3])}, ["y"], {"six": i64(6)[0]})
    program = agree(proto, workers, {"x": normal(1, 2, 3)}, t=(0, 5))
    assert not loops_of(program)
    assert str(program.outputs[0][1].type) == "f32[t*7, 3]"


# -- Scan -----------------------------------------------------------------------------------------


def scanning(**attributes: Any) -> onnx.ModelProto:
    inner = body(
        nodes("s1 = MatMul(s, w)", "s2 = Add(s1, a)", "out = Mul(s2, b)", "s3 = Tanh(s2)"),
        [typed(n, F, 3) for n in ("s", "a", "b")],
        [typed(n, F, 3) for n in ("s3", "out")],
    )
    node = helper.make_node(
        "Scan", ["s0", "a0", "b0"], ["y", "z"], body=inner, num_scan_inputs=2, **attributes
    )
    inputs: dict[str, Any] = {"s0": (F, [3]), "a0": (F, ["t", 3]), "b0": (F, [3, "t"])}
    return model([node], inputs, ["y", "z"], {"w": normal(9, 3, 3)})


@pytest.mark.parametrize("back", [(0, 0, 0), (1, 0, 1), (0, 1, 1)])
def test_a_scan_of_symbolic_length(back: tuple[int, int, int], workers: Workers) -> None:
    proto = scanning(
        scan_input_axes=[0, 1], scan_input_directions=back[:2], scan_output_axes=[1],
        scan_output_directions=back[2:],
    )  # fmt: skip
    feeds = [{"s0": normal(1, 3), "a0": normal(2, t, 3), "b0": normal(3, 3, t)} for t in (1, 2, 12)]
    assert loops_of(agree(proto, workers, *feeds, t=(0, 12)))


def test_activations_quantised_in_a_round_are_multiplied_in_integers(workers: Workers) -> None:
    inner = body(
        nodes("q = QuantizeLinear(s, scale, zero)", "d = DequantizeLinear(q, scale, zero)",
              "m = MatMul(d, w)", "e = Add(m, a)", "s1 = Tanh(e)", "out = Identity(e)"),
        [typed(n, F, 1, 32) for n in ("s", "a")], [typed(n, F, 1, 32) for n in ("s1", "out")],
    )  # fmt: skip
    node = helper.make_node("Scan", ["s0", "a0"], ["y", "z"], body=inner, num_scan_inputs=1)
    constants = {"scale": np.array(1 / 64, F), "zero": np.array(0, np.int8),
                 "w": weights(True, 5, 32, 32)}  # fmt: skip
    proto = model([node], {"s0": (F, [1, 32]), "a0": (F, ["t", 1, 32])}, ["y", "z"], constants)
    feeds = [{"s0": normal(1, 1, 32), "a0": normal(2, t, 1, 32)} for t in (1, 9)]
    (inside,) = loops_of(agree(proto, workers, *feeds, t=(0, 20)))
    dots = [s.anchor for s in inside.steps if isinstance(s.anchor.op, ops.PackedDot)]
    assert [d.args[0].type.dtype.name for d in dots] == ["i8"]


@pytest.mark.parametrize("op", ["Scan", "Loop"])
def test_weights_of_a_round_are_constants_where_it_is_written_out(
    op: str, workers: Workers
) -> None:
    stack, state = weights(True, 5, 6, 16, 16), typed("s", F, 1, 16)
    if op == "Scan":
        inner = body(nodes("m = MatMul(s, u)", "s1 = Tanh(m)"), [state, typed("u", F, 16, 16)],
                     [typed("s1", F, 1, 16)])  # fmt: skip
        node = helper.make_node("Scan", ["x", "stack"], ["y"], body=inner, num_scan_inputs=1)
    else:
        made = nodes("u = Gather(stack, i)", "m = MatMul(s, u)", "s1 = Tanh(m)", "b = Identity(go)")
        ends = [typed("b", np.bool_), typed("s1", F, 1, 16)]
        node = helper.make_node(
            "Loop", ["six", "", "x"], ["y"], body=body(made, [*COUNTER, state], ends)
        )
    proto = model([node], {"x": (F, [1, 16])}, ["y"], {"stack": stack, "six": i64(6)[0]})
    program = agree(proto, workers, {"x": normal(1, 1, 16)})
    assert not loops_of(program)
    assert sum(isinstance(s.anchor.op, ops.PackedDot) for s in program.steps) == 6


@pytest.mark.parametrize("op", ["Scan", "Loop"])
def test_what_every_round_passes_on_is_no_state(op: str, workers: Workers) -> None:
    """A ternary weight, in a Loop the sequence too, carried from round to round beside a state."""
    state, weight = typed("s", F, 1, 16), typed("w", F, 16, 16)
    lines = ["m = MatMul(s, w)", "e = Add(m, a)", "s1 = Tanh(e)", "wi = Identity(w)",
             "w1 = Identity(wi)", "out = Identity(e)"]  # fmt: skip
    ends = [typed("w1", F, 16, 16), typed("s1", F, 1, 16)]
    if op == "Scan":
        inner = body(nodes(*lines), [weight, state, typed("a", F, 1, 16)],
                     [*ends, typed("out", F, 1, 16)])  # fmt: skip
        args, more = ["w0", "s0", "a0"], {"num_scan_inputs": 1}
    else:
        lines += ["a = Gather(x, i)", "x1 = Identity(x)", "again = Identity(go)"]
        lines.insert(0, lines.pop(6))
        inner = body(
            nodes(*lines), [*COUNTER, weight, state, typed("x", F, "t", 1, 16)],
            [typed("again", np.bool_), *ends, typed("x1", F, "t", 1, 16),
             typed("out", F, 1, 16)],
        )  # fmt: skip
        args, more = ["most", "", "w0", "s0", "a0"], {}
    results = ["last_w", "last", *(["all"] if op == "Loop" else []), "y"]
    node = helper.make_node(op, args, results, body=inner, **more)
    before = nodes("size = Shape(a0)", "trips = Gather(size, zeroth)", "most = Squeeze(trips)")
    proto = model(
        [*(before if op == "Loop" else []), node],
        {"s0": (F, [1, 16]), "a0": (F, ["t", 1, 16])},
        results,
        {"w0": weights(True, 5, 16, 16), "zeroth": i64(0)},
        opset=18,
    )
    feeds = [{"s0": normal(1, 1, 16), "a0": normal(2, t, 1, 16)} for t in (0, 1, 9)]
    (inside,) = loops_of(agree(proto, workers, *feeds[op == "Scan" :], t=(0, 20)))
    assert any(isinstance(s.anchor.op, ops.PackedDot) for s in inside.steps)
