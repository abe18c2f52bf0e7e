"""A model without fault, and what is asked of one that is damaged."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_models import model, normal

from tbc import frontend
from tbc.errors import TbcError


def product() -> onnx.ModelProto:
    """y = relu(x @ w), a model without fault."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="mm"),
        helper.make_node("Relu", ["a"], ["y"], name="act"),
    ]
    return model(nodes, {"x": (np.float32, ["n", 4])}, ["y"], {"w": normal(2, 4, 5)})


def refused(
    proto: onnx.ModelProto | bytes | Path, error: type[TbcError], match: str | None = None
) -> TbcError:
    start = time.perf_counter()
    with pytest.raises(error, match=match) as caught:
        frontend.load(proto)
    assert time.perf_counter() - start < 2
    return caught.value
