"""RNN, GRU and LSTM in all directions and with all their options, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from onnx_models import (
    Array,
    assert_close,
    by_onnxruntime,
    by_tbc,
    check_against_onnxruntime,
    model,
    nodes,
    normal,
    one_node,
)

from tbc import frontend

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
FUNCTIONS = {"RNN": 1, "GRU": 2, "LSTM": 3}
BATCH, STEPS, SIZE, HIDDEN = 2, 4, 3, 5
"""So few steps are written out; more are a loop."""


def layer(
    op: str, direction: str = "forward", *, bias: bool = True, lengths: Array | None = None,
    initial: bool = True, peephole: bool = False, steps: int = STEPS, **attributes: Any,
) -> tuple[Any, dict[str, Array]]:  # fmt: skip
    """A model of one layer and its feeds; the last states are outputs too."""
    ways, rows = 2 if direction == "bidirectional" else 1, GATES[op] * HIDDEN
    state = normal(5, ways, BATCH, HIDDEN) if initial else None
    args: list[Array | None] = [
        normal(1, steps, BATCH, SIZE), normal(2, ways, rows, SIZE), normal(3, ways, rows, HIDDEN),
        normal(4, ways, 2 * rows) if bias else None, lengths, state,
    ]  # fmt: skip
    if op == "LSTM":
        args += [state, normal(6, ways, 3 * HIDDEN) if peephole else None]
    return one_node(
        op, args, constant=(1, 2, 3), outputs=3 if op == "LSTM" else 2,
        direction=direction, hidden_size=HIDDEN, **attributes,
    )  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_layer(data: st.DataObject) -> None:
    op = data.draw(st.sampled_from(sorted(GATES)))
    options: dict[str, Any] = {n: data.draw(st.booleans()) for n in ("bias", "initial")}
    steps = options["steps"] = data.draw(st.sampled_from([STEPS, STEPS + 3]))
    if data.draw(st.booleans()):
        options["lengths"] = np.array([steps, data.draw(st.integers(1, steps))], np.int32)
    if data.draw(st.booleans()):
        options["clip"] = 0.5
    if op == "GRU":
        options["linear_before_reset"] = data.draw(st.integers(0, 1))
    if op == "LSTM":
        options["peephole"] = data.draw(st.booleans())
    direction = data.draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    check_against_onnxruntime(*layer(op, direction, **options))


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize(
    "name", ["Relu", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu",
             "Softsign", "Softplus", "Affine"],
)  # fmt: skip
def test_activation(op: str, name: str) -> None:
    others = ["Sigmoid", "Tanh", "Tanh"][: FUNCTIONS[op] - 1]
    options = {"activations": [*others, name], "activation_alpha": [0.3]}
    if name in ("Affine", "ScaledTanh", "HardSigmoid"):
        options["activation_beta"] = [0.6]
    check_against_onnxruntime(*layer(op, **options))


@pytest.mark.parametrize("op", GATES)
def test_batch_first(op: str) -> None:
    """onnxruntime has no layout=1; what it makes of the transposed input is transposed."""
    constants = {"w": normal(2, 1, GATES[op] * HIDDEN, SIZE),
                 "r": normal(3, 1, GATES[op] * HIDDEN, HIDDEN)}  # fmt: skip
    feeds = {"x": normal(1, BATCH, 9, SIZE), "h": normal(5, BATCH, 1, HIDDEN)}

    def layered(layout: int, lines: list[Any], x: str, h: str, outputs: list[str]) -> Any:
        node = helper.make_node(
            op, [x, "w", "r", "", "", h], ["a", "b"], hidden_size=HIDDEN, layout=layout
        )
        inputs = {"x": (np.float32, [BATCH, "t", SIZE]), "h": (np.float32, [BATCH, 1, HIDDEN])}
        return model([*lines[:2], node, *lines[2:]], inputs, outputs, constants)

    swapped = nodes(
        "xt = Transpose(x)", "ht = Transpose(h)", "y = Transpose(a)", "last = Transpose(b)",
        xt={"perm": [1, 0, 2]}, ht={"perm": [1, 0, 2]}, y={"perm": [2, 0, 1, 3]},
        last={"perm": [1, 0, 2]},
    )  # fmt: skip
    expected = by_onnxruntime(layered(0, swapped, "xt", "ht", ["y", "last"]), feeds)
    got = by_tbc(frontend.load(layered(1, [], "x", "h", ["a", "b"])), feeds)
    for a, b in zip(got, expected, strict=True):
        assert_close(a, b)
