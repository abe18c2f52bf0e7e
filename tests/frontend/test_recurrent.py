"""RNN, GRU and LSTM in all directions and with all their options, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from onnx_models import Array, check_against_onnxruntime, model, normal, one_node

from tbc import frontend
from tbc.errors import Unsupported

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
FUNCTIONS = {"RNN": 1, "GRU": 2, "LSTM": 3}
BATCH, STEPS, SIZE, HIDDEN = 2, 4, 3, 5


def layer(
    op: str, direction: str = "forward", *, bias: bool = True, lengths: Array | None = None,
    initial: bool = True, peephole: bool = False, **attributes: Any,
) -> tuple[Any, dict[str, Array]]:  # fmt: skip
    """A model of one layer and its feeds; the last states are outputs too."""
    ways, rows = 2 if direction == "bidirectional" else 1, GATES[op] * HIDDEN
    state = normal(5, ways, BATCH, HIDDEN) if initial else None
    args: list[Array | None] = [
        normal(1, STEPS, BATCH, SIZE), normal(2, ways, rows, SIZE), normal(3, ways, rows, HIDDEN),
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
    if data.draw(st.booleans()):
        options["lengths"] = np.array([STEPS, data.draw(st.integers(1, STEPS))], np.int32)
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


def test_a_symbolic_length_is_refused_and_a_symbolic_batch_is_not() -> None:
    node = helper.make_node("RNN", ["x", "w", "r"], ["y"], name="it", hidden_size=HIDDEN)
    constants = {"w": normal(2, 1, HIDDEN, SIZE), "r": normal(3, 1, HIDDEN, HIDDEN)}
    proto = model([node], {"x": (np.float32, ["t", "n", SIZE])}, ["y"], constants)
    with pytest.raises(Unsupported, match="node 'it': RNN: the length of the sequence is t"):
        frontend.load(proto)
    (_, y) = frontend.load(proto, dims={"t": 3}).graph.outputs[0]
    assert [str(d) for d in y.type.shape] == ["3", "1", "n", str(HIDDEN)]
