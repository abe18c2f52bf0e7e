"""docs/operators.md is what the tables say, and the tables are of operators that there are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from node_cases import LISTED, as_given, cases, is_covered
from operators_doc import DOCUMENT, history, text, types_of

from tbc import frontend
from tbc.errors import InvalidModel, Unsupported
from tbc.frontend.importer import CONTROL
from tbc.frontend.operators import LIMITS, ONNX, REFUSED
from tbc.types import DType


@pytest.mark.skipif(not is_covered(), reason=f"onnx {onnx.__version__} has other operators")
def test_the_document_is_current(golden: Callable[[Path, str], None]) -> None:
    golden(DOCUMENT, text())


def test_every_operator_is_compiled_or_refused() -> None:
    """Each of ONNX's operators has a lowering, a function body, or a reason why not."""
    for (domain, name), schemas in history().items():
        newest = schemas[-1]
        own = domain == "" and (name in ONNX or name in CONTROL)
        function = newest.has_function or newest.has_context_dependent_function
        assert own or function or (domain, name) in REFUSED, name
        assert not (own and (domain, name) in REFUSED), name


def test_the_tables_name_operators_that_there_are() -> None:
    known = {name for domain, name in history() if domain == ""}
    assert known >= ONNX.keys()
    assert known >= {name for _, name in REFUSED}
    assert LIMITS.keys() <= ONNX.keys() | CONTROL.keys()


EXCEPTIONS = {
    ("Attention", DType.f64): "onnx's function body mixes it with f32",
    ("Col2Im", DType.bool): "there is no sum of bools",
    **{("NonZero", d): "a constant of floats" for d in DType if d.is_float},
    **{("ReduceL2", d): "a root of integers" for d in DType if d.is_int},
    **{("Shrink", d): "onnx's function body negates it" for d in DType if d.kind == "u"},
}
"""Element types that no case of onnx's, written in that type, can be imported with."""


def in_type(case: Any, schema: Any, dtype: DType) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """A case's model with its first input, and what must have its type, in another; the inputs."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    infos = {i.name: i for i in model.graph.input}
    feeds = dict(zip(infos, map(as_given, case.data_sets[0][0]), strict=True))
    for i, name in enumerate(model.graph.node[0].input):
        formal = schema.inputs[min(i, len(schema.inputs) - 1)]
        if name and formal.type_str == schema.inputs[0].type_str:
            infos[name].type.tensor_type.elem_type = dtype.onnx
            feeds[name] = feeds[name].astype(dtype.numpy)
    return model, feeds


def is_imported(model: onnx.ModelProto, feeds: dict[str, Any]) -> bool:
    shaping = {n: a for n, a in feeds.items() if a.dtype.kind in "iub" or a.ndim < 2}
    for values in ({}, shaping):
        try:
            frontend.load(model, input_values=values)
        except (InvalidModel, Unsupported):
            continue
        return True
    return False


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_element_types() -> None:
    """Each operator is imported with every type in the document, in one of onnx's cases."""
    works: dict[tuple[str, DType], bool] = {}
    for name in LISTED:
        nodes = cases()[name].model.graph.node
        if len(nodes) > 1 or nodes[0].domain or nodes[0].op_type in ("BitCast", *CONTROL):
            continue
        op = nodes[0].op_type
        opset = next(o.version for o in cases()[name].model.opset_import if not o.domain)
        schema = onnx.defs.get_schema(op, opset, "")
        if not schema.inputs or schema.inputs[0].type_str.startswith("tensor("):
            continue
        for dtype in types_of(schema):
            if not works.get((op, dtype)):
                works[op, dtype] = is_imported(*in_type(cases()[name], schema, dtype))
    assert len(works) > 1000
    assert {key for key, done in works.items() if not done} == EXCEPTIONS.keys() & works.keys()
