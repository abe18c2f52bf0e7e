"""ONNX's own node tests: each is computed right, or is on the list of what is refused.

Of the tests that hold the body of a function instead of its call, every fourth is run.
"""

from __future__ import annotations

import re
import warnings
import zlib
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests
from onnx_models import Array, by_tbc, tolerance

from tbc import frontend
from tbc.errors import Unsupported
from tbc.frontend import Imported
from tbc.types import BY_ONNX_CODE

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    CASES = {
        case.name: case
        for case in load_model_tests(kind="node")
        if not case.name.endswith("_expanded") or zlib.crc32(case.name.encode()) % 4 == 0
    }

UNSUPPORTED_OPERATORS = {
    "Bernoulli", "ImageDecoder", "MaxUnpool", "NonMaxSuppression", "OptionalGetElement",
    "OptionalHasElement", "RandomUniformLike", "SequenceConstruct", "SplitToSequence",
    "TfIdfVectorizer",
}  # fmt: skip
UNSUPPORTED_CASES = re.compile(
    r"test_(training_dropout.*|batchnorm_.*training_mode"
    r"|if_opt|if_seq|not_.d"
    r")"
)
"""Training, bodies with sequences, opset 1."""


def is_refused(model: onnx.ModelProto, name: str) -> bool:
    nodes = model.graph.node
    domains = {n.domain for n in nodes} - {"", "ai.onnx.preview"}
    types = [i.type for i in (*model.graph.input, *model.graph.output)]
    foreign = any(
        t.WhichOneof("value") != "tensor_type" or t.tensor_type.elem_type not in BY_ONNX_CODE
        for t in types
    )
    named = UNSUPPORTED_CASES.fullmatch(name) is not None
    return bool(domains or foreign or named or {n.op_type for n in nodes} & UNSUPPORTED_OPERATORS)


def as_array(given: Any) -> Array:
    return np.asarray(
        numpy_helper.to_array(given) if isinstance(given, onnx.TensorProto) else given
    )


def load_with_shapes(model: onnx.ModelProto, feeds: dict[str, Array]) -> Imported:
    """The import; integer inputs, then all, become constants where shapes depend on them."""
    whole = {n: a for n, a in feeds.items() if a.dtype.kind in "iub"}
    for values in ({}, whole):
        try:
            return frontend.load(model, input_values=values)
        except Unsupported:
            continue
    return frontend.load(model, input_values=feeds)


def check(case: Any, model: onnx.ModelProto) -> None:
    """The model, which may be the case's with other sizes, computes what the case expects."""
    for inputs, outputs in case.data_sets:
        names = [i.name for i in model.graph.input]
        feeds = {n: as_array(a) for n, a in zip(names, inputs, strict=True)}
        imported = load_with_shapes(model, feeds)
        typed = {
            i.op.name: feeds[i.op.name].astype(i.type.dtype.numpy)  # type: ignore[attr-defined]
            for i in imported.graph.inputs
        }
        for got, expected, declared in zip(
            by_tbc(imported, typed), outputs, model.graph.output, strict=True
        ):
            assert BY_ONNX_CODE[declared.type.tensor_type.elem_type].numpy == got.dtype
            wanted = as_array(expected)
            assert got.shape == wanted.shape
            np.testing.assert_allclose(
                got.astype(np.float64),
                wanted.astype(np.float64),
                rtol=max(case.rtol, tolerance(got.dtype)),
                atol=max(case.atol, 1e-6 if got.dtype.kind == "f" else 0),
            )


@pytest.mark.parametrize("name", CASES)
def test_node(name: str) -> None:
    case = CASES[name]
    if is_refused(case.model, name):
        with pytest.raises(Unsupported):
            frontend.load(case.model)
    else:
        check(case, case.model)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, case in CASES.items()
        if zlib.crc32(name.encode()) % 3 == 0 and not is_refused(case.model, name)
    ],
)
def test_node_with_symbols_for_sizes(name: str) -> None:
    """A size of 1 stays a number, since it may be there to be stretched."""
    model = onnx.ModelProto()
    model.CopyFrom(CASES[name].model)
    for tensor in model.graph.input:
        for axis, dim in enumerate(tensor.type.tensor_type.shape.dim):
            if dim.dim_value > 1:
                dim.dim_param = f"{tensor.name}_{axis}"
    check(CASES[name], model)
